"""Files of TensorFlow 1's graphs: found, read and parsed, or refused with what they are instead."""

import re
from pathlib import Path
from typing import Any

from files.records import read_bytes
from models.checkpoint import GRAPH_LIMIT, find_prefix
from models.frozen_graph import check_constants
from models.weight_init import natural_order
from porting.graph_nodes import LegacyGraphError

_WINDOWS = {"strides", "dilations", "ksize", "ksizes", "rates", "explicit_paddings"}
LARGEST_WINDOW = 1 << 16  # pixels


def find_meta(path: Path) -> Path:
    """The `.meta` file that is meant by its own path, a checkpoint's prefix or files, or a directory of theirs."""
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


def read(path: Path) -> bytes:
    """A file's bytes; LegacyGraphError where there are none."""
    if path.is_dir():
        hint = "; it holds a SavedModel: tf.saved_model.load runs that" if (path / "saved_model.pb").is_file() else ""
        raise LegacyGraphError(f"{path}: a directory, not a graph{hint}")
    content = read_bytes(path, GRAPH_LIMIT, LegacyGraphError)
    if not content:
        raise LegacyGraphError(f"{path}: the file is empty")
    return content


def parse(message: Any, content: bytes, path: Path) -> Any:
    """The bytes of the file `path` as a protocol buffer: GraphDef or MetaGraphDef, with at least one node."""
    from google.protobuf.message import DecodeError

    advice = f"cut short, damaged, or no {message.__name__} ({len(content):,} bytes); copy or export it again"
    try:
        parsed = message.FromString(content)
    except DecodeError as error:
        raise LegacyGraphError(f"{path}: {advice}") from error
    graph = getattr(parsed, "graph_def", parsed)
    if not graph.node:
        raise LegacyGraphError(f"{path}: no graph in it; {advice}")
    try:
        check_constants(graph)
        _check_windows(graph)
    except ValueError as error:
        raise LegacyGraphError(f"{path}: {error}") from error
    return parsed


def _check_windows(graph: Any) -> None:
    """Raises ValueError for strides, dilations or windows at which TensorFlow's kernels end the process."""
    for node in graph.node:
        for name in _WINDOWS & node.attr.keys():
            if any(abs(side) > LARGEST_WINDOW for side in node.attr[name].list.i):
                raise ValueError(
                    f"the {name} of its operation {node.name!r} are {list(node.attr[name].list.i)}: damaged"
                )


def is_saved_model(content: bytes) -> bool:
    """Whether a file's bytes are a SavedModel's, which has `.pb` for a suffix too."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        return any(meta.HasField("graph_def") for meta in SavedModel.FromString(content).meta_graphs)
    except DecodeError:
        return False
