"""The formats that a model is exported in, each with what writes it.

All but the slim checkpoint hold one graph of constants: uint8 pictures in, labels and probabilities out, with all
that is done to a picture inside. Batch norm is folded into the convolutions before it
(`models.folding`). For TensorFlow that pays, since its own optimizer does not do it after a depthwise convolution:
DeepLab v3 on MobileNet v2, padded to 513x513, 2 cores, best of 25 interleaved passes, 83 ms instead of 106. tf2onnx
and the TFLite converter fold by themselves; what they make is as fast without.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from data.views import View
from inference.predictor import logits_at
from inference.runtimes import SAVED_MODEL, require
from models.deeplab_v3 import DeepLabV3
from models.folding import folded_constants, folded_values
from models.layers import Network
from models.weight_init import save_checkpoint
from porting.views import seen

ONNX_OPSET = 18


class Served(ABC):
    """What is exported: a model as functions of pictures, with its weights as constants of their graphs.

    Attributes:
        model: with its weights, all float32.
        any_size: tf.function, uint8 images (N, H, W, 3) → {"labels", "probabilities"}.
        lite: tf.function that a TFLite file holds: one picture. None where there can be none.
    """

    model: Network
    any_size: Any
    lite: Any

    def __init__(self, model: Network) -> None:
        self.model = model
        self._values = folded_values(model)
        images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
        self.any_size = tf.function(self._any_size, input_signature=[images], autograph=False)

    @abstractmethod
    def _any_size(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """uint8 images (N, H, W, 3) → {"labels", "probabilities"}."""

    def _constants(self) -> Any:
        return folded_constants(self.model, self._values)

    def _preprocessed(self, images: tf.Tensor) -> tf.Tensor:
        """The mean pixel, which padding is made of, becomes 0."""
        return self.model.preprocessing(tf.cast(images, tf.float32))


class ServedSegmenter(Served):
    """A DeepLabV3: labels uint8 (N, H, W), probabilities float32 (N, H, W, classes).

    Args:
        crop_size: as of `inference.predictor.ModelPredictor`, which the functions equal.

    Attributes:
        lite: for runtimes that want fixed shapes: uint8 image (1, S, S, 3) with S the crop size, int32 size (2,) → the
            same; only the first `size` rows and columns of the image are picture, whatever the others hold counts as
            padding. There is none without a crop size.
    """

    def __init__(self, model: DeepLabV3, crop_size: int | None) -> None:
        super().__init__(model)
        self.crop_size = crop_size
        image = tf.TensorSpec((1, crop_size, crop_size, 3), tf.uint8, name="image")
        size = tf.TensorSpec((2,), tf.int32, name="size")
        square = tf.function(self._square, input_signature=[image, size], autograph=False)
        self.lite = None if crop_size is None else square

    def _any_size(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        height, width = tf.unstack(tf.shape(images)[1:3])
        below, right = (self._padded(side) - side for side in (height, width))
        fed = tf.pad(self._preprocessed(images), ((0, 0), (0, below), (0, right), (0, 0)))
        return _answers(self._logits(fed)[:, :height, :width], tf.uint8)

    def _square(self, image: tf.Tensor, size: tf.Tensor) -> dict[str, tf.Tensor]:
        rows, columns = (tf.cast(tf.range(self.crop_size) < size[axis], tf.float32) for axis in (0, 1))
        fed = self._preprocessed(image) * rows[:, None, None] * columns[:, None]
        return _answers(self._logits(fed), tf.uint8)

    def _padded(self, side: tf.Tensor) -> tf.Tensor:
        """`inference.predictor.padded_size` of one side that is not known before the graph runs."""
        if self.crop_size is None:
            return side
        stride = self.model.output_stride
        return tf.where(side <= self.crop_size, self.crop_size, (side + stride - 2) // stride * stride + 1)

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        with self._constants():
            return logits_at(self.model, images)


class ServedClassifier(Served):
    """A classifier: labels int32 (N,), probabilities float32 (N, classes).

    Args:
        view: what it is shown of a picture, which is inside (`porting.views`).

    Attributes:
        lite: the same of one picture of any size, uint8 images (1, H, W, 3).
    """

    def __init__(self, model: Network, view: View) -> None:
        super().__init__(model)
        self.view = view
        one = tf.TensorSpec((1, None, None, 3), tf.uint8, name="images")
        self.lite = tf.function(self._any_size, input_signature=[one], autograph=False)

    def _any_size(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        with self._constants():
            return _answers(self.model(self._preprocessed(seen(self.view, images)), training=False), tf.int32)


def _answers(logits: tf.Tensor, labels: tf.DType) -> dict[str, tf.Tensor]:
    """Logits (…, classes) → what an export gives; the names are those of a frozen graph's tensors."""
    return {
        "labels": tf.cast(tf.argmax(logits, -1), labels, name="labels"),
        "probabilities": tf.nn.softmax(logits, name="probabilities"),
    }


def write_saved_model(served: Served, path: Path) -> None:
    """A folder that `tf.saved_model.load` reads; its function is the signature `serving_default`, and `serve`."""
    module = tf.Module()
    module.serve = served.any_size
    tf.saved_model.save(module, str(path), signatures=served.any_size)


def write_frozen(served: Served, path: Path) -> None:
    """A GraphDef of constants alone: tensors `images:0` → `labels:0`, `probabilities:0`."""
    graph = served.any_size.get_concrete_function().graph.as_graph_def()
    path.write_bytes(graph.SerializeToString(deterministic=True))


def write_onnx(served: Served, path: Path) -> None:
    """Input `images`; outputs `labels` and `probabilities`."""
    signature = served.any_size.input_signature
    model, _ = require("tf2onnx").convert.from_function(served.any_size, signature, opset=ONNX_OPSET)
    _pad_by_numbers(model.graph)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _pad_by_numbers(graph: Any) -> None:
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


def write_tflite(served: Served, path: Path, optimizations: Iterable[Any] = (), types: Iterable[Any] = ()) -> None:
    """Outputs `labels` and `probabilities`; inputs as of `Served.lite`."""
    owner = tf.Module()
    owner.serve = served.lite
    converter = tf.lite.TFLiteConverter.from_concrete_functions([served.lite.get_concrete_function()], owner)
    converter.optimizations = list(optimizations)
    converter.target_spec.supported_types = list(types)
    path.write_bytes(converter.convert())


def write_tflite_float16(served: Served, path: Path) -> None:
    """Weights in 16 bits."""
    write_tflite(served, path, [tf.lite.Optimize.DEFAULT], [tf.float16])


def write_tflite_dynamic8(served: Served, path: Path) -> None:
    """Weights in 8 bits; activations are rounded to 8 bits with the range they happen to have."""
    write_tflite(served, path, [tf.lite.Optimize.DEFAULT])


def write_slim(served: Served, path: Path) -> None:
    """A checkpoint under slim's names, without optimizer slots."""
    save_checkpoint(served.model, path)


@dataclass(frozen=True)
class Format:
    """One way to export.

    Attributes:
        file: its name in the export's folder; of the slim checkpoint, the prefix.
        write: function of (Served, path).
        agreement: the fraction of a picture's pixels whose label must be the model's.
        overlap: how much of a classifier's probability must be where the model has it.
        needs: modules to be installed.
        lite: whether it holds `Served.lite`.
    """

    file: str
    write: Callable[[Served, Path], None]
    agreement: float = 0.999
    overlap: float = 0.99
    needs: tuple[str, ...] = ()
    lite: bool = False


ONNX, LITE = ("tf2onnx", "onnxruntime"), ("ai_edge_litert",)
FORMATS = {
    "saved_model": Format(SAVED_MODEL, write_saved_model),
    "pb": Format("model.pb", write_frozen),
    "onnx": Format("model.onnx", write_onnx, needs=ONNX),
    "tflite": Format("model_float32.tflite", write_tflite, needs=LITE, lite=True),
    "tflite_float16": Format("model_float16.tflite", write_tflite_float16, 0.99, 0.98, LITE, lite=True),
    "tflite_dynamic8": Format("model_dynamic8.tflite", write_tflite_dynamic8, 0.97, 0.7, LITE, lite=True),
    "slim": Format("model.ckpt", write_slim, 1.0, 1.0),
}
