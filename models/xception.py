"""Xception as DeepLab has it, with the variable names and numbers of research/deeplab's `core/xception.py`.

Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", https://arxiv.org/abs/1610.02357, as modified
in Chen et al., "Encoder-Decoder with Atrous Separable Convolution", https://arxiv.org/abs/1802.02611, section 4.2: the
pools are strided convolutions, and every depthwise convolution has a batch norm of its own.
"""

from collections.abc import Mapping, Sequence
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


class XceptionModule(Module):
    """Three separable 3x3 convolutions beside a shortcut; the last of them strides.

    Args:
        channels: of the three.
        shortcut: "conv" (1x1, strided), "sum" (the input itself) or "none".
        dilations: of the three.
        activation_inside: ReLU after the two batch norms of each convolution, instead of once before it.

    Nothing follows the sum: the next module begins with the ReLU, which its shortcut does not see.
    """

    end_point = ""

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        shortcut: str,
        stride: int,
        dilations: Sequence[int],
        activation_inside: bool,
        *,
        norm: Mapping[str, float],
    ):
        super().__init__(name="xception_module")
        self.activation_inside = activation_inside
        self.sums = shortcut != "none"
        options: dict[str, Any] = {"batch_norm": norm, "activation": ops.relu if activation_inside else None}
        self.shortcut = None
        if shortcut == "conv":
            self.shortcut = Conv2d(in_channels, channels[-1], 1, stride, batch_norm=norm, name="shortcut")
        self.convolutions: list[Conv2d] = []
        for index, (width, dilation) in enumerate(zip(channels, dilations, strict=True), start=1):
            name = f"separable_conv{index}"
            step = stride if index == len(channels) else 1
            self.convolutions += [
                DepthwiseConv2d(
                    in_channels, 3, step, dilation, fixed_padding=True, name=f"{name}_depthwise", **options
                ),
                Conv2d(in_channels, width, 1, name=f"{name}_pointwise", **options),
            ]
            in_channels = width

    def call(self, x: Tensor) -> Tensor:
        """(N, h, w, in_channels) → (N, h / stride, w / stride, channels[-1])."""
        residual = x
        for convolution in self.convolutions:
            if not self.activation_inside and isinstance(convolution, DepthwiseConv2d):
                residual = ops.relu(residual)
            residual = convolution(residual)
        if not self.sums:
            return residual
        return residual + (self.shortcut(x) if self.shortcut else x)


@serializable
class Xception(Backbone):
    """Root of two convolutions, entry, middle and exit flow of modules, and, when asked, the classifier.

    Args:
        name: the scope, and so the first part of every variable's name.
        entry: (channels, stride) of each block of the entry flow.
        middle: how many modules the middle flow has.
        num_classes: outputs of the `logits` convolution over the globally pooled features; None for the features.
        output_stride: input size over feature size: 8, 16 or 32. Below 32, modules that would have strided keep their
            stride at 1 and those behind them dilate instead.
        multi_grid: dilation factors of the last module's three convolutions; None for none.
        batch_norm_decay: of the moving statistics, under 1; research/deeplab's 0.9997.
        in_channels: of the images, where they are not RGB; `preprocessing` is for three.
        global_pool: False has the classifier score every place of the features: (N, h, w, num_classes).

    Call: float images (N, H, W, 3) in [-1, 1] → features (N, h, w, 2048), after ReLU; or float32 logits
    (N, num_classes).

    Raises ValueError for another output stride, a multi-grid that has not three factors, and images of another type or
    shape.
    """

    logits_scope = "logits"

    def __init__(
        self,
        name: str,
        entry: Sequence[Sequence[int]],
        middle: int,
        num_classes: int | None = None,
        output_stride: int = 32,
        multi_grid: Sequence[int] | None = None,
        batch_norm_decay: float = 0.9997,
        in_channels: int = 3,
        global_pool: bool = True,
    ):
        super().__init__(
            *(name, num_classes, output_stride, batch_norm_decay, in_channels, global_pool),
            entry=tuple(tuple(block) for block in entry),
            middle=middle,
            multi_grid=None if multi_grid is None else tuple(multi_grid),
        )
        if multi_grid is not None and len(multi_grid) != 3:
            raise ValueError(f"multi_grid needs one factor for each of three convolutions. Received: {multi_grid}")
        self.out_channels = 2048
        # What a decoder is fed, of stride 4: the last map before the entry flow strides to 8.
        block = [stride for _, stride in entry].index(2, 1) + 1
        self.low_level = f"entry_flow/block{block}/unit_1/xception_module/separable_conv2_pointwise"

        norm = {"epsilon": 1e-3, "decay": batch_norm_decay}
        root: dict[str, Any] = {"fixed_padding": True, "batch_norm": norm, "activation": ops.relu}
        modules: list[tuple[tuple[int, ...], str, int, bool]] = [
            *(((width,) * 3, "conv", stride, False) for width, stride in entry),
            *[((728,) * 3, "sum", 1, False)] * middle,
            ((728, 1024, 1024), "conv", 2, False),
            ((1536, 1536, 2048), "none", 1, True),
        ]
        rates = strides_and_dilations([stride for _, _, stride, _ in modules], output_stride, reached=2)
        units: list[XceptionModule] = []
        channels = 64
        for (widths, shortcut, _, inside), (stride, dilation) in zip(modules, rates, strict=True):
            grid = multi_grid if inside and multi_grid else (1, 1, 1)
            dilations = [dilation * factor for factor in grid]
            units.append(XceptionModule(channels, widths, shortcut, stride, dilations, inside, norm=norm))
            channels = widths[-1]
        self.entry_flow = Scope(
            "entry_flow",
            [
                Conv2d(in_channels, 32, 3, stride=2, name="conv1_1", **root),
                Conv2d(32, 64, 3, name="conv1_2", **root),
                *_blocks([[unit] for unit in units[: len(entry)]]),
            ],
        )
        self.middle_flow = Scope("middle_flow", _blocks([units[len(entry) : -2]]))
        self.exit_flow = Scope("exit_flow", _blocks([[unit] for unit in units[-2:]]))
        if num_classes is not None:
            self.logits = Conv2d(2048, num_classes, 1, name="logits")

    def features(self, images: Tensor) -> Tensor:
        """What a head is to be fed (N, h, w, C)."""
        return self.exit_flow(self.middle_flow(self.entry_flow(images)))


def _blocks(modules: Sequence[Sequence[XceptionModule]]) -> list[Scope]:
    """Lists of modules → scopes `block1`, `block2` … with the modules in `unit_1`, `unit_2` …"""
    return [
        Scope(f"block{block}", [Scope(f"unit_{unit}", [module]) for unit, module in enumerate(units, start=1)])
        for block, units in enumerate(modules, start=1)
    ]


def _xception(
    scope: str,
    entry: tuple[tuple[int, int], ...],
    middle: int,
    *,
    num_classes: int | None = None,
    output_stride: int = 32,
    multi_grid: Sequence[int] | None = None,
    batch_norm_decay: float = 0.9997,
    in_channels: int = 3,
    global_pool: bool = True,
    name: str | None = None,
) -> Xception:
    """Args:
        num_classes: outputs of the classifier, background included where there is one (1001); None: features.
        output_stride: input size over feature size: 8, 16 or 32; modules beyond it dilate instead of striding.
        multi_grid: dilation factors of the last module's three convolutions; None: all 1.
        batch_norm_decay: of the moving statistics, under 1; research/deeplab's 0.9997.
        in_channels: of the images, where they are not RGB; `preprocessing` is for three.
        global_pool: False has the classifier score every place of the features: (N, h, w, num_classes).
        name: the scope, the first part of every variable's name; None: the builder's own name.

    Returns:
        Xception, its variables there: float images (N, H, W, 3) in [-1, 1] → features (N, h, w, 2048), or logits
        (N, num_classes).

    Raises:
        ValueError: another output stride, or a multi-grid of another length.
    """
    net = Xception(
        *(name or scope, entry, middle, num_classes, output_stride, multi_grid, batch_norm_decay),
        in_channels=in_channels,
        global_pool=global_pool,
    )
    net.build()
    return net


@with_options_of(_xception)
def xception_41(**options: Any) -> Xception:
    """Xception of 41 convolutions (research/deeplab's `xception_41`)."""
    return _xception("xception_41", ((128, 2), (256, 2), (728, 2)), 8, **options)


@with_options_of(_xception)
def xception_65(**options: Any) -> Xception:
    """Xception of 65 convolutions (research/deeplab's `xception_65`)."""
    return _xception("xception_65", ((128, 2), (256, 2), (728, 2)), 16, **options)


@with_options_of(_xception)
def xception_71(**options: Any) -> Xception:
    """Xception of 71 convolutions (research/deeplab's `xception_71`)."""
    return _xception("xception_71", ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2)), 16, **options)
