"""An old graph and this project's model on one picture, end point by end point, and their weights by name."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from data.images import read_image
from data.places import check_memory
from engine.kinds import flag
from engine.options import Verification
from engine.published import located
from errors import UserError
from files.writing import write_whole
from inference.opening import Told, asked_of, build_segmenter, checkpoint_identity, segmenter_of
from models.checkpoint import CheckpointError, open_checkpoint
from models.identify import Identity, identify
from models.layers import recording
from models.leftovers import leftovers, part_of
from models.preprocessing import preprocessing_of
from models.scopes import check_scopes, within
from models.weight_init import (
    MISMATCH,
    MISSING,
    Report,
    checkpoint_guided_init,
    rename_scope,
)
from porting.agreement import (
    PREPROCESSING,
    UPSAMPLED,
    compare,
    compare_weights,
    differing,
    show,
    show_weights,
    verdict,
)
from porting.graph_names import Names, holds
from porting.graph_pictures import Images, images_for, repeated
from porting.inspection import build
from porting.legacy_graph import LegacyFunction, LegacyGraph, LegacyGraphError, load_frozen, load_graph, load_meta

_LOGITS = "logits/semantic"


@dataclass(frozen=True)
class Port:
    """This project's model with the weights in it. told: what was known of it before; report: of its initialization."""

    model: keras.Model
    told: Told
    report: Report

    @property
    def absent(self) -> list[str]:
        """The model's variables that are not among the weights."""
        return [entry.variable for entry in self.report.of(MISSING)]


def verify(old: str, image: str, how: Verification) -> bool:
    """Prints the comparison of the old graph with this project's model on a picture; → whether everything agrees."""
    if how.size:
        check_memory(1, how.size, f"--size {how.size}")
    how = replace(how, ckpt=located(how.ckpt))
    picture = read_image(image)
    graph = open_graph(old, how)
    weights = how.ckpt or own_weights(graph)
    shapes = shapes_in(weights)
    check_rename(how.scope, graph, shapes)
    port = build_port(weights, shapes, how, how.output_stride)
    names = names_in(graph, how, port)
    keys = list(end_points(port.model, np.zeros((1, 33, 33, 3), "float32"), port.absent))
    tensors, chosen = graph.end_points([key for key in keys if key != UPSAMPLED], names.scopes(graph))
    if not tensors:
        raise UserError(
            f"{graph.path}: none of the model's end points ({', '.join(keys[:3])} …) is found behind "
            f"{graph.input}; a scope of another name is told with --scope OLD=NEW, another input with --input"
        )
    if UPSAMPLED in keys and _LOGITS in tensors and (upsampled := graph.upsampled(tensors[_LOGITS])):
        tensors[UPSAMPLED] = upsampled
    images = images_for(graph, port.model, picture, next(iter(tensors.values())), how)
    function = graph.prune(list(tensors.values()), how.feed)
    theirs = function(repeated(images.theirs, graph))
    stride = stride_of(images.ours.shape[1:3], {key: theirs[tensor] for key, tensor in tensors.items()})
    if not how.output_stride and stride not in (None, port.model.output_stride):
        port = build_port(weights, shapes, how, stride)
    ours = end_points(port.model, images.ours, port.absent)
    introduce(how, graph, port, function, chosen, images, stride)
    rows = [images.row] if images.row else []
    rows += [compare(key, tensor, theirs[tensor][:1], ours[key], how.tolerance) for key, tensor in tensors.items()]
    unshared = [key for key in ours if key not in tensors]
    show(rows, unshared)
    compared = None
    if how.ckpt:
        compared = compare_weights(graph, port.model, names, how.tolerance)
        show_weights(compared, graph, how.ckpt)
    departs = next((row["end_point"] for row in rows if not row["agrees"]), None)
    agree = departs is None and not (compared and any(not row["agrees"] for row in compared["different"]))
    print(verdict(rows, departs, compared, how.tolerance))
    for line in advice(graph, function, images, departs, compared):
        print(line)
    if how.json:
        document = {
            "old": graph.path,
            "ckpt": how.ckpt,
            "model": port.model.name,
            "identity": str(port.told.identity),
            "assumed": assumed(port, how, stride),
            "input": graph.input,
            "pictures": images.words,
            "size": images.theirs.shape[1:3],
            "seen": images.ours.shape[1:3],
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


def shapes_in(path: str | Path) -> dict[str, tuple[int, ...]]:
    """{name: shape} of a checkpoint."""
    with open_checkpoint(path) as checkpoint:
        return checkpoint.shapes


def own_weights(graph: LegacyGraph) -> str | Path:
    """A checkpoint of what the old graph itself runs with: its own, or the frozen graph, whose constants are one."""
    if graph.checkpoint is not None:
        return graph.checkpoint
    if not graph.frozen:
        raise LegacyGraphError(f"{graph.path}: no weights under slim's names in this graph; give them with --ckpt")
    return graph.path


def check_rename(rename: Mapping[str, str], graph: LegacyGraph, weights: Iterable[str]) -> None:
    """Raises ScopeError for a scope that is neither one of variables, in either place, nor one of operations."""
    check_scopes(rename, [*weights, *graph.variables, *graph.nodes], "--scope")


def names_in(graph: LegacyGraph, how: Verification, port: Port) -> Names:
    """The old graph's names, of which its own variables tell the family, or else those of the weights."""
    try:
        shapes = {rename_scope(name, how.scope): shape for name, shape in graph.variables.items()}
        told = identify(shapes, how.model)  # type: ignore[arg-type]  # what a graph leaves open tells nothing here
    except CheckpointError:
        return Names(how.scope, port.told.translation)
    return Names(how.scope, told.translation)


def build_port(
    weights: str | Path, shapes: Mapping[str, tuple[int, ...]], how: Verification, stride: int | None
) -> Port:
    """The model that the weights are of, with them in it.

    Args:
        shapes: {name: shape} of the weights.
        stride: output stride; None is what the weights' family has.

    Raises CheckpointError where one of the weights does not fit, UserError for options that the model does not have.
    """
    rename = {old: new for old, new in how.scope.items() if holds(old, shapes)}
    identity = checkpoint_identity(weights, rename, how.model)
    how = replace(how, output_stride=stride)
    if identity.segments:
        told = segmenter_of(weights, rename, how, how.model)
        identity.segmenter()  # for its logits
        model = build_segmenter(told.config)
    else:
        told = Told({}, identity)
        model = build_backbone(identity, [rename_scope(name, rename) for name in shapes], how)
    report = checkpoint_guided_init(model, weights, rename=rename, translation=told.translation)
    if report.of(MISMATCH):
        raise CheckpointError(f"{weights}: does not fit {identity}\n{report.text(most=10)}")
    return Port(model, told, report)


def build_backbone(identity: Identity, names: Iterable[str], how: Verification) -> keras.Model:
    """The network without a DeepLab's head that `identity` names, and `how` changes."""
    heads = ["features", "upsampling", "atrous_rates", "image_pooling_crop_size"]
    heads += ["multi_grid"] * identity.backbone.startswith("mobilenet")
    not_its = [flag(name) for name in heads if getattr(how, name) is not None]
    if not_its:
        raise UserError(f"{not_its[0]}: {identity} is no DeepLab that has such a thing")
    options = asked_of(how, {"backbone": identity.backbone})
    preprocessing = options.pop("preprocessing", None)
    model = build(identity, names, **options)
    if preprocessing is not None:
        model.preprocessing = preprocessing_of(preprocessing)
    return model


def end_points(model: keras.Model, images: np.ndarray, absent: Sequence[str]) -> dict[str, np.ndarray]:
    """{slim's key: array}, in the order they are computed, of all that does not need one of the `absent` variables.

    Of a DeepLab that has all of them the last are its logits at the images' size, under UPSAMPLED.
    """
    with recording({}) as found:
        outputs = model(images, training=False)
    named = {path.removeprefix(model.variable_prefix): output for path, output in found.items()}
    known = {key: np.asarray(named[key]) for key in before_first(named, absent)}
    return known | {UPSAMPLED: np.asarray(outputs)} if _LOGITS in known else known


def stride_of(size: tuple[int, int], activations: Mapping[str, np.ndarray]) -> int | None:
    """The output stride at which the last block made its activations of an image of `size`; None if it is not there."""
    for key, features in activations.items():
        if key.endswith(("/block4", "/expanded_conv_16/output")):
            return next((s for s in (32, 16, 8, 4) if math.ceil(size[0] / s) == features.shape[1]), None)
    return None


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


def introduce(
    how: Verification,
    graph: LegacyGraph,
    port: Port,
    function: LegacyFunction,
    chosen: Mapping[str, str],
    images: Images,
    stride: int | None,
) -> None:
    """Prints what is compared with what, and everything that was decided for the user."""
    model = port.model
    print(f"old: {graph.path}" + ("" if graph.frozen else f", variables of {graph.checkpoint}"))
    weights = how.ckpt or "the weights of the old graph"
    print(f"new: {model.name} at output stride {model.output_stride} with {weights}")
    print(f"model: {port.told.identity}")
    if line := assumed(port, how, stride):
        print(f"assumed: {line}")
    if port.absent:
        print(
            f"{len(port.absent)} of the model's variables are not among them: {port.absent[0]} …; no end point behind"
        )
    if left := leftovers(port.report):
        first = left[0].source
        print(
            f"{len(left)} of the weights have no place in the model: {first} ({part_of(first)})" + " …" * bool(left[1:])
        )
    print(f"input: {graph.input}, {images.words}")
    for name, value in function.fed.items():
        print(f"fed: {name} = {value}")
    for root, scope in chosen.items():
        if root != scope:
            print(f"scope: {root} is {scope} in the old graph")


def assumed(port: Port, how: Verification, stride: int | None) -> str:
    """One line of what is assumed of the model; the output stride is none of it where the old graph shows its own."""
    if not port.told.assumed or port.told.identity is None:
        return ""
    said = asked_of(replace(how, output_stride=how.output_stride or stride), port.told.config)
    return port.told.identity.assumptions(tuple(said))


def advice(
    graph: LegacyGraph,
    function: LegacyFunction,
    images: Images,
    departs: str | None,
    weights: dict[str, Any] | None,
) -> list[str]:
    """What may be behind a difference that need not be one of the networks."""
    lines = []
    if apart := differing(weights):
        own = "leave out --ckpt" if graph.frozen else "leave out --ckpt, or give them with --old-ckpt"
        lines.append(
            f"{len(apart)} weights differ: the graphs may still be the same; compare with the graph's own weights: "
            f"{own}"
        )
    if departs == PREPROCESSING and images.row:
        lines.append(
            "the old graph does something else to its pictures than the model wants (see --mean, --bgr, "
            f"--preprocessing); to compare only what comes behind: --input {images.row['tensor']}"
        )
    if departs and function.normalizes_by_batch:
        lines.append(
            "the old graph normalizes by batch statistics: it was built with is_training=True; export it for inference"
        )
    return lines


def write_json(path: str, document: Any) -> None:
    """Writes what was found, whole or not at all."""

    def finite(value: Any) -> Any:  # JSON has no infinity
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and math.isinf(value) else value

    write_whole(path, json.dumps(finite(document), indent=1))
