"""Files of the network: downloaded once into a cache, resumed where a connection broke, checked.

SLIM_DEEPLAB_CACHE     the folder that keeps them, instead of the platform's place for caches
SLIM_DEEPLAB_MIRROR    an address under which all of them lie by their file names, instead of their own addresses
"""

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from errors import UserError
from files.records import RecordError, read_text
from files.writing import check_room

CACHE, MIRROR = "SLIM_DEEPLAB_CACHE", "SLIM_DEEPLAB_MIRROR"
PATIENCE = (1, 2, 4)  # seconds before each new try of a connection that brings nothing at all
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 14  # bytes, small: what is not yet whole is lost with the connection
VERSION_LIMIT = 1 << 16  # bytes of a header
_HEADER = re.compile("[!-~]([ -~]*[!-~])?")


class DownloadError(UserError):
    """A file that cannot be had from the network, or is not what it must be."""


class WrongChecksum(DownloadError):
    """A file that is another one than it must be."""


def cache_folder() -> Path:
    """The folder that keeps what is downloaded."""
    import pooch

    return Path(os.environ.get(CACHE) or pooch.os_cache("slim-deeplab")).expanduser()


def download(address: str, checksum: str | None = None) -> Path:
    """The file of an address in the cache, downloaded where it is not there.

    A download that breaks goes on by itself, and one that was killed in the next call.

    Args:
        checksum: "md5:…" or "sha256:…", which a file there and a new one must have; None accepts what comes whole.

    Raises:
        DownloadError: no connection, no such file, another checksum, or no room on the disk.
    """
    name = address.rpartition("/")[2]
    target = cache_folder() / name
    with alone(target):
        if target.is_file() and has_checksum(target, checksum):
            return target
        if target.is_file():
            print(f"{target}: does not have the checksum {checksum}; it is downloaded again", flush=True)
        mirror = os.environ.get(MIRROR)
        return _download(f"{mirror.rstrip('/')}/{name}" if mirror else address, target, checksum)


def has_checksum(path: Path, checksum: str | None) -> bool:
    """Whether a file has the checksum "algorithm:digits"; any file has None."""
    import pooch

    algorithm, _, digits = (checksum or "").partition(":")
    return not algorithm or pooch.file_hash(str(path), alg=algorithm) == digits


def _download(url: str, target: Path, checksum: str | None) -> Path:
    import pooch
    import requests

    work = target.with_name(f"{target.name}.download")  # what has come so far, and pooch's own temporary file
    print(f"downloading {url} to {target}", flush=True)
    pooch.get_logger().setLevel("ERROR")
    try:
        pooch.retrieve(url, checksum, target.name, work, downloader=_resuming(work / "partial"))
        os.replace(work / target.name, target)
        shutil.rmtree(work)
    except UserError:  # no room
        raise
    except requests.RequestException as error:
        raise DownloadError(
            f"{url}: cannot be downloaded ({_cause(error)}). The same command goes on where it stopped; ${MIRROR} "
            f"names another address for it, and a file that was had otherwise is taken from {target}"
        ) from error
    except ValueError as error:  # pooch's
        raise WrongChecksum(f"{url}: what came does not have the checksum {checksum}; it was deleted") from error
    except OSError as error:
        raise DownloadError(f"{target}: cannot be written ({error.strerror}); ${CACHE} names another place") from error
    return target


def _cause(error: Exception) -> str:
    """What an exception of requests says, without the addresses and objects that it was passed through."""
    inner = error.args[0] if error.args else error
    text = str(getattr(inner, "reason", inner))
    return text.rpartition("): ")[2] if text.startswith("HTTP") else text


def _resuming(partial: Path) -> Callable[[str, str, Any], None]:
    """A downloader for pooch, whose own begins anew, that goes on with what `partial` holds."""

    def downloader(url: str, output_file: str, _: Any) -> None:
        import requests

        failed = 0
        while True:
            before = _size(partial)
            try:
                _fetch_rest(url, partial)
                break
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                failed = 0 if _size(partial) > before else failed + 1
                if failed > len(PATIENCE):
                    raise
                time.sleep(PATIENCE[failed - 1] if failed else 0)
        os.replace(partial, output_file)

    return downloader


def _fetch_rest(url: str, partial: Path) -> None:
    """Adds to `partial` what is missing; begins anew where the server has another version of the file by now."""
    import requests
    from tqdm import tqdm

    version = partial.with_name("version")  # what the server calls the version that `partial` is of
    named_before = _version(version)
    done = _size(partial) if named_before else 0
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": named_before}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            if answer.headers.get("Content-Range") != f"bytes */{done}":  # else the last byte had come already
                version.unlink()
                raise requests.ConnectionError("what was downloaded before is of another version")
            return
        answer.raise_for_status()
        if answer.status_code != requests.codes.partial_content:
            done = 0
            partial.unlink(missing_ok=True)  # before its version is replaced: this may be killed in between
            if named := answer.headers.get("ETag") or answer.headers.get("Last-Modified"):
                version.write_text(named)
            else:
                version.unlink(missing_ok=True)
        length = answer.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        check_room(partial.parent, (total or 0) - done, url)
        with (
            open(partial, "ab" if done else "wb") as file,
            tqdm(total=total, initial=done, unit="B", unit_scale=True, disable=None) as bar,
        ):
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(partial) != total:
        raise requests.ConnectionError(f"broke off after {_size(partial):,} of {total:,} bytes")


def _version(path: Path) -> str:
    """What a server called a version of a file; empty where that is not known, or nothing that a header could hold."""
    try:
        named = read_text(path, VERSION_LIMIT)
    except RecordError:
        return ""
    return named if _HEADER.fullmatch(named) else ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Within it, no other process is within the same of this path, as the hosts of one training would be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_WRONLY)
    except OSError as error:
        raise DownloadError(f"{path}: cannot be written ({error.strerror}); ${CACHE} names another place") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
