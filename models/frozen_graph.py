"""A frozen graph's weights: what were variables before they were made constants, under the variables' names."""

from typing import Any

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


def weights_of(content: bytes) -> dict[str, Any]:
    """{name: TensorProto} of the weights in a serialized GraphDef; ValueError where it is none, or has none."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework.graph_pb2 import GraphDef

    try:
        graph = GraphDef.FromString(content)
    except DecodeError as error:
        raise ValueError("cut short, damaged, or no frozen graph") from error
    leaves = LEAVES | PLAIN_LEAVES
    found = {variable_name(node): node.attr["value"].tensor for node in graph.node if is_weight(node, leaves)}
    if not found:
        raise ValueError("no weights under variables' names in it; if it was not frozen, give its checkpoint")
    return dict(sorted(found.items()))
