"""predict_seg.py from its command line: which files, what is written for each, what is refused or skipped."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import inference.prediction
import predict_seg
from data.images import DataError, read_image
from data.voc import palette
from engine.options import Looks, Opening
from errors import UserError
from inference.prediction import Stopwatch, ahead, find_inputs, plan, predict, refuse_checkpoint_options
from inference.predictor import ModelPredictor
from models.deeplab_v3 import deeplab_v3
from models.weight_init import named_variables, save_checkpoint
from tests.networks import images_of, randomize

CROP = 65
NAMES = ("background", "ant", "bee", "cicada", "a dragonfly of a long name")


@pytest.fixture(scope="module")
def model():
    """A small DeepLab of five classes, each of which it predicts somewhere."""
    model = deeplab_v3("mobilenet_v2", 5, depth_multiplier=0.35)
    randomize(named_variables(model))
    logits = model.logits.layers[0]
    logits.bias.assign(-np.asarray(model(images_of(CROP, batch=2), training=False)).mean((0, 1, 2)))
    return model


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    prefix = tmp_path_factory.mktemp("slim") / "deeplab.ckpt"
    save_checkpoint(model, prefix)
    return prefix


@pytest.fixture(scope="module")
def predictor(model):
    return ModelPredictor(model, NAMES, CROP)


class EdgePredictor:
    """Finds a line of one pixel: class 4 in column 31."""

    class_names, num_classes = NAMES, len(NAMES)

    def labels(self, image):
        labels = np.zeros(image.shape[:2], np.uint8)
        labels[:, 31] = 4
        return labels


@pytest.fixture
def edge_predictor(monkeypatch):
    """Whatever model is asked for, this one is opened, in no time."""
    monkeypatch.setattr(inference.prediction, "open_predictor", lambda *_: EdgePredictor())


@pytest.fixture
def photos(tmp_path):
    """Three pictures of different sizes, one file that is cut short, and others that are no pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in {"1.png": (40, 60), "2.jpg": (65, 33), "3.bmp": (50, 65)}.items():
        small = rng.integers(0, 256, (5, 5, 3), np.uint8)
        Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC).save(folder / name)
    (folder / "broken.jpg").write_bytes((folder / "2.jpg").read_bytes()[:200])
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_text("no picture")
    return folder


@pytest.fixture
def video(tmp_path):
    """Five frames of 64x48 pixels at 12.5 a second."""
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.5, (64, 48))
    for shade in range(5):
        writer.write(np.full((48, 64, 3), 50 * shade, np.uint8))
    writer.release()
    return path


def predicted(checkpoint, out, *more):
    arguments = ["--ckpt", checkpoint, "--crop-size", CROP, "--out", out, *more]
    return predict_seg.main([str(part) for part in arguments])


def indices(path):
    with Image.open(path) as file:
        assert file.mode == "P"
        assert file.getpalette() == palette().ravel().tolist()
        return np.asarray(file)


def test_a_folder_with_a_broken_file(checkpoint, predictor, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert predicted(checkpoint, out, photos) == 1
    said = capsys.readouterr()
    assert "broken.jpg" in said.err and "notes" not in said.err
    assert "3 of 4 predicted" in said.out
    assert sorted(p.name for p in out.iterdir()) == sorted(
        f"{name}{end}.png" for name in "123" for end in ("", "_overlay")
    )
    seen = set()
    for photo in ("1.png", "2.jpg", "3.bmp"):
        image = read_image(photos / photo)
        labels = indices(out / f"{photo[0]}.png")
        assert labels.shape == image.shape[:2]
        assert np.array_equal(labels, predictor.labels(image))
        seen |= set(np.unique(labels))
    assert len(seen) > 2


def test_probabilities_agree_with_the_mask(checkpoint, photos, tmp_path):
    assert predicted(checkpoint, tmp_path / "out", photos / "1.png", "--probabilities", "--no-overlay") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["1.png", "1_probabilities.npz"]
    with np.load(tmp_path / "out/1_probabilities.npz") as file:
        found, names = file["probabilities"], file["class_names"]
    assert (found.shape, found.dtype) == ((40, 60, 5), np.float32)
    assert list(names) == [f"class {label}" for label in range(5)]
    assert np.abs(found.sum(-1) - 1).max() < 1e-5
    assert np.array_equal(found.argmax(-1), indices(tmp_path / "out/1.png"))


def test_class_names_from_a_file(edge_predictor, photos, tmp_path, capsys):
    names = tmp_path / "classes.txt"
    names.write_text("nothing\nant\nbee\nwasp\nhornet\n")
    assert predicted("model", tmp_path / "out", photos / "1.png", "--classes", names) == 0
    assert "1.png  60x40  nothing 98.3 %, hornet 1.7 %" in capsys.readouterr().out
    names.write_text("nothing\nant\nbee\nwasp\n")
    with pytest.raises(DataError, match=r"names 4 classes, the model has 5"):
        predicted("model", tmp_path / "out", photos / "1.png", "--classes", names)


def test_a_one_pixel_edge_in_the_written_overlay(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    (task,) = plan([tmp_path / "a.png"], tmp_path / "out")
    list(predict(EdgePredictor(), NAMES, [task]))
    picture = read_image(task.overlay)
    columns = (picture[:40, :50] != image).any((0, 2))
    assert np.flatnonzero(columns).tolist() == [31]
    expected = 0.4 * image[:, 31] + 0.6 * palette()[4]
    assert np.abs(picture[:40, 31] - expected).max() <= 1
    assert (picture[40:].reshape(-1, 3) == palette()[4]).all(1).any()  # the legend is below


def test_video_becomes_an_overlay_of_its_size_and_rate(edge_predictor, video, tmp_path, capsys):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    assert predicted("model", tmp_path / "out", video, broken) == 1
    said = capsys.readouterr()
    assert "5 frames of 64x48" in said.out and "broken.mp4" in said.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["walk_legend.png", "walk_overlay.mp4"]
    found = cv2.VideoCapture(str(tmp_path / "out/walk_overlay.mp4"))
    properties = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT)
    assert [found.get(name) for name in properties] == [64, 48, 12.5, 5]
    with pytest.raises(UserError, match="a video becomes an overlay"):
        predicted("model", tmp_path / "out", video, "--no-overlay")


def test_frames_are_painted_where_the_labels_are(video, tmp_path):
    (task,) = plan([video], tmp_path / "out")
    list(predict(EdgePredictor(), NAMES, [task]))
    first = cv2.VideoCapture(str(task.overlay)).read()[1]
    assert int(first.sum(-1, dtype=int).sum(0).argmax()) == 31  # on a black frame


def test_inputs_are_files_folders_and_patterns(photos, tmp_path):
    def names(*places):
        return [path.name for path in find_inputs([str(place) for place in places])]

    assert names(photos) == ["1.png", "2.jpg", "3.bmp", "broken.jpg"]
    assert names(photos / "*.jpg", photos / "1.png", photos / "2.jpg") == ["2.jpg", "broken.jpg", "1.png"]
    assert names(photos / "notes.txt") == ["notes.txt"]  # what was named is tried
    assert names(tmp_path / "**/*.bmp") == ["3.bmp"]
    (tmp_path / "a[1].jpg").touch()
    assert names(tmp_path / "a[1].jpg") == ["a[1].jpg"]
    (tmp_path / "empty").mkdir()
    for place, reason in {"empty": "no image", "*.gif": "matches no file", "absent.jpg": "no such file"}.items():
        with pytest.raises(UserError, match=reason):
            names(photos, tmp_path / place)


def test_nothing_is_overwritten(photos, tmp_path):
    Image.new("RGB", (9, 9)).save(photos / "1.jpg")
    with pytest.raises(UserError, match=r"1\.png.* for .*1\.jpg and for .*1\.png"):
        plan(find_inputs([str(photos)]), tmp_path / "out")
    with pytest.raises(UserError, match=r"1\.png.* is an input itself"):
        plan(find_inputs([str(photos / "1.png")]), photos)


def test_flags_that_an_export_cannot_heed():
    refuse_checkpoint_options("model.onnx", Opening(), Looks())
    with pytest.raises(UserError, match="--output-stride, --precision, --flip"):
        refuse_checkpoint_options("model.onnx", Opening(output_stride=8, precision="bfloat16"), Looks(flip=True))


def test_an_unwritable_place_is_a_users_mistake(edge_predictor, photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        predicted("model", tmp_path / "file/out", photos / "1.png")


def test_timing_says_what_the_network_took(edge_predictor, photos, tmp_path, capsys):
    assert predicted("model", tmp_path / "out", photos / "1.png", "--timing") == 0
    said = capsys.readouterr().out
    assert "first input read, predicted, written" in said and "of which the network" in said


def test_stopwatch_adds_up():
    watch = Stopwatch(0.0)
    watch.lap("a")
    watch.lap("b")
    first = watch.laps["b"]
    watch.lap("b")
    assert list(watch.laps) == ["a", "b"] and watch.laps["b"] >= first


def test_ahead_keeps_order_and_passes_errors_on():
    def items():
        yield from range(3)
        raise OSError("disk")

    found = []
    with pytest.raises(OSError, match="disk"):
        found.extend(ahead(items()))
    assert list(ahead(iter([0, False, 2]))) == [0, False, 2]


def test_a_mistake_is_said_at_once(tmp_path):
    script = Path(predict_seg.__file__)
    absent = tmp_path / "absent.jpg"
    command = [sys.executable, "-X", "importtime", script, "--ckpt", "model", absent]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in result.stderr.splitlines() if not line.startswith("import time")]
    assert (result.returncode, said) == (2, [f"error: {absent}: no such file or folder"])
    assert "numpy" in result.stderr and "keras" not in result.stderr and "tensorflow" not in result.stderr
