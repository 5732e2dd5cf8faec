"""predict_cls.py from its command line: what is written of which pictures, what is refused or skipped."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import command_line
import predict_cls
import slim_deeplab
from data.image_folder import ImageFolder
from data.images import read_image
from data.sample import draw_image_folder, draw_voc
from data.views import View
from errors import UserError
from inference import classification
from models.weight_init import save_checkpoint
from tests.small_classifier import CLASSES, SIZE, level, save_run, small_classifier

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("short_mobilenet")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    draw_image_folder(root, train=1, val=2)
    return [path for path, _ in ImageFolder(root, "val").samples]


@pytest.fixture(scope="module")
def model(pictures):
    model = small_classifier()
    level(model, map(read_image, pictures))
    return model


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "run", model)


@pytest.fixture(scope="module")
def expected(model, pictures):
    """Probabilities (8, 4), by the network itself."""
    seen = np.stack([View(SIZE)(read_image(path)) for path in pictures]).astype("float32")
    logits = np.asarray(model(model.preprocessing(seen), training=False), np.float64)
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def ended(*flags):
    """→ exit code of predict_cls.py."""
    with pytest.raises(SystemExit) as end:
        command_line.run(lambda: predict_cls.main([str(flag) for flag in flags]))
    return end.value.code


@pytest.mark.parametrize("few", [16, 0])  # without a graph; with one
def test_table_sheet_and_probabilities_are_the_networks(run, pictures, expected, tmp_path, capsys, monkeypatch, few):
    monkeypatch.setattr(classification, "FEW", few)
    out = tmp_path / "out"
    command = ["--ckpt", run, *pictures, "--out", out, "--top", 3, "--probabilities"]
    assert ended(*command) == 0
    said = capsys.readouterr().out
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert [row["picture"] for row in rows] == [str(path) for path in pictures]
    assert len({row["class_1"] for row in rows}) > 1
    for row, shares in zip(rows, expected, strict=True):
        order = np.argsort(-shares)
        assert [row[f"class_{place}"] for place in (1, 2, 3)] == [CLASSES[label] for label in order[:3]]
        assert float(row["probability_2"]) == pytest.approx(shares[order[1]], rel=1e-4)
        assert f"{row['picture']}  {row['class_1']} " in said
    with np.load(out / "probabilities.npz") as kept:
        np.testing.assert_allclose(kept["probabilities"], expected, atol=1e-5)
        assert kept["class_names"].tolist() == list(CLASSES)
        assert kept["pictures"].tolist() == [str(path) for path in pictures]
    assert read_image(out / "sheet.png").shape[1] == 4 * 240
    assert ended(*command) == 0  # again: all that lies there are predictions


def test_python_gives_the_same(run, pictures, expected):
    m = slim_deeplab.load(run)
    found = m.predict(pictures[0])
    np.testing.assert_allclose(found.probabilities, expected[0], atol=1e-5)
    assert found.classes == tuple(CLASSES[label] for label in np.argsort(-expected[0]))
    assert found.best(1)[0] == (found.classes[0], pytest.approx(expected[0].max(), rel=1e-4))
    assert found._repr_png_().startswith(b"\x89PNG")
    assert repr(found).startswith("Classification(") and found.classes[0] in repr(found)
    assert m.network.count_params() and m.assumed == "" and m.identity.backbone == "mobilenet_v2"
    np.testing.assert_array_equal(m.predict(read_image(pictures[0])).probabilities, found.probabilities)
    for how, said in (
        ({"how": slim_deeplab.Opening()}, "is a classifier; how it is opened is a ClassifierOpening"),
        ({"looks": slim_deeplab.Looks(flip=True)}, "looks at a picture once; leave out flip"),
    ):
        with pytest.raises(UserError, match=said):
            slim_deeplab.load(run, **how)


def test_what_cannot_be_read_is_skipped_and_said(run, pictures, tmp_path, capsys):
    (tmp_path / "cut.jpg").write_bytes(pictures[0].read_bytes()[:300])
    assert ended("--ckpt", run, tmp_path / "cut.jpg", pictures[1], "--out", tmp_path / "out", "--no-sheet") == 1
    out, err = capsys.readouterr()
    assert "skipped: " in err and "cut.jpg: this JPEG is cut short" in err
    assert "1 of 2 classified" in out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.csv"]
    assert ended("--ckpt", run, tmp_path / "cut.jpg", "--out", tmp_path / "none") == 1
    assert not list((tmp_path / "none").iterdir())


def test_mistakes_are_said(run, pictures, tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "letters.csv").write_text("mine")
    (tmp_path / "film.mp4").touch()
    for flags, said in (
        ([tmp_path / "none.jpg"], "no such file or folder"),
        ([tmp_path / "notes"], "no image in this folder"),
        ([pictures[0], "--out", tmp_path / "notes"], "no predictions of this program (letters.csv)"),
        ([pictures[0], "--top", "0"], "--top"),
    ):
        assert ended("--ckpt", run, *flags) == 2
        assert said in capsys.readouterr().err
    assert (tmp_path / "notes" / "letters.csv").read_text() == "mine"


def test_a_sheet_does_not_replace_a_picture(run, pictures, tmp_path, capsys):
    (tmp_path / "sheet.png").write_bytes(pictures[0].read_bytes())
    assert ended("--ckpt", run, tmp_path / "sheet.png", "--out", tmp_path, "--overwrite") == 2
    assert "is an input itself" in capsys.readouterr().err
    assert (tmp_path / "sheet.png").read_bytes() == pictures[0].read_bytes()


def test_slims_own_classifier_says_imagenets_names(pictures, tmp_path, capsys):
    save_checkpoint(small_classifier(1001), tmp_path / "mobilenet.ckpt")
    m = slim_deeplab.load(tmp_path / "mobilenet.ckpt", slim_deeplab.ClassifierOpening(image_size=SIZE))
    assert len(m.class_names) == 1001 and m.class_names[311] == "ant"
    assert "its 1001 classes are ImageNet's (--classes)" in m.assumed and "224" not in m.assumed


def test_a_segmentation_model_is_no_classifier(tmp_path, capsys, pictures):
    from models.deeplab_v3 import deeplab_v3
    from models.mobilenet_v2 import mobilenet_v2

    save_checkpoint(deeplab_v3("mobilenet_v2", 5, depth_multiplier=0.35), tmp_path / "deeplab.ckpt")
    save_checkpoint(mobilenet_v2(depth_multiplier=0.35), tmp_path / "backbone.ckpt")
    for name, said in (("deeplab", "not a classifier; it is for predict_seg.py"), ("backbone", "train_cls.py trains")):
        assert ended("--ckpt", tmp_path / f"{name}.ckpt", pictures[0], "--out", tmp_path / "out") == 2
        assert said in capsys.readouterr().err


def test_a_classifiers_run_is_no_segmentation_model(run, tmp_path):
    import eval_seg

    draw_voc(tmp_path, train=1, val=1)
    with pytest.raises(UserError, match=r"trained a classifier.*eval_cls\.py"):
        eval_seg.main(["--ckpt", str(run), "--data", str(tmp_path)])


@pytest.mark.parametrize("program", ["eval_cls", "predict_cls", "export_cls"])
def test_help_needs_no_framework(program):
    code = (
        f"import sys, {program}\n"
        f"try:\n    {program}.parse_arguments(['--help'])\n"
        "finally:\n    print({'keras', 'tensorflow', 'cv2'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.endswith("set()\n")
