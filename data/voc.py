"""The PASCAL VOC folder: image sets, palette masks, colours."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from data.images import DataError, read_image, read_indices, write_whole

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

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def names_of(num_classes: int) -> tuple[str, ...]:
    """The names of classes that nobody has named: VOC's where there are as many."""
    return VOC_CLASSES if num_classes == len(VOC_CLASSES) else tuple(f"class {label}" for label in range(num_classes))


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


def read_mask(path: str | Path, num_classes: int, image_size: tuple[int, ...] | None = None) -> np.ndarray:
    """Reads a mask of class indices: an 8-bit palette or single-channel image.

    Args:
        path: the file.
        num_classes: how many classes there are, background included.
        image_size: the image's (height, width), which the mask's must equal; None does not compare.

    Returns:
        uint8 (H, W), of 0 … num_classes - 1 and IGNORE_LABEL.

    Raises:
        DataError: unreadable file, colours instead of indices, a value that is no class, another size than the image's.
    """
    mask = read_indices(path)
    if (mask + np.uint8(1)).max(initial=0) > num_classes:  # 255 becomes 0: one pass instead of four
        strange = mask[(mask >= num_classes) & (mask != IGNORE_LABEL)]
        values = ", ".join(map(str, np.unique(strange)))
        raise DataError(
            f"{path}: a mask may hold 0 … {num_classes - 1} and {IGNORE_LABEL} (ignored); found {values}. "
            "Are the classes those of this data set?"
        )
    if image_size is not None and mask.shape != tuple(image_size):
        height, width = image_size
        raise DataError(
            f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels (width x height), its image {width}x{height}."
        )
    return mask


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

        root/ImageSets/Segmentation/<image_set>.txt     one name a line
        root/ImageSets/Segmentation/classes.txt         one class a line, background first; without it, VOC's 21
        root/JPEGImages/<name>.jpg                      or .jpeg, .png
        root/SegmentationClassAug/<name>.png            where there is one, else
        root/SegmentationClass/<name>.png

    Args:
        masks: False for an image set whose masks nobody has, such as VOC's `test`: each mask is then None.

    Attributes:
        root, image_set: as given, `root` as a Path.
        names: the images' names, in the order of the image set.
        class_names, num_classes: background included.

    Raises:
        DataError: at once for a missing folder, image set, image or mask and for a bad classes.txt; `dataset[i]` for a
            broken file.
    """

    def __init__(self, root: str | Path, image_set: str, masks: bool = True) -> None:
        self.root, self.image_set = Path(root), image_set
        lines = self._read_image_set()
        self.names = [name for _, name in lines]
        self.class_names = self._read_class_names()
        self.num_classes = len(self.class_names)
        self._files = self._find_files(lines, masks)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns (image, mask): uint8 (H, W, 3) RGB and uint8 (H, W), or None without `masks`."""
        image_path, mask_path = self._files[index]
        image = read_image(image_path)
        return image, None if mask_path is None else read_mask(mask_path, self.num_classes, image.shape[:2])

    def files(self, index: int) -> list[Path]:
        """The files that `dataset[index]` reads."""
        return [file for file in self._files[index] if file]

    @property
    def image_paths(self) -> list[Path]:
        """The image files, in the order of the image set."""
        return [image for image, _ in self._files]

    def masks(self) -> Iterator[np.ndarray]:
        """Yields every mask that there is, uint8 (H, W), in the order of the image set, without reading the images."""
        for path in (mask for _, mask in self._files if mask is not None):
            yield read_mask(path, self.num_classes)

    def _read_image_set(self) -> list[tuple[int, str]]:
        """Returns the image set's [(line number, name)]."""
        folder = self.root / "ImageSets" / "Segmentation"
        for wanted in (self.root, folder, self.root / "JPEGImages"):
            if not wanted.is_dir():
                raise DataError(f"{wanted}: no such folder. A VOC data set has ImageSets/Segmentation and JPEGImages.")
        path = folder / f"{self.image_set}.txt"
        if not path.is_file():
            there = sorted(file.stem for file in folder.glob("*.txt") if file.name != "classes.txt")
            raise DataError(f"{path}: no such image set. There are: {', '.join(there) or 'none'}.")
        lines = [(number, line.strip()) for number, line in enumerate(_read_lines(path), 1) if line.strip()]
        if not lines:
            raise DataError(f"{path}: this image set is empty.")
        return lines

    def _read_class_names(self) -> tuple[str, ...]:
        path = self.root / "ImageSets" / "Segmentation" / "classes.txt"
        return read_class_names(path) if path.is_file() else VOC_CLASSES

    def _find_files(self, lines: list[tuple[int, str]], with_masks: bool) -> list[tuple[Path, Path | None]]:
        """Returns [(image path, mask path or None)].

        Each folder is listed once: asking for every file is slow on a network.
        """
        images, masks, masks_aug = (
            {file.name: file for file in folder.iterdir()} if folder.is_dir() else {}
            for folder in (self.root / name for name in ("JPEGImages", "SegmentationClass", "SegmentationClassAug"))
        )
        masks |= masks_aug
        found, missing = [], []
        for number, name in lines:
            image = next((images[name + suffix] for suffix in IMAGE_SUFFIXES if name + suffix in images), None)
            mask = masks.get(f"{name}.png") if with_masks else None
            if image is None:
                missing.append((number, f"JPEGImages/{name}.jpg"))
            elif with_masks and mask is None:
                missing.append((number, f"SegmentationClass/{name}.png"))
            else:
                found.append((image, mask))
        if missing:
            number, file = missing[0]
            more = f", and {len(missing) - 1} more of its {len(lines)} lines miss a file" if missing[1:] else ""
            where = self.root / "ImageSets" / "Segmentation" / f"{self.image_set}.txt"
            raise DataError(f"{where}, line {number}: {self.root / file} is missing{more}.")
        return found


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Reads a classes.txt, one class a line and background first → tuple of str. Raises DataError for a bad one."""
    names = [line.strip() for line in _read_lines(path)]
    for number, name in enumerate(names, 1):
        if not name:
            raise DataError(f"{path}, line {number}: empty. Write one class name a line, background first.")
        if name in names[: number - 1]:
            raise DataError(f"{path}, line {number}: the class {name!r} is there twice.")
    if not 2 <= len(names) <= IGNORE_LABEL:
        raise DataError(f"{path}: must name 2 to {IGNORE_LABEL} classes, background included; found {len(names)}.")
    return tuple(names)


def _read_lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error}.") from error
