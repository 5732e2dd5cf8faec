"""Segmentation scores from a confusion matrix, in NumPy: matrix[t, p] counts pixels of class t predicted as p."""

import numpy as np

SCORES = ("miou", "miou_present", "pixel_accuracy", "mean_accuracy", "fwiou")


def confusion_matrix(labels, predictions, num_classes, ignore_label=255):
    """Integer arrays of one shape → int64 (num_classes, num_classes); pixels labelled `ignore_label` do not count."""
    labels, predictions = np.asarray(labels).ravel(), np.asarray(predictions).ravel()
    valid = labels != ignore_label
    cells = labels[valid].astype(np.int64) * num_classes + predictions[valid]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_iou(matrix):
    """Intersection over union of each class, a fraction; NaN for a class in neither labels nor predictions."""
    matrix = np.asarray(matrix, np.float64)
    intersection = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - intersection
    return np.divide(intersection, union, out=np.full(len(matrix), np.nan), where=union > 0)


def scores(matrix):
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


def scores_by_class(matrix, class_names):
    """`scores` and {"iou": {class: fraction, or None where the class is in neither labels nor predictions}}."""
    iou = {name: None if np.isnan(v) else float(v) for name, v in zip(class_names, class_iou(matrix), strict=True)}
    return {**scores(matrix), "iou": iou}


def score_table(matrix, class_names):
    """The scores as text: a line a class (IoU in percent, pixels labelled so), then the means."""
    result = scores_by_class(matrix, class_names)
    pixels = np.asarray(matrix).sum(1)
    width = max(len(name) for name in (*class_names, "mIoU, classes in the labels"))
    lines = [f"{'class':<{width}}  IoU [%]        pixels"]
    for name, count in zip(class_names, pixels, strict=True):
        iou = result["iou"][name]
        lines.append(f"{name:<{width}}  {'-' if iou is None else f'{100 * iou:.1f}':>7}  {count:>12,}")
    means = {
        "mIoU": "miou",
        "mIoU, classes in the labels": "miou_present",
        "pixel accuracy": "pixel_accuracy",
        "mean accuracy": "mean_accuracy",
        "frequency-weighted IoU": "fwiou",
    }
    lines += [f"{label:<{width}}  {100 * result[key]:>7.2f}" for label, key in means.items()]
    return "\n".join(lines)
