"""Slim's end points in a graph: which operation is the output of a scope."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from errors import some
from models.scopes import within
from models.weight_init import natural_order
from porting.graph_nodes import LegacyGraphError, Node, split_tensor

# What may end a slim layer, unit or block. The last two are batch norm's under an `is_training` placeholder.
_OUTPUTS = {
    *("Relu", "Relu6", "Add", "AddV2", "BiasAdd", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"),
    *("Identity", "Squeeze", "Merge", "If", "StatelessIf"),
}

# End points of a classifier that slim calls otherwise than any of its tensors and scopes.
_NO_TENSORS = {"global_pool", "Logits", "predictions", "Predictions"}

_RESIZE = "ResizeBilinear"
_LAYERS = {"expansion_output": "expand", "depthwise_output": "depthwise", "projection_output": "project"}


def find_end_points(
    nodes: Mapping[str, Node], origin: str, keys: Iterable[str], scopes: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """`LegacyGraph.end_points` of {operation: node}, by how far each is from the tensor `origin`, the images."""
    ends = _ends(nodes, origin)
    called = {root: _pattern(scope) for root, scope in (scopes or {}).items()}
    by_root = defaultdict(list)
    for key in (key for key in keys if key not in _NO_TENSORS):
        roots = [scope for scope in called if within(key, scope)]
        root = max(roots, key=len, default=key.partition("/")[0])
        by_root[root].append((key, key.removeprefix(root)))
    found: dict[str, str] = {}
    chosen: dict[str, str] = {}
    for root, members in by_root.items():
        pattern = called.get(root) or _pattern(root)
        fitting = {
            scope: {
                key: end for key, rest in members if (end := ends.get(scope + rest) or ends.get(_layer(scope + rest)))
            }
            for scope in ends
            if pattern.fullmatch(scope)
        }
        best = min(fitting, key=lambda s: (-len(fitting[s]), s.count("/"), natural_order(s)), default=None)
        if best is not None and fitting[best]:
            found |= {key: f"{op}:0" for key, op in fitting[best].items()}
            chosen[root] = best
    return {key: found[key] for key in keys if key in found}, chosen


def _layer(end_point: str) -> str:
    """The scope of the layer whose output MobileNet's end point is, where no operation of that name was recorded."""
    scope, _, name = end_point.rpartition("/")
    return f"{scope}/{_LAYERS[name]}" if name in _LAYERS else ""


def find_upsampled(nodes: Mapping[str, Node], logits: str) -> str | None:
    """The tensor that the tensor `logits` is after the last of the resizes that follow it; None where none does."""
    _, consumers = depths(nodes, split_tensor(logits))
    last, waiting = None, [split_tensor(logits)[0]]
    while waiting:
        following = [user for op in waiting for user in consumers[op] if nodes[user].op in ("Identity", _RESIZE)]
        last = next((user for user in following if nodes[user].op == _RESIZE), last)
        waiting = following
    return f"{last}:0" if last else None


def _pattern(scope: str) -> re.Pattern:
    """Of a scope behind any prefix, each of its parts as it is or made unique: `import/aspp_1/conv_1x1`."""
    return re.compile("(.*/)?" + "/".join(rf"{re.escape(part)}(_\d+)?" for part in scope.split("/")))


def _ends(nodes: Mapping[str, Node], origin: str) -> dict[str, str]:
    """{scope or operation: the operation that is its output}, of all that depends on the input."""
    depth, consumers = depths(nodes, split_tensor(origin))
    best: dict[str, tuple[tuple[bool, int], str]] = {}
    for name, level in depth.items():
        if nodes[name].op not in _OUTPUTS:
            continue
        scope = name
        while "/" in scope:
            scope = scope.rpartition("/")[0]
            feeds_outside = any(not user.startswith(scope + "/") for user in consumers[name])
            rank = (feeds_outside, level)
            if scope not in best or rank > best[scope][0]:  # of equals the first: a conditional's first output
                best[scope] = rank, name
    return {scope: name for scope, (_, name) in best.items()} | {name: name for name in depth}


def depths(nodes: Mapping[str, Node], origin: tuple[str, int]) -> tuple[dict[str, int], dict[str, list[str]]]:
    """({operation: longest way from the tensor `origin`}, {operation: operations that take its data})

    Raises LegacyGraphError, without the file's name, for a graph that goes in a circle.
    """
    inputs = {
        node.name: [split_tensor(text) for text in node.input if not text.startswith("^")]
        for node in nodes.values()
        if node.op != "NextIteration"  # the only edge back in a graph
    }
    consumers = defaultdict(list)
    for name, tensors in inputs.items():
        for op, _ in tensors:
            consumers[op].append(name)
    depth: dict[str, int] = {}
    before_each = {name: [op for op, _ in tensors] for name, tensors in inputs.items()}
    try:
        order = list(TopologicalSorter(before_each).static_order())
    except CycleError as error:
        circle = some(error.args[1])
        raise LegacyGraphError(f"its operations {circle} feed each other in a circle: damaged") from error
    for name in order:
        tensors = inputs.get(name, [])
        before = [depth[op] for op, _ in tensors if op in depth] + [0] * (origin in tensors)
        if before and name != origin[0]:
            depth[name] = 1 + max(before)
    return {name: depth[name] for name in nodes if name in depth}, consumers
