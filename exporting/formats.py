"""The formats that a model is exported in, each with what writes it.

The slim checkpoint, the Keras file and the folder for `transformers` hold the network; all others one graph of
constants (`exporting.served`, `exporting.torch_program`): uint8 pictures in, with all that is done to a picture inside.
All but the checkpoint hold what the file is, as JSON (`inference.exported.INSIDE`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporting import huggingface
from exporting.keras_file import write_keras
from exporting.lite import (
    write_tflite,
    write_tflite_dynamic8,
    write_tflite_exact,
    write_tflite_float16,
    write_tflite_int8,
)
from exporting.onnx import write_onnx, write_onnx_int8
from exporting.saved_model import write_frozen, write_saved_model
from exporting.served import Served
from exporting.torch_program import write_torch
from inference.runtimes import SAVED_MODEL
from models.weight_init import save_checkpoint


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
        overlap: how much of a classifier's probability must be where the model has it; None: it is of none.
        needs: modules to be installed.
        fixed: whether a segmentation model's pictures have one size, which must be known.
        calibrated: whether the ranges of its 8 bits are measured on pictures (`--calibrate`).
        refused: function of Served → why the format cannot hold it, None where it can.
    """

    file: str
    write: Callable[[Any, Path], None]
    agreement: float = 0.999
    overlap: float | None = 0.99
    needs: tuple[str, ...] = ()
    fixed: bool = False
    calibrated: bool = False
    refused: Callable[[Served], str | None] = lambda _: None


ONNX, LITE = ("tf2onnx", "onnxruntime"), ("ai_edge_litert",)
FORMATS = {
    "saved_model": Format(SAVED_MODEL, write_saved_model),
    "pb": Format("model.pb", write_frozen),
    "onnx": Format("model.onnx", write_onnx, needs=ONNX),
    "tflite": Format("model_float32.tflite", write_tflite, 0.99, needs=LITE, fixed=True),
    "tflite_float16": Format("model_float16.tflite", write_tflite_float16, 0.99, 0.98, LITE, fixed=True),
    "tflite_dynamic8": Format("model_dynamic8.tflite", write_tflite_dynamic8, 0.97, 0.7, LITE, fixed=True),
    "slim": Format("model.ckpt", write_slim, 1.0, 1.0),
    "onnx_int8": Format("model_int8.onnx", write_onnx_int8, 0.9, 0.7, ONNX, fixed=True, calibrated=True),
    "tflite_int8": Format("model_int8.tflite", write_tflite_int8, 0.9, 0.7, LITE, fixed=True, calibrated=True),
    "keras": Format("model.keras", write_keras, overlap=0.999),
    "torch": Format("model.pt2", write_torch, overlap=0.999, needs=("torch",), fixed=True),
    "huggingface": Format(
        "huggingface",
        huggingface.write_huggingface,
        overlap=0.999,
        needs=("safetensors", "torch", "transformers"),
        refused=huggingface.refused,
    ),
    "tflite_exact": Format("model_exact.tflite", write_tflite_exact, 0.999, None, LITE, fixed=True),
}
