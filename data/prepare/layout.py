"""VOC's layout, written from images and masks that something else found."""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.class_names import CLASS_FILES
from data.image_sets import IMAGES, MASKS, set_file
from data.images import DataError, image_size
from data.voc import write_mask
from files.writing import folder_in, write_whole


@dataclass(frozen=True)
class Annotated:
    """An image and the mask that was made for it.

    Attributes:
        name: its path in the new data set, without ending. image: the file. mask: uint8 (H, W), class indices and 255.
    """

    name: str
    image: Path
    mask: np.ndarray


@dataclass
class LeftOut:
    """What was not taken over, and why: {reason: [what]}."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, what: object) -> None:
        """Keeps one more thing that was left out."""
        self.found.setdefault(reason, []).append(str(what))

    def __str__(self) -> str:
        return "\n".join(f"left out: {len(all_)} {why}, such as {all_[0]}" for why, all_ in self.found.items())


def write_data_set(
    out: Path,
    samples: Iterable[Annotated],
    class_names: Sequence[str],
    *,
    val_share: float = 0.2,
    seed: int = 0,
    link: bool = False,
    finish: Callable[[Path], None] = lambda data: None,
) -> tuple[int, int]:
    """Writes a data set in VOC's layout: images as they are, palette masks, `train`, `val` and `classes.txt`.

    Args:
        out: a new or empty folder.
        val_share: of the images, chosen by the seed; one at least is in either set.
        link: images are linked instead of copied.
        finish: writes more into the data set, before it gets its name.

    Returns:
        how many images are in `train` and in `val`.

    Raises:
        DataError: a folder with something in it, fewer than two images, a mask of another size than its image.
    """
    with folder_in(out.parent) as beside_it:  # which clears what one that was killed has left, a finished one too
        if out.is_dir() and any(out.iterdir()):
            raise DataError(f"{out}: is not empty; name a new folder.")
        data = beside_it / "data"
        names = _write_samples(data, samples, link)
        sets = _write_sets(data, out, names, class_names, val_share, seed)
        finish(data)
        data.replace(out)
    return sets


def _write_samples(out: Path, samples: Iterable[Annotated], link: bool) -> list[str]:
    """Writes images and masks → the names."""
    names: list[str] = []
    for sample in samples:
        _check_size(sample)
        image = out / IMAGES / f"{sample.name}{sample.image.suffix}"
        image.parent.mkdir(parents=True, exist_ok=True)
        if link:
            os.symlink(sample.image.resolve(), image)
        else:
            shutil.copyfile(sample.image, image)
        write_mask(out / MASKS[0] / f"{sample.name}.png", sample.mask)
        names.append(sample.name)
    return names


def _write_sets(
    data: Path, out: Path, names: Sequence[str], class_names: Sequence[str], val_share: float, seed: int
) -> tuple[int, int]:
    """Writes the lists and the class file → how many images are in `train` and in `val`."""
    if len(names) < 2:
        raise DataError(f"{out}: of {len(names)} images, none can be kept for validation; give two or more.")
    count = min(max(1, round(val_share * len(names))), len(names) - 1)
    chosen = set(np.random.default_rng(seed).permutation(len(names))[:count].tolist())
    sets: dict[str, list[str]] = {"train": [], "val": []}
    for index, name in enumerate(names):
        sets["val" if index in chosen else "train"].append(name)
    for image_set, lines in sets.items():
        write_whole(set_file(data, image_set), _as_lines(lines))
    write_whole(data / CLASS_FILES[0], _as_lines(class_names))
    return len(sets["train"]), count


def _as_lines(names: Iterable[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


def _check_size(sample: Annotated) -> None:
    size, height, width = image_size(sample.image), *sample.mask.shape
    if size != (height, width):
        stored = " as it is stored, but not turned as its EXIF orientation says, as annotation tools show it"
        fits = image_size(sample.image, turn=False) == (height, width)
        raise DataError(
            f"{sample.image}: is {size[1]}x{size[0]} pixels (width x height), its mask {width}x{height}"
            f"{': it fits' + stored if fits else ''}."
        )
