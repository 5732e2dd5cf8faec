"""Segmentation scores from a confusion matrix, in NumPy: matrix[t, p] counts pixels of class t predicted as p."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_MEANS = {
    "miou": "mIoU",
    "miou_present": "mIoU, classes in the labels",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "fwiou": "frequency-weighted IoU",
}
SCORES = tuple(_MEANS)


def confusion_matrix(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int, ignore_label: int = 255
) -> np.ndarray:
    """Integer arrays of one shape → int64 (num_classes, num_classes); pixels labelled `ignore_label` do not count."""
    labels, predictions = np.asarray(labels).ravel(), np.asarray(predictions).ravel()
    valid = labels != ignore_label
    cells = labels[valid].astype(np.int64) * num_classes + predictions[valid]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, a fraction; NaN for a class in neither labels nor predictions."""
    matrix = np.asarray(matrix, np.float64)
    intersection = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - intersection
    return np.divide(intersection, union, out=np.full(len(matrix), np.nan), where=union > 0)


def scores(matrix: np.ndarray) -> dict[str, float]:
    """→ dict of fractions.

    `miou`: mean over classes whose union is not empty (what is commonly reported); `miou_present`: mean over classes
    present in the labels; `pixel_accuracy`; `mean_accuracy` (recall, over classes present); `fwiou`: IoU weighted by
    class frequency. NaN where there was nothing to count.
    """
    matrix = np.asarray(matrix, np.float64)
    iou, support, total = class_iou(matrix), matrix.sum(1), matrix.sum()
    present = support > 0
    if not total:
        return dict.fromkeys(SCORES, float("nan"))
    return {
        "miou": float(np.nanmean(iou)),
        "miou_present": float(iou[present].mean()),
        "pixel_accuracy": float(np.trace(matrix) / total),
        "mean_accuracy": float((np.diag(matrix)[present] / support[present]).mean()),
        "fwiou": float((support[present] * iou[present]).sum() / total),
    }


def scores_by_class(matrix: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """`scores` and {"iou": {class: fraction}}, as JSON has them: None where there was nothing to count."""
    iou = dict(zip(class_names, class_iou(matrix), strict=True))
    return {**_without_nan(scores(matrix)), "iou": _without_nan(iou)}


def score_table(matrices: Mapping[str, np.ndarray], class_names: Sequence[str]) -> str:
    """The scores of one or several models as text: a line a class, then the means, in percent.

    Args:
        matrices: {model: confusion matrix}, all of the same labels.
    """
    results = [scores_by_class(matrix, class_names) for matrix in matrices.values()]
    heads = ["IoU [%]"] if len(results) == 1 else list(matrices)
    pixels = np.asarray(next(iter(matrices.values()))).sum(1)
    width = max(map(len, (*class_names, *_MEANS.values())))
    widths = [max(7, len(head)) for head in heads]

    def line(name: str, values: Iterable[float | None], digits: int, end: str = "") -> str:
        cells = ("-" if value is None else f"{100 * value:.{digits}f}" for value in values)
        return "  ".join([f"{name:<{width}}", *map(str.rjust, cells, widths)]) + end

    lines = ["  ".join([f"{'class':<{width}}", *map(str.rjust, heads, widths), f"{'pixels':>12}"])]
    for name, count in zip(class_names, pixels, strict=True):
        lines.append(line(name, (result["iou"][name] for result in results), 1, f"  {count:>12,}"))
    lines += [line(label, (result[key] for result in results), 2) for key, label in _MEANS.items()]
    return "\n".join(lines)


def score_rows(matrices: Mapping[str, np.ndarray], class_names: Sequence[str]) -> list[list[str | float]]:
    """The scores as rows of a table for other programs: a header, a row a class, a row a mean; fractions, "" for none.

    Args:
        matrices: {model: confusion matrix}, all of the same labels.
    """
    results = [scores_by_class(matrix, class_names) for matrix in matrices.values()]
    rows = [("score", "class", *matrices)]
    rows += [("iou", name, *(result["iou"][name] for result in results)) for name in class_names]
    rows += [(name, "", *(result[name] for result in results)) for name in SCORES]
    return [["" if cell is None else cell for cell in row] for row in rows]


def _without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else float(value) for name, value in values.items()}
