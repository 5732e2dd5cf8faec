"""What a family of checkpoints is: how its names tell it, what they are here, and what its authors' code fixed.

Data, and small pure functions over {name: shape}. "Here" are this project's names, which are those of research/deeplab.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.scopes import first_match, rename_scope, within

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Change:
    """What is done to a variable's values after they were read, so that this project's network computes the same.

    words: what the report says, e.g. "permuted". shape: what `values` makes of a shape.
    by_family: whether the family's way of writing is the reason, which the words then say.
    """

    words: str
    values: Callable[[np.ndarray], np.ndarray]
    shape: Callable[[tuple[int, ...]], tuple[int, ...]] = tuple
    by_family: bool = True


def _pooling_first(kernel: np.ndarray) -> np.ndarray:
    return np.roll(kernel, kernel.shape[2] // 5, axis=2)


# Where image pooling is the last of the five branches that are concatenated, and here the first.
POOLING_FIRST = {"concat_projection/weights": Change("permuted", _pooling_first)}


@dataclass(frozen=True)
class Family:
    """One kind of public checkpoints.

    name: in a report, "permuted by NAME". title: how an identity begins, "TITLE DeepLab v3, resnet_v2_50, …".
    scopes: {scope there: scope here}; "{backbone}" is slim's scope of the backbone. leaves: {last part there: here}.
    fixed: the backbone's name → arguments of `models.deeplab_v3.deeplab_v3` that are the same in all its checkpoints.
    assumed: the same of those that a checkpoint's names cannot tell, with the value its code defaults to.
    changes: {variable here: Change}.
    tells: whether {name: shape}, the backbone under slim's scope, is of this family; the default is that something
        lies in one of `scopes`.
    """

    name: str
    title: str
    scopes: Mapping[str, str] = field(default_factory=dict)
    leaves: Mapping[str, str] = field(default_factory=dict)
    fixed: Callable[[str], dict[str, Any]] = lambda backbone: {}
    assumed: Callable[[str], dict[str, Any]] = lambda backbone: {}
    changes: Mapping[str, Change] = field(default_factory=dict)
    tells: Callable[[Shapes, str], bool] | None = None

    def scopes_on(self, backbone_scope: str) -> dict[str, str]:
        """`scopes` with slim's scope of the backbone put in."""
        return {old.format(backbone=backbone_scope): new for old, new in self.scopes.items()}

    def is_told_by(self, shapes: Shapes, backbone_scope: str) -> bool:
        """Whether {name: shape}, with the backbone under slim's scope, is a checkpoint of this family."""
        if self.tells:
            return self.tells(shapes, backbone_scope)
        scopes = self.scopes_on(backbone_scope)
        return any(first_match(name, scopes) for name in shapes)


@dataclass(frozen=True)
class Translation:
    """From the names and values of one checkpoint to this project's.

    family: name of the family that asks for it. prefix: what stands before the whole network's names, "tower_0/".
    scopes, leaves, changes: as in `Family`, scopes after the prefix is gone.
    others: (prefix, scope) of further networks in the checkpoint, which are left out with all that belongs to them.
    """

    family: str = ""
    prefix: str = ""
    scopes: Mapping[str, str] = field(default_factory=dict)
    leaves: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, Change] = field(default_factory=dict)
    others: tuple[tuple[str, str], ...] = ()

    def rename(self, name: str) -> str:
        """A variable's name in the checkpoint → its name here."""
        name = rename_scope(name.removeprefix(self.prefix), self.scopes)
        scope, slash, leaf = name.rpartition("/")
        return scope + slash + self.leaves.get(leaf, leaf)

    def left_out(self, name: str) -> str | None:
        """The scope of the other network that a variable of the checkpoint belongs to; None for one of this network."""
        ours = len(self.prefix) if name.startswith(self.prefix) else -1
        for prefix, scope in self.others:
            own_place = name.startswith(prefix) and len(prefix) > ours
            if own_place or (prefix == self.prefix and within(name, scope)):
                return scope
        return None

    def shape(self, variable: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the values of `variable` (its name here) have after they were changed."""
        change = self.changes.get(variable)
        return change.shape(shape) if change else tuple(shape)

    def values(self, variable: str, values: np.ndarray) -> np.ndarray:
        """The values of `variable` (its name here) as this project's network needs them."""
        change = self.changes.get(variable)
        return change.values(values) if change else values

    def words(self, variable: str) -> str:
        """What was done to the values of `variable`, for a report; empty for nothing."""
        change = self.changes.get(variable)
        if change is None:
            return ""
        return f"{change.words} by {self.family}" if change.by_family else change.words


_BRANCH = re.compile(r"aspp([1-9])(_depthwise|_pointwise)?/")
_DECODER = re.compile(r"decoder/decoder_conv\d(?P<separable>_depthwise|_pointwise)?/")
_LITE_DECODER = "decoder/decoder_conv0"  # MobileNet v3's, whose output is the logits: one convolution with biases

_AS_WIDE_AS_THE_HEAD = ("concat_projection/weights", "aspp0/weights", "meta_architecture/concat_projection/weights")


def head_told(shapes: Shapes) -> dict[str, Any]:
    """What names and shapes, already those here, tell of a DeepLab's head: arguments of `deeplab_v3`.

    `num_classes` is None where there are no logits; `branches` counts the dilated ones.
    """
    lite = any(f"{_LITE_DECODER}/{leaf}" in shapes for leaf in ("weights", "biases"))
    logits = next(
        (
            shapes[f"{scope}/{leaf}"]
            for scope in ("logits/semantic", *([_LITE_DECODER] if lite else []))
            for leaf in ("weights", "biases")
            if f"{scope}/{leaf}" in shapes
        ),
        None,
    )
    branches = [match for match in map(_BRANCH.match, shapes) if match]
    split = [match for match in branches if match[2]]
    decoder = [match for match in map(_DECODER.match, shapes) if match]
    separable = [match for match in decoder if match["separable"]]
    # One variable alone of the cell is a leftover of something.
    cell = sum(within(name, "meta_architecture") for name in shapes) > 1
    channels = next((shapes[name][-1] for name in _AS_WIDE_AS_THE_HEAD if name in shapes), 256)
    return {
        "head": "lr-aspp" if lite else "dense-prediction-cell" if cell else "aspp",
        "head_channels": channels,
        "num_classes": logits[-1] if logits else None,
        "branches": len({match[1] for match in branches}),
        "separable_aspp": len(split) > len(branches) / 2,
        "image_pooling": any(within(name, "image_pooling") for name in shapes),
        "decoder": None if not decoder or lite else "separable" if len(separable) > len(decoder) / 2 else "plain",
    }
