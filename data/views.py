"""What a classifier is shown of a picture: a square of its middle, at the size that the network wants."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from data.transforms import resize_center_crop

SQUARE, SHORTER_SIDE, STRETCH = RULES = ("square", "shorter-side", "stretch")


@dataclass(frozen=True)
class View:
    """A picture's middle, `size` x `size` pixels.

    size: pixels. fraction: how much of the picture is seen, in (0, 1], by
    rule: "square", the central square whose side is the fraction of the shorter side, resized by area where it shrinks:
    what train_cls.py validates on. "shorter-side", the picture is resized to a shorter side of size / fraction, by
    bilinear weights over all pixels that become one, and its middle is cut out: slim's vgg_preprocessing has this
    geometry. "stretch", the fraction of height and of width, resized to the square whatever its shape, by TensorFlow
    1's bilinear: slim's inception_preprocessing.
    """

    size: int = 224
    fraction: float = 0.875
    rule: str = SQUARE

    @property
    def shorter_side(self) -> int:
        """What "shorter-side" makes of a picture's shorter side, pixels."""
        return max(self.size, round(self.size / self.fraction))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB (H, W, 3) → what is seen of it, uint8 (size, size, 3)."""
        if self.rule == SQUARE:
            return resize_center_crop(image, self.size, self.fraction)
        return self._of_shorter_side(image) if self.rule == SHORTER_SIDE else self._stretched(image)

    def _of_shorter_side(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        resized = [round(side * self.shorter_side / min(height, width)) for side in (height, width)]
        top, left = ((side - self.size) // 2 for side in resized)
        down, across = height / resized[0], width / resized[1]  # pixels that become one
        box = (left * across, top * down, (left + self.size) * across, (top + self.size) * down)
        square, bilinear = (self.size, self.size), Image.Resampling.BILINEAR  # only what is cut out is computed
        # As floats: of integers Pillow would round the one way and then the other.
        channels = (Image.fromarray(image[..., channel].astype(np.float32)) for channel in range(3))
        seen = [np.asarray(channel.resize(square, bilinear, box=box)) for channel in channels]
        return np.rint(np.stack(seen, axis=-1)).astype(np.uint8)

    def _stretched(self, image: np.ndarray) -> np.ndarray:
        rows, columns = (_middle(side, self.fraction) for side in image.shape[:2])
        part = _tensorflows_bilinear(image[rows, columns].astype(np.float32), self.size, axis=0)
        return np.rint(_tensorflows_bilinear(part, self.size, axis=1)).astype(np.uint8)

    def __str__(self) -> str:
        share, square = f"{100 * self.fraction:g} %", f"{self.size}x{self.size}"
        return {
            SQUARE: f"the central square of {share} of the shorter side, resized to {square} by area",
            SHORTER_SIDE: f"resized to a shorter side of {self.shorter_side}, of which the central {square}",
            STRETCH: f"the central {share} of height and width, resized to {square} whatever their shape",
        }[self.rule]


def _middle(side: int, fraction: float) -> slice:
    """The part of a side that TensorFlow's central_crop keeps."""
    start = int((side - side * fraction) / 2)
    return slice(start, side - start)


def _tensorflows_bilinear(values: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Resizes along an axis as TensorFlow 1 does: the i-th of the new pixels stands at i steps from the first."""
    at = np.arange(size, dtype=np.float32) * (values.shape[axis] / size)
    before = at.astype(int)
    after = np.minimum(before + 1, values.shape[axis] - 1)
    share = (at - before).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
    return values.take(before, axis) * (1 - share) + values.take(after, axis) * share
