"""Lists and class files as people write them: read as they are meant, or refused with the line and the reason."""

import cv2
import numpy as np
import pytest

from data.class_names import read_class_names
from data.images import DataError
from data.voc import VOCSegmentation, write_mask

NAMES = ("a", "b.v2", "sub/c", "with space")


@pytest.fixture
def root(tmp_path):
    for name in NAMES:
        (tmp_path / "JPEGImages" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "JPEGImages" / f"{name}.JPG"), np.zeros((4, 6, 3), np.uint8))
        write_mask(tmp_path / "SegmentationClass" / f"{name}.png", np.zeros((4, 6), np.uint8))
        write_mask(tmp_path / "SegmentationClassAug" / f"{name}.png", np.ones((4, 6), np.uint8))
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfbackground\r\nthing\r\n")
    return tmp_path


def read(root, text):
    (root / "ImageSets" / "Segmentation" / "train.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    return VOCSegmentation(root, "train")


@pytest.mark.parametrize(
    "text",
    [
        "a\nb.v2\nsub/c\nwith space\n",
        b"\xef\xbb\xbfa\r\nb.v2\r\nsub/c\r\nwith space\r\n",
        "a.jpg\nb.v2.JPG\nsub/c.jpg\nwith space.JPG",
        "/JPEGImages/a.jpg /SegmentationClassAug/a.png\nJPEGImages/b.v2.jpg SegmentationClass/b.v2.png\n"
        "VOC2012/JPEGImages/sub/c.jpg VOC2012/SegmentationClass/sub/c.png\n./with space",
    ],
)
def test_lists_are_read_as_they_are_meant(root, text):
    dataset = read(root, text)
    assert tuple(dataset.names) == NAMES
    assert all(not dataset[index][1].any() for index in range(4))  # the official folder's
    assert dataset.class_names == ("background", "thing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nno\nghost", r"line 2: .*JPEGImages/no\.jpg is missing, and 1 more of its 3 lines"),
        ("a -1\n", r"line 1: 'a -1' is of a list for one class"),
        ("a a_mask.png\n", r"line 1: .*a_mask\.png is missing"),
        ("../a\n", "line 1: .*is missing"),
    ],
)
def test_other_lines_are_refused_with_the_reason(root, text, message):
    with pytest.raises(DataError, match=message):
        read(root, text)


def test_a_pair_may_name_a_mask_elsewhere(root):
    write_mask(root / "labels" / "other.png", np.ones((4, 6), np.uint8))
    assert read(root, "JPEGImages/a.jpg labels/other.png")[0][1].all()


def test_folders_without_lists_are_answered_with_what_makes_them(root):
    (root / "ImageSets").rename(root / "gone")
    with pytest.raises(DataError, match=r"prepare_data\.py pictures --images .*JPEGImages --masks .*SegmentationClass"):
        VOCSegmentation(root, "train")


@pytest.mark.parametrize("name", ["class_names.txt", "labels.txt", "ImageSets/Segmentation/classes.txt"])
def test_class_files_of_labelme_and_others_are_seen(root, name):
    (root / "classes.txt").unlink()
    (root / name).write_text("__ignore__\n_background_\ncat\n")
    assert read(root, "a").class_names == ("background", "cat")
    (root / "classes.txt").write_text("background\ndog\n")
    with pytest.raises(DataError, match="names other classes than"):
        read(root, "a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nbackground\ncat\n", "line 1: 'name' is a header"),
        ("Pixel Value, Class\n0, background\n", "line 1: .* is a header"),
        ("background\n# animals\ncat\n", "line 2: '# animals' is a comment"),
        ("background:0,0,0::\ncat:1,2,3::\n", "CVAT's labelmap.txt"),
        ("background\n__ignore__\ncat\n", "can only be the first line"),
    ],
)
def test_what_would_shift_the_classes_is_refused(tmp_path, text, message):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_class_names(tmp_path / "classes.txt")
