"""Picture and mask files: looked at before they are decoded, read whole or refused.

All that is decoded is decoded here.
"""

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from data import jpeg, png, tiff
from data.content import DataError, check_file, read_bytes, read_start
from data.damage import Damage

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
LOSSY = ("JPEG", "WEBP")
MENDED = ("JPEG", "PNG")  # of which --accept-damaged takes what is left
MOST_PIXELS = 100_000_000  # of 8 bits; of 16 half as many. Decoding them takes up to 1.5 GB
MOST_BYTES = 500_000_000  # of a file
UPRIGHT = 1  # the orientation of a picture that is stored as it is seen

# OpenCV turns some formats by their tag and not others: here all are turned by `turned`.
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_AT_MOST = "At most {:,} are read: scale it down, or cut it into tiles."
_ORIENTATION = 274  # the tag's number in EXIF

DECODERS = cv2.__version__, jpeg.VERSION
_damaged: set[str] = set()  # pictures that were named

_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    png.SIGNATURE: "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"RIFF": "WEBP",
}

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong with a file is said once, here
warnings.filterwarnings("ignore", module=r"PIL\.")  # so too of Pillow's, also of sizes: MOST_PIXELS is looked at


def image_format(path: str | Path) -> str | None:
    """Tells the format of the file `path` from its first bytes, whatever its name: "JPEG", "PNG", "GIF" … or None."""
    return _format(read_start(path, 12))


def _format(head: bytes) -> str | None:
    found = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    return None if found == "WEBP" and head[8:12] != b"WEBP" else found  # RIFF holds sounds and films too


# Headers


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
    check_file(path, MOST_BYTES)
    if image_format(path) == "TIFF":
        content = read_bytes(path, MOST_BYTES)
        size, _ = _tiff_size(path, content)
        return Header(size, _tiff_orientation(content))
    with _opened(path, Path(path), IMAGE_FORMATS) as file:
        return Header(file.size[::-1], _orientation(file))


def image_size(path: str | Path, turn: bool = True) -> tuple[int, int]:
    """Reads (height, width), in pixels, of what `read_image` reads, from the header alone. Raises DataError as that."""
    header = image_header(path)
    return header.turned_size if turn else header.size


@contextmanager
def _opened(
    path: str | Path, source: bytes | Path, formats: tuple[str, ...], said: str = "an image"
) -> Iterator[ImageFile.ImageFile]:
    """What Pillow opens; whatever it raises on damaged files becomes a DataError."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as file:
            check_size(path, file.size[::-1])
            yield file
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: has too many pixels by its header. {_AT_MOST.format(MOST_PIXELS)}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: cannot be read as {said}: is none of {', '.join(formats)}. Replace it.") from error
    except Exception as error:
        raise DataError(f"{path}: cannot be read as {said}: {error}. Fetch or save it again.") from error


def check_size(path: str | Path, size: tuple[int, int], bits: int = 8) -> None:
    """Raises DataError for a picture of more than MOST_PIXELS, which is decoded by nobody then."""
    most = MOST_PIXELS * 8 // max(8, bits)
    if size[0] * size[1] > most:
        raise DataError(f"{path}: has {size[1]}x{size[0]} pixels of {bits} bits by its header. {_AT_MOST.format(most)}")


def _tiff_size(path: str | Path, content: bytes) -> tuple[tuple[int, int], int]:
    """(height, width) and the bits a value of a TIFF. Raises DataError as `check_size`, and where it tells no size."""
    size = tiff.value(content, tiff.HEIGHT), tiff.value(content, tiff.WIDTH)
    if not all(size):  # a decoder may understand them, and then nothing limits it
        raise DataError(f"{path}: this TIFF is damaged: its width and height are no numbers. Fetch or save it again.")
    bits = tiff.value(content, tiff.BITS, 1)
    check_size(path, size, bits)
    return size, bits


def _tiff_orientation(content: bytes) -> int:
    told = tiff.value(content, tiff.ORIENTATION, UPRIGHT)
    return told if told in range(1, 9) else UPRIGHT


def _orientation(file: Image.Image) -> int:
    """The orientation that an opened file's header tells; a PNG is not decoded for what stands behind its pixels."""
    if file.format == "PNG" and "exif" not in file.info:
        return UPRIGHT
    try:
        told = file.getexif().get(_ORIENTATION, UPRIGHT)
    except Exception:  # a damaged tag says nothing
        return UPRIGHT
    return told if told in range(1, 9) else UPRIGHT


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


# Pictures


def read_image(
    path: str | Path,
    *,
    turn: bool = True,
    picture_range: tuple[float, float] | None = None,
    accept_damaged: bool = False,
) -> np.ndarray:
    """Reads an image file, turned as its orientation tag says, which is how viewers and annotation tools show it.

    Args:
        turn: False leaves the pixels as they are stored.
        picture_range: the values of a picture of more than 8 bits that become 0 and 255; what is outside is clipped.
        accept_damaged: a damaged JPEG or PNG is decoded as far as it goes, and named on stderr, once.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        DataError: the file is missing, is none of IMAGE_FORMATS, is damaged or cut short, has more than MOST_PIXELS, or
            has more than 8 bits and no range is told.
    """
    image, orientation = _picture(path, accept_damaged)
    if image.dtype != np.uint8:
        image = _scaled(path, image, picture_range)
    return turned(image, orientation) if turn and orientation != UPRIGHT else image


def _picture(path: str | Path, accept_damaged: bool = False) -> tuple[np.ndarray, int]:
    """A picture's pixels as they are stored, RGB (H, W, 3), of uint8 or more bits; and its orientation."""
    content = read_bytes(path, MOST_BYTES)
    kind = _format(content[:12])
    if kind not in IMAGE_FORMATS:
        raise DataError(f"{path}: is none of {', '.join(IMAGE_FORMATS)} ({len(content)} bytes). Replace or remove it.")
    decode = _DECODERS[kind]
    try:
        return decode(path, content, False)
    except Damage as damage:
        if not accept_damaged:
            left = "; --accept-damaged takes what is left of it" if kind in MENDED else ""
            raise DataError(f"{path}: this {kind} {damage}. Fetch or save it again{left}.") from damage
        what = str(damage)
    try:
        found = decode(path, content, True)
    except Damage as damage:
        raise DataError(f"{path}: this {kind} {damage}, and nothing is left of it. Fetch or save it again.") from damage
    _name_damaged(str(path), f"this {kind} {what}")
    return found


def was_damaged(path: str | Path) -> bool:
    """Whether this process read a damaged picture there, and named it."""
    return str(path) in _damaged


def _name_damaged(path: str, what: str) -> None:
    if path not in _damaged:
        _damaged.add(path)
        print(f"{path}: {what}; what is left of it is used (--accept-damaged)", file=sys.stderr, flush=True)


def _jpeg(path: str | Path, content: bytes, damaged: bool) -> tuple[np.ndarray, int]:
    headers = jpeg.headers(content)
    check_size(path, headers.size)
    if not damaged and not jpeg.is_whole(content, headers):
        raise Damage(f"is cut short after {len(content)} bytes")
    pixels = jpeg.decoded(content, headers, strict=not damaged)
    return _by_opencv(content) if pixels is None else pixels, _tagged(content) if headers.exif else UPRIGHT


def _png(path: str | Path, content: bytes, damaged: bool) -> tuple[np.ndarray, int]:
    found = png.looked_through(content, damaged)
    check_size(path, found.size, found.depth)
    orientation = _tagged(content) if b"eXIf" in content else UPRIGHT
    return _by_opencv(png.mended(content, found) if damaged else content, found.depth > 8), orientation


def _tiff(path: str | Path, content: bytes, damaged: bool) -> tuple[np.ndarray, int]:
    _tiff_size(path, content)
    return _by_opencv(tiff.upright(content), deep=True), _tiff_orientation(content)  # OpenCV would turn it


def _other(path: str | Path, content: bytes, damaged: bool) -> tuple[np.ndarray, int]:
    with _opened(path, content, IMAGE_FORMATS) as file:  # which has looked at its size
        orientation = _orientation(file)
    return _by_opencv(content), orientation


_DECODERS = {"JPEG": _jpeg, "PNG": _png, "TIFF": _tiff, "BMP": _other, "WEBP": _other}


def _tagged(content: bytes) -> int:
    """The orientation of a file that may have one: Pillow is asked for the few."""
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as file:
            return _orientation(file)
    except Exception:  # the pixels were decoded; a damaged tag says nothing
        return UPRIGHT


def _by_opencv(content: bytes, deep: bool = False) -> np.ndarray:
    """RGB (H, W, 3) as stored, uint8; `deep`: of more bits where there are more. Raises Damage."""
    if not deep:
        return _decoded(content, _AS_STORED)
    # Not as RGB, which OpenCV makes of a TIFF of 16 bits byte by byte.
    image = _decoded(content, cv2.IMREAD_COLOR_BGR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.ascontiguousarray(image[..., ::-1]) if image.dtype == np.uint8 else image[..., ::-1]


def _decoded(content: bytes, flags: int) -> np.ndarray:
    """What OpenCV makes of an image file's bytes. Raises Damage."""
    try:
        found = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except (cv2.error, MemoryError):
        found = None
    if found is None:
        raise Damage("is damaged: it cannot be decoded")
    return found


def _scaled(path: str | Path, image: np.ndarray, picture_range: tuple[float, float] | None) -> np.ndarray:
    """Brings values of a picture of more than 8 bits to uint8."""
    if picture_range is None:
        low, high = image.min(), image.max()
        raise DataError(
            f"{path}: has values of {8 * image.itemsize} bits, here {low:g} … {high:g}. Say which of them are black "
            f"and white: --picture-range {low:g},{high:g}, or what all pictures have in common."
        )
    low, high = picture_range
    scaled = np.empty(image.shape, np.uint8)
    for row, values in zip(scaled, image, strict=True):  # all at once would take twelve bytes a value
        shares = (values.astype(np.float32) - low) / (high - low)
        row[...] = np.rint(255 * np.nan_to_num(np.clip(shares, 0, 1)))
    return scaled


def is_deep(path: str | Path) -> bool:
    """Whether the values of a picture may have more than 8 bits, by its first bytes; a TIFF's may. Raises DataError."""
    head = read_start(path, 26)
    return _format(head[:12]) == "TIFF" or (_format(head[:12]) == "PNG" and head[24:25] == b"\x10")


def deep_values(path: str | Path) -> tuple[float, float] | None:
    """The smallest and the largest value of a picture of more than 8 bits; None for one of 8. Raises DataError."""
    image, _ = _picture(path)
    return None if image.dtype == np.uint8 else (float(image.min()), float(image.max()))


# Masks


def read_indices(path: str | Path) -> np.ndarray:
    """Reads a picture of indices: what an 8-bit palette's colours are numbered by, or the values of 8-bit grey.

    Returns:
        uint8 (H, W); never turned, whatever its orientation tag.

    Raises:
        DataError: the file is missing, is none of MASK_FORMATS, is damaged or cut short, has more than MOST_PIXELS,
            holds colours or grey of other than 8 bits, or comes from a lossy format, whatever its name.
    """
    return read_indices_and_palette(path)[0]


def read_indices_and_palette(path: str | Path) -> tuple[np.ndarray, bytes]:
    """`read_indices`, and the palette: 3 bytes a colour, in the order of the indices; none of 8-bit grey."""
    content = read_bytes(path, MOST_BYTES)
    found = _mask_png(path, content)
    if found and found.depth == 8 and found.colour in (png.GREY, png.PALETTE):
        try:
            indices = _decoded(png.as_grey(content, found), cv2.IMREAD_UNCHANGED)
        except Damage as damage:
            raise _bad_mask(path, damage) from damage
        return indices, found.palette if found.colour == png.PALETTE else b""
    with _opened_mask(path, content) as file:
        mode, bits = file.mode, _mask_bits(content, found)
        if mode not in ("P", "L") or (mode == "L" and bits != 8):  # Pillow scales grey of 2 and 4 bits
            raise DataError(
                f"{path}: a mask must hold class indices (a palette PNG, or 8-bit grey); this one has mode {mode} of "
                f"{bits} bits. Map its colours to indices first: python prepare_data.py pictures --help."
            )
        _check_as_stored(path, content, file)
        return np.asarray(file), bytes(file.getpalette() or ()) if mode == "P" else b""


def mask_mode(path: str | Path) -> str:
    """How a mask's pixels are stored, as Pillow has it: "P" palette, "L" grey, "1", "RGB" … Raises DataError."""
    check_file(path, MOST_BYTES)
    with _opened(path, Path(path), MASK_FORMATS, _A_MASK) as file:
        return file.mode


def read_mask_colours(path: str | Path) -> np.ndarray:
    """Reads the colours of a mask: uint8 (H, W, 3), RGB, never turned. Raises DataError as `read_indices`."""
    content = read_bytes(path, MOST_BYTES)
    found = _mask_png(path, content)
    with _opened_mask(path, content) as file:
        if _mask_bits(content, found) > 8 or file.mode not in _COLOURS:
            raise DataError(
                f"{path}: has more than 8 bits, which no mask of colours has. Export the masks again, as PNG."
            )
        return np.asarray(file.convert("RGB"))


def inside_of(content: bytes, path: str | Path) -> np.ndarray:
    """bool (H, W): where a PNG that stands in the file `path` is not black. Raises DataError."""
    _mask_png(path, content)
    with _opened_mask(path, content) as file:
        return np.asarray(file.convert("L")) > 0


_A_MASK = "a mask"
_COLOURS = ("1", "L", "P", "LA", "PA", "RGB", "RGBA")


def _mask_png(path: str | Path, content: bytes) -> png.Png | None:
    """What a PNG says of itself, looked through; None for another format. Raises DataError, for a lossy format too."""
    kind = _format(content[:12])
    if kind in LOSSY or (kind == "TIFF" and tiff.value(content, tiff.COMPRESSION, 1) not in tiff.LOSSLESS):
        how = f"TIFF compressed by method {tiff.value(content, tiff.COMPRESSION)}" if kind == "TIFF" else kind
        raise DataError(
            f"{path}: a mask is lossless; this one is {how}, whatever its name: its values are no longer those that "
            "were drawn. Export the masks again, as PNG."
        )
    if kind != "PNG":
        return None
    try:
        found = png.looked_through(content)
    except Damage as damage:
        raise _bad_mask(path, damage) from damage
    check_size(path, found.size)
    return found


def _check_as_stored(path: str | Path, content: bytes, file: ImageFile.ImageFile) -> None:
    """Raises DataError for grey whose values Pillow changes, as it does unless white is 255."""
    scaled = file.format == "PPM" and file.tile[0][3] not in ("L", 255, ("L", 255))
    if scaled or (file.format == "TIFF" and tiff.value(content, tiff.PHOTOMETRIC, tiff.BLACK_IS_ZERO) == 0):
        raise DataError(
            f"{path}: its white is not 255, so that its values are not class indices as they stand. Export the masks "
            "again, as PNG."
        )


def _bad_mask(path: str | Path, damage: Damage) -> DataError:
    return DataError(f"{path}: cannot be read as a mask: this PNG {damage}. Fetch or save it again.")


def _opened_mask(path: str | Path, content: bytes) -> AbstractContextManager[ImageFile.ImageFile]:
    kind = _format(content[:12])
    if kind == "TIFF":
        content = tiff.upright(content)  # Pillow would turn it
    elif kind == "PNG":
        try:
            _decoded(content, cv2.IMREAD_UNCHANGED)  # where pixels are missing Pillow has black, and does not say so
        except Damage as damage:
            raise _bad_mask(path, damage) from damage
    return _opened(path, content, MASK_FORMATS, _A_MASK)


def _mask_bits(content: bytes, found: png.Png | None) -> int:
    """Bits a value of a mask."""
    if found:
        return found.depth
    return tiff.value(content, tiff.BITS, 1) if _format(content[:12]) == "TIFF" else 8
