"""What is in a checkpoint: variables by scope, statistics, the model it is of and what that would get from it."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from inspect import signature
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from errors import UserError
from models.checkpoint import Checkpoint, CheckpointError
from models.identify import Identity, UnknownNetwork, canonical_scope, identify
from models.scopes import rename_scope, within
from models.weight_init import AVERAGE, Report, bookkeeping_kind, checkpoint_guided_init, natural_order
from porting.difference import NO_REALS, Comparison

if TYPE_CHECKING:
    from models.layers import Network

Statistics = dict[str, Any]  # as `describe` gives them

OPENED_ABOVE = 20  # variables: the listing shows a residual unit as one line, a block as its units
VOC_CLASSES = 21
DEEPLAB = "deeplab_v3"


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


def listing(checkpoint: Checkpoint, found: Sequence[Variable], verbose: bool = False) -> str:
    """The variables as text: a tree of scopes with bookkeeping counted by kind, or with `verbose` every variable.

    Moving averages that are all there is are no bookkeeping: they stand in the tree.
    """
    size = sum(v.bytes for v in found)
    values = sum(v.values for v in found)
    lines = [f"{checkpoint.path}: {len(found)} variables, {values:,} values, {size / 1e6:,.1f} MB"]
    if not getattr(checkpoint, "has_data", True):
        lines.append("names and shapes alone: the .data file of this .index is not here")
    lines += _every(found) if verbose else _scopes(found)
    return "\n".join(lines + damage(found))


def _every(found: Sequence[Variable]) -> list[str]:
    """A line for each variable."""
    width = max((len(v.name) for v in found), default=0)
    return [
        f"  {v.name:<{width}}  {v.dtype} {v.shape}{_statistics_text(v.statistics)}{f'  ({v.kind})' if v.kind else ''}"
        for v in found
    ]


def _scopes(found: Sequence[Variable]) -> list[str]:
    """A line for each large scope, then one for each kind of bookkeeping."""
    shown = [v for v in found if not v.kind] or [v for v in found if v.name.endswith(AVERAGE)]
    rows = _tree([(v.name.removesuffix(AVERAGE).split("/"), v) for v in shown])
    width = max((len(label) for label, _ in rows), default=0)
    lines = []
    for label, inside in rows:
        counts = f"{len(inside):>5} variables  {sum(v.values for v in inside):>12,} values"
        shape = f"  {inside[0].dtype} {inside[0].shape}" if len(inside) == 1 else ""
        lines.append(f"  {label:<{width}}{counts}{shape}{_statistics_text(_together(inside))}")
    in_tree = {v.name for v in shown}
    kinds = Counter(v.kind for v in found if v.kind and v.name not in in_tree)
    if kinds:
        lines.append(f"optimizer slots and bookkeeping: {kinds.total()} variables")
        lines += [f"  {kind}: {count}" for kind, count in sorted(kinds.items())]
    return lines


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


@dataclass(frozen=True)
class Finding:
    """Which network a checkpoint holds, and the one whose coverage is asked for.

    identity: what the checkpoint tells; None where that is no network of this project, and `problem` says why.
    model: the network to be covered: the same, or the one that the user named; None for none.
    """

    identity: Identity | None = None
    model: Identity | None = None
    problem: str = ""

    def text(self, ema: bool = False) -> str:
        """The network, what is assumed of it, and its moving averages, in lines. ema: whether they are taken."""
        if self.identity is None:
            return f"model: {self.problem}"
        lines = [f"model: {self.identity}"]
        if assumed := self.identity.assumptions():
            lines.append(f"assumed: {assumed}")
        if self.identity.averages == "all":
            lines.append("moving averages alone: they are taken")
        elif self.identity.averages == "some" and not ema:
            lines.append("moving averages of its variables are in the checkpoint too; --ema takes them")
        return "\n".join(lines)


def find_network(
    checkpoint: Checkpoint,
    rename: Mapping[str, str] | None = None,
    model: str | None = None,
    num_classes: int | None = None,
) -> Finding:
    """Which network is in the checkpoint, its names renamed first.

    Args:
        model: a backbone (its classifier, or its features), `deeplab_v3/` and a backbone, or a scope of the checkpoint
            or what stands before one. It tells several networks apart, and says which coverage is asked for.
        num_classes: of the network to be covered, instead of what is told.

    Raises UserError for a `model` that is neither a network of this project nor in the checkpoint.
    """
    from models.deeplab_v3 import BACKBONES

    head, _, backbone = (model or "").rpartition("/")
    is_named = backbone in BACKBONES and head in ("", DEEPLAB)
    identity, problem = None, ""
    for meant in dict.fromkeys([model, backbone, None] if is_named else [model]):
        try:
            identity = _told(checkpoint, rename or {}, meant)
            break
        except UnknownNetwork as error:
            problem = str(error)
            break
        except CheckpointError as error:
            problem = f"not told by the names: {error}"
            if model and not is_named:
                known = f"{', '.join(BACKBONES)}, and {DEEPLAB}/… on each of them"
                raise UserError(f"--model {model}: {error}; networks of this project are {known}") from error
    asked = _named(identity, backbone, bool(head)) if is_named else identity
    return Finding(identity, asked and _with_classes(asked, num_classes or asked.num_classes), problem)


def _told(checkpoint: Checkpoint, rename: Mapping[str, str], model: str | None) -> Identity:
    """What names tell, and the operations of a frozen graph besides."""
    names = {rename_scope(name, rename): name for name in checkpoint.shapes}
    identity = identify({new: checkpoint.shapes[name] for new, name in names.items()}, model)
    if not identity.segments:
        return identity
    one = next(new for new in names if within(new, identity.scope))
    graph = checkpoint.architecture(names[one].removesuffix(one.removeprefix(identity.scope)))
    assumed = {name: value for name, value in identity.assumed.items() if name not in graph}
    return replace(identity, config=identity.config | graph, assumed=assumed)


def _named(told: Identity | None, backbone: str, segments: bool) -> Identity:
    """The Identity of a network that is named, as far as possible the one that the checkpoint tells."""
    same_kind = told is not None and told.segments == segments
    if told and same_kind and told.backbone == backbone:
        return told
    num_classes = told.num_classes if told and same_kind else None
    if told is None or told.backbone != backbone:
        told = Identity(backbone, canonical_scope(backbone))
    is_mobile = backbone.startswith("mobilenet")
    config: dict[str, Any] = {"backbone": backbone} if segments else {}
    if segments and is_mobile:
        config |= {"depth_multiplier": told.depth_multiplier, "divisible_by": told.divisible_by}
    return replace(told, num_classes=num_classes, segments=segments, atrous=not is_mobile, config=config, assumed={})


def _with_classes(identity: Identity, num_classes: int | None) -> Identity:
    """The same network with so many outputs; DeepLab's are VOC's where none are told."""
    if not identity.segments:
        return replace(identity, num_classes=num_classes)
    num_classes = num_classes or VOC_CLASSES
    return replace(identity, num_classes=num_classes, config=identity.config | {"num_classes": num_classes})


def build(identity: Identity, names: Iterable[str] = (), **options: Any) -> "Network":
    """The network that `identity` names.

    Args:
        names: of the checkpoint; where one is of MobileNet v2's last convolution, a network without classifier has it.
        **options: replace what `deeplab_v3`, or the backbone's builder, is told by `identity`.

    Raises UserError where there is no such network.
    """
    from inference.opening import build_segmenter, mended_by_user
    from models.deeplab_v3 import BACKBONES

    if identity.segments:
        return build_segmenter(identity.config | options)
    builder = BACKBONES[identity.backbone]
    has_last = any(within(name, f"{identity.scope}/Conv_1") for name in names)
    told = {
        "num_classes": identity.num_classes,
        "depth_multiplier": identity.depth_multiplier,
        "divisible_by": identity.divisible_by,
        "include_last_conv": identity.num_classes is not None or has_last,
    }
    taken = signature(builder).parameters
    with mended_by_user({"backbone": identity.backbone}):
        return builder(**{name: value for name, value in told.items() if name in taken} | options)


def coverage(
    checkpoint: Checkpoint, identity: Identity, rename: Mapping[str, str] | None = None, ema: bool = False
) -> Report:
    """The Report of what the checkpoint would give to the model of `identity`: nothing is read, nothing is loaded."""
    from models.layers import to_be_restored

    with to_be_restored():
        model = build(identity, [rename_scope(name, rename or {}) for name in checkpoint.shapes])
    return checkpoint_guided_init(
        model, checkpoint, rename=rename, ema=ema, apply=False, translation=identity.translation
    )


def document(
    checkpoint: Checkpoint,
    found: Iterable[Variable],
    finding: Finding | None = None,
    report: Report | None = None,
    comparison: Comparison | None = None,
) -> dict[str, Any]:
    """All of it as what JSON can hold. `identity` is what the checkpoint tells, `model` what `coverage` is of."""
    finding = finding or Finding()
    told, covered = finding.identity, finding.model
    return {
        "checkpoint": checkpoint.path,
        "variables": [asdict(v) for v in found],
        "identity": None if told is None else told.to_json(),
        "assumed": {} if told is None else dict(told.assumed),
        "problem": finding.problem,
        "model": None if covered is None else covered.to_json(),
        "coverage": None if report is None else report.document(),
        "comparison": None if comparison is None else {"same": comparison.same, **_finite(asdict(comparison))},
    }


def _finite(value: Any) -> Any:
    """JSON has no NaN and no Inf: they become text."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
