"""Scores against independent computations, with empty classes and ignored pixels."""

import keras
import numpy as np
import pytest
import sklearn.metrics

from data.voc import VOCSegmentation
from inference.metrics import class_iou, confusion_matrix, score_rows, score_table, scores, scores_by_class


def random_maps(seed, classes=6, ignored=0.2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - 2, (3, 20, 20))  # two classes never occur in the labels
    predictions = np.where(rng.random(labels.shape) < 0.6, labels, rng.integers(0, classes - 1, labels.shape))
    return np.where(rng.random(labels.shape) < ignored, 255, labels), predictions


def assert_equals_keras_and_sklearn(labels, predictions, classes):
    matrix = confusion_matrix(labels, predictions, classes)
    valid = labels != 255
    expected = sklearn.metrics.confusion_matrix(labels[valid], predictions[valid], labels=range(classes))
    np.testing.assert_array_equal(matrix, expected)
    metric = keras.metrics.MeanIoU(classes, ignore_class=255)
    metric.update_state(labels, predictions)
    np.testing.assert_array_equal(matrix, np.asarray(metric.total_cm))
    assert scores(matrix)["miou"] == pytest.approx(float(metric.result()), abs=1e-6)
    there = np.union1d(labels[valid], predictions[valid])
    iou = sklearn.metrics.jaccard_score(labels[valid], predictions[valid], labels=there, average=None)
    np.testing.assert_allclose(class_iou(matrix)[there], iou)
    assert np.isnan(np.delete(class_iou(matrix), there)).all()
    accuracy = sklearn.metrics.accuracy_score(labels[valid], predictions[valid])
    assert scores(matrix)["pixel_accuracy"] == pytest.approx(accuracy)
    present = np.unique(labels[valid])
    recall = sklearn.metrics.recall_score(labels[valid], predictions[valid], labels=present, average="macro")
    assert scores(matrix)["mean_accuracy"] == pytest.approx(recall)
    weighted = sklearn.metrics.jaccard_score(labels[valid], predictions[valid], labels=present, average="weighted")
    assert scores(matrix)["fwiou"] == pytest.approx(weighted)


@pytest.mark.parametrize("seed", range(3))
def test_equals_keras_and_sklearn(seed):
    assert_equals_keras_and_sklearn(*random_maps(seed), 6)


def test_equals_keras_and_sklearn_on_real_masks(shared_data):
    voc = VOCSegmentation(shared_data / "VOC2012", "val")
    masks = [voc[index][1] for index in (0, 40, 80)]
    predictions = [np.roll(np.where(mask == 255, 15, mask), (5, -7), (0, 1)) for mask in masks]
    flat = [np.concatenate([part.ravel() for part in parts]) for parts in (masks, predictions)]
    assert (flat[0] == 255).any()
    assert_equals_keras_and_sklearn(*flat, 21)


def test_equals_counting_pixel_by_pixel():
    labels, predictions = random_maps(7)
    valid = labels != 255
    matrix = confusion_matrix(labels, predictions, 6)
    for label in range(6):
        meant, said = (labels == label) & valid, (predictions == label) & valid
        union = (meant | said).sum()
        expected = (meant & said).sum() / union if union else np.nan
        np.testing.assert_allclose(class_iou(matrix)[label], expected)
    assert scores(matrix)["pixel_accuracy"] == pytest.approx((labels == predictions)[valid].mean())


def test_means_are_over_the_right_classes():
    # class 0 half right, class 1 only predicted, class 2 nowhere
    matrix = np.array([[3, 3, 0], [0, 0, 0], [0, 0, 0]])
    result = scores_by_class(matrix, ("a", "b", "c"))
    assert result["iou"] == {"a": 0.5, "b": 0.0, "c": None}
    assert result["miou"] == 0.25
    assert result["miou_present"] == 0.5
    assert result["mean_accuracy"] == 0.5


def test_nothing_counted_gives_nan_not_an_error():
    assert all(np.isnan(value) for value in scores(np.zeros((3, 3))).values())


def test_table_names_every_class_and_mean():
    table = score_table({"model": np.diag([5, 0])}, ("ground", "sky"))
    assert "ground" in table
    assert "100.0" in table
    assert [line.split()[1] for line in table.splitlines() if line.startswith("sky")] == ["-"]


MATRICES = {
    "first": np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]),
    "another one": np.array([[4, 0, 0], [0, 2, 2], [0, 0, 0]]),
}


def test_several_models_stand_side_by_side():
    head, *lines = score_table(MATRICES, ("a", "b", "c")).splitlines()
    assert head.split() == ["class", "first", "another", "one", "pixels"]
    assert [line.split() for line in lines[:3]] == [
        ["a", "75.0", "100.0", "4"],
        ["b", "80.0", "50.0", "4"],
        ["c", "-", "0.0", "0"],
    ]
    assert lines[3].split() == ["mIoU", "77.50", "50.00"]
    assert len({line.rindex(" ") for line in lines[:3]}) == 1


def test_rows_for_other_programs_hold_every_class_and_mean():
    head, *rows = score_rows(MATRICES, ("a", "b", "c"))
    assert head == ["score", "class", "first", "another one"]
    assert rows[:3] == [["iou", "a", 0.75, 1.0], ["iou", "b", 0.8, 0.5], ["iou", "c", "", 0.0]]
    assert {row[0]: row[2:] for row in rows[3:]}["miou"] == [pytest.approx(0.775), 0.5]
    assert len(rows) == 3 + 5


def test_nothing_counted_is_none_in_json():
    result = scores_by_class(np.zeros((2, 2)), ("a", "b"))
    assert set(result.pop("iou").values()) == set(result.values()) == {None}
