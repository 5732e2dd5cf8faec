"""Image files in and out: read whole or refused, written whole or not at all."""

import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from errors import UserError


class DataError(UserError, ValueError):
    """A file, folder or setting of the data is not what it must be; the text names it and says what to do."""


# Orientation tags are ignored: masks are drawn on the pixels as they are stored.
_READ_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION

_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}


def image_format(path: str | Path) -> str | None:
    """Tells the format of the file `path` from its first bytes, whatever its name: "JPEG", "PNG", "GIF" … or None."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def image_size(path: str | Path) -> tuple[int, int]:
    """Reads an image's (height, width) in pixels from its header alone. Raises DataError as `read_image`."""
    try:
        with Image.open(path) as file:
            return file.height, file.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises on bad files
        raise DataError(f"{path}: cannot be read as an image: {error}. Replace or remove it.") from error


def read_image(path: str | Path) -> np.ndarray:
    """Reads an image file, with its orientation tag ignored so that it fits its mask.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        DataError: the file is missing, is no image, or is cut short.
    """
    content = _content(path)
    if content.startswith(b"\xff\xd8") and not _jpeg_is_whole(content):
        raise DataError(f"{path}: this JPEG is cut short after {len(content)} bytes. Fetch or save it again.")
    image = _decoded(content, _READ_FLAGS)
    if image is None:
        raise DataError(f"{path}: cannot be decoded as an image ({len(content)} bytes). Replace or remove it.")
    return image


def read_indices(path: str | Path) -> np.ndarray:
    """Reads a picture of indices: what an 8-bit palette's colours are numbered by, or the values of 8-bit grey.

    Returns:
        uint8 (H, W).

    Raises:
        DataError: the file is missing, is no image, is cut short, or holds colours.
    """
    grey = _palette_png_as_grey(_content(path))
    if grey is not None:
        indices = _decoded(grey, cv2.IMREAD_UNCHANGED)
        if indices is None:
            raise DataError(f"{path}: cannot be read as a mask: it is damaged or cut short. Fetch or save it again.")
        return indices
    try:
        with Image.open(path) as file:
            mode = file.mode
            indices = np.asarray(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises on bad files
        raise DataError(f"{path}: cannot be read as a mask: {error}.") from error
    if mode not in ("P", "L"):
        raise DataError(
            f"{path}: a mask must hold class indices (a palette PNG, or 8-bit grey); this one has mode {mode}. "
            "Map its colours to indices first."
        )
    return indices


def _content(path: str | Path) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # each call into the system lets other threads in between
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error


def _decoded(content: bytes, flags: int) -> np.ndarray | None:
    """What OpenCV makes of an image file's bytes; None where it cannot."""
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # an empty file, or a picture larger than OpenCV agrees to decode
        return None


def _palette_png_as_grey(content: bytes) -> bytes | None:
    """The bytes of an 8-bit palette PNG as those of a grey one, whose values are the indices; None for another file.

    OpenCV reads no indices, but decodes grey in less time than Pillow, and without keeping other threads from Python.
    """
    # Signature 8 bytes; then chunks: length 4, type 4, data, CRC 4. In the first, IHDR, depth and colour type are at
    # 24 and 25; what stands between it and the pixels, such as the palette, is left out.
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[24:26] != b"\x08\x03":
        return None
    if zlib.crc32(content[12:29]).to_bytes(4) != content[29:33]:
        return None
    at = 33
    while content[at + 4 : at + 8] != b"IDAT":
        if at >= len(content):
            return None
        at += 12 + int.from_bytes(content[at : at + 4])
    header = content[12:25] + b"\0" + content[26:29]
    return content[:12] + header + zlib.crc32(header).to_bytes(4) + content[at:]


def _jpeg_is_whole(content: bytes) -> bool:
    """Says whether a JPEG's scan is ended by its marker. Without one, some decoders return a half-grey picture."""
    at = 2
    # Skip the headers segment by segment: a thumbnail inside one has an end marker of its own.
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        at += 1 if content[at + 1] == 0xFF else 2 + int.from_bytes(content[at + 2 : at + 4])
    # Within a scan, 0xFF is followed by 0x00: this is the real end. It is looked for where it ought to be, at the end.
    return content.rfind(b"\xff\xd9", at) >= 0


@contextmanager
def beside(path: str | Path) -> Iterator[Path]:
    """Gives a path to write to, beside `path` and with its suffix, that becomes `path` when all went well.

    So nobody ever sees half a file. The folder is made where there is none.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}-{threading.get_ident()}.tmp{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: str | Path, content: bytes) -> None:
    """Writes the bytes `content` as the file `path`, whole or not at all."""
    with beside(path) as partial:
        partial.write_bytes(content)
