"""TIFF files (Adobe, "TIFF 6.0"): the numbers in their first directory, which Pillow does not give of every kind."""

from typing import Literal

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION = 256, 257, 258, 259, 262, 274  # tags
LOSSLESS = {1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000}  # none, CCITT's, LZW, deflate, PackBits, deflate, LZMA, Zstd
BLACK_IS_ZERO = 1  # of PHOTOMETRIC; 0 is white
_BYTES = {3: 2, 4: 4}  # of the types SHORT and LONG


def _order(content: bytes) -> Literal["little", "big"]:
    return "little" if content[:2] == b"II" else "big"


def _place(content: bytes, wanted: int) -> tuple[int, int]:
    """Where the value of a tag begins, and its bytes; (0, 0) where there is none."""
    order = _order(content)
    start = int.from_bytes(content[4:8], order)
    for at in range(start + 2, start + 2 + 12 * int.from_bytes(content[start : start + 2], order), 12):
        tag, kind = (int.from_bytes(content[place : place + 2], order) for place in (at, at + 2))
        size = _BYTES.get(kind, 0)
        if tag == wanted and size:  # tag 2, type 2, count 4, then 4 bytes: the values, or where they are
            inside = size * int.from_bytes(content[at + 4 : at + 8], order) <= 4
            return (at + 8 if inside else int.from_bytes(content[at + 8 : at + 12], order)), size
    return 0, 0


def value(content: bytes, tag: int, default: int = 0) -> int:
    """The first number that a tag has."""
    at, size = _place(content, tag)
    return int.from_bytes(content[at : at + size], _order(content)) if size else default


def upright(content: bytes) -> bytes:
    """A TIFF's bytes with its orientation set to upright."""
    at, size = _place(content, ORIENTATION)
    return content[:at] + (1).to_bytes(size, _order(content)) + content[at + size :] if size else content
