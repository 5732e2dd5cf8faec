"""A part cut out of a graph: the operations that some outputs need, and what is given at its border."""

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from models.frozen_graph import is_weight
from porting.graph_nodes import (
    PLACEHOLDERS,
    VARIABLES,
    GraphDef,
    LegacyGraphError,
    Node,
    inference_value,
    is_pipeline,
    node_dtype,
    split_tensor,
    takes_images,
)

if TYPE_CHECKING:
    from porting.legacy_graph import LegacyGraph

INPUT_ADVICE = "name the one with --input, or input= in Python"
_PIVOTS = ("Identity", "Switch", "Merge")  # control edges to these say which branch of a conditional an op is in


@dataclass
class Part:
    """The operations that some outputs need, and the tensors at its border that stand for something given.

    At the border are the images, placeholders with a value, and weights: variables, or what once was one.
    """

    graph: "LegacyGraph"
    feeds: dict[str, Any]
    included: dict[str, Node] = field(default_factory=dict)  # {operation: node}
    images: str | None = None  # the tensor they are fed to, if these outputs need any
    fed: dict[str, Any] = field(default_factory=dict)  # {tensor: value}
    weights: dict[str, str] = field(default_factory=dict)  # {tensor: operation}
    waiting: list[Node] = field(default_factory=list)

    @property
    def border(self) -> list[str]:
        """The tensors that are given."""
        return [*([self.images] if self.images else []), *self.fed, *self.weights]

    def reach(self, op: str, index: int) -> None:
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
        elif node.op in PLACEHOLDERS and (value := inference_value(node)) is not None:
            self.fed[tensor] = value
        elif node.op in PLACEHOLDERS and takes_images(node) and tensor == graph.input:
            self.images = tensor
        elif node.op in ("Placeholder", "PlaceholderV2"):
            raise LegacyGraphError(
                f"{graph.path}: the placeholder {op} ({node_dtype(node).name}) has no value; give one with --feed "
                f"{op}=VALUE, or feeds= in Python"
            )
        elif is_pipeline(node):
            raise LegacyGraphError(
                f"{graph.path}: its input is no placeholder: it reads {tensor} ({node.op}); candidates to be fed "
                f"instead are {graph.candidates()}; {INPUT_ADVICE}"
            )
        else:
            self.included[op] = node
            self.waiting.append(node)

    def follow(self) -> None:
        """Reaches everything behind what was reached."""
        while self.waiting:
            for text in self.waiting.pop().input:
                if not text.startswith("^"):
                    self.reach(*split_tensor(text))
                elif text[1:] in self.graph.nodes and self.graph.nodes[text[1:]].op in _PIVOTS:
                    self.reach(text[1:], 0)

    def graph_def(self) -> tuple[GraphDef, dict[str, str]]:
        """→ (GraphDef of this part, {tensor at the border: name of the placeholder that stands for it})"""
        import tensorflow as tf

        source = self.graph.graph_def
        part = tf.compat.v1.GraphDef(versions=source.versions)
        stands = {tensor: f"legacy_graph/given_{index}" for index, tensor in enumerate(self.border)}
        for tensor, name in stands.items():
            original = self.graph.nodes[split_tensor(tensor)[0]]
            dtype = tf.resource if original.op == "VarHandleOp" else node_dtype(original)
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
                    op, index = split_tensor(text)
                    node.input.append(stands.get(f"{op}:{index}", text))
                elif text[1:] in self.included:
                    node.input.append(text)
        _carry_functions(source.library, part)
        return part, stands


_imports = itertools.count()


def _carry_functions(library: Any, part: GraphDef) -> None:
    """Copies into `part` the functions that its nodes call, under names of its own.

    TensorFlow keeps one table of functions a process, and two graphs may each have a `cond_true_12`.
    """
    known = {function.signature.name: function for function in library.function}
    suffix, waiting = f"_import_{next(_imports)}", list(part.node)
    carried: set[str] = set()
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
