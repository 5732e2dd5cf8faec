"""Exported models in their own runtimes, used as `inference.predictor.ModelPredictor` is.

Each runtime is imported when a file of its kind is opened, and no other is: an ONNX export needs no TensorFlow.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.startup import notes_dropped
from inference.export_record import DESCRIPTION, ExportError, check_whole, read_description
from inference.exported import INSIDE, OUTPUTS, Export, explained, require, sizes_of
from inference.networks import KerasExport, TorchExport, TransformersExport

SAVED_MODEL = "saved_model"


class SavedModelExport(Export):
    """In TensorFlow."""

    kind = "a SavedModel of this project"

    def _open(self) -> dict[str, Sequence[Any]]:
        import tensorflow as tf

        asset = self.path / "assets" / f"{INSIDE}.json"
        self.inside = json.loads(asset.read_text()) if asset.is_file() else {}
        self._model = tf.saved_model.load(str(self.path))
        self._signature = self._model.signatures["serving_default"]
        self.batch, self.fixed = sizes_of(self._signature.structured_input_signature[1]["images"].shape)
        return {name: output.shape for name, output in self._signature.structured_outputs.items()}

    def _compute(self, name: str, images: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        return self._signature(images=tf.constant(images))[name].numpy()


class FrozenExport(Export):
    """In TensorFlow."""

    kind = "a frozen graph of this project"

    def _open(self) -> dict[str, Sequence[Any]]:
        import tensorflow as tf

        file = tf.compat.v1.GraphDef.FromString(self.path.read_bytes())
        nodes = {node.name: node for node in file.node}
        said = nodes[INSIDE].attr["value"].tensor.string_val[0] if INSIDE in nodes else b"{}"
        self.inside = json.loads(said)
        with tf.Graph().as_default() as graph:
            tf.graph_util.import_graph_def(file, name="")
        # As fast as a function of today's TensorFlow, and beside other work in the process 0.96 of its time.
        session = tf.compat.v1.Session(graph=graph)
        names = [name for name in OUTPUTS if name in nodes]
        self._runs = {name: session.make_callable(f"{name}:0", ["images:0"]) for name in names}
        self.batch, self.fixed = sizes_of(graph.get_tensor_by_name("images:0").shape)
        return {name: graph.get_tensor_by_name(f"{name}:0").shape for name in names}

    def _compute(self, name: str, images: np.ndarray) -> np.ndarray:
        return self._runs[name](images)


class OnnxExport(Export):
    """In ONNX Runtime."""

    kind = "an ONNX model of this project"

    def _open(self) -> dict[str, Sequence[Any]]:
        runtime = require("onnxruntime")
        options = runtime.SessionOptions()
        # Else its threads go on spinning after a picture, and take the processor from what is done with the labels.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = runtime.InferenceSession(self.path, options, providers=runtime.get_available_providers())
        self.inside = json.loads(self._session.get_modelmeta().custom_metadata_map.get(INSIDE, "{}"))
        (takes,) = self._session.get_inputs()
        self.input = takes.name
        self.batch, self.fixed = sizes_of(takes.shape)
        return {output.name: output.shape for output in self._session.get_outputs()}

    def _compute(self, name: str, images: np.ndarray) -> np.ndarray:
        return self._session.run([name], {self.input: images})[0]


class LiteExport(Export):
    """In LiteRT: of a segmentation model one size, of a classifier any; one picture at a time.

    Where there is a second input `size`, it says how much of the first is picture.
    """

    kind = "a TFLite model of this project"

    def _open(self) -> dict[str, Sequence[Any]]:
        # Not memory-mapped: the file may be replaced while it is used.
        content = self.path.read_bytes()
        make = require("ai_edge_litert.interpreter").Interpreter
        with notes_dropped():
            interpreter = make(model_content=content, num_threads=os.cpu_count())
        self._runner = interpreter.get_signature_runner()
        self.inside = _inside_lite(content)
        self.batch, takes = 1, self._runner.get_input_details()
        if "image" in takes:
            self.input, self.sized = "image", "size" in takes
            self.fixed = sizes_of(takes["image"]["shape"])[1]
        self._gives = self._runner.get_output_details()
        self.quantized = any(output["quantization"][0] for output in self._gives.values())
        return {name: output["shape"] for name, output in self._gives.items()}

    def labels_of(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The labels of several images, one after the other: each may have a size of its own."""
        return [super(LiteExport, self).labels_of([image])[0] for image in images]

    def _fed(self, images: np.ndarray) -> np.ndarray:
        self._size = np.array(images.shape[1:3], np.int32)
        return super()._fed(images)

    def _compute(self, name: str, images: np.ndarray) -> np.ndarray:
        if self.fixed is None:
            return self._runner(images=images)[name]
        found = self._runner(image=images, **({"size": self._size} if self.sized else {}))[name]
        scale, zero = self._gives[name]["quantization"]
        return found if not scale else (found.astype(np.float32) - np.float32(zero)) * np.float32(scale)


def _inside_lite(content: bytes) -> dict[str, Any]:
    """What a TFLite file's metadata says of it."""
    model = require("ai_edge_litert.schema_py_generated").Model.GetRootAs(content)
    for entry in map(model.Metadata, range(model.MetadataLength())):
        if entry.Name() == INSIDE.encode():
            return json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    return {}


SUFFIXES: dict[str, type[Export]] = {
    ".pb": FrozenExport,
    ".onnx": OnnxExport,
    ".tflite": LiteExport,
    ".keras": KerasExport,
    ".pt2": TorchExport,
}


def open_export(path: str | Path, classifies: bool | None = False, is_new: bool = False) -> Export | None:
    """→ the Export at `path`, or None where this is no export (but a checkpoint, perhaps).

    Args:
        path: the folder of a SavedModel or for `transformers`, a file with one of SUFFIXES, or a folder written by
            export_seg.py or export_cls.py, which stands for the SavedModel in it.
        classifies: whether it is to be a classifier; None: either will do.
        is_new: whether it was written just now, so that there is no checksum of it yet.

    Raises:
        ExportError: the export is missing or broken, its runtime is not installed, or it is of the other kind.
    """
    path = Path(path).expanduser()
    if path.name == "saved_model.pb":
        path = path.parent
    if (path / DESCRIPTION).is_file():
        path = _saved_model_in(path)
    if (path / "saved_model.pb").is_file():
        kind: type[Export] = SavedModelExport
    elif (path / "model.safetensors").is_file():
        kind = TransformersExport
    elif path.suffix == ".pb" and path.is_file() and not _is_frozen_export(path):
        return None  # another program's frozen graph, whose constants are a checkpoint
    elif path.suffix in SUFFIXES:
        kind = SUFFIXES[path.suffix]
        if not path.is_file():
            raise ExportError(f"{path}: no such file")
    else:
        return None
    if not is_new:
        check_whole(path)
    with explained(f"{path}: cannot be opened as {kind.kind}"):
        export = kind(path)
    if classifies not in (None, export.classifies):
        is_one, task = ("a classifier", "cls") if export.classifies else ("a segmentation model", "seg")
        raise ExportError(f"{path}: is {is_one}; it is for predict_{task}.py and eval_{task}.py")
    return export


def _is_frozen_export(path: Path) -> bool:
    """Whether a frozen graph gives what this project's do; a file that is no graph is not told apart here."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        names = {node.name for node in tf.compat.v1.GraphDef.FromString(path.read_bytes()).node}
    except DecodeError:
        return True
    return not names or INSIDE in names or {"images", "labels", "probabilities"} <= names


def _saved_model_in(folder: Path) -> Path:
    if (folder / SAVED_MODEL).is_dir():
        return folder / SAVED_MODEL
    described = read_description(folder)
    files = [entry["file"] for entry in described["formats"].values()] if described else []
    raise ExportError(f"{folder}: holds no SavedModel; name one of {', '.join(files) or 'none: it is empty'}")
