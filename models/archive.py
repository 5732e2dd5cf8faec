"""The one checkpoint of an archive as published: found among the members, and only its files are unpacked."""

import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from errors import UserError, some
from files.writing import check_room, why, writing

V2_FILE = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_V1_FILE = re.compile(r"\.ckpt(-\d+)?$")
LIMIT = 16 << 30  # bytes unpacked: the largest that was published has 1
_NO_TAR = (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, zlib.error, lzma.LZMAError)


class ArchiveError(UserError):
    """An archive that is damaged, or does not hold one checkpoint."""


def unpack(archive: Path, folder: Path, inside: str = "") -> PurePosixPath:
    """Unpacks the files of the archive's only checkpoint into `folder`, without the folders that they are in there.

    Args:
        archive: a tar file, compressed or not.
        folder: one that is there.
        inside: a folder of the archive, the only one that is looked at.

    Returns:
        the checkpoint's prefix within the archive.

    Raises:
        ArchiveError: it is damaged, too large, or holds no or several checkpoints; or one of a checkpoint's files is
            a link, a device, or leads outside.
        WriteError: `folder` has no room for it.
    """
    with _read(archive), tarfile.open(archive) as tar:
        members = [
            member for member in _members(tar, archive) if not inside or inside in PurePosixPath(member.name).parts
        ]
        prefix = _only_checkpoint([member.name for member in members], archive)
        wanted = [member for member in members if _prefix(member.name) == prefix]
        check_room(folder, sum(member.size for member in wanted), archive)
        for member in wanted:
            _extract(tar, member, folder / PurePosixPath(member.name).name)
    return prefix


@contextmanager
def _read(archive: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except _NO_TAR as error:
        raise ArchiveError(f"{archive}: cannot be unpacked ({why(error)})") from error


def _members(tar: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    """The members that are files of a checkpoint by their names; hidden ones, as macOS adds them, are none."""
    for member in tar:
        if member.offset_data + member.size > LIMIT:
            raise ArchiveError(f"{archive}: unpacks to more than {LIMIT >> 30} GB; no checkpoint is that large")
        place = PurePosixPath(member.name)
        if place.name.startswith(".") or not (V2_FILE.search(place.name) or _V1_FILE.search(place.name)):
            continue
        if member.isdir():
            continue
        if place.is_absolute() or ".." in place.parts:
            raise ArchiveError(f"{archive}: {member.name} in it leads outside of where it is unpacked")
        if not member.isreg() or member.issparse():
            raise ArchiveError(
                f"{archive}: {member.name} in it is a link, a device or a sparse file; pack the file itself"
            )
        yield member


def _prefix(name: str) -> PurePosixPath:
    return PurePosixPath(V2_FILE.sub("", name))


def _only_checkpoint(names: list[str], archive: Path) -> PurePosixPath:
    """A `.meta` alone is a graph, and no checkpoint."""
    found = sorted({_prefix(name) for name in names if not name.endswith(".meta")})
    if len(found) == 1:
        return found[0]
    listed = some(map(str, found)) if found else "none"
    raise ArchiveError(f"{archive}: holds {len(found)} checkpoints ({listed}), where one is expected")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None, member.name  # a regular file
    with writing(path.parent):
        path.touch()
    while chunk := source.read(1 << 20):
        with writing(path.parent), open(path, "ab") as file:
            file.write(chunk)
