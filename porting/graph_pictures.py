"""One picture as an old graph takes it, and as this project's model must be fed it to compute the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import keras
import numpy as np

from engine.options import Verification
from errors import UserError
from porting.agreement import PREPROCESSING, compare
from porting.legacy_graph import LegacyGraph


@dataclass(frozen=True)
class Images:
    """One picture as either side is fed it.

    theirs, ours: (1, H, W, 3); ours is as large as what the old graph's first convolution gets.
    row: the old graph's own preprocessing against the model's, for the table; None where it has none.
    words: what was done.
    """

    theirs: np.ndarray
    ours: np.ndarray
    row: dict[str, Any] | None
    words: str


def images_for(graph: LegacyGraph, model: keras.Model, picture: np.ndarray, target: str, how: Verification) -> Images:
    """A picture as the old graph takes it, and as the model is to be fed it.

    A graph that computes on its images before the first convolution preprocesses them itself: it is fed whole pixels,
    or else fractions, or else what the model is fed, whichever arrives at that convolution as the model's own images.

    Args:
        picture: uint8 (H, W, 3). target: a tensor behind the first convolution.
    """
    entrance = graph.entrance(target)
    inside = entrance is not None and (bool(entrance.operations) or not graph.takes_floats)
    bounds = (graph.shape_at(entrance.tensor) if inside and entrance else None) or (None,) * 4
    size = picture_size(how.size, graph, picture, bounds[1:3])
    said = "" if picture.shape[:2] == size else f"; the picture is resized from {in_words(picture.shape)}"
    pixels = resized(picture, size).astype("float32")[None]
    wanted = model.preprocessing(pixels).astype("float32")
    if entrance is None or not inside:
        return Images(wanted, wanted, None, f"{model.preprocessing.name}, {in_words(size)}{said}")
    ways = {f"whole pixels, {in_words(size)}": pixels}
    if graph.takes_floats:
        ways |= {
            f"pixels as fractions, {in_words(size)}": pixels / 255,
            f"{model.preprocessing.name}, {in_words(size)}": wanted,
        }
    tried = []
    for words, fed in ways.items():
        function = graph.prune([entrance.tensor], how.feed)
        reached = function(repeated(fed, graph))[entrance.tensor][:1]
        ours = padded(wanted, reached.shape)
        row = compare(PREPROCESSING, entrance.tensor, reached, ours, how.tolerance)
        pads = f" and pads them to {in_words(reached.shape[1:])}" if reached.shape[1:3] != size else ""
        inner = f"{words}{said}; the old graph preprocesses them itself{pads}"
        tried.append(Images(fed, ours, row, inner))
        if row["agrees"]:
            return tried[-1]
    return tried[0]


def in_words(size: Sequence[int]) -> str:
    """(H, W, …) as "H x W"."""
    return f"{size[0]} x {size[1]}"


def repeated(images: np.ndarray, graph: LegacyGraph) -> np.ndarray:
    """One image as often as the old graph's batches have them."""
    return images.repeat((graph.built_for or [None])[0] or 1, axis=0)


def padded(images: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Preprocessed images (1, H, W, 3), with zeros (the mean pixel) to the right and below, as large as `shape` is."""
    if len(shape) != 4:
        return images
    more = [max(wanted - side, 0) for wanted, side in zip(shape[1:3], images.shape[1:3], strict=True)]
    return np.pad(images, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)))


def picture_size(
    asked: int | None, graph: LegacyGraph, picture: np.ndarray, bounds: Sequence[int | None]
) -> tuple[int, int]:
    """(height, width) of the picture that is fed: what the old graph's input fixes, --size, or the picture's own.

    bounds: what the old graph pads pictures to; larger ones are shrunk to fit, their proportions kept.
    """
    fixed = (graph.built_for or (None,) * 4)[1:3]
    if asked and any(side not in (None, asked) for side in fixed):
        raise UserError(f"--size {asked}: {graph.path} takes {fixed[0]} x {fixed[1]} only")
    height, width = (asked, asked) if asked else picture.shape[:2]
    height, width = fixed[0] or height, fixed[1] or width
    shares = [bound / side for bound, side in zip(bounds, (height, width), strict=True) if bound]
    share = min([1.0, *shares])
    if share == 1 or any(fixed):
        return height, width
    if asked:
        raise UserError(f"--size {asked}: {graph.path} pads pictures to {bounds[0]} x {bounds[1]}; take no more")
    return max(1, int(height * share)), max(1, int(width * share))


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) at (height, width) = size."""
    return picture if picture.shape[:2] == size else cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
