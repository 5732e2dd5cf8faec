"""What a data set decodes, kept in memory or in a folder."""

import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from data.content import read_bytes
from data.datasets import Dataset, FileDataset, Sample
from data.images import DECODERS, MOST_PIXELS, was_damaged
from files.writing import write_whole

Kept = TypeVar("Kept", bound=FileDataset)


def cached(dataset: Kept, where: str) -> Kept:
    """Wraps `dataset` so that what it decodes is kept: `where` is "none", "memory" or a folder.

    A decoded sample takes 4 bytes a pixel, 0.75 MB at VOC's sizes: 7.9 GB for trainaug's 10,582.
    """
    if where == "none":
        return dataset
    kept = Cached(dataset) if where == "memory" else CachedOnDisk(dataset, where)
    return cast(Kept, kept)  # which has all that the data set has


class Cached:
    """Keeps in memory what `dataset[i]` read once, where that fits. Its arrays are read-only, as they are shared."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        if index not in self._kept:
            sample = self._dataset[index]
            for part in sample:
                if isinstance(part, np.ndarray):
                    part.flags.writeable = False
            self._kept[index] = sample
        return self._kept[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # else copying or unpickling, which ask before __init__ has run, would never end
            raise AttributeError(name)
        return getattr(self._dataset, name)


class CachedOnDisk(Cached):
    """Keeps in a folder what `dataset[i]` read once, one file a sample, which later runs and other processes read too.

    A file's name stands for the sample's source files with their sizes and times of change, the settings they are
    read with and the decoders: where any of these changes, or the file is damaged, the sample is read anew. What is
    then out of use stays in the folder.

    Args:
        dataset: whose `files(i)` are the paths that its `dataset[i]` reads.
        folder: is made where there is none.

    Raises:
        WriteError: `dataset[i]` where the folder cannot be written to, or whatever reading the source raises.
    """

    def __init__(self, dataset: FileDataset, folder: str | Path) -> None:
        super().__init__(dataset)
        self._source = dataset
        self._folder = Path(folder)

    def __getitem__(self, index: int) -> Sample:
        path = self._folder / f"{self._key(index)}.sample"
        try:
            return _from_bytes(read_bytes(path, _MOST_BYTES))
        except ValueError:  # there is none yet, or it is damaged
            sample = self._dataset[index]
        if not any(map(was_damaged, self._source.files(index))):  # each run names those anew
            write_whole(path, _as_bytes(sample))
        return sample

    def _key(self, index: int) -> str:
        sources = [(os.path.abspath(path), *_size_and_time(path)) for path in self._source.files(index)]
        return hashlib.sha256(repr((sources, self._source.reading, DECODERS)).encode()).hexdigest()[:32]


def _size_and_time(path: Path) -> tuple[int | None, int | None]:
    try:
        found = os.stat(path)
    except OSError:
        return None, None  # reading it will say what is wrong
    return found.st_size, found.st_mtime_ns


_HEADER = struct.Struct("<IIIi")  # CRC-32 of all that follows, height, width, a class's number or _MASK
_MASK = -1  # a mask follows the image
_MOST_BYTES = _HEADER.size + 4 * MOST_PIXELS


def _as_bytes(sample: Sample) -> bytes:
    image, target = sample
    height, width, _ = image.shape
    is_mask = isinstance(target, np.ndarray)
    pixels = image.tobytes() + (target.tobytes() if is_mask else b"")
    content = bytearray(_HEADER.size) + pixels
    _HEADER.pack_into(content, 0, 0, height, width, _MASK if is_mask else target)
    content[:4] = zlib.crc32(memoryview(content)[4:]).to_bytes(4, "little")
    return bytes(content)


def _from_bytes(content: bytes) -> Sample:
    """The sample that `_as_bytes` wrote. Raises ValueError for other bytes."""
    if len(content) < _HEADER.size:
        raise ValueError("it ends early")
    checksum, height, width, target = _HEADER.unpack_from(content)
    if checksum != zlib.crc32(memoryview(content)[4:]):
        raise ValueError("it is damaged")
    pixels = np.frombuffer(content, np.uint8, offset=_HEADER.size)
    size = 3 * height * width
    image = pixels[:size].reshape(height, width, 3)
    return image, (pixels[size:].reshape(height, width) if target == _MASK else target)
