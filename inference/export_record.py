"""export.json, which lies beside exports: what they are of, and the checksums that tell whether they are whole."""

import hashlib
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from errors import UserError
from files.records import RecordError, checked, read_json

DESCRIPTION = "export.json"
_REMEDY = "Export the model again"


class ExportError(UserError, ValueError):
    """An export that is missing, damaged, or not one of this project's; or whose runtime is not installed."""


class FormatRecord(TypedDict):
    """One format's entry, of which this is read."""

    file: str
    sha256: NotRequired[str]


class ExportRecord(TypedDict):
    """export.json."""

    classes: list[str]
    formats: dict[str, FormatRecord]


def read_description(folder: str | Path) -> dict[str, Any] | None:
    """What the export.json in `folder` says, or None where there is none; ExportError where it is damaged."""
    path = Path(folder) / DESCRIPTION
    if not path.exists():
        return None
    try:
        described = read_json(path, dict[str, Any], _REMEDY)
        checked(described, ExportRecord, path, _REMEDY)
    except RecordError as error:
        raise ExportError(str(error)) from error
    return described


def check_whole(path: Path) -> None:
    """Raises ExportError where an export is not what was written; says so where that cannot be known."""
    described = read_description(path.parent)
    entries = described["formats"].values() if described else ()
    sums = [entry["sha256"] for entry in entries if entry["file"] == path.name and "sha256" in entry]
    if not sums:
        print(f"{path}: no {DESCRIPTION} beside it has its checksum; whether it is as it was exported is not known")
    elif checksum(path) not in sums:
        raise ExportError(
            f"{path}: is not what was exported, its SHA-256 is not the one in {DESCRIPTION}: damaged or changed. "
            "Export it again."
        )


def checksum(path: Path) -> str:
    """The SHA-256 of a file; of a folder, that of its files' names and sums."""
    if not path.is_dir():
        return _of_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{_of_file(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _of_file(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror})") from error
