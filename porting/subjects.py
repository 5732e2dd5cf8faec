"""What is exported, by task: how a model is served, what is said of it, and what tells that an export is the model."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from inference.opening import OpenedClassifier, OpenedSegmenter
from inference.predictor import ModelPredictor
from inference.runtimes import Export, LiteExport
from models.preprocessing import Preprocessing
from porting.formats import FORMATS, Served, ServedClassifier, ServedSegmenter


class Subject(ABC):
    """A model to be exported.

    Attributes:
        served: the model as functions of pictures. class_names: its classes.
        agreeing: what of an export must agree with the model, in words. key: the same, in export.json.
    """

    served: Served
    class_names: tuple[str, ...]
    agreeing: str
    key: str

    @abstractmethod
    def description(self) -> dict[str, str]:
        """What export.json says besides the classes."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What it says of each format."""

    @abstractmethod
    def needed(self, name: str) -> float:
        """How well the format `name` must agree, a fraction."""

    @abstractmethod
    def compared(self, exported: Export, picture: np.ndarray) -> tuple[float, float, Callable[[], Any]]:
        """→ (how well an export agrees, the largest difference of a probability, what predicts `picture` by it)."""


class Segmentation(Subject):
    """A DeepLab: the labels of a picture's pixels are compared."""

    agreeing, key = "labels equal the model's", "label_agreement"

    def __init__(self, opened: OpenedSegmenter) -> None:
        self.class_names = tuple(opened.class_names)
        self.served = ServedSegmenter(opened.model, opened.crop_size)
        # Unfolded: that is checked too.
        self._reference = ModelPredictor(opened.model, opened.class_names, opened.crop_size)

    def description(self) -> dict[str, str]:
        """What is done inside, and the palette."""
        fed = self.served.model.preprocessing
        return {
            "palette": "class k has colour k of PASCAL VOC's palette",
            "input": "uint8 RGB pictures at their own size",
            "done inside": f"{_said(fed)}; padding with {fed.mean}; upsampling; softmax",
        }

    def settings(self) -> dict[str, Any]:
        """Crop size, pixels, and output stride."""
        return {"crop_size": self._reference.crop_size, "output_stride": self._reference.model.output_stride}

    def needed(self, name: str) -> float:
        """The fraction of the labels."""
        return FORMATS[name].agreement

    def compared(self, exported: Export, picture: np.ndarray) -> tuple[float, float, Callable[[], Any]]:
        """Of TFLite, as much of the picture as fits into its square."""
        if isinstance(exported, LiteExport):
            picture = picture[: exported.size, : exported.size]
        agreement = np.mean(exported.labels(picture) == self._reference.labels(picture))
        difference = np.abs(exported.probabilities(picture) - self._reference.probabilities(picture)).max()
        return float(agreement), float(difference), lambda: exported.labels(picture)


class Classification(Subject):
    """A classifier: compared is where its probability lies, for the picture and its mirror image."""

    agreeing, key = "probability is where the model has it", "probability_agreement"

    def __init__(self, opened: OpenedClassifier) -> None:
        self.class_names = opened.class_names
        self.served = ServedClassifier(opened.model, opened.view)
        self._view, self._reference = opened.view, opened.predictor()

    def description(self) -> dict[str, str]:
        """What pictures it takes."""
        return {"input": "uint8 RGB pictures of any size, upright"}

    def settings(self) -> dict[str, Any]:
        """What is done inside, above all the view of a picture."""
        view, done = self._view, f"{self._view}; {_said(self.served.model.preprocessing)}; softmax"
        return {"image_size": view.size, "central_fraction": view.fraction, "resize": view.rule, "done inside": done}

    def needed(self, name: str) -> float:
        """The fraction of the probability."""
        return FORMATS[name].overlap

    def compared(self, exported: Export, picture: np.ndarray) -> tuple[float, float, Callable[[], Any]]:
        """The worse of the two pictures."""
        pictures = [picture, np.ascontiguousarray(picture[:, ::-1])]
        ours, theirs = self._reference.probabilities_of(pictures), exported.probabilities_of(pictures)
        overlap = np.minimum(ours, theirs).sum(axis=-1).min()
        return float(overlap), float(np.abs(ours - theirs).max()), lambda: exported.probabilities_of([picture])


def subject_of(opened: OpenedSegmenter | OpenedClassifier) -> Subject:
    """The Subject that an opened model is."""
    return Classification(opened) if isinstance(opened, OpenedClassifier) else Segmentation(opened)


def _said(fed: Preprocessing) -> str:
    return f"(RGB - {fed.mean}) * {fed.scale:.6g}{'' if fed.order == 'RGB' else ', then in order BGR'}"
