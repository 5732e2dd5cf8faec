"""A segmentation model as SavedModel, frozen graph, ONNX, TFLite and slim checkpoint, each checked in its own runtime.

All but the checkpoint hold one graph of constants: uint8 pictures in, labels and probabilities out, with
preprocessing, padding, upsampling and softmax inside. Batch norm is folded into the convolutions before it
(`models.folding`). For TensorFlow that pays, since its own optimizer does not do it after a depthwise convolution:
DeepLab v3 on MobileNet v2, padded to 513x513, 2 cores, best of 25 interleaved passes, 83 ms instead of 106. tf2onnx
and the TFLite converter fold by themselves; what they make is as fast without.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from data.images import read_image, write_whole
from data.sample import draw_voc
from inference.predictor import ModelPredictor, logits_at
from inference.runtimes import DESCRIPTION, SAVED_MODEL, ExportError, LiteExport, open_export, read_description, require
from models.checkpoint import open_checkpoint
from models.folding import folded_constants, folded_values
from models.weight_init import named_variables, save_checkpoint

ONNX_OPSET = 18


class Served:
    """What is exported: the model as functions of pictures, with its weights as constants of their graphs.

    Args:
        model: a DeepLabV3 with its weights, all float32.
        crop_size: as of `inference.predictor.ModelPredictor`, which the functions equal.

    Attributes:
        any_size: tf.function, uint8 images (N, H, W, 3) → {"labels": uint8 (N, H, W), "probabilities": float32
            (N, H, W, classes)}.
        square: tf.function for runtimes that want fixed shapes: uint8 image (1, S, S, 3) with S the crop size, int32
            size (2,) → the same; only the first `size` rows and columns of the image are picture, whatever the others
            hold counts as padding.
    """

    def __init__(self, model, crop_size):
        self.model, self.crop_size = model, crop_size
        self._values = folded_values(model)
        images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
        image = tf.TensorSpec((1, crop_size, crop_size, 3), tf.uint8, name="image")
        size = tf.TensorSpec((2,), tf.int32, name="size")
        self.any_size = tf.function(self._any_size, input_signature=[images], autograph=False)
        self.square = tf.function(self._square, input_signature=[image, size], autograph=False)

    def _any_size(self, images):
        height, width = tf.unstack(tf.shape(images)[1:3])
        below, right = (self._padded(side) - side for side in (height, width))
        fed = tf.pad(self._preprocessed(images), ((0, 0), (0, below), (0, right), (0, 0)))
        return _answers(self._logits(fed)[:, :height, :width])

    def _square(self, image, size):
        rows, columns = (tf.cast(tf.range(self.crop_size) < size[axis], tf.float32) for axis in (0, 1))
        return _answers(self._logits(self._preprocessed(image) * rows[:, None, None] * columns[:, None]))

    def _preprocessed(self, images):
        """The mean pixel, which padding is made of, becomes 0."""
        return self.model.preprocessing(tf.cast(images, tf.float32))

    def _padded(self, side):
        """`inference.predictor.padded_size` of one side that is not known before the graph runs."""
        stride = self.model.output_stride
        return tf.where(side <= self.crop_size, self.crop_size, (side + stride - 2) // stride * stride + 1)

    def _logits(self, images):
        with folded_constants(self.model, self._values):
            return logits_at(self.model, images)


def _answers(logits):
    """Logits (N, H, W, classes) → what an export gives; the names are those of a frozen graph's tensors."""
    return {
        "labels": tf.cast(tf.argmax(logits, -1), tf.uint8, name="labels"),
        "probabilities": tf.nn.softmax(logits, name="probabilities"),
    }


def write_saved_model(served, path):
    """A folder that `tf.saved_model.load` reads; its function is the signature `serving_default`, and `serve`."""
    module = tf.Module()
    module.serve = served.any_size
    tf.saved_model.save(module, str(path), signatures=served.any_size)


def write_frozen(served, path):
    """A GraphDef of constants alone: tensors `images:0` → `labels:0`, `probabilities:0`."""
    graph = served.any_size.get_concrete_function().graph.as_graph_def()
    path.write_bytes(graph.SerializeToString())


def write_onnx(served, path):
    """Input `images`; outputs `labels` and `probabilities`."""
    signature = served.any_size.input_signature
    model, _ = require("tf2onnx").convert.from_function(served.any_size, signature, opset=ONNX_OPSET)
    _pad_by_numbers(model.graph)
    path.write_bytes(model.SerializeToString())


def _pad_by_numbers(graph):
    """Says in pixels what SAME padding is where a convolution has stride 1: ONNX Runtime dilates none with auto_pad."""
    from onnx.helper import get_attribute_value, make_attribute

    for node in (node for node in graph.node if node.op_type == "Conv"):
        settings = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
        if settings.get("auto_pad", b"").startswith(b"SAME") and set(settings["strides"]) == {1}:
            sides = zip(settings["kernel_shape"], settings["dilations"], strict=True)
            pads = [dilation * (kernel - 1) // 2 for kernel, dilation in sides]
            kept = [attribute for attribute in node.attribute if attribute.name != "auto_pad"]
            del node.attribute[:]
            node.attribute.extend([*kept, make_attribute("pads", pads * 2)])


def write_tflite(served, path, optimizations=(), types=()):
    """Inputs `image` and `size`, outputs `labels` and `probabilities` (`Served.square`)."""
    owner = tf.Module()
    owner.serve = served.square
    converter = tf.lite.TFLiteConverter.from_concrete_functions([served.square.get_concrete_function()], owner)
    converter.optimizations = list(optimizations)
    converter.target_spec.supported_types = list(types)
    path.write_bytes(converter.convert())


def write_tflite_float16(served, path):
    """Weights in 16 bits."""
    write_tflite(served, path, [tf.lite.Optimize.DEFAULT], [tf.float16])


def write_tflite_dynamic8(served, path):
    """Weights in 8 bits; activations are rounded to 8 bits with the range they happen to have."""
    write_tflite(served, path, [tf.lite.Optimize.DEFAULT])


def write_slim(served, path):
    save_checkpoint(served.model, path)


@dataclass(frozen=True)
class Format:
    """One way to export.

    Attributes:
        file: its name in the export's folder; of the slim checkpoint, the prefix.
        write: function of (Served, path).
        agreement: the fraction of a picture's pixels whose label must be the model's.
        needs: modules to be installed.
    """

    file: str
    write: Callable
    agreement: float = 0.999
    needs: tuple = ()


ONNX, LITE = ("tf2onnx", "onnxruntime"), ("ai_edge_litert",)
FORMATS = {
    "saved_model": Format(SAVED_MODEL, write_saved_model),
    "pb": Format("model.pb", write_frozen),
    "onnx": Format("model.onnx", write_onnx, needs=ONNX),
    "tflite": Format("model_float32.tflite", write_tflite, needs=LITE),
    "tflite_float16": Format("model_float16.tflite", write_tflite_float16, 0.99, LITE),
    "tflite_dynamic8": Format("model_dynamic8.tflite", write_tflite_dynamic8, 0.97, LITE),
    "slim": Format("model.ckpt", write_slim, 1.0),
}


@dataclass(frozen=True)
class Outcome:
    """What became of one format.

    Attributes:
        name, file: of the format; where it is or would have been.
        bytes: on disk.
        agreement: the fraction of the picture's pixels whose label is the model's; for the checkpoint, of its variables
            that are the model's to the bit.
        difference: the largest of a probability; None for the checkpoint.
        seconds: per image, median of a few; None for the checkpoint.
        good: whether it agrees as well as its format must, and so was kept.
    """

    name: str
    file: str
    bytes: int
    agreement: float
    difference: float | None
    seconds: float | None
    good: bool

    def __str__(self):
        agree = f"{100 * self.agreement:.3f} %"
        if self.difference is None:
            said = f"{agree} of the variables equal the model's to the bit"
        else:
            said = (
                f"{agree} of the labels equal the model's, probabilities differ by up to {self.difference:.1e}, "
                f"{self.seconds:.2f} s an image"
            )
        line = f"{self.name}: {self.file}, {self.bytes / 1e6:.2f} MB; {said}"
        if self.good:
            return line
        return f"{line}: WRONG, {100 * FORMATS[self.name].agreement:g} % must be equal; deleted"


def export(opened, checkpoint, out, formats, picture):
    """Writes a model in several formats into the folder `out`, each once it has agreed with the model on `picture`.

    Args:
        opened: an `inference.opening.OpenedSegmenter`, in float32.
        checkpoint: where it is from; its name is noted in export.json.
        formats: names out of FORMATS.
        picture: uint8 RGB (H, W, 3); TFLite is checked on as much of it as fits into its square.

    Yields:
        an Outcome for each format. What was in `out` before is only ever replaced by a good export.

    Raises:
        ExportError: `out` cannot be written to, or holds exports of a model with other classes.
    """
    out = Path(out)
    if (out / "config.json").is_file():
        raise ExportError(f"{out}: is a run; export into a folder of its own, or --ckpt {out} would mean the export")
    served = Served(opened.model, opened.crop_size)
    reference = ModelPredictor(opened.model, opened.class_names, opened.crop_size)  # unfolded: that is checked too
    described = _description(out, opened)
    for name in formats:
        with _written(out) as folder:
            path = folder / FORMATS[name].file
            FORMATS[name].write(served, path)
            outcome = _outcome(name, path, reference, picture)
            if outcome.good:
                _move(folder, out)
                described["formats"][name] = {
                    "file": outcome.file,
                    "bytes": outcome.bytes,
                    "label_agreement": outcome.agreement,
                    "probability_difference": outcome.difference,
                    "checkpoint": Path(checkpoint).resolve().name,
                    "crop_size": opened.crop_size,
                    "output_stride": opened.model.output_stride,
                }
                write_whole(out / DESCRIPTION, json.dumps(described, indent=1, allow_nan=False).encode())
        yield outcome


def drawn_picture():
    """uint8 RGB: for who names no picture to check on."""
    with tempfile.TemporaryDirectory() as folder:
        draw_voc(folder, train=1, val=1)
        return read_image(next(Path(folder, "JPEGImages").glob("val_*.jpg")))


def check_installed(formats):
    """Raises ExportError where one of the formats needs a module that is not installed, or Keras another backend."""
    if keras.backend.backend() != "tensorflow":
        raise ExportError(f"KERAS_BACKEND={keras.backend.backend()}: only TensorFlow exports; unset it")
    for module in sorted({module for name in formats for module in FORMATS[name].needs}):
        require(module)


@contextmanager
def _written(out):
    """A folder in `out` that is gone afterwards."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export.", dir=out) as folder:
            yield Path(folder)
    except (OSError, tf.errors.OpError) as error:
        raise ExportError(f"{out}: the export failed, what was there before is untouched ({error})") from error


def _move(folder, out):
    """Moves all that is in `folder` to `out`, a checkpoint's index last, in place of what has the same name there."""
    for new in sorted(folder.iterdir(), key=lambda file: file.suffix == ".index"):
        if (out / new.name).is_dir():
            os.replace(out / new.name, folder / ".replaced")
        os.replace(new, out / new.name)


def _description(out, opened):
    """export.json as it is before this export: without formats, or with those that `out` holds of the same classes."""
    before = read_description(out)
    if before and before["classes"] != list(opened.class_names):
        raise ExportError(f"{out}: holds exports of a model with other classes; name another --out")
    fed = opened.model.preprocessing
    return {
        "classes": list(opened.class_names),
        "palette": "class k has colour k of PASCAL VOC's palette",
        "input": "uint8 RGB pictures at their own size",
        "done inside": f"(RGB - {fed.mean}) * {fed.scale:.6g}{'' if fed.order == 'RGB' else ', then in order BGR'}; "
        f"padding with {fed.mean}; upsampling; softmax",
        "formats": before["formats"] if before else {},
    }


def _outcome(name, path, reference, picture):
    """Opens what was written to `path` in its own runtime, and compares it with the model."""
    size = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
    if name == "slim":
        agreement, difference, seconds = _equal_variables(path, reference.model), None, None
    else:
        agreement, difference, seconds = _compared(open_export(path), reference, picture)
    good = agreement >= FORMATS[name].agreement
    return Outcome(name, path.name, size, agreement, difference, seconds, good)


def _compared(exported, reference, picture, passes=3):
    """→ (fraction of labels that are equal, largest difference of a probability, seconds per image)."""
    if isinstance(exported, LiteExport):
        picture = picture[: exported.size, : exported.size]
    agreement = np.mean(exported.labels(picture) == reference.labels(picture))
    difference = np.abs(exported.probabilities(picture) - reference.probabilities(picture)).max()
    times = []
    for _ in range(passes):
        start = time.perf_counter()
        exported.labels(picture)
        times.append(time.perf_counter() - start)
    return float(agreement), float(difference), statistics.median(times)


def _equal_variables(path, model):
    """The fraction of the model's variables that the checkpoint holds to the bit."""
    with open_checkpoint(path) as checkpoint:
        equal = [
            name in checkpoint.shapes and checkpoint.read(name).tobytes() == np.asarray(variable).tobytes()
            for name, variable in named_variables(model).items()
        ]
    return sum(equal) / len(equal)
