"""From a picture to what is fed, and from small logits to those of its pixels; without Keras, for exports."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

Size = tuple[int, int]  # height, width in pixels


def padded_size(height: int, width: int, crop_size: int | None = 513, stride: int = 16) -> Size:
    """What an image of this size is padded to → (height, width), pixels.

    Each side to `crop_size`, or where it is longer to the next `aligned_size`. Where `crop_size` is None, not at all.
    """

    def padded(side: int) -> int:
        if crop_size is None:
            return side
        return crop_size if side <= crop_size else aligned_size(side, stride)

    return padded(height), padded(width)


def padded_picture(picture: np.ndarray, size: Size, pixel: Sequence[float]) -> np.ndarray:
    """uint8 RGB (H, W, 3) → uint8 (*size, 3): as much of it as fits, right and below it the pixel."""
    picture = picture[: size[0], : size[1]]
    below, right = size[0] - picture.shape[0], size[1] - picture.shape[1]
    return cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_CONSTANT, value=pixel)


def aligned_size(side: int, stride: int) -> int:
    """The next multiple of the stride plus one, at which features and pixels have their corners aligned."""
    return math.ceil((side - 1) / stride) * stride + 1


def upsampled(small: np.ndarray, padded: Size, size: Size, upsampling: str) -> np.ndarray:
    """Logits (h, w, classes) of a padded picture → float32 (classes, *size), those of the picture's own pixels.

    Args:
        upsampling: one of `models.layers.UPSAMPLINGS`.
    """
    rows, columns = (_weights(*lengths, upsampling) for lengths in zip(small.shape[:2], padded, size, strict=True))
    planes = np.ascontiguousarray(small.transpose(2, 0, 1))  # BLAS takes no other
    return rows @ (planes @ columns.T)


def _weights(small: int, padded: int, kept: int, upsampling: str) -> np.ndarray:
    """float32 (kept, small): the first rows of `models.layers.interpolation`."""
    position = positions(small, padded, kept, upsampling)[:, None]
    return np.maximum(1 - np.abs(position - np.arange(small, dtype=np.float32)), 0)


def positions(points: int, padded: int, kept: int, upsampling: str) -> np.ndarray:
    """float32 (kept,): where the first `kept` of `padded` pixels lie among so many points, to the bit as
    `models.layers.interpolation` has it."""
    position = np.arange(kept, dtype=np.float32)
    if upsampling == "align-corners":
        position *= np.float32(points - 1) / np.float32(max(padded - 1, 1))
    else:
        centre = np.float32(0.5 if upsampling == "half-pixel" else 0)
        position = (position + centre) * (np.float32(points) / np.float32(padded)) - centre
    return np.clip(position, 0, points - 1)
