"""A frozen graph's weights: what were variables before they were made constants, under the variables' names."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from models.scopes import within

LEAVES = {
    *("weights", "depthwise_weights", "pointwise_weights", "biases"),
    *("gamma", "beta", "moving_mean", "moving_variance"),
}
SPREAD = 256 << 20  # bytes that all constants of a graph may take beyond what is written of them, as zeros() does
_VALUES = ("half", "float", "double", "int", "int64", "bool", "string", "uint32", "uint64")
PLAIN_LEAVES = {"kernel", "bias"}  # of tf.layers, as one of the public DeepLabs has its head


def variable_name(node: Any) -> str:
    """The variable that a constant was: `…/weights/read` is `…/weights`."""
    return node.name.removesuffix("/read")


def is_weight(node: Any, leaves: set[str] = LEAVES) -> bool:
    """Whether a node of a GraphDef is a constant under the name of a variable of slim's."""
    return node.op == "Const" and variable_name(node).rpartition("/")[2] in leaves


def weight_shape(node: Any) -> tuple[int, ...]:
    """The shape of a constant."""
    return tuple(dim.size for dim in node.attr["value"].tensor.tensor_shape.dim)


def weight_value(node: Any) -> Any:
    """The array that a constant holds."""
    from tensorflow import make_ndarray

    return make_ndarray(node.attr["value"].tensor)


def parsed(content: bytes) -> Any:
    """A GraphDef from its bytes; ValueError where they are none."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework.graph_pb2 import GraphDef

    try:
        graph = GraphDef.FromString(content)
    except DecodeError as error:
        raise ValueError("cut short, damaged, or no frozen graph") from error
    check_constants(graph)
    return graph


def check_constants(graph: Any) -> None:
    """Raises ValueError where a constant of a GraphDef does not hold what it declares, before there is room for it."""
    room = SPREAD
    for node in _constants(graph):
        tensor, declared = node.attr["value"].tensor, weight_shape(node)
        size = _bytes_of_one(node)
        count = -1 if tensor.tensor_shape.unknown_rank or min(declared, default=0) < 0 else math.prod(declared)
        held = max(len(getattr(tensor, f"{name}_val")) for name in _VALUES)
        written = len(tensor.tensor_content)
        room -= max(0, count * size - tensor.ByteSize())
        if room < 0 or held > max(count, 0) or count < 0 or (written and size and written != count * size):
            raise ValueError(
                f"the constant {node.name!r} declares the shape {declared}, which is not what it holds: damaged"
            )


def _constants(graph: Any) -> Iterator[Any]:
    """The Const nodes of a GraphDef and of the functions in it."""
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        yield from (node for node in nodes if node.op == "Const")


def _bytes_of_one(node: Any) -> int:
    """Of a constant's value; 0 for a type without a size. Raises ValueError for no type, or two."""
    from tensorflow import as_dtype

    if node.attr["dtype"].type != node.attr["value"].tensor.dtype:
        raise ValueError(f"the constant {node.name!r} is declared of another type than its value: damaged")
    try:
        dtype = as_dtype(node.attr["value"].tensor.dtype)
    except TypeError as error:
        raise ValueError(f"the constant {node.name!r} is of no type that TensorFlow knows: damaged") from error
    return dtype.size if dtype.is_numpy_compatible and dtype.name != "string" else 0


def weights_of(graph: Any) -> dict[str, Any]:
    """{name: TensorProto} of the weights in a GraphDef; ValueError where there are none."""
    leaves = LEAVES | PLAIN_LEAVES
    found = {variable_name(node): node.attr["value"].tensor for node in graph.node if is_weight(node, leaves)}
    if not found:
        raise ValueError("no weights under variables' names in it; if it was not frozen, give its checkpoint")
    return dict(sorted(found.items()))


def output_stride_of(graph: Any, scope: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Input size over feature size of the backbone in `scope`, which is what its operations multiply to.

    1x1 convolutions and poolings are beside the way: shortcuts that follow what the others do.
    """
    stride = 1
    for node in graph.node:
        if node.op in ("Conv2D", "DepthwiseConv2dNative"):
            size = shapes.get(node.input[1].removesuffix("/read"), (1,))[0]
        elif node.op == "MaxPool":
            size = node.attr["ksize"].list.i[1]
        else:
            continue
        if size > 1 and within(node.name, scope):
            stride *= max(node.attr["strides"].list.i)
    return stride
