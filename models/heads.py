"""What DeepLabs put on a backbone: ASPP, the dense prediction cell, MobileNet v3's Lite R-ASPP, and their decoders.

All under the names of the published checkpoints, in which ASPP's layers lie beside the backbone and not in a scope.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from models.layers import (
    AtrousConv2d,
    Conv2d,
    DepthwiseConv2d,
    Module,
    Projection,
    Scope,
    Tensor,
    Unscoped,
    is_pixel,
    resize_bilinear,
)
from models.mobilenet_v3 import hard_sigmoid

LOW_LEVEL_CHANNELS = 48
# Of each branch of the dense prediction cell: the branch it is fed by, -1 for the features, and its rates by row and
# column at output stride 16 (Chen et al., https://arxiv.org/abs/1809.04184, figure 5).
DENSE_PREDICTION_CELL = ((-1, (1, 6)), (0, (18, 15)), (1, (6, 3)), (0, (1, 1)), (0, (6, 21)))


def separable(
    in_channels: int, out_channels: int, name: str, options: Mapping[str, Any], dilation: int | tuple[int, int] = 1
) -> list[Conv2d]:
    """3x3 depthwise, then 1x1, each with norm and activation (research/deeplab's `split_separable_conv2d`) → both."""
    return [
        DepthwiseConv2d(in_channels, 3, dilation=dilation, name=f"{name}_depthwise", **options),
        Conv2d(in_channels, out_channels, 1, name=f"{name}_pointwise", **options),
    ]


def in_sequence(layers: Sequence[Module], x: Tensor) -> Tensor:
    """What the first of the layers takes → what the last one gives."""
    for layer in layers:
        x = layer(x)
    return x


def resized_to(x: Tensor, like: Tensor, upsampling: str) -> Tensor:
    """(N, h, w, C) → (N, H, W, C) of the size and type of `like`; one pixel is spread without arithmetic."""
    height, width = ops.shape(like)[1:3]
    if is_pixel(x):
        return ops.broadcast_to(x, (ops.shape(x)[0], height, width, x.shape[3]))
    return ops.cast(resize_bilinear(x, height, width, upsampling), like.dtype)


class ImagePooling(Conv2d):
    """Average over the whole map, or over windows of one size, then a 1x1 convolution.

    crop: of the window (height, width), in pixels of the image: the size of the crops that the network was trained on,
        so that larger images are seen as these were (research/deeplab's `image_pooling_crop_size`). None, or a window
        that does not fit into the map: the whole map.
    step: of the windows (rows, columns), in pixels of the map.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        crop: Sequence[int] | None,
        step: Sequence[int],
        output_stride: int,
        **kwargs: Any,
    ):
        super().__init__(in_channels, out_channels, 1, name="image_pooling", **kwargs)
        self.window = None if crop is None else tuple((side - 1) // output_stride + 1 for side in crop)
        self.step = tuple(step)

    def _convolve(self, x: Tensor) -> Tensor:
        return super()._convolve(self._pooled(x))

    def _pooled(self, x: Tensor) -> Tensor:
        if self.window is None:
            return ops.mean(x, axis=(1, 2), keepdims=True)
        n, height, width, channels = ops.shape(x)
        down, across = (
            ops.cast(averaging(*axis), x.dtype) for axis in zip((height, width), self.window, self.step, strict=True)
        )
        rows = ops.reshape(ops.matmul(down, ops.reshape(x, (n, height, width * channels))), (n, -1, width, channels))
        return ops.matmul(across, rows)


def averaging(size: Any, window: int, step: int) -> Tensor:
    """float32 (windows, size): each row averages over one window of `size` points. The size may be a graph's scalar."""
    # Within a program that JAX compiles, what `ops` makes of two numbers is no number any more.
    window = min(window, size) if isinstance(size, int) else ops.minimum(window, size)
    first = ops.arange((size - window) // step + 1)[:, None] * step
    point = ops.arange(size)[None, :]
    return ops.cast((point >= first) & (point < first + window), "float32") / ops.cast(window, "float32")


class ASPP(Unscoped):
    """Atrous spatial pyramid pooling (DeepLab v3, section 3.3): image pooling, 1x1, dilated 3x3s; their projection.

    rates: dilations of `aspp1` …; separable_branches: these are `aspp1_depthwise`, `aspp1_pointwise` …; pooling:
    arguments of ImagePooling, or None for no such branch; options: of every convolution.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        options: Mapping[str, Any],
        upsampling: str,
        rates: Sequence[int],
        separable_branches: bool,
        pooling: Mapping[str, Any] | None,
    ):
        super().__init__(name="aspp")
        self.upsampling = upsampling
        self.image_pooling = None if pooling is None else ImagePooling(in_channels, channels, **pooling, **options)
        self.branches = [[Conv2d(in_channels, channels, 1, name="aspp0", **options)]] + [
            separable(in_channels, channels, f"aspp{branch}", options, rate)
            if separable_branches
            else [AtrousConv2d(in_channels, channels, rate, name=f"aspp{branch}", **options)]
            for branch, rate in enumerate(rates, start=1)
        ]
        concatenated = channels * (len(self.branches) + (pooling is not None))
        self.concat_projection = Projection(concatenated, channels, name="concat_projection", **options)

    @property
    def pointwise(self) -> list[Conv2d]:
        """The 1x1 convolutions that features go to, where none but such take them; else none."""
        if len(self.branches) > 1:
            return []
        return [*self.branches[0], *([self.image_pooling] if self.image_pooling else [])]

    def call(self, features: Tensor) -> Tensor:
        """(N, h, w, C) → (N, h, w, channels)."""
        branches = [in_sequence(branch, features) for branch in self.branches]
        if self.image_pooling:
            pooled = self.image_pooling(features)
            branches.insert(0, pooled if is_pixel(pooled) else resized_to(pooled, branches[0], self.upsampling))
        return self.concat_projection(branches)


class DensePredictionCell(Module):
    """Five separable convolutions that feed each other, found by search; their projection.

    rate_factor: of the rates, one half or more: 16 over the output stride.
    """

    def __init__(self, in_channels: int, channels: int, options: Mapping[str, Any], rate_factor: float):
        super().__init__(name="meta_architecture")
        self.branches = [
            separable(
                in_channels if source < 0 else channels,
                channels,
                f"branch{branch}",
                options,
                (max(1, int(rates[0] * rate_factor)), max(1, int(rates[1] * rate_factor))),
            )
            for branch, (source, rates) in enumerate(DENSE_PREDICTION_CELL)
        ]
        self.concat_projection = Conv2d(channels * len(self.branches), channels, 1, name="concat_projection", **options)

    def call(self, features: Tensor) -> Tensor:
        """(N, h, w, C) → (N, h, w, channels)."""
        branches: list[Tensor] = []
        for layers, (source, _) in zip(self.branches, DENSE_PREDICTION_CELL, strict=True):
            branches.append(in_sequence(layers, features if source < 0 else branches[source]))
        return self.concat_projection(ops.concatenate(branches, axis=-1))


class LiteRASPP(Unscoped):
    """Lite R-ASPP (MobileNet v3, figure 10) up to its decoder: 1x1, times a gate of the pooled features."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        options: Mapping[str, Any],
        upsampling: str,
        pooling: Mapping[str, Any],
    ):
        super().__init__(name="lr_aspp")
        self.upsampling = upsampling
        self.gate = ImagePooling(in_channels, channels, activation=hard_sigmoid, **pooling)
        self.aspp0 = Conv2d(in_channels, channels, 1, name="aspp0", **options)

    def call(self, features: Tensor) -> Tensor:
        """(N, h, w, C) → (N, h, w, channels)."""
        x, gate = self.aspp0(features), self.gate(features)
        return x * (gate if is_pixel(gate) else resized_to(gate, x, self.upsampling))


class Decoder(Module):
    """DeepLab v3+'s: the head's features beside those of stride 4 (Chen et al., https://arxiv.org/abs/1802.02611).

    kind: "separable", research/deeplab's default, or "plain" 3x3 convolutions.
    """

    def __init__(self, low_level_channels: int, channels: int, options: Mapping[str, Any], upsampling: str, kind: str):
        super().__init__(name="decoder")
        self.upsampling = upsampling
        self.projection = Conv2d(low_level_channels, LOW_LEVEL_CHANNELS, 1, name="feature_projection0", **options)
        widths = (channels + LOW_LEVEL_CHANNELS, channels)
        self.convolutions: list[Module] = []
        if kind == "separable":
            for index, width in enumerate(widths):
                self.convolutions += separable(width, channels, f"decoder_conv{index}", options)
        else:
            pair = [
                Conv2d(width, channels, 3, name=f"decoder_conv0_{index}", **options)
                for index, width in enumerate(widths, start=1)
            ]
            self.convolutions = [Scope("decoder_conv0", pair)]

    def call(self, encoded: Tensor, low_level: Tensor) -> Tensor:
        """(N, h, w, channels) and (N, H, W, C) of stride 4 → (N, H, W, channels)."""
        low_level = self.projection(low_level)
        encoded = resized_to(encoded, low_level, self.upsampling)
        return in_sequence(self.convolutions, ops.concatenate([encoded, low_level], axis=-1))


class LiteDecoder(Module):
    """Lite R-ASPP's: a 1x1 to the classes of the head's features, one of those of stride 8; the sum is the logits."""

    end_point = ""

    def __init__(self, low_level_channels: int, channels: int, num_classes: int, upsampling: str):
        super().__init__(name="decoder")
        self.upsampling = upsampling
        self.projection = Conv2d(low_level_channels, num_classes, 1, name="feature_projection0")
        self.convolution = Conv2d(channels, num_classes, 1, name="decoder_conv0")

    def call(self, encoded: Tensor, low_level: Tensor) -> Tensor:
        """(N, h, w, channels) and (N, H, W, C) of stride 8 → logits (N, H, W, num_classes)."""
        return self.projection(low_level) + self.convolution(resized_to(encoded, low_level, self.upsampling))
