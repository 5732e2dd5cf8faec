"""What is in a checkpoint: variables by scope, statistics, the model it is of and what that would get from it."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from errors import UserError
from models.checkpoint import Checkpoint
from models.identify import Identity, canonical_scope
from models.weight_init import Report, bookkeeping_kind, checkpoint_guided_init, natural_order
from porting.difference import NO_REALS, Comparison, compare  # noqa: F401 - inspect_ckpt.py has `compare` from here

if TYPE_CHECKING:
    from models.layers import Network

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


def named_identity(text: str, told: Identity | None, num_classes: int | None = None) -> Identity:
    """The Identity meant by `--model`: a backbone, or `deeplab_v3/` and a backbone; UserError for an unknown one.

    told: what the checkpoint says of itself, or None. From it come the number of classes where none is given and the
    model is of the same kind, and MobileNet's width.
    """
    from models.deeplab_v3 import BACKBONES

    head, _, backbone = text.rpartition("/")
    if backbone not in BACKBONES or head not in ("", "deeplab_v3"):
        names = ", ".join(BACKBONES)
        raise UserError(f"--model {text}: unknown; there are {names}, and deeplab_v3/… on each of them")
    segments = head == "deeplab_v3"
    alike = told if told and told.segments == segments else None
    mobile = backbone == "mobilenet_v2"
    return Identity(
        backbone,
        told.scope if told and told.backbone == backbone else canonical_scope(backbone),
        num_classes or (alike.num_classes if alike else None) or (VOC_CLASSES if segments else None),
        segments,
        alike.atrous if alike else not mobile,
        told.depth_multiplier if told and told.backbone == backbone else 1.0,
    )


def build(identity: Identity, names: Iterable[str]) -> "Network":
    """The network that `identity` names; MobileNet's last convolution exists where one of `names` is of it."""
    from models.deeplab_v3 import ATROUS_RATES, BACKBONES, deeplab_v3

    mobile = identity.backbone == "mobilenet_v2"
    options = {"depth_multiplier": identity.depth_multiplier} if mobile else {}
    if identity.segments:
        rates = ATROUS_RATES if identity.atrous else ()
        return deeplab_v3(identity.backbone, identity.num_classes, atrous_rates=rates, **options)
    if mobile:
        has_last = any(name.startswith(f"{identity.scope}/Conv_1/") for name in names)
        options["include_last_conv"] = identity.num_classes is not None or has_last
    return BACKBONES[identity.backbone](num_classes=identity.num_classes, **options)


def coverage(
    checkpoint: Checkpoint, identity: Identity, rename: Mapping[str, str] | None = None, ema: bool = False
) -> Report:
    """The Report of what the checkpoint would give to the model of `identity`: nothing is read, nothing is loaded.

    Where the checkpoint calls the backbone otherwise than slim and no `rename` is given, it is renamed.
    """
    scope = canonical_scope(identity.backbone)
    if not rename and identity.scope != scope:
        rename = {identity.scope: scope}
    model = build(identity, checkpoint.shapes)
    report = checkpoint_guided_init(model, checkpoint.prefix, rename=rename, ema=ema, apply=False)
    return replace(report, checkpoint=checkpoint.path)  # an archive is not unpacked a second time


def document(
    checkpoint: Checkpoint,
    found: Iterable[Variable],
    identity: Identity | None = None,
    report: Report | None = None,
    comparison: Comparison | None = None,
) -> dict[str, Any]:
    """All of it as what JSON can hold."""
    return {
        "checkpoint": checkpoint.path,
        "variables": [asdict(v) for v in found],
        "model": None if identity is None else identity.to_json(),
        "coverage": None if report is None else json.loads(report.to_json()),
        "comparison": None if comparison is None else {"same": comparison.same, **_finite(asdict(comparison))},
    }


def _finite(value: Any) -> Any:
    """JSON has no NaN and no Inf: they become text."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
