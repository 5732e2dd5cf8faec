"""What the data of a run were: so that it is not continued on others without a word."""

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.datasets import FileDataset

NAMED = 3  # how many of what changed are named

Row = tuple[str, ...]  # an image, as its place in the data set, and the bytes of each of its files


@dataclass(frozen=True)
class RunData:
    """The images of each set, in order.

    Attributes:
        sets: {set: [(name, bytes of its picture, bytes of its mask …)]}, all as text.
    """

    sets: dict[str, list[Row]]

    @classmethod
    def of(cls, datasets: Mapping[str, FileDataset], root: str | Path) -> "RunData":
        """Looks at the files of data sets {what for: data set}, whose names are relative to `root`."""
        return cls({name: [_row(dataset.files(index), str(root)) for index in range(len(dataset))]
                    for name, dataset in datasets.items()})  # fmt: skip

    @classmethod
    def read(cls, text: str) -> "RunData":
        """Of what `csv` wrote. Raises ValueError."""
        sets: dict[str, list[Row]] = {}
        for row in csv.reader(io.StringIO(text), strict=True):
            if len(row) < 2:
                raise ValueError(f"a line of {len(row)} cells")
            sets.setdefault(row[0], []).append(tuple(row[1:]))
        return cls(sets)

    def csv(self) -> str:
        """One line an image: its set, its name, its files' bytes."""
        lines = io.StringIO()
        cells = ([name, *row] for name, rows in self.sets.items() for row in rows)
        csv.writer(lines, lineterminator="\n").writerows(cells)
        return lines.getvalue()

    def summary(self) -> dict[str, Any]:
        """What `config.json` holds of it: numbers for people, and the sum that the whole of it has."""
        return {
            "sets": {
                name: {"images": len(rows), "bytes": sum(int(size) for row in rows for size in row[1:] if size)}
                for name, rows in self.sets.items()
            },
            "sha256": sha256(self.csv()),
        }

    def changes(self, before: "RunData") -> list[str]:
        """What is no longer as it was, in words; nothing where all is."""
        found = []
        for name in dict.fromkeys((*before.sets, *self.sets)):
            was, now = before.sets.get(name, []), self.sets.get(name, [])
            if was != now:
                found.append(f"{name}: {'; '.join(_changes(was, now))}")
        return found


def sha256(text: str) -> str:
    """The SHA-256 of a text, in digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _row(files: Sequence[Path | None], root: str) -> Row:
    sizes = tuple("" if file is None else _bytes(file) for file in files)
    return (os.path.relpath(str(files[0]), root), *sizes)


def _bytes(file: Path) -> str:
    try:
        return str(os.stat(file).st_size)
    except OSError:  # reading it will say what is wrong
        return ""


def _changes(was: Sequence[Row], now: Sequence[Row]) -> list[str]:
    gone, new = Counter(row[0] for row in was), Counter(row[0] for row in now)
    sizes = {row[0]: row[1:] for row in was}
    other = [f"{row[0]} ({_sizes(sizes[row[0]])} → {_sizes(row[1:])} bytes)" for row in now
             if row[0] in sizes and sizes[row[0]] != row[1:]]  # fmt: skip
    parts = [
        _some("images fewer", list((gone - new).elements())),
        _some("images more", list((new - gone).elements())),
        _some("other files", other),
    ]
    return [part for part in parts if part] or ["the images in another order"]


def _sizes(sizes: Row) -> str:
    return " and ".join(f"{int(size):,}" if size.isdecimal() else "no" for size in sizes)


def _some(what: str, which: Sequence[str]) -> str:
    more = f" and {len(which) - NAMED:,} more" if len(which) > NAMED else ""
    return f"{len(which):,} {what}: {', '.join(which[:NAMED])}{more}" if which else ""
