"""MobileNet-EdgeTPU with the variable names and numbers of TF-Slim's `nets/mobilenet/mobilenet_v3.py`.

https://research.google/blog/introducing-the-next-generation-of-on-device-vision-models-mobilenetv3-and-mobilenetedgetpu/
"""

from collections.abc import Mapping

from keras import ops

from models.backbone import Backbone
from models.layers import Conv2d, Module, Scope, Tensor, serializable, strides_and_dilations
from models.mobilenet_v2 import make_divisible
from models.mobilenet_v3 import InvertedResidual

# Expansion, channels, stride of the units whose expansion is a full 3x3 convolution.
FUSED = (
    *((1, 16, 1),),
    *((8, 32, 2), (4, 32, 1), (4, 32, 1), (4, 32, 1)),
    *((8, 48, 2), (4, 48, 1), (4, 48, 1), (4, 48, 1)),
)
# Kernel, expansion, channels, stride of the depthwise ones behind them.
DEPTHWISE = (
    *((3, 8, 96, 2), (3, 4, 96, 1), (3, 4, 96, 1), (3, 4, 96, 1)),
    *((3, 8, 96, 1), (3, 4, 96, 1), (3, 4, 96, 1), (3, 4, 96, 1)),
    *((5, 8, 160, 2), (5, 4, 160, 1), (5, 4, 160, 1), (5, 4, 160, 1)),
    *((3, 8, 192, 1),),
)


class FusedInvertedResidual(Module):
    """3x3 expansion, which strides, and linear 1x1 projection; added to its input where the shapes allow."""

    end_point = "output"

    def __init__(
        self,
        in_channels: int,
        expanded: int,
        out_channels: int,
        stride: int,
        dilation: int,
        *,
        norm: Mapping[str, float],
        name: str,
    ):
        super().__init__(name=name)
        self.residual = stride == 1 and in_channels == out_channels
        self.expand = None
        if expanded != in_channels:
            self.expand = Conv2d(
                *(in_channels, expanded, 3, stride, dilation),
                batch_norm=norm,
                activation=ops.relu,
                name="expand",
                end_point="../expansion_output",
            )
        self.project = Conv2d(
            expanded, out_channels, 1, batch_norm=norm, name="project", end_point="../projection_output"
        )

    def call(self, x: Tensor) -> Tensor:
        """(N, h, w, in_channels) → (N, h / stride, w / stride, out_channels)."""
        projected = self.project(self.expand(x) if self.expand else x)
        return x + projected if self.residual else projected


@serializable
class MobileNetEdgeTPU(Backbone):
    """Root convolution, nine fused and thirteen depthwise inverted residuals, the last 1x1 convolution, and on request
    the classifier; ReLU throughout.

    Args:
        num_classes: outputs of the classifier; None for features.
        output_stride: 8, 16 or 32: beyond it units dilate instead of striding.
        depth_multiplier: on all channels, which are multiples of 8; published are 1.0 and, as "slim", 0.75.
        batch_norm_decay: of the moving statistics, under 1; slim's 0.997.
        in_channels: of the images, where they are not RGB; `preprocessing` is for three.
        global_pool: False has the classifier score every place of the features: (N, h, w, num_classes).

    Call: float images (N, H, W, 3) in [-1, 1] → features (N, h, w, `out_channels`), or float32 logits
    (N, num_classes).

    Raises ValueError for another output stride, and images of another type or shape.
    """

    def __init__(
        self,
        name: str = "MobilenetEdgeTPU",
        num_classes: int | None = None,
        output_stride: int = 32,
        depth_multiplier: float = 1.0,
        batch_norm_decay: float = 0.997,
        in_channels: int = 3,
        global_pool: bool = True,
    ):
        super().__init__(
            *(name, num_classes, output_stride, batch_norm_decay, in_channels, global_pool),
            depth_multiplier=depth_multiplier,
        )
        self.depth_multiplier = depth_multiplier
        norm = {"epsilon": 1e-3, "decay": batch_norm_decay}
        relu = {"batch_norm": norm, "activation": ops.relu}

        channels = make_divisible(32 * depth_multiplier)
        self.root = Conv2d(in_channels, channels, 3, stride=2, name="Conv", **relu)
        self.units: list[FusedInvertedResidual | InvertedResidual] = []
        units = (*((None, *fused) for fused in FUSED), *DEPTHWISE)
        rates = strides_and_dilations([stride for *_, stride in units], output_stride, reached=2)
        for index, ((kernel_size, expansion, width, _), rate) in enumerate(zip(units, rates, strict=True)):
            out_channels = make_divisible(width * depth_multiplier)
            expanded = make_divisible(channels * expansion)
            sizes = (channels, expanded, out_channels, *rate)
            scope = f"expanded_conv_{index}" if index else "expanded_conv"
            unit: FusedInvertedResidual | InvertedResidual
            if kernel_size is None:
                unit = FusedInvertedResidual(*sizes, norm=norm, name=scope)
            else:
                unit = InvertedResidual(
                    *sizes,
                    kernel_size=kernel_size,
                    residual=expansion < 8,  # the first of each group has none, of equal width or not
                    norm=norm,
                    activation=ops.relu,
                    name=scope,
                )
            self.units.append(unit)
            channels = out_channels
        self.out_channels = make_divisible(1280 * depth_multiplier)
        self.last_conv = Conv2d(channels, self.out_channels, 1, name="Conv_1", **relu)
        if num_classes is not None:
            self.logits = Scope("Logits", [Conv2d(self.out_channels, num_classes, 1, name="Conv2d_1c_1x1")])

    def features(self, images: Tensor) -> Tensor:
        """What a head is to be fed (N, h, w, C)."""
        x = self.root(images)
        for unit in self.units:
            x = unit(x)
        return self.last_conv(x)


def mobilenet_edgetpu(
    *,
    num_classes: int | None = None,
    output_stride: int = 32,
    depth_multiplier: float = 1.0,
    batch_norm_decay: float = 0.997,
    in_channels: int = 3,
    global_pool: bool = True,
    name: str = "MobilenetEdgeTPU",
) -> MobileNetEdgeTPU:
    """Builds MobileNet-EdgeTPU (slim's `mobilenet_v3`, `V3_EDGETPU`); its variables exist at once.

    Args:
        num_classes: outputs of slim's classifier, background included where there is one (1001); None: features.
        output_stride: input size over feature size: 8, 16 or 32; units beyond it dilate instead of striding.
        depth_multiplier: on all channels, over 0; published are 1.0 and, as "slim", 0.75.
        batch_norm_decay: of the moving statistics, under 1; slim's 0.997.
        in_channels: of the images, where they are not RGB; `preprocessing` is for three.
        global_pool: False has the classifier score every place of the features: (N, h, w, num_classes).
        name: slim's scope, the first part of every variable's name.

    Returns:
        MobileNetEdgeTPU: float images (N, H, W, 3) in [-1, 1] → features (N, h, w, C), or logits (N, num_classes).

    Raises:
        ValueError: another output stride.
    """
    net = MobileNetEdgeTPU(
        *(name, num_classes, output_stride, depth_multiplier, batch_norm_decay),
        in_channels=in_channels,
        global_pool=global_pool,
    )
    net.build()
    return net
