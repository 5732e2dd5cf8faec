"""How two sides of a comparison stand to each other: differences, the table of end points, the verdict."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from models.weight_init import named_variables
from porting.graph_names import Names
from porting.legacy_graph import LegacyGraph

# Rows of the table that are no end points of a network.
PREPROCESSING = "preprocessing"
UPSAMPLED = "upsampled logits"


def difference(reference: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """(largest |difference|, the same relative to the largest |reference|); both infinite where a value is not finite.

    Arrays that differ in axes of size 1 alone are compared: squeezed logits are logits.
    """
    if reference.shape != found.shape:
        if reference.squeeze().shape != found.squeeze().shape:
            return math.inf, math.inf
        found = found.reshape(reference.shape)
    if not (np.isfinite(reference).all() and np.isfinite(found).all()):
        return math.inf, math.inf
    largest = float(np.abs(reference - found).max(initial=0))
    magnitude = float(np.abs(reference).max(initial=0))
    return largest, largest / magnitude if magnitude else math.inf if largest else 0.0


def compare(end_point: str, tensor: str, reference: np.ndarray, found: np.ndarray, tolerance: float) -> dict[str, Any]:
    """What the table says of one end point."""
    largest, relative = difference(reference, found)
    return {
        "end_point": end_point,
        "tensor": tensor,
        "old_shape": list(reference.shape),
        "shape": list(found.shape),
        "difference": largest,
        "relative": relative,
        "agrees": relative <= tolerance,
    }


def compare_weights(graph: LegacyGraph, model: keras.Model, names: Names, tolerance: float) -> dict[str, Any]:
    """The old graph's weights with the model's, by name: {equal: n, different: rows, not_in_old, only_in_old: names}"""
    old = names.variables(graph)
    new = named_variables(model)
    shared = [name for name in new if name in old]
    values = graph.values([old[name] for name in shared])
    different = []
    for name in shared:
        reference, found = names.translation.values(name, values[old[name]]), np.asarray(new[name])
        if reference.shape != found.shape:
            largest = relative = math.inf
        else:
            largest, relative = difference(reference, found)
        if largest:
            row = {"variable": name, "difference": largest, "relative": relative, "agrees": relative <= tolerance}
            different.append(row)
    return {
        "equal": len(shared) - len(different),
        "different": different,
        "not_in_old": [name for name in new if name not in old],
        "only_in_old": [name for name in old if name not in new],
    }


def show(rows: Sequence[dict[str, Any]], unshared: Sequence[str]) -> None:
    """Prints the table of end points, largest differences relative to the old graph's largest magnitude."""
    width = max(len(row["end_point"]) for row in rows)
    print(f"\n{'end point':<{width}}  {'shape':<18} {'largest |Δ|':>12} {'relative':>10}")
    for row in rows:
        shape = "x".join(map(str, row["shape"]))
        if math.isinf(row["difference"]) and row["shape"] != row["old_shape"]:
            shape += f", old {'x'.join(map(str, row['old_shape']))}"
        mark = "" if row["agrees"] else "  <- differs"
        print(f"{row['end_point']:<{width}}  {shape:<18} {row['difference']:>12.3g} {row['relative']:>10.2g}{mark}")
    if unshared:
        print(f"not found in the old graph: {', '.join(unshared[:6])}{' …' if len(unshared) > 6 else ''}")


def show_weights(weights: dict[str, Any], graph: LegacyGraph, ckpt: str) -> None:
    """Prints how the old graph's weights stand to those of --ckpt."""
    print(f"\nweights of {graph.path} and of {ckpt}: {weights['equal']} equal, {len(weights['different'])} different")
    for row in sorted(weights["different"], key=lambda row: -row["relative"])[:10]:
        print(f"  {row['variable']}  largest |Δ| {row['difference']:.3g}, relative {row['relative']:.2g}")
    for side, text in (("not_in_old", "not in the old graph"), ("only_in_old", "only in the old graph")):
        if weights[side]:
            print(f"  {text}: {len(weights[side])}, such as {weights[side][0]}")


def verdict(
    rows: Sequence[dict[str, Any]], departs: str | None, weights: dict[str, Any] | None, tolerance: float
) -> str:
    """One sentence: whether the port stands, or where it departs."""
    worst = max(rows, key=lambda row: row["relative"])
    count = sum(row["end_point"] not in (PREPROCESSING, UPSAMPLED) for row in rows)
    if departs is None:
        beside = [f"the {row['end_point']}" for row in rows if row["end_point"] in (PREPROCESSING, UPSAMPLED)]
        subject = " and ".join([", ".join([f"all {count} shared end points", *beside[:-1]]), *beside[-1:]])
        text = (
            f"{subject} agree to {tolerance:g} of the largest magnitude (largest {worst['relative']:.2g} at "
            f"{worst['end_point']})"
        )
        apart = differing(weights)
        return f"{text}, but weights differ: {', '.join(apart[:3])}" if apart else f"the port stands: {text}"
    first = next(row for row in rows if row["end_point"] == departs)
    agreeing = sum(row["agrees"] and row["end_point"] not in (PREPROCESSING, UPSAMPLED) for row in rows)
    return (
        f"the port departs at {departs} ({first['tensor']}): {first['relative']:.2g} of the largest magnitude, "
        f"tolerance {tolerance:g}; {agreeing} of {count} end points agree"
    )


def differing(weights: dict[str, Any] | None) -> list[str]:
    """The variables whose values are not the old graph's, by more than the tolerance."""
    return [row["variable"] for row in weights["different"] if not row["agrees"]] if weights else []
