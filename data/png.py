"""PNG files (W3C, "Portable Network Graphics", third edition): looked through before any decoder sees them.

Every chunk has a length and a checksum. Decoders believe the one and skip the other: a flipped bit in a length made
one take gigabytes, and one in the pixels went unseen.
"""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from data.damage import Damage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, PALETTE = 0, 3  # colour types
_CHANNELS = {GREY: 1, 2: 3, PALETTE: 1, 4: 2, 6: 4}  # by colour type
_HEADER_ENDS = len(SIGNATURE) + 25
_LAST_FILTER = 4
_STEP = 256  # bytes of damaged data that are inflated at once: so many are lost with one that is wrong


class Png(NamedTuple):
    """What the chunks of a PNG say.

    Attributes:
        size: (height, width). depth: bits a value. colour: the colour type. interlaced: stored in seven passes.
        palette: 3 bytes a colour; none without one. pixels_at: where the first chunk of pixels begins.
    """

    size: tuple[int, int]
    depth: int
    colour: int
    interlaced: bool
    palette: bytes
    pixels_at: int


def looked_through(content: bytes, damaged: bool = False) -> Png:
    """Checks a PNG's every length and checksum, up to its end.

    Args:
        damaged: only what stands before the pixels.

    Raises:
        Damage: what is wrong first.
    """
    view, header, palette, pixels_at = memoryview(content), b"", b"", 0
    for kind, start, end in _chunks(content):
        if kind == b"IDAT" and not pixels_at:
            pixels_at = start - 8
            if damaged:
                break
        if end + 4 > len(content):
            raise Damage(f"is cut short after {len(content)} bytes, or damaged")
        if zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise Damage(f"is damaged: the checksum of its part {kind!r} at byte {start - 8} is wrong")
        if not header and (kind != b"IHDR" or end - start != 13):
            raise Damage("is damaged: it does not begin with its header")
        if kind == b"IEND":
            break
        if kind == b"IHDR":
            header = content[start:end]
        elif kind == b"PLTE":
            palette = content[start:end]
    else:
        raise Damage(f"is cut short after {len(content)} bytes")
    if not header or not pixels_at:
        raise Damage("is damaged: it has no pixels")
    width, height = int.from_bytes(header[:4]), int.from_bytes(header[4:8])
    depth, colour, _, _, interlaced = header[8:]
    return Png((height, width), depth, colour, bool(interlaced), palette, pixels_at)


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields (type, where its data start, where they end) of each chunk; the last may end behind the file's end."""
    at = len(SIGNATURE)  # length 4, type 4, data, checksum 4
    while (start := at + 8) <= len(content):
        end = start + int.from_bytes(content[at : at + 4])
        yield content[at + 4 : start], start, end
        at = end + 4


def as_grey(content: bytes, png: Png) -> bytes:
    """The bytes of a palette PNG as those of a grey one, whose values are the indices.

    OpenCV reads no indices, but decodes grey in less time than Pillow, and without keeping other threads from Python.
    What stands between the header and the pixels, such as the palette, is left out.
    """
    header = content[16:25] + bytes([GREY]) + content[26:29]
    return SIGNATURE + _chunk(b"IHDR", header) + content[png.pixels_at :]


def mended(content: bytes, png: Png) -> bytes:
    """A damaged PNG as a whole one: the pixels that can still be read, and zeros. Raises Damage where that fails."""
    if png.interlaced or png.colour not in _CHANNELS:
        raise Damage("is damaged, and nothing of it can be read")
    height, width = png.size
    row = 1 + -(-width * png.depth * _CHANNELS[png.colour] // 8)  # its filter, 0 to 4, and its pixels
    wanted = height * row
    pixels, inflating = bytearray(), zlib.decompressobj()
    with suppress(zlib.error):  # what follows the first byte that is wrong depends on it
        for piece in _pixel_data(content):
            pixels += inflating.decompress(piece)
            if len(pixels) >= wanted:
                break
    del pixels[next((at for at in range(0, len(pixels), row) if pixels[at] > _LAST_FILTER), len(pixels)) :]
    palette = _chunk(b"PLTE", png.palette) if png.palette else b""
    data = zlib.compress(pixels[:wanted].ljust(wanted, b"\0"), 1)
    return content[:_HEADER_ENDS] + palette + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _pixel_data(content: bytes) -> Iterator[bytes]:
    """Yields the compressed pixels in small pieces, also those of a chunk that is cut short."""
    for kind, start, end in _chunks(content):
        if kind == b"IDAT":
            yield from (content[at : min(at + _STEP, end)] for at in range(start, min(end, len(content)), _STEP))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)
