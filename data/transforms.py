"""Scale, crop, flip and pad on NumPy arrays, with OpenCV.

Every random transform draws from the generator it is given and from nothing else. The random crops choose their window
in the source and resize only that: the window's pixels are all that is touched, 1.5 times as fast at VOC's sizes as
resizing the whole image first.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from data.images import DataError
from data.voc import IGNORE_LABEL

# The input pipeline runs many transforms at once: threads within each would only get in each other's way.
cv2.setNumThreads(1)


def random_scale_crop_flip(
    image: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    crop_size: int,
    mean_pixel: Sequence[float],
    *,
    scale_range: tuple[float, float] = (0.5, 2.0),
    flip: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Scales by a random factor, crops a random window of `crop_size`, flips every other one left to right.

    Where the scaled image is smaller than the crop it sits at the top left (before the flip), on the mean pixel.
    The image is resized bilinearly and the mask by nearest neighbour, both with half-pixel centres.

    Args:
        image, mask: uint8 (H, W, 3) and uint8 (H, W).
        rng: a numpy.random.Generator.
        crop_size: the side of the crop, in pixels.
        mean_pixel: three values in [0, 255], rounded for the padding.
        scale_range: the smallest and the largest factor; drawn uniformly, then rounded so that a whole number of source
            pixels fills the crop.
        flip: False leaves every image the way it looks.

    Returns:
        uint8 (crop_size, crop_size, 3) and uint8 (crop_size, crop_size), 255 where padded.

    Raises:
        DataError: a crop size below 1, a scale range that is not 0 < low <= high.
    """
    _check_size("crop size", crop_size)
    _check_range("scale range", scale_range)
    window = max(1, round(crop_size / rng.uniform(*scale_range)))
    scale = crop_size / window
    height, width = (min(side, window) for side in mask.shape)
    top, left = (int(rng.integers(side - kept + 1)) for side, kept in zip(mask.shape, (height, width), strict=True))
    source = np.s_[top : top + height, left : left + width]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    mean = [round(float(value)) for value in mean_pixel]
    image = _resized_on_canvas(image[source], size, crop_size, mean, cv2.INTER_LINEAR)
    # Not INTER_NEAREST: that one samples at the pixels' corners, up to half a source step off the bilinear image.
    mask = _resized_on_canvas(mask[source], size, crop_size, IGNORE_LABEL, cv2.INTER_NEAREST_EXACT)
    if flip and rng.random() < 0.5:
        cv2.flip(image, 1, image)
        cv2.flip(mask, 1, mask)
    return image, mask


def _resized_on_canvas(
    picture: np.ndarray, size: tuple[int, int], side: int, colour: int | Sequence[int], interpolation: int
) -> np.ndarray:
    """`picture`, resized to `size` (width, height), at the top left of a square of that side and colour.

    It is made in place: of a fresh array, the clearing of its memory by the system costs as much as the resizing.
    """
    width, height = size
    canvas = np.empty((side, side, *picture.shape[2:]), np.uint8)
    # Intel's kernels, where OpenCV has them, round a few pixels the other way and take half the time. The permission is
    # the thread's own, and nobody else in it asked for that.
    cv2.ipp.setUseIPP_NotExact(True)
    cv2.resize(picture, size, canvas[:height, :width], interpolation=interpolation)
    cv2.ipp.setUseIPP_NotExact(False)
    for corner in ((width, 0), (0, height)):
        if max(corner) < side:
            cv2.rectangle(canvas, corner, (side, side), colour, cv2.FILLED)
    return canvas


def pad_to(
    image: np.ndarray, mask: np.ndarray | None, height: int, width: int, mean_pixel: Sequence[float]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Pads at the bottom and the right, the image with the mean pixel and the mask with 255.

    Args:
        image: uint8 (H, W, 3), for which the mean pixel is rounded, or float32.
        mask: uint8 (H, W), or None.
        height, width: the size to reach, in pixels.
        mean_pixel: three values in the image's own units.

    Returns:
        (image, mask), of the dtypes given; mask is None where it was.

    Raises:
        DataError: the image is larger than that.
    """
    below, right = height - image.shape[0], width - image.shape[1]
    if below < 0 or right < 0:
        raise DataError(
            f"An image of {image.shape[1]}x{image.shape[0]} pixels (width x height) does not fit {width}x{height}. "
            "Choose a larger size to pad to."
        )
    mean = [float(value) for value in mean_pixel]
    if image.dtype == np.uint8:
        mean = [round(value) for value in mean]
    if below or right:
        image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=mean)
        if mask is not None:
            mask = cv2.copyMakeBorder(mask, 0, below, 0, right, cv2.BORDER_CONSTANT, value=IGNORE_LABEL)
    return image, mask


def random_resized_crop_flip(
    image: np.ndarray,
    rng: np.random.Generator,
    size: int,
    area: tuple[float, float] = (0.35, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """Crops a random window of random area and shape, resizes it to a square, flips every other one left to right.

    Args:
        image: uint8 (H, W, 3).
        rng: a numpy.random.Generator.
        size: the side of the result, in pixels.
        area: the smallest and the largest fraction of the image's area; uniform.
        ratio: the smallest and the largest width over height; uniform in its logarithm. A window that would not fit is
            cut to the image.

    Returns:
        uint8 (size, size, 3).

    Raises:
        DataError: a size below 1, a range that is not 0 < low <= high, an area above 1.
    """
    _check_size("size", size)
    _check_range("area", area, highest=1)
    _check_range("ratio", ratio)
    rows, columns = image.shape[:2]
    pixels = rows * columns * rng.uniform(*area)
    shape = math.exp(rng.uniform(*np.log(ratio)))
    width = min(columns, max(1, round(math.sqrt(pixels * shape))))
    height = min(rows, max(1, round(math.sqrt(pixels / shape))))
    top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
    image = _resize_to_square(image[top : top + height, left : left + width], size)
    return cv2.flip(image, 1) if rng.random() < 0.5 else image


def resize_center_crop(image: np.ndarray, size: int, fraction: float = 0.875) -> np.ndarray:
    """Resizes to a square the central square whose side is `fraction` of the image's shorter side.

    Args:
        image: uint8 (H, W, 3).
        size: the side of the result, in pixels.
        fraction: in (0, 1]; 0.875 is 224 of 256 pixels.

    Returns:
        uint8 (size, size, 3).

    Raises:
        DataError: a size below 1, a fraction outside (0, 1].
    """
    _check_size("size", size)
    _check_range("fraction", (fraction, fraction), highest=1)
    side = max(1, round(min(image.shape[:2]) * fraction))
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return _resize_to_square(image[top : top + side, left : left + side], size)


def _resize_to_square(image: np.ndarray, size: int) -> np.ndarray:
    shrinks = min(image.shape[:2]) >= size  # averaging areas is only defined for shrinking both ways
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _check_size(name: str, size: int) -> None:
    if size < 1:
        raise DataError(f"The {name} must be at least 1 pixel. Received: {size}.")


def _check_range(name: str, bounds: tuple[float, float], highest: float = math.inf) -> None:
    low, high = bounds
    if not 0 < low <= high <= highest or not math.isfinite(high):
        limit = "" if highest == math.inf else f" <= {highest}"
        raise DataError(f"The {name} must be 0 < low <= high{limit}. Received: {low}, {high}.")
