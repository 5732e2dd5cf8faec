"""VOC with SBD's masks, from small copies of both official archives: lists, masks, resuming, and what is refused."""

import hashlib
import io
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
from scipy.io import savemat

import prepare_data
import train_seg
from data.prepare import voc as preparing
from data.sample import draw_voc
from data.voc import VOC_CLASSES, VOCSegmentation, read_mask
from engine import download as downloads
from errors import UserError
from tests.loopback import Server
from tests.short_mobilenet import shortened

ROOT = Path(__file__).parents[2]
TRAIN = ["2007_000032", "2007_000039", "2007_000063"]
VAL = ["2007_000033", "2007_000042"]
NO_MASKS = [
    "2008_000002",
    "2008_000003",
    "2008_000007",
    "2008_000008",
]  # in VOC for detection; of SBD, whose have masks
SBD_TRAIN = [NO_MASKS[0], TRAIN[1], NO_MASKS[2], VAL[0]]  # SBD's sets go across VOC's
SBD_VAL = [NO_MASKS[3], VAL[1]]
TRAINAUG = sorted({*TRAIN, NO_MASKS[0], NO_MASKS[2], NO_MASKS[3]})


def packed(files, mode):
    """The bytes of an archive with {name: bytes}, and with the folders that the official ones have as members."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as tar:
        folders = set()
        for name, data in files.items():
            for folder in [parent for parent in reversed(PurePosixPath(name).parents) if str(parent) != "."]:
                if folder not in folders:
                    member = tarfile.TarInfo(str(folder))
                    member.type = tarfile.DIRTYPE
                    tar.addfile(member)
                    folders.add(folder)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def sbd_mask(name):
    """What SBD says of an image: classes 1 to 20, and no border."""
    mask = np.zeros((96, 128), np.uint8)
    mask[20:60, 30:90] = 1 + int(name[-3:]) % 20
    return mask


def mat(kind, mask):
    """A file of SBD's: a struct with Boundaries, Segmentation and CategoriesPresent."""
    content = io.BytesIO()
    boundaries = np.empty((20, 1), object)
    boundaries[:] = [[np.zeros((2, 2), np.uint8)]] * 20
    present = np.unique(mask[mask > 0]).astype(np.uint8)
    fields = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": present}
    savemat(content, {kind: fields}, do_compression=True)
    return content.getvalue()


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """{"VOCtrainval_11-May-2012.tar": bytes, "benchmark.tgz": bytes}, in the official ones' layout and order."""
    drawn = tmp_path_factory.mktemp("drawn")
    draw_voc(drawn, train=len(TRAIN) + len(NO_MASKS), val=len(VAL))
    images = sorted((drawn / "JPEGImages").glob("*.jpg"))
    masks = sorted((drawn / "SegmentationClass").glob("*.png"))
    names = [*TRAIN, *VAL, *NO_MASKS]
    jpeg = {
        name: cv2.imencode(".jpg", cv2.resize(cv2.imread(str(images[i])), (128, 96)))[1].tobytes()
        for i, name in enumerate(names)
    }
    png = {
        name: preparing.mask_png(cv2.resize(read_mask(masks[i], 21), (128, 96), interpolation=cv2.INTER_NEAREST))
        for i, name in enumerate([*TRAIN, *VAL])
    }
    root, lists = "VOCdevkit/VOC2012", {"train": TRAIN, "trainval": sorted(TRAIN + VAL), "val": VAL}
    voc = {f"{root}/Annotations/{name}.xml": f"<annotation>{name}</annotation>".encode() for name in names}
    voc |= {f"{root}/ImageSets/Main/{name}.txt": "".join(f"{x}\n" for x in lists[name]).encode() for name in lists}
    voc |= {
        f"{root}/ImageSets/Segmentation/{name}.txt": "".join(f"{x}\n" for x in lists[name]).encode() for name in lists
    }
    voc |= {f"{root}/JPEGImages/{name}.jpg": data for name, data in jpeg.items()}
    voc |= {
        f"{root}/{kind}/{name}.png": d
        for kind in ("SegmentationClass", "SegmentationObject")
        for name, d in png.items()
    }
    root = "benchmark_RELEASE"
    sbd = {f"{root}/README": b"read me", f"{root}/benchmark_code/evaluate.m": b"% code"}
    sbd_names = sorted(SBD_TRAIN + SBD_VAL)
    sbd |= {f"{root}/dataset/cls/{name}.mat": mat("GTcls", sbd_mask(name)) for name in sbd_names}
    sbd |= {f"{root}/dataset/img/{name}.jpg": jpeg[name] for name in sbd_names}
    sbd |= {f"{root}/dataset/inst/{name}.mat": mat("GTinst", sbd_mask(name)) for name in sbd_names}
    # As the official lists are: the last line ends as all do in train.txt, and val.txt is the second
    sbd |= {f"{root}/dataset/{name}.txt": "".join(f"{x}\n" for x in lines).encode() for name, lines in
            (("train", SBD_TRAIN), ("val", SBD_VAL))}  # fmt: skip
    return {"VOCtrainval_11-May-2012.tar": packed(voc, "w"), "benchmark.tgz": packed(sbd, "w:gz")}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, archives):
    """An empty folder, and a world in which the small archives are the official ones."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv(downloads.CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv(downloads.MIRROR, "http://127.0.0.1:9")  # nobody is there
    monkeypatch.setattr(downloads, "PATIENCE", (0, 0))
    for name in ("VOC", "SBD"):
        official = getattr(preparing, name)
        md5 = hashlib.md5(archives[official.file]).hexdigest()
        monkeypatch.setattr(preparing, name, preparing.Archive(official.address, md5, official.root))
    return tmp_path / "here"


@pytest.fixture
def given(archives, tmp_path):
    """The flags that name the archives as files."""
    for name, content in archives.items():
        (tmp_path / name).write_bytes(content)
    return ["--voc", str(tmp_path / "VOCtrainval_11-May-2012.tar"), "--sbd", str(tmp_path / "benchmark.tgz")]


def tree(root):
    """{path below root: bytes} of all that is there."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def unbroken(given, tmp_path):
    """What a call that nothing disturbs makes."""
    prepare_data.main(["voc", "--out", str(tmp_path / "unbroken"), *given])
    return tree(tmp_path / "unbroken")


def lines(root, image_set):
    return (root / "ImageSets" / "Segmentation" / f"{image_set}.txt").read_text().splitlines()


def test_two_commands_in_an_empty_folder_reach_the_first_step(archives, here, monkeypatch, capsys):
    from models.mobilenet_v2 import mobilenet_v2
    from models.weight_init import save_checkpoint

    with shortened():
        save_checkpoint(mobilenet_v2(num_classes=11, depth_multiplier=0.35), here.parent / "made" / "mobilenet.ckpt")
        weights = {path.name: path.read_bytes() for path in (here.parent / "made").glob("mobilenet.ckpt.*")}
        server = Server(
            archives | {"mobilenet_v2_0.35_224.tgz": packed(weights, "w:gz")}, breaks=[40_000, 9_000, 20_000]
        )
        with server.running() as address:
            monkeypatch.setenv(downloads.MIRROR, address)
            prepare_data.main(["voc", "--out", "VOC2012"])
            small = ["--crop-size", "33", "--eval-size", "129", "--batch-size", "2", "--steps", "1"]
            small += ["--allow-absent", ",".join(VOC_CLASSES)]  # six images have few of them
            train_seg.main(["--ckpt", "mobilenet_v2_0.35_224", *small])
    assert sum(start > 0 for _, start in server.asked) == 3, "all three broke off, and were gone on with"
    assert lines(here / "VOC2012", "trainaug") == TRAINAUG
    assert lines(here / "VOC2012", "val") == VAL
    said = capsys.readouterr().out
    assert "105/105 backbone variables" in said
    assert "step 1/1" in said


def test_masks_are_vocs_where_it_has_one_and_sbds_elsewhere(unbroken, tmp_path):
    root = tmp_path / "unbroken"
    assert {path.stem for path in (root / "SegmentationClassAug").iterdir()} == set(TRAINAUG) - set(TRAIN)
    data = VOCSegmentation(root, "trainaug")
    masks = {name: data[index][1] for index, name in enumerate(data.names)}
    for name in TRAIN:
        assert np.array_equal(masks[name], read_mask(root / "SegmentationClass" / f"{name}.png", 21))
        assert (masks[name] == 255).any(), "with its border"
    for name in set(TRAINAUG) - set(TRAIN):
        assert np.array_equal(masks[name], sbd_mask(name))
    assert len(VOCSegmentation(root, "val")) == len(VAL)


def test_all_of_voc_is_unpacked(unbroken, archives):
    with tarfile.open(fileobj=io.BytesIO(archives["VOCtrainval_11-May-2012.tar"])) as tar:
        official = {
            member.name.removeprefix("VOCdevkit/VOC2012/"): tar.extractfile(member).read()
            for member in tar
            if member.isfile()
        }
    added = {path for path in unbroken if path.startswith("SegmentationClassAug/")}
    assert unbroken.keys() == official.keys() | added | {"ImageSets/Segmentation/trainaug.txt"}
    assert all(unbroken[path] == content for path, content in official.items())


def test_what_differs_from_the_published_lists_is_said(unbroken, capsys, tmp_path):
    prepare_data.main(["voc", "--out", str(tmp_path / "unbroken")])
    said = capsys.readouterr().out
    assert "trainaug 6 images, 3 of them VOC's train; val 2 images" in said
    assert "trainaug has 6 images, not 10,582" in said and "val has 2 images, not 1,449" in said
    lists = tmp_path / "unbroken" / "ImageSets" / "Segmentation"
    (lists / "trainaug.txt").write_text(f"{TRAIN[0]}\n{VAL[0]}\n")
    prepare_data.main(["voc", "--out", str(tmp_path / "unbroken")])
    said = capsys.readouterr().out
    assert f"1 images of val are in trainaug too: {VAL[0]}" in said
    assert f"2 images of VOC's train are not in trainaug: {TRAIN[1]}" in said


def test_nothing_is_said_of_the_published_numbers(unbroken, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "TRAINAUG", len(TRAINAUG))
    monkeypatch.setattr(preparing, "VAL", len(VAL))
    prepare_data.main(["voc", "--out", str(tmp_path / "unbroken")])
    assert "differs" not in capsys.readouterr().out


KILLED = """
import os, signal, sys
import prepare_data
from data.prepare import voc

voc_md5, sbd_md5, left, *words = sys.argv[1:]
voc.VOC, voc.SBD = (
    voc.Archive(known.address, md5, known.root) for known, md5 in ((voc.VOC, voc_md5), (voc.SBD, sbd_md5))
)
left = int(left)

def die_at_the_last(event, arguments):
    global left
    writes = event == "os.rename" or event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if writes and "prepared" in str(arguments[0]):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die_at_the_last)
prepare_data.main(words)
"""


def test_twenty_processes_killed_between_download_and_lists(archives, given, unbroken, tmp_path):
    """Each at another one of its own openings and renamings, of what it downloads and of what it makes."""
    out = tmp_path / "prepared" / "VOC2012"
    md5s = [hashlib.md5(content).hexdigest() for content in archives.values()]
    server = Server(archives, breaks=[50_000] * 3)
    codes = []
    with server.running() as address:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            downloads.CACHE: str(tmp_path / "prepared" / "cache"),
            downloads.MIRROR: address,
        }
        for allowed in itertools.islice(itertools.cycle(range(1, 12)), 100):
            words = [sys.executable, "-c", KILLED, *md5s, str(allowed), "voc", "--out", str(out)]
            child = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
            codes.append(child.returncode)
            if child.returncode != -signal.SIGKILL:
                break
            assert not (out / "ImageSets" / "Segmentation" / "trainaug.txt").exists()
    assert codes[-1] == 0, child.stderr
    assert len(codes) > 20
    assert any(first_byte for _, first_byte in server.asked)  # a later process went on where one had been killed
    assert tree(out) == unbroken


def test_a_second_call_does_nothing(unbroken, tmp_path):
    root = tmp_path / "unbroken"
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    prepare_data.main(["voc", "--out", str(root)])  # and asks for no archive: nobody serves them
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_voc_that_is_unpacked_already_is_taken(archives, given, here, unbroken):
    with tarfile.open(fileobj=io.BytesIO(archives["VOCtrainval_11-May-2012.tar"])) as tar:
        tar.extractall(here, filter="data")
    prepare_data.main(["voc", "--out", "VOCdevkit/VOC2012", *given[2:]])
    assert tree(here / "VOCdevkit" / "VOC2012") == unbroken


def test_images_that_are_missing_come_from_sbd(archives, given, here, unbroken):
    with tarfile.open(fileobj=io.BytesIO(archives["VOCtrainval_11-May-2012.tar"])) as tar:
        tar.extractall(here, filter="data")
    for name in NO_MASKS:
        (here / "VOCdevkit/VOC2012/JPEGImages" / f"{name}.jpg").unlink()
    prepare_data.main(["voc", "--out", "VOCdevkit/VOC2012", *given[2:]])
    del unbroken[f"JPEGImages/{NO_MASKS[1]}.jpg"]  # which SBD has not
    assert tree(here / "VOCdevkit" / "VOC2012") == unbroken


def cut(content):
    return content[: len(content) // 2]


def flipped(content):
    return content[:9_000] + bytes([content[9_000] ^ 1]) + content[9_001:]


@pytest.mark.parametrize("damage", [cut, flipped, lambda _: b"<html>"])
@pytest.mark.parametrize("which", [1, 3])
def test_a_damaged_archive_is_refused_and_nothing_is_lost(given, here, unbroken, damage, which):
    good = (here.parent / given[which]).read_bytes()
    (here.parent / given[which]).write_bytes(damage(good))
    with pytest.raises(UserError, match=rf"{given[which]}: is not .* as published: its MD5 is .*, not "):
        prepare_data.main(["voc", "--out", "VOC2012", *given])
    (here.parent / given[which]).write_bytes(good)
    prepare_data.main(["voc", "--out", "VOC2012", *given])
    assert tree(here / "VOC2012") == unbroken


@pytest.mark.parametrize("which", [1, 3])
def test_half_an_archive_that_is_accepted_all_the_same(given, here, unbroken, which, capsys):
    good = (here.parent / given[which]).read_bytes()
    (here.parent / given[which]).write_bytes(cut(good))
    with pytest.raises(UserError, match=rf"{given[which]}: is (damaged|not all of)"):
        prepare_data.main(["voc", "--out", "VOC2012", *given, "--accept-other"])
    assert "taken all the same" in capsys.readouterr().out
    (here.parent / given[which]).write_bytes(good)
    prepare_data.main(["voc", "--out", "VOC2012", *given])
    assert tree(here / "VOC2012") == unbroken


def test_a_served_archive_of_another_checksum_is_refused(archives, monkeypatch, here):
    with Server(archives | {"VOCtrainval_11-May-2012.tar": b"another"}).running() as address:
        monkeypatch.setenv(downloads.MIRROR, address)
        with pytest.raises(UserError, match=r"VOCtrainval_11-May-2012\.tar: what came does not have the checksum md5:"):
            prepare_data.main(["voc", "--out", "VOC2012"])
    assert not list(here.iterdir())


def test_a_mat_of_something_else(given, here):
    other = packed({"benchmark_RELEASE/dataset/cls/2008_000002.mat": mat("GTinst", sbd_mask("001"))}, "w:gz")
    (here.parent / given[3]).write_bytes(other)
    with pytest.raises(UserError, match=r"cls/2008_000002.mat: holds no GTcls.Segmentation"):
        prepare_data.main(["voc", "--out", "VOC2012", *given, "--accept-other"])


def test_no_room_on_the_disk(given, here, monkeypatch):
    usage = shutil.disk_usage(here)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"VOCtrainval_11-May-2012.tar: needs .* MB in VOC2012"):
        prepare_data.main(["voc", "--out", "VOC2012", *given])
    assert not list(here.iterdir())


def test_an_archive_that_is_not_there(given):
    with pytest.raises(UserError, match=r"nowhere.tar: cannot be read \(No such file"):
        prepare_data.main(["voc", "--out", "VOC2012", "--voc", "nowhere.tar", *given[2:]])


def test_a_place_that_cannot_be_written(given, here):
    (here / "file").write_text("")
    with pytest.raises(UserError, match=r"file/VOC2012/.*: cannot be written"):
        prepare_data.main(["voc", "--out", "file/VOC2012", *given])


def test_no_member_leaves_the_folder(given, here, archives):
    evil = {"VOCdevkit/VOC2012/../../evil.txt": b"evil", "/VOCdevkit/VOC2012/evil.txt": b"evil"}
    (here.parent / given[1]).write_bytes(packed(evil, "w"))
    with pytest.raises(UserError, match="is not all of VOC 2012"):
        prepare_data.main(["voc", "--out", "VOC2012", *given, "--accept-other"])
    assert not list(here.parent.rglob("evil.txt"))
