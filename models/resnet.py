"""ResNet v2 and v1 with the variable names, the strides and the numbers of TF-Slim's `nets/resnet_v2.py` and `_v1.py`.

What differs from torchvision's ResNet, because slim's checkpoints were trained so: the stride sits in the last unit of
a block, not in the first; `conv2d_same` pads by hand; pool1 pads as SAME; convolutions without batch norm have biases.

He et al., "Identity Mappings in Deep Residual Networks" (v2, https://arxiv.org/abs/1603.05027) and "Deep Residual
Learning for Image Recognition" (v1, https://arxiv.org/abs/1512.03385).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops

from models.backbone import Backbone
from models.layers import (
    BatchNorm,
    Conv2d,
    Module,
    Scope,
    Tensor,
    max_pool,
    serializable,
    subsample,
    with_options_of,
)
from models.preprocessing import MEAN_SUBTRACTED, UNIT_RANGE


def conv1x1(in_channels: int, out_channels: int, stride: int = 1, **kwargs: Any) -> Conv2d:
    """A 1x1 `Conv2d`."""
    return Conv2d(in_channels, out_channels, 1, stride, **kwargs)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1, **kwargs: Any) -> Conv2d:
    """A 3x3 `Conv2d` that pads by hand where it strides (slim's `conv2d_same`)."""
    return Conv2d(in_channels, out_channels, 3, stride, dilation, fixed_padding=True, **kwargs)


@serializable
class BasicBlock(Module):
    """Two 3x3 convolutions, pre-activated. slim publishes none; named and strided as its bottleneck_v2."""

    expansion = 1
    end_point = ""

    def __init__(self, in_channels: int, width: int, stride: int = 1, dilation: int = 1, *, norm: Mapping[str, float]):
        super().__init__(name="basic_block_v2")
        self.stride = stride
        self.preact = BatchNorm(in_channels, activation=ops.relu, name="preact", **norm)
        self.shortcut = None if in_channels == width else conv1x1(in_channels, width, stride, name="shortcut")
        self.conv1 = conv3x3(in_channels, width, dilation=dilation, batch_norm=norm, activation=ops.relu, name="conv1")
        self.conv2 = conv3x3(width, width, stride, dilation, name="conv2")

    def call(self, x: Tensor) -> Tensor:
        """(N, h, w, in_channels) → (N, h / stride, w / stride, width * expansion)."""
        preact = self.preact(x)
        residual = self.conv2(self.conv1(preact))
        shortcut = self.shortcut(preact) if self.shortcut else subsample(x, self.stride)
        return shortcut + residual


@serializable
class Bottleneck(Module):
    """1x1, 3x3, 1x1, with batch norm and ReLU before each (paper v2, fig. 4e; slim's `bottleneck_v2`)."""

    expansion = 4
    end_point = ""

    def __init__(self, in_channels: int, width: int, stride: int = 1, dilation: int = 1, *, norm: Mapping[str, float]):
        super().__init__(name="bottleneck_v2")
        out_channels = width * self.expansion
        self.stride = stride
        self.preact = BatchNorm(in_channels, activation=ops.relu, name="preact", **norm)
        self.shortcut = (
            None if in_channels == out_channels else conv1x1(in_channels, out_channels, stride, name="shortcut")
        )
        self.conv1 = conv1x1(in_channels, width, batch_norm=norm, activation=ops.relu, name="conv1")
        self.conv2 = conv3x3(width, width, stride, dilation, batch_norm=norm, activation=ops.relu, name="conv2")
        self.conv3 = conv1x1(width, out_channels, name="conv3")

    def call(self, x: Tensor) -> Tensor:
        """(N, h, w, in_channels) → (N, h / stride, w / stride, width * expansion)."""
        preact = self.preact(x)
        residual = self.conv3(self.conv2(self.conv1(preact)))
        shortcut = self.shortcut(preact) if self.shortcut else subsample(x, self.stride)
        return shortcut + residual


@serializable
class BottleneckV1(Module):
    """1x1, 3x3, 1x1, with batch norm after each and ReLU after the sum (paper v1, fig. 5; slim's `bottleneck_v1`)."""

    expansion = 4
    end_point = ""

    def __init__(self, in_channels: int, width: int, stride: int = 1, dilation: int = 1, *, norm: Mapping[str, float]):
        super().__init__(name="bottleneck_v1")
        out_channels = width * self.expansion
        self.stride = stride
        self.shortcut = (
            None
            if in_channels == out_channels
            else conv1x1(in_channels, out_channels, stride, batch_norm=norm, name="shortcut")
        )
        self.conv1 = conv1x1(in_channels, width, batch_norm=norm, activation=ops.relu, name="conv1")
        self.conv2 = conv3x3(width, width, stride, dilation, batch_norm=norm, activation=ops.relu, name="conv2")
        self.conv3 = conv1x1(width, out_channels, batch_norm=norm, name="conv3")

    def call(self, x: Tensor) -> Tensor:
        """(N, h, w, in_channels) → (N, h / stride, w / stride, width * expansion)."""
        residual = self.conv3(self.conv2(self.conv1(x)))
        shortcut = self.shortcut(x) if self.shortcut else subsample(x, self.stride)
        return ops.relu(shortcut + residual)


@serializable
class LiteBottleneckV1(Module):
    """Two 3x3 convolutions, with batch norm after each and ReLU after the sum, of research/deeplab's ResNet-18."""

    expansion = 1
    end_point = ""

    def __init__(self, in_channels: int, width: int, stride: int = 1, dilation: int = 1, *, norm: Mapping[str, float]):
        super().__init__(name="lite_bottleneck_v1")
        self.stride = stride
        self.shortcut = (
            None if in_channels == width else conv1x1(in_channels, width, stride, batch_norm=norm, name="shortcut")
        )
        self.conv1 = conv3x3(in_channels, width, dilation=dilation, batch_norm=norm, activation=ops.relu, name="conv1")
        self.conv2 = conv3x3(width, width, stride, dilation, batch_norm=norm, name="conv2")

    def call(self, x: Tensor) -> Tensor:
        """(N, h, w, in_channels) → (N, h / stride, w / stride, width * expansion)."""
        residual = self.conv2(self.conv1(x))
        shortcut = self.shortcut(x) if self.shortcut else subsample(x, self.stride)
        return ops.relu(shortcut + residual)


Block = type[BasicBlock] | type[Bottleneck] | type[BottleneckV1] | type[LiteBottleneckV1]


@serializable
class ResNet(Backbone):
    """Root convolution, four blocks of residual units, and, when asked, slim's classifier.

    Args:
        name: slim's scope, and so the first part of every variable's name.
        block: BasicBlock, Bottleneck, BottleneckV1 or LiteBottleneckV1, the class.
        units: how many units each of the four blocks has.
        num_classes: outputs of the `logits` convolution over the globally pooled features; None for the features.
        output_stride: input size over feature size: 4, 8, 16 or 32. Below 32, the units that would have strided
            keep their stride at 1 and those behind them dilate instead (atrous convolution).
        multi_grid: dilation factors of block4's units, on top of what the output stride asks for (DeepLab v3, 4.2.1);
            None for none.
        batch_norm_decay: of the moving statistics, under 1; slim's 0.997.
        width: channels of the root convolution; the blocks follow.
        root: channels of the three 3x3 convolutions that research/deeplab's "beta" nets have in place of the 7x7 one;
            these nets are fed [-1, 1]. None for the 7x7.
        in_channels: of the images, where they are not RGB; `preprocessing` is for three.
        global_pool: False has the classifier score every place of the features: (N, h, w, num_classes).

    Call: float images (N, H, W, 3), preprocessed as `self.preprocessing` says → features (N, h, w, `out_channels`),
    after postnorm and ReLU for v2; or float32 logits (N, num_classes).

    Raises ValueError for another output stride, a multi-grid that has not one factor for each of block4's units, and
    images of another type or shape.
    """

    output_strides = (4, 8, 16, 32)
    logits_scope = "logits"

    def __init__(
        self,
        name: str,
        block: Block,
        units: Sequence[int],
        num_classes: int | None = None,
        output_stride: int = 32,
        multi_grid: Sequence[int] | None = None,
        batch_norm_decay: float = 0.997,
        width: int = 64,
        root: Sequence[int] | None = None,
        in_channels: int = 3,
        global_pool: bool = True,
    ):
        super().__init__(
            *(name, num_classes, output_stride, batch_norm_decay, in_channels, global_pool),
            block=keras.saving.get_registered_name(block),
            units=tuple(units),
            multi_grid=None if multi_grid is None else tuple(multi_grid),
            width=width,
            root=None if root is None else tuple(root),
        )
        if multi_grid is not None and len(multi_grid) != units[3]:
            raise ValueError(
                f"multi_grid needs one factor for each of block4's {units[3]} units. Received: {multi_grid}"
            )
        is_v1 = block in (BottleneckV1, LiteBottleneckV1)
        self.preprocessing = MEAN_SUBTRACTED if is_v1 and root is None else UNIT_RANGE
        self.norm = {"epsilon": 1e-5, "decay": batch_norm_decay}

        options: dict[str, Any] = {"batch_norm": self.norm, "activation": ops.relu} if is_v1 else {}
        self.root = self._make_root(in_channels, width, root, options)
        self.stride, self.dilation, self.channels = 4, 1, root[-1] if root else width
        self.block1 = self._make_block("block1", block, width, units[0], stride=2)
        self.block2 = self._make_block("block2", block, 2 * width, units[1], stride=2)
        self.block3 = self._make_block("block3", block, 4 * width, units[2], stride=2)
        self.block4 = self._make_block("block4", block, 8 * width, units[3], stride=1, multi_grid=multi_grid)
        self.out_channels = self.channels
        # What research/deeplab feeds a decoder: of stride 4, so before block1's last unit, which strides.
        last = "conv3" if block.expansion > 1 else "conv2"
        self.low_level = f"block1/unit_{units[0] - 1}/{self.block1.layers[0].layers[0].name}/{last}"
        self.postnorm = None if is_v1 else BatchNorm(self.channels, activation=ops.relu, name="postnorm", **self.norm)
        if self.postnorm:
            self.postnorm.end_point = ""
        if num_classes is not None:
            self.logits = conv1x1(self.channels, num_classes, name="logits")

    @staticmethod
    def _make_root(
        in_channels: int, width: int, channels: Sequence[int] | None, options: dict[str, Any]
    ) -> list[Conv2d]:
        if channels is None:
            return [Conv2d(in_channels, width, 7, stride=2, fixed_padding=True, name="conv1", **options)]
        first, second, third = channels
        return [
            conv3x3(in_channels, first, stride=2, name="conv1_1", **options),
            conv3x3(first, second, name="conv1_2", **options),
            conv3x3(second, third, name="conv1_3", **options),
        ]

    def _make_block(
        self,
        name: str,
        block: Block,
        width: int,
        units: int,
        stride: int,
        multi_grid: Sequence[int] | None = None,
    ) -> Scope:
        layers = []
        for unit in range(units):
            unit_stride = stride if unit == units - 1 else 1
            grid = multi_grid[unit] if multi_grid else 1
            dense = self.stride * unit_stride > self.output_stride
            layer = block(
                self.channels, width, 1 if dense else unit_stride, dilation=self.dilation * grid, norm=self.norm
            )
            layers.append(Scope(f"unit_{unit + 1}", [layer]))
            self.channels = width * block.expansion
            if dense:
                self.dilation *= unit_stride
            else:
                self.stride *= unit_stride
        return Scope(name, layers, end_point="")

    @property
    def conv1(self) -> Conv2d:
        """The convolution that sees the images."""
        return self.root[0]

    def raw_features(self, images: Tensor) -> Tensor:
        """block4's output (N, h, w, C); for v2 the sum before postnorm and ReLU."""
        x = images
        for convolution in self.root:
            x = convolution(x)
        x = max_pool(x, 3, stride=2)
        return self.block4(self.block3(self.block2(self.block1(x))))

    def features(self, images: Tensor) -> Tensor:
        """What a head is to be fed (N, h, w, C)."""
        x = self.raw_features(images)
        return self.postnorm(x) if self.postnorm else x

    @classmethod
    def _from_options(cls, options: dict[str, Any]) -> Self:
        return cls(**options | {"block": keras.saving.get_registered_object(options["block"])})


BETA_ROOT = (64, 64, 128)


def _resnet(
    scope: str,
    block: Block,
    units: tuple[int, int, int, int],
    root: tuple[int, int, int] | None = None,
    *,
    num_classes: int | None = None,
    output_stride: int = 32,
    multi_grid: Sequence[int] | None = None,
    batch_norm_decay: float = 0.997,
    width: int = 64,
    in_channels: int = 3,
    global_pool: bool = True,
    name: str | None = None,
) -> ResNet:
    """Args:
        num_classes: outputs of slim's classifier, background included where there is one (1001); None: features.
        output_stride: input size over feature size: 4, 8, 16 or 32; units beyond it dilate instead of striding.
        multi_grid: dilation factors of block4's units, one each (DeepLab v3, section 4.2.1); None: all 1.
        batch_norm_decay: of the moving statistics, under 1; slim's 0.997.
        width: channels of the root convolution, 64 in the paper; the blocks follow.
        in_channels: of the images, where they are not RGB; `preprocessing` is for three.
        global_pool: False has the classifier score every place of the features: (N, h, w, num_classes).
        name: slim's scope, the first part of every variable's name; None: the builder's own name.

    Returns:
        ResNet, its variables there: float images (N, H, W, 3), preprocessed as its `preprocessing` says, → features
        (N, h, w, C), C = 8 * `width` for basic blocks and 32 * `width` for bottlenecks; or logits (N, num_classes).

    Raises:
        ValueError: another output stride, or a multi-grid of another length than block4.
    """
    net = ResNet(
        *(name or scope, block, units, num_classes, output_stride, multi_grid, batch_norm_decay, width, root),
        in_channels=in_channels,
        global_pool=global_pool,
    )
    net.build()
    return net


@with_options_of(_resnet)
def resnet_v2_18(**options: Any) -> ResNet:
    """ResNet v2 of 18 layers, of basic blocks (v1's paper, table 1; slim has none)."""
    return _resnet("resnet_v2_18", BasicBlock, (2, 2, 2, 2), **options)


@with_options_of(_resnet)
def resnet_v2_34(**options: Any) -> ResNet:
    """ResNet v2 of 34 layers, of basic blocks (v1's paper, table 1; slim has none)."""
    return _resnet("resnet_v2_34", BasicBlock, (3, 4, 6, 3), **options)


@with_options_of(_resnet)
def resnet_v2_50(**options: Any) -> ResNet:
    """ResNet v2 of 50 layers (v1's paper, table 1; slim's `resnet_v2_50`)."""
    return _resnet("resnet_v2_50", Bottleneck, (3, 4, 6, 3), **options)


@with_options_of(_resnet)
def resnet_v2_101(**options: Any) -> ResNet:
    """ResNet v2 of 101 layers (v1's paper, table 1; slim's `resnet_v2_101`)."""
    return _resnet("resnet_v2_101", Bottleneck, (3, 4, 23, 3), **options)


@with_options_of(_resnet)
def resnet_v2_152(**options: Any) -> ResNet:
    """ResNet v2 of 152 layers (v1's paper, table 1; slim's `resnet_v2_152`)."""
    return _resnet("resnet_v2_152", Bottleneck, (3, 8, 36, 3), **options)


@with_options_of(_resnet)
def resnet_v2_200(**options: Any) -> ResNet:
    """ResNet v2 of 200 layers (v2's paper, table 5; slim's `resnet_v2_200`)."""
    return _resnet("resnet_v2_200", Bottleneck, (3, 24, 36, 3), **options)


@with_options_of(_resnet)
def resnet_v1_50(**options: Any) -> ResNet:
    """ResNet v1 of 50 layers (v1's paper, table 1; slim's `resnet_v1_50`)."""
    return _resnet("resnet_v1_50", BottleneckV1, (3, 4, 6, 3), **options)


@with_options_of(_resnet)
def resnet_v1_101(**options: Any) -> ResNet:
    """ResNet v1 of 101 layers (v1's paper, table 1; slim's `resnet_v1_101`)."""
    return _resnet("resnet_v1_101", BottleneckV1, (3, 4, 23, 3), **options)


@with_options_of(_resnet)
def resnet_v1_152(**options: Any) -> ResNet:
    """ResNet v1 of 152 layers (v1's paper, table 1; slim's `resnet_v1_152`)."""
    return _resnet("resnet_v1_152", BottleneckV1, (3, 8, 36, 3), **options)


@with_options_of(_resnet)
def resnet_v1_18(**options: Any) -> ResNet:
    """ResNet v1 of 18 layers, of research/deeplab's lite units (its `core/resnet_v1_beta.py`)."""
    return _resnet("resnet_v1_18", LiteBottleneckV1, (2, 2, 2, 2), **options)


@with_options_of(_resnet)
def resnet_v1_18_beta(**options: Any) -> ResNet:
    """The same with a narrow root of three convolutions (research/deeplab's `resnet_v1_18_beta`)."""
    return _resnet("resnet_v1_18", LiteBottleneckV1, (2, 2, 2, 2), (16, 16, 32), **options)


@with_options_of(_resnet)
def resnet_v1_50_beta(**options: Any) -> ResNet:
    """ResNet v1 of 50 layers with a root of three convolutions (research/deeplab's `resnet_v1_50_beta`)."""
    return _resnet("resnet_v1_50", BottleneckV1, (3, 4, 6, 3), BETA_ROOT, **options)


@with_options_of(_resnet)
def resnet_v1_101_beta(**options: Any) -> ResNet:
    """ResNet v1 of 101 layers with a root of three convolutions (research/deeplab's `resnet_v1_101_beta`)."""
    return _resnet("resnet_v1_101", BottleneckV1, (3, 4, 23, 3), BETA_ROOT, **options)
