"""Image files in and out: read whole or refused, written whole or not at all."""

import os
import threading
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


def image_format(path):
    """Tells the format of the file `path` from its first bytes, whatever its name: "JPEG", "PNG", "GIF" … or None."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def image_size(path):
    """Reads an image's (height, width) in pixels from its header alone. Raises DataError as `read_image`."""
    try:
        with Image.open(path) as file:
            return file.height, file.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises on bad files
        raise DataError(f"{path}: cannot be read as an image: {error}. Replace or remove it.") from error


def read_image(path):
    """Reads an image file, with its orientation tag ignored so that it fits its mask.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        DataError: the file is missing, is no image, or is cut short.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    if content.startswith(b"\xff\xd8") and not _jpeg_is_whole(content):
        raise DataError(f"{path}: this JPEG is cut short after {len(content)} bytes. Fetch or save it again.")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), _READ_FLAGS)
    except cv2.error:  # an empty file, or a picture larger than OpenCV agrees to decode
        image = None
    if image is None:
        raise DataError(f"{path}: cannot be decoded as an image ({len(content)} bytes). Replace or remove it.")
    return image


def _jpeg_is_whole(content):
    """Says whether a JPEG's scan is ended by its marker. Without one, some decoders return a half-grey picture."""
    at = 2
    # Skip the headers segment by segment: a thumbnail inside one has an end marker of its own.
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        at += 1 if content[at + 1] == 0xFF else 2 + int.from_bytes(content[at + 2 : at + 4])
    # Within a scan, 0xFF is followed by 0x00: this is the real end. It is looked for where it ought to be, at the end.
    return content.rfind(b"\xff\xd9", at) >= 0


@contextmanager
def beside(path):
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


def write_whole(path, content):
    """Writes the bytes `content` as the file `path`, whole or not at all."""
    with beside(path) as partial:
        partial.write_bytes(content)
