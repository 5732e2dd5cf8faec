"""A classification data set: folders, one a class, or a list of pictures with their classes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data.class_names import read_lines
from data.images import IMAGE_FORMATS, DataError, image_format, read_image

_SAID = f"{', '.join(IMAGE_FORMATS[:-1])} and {IMAGE_FORMATS[-1]}"


class LabelledPictures:
    """Pictures, each of a class; `dataset[i]` reads the i-th (image, label).

    Args:
        root: where they lie, or where that is said.
        turn, picture_range, accept_damaged: as of `data.images.read_image`.

    Attributes:
        samples: [(path, label)]. class_names: in label order. skipped: [(path, reason)] of files that were left out.

    Raises:
        DataError: `dataset[i]` for a broken file.
    """

    class_names: tuple[str, ...]

    def __init__(self, root: str | Path, **reading: Any) -> None:
        self.root = Path(root)
        self._reading = reading
        self.samples: list[tuple[Path, int]] = []
        self.skipped: list[tuple[Path, str]] = []

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns (image, label): uint8 (H, W, 3) RGB and an int."""
        path, label = self.samples[index]
        return read_image(path, **self._reading), label

    def files(self, index: int) -> list[Path]:
        """The files that `dataset[index]` reads."""
        return [self.samples[index][0]]

    @property
    def reading(self) -> tuple[Any, ...]:
        """What else a sample depends on."""
        return tuple(sorted(self._reading.items()))


class ImageFolder(LabelledPictures):
    """The images of `root/split/CLASS/`; `dataset[i]` reads the i-th (image, label).

    What a file is, its first bytes say, not its name; whatever is no JPEG, PNG, BMP, TIFF or WebP is left out and told
    in `skipped`. Hidden files and folders are passed over.

    Args:
        root: the folder that holds the splits.
        split: such as "train" or "val".
        strict: raise instead of skipping.
        class_names: the classes in label order, such as the training split's; None takes the folders' names, sorted.
        turn, picture_range, accept_damaged: as of `data.images.read_image`.

    Attributes:
        samples: [(path, label)], class by class, sorted.
        class_names, num_classes: the classes in label order.
        skipped: [(path, reason)].

    Raises:
        DataError: no such folder, no classes, a class without an image or that is not among `class_names`, and under
            `strict` anything that would be skipped; `dataset[i]` for a broken file.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        strict: bool = False,
        class_names: Iterable[str] | None = None,
        **reading: Any,
    ) -> None:
        super().__init__(root, **reading)
        self.split = split
        folder = self.root / split
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder. Images belong in ROOT/{split}/CLASS/.")
        folders = [entry for entry in _visible(folder) if entry.is_dir()]
        if not folders:
            raise DataError(f"{folder}: holds no class folders. Images belong in ROOT/{split}/CLASS/.")
        self.class_names = tuple(entry.name for entry in folders) if class_names is None else tuple(class_names)
        for entry in folders:
            self._add_class(entry)
        if strict and self.skipped:
            found = "\n".join(f"  {path}: {reason}" for path, reason in self.skipped)
            raise DataError(f"{folder}: {len(self.skipped)} files are not supported images:\n{found}")

    def _add_class(self, folder: Path) -> None:
        if folder.name not in self.class_names:
            raise DataError(f"{folder}: {folder.name!r} is none of the classes {', '.join(self.class_names)}.")
        label = self.class_names.index(folder.name)
        before = len(self.samples)
        for path in _visible(folder):
            reason = _why_not(path)
            if reason:
                self.skipped.append((path, reason))
            else:
                self.samples.append((path, label))
        if len(self.samples) == before:
            raise DataError(f"{folder}: holds no image: {_SAID} are read.")


class ImageList(LabelledPictures):
    """The images that a text file names, one a line: a path, from the list's own folder, and its class.

    Between the two is a tab, or where there is none the line's last space. Empty lines are passed over.

    Args:
        path: of the list.
        turn, picture_range, accept_damaged: as of `data.images.read_image`.

    Attributes:
        class_names: what the list calls the classes, names or numbers, in the order of their first picture.

    Raises:
        DataError: no text, a line without a path or class, a file that is missing or no image; there is no line.
    """

    def __init__(self, path: str | Path, **reading: Any) -> None:
        super().__init__(path, **reading)
        labels: dict[str, int] = {}
        for number, line in enumerate(map(str.strip, read_lines(path)), 1):
            if line:
                named, label = line.rsplit("\t" if "\t" in line else None, 1) if len(line.split()) > 1 else (line, "")
                picture = self.root.parent / named.strip()
                reason = _why_not(picture) if picture.exists() else "no such file"
                if not label or reason:
                    raise DataError(f"{path}, line {number}: {picture}: {reason or 'its class is missing'}.")
                self.samples.append((picture, labels.setdefault(label.strip(), len(labels))))
        if not self.samples:
            raise DataError(f"{path}: names no picture. Write one a line: its path and its class.")
        self.class_names = tuple(labels)


def labelled_pictures(
    data: str | Path, image_set: str, strict: bool = False, **reading: Any
) -> ImageFolder | ImageList:
    """The ImageFolder of `data` and `image_set`, or where `data` is a file the ImageList.

    Args:
        strict: as of ImageFolder. reading: as of `data.images.read_image`.
    """
    return ImageList(data, **reading) if Path(data).is_file() else ImageFolder(data, image_set, strict, **reading)


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _why_not(path: Path) -> str | None:
    """Says why `path` is no image to train on, or None where it is one."""
    if not path.is_file():
        return "a folder within a class folder"
    kind = image_format(path)
    return None if kind in IMAGE_FORMATS else f"{kind or 'unknown content'}; only {_SAID} are read"
