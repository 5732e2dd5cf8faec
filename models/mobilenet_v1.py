"""MobileNet v1 with the variable names and numbers of TF-Slim's `nets/mobilenet_v1.py`.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
https://arxiv.org/abs/1704.04861.
"""

from keras import ops

from models.backbone import Backbone
from models.layers import Conv2d, DepthwiseConv2d, Scope, Tensor, serializable, strides_and_dilations

# Channels and stride of each separable convolution, at depth multiplier 1 (paper, table 1).
SEPARABLE_CONVOLUTIONS = (
    (64, 1),
    *((128, 2), (128, 1)),
    *((256, 2), (256, 1)),
    *((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
    *((1024, 2), (1024, 1)),
)


def scaled_channels(channels: float, depth_multiplier: float) -> int:
    """slim's rounding: down, and to 8 at least."""
    return max(8, int(channels * depth_multiplier))


@serializable
class MobileNetV1(Backbone):
    """Root convolution, thirteen separable ones (3x3 depthwise, 1x1 pointwise), and on request the classifier.

    Args:
        num_classes: outputs of the classifier; None for features.
        output_stride: 8, 16 or 32: beyond it convolutions dilate instead of striding.
        depth_multiplier: on all channels; published are 0.25, 0.5, 0.75 and 1.0.
        batch_norm_decay: of the moving statistics, under 1; slim's 0.9997.
        in_channels: of the images, where they are not RGB; `preprocessing` is for three.
        global_pool: False has the classifier score every place of the features: (N, h, w, num_classes).

    Call: float images (N, H, W, 3) in [-1, 1] → features (N, h, w, `out_channels`), or float32 logits
    (N, num_classes).

    Raises ValueError for another output stride, and images of another type or shape.
    """

    low_level = "Conv2d_3_pointwise"  # of stride 4; research/deeplab has no v1

    def __init__(
        self,
        name: str = "MobilenetV1",
        num_classes: int | None = None,
        output_stride: int = 32,
        depth_multiplier: float = 1.0,
        batch_norm_decay: float = 0.9997,
        in_channels: int = 3,
        global_pool: bool = True,
    ):
        super().__init__(
            *(name, num_classes, output_stride, batch_norm_decay, in_channels, global_pool),
            depth_multiplier=depth_multiplier,
        )
        self.depth_multiplier = depth_multiplier
        relu6 = {"batch_norm": {"epsilon": 1e-3, "decay": batch_norm_decay}, "activation": ops.relu6}

        channels = scaled_channels(32, depth_multiplier)
        layers: list[Conv2d] = [Conv2d(in_channels, channels, 3, stride=2, name="Conv2d_0", **relu6)]
        rates = strides_and_dilations([stride for _, stride in SEPARABLE_CONVOLUTIONS], output_stride, reached=2)
        for index, ((width, _), (stride, dilation)) in enumerate(
            zip(SEPARABLE_CONVOLUTIONS, rates, strict=True), start=1
        ):
            out_channels = scaled_channels(width, depth_multiplier)
            layers += [
                DepthwiseConv2d(channels, 3, stride, dilation, name=f"Conv2d_{index}_depthwise", **relu6),
                Conv2d(channels, out_channels, 1, name=f"Conv2d_{index}_pointwise", **relu6),
            ]
            channels = out_channels
        self.convolutions = layers
        self.out_channels = channels
        if num_classes is not None:
            self.logits = Scope("Logits", [Conv2d(channels, num_classes, 1, name="Conv2d_1c_1x1")])

    def features(self, images: Tensor) -> Tensor:
        """What a head is to be fed (N, h, w, C)."""
        x = images
        for layer in self.convolutions:
            x = layer(x)
        return x


def mobilenet_v1(
    *,
    num_classes: int | None = None,
    output_stride: int = 32,
    depth_multiplier: float = 1.0,
    batch_norm_decay: float = 0.9997,
    in_channels: int = 3,
    global_pool: bool = True,
    name: str = "MobilenetV1",
) -> MobileNetV1:
    """Builds MobileNet v1 (paper, table 1; slim's `mobilenet_v1.mobilenet_v1`); its variables exist at once.

    Args:
        num_classes: outputs of slim's classifier, background included where there is one (1001); None: features.
        output_stride: input size over feature size: 8, 16 or 32; units beyond it dilate instead of striding.
        depth_multiplier: on all channels, over 0; published are 0.25, 0.5, 0.75 and 1.0.
        batch_norm_decay: of the moving statistics, under 1; slim's 0.9997.
        in_channels: of the images, where they are not RGB; `preprocessing` is for three.
        global_pool: False has the classifier score every place of the features: (N, h, w, num_classes).
        name: slim's scope, the first part of every variable's name.

    Returns:
        MobileNetV1: float images (N, H, W, 3) in [-1, 1] → features (N, h, w, C), or logits (N, num_classes).

    Raises:
        ValueError: another output stride.
    """
    net = MobileNetV1(
        *(name, num_classes, output_stride, depth_multiplier, batch_norm_decay),
        in_channels=in_channels,
        global_pool=global_pool,
    )
    net.build()
    return net
