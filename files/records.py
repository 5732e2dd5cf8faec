"""What the project wrote itself, read back: as it must be, or refused with the file, the place in it and the value.

JSON is validated by `msgspec` against a type: a TypedDict for an object. What decides what is computed is sealed:
its last field is the SHA-256 of all others, so that one that rotted or was edited is known.
"""

import csv
import hashlib
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from errors import UserError, some
from files.writing import why

LIMIT = 256 << 20  # bytes of a record
SEAL = "sha256"
Schema = TypeVar("Schema")
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class RecordError(UserError, ValueError):
    """A file that is damaged, or was edited into something else."""


def read_bytes(path: Path, limit: int = LIMIT, error: type[UserError] = RecordError) -> bytes:
    """A file's bytes; `error` where it is none, is larger than `limit` bytes, or the system refuses."""
    try:
        if path.exists() and not path.is_file():
            raise error(f"{path}: a folder, a pipe or a device, and no file")
        if path.stat().st_size > limit:
            raise error(f"{path}: larger than the {limit / 1e6:,.0f} MB that such a file can have")
        return path.read_bytes()
    except OSError as problem:
        raise error(f"{path}: cannot be read ({why(problem)})") from problem


def read_text(path: Path, limit: int = LIMIT, error: type[UserError] = RecordError) -> str:
    """`read_bytes` as UTF-8."""
    try:
        return read_bytes(path, limit, error).decode()
    except UnicodeDecodeError as problem:
        raise error(f"{path}: is no text in UTF-8, from byte {problem.start:,} on") from problem


def read_json(path: Path, schema: type[Schema], remedy: str, closed: bool = False) -> Schema:
    """What a JSON file holds, of the type `schema`.

    Args:
        remedy: a sentence for the error's text: what its reader can do.
        closed: fields of the outermost object that `schema` does not name are refused, else they are left out.

    Raises:
        RecordError: the file cannot be read, is no JSON, was changed since it was sealed, or something in it is
            missing or of another type or size.
    """
    try:
        content = msgspec.json.decode(read_bytes(path))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise RecordError(f"{path}: {_place(str(problem), '')}. {remedy}") from problem
    if isinstance(content, dict):
        seal = content.pop(SEAL, None)
        if seal is None and closed:
            print(f"{path}: has no {SEAL}, as of before 0.2; whether it was changed is not known", file=sys.stderr)
        elif seal is not None and seal != _digest(content):
            raise RecordError(f"{path}: was changed since it was written, its {SEAL} is another. {remedy}")
        if closed and (strange := sorted(content.keys() - schema.__annotations__.keys())):
            raise RecordError(f"{path}: {some(strange)}: no such field. {remedy}")
    return checked(content, schema, path, remedy)


def checked(content: Any, schema: type[Schema], path: Path, remedy: str, within: str = "") -> Schema:
    """What is in the field `within` of a file, as the type `schema`. Raises RecordError."""
    try:
        return msgspec.convert(content, schema, str_keys=True)
    except (msgspec.ValidationError, RecursionError) as problem:
        raise RecordError(f"{path}: {_place(str(problem), within)}. {remedy}") from problem


def sealed(content: Mapping[str, Any]) -> str:
    """The text of a JSON file that tells when it was changed."""
    plain = json.loads(json.dumps(content, allow_nan=False))
    return json.dumps({**plain, SEAL: _digest(plain)}, indent=1)


def read_rows(path: Path) -> list[dict[str, str]]:
    """[{column: text}] of a CSV file, whole lines only: a process that was killed may have left half of one.

    Raises RecordError where a line has more or fewer cells than the first.
    """
    text = read_text(path)
    lines = csv.reader(io.StringIO(text[: text.rfind("\n") + 1]), strict=True)
    try:
        header, *rows = list(lines) or [[]]
    except csv.Error as problem:
        raise RecordError(f"{path}: line {lines.line_num}: {problem}") from problem
    if len(set(header)) < len(header):
        raise RecordError(f"{path}: two columns have one name: {some(header)}")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise RecordError(f"{path}: line {number}: {len(row)} cells under {len(header)} columns")
    return [dict(zip(header, row, strict=True)) for row in rows]


def _place(problem: str, within: str) -> str:
    """ "Expected `str`, got `int` - at `$.entries[1].status`" → "entries[1].status: expected str, got int" """
    said, _, place = problem.partition(" - at `$")
    place = (within + place.rstrip("`")).lstrip(".")
    said = said.replace("`", "")
    return f"{place}: {said[0].lower()}{said[1:]}" if place else said


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
