"""What a node of TensorFlow 1's graphs says of itself: its shape, its type, whether it takes images."""

import re
from typing import Any

from errors import UserError

# TensorFlow's protocol buffers NodeDef and GraphDef, which come without types.
Node = Any
GraphDef = Any

PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
VARIABLES = ("Variable", "VariableV2", "AutoReloadVariable", "VarHandleOp")
_PIPELINE = re.compile(r"Queue|Iterator|Reader|^Stage$|^Unstage$|PyFunc")  # what only a training's input has


class LegacyGraphError(UserError, ValueError):
    """A graph that is missing, damaged, of another kind, or cannot be run as asked."""


def split_tensor(name: str) -> tuple[str, int]:
    """ "op" or "op:0" → ("op", 0)"""
    op, colon, index = name.rpartition(":")
    return (op, int(index)) if colon and index.isdecimal() else (name, 0)


def is_pipeline(node: Node) -> bool:
    """Whether a node is of a training's input, such as a queue."""
    return bool(_PIPELINE.search(node.op))


def node_shape(node: Node) -> tuple[int | None, ...] | None:
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


def node_dtype(node: Node) -> Any:
    """The tf.DType of a node's output, as its attributes tell it; float32 where they do not, or tell no type."""
    import tensorflow as tf

    known = next((key for key in ("dtype", "DstT", "T") if key in node.attr), None)
    try:
        return tf.as_dtype(node.attr[known].type) if known else tf.float32
    except TypeError:
        return tf.float32


def takes_images(node: Node) -> bool:
    """Whether a placeholder is of (N, H, W, 3), or of floats of any shape."""
    shape, dtype = node_shape(node), node_dtype(node)
    if inference_value(node) is not None:
        return False
    if shape is None:
        return dtype.is_floating
    return len(shape) == 4 and shape[3] in (3, None) and (dtype.is_floating or dtype.is_integer)


def inference_value(node: Node) -> bool | float | None:
    """What inference wants of a placeholder that is not the images; None when that is not known."""
    dtype = node_dtype(node)
    if dtype.is_bool:
        return False
    return 1.0 if dtype.is_floating and "keep_prob" in node.name.lower() else None
