"""A frozen graph's constants are a checkpoint: what were variables before `convert_variables_to_constants`, by name."""

from pathlib import Path
from typing import Any

import numpy as np

LEAVES = {
    *("weights", "depthwise_weights", "pointwise_weights", "biases"),
    *("gamma", "beta", "moving_mean", "moving_variance"),
}
_PLAIN_LEAVES = {"kernel", "bias"}  # of tf.layers, as one of the public DeepLabs has its head


def variable_name(node: Any) -> str:
    """The variable that a constant was: `…/weights/read` is `…/weights`."""
    return node.name.removesuffix("/read")


def is_weight(node: Any, leaves: set[str] = LEAVES) -> bool:
    """Whether a node of a GraphDef is a constant under the name of a variable of slim's."""
    return node.op == "Const" and variable_name(node).rpartition("/")[2] in leaves


def weight_shape(node: Any) -> tuple[int, ...]:
    """The shape of a constant."""
    return tuple(dim.size for dim in node.attr["value"].tensor.tensor_shape.dim)


def weight_value(node: Any) -> np.ndarray:
    """The value of a constant."""
    import tensorflow as tf

    return tf.make_ndarray(node.attr["value"].tensor)


class FrozenGraph:
    """The constants of a GraphDef as an open checkpoint: `shapes` and `dtypes` at once, arrays on request.

    Raises ValueError where the file cannot be parsed, or holds no constant of a variable's name.
    """

    def __init__(self, path: Path) -> None:
        import tensorflow as tf
        from google.protobuf.message import DecodeError

        self.path = self.prefix = str(path)
        try:
            graph = tf.compat.v1.GraphDef.FromString(path.read_bytes())
        except DecodeError as error:
            raise ValueError("cut short, damaged, or no frozen graph") from error
        leaves = LEAVES | _PLAIN_LEAVES
        self._nodes = {variable_name(node): node for node in graph.node if is_weight(node, leaves)}
        if not self._nodes:
            raise ValueError("no weights under variables' names in it; if it was not frozen, give its checkpoint")
        nodes = sorted(self._nodes.items())
        self.shapes = {name: weight_shape(node) for name, node in nodes}
        self.dtypes = {name: tf.as_dtype(node.attr["value"].tensor.dtype).name for name, node in nodes}

    def read(self, name: str) -> np.ndarray:
        """The array that is stored under `name`; KeyError where there is none."""
        return weight_value(self._nodes[name])
