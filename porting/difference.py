"""Two checkpoints compared: name by name, bit by bit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.checkpoint import Checkpoint, CheckpointError
from models.scopes import check_scopes
from models.weight_init import natural_order, rename_scope

NO_REALS = "OSUc"  # kinds of NumPy's types: strings, as TensorFlow and NumPy have them, and complex numbers


@dataclass(frozen=True)
class Difference:
    """Two variables of one name whose bits differ: how many values do, and where the largest |Δ| (NaN: largest) is."""

    name: str
    values: int
    different: int
    largest: float | None
    where: tuple[int, ...] | None
    first: object = None
    second: object = None

    def __str__(self) -> str:
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
    only_first: list[str]
    only_second: list[str]
    other_shape: list[tuple[str, str, str]]  # name, and what it is in either
    different: list[Difference]
    equal: list[str]

    @property
    def same(self) -> bool:
        """Whether both hold the same names, shapes, types and bits."""
        return not (self.only_first or self.only_second or self.other_shape or self.different)

    def text(self, verbose: bool = False) -> str:
        """What differs, the largest |Δ| first, at most ten lines of a kind unless `verbose`."""
        by_size = sorted(self.different, key=lambda d: -math.inf if d.largest is None else d.largest, reverse=True)
        lines = [f"A = {self.first}", f"B = {self.second}"]

        def section(title: str, items: Sequence[str]) -> list[str]:
            shown = items if verbose else items[:10]
            more = [f"  … and {len(items) - len(shown)} more (--verbose)"] if len(items) > len(shown) else []
            return [f"{title}: {len(items)}", *(f"  {item}" for item in shown), *more]

        lines += section("only in A", self.only_first)
        lines += section("only in B", self.only_second)
        lines += section("other shape or type", [f"{name}  A {a}, B {b}" for name, a, b in self.other_shape])
        lines += section("different values", [str(difference) for difference in by_size])
        lines += section("equal bit for bit", self.equal) if verbose else [f"equal bit for bit: {len(self.equal)}"]
        return "\n".join([*lines, "A and B are equal" if self.same else "A and B differ"])


def compare(first: Checkpoint, second: Checkpoint, rename: Mapping[str, str] | None = None) -> Comparison:
    """Two open checkpoints → Comparison. `rename` {scope in the first: scope in the second} goes before.

    Raises ScopeError for a rename that matches nothing, CheckpointError where it makes one name of two.
    """
    check_scopes(rename or {}, first.shapes, "rename: the checkpoint's scope")
    names: dict[str, str] = {}
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


def _difference(name: str, a: np.ndarray, b: np.ndarray) -> Difference | None:
    """Difference, or None where a and b are equal to the bit (so NaN equals itself, and 0.0 is not -0.0)."""
    if a.dtype.kind in NO_REALS:
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
