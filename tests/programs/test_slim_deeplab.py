"""The door for Python: the same as the programs, to the bit, from a folder where only it is on the path."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval_seg
import slim_deeplab
import train_seg
from data.sample import draw_voc
from engine.options import Devices, Recipe, Run, SegmentationImages
from errors import UserError
from tests.conftest import assert_same, read_all

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("short_mobilenet")


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    draw_voc(root, train=8, val=3)
    return root


@pytest.fixture(scope="module")
def runs(voc, tmp_path_factory):
    """The same four steps by `fine_tune` and by `train_seg.py` → (run, the program's run directory)."""
    folder = tmp_path_factory.mktemp("runs")
    run = slim_deeplab.fine_tune(
        None,
        voc,
        model="mobilenet_v2",
        images=SegmentationImages(crop_size=33, eval_size=65),
        recipe=Recipe(steps=4, batch_size=2, learning_rate=0.01),
        run=Run(run_dir=str(folder / "python"), log_every=2),
        devices=Devices(),
    )
    flags = ["--crop-size", "33", "--eval-size", "65", "--steps", "4", "--batch-size", "2", "--learning-rate", "0.01"]
    flags += ["--run-dir", str(folder / "program"), "--log-every", "2"]
    train_seg.main(["--ckpt", "none", "--model", "mobilenet_v2", "--data", str(voc), *flags])
    return run, folder / "program"


def test_fine_tune_is_train_seg_to_the_bit(runs):
    run, program = runs
    assert run.last_step() == 4
    assert_same(read_all(run.path), read_all(program))
    configs = [json.loads((folder / "config.json").read_text()) for folder in (run.path, program)]
    for config in configs:
        del config["arguments"]["run_dir"], config["sha256"]
    assert configs[0] == configs[1]


def test_evaluate_is_eval_seg_to_the_digit(runs, voc, tmp_path):
    eval_seg.main(["--ckpt", str(runs[1]), "--data", str(voc), "--json", str(tmp_path / "scores.json")])
    expected = json.loads((tmp_path / "scores.json").read_text())
    found = slim_deeplab.load(runs[1]).evaluate(voc)
    assert found.result == expected
    assert found["miou"] == expected["miou"]
    assert str(found).splitlines()[0].split() == ["class", "IoU", "[%]", "pixels"]


def test_a_prediction_is_labels_probabilities_and_pictures(runs, tmp_path):
    m = slim_deeplab.load(runs[0])
    assert m.class_names[0] == "background" and m.network.count_params() and "backbone variables" in str(m.report)
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    found = m.predict(tmp_path / "photo.png")
    assert found.labels.shape == (40, 50) and found.labels.dtype == np.uint8
    assert found.probabilities.shape == (40, 50, len(m.class_names))
    np.testing.assert_array_equal(found.probabilities.argmax(-1), found.labels)
    assert found.overlay(legend=False).shape == (40, 50, 3)
    saved = np.asarray(Image.open(found.save(tmp_path / "overlay.png")))
    np.testing.assert_array_equal(saved, found.overlay())
    np.testing.assert_array_equal(np.asarray(Image.open(found.save_labels(tmp_path / "labels.png"))), found.labels)
    assert found._repr_png_()[:4] == b"\x89PNG"
    assert repr(found).startswith("Prediction(50x40: ") and len(repr(found)) < 200
    np.testing.assert_array_equal(m.predict(picture).labels, found.labels)


@pytest.mark.parametrize("picture", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)])
def test_what_is_no_picture_is_said(runs, picture):
    with pytest.raises(UserError, match=r"uint8 RGB \(H, W, 3\)\. Received: "):
        slim_deeplab.load(runs[0]).predict(picture)


def test_what_cannot_be_opened_is_said(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        slim_deeplab.load(tmp_path / "none.ckpt")


def test_importing_the_door_is_light():
    code = "import slim_deeplab, sys; print({'keras', 'tensorflow', 'cv2'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_three_lines_from_a_fresh_folder(real_checkpoints, shared_data, tmp_path):
    photo = shared_data / "VOC2012" / "JPEGImages" / "2007_003106.jpg"
    code = (
        "import slim_deeplab\n"
        f"m = slim_deeplab.load({str(real_checkpoints / 'deeplabv3_mnv2_pascal_trainval.ckpt')!r})\n"
        f"m.predict({str(photo)!r}).save('overlay.png')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=environment, check=True)
    overlay = np.asarray(Image.open(tmp_path / "overlay.png"))
    height, width = np.asarray(Image.open(photo)).shape[:2]
    assert overlay.shape[0] > height and overlay.shape[1] == width
    assert (overlay[:height] != np.asarray(Image.open(photo))).any()
