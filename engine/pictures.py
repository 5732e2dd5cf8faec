"""Pictures for people: masks over images, and sheets of image, truth and prediction with a legend."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from data.voc import IGNORE_LABEL, VOC_CLASSES, VOCSegmentation, colorize, palette

BACKGROUND = VOC_CLASSES[0]
_LINE = 22  # pixels of height of a line of the legend
_BORDER = np.array((230, 230, 230), np.uint8)
_DARK_GROUND = 60  # of 255
_DARK = palette() @ np.array((0.299, 0.587, 0.114)) < 45  # by label: colours that one does not see there
_FONT, _SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


def overlay(image: np.ndarray, mask: np.ndarray, opacity: float = 0.6, *, paint_background: bool = False) -> np.ndarray:
    """uint8 RGB image (H, W, 3) with the mask's colours over it; ignored pixels stay as they are, and those of class 0
    unless `paint_background`, as where class 0 is something of its own.

    Where a colour hardly differs from the dark ground under it, its area has a light border.
    """
    blended = cv2.addWeighted(image, 1 - opacity, colorize(mask), opacity, 0)
    shown = mask != IGNORE_LABEL if paint_background else (mask != 0) & (mask != IGNORE_LABEL)
    painted = np.where(shown[..., None], blended, image)
    for outline in _vanishing(image, np.where(shown, mask, IGNORE_LABEL)):
        painted[outline] = _BORDER
    return painted


def _vanishing(image: np.ndarray, mask: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the outline, bool (H, W), of each class of a dark colour whose ground in this image is dark."""
    labels = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    for label in labels[_DARK[labels]]:
        area = mask == label
        if cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[area].mean() < _DARK_GROUND:
            yield area & (cv2.erode(area.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)


def overlay_with_legend(image: np.ndarray, mask: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """The overlay, uint8 RGB (H, W, 3), and below it the legend of the classes that it shows.

    The picture's top left (H, W) is the overlay, pixel for pixel; where the names need more width than it has, the
    picture is wider. Large images get a large legend, as they are looked at from further away.
    """
    paint_background = class_names[0] != BACKGROUND
    hidden = {IGNORE_LABEL} if paint_background else {0, IGNORE_LABEL}
    shown = [label for label in np.unique(mask).tolist() if label not in hidden]
    scale = max(1.0, min(image.shape[:2]) / 600)
    painted = overlay(image, mask, paint_background=paint_background)
    return stacked([painted, legend(shown or [0], class_names, image.shape[1], scale)])


def legend(classes: Iterable[int], class_names: Sequence[str], width: int, scale: float = 1.0) -> np.ndarray:
    """A coloured square and the name of each of `classes`, in as many lines as they take.

    Args:
        width: of the picture, pixels; it is wider where one name alone needs more.
        scale: how many times as large as usual (15 pixels a square).

    Returns:
        uint8 RGB (H, W, 3).
    """
    line_height, square, gap = (round(pixels * scale) for pixels in (_LINE, 14, 8))
    text: dict[str, Any] = {"fontFace": _FONT, "fontScale": _SIZE * scale, "thickness": max(1, round(scale))}
    entries, line, x = [], 0, gap
    for label in classes:
        (text_width, _), _ = cv2.getTextSize(class_names[label], **text)
        needed = square + gap + text_width
        if x + needed + gap > width and x > gap:
            line, x = line + 1, gap
        end = x + needed
        entries.append((label, line, x, end))
        x = end + 2 * gap
    width = max([width, *(end + gap for *_, end in entries)])
    strip = np.full(((line + 1) * line_height + gap // 2, width, 3), 255, np.uint8)
    for label, row, left, _ in entries:
        top = row * line_height + gap // 2 + 1
        corner, opposite = (left, top), (left + square, top + square)
        cv2.rectangle(strip, corner, opposite, tuple(map(int, palette()[label])), -1)
        cv2.rectangle(strip, corner, opposite, (90, 90, 90), text["thickness"])
        at = (left + square + gap, top + square - round(2 * scale))
        cv2.putText(strip, class_names[label], at, color=(0, 0, 0), lineType=cv2.LINE_AA, **text)
    return strip


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 RGB pictures below each other, on white where they are narrower than the widest."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures])


def sheet(
    samples: Iterable[tuple[np.ndarray, ...]],
    class_names: Sequence[str],
    tile: int = 240,
    captions: Sequence[str] = (),
    titles: Sequence[str] = ("image", "truth", "prediction"),
) -> np.ndarray:
    """A row a sample: the image, and each of its masks over it; below, the legend of what is seen.

    Args:
        samples: [(image, mask, …)], a mask a title behind the first: uint8 RGB (H, W, 3), integer (H, W).
        tile: side of the square each picture is fitted into, pixels.
        captions: a text for above each row; none if empty.

    Returns:
        uint8 RGB.
    """
    seen: set[int] = set()
    paint_background = class_names[0] != BACKGROUND
    columns = len(titles)
    gap, rows = 6, [_titles(titles, tile, 6)]
    for number, (image, *masks) in enumerate(samples):
        if captions:
            rows.append(_titles(captions[number : number + 1], columns * (tile + gap) - gap, gap))
        labels = [np.asarray(mask, np.uint8) for mask in masks]
        seen |= {label for mask in labels for label in np.unique(mask).tolist()}
        scale = tile / max(image.shape[:2])
        width, height = (max(1, round(side * scale)) for side in image.shape[1::-1])
        row = np.full((height + gap, columns * (tile + gap), 3), 255, np.uint8)
        painted = (overlay(image, mask, paint_background=paint_background) for mask in labels)
        for column, picture in enumerate((image, *painted)):
            interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
            left = column * (tile + gap)
            row[:height, left : left + width] = cv2.resize(picture, (width, height), interpolation=interpolation)
        rows.append(row)
    rows.append(legend(sorted(seen - {IGNORE_LABEL}), class_names, rows[0].shape[1]))
    return stacked(rows)


def overlays(dataset: VOCSegmentation, count: int, tile: int = 320) -> np.ndarray:
    """uint8 RGB: `count` images spread over a data set, each beside itself with its mask."""
    chosen = [dataset[index] for index in spread_over(len(dataset), count)]
    samples = [(image, mask) for image, mask in chosen if mask is not None]
    return sheet(samples, dataset.class_names, tile, titles=("image", "mask"))


def spread_over(length: int, count: int) -> list[int]:
    """The indices of `count` samples spread evenly over so many, of all where there are fewer."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()


def captioned(images: np.ndarray, captions: Iterable[tuple[str, bool]], columns: int = 4) -> np.ndarray:
    """uint8 RGB (N, H, W, 3) and N (text, whether it is good) → one picture, `columns` images a line."""
    count, height, width = images.shape[:3]
    lines = -(-count // columns)
    picture = np.full((lines * (height + _LINE), columns * width, 3), 255, np.uint8)
    for index, (image, (text, good)) in enumerate(zip(images, captions, strict=True)):
        top, left = index // columns * (height + _LINE), index % columns * width
        picture[top : top + height, left : left + width] = image
        colour = (0, 110, 0) if good else (190, 0, 0)
        below = picture[top + height : top + height + _LINE, left : left + width]  # where a long text is cut
        cv2.putText(below, text, (3, 15), _FONT, _SIZE, colour, 1, cv2.LINE_AA)
    return picture


def fitted(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 RGB (H, W, 3) → uint8 (side, side, 3): all of the picture, in the middle of a white square."""
    scale = side / max(image.shape[:2])
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    top, left = (side - height) // 2, (side - width) // 2
    square = np.full((side, side, 3), 255, np.uint8)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    square[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=interpolation)
    return square


def _titles(titles: Sequence[str], tile: int, gap: int) -> np.ndarray:
    strip = np.full((_LINE, len(titles) * (tile + gap), 3), 255, np.uint8)
    for column, title in enumerate(titles):
        cv2.putText(strip, title, (column * (tile + gap) + 2, 15), _FONT, _SIZE, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def png(picture: np.ndarray) -> bytes:
    """uint8 RGB → the bytes of a PNG file."""
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
