import cv2
import numpy as np
import pytest

from data.image_folder import ImageFolder
from data.images import DataError
from data.sample import CLASS_NAMES, SHAPES, draw_image_folder, draw_voc
from data.voc import VOCSegmentation
from errors import UserError
from prepare_data import main


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    draw_voc(root, train=24, val=8)
    return root


def content(root):
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_image_sets_read_back(drawn):
    train, trainaug, val = (VOCSegmentation(drawn, name) for name in ("train", "trainaug", "val"))
    assert (len(train), len(trainaug), len(val)) == (24, 36, 8)
    assert trainaug.names[:24] == train.names and not set(trainaug.names) & set(val.names)
    assert train.class_names == CLASS_NAMES and train.num_classes == 5
    for dataset in trainaug, val:
        for index in range(len(dataset)):
            image, mask = dataset[index]
            assert all(96 <= side <= 128 for side in mask.shape)
            assert image.std() > 5
            assert 0.02 < ((mask > 0) & (mask < 255)).mean() < 0.6


def test_sizes_vary(drawn):
    dataset = VOCSegmentation(drawn, "train")
    shapes = {dataset[index][1].shape for index in range(len(dataset))}
    assert len(shapes) > 12 and any(height != width for height, width in shapes)


def test_every_class_and_several_objects_are_there(drawn):
    dataset = VOCSegmentation(drawn, "train")
    masks = [dataset[index][1] for index in range(len(dataset))]
    assert set(np.unique(np.concatenate([mask.ravel() for mask in masks]))) == {0, 1, 2, 3, 4, 255}
    objects = [cv2.connectedComponents(((mask > 0) & (mask < 255)).astype(np.uint8))[0] - 1 for mask in masks]
    assert set(objects) == {1, 2, 3}


def test_border_is_two_to_three_pixels_round_each_object(drawn):
    dataset = VOCSegmentation(drawn, "train")
    for index in range(len(dataset)):
        _, mask = dataset[index]
        inside = ((mask > 0) & (mask < 255)).astype(np.uint8)
        # No object touches the ground, and the border is gone three pixels from both.
        touched = cv2.dilate(inside, np.ones((3, 3), np.uint8)) > inside
        assert np.all(mask[touched] == 255)
        border = mask == 255
        thickness = cv2.distanceTransform(border.astype(np.uint8), cv2.DIST_L2, 5).max()
        assert 1 <= thickness < 2.5
        assert 1.8 < 2 * border.sum() / edge_length(border) < 3.2


def edge_length(border):
    """The length of both edges of a border together: its pixel area is half of that times the width."""
    contours, _ = cv2.findContours(border.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return sum(cv2.arcLength(contour, True) for contour in contours)


def test_extra_masks_have_no_border(drawn):
    dataset = VOCSegmentation(drawn, "trainaug")
    assert all(255 not in dataset[index][1] for index in range(24, 36))
    assert not list((drawn / "SegmentationClass").glob("extra*"))


def test_drawing_again_gives_the_same_bytes_and_more_keeps_the_first(drawn, tmp_path):
    draw_voc(tmp_path, train=8, val=2)
    first = content(tmp_path)
    draw_voc(tmp_path, train=8, val=2)
    assert content(tmp_path) == first
    whole = content(drawn)
    assert all(whole[name] == data for name, data in first.items() if not name.startswith("ImageSets"))
    draw_voc(tmp_path, train=8, val=2, seed=1)
    assert all(data != first[name] for name, data in content(tmp_path).items() if name.startswith("JPEGImages"))


def test_colour_does_not_tell_the_class(tmp_path):
    draw_image_folder(tmp_path, train=24, val=1)
    dataset = ImageFolder(tmp_path, "train")
    middles = [image[image.shape[0] // 3 : -image.shape[0] // 3].mean((0, 1)) for image, _ in dataset]
    means = np.array(middles).reshape(len(SHAPES), 24, 3)
    between, within = means.mean(1).std(0), means.std(1).mean(0)
    assert np.all(between < 0.5 * within)


def test_image_folder_reads_back_and_is_repeatable(tmp_path):
    draw_image_folder(tmp_path / "a", train=3, val=2)
    draw_image_folder(tmp_path / "b", train=3, val=2)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    train = ImageFolder(tmp_path / "a", "train", strict=True)
    val = ImageFolder(tmp_path / "a", "val", strict=True, class_names=train.class_names)
    assert set(train.class_names) == set(SHAPES)
    assert (len(train), len(val)) == (12, 8)


@pytest.mark.parametrize("draw", [draw_voc, draw_image_folder])
@pytest.mark.parametrize("numbers", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_impossible_numbers_are_refused(tmp_path, draw, numbers):
    with pytest.raises(DataError, match="Draw 1 image or more"):
        draw(tmp_path, *numbers)


def test_command_line(tmp_path, capsys):
    voc, folder = tmp_path / "voc", tmp_path / "folder"
    main(["sample", "--out", str(voc), "--train", "2", "--val", "1", "--seed", "5"])
    assert capsys.readouterr().out == f"Drew 2 training and 1 validation images under {voc}.\n"
    draw_voc(tmp_path / "same", 2, 1, 5)
    assert content(voc) == content(tmp_path / "same")
    main(["sample", "--out", str(folder), "--kind", "folder", "--train", "1", "--val", "1"])
    assert len(ImageFolder(folder, "train")) == 4


@pytest.mark.parametrize("flags", [["--train", "0"], ["--val", "0"], ["--seed", "-1"], ["--kind", "coco"]])
def test_command_line_refuses_what_cannot_be_drawn(tmp_path, flags):
    with pytest.raises(UserError, match=flags[0]):
        main(["sample", "--out", str(tmp_path / "new"), *flags])
    assert not (tmp_path / "new").exists()


def test_command_line_needs_to_know_what_to_make():
    with pytest.raises(UserError, match="COMMAND"):
        main([])


def test_place_that_cannot_be_written_is_a_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*: cannot be written \("):
        main(["sample", "--out", str(tmp_path / "file")])


def test_lists_of_another_data_set_are_not_drawn_over(tmp_path):
    own = tmp_path / "ImageSets" / "Segmentation" / "train.txt"
    own.parent.mkdir(parents=True)
    own.write_text("2007_000032\n")
    with pytest.raises(DataError, match=r"train\.txt: is of another data set"):
        draw_voc(tmp_path, 2, 1)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["train.txt"]
    assert own.read_text() == "2007_000032\n"
