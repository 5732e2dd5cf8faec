"""Exports that leave to who uses them some of what is done to a picture; here it is done as they say inside.

A `.keras` file and a folder for `transformers` are networks of preprocessed floats. A PyTorch program takes pictures,
but of a classifier the square that it is to see.
"""

import json
import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.startup import import_keras
from inference.exported import INSIDE, Export, require, softmax
from inference.upsampling import padded_size


class PartialExport(Export):
    """A classifier's view of a picture is left to who uses it."""

    def _gives(self, *outputs: str) -> dict[str, Sequence[Any]]:
        """The shapes of `outputs`, of which `inside` tells the task: only a classifier has a view."""
        some = (None,) if "image_size" in self.inside else (None, None, None)
        return {name: some if name == "labels" else (*some, len(self.inside["classes"])) for name in outputs}

    def _leaves_view(self) -> bool:
        return True

    def _compute(self, name: str, images: np.ndarray) -> np.ndarray:
        return self._answers(images)[name]

    @abstractmethod
    def _answers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """{output: value} of uint8 images (N, H, W, 3), a classifier's cropped."""


class NetworkExport(PartialExport):
    """A network alone: preprocessed floats → logits, a segmentation model's small."""

    takes: str
    fed: Sequence[int | None] = (None, None, None, 3)

    @abstractmethod
    def _preprocessed(self, images: np.ndarray) -> np.ndarray:
        """uint8 images (N, H, W, 3) → what the network is fed, float32 (N, H, W, 3)."""

    @abstractmethod
    def _logits(self, fed: np.ndarray) -> np.ndarray:
        """What the network gives, its classes last."""

    def _outputs(self) -> dict[str, Sequence[Any]]:
        return self._gives(*(("labels", "probabilities") if "image_size" in self.inside else ("logits",)))

    def _answers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        fed = self._preprocessed(images)
        if self.classifies:
            logits = self._logits(fed)
            return {"labels": logits.argmax(-1).astype(np.int32), "probabilities": softmax(logits)}
        height, width = fed.shape[1:3]
        rows, columns = padded_size(height, width, self.inside["crop_size"], self.inside["output_stride"])
        return {"logits": self._logits(np.pad(fed, ((0, 0), (0, rows - height), (0, columns - width), (0, 0))))}

    def described(self) -> dict[str, Any]:
        """What it takes and gives itself, and what is left to who uses it."""
        return {
            "takes": self.takes,
            "inputs": {self.input: self.fed},
            "gives": {"logits": "float32"},
            "done inside": "nothing",
            "left to do": self.inside["done inside"],
        }


class KerasExport(NetworkExport):
    """In Keras, with this project's layers."""

    kind = "a Keras model of this project"
    takes = (
        "float32 pictures (N, H, W, 3), preprocessed; gives float32 logits, of a segmentation model (N, H, W, classes)"
    )

    def _open(self) -> dict[str, Sequence[Any]]:
        with zipfile.ZipFile(self.path) as archive:
            self.inside = json.loads(archive.read(f"{INSIDE}.json"))
        keras = import_keras()
        import models.deeplab_v3  # noqa: F401  # with all the layers that the file names

        self._network = keras.saving.load_model(self.path, compile=False)
        return self._outputs()

    def _preprocessed(self, images: np.ndarray) -> np.ndarray:
        return self._network.preprocessing(images.astype(np.float32))

    def _logits(self, fed: np.ndarray) -> np.ndarray:
        from keras import ops

        run = self._network if self.classifies else self._network.small_logits
        return ops.convert_to_numpy(run(ops.convert_to_tensor(fed)))


class TransformersExport(NetworkExport):
    """In Hugging Face's `transformers`."""

    kind = "a folder for transformers of this project"
    input, fed = "pixel_values", (None, 3, None, None)
    takes = (
        "pixel_values, float32 (N, 3, H, W), of its image processor; gives logits, of a segmentation model small ones"
    )

    def _open(self) -> dict[str, Sequence[Any]]:
        self.inside = json.loads((self.path / f"{INSIDE}.json").read_text())
        transformers = require("transformers")
        transformers.utils.logging.disable_progress_bar()
        task = "ImageClassification" if "image_size" in self.inside else "SemanticSegmentation"
        self._model, loaded = getattr(transformers, f"AutoModelFor{task}").from_pretrained(
            self.path, local_files_only=True, output_loading_info=True
        )
        if wrong := {what: names for what, names in loaded.items() if names}:
            raise ValueError(f"not all of its weights are the model's: {wrong}")
        self._processor = transformers.AutoImageProcessor.from_pretrained(self.path, local_files_only=True)
        return self._outputs()

    def _preprocessed(self, images: np.ndarray) -> np.ndarray:
        uncropped = {"do_resize": False, "do_center_crop": False}
        return self._processor(images=list(images), return_tensors="np", **uncropped)["pixel_values"].transpose(
            0, 2, 3, 1
        )

    def _logits(self, fed: np.ndarray) -> np.ndarray:
        torch = require("torch")
        with torch.inference_mode():
            logits = self._model(torch.from_numpy(np.ascontiguousarray(fed.transpose(0, 3, 1, 2)))).logits.numpy()
        return logits if self.classifies else logits.transpose(0, 2, 3, 1)


class TorchExport(PartialExport):
    """In PyTorch, of which this needs no Keras."""

    kind = "a PyTorch program of this project"
    smaller = True

    def _open(self) -> dict[str, Sequence[Any]]:
        torch = require("torch")
        files = {f"{INSIDE}.json": ""}
        self._run_program = torch.export.load(self.path, extra_files=files).module()
        self.inside = json.loads(files[f"{INSIDE}.json"])
        self.batch = self.inside["batch"]
        if "image_size" not in self.inside:
            self.fixed = tuple(self.inside["largest"])
        return self._gives(*self.inside["outputs"])

    def _answers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        torch = require("torch")
        with torch.inference_mode():
            found = self._run_program(torch.from_numpy(np.ascontiguousarray(images)))
        return {name: value.numpy() for name, value in found.items()}
