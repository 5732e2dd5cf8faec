"""What LiteRT runs: TFLite files."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

from exporting.served import Served, ServedSegmenter
from inference.exported import INSIDE


def write_tflite(served: Served, path: Path) -> None:
    """One picture in, as of `Served.lite`."""
    _write(served, served.lite, path)


def write_tflite_exact(served: ServedSegmenter, path: Path) -> None:
    """Inputs `image` and `size` (`ServedSegmenter.exact`)."""
    _write(served, served.exact, path)


def write_tflite_float16(served: Served, path: Path) -> None:
    """Weights in 16 bits."""
    _write(served, served.lite, path, [tf.lite.Optimize.DEFAULT], types=[tf.float16])


def write_tflite_dynamic8(served: Served, path: Path) -> None:
    """Weights in 8 bits; activations are rounded to 8 bits with the range they happen to have."""
    _write(served, served.lite, path, [tf.lite.Optimize.DEFAULT])


def write_tflite_int8(served: Served, path: Path) -> None:
    """All operations in 8 bits, weights per channel, as an EdgeTPU compiler takes it: uint8 image, of a classifier what
    it sees of one → uint8 logits, of a segmentation model small ones.

    The converter calibrates by the least and the largest value of each activation.
    """
    function, middle = served.centred()
    _write(
        *(served, function, path, [tf.lite.Optimize.DEFAULT]),
        calibrated_on=lambda: ([image] for image in served.calibrating(middle)),
    )


def _write(
    served: Served,
    function: Any,
    path: Path,
    optimizations: Iterable[Any] = (),
    types: Iterable[Any] = (),
    calibrated_on: Callable[[], Any] | None = None,
) -> None:
    owner = tf.Module()
    owner.serve = function
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], owner)
    converter.optimizations = list(optimizations)
    converter.target_spec.supported_types = list(types)
    if calibrated_on is not None:
        converter.representative_dataset = calibrated_on
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(converter.convert()))
    if calibrated_on is not None:
        (takes,) = model.subgraphs[0].inputs
        step = model.subgraphs[0].tensors[takes].quantization.scale
        if abs(step[0] - 1) > 1e-6:  # pixels would be taken for others
            raise RuntimeError(f"{path.name}: a step of its input is {step[0]} of a pixel's, not 1")
    _describe(model, json.dumps(served.description).encode())
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _describe(model: Any, content: bytes) -> None:
    """Adds a metadata buffer of the name INSIDE."""
    from tensorflow.lite.python import schema_py_generated as schema

    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = INSIDE, len(model.buffers)
    buffer.data = np.frombuffer(content, np.uint8)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
