"""Scores against independent computations, with empty classes and ignored pixels."""

import keras
import numpy as np
import pytest

from engine.metrics import class_iou, confusion_matrix, score_table, scores, scores_by_class


def random_maps(seed, classes=6, ignored=0.2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - 2, (3, 20, 20))  # two classes never occur in the labels
    predictions = np.where(rng.random(labels.shape) < 0.6, labels, rng.integers(0, classes - 1, labels.shape))
    return np.where(rng.random(labels.shape) < ignored, 255, labels), predictions


@pytest.mark.parametrize("seed", range(3))
def test_equals_keras(seed):
    labels, predictions = random_maps(seed)
    metric = keras.metrics.MeanIoU(6, ignore_class=255)
    metric.update_state(labels, predictions)
    matrix = confusion_matrix(labels, predictions, 6)
    np.testing.assert_array_equal(matrix, np.asarray(metric.total_cm))
    assert scores(matrix)["miou"] == pytest.approx(float(metric.result()), abs=1e-6)


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
    table = score_table(np.diag([5, 0]), ("ground", "sky"))
    assert "ground" in table
    assert "100.0" in table
    assert [line.split()[1] for line in table.splitlines() if line.startswith("sky")] == ["-"]
