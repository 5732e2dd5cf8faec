from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.image_folder import ImageFolder, labelled_pictures
from data.images import DataError, read_image
from data.sample import SHAPES, draw_image_folder

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real data is not there: {SHARED}")


@pytest.fixture
def root(tmp_path):
    draw_image_folder(tmp_path, train=2, val=1)
    return tmp_path


def test_samples_are_sorted_by_class(root):
    dataset = ImageFolder(root, "train")
    assert dataset.class_names == tuple(sorted(SHAPES)) and dataset.num_classes == 4
    assert len(dataset) == 8 and dataset.skipped == []
    assert [label for _, label in dataset.samples] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(path.parent.name == dataset.class_names[label] for path, label in dataset.samples)
    assert dataset.samples == sorted(dataset.samples)


def test_item_is_image_and_label(root):
    image, label = ImageFolder(root, "train")[5]
    assert image.dtype == np.uint8 and image.ndim == 3 and label == 2
    assert np.array_equal(image, read_image(root / "train" / "star" / "star_00001.jpg"))


def test_content_decides_what_is_an_image(root):
    folder = root / "train" / "disc"
    Image.new("RGB", (8, 8)).save(folder / "a.jpg", "GIF")
    Image.new("RGB", (8, 8)).save(folder / "b.dat", "PNG")
    (folder / "notes.png").write_text("todo")
    (folder / "more").mkdir()
    dataset = ImageFolder(root, "train")
    assert [path.name for path, label in dataset.samples if label == 0] == ["b.dat", "disc_00000.jpg", "disc_00001.jpg"]
    assert [(path.name, reason) for path, reason in dataset.skipped] == [
        ("a.jpg", "GIF; only JPEG, PNG, BMP, TIFF and WEBP are read"),
        ("more", "a folder within a class folder"),
        ("notes.png", "unknown content; only JPEG, PNG, BMP, TIFF and WEBP are read"),
    ]
    with pytest.raises(DataError, match=r"(?s)3 files are not.*a\.jpg: GIF.*more: a folder.*notes\.png: unknown"):
        ImageFolder(root, "train", strict=True)


def test_hidden_files_and_folders_are_passed_over(root):
    (root / "train" / ".cache").mkdir()
    (root / "train" / "disc" / ".DS_Store").write_text("x")
    dataset = ImageFolder(root, "train", strict=True)
    assert dataset.skipped == [] and len(dataset) == 8 and dataset.num_classes == 4


def test_given_class_names_set_the_labels(root):
    names = ("star", "moon", "disc", "square", "triangle")
    dataset = ImageFolder(root, "val", class_names=names)
    assert dataset.class_names == names and dataset.num_classes == 5
    assert sorted(label for _, label in dataset.samples) == [0, 2, 3, 4]
    assert all(path.parent.name == names[label] for path, label in dataset.samples)


def test_class_unknown_to_training_is_refused(root):
    (root / "val" / "disc").rename(root / "val" / "moon")
    with pytest.raises(DataError, match="'moon' is none of the classes disc, square"):
        ImageFolder(root, "val", class_names=ImageFolder(root, "train").class_names)


def test_missing_split_is_refused(root):
    with pytest.raises(DataError, match=r"test: no such folder"):
        ImageFolder(root, "test")


def test_split_without_classes_is_refused(root):
    (root / "test").mkdir()
    (root / "test" / "stray.txt").write_text("x")
    with pytest.raises(DataError, match="holds no class folders"):
        ImageFolder(root, "test")


def test_class_without_image_is_refused(root):
    (root / "train" / "empty").mkdir()
    (root / "train" / "empty" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="empty: holds no image: JPEG, PNG, BMP, TIFF and WEBP are read"):
        ImageFolder(root, "train")


def test_broken_image_is_refused_when_read(root):
    path = root / "train" / "disc" / "disc_00000.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    dataset = ImageFolder(root, "train")
    with pytest.raises(DataError, match=r"disc_00000\.jpg: this JPEG is cut short"):
        dataset[0]


@needs_shared
def test_real_folder_holds_one_stray_gif():
    folder = SHARED / "hymenoptera_data"
    train, val = ImageFolder(folder, "train"), ImageFolder(folder, "val", strict=True, class_names=("ants", "bees"))
    assert train.class_names == ("ants", "bees")
    assert [path.name for path, _ in train.skipped] == ["imageNotFound.gif"]
    assert "GIF" in train.skipped[0][1]
    assert len(train) + len(val) == 397
    assert all(dataset[index][0].ndim == 3 for dataset in (train, val) for index in range(0, len(dataset), 40))
    with pytest.raises(DataError, match=r"1 files are not supported images:\n.*imageNotFound\.gif: GIF"):
        ImageFolder(folder, "train", strict=True)


def test_a_list_names_pictures_and_their_classes(root, tmp_path):
    (tmp_path / "a folder").mkdir()
    for number, name in enumerate(("1.png", "a folder/2.png", "3.png")):
        Image.new("RGB", (8, 9), (number, 0, 0)).save(tmp_path / name)
    (tmp_path / "list.txt").write_text("1.png bee\n\na folder/2.png 311\n3.png\tgreat white shark\n1.png bee\n")
    dataset = labelled_pictures(tmp_path / "list.txt", "val")
    assert dataset.class_names == ("bee", "311", "great white shark")
    assert [(path.name, label) for path, label in dataset.samples] == [
        ("1.png", 0),
        ("2.png", 1),
        ("3.png", 2),
        ("1.png", 0),
    ]
    image, label = dataset[1]
    assert image.shape == (9, 8, 3) and image[0, 0, 0] == 1 and label == 1
    assert isinstance(labelled_pictures(root, "train"), ImageFolder)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("1.png\n", "line 1: .*1.png: its class is missing"),
        ("1.png bee\nnone.png bee\n", "line 2: .*none.png: no such file"),
        ("list.txt bee\n", "line 1: .*list.txt: unknown content"),
        ("\n\n", "names no picture"),
    ],
)
def test_a_line_that_names_no_picture_is_refused(tmp_path, lines, said):
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    (tmp_path / "list.txt").write_text(lines)
    with pytest.raises(DataError, match=said):
        labelled_pictures(tmp_path / "list.txt", "val")
