"""Exported models in their own runtimes, used as `inference.predictor.ModelPredictor` is.

Each runtime is imported when a file of its kind is opened, and no other is: an ONNX export needs no TensorFlow.
"""

import importlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from data.imagenet import imagenet_names
from data.voc import names_of, unnamed
from engine.startup import notes_dropped
from errors import UserError
from inference.cells import labels_from
from inference.export_record import DESCRIPTION, ExportError, check_whole, read_description
from inference.upsampling import Size, padded_size, upsampled

SAVED_MODEL = "saved_model"
INSIDE = "slim_deeplab"  # under which a file says what it is, as JSON: classes, colours, what goes in and comes out


OUTPUTS = ("labels", "probabilities", "logits")


class Export(ABC):
    """A model in a file, all that is done to a picture included: a segmentation model's padding, a classifier's crop.

    Attributes:
        path: of the file or, for a SavedModel, the folder.
        classifies: whether it is a classifier, which gives a picture one label, and not each of its pixels.
        num_classes: as the file tells it.
        class_names: by the export.json beside it, else by the file, else VOC's 21 or of a classifier ImageNet's, else
            "class 0" …
        inside: what the file says of itself; empty of one that says nothing.
        input: the name of what takes pictures.
        batch: how many pictures it takes at once; None: any.
        fixed: the one (height, width) that it takes, pixels; None: any.
        sized: whether it also takes how much of them is picture, as `size`.
        outputs: which of OUTPUTS it gives.
        quantized: whether its logits are 8 bits, to be scaled.
    """

    kind: str
    inside: dict[str, Any]
    input = "images"
    batch: int | None = None
    fixed: tuple[int, int] | None = None
    sized = quantized = False

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        given = self._open()
        self.outputs = [name for name in OUTPUTS if name in given]
        if not self.outputs:
            raise ValueError(f"gives {', '.join(given) or 'nothing'}, not one of {', '.join(OUTPUTS)}")
        self.classifies = len(given[self.outputs[0]]) == (1 if self.outputs[0] == "labels" else 2)
        with_classes = [given[name][-1] for name in self.outputs if name != "labels"]
        self.num_classes = int(with_classes[0] if with_classes else len(self.inside["classes"]))
        self.class_names = self._class_names()

    @abstractmethod
    def _open(self) -> dict[str, Sequence[Any]]:
        """Opens `path` in its runtime, reads `inside` → the shapes of its outputs."""

    @abstractmethod
    def _compute(self, name: str, images: np.ndarray) -> np.ndarray:
        """What the output `name` is of uint8 images, as many and as large as the file takes."""

    def _run(self, name: str, images: np.ndarray) -> np.ndarray:
        """What the output `name` is of uint8 images (N, H, W, 3): of as many at once as the file takes.

        ExportError where the runtime stumbles over the file only now.
        """
        batch, fed = self.batch or len(images), self._fed(images)
        found = []
        for start in range(0, len(fed), batch):
            part = fed[start : start + batch]
            filled = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
            with explained(f"{self.path}: cannot be run"):
                found.append(self._compute(name, filled)[: len(part)])
        whole = np.concatenate(found)
        if name == "logits" or whole.ndim < 3:
            return whole
        return whole[:, : images.shape[1], : images.shape[2]]

    def _class_names(self) -> tuple[str, ...]:
        described = read_description(self.path.parent) or self.inside
        if not described:
            known = imagenet_names(self.num_classes) or unnamed(self.num_classes)
            return known if self.classifies else names_of(self.num_classes)
        if len(described["classes"]) != self.num_classes:
            raise ExportError(
                f"{self.path}: has {self.num_classes} classes, the {DESCRIPTION} beside it {len(described['classes'])}"
            )
        return tuple(described["classes"])

    def described(self) -> dict[str, Any]:
        """What it takes, in words, and what goes in and comes out, by name, as JSON can hold it."""
        kinds = {"labels": "int32" if self.classifies else "uint8", "probabilities": "float32"}
        kinds["logits"] = "uint8" if self.quantized else "float32"
        some = "uint8 RGB pictures" if self.batch is None else f"{self.batch} uint8 RGB picture{'s'[: self.batch > 1]}"
        takes = f"{some} of any size"
        if self.fixed is not None:
            takes = f"{some} of {self.fixed[1]}x{self.fixed[0]} pixels, a smaller one padded right and below"
            takes += ", and `size`, its height and width" if self.sized else " with the mean pixel"
        size = {"size": [2]} if self.sized else {}
        inputs = {self.input: [self.batch, *(self.fixed or (None, None)), 3], **size}
        return {"takes": takes, "inputs": inputs, "gives": {name: kinds[name] for name in self.outputs}}

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """What images must share to be predicted as one batch → (height, width), pixels: here, their own size, or the
        one that the file takes; ExportError for an image that is larger."""
        self._fits(height, width)
        return self.fixed or (height, width)

    def labels(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB (H, W, 3) → uint8 (H, W)."""
        return self.labels_of([image])[0]

    def labels_of(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The labels of several images of one size, predicted as one batch."""
        if "labels" in self.outputs:
            return list(self._run("labels", np.stack(images)))
        if "probabilities" in self.outputs:
            return list(self._run("probabilities", np.stack(images)).argmax(-1).astype(np.uint8))
        return [labels_from(*small) for small in self._small_logits(np.stack(images))]

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB (H, W, 3) → float32 (H, W, classes); ExportError where there are labels alone."""
        if "probabilities" in self.outputs:
            return self._run("probabilities", image[None])[0]
        if "logits" not in self.outputs:
            raise ExportError(f"{self.path}: gives labels alone; export with --outputs labels,probabilities")
        logits = upsampled(*next(self._small_logits(image[None]))).transpose(1, 2, 0)
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    def _small_logits(self, images: np.ndarray) -> Iterator[tuple[np.ndarray, Size, Size, str]]:
        """uint8 (N, H, W, 3) → of each what `upsampled` and `labels_from` take: what the file gives, and its sizes."""
        size, inside = (images.shape[1], images.shape[2]), self.inside
        height, width = self.fixed or size
        padded = padded_size(height, width, inside["crop_size"], inside["output_stride"])
        for small in self._run("logits", images):
            yield small, padded, size, inside["upsampling"]

    def _fed(self, images: np.ndarray) -> np.ndarray:
        """Images as the file takes them: where it takes one size, padded to it with the mean pixel."""
        if self.fixed is None or images.shape[1:3] == self.fixed:
            return images
        self._fits(*images.shape[1:3])
        below, right = (side - taken for side, taken in zip(self.fixed, images.shape[1:3], strict=True))
        mean_pixel = self.inside.get("padding", [0, 0, 0])
        return np.stack(
            [cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=mean_pixel) for image in images]
        )

    def _fits(self, height: int, width: int) -> None:
        rows, columns = self.fixed or (height, width)
        if height > rows or width > columns:
            raise ExportError(
                f"{self.path}: takes pictures of up to {columns}x{rows} pixels, this one has {width}x{height}. "
                f"Use the SavedModel or ONNX, or export with --crop-size {max(height, width)} or more."
            )

    def probabilities_of(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """A classifier's of uint8 RGB images, each (H, W, 3) of its own size → float32 (N, classes)."""
        return np.concatenate([self._run("probabilities", image[None]) for image in images])


class SavedModelExport(Export):
    """In TensorFlow."""

    kind = "a SavedModel of this project"

    def _open(self) -> dict[str, Sequence[Any]]:
        import tensorflow as tf

        asset = self.path / "assets" / f"{INSIDE}.json"
        self.inside = json.loads(asset.read_text()) if asset.is_file() else {}
        self._model = tf.saved_model.load(str(self.path))
        self._signature = self._model.signatures["serving_default"]
        self.batch, self.fixed = _takes(self._signature.structured_input_signature[1]["images"].shape)
        return {name: output.shape for name, output in self._signature.structured_outputs.items()}

    def _compute(self, name: str, images: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        return self._signature(images=tf.constant(images))[name].numpy()


class FrozenExport(Export):
    """In TensorFlow."""

    kind = "a frozen graph of this project"

    def _open(self) -> dict[str, Sequence[Any]]:
        import tensorflow as tf

        graph = tf.compat.v1.GraphDef.FromString(self.path.read_bytes())
        nodes = {node.name: node for node in graph.node}
        said = nodes[INSIDE].attr["value"].tensor.string_val[0] if INSIDE in nodes else b"{}"
        self.inside = json.loads(said)
        imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
        self._functions = {name: imported.prune("images:0", f"{name}:0") for name in OUTPUTS if name in nodes}
        self.batch, self.fixed = _takes(imported.graph.get_tensor_by_name("images:0").shape)
        return {name: function.structured_outputs.shape for name, function in self._functions.items()}

    def _compute(self, name: str, images: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        return self._functions[name](tf.constant(images)).numpy()


class OnnxExport(Export):
    """In ONNX Runtime."""

    kind = "an ONNX model of this project"

    def _open(self) -> dict[str, Sequence[Any]]:
        runtime = require("onnxruntime")
        self._session = runtime.InferenceSession(self.path, providers=runtime.get_available_providers())
        self.inside = json.loads(self._session.get_modelmeta().custom_metadata_map.get(INSIDE, "{}"))
        (takes,) = self._session.get_inputs()
        self.input = takes.name
        self.batch, self.fixed = _takes(takes.shape)
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
            self.fixed = _takes(takes["image"]["shape"])[1]
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


def _takes(shape: Sequence[Any]) -> tuple[int | None, tuple[int, int] | None]:
    """(how many pictures, their (height, width)) of images' shape (N, H, W, 3), where they are known."""
    batch, height, width = (int(side) if isinstance(side, (int, np.integer)) else None for side in shape[:3])
    return batch, None if height is None or width is None else (height, width)


def _inside_lite(content: bytes) -> dict[str, Any]:
    """What a TFLite file's metadata says of it."""
    model = require("ai_edge_litert.schema_py_generated").Model.GetRootAs(content)
    for entry in map(model.Metadata, range(model.MetadataLength())):
        if entry.Name() == INSIDE.encode():
            return json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    return {}


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
    return not names or INSIDE in names or {"images", "labels", "probabilities"} <= names


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
