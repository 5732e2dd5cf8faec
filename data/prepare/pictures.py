"""Own pictures and masks: which belong together, and what the masks' values or colours mean."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.class_names import read_class_names, read_lines
from data.images import (
    IMAGE_SUFFIXES,
    LOSSY,
    DataError,
    image_format,
    mask_mode,
    read_indices,
    read_indices_and_palette,
    read_mask_colours,
)
from data.prepare.layout import Annotated, LeftOut
from data.voc import IGNORE_LABEL, palette

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Meaning:
    """What values or colours of masks mean.

    Attributes:
        names: of the classes, in order. colours: {colour: class}; None: the masks hold indices.
        values: {value in the mask: class}; of indices that are not in it, each is its own.
        only: whether other values than those of `values` are refused.
    """

    names: tuple[str, ...]
    colours: Mapping[Colour, int] | None = None
    values: Mapping[int, int] | None = None
    only: bool = False

    def read(self, path: Path) -> np.ndarray:
        """A mask, uint8 (H, W), of class indices and 255."""
        mask = _indices(path) if self.colours is None else _by_colour(path, self.colours)
        if self.values:
            table = np.arange(256, dtype=np.uint8)
            for value, label in self.values.items():
                table[value] = label
            if self.only and (strange := [v for v in np.unique(mask).tolist() if v not in self.values]):
                raise DataError(
                    f"{path}: holds {', '.join(map(str, strange))} beside {', '.join(map(str, self.values))}. Say what "
                    f"they are: --map {strange[0]}=CLASS,…"
                )
            mask = table[mask]
        if strange := [v for v in np.unique(mask).tolist() if v >= len(self.names) and v != IGNORE_LABEL]:
            raise DataError(
                f"{path}: holds {', '.join(map(str, strange))}, and there are {len(self.names)} classes, "
                f"{', '.join(self.names)}. --map {strange[0]}=255 ignores a value"
            )
        return mask


def annotated(images: Path, masks: Path, meaning: Meaning, left_out: LeftOut) -> Iterator[Annotated]:
    """Yields every picture under `images` whose mask is under `masks`."""
    for name, image, mask in matched(images, masks, left_out):
        yield Annotated(name, image, meaning.read(mask))


def matched(images: Path, masks: Path, left_out: LeftOut) -> list[tuple[str, Path, Path]]:
    """[(name, picture, mask)], by the pictures' names: a mask has the name, in the same sub-folder or in any, perhaps
    with an addition that all masks have (`photo_mask.png`).

    Raises DataError where nothing fits, or two pictures have one name.
    """
    pictures, found = _by_name(images), _by_name(masks)
    addition = "" if images.resolve() != masks.resolve() else None
    if addition is None or not any(name in found for name in pictures):
        addition = _addition(pictures, found) or ""
        if addition:
            pictures = {name: path for name, path in pictures.items() if not name.endswith(addition)}
    bare: dict[str, list[str]] = {}
    for name in found:
        bare.setdefault(name.rpartition("/")[2], []).append(name)
    pairs, used = [], set()
    for name, picture in pictures.items():
        anywhere = bare.get(name.rpartition("/")[2] + addition, [])
        mask = name + addition if name + addition in found else anywhere[0] if len(anywhere) == 1 else None
        if mask is None or found[mask] == picture:
            left_out.add("pictures without a mask", picture)
        else:
            pairs.append((name, picture, found[mask]))
            used.add(mask)
    for name, path in found.items():
        if name not in used and images.resolve() != masks.resolve():
            left_out.add("masks without a picture", path)
    if not pairs:
        raise DataError(f"{images}: no picture there has a mask of its name in {masks}.")
    return pairs


def _by_name(folder: Path) -> dict[str, Path]:
    """{path without ending: file} of all pictures under a folder, sorted, hidden ones left out."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in inside.parts):
            name = inside.with_suffix("").as_posix()
            if name in found:
                raise DataError(f"{path}: has the name of {found[name]}; which of them is meant? Remove one.")
            found[name] = path
    return found


def _addition(pictures: Mapping[str, Path], masks: Mapping[str, Path]) -> str | None:
    """What most masks' names have behind a picture's name."""
    bare = {name.rpartition("/")[2] for name in pictures}
    endings: Counter[str] = Counter()
    for name in (name.rpartition("/")[2] for name in masks):
        cuts = [at.start() for at in re.finditer(r"[_\-. ]", name) if name[: at.start()] in bare]
        endings.update(name[cut:] for cut in cuts[-1:])
    return endings.most_common(1)[0][0] if endings else None


# What masks mean


def meaning_of(
    masks: list[Path],
    *,
    classes: Path | None = None,
    colours: Path | None = None,
    foreground: int | None = None,
    changed: Mapping[int, int] | None = None,
) -> Meaning:
    """What the values or colours of these masks mean.

    Args:
        classes: a file of names. colours: CVAT's labelmap.txt, Roboflow's _classes.csv or a CSV of name, r, g, b.
        foreground: the value of the one class beside the background.
        changed: {value: class or 255}.

    Raises DataError where that does not go together, or the masks do not tell their classes.
    """
    named = read_class_names(classes) if classes else None
    changed = dict(changed or {})
    if foreground is not None:
        return Meaning(named or ("background", "object"), values={0: 0, foreground: 1} | changed, only=True)
    if colours is not None:
        told = read_colours(colours)
        return Meaning(named or told.names, told.colours, dict(told.values or {}) | changed or None)
    if found := _colours_of(masks):
        return _meaning_of_colours(found, named, changed)
    if named is None:
        highest = max((int(v) for path in masks for v in np.unique(_indices(path)) if v != IGNORE_LABEL), default=0)
        highest = max([v for v in range(highest + 1) if v not in changed], default=1)
        named = ("background", *(f"class {label}" for label in range(1, max(2, highest + 1))))
    return Meaning(named, values=changed or None)


def _colours_of(masks: list[Path]) -> list[Colour]:
    """The colours of masks whose values are no indices: none where all are grey or have one palette."""
    first: dict[int, Colour] = {}
    palettes_differ = False
    seen: Counter[Colour] = Counter()
    for path in masks:
        colours, indices = _colour_table(path)
        for value, colour in indices.items():
            palettes_differ |= first.setdefault(value, colour) != colour
        palettes_differ |= not indices and bool(colours)
        seen.update(colours)
    return [colour for colour, _ in sorted(seen.items(), key=lambda c: c[0])] if palettes_differ else []


def _colour_table(path: Path) -> tuple[set[Colour], dict[int, Colour]]:
    """The colours of a mask, and of one with a palette also {index: colour}; nothing of grey."""
    mode = mask_mode(path)
    if mode == "L":
        return set(), {}
    if mode == "P":
        mask, table = read_indices_and_palette(path)
        indices: dict[int, Colour] = {}
        for value in np.unique(mask).tolist():
            red, green, blue = table[3 * value : 3 * value + 3]
            indices[value] = (red, green, blue)
        return set(indices.values()), indices
    found = set().union(*(np.unique(codes).tolist() for codes in _codes(path)))
    return {_colour(code) for code in found}, {}


def _meaning_of_colours(found: list[Colour], named: tuple[str, ...] | None, changed: Mapping[int, int]) -> Meaning:
    vocs = {tuple(map(int, colour)): label for label, colour in enumerate(palette())}
    if all(colour in vocs for colour in found):
        labels = {colour: vocs[colour] for colour in found}
        highest = max((label for label in labels.values() if label != IGNORE_LABEL), default=1)
        names = named or ("background", *(f"class {label}" for label in range(1, highest + 1)))
    else:
        order = sorted(found, key=lambda colour: (colour != (0, 0, 0), colour))
        labels = {colour: label for label, colour in enumerate(order)}
        names = named or tuple(f"colour #{bytes(colour).hex()}" for colour in order)
        if len(order) > IGNORE_LABEL or len(names) < len(order):
            raise DataError(
                f"the masks have {len(order)} colours, and {len(names) if named else IGNORE_LABEL} classes are what "
                "there may be. Say which colour is which class: --colours FILE, or export them as PNG again."
            )
    return Meaning(names, labels, changed or None)


def read_colours(path: Path) -> Meaning:
    """CVAT's labelmap.txt (name:r,g,b:parts:actions), a CSV of name, r, g, b, or Roboflow's _classes.csv (Pixel Value,
    Class). The class `background` comes first.

    Raises DataError with the line that is neither.
    """
    colours: dict[str, Colour] = {}
    values: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, _, rest = text.rpartition(":") if text.count(":") == 1 else text.partition(":")
        cells = [cell.strip() for cell in next(csv.reader(io.StringIO(text)))]
        try:
            if ":" in text:
                _add(colours, name, _triple(rest.partition(":")[0].split(",")))
            elif len(cells) == 4:
                _add(colours, cells[0], _triple(cells[1:]))
            elif len(cells) == 2:
                values[cells[1]] = int(cells[0])
            else:
                raise ValueError("neither name:r,g,b nor name,r,g,b nor value,name")
        except ValueError as error:
            if number == 1 and not colours:  # a header
                continue
            raise DataError(f"{path}, line {number}: {text!r} cannot be read ({error}).") from error
    names = _background_first(list(colours or values))
    if len(names) < 2:
        raise DataError(f"{path}: names {len(names)} classes; a line each, as name:r,g,b or name,r,g,b or value,name.")
    if colours:
        return Meaning(names, {colours[name]: label for label, name in enumerate(names)})
    return Meaning(names, values={values[name]: label for label, name in enumerate(names)})


def _add(colours: dict[str, Colour], name: str, colour: Colour) -> None:
    if colour in colours.values() or name in colours:
        raise ValueError("the name or the colour is there twice")
    colours[name] = colour


def _indices(path: Path) -> np.ndarray:
    """A mask's values, uint8 (H, W), also of one that is grey in another format: black and white, or RGB alike."""
    if image_format(path) not in LOSSY and mask_mode(path) in ("1", "RGB", "RGBA", "LA"):
        pixels = read_mask_colours(path)
        if (pixels == pixels[..., :1]).all():
            return np.ascontiguousarray(pixels[..., 0])
    return read_indices(path)


def _triple(cells: list[str]) -> Colour:
    red, green, blue = (int(cell) for cell in cells)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError("colours are 0 … 255")
    return red, green, blue


def _background_first(names: list[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: name.lower() not in ("background", "_background_")))


def _codes(path: Path) -> Iterator[np.ndarray]:
    """Yields a mask's colours as numbers, int32 (W,), row by row."""
    for row in read_mask_colours(path):
        pixels = row.astype(np.int32)
        yield (pixels[:, 0] << 16) | (pixels[:, 1] << 8) | pixels[:, 2]


def _colour(code: int) -> Colour:
    return code >> 16, code >> 8 & 255, code & 255


def _by_colour(path: Path, colours: Mapping[Colour, int]) -> np.ndarray:
    rows, strange = [], set()
    for codes in _codes(path):
        found, places = np.unique(codes, return_inverse=True)
        named = [_colour(code) for code in found.tolist()]
        strange |= {colour for colour in named if colour not in colours}
        rows.append(np.array([colours.get(colour, IGNORE_LABEL) for colour in named], np.uint8)[places])
    if strange:
        raise DataError(
            f"{path}: has the colour {','.join(map(str, min(strange)))} ({len(strange)} such), which is no class's. "
            "Add it to the file of --colours."
        )
    return np.stack(rows)
