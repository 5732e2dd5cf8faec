"""JPEG files (ITU-T T.81): what their headers say before anything is decoded; pixels, or what is wrong with them."""

from typing import NamedTuple

import numpy as np
import simplejpeg

from data.damage import Damage

VERSION = simplejpeg.__version__  # of the decoder
_SCAN = 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the markers of a frame's header; the three are of tables
_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_EXIF = 0xE1


class Jpeg(NamedTuple):
    """What the headers of a JPEG say.

    Attributes:
        size: (height, width). components: 1 of grey, 3, or 4 of CMYK and YCCK. exif: whether it has such a header.
        scan_at: where its first scan begins.
    """

    size: tuple[int, int]
    components: int
    exif: bool
    scan_at: int


def headers(content: bytes) -> Jpeg:
    """Reads a JPEG's headers up to its first scan. Raises Damage where they break off."""
    size, components, exif, at = None, 0, False, 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == _SCAN and size:
            return Jpeg(size, components, exif, at)
        if marker == 0xFF:  # it fills
            at += 1
            continue
        if marker in _BARE:
            at += 2
            continue
        if marker in _FRAMES and at + 10 <= len(content):  # length 2, bits 1, height 2, width 2, components 1
            size = int.from_bytes(content[at + 5 : at + 7]), int.from_bytes(content[at + 7 : at + 9])
            components = content[at + 9]
        elif marker == _EXIF:
            exif = exif or content.startswith(b"Exif\0\0", at + 4)
        at += 2 + int.from_bytes(content[at + 2 : at + 4])
    if at >= len(content):
        raise Damage(f"is cut short after {len(content)} bytes")
    raise Damage(f"is damaged: its headers break off at byte {at}")


def is_whole(content: bytes, jpeg: Jpeg) -> bool:
    """Whether the scans are ended by their marker; a thumbnail inside a header has one of its own."""
    # Within a scan, 0xFF is followed by 0x00: this is the real end. It is looked for where it ought to be, at the end.
    return content.rfind(b"\xff\xd9", jpeg.scan_at) >= 0


def decoded(content: bytes, jpeg: Jpeg, strict: bool = True) -> np.ndarray | None:
    """Decodes a JPEG with libjpeg-turbo, whose warnings OpenCV keeps to itself and paints over.

    Args:
        strict: False also gives what is decoded with a warning.

    Returns:
        uint8 (H, W, 3), RGB; None of CMYK and of rare subsamplings, which this interface does not turn into RGB.

    Raises:
        Damage: with what the decoder says.
    """
    cmyk = jpeg.components == 4
    try:
        found = simplejpeg.decode_jpeg(content, "CMYK" if cmyk else "RGB", strict=strict)
    except ValueError as error:
        if "subsampling" in str(error):
            return None
        raise Damage(f"is damaged: {error}") from error
    return None if cmyk else found
