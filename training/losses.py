"""Cross entropy over the labels that count: per pixel or per image, by classes' weights, over the hardest part."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from data.voc import VOCSegmentation
from errors import UserError
from files.records import read_text
from models.layers import sum_over_replicas

Tensor = Any  # of the library that Keras computes with
WEIGHTS_LIMIT = 1 << 20  # bytes of a file of class weights


class CrossEntropy(keras.losses.Loss):
    """Σ w·ce / Σ w over the labels that count, w being the weight of each label's class; 0 where none counts.

    Args:
        class_weights: one number a class, or None for 1 each.
        hard_fraction: in (0, 1]: only this part of the labels that count, those whose w·ce is largest (loss-based
            bootstrapping); 1 is all of them. Labels of equal loss at the border count together. Under TensorFlow
            each of several devices chooses among its own.
        ignore_label: labels of this value do not count; None counts all.

    Call: integer labels (...) and float32 logits (..., classes) → a number.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        hard_fraction: float = 1.0,
        ignore_label: int | None = None,
        name: str = "cross_entropy",
    ) -> None:
        super().__init__(name=name)
        self.class_weights = None if class_weights is None else np.asarray(class_weights, "float32")
        self.hard_fraction = hard_fraction
        self.ignore_label = ignore_label

    def label_weights(self, labels: Tensor) -> Tensor:
        """float32 of the labels' shape: what each counts."""
        counts = ops.ones_like(labels, "float32")
        if self.ignore_label is not None:
            counts = ops.cast(ops.not_equal(labels, self.ignore_label), "float32")
        if self.class_weights is None:
            return counts
        return counts * ops.take(self.class_weights, self._classes(labels))

    def _classes(self, labels: Tensor) -> Tensor:
        """The labels as int32, with 0 for those that do not count: the cross entropy of 255 is an error or NaN."""
        labels = ops.cast(labels, "int32")
        return labels if self.ignore_label is None else ops.where(ops.equal(labels, self.ignore_label), 0, labels)

    def call(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Integer labels (...) and float32 logits (..., classes) → the loss, a scalar."""
        weights = self.label_weights(labels)
        # The labels are masked and not the logits, of which that would make two more copies.
        losses = weights * ops.sparse_categorical_crossentropy(self._classes(labels), logits, from_logits=True)
        if self.hard_fraction < 1:
            hard = self._hardest(losses, weights)
            losses, weights = losses * hard, weights * hard
        total = sum_over_replicas(ops.sum(weights))  # Keras adds the replicas' losses up
        return ops.sum(losses) / ops.where(total > 0, total, 1.0)

    def _hardest(self, losses: Tensor, weights: Tensor) -> Tensor:
        """float32 of the losses' shape: 1 for the hardest of those that weigh anything, 0 for the rest."""
        weighs = weights > 0
        count = ops.cast(ops.ceil(self.hard_fraction * ops.sum(ops.cast(weighs, "float32"))), "int32")
        ranked = ops.reshape(ops.where(weighs, ops.stop_gradient(losses), -1.0), (-1,))
        most = int(np.ceil(self.hard_fraction * ranked.shape[0]))
        hardest, _ = ops.top_k(ranked, most)
        threshold = ops.take(hardest, ops.maximum(count, 1) - 1)
        return ops.cast(ops.logical_and(weighs, ops.stop_gradient(losses) >= threshold), "float32")


def class_weights(
    text: str | Sequence[float] | None, dataset: VOCSegmentation, pixels: np.ndarray | None = None
) -> list[float] | None:
    """What --class-weights says → one weight a class; None for None.

    Args:
        text: "balanced", which is pixels / (classes · pixels of the class) over the data set's masks; or the weights
            themselves, as a sequence or comma-separated; or a text file of them.
        pixels: of each class, where they are counted already.

    Raises UserError for anything else, for another number of weights than classes, and for weights below 0.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        text = ",".join(map(str, text))
    if text == "balanced":
        return balanced_weights(pixel_counts(dataset) if pixels is None else pixels)
    try:
        content = text if "," in text or not Path(text).exists() else read_text(Path(text), WEIGHTS_LIMIT)
        weights = [float(part) for part in content.replace(",", " ").split()]
    except (OSError, ValueError) as error:
        raise UserError(
            f"--class-weights {text}: takes `balanced`, comma-separated numbers, or a file of numbers ({error})"
        ) from error
    if len(weights) != dataset.num_classes:
        raise UserError(f"--class-weights {text}: {len(weights)} weights for the data's {dataset.num_classes} classes")
    if not all(0 <= weight < np.inf for weight in weights) or not any(weights):
        raise UserError(f"--class-weights {text}: weights must be 0 or more, finite, and not all 0")
    return weights


def pixel_counts(dataset: VOCSegmentation) -> np.ndarray:
    """int64 (classes,): pixels of each class in the masks of a data set; reads every mask once."""
    total = np.zeros(256, np.int64)
    for mask in dataset.masks():
        total += np.bincount(mask.ravel(), minlength=256)
    return total[: dataset.num_classes]


def balanced_weights(counts: np.ndarray) -> list[float]:
    """Pixels of each class → weights by which each class counts the same; 0 for a class without any."""
    counts = np.asarray(counts, np.float64)
    weights = np.divide(counts.sum(), len(counts) * counts, out=np.zeros(len(counts)), where=counts > 0)
    return [float(f"{weight:.6g}") for weight in weights]
