"""Taps: any end point of any backbone as a model's output, with the variables up to there and no other."""

import difflib
import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Self

import keras

from errors import UserError
from models.deeplab_v3 import BACKBONES
from models.layers import Network, Tensor, built_on_call, recording, serializable


class TapError(UserError, ValueError):
    """An end point that the network does not have."""


def tap(
    net: str | Network,
    end_point: str,
    *,
    num_classes: int | None = None,
    output_stride: int | None = None,
    multi_grid: Sequence[int] | None = None,
    depth_multiplier: float | None = None,
    divisible_by: int | None = None,
    batch_norm_decay: float | None = None,
    in_channels: int | None = None,
    name: str | None = None,
) -> "Tap":
    """Builds a network as far as one of its end points, and no further; its variables exist at once.

    "As far as" is in the order of computation, in which a unit's shortcut comes after its convolutions.

    Args:
        net: a name of `models.deeplab_v3.BACKBONES`, or a Network that has not been built yet.
        end_point: a key of `net.end_points(images)`, such as `resnet_v2_50/block3`,
            `resnet_v2_50/block3/unit_2/bottleneck_v2/conv1` or `MobilenetV2/expanded_conv_14/output`.
        num_classes, output_stride, multi_grid, depth_multiplier, divisible_by, batch_norm_decay, in_channels, name: of
            the network's builder, where `net` is a name and the builder has it; None: as the builder has it.

    Returns:
        Tap: float images (N, H, W, 3), preprocessed as its `preprocessing` says, → the end point (N, h, w, C).

    Raises:
        TapError: the network has no such end point; the text lists those that look like it.
        ValueError: an unknown name, an option that the network has not, or a network that is built already.
    """
    options = {
        "num_classes": num_classes,
        "output_stride": output_stride,
        "multi_grid": multi_grid,
        "depth_multiplier": depth_multiplier,
        "divisible_by": divisible_by,
        "batch_norm_decay": batch_norm_decay,
        "in_channels": in_channels,
        "name": name,
    }
    given = {option: value for option, value in options.items() if value is not None}
    with built_on_call():
        if isinstance(net, str):
            net = _named(net, given)
        elif net.built:
            raise ValueError(f"a tap builds the network itself, only as far as needed. Received: {net.name}, built")
        elif given:
            raise ValueError(f"{net.name} has its options already. Received: {given}")
        else:
            net.build()
        return Tap(net, end_point)


def _named(name: str, options: dict[str, Any]) -> Network:
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone. Received: {name!r}; there are {', '.join(BACKBONES)}")
    known = inspect.signature(BACKBONES[name]).parameters
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"{name} has no {option}; it has {', '.join(known)}. Received: {value!r}")
    return BACKBONES[name](**options)


@serializable
class Tap(Network):
    """Images (N, H, W, 3), preprocessed as `self.preprocessing` says → the end point (N, h, w, `out_channels`).

    Made by `tap`. Variables, scopes and preprocessing are the network's, so that initialization, freezing and
    `save_checkpoint` treat it as such; what lies behind the end point in a checkpoint is unused. Its own `end_points`
    are all those up to the tap's. Before `keras.models.load_model`, this module must have been imported.
    """

    def __init__(self, net: Network, end_point: str):
        super().__init__(name=end_point.replace("/", "."))
        self.options = {"end_point": end_point}
        self.net = net
        self.end_point_key = end_point
        self.variable_prefix, self.backbone_scope = net.variable_prefix, net.backbone_scope
        self.preprocessing, self.in_channels = net.preprocessing, net.in_channels
        try:  # The first pass builds what it comes by; symbolic, so that nothing is computed.
            output = self.compute_output_spec(keras.KerasTensor((1, 65, 65, net.in_channels)))
        except _Missed as missed:
            raise TapError(_unknown(end_point, net.name, *missed.args)) from None
        self.out_channels = output.shape[-1]
        self.built = True
        for module in net._flatten_layers():
            module._layers[:] = [child for child in module._layers if child.built]

    def _end_points(self, images: Tensor) -> dict[str, Tensor]:
        return self._run(images, training=False)

    def call(self, images: Tensor, training: bool | None = False) -> Tensor:
        """Images (N, H, W, 3) → the end point (N, h, w, `out_channels`)."""
        return self._run(images, training)[self.end_point_key]

    def get_config(self) -> dict[str, Any]:
        """See `Network`; and the network."""
        return super().get_config() | {"net": keras.saving.serialize_keras_object(self.net)}

    @classmethod
    def _from_options(cls, options: dict[str, Any]) -> Self:
        with built_on_call():
            return cls(keras.saving.deserialize_keras_object(options["net"]), options["end_point"])

    def _run(self, images: Tensor, training: bool | None) -> dict[str, Tensor]:
        """The end points that are reached until the tap's is."""
        found = _Until(self.net.variable_prefix, self.end_point_key)
        try:
            with recording(found):
                self.net(images, training=training)
        except _Reached:
            return dict(found)
        raise _Missed(list(found))


class _Reached(BaseException):
    """Ends the pass at the tap. Not an Exception, like the next: Keras would wrap it in one of its own."""


class _Missed(BaseException):
    """The pass came to its end without it; holds the end points there are."""


class _Until(dict):
    """End points recorded under slim's keys, until one is."""

    def __init__(self, prefix: str, last: str):
        super().__init__()
        self.prefix, self.last = prefix, last

    def __setitem__(self, path: str, output: Tensor) -> None:
        key = path.removeprefix(self.prefix)
        super().__setitem__(key, output)
        if key == self.last:
            raise _Reached


def _unknown(end_point: str, name: str, keys: Iterable[str]) -> str:
    near = [key for key in keys if key.endswith(f"/{end_point}")]
    near += [key for key in difflib.get_close_matches(end_point, keys, n=6, cutoff=0.5) if key not in near]
    shown = ", ".join(near or [key for key in keys if key.count("/") == 1])
    return f"{name} has no end point {end_point!r}; near it are: {shown}"
