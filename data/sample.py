"""Draws small data sets of textured shapes: what the demo and the tests train on.

Colour and texture are random for every object, so only the form tells the classes apart; objects are bright and grounds
dark, so that a small network learns it in a minute or two. Each image depends on the seed and its own number alone:
drawing again gives the same bytes, drawing more keeps what was there.
"""

import math
from pathlib import Path

import cv2
import numpy as np

from data.images import DataError
from data.voc import IGNORE_LABEL, write_mask
from files.writing import write_whole

SHAPES = ("disc", "square", "triangle", "star")
CLASS_NAMES = ("background", *SHAPES)

_SIDES = (96, 128)  # pixels, smallest and largest
_RADII = (18, 32)  # pixels, of the circle round a shape
_GROUND, _OBJECT = (10, 115), (135, 250)  # the colours' bounds: what is an object is easy to see, which one is not
_TEXTURE = 60  # how far the two colours of a texture may be apart, in each channel
_TRAIN, _VAL, _EXTRA, _FOLDER = range(4)  # the first word of an image's random stream


def draw_voc(root: str | Path, train: int = 48, val: int = 16, seed: int = 0) -> None:
    """Draws a segmentation data set in VOC's layout, with 1 to 3 objects an image.

    As in VOC, `trainaug` is `train` and half as many images again, whose masks are in SegmentationClassAug only and
    have no border; all other objects are bordered by 2 to 3 pixels of 255.

    Args:
        root: the folder to draw into.
        train, val: how many images, 1 or more.
        seed: a whole number, 0 or more.

    Raises:
        DataError: a number that cannot be, or a folder with lists of another data set.
    """
    root = Path(root)
    _check(train, val, seed)
    _check_lists(root / "ImageSets" / "Segmentation")
    names = {}
    for prefix, stream, count in ("train", _TRAIN, train), ("val", _VAL, val), ("extra", _EXTRA, train // 2):
        names[prefix] = [f"{prefix}_{number:05d}" for number in range(count)]
        for number, name in enumerate(names[prefix]):
            rng = np.random.default_rng([seed, stream, number])
            image, mask = _scene(rng, objects=int(rng.integers(1, 4)), border=stream != _EXTRA)
            _write_jpeg(root / "JPEGImages" / f"{name}.jpg", image)
            write_mask(root / "SegmentationClassAug" / f"{name}.png", mask)
            if stream != _EXTRA:
                write_mask(root / "SegmentationClass" / f"{name}.png", mask)
    sets = {"train": names["train"], "trainaug": names["train"] + names["extra"], "val": names["val"]}
    for image_set, lines in ({"classes": CLASS_NAMES} | sets).items():
        path = root / "ImageSets" / "Segmentation" / f"{image_set}.txt"
        write_whole(path, "".join(f"{line}\n" for line in lines).encode())


def draw_image_folder(root: str | Path, train: int = 48, val: int = 16, seed: int = 0) -> None:
    """Draws a classification data set, `root/{train,val}/CLASS/`, with one object an image.

    Args:
        root: the folder to draw into.
        train, val: how many images a class, 1 or more.
        seed: a whole number, 0 or more.

    Raises:
        DataError: a number that cannot be.
    """
    root = Path(root)
    _check(train, val, seed)
    for split, stream, count in ("train", _TRAIN, train), ("val", _VAL, val):
        for label, name in enumerate(SHAPES, 1):
            for number in range(count):
                rng = np.random.default_rng([seed, _FOLDER, stream, label, number])
                image, _ = _scene(rng, objects=1, label=label)
                _write_jpeg(root / split / name / f"{name}_{number:05d}.jpg", image)


def _check_lists(folder: Path) -> None:
    """Raises DataError where there are lists that were not drawn: they would be replaced."""
    lists, classes = sorted(folder.glob("*.txt")), folder / "classes.txt"
    if lists and not (classes.is_file() and classes.read_bytes().split() == [name.encode() for name in CLASS_NAMES]):
        raise DataError(f"{lists[0]}: is of another data set, which would be drawn over; name another --out.")


def _check(train: int, val: int, seed: int) -> None:
    if min(train, val) < 1 or seed < 0:
        raise DataError(f"Draw 1 image or more a set, with a seed of 0 or more. Received: {train}, {val}, seed {seed}.")


def _scene(
    rng: np.random.Generator, objects: int, label: int | None = None, border: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one image and its mask: uint8 (H, W, 3) RGB, uint8 (H, W). `label` fixes the class of the objects."""
    height, width = rng.integers(_SIDES[0], _SIDES[1] + 1, 2).tolist()
    image = _texture(rng, height, width, _colours(rng, *_GROUND))
    mask = np.zeros((height, width), np.uint8)
    for x, y, radius in _places(rng, height, width, objects):
        kind = label or int(rng.integers(1, len(CLASS_NAMES)))
        inside = np.zeros_like(mask)
        cv2.fillPoly(inside, [_outline(rng, SHAPES[kind - 1], x, y, radius)], 1)
        texture = _texture(rng, height, width, _colours(rng, *_OBJECT))
        image = np.where(inside[..., None] > 0, texture, image)
        mask[inside > 0] = kind
        if border:
            around = np.ones((3, 3), np.uint8)
            mask[cv2.dilate(inside, around) > cv2.erode(inside, around)] = IGNORE_LABEL
    return cv2.GaussianBlur(image, (3, 3), 0), mask


def _places(rng: np.random.Generator, height: int, width: int, count: int) -> list[tuple[float, float, float]]:
    """Finds places for `count` shapes, or as many of them as fit: [(x, y, radius)], apart and inside the image."""
    places: list[tuple[float, float, float]] = []
    for _ in range(30 * count):
        radius = rng.uniform(*_RADII)
        x, y = rng.uniform(radius + 1, width - radius - 1), rng.uniform(radius + 1, height - radius - 1)
        if all(math.dist((x, y), other[:2]) > radius + other[2] + 4 for other in places):
            places.append((x, y, radius))
        if len(places) == count:
            break
    return places


def _outline(rng: np.random.Generator, shape: str, x: float, y: float, radius: float) -> np.ndarray:
    """Returns a shape's corners, int32 (n, 2) as (x, y), turned by a random angle."""
    corners = {"disc": 48, "square": 4, "triangle": 3, "star": 10}[shape]
    angles = rng.uniform(0, 2 * math.pi) + np.arange(corners) * (2 * math.pi / corners)
    radii = np.full(corners, radius)
    if shape == "disc":
        radii *= 0.85  # nearer to the other shapes in area
    if shape == "star":
        radii[1::2] *= 0.42
    return np.round(np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)).astype(np.int32)


def _colours(rng: np.random.Generator, darkest: float, brightest: float) -> np.ndarray:
    """Draws a texture's two RGB colours, float (2, 3), within these bounds and not far from each other."""
    first = rng.uniform(darkest, brightest, 3)
    return np.stack([first, np.clip(first + rng.uniform(-_TEXTURE, _TEXTURE, 3), darkest, brightest)])


def _texture(rng: np.random.Generator, height: int, width: int, colours: np.ndarray) -> np.ndarray:
    """Mixes two colours over the plane by stripes, checks, a gradient or cloudy noise: uint8 (height, width, 3)."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    angle, period = rng.uniform(0, math.pi), rng.uniform(6, 16)
    along = columns * math.cos(angle) + rows * math.sin(angle)
    across = rows * math.cos(angle) - columns * math.sin(angle)
    kind = rng.integers(4)
    if kind == 0:
        share = 0.5 + 0.5 * np.sin(2 * math.pi * along / period)
    elif kind == 1:
        share = ((along // (period / 2) + across // (period / 2)) % 2).astype(np.float32)
    elif kind == 2:
        share = (along - along.min()) / np.ptp(along)
    else:
        clouds = cv2.GaussianBlur(rng.random((height, width), np.float32), (0, 0), period / 5)
        share = (clouds - clouds.min()) / np.ptp(clouds)
    plane = colours[0] + share[..., None] * (colours[1] - colours[0]) + rng.normal(0, 6, (height, width, 3))
    return np.clip(plane, 0, 255).astype(np.uint8)


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    write_whole(path, cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
