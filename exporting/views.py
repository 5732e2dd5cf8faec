"""What a classifier is shown of a picture (`data.views.View`), computed within an export's graph.

Along each axis the new pixels are weighted means of the old: a matrix for the rows and one for the columns, made of the
picture's size when the graph runs. So one graph takes pictures of any size, in every runtime.
"""

import tensorflow as tf

from data.views import SHORTER_SIDE, SQUARE, View


def seen(view: View, images: tf.Tensor) -> tf.Tensor:
    """uint8 images (N, H, W, 3) → float32 (N, size, size, 3) of whole numbers in [0, 255], as `view` gives them.

    They differ from the view's own by 1 at the most, in few places, where a mean lies between two numbers.
    """
    height, width = tf.unstack(tf.shape(images)[1:3])
    shorter = tf.minimum(height, width)
    rows, columns = (_weights(view, side, shorter) for side in (height, width))
    pixels = tf.reshape(tf.cast(images, tf.float32), tf.stack([-1, width, 3]))
    pixels = tf.matmul(columns[None], pixels)
    pixels = tf.matmul(rows[None], tf.reshape(pixels, tf.stack([-1, height, view.size * 3])))
    pixels = tf.reshape(pixels, (-1, view.size, view.size, 3))
    return tf.floor(pixels + 0.5) if view.rule == SQUARE else tf.round(pixels)  # OpenCV halves a picture so


def _weights(view: View, side: tf.Tensor, shorter: tf.Tensor) -> tf.Tensor:
    """float32 (size, side): how much of each pixel along a side of so many the new pixels are."""
    length, least = tf.cast(side, tf.float32), tf.cast(shorter, tf.float32)
    new, old = tf.range(view.size, dtype=tf.float32)[:, None], tf.range(length)
    if view.rule == SHORTER_SIDE:
        whole = tf.round(length * view.shorter_side / least)
        step = length / whole
        centre = (tf.floor((whole - view.size) / 2) + new + 0.5) * step - 0.5
        return _normalized(_triangle(old - centre, tf.maximum(step, 1.0)))
    if view.rule == SQUARE:
        part = tf.maximum(tf.round(least * view.fraction), 1.0)
        first, step = tf.floor((length - part) / 2), part / view.size
        inside = tf.cast((old >= first) & (old < first + part), tf.float32)
        start = first + new * step
        area = tf.nn.relu(tf.minimum(start + step, old + 1) - tf.maximum(start, old))
        bilinear = _triangle(old - (start + step / 2 - 0.5), 1.0)
        return _normalized(tf.where(step >= 1, area, bilinear) * inside)
    first = tf.floor((length - length * view.fraction) / 2)
    part = length - 2 * first
    return _normalized(
        _triangle(old - (first + new * (part / view.size)), 1.0) * tf.cast(old < first + part, tf.float32)
    )


def _triangle(distance: tf.Tensor, support: tf.Tensor | float) -> tf.Tensor:
    return tf.nn.relu(1 - tf.abs(distance) / support)


def _normalized(weights: tf.Tensor) -> tf.Tensor:
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)
