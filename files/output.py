"""Folders of predictions, each of which says itself that it is one: nothing else is ever replaced there."""

import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from errors import UserError
from files.writing import make_folder

_HEADER = 33  # bytes before a PNG's second chunk: signature 8, then IHDR's length 4, type 4, data 13, CRC 4
_ARCHIVE = {"probabilities.npy", "class_names.npy"}  # what a prediction's .npz holds
CLASSES_HEAD = "picture,class_1,probability_1"  # what a table of classified pictures begins with


def _text_chunk(keyword: str, text: str) -> bytes:
    body = b"tEXt" + keyword.encode("latin-1") + b"\0" + text.encode("latin-1")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


_MARK = _text_chunk("Software", "slim-deeplab prediction")


def marked(png: bytes) -> bytes:
    """A PNG that says that it is a prediction: as its software, in the keyword of the format's standard."""
    return png[:_HEADER] + _MARK + png[_HEADER:]


def claim(folder: str | Path, flag: str, overwrite: bool = False) -> None:
    """Makes the folder that predictions are about to be written to.

    Args:
        flag: that named it, for the error's text.
        overwrite: whether it may hold anything else than predictions.

    Raises:
        UserError: it is a file, or holds other files than predictions. Hidden ones do not count.
        WriteError: it cannot be written to.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{flag} {folder}: is a file; name a folder")
    foreign = [] if overwrite else [path for path in _files(folder) if not _is_prediction(path)]
    if foreign:
        others = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UserError(
            f"{flag} {folder}: holds files that are no predictions of this program ({foreign[0].name}{others}); name "
            "another folder, or say --overwrite to write among them and replace what has the same name"
        )
    make_folder(folder)


def _files(folder: Path) -> Iterable[Path]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink())
    return (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _is_prediction(path: Path) -> bool:
    try:
        if path.suffix == ".png":
            with open(path, "rb") as file:
                return file.read(_HEADER + len(_MARK))[_HEADER:] == _MARK
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                return set(archive.namelist()) >= _ARCHIVE
        if path.suffix == ".csv":
            with open(path, "rb") as file:
                return file.read(len(CLASSES_HEAD)) == CLASSES_HEAD.encode()
        if path.name.endswith("_overlay.mp4"):  # no place for a mark: its legend has one
            return _is_prediction(path.with_name(path.name.removesuffix("_overlay.mp4") + "_legend.png"))
    except (OSError, zipfile.BadZipFile):
        pass
    return False
