"""What is in a checkpoint: variables by scope, statistics, the model it is of, the difference to another checkpoint."""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from itertools import takewhile

import numpy as np

from errors import UserError
from models.checkpoint import CheckpointError
from models.identify import Identity, canonical_scope
from models.scopes import check_scopes
from models.weight_init import bookkeeping_kind, checkpoint_guided_init, natural_order, rename_scope

_NO_REALS = "OSUc"  # strings, as TensorFlow and NumPy have them, and complex numbers
OPENED_ABOVE = 20  # variables: the listing shows a residual unit as one line, a block as its units
VOC_CLASSES = 21


@dataclass(frozen=True)
class Variable:
    """One variable of a checkpoint. kind: of bookkeeping ("Momentum" …), or None; statistics: on request."""

    name: str
    shape: tuple
    dtype: str
    values: int
    bytes: int
    kind: str | None = None
    statistics: dict | None = None


def variables(checkpoint, statistics=False):
    """→ list of Variable in the order people count; `statistics` reads every tensor."""
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


def _item_size(dtype):
    import tensorflow as tf

    return tf.as_dtype(dtype).size or 0  # a string has no size of its own


def describe(array):
    """{mean, std, min, max of the finite values, nan, inf: how many of those}; None where there are no numbers."""
    if array.dtype.kind in _NO_REALS or not array.size:
        return None
    numbers = array.astype("float64")
    finite = numbers[np.isfinite(numbers)]
    summary = {"nan": int(np.isnan(numbers).sum()), "inf": int(np.isinf(numbers).sum())}
    for name in ("mean", "std", "min", "max"):
        summary[name] = float(getattr(finite, name)()) if finite.size else None
    return summary


def _statistics_text(statistics):
    if statistics is None:
        return ""
    if statistics["mean"] is None:
        return "  no finite value"
    return "  " + "  ".join(f"{name} {statistics[name]:.4g}" for name in ("mean", "std", "min", "max"))


def damage(found):
    """One loud line for each variable with NaN or Inf in it."""
    return [
        f"!!! {v.name}: {v.statistics['nan']} NaN, {v.statistics['inf']} Inf of {v.values:,} values"
        for v in found
        if v.statistics and (v.statistics["nan"] or v.statistics["inf"])
    ]


def listing(path, found, verbose=False):
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


def _tree(paths, depth=0):
    """[(parts of the rest of the name, variable)] → [(indented scope, its variables)]: large scopes are opened."""
    groups = {}
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


def _together(inside):
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
class Difference:
    """Two variables of one name whose bits differ: how many values do, and where the largest |Δ| (NaN: largest) is."""

    name: str
    values: int
    different: int
    largest: float | None
    where: tuple | None
    first: object = None
    second: object = None

    def __str__(self):
        share = f"{self.different:,} of {self.values:,} values differ"
        if self.where is None:
            return f"{self.name}  {share}"
        first, second = (f"{v:.9g}" if isinstance(v, float) else v for v in (self.first, self.second))
        return f"{self.name}  {share}, max |Δ| {self.largest:.6g} at {list(self.where)}: A {first}, B {second}"


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints, name by name: every name of either is in exactly one of the five lists."""

    first: str
    second: str
    only_first: list
    only_second: list
    other_shape: list
    different: list
    equal: list

    @property
    def same(self):
        """Whether both hold the same names, shapes, types and bits."""
        return not (self.only_first or self.only_second or self.other_shape or self.different)

    def text(self, verbose=False):
        """What differs, the largest |Δ| first, at most ten lines of a kind unless `verbose`."""
        by_size = sorted(self.different, key=lambda d: -math.inf if d.largest is None else d.largest, reverse=True)
        lines = [f"A = {self.first}", f"B = {self.second}"]

        def section(title, items):
            shown = items if verbose else items[:10]
            more = [f"  … and {len(items) - len(shown)} more (--verbose)"] if len(items) > len(shown) else []
            return [f"{title}: {len(items)}", *(f"  {item}" for item in shown), *more]

        lines += section("only in A", self.only_first)
        lines += section("only in B", self.only_second)
        lines += section("other shape or type", [f"{name}  A {a}, B {b}" for name, a, b in self.other_shape])
        lines += section("different values", [str(difference) for difference in by_size])
        lines += section("equal bit for bit", self.equal) if verbose else [f"equal bit for bit: {len(self.equal)}"]
        return "\n".join([*lines, "A and B are equal" if self.same else "A and B differ"])


def compare(first, second, rename=None):
    """Two open checkpoints → Comparison. `rename` {scope in the first: scope in the second} goes before.

    Raises ScopeError for a rename that matches nothing, CheckpointError where it makes one name of two.
    """
    check_scopes(rename or {}, first.shapes, "rename: the checkpoint's scope")
    names = {}
    for name in first.shapes:
        target = rename_scope(name, rename or {})
        if target in names:
            raise CheckpointError(f"{first.path}: {names[target]} and {name} would both be {target}")
        names[target] = name
    other_shape, different, equal = [], [], []
    for name in sorted(names.keys() & second.shapes.keys(), key=natural_order):
        source = names[name]
        a = f"{first.dtypes[source]} {first.shapes[source]}"
        b = f"{second.dtypes[name]} {second.shapes[name]}"
        if a != b:
            other_shape.append((name, a, b))
            continue
        difference = _difference(name, first.read(source), second.read(name))
        if difference:
            different.append(difference)
        else:
            equal.append(name)
    return Comparison(
        first.path,
        second.path,
        sorted(names.keys() - second.shapes.keys(), key=natural_order),
        sorted(second.shapes.keys() - names.keys(), key=natural_order),
        other_shape,
        different,
        equal,
    )


def _difference(name, a, b):
    """Difference, or None where a and b are equal to the bit (so NaN equals itself, and 0.0 is not -0.0)."""
    if a.dtype.kind in _NO_REALS:
        count = int(np.sum(a != b))
        return Difference(name, a.size, count, None, None) if count else None
    if a.tobytes() == b.tobytes():
        return None
    bits = [np.frombuffer(x.tobytes(), "uint8").reshape(a.size, -1) for x in (a, b)]
    unequal = (bits[0] != bits[1]).any(axis=1).reshape(a.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        delta = np.abs(a.astype("float64") - b.astype("float64"))
    delta = np.where(unequal, np.where(np.isnan(delta), np.inf, delta), -1.0)
    where = tuple(int(i) for i in np.unravel_index(np.argmax(delta), a.shape))
    return Difference(name, a.size, int(unequal.sum()), float(delta[where]), where, a[where].item(), b[where].item())


def named_identity(text, told, num_classes=None):
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


def build(identity, names):
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


def coverage(checkpoint, identity, rename=None, ema=False):
    """The Report of what the checkpoint would give to the model of `identity`: nothing is read, nothing is loaded.

    Where the checkpoint calls the backbone otherwise than slim and no `rename` is given, it is renamed.
    """
    scope = canonical_scope(identity.backbone)
    if not rename and identity.scope != scope:
        rename = {identity.scope: scope}
    model = build(identity, checkpoint.shapes)
    report = checkpoint_guided_init(model, checkpoint.prefix, rename=rename, ema=ema, apply=False)
    return replace(report, checkpoint=checkpoint.path)  # an archive is not unpacked a second time


def document(checkpoint, found, identity=None, report=None, comparison=None):
    """All of it as what JSON can hold."""
    return {
        "checkpoint": checkpoint.path,
        "variables": [asdict(v) for v in found],
        "model": None if identity is None else identity.to_json(),
        "coverage": None if report is None else json.loads(report.to_json()),
        "comparison": None if comparison is None else {"same": comparison.same, **_finite(asdict(comparison))},
    }


def _finite(value):
    """JSON has no NaN and no Inf: they become text."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
