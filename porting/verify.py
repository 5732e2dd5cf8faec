"""An old graph and this project's model on one picture, end point by end point, and their weights by name."""

import dataclasses
import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np

from data.images import read_image, write_whole
from engine.options import Architecture, Verification
from engine.published import located
from errors import UserError
from inference.opening import build_segmenter, checkpoint_identity, segmenter_of
from models.checkpoint import CheckpointError, open_checkpoint, write_checkpoint
from models.deeplab_v3 import BACKBONES
from models.identify import canonical_scope, identify
from models.scopes import check_scopes, within
from models.weight_init import (
    MISMATCH,
    MISSING,
    bookkeeping_kind,
    checkpoint_guided_init,
    named_variables,
    rename_scope,
)
from porting.legacy_graph import LegacyFunction, LegacyGraph, LegacyGraphError, load_frozen, load_graph, load_meta


def verify(old: str, image: str, how: Verification) -> bool:
    """Prints the comparison of the old graph with this project's model on a picture; → whether everything agrees."""
    how = dataclasses.replace(how, ckpt=located(how.ckpt))
    rename = how.scope
    picture = read_image(image)
    graph = open_graph(old, how)
    old_rename = model_scopes(graph.path, graph.variables, rename, lenient=how.ckpt is not None)
    with tempfile.TemporaryDirectory() as folder:
        weights = how.ckpt or own_weights(graph, folder)
        new_rename = model_scopes(weights if how.ckpt else graph.path, shapes_in(weights), rename)
        check_rename(rename, graph, old_rename | new_rename)
        scopes = {new: old for old, new in old_rename.items() if new} | {new: old for old, new in rename.items()}
        size = picture_size(how.size, graph, picture)
        model, absent = build_model(graph, how, weights, new_rename, how.output_stride)
        images = model.preprocessing(resized(picture, size).astype("float32")).astype("float32")[None]
        ours = end_points(model, images, absent)
        tensors, chosen = graph.end_points(list(ours), scopes)
        if not tensors:
            raise UserError(
                f"{graph.path}: none of the model's end points ({', '.join(list(ours)[:3])} …) is found behind "
                f"{graph.input}; a scope of another name is told with --scope OLD=NEW, another input with --input"
            )
        function = graph.prune(list(tensors.values()), how.feed)
        theirs = function(images.repeat((graph.input_shape or [None])[0] or 1, axis=0))
        stride = how.output_stride or stride_of(size, {key: theirs[tensor] for key, tensor in tensors.items()})
        if stride not in (None, model.output_stride):
            model, absent = build_model(graph, how, weights, new_rename, stride)
            ours = end_points(model, images, absent)
    introduce(how, graph, model, absent, function, chosen)
    rows = [compare(key, tensor, theirs[tensor][:1], ours[key], how.tolerance) for key, tensor in tensors.items()]
    unshared = [key for key in ours if key not in tensors]
    show(rows, unshared)
    compared = None
    if how.ckpt:
        compared = compare_weights(graph, model, old_rename, how.tolerance)
        show_weights(compared, graph, how.ckpt)
    departs = next((row["end_point"] for row in rows if not row["agrees"]), None)
    agree = departs is None and not (compared and any(not row["agrees"] for row in compared["different"]))
    print(verdict(rows, departs, compared, how.tolerance))
    if departs and function.normalizes_by_batch:
        print(
            "the old graph normalizes by batch statistics: it was built with is_training=True; export it for inference"
        )
    if how.json:
        document = {
            "old": graph.path,
            "ckpt": how.ckpt,
            "model": model.name,
            "input": graph.input,
            "size": size,
            "fed": {name: float(value) for name, value in function.fed.items()},
            "tolerance": how.tolerance,
            "agree": agree,
            "departs_at": departs,
            "end_points": rows,
            "not_in_old": unshared,
            "weights": compared,
        }
        write_json(how.json, document)
    return agree


def open_graph(old: str, how: Verification) -> LegacyGraph:
    """OLD with its variables: --old-ckpt, or those beside a `.meta`, or --ckpt."""
    if Path(old).suffix == ".pb":
        return load_frozen(old, how.old_ckpt or how.ckpt, how.input)
    try:
        return load_graph(old, how.old_ckpt, how.input)
    except LegacyGraphError:
        if how.old_ckpt or not how.ckpt:
            raise
        return load_meta(old, how.ckpt, how.input)


def shapes_in(path: str | Path) -> dict[str, tuple]:
    """{name: shape} of a checkpoint."""
    with open_checkpoint(path) as checkpoint:
        return checkpoint.shapes


def own_weights(graph: LegacyGraph, folder: str) -> str | Path:
    """A checkpoint of what the old graph itself runs with: its own, or one made of a frozen graph's constants."""
    if graph.checkpoint is not None:
        return graph.checkpoint
    if not graph.frozen:
        raise LegacyGraphError(f"{graph.path}: no weights under slim's names in this graph; give them with --ckpt")
    prefix = Path(folder) / "constants.ckpt"
    write_checkpoint(prefix, graph.values(list(graph.variables)))
    return prefix


def model_scopes(
    path: str | Path, shapes: Mapping[str, tuple], rename: Mapping[str, str], lenient: bool = False
) -> dict[str, str]:
    """The rename that brings `shapes` under slim's names: what of `rename` applies, and what the names themselves tell.

    A prefix (`import/`, `tower_0/`) is dropped; a backbone of another name gets slim's. lenient: names that tell no
    network are left as they are, instead of a CheckpointError.
    """
    rename = {old: new for old, new in rename.items() if any(within(name, old) for name in shapes)}
    try:
        identity = identify({rename_scope(name, rename): shape for name, shape in shapes.items()})
    except CheckpointError as error:
        if lenient:
            return rename
        raise CheckpointError(f"{path}: {error}") from error
    canonical = canonical_scope(identity.backbone)
    if identity.scope.endswith(f"/{canonical}"):
        return rename | {identity.scope.removesuffix(f"/{canonical}"): ""}
    return rename if identity.scope == canonical else rename | {identity.scope: canonical}


def check_rename(rename: Mapping[str, str], graph: LegacyGraph, applied: Mapping[str, str]) -> None:
    """Raises ScopeError for a scope that is neither one of variables nor one of operations."""
    check_scopes([old for old in rename if old not in applied], list(graph.nodes), "--scope")


def picture_size(asked: int | None, graph: LegacyGraph, picture: np.ndarray) -> tuple[int, int]:
    """(height, width) that both are run at: what the old graph's input fixes, --size, or the picture's own."""
    if not graph.takes_floats:
        raise UserError(
            f"{graph.path}: {graph.input} takes whole pixels, the graph preprocesses them itself; name the tensor that "
            f"the network reads with --input, such as {graph.candidates()}"
        )
    fixed = (graph.input_shape or (None,) * 4)[1:3]
    if asked and any(side not in (None, asked) for side in fixed):
        raise UserError(f"--size {asked}: {graph.path} takes {fixed[0]} x {fixed[1]} only")
    height, width = (asked, asked) if asked else picture.shape[:2]
    return fixed[0] or height, fixed[1] or width


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) at (height, width) = size."""
    return picture if picture.shape[:2] == size else cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)


def end_points(model: keras.Model, images: np.ndarray, absent: Sequence[str]) -> dict[str, np.ndarray]:
    """{slim's key: array}, in the order they are computed, of all that does not need one of the `absent` variables."""
    found = model.end_points(images)
    return {key: np.asarray(found[key]) for key in before_first(found, absent)}


def stride_of(size: tuple[int, int], activations: Mapping[str, np.ndarray]) -> int | None:
    """The output stride at which the last block made its activations of an image of `size`; None if it is not there."""
    for key, features in activations.items():
        if key.endswith(("/block4", "/expanded_conv_16/output")):
            return next((s for s in (32, 16, 8, 4) if math.ceil(size[0] / s) == features.shape[1]), None)
    return None


def build_model(
    graph: LegacyGraph, how: Verification, weights: str | Path, rename: Mapping[str, str], stride: int | None
) -> tuple[keras.Model, list[str]]:
    """The model that the weights are of, with them in it. → (model, names of its variables that are not there)"""
    identity = checkpoint_identity(weights, rename)
    if identity.segments:
        asked = Architecture(output_stride=stride, multi_grid=how.multi_grid, features=how.features)
        model = build_segmenter(segmenter_of(weights, rename, asked).config)
    else:
        options: dict[str, Any] = {"num_classes": identity.num_classes} | ({"output_stride": stride} if stride else {})
        if identity.backbone == "mobilenet_v2":
            options["depth_multiplier"] = identity.depth_multiplier
        model = BACKBONES[identity.backbone](**options)
    report = checkpoint_guided_init(model, weights, rename=rename)
    if report.of(MISMATCH):
        raise CheckpointError(f"{how.ckpt or graph.path}: does not fit {identity}\n{report}")
    return model, [entry.variable for entry in report.of(MISSING)]


def before_first(keys: Iterable[str], absent: Sequence[str]) -> list[str]:
    """The end points, in the order they are computed, up to the first that needs one of the `absent` variables."""
    known = []
    for key in keys:
        unit = key.rpartition("/")[0]
        named_otherwise = key.endswith("output")  # MobileNet's: recorded beside the layer
        scope = unit if unit in keys or named_otherwise else key
        if any(within(name, scope) for name in absent):
            break
        known.append(key)
    return known


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


def introduce(
    how: Verification,
    graph: LegacyGraph,
    model: keras.Model,
    absent: list[str],
    function: LegacyFunction,
    chosen: Mapping[str, str],
) -> None:
    """Prints what is compared with what, and everything that was decided for the user."""
    print(f"old: {graph.path}" + ("" if graph.frozen else f", variables of {graph.checkpoint}"))
    weights = how.ckpt or "the weights of the old graph"
    print(f"new: {model.name} at output stride {model.output_stride} with {weights}")
    if absent:
        print(f"{len(absent)} of the model's variables are not among them: {absent[0]} …; no end point from there on")
    print(f"input: {graph.input}, {model.preprocessing.name}")
    for name, value in function.fed.items():
        print(f"fed: {name} = {value}")
    for root, scope in chosen.items():
        if root != scope:
            print(f"scope: {root} is {scope} in the old graph")


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


def compare_weights(
    graph: LegacyGraph, model: keras.Model, rename: Mapping[str, str], tolerance: float
) -> dict[str, Any]:
    """The old graph's weights with the model's, by name: {equal: n, different: rows, not_in_old, only_in_old: names}"""
    old = {rename_scope(name, rename): name for name in graph.variables if not bookkeeping_kind(name)}
    new = named_variables(model)
    shared = [name for name in new if name in old]
    values = graph.values([old[name] for name in shared])
    different = []
    for name in shared:
        reference, found = values[old[name]], np.asarray(new[name])
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
    if departs is None:
        text = (
            f"all {len(rows)} shared end points agree to {tolerance:g} of the largest magnitude "
            f"(largest {worst['relative']:.2g} at {worst['end_point']})"
        )
        apart = [row["variable"] for row in weights["different"] if not row["agrees"]] if weights else []
        return f"{text}, but weights differ: {', '.join(apart[:3])}" if apart else f"the port stands: {text}"
    first = next(row for row in rows if row["end_point"] == departs)
    agreeing = sum(row["agrees"] for row in rows)
    return (
        f"the port departs at {departs} ({first['tensor']}): {first['relative']:.2g} of the largest magnitude, "
        f"tolerance {tolerance:g}; {agreeing} of {len(rows)} end points agree"
    )


def write_json(path: str, document: Any) -> None:
    """Writes what was found, whole or not at all."""

    def finite(value: Any) -> Any:  # JSON has no infinity
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and math.isinf(value) else value

    try:
        write_whole(path, json.dumps(finite(document), indent=1).encode())
    except OSError as error:
        raise UserError(f"--json {path}: cannot be written ({error.strerror})") from error
