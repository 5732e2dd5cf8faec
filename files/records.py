"""What the project wrote itself, read back: as it must be, or refused with the file, the place in it and the value."""

from pathlib import Path

from errors import UserError
from files.writing import why


class RecordError(UserError, ValueError):
    """A file that is damaged or was edited into something else."""


def read_bytes(path: Path, limit: int, error: type[UserError] = RecordError) -> bytes:
    """A file's bytes; `error` where it is none, is larger than `limit` bytes, or the system refuses."""
    try:
        if path.exists() and not path.is_file():
            raise error(f"{path}: a folder, a pipe or a device, and no file")
        if path.stat().st_size > limit:
            raise error(f"{path}: larger than the {limit / 1e6:,.0f} MB that such a file can have")
        return path.read_bytes()
    except OSError as problem:
        raise error(f"{path}: cannot be read ({why(problem)})") from problem
