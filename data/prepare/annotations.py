"""What annotation tools write, polygons and runs, as masks: labelme's files, COCO's, CVAT's."""

import base64
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated as Checked
from typing import Any
from xml.etree import ElementTree

import cv2
import msgspec
import numpy as np

from data.class_names import read_class_names
from data.content import DataError, read_bytes
from data.images import check_size, inside_of
from data.prepare.layout import Annotated, LeftOut
from data.voc import IGNORE_LABEL

BACKGROUND = "background"
MOST_BYTES = 2_000_000_000  # of a file of annotations; COCO's own largest has half a billion
_FARTHEST = 2**20  # pixels from a picture's corner; OpenCV draws with whole numbers of 32 bits, and wraps
_AREAS = "shapes without an area (points and lines)"


def class_order(found: Sequence[str], classes: Path | None, source: Path) -> tuple[str, ...]:
    """The classes: those of the file, else the background and what was found. Raises DataError for one not in it."""
    names = [name for name in found if name not in ("__ignore__", "_background_", BACKGROUND)]
    if classes is None:
        if not names:
            raise DataError(f"{source}: has not one labelled shape.")
        return BACKGROUND, *names
    told = read_class_names(classes)
    if unknown := [name for name in names if name not in told]:
        raise DataError(f"{classes}: does not name {', '.join(unknown)}, which the annotations have.")
    return told


def fill(mask: np.ndarray, points: Any, label: int) -> None:
    """Fills a polygon of (x, y), rounded to whole pixels, its outline included. Raises ValueError."""
    cv2.fillPoly(mask, [_whole(points).reshape(-1, 1, 2)], label)


def _whole(numbers: Any) -> np.ndarray:
    """Rounded to int32. Raises ValueError for what is no number, or out of any picture."""
    rounded = np.round(np.asarray(numbers, np.float64))
    if not (np.abs(rounded) <= _FARTHEST).all():  # nor are those that are no numbers
        raise ValueError(f"coordinates must be within {_FARTHEST:,} pixels")
    return rounded.astype(np.int32)


def _label(name: str, names: Sequence[str]) -> int:
    if name == "__ignore__":
        return IGNORE_LABEL
    return names.index(BACKGROUND if name == "_background_" else name)


def _canvas(where: str | Path, height: int, width: int) -> np.ndarray:
    """An empty mask."""
    check_size(where, (height, width))
    return np.zeros((height, width), np.uint8)


def _name(where: str | Path, file_name: str) -> str:
    """A picture's name in the new data set. Raises DataError for one that leads out of it."""
    path = PurePosixPath(file_name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in file_name:
        raise DataError(f"{where}: {file_name!r} is no name of a picture within a folder.")
    return path.with_suffix("").as_posix()


@contextmanager
def _told_of(where: str | Path) -> Iterator[None]:
    """Within it, what cannot be computed or drawn is the annotation's fault."""
    try:
        yield
    except DataError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, MemoryError, cv2.error) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{where}: cannot be drawn: {reason[-1]}. Mend or remove it.") from error


def _parsed(path: Path, kind: Any = Any) -> Any:
    """A JSON file, of the types of `kind`. Raises DataError."""
    content = read_bytes(path, MOST_BYTES).removeprefix(b"\xef\xbb\xbf")
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: is no COCO file of instances: {error}.") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}).") from error


_Side = Checked[int, msgspec.Meta(ge=1)]


# labelme: a JSON file beside each picture


class _Shape(msgspec.Struct):
    label: str
    points: list[tuple[float, float]]
    shape_type: str | None = None
    mask: str | None = None


class _Labelme(msgspec.Struct):
    shapes: list[_Shape]
    imageHeight: _Side
    imageWidth: _Side
    imagePath: str


def labelme(folder: Path, classes: Path | None, left_out: LeftOut) -> tuple[tuple[str, ...], Iterator[Annotated]]:
    """The classes, and every picture of a folder that labelme's file beside it annotates; later shapes lie on top."""
    files: dict[Path, _Labelme] = {}
    for path in sorted(folder.rglob("*.json")):
        content = _parsed(path)
        if isinstance(content, dict) and "shapes" in content:
            try:
                files[path] = msgspec.convert(content, _Labelme)
            except msgspec.ValidationError as error:
                raise DataError(f"{path}: is no file of labelme's: {error}.") from error
    if not files:
        raise DataError(f"{folder}: has no file of labelme's (NAME.json with `shapes`).")
    found = sorted({shape.label for content in files.values() for shape in content.shapes})
    names = class_order(found, classes, folder)

    def samples() -> Iterator[Annotated]:
        for path, content in files.items():
            mask = _canvas(path, content.imageHeight, content.imageWidth)
            for number, shape in enumerate(content.shapes):
                with _told_of(f"{path}, shape {number}, {shape.label}"):
                    if not _draw_labelme(mask, shape, _label(shape.label, names), path):
                        left_out.add(_AREAS, f"{shape.label} in {path}")
            image = path.parent / content.imagePath.replace("\\", "/")
            if not os.path.isfile(image):  # False of a name too long, too
                raise DataError(f"{path}: its picture {image} is missing.")
            yield Annotated(path.relative_to(folder).with_suffix("").as_posix(), image, mask)

    return names, samples()


def _draw_labelme(mask: np.ndarray, shape: _Shape, label: int, path: Path) -> bool:
    """Draws one shape; False for one that has no area."""
    kind, points = shape.shape_type or "polygon", np.asarray(shape.points, np.float64)
    if kind == "polygon" and len(points) > 2:
        fill(mask, points, label)
    elif kind == "rectangle":
        (left, top), (right, bottom) = points.min(0), points.max(0)
        fill(mask, [(left, top), (right, top), (right, bottom), (left, bottom)], label)
    elif kind == "circle":
        centre, edge = points
        x, y, radius = _whole([*centre, math.dist(centre, edge)]).tolist()
        cv2.circle(mask, (x, y), radius, label, cv2.FILLED)
    elif kind == "mask":
        inside = inside_of(base64.b64decode(shape.mask or ""), path)
        left, top = _whole(points.min(0)).tolist()
        _put(mask, inside, left, top, label)
    else:
        return False
    return True


def _put(mask: np.ndarray, inside: np.ndarray, left: int, top: int, label: int) -> None:
    """Puts a part, bool (h, w), where its corner belongs; what is right of and below the picture is left out."""
    if left < 0 or top < 0:
        raise ValueError(f"its corner {left},{top} is outside of the picture")
    part = mask[top : top + inside.shape[0], left : left + inside.shape[1]]
    part[inside[: part.shape[0], : part.shape[1]]] = label


# COCO: one JSON file for all pictures

_Key = int | str


class _Category(msgspec.Struct):
    id: _Key
    name: str


class _Picture(msgspec.Struct):
    id: _Key
    file_name: str
    height: _Side
    width: _Side


class _Runs(msgspec.Struct):
    size: tuple[_Side, _Side]
    counts: list[Checked[int, msgspec.Meta(ge=0)]] | str


class _Object(msgspec.Struct):
    image_id: _Key
    category_id: _Key
    segmentation: list[list[float]] | _Runs | None = None


class _Coco(msgspec.Struct):
    categories: list[_Category]
    images: list[_Picture]
    annotations: list[_Object]


def coco(
    file: Path, images: Path, classes: Path | None, left_out: LeftOut
) -> tuple[tuple[str, ...], Iterator[Annotated]]:
    """The classes, and the pictures of a COCO file, found under `images`; smaller objects lie on larger ones."""
    content: _Coco = _parsed(file, _Coco)
    categories = {category.id: category.name for category in content.categories}
    in_order = sorted(categories, key=lambda key: (isinstance(key, str), key))
    names = class_order([categories[key] for key in in_order], classes, file)
    of_picture: dict[_Key, list[_Object]] = {}
    for annotation in content.annotations:
        if annotation.category_id not in categories:
            raise DataError(f"{file}: has an object of category {annotation.category_id!r}, which it does not name.")
        of_picture.setdefault(annotation.image_id, []).append(annotation)

    def samples() -> Iterator[Annotated]:
        for picture in content.images:
            where = f"{file}, {picture.file_name}"
            name, mask = _name(file, picture.file_name), _canvas(where, picture.height, picture.width)
            # Drawn twice, to be sorted and to be put: of a large picture, memory holds one object, not all.
            objects = [
                (int(_coco_pixels(a, mask.shape, where).sum()), _label(categories[a.category_id], names), a)
                for a in of_picture.get(picture.id, [])
            ]
            for area, label, annotation in sorted(objects, key=lambda part: -part[0]):
                if not area:
                    left_out.add(_AREAS, f"{names[label]} in {picture.file_name}")
                mask[_coco_pixels(annotation, mask.shape, where)] = label
            yield Annotated(name, _image(images, picture.file_name, file), mask)

    return names, samples()


def _image(images: Path, file_name: str, annotations: Path) -> Path:
    path = images / file_name
    if not os.path.isfile(path):
        raise DataError(f"{path}: is missing, and {annotations} has it. --images names the folder of the pictures.")
    return path


def _coco_pixels(annotation: _Object, size: tuple[int, ...], where: str) -> np.ndarray:
    """bool (H, W): the pixels of one object, from polygons or from runs down the columns."""
    said = annotation.segmentation or []
    with _told_of(where):
        if isinstance(said, list):
            pixels = np.zeros(size, np.uint8)
            for polygon in said:
                fill(pixels, np.reshape(polygon, (-1, 2)), 1)
            return pixels > 0
        if said.size != size:
            raise ValueError(f"runs of {said.size[0]}x{said.size[1]} for {size[0]}x{size[1]} pixels (height x width)")
        return _compressed(said, where) if isinstance(said.counts, str) else runs(said.counts, said.size, "F")


def _compressed(said: _Runs, where: str) -> np.ndarray:
    try:
        from pycocotools import mask as masks
    except ImportError as error:
        raise DataError(
            f"{where}: has compressed runs, which need pycocotools: pip install -r requirements-coco.txt"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it calls NumPy as of old
        return masks.decode(msgspec.to_builtins(said)) > 0


def runs(counts: Sequence[int], size: tuple[int, ...], order: Any) -> np.ndarray:
    """bool (H, W) of lengths of runs, the first of them outside; along rows ("C") or down columns ("F").

    Raises ValueError where they do not fill it.
    """
    if min(counts, default=0) < 0 or sum(counts) != math.prod(size):
        raise ValueError(f"runs of {sum(counts)} pixels for {size[0]}x{size[1]} (height x width)")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(size, order=order)


# CVAT: one XML file for all pictures ("CVAT for images 1.1")


def cvat(
    file: Path, images: Path, classes: Path | None, left_out: LeftOut
) -> tuple[tuple[str, ...], Iterator[Annotated]]:
    """The classes, and the pictures of CVAT's XML file, found under `images`; shapes lie in their z order."""
    content = read_bytes(file, MOST_BYTES)
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as XML ({error}).") from error
    pictures = root.findall("image")
    if not pictures:
        raise DataError(f"{file}: has no `image`; export as `CVAT for images 1.1`.")
    listed = [label.text or "" for label in root.findall("./meta//labels/label/name")]
    drawn = sorted({shape.get("label", "") for picture in pictures for shape in picture if shape.get("label")})
    names = class_order(listed or drawn, classes, file)

    def samples() -> Iterator[Annotated]:
        for picture in pictures:
            file_name = picture.get("name", "")
            name, where = _name(file, file_name), f"{file}, {file_name}"
            with _told_of(where):
                mask = _canvas(where, int(picture.get("height", 0)), int(picture.get("width", 0)))
                shapes = [shape for shape in picture if shape.get("label")]
                for shape in sorted(shapes, key=lambda shape: int(shape.get("z_order", 0))):
                    if not _draw_cvat(mask, shape, _label(shape.get("label", ""), names)):
                        left_out.add(_AREAS, f"{shape.get('label')} in {file_name}")
            yield Annotated(name, _image(images, file_name, file), mask)

    return names, samples()


def _draw_cvat(mask: np.ndarray, shape: ElementTree.Element, label: int) -> bool:
    """Draws one shape; False for one that has no area."""

    def numbers(*names: str) -> list[float]:
        return [float(shape.get(name, 0)) for name in names]

    if shape.tag == "polygon":
        fill(mask, [point.split(",") for point in shape.get("points", "").split(";")], label)
    elif shape.tag == "box":
        left, top, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
        fill(mask, [(left, top), (right, top), (right, bottom), (left, bottom)], label)
    elif shape.tag == "ellipse":
        x, y, across, down = _whole(numbers("cx", "cy", "rx", "ry")).tolist()
        cv2.ellipse(mask, (x, y), (across, down), 0, 0, 360, label, cv2.FILLED)
    elif shape.tag == "mask":
        left, top, width, height = (int(number) for number in numbers("left", "top", "width", "height"))
        inside = runs([int(count) for count in shape.get("rle", "").split(",")], (height, width), "C")
        _put(mask, inside, left, top, label)
    else:
        return False
    return True
