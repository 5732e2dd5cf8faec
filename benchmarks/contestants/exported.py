"""This project's exports, each in its own runtime, opened as its programs open them."""

from importlib import import_module
from pathlib import Path

from inference.runtimes import open_export, read_description

RUNTIMES = {
    "saved_model": "tensorflow",
    "onnx": "onnxruntime",
    "onnx_int8": "onnxruntime",
    "tflite": "ai_edge_litert",
    "tflite_int8": "ai_edge_litert",
}


def predictor(folder, name):
    """→ (labels, None, version) of the export in `folder` in the format `name`, a key of RUNTIMES."""
    file = read_description(folder)["formats"][name]["file"]
    version = import_module(RUNTIMES[name]).__version__
    return open_export(Path(folder, file)).labels, None, f"{RUNTIMES[name]} {version}"
