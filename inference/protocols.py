"""What evaluation asks of those it works with, wherever they come from."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Predictor(Protocol):
    """What labels images of any size: an `inference.predictor.ModelPredictor`, or an `inference.runtimes.Export`."""

    @property
    def num_classes(self) -> int:
        """How many classes it tells apart, background included."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Their names, background first."""

    def padded_size(self, height: int, width: int, /) -> tuple[int, int]:
        """What images must share to be predicted as one batch → (height, width), pixels."""

    def labels(self, image: np.ndarray, /) -> np.ndarray:
        """uint8 RGB (H, W, 3) → uint8 (H, W)."""

    def labels_of(self, images: list[np.ndarray], /) -> list[np.ndarray]:
        """The labels of several images that share a padded size, predicted as one batch."""

    def probabilities(self, image: np.ndarray, /) -> np.ndarray:
        """uint8 RGB (H, W, 3) → float32 (H, W, classes)."""


class Classifier(Protocol):
    """What classifies pictures: an `inference.predictor.ClassifierPredictor`, or an `inference.runtimes.Export`."""

    @property
    def num_classes(self) -> int:
        """How many classes it tells apart."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Their names, in the order of the probabilities."""

    def probabilities_of(self, images: Sequence[np.ndarray], /) -> np.ndarray:
        """uint8 RGB images, each (H, W, 3) of its own size → float32 (N, classes)."""


class Consumer(Protocol):
    """What takes the predictions of a data set, image by image: counts, keeps or writes them."""

    def add(self, index: int, labels: np.ndarray, mask: np.ndarray, /) -> None:
        """Takes the labels of the image `index`, uint8 (H, W), and its mask, uint8 (H, W)."""


class Share(Protocol):
    """One of several processes that share a data set, as `training.distribution.Distribution` has them."""

    process: int
    processes: int

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of an array over all processes."""
