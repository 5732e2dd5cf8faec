"""Image sets: lists of images, in the several ways in which people write them, and the files that their lines mean."""

import os
from dataclasses import dataclass
from pathlib import Path

from data.class_names import read_lines
from data.images import IMAGE_SUFFIXES, DataError

IMAGES = "JPEGImages"
# The official masks, with their borders, win over those made for trainaug.
MASKS = ("SegmentationClass", "SegmentationClassAug")
_MASK_SUFFIXES = (".png", *(suffix for suffix in IMAGE_SUFFIXES if suffix != ".png"))
_ONE_CLASS = {"-1", "0", "1"}


@dataclass(frozen=True)
class Pair:
    """An image of a set.

    Attributes:
        name: its path within JPEGImages, without ending. image, mask: the files; no mask where none is asked for.
    """

    name: str
    image: Path
    mask: Path | None


def set_file(root: Path, image_set: str) -> Path:
    """The list of an image set."""
    return root / "ImageSets" / "Segmentation" / f"{image_set}.txt"


def read_image_set(root: Path, image_set: str, masks: bool) -> list[Pair]:
    """The images of a set, in its order.

    A line names an image by its name, with or without ending, perhaps with a folder within JPEGImages; or by a path
    from the data set's root; or it names image and mask by such paths. Endings are of any case.

    Args:
        masks: whether each image needs a mask.

    Raises DataError for missing folders, an empty or missing list, and a line without its files.
    """
    path = _existing_list(root, image_set)
    lines = [(number, line.strip()) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path}: this image set is empty.")
    files = _Files(root)
    pairs, wrong = [], []
    for number, line in lines:
        try:
            pairs.append(files.pair(line, masks))
        except _LineError as error:
            wrong.append((number, error))
    if wrong:
        number, reason = wrong[0]
        more = f", and {len(wrong) - 1} more of its {len(lines)} lines miss a file" if wrong[1:] else ""
        raise DataError(f"{path}, line {number}: {reason}{more}.")
    return pairs


def _existing_list(root: Path, image_set: str) -> Path:
    path = set_file(root, image_set)
    for wanted in (root, path.parent, root / IMAGES):
        if not wanted.is_dir():
            raise DataError(
                f"{wanted}: no such folder. A VOC data set has ImageSets/Segmentation and {IMAGES}."
                f"{_lists_from_folders(root) if wanted == path.parent else ''}"
            )
    if not path.is_file():
        there = sorted(file.stem for file in path.parent.glob("*.txt") if file.name != "classes.txt")
        raise DataError(f"{path}: no such image set. There are: {', '.join(there) or 'none'}.")
    return path


def _lists_from_folders(root: Path) -> str:
    """What to do where pictures and masks are there and no lists, as in labelme's export."""
    folder = next((root / folder for folder in MASKS if (root / folder).is_dir()), None)
    if folder is None:
        return ""
    return (
        " Of pictures and masks, this makes such a data set: python prepare_data.py pictures --images "
        f"{root / IMAGES} --masks {folder} --out NEW_FOLDER"
    )


class _LineError(Exception):
    """Why a line of a list is not read."""


class _Files:
    """The files that lines of a data set's lists mean."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = Listing(root / IMAGES)
        self.masks = [Listing(root / folder) for folder in MASKS]

    def pair(self, line: str, with_mask: bool) -> Pair:
        """What a line means. Raises _LineError."""
        name, told = within(line, (IMAGES,)), None
        image = self.images.find(name)
        tokens = line.replace(",", " ").split()
        if image is None and len(tokens) == 2:
            if tokens[1] in _ONE_CLASS:
                raise _LineError(f"{line!r} is of a list for one class, as in ImageSets/Main; this needs a name a line")
            name, told = within(tokens[0], (IMAGES,)), tokens[1]
            image = self.images.find(name)
        if image is None:
            raise _LineError(f"{self.root / IMAGES / without_ending(name)}.jpg is missing")
        name = without_ending(name) if self._has_own_ending(name, image) else name
        return Pair(name, image, self._mask(told or name, told is not None) if with_mask else None)

    @staticmethod
    def _has_own_ending(name: str, image: Path) -> bool:
        return image.stem != name.rpartition("/")[2]

    def _mask(self, name: str, told: bool) -> Path:
        """The mask of that name; of a `told` one, the path may lead to another folder."""
        inside = within(name, MASKS)
        for masks in self.masks:
            if (found := masks.find(inside, _MASK_SUFFIXES)) is not None:
                return found
        elsewhere = self.root / inside
        if told and ".." not in elsewhere.parts and elsewhere.is_file():
            return elsewhere
        raise _LineError(f"{self.root / MASKS[0] / without_ending(inside)}.png is missing")


class Listing:
    """The pictures under a folder by name, whatever the case of their endings.

    Each folder is listed once: asking for every file is slow on a network.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[str, dict[str, dict[str, str]]] = {}

    def find(self, name: str, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> Path | None:
        """The picture of that name, with or without its ending; of several, the first by `suffixes`."""
        parent, _, last = name.rpartition("/")
        stems = self._stems(parent)
        for stem, wanted in ((last, ""), (without_ending(last), Path(last).suffix.lower())):
            if endings := stems.get(stem):
                order = (wanted, *suffixes)
                suffix = next((suffix for suffix in order if suffix in endings), None)
                return None if suffix is None else self.folder / parent / endings[suffix]
        return None

    def _stems(self, parent: str) -> dict[str, dict[str, str]]:
        """{stem: {ending in small letters: file name}} of a folder."""
        if parent not in self._listed:
            stems: dict[str, dict[str, str]] = {}
            if ".." not in parent.split("/") and (self.folder / parent).is_dir():
                for file in sorted(os.listdir(self.folder / parent)):
                    stem, ending = os.path.splitext(file)
                    if ending.lower() in IMAGE_SUFFIXES:
                        stems.setdefault(stem, {}).setdefault(ending.lower(), file)
            self._listed[parent] = stems
        return self._listed[parent]

    def names(self) -> set[str]:
        """The names of all pictures directly in the folder."""
        return set(self._stems(""))


def within(text: str, folders: tuple[str, ...]) -> str:
    """A path as written in a list → the path within one of the folders, where it leads through one; no leading `/`."""
    path = text.replace("\\", "/").removeprefix("./").lstrip("/")
    for folder in folders:
        _, found, inside = f"/{path}".rpartition(f"/{folder}/")
        if found:
            return inside
    return path


def without_ending(name: str) -> str:
    """A name without a picture's ending."""
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in IMAGE_SUFFIXES else name
