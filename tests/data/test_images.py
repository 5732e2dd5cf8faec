"""Picture and mask files: what is damaged, too large, of another format or no file at all is refused by name."""

import io
import os
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from data import jpeg, png
from data.content import DataError, read_text
from data.images import MOST_PIXELS, image_header, read_image, read_indices, read_mask_colours
from tests.data.test_image_folder import SHARED, needs_shared

AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def drawn(height=24, width=40, channels=3):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    return cv2.GaussianBlur(pixels, (5, 5), 0).reshape(height, width, channels)


def indices(height=9, width=11):
    return np.random.default_rng(0).integers(0, 21, (height, width), np.uint8)


def saved(picture, kind, mode=None, **how):
    content = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    (picture.convert(mode) if mode else picture).save(content, kind, **how)
    return content.getvalue()


def written(tmp_path, content, name="picture"):
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


# Damage

PNGS = {
    "palette": (saved(Image.fromarray(indices()).quantize(20), "PNG"), read_indices),
    "grey": (saved(indices(), "PNG"), read_indices),
    "colours": (saved(drawn(6, 7), "PNG"), read_image),
    "16 bits": (cv2.imencode(".png", drawn(6, 7).astype(np.uint16) * 250)[1].tobytes(), None),
}


@pytest.mark.parametrize("kind", PNGS)
def test_no_flipped_bit_of_a_png_gives_other_pixels(tmp_path, kind):
    whole, read = PNGS[kind]
    read = read or (lambda path: read_image(path, picture_range=(0, 65535)))
    wanted, refused = read(written(tmp_path, whole)), 0
    for bit in range(0, 8 * len(whole), 3):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path = written(tmp_path, bytes(damaged))
        try:
            assert np.array_equal(read(path), wanted), bit
        except DataError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
    assert refused == -(-8 * len(whole) // 3)


def test_a_png_without_its_end_is_refused(tmp_path):
    path = written(tmp_path, saved(drawn(), "PNG")[:-12])
    for read in (read_image, read_indices):
        with pytest.raises(DataError, match="this PNG is cut short after"):
            read(path)


@pytest.mark.parametrize(
    ("colour", "read"), [(0, read_indices), (3, read_indices), (2, read_image), (2, read_mask_colours)]
)
def test_a_png_of_too_few_pixels_is_refused_though_its_checksums_are_right(tmp_path, colour, read):
    rows = zlib.compress(b"".join(b"\0" + bytes(3 if colour == 2 else 1) * 8 for _ in range(4)))
    palette = chunk(b"PLTE", bytes(9)) if colour == 3 else b""
    header = (8).to_bytes(4) + (5).to_bytes(4) + bytes([8, colour, 0, 0, 0])
    content = png.SIGNATURE + chunk(b"IHDR", header) + palette + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="this PNG is damaged: it cannot be decoded"):
        read(written(tmp_path, content))


def test_bytes_after_the_end_of_a_png_are_allowed(tmp_path):
    assert np.array_equal(read_image(written(tmp_path, saved(drawn(), "PNG") + b"notes" * 9)), drawn())


def test_what_the_decoder_of_jpegs_warns_of_is_refused(tmp_path):
    content = bytearray(saved(drawn(), "JPEG", restart_marker_rows=1))
    content[content.index(b"\xff\xd0") + 1] = 0xD3  # another of the markers by which a decoder finds its way back
    path = written(tmp_path, bytes(content))
    assert cv2.imdecode(np.frombuffer(content, np.uint8), AS_STORED) is not None
    with pytest.raises(DataError, match=r"this JPEG is damaged: Corrupt JPEG data: .*--accept-damaged"):
        read_image(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damaged_pictures_are_read_as_far_as_they_go_where_that_is_asked_for_and_named_once(tmp_path, kind, capfd):
    whole = saved(drawn(200, 90), kind)
    path = written(tmp_path, whole[: len(whole) // 2])
    with pytest.raises(DataError, match=f"this {kind} is cut short after"):
        read_image(path)
    for _ in range(2):
        image = read_image(path, accept_damaged=True)
    assert image.shape == (200, 90, 3)
    assert np.array_equal(image[:60], read_image(written(tmp_path, whole, "whole"))[:60])
    assert [line.split(": this")[0] for line in capfd.readouterr().err.splitlines()] == [str(path)]
    with pytest.raises(DataError, match="and nothing is left of it"):
        read_image(written(tmp_path, whole[:30]), accept_damaged=True)


def test_a_png_with_damaged_pixels_is_read_up_to_them_where_that_is_asked_for(tmp_path):
    content = bytearray(saved(drawn(200, 90), "PNG"))
    content[len(content) // 2] ^= 1
    image = read_image(written(tmp_path, bytes(content)), accept_damaged=True)
    assert np.array_equal(image[:60], drawn(200, 90)[:60])


def test_of_a_png_whose_rows_go_wrong_those_before_are_read_where_that_is_asked_for(tmp_path):
    rows = [b"\0" + row.tobytes() for row in drawn(9, 7)]
    rows[6] = b"\x63" + rows[6][1:]  # there is no such filter
    data = bytearray(chunk(b"IDAT", zlib.compress(b"".join(rows))))
    data[-1] ^= 1
    header = chunk(b"IHDR", (7).to_bytes(4) + (9).to_bytes(4) + bytes([8, 2, 0, 0, 0]))
    path = written(tmp_path, png.SIGNATURE + header + bytes(data) + chunk(b"IEND", b""))
    image = read_image(path, accept_damaged=True)
    assert np.array_equal(image[:6], drawn(9, 7)[:6])
    assert not image[6:].any()


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "WEBP", "GIF"])
def test_formats_without_checksums_are_read_or_refused_by_name(tmp_path, kind):
    whole, rng = (
        saved(Image.fromarray(drawn()).quantize(20) if kind == "GIF" else drawn(), kind),
        np.random.default_rng(0),
    )
    for _ in range(60):
        damaged = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.3 else whole)
        for at in rng.integers(0, max(1, min(len(damaged), 60)), 3):
            damaged[at : at + 1] = rng.bytes(1)
        path = written(tmp_path, bytes(damaged))
        for read in (read_image, read_indices, read_mask_colours, image_header):
            try:
                read(path)
            except DataError as error:
                assert str(error).startswith(f"{path}: ")


# Size


def chunk(kind, data):
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def claiming(kind, side):
    """A small file whose header says that it has side x side pixels."""
    content = saved(indices(16, 16), kind)
    if kind == "JPEG":
        at = content.index(b"\xff\xc0") + 5
        return content[:at] + 2 * side.to_bytes(2) + content[at + 4 :]
    if kind == "PNG":
        return content[:8] + chunk(b"IHDR", 2 * side.to_bytes(4) + content[24:29]) + content[33:]
    if kind == "BMP":
        return content[:18] + 2 * side.to_bytes(4, "little") + content[26:]
    if kind == "GIF":
        return content.replace(2 * (16).to_bytes(2, "little"), 2 * side.to_bytes(2, "little"))
    for tag in (256, 257):
        at = content.index(tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + (16).to_bytes(4, "little")) + 8
        content = content[:at] + side.to_bytes(4, "little") + content[at + 4 :]
    return content


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "GIF"])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, kind):
    path = written(tmp_path, claiming(kind, 20_000))
    reads = {"JPEG": [read_image], "GIF": [read_indices]}.get(kind, [read_image, read_indices])
    for read in reads:
        with pytest.raises(
            DataError, match=f"pixels .*by its header. At most {MOST_PIXELS:,} are read: scale it down, or cut"
        ):
            read(path)


def test_a_tiff_that_tells_its_size_as_no_plain_number_is_refused(tmp_path):
    content = saved(drawn(), "TIFF").replace(b"\0\1\4\0\1\0\0\0", b"\0\1\x09\0\1\0\0\0")  # signed, which libtiff takes
    for read in (read_image, image_header):
        with pytest.raises(DataError, match="its width and height are no numbers"):
            read(written(tmp_path, content))


def test_what_cannot_be_mended_is_not_offered(tmp_path):
    with pytest.raises(DataError, match=r"this BMP is damaged: it cannot be decoded. Fetch or save it again\.$"):
        read_image(written(tmp_path, saved(drawn(), "BMP")[:-9]))


def test_of_pictures_of_16_bits_half_as_many_pixels_are_read(tmp_path):
    header = (10_000).to_bytes(4) + (8_000).to_bytes(4) + bytes([16, 2, 0, 0, 0])
    content = png.SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(DataError, match=r"10000x8000 pixels of 16 bits by its header. At most 50,000,000"):
        read_image(written(tmp_path, content), picture_range=(0, 1))


# Formats

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"


@pytest.mark.parametrize("content", [POSTSCRIPT, saved(drawn(), "ICO"), saved(drawn(), "PCX")])
def test_formats_that_are_not_read_are_refused_by_name_whatever_pillow_knows(tmp_path, content):
    path = written(tmp_path, content, "mask.png")
    for read in (read_image, read_indices, image_header):
        with pytest.raises(DataError, match=r"mask\.png: .*is none of .*PNG, BMP, TIFF"):
            read(path)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM"])
def test_masks_of_these_formats_are_read_as_indices(tmp_path, kind):
    picture = Image.fromarray(indices())
    if kind != "PPM":
        picture.putpalette(np.random.default_rng(0).bytes(768))
    how = {"tiffinfo": {274: 6}} if kind == "TIFF" else {}  # lies on its side, and is not turned
    assert np.array_equal(read_indices(written(tmp_path, saved(picture, kind, **how))), indices())


def test_grey_masks_of_few_bits_whose_values_pillow_scales_are_refused(tmp_path):
    header = (4).to_bytes(4) + (1).to_bytes(4) + bytes([4, 0, 0, 0, 0])
    pixels = chunk(b"IDAT", zlib.compress(b"\0\x01\x23"))
    content = png.SIGNATURE + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="mode L of 4 bits"):
        read_indices(written(tmp_path, content))


@pytest.mark.parametrize("kind", ["P2", "P5"])
def test_grey_maps_whose_white_is_not_255_are_no_masks(tmp_path, kind):
    for white in (20, 255):
        values = b" ".join(b"%d" % value for value in indices().ravel()) if kind == "P2" else indices().tobytes()
        path = written(tmp_path, kind.encode() + b"\n11 9\n%d\n" % white + values)
        if white == 255:
            assert np.array_equal(read_indices(path), indices())
        else:
            with pytest.raises(DataError, match="white is not 255"):  # Pillow makes 255 of 20
                read_indices(path)


def test_a_tiff_whose_values_count_down_from_white_is_no_mask(tmp_path):
    photometric = b"\6\1\3\0\1\0\0\0"  # tag 262, one SHORT
    content = saved(indices(), "TIFF").replace(photometric + b"\1", photometric + b"\0")
    with pytest.raises(DataError, match="white is not 255"):
        read_indices(written(tmp_path, content))


def test_a_tiff_of_jpegs_is_no_mask(tmp_path):
    path = written(tmp_path, saved(indices(), "TIFF", compression="jpeg"))
    for read in (read_indices, read_mask_colours):
        with pytest.raises(DataError, match="a mask is lossless; this one is TIFF compressed by method 7"):
            read(path)


@pytest.mark.parametrize("how", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate"])
def test_a_tiff_that_loses_nothing_is_a_mask(tmp_path, how):
    assert np.array_equal(read_indices(written(tmp_path, saved(indices(), "TIFF", compression=how))), indices())


JPEGS = [
    {"mode": mode, "progressive": progressive, "subsampling": subsampling}
    for mode in ("RGB", "L", "CMYK")
    for progressive in (False, True)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")
]


@pytest.mark.parametrize("size", [(40, 60), (41, 61), (1, 1), (7, 3)])
def test_jpegs_are_decoded_as_opencv_does(tmp_path, size):
    for how in [*JPEGS, {"keep_rgb": True}, {"restart_marker_rows": 1}]:
        content = saved(drawn(*size), "JPEG", **how)
        wanted = cv2.imdecode(np.frombuffer(content, np.uint8), AS_STORED)
        assert np.array_equal(read_image(written(tmp_path, content)), wanted), how


@needs_shared
def test_photographs_are_decoded_as_opencv_does_and_without_a_warning():
    for path in sorted(SHARED.rglob("*.jpg"))[::25]:
        content = path.read_bytes()
        if content.startswith(b"\xff\xd8"):
            found = jpeg.decoded(content, jpeg.headers(content))
            assert np.array_equal(found, cv2.imdecode(np.frombuffer(content, np.uint8), AS_STORED)), path


# No files


@pytest.mark.parametrize("read", [read_image, read_indices, image_header, read_text])
def test_what_is_no_file_is_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")  # on which a reader would wait for ever
    for path, what in ((tmp_path / "pipe", "device, pipe"), ("/dev/zero", "device, pipe"), (tmp_path, "folder")):
        with pytest.raises(DataError, match=f"{path}: cannot be read: it is a {what}"):
            read(path)


def test_text_with_a_zero_or_too_much_of_it_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"zero\.txt: cannot be read as text .*byte 4 is 0"):
        read_text(written(tmp_path, b"disc\0star", "zero.txt"))
    path = written(tmp_path, b"", "large.txt")
    os.truncate(path, 10**12)  # of which the disk holds nothing
    with pytest.raises(DataError, match=r"large\.txt: has 1,000,000,000,000 bytes.*at most 100,000,000"):
        read_text(path)
    with pytest.raises(DataError, match="at most 500,000,000"):
        read_image(path)
