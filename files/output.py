"""Folders that a program fills with files: only ever its own are replaced."""

import json
from collections.abc import Iterable
from pathlib import Path

from errors import UserError
from files.writing import write_whole

LIST = ".written.json"  # in such a folder: the names of what the programs wrote there


def claim(folder: str | Path, names: Iterable[str], flag: str, overwrite: bool = False) -> None:
    """Takes `folder` for the files `names`, which are about to be written; their list is kept in it.

    Args:
        names: relative to the folder.
        flag: that named the folder, for the error's text.
        overwrite: whether it may hold files that no program of ours wrote; those of the same names are replaced.

    Raises:
        UserError: it is a file, or holds files that were not written by an earlier claim. Hidden ones do not count.
        WriteError: it cannot be written to.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{flag} {folder}: is a file; name a folder")
    own = _written(folder)
    foreign = [name for name in _files(folder) if name not in own] if not overwrite else []
    if foreign:
        others = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UserError(
            f"{flag} {folder}: holds files that were not written by this program ({foreign[0]}{others}); name another "
            "folder, or say --overwrite to write among them"
        )
    listed = sorted(own.union(names))
    write_whole(folder / LIST, json.dumps({"files": listed}, indent=1, ensure_ascii=False))


def _files(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink())
    return [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]


def _written(folder: Path) -> set[str]:
    """The names that earlier claims wrote down; none where the list is damaged, so that nothing is taken for ours."""
    try:
        listed = json.loads((folder / LIST).read_bytes())["files"]
        return {str(name) for name in listed}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
