"""Pictures for people: masks over images, and sheets of image, truth and prediction with a legend."""

import cv2
import numpy as np

from data.voc import IGNORE_LABEL, colorize, palette

_LINE = 22  # pixels of height of a line of the legend
_FONT, _SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


def overlay(image, mask, opacity=0.6):
    """uint8 RGB image (H, W, 3) with the mask's colours over it; background and ignored pixels stay as they are."""
    blended = cv2.addWeighted(image, 1 - opacity, colorize(mask), opacity, 0)
    shown = (mask != 0) & (mask != IGNORE_LABEL)
    return np.where(shown[..., None], blended, image)


def legend(classes, class_names, width):
    """uint8 RGB (H, width, 3): a coloured square and the name of each of `classes`, in as many lines as they take."""
    entries, line, x = [], 0, 8
    for label in classes:
        (text_width, _), _ = cv2.getTextSize(class_names[label], _FONT, _SIZE, 1)
        if x + 20 + text_width > width and x > 8:
            line, x = line + 1, 8
        entries.append((label, line, x))
        x += 36 + text_width
    strip = np.full(((line + 1) * _LINE + 4, width, 3), 255, np.uint8)
    for label, row, left in entries:
        top = row * _LINE + 5
        colour = tuple(map(int, palette()[label]))
        cv2.rectangle(strip, (left, top), (left + 14, top + 14), colour, -1)
        cv2.rectangle(strip, (left, top), (left + 14, top + 14), (90, 90, 90), 1)
        cv2.putText(strip, class_names[label], (left + 20, top + 12), _FONT, _SIZE, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def sheet(samples, class_names, tile=240):
    """A row a sample: image, truth over it, prediction over it; legend below.

    Args:
        samples: [(image, truth, prediction)]: uint8 RGB (H, W, 3), uint8 (H, W), integer (H, W).
        tile: side of the square each picture is fitted into, pixels.

    Returns:
        uint8 RGB.
    """
    gap, seen, rows = 6, set(), [_titles(("image", "truth", "prediction"), tile, 6)]
    for image, truth, prediction in samples:
        labels = np.asarray(prediction, np.uint8)
        seen |= set(np.unique(truth)) | set(np.unique(labels))
        scale = tile / max(image.shape[:2])
        width, height = (max(1, round(side * scale)) for side in image.shape[1::-1])
        row = np.full((height + gap, 3 * (tile + gap), 3), 255, np.uint8)
        for column, picture in enumerate((image, overlay(image, truth), overlay(image, labels))):
            interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
            left = column * (tile + gap)
            row[:height, left : left + width] = cv2.resize(picture, (width, height), interpolation=interpolation)
        rows.append(row)
    rows.append(legend(sorted(seen - {IGNORE_LABEL}), class_names, rows[0].shape[1]))
    return np.concatenate(rows)


def captioned(images, captions, columns=4):
    """uint8 RGB (N, H, W, 3) and N (text, whether it is good) → one picture, `columns` images a line."""
    count, height, width = images.shape[:3]
    lines = -(-count // columns)
    picture = np.full((lines * (height + _LINE), columns * width, 3), 255, np.uint8)
    for index, (image, (text, good)) in enumerate(zip(images, captions, strict=True)):
        top, left = index // columns * (height + _LINE), index % columns * width
        picture[top : top + height, left : left + width] = image
        colour = (0, 110, 0) if good else (190, 0, 0)
        cv2.putText(picture, text, (left + 3, top + height + 15), _FONT, _SIZE, colour, 1, cv2.LINE_AA)
    return picture


def _titles(titles, tile, gap):
    strip = np.full((_LINE, len(titles) * (tile + gap), 3), 255, np.uint8)
    for column, title in enumerate(titles):
        cv2.putText(strip, title, (column * (tile + gap) + 2, 15), _FONT, _SIZE, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def png(picture):
    """uint8 RGB → the bytes of a PNG file."""
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
