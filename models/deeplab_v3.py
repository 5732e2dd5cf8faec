"""DeepLab v3: atrous spatial pyramid pooling on a dilated backbone, under the names of the published checkpoints.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", https://arxiv.org/abs/1706.05587.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
from keras import ops

from models import mobilenet_edgetpu, mobilenet_v1, mobilenet_v2, mobilenet_v3, resnet, xception
from models.heads import ASPP, Decoder, DensePredictionCell, LiteDecoder, LiteRASPP
from models.layers import (
    UPSAMPLINGS,
    Conv2d,
    Network,
    Scope,
    Tensor,
    Unscoped,
    recording,
    resize_bilinear,
    serializable,
)
from models.network import checked
from models.preprocessing import Preprocessing, preprocessing_of

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
    "resnet_v1_18": resnet.resnet_v1_18,
    "resnet_v1_18_beta": resnet.resnet_v1_18_beta,
    "resnet_v1_50_beta": resnet.resnet_v1_50_beta,
    "resnet_v1_101_beta": resnet.resnet_v1_101_beta,
    "xception_41": xception.xception_41,
    "xception_65": xception.xception_65,
    "xception_71": xception.xception_71,
    "mobilenet_v1": mobilenet_v1.mobilenet_v1,
    "mobilenet_v2": mobilenet_v2.mobilenet_v2,
    "mobilenet_v3_large": mobilenet_v3.mobilenet_v3_large,
    "mobilenet_v3_small": mobilenet_v3.mobilenet_v3_small,
    "mobilenet_v3_large_seg": mobilenet_v3.mobilenet_v3_large_seg,
    "mobilenet_v3_small_seg": mobilenet_v3.mobilenet_v3_small_seg,
    "mobilenet_edgetpu": mobilenet_edgetpu.mobilenet_edgetpu,
}
OF_ANY_WIDTH = ("mobilenet_v1", "mobilenet_v2", "mobilenet_edgetpu")  # those that have a depth multiplier
MULTI_GRID = (1, 2, 4)
ATROUS_RATES = (6, 12, 18)
CHOICES: dict[str, tuple] = {
    "features": ("postnorm", "block4"),
    "upsampling": UPSAMPLINGS,
    "head": ("aspp", "dense-prediction-cell", "lr-aspp"),
    "head_norm": ("batch-norm", "biases"),
    "head_activation": ("relu", "none"),
    "decoder": (None, "separable", "plain"),
}


@serializable
class DeepLabV3(Network):
    """Backbone, head (ASPP unless told), v3+'s decoder if asked for, logits at the input's size.

    Args:
        backbone: a built network without classifier, with `features(images)` of `out_channels` channels.
        num_classes: int, background included.
        atrous_rates: of ASPP, dilations of `aspp1` … at output stride 16; at 8 they double by themselves, at 32 they
            halve. Empty for the published mobile head, which has none of these branches.
        features: "postnorm" feeds the head what the backbone gives (for ResNet v2: after postnorm and ReLU);
            "block4" the raw sum of the last block, which most public DeepLabs on slim's v2 were trained on.
        upsampling: how logits get the input's size: "align-corners" (right for features of this network, and what the
            authors do), "half-pixel", or "tf1", as the public re-implementations do.
        batch_norm_decay: of the head's moving statistics, under 1.
        head: "aspp"; "dense-prediction-cell"; or "lr-aspp", MobileNet v3's, which has a decoder of its own and whose
            `small_logits` are of stride 8.
        head_channels: of each of its convolutions.
        separable_aspp: the dilated branches are `aspp1_depthwise`, `aspp1_pointwise` …: the authors' default.
        image_pooling: whether ASPP has that branch.
        image_pooling_crop_size: (height, width) in pixels of the image that it averages over, the size of the crops in
            training where larger images follow; None for the whole image.
        image_pooling_stride: of these windows, in pixels of the features.
        rates_follow_stride: whether rates are for output stride 16 and change with it, or are for any.
        head_norm: "batch-norm" after each convolution of the head, or "biases" instead.
        head_activation: "relu" after that, or "none".
        decoder: None, or v3+'s of "separable" or "plain" convolutions; `small_logits` are of stride 4 then.
        low_level: the convolution under the backbone's scope whose output the decoder is fed, e.g.
            "block1/unit_2/bottleneck_v1/conv3"; None is the authors'.
        preprocessing: replaces the backbone's: a `Preprocessing`, or what `preprocessing_of` takes.

    Call: float images (N, H, W, 3), preprocessed as `self.preprocessing` says → float32 logits (N, H, W, num_classes).

    Raises ValueError for another value of an option than its own (`models.network.checked`), atrous rates that the
    output stride makes 0, and images of another type or shape.
    """

    def __init__(
        self,
        backbone: Any,
        num_classes: int,
        atrous_rates: Sequence[int] = ATROUS_RATES,
        features: str = "postnorm",
        upsampling: str = "align-corners",
        batch_norm_decay: float = 0.997,
        name: str = "deeplab_v3",
        *,
        head: str = "aspp",
        head_channels: int = 256,
        separable_aspp: bool = False,
        image_pooling: bool = True,
        image_pooling_crop_size: Sequence[int] | None = None,
        image_pooling_stride: Sequence[int] = (1, 1),
        rates_follow_stride: bool = True,
        head_norm: str = "batch-norm",
        head_activation: str = "relu",
        decoder: str | None = None,
        low_level: str | None = None,
        preprocessing: Preprocessing | str | dict[str, Any] | None = None,
    ):
        super().__init__(name=name)
        self.options = checked(
            {
                "num_classes": num_classes,
                "atrous_rates": tuple(atrous_rates),
                "features": features,
                "upsampling": upsampling,
                "batch_norm_decay": batch_norm_decay,
                "head": head,
                "head_channels": head_channels,
                "separable_aspp": separable_aspp,
                "image_pooling": image_pooling,
                "image_pooling_crop_size": None if image_pooling_crop_size is None else tuple(image_pooling_crop_size),
                "image_pooling_stride": tuple(image_pooling_stride),
                "rates_follow_stride": rates_follow_stride,
                "head_norm": head_norm,
                "head_activation": head_activation,
                "decoder": decoder,
                "low_level": low_level,
            }
        )
        for option, choices in CHOICES.items():
            if self.options[option] not in choices:
                known = ", ".join(map(str, choices))
                raise ValueError(f"{option} is one of {known}. Received: {self.options[option]!r}")
        if head == "lr-aspp" and decoder:
            raise ValueError(f"lr-aspp has a decoder of its own. Received: decoder={decoder!r}")
        self.variable_prefix = backbone.variable_prefix = f"{name}/"
        self.backbone = backbone
        self.backbone_scope = backbone.name
        self.in_channels = backbone.in_channels
        self.preprocessing = backbone.preprocessing if preprocessing is None else preprocessing_of(preprocessing)
        self.num_classes = num_classes
        self.output_stride = backbone.output_stride
        self.feature_source = features
        self.upsampling = upsampling
        self.idle_scopes: tuple[str, ...] = ()  # of variables that nothing is computed with
        if features == "block4" and getattr(backbone, "postnorm", None):
            backbone.postnorm.trainable = False  # kept, so that the checkpoint stays whole, but not in the path
            self.idle_scopes = (f"{backbone.name}/postnorm",)

        options: dict[str, Any] = {
            "batch_norm": {"epsilon": 1e-5, "decay": batch_norm_decay} if head_norm == "batch-norm" else None,
            "activation": ops.relu if head_activation == "relu" else None,
        }
        to = {"in_channels": backbone.out_channels, "channels": head_channels, "options": options}
        pooling = {
            "crop": image_pooling_crop_size,
            "step": image_pooling_stride,
            "output_stride": self.output_stride,
        }
        factor = 16 / self.output_stride if rates_follow_stride else 1
        self.context: ASPP | DensePredictionCell | LiteRASPP
        if head == "aspp":
            rates = [int(rate * factor) for rate in atrous_rates]
            if 0 in rates:
                raise ValueError(
                    f"atrous_rates are of output stride 16, and at {self.output_stride} become {rates}; they must be "
                    f"1 or more there. Received: {tuple(atrous_rates)}"
                )
            self.context = ASPP(
                **to,
                rates=rates,
                separable_branches=separable_aspp,
                pooling=pooling if image_pooling else None,
                upsampling=upsampling,
            )
        elif head == "dense-prediction-cell":
            self.context = DensePredictionCell(**to, rate_factor=factor)
        else:
            self.context = LiteRASPP(**to, pooling=pooling, upsampling=upsampling)

        self.low_level: str | None = None
        self.decoder: Decoder | LiteDecoder | None = None
        if decoder or head == "lr-aspp":
            self.low_level = low_level or backbone.low_level
            width = _layer_at(backbone, self.low_level).out_channels
            if decoder:
                self.decoder = Decoder(width, head_channels, options, upsampling, decoder)
            else:
                self.decoder = LiteDecoder(width, head_channels, num_classes, upsampling)
        self.logits: Scope | None = None
        if head != "lr-aspp":
            small = keras.initializers.TruncatedNormal(stddev=0.01)
            self.logits = Scope("logits", [Conv2d(head_channels, num_classes, 1, initializer=small, name="semantic")])
        parts = [part for part in self._layers if part is not backbone]
        self.head_scopes = tuple(
            layer.name for part in parts for layer in (part._layers if isinstance(part, Unscoped) else [part])
        )

    @property
    def feature_strides(self) -> tuple[int, ...]:
        """Input size over the size of each of `features`."""
        if self.decoder is None:
            return (self.output_stride,)
        return (self.output_stride, 4 if self.logits else 8)

    @property
    def linear_features(self) -> tuple[Conv2d, Sequence[Conv2d]] | None:  # type: ignore[override]
        """See `Network`."""
        if self.decoder or not isinstance(self.context, ASPP):
            return None
        linear, takers = self.backbone.projection, self.context.pointwise
        return (linear, takers) if linear and takers else None

    def features(self, images: Tensor) -> Any:
        """What the head is fed: (N, h, w, channels of the backbone), and with a decoder a pair of that and what the
        decoder takes, of a smaller stride."""
        net = self.backbone
        run = net.features if self.feature_source == "postnorm" else net.raw_features
        if self.low_level is None:
            return run(images)
        with recording({}, only=_layer_at(net, self.low_level)) as found:
            features = run(images)
        return features, *found.values()

    def head(self, features: Any) -> Tensor:
        """What `features` gives → logits (N, h, w, num_classes), of the decoder's stride where there is one."""
        features, low_level = features if self.decoder else (features, None)
        x = self.context(features)
        if self.decoder:
            x = self.decoder(x, low_level)
        return self.logits(x) if self.logits else x

    def small_logits(self, images: Tensor) -> Tensor:
        """Logits (N, h, w, num_classes) at the features' size, or the decoder's."""
        return self.head(self.features(images))

    def call(self, images: Tensor, training: bool | None = False) -> Tensor:
        """Images (N, H, W, 3) → float32 logits (N, H, W, num_classes)."""
        height, width = ops.shape(images)[1:3]
        return resize_bilinear(self.small_logits(images), height, width, self.upsampling)

    def get_config(self) -> dict[str, Any]:
        """See `Network`; and the backbone."""
        return super().get_config() | {"backbone": keras.saving.serialize_keras_object(self.backbone)}

    @classmethod
    def _from_options(cls, options: dict[str, Any]) -> Self:
        with keras.name_scope(options["name"]):
            backbone = keras.saving.deserialize_keras_object(options["backbone"])
        return cls(**options | {"backbone": backbone})


def _layer_at(backbone: Any, path: str | None) -> Conv2d:
    """The convolution under `path`, scopes below the backbone's own; ValueError where there is none."""
    layer = backbone
    for name in (path or "").split("/"):
        layer = next((child for child in layer._layers if child.name == name), None)
        if layer is None:
            break
    if not isinstance(layer, Conv2d):
        raise ValueError(f"low_level is the path of a convolution in {backbone.name}. Received: {path!r}")
    return layer


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
    upsampling: str = "align-corners",
    head: str | None = None,
    head_channels: int | None = None,
    separable_aspp: bool = False,
    image_pooling: bool = True,
    image_pooling_crop_size: Sequence[int] | None = None,
    image_pooling_stride: Sequence[int] = (1, 1),
    rates_follow_stride: bool = True,
    head_norm: str = "batch-norm",
    head_activation: str = "relu",
    decoder: str | None = None,
    low_level: str | None = None,
    preprocessing: Preprocessing | str | dict[str, Any] | None = None,
    divisible_by: int = 8,
    last_conv: bool = False,
    in_channels: int = 3,
) -> DeepLabV3:
    """Builds DeepLab v3 on one of BACKBONES by its name; its variables exist at once.

    Section 3 of the paper; names and order of the head are those of the published DeepLab checkpoints.

    Args:
        backbone: a key of BACKBONES.
        num_classes: int, background included.
        output_stride: input size over feature size: 8, 16 or 32, on ResNets 4 too.
        multi_grid: dilation factors of block4's units, of the last module's convolutions in Xception; (1, 1, 1) is
            none. None is the paper's (1, 2, 4) on ResNets, as far as there are units, and none on Xception, as
            published.
        depth_multiplier: of OF_ANY_WIDTH, over 0.
        atrous_rates: of ASPP at output stride 16. None is the paper's (6, 12, 18) on ResNets and Xception and no such
            branches on MobileNets, as published.
        batch_norm_decay: of all moving statistics, under 1; slim's 0.997.
        name: the model's, and no part of a checkpoint's names.
        head: as in DeepLabV3; None is what is published on the backbone, "lr-aspp" on MobileNet v3 and else "aspp".
        head_channels: as in DeepLabV3; None is 128 for "lr-aspp" and else 256.
        features, upsampling, separable_aspp, image_pooling, image_pooling_crop_size, image_pooling_stride,
            rates_follow_stride, head_norm, head_activation, decoder, low_level, preprocessing: as in DeepLabV3.
        divisible_by: of MobileNet v2's channels; research/deeplab rounds to 1 where the multiplier is not 1.
        last_conv: whether MobileNet v2's `Conv_1` is a part of it; the authors' ends before.
        in_channels: of the images, where they are not RGB; `preprocessing` is for three.

    Returns:
        DeepLabV3: float images (N, H, W, 3), preprocessed as its `preprocessing` says, → float32 logits
        (N, H, W, num_classes).

    Raises:
        ValueError: an unknown backbone or source of features, an output stride that the backbone has not, a multi-grid
            of another length than block4 or on a MobileNet.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"unknown backbone. Received: {backbone!r}; there are {', '.join(BACKBONES)}")
    is_mobile = backbone.startswith("mobilenet")
    options: dict[str, Any] = {
        "output_stride": output_stride,
        "batch_norm_decay": batch_norm_decay,
        "in_channels": in_channels,
    }
    if is_mobile:
        if multi_grid:
            raise ValueError(f"a MobileNet has no block4 for a multi_grid. Received: {multi_grid} on {backbone}")
        if backbone in OF_ANY_WIDTH:
            options |= {"depth_multiplier": depth_multiplier}
        if backbone == "mobilenet_v2":
            options |= {"divisible_by": divisible_by, "include_last_conv": last_conv}
    elif multi_grid is not None:
        options |= {"multi_grid": tuple(multi_grid)}
    elif backbone.startswith("resnet"):
        options |= {"multi_grid": MULTI_GRID[: 2 if "_18" in backbone else 3]}
    if atrous_rates is None:
        atrous_rates = () if is_mobile else ATROUS_RATES
    if head is None:
        head = "lr-aspp" if backbone.startswith("mobilenet_v3") else "aspp"
    if head_channels is None:
        head_channels = 128 if head == "lr-aspp" else 256
    with keras.name_scope(name):
        net = BACKBONES[backbone](**options)
    model = DeepLabV3(
        net,
        num_classes,
        atrous_rates,
        features,
        upsampling,
        batch_norm_decay,
        name,
        head=head,
        head_channels=head_channels,
        separable_aspp=separable_aspp,
        image_pooling=image_pooling,
        image_pooling_crop_size=image_pooling_crop_size,
        image_pooling_stride=image_pooling_stride,
        rates_follow_stride=rates_follow_stride,
        head_norm=head_norm,
        head_activation=head_activation,
        decoder=decoder,
        low_level=low_level,
        preprocessing=preprocessing,
    )
    model.build()
    return model
