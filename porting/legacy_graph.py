"""TensorFlow 1's graphs as plain functions: a frozen `.pb`, or a `.meta` with its checkpoint; no Session, no Saver.

    graph = load_meta("model.ckpt-258931.meta")                  # its variables lie beside it
    graph(None, ["resnet_model/conv2d/kernel:0"])                # {name: array}
    graph = load_frozen("mobilenet_v2_1.4_224_frozen.pb")
    graph(images, ["MobilenetV2/Predictions/Reshape_1:0"])

Only what the wanted outputs need is cut out, imported and restored, so a graph from the middle of a training (queues,
optimizer, summaries, ops that no longer exist) serves as well as one made for inference.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from models.checkpoint import CheckpointError, find_prefix, open_checkpoint
from models.frozen_graph import LEAVES, is_weight, variable_name, weight_shape, weight_value
from porting.graph_ends import find_end_points, find_upsampled
from porting.graph_files import find_meta, is_saved_model, parse, read
from porting.graph_function import LegacyFunction
from porting.graph_input import Entrance, find_entrance
from porting.graph_nodes import (
    PLACEHOLDERS,
    VARIABLES,
    GraphDef,
    LegacyGraphError,
    is_pipeline,
    node_dtype,
    node_shape,
    split_tensor,
    takes_images,
)
from porting.graph_part import INPUT_ADVICE, Part

_LEAVES = LEAVES | {"kernel", "bias"}  # the latter are tf.layers'
_PROBES = (16, 24)  # pixels: smaller than what any graph was built for
_ENDS = ("NoOp", "Assert", "SaveV2", "SaveSlices", "Save")  # ops that have no output


def load_graph(path: str | Path, checkpoint: str | Path | None = None, input: str | None = None) -> "LegacyGraph":
    """A `.pb` through `load_frozen`, anything else through `load_meta`."""
    load = load_frozen if Path(path).suffix == ".pb" else load_meta
    return load(path, checkpoint, input)


def load_frozen(path: str | Path, checkpoint: str | Path | None = None, input: str | None = None) -> "LegacyGraph":
    """Reads a GraphDef, usually one whose variables were frozen into constants. → LegacyGraph

    Args:
        path: the `.pb` file.
        checkpoint: for a graph that was not frozen, the values of its variables.
        input: name of the tensor that images are fed to; None finds it.

    Raises LegacyGraphError when the file is missing, damaged, or holds a SavedModel.
    """
    import tensorflow as tf

    path = Path(path).expanduser()
    content = read(path)
    if is_saved_model(content):
        raise LegacyGraphError(
            f"{path}: this is a SavedModel, not a frozen graph; TensorFlow 2 runs it as it is: "
            f"tf.saved_model.load({str(path.parent)!r})"
        )
    graph_def = parse(tf.compat.v1.GraphDef, content, path)
    return LegacyGraph(path, graph_def, checkpoint, input)


def load_meta(path: str | Path, checkpoint: str | Path | None = None, input: str | None = None) -> "LegacyGraph":
    """Reads the graph that TF1's Saver wrote, and finds the checkpoint it belongs to. → LegacyGraph

    Args:
        path: the `.meta` file, the checkpoint's prefix, or the directory with a `checkpoint` file.
        checkpoint: where the values of its variables are (V1 or V2); None is the one beside the `.meta`.
        input: as in `load_frozen`.

    Raises LegacyGraphError when the file is missing or damaged, CheckpointError when there is no checkpoint.
    """
    import tensorflow as tf

    path = find_meta(Path(path).expanduser())
    meta = parse(tf.compat.v1.MetaGraphDef, read(path), path)
    if checkpoint is None:
        try:
            checkpoint = find_prefix(path.with_suffix(""))
        except CheckpointError as error:
            raise LegacyGraphError(
                f"{path}: a graph without its variables: {error}. Name the checkpoint they are in"
            ) from error
    return LegacyGraph(path, meta.graph_def, checkpoint, input)


class LegacyGraph:
    """A graph of TF1 and where its variables are. Call: `graph(images, outputs)` → {name: array}.

    images: (N, H, W, 3), preprocessed as the graph wants, fed to the tensor `input`; None where no output needs any.
    outputs: names of tensors ("resnet_v2_50/block4/unit_3/bottleneck_v2/add:0") or of operations.
    feeds: {placeholder: value} for other placeholders. Without, booleans (`is_training`) get False and `keep_prob` 1.
    """

    def __init__(
        self,
        path: str | Path,
        graph_def: GraphDef,
        checkpoint: str | Path | None = None,
        input: str | None = None,
    ) -> None:
        self.path = str(path)
        self.checkpoint = checkpoint
        self.graph_def = graph_def
        self.nodes = {node.name: node for node in graph_def.node}
        self.told = None if input is None else self._checked(input)
        self._values: dict[str, np.ndarray] = {}

    def __call__(
        self, images: np.ndarray | None, outputs: Sequence[str], feeds: Mapping[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """`prune` and call, for who asks once."""
        return self.prune(outputs, feeds)(images)

    @property
    def tensors(self) -> list[str]:
        """The name of each operation's first output, in the graph's order."""
        return [f"{node.name}:0" for node in self.graph_def.node if node.op not in _ENDS]

    @cached_property
    def input(self) -> str:
        """The tensor that images are fed to: as told, or the one placeholder that takes (N, H, W, 3).

        Raises LegacyGraphError with the candidates when there is none, or several.
        """
        if self.told:
            return self.told
        takers = [node for node in self.nodes.values() if node.op in PLACEHOLDERS and takes_images(node)]
        found = [f"{node.name}:0" for node in takers if node_shape(node)] or [f"{node.name}:0" for node in takers]
        if len(found) == 1:
            return found[0]
        if found:
            raise LegacyGraphError(f"{self.path}: several placeholders take images: {', '.join(found)}; {INPUT_ADVICE}")
        raise LegacyGraphError(
            f"{self.path}: no placeholder takes images (N, H, W, 3); candidates are {self.candidates()}; {INPUT_ADVICE}"
        )

    @property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """(N, H, W, C) of the input placeholder, None for what it leaves open; None for no rank, or another tensor."""
        node = self.nodes[split_tensor(self.input)[0]]
        return node_shape(node) if node.op in PLACEHOLDERS else None

    @cached_property
    def built_for(self) -> tuple[int | None, ...] | None:
        """(N, H, W, C) of the tensor `input` as the graph was built: `input_shape`, or what a placeholder before gives.

        None for what may differ, or is not known.
        """
        if self.nodes[split_tensor(self.input)[0]].op in PLACEHOLDERS:
            return self.input_shape
        return LegacyGraph(self.path, self.graph_def, self.checkpoint).shape_at(self.input)

    def shape_at(self, tensor: str) -> tuple[int | None, ...] | None:
        """(N, H, W, C) of a tensor, None for what changes with the images; None for no such shape, or an unknown one.

        It is found by feeding images of two sizes.
        """
        try:
            wanted = self.input_shape or (None, None, None, 3)
            images = [
                np.zeros([side or free for side, free in zip(wanted, (1, size, size, 3), strict=True)])
                for size in _PROBES
            ]
            first, second = (np.shape(self(zeros, [tensor])[tensor]) for zeros in images)
        except LegacyGraphError:  # behind a pipeline, or one that wants other images
            return None
        if len(first) != 4 or len(second) != 4:
            return None
        return (wanted[0], *(a if a == b else None for a, b in zip(first[1:], second[1:], strict=True)))

    @property
    def takes_floats(self) -> bool:
        """Whether the input takes preprocessed images, not whole pixels that the graph preprocesses itself."""
        return node_dtype(self.nodes[split_tensor(self.input)[0]]).is_floating

    @cached_property
    def variables(self) -> dict[str, tuple[int | None, ...]]:
        """{name: shape} of its variables; in a frozen graph, of the constants under the names of slim's variables."""
        shapes: dict[str, tuple[int | None, ...]] = {}
        for node in self.nodes.values():
            if node.op in VARIABLES:
                shapes[node.name] = node_shape(node) or ()
            elif is_weight(node, _LEAVES):
                shapes[variable_name(node)] = weight_shape(node)
        return shapes

    @property
    def frozen(self) -> bool:
        """Whether its weights are constants in the graph itself."""
        return not any(node.op in VARIABLES for node in self.nodes.values()) and bool(self.variables)

    def prune(self, outputs: Sequence[str], feeds: Mapping[str, Any] | None = None) -> LegacyFunction:
        """The part that computes `outputs`, imported and restored, as a LegacyFunction for any number of images.

        Raises LegacyGraphError for names that are not in the graph, an input that is no placeholder, a placeholder
        without a value, a variable without one, an op that this TensorFlow does not know.
        """
        wanted = [self._checked(name) for name in outputs]
        feeds = {self._checked(name): value for name, value in (feeds or {}).items()}
        part = Part(self, feeds)
        for name in wanted:
            part.reach(*split_tensor(name))
        part.follow()
        return LegacyFunction(self, dict(zip(outputs, wanted, strict=True)), part)

    def end_points(
        self, keys: Sequence[str], scopes: Mapping[str, str] | None = None
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Finds slim's end points among the tensors. → ({key: tensor}, {root: its scope in this graph})

        An end point is the operation of that very name (MobileNet's `output`), or else the last operation inside the
        scope of that name which ends a layer and feeds something outside. "Last" is farthest from the input. The first
        segment of the keys, their root, may stand behind a prefix (`import/…`, `tower_0/…`) or be made unique
        (`resnet_v2_50_1`); where several fit equally, the outermost and first is taken.

        scopes: {scope of the keys: what this graph calls it}, e.g. {"resnet_v2_50": "slim_resnet"}. Each is a root.
        """
        with self._named():
            return find_end_points(self.nodes, self.input, keys, scopes)

    def entrance(self, output: str) -> Entrance | None:
        """What is done to the images before the first convolution on the way to the tensor `output`; None for none."""
        with self._named():
            return find_entrance(self.nodes, self.input, output)

    def upsampled(self, logits: str) -> str | None:
        """The tensor that the tensor `logits` is after the resizes that follow it; None where none does."""
        with self._named():
            return find_upsampled(self.nodes, logits)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Within it, what is wrong with the graph is said with its file."""
        try:
            yield
        except LegacyGraphError as error:
            raise LegacyGraphError(f"{self.path}: {error}") from error

    def _checked(self, name: str) -> str:
        op, index = split_tensor(name)
        if op not in self.nodes:
            last = op.rpartition("/")[2]
            near = [f"{other}:0" for other in self.nodes if other.rpartition("/")[2] == last][:5]
            hint = f"; there are {', '.join(near)}" if near else ""
            raise LegacyGraphError(f"{self.path}: no tensor {name!r} in this graph{hint}")
        return f"{op}:{index}"

    def values(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """{name: array} of some of `variables`: constants in the graph, or read from the checkpoint, each once."""
        nodes = {name: self.nodes.get(name) or self.nodes[f"{name}/read"] for name in names}
        found = {n: weight_value(node) for n, node in nodes.items() if node.op == "Const"}
        unread = [name for name in names if name not in found and name not in self._values]
        if unread and self.checkpoint is None:
            raise LegacyGraphError(
                f"{self.path}: not frozen: {unread[0]} is a variable without a value; name the checkpoint it is in"
            )
        if unread:
            with open_checkpoint(self.checkpoint) as checkpoint:
                absent = [name for name in unread if name not in checkpoint.shapes]
                if absent:
                    more = f" (and {len(absent) - 1} more)" if absent[1:] else ""
                    raise LegacyGraphError(f"{self.path}: its variable {absent[0]}{more} is not in {self.checkpoint}")
                self._values |= {name: checkpoint.read(name) for name in unread}
        return {name: found[name] if name in found else self._values[name] for name in names}

    def candidates(self) -> str:
        """Tensors that could be fed instead of a pipeline, as text: the way up from the first convolution."""
        node = next((node for node in self.nodes.values() if node.op == "Conv2D"), None)
        found: list[str] = []
        while node is not None and node.input and len(found) < 5 and not is_pipeline(node):
            op, index = split_tensor(node.input[0])
            found.append(f"{op}:{index}")
            node = self.nodes.get(op)
        return ", ".join(found) or "none: there is no convolution in it"
