"""Which folder `--data` means, and the command that is told where there is none."""

import pytest

import eval_seg
import slim_deeplab
import train_seg
from data.places import VOC_PLACES, check_memory, voc_folder
from errors import UserError
from files.writing import check_room


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_place_that_is_there(here):
    for place in reversed(VOC_PLACES):
        (here / place).mkdir(parents=True, exist_ok=True)
        assert voc_folder(None) == place


def test_what_is_given_is_meant(here):
    (here / "VOC2012").mkdir()
    assert voc_folder("fields") == "fields", "whoever reads it says that it is not there"
    assert voc_folder(here / "elsewhere") == str(here / "elsewhere")


def test_a_devkit_means_its_voc(here):
    (here / "VOCdevkit" / "VOC2012").mkdir(parents=True)
    assert voc_folder("VOCdevkit") == "VOCdevkit/VOC2012"
    (here / "VOCdevkit" / "ImageSets").mkdir()
    assert voc_folder("VOCdevkit") == "VOCdevkit", "a data set of that name"


@pytest.mark.parametrize(
    "call",
    [
        lambda: train_seg.main(["--ckpt", "resnet_v2_50.ckpt"]),
        lambda: eval_seg.main(["--ckpt", "resnet_v2_50.ckpt"]),
        lambda: slim_deeplab.fine_tune("resnet_v2_50.ckpt"),
    ],
)
def test_what_is_missing_is_answered_with_the_command_that_gets_it(call):
    with pytest.raises(UserError, match=r"none of VOC2012, .* `python prepare_data.py voc --out VOC2012`"):
        call()


@pytest.mark.parametrize("asked", ["somewhere/VOC2012", "VOCdevkit"])
def test_voc_that_is_not_there(asked):
    with pytest.raises(UserError, match=rf"no such folder.*`python prepare_data.py voc --out {asked}[/VOC2012]*`"):
        voc_folder(asked)


def test_voc_without_trainaug(here):
    lists = here / "VOC2012" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("2007_000032\n")
    assert voc_folder(None, ("train", "val")) == "VOC2012"
    with pytest.raises(
        UserError, match=r"trainaug.txt: no such .*`python prepare_data.py voc --out VOC2012`.*--train-set"
    ):
        voc_folder(None, ("trainaug", "val"))
    (lists / "trainaug.txt").write_text("2007_000032\n")
    assert voc_folder(None, ("trainaug", "val")) == "VOC2012"


def test_room(here):
    check_room(here / "not" / "yet", 0, "nothing")
    with pytest.raises(UserError, match=r"^much: needs 1,000,000,000,000 MB in .*not/yet, where .* MB are free"):
        check_room(here / "not" / "yet", 10**18, "much")


def test_more_pixels_than_the_memory_holds_are_refused(here):
    check_memory(1, 513, "--crop-size 513")
    with pytest.raises(UserError, match=r"--crop-size 32768: 60,000 x 32,768 x 32,768 pixels take 1,030,792 GB, and"):
        check_memory(60_000, 32_768, "--crop-size 32768")
    with pytest.raises(UserError, match="--batch-size 65536 and --crop-size 32768"):
        train_seg.main(["--ckpt", "none", "--data", ".", "--batch-size", "65536", "--crop-size", "32768"])
