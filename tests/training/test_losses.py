"""The loss: Keras' numbers by default, PyTorch's with class weights, the hardest pixels' when asked for."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.sample import draw_voc
from data.voc import VOCSegmentation
from errors import UserError
from training.losses import CrossEntropy, balanced_weights, class_weights, pixel_counts

WEIGHTS = (0.5, 2.0, 1.0, 0.0)


@pytest.fixture(scope="module")
def batch():
    """Labels (2, 9, 7) of 0 … 3 and 255, logits (2, 9, 7, 4)."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 3, 255], (2, 9, 7), p=(0.4, 0.2, 0.1, 0.1, 0.2)).astype("int32")
    return labels, rng.normal(scale=3, size=(2, 9, 7, 4)).astype("float32")


def plain(labels, logits):
    """(cross entropy of each label that counts, that label), in float64."""
    counts = labels != 255
    logits, labels = logits[counts].astype("float64"), labels[counts]
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = exponentials / exponentials.sum(-1, keepdims=True)
    return -np.log(probabilities[np.arange(len(labels)), labels]), labels


def value_and_gradient(loss, labels, logits):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(labels, logits)
    return float(value), tape.gradient(value, logits).numpy()


def test_default_is_keras_own(batch):
    ours = value_and_gradient(CrossEntropy(ignore_label=255), *batch)
    reference = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    theirs = value_and_gradient(reference, *batch)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-8)


def test_class_weights_give_pytorch_s_weighted_mean(batch):
    losses, labels = plain(*batch)
    weights = np.array(WEIGHTS)[labels]
    found = float(CrossEntropy(WEIGHTS, ignore_label=255)(*batch))
    assert found == pytest.approx((weights * losses).sum() / weights.sum(), rel=1e-5)


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
@pytest.mark.parametrize("part", [0.25, 0.01])
def test_hard_pixels_are_those_of_the_largest_loss(batch, part, class_weights):
    losses, labels = plain(*batch)
    weights = np.array(class_weights or (1, 1, 1, 1))[labels]
    losses, weights = (weights * losses)[weights > 0], weights[weights > 0]
    hardest = np.argsort(-losses)[: int(np.ceil(part * len(losses)))]
    value, gradient = value_and_gradient(CrossEntropy(class_weights, part, ignore_label=255), *batch)
    assert value == pytest.approx(losses[hardest].sum() / weights[hardest].sum(), rel=1e-5)
    assert np.any(gradient, axis=-1).sum() == len(hardest)


@pytest.mark.parametrize("part", [1.0, 0.5])
def test_nothing_to_learn_from_is_a_loss_of_0(batch, part):
    value, gradient = value_and_gradient(CrossEntropy(WEIGHTS, part, 255), np.full((2, 9, 7), 255, "int32"), batch[1])
    assert value == 0
    assert not gradient.any()


def test_ignored_pixels_get_no_gradient(batch):
    _, gradient = value_and_gradient(CrossEntropy(ignore_label=255), *batch)
    assert not gradient[batch[0] == 255].any()
    assert np.all(np.any(gradient[batch[0] != 255], axis=-1))


def test_labels_of_images_count_all_even_255():
    labels, logits = np.array([0, 255]), np.zeros((2, 300), "float32")
    logits[:, 255] = 5
    found = float(CrossEntropy()(labels, logits))
    assert found == pytest.approx(plain(np.array([0, 299]), np.roll(logits, 44, -1))[0].mean(), rel=1e-5)


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    draw_voc(root, train=3, val=1)
    return VOCSegmentation(root, "train")


def test_balanced_weights_let_each_class_count_the_same(voc):
    counts = pixel_counts(voc)
    masks = np.concatenate([voc[i][1].ravel() for i in range(len(voc))])
    assert counts.tolist() == [int((masks == label).sum()) for label in range(voc.num_classes)]
    weights = np.array(class_weights("balanced", voc))
    shares = (weights * counts)[counts > 0]
    np.testing.assert_allclose(shares, counts.sum() / voc.num_classes, rtol=1e-4)
    assert balanced_weights([3, 0, 1]) == pytest.approx([4 / 9, 0, 4 / 3], rel=1e-5)


def test_weights_are_read_from_the_line_or_a_file(voc, tmp_path):
    (tmp_path / "weights.txt").write_text("1\n2.5\n1\n0\n3\n")
    assert class_weights(str(tmp_path / "weights.txt"), voc) == [1, 2.5, 1, 0, 3]
    assert class_weights("1,2.5,1,0,3", voc) == [1, 2.5, 1, 0, 3]
    assert class_weights(None, voc) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2", "2 weights for the data's 5 classes"),
        ("ballanced", "takes `balanced`"),
        ("1,1,1,1,-1", "0 or more"),
        ("0,0,0,0,0", "not all 0"),
        ("1,1,1,1,nan", "finite"),
    ],
)
def test_weights_that_cannot_be_are_refused(voc, text, message):
    with pytest.raises(UserError, match=message):
        class_weights(text, voc)


def test_what_is_no_file_of_weights_is_refused_before_it_is_read(voc, tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"1 " * (1 << 20))
    os.mkfifo(tmp_path / "pipe")
    for name, message in ("binary", "no text in UTF-8"), ("large", "larger than"), ("pipe", "a pipe or a device"):
        with pytest.raises(UserError, match=rf"--class-weights .*{name}.*: takes `balanced`.*{message}"):
            class_weights(str(tmp_path / name), voc)
