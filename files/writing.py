"""How anything is written: whole or not at all, and a reason where not; what a killed process left is cleared.

What is being written is beside its place, under a name that tells the process that writes it. Where that process is no
more, the next one that writes there removes it.
"""

import itertools
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from errors import UserError

DAY = 86_400  # seconds after which what another host left is no longer being written
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_TOKEN = secrets.token_hex(4)  # two processes in containers may have one number
_PARTIAL = re.compile(r"\.partial-(?P<host>[0-9a-f]{8})-(?P<process>\d+)-(?P<token>[0-9a-f]{8})-\d+(\..*)?$")
_count = itertools.count()
_cleared: set[str] = set()  # folders that this process has looked through


class WriteError(UserError):
    """A place that cannot be written to; the text names it and the system's reason."""


def why(error: BaseException) -> str:
    """What the system or TensorFlow says, in a line; of the latter without the operation that says it."""
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or error
    lines = re.sub(r"\{\{function_node .*?\}\} | \[Op:\w+\]", "", str(text)).strip().splitlines()
    return lines[0].rstrip(":") if lines else type(error).__name__


@contextmanager
def writing(path: str | Path, remedy: str = "Nothing that was there before is lost.") -> Iterator[None]:
    """Makes a WriteError, which names `path`, of what the system refuses within."""
    try:
        yield
    except BrokenPipeError:
        raise
    except _refusals() as error:
        raise WriteError(f"{path}: cannot be written ({why(error)}). {remedy}") from error


def _refusals() -> tuple[type[Exception], ...]:
    """The exceptions of a disk; TensorFlow has its own, where it was imported."""
    tensorflow = sys.modules.get("tensorflow")
    return (OSError,) if tensorflow is None else (OSError, tensorflow.errors.OpError)


def make_folder(path: str | Path) -> Path:
    """The folder `path`, made where there is none. Raises WriteError."""
    with writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


@contextmanager
def beside(path: str | Path) -> Iterator[Path]:
    """Gives a path to write to, beside `path` and with its suffix, that becomes `path` when all went well.

    So nobody ever sees half a file. The folder is made where there is none. Raises WriteError.
    """
    path = Path(path)
    with writing(path):
        partial = _partial(path.parent, path.suffix)
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Writes bytes, or text as UTF-8, as the file `path`, whole or not at all. Raises WriteError."""
    with beside(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def check_writable(path: str | Path) -> None:
    """Raises WriteError where nothing can be written to `path`, which is left as it is."""
    with writing(path):
        partial = _partial(Path(path).parent, "")
        partial.touch()
        partial.unlink()


@contextmanager
def folder_in(folder: str | Path) -> Iterator[Path]:
    """Gives a folder within `folder`, on the same disk, that is gone afterwards. Raises WriteError."""
    with writing(folder):
        partial = _partial(Path(folder), "")
        try:
            partial.mkdir()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """`folder_in` the system's place for temporary files ($TMPDIR)."""
    try:
        place = tempfile.gettempdir()
    except OSError as error:  # none can be written to
        raise WriteError(f"temporary files: {why(error)}. $TMPDIR names a place for them.") from error
    with folder_in(place) as folder:
        yield folder


def _partial(folder: Path, suffix: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if str(folder) not in _cleared:
        clear_leftovers(folder)
        _cleared.add(str(folder))
    return folder / f".partial-{_HOST}-{os.getpid()}-{_TOKEN}-{next(_count)}{suffix}"


def clear_leftovers(folder: str | Path) -> None:
    """Removes what processes that were killed had begun to write in `folder`."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (named := _PARTIAL.match(entry.name)) and _is_left(named, entry):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    Path(entry).unlink(missing_ok=True)


def _is_left(named: re.Match[str], entry: Any) -> bool:
    """Whether nobody is writing it any more."""
    if named["host"] != _HOST:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > DAY
    process = int(named["process"])
    return named["token"] != _TOKEN if process == os.getpid() else not _is_alive(process)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def check_room(folder: str | Path, needed: int, what: str | Path) -> None:
    """Raises WriteError where `needed` bytes of `what` have no room on the disk that `folder` is, or will be, on."""
    absolute = Path(folder).absolute()
    there = next(place for place in (absolute, *absolute.parents) if place.is_dir())
    with writing(folder):
        free = shutil.disk_usage(there).free
    if needed > free:
        raise WriteError(
            f"{what}: needs {needed / 1e6:,.0f} MB in {folder}, where {free / 1e6:,.0f} MB are free. Make room "
            "there, or name another place."
        )
