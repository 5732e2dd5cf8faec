"""MobileNet v2 with the variable names and numbers of TF-Slim's `nets/mobilenet/mobilenet_v2.py`.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", https://arxiv.org/abs/1801.04381.
"""

from collections.abc import Mapping

from keras import ops

from models.backbone import Backbone
from models.layers import (
    Conv2d,
    DepthwiseConv2d,
    Module,
    Scope,
    Tensor,
    serializable,
    strides_and_dilations,
)

# Channels and stride of each inverted residual, at depth multiplier 1 (paper, table 2).
INVERTED_RESIDUALS = (
    *((16, 1),),
    *((24, 2), (24, 1)),
    *((32, 2), (32, 1), (32, 1)),
    *((64, 2), (64, 1), (64, 1), (64, 1)),
    *((96, 1), (96, 1), (96, 1)),
    *((160, 2), (160, 1), (160, 1)),
    *((320, 1),),
)


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, never more than 10 % below it: slim's rounding."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class InvertedResidual(Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; added to its input where the shapes allow."""

    end_point = "output"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        dilation: int,
        expansion: int,
        *,
        norm: Mapping[str, float],
        name: str,
    ):
        super().__init__(name=name)
        self.residual = stride == 1 and in_channels == out_channels
        channels = in_channels if expansion == 1 else make_divisible(in_channels * expansion)
        relu6 = {"batch_norm": norm, "activation": ops.relu6}
        self.expand = (
            None
            if expansion == 1
            else Conv2d(in_channels, channels, 1, name="expand", end_point="../expansion_output", **relu6)
        )
        self.depthwise = DepthwiseConv2d(
            channels, 3, stride, dilation, name="depthwise", end_point="../depthwise_output", **relu6
        )
        self.project = Conv2d(
            channels, out_channels, 1, batch_norm=norm, name="project", end_point="../projection_output"
        )

    def call(self, x: Tensor) -> Tensor:
        """(N, h, w, in_channels) → (N, ceil(h / stride), ceil(w / stride), out_channels)."""
        expanded = self.expand(x) if self.expand else x
        projected = self.project(self.depthwise(expanded))
        return x + projected if self.residual else projected


@serializable
class MobileNetV2(Backbone):
    """Root convolution, seventeen inverted residuals, and on request the last 1x1 convolution and the classifier.

    Args:
        num_classes: outputs of the classifier; None for features.
        output_stride: 8, 16 or 32: beyond it units dilate instead of striding.
        depth_multiplier: over 0, published 0.35 … 1.4, on all channels; the last convolution is never under 1280.
        include_last_conv: whether `Conv_1` exists; DeepLab's backbone ends before it. A classifier needs it.
        batch_norm_decay: of the moving statistics, under 1; slim's 0.997.
        divisible_by: channels are rounded to multiples of it: 8 in slim's classifiers; 1 in research/deeplab where the
            depth multiplier is not 1. What a unit expands to is a multiple of 8 in both.
        in_channels: of the images, where they are not RGB; `preprocessing` is for three.
        global_pool: False has the classifier score every place of the features: (N, h, w, num_classes).

    Call: float images (N, H, W, 3) in [-1, 1] → features (N, h, w, `out_channels`), or float32 logits
    (N, num_classes).

    Raises ValueError for another output stride, a classifier without `Conv_1`, and images of another type or shape.
    """

    low_level = "expanded_conv_2/depthwise"  # of stride 4: what research/deeplab feeds its decoder

    def __init__(
        self,
        name: str = "MobilenetV2",
        num_classes: int | None = None,
        output_stride: int = 32,
        depth_multiplier: float = 1.0,
        include_last_conv: bool = True,
        batch_norm_decay: float = 0.997,
        divisible_by: int = 8,
        in_channels: int = 3,
        global_pool: bool = True,
    ):
        super().__init__(
            *(name, num_classes, output_stride, batch_norm_decay, in_channels, global_pool),
            depth_multiplier=depth_multiplier,
            include_last_conv=include_last_conv,
            divisible_by=divisible_by,
        )
        if num_classes is not None and not include_last_conv:
            raise ValueError(f"without Conv_1 there is no classifier. Received: num_classes={num_classes}")
        self.depth_multiplier = depth_multiplier
        self.divisible_by = divisible_by
        norm = {"epsilon": 1e-3, "decay": batch_norm_decay}
        relu6 = {"batch_norm": norm, "activation": ops.relu6}

        channels = make_divisible(32 * depth_multiplier, divisible_by)
        self.root = Conv2d(in_channels, channels, 3, stride=2, name="Conv", **relu6)
        units = []
        rates = strides_and_dilations([stride for _, stride in INVERTED_RESIDUALS], output_stride, reached=2)
        for index, ((width, _), (stride, dilation)) in enumerate(zip(INVERTED_RESIDUALS, rates, strict=True)):
            out_channels = make_divisible(width * depth_multiplier, divisible_by)
            units.append(
                InvertedResidual(
                    channels,
                    out_channels,
                    stride,
                    dilation,
                    expansion=1 if index == 0 else 6,
                    norm=norm,
                    name=f"expanded_conv_{index}" if index else "expanded_conv",
                )
            )
            channels = out_channels
        self.units = units
        self.last_conv = None
        if include_last_conv:
            last = max(1280, make_divisible(1280 * depth_multiplier, divisible_by))
            self.last_conv = Conv2d(channels, last, 1, name="Conv_1", **relu6)
            channels = last
        self.out_channels = channels
        if num_classes is not None:
            self.logits = Scope("Logits", [Conv2d(channels, num_classes, 1, name="Conv2d_1c_1x1")])

    @property
    def projection(self) -> Conv2d | None:
        """The 1x1 convolution without activation that features come from; None: they come from another."""
        last = self.units[-1]
        return None if self.last_conv or last.residual else last.project

    def features(self, images: Tensor) -> Tensor:
        """What a head is to be fed (N, h, w, C)."""
        x = self.root(images)
        for unit in self.units:
            x = unit(x)
        return self.last_conv(x) if self.last_conv else x


def mobilenet_v2(
    *,
    num_classes: int | None = None,
    output_stride: int = 32,
    depth_multiplier: float = 1.0,
    include_last_conv: bool = True,
    batch_norm_decay: float = 0.997,
    divisible_by: int = 8,
    in_channels: int = 3,
    global_pool: bool = True,
    name: str = "MobilenetV2",
) -> MobileNetV2:
    """Builds MobileNet v2 (paper, table 2; slim's `mobilenet_v2.mobilenet`); its variables exist at once.

    Args:
        num_classes: outputs of slim's classifier, background included where there is one (1001); None: features.
        output_stride: input size over feature size: 8, 16 or 32; units beyond it dilate instead of striding.
        depth_multiplier: on all channels, over 0; published are 0.35, 0.5, 0.75, 1.0, 1.3 and 1.4.
        include_last_conv: whether there is a `Conv_1`; DeepLab's backbone ends before it, a classifier needs it.
        batch_norm_decay: of the moving statistics, under 1; slim's 0.997.
        divisible_by: what channels are multiples of: 8 in slim's classifiers; 1 in research/deeplab where the depth
            multiplier is not 1.
        in_channels: of the images, where they are not RGB; `preprocessing` is for three.
        global_pool: False has the classifier score every place of the features: (N, h, w, num_classes).
        name: slim's scope, the first part of every variable's name.

    Returns:
        MobileNetV2: float images (N, H, W, 3) in [-1, 1] → features (N, h, w, C), or logits (N, num_classes).

    Raises:
        ValueError: another output stride, or a classifier without `Conv_1`.
    """
    net = MobileNetV2(
        *(name, num_classes, output_stride, depth_multiplier, include_last_conv, batch_norm_decay, divisible_by),
        in_channels=in_channels,
        global_pool=global_pool,
    )
    net.build()
    return net
