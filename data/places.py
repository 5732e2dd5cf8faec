"""Where the data set is that a user means, the command that makes it where there is none, and whether there is room."""

import os
from collections.abc import Collection
from pathlib import Path

from errors import UserError

VOC_PLACES = ("VOC2012", "VOCdevkit/VOC2012", "data/VOC2012", "data/VOCdevkit/VOC2012")
_COMMAND = "python prepare_data.py voc --out"


def voc_folder(asked: str | os.PathLike | None, image_sets: Collection[str] = ()) -> str:
    """The folder in VOC's layout that is meant.

    Args:
        asked: what `--data` says; None is the first of VOC_PLACES that is there. A `VOCdevkit` means its `VOC2012`.
        image_sets: those that are to be read.

    Raises:
        UserError: there is none, or it is VOC as it comes, without the `trainaug` that is asked for: with the command
            that makes it.
    """
    if asked is None:
        asked = next((place for place in VOC_PLACES if Path(place).is_dir()), None)
        if asked is None:
            raise UserError(
                f"--data is not given, and here is none of {', '.join(VOC_PLACES)}. "
                f"`{_COMMAND} VOC2012` downloads VOC 2012 and makes trainaug of it."
            )
    path = Path(asked).expanduser()
    if path.name == "VOCdevkit" and not (path / "ImageSets").is_dir():
        path /= "VOC2012"
    if not path.is_dir() and path.name == "VOC2012":
        raise UserError(f"{path}: no such folder. `{_COMMAND} {path}` downloads VOC 2012 and makes trainaug of it.")
    lists = path / "ImageSets" / "Segmentation"
    if "trainaug" in image_sets and not (lists / "trainaug.txt").is_file() and (lists / "trainval.txt").is_file():
        raise UserError(
            f"{lists / 'trainaug.txt'}: no such image set. `{_COMMAND} {path}` makes it from VOC as it lies there "
            "and SBD's masks; --train-set train trains on VOC's alone."
        )
    return str(path)


def check_memory(images: int, side: int, what: str, values: int = 4) -> None:
    """Raises UserError where the pixels of so many squares are more than all of this machine's memory.

    Args:
        side: pixels.
        what: the flags that ask for them.
        values: of a pixel, of 4 bytes each: RGB and a label, or RGB and a logit a class.
    """
    needed, there = 4 * values * images * side**2, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(
            f"{what}: {images:,} x {side:,} x {side:,} pixels take {needed / 1e9:,.0f} GB, and this machine has "
            f"{there / 1e9:,.0f} GB of memory; ask for less"
        )
