"""A classification data set as folders: one folder a class."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data.images import IMAGE_FORMATS, DataError, image_format, read_image

_SAID = f"{', '.join(IMAGE_FORMATS[:-1])} and {IMAGE_FORMATS[-1]}"


class ImageFolder:
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
        *,
        turn: bool = True,
        picture_range: tuple[float, float] | None = None,
        accept_damaged: bool = False,
    ) -> None:
        self.root, self.split = Path(root), split
        self.turn, self.picture_range, self.accept_damaged = turn, picture_range, accept_damaged
        folder = self.root / split
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder. Images belong in ROOT/{split}/CLASS/.")
        folders = [entry for entry in _visible(folder) if entry.is_dir()]
        if not folders:
            raise DataError(f"{folder}: holds no class folders. Images belong in ROOT/{split}/CLASS/.")
        self.class_names = tuple(entry.name for entry in folders) if class_names is None else tuple(class_names)
        self.num_classes = len(self.class_names)
        self.samples: list[tuple[Path, int]] = []
        self.skipped: list[tuple[Path, str]] = []
        for entry in folders:
            self._add_class(entry)
        if strict and self.skipped:
            found = "\n".join(f"  {path}: {reason}" for path, reason in self.skipped)
            raise DataError(f"{folder}: {len(self.skipped)} files are not supported images:\n{found}")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns (image, label): uint8 (H, W, 3) RGB and an int."""
        path, label = self.samples[index]
        return self._read(path), label

    def _read(self, path: Path) -> np.ndarray:
        return read_image(path, turn=self.turn, picture_range=self.picture_range, accept_damaged=self.accept_damaged)

    def files(self, index: int) -> list[Path]:
        """The files that `dataset[index]` reads."""
        return [self.samples[index][0]]

    @property
    def reading(self) -> tuple[Any, ...]:
        """What else a sample depends on."""
        return self.turn, self.picture_range, self.accept_damaged

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


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _why_not(path: Path) -> str | None:
    """Says why `path` is no image to train on, or None where it is one."""
    if not path.is_file():
        return "a folder within a class folder"
    kind = image_format(path)
    return None if kind in IMAGE_FORMATS else f"{kind or 'unknown content'}; only {_SAID} are read"
