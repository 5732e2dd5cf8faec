"""What TensorFlow itself runs: a SavedModel, and a frozen graph."""

import json
from pathlib import Path

import tensorflow as tf

from exporting.served import Served
from files.writing import temporary_folder
from inference.exported import INSIDE


def write_saved_model(served: Served, path: Path) -> None:
    """A folder that `tf.saved_model.load` reads; its function is the signature `serving_default`, and `serve`."""
    module = tf.Module()
    module.serve = served.any_size
    with temporary_folder() as folder:
        (folder / f"{INSIDE}.json").write_text(json.dumps(served.description))
        module.description = tf.saved_model.Asset(str(folder / f"{INSIDE}.json"))
        tf.saved_model.save(module, str(path), signatures=served.any_size)


def write_frozen(served: Served, path: Path) -> None:
    """A GraphDef of constants alone: tensors `images:0` → `labels:0` …, and what it is in `slim_deeplab:0`."""
    graph = served.any_size.get_concrete_function().graph.as_graph_def()
    with tf.Graph().as_default() as described:
        tf.constant(json.dumps(served.description), name=INSIDE)
    graph.node.extend(described.as_graph_def().node)
    path.write_bytes(graph.SerializeToString(deterministic=True))
