"""TensorFlow 1's graphs as plain functions: a frozen `.pb`, or a `.meta` with its checkpoint; no Session, no Saver.

    graph = load_meta("model.ckpt-258931.meta")                  # its variables lie beside it
    graph(None, ["resnet_model/conv2d/kernel:0"])                # {name: array}
    graph = load_frozen("mobilenet_v2_1.4_224_frozen.pb")
    graph(images, ["MobilenetV2/Predictions/Reshape_1:0"])

Only what the wanted outputs need is cut out, imported and restored, so a graph from the middle of a training (queues,
optimizer, summaries, ops that no longer exist) serves as well as one made for inference.
"""

import itertools
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np

from errors import UserError
from models.checkpoint import CheckpointError, find_prefix, open_checkpoint
from models.frozen_graph import is_weight, variable_name
from models.weight_init import natural_order

PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
REF_VARIABLES = ("Variable", "VariableV2", "AutoReloadVariable")
VARIABLES = (*REF_VARIABLES, "VarHandleOp")
_PIPELINE = re.compile(r"Queue|Iterator|Reader|^Stage$|^Unstage$|PyFunc")  # what only a training's input has
_PIVOTS = ("Identity", "Switch", "Merge")  # control edges to these say which branch of a conditional an op is in
_ENDS = ("NoOp", "Assert", "SaveV2", "SaveSlices", "Save")  # ops that have no output
# What may end a slim layer, unit or block. The last two are batch norm's under an `is_training` placeholder.
_OUTPUTS = {
    *("Relu", "Relu6", "Add", "AddV2", "BiasAdd", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"),
    *("Identity", "Squeeze", "Merge", "If", "StatelessIf"),
}


class LegacyGraphError(UserError, ValueError):
    """A graph that is missing, damaged, of another kind, or cannot be run as asked."""


def load_graph(path, checkpoint=None, input=None):
    """A `.pb` through `load_frozen`, anything else through `load_meta`."""
    load = load_frozen if Path(path).suffix == ".pb" else load_meta
    return load(path, checkpoint, input)


def load_frozen(path, checkpoint=None, input=None):
    """Reads a GraphDef, usually one whose variables were frozen into constants. → LegacyGraph

    Args:
        path: the `.pb` file.
        checkpoint: for a graph that was not frozen, the values of its variables.
        input: name of the tensor that images are fed to; None finds it.

    Raises LegacyGraphError when the file is missing, damaged, or holds a SavedModel.
    """
    import tensorflow as tf

    path = Path(path).expanduser()
    content = _read(path)
    if _is_saved_model(content):
        raise LegacyGraphError(
            f"{path}: this is a SavedModel, not a frozen graph; TensorFlow 2 runs it as it is: "
            f"tf.saved_model.load({str(path.parent)!r})"
        )
    graph_def = _parse(tf.compat.v1.GraphDef, content, path)
    return LegacyGraph(path, graph_def, checkpoint, input)


def load_meta(path, checkpoint=None, input=None):
    """Reads the graph that TF1's Saver wrote, and finds the checkpoint it belongs to. → LegacyGraph

    Args:
        path: the `.meta` file, the checkpoint's prefix, or the directory with a `checkpoint` file.
        checkpoint: where the values of its variables are (V1 or V2); None is the one beside the `.meta`.
        input: as in `load_frozen`.

    Raises LegacyGraphError when the file is missing or damaged, CheckpointError when there is no checkpoint.
    """
    import tensorflow as tf

    path = _find_meta(Path(path).expanduser())
    meta = _parse(tf.compat.v1.MetaGraphDef, _read(path), path)
    if checkpoint is None:
        try:
            checkpoint = find_prefix(path.with_suffix(""))
        except CheckpointError as error:
            raise LegacyGraphError(
                f"{path}: a graph without its variables: {error}. Name the checkpoint they are in"
            ) from error
    return LegacyGraph(path, meta.graph_def, checkpoint, input)


def _read(path):
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        hint = "; it holds a SavedModel: tf.saved_model.load runs that" if (path / "saved_model.pb").is_file() else ""
        raise LegacyGraphError(f"{path}: a directory, not a graph{hint}") from None
    except OSError as error:
        raise LegacyGraphError(f"{path}: cannot be read: {error.strerror}") from error
    if not content:
        raise LegacyGraphError(f"{path}: the file is empty")
    return content


def _parse(message, content, path):
    from google.protobuf.message import DecodeError

    advice = f"cut short, damaged, or no {message.__name__} ({len(content):,} bytes); copy or export it again"
    try:
        parsed = message.FromString(content)
    except DecodeError as error:
        raise LegacyGraphError(f"{path}: {advice}") from error
    if not getattr(parsed, "graph_def", parsed).node:
        raise LegacyGraphError(f"{path}: no graph in it; {advice}")
    return parsed


def _is_saved_model(content):
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        return any(meta.HasField("graph_def") for meta in SavedModel.FromString(content).meta_graphs)
    except DecodeError:
        return False


def _find_meta(path):
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            raise LegacyGraphError(f"{path}: a SavedModel; TensorFlow 2 runs it: tf.saved_model.load({str(path)!r})")
        found = sorted(path.glob("*.meta"), key=lambda p: natural_order(p.name))
        if len(found) == 1:
            return found[0]
        if not found:
            raise LegacyGraphError(f"{path}: no .meta file in this directory")
        path = find_prefix(path)
    if path.suffix == ".meta":
        return path
    meta = Path(f"{re.sub(r'[.](index|data-[0-9]{5}-of-[0-9]{5})$', '', str(path))}.meta")
    if not meta.is_file():
        raise LegacyGraphError(f"{path}: no graph: {meta.name} is not beside it; give a .pb, or the .meta")
    return meta


def _tensor(name):
    """ "op" or "op:0" → ("op", 0)"""
    op, colon, index = name.rpartition(":")
    return (op, int(index)) if colon and index.isdecimal() else (name, 0)


class LegacyGraph:
    """A graph of TF1 and where its variables are. Call: `graph(images, outputs)` → {name: array}.

    images: (N, H, W, 3), preprocessed as the graph wants, fed to the tensor `input`; None where no output needs any.
    outputs: names of tensors ("resnet_v2_50/block4/unit_3/bottleneck_v2/add:0") or of operations.
    feeds: {placeholder: value} for other placeholders. Without, booleans (`is_training`) get False and `keep_prob` 1.
    """

    def __init__(self, path, graph_def, checkpoint=None, input=None):
        self.path = str(path)
        self.checkpoint = checkpoint
        self.graph_def = graph_def
        self.nodes = {node.name: node for node in graph_def.node}
        self.told = None if input is None else self._checked(input)
        self._values = {}

    def __call__(self, images, outputs, feeds=None):
        return self.prune(outputs, feeds)(images)

    @property
    def tensors(self):
        """The name of each operation's first output, in the graph's order."""
        return [f"{node.name}:0" for node in self.graph_def.node if node.op not in _ENDS]

    @cached_property
    def input(self):
        """The tensor that images are fed to: as told, or the one placeholder that takes (N, H, W, 3).

        Raises LegacyGraphError with the candidates when there is none, or several.
        """
        if self.told:
            return self.told
        takers = [node for node in self.nodes.values() if node.op in PLACEHOLDERS and _takes_images(node)]
        found = [f"{node.name}:0" for node in takers if _shape(node)] or [f"{node.name}:0" for node in takers]
        if len(found) == 1:
            return found[0]
        if found:
            raise LegacyGraphError(f"{self.path}: several placeholders take images: {', '.join(found)}; {_ADVICE}")
        raise LegacyGraphError(
            f"{self.path}: no placeholder takes images (N, H, W, 3); candidates are {self.candidates()}; {_ADVICE}"
        )

    @property
    def input_shape(self):
        """(N, H, W, C) of the input placeholder, None for what it leaves open; None for no rank, or another tensor."""
        node = self.nodes[_tensor(self.input)[0]]
        return _shape(node) if node.op in PLACEHOLDERS else None

    @property
    def takes_floats(self):
        """Whether the input takes preprocessed images, not whole pixels that the graph preprocesses itself."""
        return _dtype(self.nodes[_tensor(self.input)[0]]).is_floating

    @cached_property
    def variables(self):
        """{name: shape} of its variables; in a frozen graph, of the constants under the names of slim's variables."""
        shapes = {}
        for node in self.nodes.values():
            if node.op in VARIABLES:
                shapes[node.name] = _shape(node) or ()
            elif is_weight(node):
                shapes[variable_name(node)] = tuple(dim.size for dim in node.attr["value"].tensor.tensor_shape.dim)
        return shapes

    @property
    def frozen(self):
        """Whether its weights are constants in the graph itself."""
        return not any(node.op in VARIABLES for node in self.nodes.values()) and bool(self.variables)

    def prune(self, outputs, feeds=None):
        """The part that computes `outputs`, imported and restored, as a LegacyFunction for any number of images.

        Raises LegacyGraphError for names that are not in the graph, an input that is no placeholder, a placeholder
        without a value, a variable without one, an op that this TensorFlow does not know.
        """
        wanted = [self._checked(name) for name in outputs]
        feeds = {self._checked(name): value for name, value in (feeds or {}).items()}
        part = _Part(self, feeds)
        for name in wanted:
            part.reach(*_tensor(name))
        part.follow()
        return LegacyFunction(self, dict(zip(outputs, wanted, strict=True)), part)

    def end_points(self, keys, scopes=None):
        """Finds slim's end points among the tensors. → ({key: tensor}, {root: its scope in this graph})

        An end point is the operation of that very name (MobileNet's `output`), or else the last operation inside the
        scope of that name which ends a layer and feeds something outside. "Last" is farthest from the input. The first
        segment of the keys, their root, may stand behind a prefix (`import/…`, `tower_0/…`) or be made unique
        (`resnet_v2_50_1`); where several fit equally, the outermost and first is taken.

        scopes: {root: what this graph calls it}, e.g. {"resnet_v2_50": "slim_resnet"}.
        """
        ends = self._ends()
        by_root = defaultdict(list)
        for key in keys:
            root, _, rest = key.partition("/")
            by_root[root].append((key, f"/{rest}" if rest else ""))
        found, chosen = {}, {}
        for root, members in by_root.items():
            called = re.compile(rf"(.*/)?{re.escape((scopes or {}).get(root, root))}(_\d+)?")
            fitting = {
                scope: {key: ends[scope + rest] for key, rest in members if scope + rest in ends}
                for scope in ends
                if called.fullmatch(scope)
            }
            best = min(fitting, key=lambda s: (-len(fitting[s]), s.count("/"), natural_order(s)), default=None)
            if best is not None and fitting[best]:
                found |= {key: f"{op}:0" for key, op in fitting[best].items()}
                chosen[root] = best
        return {key: found[key] for key in keys if key in found}, chosen

    def _ends(self):
        """{scope or operation: the operation that is its output}, of all that depends on the input."""
        depth, consumers = self._depths()
        best = {}
        for name, level in depth.items():
            if self.nodes[name].op not in _OUTPUTS:
                continue
            scope = name
            while "/" in scope:
                scope = scope.rpartition("/")[0]
                feeds_outside = any(not user.startswith(scope + "/") for user in consumers[name])
                rank = (feeds_outside, level)
                if scope not in best or rank > best[scope][0]:  # of equals the first: a conditional's first output
                    best[scope] = rank, name
        return {scope: name for scope, (_, name) in best.items()} | {name: name for name in depth}

    def _depths(self):
        """({operation: longest way from the input}, {operation: operations that take its data})"""
        origin = _tensor(self.input)
        inputs = {
            node.name: [_tensor(text) for text in node.input if not text.startswith("^")]
            for node in self.nodes.values()
            if node.op != "NextIteration"  # the only edge back in a graph
        }
        consumers = defaultdict(list)
        for name, tensors in inputs.items():
            for op, _ in tensors:
                consumers[op].append(name)
        depth = {}
        for name in TopologicalSorter(
            {name: [op for op, _ in tensors] for name, tensors in inputs.items()}
        ).static_order():
            tensors = inputs.get(name, ())
            before = [depth[op] for op, _ in tensors if op in depth] + [0] * (origin in tensors)
            if before and name != origin[0]:
                depth[name] = 1 + max(before)
        return {name: depth[name] for name in self.nodes if name in depth}, consumers

    def _checked(self, name):
        op, index = _tensor(name)
        if op not in self.nodes:
            last = op.rpartition("/")[2]
            near = [f"{other}:0" for other in self.nodes if other.rpartition("/")[2] == last][:5]
            hint = f"; there are {', '.join(near)}" if near else ""
            raise LegacyGraphError(f"{self.path}: no tensor {name!r} in this graph{hint}")
        return f"{op}:{index}"

    def values(self, names):
        """{name: array} of some of `variables`: constants in the graph, or read from the checkpoint, each once."""
        import tensorflow as tf

        nodes = {name: self.nodes.get(name) or self.nodes[f"{name}/read"] for name in names}
        found = {n: tf.make_ndarray(node.attr["value"].tensor) for n, node in nodes.items() if node.op == "Const"}
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

    def candidates(self):
        """Tensors that could be fed instead of a pipeline, as text: the way up from the first convolution."""
        node = next((node for node in self.nodes.values() if node.op == "Conv2D"), None)
        found = []
        while node is not None and node.input and len(found) < 5 and not _PIPELINE.search(node.op):
            op, index = _tensor(node.input[0])
            found.append(f"{op}:{index}")
            node = self.nodes.get(op)
        return ", ".join(found) or "none: there is no convolution in it"


_ADVICE = "name the one with --input, or input= in Python"


def _shape(node):
    """The static shape that a node declares, None where it declares no rank."""
    if "_output_shapes" in node.attr and node.attr["_output_shapes"].list.shape:
        shape = node.attr["_output_shapes"].list.shape[0]
    elif "shape" in node.attr:
        shape = node.attr["shape"].shape
    else:
        return None
    if shape.unknown_rank or (node.op == "Placeholder" and not shape.dim):  # old TF1 wrote "any rank" as "no dimension"
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in shape.dim)


def _dtype(node):
    """The type of a node's output, as its attributes tell it; float32 where they do not."""
    import tensorflow as tf

    known = next((key for key in ("dtype", "DstT", "T") if key in node.attr), None)
    return tf.as_dtype(node.attr[known].type) if known else tf.float32


def _takes_images(node):
    """Whether a placeholder is of (N, H, W, 3), or of floats of any shape."""
    shape, dtype = _shape(node), _dtype(node)
    if _inference_value(node) is not None:
        return False
    if shape is None:
        return dtype.is_floating
    return len(shape) == 4 and shape[3] in (3, None) and (dtype.is_floating or dtype.is_integer)


def _inference_value(node):
    """What inference wants of a placeholder that is not the images; None when that is not known."""
    dtype = _dtype(node)
    if dtype.is_bool:
        return False
    return 1.0 if dtype.is_floating and "keep_prob" in node.name.lower() else None


@dataclass
class _Part:
    """The operations that some outputs need, and the tensors at its border that stand for something given.

    At the border are the images, placeholders with a value, and weights: variables, or what once was one.
    """

    graph: LegacyGraph
    feeds: dict
    included: dict = field(default_factory=dict)  # {operation: node}
    images: str | None = None  # the tensor they are fed to, if these outputs need any
    fed: dict = field(default_factory=dict)  # {tensor: value}
    weights: dict = field(default_factory=dict)  # {tensor: operation}
    waiting: list = field(default_factory=list)

    @property
    def border(self):
        return [*([self.images] if self.images else []), *self.fed, *self.weights]

    def reach(self, op, index):
        """Sorts a tensor: one at the border, or one to be computed, whose operation is then to be followed."""
        graph, tensor = self.graph, f"{op}:{index}"
        if op in self.included:
            return
        if op not in graph.nodes:
            raise LegacyGraphError(f"{graph.path}: an operation reads {op}, which is not there: the file is cut short")
        node = graph.nodes[op]
        if tensor in self.feeds:
            self.fed[tensor] = self.feeds[tensor]
        elif tensor == graph.told:
            self.images = tensor
        elif node.op in VARIABLES or is_weight(node):
            self.weights[tensor] = op
        elif node.op in PLACEHOLDERS and (value := _inference_value(node)) is not None:
            self.fed[tensor] = value
        elif node.op in PLACEHOLDERS and _takes_images(node) and tensor == graph.input:
            self.images = tensor
        elif node.op in ("Placeholder", "PlaceholderV2"):
            raise LegacyGraphError(
                f"{graph.path}: the placeholder {op} ({_dtype(node).name}) has no value; give one with --feed "
                f"{op}=VALUE, or feeds= in Python"
            )
        elif _PIPELINE.search(node.op):
            raise LegacyGraphError(
                f"{graph.path}: its input is no placeholder: it reads {tensor} ({node.op}); candidates to be fed "
                f"instead are {graph.candidates()}; {_ADVICE}"
            )
        else:
            self.included[op] = node
            self.waiting.append(node)

    def follow(self):
        """Reaches everything behind what was reached."""
        while self.waiting:
            for text in self.waiting.pop().input:
                if not text.startswith("^"):
                    self.reach(*_tensor(text))
                elif text[1:] in self.graph.nodes and self.graph.nodes[text[1:]].op in _PIVOTS:
                    self.reach(text[1:], 0)

    def graph_def(self):
        """→ (GraphDef of this part, {tensor at the border: name of the placeholder that stands for it})"""
        import tensorflow as tf

        source = self.graph.graph_def
        part = tf.compat.v1.GraphDef(versions=source.versions)
        stands = {tensor: f"legacy_graph/given_{index}" for index, tensor in enumerate(self.border)}
        for tensor, name in stands.items():
            original = self.graph.nodes[_tensor(tensor)[0]]
            dtype = tf.resource if original.op == "VarHandleOp" else _dtype(original)
            node = part.node.add(name=name, op="Placeholder")
            node.attr["dtype"].type = dtype.as_datatype_enum
            node.attr["shape"].shape.unknown_rank = True
        for original in self.included.values():
            node = part.node.add()
            node.CopyFrom(original)
            node.device = ""  # "/job:ps/…": a machine that is long gone
            node.attr.pop("_class", None)  # colocation with operations that were left out
            del node.input[:]
            for text in original.input:
                if not text.startswith("^"):
                    op, index = _tensor(text)
                    node.input.append(stands.get(f"{op}:{index}", text))
                elif text[1:] in self.included:
                    node.input.append(text)
        _carry_functions(source.library, part)
        return part, stands


_imports = itertools.count()


def _carry_functions(library, part):
    """Copies into `part` the functions that its nodes call, under names of its own.

    TensorFlow keeps one table of functions a process, and two graphs may each have a `cond_true_12`.
    """
    known = {function.signature.name: function for function in library.function}
    suffix, carried, waiting = f"_import_{next(_imports)}", set(), list(part.node)
    while waiting:
        node = waiting.pop()
        called = [value.func for value in node.attr.values() if value.HasField("func")]
        called += [func for value in node.attr.values() for func in value.list.func]
        names = [(func, "name", func.name) for func in called] + [(node, "op", node.op)]
        for holder, attribute, name in names:
            if name not in known:
                continue
            setattr(holder, attribute, name + suffix)
            if name not in carried:
                carried.add(name)
                function = part.library.function.add()
                function.CopyFrom(known[name])
                function.signature.name = name + suffix
                waiting += function.node_def


class LegacyFunction:
    """Some outputs of a LegacyGraph as a function of images (N, H, W, 3) → {name: array}.

    fed: {placeholder: value} of what it is fed beside the images. weights: names of the variables that it was restored
    with, or that were frozen into its constants. normalizes_by_batch: whether its batch norm was built for training.
    """

    def __init__(self, graph, outputs, part):
        self.graph = graph
        self.fed = dict(part.fed)
        self.weights = list(part.weights.values())
        # A conditional has both branches; without one, batch norm in training mode means a graph made for training.
        self.normalizes_by_batch = not any(node.op == "Switch" for node in part.included.values()) and any(
            node.op.startswith("FusedBatchNorm") and node.attr["is_training"].b for node in part.included.values()
        )
        self._outputs = outputs
        self._images = part.images
        given = {tensor: np.asarray(value) for tensor, value in part.fed.items()}
        values = graph.values(self.weights)
        given |= {tensor: values[op] for tensor, op in part.weights.items()}
        self._given = {name: given[name] for name in outputs.values() if name in given}
        self._computed = [name for name in outputs.values() if name not in part.border]
        self._function = self._imported(part, given) if self._computed else None

    def _imported(self, part, given):
        """The part as a function of images; weights are captured by it, not copied into its graph."""
        import tensorflow as tf

        nodes = self.graph.nodes
        graph_def, stands = part.graph_def()
        held = {}
        for tensor, value in given.items():
            node = nodes[_tensor(tensor)[0]]
            is_handle = node.op == "VarHandleOp"
            held[tensor] = tf.Variable(value, trainable=False) if is_handle else tf.constant(value, _dtype(node))

        def function(images):
            feeds = {
                tensor: value.handle if isinstance(value, tf.Variable) else value for tensor, value in held.items()
            }
            feeds = {f"{stands[tensor]}:0": tf.identity(value) for tensor, value in feeds.items()}
            if self._images:
                feeds[f"{stands[self._images]}:0"] = images
            return tf.compat.v1.import_graph_def(graph_def, feeds, return_elements=self._computed, name="")

        self._held = held  # the function knows the variables by their handles only
        try:
            return tf.compat.v1.wrap_function(function, [tf.TensorSpec(None, self._image_dtype())])
        except (ValueError, KeyError, tf.errors.OpError) as error:
            raise self._explained(error, "cannot be imported") from error

    def _image_dtype(self):
        import tensorflow as tf

        return _dtype(self.graph.nodes[_tensor(self._images)[0]]) if self._images else tf.float32

    def _explained(self, error, what):
        cause = str(getattr(error, "message", None) or error).strip().splitlines()[0]
        unknown = re.search(r"Op type not registered '([^']+)'", str(error))
        if unknown:
            cause = f"its op {unknown.group(1)} is unknown to this TensorFlow; ask for outputs that do not need it"
        return LegacyGraphError(f"{self.graph.path}: {what}: {cause}")

    def __call__(self, images=None):
        import tensorflow as tf

        found = dict(self._given)
        if self._images:
            if images is None:
                raise LegacyGraphError(f"{self.graph.path}: these outputs need images, fed to {self._images}")
            self._check(np.shape(images))
            found[self._images] = np.asarray(images)
        if self._computed:
            fed = tf.cast(images if self._images else 0, self._image_dtype())
            try:
                results = self._function(fed)
            except (tf.errors.OpError, ValueError) as error:
                raise self._explained(error, f"does not run on images of {np.shape(images)}") from error
            found |= {name: np.asarray(value) for name, value in zip(self._computed, results, strict=True)}
        return {asked: found[name] for asked, name in self._outputs.items()}

    def _check(self, shape):
        wanted = self.graph.input_shape
        if wanted is not None and (
            len(wanted) != len(shape) or any(w not in (None, s) for w, s in zip(wanted, shape, strict=True))
        ):
            raise LegacyGraphError(f"{self.graph.path}: {self._images} takes images {wanted}. Received: {shape}")
