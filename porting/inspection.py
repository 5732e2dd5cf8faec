"""What is in a checkpoint: variables by scope, statistics, the model it is of and what that would get from it."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from typing import Any

import keras
import numpy as np

from errors import UserError
from models.checkpoint import Checkpoint, CheckpointError
from models.identify import Identity, UnknownNetwork, canonical_scope, identify
from models.leftovers import leftovers, part_of
from models.scopes import within
from models.weight_init import (
    AVERAGE,
    LOADED,
    Report,
    bookkeeping_kind,
    checkpoint_guided_init,
    natural_order,
    rename_scope,
)
from porting.difference import NO_REALS, Comparison, compare  # noqa: F401 - inspect_ckpt.py has `compare` from here

Statistics = dict[str, Any]  # as `describe` gives them

OPENED_ABOVE = 20  # variables: the listing shows a residual unit as one line, a block as its units
VOC_CLASSES = 21


@dataclass(frozen=True)
class Variable:
    """One variable of a checkpoint. kind: of bookkeeping ("Momentum" …), or None; statistics: on request."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    values: int
    bytes: int
    kind: str | None = None
    statistics: Statistics | None = None


def variables(checkpoint: Checkpoint, statistics: bool = False) -> list[Variable]:
    """The variables in the order people count; `statistics` reads every tensor."""
    found = []
    for name in sorted(checkpoint.shapes, key=natural_order):
        shape, dtype = checkpoint.shapes[name], checkpoint.dtypes[name]
        values = int(np.prod(shape, dtype=np.int64))
        found.append(
            Variable(
                name,
                shape,
                dtype,
                values,
                values * _item_size(dtype),
                bookkeeping_kind(name),
                describe(checkpoint.read(name)) if statistics else None,
            )
        )
    return found


def _item_size(dtype: str) -> int:
    import tensorflow as tf

    return tf.as_dtype(dtype).size or 0  # a string has no size of its own


def describe(array: np.ndarray) -> Statistics | None:
    """{mean, std, min, max of the finite values, nan, inf: how many of those}; None where there are no numbers."""
    if array.dtype.kind in NO_REALS or not array.size:
        return None
    numbers = array.astype("float64")
    finite = numbers[np.isfinite(numbers)]
    summary: Statistics = {"nan": int(np.isnan(numbers).sum()), "inf": int(np.isinf(numbers).sum())}
    for name in ("mean", "std", "min", "max"):
        summary[name] = float(getattr(finite, name)()) if finite.size else None
    return summary


def _statistics_text(statistics: Statistics | None) -> str:
    if statistics is None:
        return ""
    if statistics["mean"] is None:
        return "  no finite value"
    return "  " + "  ".join(f"{name} {statistics[name]:.4g}" for name in ("mean", "std", "min", "max"))


def damage(found: Iterable[Variable]) -> list[str]:
    """One loud line for each variable with NaN or Inf in it."""
    return [
        f"!!! {v.name}: {v.statistics['nan']} NaN, {v.statistics['inf']} Inf of {v.values:,} values"
        for v in found
        if v.statistics and (v.statistics["nan"] or v.statistics["inf"])
    ]


def listing(path: str, found: Sequence[Variable], verbose: bool = False) -> str:
    """The variables as text: a tree of scopes with bookkeeping counted by kind, or with `verbose` every variable."""
    size = sum(v.bytes for v in found)
    values = sum(v.values for v in found)
    lines = [f"{path}: {len(found)} variables, {values:,} values, {size / 1e6:,.1f} MB"]
    if verbose:
        width = max((len(v.name) for v in found), default=0)
        for v in found:
            kind = f"  ({v.kind})" if v.kind else ""
            lines.append(f"  {v.name:<{width}}  {v.dtype} {v.shape}{_statistics_text(v.statistics)}{kind}")
    else:
        rows = _tree([(v.name.split("/"), v) for v in found if not v.kind])
        width = max((len(label) for label, _ in rows), default=0)
        for label, inside in rows:
            counts = f"{len(inside):>5} variables  {sum(v.values for v in inside):>12,} values"
            shape = f"  {inside[0].dtype} {inside[0].shape}" if len(inside) == 1 else ""
            lines.append(f"  {label:<{width}}{counts}{shape}{_statistics_text(_together(inside))}")
        kinds = Counter(v.kind for v in found if v.kind)
        if kinds:
            lines.append(f"optimizer slots and bookkeeping: {kinds.total()} variables")
            lines += [f"  {kind}: {count}" for kind, count in sorted(kinds.items())]
    return "\n".join(lines + damage(found))


def _tree(paths: Iterable[tuple[Sequence[str], Variable]], depth: int = 0) -> list[tuple[str, list[Variable]]]:
    """[(parts of the rest of the name, variable)] → [(indented scope, its variables)]: large scopes are opened."""
    groups: dict[str, list[tuple[Sequence[str], Variable]]] = {}
    for parts, variable in paths:
        groups.setdefault(parts[0], []).append((parts[1:], variable))
    rows = []
    for label, members in groups.items():
        levels = zip(*(parts for parts, _ in members), strict=False)
        shared = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]  # only children
        rows.append(("  " * depth + "/".join([label, *shared]), [variable for _, variable in members]))
        if len(members) > OPENED_ABOVE:
            below = [(parts[len(shared) :], variable) for parts, variable in members]
            rows += _tree([(parts, variable) for parts, variable in below if parts], depth + 1)
    return rows


def _together(inside: Iterable[Variable]) -> Statistics | None:
    """The statistics of several variables as one; None without statistics."""
    known = [(v.values, v.statistics) for v in inside if v.statistics and v.statistics["mean"] is not None]
    if not known:
        return None
    total = sum(count for count, _ in known)
    mean = sum(count * s["mean"] for count, s in known) / total
    square = sum(count * (s["std"] ** 2 + s["mean"] ** 2) for count, s in known) / total
    return {
        "mean": mean,
        "std": max(square - mean**2, 0.0) ** 0.5,
        "min": min(s["min"] for _, s in known),
        "max": max(s["max"] for _, s in known),
    }


def told(checkpoint: Checkpoint, rename: Mapping[str, str], model: str | None = None) -> tuple[Identity | None, str]:
    """What the checkpoint's names tell, the names renamed first. → (Identity, "") or (None, why it cannot be told)

    Of a run's checkpoint nothing is assumed: the run keeps it.

    Args:
        model: as `models.identify.identify` takes it.
    """
    from engine.run_directory import run_of
    from inference.opening import segmenter_of

    try:
        identity = identify({rename_scope(name, rename): shape for name, shape in checkpoint.shapes.items()}, model)
        if identity.segments and run_of(checkpoint.path):
            kept = segmenter_of(checkpoint.path, rename, model=model)
            identity = replace(identity, config=kept.config, assumed={})
        return identity, ""
    except UnknownNetwork as error:
        return None, str(error)
    except CheckpointError as error:
        return None, f"not told by the names: {error}"


def named_identity(
    text: str, checkpoint: Checkpoint, rename: Mapping[str, str], num_classes: int | None = None
) -> Identity:
    """The Identity meant by `--model`: a network of the checkpoint by its kind or its place, or any by its name.

    Args:
        text: a scope in the checkpoint or what stands before one, a backbone, or `deeplab_v3/` and a backbone.
        num_classes: of a network that is not in the checkpoint; None takes those of what is there.

    Raises UserError for what is neither a network nor a place in the checkpoint, UnknownNetwork for the place of one
    that this project lacks.
    """
    from models.deeplab_v3 import BACKBONES

    head, _, backbone = text.strip("/").rpartition("/")
    by_name = backbone in BACKBONES and head in ("", "deeplab_v3")
    there, _ = told(checkpoint, rename, backbone if by_name else text)
    if there and (head != "deeplab_v3" or there.segments or not by_name):
        return there
    if not by_name:
        names = ", ".join(BACKBONES)
        why = told(checkpoint, rename, text)[1]
        if why.startswith("this is "):
            raise UnknownNetwork(why)
        places = why.partition("checkpoint; ")[2]
        raise UserError(
            f"--model {text}: unknown; there are {names}, and deeplab_v3/… on each of them"
            + (f"; the checkpoint: {places}" if places else "")
        )
    return _another(backbone, bool(head), there or told(checkpoint, rename)[0], num_classes)


def _another(backbone: str, segments: bool, there: Identity | None, num_classes: int | None) -> Identity:
    """The Identity of a network that the checkpoint does not hold, with what the two have in common."""
    if there and there.segments == segments:
        num_classes = num_classes or there.num_classes
    if segments:
        num_classes = num_classes or VOC_CLASSES
    if there is None or there.backbone != backbone:
        there = Identity(backbone, canonical_scope(backbone))
    identity = replace(there, num_classes=num_classes, segments=segments, family="official" if segments else "slim")
    config: dict[str, Any] = {"backbone": backbone, "num_classes": num_classes}
    if backbone.startswith("mobilenet"):
        config |= {"depth_multiplier": identity.depth_multiplier, "divisible_by": identity.divisible_by}
    return replace(identity, config=config if segments else {}, assumed={})


def with_classes(identity: Identity, num_classes: int) -> Identity:
    """The same network with another number of classes."""
    config = identity.config | {"num_classes": num_classes} if identity.segments else {}
    return replace(identity, num_classes=num_classes, config=config)


def head_parts(identity: Identity) -> str:
    """The parts of a segmenter's head in words, as far as names tell them; empty for a classifier."""
    config = identity.config
    if not config:
        return ""
    branches = len(config.get("atrous_rates") or ())
    kind = "separable atrous" if config.get("separable_aspp") else "atrous"
    parts = ["image pooling"] if config.get("image_pooling", True) else []
    parts += ["aspp0"] + ([f"{branches} {kind} branches"] if branches else [])
    if config.get("decoder"):
        parts.append(f"{config['decoder']} decoder")
    return ", ".join(parts + ([] if identity.num_classes else ["no logits"]))


def averages(checkpoint: Checkpoint, identity: Identity, ema: bool) -> str:
    """One line on the checkpoint's moving averages; empty where there are none, or they were asked for."""
    count = sum(name.endswith(AVERAGE) for name in checkpoint.shapes)
    if identity.averages == "all":
        return f"moving averages: all there is ({count} variables); every program takes them, with or without --ema"
    if identity.averages == "some" and not ema:
        return f"moving averages: of {count} variables; every program takes them with --ema"
    return ""


def build(identity: Identity, names: Iterable[str] = (), **options: Any) -> keras.Model:
    """The network that `identity` names.

    Args:
        names: of the checkpoint; where one is of MobileNet's last convolution, a network without classifier has it.
        **options: replace what `deeplab_v3`, or the backbone's builder, is told by `identity`.
    """
    from inference.opening import build_segmenter
    from models.deeplab_v3 import BACKBONES

    if identity.segments:
        classes = identity.num_classes or VOC_CLASSES  # a head without logits: they are missing
        return build_segmenter(identity.config | {"num_classes": classes} | options)
    told_options: dict[str, Any] = {"num_classes": identity.num_classes}
    if identity.backbone.startswith("mobilenet"):
        scope = canonical_scope(identity.backbone)
        has_last = any(within(identity.translation.rename(name), f"{scope}/Conv_1") for name in names)
        told_options |= {
            "depth_multiplier": identity.depth_multiplier,
            "divisible_by": identity.divisible_by,
            "include_last_conv": identity.num_classes is not None or has_last,
        }
    return BACKBONES[identity.backbone](**told_options | options)


def coverage(
    checkpoint: Checkpoint, identity: Identity, rename: Mapping[str, str] | None = None, ema: bool = False
) -> Report:
    """The Report of what the checkpoint would give to the model of `identity`: nothing is read, nothing is loaded."""
    model = build(identity, [rename_scope(name, rename or {}) for name in checkpoint.shapes])
    return checkpoint_guided_init(
        model, checkpoint, rename=rename, ema=ema, apply=False, translation=identity.translation
    )


def homeless(report: Report) -> str:
    """One line on the variables that the network leaves out though it may not; empty for none, or another network."""
    left = leftovers(report) if report.of(LOADED) else []
    if not left:
        return ""
    shown = ", ".join(f"{entry.source} ({part_of(entry.source)})" for entry in left[:4]) + (" …" if left[4:] else "")
    return f"without a place in this network: {len(left)}: {shown}; evaluation, prediction and export refuse it"


def document(
    checkpoint: Checkpoint,
    found: Iterable[Variable],
    identity: Identity | None = None,
    report: Report | None = None,
    comparison: Comparison | None = None,
    untold: str = "",
) -> dict[str, Any]:
    """All of it as what JSON can hold. untold: why there is no identity."""
    return {
        "checkpoint": checkpoint.path,
        "variables": [asdict(v) for v in found],
        "model": None if identity is None else _identity(identity),
        "assumed": identity.assumptions() if identity else "",
        "untold": untold,
        "coverage": None if report is None else json.loads(report.to_json()),
        "comparison": None if comparison is None else {"same": comparison.same, **_finite(asdict(comparison))},
    }


def _identity(identity: Identity) -> dict[str, Any]:
    plain = ("backbone", "scope", "num_classes", "segments", "atrous", "depth_multiplier", "divisible_by", "family")
    told_of = {name: getattr(identity, name) for name in (*plain, "config", "assumed", "averages")}
    return told_of | {"text": str(identity), "head": head_parts(identity)}


def _finite(value: Any) -> Any:
    """JSON has no NaN and no Inf: they become text."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
