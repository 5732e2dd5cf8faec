"""DeepLab v3: atrous spatial pyramid pooling on a dilated backbone, under the names of the published checkpoints.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", https://arxiv.org/abs/1706.05587.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
from keras import ops

from models import mobilenet_v2, resnet
from models.layers import AtrousConv2d, Conv2d, Network, Scope, Tensor, resize_bilinear, serializable

BACKBONES: dict[str, Callable[..., Network]] = {
    "resnet_v2_18": resnet.resnet_v2_18,
    "resnet_v2_34": resnet.resnet_v2_34,
    "resnet_v2_50": resnet.resnet_v2_50,
    "resnet_v2_101": resnet.resnet_v2_101,
    "resnet_v2_152": resnet.resnet_v2_152,
    "resnet_v2_200": resnet.resnet_v2_200,
    "resnet_v1_50": resnet.resnet_v1_50,
    "resnet_v1_101": resnet.resnet_v1_101,
    "resnet_v1_152": resnet.resnet_v1_152,
    "mobilenet_v2": mobilenet_v2.mobilenet_v2,
}
MULTI_GRID = (1, 2, 4)
ATROUS_RATES = (6, 12, 18)
HEAD_CHANNELS = 256


@serializable
class DeepLabV3(Network):
    """Backbone, ASPP (image pooling, 1x1, dilated 3x3s), projection, logits at the input's size.

    Args:
        backbone: a built network without classifier, with `features(images)` of `out_channels` channels.
        num_classes: int, background included.
        atrous_rates: dilations of `aspp1` … at output stride 16; at 8 they double by themselves, at 32 they halve.
            Empty for the published mobile head, which has none of these branches.
        features: "postnorm" feeds the head what the backbone gives (for ResNet v2: after postnorm and ReLU);
            "block4" the raw sum of the last block, which most public DeepLabs on slim's v2 were trained on.
        align_corners: upsample with the corners aligned (right for features of this network), or with half-pixel
            centres, as peers do.
        batch_norm_decay: of the head's moving statistics, under 1.

    Call: float images (N, H, W, 3), preprocessed as `self.preprocessing` says → float32 logits (N, H, W, num_classes).

    Raises ValueError for another source of features, and images of another type or shape.
    """

    def __init__(
        self,
        backbone: Any,
        num_classes: int,
        atrous_rates: Sequence[int] = ATROUS_RATES,
        features: str = "postnorm",
        align_corners: bool = True,
        batch_norm_decay: float = 0.997,
        name: str = "deeplab_v3",
    ):
        super().__init__(name=name)
        if features not in ("postnorm", "block4"):
            raise ValueError(f'features must be "postnorm" or "block4". Received: {features!r}')
        self.options = {
            "num_classes": num_classes,
            "atrous_rates": tuple(atrous_rates),
            "features": features,
            "align_corners": align_corners,
            "batch_norm_decay": batch_norm_decay,
        }
        self.variable_prefix = backbone.variable_prefix = f"{name}/"
        self.backbone = backbone
        self.backbone_scope = backbone.name
        self.preprocessing = backbone.preprocessing
        self.num_classes = num_classes
        self.output_stride = backbone.output_stride
        self.feature_source = features
        self.align_corners = align_corners
        if features == "block4" and getattr(backbone, "postnorm", None):
            backbone.postnorm.trainable = False  # kept, so that the checkpoint stays whole, but not in the path

        options = {
            "batch_norm": {"epsilon": 1e-5, "decay": batch_norm_decay},
            "activation": ops.relu,
        }
        channels = backbone.out_channels
        self.image_pooling = Conv2d(channels, HEAD_CHANNELS, 1, name="image_pooling", **options)
        rates = [rate * 16 // self.output_stride for rate in atrous_rates]
        self.aspp = [Conv2d(channels, HEAD_CHANNELS, 1, name="aspp0", **options)] + [
            AtrousConv2d(channels, HEAD_CHANNELS, rate, name=f"aspp{branch}", **options)
            for branch, rate in enumerate(rates, start=1)
        ]
        branches = 1 + len(self.aspp)
        self.concat_projection = Conv2d(branches * HEAD_CHANNELS, HEAD_CHANNELS, 1, name="concat_projection", **options)
        self.logits = Scope(
            "logits",
            [
                Conv2d(
                    HEAD_CHANNELS,
                    num_classes,
                    1,
                    initializer=keras.initializers.TruncatedNormal(stddev=0.01),
                    name="semantic",
                )
            ],
        )
        self.head_scopes = ("image_pooling", *(branch.name for branch in self.aspp), "concat_projection", "logits")

    def features(self, images: Tensor) -> Tensor:
        """What the head is fed: (N, h, w, channels of the backbone)."""
        net = self.backbone
        return net.features(images) if self.feature_source == "postnorm" else net.raw_features(images)

    def head(self, features: Tensor) -> Tensor:
        """Features (N, h, w, C) → logits (N, h, w, num_classes)."""
        pooled = self.image_pooling(ops.mean(features, axis=(1, 2), keepdims=True))
        pooled = ops.broadcast_to(pooled, (*ops.shape(features)[:3], HEAD_CHANNELS))
        x = ops.concatenate([pooled, *(branch(features) for branch in self.aspp)], axis=-1)
        return self.logits(self.concat_projection(x))

    def small_logits(self, images: Tensor) -> Tensor:
        """Logits (N, h, w, num_classes) at the features' size."""
        return self.head(self.features(images))

    def call(self, images: Tensor, training: bool | None = False) -> Tensor:
        """Images (N, H, W, 3) → float32 logits (N, H, W, num_classes)."""
        height, width = ops.shape(images)[1:3]
        return resize_bilinear(self.small_logits(images), height, width, self.align_corners)

    def get_config(self) -> dict[str, Any]:
        """See `Network`; and the backbone."""
        return super().get_config() | {"backbone": keras.saving.serialize_keras_object(self.backbone)}

    @classmethod
    def _from_options(cls, options: dict[str, Any]) -> Self:
        with keras.name_scope(options["name"]):
            backbone = keras.saving.deserialize_keras_object(options["backbone"])
        return cls(**options | {"backbone": backbone})


def deeplab_v3(
    backbone: str,
    num_classes: int,
    output_stride: int = 16,
    multi_grid: Sequence[int] | None = None,
    depth_multiplier: float = 1.0,
    atrous_rates: Sequence[int] | None = None,
    batch_norm_decay: float = 0.997,
    name: str = "deeplab_v3",
    *,
    features: str = "postnorm",
    align_corners: bool = True,
) -> DeepLabV3:
    """Builds DeepLab v3 on one of BACKBONES by its name; its variables exist at once.

    Section 3 of the paper; names and order of the head are those of the published DeepLab checkpoints.

    Args:
        backbone: a key of BACKBONES.
        num_classes: int, background included.
        output_stride: input size over feature size: 8, 16 or 32, on ResNets 4 too.
        multi_grid: dilation factors of block4's units. None is the paper's (1, 2, 4), as far as there are units.
        depth_multiplier: of MobileNet v2, over 0; published are 0.5 and 1.0.
        atrous_rates: of ASPP at output stride 16. None is the paper's (6, 12, 18) on ResNets and no such branches on
            MobileNet v2, as published.
        batch_norm_decay: of all moving statistics, under 1; slim's 0.997.
        name: the model's, and no part of a checkpoint's names.
        features: what the head is fed, "postnorm" or "block4", and
        align_corners: how logits are brought to the images' size: both as in DeepLabV3.

    Returns:
        DeepLabV3: float images (N, H, W, 3), preprocessed as its `preprocessing` says, → float32 logits
        (N, H, W, num_classes).

    Raises:
        ValueError: an unknown backbone or source of features, an output stride that the backbone has not, a multi-grid
            of another length than block4 or on MobileNet v2.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"unknown backbone. Received: {backbone!r}; there are {', '.join(BACKBONES)}")
    is_mobile = backbone == "mobilenet_v2"
    options: dict[str, Any] = {"output_stride": output_stride, "batch_norm_decay": batch_norm_decay}
    if is_mobile:
        if multi_grid:
            raise ValueError(f"MobileNet v2 has no block4 for a multi_grid. Received: {multi_grid}")
        options |= {"depth_multiplier": depth_multiplier, "include_last_conv": False}
    else:
        units = 2 if backbone == "resnet_v2_18" else 3
        options |= {"multi_grid": MULTI_GRID[:units] if multi_grid is None else tuple(multi_grid)}
    if atrous_rates is None:
        atrous_rates = () if is_mobile else ATROUS_RATES
    with keras.name_scope(name):
        net = BACKBONES[backbone](**options)
    model = DeepLabV3(net, num_classes, atrous_rates, features, align_corners, batch_norm_decay, name)
    model.build()
    return model
