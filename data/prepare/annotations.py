"""What annotation tools write, polygons and runs, as masks: labelme's files, COCO's, CVAT's."""

import base64
import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image

from data.class_names import read_class_names
from data.images import DataError
from data.prepare.layout import Annotated, LeftOut
from data.voc import IGNORE_LABEL

BACKGROUND = "background"
_AREAS = "shapes without an area (points and lines)"


def class_order(found: Sequence[str], classes: Path | None) -> tuple[str, ...]:
    """The classes: those of the file, else the background and what was found. Raises DataError for one not in it."""
    names = [name for name in found if name not in ("__ignore__", "_background_", BACKGROUND)]
    if classes is None:
        if not names:
            raise DataError("not one labelled shape was found.")
        return BACKGROUND, *names
    told = read_class_names(classes)
    if unknown := [name for name in names if name not in told]:
        raise DataError(f"{classes}: does not name {', '.join(unknown)}, which the annotations have.")
    return told


def fill(mask: np.ndarray, points: Any, label: int) -> None:
    """Fills a polygon of (x, y), rounded to whole pixels, its outline included."""
    cv2.fillPoly(mask, [np.round(np.asarray(points, np.float64)).astype(np.int32).reshape(-1, 1, 2)], label)


def _label(name: str, names: Sequence[str]) -> int:
    if name == "__ignore__":
        return IGNORE_LABEL
    return names.index(BACKGROUND if name == "_background_" else name)


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}).") from error


# labelme: a JSON file beside each picture


def labelme(folder: Path, classes: Path | None, left_out: LeftOut) -> tuple[tuple[str, ...], Iterator[Annotated]]:
    """The classes, and every picture of a folder that labelme's file beside it annotates; later shapes lie on top."""
    files = {path: content for path in sorted(folder.rglob("*.json")) if "shapes" in (content := _parsed(path))}
    if not files:
        raise DataError(f"{folder}: has no file of labelme's (NAME.json with `shapes`).")
    found = sorted({shape["label"] for content in files.values() for shape in content["shapes"]})
    names = class_order(found, classes)

    def samples() -> Iterator[Annotated]:
        for path, content in files.items():
            mask = np.zeros((content["imageHeight"], content["imageWidth"]), np.uint8)
            for shape in content["shapes"]:
                if not _draw_labelme(mask, shape, _label(shape["label"], names)):
                    left_out.add(_AREAS, f"{shape['label']} in {path}")
            image = path.parent / content["imagePath"].replace("\\", "/")
            if not image.is_file():
                raise DataError(f"{path}: its picture {image} is missing.")
            yield Annotated(path.relative_to(folder).with_suffix("").as_posix(), image, mask)

    return names, samples()


def _draw_labelme(mask: np.ndarray, shape: Mapping[str, Any], label: int) -> bool:
    """Draws one shape; False for one that has no area."""
    kind, points = shape.get("shape_type") or "polygon", np.asarray(shape["points"], np.float64)
    if kind == "polygon" and len(points) > 2:
        fill(mask, points, label)
    elif kind == "rectangle":
        (left, top), (right, bottom) = points.min(0), points.max(0)
        fill(mask, [(left, top), (right, top), (right, bottom), (left, bottom)], label)
    elif kind == "circle":
        centre, edge = points
        x, y = np.round(centre).astype(int).tolist()
        cv2.circle(mask, (x, y), round(math.dist(centre, edge)), label, cv2.FILLED)
    elif kind == "mask":
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as file:
            inside = np.asarray(file.convert("L")) > 0
        left, top = np.round(points.min(0)).astype(int).tolist()
        part = mask[top : top + inside.shape[0], left : left + inside.shape[1]]
        part[inside[: part.shape[0], : part.shape[1]]] = label
    else:
        return False
    return True


# COCO: one JSON file for all pictures


def coco(
    file: Path, images: Path, classes: Path | None, left_out: LeftOut
) -> tuple[tuple[str, ...], Iterator[Annotated]]:
    """The classes, and the pictures of a COCO file, found under `images`; smaller objects lie on larger ones."""
    content = _parsed(file)
    try:
        categories = {entry["id"]: entry["name"] for entry in content["categories"]}
        pictures, annotations = content["images"], content["annotations"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: is no COCO file of instances, {error} is missing.") from error
    names = class_order([categories[key] for key in sorted(categories)], classes)
    of_picture: dict[Any, list[Mapping[str, Any]]] = {}
    for annotation in annotations:
        of_picture.setdefault(annotation["image_id"], []).append(annotation)

    def samples() -> Iterator[Annotated]:
        for picture in pictures:
            mask = np.zeros((picture["height"], picture["width"]), np.uint8)
            objects = [
                (_coco_pixels(a, mask.shape, file), _label(categories[a["category_id"]], names))
                for a in of_picture.get(picture["id"], [])
            ]
            for pixels, label in sorted(objects, key=lambda part: -int(part[0].sum())):
                if not pixels.any():
                    left_out.add(_AREAS, f"{names[label]} in {picture['file_name']}")
                mask[pixels] = label
            yield Annotated(Path(picture["file_name"]).with_suffix("").as_posix(), _image(images, picture), mask)

    return names, samples()


def _image(images: Path, picture: Mapping[str, Any]) -> Path:
    path = images / picture["file_name"]
    if not path.is_file():
        raise DataError(f"{path}: is missing, and the annotations have it. --images names the folder of the pictures.")
    return path


def _coco_pixels(annotation: Mapping[str, Any], size: tuple[int, ...], file: Path) -> np.ndarray:
    """bool (H, W): the pixels of one object, from polygons or from runs down the columns."""
    said = annotation.get("segmentation") or []
    if isinstance(said, list):
        pixels = np.zeros(size, np.uint8)
        for polygon in said:
            fill(pixels, np.reshape(polygon, (-1, 2)), 1)
        return pixels > 0
    if isinstance(said["counts"], list):
        return runs(said["counts"], tuple(said["size"]), "F")
    try:
        from pycocotools import mask as masks
    except ImportError as error:
        raise DataError(
            f"{file}: has compressed runs, which need pycocotools: pip install -r requirements-coco.txt"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it calls NumPy as of old
        return masks.decode(said) > 0


def runs(counts: Sequence[int], size: tuple[int, ...], order: Any) -> np.ndarray:
    """bool (H, W) of lengths of runs, the first of them outside; along rows ("C") or down columns ("F")."""
    inside = np.arange(len(counts)) % 2 == 1
    pixels = np.repeat(inside, counts)
    if pixels.size != math.prod(size):
        raise DataError(f"runs of {pixels.size} pixels for {size[0]}x{size[1]} (height x width) are damaged.")
    return pixels.reshape(size, order=order)


# CVAT: one XML file for all pictures ("CVAT for images 1.1")


def cvat(
    file: Path, images: Path, classes: Path | None, left_out: LeftOut
) -> tuple[tuple[str, ...], Iterator[Annotated]]:
    """The classes, and the pictures of CVAT's XML file, found under `images`; shapes lie in their z order."""
    try:
        root = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"{file}: cannot be read as XML ({error}).") from error
    pictures = root.findall("image")
    if not pictures:
        raise DataError(f"{file}: has no `image`; export as `CVAT for images 1.1`.")
    listed = [label.text or "" for label in root.findall("./meta//labels/label/name")]
    drawn = sorted({shape.get("label", "") for picture in pictures for shape in picture if shape.get("label")})
    names = class_order(listed or drawn, classes)

    def samples() -> Iterator[Annotated]:
        for picture in pictures:
            told = {"file_name": picture.get("name", "")}
            mask = np.zeros((int(picture.get("height", 0)), int(picture.get("width", 0))), np.uint8)
            shapes = [shape for shape in picture if shape.get("label")]
            for shape in sorted(shapes, key=lambda shape: int(shape.get("z_order", 0))):
                if not _draw_cvat(mask, shape, _label(shape.get("label", ""), names)):
                    left_out.add(_AREAS, f"{shape.get('label')} in {told['file_name']}")
            yield Annotated(Path(told["file_name"]).with_suffix("").as_posix(), _image(images, told), mask)

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
        x, y, across, down = (round(number) for number in numbers("cx", "cy", "rx", "ry"))
        cv2.ellipse(mask, (x, y), (across, down), 0, 0, 360, label, cv2.FILLED)
    elif shape.tag == "mask":
        left, top, width, height = (int(number) for number in numbers("left", "top", "width", "height"))
        inside = runs([int(count) for count in shape.get("rle", "").split(",")], (height, width), "C")
        mask[top : top + height, left : left + width][inside] = label
    else:
        return False
    return True
