"""Weights made ready for 8 bits, so that what a network gives changes least on the pictures it is calibrated on.

A quantizer gives each activation one range for all its channels, and rounds each weight by itself. MobileNet v2's first
depthwise kernels alone, so rounded, cost more than all other weights together: their nine weights are large and nearly
cancel out, so that nine small errors that do not are seen. Here, before a quantizer sees them,

- channels are scaled, the weights behind them by the inverse, so that each uses the range of its activation: Nagel et
  al., "Data-Free Quantization Through Weight Equalization and Bias Correction", https://arxiv.org/abs/1906.04721;
- weights are put on the grid of 8 bits one after the other, each error made good by those that are still to come:
  Frantar et al., "GPTQ", https://arxiv.org/abs/2210.17323; what is left of it in the mean goes into the bias.

docs/measurements.md has what each gains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from models.folding import folded_constants
from models.layers import Conv2d, DepthwiseConv2d, Followed, following
from models.network import Network

Values = dict[str, np.ndarray]
Logits = Callable[[tf.Tensor], tf.Tensor]  # of a network: preprocessed images → its logits, a DeepLab's small ones

STEPS = 127  # of a weight of 8 bits
MARGIN = 1.2  # times the largest that was seen is still within ReLU6's 6
MOST = 32.0  # that a channel is scaled by
DAMPING = 0.01  # of the mean variance, added to each: GPTQ's
LARGEST = 1152  # inputs of an output, of more the covariance is not measured
ACROSS = 33  # places of a map along either side that are measured


class Readied:
    """A network's values made ready for 8 bits, as far as no grid is chosen yet: channels are scaled, and it is known
    what layers take on some pictures.

    Args:
        logits: what of the model is computed.
        values: `models.folding.folded_values`.
        images: preprocessed float32 (1, H, W, 3), all of one shape.
    """

    def __init__(
        self, model: Network, logits: Logits, values: Mapping[str, np.ndarray], images: Sequence[np.ndarray]
    ) -> None:
        self.balanced = _balanced(model, logits, dict(values), images)
        self._taken = _taken(model, logits, self.balanced, images)

    def rounded(self, steps: int = STEPS) -> Values:
        """Values of the same network, to be quantized per channel.

        steps: of a quantizer's grid, from 0 to the largest weight of an output; of a depthwise kernel always STEPS.
        """
        values = dict(self.balanced)
        for layer, channels, mean, covariance in self._taken:
            kernel, bias = values[layer.kernel.path].copy(), layer.folded_bias.path
            weights = _by_output(layer, kernel[:, :, channels].astype(np.float64))
            found = on_grid(weights, covariance, STEPS if isinstance(layer, DepthwiseConv2d) else steps)
            error = np.einsum("gno,gn->go", found - weights, mean).reshape(-1)
            kernel[:, :, channels] = found.swapaxes(0, 1).reshape(kernel[:, :, channels].shape)
            values[layer.kernel.path] = kernel
            values[bias] = (values[bias] - error).astype(np.float32)
        return values


def taking_pixels(
    model: Network, logits: Logits, values: Mapping[str, np.ndarray], shape: Sequence[int]
) -> tuple[Values, int] | None:
    """→ (values with which the network takes `pixel - middle` instead of preprocessed pixels, middle).

    What is padded is then the middle, a whole number, instead of the mean pixel. None where that would not do, since
    the mean pixel has a colour, or channels are turned round, or other layers than a convolution take the pixels.
    """
    fed = model.preprocessing
    if len(set(fed.mean)) > 1 or fed.order != "RGB":
        return None
    takers: list[Conv2d] = []

    def find(image: tf.Tensor) -> tf.Tensor:
        followed, given = _follow(model, logits, values, image)
        takers.extend(one.layer for one in followed if one.taken is image)
        if len(takers) != len(image.consumers()):
            takers.clear()
        return given

    tf.function(find, input_signature=[tf.TensorSpec(shape, tf.float32)], autograph=False).get_concrete_function()
    if not takers:
        return None
    found, middle = dict(values), round(fed.mean[0])
    for layer in takers:
        kernel, bias = layer.kernel.path, layer.folded_bias.path
        found[kernel] = found[kernel] * np.float32(fed.scale)
        found[bias] = found[bias] + found[kernel].sum((0, 1, 2)) * np.float32(middle - fed.mean[0])
    return found, middle


def _follow(
    model: Network, logits: Logits, values: Mapping[str, np.ndarray], image: tf.Tensor
) -> tuple[list[Followed], tf.Tensor]:
    """→ (each convolution with its input and its output, the logits)"""
    followed: list[Followed] = []
    with folded_constants(model, values), following(followed):
        given = logits(image)
    return followed, given


def _measured(
    model: Network,
    logits: Logits,
    values: Mapping[str, np.ndarray],
    images: Sequence[np.ndarray],
    measure: Callable[[list[Followed]], Any],
    together: Callable[[Any, Any], Any],
) -> Any:
    """What `measure` gives of the convolutions, a nest of tensors, for all the images together."""
    spec = tf.TensorSpec(images[0].shape, tf.float32)
    run = tf.function(
        lambda image: measure(_follow(model, logits, values, image)[0]), input_signature=[spec], autograph=False
    )
    whole: Any = None
    for image in images:
        found = tf.nest.map_structure(lambda tensor: tensor.numpy().astype(np.float64), run(image))
        whole = found if whole is None else tf.nest.map_structure(together, whole, found)
    return whole


# Channels that use the range of their activation


@dataclass(frozen=True)
class _Stream:
    """Maps that share the scales of their channels, since they are added up or are but one.

    makers, takers: the convolutions they come from, and those they go to. Nothing else makes or takes them.
    """

    maps: list[tf.Tensor]
    makers: list[Conv2d]
    takers: list[Followed]


def _balanced(model: Network, logits: Logits, values: Values, images: Sequence[np.ndarray]) -> Values:
    streams: list[_Stream] = []

    def largest(followed: list[Followed]) -> list[tf.Tensor]:
        streams[:] = _streams(followed)
        return [
            tf.reduce_max(tf.stack([tf.reduce_max(tf.abs(found), (0, 1, 2)) for found in stream.maps]), 0)
            for stream in streams
        ]

    for stream, most in zip(streams, _measured(model, logits, values, images, largest, np.maximum), strict=True):
        top = 6 / MARGIN if stream.makers[0].activation is ops.relu6 else most.max()
        scale = np.where(most > 0, np.clip(top / np.maximum(most, 1e-9), 1, MOST), 1).astype(np.float32)
        for maker in stream.makers:
            by_channel = scale[:, None] if isinstance(maker, DepthwiseConv2d) else scale
            values[maker.kernel.path] = values[maker.kernel.path] * by_channel
            values[maker.folded_bias.path] = values[maker.folded_bias.path] * scale
        for taker in stream.takers:
            kernel = values[taker.layer.kernel.path].copy()
            kernel[:, :, taker.channels] /= scale[:, None]
            values[taker.layer.kernel.path] = kernel
    return values


def _streams(followed: list[Followed]) -> list[_Stream]:
    """Those whose channels can be scaled, with what a factor goes through between: ReLU, and ReLU6 as far as it does
    not cut, where nothing is added."""
    takers: dict[str, list[Followed]] = {}
    for one in followed:
        takers.setdefault(one.taken.name, []).append(one)
    makers = {one.given.name: one for one in followed if one.given is not None}
    found: dict[str, _Stream] = {}
    for name, maker in makers.items():
        if name not in found and (stream := _stream_of(maker.given, makers, takers)):
            found |= dict.fromkeys((map_.name for map_ in stream.maps), stream)
    return list({id(stream): stream for stream in found.values()}.values())


def _stream_of(first: tf.Tensor, makers: dict[str, Followed], takers: dict[str, list[Followed]]) -> _Stream | None:
    maps: dict[str, tf.Tensor] = {}
    left = [first]
    while left:
        found = left.pop()
        if found.name in maps:
            continue
        maps[found.name] = found
        sums = [operation for operation in found.consumers() if operation.type == "AddV2"]
        taken_by = found.consumers()
        if not taken_by or len(taken_by) != len(sums) + len(takers.get(found.name, ())):
            return None  # it is what the network gives, or something else takes it
        left += [operation.outputs[0] for operation in sums]
        if found.name not in makers:
            if found.op.type != "AddV2":
                return None
            left += found.op.inputs
    made_by = [makers[name].layer for name in maps if name in makers]
    allowed = (None, ops.relu, ops.relu6) if len(maps) == 1 else (None,)
    if not all(maker.activation in allowed for maker in made_by):
        return None
    return _Stream(list(maps.values()), made_by, [taker for name in maps for taker in takers.get(name, ())])


# Weights on the grid


def _taken(
    model: Network, logits: Logits, values: Values, images: Sequence[np.ndarray]
) -> list[tuple[Conv2d, slice, np.ndarray, np.ndarray | None]]:
    """→ (convolution, channels of its kernel, mean (groups, n) of what these are multiplied with, its covariance
    (groups, n, n) where it was measured), of each"""
    convolved: list[Followed] = []

    def moments(followed: list[Followed]) -> list[tuple[tf.Tensor, ...]]:
        convolved[:] = followed
        return [_moments(one.layer, one.taken) for one in followed]

    found = []
    for one, summed in zip(convolved, _measured(model, logits, values, images, moments, np.add), strict=True):
        mean, *squares = (part / len(images) for part in summed)
        covariance = squares[0] - mean[:, :, None] * mean[:, None] if squares else None
        found.append((one.layer, one.channels, mean, covariance))
    return found


def on_grid(weights: np.ndarray, covariance: np.ndarray | None = None, steps: int = STEPS) -> np.ndarray:
    """Weights (groups, n, outputs) → the same as whole multiples, up to `steps`, of a step of each output.

    covariance: (groups, n, n) of their inputs, whose outputs are to change least; None rounds to the nearest. The
    largest weight of an output stays as it is, from which a quantizer finds the step.
    """
    step = np.abs(weights).max(1) / steps
    step[step == 0] = 1
    if covariance is None:
        return np.round(weights / step[:, None]) * step[:, None]
    n = weights.shape[1]
    order = np.argsort(-np.einsum("gii->gi", covariance), axis=1, kind="stable")  # what varies most comes first
    left = np.take_along_axis(weights, order[:, :, None], 1)
    largest = np.abs(left).argmax(1, keepdims=True)
    kept = steps * step * np.sign(np.take_along_axis(left, largest, 1)[:, 0])
    ordered = np.take_along_axis(np.take_along_axis(covariance, order[:, :, None], 1), order[:, None], 2)
    variance = np.maximum(np.einsum("gii->gi", ordered), 0).mean(1)
    damping = np.where(variance > 0, DAMPING * variance, 1)
    # Where a mean is large beside what varies, rounding may have left variances below 0.
    variances, directions = np.linalg.eigh(ordered)
    inverse = (directions / (np.maximum(variances, 0) + damping[:, None])[:, None]) @ directions.swapaxes(1, 2)
    upper = np.linalg.cholesky((inverse + inverse.swapaxes(1, 2)) / 2).swapaxes(1, 2)
    for i in range(n):
        nearest = np.clip(np.round(left[:, i] / step), -steps, steps) * step
        whole = np.where(largest[:, 0] == i, kept, nearest)
        error = (left[:, i] - whole) / upper[:, i, i, None]
        left[:, i] = whole
        left[:, i + 1 :] -= upper[:, i, i + 1 :, None] * error[:, None]
    found = np.empty_like(left)
    np.put_along_axis(found, order[:, :, None], left, 1)
    return found


def _by_output(layer: Conv2d, kernel: np.ndarray) -> np.ndarray:
    """A kernel as (groups, n, outputs): of one group, or depthwise of one for each channel."""
    if isinstance(layer, DepthwiseConv2d):
        return kernel.reshape(-1, kernel.shape[2], 1).swapaxes(0, 1)
    return kernel.reshape(1, -1, kernel.shape[3])


def _moments(layer: Conv2d, taken: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """→ (mean (groups, n) of what the weights of an output are multiplied with, mean of its products (groups, n, n)).

    Without the latter where n is over LARGEST.
    """
    patches = _patches(layer, taken)  # (places, k * k, channels)
    if isinstance(layer, DepthwiseConv2d):
        by_output = tf.transpose(patches, (2, 0, 1))
    else:
        by_output = tf.reshape(patches, (1, patches.shape[0], -1))
    mean = tf.reduce_mean(by_output, 1)
    if by_output.shape[2] > LARGEST:
        return (mean,)
    return mean, tf.matmul(by_output, by_output, transpose_a=True) / by_output.shape[1]


def _patches(layer: Conv2d, taken: tf.Tensor) -> tf.Tensor:
    """(1, H, W, C) → (places, k * k, C), what the kernel covers, at about ACROSS places of the output along a side."""
    size = layer.kernel_shape[0]
    dilations = layer.dilation if isinstance(layer.dilation, tuple) else (layer.dilation,) * 2
    before, counts = [], []
    for side, dilation in zip(taken.shape[1:3], dilations, strict=True):
        reach, stride = dilation * (size - 1), layer.stride
        fixed = layer.padding
        count = -(-side // stride) if fixed is None else (side + 2 * fixed - reach - 1) // stride + 1
        same = max((count - 1) * stride + reach + 1 - side, 0)  # TensorFlow's, the odd one behind
        before.append((same // 2, same - same // 2) if fixed is None else (fixed, fixed))
        counts.append(count)
    padded = tf.pad(taken, ((0, 0), *before, (0, 0)))
    rows, columns = (
        [
            slice(tap * dilation, tap * dilation + (count - 1) * layer.stride + 1, layer.stride * -(-count // ACROSS))
            for tap in range(size)
        ]
        for count, dilation in zip(counts, dilations, strict=True)
    )
    taps = [padded[0, row, column] for row in rows for column in columns]
    return tf.reshape(tf.stack(taps, -2), (-1, size * size, taken.shape[-1]))
