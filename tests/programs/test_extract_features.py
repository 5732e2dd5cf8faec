"""extract_features.py from its command line: numbers, order, files that cannot be read, whole or not at all."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import extract_features
from data.images import DataError, read_image
from data.transforms import resize_center_crop
from errors import UserError
from inference.features import write_features
from models.checkpoint import CheckpointError
from models.mobilenet_v2 import mobilenet_v2
from models.taps import TapError
from models.weight_init import named_variables, save_checkpoint
from tests.networks import largest_difference, randomize

SIZE = 48
END_POINT = "MobilenetV2/expanded_conv_3/output"


@pytest.fixture(scope="module")
def network():
    net = mobilenet_v2(depth_multiplier=0.35)
    randomize(named_variables(net))
    return net


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory):
    prefix = tmp_path_factory.mktemp("slim") / "mobilenet.ckpt"
    save_checkpoint(network, prefix)
    return prefix


@pytest.fixture
def photos(tmp_path):
    """Five images in two folders; hidden files are none of them."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for name in ("b/2.png", "b/10.jpg", "a/1.jpg", "c.png", "a/3.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (60, 70, 3), np.uint8)).save(folder / name)
    (folder / ".hidden").write_text("not an image")
    return folder


ORDER = ["a/1.jpg", "a/3.png", "b/10.jpg", "b/2.png", "c.png"]


def extract(checkpoint, out, *places, end_point=END_POINT, more=()):
    arguments = ["--ckpt", checkpoint, "--end-point", end_point, "--out", out, "--image-size", SIZE, "--batch-size", 2]
    return extract_features.main([str(part) for part in (*arguments, *more, *places)])


def expected_features(network, paths, end_point=END_POINT):
    images = np.stack([resize_center_crop(read_image(path), SIZE) for path in paths]) / 127.5 - 1
    return np.asarray(network.end_points(images.astype("float32"))[end_point])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_features_are_the_end_points_of_the_images_in_order(network, checkpoint, photos, tmp_path, capsys):
    assert extract(checkpoint, tmp_path / "out" / "photos.npy", photos) == 0
    features = np.load(tmp_path / "out" / "photos.npy")
    paths = [photos / name for name in ORDER]
    assert (tmp_path / "out" / "photos.txt").read_text().splitlines() == [str(path) for path in paths]
    assert features.dtype == np.float32
    assert features.shape == (5, 6, 6, 16)
    assert largest_difference(features, expected_features(network, paths)) < 1e-5
    assert set(contents(tmp_path / "out")) == {"photos.npy", "photos.txt"}
    said = capsys.readouterr().out
    assert f"60/60 variables up to {END_POINT}" in said
    assert "photos.npy: 5 x 6 x 6 x 16" in said


def test_pooled_features_are_means(network, checkpoint, photos, tmp_path):
    places = [photos / "c.png", photos / "a"]
    assert extract(checkpoint, tmp_path / "photos.npy", *places, more=["--pool"]) == 0
    paths = [photos / name for name in ("c.png", "a/1.jpg", "a/3.png")]
    assert (tmp_path / "photos.txt").read_text().splitlines() == [str(path) for path in paths]
    expected = expected_features(network, paths).mean(axis=(1, 2))
    assert largest_difference(np.load(tmp_path / "photos.npy"), expected) < 1e-5


def test_unreadable_files_are_named_and_skipped(network, checkpoint, photos, tmp_path, capsys):
    (photos / "a" / "2.jpg").write_bytes((photos / "a" / "1.jpg").read_bytes()[:500])
    (photos / "b" / "notes.txt").write_text("no image")
    missing = tmp_path / "missing.jpg"
    assert extract(checkpoint, tmp_path / "photos.npy", photos, missing) == 1
    skipped = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == 3
    for line, path in zip(skipped, [photos / "a/2.jpg", photos / "b/notes.txt", missing], strict=True):
        assert line.startswith(f"skipped: {path}: ")
    paths = [photos / name for name in ORDER]
    assert (tmp_path / "photos.txt").read_text().splitlines() == [str(path) for path in paths]
    assert largest_difference(np.load(tmp_path / "photos.npy"), expected_features(network, paths)) < 1e-5


def test_nothing_readable_leaves_what_was_there(checkpoint, tmp_path):
    (tmp_path / "photos.npy").write_text("former")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("no image")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="not one of the files could be read"):
        extract(checkpoint, tmp_path / "photos.npy", tmp_path / "photos")
    assert contents(tmp_path) == before


def test_a_failure_in_the_middle_leaves_what_was_there(tmp_path):
    write_features(tmp_path / "f.npy", [("a", np.zeros(3, "float32"))])
    before = contents(tmp_path)

    def rows():
        yield "b", np.ones(3, "float32")
        raise DataError("the disk went away")

    with pytest.raises(DataError):
        write_features(tmp_path / "f.npy", rows())
    assert contents(tmp_path) == before
    with pytest.raises(UserError, match="cannot be written"):
        write_features(tmp_path / "f.npy" / "g.npy", [("a", np.zeros(3, "float32"))])
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"end_point": "expanded_conv_3/output"}, TapError, "near it are: MobilenetV2/expanded_conv_3/output"),
        ({"end_point": "MobilenetV2/Logits/Conv2d_1c_1x1"}, TapError, "has no end point"),
        ({"checkpoint": "nowhere.ckpt"}, CheckpointError, "nowhere.ckpt: no such checkpoint"),
        ({"out": "photos.npz"}, UserError, "photos.npz: must end in .npy"),
        ({"places": ["empty"]}, UserError, "empty: no files in it"),
    ],
)
def test_mistakes_are_said(changes, error, message, checkpoint, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    given = {"checkpoint": checkpoint, "out": "photos.npy", "end_point": END_POINT, "places": [photos]} | changes
    places = [tmp_path / place for place in given["places"]]
    with pytest.raises(error, match=message):
        extract(given["checkpoint"], tmp_path / given["out"], *places, end_point=given["end_point"])
    assert not list(tmp_path.glob("*.np*"))


def test_a_variable_that_the_checkpoint_lacks_is_an_error(real_checkpoints, photos, tmp_path):
    checkpoint = real_checkpoints / "resnet_v2_50_blocks123.ckpt"
    with pytest.raises(CheckpointError, match="49 of the model's variables are not in it"):
        extract(checkpoint, tmp_path / "f.npy", photos, end_point="resnet_v2_50/postnorm")
    assert extract(checkpoint, tmp_path / "f.npy", photos / "c.png", end_point="resnet_v2_50/block3") == 0
    assert np.load(tmp_path / "f.npy").shape == (1, 2, 2, 1024)


def test_help_answers_at_once():
    started = time.perf_counter()
    script = Path(__file__).parents[2] / "extract_features.py"
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True)
    assert time.perf_counter() - started < 0.5
    assert "--end-point" in done.stdout
