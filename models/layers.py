"""The layers all networks are made of, under slim's names, and the functions between them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, NamedTuple

from keras import ops

from models.backend import (
    ON_TENSORFLOW,
    Tensor,
    add_bias,
    convolve,
    convolve_atrous,
    dilate_depthwise,
    normalize,
    normalize_by_batch,
    replicas,
    subsample,
    sum_over_replicas,
)
from models.network import (
    Module,
    Network,
    Scope,
    Unscoped,
    built_on_call,
    record,
    recording,
    serializable,
    setting,
    with_options_of,
    without_variables,
)

__all__ = [
    "ON_TENSORFLOW",
    "UPSAMPLINGS",
    "AtrousConv2d",
    "BatchNorm",
    "Conv2d",
    "DepthwiseConv2d",
    "Followed",
    "Module",
    "Network",
    "Projection",
    "Scope",
    "Tensor",
    "Unscoped",
    "batch_norm_folded",
    "built_on_call",
    "classify",
    "following",
    "interpolation",
    "is_pixel",
    "max_pool",
    "passed_over",
    "recording",
    "replicas",
    "resize_bilinear",
    "serializable",
    "strides_and_dilations",
    "subsample",
    "sum_over_replicas",
    "to_be_restored",
    "with_options_of",
    "without_variables",
]

UPSAMPLINGS = ("align-corners", "half-pixel", "tf1")
Activation = Callable[[Tensor], Tensor] | None

_folded: ContextVar[bool] = ContextVar("folded", default=False)
_followed: ContextVar[list | None] = ContextVar("followed", default=None)
_passed_over: ContextVar[Sequence["Conv2d"]] = ContextVar("passed_over", default=())
_to_be_restored: ContextVar[bool] = ContextVar("to_be_restored", default=False)


def batch_norm_folded() -> AbstractContextManager:
    """Within it, all that is left of a convolution's batch norm is its beta: for the values of `models.folding`."""
    return setting(_folded, True)


class Followed(NamedTuple):
    """A convolution that was called: which channels of its kernel were convolved with what it took; what it gave, None
    of all but the last of several that it adds up."""

    layer: "Conv2d"
    channels: slice
    taken: Tensor
    given: Tensor | None


def following(convolutions: list[Followed]) -> AbstractContextManager:
    """Within it, every convolution that is called appends itself to the list."""
    return setting(_followed, convolutions)


def passed_over(convolutions: Sequence["Conv2d"]) -> AbstractContextManager:
    """Within it, these give what they take: what they compute is in the kernels behind them (`models.folding`)."""
    return setting(_passed_over, convolutions)


def to_be_restored() -> AbstractContextManager:
    """Within it, kernels are built as zeros: drawing random ones takes longer than reading those that replace them."""
    return setting(_to_be_restored, True)


class BatchNorm(Module):
    """slim.batch_norm over the last axis: `gamma`, `beta`, `moving_mean`, `moving_variance`, all float32.

    Uses and updates batch statistics only when called with `training=True` while it is trainable and its statistics
    are not frozen: a frozen batch norm keeps its moving statistics to the bit. As in slim's fused batch norm, the
    moving variance gets the unbiased batch variance (Bessel's correction). On several devices the statistics are those
    of all their images.
    """

    def __init__(
        self,
        channels: int,
        epsilon: float = 1e-5,
        decay: float = 0.997,
        activation: Activation = None,
        name: str = "BatchNorm",
    ):
        super().__init__(name=name)
        self.channels = channels
        self.epsilon = epsilon
        self.decay = decay
        self.activation = activation
        self.statistics_frozen = False

    def build(self, input_shape: Any = None) -> None:
        """gamma, beta, moving_mean, moving_variance: (channels,) each."""

        def weight(name: str, initial: str, trainable: bool) -> Any:
            return self.add_weight(
                name=name,
                shape=(self.channels,),
                initializer=initial,
                trainable=trainable,
                dtype="float32",
                autocast=False,
                aggregation="only_first_replica",  # of what replicas assign: the same, as they share their statistics
            )

        self.gamma = weight("gamma", "ones", True)
        self.beta = weight("beta", "zeros", True)
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)
        self.built = True

    def call(self, x: Tensor, training: bool | None = False) -> Tensor:
        """(N, H, W, C) → the same shape and type, normalized and activated."""
        if training and self.trainable and not self.statistics_frozen:
            x, mean, variance = normalize_by_batch(x, self.gamma, self.beta, self.epsilon)
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance)
        else:
            x = normalize(x, self.gamma, self.beta, self.moving_mean, self.moving_variance, self.epsilon)
        return self.activation(x) if self.activation else x

    def _move(self, average: Any, value: Tensor) -> None:
        average.assign(average - (average - value) * (1.0 - self.decay))


class Conv2d(Module):
    """slim.conv2d: convolution, then batch norm (`BatchNorm` inside the layer's scope) or bias, then activation.

    Args:
        in_channels, out_channels: int.
        kernel_size, stride, dilation: int, the same in both directions.
        fixed_padding: where the stride is over 1, pad by hand and equally on both sides (slim's `conv2d_same`), so
            that the output does not depend on whether the input's size is odd or even.
        batch_norm: keyword arguments of `BatchNorm`, or None for a bias instead.
        activation: a function of the output, or None.
        initializer: of the kernel.
        end_point: where slim keeps this layer's output under another name than the layer's own.
    """

    kernel_name = "weights"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        *,
        fixed_padding: bool = False,
        batch_norm: Mapping[str, Any] | None = None,
        activation: Activation = None,
        initializer: Any = "he_normal",
        end_point: str = "",
        name: str,
    ):
        super().__init__(name=name)
        self.end_point = end_point
        self.kernel_shape = self._kernel_shape(kernel_size, in_channels, out_channels)
        self.out_channels = out_channels
        self.stride = stride
        self.dilation = dilation
        self.padding = (dilation * (kernel_size - 1)) // 2 if fixed_padding and stride > 1 else None
        self.activation = activation
        self.initializer = initializer
        self.normalizer = None if batch_norm is None else BatchNorm(out_channels, **batch_norm)

    @staticmethod
    def _kernel_shape(kernel_size: int, in_channels: int, out_channels: int) -> tuple[int, int, int, int]:
        return (kernel_size, kernel_size, in_channels, out_channels)

    def build(self, input_shape: Any = None) -> None:
        """The kernel, `weights` (k, k, in, out); `biases` (out,) or the batch norm's variables."""
        initializer = "zeros" if _to_be_restored.get() else self.initializer
        self.kernel = self.add_weight(name=self.kernel_name, shape=self.kernel_shape, initializer=initializer)
        self.bias = None
        if self.normalizer is None:
            self.bias = self.add_weight(name="biases", shape=(self.out_channels,), initializer="zeros")
        super().build()

    def _convolve(self, x: Tensor) -> Tensor:
        if self.padding is None:
            return convolve(x, self.kernel, self.stride, "SAME", self.dilation)
        # Padded here and not by the convolution: TensorFlow's explicit padding keeps it from its fast CPU kernels.
        pad = (self.padding, self.padding)
        return convolve(ops.pad(x, ((0, 0), pad, pad, (0, 0))), self.kernel, self.stride, "VALID", self.dilation)

    def call(self, x: Tensor) -> Tensor:
        """(N, H, W, in) → (N, ceil(H / stride), ceil(W / stride), out)."""
        if self in _passed_over.get():
            return x
        given = self._finished(self._convolve(x))
        self._told(x, given)
        return given

    def _finished(self, x: Tensor) -> Tensor:
        """What was convolved, with its bias or norm, and its activation."""
        if self.normalizer is None:
            x = add_bias(x, ops.cast(self.bias, x.dtype))
        elif _folded.get():
            x = add_bias(x, ops.cast(self.normalizer.beta, x.dtype))
        else:
            x = self.normalizer(x)
        return self.activation(x) if self.activation else x

    def _told(self, taken: Tensor, given: Tensor | None, channels: slice = slice(None)) -> None:
        if (followed := _followed.get()) is not None:
            followed.append(Followed(self, channels, taken, given))

    @property
    def folded_bias(self) -> Any:
        """The variable that is added to what is convolved, once a batch norm is folded into the kernel."""
        return self.bias if self.normalizer is None else self.normalizer.beta


class Projection(Conv2d):
    """A 1x1 `Conv2d` of maps side by side, of which the first may be one pixel that counts at every place.

    That one's share is computed once, as if it were spread over the map and concatenated, which takes longer than all
    of it: 2.3 of MobileNet v2's 8.9 ms in LiteRT's 8 bits.
    """

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any):
        super().__init__(in_channels, out_channels, 1, **kwargs)

    def call(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, 1, 1, C) or (N, h, w, C), and (N, h, w, C) each → (N, h, w, out)."""
        first, *others = maps
        if not others or not is_pixel(first):
            return super().call(ops.concatenate(maps, axis=-1))
        rest = ops.concatenate(others, axis=-1) if len(others) > 1 else others[0]
        count = first.shape[-1]
        # Subtracted, which is the same to the bit: OpenCV's dnn adds no pixel to what was convolved.
        less = convolve(first, -self.kernel[:, :, :count], 1, "SAME", 1)
        given = self._finished(convolve(rest, self.kernel[:, :, count:], 1, "SAME", 1) - less)
        self._told(first, None, slice(count))
        self._told(rest, given, slice(count, None))
        return given


def is_pixel(x: Tensor) -> bool:
    """Whether a map (N, h, w, C) has one pixel, as is known before it is computed."""
    return tuple(x.shape[1:3]) == (1, 1)


class AtrousConv2d(Conv2d):
    """A 3x3 `Conv2d` of stride 1 whose dilation comes near the size of the map, as in ASPP: most taps see padding."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int, **kwargs: Any):
        super().__init__(in_channels, out_channels, 3, dilation=dilation, **kwargs)

    def _convolve(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        if isinstance(height, int) and isinstance(width, int) and max(height, width) <= self.dilation:
            return convolve(x, self.kernel[1:2, 1:2], 1, "SAME", 1)  # only the middle tap ever meets the map
        return convolve_atrous(x, self.kernel, self.dilation)


class DepthwiseConv2d(Conv2d):
    """slim.separable_conv2d with no pointwise part: one filter a channel, `depthwise_weights` (k, k, channels, 1).

    dilation: may be a pair, of rows and columns.
    """

    kernel_name = "depthwise_weights"

    def __init__(
        self, channels: int, kernel_size: int, stride: int = 1, dilation: int | tuple[int, int] = 1, **kwargs: Any
    ):
        super().__init__(channels, channels, kernel_size, stride, dilation, **kwargs)  # type: ignore[arg-type]

    @staticmethod
    def _kernel_shape(kernel_size: int, in_channels: int, out_channels: int) -> tuple[int, int, int, int]:
        return (kernel_size, kernel_size, in_channels, 1)

    def _convolve(self, x: Tensor) -> Tensor:
        dilation = self.dilation if isinstance(self.dilation, tuple) else (self.dilation, self.dilation)
        if _folded.get() and self.stride == 1 and max(dilation) > 1:
            return dilate_depthwise(x, self.kernel, dilation)
        options = {"strides": self.stride, "dilation_rate": self.dilation}
        if self.padding is None:
            return ops.depthwise_conv(x, self.kernel, padding="same", **options)
        pad = (self.padding, self.padding)
        return ops.depthwise_conv(ops.pad(x, ((0, 0), pad, pad, (0, 0))), self.kernel, padding="valid", **options)


def strides_and_dilations(strides: Sequence[int], output_stride: int, reached: int) -> list[tuple[int, int]]:
    """(stride, dilation) of layers so that all together do not stride further than `output_stride`.

    Until that is reached a layer keeps its stride. After that it strides by 1, and what it would have strided by
    multiplies the dilation of those behind it, not its own: slim's `stack_blocks_dense`.

    strides: of the layers, one after the other. reached: what was strided before them.
    """
    found, dilation = [], 1
    for stride in strides:
        dense = reached * stride > output_stride
        found.append((1 if dense else stride, dilation))
        if dense:
            dilation *= stride
        else:
            reached *= stride
    return found


def max_pool(x: Tensor, size: int, stride: int) -> Tensor:
    """(N, H, W, C) → (N, ceil(H / stride), ceil(W / stride), C), padded as TensorFlow's SAME."""
    return ops.max_pool(x, size, strides=stride, padding="same")


def classify(
    features: Tensor, logits: Callable[[Tensor], Tensor], global_pool: bool = True, scope: str | None = None
) -> Tensor:
    """Features (N, h, w, C) → float32 (N, num_classes): global mean, then the 1x1 convolution `logits`.

    Records slim's end points of a classifier: `global_pool` (N, 1, 1, C), the scores and, after softmax, the
    predictions.

    global_pool: False leaves the mean out and scores every place of the features: (N, h, w, num_classes).
    scope: of a ResNet, which keeps its scores as `<scope>/spatial_squeeze`, where there is something to squeeze, and
        `predictions`; None: of a MobileNet, `Logits` and `Predictions`.
    """
    x = features
    if global_pool:
        x = ops.mean(x, axis=(1, 2), keepdims=True)
        record("global_pool", x)
    x = logits(x)
    x = ops.cast(ops.squeeze(x, axis=(1, 2)) if global_pool else x, "float32")
    if scope is None:
        record("Logits", x)
    elif global_pool:
        record(f"{scope}/spatial_squeeze", x)
    record("Predictions" if scope is None else "predictions", x, ops.softmax)
    return x


UPSAMPLINGS = ("align-corners", "half-pixel", "tf1")


def resize_bilinear(x: Tensor, height: Any, width: Any, upsampling: str = "align-corners") -> Tensor:
    """(N, h, w, C) → (N, height, width, C) float32, by one of UPSAMPLINGS.

    "align-corners": the corner pixels of both lie on each other: features of stride k sit at pixels 0, k, 2k …, which
    is where the network computed them when the input's size is a multiple of k plus one. "half-pixel": pixels are
    areas, as `tf.image.resize` has it. "tf1": the default of TensorFlow 1's `resize_bilinear`, neither of the two: the
    upper left corners lie on each other and the scale is the quotient of the sizes.
    """
    x = ops.cast(x, "float32")
    n, h, w, c = ops.shape(x)
    rows = ops.matmul(interpolation(h, height, upsampling), ops.reshape(x, (n, h, w * c)))
    return ops.matmul(interpolation(w, width, upsampling), ops.reshape(rows, (n, height, w, c)))


def interpolation(size: Any, new_size: Any, upsampling: str = "align-corners") -> Tensor:
    """float32 (new_size, size): each row weighs the two nearest of `size` points. Sizes may be scalars of a graph."""
    position = ops.arange(new_size, dtype="float32")[:, None]
    last = ops.cast(size - 1, "float32")
    if upsampling == "align-corners":
        position = position * (last / ops.cast(ops.maximum(new_size - 1, 1), "float32"))
    else:
        centre = 0.5 if upsampling == "half-pixel" else 0.0
        position = (position + centre) * ((last + 1.0) / ops.cast(new_size, "float32")) - centre
        position = ops.minimum(ops.maximum(position, 0.0), last)
    return ops.relu(1.0 - ops.abs(position - ops.arange(size, dtype="float32")[None, :]))
