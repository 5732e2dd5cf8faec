"""The way from a graph's images to its first convolution: whether it preprocesses them itself, and what comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from porting.graph_ends import depths
from porting.graph_nodes import Node, node_dtype, split_tensor

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_ARITHMETIC = {"Add", "AddV2", "Sub", "Mul", "Div", "RealDiv", "BiasAdd"}
_PADDING = ("Pad", "PadV2", "MirrorPad")


@dataclass(frozen=True)
class Entrance:
    """What a graph does to the images that it is fed, before its first convolution.

    tensor: what the first convolution is fed, before it is padded by hand for a kernel without padding of its own.
    operations: those on the way that compute with floats of the images, in order: "Sub", "Mul".
    """

    tensor: str
    operations: tuple[str, ...]


def find_entrance(nodes: Mapping[str, Node], origin: str, target: str) -> Entrance | None:
    """The Entrance before the first convolution between the tensor `origin`, the images, and the tensor `target`.

    None where there is no convolution between them.
    """
    depth, _ = depths(nodes, split_tensor(origin))
    before = _ancestors(nodes, split_tensor(target)[0], depth)
    first = min((op for op in before if nodes[op].op in _CONVOLUTIONS), key=lambda op: depth[op], default=None)
    if first is None:
        return None
    tensor = nodes[first].input[0]
    if nodes[first].attr["padding"].s == b"VALID":
        while nodes[split_tensor(tensor)[0]].op in _PADDING:
            tensor = nodes[split_tensor(tensor)[0]].input[0]
    way = _ancestors(nodes, split_tensor(tensor)[0], depth)
    arithmetic = [op for op in way if nodes[op].op in _ARITHMETIC and node_dtype(nodes[op]).is_floating]
    op, index = split_tensor(tensor)
    return Entrance(f"{op}:{index}", tuple(nodes[op].op for op in sorted(arithmetic, key=lambda op: depth[op])))


def _ancestors(nodes: Mapping[str, Node], op: str, among: Mapping[str, int]) -> set[str]:
    """`op` and all that its data depends on, of the operations `among`."""
    found: set[str] = set()
    waiting = [op]
    while waiting:
        op = waiting.pop()
        if op in among and op not in found:
            found.add(op)
            waiting += [split_tensor(text)[0] for text in nodes[op].input if not text.startswith("^")]
    return found
