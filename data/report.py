"""What data sets hold: every mask read once, a table of it, and what cannot have been meant.

Read again only where a file's size or time of change is another than the last time.
"""

import contextlib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import cv2
import msgspec
import numpy as np
from tqdm import tqdm

from data.image_sets import IMAGES, Listing, Pair
from data.images import (
    DataError,
    Header,
    deep_values,
    image_header,
    is_deep,
    read_indices_and_palette,
)
from data.voc import VOCSegmentation, strange_values
from files.records import Count, RecordError, read_json, sealed
from files.writing import WriteError, write_whole

_VERSION: Literal[2] = 2  # of what is remembered
_LOOKED_AT = 50  # pictures of more than 8 bits, for the range of their values
_EXACT = 2**24  # the largest count that OpenCV's histogram, of float32, tells from the next
_NO_TEXT = re.compile("[\ud800-\udfff]")  # bytes of a name that are not UTF-8
Value = Annotated[int, msgspec.Meta(ge=0, le=255)]  # of a mask's pixel


@dataclass(frozen=True)
class Facts:
    """What was found of one image and its mask.

    Attributes:
        image_size: (height, width) as stored. orientation: of the tag, 1 upright. deep: may have more than 8 bits.
        mask_size: (height, width); None without a mask.
        counts: {value: pixels of the mask}. colours: {value: its palette's colour, as hex}; none of grey.
        wrong: why image or mask cannot be used; empty for nothing.
    """

    image_size: tuple[Count, Count] = (0, 0)
    orientation: int = 1
    deep: bool = False
    mask_size: tuple[Count, Count] | None = None
    counts: dict[Value, Count] = field(default_factory=dict)
    colours: dict[Value, str] = field(default_factory=dict)
    wrong: str = ""


class Remembered(TypedDict):
    """What a scan keeps: {files with their sizes and times of change: what was found}."""

    version: Literal[2]
    images: dict[str, Facts]


def _facts(pair: Pair) -> Facts:
    try:
        header, deep = image_header(pair.image), is_deep(pair.image)
    except DataError as error:
        return Facts(wrong=str(error))
    found: dict[str, Any] = {"image_size": header.size, "orientation": header.orientation, "deep": deep}
    if pair.mask is None:
        return Facts(**found)
    try:
        mask, palette = read_indices_and_palette(pair.mask)
    except DataError as error:
        return Facts(**found, wrong=str(error))
    counts = _counts(mask)
    return Facts(**found, mask_size=(mask.shape[0], mask.shape[1]), counts=counts, colours=_colours(palette, counts))


def _counts(mask: np.ndarray) -> dict[int, int]:
    if mask.size < _EXACT:  # in a tenth of NumPy's time
        histogram = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()
    else:
        histogram = np.bincount(mask.ravel(), minlength=256)
    return {int(value): int(histogram[value]) for value in np.flatnonzero(histogram)}


def _colours(palette: bytes, values: Iterable[int]) -> dict[int, str]:
    """The colours of these values; none where the palette is grey's own."""
    colours = {value: palette[3 * value : 3 * value + 3].hex() for value in values if 3 * value + 3 <= len(palette)}
    return {} if all(colour == bytes([value] * 3).hex() for value, colour in colours.items()) else colours


def scan(dataset: VOCSegmentation, remember: Path | None = None, workers: int | None = None) -> list[Facts]:
    """Reads every mask of an image set, and the headers of its images, in threads → [Facts], in its order.

    Args:
        remember: a folder that keeps what was found, by the files' sizes and times of change.
    """
    name = hashlib.sha256(f"{dataset.root.resolve()}\n{dataset.image_set}".encode()).hexdigest()[:24]
    file = remember / f"{name}.json" if remember else None
    known = _read_remembered(file)
    keys = [_key(pair) for pair in dataset.pairs]
    new = [pair for pair, key in zip(dataset.pairs, keys, strict=True) if key not in known]
    with ThreadPoolExecutor(workers or os.cpu_count()) as threads:
        reading = threads.map(_facts, new)
        said = f"{dataset.image_set}: masks"
        found = iter(list(tqdm(reading, total=len(new), desc=said, unit=" images", disable=None if new else True)))
    facts = [known[key] if key in known else next(found) for key in keys]
    if new and file:
        _remember(file, dict(zip(keys, facts, strict=True)))
    return facts


def _key(pair: Pair) -> str:
    def told(path: Path | None) -> str:
        if path is None:
            return ""
        try:
            found = os.stat(path)
        except OSError:
            return f"{path}"
        return f"{path} {found.st_size} {found.st_mtime_ns}"

    return f"{told(pair.image)}|{told(pair.mask)}"


def _read_remembered(file: Path | None) -> dict[str, Facts]:
    try:
        return read_json(file, Remembered, "All is read again")["images"] if file else {}
    except RecordError:  # none yet, a damaged one, or one of another version
        return {}


def _remember(file: Path, facts: dict[str, Facts]) -> None:
    told = {key: asdict(found) for key, found in facts.items() if not _NO_TEXT.search(key + found.wrong)}
    kept = {"version": _VERSION, "images": told}
    with contextlib.suppress(WriteError):  # the next time, all is read again
        write_whole(file, sealed(kept))


@dataclass(frozen=True)
class ScannedSet:
    """An image set and what was found of its images."""

    dataset: VOCSegmentation
    facts: Sequence[Facts]

    @property
    def name(self) -> str:
        """Of the image set."""
        return self.dataset.image_set

    @cached_property
    def pixels(self) -> np.ndarray:
        """int64 (256,): pixels of each value of the masks."""
        return self._total(lambda pixels: pixels)

    @cached_property
    def images(self) -> np.ndarray:
        """int64 (256,): images that have each value."""
        return self._total(lambda pixels: 1)

    def _total(self, counted: Callable[[int], int]) -> np.ndarray:
        total = np.zeros(256, np.int64)
        for facts in self.facts:
            for value, pixels in facts.counts.items():
                total[value] += counted(pixels)
        return total

    @property
    def ignored(self) -> float:
        """The share of pixels that do not count."""
        return float(self.pixels[self.dataset.ignore_label] / max(1, self.pixels.sum()))

    @property
    def found_classes(self) -> list[int]:
        """The classes that have pixels."""
        label, classes = self.dataset.ignore_label, self.dataset.num_classes
        return [value for value in range(classes) if self.pixels[value] and value != label]

    @property
    def class_pixels(self) -> np.ndarray:
        """int64 (classes,): pixels of each class that count."""
        pixels = self.pixels.copy()
        pixels[self.dataset.ignore_label] = 0
        return pixels[: self.dataset.num_classes]

    def seen_size(self, facts: Facts, turn: bool) -> tuple[int, int]:
        """(height, width) of an image, turned as its tag says or not."""
        header = Header(facts.image_size, facts.orientation)
        return header.turned_size if turn else header.size

    def pairs(self) -> Iterator[tuple[Pair, Facts]]:
        """Yields (Pair, Facts) of each image."""
        return zip(self.dataset.pairs, self.facts, strict=True)


class DataReport:
    """Of the image sets that a program reads: prints as a table; `check` stops at what cannot have been meant.

    Args:
        sets: of one data set; of a training first the set that is learnt from.
        trains: whether the first is learnt from, and so must have a pixel of each class.
        allow_absent: names of classes that it need not have.
        allow_repeats: whether images may be in two sets, or twice in one.
    """

    def __init__(
        self,
        sets: Sequence[ScannedSet],
        *,
        trains: bool = False,
        allow_absent: Collection[str] = (),
        allow_repeats: bool = False,
    ) -> None:
        self.sets, self.trains = sets, trains
        self.allow_absent, self.allow_repeats = allow_absent, allow_repeats
        self.dataset = sets[0].dataset

    @property
    def train_pixels(self) -> np.ndarray:
        """int64 (classes,): pixels of each class in the first set."""
        return self.sets[0].class_pixels

    def check(self) -> None:
        """Raises DataError that names all of what cannot have been meant, each with a file and what to do."""
        if problems := list(self.problems()):
            raise DataError("\n  ".join(problems) if len(problems) == 1 else "\n  ".join(["the data:", *problems]))

    def problems(self) -> Iterator[str]:
        """Yields what cannot have been meant, a text each."""
        for found in self.sets:
            yield from filter(None, (_unusable(found), _too_deep(found), _sizes(found), _values(found)))
            if not self.allow_repeats:
                yield from _twice(found)
        if problem := _palettes(self.sets):
            yield problem
        one_class = [problem for found in self.sets if (problem := _one_class(found))]
        yield from one_class[:1]
        if self.trains:
            if not one_class and (problem := self._absent()):
                yield problem
            if not self.allow_repeats and (problem := _overlap(self.sets)):
                yield problem

    def _absent(self) -> str | None:
        found, names = self.sets[0], self.dataset.class_names
        if unknown := [name for name in self.allow_absent if name not in names]:
            return f"--allow-absent {','.join(unknown)}: none of the classes {', '.join(names)}."
        present = set(found.found_classes)
        absent = [n for label, n in enumerate(names) if label not in present and n not in self.allow_absent]
        if not absent:
            return None
        every = [n for label, n in enumerate(names) if label not in present]
        return (
            f"{self.dataset.classes_from}: names {len(names)} classes, and no pixel of the {len(found.facts)} masks of "
            f"`{found.name}` is {', '.join(absent)}. Is a line too many in the list, or are its classes in another "
            f"order? If they are meant to be absent: --allow-absent {','.join(every)}"
        )

    def summary(self) -> str:
        """The report without the table of classes."""
        lines = [f"data {self.dataset.root}: classes from {self.dataset.classes_from}"]
        lines += [_described(found) for found in self.sets]
        if left_out := self._left_out():
            lines.append(left_out)
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{self.summary()}\n{self._table()}"

    def _table(self) -> str:
        """A row a class: its share of pixels, and the share of images that have it, in each set."""
        names = (*self.dataset.class_names, "ignored")
        width = max(map(len, names))
        head = f"{'class':<{width}}" + "".join(f"  {found.name + ' pixels':>15} {'images':>8}" for found in self.sets)
        rows = [head]
        for label, name in zip((*range(self.dataset.num_classes), self.dataset.ignore_label), names, strict=True):
            cells = []
            for found in self.sets:
                counted = name == "ignored" or label != self.dataset.ignore_label
                pixels, images = (found.pixels[label], found.images[label]) if counted else (0, 0)
                total = max(1, int(found.pixels.sum()))
                cells.append(f"  {_share(pixels, total):>15} {_share(images, len(found.facts)):>8}")
            rows.append(f"{name:<{width}}" + "".join(cells))
        return "\n".join(rows)

    def _left_out(self) -> str:
        """How many pictures are in none of the sets."""
        there = Listing(self.dataset.root / IMAGES).names()
        rest = sorted(there - {pair.image.stem for found in self.sets for pair in found.dataset.pairs})
        if not rest:
            return ""
        sets = " or ".join(f"`{found.name}`" for found in self.sets)
        return f"  left out: {len(rest):,} of {len(there):,} pictures in {IMAGES} are not in {sets}, such as {rest[0]}"


def report_on(
    datasets: Sequence[VOCSegmentation],
    *,
    trains: bool = False,
    allow_absent: Collection[str] = (),
    allow_repeats: bool = False,
    remember: Path | None = None,
) -> DataReport:
    """Scans image sets; `remember` is a folder for what was found."""
    sets = [ScannedSet(dataset, scan(dataset, remember)) for dataset in datasets]
    return DataReport(sets, trains=trains, allow_absent=allow_absent, allow_repeats=allow_repeats)


def _share(part: int, whole: int) -> str:
    if not part:
        return "–"
    percent = 100 * part / whole
    return f"{percent:.1f} %" if percent >= 0.05 else "< 0.1 %"


def _described(found: ScannedSet) -> str:
    """One set in a line: images, where masks came from, sizes, orientations."""
    dataset = found.dataset
    text = f"  {found.name}: {len(found.facts):,} images"
    folders = Counter(pair.mask.parent.name for pair in dataset.pairs if pair.mask)
    if folders:
        text += ", masks " + ", ".join(f"{count:,} from {folder}" for folder, count in folders.most_common())
    sizes = Counter(found.seen_size(facts, dataset.turn)[::-1] for facts in found.facts)
    (width, height), count = sizes.most_common(1)[0]
    text += f"; {width}x{height}" + (f" ({count:,}) and {len(sizes) - 1} other sizes" if len(sizes) > 1 else "")
    if tagged := sum(facts.orientation != 1 for facts in found.facts):
        text += f"; {tagged:,} carry an orientation, {'turned' if dataset.turn else 'ignored'}"
    return text


# What cannot have been meant


def _unusable(found: ScannedSet) -> str | None:
    wrong = [facts.wrong for facts in found.facts if facts.wrong]
    return wrong[0] + _and_more(len(wrong), found) if wrong else None


def _and_more(count: int, found: ScannedSet) -> str:
    return f" ({count:,} of the {len(found.facts):,} of `{found.name}` are so.)" if count > 1 else ""


def _too_deep(found: ScannedSet) -> str | None:
    if found.dataset.picture_range is not None:
        return None
    deep = [pair.image for pair, facts in found.pairs() if facts.deep]
    looked_at = deep[:: max(1, len(deep) // _LOOKED_AT)]
    ranges = [(path, values) for path in looked_at if (values := deep_values(path))]
    if not ranges:
        return None
    low, high = min(values[0] for _, values in ranges), max(values[1] for _, values in ranges)
    return (
        f"{ranges[0][0]}: has values of more than 8 bits; in {len(ranges)} such pictures of `{found.name}` they are "
        f"{low:g} … {high:g}. Say which are black and white: --picture-range {low:g},{high:g}"
    )


def _sizes(found: ScannedSet) -> str | None:
    turn = found.dataset.turn
    checked = [(pair, facts) for pair, facts in found.pairs() if facts.mask_size]
    wrong = [(pair, facts) for pair, facts in checked if facts.mask_size != found.seen_size(facts, turn)]
    if not wrong:
        return None
    pair, facts = wrong[0]
    assert facts.mask_size is not None
    (mask_height, mask_width), (height, width) = facts.mask_size, found.seen_size(facts, turn)
    text = f"{pair.mask}: the mask is {mask_width}x{mask_height} pixels (width x height), its image {width}x{height}."
    if all(facts.mask_size == found.seen_size(facts, not turn) for _, facts in checked):
        text += (
            " The image was turned as its EXIF orientation says; the masks fit the pictures as they are stored: "
            "--ignore-orientation"
            if turn
            else " Turned as its EXIF orientation says, the image fits: leave out --ignore-orientation"
        )
    elif any(facts.mask_size == found.seen_size(facts, not turn) for _, facts in wrong):
        text += " Some of them fit turned as their EXIF orientation says and some as they are stored: mend the files."
    return text + _and_more(len(wrong), found)


def _values(found: ScannedSet) -> str | None:
    dataset = found.dataset
    wrong = [
        (pair, facts)
        for pair, facts in found.pairs()
        if any(value >= dataset.num_classes and value != dataset.ignore_label for value in facts.counts)
    ]
    if not wrong:
        return None
    pair, facts = wrong[0]
    return f"{pair.mask}: {strange_values(facts.counts, dataset.num_classes, dataset.ignore_label)}" + _and_more(
        len(wrong), found
    )


def _palettes(sets: Sequence[ScannedSet]) -> str | None:
    """Whether one value has different colours in different masks: then the values are not the classes."""
    first: dict[int, tuple[str, Path | None]] = {}
    for found in sets:
        for pair, facts in found.pairs():
            for value, colour in facts.colours.items():
                if value == found.dataset.ignore_label:
                    continue
                before, other = first.setdefault(value, (colour, pair.mask))
                if before != colour:
                    return (
                        f"{pair.mask}: the palette differs from that of {other}: the value {value} is the colour "
                        f"#{colour} here and #{before} there, so values are not classes. Masks of colours become "
                        "masks of classes by: python prepare_data.py pictures --colours FILE"
                    )
    return None


def _one_class(found: ScannedSet) -> str | None:
    """Whether all that is not ignored is one class, as where masks of 0 and 255 say background and object."""
    dataset = found.dataset
    if len(found.found_classes) > 1 or not found.ignored or int(found.pixels.sum()) == 0:
        return None
    there = [dataset.class_names[label] for label in found.found_classes]
    absent = [name for name in dataset.class_names if name not in there]
    path = next(pair.mask for pair, facts in found.pairs() if dataset.ignore_label in facts.counts)
    return (
        f"{path}: in `{found.name}`, {dataset.ignore_label} covers {100 * found.ignored:.1f} % and is ignored, all "
        f"else is {', '.join(there) or 'nothing'}; class {', '.join(absent)} has no pixel. If {dataset.ignore_label} "
        "means a class, as in 0/255 masks of annotation tools: python prepare_data.py pictures --images "
        f"{dataset.root / IMAGES} --masks {path.parent if path else ''} --foreground {dataset.ignore_label} --out "
        "NEW_FOLDER"
    )


def _twice(found: ScannedSet) -> Iterator[str]:
    images = Counter(pair.image for pair in found.dataset.pairs)
    twice = [path for path, count in images.items() if count > 1]
    if twice:
        yield (
            f"`{found.name}` lists {len(twice):,} images twice, such as {twice[0]}. Remove the lines, or say "
            "--allow-repeats"
        )


def _overlap(sets: Sequence[ScannedSet]) -> str | None:
    train, val = (([pair.image for pair in found.dataset.pairs]) for found in sets[:2])
    both = sorted(set(train) & set(val))
    if not both:
        return None
    return (
        f"`{sets[0].name}` and `{sets[1].name}` have {len(both):,} images in common, such as {both[0]}: scores on what "
        "was learnt by heart say nothing. Take them out of one, or say --allow-repeats"
    )
