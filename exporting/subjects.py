"""What is exported, by task: how a model is served, what is said of it, and what tells that an export is the model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data.voc import palette
from engine.options import Exporting
from exporting.calibration import (
    Calibration,
    calibration_of,
    classified_on,
    classifiers_calibration,
    compared_on,
)
from exporting.formats import FORMATS
from exporting.served import Served, ServedClassifier, ServedSegmenter
from inference.exported import Export
from inference.opening import OpenedClassifier, OpenedSegmenter
from inference.predictor import ModelPredictor
from models.preprocessing import Preprocessing


class Subject(ABC):
    """A model to be exported.

    Attributes:
        served: the model as functions of pictures. class_names: its classes.
        calibration: what 8 bits are calibrated and checked on, where that was said.
        agreeing: what of an export must agree with the model, in words. key: the same, in export.json.
    """

    served: Served
    class_names: tuple[str, ...]
    calibration: Calibration | None
    agreeing: str
    key: str

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What export.json says besides the classes, and each file inside."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What it says of each format."""

    @abstractmethod
    def needed(self, name: str) -> float:
        """How well the format `name` must agree, a fraction."""

    def refused(self, formats: Sequence[str]) -> str | None:
        """Why it cannot be exported in these formats, and what to do; None where it can."""
        if not self.calibration and (calibrated := [name for name in formats if FORMATS[name].calibrated]):
            return f"{', '.join(calibrated)}: measured on pictures; name some of the training set with --calibrate DATA"
        return next(filter(None, (FORMATS[name].refused(self.served) for name in formats)), None)

    @abstractmethod
    def compared(self, exported: Export, picture: np.ndarray) -> tuple[float, float | None, Callable[[], Any]]:
        """→ (how well an export agrees, the largest difference of a probability, what predicts `picture` by it).

        The difference is None of an export without probabilities.
        """

    def checked(self, name: str, exported: Export) -> dict[str, Any]:
        """What export.json says of further checks of the format `name`: of 8 bits, how they stand on real pictures,
        and what they were calibrated on."""
        if not FORMATS[name].calibrated or self.calibration is None:
            return {}
        return {"calibrated on": self.calibration.said, "on real pictures": self._compared_on(exported)}

    @abstractmethod
    def _compared_on(self, exported: Export) -> dict[str, float]:
        """How an export stands on the pictures to check on: fractions, one of them of the name `key`."""


class Segmentation(Subject):
    """A DeepLab: the labels of a picture's pixels are compared."""

    agreeing, key = "labels equal the model's", "label_agreement"

    def __init__(self, opened: OpenedSegmenter, how: Exporting) -> None:
        self.class_names = tuple(opened.class_names)
        self.calibration = calibration_of(how, how.calibrate, self.class_names) if how.calibrate else None
        learnt = self.calibration.learnt if self.calibration else ()
        self.served = ServedSegmenter(opened.model, opened.crop_size, how, learnt)
        # Unfolded: that is checked too.
        self._reference = ModelPredictor(opened.model, opened.class_names, opened.crop_size)
        self.fixed = self.served.fixed
        self.served.description = {"classes": list(self.class_names), **self.description(), **self.settings()}

    def description(self) -> dict[str, Any]:
        """What is done inside, and the palette."""
        fed = self.served.model.preprocessing
        return {
            "palette": "class k has colour k of PASCAL VOC's palette",
            "colours": palette(len(self.class_names)).tolist(),
            "input": "uint8 RGB pictures, upright",
            "padding": np.round(fed.mean).astype(int).tolist(),
            "upsampling": self.served.model.upsampling,
            "done inside": f"{_said(fed)}; padding with {fed.mean}; of labels and probabilities upsampling, softmax",
        }

    def settings(self) -> dict[str, Any]:
        """Crop size, pixels, and output stride."""
        return {"crop_size": self._reference.crop_size, "output_stride": self._reference.model.output_stride}

    def needed(self, name: str) -> float:
        """The fraction of the labels."""
        return FORMATS[name].agreement

    def refused(self, formats: Sequence[str]) -> str | None:
        """Formats of one size want one."""
        if self.fixed is None and (fixed := [name for name in formats if FORMATS[name].fixed]):
            return (
                f"--crop-size none: {', '.join(fixed)} can only take pictures up to one size: name it with "
                "--crop-size N or --size H,W, or leave them out of --formats"
            )
        return super().refused(formats)

    def compared(self, exported: Export, picture: np.ndarray) -> tuple[float, float | None, Callable[[], Any]]:
        """Of a format of one size, as much of the picture as fits into it."""
        if exported.fixed is not None:
            picture = picture[: exported.fixed[0], : exported.fixed[1]]
        agreement = np.mean(exported.labels(picture) == self._reference.labels(picture))
        difference = None
        if exported.outputs != ["labels"]:
            apart = exported.probabilities(picture) - self._reference.probabilities(picture)
            difference = float(np.abs(apart).max())
        return float(agreement), difference, lambda: exported.labels(picture)

    def _compared_on(self, exported: Export) -> dict[str, float]:
        assert self.calibration is not None  # `checked`
        return compared_on(self.calibration, self._reference, exported)


class Classification(Subject):
    """A classifier: compared is where its probability lies, for the picture and its mirror image."""

    agreeing, key = "probability is where the model has it", "probability_agreement"

    def __init__(self, opened: OpenedClassifier, how: Exporting) -> None:
        self.class_names = opened.class_names
        self._view, self._reference = opened.view, opened.predictor()
        given = how.calibrate
        self.calibration = classifiers_calibration(how, given, self._reference) if given else None
        learnt = self.calibration.learnt if self.calibration else ()
        self.served = ServedClassifier(opened.model, opened.view, how, learnt)
        self.served.description = {"classes": list(self.class_names), **self.description(), **self.settings()}

    def description(self) -> dict[str, Any]:
        """What pictures it takes."""
        return {"input": "uint8 RGB pictures of any size, upright"}

    def settings(self) -> dict[str, Any]:
        """What is done inside, above all the view of a picture."""
        view, done = self._view, f"{self._view}; {_said(self.served.model.preprocessing)}; softmax"
        return {"image_size": view.size, "central_fraction": view.fraction, "resize": view.rule, "done inside": done}

    def needed(self, name: str) -> float:
        """The fraction of the probability."""
        return FORMATS[name].overlap or 1.0

    def refused(self, formats: Sequence[str]) -> str | None:
        """Some formats are of segmentation models alone."""
        others = [name for name in formats if FORMATS[name].overlap is None]
        if others:
            return f"{', '.join(others)}: of segmentation models alone; leave them out of --formats"
        return super().refused(formats)

    def compared(self, exported: Export, picture: np.ndarray) -> tuple[float, float | None, Callable[[], Any]]:
        """The worse of the two pictures."""
        if exported.fixed is not None and exported.view is None:
            picture = picture[: exported.fixed[0], : exported.fixed[1]]
        pictures = [picture, np.ascontiguousarray(picture[:, ::-1])]
        ours, theirs = self._reference.probabilities_of(pictures), exported.probabilities_of(pictures)
        overlap = np.minimum(ours, theirs).sum(axis=-1).min()
        return float(overlap), float(np.abs(ours - theirs).max()), lambda: exported.probabilities_of([picture])

    def _compared_on(self, exported: Export) -> dict[str, float]:
        assert self.calibration is not None  # `checked`
        return classified_on(self.calibration, self._reference, exported)


def subject_of(opened: OpenedSegmenter | OpenedClassifier, how: Exporting = Exporting()) -> Subject:
    """The Subject that an opened model is, to be exported as `how` says."""
    return Classification(opened, how) if isinstance(opened, OpenedClassifier) else Segmentation(opened, how)


def _said(fed: Preprocessing) -> str:
    return f"(RGB - {fed.mean}) * {fed.scale:.6g}{'' if fed.order == 'RGB' else ', then in order BGR'}"
