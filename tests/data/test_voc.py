import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from data.images import DataError, image_format, image_size, read_image
from data.sample import draw_voc
from data.voc import IGNORE_LABEL, VOC_CLASSES, VOCSegmentation, colorize, mask_png, palette, read_mask, write_mask
from errors import UserError
from files.writing import write_whole
from tests.data.test_image_folder import SHARED, needs_shared

VOC = SHARED / "VOC2012"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    draw_voc(root, train=4, val=2)
    return root


@pytest.fixture
def root(drawn, tmp_path):
    """A data set that the test may spoil."""
    for file in drawn.rglob("*"):
        if file.is_file():
            write_whole(tmp_path / file.relative_to(drawn), file.read_bytes())
    return tmp_path


def jpeg(height=40, width=60, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.GaussianBlur(pixels, (5, 5), 0))[1].tobytes()


def sets(root):
    return root / "ImageSets" / "Segmentation"


# Colours


def test_palette_holds_the_published_colours():
    colours = palette()
    assert colours.shape == (256, 3) and colours.dtype == np.uint8
    assert colours[[0, 1, 2, 8, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [64, 0, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]
    assert len(np.unique(colours, axis=0)) == 256
    assert np.array_equal(palette(21), colours[:21])


def test_classes_are_the_21_of_voc():
    assert len(VOC_CLASSES) == 21
    assert (VOC_CLASSES[0], VOC_CLASSES[15], VOC_CLASSES[20]) == ("background", "person", "tvmonitor")


def test_colorize_paints_each_index():
    assert colorize(np.array([[0, 15], [255, 1]], np.uint8)).tolist() == [
        [[0, 0, 0], [192, 128, 128]],
        [[224, 224, 192], [128, 0, 0]],
    ]


# Images


def test_image_is_read_as_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((2, 3, 3), (0, 0, 255), np.uint8))  # OpenCV writes BGR
    image = read_image(tmp_path / "red.png")
    assert image.shape == (2, 3, 3) and image.dtype == np.uint8
    assert np.all(image == (255, 0, 0))


def test_grey_image_gets_three_channels(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((2, 3), 7, np.uint8))
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.full((2, 3, 3), 7))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_pictures_are_turned_as_viewers_turn_them(tmp_path, kind, orientation):
    pixels = np.kron(np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    exif, path = Image.Exif(), tmp_path / f"turned.{kind}"
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **({"lossless": True} if kind == "webp" else {}))
    stored = read_image(path, turn=False)
    assert stored.shape == pixels.shape and np.abs(stored.astype(int) - pixels).mean() < 15
    picture = Image.fromarray(stored)
    picture.getexif()[274] = orientation
    seen = np.asarray(ImageOps.exif_transpose(picture))  # Pillow's own way
    assert np.array_equal(read_image(path), seen)
    assert image_size(path) == seen.shape[:2] and image_size(path, turn=False) == stored.shape[:2]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_pictures_of_16_bits_are_refused_with_their_range_or_scaled(tmp_path, kind, shape):
    values = np.full(shape, 450, np.uint16)
    values[0, 0], values[1, 1] = 100, 800
    cv2.imwrite(str(tmp_path / f"deep.{kind}"), values)
    with pytest.raises(DataError, match=r"16 bits, here 100 … 800.*--picture-range 100,800"):
        read_image(tmp_path / f"deep.{kind}")
    image = read_image(tmp_path / f"deep.{kind}", picture_range=(200, 800))
    assert image.dtype == np.uint8 and image.shape == (5, 7, 3)
    assert (image[0, 0, 0], image[1, 1, 0], image[2, 2, 0]) == (0, 255, round(255 * 250 / 600))


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.01, 0.999))
def test_a_truncated_jpeg_is_refused(tmp_path_factory, share):
    path = tmp_path_factory.getbasetemp() / "cut.jpg"
    path.write_bytes(jpeg()[: int(len(jpeg()) * share)])
    with pytest.raises(DataError, match=r"cut\.jpg"):
        read_image(path)


def test_a_truncated_jpeg_is_refused_despite_the_whole_thumbnail_in_it(tmp_path):
    picture, thumbnail = jpeg(), jpeg(8, 8)
    segment = b"\xff\xe1" + (2 + 6 + len(thumbnail)).to_bytes(2) + b"Exif\0\0" + thumbnail
    whole = picture[:2] + segment + picture[2:]
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert read_image(tmp_path / "whole.jpg").shape == (40, 60, 3)
    (tmp_path / "cut.jpg").write_bytes(whole[:-200])
    with pytest.raises(DataError, match="cut short after"):
        read_image(tmp_path / "cut.jpg")


def test_a_jpeg_filled_up_with_zeros_is_refused(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(jpeg()[:-2] + bytes(500))  # a download that reserved its space and stopped
    with pytest.raises(DataError, match="cut short"):
        read_image(tmp_path / "cut.jpg")


def test_bytes_after_the_end_of_a_jpeg_are_allowed(tmp_path):
    (tmp_path / "more.jpg").write_bytes(jpeg() + b"camera's notes" * 50)
    assert read_image(tmp_path / "more.jpg").shape == (40, 60, 3)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\xff\xd8", b"\xff\xd8\xff\xd9"])
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "page.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"page\.jpg"):
        read_image(tmp_path / "page.jpg")


def test_a_missing_image_is_a_users_error(tmp_path):
    with pytest.raises(UserError, match=r"none\.jpg: cannot be read: No such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        image_format(tmp_path / "none.jpg")


# Masks


def test_mask_comes_back_as_written(tmp_path):
    mask = np.random.default_rng(0).choice(np.array([*range(21), 255], np.uint8), (17, 23))
    write_mask(tmp_path / "new" / "m.png", mask)
    assert np.array_equal(read_mask(tmp_path / "new" / "m.png", 21, (17, 23)), mask)
    with Image.open(tmp_path / "new" / "m.png") as file:
        assert file.mode == "P"
        assert np.array_equal(np.asarray(file.convert("RGB")), colorize(mask))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["m.png"]


def test_grey_mask_is_read_as_indices(tmp_path):
    Image.fromarray(np.array([[0, 4, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", 5).tolist() == [[0, 4, 255]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "1", "I;16"])
def test_mask_of_colours_is_refused(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=rf"m\.png: a mask must hold class indices .*mode {mode}"):
        read_mask(tmp_path / "m.png", 21)


def test_mask_with_a_value_that_is_no_class_is_refused(tmp_path):
    write_mask(tmp_path / "m.png", np.array([[0, 5, 254, 4, 255]], np.uint8))
    with pytest.raises(DataError, match=r"m\.png: .*0 … 4 and 255.*found 5, 254\."):
        read_mask(tmp_path / "m.png", 5)


def test_mask_of_another_size_is_refused(tmp_path):
    write_mask(tmp_path / "m.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(DataError, match=r"m\.png: the mask is 4x3 .* its image 3x4"):
        read_mask(tmp_path / "m.png", 5, (4, 3))


def test_broken_mask_is_refused(tmp_path):
    write_mask(tmp_path / "m.png", np.random.default_rng(0).integers(0, 21, (50, 50), np.uint8))
    (tmp_path / "cut.png").write_bytes((tmp_path / "m.png").read_bytes()[:-400])
    (tmp_path / "text.png").write_text("no mask")
    for name in "cut.png", "text.png":
        with pytest.raises(DataError, match=rf"{name}: cannot be read as a mask"):
            read_mask(tmp_path / name, 21)
    with pytest.raises(DataError, match=r"none\.png: cannot be read: No such file"):
        read_mask(tmp_path / "none.png", 21)


def test_a_mask_with_a_damaged_byte_is_refused_or_whole(tmp_path):
    mask = np.random.default_rng(0).integers(0, 21, (9, 11), np.uint8)
    whole = mask_png(mask)
    for at in range(len(whole)):
        (tmp_path / "m.png").write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            assert np.array_equal(read_mask(tmp_path / "m.png", 21), mask), at
        except DataError as error:
            assert "m.png: " in str(error)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_masks_of_any_palette_are_read_as_indices(tmp_path, bits):
    mask = np.random.default_rng(0).integers(0, 2**bits, (9, 11), np.uint8) % 22
    picture = Image.fromarray(mask)
    picture.putpalette(b"..IDAT" * 128)  # a chunk's name within the palette, and every colour twice
    picture.save(tmp_path / "m.png", bits=bits, transparency=bytes(range(2**bits)))
    assert np.array_equal(read_mask(tmp_path / "m.png", 22), mask)


@pytest.mark.parametrize("mask", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8)])
def test_only_masks_are_written(tmp_path, mask):
    with pytest.raises(DataError, match="must be uint8"):
        write_mask(tmp_path / "m.png", mask)
    assert not list(tmp_path.iterdir())


# The folder


def test_dataset_reads_pairs(drawn):
    dataset = VOCSegmentation(drawn, "val")
    assert (dataset.root, dataset.image_set, len(dataset)) == (drawn, "val", 2)
    assert dataset.names == ["val_00000", "val_00001"]
    assert dataset.class_names == ("background", "disc", "square", "triangle", "star") and dataset.num_classes == 5
    image, mask = dataset[1]
    assert image.dtype == mask.dtype == np.uint8
    assert image.shape == (*mask.shape, 3)
    assert np.array_equal(mask, read_mask(drawn / "SegmentationClass" / "val_00001.png", 5))


def test_without_class_names_the_classes_are_vocs_where_the_images_are_named_as_vocs(root):
    (sets(root) / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"no file names its classes, and they are not VOC's 21.*classes\.txt"):
        VOCSegmentation(root, "val")
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug"):
        for file in (root / folder).glob("val_*"):
            file.rename(file.with_name(f"2007_0{file.name[4:]}"))
    (sets(root) / "val.txt").write_text("2007_000000\n2007_000001\n")
    dataset = VOCSegmentation(root, "val")
    assert dataset.class_names == VOC_CLASSES and "as all images are named as VOC's" in dataset.classes_from


def test_masks_are_taken_from_the_official_folder_and_else_from_aug(root):
    size = read_image(root / "JPEGImages" / "val_00000.jpg").shape[:2]
    for name in ("val_00000", "val_00001"):
        write_mask(root / "SegmentationClassAug" / f"{name}.png", np.full(size, 3, np.uint8))
    (root / "SegmentationClass" / "val_00001.png").unlink()
    dataset = VOCSegmentation(root, "val")
    assert np.array_equal(dataset[0][1], read_mask(root / "SegmentationClass" / "val_00000.png", 5))
    assert dataset.pairs[1].mask.parent.name == "SegmentationClassAug"


@pytest.mark.parametrize("suffix", [".jpeg", ".png"])
def test_images_may_have_other_suffixes(root, suffix):
    image = read_image(root / "JPEGImages" / "val_00000.jpg")
    (root / "JPEGImages" / "val_00000.jpg").unlink()
    cv2.imwrite(str(root / "JPEGImages" / f"val_00000{suffix}"), image)
    assert VOCSegmentation(root, "val")[0][0].shape == image.shape


@pytest.mark.parametrize("gone", ["", "ImageSets/Segmentation", "JPEGImages"])
def test_missing_folder_is_named(root, gone):
    (root / gone).rename(root.with_name(f"{root.name}-gone"))
    with pytest.raises(DataError, match="no such folder") as caught:
        VOCSegmentation(root, "val")
    assert str(caught.value).startswith(f"{root / gone}:")


def test_missing_image_set_says_which_there_are(root):
    with pytest.raises(DataError, match=r"test\.txt: no such image set. There are: train, trainaug, val\."):
        VOCSegmentation(root, "test")


def test_empty_image_set_is_refused(root):
    (sets(root) / "val.txt").write_text("\n \n")
    with pytest.raises(DataError, match=r"val\.txt: this image set is empty"):
        VOCSegmentation(root, "val")


def test_image_set_that_is_no_text_is_refused(root):
    (sets(root) / "val.txt").write_bytes(b"\xff\xfe\0")
    with pytest.raises(DataError, match=r"val\.txt: cannot be read as text"):
        VOCSegmentation(root, "val")


def test_missing_image_is_named_with_its_line(root):
    (sets(root) / "val.txt").write_text("val_00000\n\nghost_1\nval_00001\nghost_2\n")
    with pytest.raises(DataError, match=r"val\.txt, line 3: .*ghost_1\.jpg is missing, and 1 more of its 4 lines"):
        VOCSegmentation(root, "val")


def test_missing_mask_is_named_with_its_line(root):
    for folder in "SegmentationClass", "SegmentationClassAug":
        (root / folder / "val_00001.png").unlink()
    with pytest.raises(DataError, match=r"line 2: .*SegmentationClass/val_00001\.png is missing\."):
        VOCSegmentation(root, "val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("background\n\ndisc\n", r"classes\.txt, line 2: empty"),
        ("background\ndisc\nstar\ndisc\n", r"classes\.txt, line 4: the class 'disc' is there twice"),
        ("background\n", r"classes\.txt: must name 2 to 255 classes.*found 1"),
        ("".join(f"{number}\n" for number in range(256)), "found 256"),
    ],
)
def test_bad_class_names_are_refused(root, text, message):
    (sets(root) / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        VOCSegmentation(root, "val")


def test_mask_of_another_size_than_its_image_is_refused_when_read(root):
    write_mask(root / "SegmentationClass" / "val_00000.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(DataError, match=r"val_00000\.png: the mask is 9x9"):
        VOCSegmentation(root, "val")[0]


# Real data


@needs_shared
def test_real_voc_is_whole():
    expected = {"train": 437, "trainaug": 677, "val": 149}
    for image_set, count in expected.items():
        dataset = VOCSegmentation(VOC, image_set)
        assert len(dataset) == count and dataset.num_classes == 21
        for index in range(0, count, 40):
            image, mask = dataset[index]
            assert image.shape == (*mask.shape, 3)


@needs_shared
def test_real_masks_of_train_have_borders():
    dataset = VOCSegmentation(VOC, "train")
    assert all((dataset[index][1] == IGNORE_LABEL).any() for index in range(0, len(dataset), 60))


@needs_shared
def test_official_mask_uses_this_palette():
    path = next((VOC / "SegmentationClass").iterdir())
    with Image.open(path) as file:
        assert np.array_equal(np.array(file.getpalette()).reshape(-1, 3)[:21], palette(21))
