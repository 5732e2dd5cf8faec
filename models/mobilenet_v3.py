"""MobileNet v3 with the variable names and numbers of TF-Slim's `nets/mobilenet/mobilenet_v3.py`.

Howard et al., "Searching for MobileNetV3", https://arxiv.org/abs/1905.02244.
"""

from collections.abc import Callable, Mapping
from typing import Any

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
    with_options_of,
)
from models.mobilenet_v2 import make_divisible


def hard_swish(x: Tensor) -> Tensor:
    """x · sigmoid(x), of straight lines (paper, section 5.2)."""
    return x * ops.relu6(x + 3.0) * (1 / 6)


def hard_sigmoid(x: Tensor) -> Tensor:
    """A gate of straight lines; 0.16667 and not 1/6, as the checkpoints were trained with it."""
    return ops.relu6(x + 3.0) * 0.16667


RE, HS = ops.relu, hard_swish
# Kernel, expanded channels, channels, squeeze-and-excite, activation, stride (paper, tables 1 and 2).
Unit = tuple[int, int, int, bool, Callable[[Tensor], Tensor], int]
LARGE: tuple[Unit, ...] = (
    (3, 16, 16, False, RE, 1),
    (3, 64, 24, False, RE, 2),
    (3, 72, 24, False, RE, 1),
    (5, 72, 40, True, RE, 2),
    (5, 120, 40, True, RE, 1),
    (5, 120, 40, True, RE, 1),
    (3, 240, 80, False, HS, 2),
    (3, 200, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 480, 112, True, HS, 1),
    (3, 672, 112, True, HS, 1),
    (5, 672, 160, True, HS, 2),
    (5, 960, 160, True, HS, 1),
    (5, 960, 160, True, HS, 1),
)
SMALL: tuple[Unit, ...] = (
    (3, 16, 16, True, RE, 2),
    (3, 72, 24, False, RE, 2),
    (3, 88, 24, False, RE, 1),
    (5, 96, 40, True, HS, 2),
    (5, 240, 40, True, HS, 1),
    (5, 240, 40, True, HS, 1),
    (5, 120, 48, True, HS, 1),
    (5, 144, 48, True, HS, 1),
    (5, 288, 96, True, HS, 2),
    (5, 576, 96, True, HS, 1),
    (5, 576, 96, True, HS, 1),
)


def for_segmentation(units: tuple[Unit, ...]) -> tuple[Unit, ...]:
    """The last three units with half the channels (paper, section 6.4)."""
    halved = [
        (kernel, expanded // 2, channels // 2, squeeze_excite, activation, stride)
        for kernel, expanded, channels, squeeze_excite, activation, stride in units[-3:]
    ]
    return (*units[:-3], *halved)


# Units, channels of `Conv_2` where there is a classifier, what Lite R-ASPP takes at stride 8.
KINDS: dict[str, tuple[tuple[Unit, ...], int | None, str]] = {
    "large": (LARGE, 1280, "expanded_conv_5/depthwise"),
    "small": (SMALL, 1024, "expanded_conv_2/depthwise"),
    "large_seg": (for_segmentation(LARGE), None, "expanded_conv_5/depthwise"),
    "small_seg": (for_segmentation(SMALL), None, "expanded_conv_2/depthwise"),
}


class SqueezeExcite(Module):
    """Each channel times a gate that the mean of all channels sets, by way of a quarter of them."""

    end_point = ""

    def __init__(self, channels: int):
        super().__init__(name="squeeze_excite")
        squeezed = make_divisible(channels / 4)
        self.squeeze = Conv2d(channels, squeezed, 1, activation=ops.relu, name="Conv")
        self.excite = Conv2d(squeezed, channels, 1, activation=hard_sigmoid, name="Conv_1")

    def call(self, x: Tensor) -> Tensor:
        """(N, h, w, channels) → the same."""
        return x * self.excite(self.squeeze(ops.mean(x, axis=(1, 2), keepdims=True)))


class InvertedResidual(Module):
    """1x1 expansion, depthwise, squeeze-and-excite, linear 1x1 projection; added to its input where shapes allow."""

    end_point = "output"

    def __init__(
        self,
        in_channels: int,
        expanded: int,
        out_channels: int,
        stride: int,
        dilation: int,
        *,
        kernel_size: int,
        activation: Callable[[Tensor], Tensor],
        norm: Mapping[str, float],
        name: str,
        squeeze_excite: bool = False,
        residual: bool = True,
    ):
        super().__init__(name=name)
        self.residual = residual and stride == 1 and in_channels == out_channels
        options: dict[str, Any] = {"batch_norm": norm, "activation": activation}
        self.expand = None
        if expanded != in_channels:
            self.expand = Conv2d(in_channels, expanded, 1, name="expand", end_point="../expansion_output", **options)
        self.depthwise = DepthwiseConv2d(
            expanded, kernel_size, stride, dilation, name="depthwise", end_point="../depthwise_output", **options
        )
        self.squeeze_excite = SqueezeExcite(expanded) if squeeze_excite else None
        self.project = Conv2d(
            expanded, out_channels, 1, batch_norm=norm, name="project", end_point="../projection_output"
        )

    def call(self, x: Tensor) -> Tensor:
        """(N, h, w, in_channels) → (N, h / stride, w / stride, out_channels)."""
        residual = self.depthwise(self.expand(x) if self.expand else x)
        if self.squeeze_excite:
            residual = self.squeeze_excite(residual)
        residual = self.project(residual)
        return x + residual if self.residual else residual


@serializable
class MobileNetV3(Backbone):
    """Root convolution, inverted residuals, the last 1x1 convolution, and on request the classifier.

    Args:
        kind: of KINDS.
        num_classes: outputs of the classifier, which the nets for segmentation have not; None for features.
        output_stride: 8, 16 or 32: beyond it units dilate instead of striding.
        batch_norm_decay: of the moving statistics, under 1; slim's 0.997.
        in_channels: of the images, where they are not RGB; `preprocessing` is for three.
        global_pool: False has the classifier score every place of the features: (N, h, w, num_classes).

    Call: float images (N, H, W, 3) in [-1, 1] → features (N, h, w, `out_channels`), or float32 logits
    (N, num_classes).

    Raises ValueError for another output stride, and images of another type or shape.
    """

    def __init__(
        self,
        kind: str,
        name: str = "MobilenetV3",
        num_classes: int | None = None,
        output_stride: int = 32,
        batch_norm_decay: float = 0.997,
        in_channels: int = 3,
        global_pool: bool = True,
    ):
        super().__init__(*(name, num_classes, output_stride, batch_norm_decay, in_channels, global_pool), kind=kind)
        units, last_channels, self.low_level = KINDS[kind]
        if num_classes is not None and last_channels is None:
            raise ValueError(f"the nets for segmentation have no classifier. Received: num_classes={num_classes}")
        norm = {"epsilon": 1e-3, "decay": batch_norm_decay}
        swish: dict[str, Any] = {"batch_norm": norm, "activation": hard_swish}

        channels = 16
        self.root = Conv2d(in_channels, channels, 3, stride=2, name="Conv", **swish)
        self.units = []
        rates = strides_and_dilations([stride for *_, stride in units], output_stride, reached=2)
        for index, (unit, (stride, dilation)) in enumerate(zip(units, rates, strict=True)):
            kernel_size, expanded, out_channels, squeeze_excite, activation, _ = unit
            self.units.append(
                InvertedResidual(
                    channels,
                    expanded,
                    out_channels,
                    stride,
                    dilation,
                    kernel_size=kernel_size,
                    activation=activation,
                    squeeze_excite=squeeze_excite,
                    norm=norm,
                    name=f"expanded_conv_{index}" if index else "expanded_conv",
                )
            )
            channels = out_channels
        self.out_channels = 6 * channels
        self.last_conv = Conv2d(channels, self.out_channels, 1, name="Conv_1", **swish)
        self.pooled_conv: Any = None
        if last_channels is not None and num_classes is not None:
            self.pooled_conv = Conv2d(self.out_channels, last_channels, 1, activation=hard_swish, name="Conv_2")
            self.logits = Scope("Logits", [Conv2d(last_channels, num_classes, 1, name="Conv2d_1c_1x1")])

    def features(self, images: Tensor) -> Tensor:
        """What a head is to be fed (N, h, w, C)."""
        x = self.root(images)
        for unit in self.units:
            x = unit(x)
        return self.last_conv(x)

    def scores(self, features: Tensor) -> Tensor:
        """Features (N, h, w, C) → logits (N, num_classes)."""
        # slim pools before Conv_2, and again behind it, where it keeps `global_pool`.
        pooled = ops.mean(features, axis=(1, 2), keepdims=True) if self.global_pool else features
        return super().scores(self.pooled_conv(pooled))


def _mobilenet_v3(
    kind: str,
    *,
    num_classes: int | None = None,
    output_stride: int = 32,
    batch_norm_decay: float = 0.997,
    in_channels: int = 3,
    global_pool: bool = True,
    name: str = "MobilenetV3",
) -> MobileNetV3:
    """Args:
        num_classes: outputs of slim's classifier, background included where there is one (1001); None: features.
        output_stride: input size over feature size: 8, 16 or 32; units beyond it dilate instead of striding.
        batch_norm_decay: of the moving statistics, under 1; slim's 0.997.
        in_channels: of the images, where they are not RGB; `preprocessing` is for three.
        global_pool: False has the classifier score every place of the features: (N, h, w, num_classes).
        name: slim's scope, the first part of every variable's name.

    Returns:
        MobileNetV3, its variables there: float images (N, H, W, 3) in [-1, 1] → features (N, h, w, C), or logits
        (N, num_classes).

    Raises:
        ValueError: another output stride, or a classifier on a net for segmentation.
    """
    net = MobileNetV3(
        *(kind, name, num_classes, output_stride, batch_norm_decay),
        in_channels=in_channels,
        global_pool=global_pool,
    )
    net.build()
    return net


@with_options_of(_mobilenet_v3)
def mobilenet_v3_large(**options: Any) -> MobileNetV3:
    """MobileNet v3 large (paper, table 1; slim's `mobilenet_v3.large`)."""
    return _mobilenet_v3("large", **options)


@with_options_of(_mobilenet_v3)
def mobilenet_v3_small(**options: Any) -> MobileNetV3:
    """MobileNet v3 small (paper, table 2; slim's `mobilenet_v3.small`)."""
    return _mobilenet_v3("small", **options)


@with_options_of(_mobilenet_v3)
def mobilenet_v3_large_seg(**options: Any) -> MobileNetV3:
    """MobileNet v3 large for segmentation: no classifier (research/deeplab's `mobilenet_v3_large_seg`)."""
    return _mobilenet_v3("large_seg", **options)


@with_options_of(_mobilenet_v3)
def mobilenet_v3_small_seg(**options: Any) -> MobileNetV3:
    """MobileNet v3 small for segmentation: no classifier (research/deeplab's `mobilenet_v3_small_seg`)."""
    return _mobilenet_v3("small_seg", **options)
