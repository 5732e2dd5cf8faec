"""Image files in and out: read whole or refused, written whole or not at all."""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from errors import UserError


class DataError(UserError, ValueError):
    """A file, folder or setting of the data is not what it must be; the text names it and says what to do."""


IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LOSSY = ("JPEG", "WEBP")
UPRIGHT = 1  # the orientation of a picture that is stored as it is seen

# OpenCV turns some formats by their tag and not others: here all are turned by `turned`.
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_ORIENTATION = 274  # the tag's number in EXIF and TIFF

_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"RIFF": "WEBP",
}
# What Pillow raises on bad files.
_BAD_FILE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def image_format(path: str | Path) -> str | None:
    """Tells the format of the file `path` from its first bytes, whatever its name: "JPEG", "PNG", "GIF" … or None."""
    try:
        with open(path, "rb") as file:
            return _format(file.read(12))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error


def _format(head: bytes) -> str | None:
    found = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    return None if found == "WEBP" and head[8:12] != b"WEBP" else found  # RIFF holds sounds and films too


@dataclass(frozen=True)
class Header:
    """What an image file's header says.

    Attributes:
        size: (height, width) in pixels as they are stored.
        orientation: of the EXIF tag, 1 to 8; 1 where there is none.
    """

    size: tuple[int, int]
    orientation: int

    @property
    def turned_size(self) -> tuple[int, int]:
        """(height, width) of the picture as it is seen."""
        return self.size if self.orientation <= 4 else self.size[::-1]


def image_header(path: str | Path) -> Header:
    """Reads an image's Header. Raises DataError as `read_image`."""
    try:
        with Image.open(path) as file:
            width, height = file.size
            if isinstance(file, TiffImagePlugin.TiffImageFile):  # whose size Pillow gives as it is seen
                width, height = file.tag_v2[256], file.tag_v2[257]
            return Header((height, width), _orientation(file))
    except _BAD_FILE as error:
        raise DataError(f"{path}: cannot be read as an image: {error}. Replace or remove it.") from error


def image_size(path: str | Path, turn: bool = True) -> tuple[int, int]:
    """Reads (height, width), in pixels, of what `read_image` reads, from the header alone. Raises DataError as that."""
    header = image_header(path)
    return header.turned_size if turn else header.size


def _orientation(file: Image.Image) -> int:
    """The orientation that an opened file's header tells; a PNG is not decoded for what stands behind its pixels."""
    if file.format == "PNG" and "exif" not in file.info:
        return UPRIGHT
    try:
        told = file.getexif().get(_ORIENTATION, UPRIGHT)
    except _BAD_FILE:  # a damaged tag says nothing
        return UPRIGHT
    return told if told in range(1, 9) else UPRIGHT


def orientation_of(content: bytes) -> int:
    """The orientation of an image file's bytes, as `Header` has it."""
    kind = _format(content[:12])
    may_have_one = {
        "JPEG": lambda: any(content.startswith(b"Exif\0\0", at + 4) for at in _jpeg_segments(content)),
        "PNG": lambda: b"eXIf" in content,
        "WEBP": lambda: b"EXIF" in content,
        "TIFF": lambda: True,
    }.get(kind or "", lambda: False)
    if not may_have_one():  # Pillow is asked for the few that do
        return UPRIGHT
    try:
        with Image.open(io.BytesIO(content)) as file:
            return _orientation(file)
    except _BAD_FILE:
        return UPRIGHT


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, …) as they are seen: EXIF 2 is mirrored, 3 upside down, 4 both, 5 to 8 lie on their side."""
    if orientation > 4:
        pixels = np.swapaxes(pixels, 0, 1)
    # Which of the seen picture's axes run against the stored ones.
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def read_image(path: str | Path, *, turn: bool = True, picture_range: tuple[float, float] | None = None) -> np.ndarray:
    """Reads an image file, turned as its orientation tag says, which is how viewers and annotation tools show it.

    Args:
        turn: False leaves the pixels as they are stored.
        picture_range: the values of a picture of more than 8 bits that become 0 and 255; what is outside is clipped.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        DataError: the file is missing, is no image, is cut short, or has more than 8 bits and no range is told.
    """
    content = _content(path)
    if content.startswith(b"\xff\xd8") and not _jpeg_is_whole(content):
        raise DataError(f"{path}: this JPEG is cut short after {len(content)} bytes. Fetch or save it again.")
    orientation = orientation_of(content)
    if orientation != UPRIGHT and _format(content[:12]) == "TIFF":
        content = _upright_tiff(content)  # OpenCV turns these in any case
    image = _pixels(content)
    if image is None:
        raise DataError(f"{path}: cannot be decoded as an image ({len(content)} bytes). Replace or remove it.")
    if image.dtype != np.uint8:
        image = _scaled(path, image, picture_range)
    return turned(image, orientation) if turn and orientation != UPRIGHT else image


def _scaled(path: str | Path, image: np.ndarray, picture_range: tuple[float, float] | None) -> np.ndarray:
    """Brings values of a picture of more than 8 bits to uint8."""
    if picture_range is None:
        low, high = image.min(), image.max()
        raise DataError(
            f"{path}: has values of {8 * image.itemsize} bits, here {low:g} … {high:g}. Say which of them are black "
            f"and white: --picture-range {low:g},{high:g}, or what all pictures have in common."
        )
    low, high = picture_range
    shares = (image.astype(np.float32) - low) / (high - low)
    return np.rint(255 * np.nan_to_num(np.clip(shares, 0, 1))).astype(np.uint8)


def _upright_tiff(content: bytes) -> bytes:
    """A TIFF's bytes with its orientation set to upright."""
    order: Literal["little", "big"] = "little" if content[:2] == b"II" else "big"
    start = int.from_bytes(content[4:8], order)
    for at in range(start + 2, start + 2 + 12 * int.from_bytes(content[start : start + 2], order), 12):
        if int.from_bytes(content[at : at + 2], order) == _ORIENTATION:  # tag 2, type 2, count 4, value 4 bytes
            return content[: at + 8] + UPRIGHT.to_bytes(2, order) + content[at + 10 :]
    return content


def is_deep(path: str | Path) -> bool:
    """Whether the values of a picture may have more than 8 bits, by its first bytes; a TIFF's may. Raises DataError."""
    try:
        with open(path, "rb") as file:
            head = file.read(26)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    return _may_be_deep(head)


def deep_values(path: str | Path) -> tuple[float, float] | None:
    """The smallest and the largest value of a picture of more than 8 bits; None for one of 8."""
    image = _pixels(_content(path))
    return None if image is None or image.dtype == np.uint8 else (float(image.min()), float(image.max()))


def read_indices(path: str | Path) -> np.ndarray:
    """Reads a picture of indices: what an 8-bit palette's colours are numbered by, or the values of 8-bit grey.

    Returns:
        uint8 (H, W); never turned, whatever its orientation tag.

    Raises:
        DataError: the file is missing, is no image, is cut short, holds colours or values of 16 bits, or comes from a
            lossy format, whatever its name.
    """
    return read_indices_and_palette(path)[0]


def read_indices_and_palette(path: str | Path) -> tuple[np.ndarray, bytes]:
    """`read_indices`, and the palette: 3 bytes a colour, in the order of the indices; none of 8-bit grey."""
    content = _content(path)
    if (kind := _format(content[:12])) in LOSSY:
        raise DataError(
            f"{path}: a mask is lossless; this one is {kind}, whatever its name: its values are no longer those that "
            "were drawn. Export the masks again, as PNG."
        )
    grey, colours = _palette_png_as_grey(content)
    if grey is not None:
        indices = _decoded(grey, cv2.IMREAD_UNCHANGED)
        if indices is None:
            raise DataError(f"{path}: cannot be read as a mask: it is damaged or cut short. Fetch or save it again.")
        return indices, colours
    try:
        with Image.open(path) as file:
            mode = file.mode
            colours = bytes(file.getpalette() or ()) if mode == "P" else b""
            indices = np.asarray(file)
    except _BAD_FILE as error:
        raise DataError(f"{path}: cannot be read as a mask: {error}.") from error
    if mode not in ("P", "L"):
        raise DataError(
            f"{path}: a mask must hold class indices (a palette PNG, or 8-bit grey); this one has mode {mode}. "
            "Map its colours to indices first: python prepare_data.py pictures --help."
        )
    return indices, colours


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


def _pixels(content: bytes) -> np.ndarray | None:
    """A picture's pixels as they are stored, RGB (H, W, 3), of uint8 or more bits; None where it cannot be decoded."""
    if not _may_be_deep(content):
        return _decoded(content, _AS_STORED)
    # Not as RGB, which OpenCV makes of a TIFF of 16 bits byte by byte.
    image = _decoded(content, cv2.IMREAD_COLOR_BGR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else np.ascontiguousarray(image[..., ::-1])


def _may_be_deep(head: bytes) -> bool:
    """Whether the values of a picture may have more than 8 bits, by its first bytes; a TIFF's may."""
    return _format(head[:12]) == "TIFF" or (_format(head[:12]) == "PNG" and head[24:25] == b"\x10")


def _palette_png_as_grey(content: bytes) -> tuple[bytes | None, bytes]:
    """The bytes of an 8-bit palette PNG as those of a grey one, whose values are the indices; and its palette.

    None and no bytes for another file.

    OpenCV reads no indices, but decodes grey in less time than Pillow, and without keeping other threads from Python.
    """
    # Signature 8 bytes; then chunks: length 4, type 4, data, CRC 4. In the first, IHDR, depth and colour type are at
    # 24 and 25; what stands between it and the pixels, such as the palette, is left out.
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[24:26] != b"\x08\x03":
        return None, b""
    if zlib.crc32(content[12:29]).to_bytes(4) != content[29:33]:
        return None, b""
    at, colours = 33, b""
    while content[at + 4 : at + 8] != b"IDAT":
        if at >= len(content):
            return None, b""
        length = int.from_bytes(content[at : at + 4])
        if content[at + 4 : at + 8] == b"PLTE":
            colours = content[at + 8 : at + 8 + length]
        at += 12 + length
    header = content[12:25] + b"\0" + content[26:29]
    return content[:12] + header + zlib.crc32(header).to_bytes(4) + content[at:], colours


def _jpeg_segments(content: bytes) -> Iterator[int]:
    """Yields where each segment of a JPEG's headers begins; last, where its scan does or the headers break off."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        yield at
        at += 1 if content[at + 1] == 0xFF else 2 + int.from_bytes(content[at + 2 : at + 4])
    yield at


def _jpeg_is_whole(content: bytes) -> bool:
    """Says whether a JPEG's scan is ended by its marker. Without one, some decoders return a half-grey picture."""
    *_, scan = _jpeg_segments(content)  # a thumbnail inside a header has an end marker of its own
    # Within a scan, 0xFF is followed by 0x00: this is the real end. It is looked for where it ought to be, at the end.
    return content.rfind(b"\xff\xd9", scan) >= 0
