"""Labels by strips are those of logits enlarged to the picture's size, wherever an export computes them so."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from engine.options import Exporting
from exporting.served import ServedSegmenter
from exporting.strips import labels_by_strips
from models.layers import resize_bilinear
from tests.small_segmenter import CROP, levelled, small_segmenter

STRIDE_4 = {"decoder": "separable", "low_level": "block1/unit_1/bottleneck_v2/conv1"}  # of small logits
FLOATS = 1e-5  # what float32's rounding makes of two logits that are equal


def labels_by_graph(small, padded, size, step):
    """`labels_by_strips` where nothing but the number of classes is known before the graph runs."""
    lengths = tf.TensorSpec((2,), tf.int32)
    graph = tf.function(
        lambda small, padded, size: labels_by_strips(small, tf.unstack(padded), tf.unstack(size), step),
        input_signature=[tf.TensorSpec((None, None, None, small.shape[-1])), lengths, lengths],
        autograph=False,
    )
    return graph(small, tf.constant(padded), tf.constant(size)).numpy()


@pytest.mark.parametrize("labels", [labels_by_strips, labels_by_graph])
@pytest.mark.parametrize(
    ("points", "step", "size"),
    [
        ((5, 7), 16, (65, 97)),  # all of what is padded
        ((5, 7), 16, (50, 66)),  # a part, which ends within a strip
        ((5, 7), 4, (17, 16)),  # where a strip ends
        ((5, 7), 8, (1, 1)),
        ((1, 1), 16, (1, 1)),  # no strip at all
        ((4, 1), 8, (20, 1)),
    ],
)
@pytest.mark.parametrize("smooth", [False, True])
def test_labels_by_strips_are_the_largest_logits_enlarged(labels, points, step, size, smooth):
    small = np.random.default_rng(7).normal(size=(2, *points, 6)).astype("float32")
    if smooth:  # one class over large regions, as in what has learned
        small = np.stack([cv2.GaussianBlur(one, (0, 0), 2).reshape(*points, 6) for one in small])
    padded = [(point - 1) * step + 1 for point in points]
    found = np.asarray(labels(tf.constant(small), padded, size, step))
    logits = np.asarray(resize_bilinear(small, *padded))[:, : size[0], : size[1]]
    assert (found.dtype, found.shape) == (np.uint8, (2, *size))
    chosen = np.take_along_axis(logits, found[..., None].astype(int), -1)[..., 0]
    assert (logits.max(-1) - chosen).max() < FLOATS
    assert (found == logits.argmax(-1)).mean() > 0.99


def test_of_equal_logits_the_first_counts():
    small = tf.constant(np.tile(np.array([0, 3, 3, 1], np.float32), (1, 3, 4, 1)))
    assert (labels_by_strips(small, (17, 25), (17, 25), 8).numpy() == 1).all()


@pytest.mark.parametrize(
    ("options", "crop_size", "size", "by_strips"),
    [
        ({}, CROP, None, True),
        (STRIDE_4, CROP, None, True),
        ({}, CROP, (50, 70), True),  # padded to 65 and 81
        ({}, None, (49, 65), True),
        ({}, 64, None, False),  # 63 pixels in three steps
        ({}, None, None, False),  # of any size, which may be no whole steps
        ({}, None, (50, 64), False),
        ({"upsampling": "half-pixel"}, CROP, None, False),
    ],
)
def test_an_export_gives_the_labels_that_its_logits_have(options, crop_size, size, by_strips):
    rng = np.random.default_rng(3)
    pictures = [
        cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), lengths[::-1], interpolation=cv2.INTER_CUBIC)
        for lengths in ([size] if size else [(40, 57), (65, 65), (50, 90)])
    ]
    model = levelled(small_segmenter(**options), pictures)
    alone, both = (
        ServedSegmenter(model, crop_size, Exporting(size=size, outputs=outputs))
        for outputs in (("labels",), ("labels", "probabilities"))
    )
    assert (_is_by_strips(alone), _is_by_strips(both)) == (by_strips, False)
    for picture in pictures:
        found, whole = (served.any_size(tf.constant(picture[None])) for served in (alone, both))
        assert len(np.unique(whole["labels"])) > 1
        top = np.sort(np.asarray(whole["probabilities"]), -1)
        told_apart = top[..., -1] - top[..., -2] > FLOATS
        assert told_apart.mean() > 0.99
        assert (found["labels"].numpy() == whole["labels"].numpy())[told_apart].all()


def _is_by_strips(served):
    """Whether it is so in TensorFlow's graph; a converter's, for runtimes without such operations, never is."""
    there, converted = (
        any(
            operation.type == "TensorScatterUpdate"
            for operation in function.get_concrete_function().graph.get_operations()
        )
        for function in (served.any_size, served.converted)
    )
    assert not converted
    return there
