"""DeepLab v3: atrous spatial pyramid pooling on a dilated backbone, under the names of the published checkpoints.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", https://arxiv.org/abs/1706.05587.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
from keras import ops

from models import mobilenet_v2, resnet
from models.layers import (
    UPSAMPLINGS,
    AtrousConv2d,
    Conv2d,
    DepthwiseConv2d,
    Module,
    Network,
    Scope,
    Tensor,
    recording,
    resize_bilinear,
    serializable,
)
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
    "mobilenet_v2": mobilenet_v2.mobilenet_v2,
}
MULTI_GRID = (1, 2, 4)
ATROUS_RATES = (6, 12, 18)
HEAD_CHANNELS = 256
LOW_LEVEL_CHANNELS = 48
CHOICES: dict[str, tuple] = {
    "features": ("postnorm", "block4"),
    "upsampling": UPSAMPLINGS,
    "head_norm": ("batch-norm", "biases"),
    "head_activation": ("relu", "none"),
    "decoder": (None, "separable", "plain"),
}


def separable(channels: int, name: str, options: dict[str, Any], dilation: int = 1) -> list[Conv2d]:
    """3x3 depthwise, then 1x1, each with norm and activation (research/deeplab's `split_separable_conv2d`) → both."""
    return [
        DepthwiseConv2d(channels, 3, dilation=dilation, name=f"{name}_depthwise", **options),
        Conv2d(channels, HEAD_CHANNELS, 1, name=f"{name}_pointwise", **options),
    ]


class Decoder(Module):
    """DeepLab v3+'s: the head's features beside those of stride 4 (Chen et al., https://arxiv.org/abs/1802.02611).

    kind: "separable", research/deeplab's default, or "plain" 3x3 convolutions.
    """

    def __init__(self, channels: int, kind: str, upsampling: str, options: dict[str, Any]):
        super().__init__(name="decoder")
        self.upsampling = upsampling
        self.projection = Conv2d(channels, LOW_LEVEL_CHANNELS, 1, name="feature_projection0", **options)
        widths = (HEAD_CHANNELS + LOW_LEVEL_CHANNELS, HEAD_CHANNELS)
        self.convolutions: list[Module]
        if kind == "separable":
            pairs = [separable(width, f"decoder_conv{index}", options) for index, width in enumerate(widths)]
            self.convolutions = [*pairs[0], *pairs[1]]
        else:
            plain = [
                Conv2d(width, HEAD_CHANNELS, 3, name=f"decoder_conv0_{index}", **options)
                for index, width in enumerate(widths, start=1)
            ]
            self.convolutions = [Scope("decoder_conv0", plain)]

    def call(self, encoded: Tensor, low_level: Tensor) -> Tensor:
        """(N, h, w, 256) and (N, H, W, C) of stride 4 → (N, H, W, 256)."""
        height, width = ops.shape(low_level)[1:3]
        encoded = ops.cast(resize_bilinear(encoded, height, width, self.upsampling), low_level.dtype)
        x = ops.concatenate([encoded, self.projection(low_level)], axis=-1)
        for layer in self.convolutions:
            x = layer(x)
        return x


@serializable
class DeepLabV3(Network):
    """Backbone, ASPP (image pooling, 1x1, dilated 3x3s), projection, v3+'s decoder if asked for, logits at input size.

    Args:
        backbone: a built network without classifier, with `features(images)` of `out_channels` channels.
        num_classes: int, background included.
        atrous_rates: dilations of `aspp1` … at output stride 16; at 8 they double by themselves, at 32 they halve.
            Empty for the published mobile head, which has none of these branches.
        features: "postnorm" feeds the head what the backbone gives (for ResNet v2: after postnorm and ReLU);
            "block4" the raw sum of the last block, which most public DeepLabs on slim's v2 were trained on.
        upsampling: how logits get the input's size: "align-corners" (right for features of this network, and what the
            authors do), "half-pixel", or "tf1", as the public re-implementations do.
        batch_norm_decay: of the head's moving statistics, under 1.
        separable_aspp: the dilated branches are `aspp1_depthwise`, `aspp1_pointwise` …: the authors' default.
        image_pooling: whether there is that branch.
        rates_follow_stride: whether rates are for output stride 16 and change with it, or are for any.
        head_norm: "batch-norm" after each convolution of the head, or "biases" instead.
        head_activation: "relu" after that, or "none".
        decoder: None, or v3+'s of "separable" or "plain" convolutions; `small_logits` are of stride 4 then.
        low_level: the convolution under the backbone's scope whose output the decoder is fed, e.g.
            "block1/unit_2/bottleneck_v1/conv3"; None is the authors'.
        preprocessing: replaces the backbone's: a `Preprocessing`, or what `preprocessing_of` takes.

    Call: float images (N, H, W, 3), preprocessed as `self.preprocessing` says → float32 logits (N, H, W, num_classes).

    Raises ValueError for another value of an option than its own, and images of another type or shape.
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
        separable_aspp: bool = False,
        image_pooling: bool = True,
        rates_follow_stride: bool = True,
        head_norm: str = "batch-norm",
        head_activation: str = "relu",
        decoder: str | None = None,
        low_level: str | None = None,
        preprocessing: Preprocessing | str | dict[str, Any] | None = None,
    ):
        super().__init__(name=name)
        self.options = {
            "num_classes": num_classes,
            "atrous_rates": tuple(atrous_rates),
            "features": features,
            "upsampling": upsampling,
            "batch_norm_decay": batch_norm_decay,
            "separable_aspp": separable_aspp,
            "image_pooling": image_pooling,
            "rates_follow_stride": rates_follow_stride,
            "head_norm": head_norm,
            "head_activation": head_activation,
            "decoder": decoder,
            "low_level": low_level,
        }
        for option, choices in CHOICES.items():
            if self.options[option] not in choices:
                known = ", ".join(map(str, choices))
                raise ValueError(f"{option} is one of {known}. Received: {self.options[option]!r}")
        self.variable_prefix = backbone.variable_prefix = f"{name}/"
        self.backbone = backbone
        self.backbone_scope = backbone.name
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
        channels = backbone.out_channels
        self.image_pooling = None
        if image_pooling:
            self.image_pooling = Conv2d(channels, HEAD_CHANNELS, 1, name="image_pooling", **options)
        rates = [rate * 16 // self.output_stride if rates_follow_stride else rate for rate in atrous_rates]
        self.aspp: list[Conv2d | list[Conv2d]] = [Conv2d(channels, HEAD_CHANNELS, 1, name="aspp0", **options)]
        for branch, rate in enumerate(rates, start=1):
            if separable_aspp:
                self.aspp.append(separable(channels, f"aspp{branch}", options, rate))
            else:
                self.aspp.append(AtrousConv2d(channels, HEAD_CHANNELS, rate, name=f"aspp{branch}", **options))
        branches = int(image_pooling) + len(self.aspp)
        self.concat_projection = Conv2d(branches * HEAD_CHANNELS, HEAD_CHANNELS, 1, name="concat_projection", **options)
        self.low_level = self.decoder = None
        if decoder:
            self.low_level = low_level or _authors_low_level(backbone)
            self.decoder = Decoder(_layer_at(backbone, self.low_level).out_channels, decoder, upsampling, options)
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
        self.head_scopes = tuple(layer.name for layer in self._layers if layer is not backbone)

    def features(self, images: Tensor) -> Any:
        """What the head is fed: (N, h, w, channels of the backbone), and with a decoder a pair of that and what the
        decoder takes at stride 4."""
        net = self.backbone
        run = net.features if self.feature_source == "postnorm" else net.raw_features
        if self.low_level is None:
            return run(images)
        with recording({}, only=_layer_at(net, self.low_level)) as found:
            features = run(images)
        return features, *found.values()

    def head(self, features: Any) -> Tensor:
        """What `features` gives → logits (N, h, w, num_classes), of stride 4 with a decoder."""
        features, low_level = features if self.decoder else (features, None)
        branches = []
        if self.image_pooling:
            pooled = self.image_pooling(ops.mean(features, axis=(1, 2), keepdims=True))
            branches.append(ops.broadcast_to(pooled, (*ops.shape(features)[:3], HEAD_CHANNELS)))
        for branch in self.aspp:
            x = features
            for layer in branch if isinstance(branch, list) else [branch]:
                x = layer(x)
            branches.append(x)
        x = self.concat_projection(ops.concatenate(branches, axis=-1))
        return self.logits(self.decoder(x, low_level) if self.decoder else x)

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


def _authors_low_level(backbone: Any) -> str:
    """What research/deeplab feeds its decoder, of stride 4."""
    if isinstance(backbone, mobilenet_v2.MobileNetV2):
        return "expanded_conv_2/depthwise"
    return f"block1/unit_2/{backbone.block1.layers[1].layers[0].name}/conv3"


def _layer_at(backbone: Any, path: str) -> Conv2d:
    """The convolution under `path`, scopes below the backbone's own; ValueError where there is none."""
    layer = backbone
    for name in path.split("/"):
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
    separable_aspp: bool = False,
    image_pooling: bool = True,
    rates_follow_stride: bool = True,
    head_norm: str = "batch-norm",
    head_activation: str = "relu",
    decoder: str | None = None,
    low_level: str | None = None,
    preprocessing: Preprocessing | str | dict[str, Any] | None = None,
    divisible_by: int = 8,
    last_conv: bool = False,
) -> DeepLabV3:
    """Builds DeepLab v3 on one of BACKBONES by its name; its variables exist at once.

    Section 3 of the paper; names and order of the head are those of the published DeepLab checkpoints.

    Args:
        backbone: a key of BACKBONES.
        num_classes: int, background included.
        output_stride: input size over feature size: 8, 16 or 32, on ResNets 4 too.
        multi_grid: dilation factors of block4's units; (1, 1, 1) is none. None is the paper's (1, 2, 4), as far as
            there are units.
        depth_multiplier: of MobileNet v2, over 0; published are 0.5 and 1.0.
        atrous_rates: of ASPP at output stride 16. None is the paper's (6, 12, 18) on ResNets and no such branches on
            MobileNet v2, as published.
        batch_norm_decay: of all moving statistics, under 1; slim's 0.997.
        name: the model's, and no part of a checkpoint's names.
        features, upsampling, separable_aspp, image_pooling, rates_follow_stride, head_norm, head_activation, decoder,
            low_level, preprocessing: as in DeepLabV3.
        divisible_by: of MobileNet v2's channels; research/deeplab rounds to 1 where the multiplier is not 1.
        last_conv: whether MobileNet v2's `Conv_1` is a part of it; the authors' ends before.

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
        options |= {"depth_multiplier": depth_multiplier, "divisible_by": divisible_by, "include_last_conv": last_conv}
    else:
        units = 2 if backbone == "resnet_v2_18" else 3
        options |= {"multi_grid": MULTI_GRID[:units] if multi_grid is None else tuple(multi_grid)}
    if atrous_rates is None:
        atrous_rates = () if is_mobile else ATROUS_RATES
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
        separable_aspp=separable_aspp,
        image_pooling=image_pooling,
        rates_follow_stride=rates_follow_stride,
        head_norm=head_norm,
        head_activation=head_activation,
        decoder=decoder,
        low_level=low_level,
        preprocessing=preprocessing,
    )
    model.build()
    return model
