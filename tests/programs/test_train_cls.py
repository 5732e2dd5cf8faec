"""train_cls.py from its command line: the tutorials' three experiments, and what is restored, new, frozen."""

import csv
import io
import json
import shutil
from contextlib import redirect_stdout

import numpy as np
import pytest

import eval_cls
import train_cls
from data.sample import draw_image_folder
from errors import UserError
from models import mobilenet_v2 as mobile
from models.weight_init import named_variables, save_checkpoint
from tests.conftest import read_all

BACKBONE = 110  # variables of the shortened network
SMALL = ["--image-size", "32", "--batch-size", "4", "--log-every", "2", "--eval-every", "4", "--steps", "4"]
NEW = ["--train", "new", "--save-every", 2]


pytestmark = pytest.mark.usefixtures("short_mobilenet")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    draw_image_folder(root, train=3, val=2)
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """1001 classes, as published."""
    prefix = tmp_path_factory.mktemp("slim") / "mobilenet.ckpt"
    save_checkpoint(mobile.mobilenet_v2(num_classes=1001, depth_multiplier=0.35), prefix)
    return prefix


def command(folders, checkpoint, run, *more):
    return ["--ckpt", str(checkpoint), "--data", str(folders), "--run-dir", str(run), *SMALL, *map(str, more)]


@pytest.fixture(scope="module")
def trained(folders, checkpoint, tmp_path_factory):
    """(run directory, output) of a whole run."""
    run = tmp_path_factory.mktemp("runs") / "run"
    with redirect_stdout(io.StringIO()) as out:
        train_cls.main(command(folders, checkpoint, run))
    return run, out.getvalue()


@pytest.fixture(scope="module")
def new_trained(folders, checkpoint, tmp_path_factory):
    """(run directory, output) of a run that learns what is new only."""
    run = tmp_path_factory.mktemp("runs") / "new"
    with redirect_stdout(io.StringIO()) as out:
        train_cls.main(command(folders, checkpoint, run, *NEW))
    return run, out.getvalue()


def test_classifier_of_another_size_is_left_out_by_itself_and_said(checkpoint, trained):
    run, out = trained
    assert f"{BACKBONE}/{BACKBONE} backbone variables" in out
    assert "(checkpoint (1, 1, 1280, 1001), model (1, 1, 1280, 4); new head)" in out
    saved = read_all(run)
    names = set(named_variables(mobile.mobilenet_v2(num_classes=4, depth_multiplier=0.35)))
    assert names <= saved.keys()  # old layers and new ones: nothing is lost
    rows = list(csv.DictReader((run / "log.csv").read_text().splitlines()))
    assert 0 <= float(rows[-1]["val_accuracy"]) <= 1


def test_restored_values_survive_to_the_first_step(folders, checkpoint, tmp_path):
    """There is no initializer that could run after the restoring: a step at rate 0 leaves what the checkpoint gave."""
    still = ["--steps", 1, "--learning-rate", 0, "--weight-decay", 0, "--freeze-bn", "--histograms"]
    train_cls.main(command(folders, checkpoint, tmp_path / "run", *still))
    before, after = read_all(checkpoint), read_all(tmp_path / "run")
    kept = [name for name in before if "/Logits/" not in name]
    assert len(kept) == BACKBONE
    assert all(np.array_equal(before[name], after[name]) for name in kept)

    shown = board_tags(tmp_path / "run/tensorboard")
    assert {"loss", "learning_rate", "val_accuracy", "predictions"} <= shown
    assert {"gradient_norm/MobilenetV2/Logits", "MobilenetV2/Conv/weights"} <= shown


def board_tags(folder):
    """Names of what was written for TensorBoard."""
    import tensorflow as tf

    (events,) = folder.iterdir()
    records = tf.data.TFRecordDataset(str(events)).as_numpy_iterator()
    parsed = [tf.compat.v1.Event.FromString(record) for record in records]
    return {value.tag for event in parsed for value in event.summary.value}


def test_finished_run_evaluates_to_the_same_number(folders, checkpoint, trained, capsys):
    run, _ = trained
    row = list(csv.DictReader((run / "log.csv").read_text().splitlines()))[-1]
    train_cls.main(command(folders, checkpoint, run))
    said = f"all 4 steps are done; val_accuracy {float(row['val_accuracy']):.4f}, val_loss {float(row['val_loss']):.4f}"
    assert said in capsys.readouterr().out


def test_eval_cls_gives_what_the_log_ends_with(folders, trained, tmp_path):
    run, _ = trained
    row = list(csv.DictReader((run / "log.csv").read_text().splitlines()))[-1]
    eval_cls.main(["--ckpt", str(run), "--data", str(folders), "--json", str(tmp_path / "scores.json")])
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["top1"] == float(row["val_accuracy"])
    assert found["loss"] == pytest.approx(float(row["val_loss"]), rel=1e-5)


def test_only_new_learns_and_the_rest_stays_to_the_bit(checkpoint, new_trained):
    run, out = new_trained
    assert any(line.split()[:3] == ["MobilenetV2/Conv", "restored", "frozen"] for line in out.splitlines())
    assert any(line.split()[:3] == ["MobilenetV2/Logits", "new", "learns"] for line in out.splitlines())
    before, after = read_all(checkpoint), read_all(run)
    for name, value in before.items():
        if "/Logits/" not in name and name != "global_step":
            assert np.array_equal(value, after[name]), name
    assert after["MobilenetV2/Logits/Conv2d_1c_1x1/biases"].any()


def test_continued_run_freezes_the_same(folders, checkpoint, new_trained, tmp_path):
    """What was restored is remembered, not asked of the checkpoint again."""
    run = tmp_path / "cut"
    shutil.copytree(new_trained[0], run)
    for name in ("model.ckpt-4.index", "model.ckpt-4.data-00000-of-00001"):
        (run / name).unlink()
    (run / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-2"\n')
    train_cls.main(command(folders, checkpoint, run, *NEW))
    whole, cut = read_all(new_trained[0]), read_all(run)
    assert all(np.array_equal(value, cut[name]) for name, value in whole.items())


def test_same_number_of_classes_restores_the_classifier_too(folders, trained, tmp_path, capsys):
    train_cls.main(command(folders, trained[0], tmp_path / "second", "--dry-run"))
    out = capsys.readouterr().out
    assert f"loaded: {BACKBONE + 2} variables" in out
    assert "Momentum" in out


def test_restored_layers_can_learn_more_slowly(folders, checkpoint, trained, tmp_path):
    train_cls.main(command(folders, checkpoint, tmp_path / "slow", "--restored-lr", 0))
    paths = checkpoint, trained[0], tmp_path / "slow"
    before, fast, slow = (read_all(one)["MobilenetV2/Conv/weights"] for one in paths)
    assert not np.array_equal(fast, before)
    assert np.array_equal(slow, before)


def test_renamed_scope_is_told_and_then_loads(folders, checkpoint, tmp_path, capsys):
    from models.checkpoint import write_checkpoint

    renamed = {name.replace("MobilenetV2", "my_net"): value for name, value in read_all(checkpoint).items()}
    write_checkpoint(tmp_path / "old.ckpt", renamed)
    for flags in ([], ["--rename", "my_net=MobilenetV2"]):
        train_cls.main(command(folders, tmp_path / "old.ckpt", tmp_path / "run", "--dry-run", *flags))
        out = capsys.readouterr().out
        assert f"{BACKBONE}/{BACKBONE} backbone variables" in out
        assert ("(under the scope my_net)" in out) == (not flags)


def test_comparison_leaves_a_table_and_a_plot(folders, checkpoint, tmp_path, capsys):
    train_cls.main(command(folders, checkpoint, tmp_path / "three", "--compare"))
    out = capsys.readouterr().out
    for name in ("all", "new", "scratch"):
        assert f"| {name} |" in out
        assert (tmp_path / "three" / name / "log.csv").is_file()
    assert out.count(f"{BACKBONE}/{BACKBONE} backbone variables") == 2  # and nothing is restored from scratch
    curves = json.loads((tmp_path / "three/comparison.json").read_text())
    assert [point["step"] for point in curves["scratch"]] == [4]
    assert (tmp_path / "three/comparison.png").read_bytes().startswith(b"\x89PNG")


def test_files_that_are_no_images_are_named_or_refused(folders, checkpoint, tmp_path, capsys):
    stray = folders / "train" / "disc" / "thumbs.jpg"
    stray.write_bytes(b"GIF89a")
    try:
        train_cls.main(command(folders, checkpoint, tmp_path / "run", "--dry-run"))
        assert f"skipped: {stray}" in capsys.readouterr().out
        with pytest.raises(UserError, match=r"thumbs\.jpg"):
            train_cls.main(command(folders, checkpoint, tmp_path / "run", "--dry-run", "--strict-data"))
    finally:
        stray.unlink()
