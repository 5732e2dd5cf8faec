"""MobileNet-EdgeTPU with the variable names and numbers of TF-Slim's `nets/mobilenet/mobilenet_v3.py`.

https://research.google/blog/introducing-the-next-generation-of-on-device-vision-models-mobilenetv3-and-mobilenetedgetpu/
"""

from keras import ops

from models.layers import Conv2d, Module, Network, Scope, classify, strides_and_dilations
from models.mobilenet_v2 import make_divisible
from models.mobilenet_v3 import InvertedResidual
from models.preprocessing import UNIT_RANGE

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

    def __init__(self, in_channels, expanded, out_channels, stride, dilation, *, norm, name):
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

    def call(self, x):
        projected = self.project(self.expand(x) if self.expand else x)
        return x + projected if self.residual else projected


class MobileNetEdgeTPU(Network):
    """Root convolution, nine fused and thirteen depthwise inverted residuals, the last 1x1 convolution, and on request
    the classifier; ReLU throughout.

    Args:
        num_classes: outputs of the classifier; None for features.
        output_stride: 8, 16 or 32: beyond it units dilate instead of striding.
        depth_multiplier: on all channels, which are multiples of 8; published are 1.0 and, as "slim", 0.75.
        batch_norm_decay: of the moving statistics; slim's 0.997.

    Call: images (N, H, W, 3) in [-1, 1] → features (N, h, w, `out_channels`), or logits (N, num_classes).
    """

    preprocessing = UNIT_RANGE
    low_level = None  # research/deeplab has no decoder on it

    def __init__(
        self,
        name="MobilenetEdgeTPU",
        num_classes=None,
        output_stride=32,
        depth_multiplier=1.0,
        batch_norm_decay=0.997,
    ):
        super().__init__(name=name)
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride must be 8, 16 or 32. Received: {output_stride}")
        self.backbone_scope = name
        self.head_scopes = (f"{name}/Logits",)
        self.num_classes = num_classes
        self.output_stride = output_stride
        self.depth_multiplier = depth_multiplier
        norm = {"epsilon": 1e-3, "decay": batch_norm_decay}
        relu = {"batch_norm": norm, "activation": ops.relu}

        channels = make_divisible(32 * depth_multiplier)
        self.root = Conv2d(3, channels, 3, stride=2, name="Conv", **relu)
        self.units = []
        units = (*((None, *fused) for fused in FUSED), *DEPTHWISE)
        rates = strides_and_dilations([stride for *_, stride in units], output_stride, reached=2)
        for index, ((kernel_size, expansion, width, _), rate) in enumerate(zip(units, rates, strict=True)):
            out_channels = make_divisible(width * depth_multiplier)
            expanded = make_divisible(channels * expansion)
            name_of_unit = f"expanded_conv_{index}" if index else "expanded_conv"
            if kernel_size is None:
                unit = FusedInvertedResidual(channels, expanded, out_channels, *rate, norm=norm, name=name_of_unit)
            else:
                unit = InvertedResidual(
                    *(channels, expanded, out_channels, *rate),
                    kernel_size=kernel_size,
                    residual=expansion < 8,  # the first of each group has none, of equal width or not
                    norm=norm,
                    activation=ops.relu,
                    name=name_of_unit,
                )
            self.units.append(unit)
            channels = out_channels
        self.out_channels = make_divisible(1280 * depth_multiplier)
        self.last_conv = Conv2d(channels, self.out_channels, 1, name="Conv_1", **relu)
        self.classifier = None
        if num_classes is not None:
            self.classifier = Scope("Logits", [Conv2d(self.out_channels, num_classes, 1, name="Conv2d_1c_1x1")])

    def features(self, images):
        """What a head is to be fed (N, h, w, C)."""
        x = self.root(images)
        for unit in self.units:
            x = unit(x)
        return self.last_conv(x)

    raw_features = features

    def call(self, images, training=False):
        x = self.features(images)
        return classify(x, self.classifier) if self.classifier else x


def mobilenet_edgetpu(**kwargs):
    net = MobileNetEdgeTPU(**kwargs)
    net.build()
    return net
