"""The PASCAL VOC folder: image sets, palette masks, colours."""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.class_names import CLASS_FILES, class_file, read_class_names
from data.image_sets import read_image_set
from data.images import DataError, image_size, read_image, read_indices
from files.writing import write_whole

IGNORE_LABEL = 255

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

_OWN_NAME = re.compile(r"20\d\d_\d{6}")  # 2007_000032
_NAME_OF_2007 = re.compile(r"\d{6}")


def names_of(num_classes: int) -> tuple[str, ...]:
    """The names of classes that nobody has named: VOC's where there are as many."""
    return VOC_CLASSES if num_classes == len(VOC_CLASSES) else unnamed(num_classes)


def unnamed(num_classes: int) -> tuple[str, ...]:
    """Numbers for names."""
    return tuple(f"class {label}" for label in range(num_classes))


def palette(n: int = 256) -> np.ndarray:
    """The VOC colour map: bits 0, 3, 6 … of a label are the high bits of red, 1, 4, 7 … of green, 2, 5 … of blue.

    Returns:
        uint8 (n, 3), RGB.
    """
    labels = np.arange(n)[:, None] >> np.arange(3)  # one column a channel
    colours = np.zeros((n, 3), np.int64)
    for bit in range(3):
        colours |= ((labels >> 3 * bit) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def colorize(mask: np.ndarray) -> np.ndarray:
    """Paints a mask of class indices, uint8 (H, W), in the VOC colours: uint8 (H, W, 3), RGB."""
    return palette()[mask]


def read_mask(
    path: str | Path,
    num_classes: int,
    image_size: tuple[int, ...] | None = None,
    ignore_label: int = IGNORE_LABEL,
) -> np.ndarray:
    """Reads a mask of class indices: an 8-bit palette or single-channel image, which is never turned.

    Args:
        path: the file.
        num_classes: how many classes there are, background included.
        image_size: the image's (height, width), which the mask's must equal; None does not compare.
        ignore_label: the value in the file of what is ignored.

    Returns:
        uint8 (H, W), of 0 … num_classes - 1 and IGNORE_LABEL.

    Raises:
        DataError: unreadable file, colours instead of indices, a value that is no class, another size than the image's.
    """
    mask = read_indices(path)
    if ignore_label != IGNORE_LABEL:
        mask = _with_label_ignored(mask, ignore_label)
    if (mask + np.uint8(1)).max(initial=0) > num_classes:  # 255 becomes 0: one pass instead of four
        raise DataError(f"{path}: {strange_values(np.unique(read_indices(path)), num_classes, ignore_label)}")
    if image_size is not None and mask.shape != tuple(image_size):
        height, width = image_size
        raise DataError(
            f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels (width x height), its image {width}x{height}."
        )
    return mask


def strange_values(values: Iterable[int], num_classes: int, ignore_label: int) -> str:
    """Says which values of a mask are neither classes nor ignored, and what may be done."""
    strange = ", ".join(str(value) for value in values if value >= num_classes and value != ignore_label)
    return (
        f"a mask may hold 0 … {num_classes - 1} and {ignore_label} (ignored); found {strange}. Are the classes those "
        "of this data set? --ignore-label N ignores another value; prepare_data.py pictures --map changes several."
    )


def _with_label_ignored(mask: np.ndarray, ignore_label: int) -> np.ndarray:
    table = np.arange(256, dtype=np.uint8)
    table[IGNORE_LABEL] = IGNORE_LABEL - 1  # no class, unless there are 255 of them
    table[ignore_label] = IGNORE_LABEL
    return table[mask]


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Writes a mask of class indices, uint8 (H, W), as a palette PNG in the VOC colours; whole or not at all."""
    mask = np.asarray(mask)
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise DataError(f"{path}: a mask to write must be uint8 (H, W). Received: {mask.dtype} {mask.shape}.")
    write_whole(path, mask_png(mask))


def mask_png(mask: np.ndarray) -> bytes:
    """The bytes of a palette PNG in the VOC colours that holds the class indices uint8 (H, W)."""
    picture = Image.fromarray(mask)
    picture.putpalette(palette().tobytes())
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


class VOCSegmentation:
    """One image set of a folder in VOC's layout; `dataset[i]` reads its i-th (image, mask).

        root/ImageSets/Segmentation/<image_set>.txt     one name a line (`data.image_sets` reads more)
        root/ImageSets/Segmentation/classes.txt         one class a line, background first; or root/classes.txt, or
                                                        labelme's class_names.txt or labels.txt there
        root/JPEGImages/<name>.jpg                      or .jpeg, .png, .bmp, .tif, .tiff, .webp, in any case
        root/SegmentationClass/<name>.png               where there is one, else
        root/SegmentationClassAug/<name>.png

    Without a class file, the classes are VOC's 21 where the images are named as VOC's.

    Args:
        masks: False for an image set whose masks nobody has, such as VOC's `test`: each mask is then None.
        ignore_label: the value in the masks of what is ignored; it becomes IGNORE_LABEL.
        turn, picture_range, accept_damaged: as of `data.images.read_image`.

    Attributes:
        root, image_set: as given, `root` as a Path.
        pairs: [Pair], in the order of the image set. names: the images' names.
        class_names, num_classes: background included.
        classes_from: where the class names are from, for people.

    Raises:
        DataError: at once for a missing folder, image set, image or mask, and for a missing or bad class file;
            `dataset[i]` for a broken file.
    """

    def __init__(
        self,
        root: str | Path,
        image_set: str,
        masks: bool = True,
        *,
        ignore_label: int = IGNORE_LABEL,
        turn: bool = True,
        picture_range: tuple[float, float] | None = None,
        accept_damaged: bool = False,
    ) -> None:
        self.root, self.image_set = Path(root), image_set
        self.ignore_label, self.turn, self.picture_range = ignore_label, turn, picture_range
        self.accept_damaged = accept_damaged
        self.pairs = read_image_set(self.root, image_set, masks)
        self.names = [pair.name for pair in self.pairs]
        self.class_names, self.classes_from = _class_names(self.root, self.names)
        self.num_classes = len(self.class_names)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns (image, mask): uint8 (H, W, 3) RGB and uint8 (H, W), or None without `masks`."""
        pair = self.pairs[index]
        image = read_image(
            pair.image, turn=self.turn, picture_range=self.picture_range, accept_damaged=self.accept_damaged
        )
        return image, None if pair.mask is None else self._read_mask(pair.mask, image.shape[:2])

    def _read_mask(self, path: Path, image_size: tuple[int, ...] | None = None) -> np.ndarray:
        return read_mask(path, self.num_classes, image_size, self.ignore_label)

    def files(self, index: int) -> list[Path]:
        """The files that `dataset[index]` reads."""
        pair = self.pairs[index]
        return [pair.image] if pair.mask is None else [pair.image, pair.mask]

    @property
    def reading(self) -> tuple[Any, ...]:
        """What else a sample depends on."""
        return self.num_classes, self.ignore_label, self.turn, self.picture_range, self.accept_damaged

    @property
    def image_paths(self) -> list[Path]:
        """The image files, in the order of the image set."""
        return [pair.image for pair in self.pairs]

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) in pixels of an image as `dataset[index]` gives it, by its file's header."""
        return image_size(self.pairs[index].image, self.turn)

    def masks(self) -> Iterator[np.ndarray]:
        """Yields every mask that there is, uint8 (H, W), in the order of the image set, without reading the images."""
        for pair in self.pairs:
            if pair.mask is not None:
                yield self._read_mask(pair.mask)


def _class_names(root: Path, names: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The classes of the data set in `root` with images of these names, and what tells them."""
    path = class_file(root)
    if path is not None:
        return read_class_names(path), str(path)
    if all(map(_OWN_NAME.fullmatch, names)):
        return VOC_CLASSES, "VOC's 21, as all images are named as VOC's, like 2007_000032"
    if root.resolve().name == "VOC2007" and all(map(_NAME_OF_2007.fullmatch, names)):
        return VOC_CLASSES, "VOC's 21, as the folder is VOC2007 and all images are named by six digits"
    raise DataError(
        f"{root}: no file names its classes, and they are not VOC's 21, as its images are not named as VOC's "
        f"(2007_000032). Write one class name a line, background first, into {root / CLASS_FILES[0]}."
    )
