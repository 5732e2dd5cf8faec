"""Weights that were frozen into a graph: constants under the names of slim's variables."""

from typing import Any

import numpy as np

SLIM_LEAVES = {
    *("weights", "depthwise_weights", "pointwise_weights", "biases"),
    *("gamma", "beta", "moving_mean", "moving_variance"),
}


def variable_name(node: Any) -> str:
    """The name of the variable that a NodeDef was, or reads: freezing kept the constant, or what read it."""
    return node.name.removesuffix("/read")


def is_weight(node: Any) -> bool:
    """Whether a NodeDef is a constant that once was one of slim's variables."""
    return node.op == "Const" and variable_name(node).rpartition("/")[2] in SLIM_LEAVES


def weight_shape(node: Any) -> tuple[int, ...]:
    """The shape of a constant."""
    return tuple(dim.size for dim in node.attr["value"].tensor.tensor_shape.dim)


def weight_value(node: Any) -> np.ndarray:
    """The value of a constant."""
    import tensorflow as tf

    return tf.make_ndarray(node.attr["value"].tensor)
