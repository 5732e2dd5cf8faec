"""The operations that depend on which backend Keras runs on: the only file of the networks that knows.

Everything else is `keras.ops`; a few TensorFlow fast paths (native and tap-by-tap dilated convolution, fused batch
norm, subsampling) are here because Keras' own are several times slower on a CPU.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any  # of whichever backend
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
if ON_TENSORFLOW:
    import tensorflow as tf

SLOW = (
    "TensorFlow has no gradient of dilated convolutions here, and a training step with the detour takes up to four "
    "times as long; TF_ENABLE_ONEDNN_OPTS=1 before it is imported gives it one on a CPU (importing `models` first does)"
)
LARGEST_FILLED = 5  # taps along a side, zeros included, of a dilated depthwise kernel that is filled with zeros
_native: ContextVar[bool | None] = ContextVar("native", default=None)


@contextmanager
def dilated(natively: bool) -> Iterator[None]:
    """Within it `dilate_depthwise` is traced for elsewhere: natively, for a converter to another runtime, or by
    operations that TensorFlow has on every device."""
    token = _native.set(natively)
    try:
        yield
    finally:
        _native.reset(token)


def _normalize_plainly(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, epsilon: float
) -> Tensor:
    scale = gamma * ops.rsqrt(variance + epsilon)
    return ops.cast((ops.cast(x, "float32") - mean) * scale + beta, x.dtype)


def _normalize_by_moments(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, moments: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm by `moments` (mean, biased variance) of all the replicas' x → (x, mean, unbiased variance)."""
    mean, variance = moments
    count = ops.cast(ops.size(x) // x.shape[-1] * replicas(), "float32")
    unbiased = variance * (count / ops.maximum(count - 1, 1))
    return _normalize_plainly(x, gamma, beta, mean, variance, epsilon), mean, unbiased


if ON_TENSORFLOW:

    def replicas() -> int:
        """How many replicas run this code at the same time, each on its part of the batch."""
        context = tf.distribute.get_replica_context()
        return 1 if context is None else context.num_replicas_in_sync

    def sum_over_replicas(values: Any) -> Any:
        """A tensor, or a list of them → their sums over the replicas."""
        if replicas() == 1:
            return values
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    def _native_depthwise(x: Tensor, kernel: Tensor, dilation: tuple[int, int]) -> Tensor:
        dilations = [1, *dilation, 1]
        return tf.raw_ops.DepthwiseConv2dNative(
            input=x, filter=kernel, strides=[1] * 4, padding="SAME", dilations=dilations
        )

    # On a CPU dilated kernels are oneDNN's, which TensorFlow turns on by itself only for the newer processors (`models`
    # does for all, where it comes first); on a GPU some are missing. So they are tried, on what would run them.

    def _works_here(operation: Callable[[], Any]) -> bool:
        try:
            with tf.init_scope():
                operation()
        except (tf.errors.UnimplementedError, tf.errors.InvalidArgumentError):
            return False
        return True

    @functools.cache
    def dilates_depthwise_natively() -> bool:
        """Whether TensorFlow's own depthwise convolution dilates here."""
        return _works_here(lambda: _native_depthwise(tf.ones((1, 5, 5, 2)), tf.ones((3, 3, 2, 1)), (2, 2)))

    @functools.cache
    def learns_dilated_natively() -> bool:
        """Whether TensorFlow's own dilated convolution has a gradient here."""
        ones = tf.ones  # called in the lambda, where no graph is traced
        return _works_here(
            lambda: _native_gradients(ones((1, 5, 5, 2)), ones((3, 3, 2, 2)), ones((1, 5, 5, 2)), "SAME", 2)
        )

    def _native_gradients(x: Tensor, kernel: Tensor, dy: Tensor, padding: str, dilation: int) -> tuple[Tensor, Tensor]:
        settings = {"strides": [1] * 4, "padding": padding, "dilations": [1, dilation, dilation, 1]}
        return (
            tf.raw_ops.Conv2DBackpropInput(input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, **settings),
            tf.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=tf.shape(kernel), out_backprop=dy, **settings),
        )

    def _gradients_by_detour(
        x: Tensor, kernel: Tensor, dy: Tensor, padding: str, dilation: int
    ) -> tuple[Tensor, Tensor]:
        """Those of Keras' convolution, by SpaceToBatch."""
        warnings.warn(SLOW, RuntimeWarning, stacklevel=2)
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            given = ops.conv(x, kernel, padding=padding.lower(), dilation_rate=dilation)
        return tape.gradient(given, (x, kernel), dy)

    def convolve(x: Tensor, kernel: Tensor, stride: int, padding: str, dilation: int) -> Tensor:
        """(N, H, W, C) by (k, k, C, D) → (N, h, w, D); `padding` is "SAME" or "VALID"."""

        # tf.nn.conv2d dilates natively; keras.ops.conv goes through SpaceToBatch, 3x slower a training step.
        def compute(x: Tensor, kernel: Tensor) -> Tensor:
            return tf.nn.conv2d(x, kernel, stride, padding, dilations=dilation)

        if dilation == 1 or learns_dilated_natively():
            return compute(x, ops.convert_to_tensor(kernel))
        return _learning(compute, x, kernel, padding, dilation)

    def dilate_depthwise(x: Tensor, kernel: Tensor, dilation: tuple[int, int]) -> Tensor:
        """(N, h, w, C) by (k, k, C, 1) → (N, h, w, C), padded as SAME; without a gradient.

        Where it can TensorFlow's own, which has none: Keras goes through SpaceToBatch, half as fast again, and in ONNX
        through operations that take a sixth of MobileNet v2's time. In a file that is to run anywhere, small kernels
        are filled with zeros: with oneDNN that takes 0.95 of the time of the whole network by SpaceToBatch, without
        it 1.06.
        """
        kernel, natively = tf.convert_to_tensor(kernel), _native.get()
        if dilates_depthwise_natively() if natively is None else natively:
            return _native_depthwise(x, kernel, dilation)
        constant = None if natively is None else tf.get_static_value(kernel)
        if constant is not None and all((len(constant) - 1) * rate < LARGEST_FILLED for rate in dilation):
            return tf.nn.depthwise_conv2d(x, _filled(constant, dilation), [1] * 4, "SAME")
        return ops.depthwise_conv(x, kernel, padding="same", dilation_rate=dilation)

    def _filled(kernel: np.ndarray, dilation: tuple[int, int]) -> np.ndarray:
        """(k, k, C, 1) → the same with zeros between its taps, which undilated convolves as it does dilated."""
        filled = np.zeros([(kernel.shape[0] - 1) * rate + 1 for rate in dilation] + [*kernel.shape[2:]], kernel.dtype)
        filled[:: dilation[0], :: dilation[1]] = kernel
        return filled

    def convolve_atrous(x: Tensor, kernel: Tensor, dilation: int) -> Tensor:
        """(N, h, w, C) by (3, 3, C, D) → (N, h, w, D), padded as SAME, for a dilation near the size of the map."""
        if None in x.shape[1:3]:
            return convolve(x, kernel, 1, "SAME", dilation)
        return _learning(lambda x, kernel: _sum_of_taps(x, kernel, dilation), x, kernel, "SAME", dilation)

    def _learning(
        compute: Callable[[Tensor, Tensor], Tensor], x: Tensor, kernel: Tensor, padding: str, dilation: int
    ) -> Tensor:
        """`compute`, which convolves x by the kernel, with the gradients of the dilated convolution: of taps too, whose
        own are slower."""
        gradients = _native_gradients if learns_dilated_natively() else _gradients_by_detour

        @tf.custom_gradient
        def computed(x: Tensor, kernel: Tensor) -> tuple[Tensor, Callable]:
            return compute(x, kernel), lambda dy: gradients(x, kernel, dy, padding, dilation)

        return computed(x, tf.convert_to_tensor(kernel))

    def _sum_of_taps(x: Tensor, kernel: Tensor, dilation: int) -> Tensor:
        """One 1x1 convolution a tap, over just the part of the map that the tap sees. On a CPU that takes 0.8 times
        the time of the dilated convolution in float32, and in bfloat16, which it has no good kernel for, 0.2 to 0.4."""
        height, width = x.shape[1:3]
        taps = []
        for row in range(3):
            for column in range(3):
                down, right = (row - 1) * dilation, (column - 1) * dilation
                if abs(down) >= height or abs(right) >= width:
                    continue
                top, bottom = max(0, -down), min(height, height - down)
                left, end = max(0, -right), min(width, width - right)
                seen = x[:, top + down : bottom + down, left + right : end + right]
                tap = tf.nn.conv2d(seen, kernel[row : row + 1, column : column + 1], 1, "VALID")
                taps.append(tf.pad(tap, ((0, 0), (top, height - bottom), (left, width - end), (0, 0))))
        return tf.add_n(taps)

    def subsample(x: Tensor, stride: int) -> Tensor:
        """Every stride-th pixel: slim's 1x1 max pool, which is also several times faster than a strided slice."""
        return x if stride == 1 else tf.nn.max_pool2d(x, 1, stride, "VALID")

    def add_bias(x: Tensor, bias: Tensor) -> Tensor:
        """(N, H, W, C) plus (C,)."""
        return tf.nn.bias_add(x, bias)  # unlike a plain sum, this becomes a part of the convolution

    def _mean_of_all(x: Tensor) -> Tensor:
        """The mean of each channel over all replicas' x (n, H, W, C), which are of one size."""
        return sum_over_replicas(ops.mean(x, axis=(0, 1, 2))) / replicas()

    def normalize_by_batch(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
        """Batch norm over the last axis by the batch's own statistics → (x, mean, unbiased variance)."""
        if replicas() > 1:
            wide = ops.cast(x, "float32")
            mean = _mean_of_all(wide)
            moments = mean, _mean_of_all(ops.square(wide - mean))
            return _normalize_by_moments(x, gamma, beta, epsilon, moments)
        return tf.compat.v1.nn.fused_batch_norm(x, gamma.value, beta.value, epsilon=epsilon, is_training=True)

    def normalize(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
        """Batch norm over the last axis by the statistics given."""
        return tf.compat.v1.nn.fused_batch_norm(
            x, gamma.value, beta.value, mean.value, variance.value, epsilon=epsilon, is_training=False
        )[0]

else:

    def replicas() -> int:
        """One: under JAX one program computes the whole batch, wherever its parts are."""
        return 1

    def sum_over_replicas(values: Any) -> Any:
        """The values, which are the whole batch's."""
        return values

    def convolve(x: Tensor, kernel: Tensor, stride: int, padding: str, dilation: int) -> Tensor:
        """(N, H, W, C) by (k, k, C, D) → (N, h, w, D); `padding` is "SAME" or "VALID"."""
        return ops.conv(x, kernel, strides=stride, padding=padding.lower(), dilation_rate=dilation)

    def dilate_depthwise(x: Tensor, kernel: Tensor, dilation: tuple[int, int]) -> Tensor:
        """(N, h, w, C) by (k, k, C, 1) → (N, h, w, C), padded as SAME."""
        return ops.depthwise_conv(x, kernel, padding="same", dilation_rate=dilation)

    def convolve_atrous(x: Tensor, kernel: Tensor, dilation: int) -> Tensor:
        """(N, h, w, C) by (3, 3, C, D) → (N, h, w, D), padded as SAME, for a dilation near the size of the map."""
        return convolve(x, kernel, 1, "SAME", dilation)

    def subsample(x: Tensor, stride: int) -> Tensor:
        """Every stride-th pixel, as slim's 1x1 max pool."""
        return x if stride == 1 else x[:, ::stride, ::stride, :]

    def add_bias(x: Tensor, bias: Tensor) -> Tensor:
        """(N, H, W, C) plus (C,)."""
        return x + bias

    def normalize_by_batch(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
        """Batch norm over the last axis by the batch's own statistics → (x, mean, unbiased variance)."""
        moments = ops.moments(ops.cast(x, "float32"), axes=(0, 1, 2))
        return _normalize_by_moments(x, gamma, beta, epsilon, moments)

    def normalize(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
        """Batch norm over the last axis by the statistics given."""
        return _normalize_plainly(x, gamma, beta, mean, variance, epsilon)
