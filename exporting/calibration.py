"""On which pictures 8 bits are calibrated, and what they cost on others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.image_folder import labelled_pictures
from data.voc import VOCSegmentation
from engine.options import Exporting
from engine.pictures import spread_over
from errors import UserError
from inference.accuracy import labels_of
from inference.classification import OpenedModel
from inference.exported import Export
from inference.metrics import confusion_matrix, scores
from inference.protocols import Classifier, Predictor


class Samples(Sequence):
    """Some of a data set: (picture uint8 (H, W, 3), truth), read when they are asked for."""

    def __init__(self, dataset: Any, indices: Iterable[int]) -> None:
        self._dataset, self._indices = dataset, list(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> tuple[np.ndarray, Any]:
        return self._dataset[self._indices[index]]


@dataclass(frozen=True)
class Calibration:
    """Samples to calibrate on, and others to check on, with what both are, in words.

    labels: which of a classifier's classes each of the data's is.
    """

    learnt: Samples
    checked: Samples
    said: str
    labels: Sequence[int] = ()


def calibration_of(how: Exporting, folder: str, class_names: Sequence[str]) -> Calibration:
    """What `--calibrate` `folder` names, in the VOC layout. Raises UserError where its classes are not the model's."""
    learnt, checked = (VOCSegmentation(folder, name) for name in (how.calibrate_set, how.check_set))
    if tuple(learnt.class_names) != tuple(class_names):
        raise UserError(
            f"--calibrate {folder}: its classes are {', '.join(learnt.class_names)}, the model's "
            f"{', '.join(class_names)}; name a folder of the data that it was trained on"
        )
    shown = (set(np.unique(mask).tolist()) - {0, 255} for mask in learnt.masks())
    return _calibration(how, learnt, shown, checked)


def classifiers_calibration(how: Exporting, folder: str, model: Classifier) -> Calibration:
    """What `--calibrate` `folder` names, with folders of classes. Raises UserError where one is none of the model's."""
    learnt, checked = (labelled_pictures(folder, name) for name in (how.calibrate_set, how.check_set))
    labels = labels_of(OpenedModel("the model", model), checked, how.label)
    return _calibration(how, learnt, ({label} for _, label in learnt.samples), checked, labels)


def _calibration(
    how: Exporting, learnt: Any, shown: Iterable[set[int]], checked: Any, labels: Sequence[int] = ()
) -> Calibration:
    chosen = spread_over_classes(shown, how.calibrate_images)
    others = spread_over(len(checked), how.check_images)
    said = (
        f"{len(chosen)} pictures of {how.calibrate_set}, spread over the classes; checked on {len(others)} of "
        f"{how.check_set}"
    )
    return Calibration(Samples(learnt, chosen), Samples(checked, others), said, labels)


def spread_over_classes(shown: Iterable[set[int]], count: int) -> list[int]:
    """Indices of `count` pictures, or of all where there are fewer: class by class, in turn, the next that shows it.

    shown: the classes that each picture shows; what shows none has its turn too.
    """
    shown = list(shown)
    of_class = {label: [i for i, labels in enumerate(shown) if label in labels] for label in set().union(*shown)}
    turns = [*of_class.values(), [i for i, labels in enumerate(shown) if not labels]]
    chosen: dict[int, None] = {}
    while len(chosen) < min(count, len(shown)):
        for indices in turns:
            while indices and indices[0] in chosen:
                indices.pop(0)
            if indices and len(chosen) < count:
                chosen[indices.pop(0)] = None
    return list(chosen)


def compared_on(calibration: Calibration, model: Predictor, export: Export) -> dict[str, float]:
    """How an export stands to its model on real pictures, as much of them as it takes: fractions.

    Returns {"label_agreement", "miou", "model_miou"}; mIoU over the classes in the masks.
    """
    matrices, equal = np.zeros((2, model.num_classes, model.num_classes), np.int64), []
    assert export.fixed is not None  # 8 bits have one size
    rows, columns = export.fixed
    for image, mask in calibration.checked:
        picture, truth = image[:rows, :columns], mask[:rows, :columns]
        ours, theirs = model.labels(picture), export.labels(picture)
        equal.append(float((ours == theirs).mean()))
        matrices += [confusion_matrix(truth, labels, model.num_classes) for labels in (ours, theirs)]
    model_miou, miou = (float(scores(matrix)["miou_present"]) for matrix in matrices)
    return {"label_agreement": float(np.mean(equal)), "miou": miou, "model_miou": model_miou}


def classified_on(calibration: Calibration, model: Classifier, export: Export) -> dict[str, float]:
    """How an export stands to its model on real pictures: fractions.

    Returns {"probability_agreement", "label_agreement", "top1", "model_top1"}, the first as `Classification` compares.
    """
    found = []
    for image, truth in calibration.checked:
        label = calibration.labels[truth]
        ours, theirs = (one.probabilities_of([image])[0] for one in (model, export))
        best, chosen = ours.argmax(), theirs.argmax()
        found.append((np.minimum(ours, theirs).sum(), best == chosen, chosen == label, best == label))
    names = ("probability_agreement", "label_agreement", "top1", "model_top1")
    return dict(zip(names, np.mean(np.array(found, np.float64), axis=0).tolist(), strict=True))
