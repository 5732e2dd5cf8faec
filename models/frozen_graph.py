"""A frozen graph's weights: what were variables before they were made constants, under the variables' names."""

from collections.abc import Mapping
from typing import Any

from models.scopes import within

LEAVES = {
    *("weights", "depthwise_weights", "pointwise_weights", "biases"),
    *("gamma", "beta", "moving_mean", "moving_variance"),
}
PLAIN_LEAVES = {"kernel", "bias"}  # of tf.layers, as one of the public DeepLabs has its head


def variable_name(node: Any) -> str:
    """The variable that a constant was: `…/weights/read` is `…/weights`."""
    return node.name.removesuffix("/read")


def is_weight(node: Any, leaves: set[str] = LEAVES) -> bool:
    """Whether a node of a GraphDef is a constant under the name of a variable of slim's."""
    return node.op == "Const" and variable_name(node).rpartition("/")[2] in leaves


def parsed(content: bytes) -> Any:
    """A GraphDef from its bytes; ValueError where they are none."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework.graph_pb2 import GraphDef

    try:
        return GraphDef.FromString(content)
    except DecodeError as error:
        raise ValueError("cut short, damaged, or no frozen graph") from error


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
