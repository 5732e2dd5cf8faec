"""What a user means by a checkpoint that is not there: the published archive beside it, or a published name."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from engine.download import DownloadError, WrongChecksum, alone, cache_folder, download, has_checksum
from engine.zoo import Published, published
from errors import UserError
from files.records import RecordError, read_text
from files.writing import folder_in, write_whole, writing
from models.archive import ArchiveError, unpack

_ARCHIVES = (".tar.gz", ".tgz", ".tar")
SUMS_LIMIT = 1 << 20  # bytes
_SUM = re.compile(r"[0-9a-f]{64}  \S.*")
_OF_A_CHECKPOINT = re.compile(r"(\.ckpt|\.(index|meta|data-\d{5}-of-\d{5}))$")


def located(checkpoint: Any) -> Any:
    """Where the checkpoint is that a user named.

    What is there is what is meant. For `resnet_v2_50.ckpt`, or the name alone, the archive beside it is taken that
    was published, or that has its name. A published name (`engine.zoo`) is downloaded once and unpacked into the cache;
    its files are checked in each call.

    Args:
        checkpoint: what `--ckpt` takes; what is no path is passed on.

    Returns:
        a path; `checkpoint` itself where nothing is known of it, so that who opens it says what is wrong.

    Raises:
        UserError: a file that is not there, but can be had by its name; or DownloadError.
    """
    if not isinstance(checkpoint, str | os.PathLike):
        return checkpoint
    path = Path(checkpoint).expanduser()
    if path.exists() or _has_files(path):
        return checkpoint
    stem = path.name.removesuffix(".ckpt")
    known = published(stem)
    for archive in _archives(path.with_name(stem), known):
        if archive.is_file():
            print(f"{checkpoint}: taken from {archive}", flush=True)
            return archive
    if known is None:
        return checkpoint
    if os.fspath(checkpoint) != stem or stem.endswith(_ARCHIVES):
        raise UserError(
            f"{checkpoint}: no such checkpoint, and no {known.file} beside it. "
            f"The published one{known.size} is downloaded, once, by its name: --ckpt {known.name}"
        )
    return fetched(known)


def _has_files(prefix: Path) -> bool:
    """Whether there are files of a V2 checkpoint of this name, be they too few."""
    names = (file.name for file in prefix.parent.iterdir()) if prefix.parent.is_dir() else ()
    return any(name.startswith(f"{prefix.name}.") and _OF_A_CHECKPOINT.search(name) for name in names)


def _archives(path: Path, known: Published | None) -> list[Path]:
    named = [path.with_name(f"{path.name}{ending}") for ending in _ARCHIVES]
    return named if known is None else [path.with_name(known.file), *named]


def fetched(known: Published) -> Path:
    """The folder in the cache with a published checkpoint's files, downloaded and unpacked where it is not there.

    Beside it, NAME.sha256 has the checksums of the archive, as it came first, and of what was unpacked, in the format
    of `sha256sum`. Raises DownloadError.
    """
    folder = cache_folder() / known.stem
    sums = folder.with_name(f"{folder.name}.sha256")
    with alone(folder):
        remembered = _read_sums(sums)
        files = {name: sha for name, sha in remembered.items() if name != known.file}
        wrong = [name for name, sha in files.items() if not _is(folder.parent / name, sha)]
        if files and not wrong:
            return folder
        if wrong:
            print(f"{folder.parent / wrong[0]}: is not what was unpacked; {known.file} is fetched again", flush=True)
        archive = _archive(known, remembered.get(known.file), sums)
        _unpack(archive, folder, known.inside)
        _write_sums(sums, [archive, *sorted(folder.iterdir())])
        with writing(archive):
            archive.unlink()
    print(f"{known.name}: {known.about}, in {folder}", flush=True)
    return folder


def _archive(known: Published, remembered: str | None, sums: Path) -> Path:
    try:
        return download(known.address, remembered and f"sha256:{remembered}")
    except WrongChecksum as error:
        raise WrongChecksum(f"{error}. Another file came first; delete {sums} to take this one") from error


def _unpack(archive: Path, folder: Path, inside: str) -> None:
    """The checkpoint's files of an archive as the whole content of `folder`, or nothing of them."""
    with folder_in(folder.parent) as partial:
        try:
            unpack(archive, partial, inside)
        except ArchiveError as error:
            raise DownloadError(f"{error}. Delete it to download it again") from error
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and has_checksum(path, f"sha256:{sha256}")


def _read_sums(path: Path) -> dict[str, str]:
    """{file name: SHA-256} of a file of `sha256sum`; empty where there is none. DownloadError for a damaged one."""
    try:
        lines = read_text(path, SUMS_LIMIT).splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            if not _SUM.fullmatch(line):
                raise RecordError(f"{path}: line {number}: {line[:40]!r} is no checksum")
    except RecordError as error:
        raise DownloadError(f"{error}. Delete it to download again") from error
    return {name: sha for sha, _, name in (line.partition("  ") for line in lines)}


def _write_sums(path: Path, files: list[Path]) -> None:
    import pooch

    lines = (f"{pooch.file_hash(str(file), alg='sha256')}  {file.relative_to(path.parent)}\n" for file in files)
    write_whole(path, "".join(lines).encode())
