"""Labels of a picture from small logits, without a map of logits as large as the picture; in NumPy, without Keras.

A pixel's logits are a convex combination of those at the four corners of its cell, the points of the small map around
it. So where one class has the largest at all four, it has it in the whole cell. Only the other cells, one in seven of
a usual picture, are interpolated, and only the classes that can have the largest there.
"""

import functools
from dataclasses import dataclass

import numpy as np

from inference.upsampling import positions

BLOCK = 1 << 16  # pixels that are interpolated at once: so many of one class stay in the cache


def labels_from(small: np.ndarray, padded: tuple[int, int], size: tuple[int, int], upsampling: str) -> np.ndarray:
    """Logits float32 (h, w, classes) of a picture padded to `padded` → uint8 labels of its first `size` rows, columns.

    The label is the largest of `models.layers.resize_bilinear` of them to `padded`, and of equal ones the first; where
    only float32's rounding tells two apart, that of another order of summation may be the other one.

    Args:
        upsampling: one of `models.layers.UPSAMPLINGS`.
    """
    rows, columns = (_along(*lengths, upsampling) for lengths in zip(small.shape[:2], padded, size, strict=True))
    # Classes so close at a corner may become equal by rounding in between, where the first of them counts.
    close = 8 * np.finfo(np.float32).eps * np.abs(small).max()
    is_clear = np.count_nonzero(small >= small.max(-1, keepdims=True) - close, axis=-1) == 1
    best = np.where(is_clear, small.argmax(-1), -1)[rows.corners[:, None, :, None], columns.corners[:, None, :]]
    decided = (best == best[0, 0]).all((0, 1)) & (best[0, 0] >= 0)

    labels = best[0, 0].astype(np.uint8).repeat(rows.counts, 0).repeat(columns.counts, 1)
    down, across = np.nonzero(~decided)
    step = max(1, BLOCK // (len(rows.pixels) * len(columns.pixels)))
    for start in range(0, len(down), step):
        i, j = down[start : start + step], across[start : start + step]
        corners = np.moveaxis(small[rows.corners[:, None, i], columns.corners[:, j]], -1, 0)
        labels[rows.pixels[:, None, i], columns.pixels[:, j]] = _largest(
            corners, rows.weights[..., i], columns.weights[..., j], close
        )
    return labels


def _largest(corners: np.ndarray, down: np.ndarray, across: np.ndarray, close: float) -> np.ndarray:
    """Logits (classes, 2, 2, n) at the corners of n cells, weights (2, T, n), (2, S, n) → uint8 labels (T, S, n)."""
    shape = (down.shape[1], *across.shape[1:])
    labels, best = np.zeros(shape, np.uint8), np.full(shape, -np.inf, np.float32)
    lowest, highest = corners.min((1, 2)), corners.max((1, 2))
    for label in np.flatnonzero((highest >= lowest.max(0) - close).any(1)).tolist():
        at_left, at_right = (down[:, :, None] * corners[label, :, None]).sum(0).swapaxes(0, 1)
        logits = across[0] * at_left[:, None] + across[1] * at_right[:, None]
        np.copyto(labels, label, where=logits > best)
        np.maximum(best, logits, out=best)
    return labels


@dataclass(frozen=True)
class _Cells:
    """Along one axis, the n cells that have pixels, of which the largest has T.

    corners: (2, n), the points of the small map that a cell lies between. counts: (n,), its pixels. pixels: (T, n),
    which these are, the last one repeated where there are fewer. weights: float32 (2, T, n), of the corners in them.
    """

    corners: np.ndarray
    counts: np.ndarray
    pixels: np.ndarray
    weights: np.ndarray


@functools.lru_cache(maxsize=16)  # pictures often share their size
def _along(points: int, padded: int, kept: int, upsampling: str) -> _Cells:
    """The cells of an axis of so many points that becomes `padded` pixels, as far as the first `kept` of these."""
    position = positions(points, padded, kept, upsampling)
    before = np.minimum(position.astype(int), max(points - 2, 0))
    cells, first, counts = np.unique(before, return_index=True, return_counts=True)
    pixels = first + np.minimum(np.arange(counts.max())[:, None], counts - 1)
    beyond = position[pixels] - cells.astype(np.float32)
    corners = np.stack([cells, np.minimum(cells + 1, points - 1)])
    return _Cells(corners, counts, pixels, np.stack([1 - beyond, beyond]))
