"""On which pictures 8 bits are calibrated, and what they cost in mIoU on others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.voc import VOCSegmentation
from engine.options import Exporting
from engine.pictures import spread_over
from errors import UserError
from inference.metrics import confusion_matrix, scores
from inference.protocols import Predictor


@dataclass(frozen=True)
class Calibration:
    """Pictures to calibrate on, uint8 (H, W, 3); samples (picture, mask) to check on, and what both are, in words."""

    pictures: Sequence[np.ndarray]
    samples: Sequence[tuple[np.ndarray, np.ndarray]]
    said: str


def calibration_of(how: Exporting, folder: str, class_names: Sequence[str]) -> Calibration:
    """What `--calibrate` `folder` names. Raises UserError where its classes are not the model's."""
    learnt, checked = (VOCSegmentation(folder, name) for name in (how.calibrate_set, how.check_set))
    if tuple(learnt.class_names) != tuple(class_names):
        raise UserError(
            f"--calibrate {folder}: its classes are {', '.join(learnt.class_names)}, the model's "
            f"{', '.join(class_names)}; name a folder of the data that it was trained on"
        )
    chosen = spread_over_classes(learnt.masks(), how.calibrate_images)
    pairs = (checked[index] for index in spread_over(len(checked), how.check_images))
    samples = [(image, mask) for image, mask in pairs if mask is not None]
    said = (
        f"{len(chosen)} pictures of {how.calibrate_set}, spread over the classes; checked on {len(samples)} of "
        f"{how.check_set}"
    )
    return Calibration([learnt[index][0] for index in chosen], samples, said)


def spread_over_classes(masks: Iterable[np.ndarray], count: int) -> list[int]:
    """Indices of `count` masks, or of all where there are fewer: class by class, in turn, the next that shows it."""
    shown = [set(np.unique(mask).tolist()) - {0, 255} for mask in masks]
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


def compared_on(samples: Sequence[tuple[np.ndarray, np.ndarray]], model: Predictor, export: Any) -> dict[str, float]:
    """How an export stands to its model on real pictures, as much of them as it takes: fractions.

    Returns {"label_agreement", "miou", "model_miou"}; mIoU over the classes in the masks.
    """
    matrices, equal = np.zeros((2, model.num_classes, model.num_classes), np.int64), []
    rows, columns = export.fixed
    for image, mask in samples:
        picture, truth = image[:rows, :columns], mask[:rows, :columns]
        ours, theirs = model.labels(picture), export.labels(picture)
        equal.append(float((ours == theirs).mean()))
        matrices += [confusion_matrix(truth, labels, model.num_classes) for labels in (ours, theirs)]
    model_miou, miou = (float(scores(matrix)["miou_present"]) for matrix in matrices)
    return {"label_agreement": float(np.mean(equal)), "miou": miou, "model_miou": model_miou}
