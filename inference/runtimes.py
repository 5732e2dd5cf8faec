"""Exported models in their own runtimes, used as `inference.predictor.ModelPredictor` is.

Each runtime is imported when a file of its kind is opened, and no other is: an ONNX export needs no TensorFlow.
"""

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from data.imagenet import imagenet_names
from data.voc import names_of, unnamed
from engine.startup import notes_dropped
from errors import UserError
from inference.export_record import DESCRIPTION, ExportError, check_whole, read_description

SAVED_MODEL = "saved_model"


class Export(ABC):
    """A model in a file, all that is done to a picture included: a segmentation model's padding, a classifier's crop.

    Attributes:
        path: of the file or, for a SavedModel, the folder.
        classifies: whether it is a classifier, which gives a picture one label, and not each of its pixels.
        num_classes: as the file tells it.
        class_names: by the export.json beside it, else VOC's 21 or of a classifier ImageNet's, else "class 0" …
    """

    kind: str

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        shape = self._open()
        self.classifies, self.num_classes = len(shape) == 2, int(shape[-1])
        self.class_names = self._class_names()

    @abstractmethod
    def _open(self) -> Sequence[Any]:
        """Opens `path` in its runtime → the shape of its probabilities."""

    @abstractmethod
    def _run(self, name: str, images: np.ndarray) -> np.ndarray:
        """What `name` is, "labels" or "probabilities", of uint8 images (N, H, W, 3)."""

    def _computed(self, name: str, images: np.ndarray) -> np.ndarray:
        """`_run`; ExportError where the runtime stumbles over the file only now."""
        with explained(f"{self.path}: cannot be run"):
            return self._run(name, images)

    def _class_names(self) -> tuple[str, ...]:
        described = read_description(self.path.parent)
        if described is None:
            known = imagenet_names(self.num_classes) or unnamed(self.num_classes)
            return known if self.classifies else names_of(self.num_classes)
        if len(described["classes"]) != self.num_classes:
            raise ExportError(
                f"{self.path}: has {self.num_classes} classes, the {DESCRIPTION} beside it {len(described['classes'])}"
            )
        return tuple(described["classes"])

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """What images must share to be predicted as one batch → (height, width), pixels: here, their own size."""
        return height, width

    def labels(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB (H, W, 3) → uint8 (H, W)."""
        return self.labels_of([image])[0]

    def labels_of(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The labels of several images of one size, predicted as one batch."""
        return list(self._computed("labels", np.stack(images)))

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB (H, W, 3) → float32 (H, W, classes)."""
        return self._computed("probabilities", image[None])[0]

    def probabilities_of(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """A classifier's of uint8 RGB images, each (H, W, 3) of its own size → float32 (N, classes)."""
        return np.concatenate([self._computed("probabilities", image[None]) for image in images])


class SavedModelExport(Export):
    """Pictures of any size, in TensorFlow."""

    kind = "a SavedModel of this project"

    def _open(self) -> Sequence[Any]:
        import tensorflow as tf

        self._model = tf.saved_model.load(str(self.path))
        self._signature = self._model.signatures["serving_default"]
        return self._signature.structured_outputs["probabilities"].shape

    def _run(self, name: str, images: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        return self._signature(images=tf.constant(images))[name].numpy()


class FrozenExport(Export):
    """Pictures of any size, in TensorFlow."""

    kind = "a frozen graph of this project"

    def _open(self) -> Sequence[Any]:
        import tensorflow as tf

        graph = tf.compat.v1.GraphDef.FromString(self.path.read_bytes())
        imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
        self._functions = {name: imported.prune("images:0", f"{name}:0") for name in ("labels", "probabilities")}
        return self._functions["probabilities"].structured_outputs.shape

    def _run(self, name: str, images: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        return self._functions[name](tf.constant(images)).numpy()


class OnnxExport(Export):
    """Pictures of any size, in ONNX Runtime."""

    kind = "an ONNX model of this project"

    def _open(self) -> Sequence[Any]:
        runtime = require("onnxruntime")
        self._session = runtime.InferenceSession(self.path, providers=runtime.get_available_providers())
        return {output.name: output.shape for output in self._session.get_outputs()}["probabilities"]

    def _run(self, name: str, images: np.ndarray) -> np.ndarray:
        return self._session.run([name], {"images": images})[0]


class LiteExport(Export):
    """The input of a segmentation model is a square of `size` pixels, of which the picture is a part; a classifier's a
    picture of any size."""

    kind = "a TFLite model of this project"

    def _open(self) -> Sequence[Any]:
        # Not memory-mapped: the file may be replaced while it is used.
        content = self.path.read_bytes()
        make = require("ai_edge_litert.interpreter").Interpreter
        with notes_dropped():
            interpreter = make(model_content=content, num_threads=os.cpu_count())
        self._runner = interpreter.get_signature_runner()
        shape = self._runner.get_output_details()["probabilities"]["shape"]
        if len(shape) != 2:
            self.size = int(self._runner.get_input_details()["image"]["shape"][1])
        return shape

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The square; ExportError for an image that does not fit."""
        if max(height, width) > self.size:
            raise ExportError(
                f"{self.path}: takes pictures of up to {self.size}x{self.size} pixels, this one has {width}x{height}. "
                f"Use the SavedModel or ONNX, or export with --crop-size {max(height, width)} or more."
            )
        return self.size, self.size

    def labels_of(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The labels of several images, one after the other."""
        return [self._computed("labels", image[None])[0] for image in images]

    def _run(self, name: str, images: np.ndarray) -> np.ndarray:
        if self.classifies:
            return self._runner(images=images)[name]
        height, width = images.shape[1:3]
        self.padded_size(height, width)
        fed = np.zeros((1, self.size, self.size, 3), np.uint8)
        fed[:, :height, :width] = images
        return self._runner(image=fed, size=np.array([height, width], np.int32))[name][:, :height, :width]


SUFFIXES: dict[str, type[Export]] = {".pb": FrozenExport, ".onnx": OnnxExport, ".tflite": LiteExport}


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Makes an ExportError of whatever a runtime raises: each has exceptions of its own for a file that is damaged."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(f"{what} ({cause}). Export it again.") from error


def open_export(path: str | Path, classifies: bool | None = False, is_new: bool = False) -> Export | None:
    """→ the Export at `path`, or None where this is no export (but a checkpoint, perhaps).

    Args:
        path: a SavedModel's folder, a `.pb`, `.onnx` or `.tflite` file, or a folder written by export_seg.py or
            export_cls.py, which stands for the SavedModel in it.
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
    return not names or {"images", "labels", "probabilities"} <= names


def _saved_model_in(folder: Path) -> Path:
    if (folder / SAVED_MODEL).is_dir():
        return folder / SAVED_MODEL
    described = read_description(folder)
    files = [entry["file"] for entry in described["formats"].values()] if described else []
    raise ExportError(f"{folder}: holds no SavedModel; name one of {', '.join(files) or 'none: it is empty'}")


def require(module: str) -> ModuleType:
    """Imports the runtime `module`; ExportError saying how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExportError(
            f"{module.partition('.')[0]} is not installed: pip install -r requirements-export.txt"
        ) from error
