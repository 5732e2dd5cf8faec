"""Charts of scores, as PNG files: the confusion matrix and the boundary quality."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def confusion_picture(
    matrix: np.ndarray, class_names: Sequence[str], columns: Sequence[str] | None = None, of: str = "pixels"
) -> bytes:
    """A confusion matrix (classes, columns) as a chart → the bytes of a PNG.

    A row a true class, in percent of its pixels; a class without pixels has a grey row.

    Args:
        columns: what is predicted, the classes if None.
        of: what is counted.
    """
    columns = class_names if columns is None else columns
    matrix = np.asarray(matrix, np.float64)
    support = matrix.sum(axis=1, keepdims=True)
    percent = np.divide(100 * matrix, support, out=np.full(matrix.shape, np.nan), where=support > 0)
    cell = min(0.36, 24 / max(matrix.shape))  # inches
    font: dict[str, Any] = {"fontsize": 22 * cell}
    figure, axes = _figure(3 + cell * len(columns), 2.2 + cell * len(class_names))
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axes.set_facecolor("0.9")
    axes.set_xticks(range(len(columns)), columns, rotation=90, **font)
    axes.set_yticks(range(len(class_names)), class_names, **font)
    axes.set_xticks(np.arange(0.5, len(columns) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(class_names) - 1), minor=True)
    axes.grid(which="minor", color="0.8", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.set(xlabel="predicted", ylabel="truth")
    for (row, column), value in np.ndenumerate(percent):
        if value >= 0.5:  # what rounds to 0 is left out, for what matters to be seen
            colour = "white" if value > 60 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, **font)
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label=f"% of the true class's {of}")
    return _png(figure)


def trimap_picture(widths: Sequence[int], curves: Mapping[str, Sequence[float]]) -> bytes:
    """mIoU over the width of the band around boundaries → the bytes of a PNG.

    Args:
        widths: pixels.
        curves: {name: mIoU at each width, fractions}. Over the classes in the labels, the same in each band: any other
            set grows by each class that a wider band sees predicted, and the curve would jump.
    """
    figure, axes = _figure(6.4, 4.4)
    for name, scores in curves.items():
        axes.plot(widths, 100 * np.asarray(scores, float), marker="o", markersize=4, label=name)
    axes.set(
        xlabel="width of the band around boundaries [pixels]", ylabel="mIoU, classes in the labels [%]", xlim=(0, None)
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A Figure of this size in inches with one set of axes; without pyplot, whose state is the whole process's."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", bbox_inches="tight", pad_inches=0.1)
    return content.getvalue()
