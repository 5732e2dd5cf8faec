"""What a data file holds, read whole: of a regular file, and of no more bytes than are expected there."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import UserError

MOST_TEXT = 100_000_000  # bytes of a list, a class file or a colour map; trainaug's list has a tenth of a million


class DataError(UserError, ValueError):
    """A file, folder or setting of the data is not what it must be; the text names it and says what to do."""


def read_bytes(path: str | Path, most: int) -> bytes:
    """Reads a file of at most `most` bytes.

    Raises DataError for one that is missing or larger, a folder, and a device or pipe, which may never end.
    """
    check_file(path, most)
    with _reading(path), open(path, "rb", buffering=0) as file:  # each call into the system lets other threads in
        return file.read()


def read_start(path: str | Path, count: int) -> bytes:
    """Reads the first `count` bytes of a file. Raises DataError as `read_bytes`."""
    check_file(path)
    with _reading(path), open(path, "rb", buffering=0) as file:
        return file.read(count)


def check_file(path: str | Path, most: int | None = None) -> None:
    """Raises DataError where `path` is no regular file, or one of more than `most` bytes."""
    with _reading(path):
        found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise DataError(
            f"{path}: cannot be read: it is a {'folder' if stat.S_ISDIR(found.st_mode) else 'device, pipe or socket'}, "
            "not a file."
        )
    if most is not None and found.st_size > most:
        raise DataError(f"{path}: has {found.st_size:,} bytes; of such a file at most {most:,} are read.")


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """Reads a UTF-8 file, without a byte order mark. Raises DataError as `read_bytes`, and for what is no text."""
    content = read_bytes(path, most)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as text (UTF-8): {error}.") from error
    if "\0" in text:
        raise DataError(f"{path}: cannot be read as text (UTF-8): byte {content.index(0)} is 0.")
    return text
