"""Labels of a picture from small logits within TensorFlow's graph, without a map of logits as large as the picture.

Small logits are enlarged by rows first. Between two neighbouring points of such a row lies a strip of pixels, whose
logits are convex combinations of theirs: where both points have the same class, the whole strip has it. Only the other
strips, one in fourteen of a VOC picture, are interpolated. `inference.cells` does the like in NumPy, between four
points: to gather and scatter so many small regions costs a graph more than it saves, of strips it does not.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from models.layers import interpolation


def labels_by_strips(small: tf.Tensor, padded: Sequence[Any], size: Sequence[Any], step: int) -> tf.Tensor:
    """Logits (N, h, w, classes) → uint8 labels (N, *size): the largest of `models.layers.resize_bilinear` of them to
    `padded` with aligned corners, of the picture's own rows and columns, and of equal ones the first. Where rounding
    alone makes two equal between points that told them apart, it is the one that they have.

    padded, size: rows and columns, numbers or a graph's. step: pixels from one point of the logits to the next;
        `padded` is a multiple of it, plus one.
    """
    classes = small.shape[-1]
    strips = tf.minimum((size[1] + step - 1) // step, tf.shape(small)[2] - 1)  # those that hold the picture's columns
    small = small[:, :, : strips + 1]
    count, points, _, _ = tf.unstack(tf.shape(small))
    down = interpolation(points, padded[0])[: size[0]]
    rows = down @ tf.reshape(small, (count, points, -1))
    rows = tf.reshape(rows, (-1, strips + 1, classes))  # (N * rows, points of one, classes)

    best = _largest(rows)
    left, right = best[:, :-1], best[:, 1:]
    undecided = tf.where(left != right)
    ends = tf.gather_nd(rows, undecided[:, None] + tf.constant([[0, 0], [0, 1]], tf.int64))
    beyond = tf.range(step, dtype=tf.float32)[:, None] / step
    within = _largest(tf.concat([1 - beyond, beyond], 1) @ ends)
    labels = tf.tensor_scatter_nd_update(tf.repeat(left[..., None], step, axis=-1), undecided, within)
    whole = tf.concat([tf.reshape(labels, (count * size[0], strips * step)), best[:, -1:]], 1)
    return tf.reshape(whole[:, : size[1]], (count, *size))


def _largest(logits: tf.Tensor) -> tf.Tensor:
    """(..., classes) → uint8 (...)."""
    return tf.cast(tf.argmax(logits, -1, tf.int32), tf.uint8)
