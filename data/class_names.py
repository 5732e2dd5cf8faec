"""The names of classes, from a text file: one a line, background first."""

import re
from pathlib import Path

from data.content import DataError, read_text

MOST_CLASSES = 255
# Where a data set's class names are looked for; the last two as labelme has them.
CLASS_FILES = ("ImageSets/Segmentation/classes.txt", "classes.txt", "class_names.txt", "labels.txt")
_LABELMES = {"_background_": "background"}
_LABELMES_IGNORED = "__ignore__"
_HEADERS = {
    "name",
    "names",
    "class",
    "classes",
    "label",
    "labels",
    "class_name",
    "class name",
    "class_names",
    "id",
    "index",
}
_HEADERS |= {"pixel value", "# name", "#name"}


def class_file(root: str | Path) -> Path | None:
    """The file that names the classes of the data set in `root`; None where there is none.

    Raises DataError where there are several that name others.
    """
    there = [path for path in (Path(root, name) for name in CLASS_FILES) if path.is_file()]
    for other in there[1:]:
        if read_class_names(other) != read_class_names(there[0]):
            raise DataError(f"{other}: names other classes than {there[0]}. Leave the one that is meant.")
    return there[0] if there else None


def read_class_names(path: str | Path, most: int = MOST_CLASSES) -> tuple[str, ...]:
    """Reads class names, one a line; of masks the background first.

    labelme's `labels.txt` is understood: its `__ignore__` is the label 255, its `_background_` the background.

    Raises DataError for an empty line, a header or comment, a name that is there twice, or fewer than 2 or more than
    `most` classes.
    """
    lines = [line.strip() for line in read_lines(path)]
    while lines and not lines[-1]:
        lines.pop()
    first = 2 if lines[:1] == [_LABELMES_IGNORED] else 1
    names: list[str] = []
    for number, line in enumerate(lines[first - 1 :], first):
        name = _LABELMES.get(line, line)
        if reason := _why_no_name(name, number):
            raise DataError(f"{path}, line {number}: {reason}. Write one class name a line, background first.")
        if name in names:
            raise DataError(f"{path}, line {number}: the class {name!r} is there twice.")
        names.append(name)
    if not 2 <= len(names) <= most:
        raise DataError(f"{path}: must name 2 to {most} classes, background included; found {len(names)}.")
    return tuple(names)


def _why_no_name(name: str, number: int) -> str | None:
    """What a line is instead of a class's name; None for a name."""
    if not name:
        return "empty"
    if name.startswith("#"):
        return f"{name!r} is a comment, and would be counted as a class"
    if number == 1 and re.split(r"[,;\t]", name)[0].strip().lower() in _HEADERS:
        return f"{name!r} is a header, and would be counted as a class"
    if "::" in name:
        return f"{name!r} is a line of CVAT's labelmap.txt, which prepare_data.py reads"
    if name == _LABELMES_IGNORED:
        return f"{name!r}, which is no class, can only be the first line"
    return None


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 file, without a byte order mark. Raises DataError."""
    return read_text(path).splitlines()
