"""train_seg.py and eval_seg.py from their command lines: the main job, resuming, and everything a user gets wrong."""

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import eval_seg
import train_seg
from data.sample import draw_voc
from engine.stopping import Stopped
from errors import UserError
from inference import evaluation
from tests.conftest import assert_same, read_all
from training.callbacks import RunKeeper

ROOT = Path(__file__).parents[2]
SMALL = ["--crop-size", "33", "--eval-size", "129", "--batch-size", "2", "--log-every", "2", "--eval-every", "6"]


pytestmark = pytest.mark.usefixtures("short_mobilenet")


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    draw_voc(root, train=8, val=3)
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A classifier of slim's names: MobileNet v2 0.35, which is quick."""
    from models.mobilenet_v2 import mobilenet_v2
    from models.weight_init import save_checkpoint

    prefix = tmp_path_factory.mktemp("slim") / "mobilenet.ckpt"
    save_checkpoint(mobilenet_v2(num_classes=11, depth_multiplier=0.35), prefix)
    return prefix


def command(voc, checkpoint, run, *more):
    return ["--ckpt", str(checkpoint), "--data", str(voc), "--run-dir", str(run), *SMALL, *map(str, more)]


def log(run):
    """[(step, loss, learning rate, mIoU)]: what of a log does not depend on the clock."""
    rows = csv.DictReader((run / "log.csv").read_text().splitlines())
    return [(row["step"], row["loss"], row["learning_rate"], row["miou"]) for row in rows]


def launch(arguments, program=("-m", "tests.short_mobilenet")):
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def trained(voc, checkpoint, tmp_path_factory):
    """A run of 12 steps that nothing disturbed, in a process of its own as users have it."""
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    process = launch(command(voc, checkpoint, run, "--steps", 12, "--save-every", 3))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return run, out


def test_report_comes_before_the_first_step(trained):
    _, out = trained
    assert "105/105 backbone variables" in out
    assert out.index("backbone variables") < out.index("step 2/12")


def test_run_directory_holds_everything(trained):
    run, _ = trained
    for name in ("config.json", "coverage.json", "log.csv", "checkpoint", "model.ckpt-12.index", "best/checkpoint"):
        assert (run / name).is_file(), name
    assert list((run / "tensorboard").iterdir())
    rows = list(csv.DictReader((run / "log.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [2, 3, 4, 6, 8, 9, 10, 12]
    assert [bool(row["miou"]) for row in rows] == [False, False, False, True, False, False, False, True]
    saved = read_all(run)
    assert saved["global_step"] == 12
    assert sum(name.endswith("/Momentum") for name in saved) > 70


def test_killed_at_any_moment_and_resumed_ends_with_the_same_weights(voc, checkpoint, trained, tmp_path):
    run = tmp_path / "killed"
    arguments = command(voc, checkpoint, run, "--steps", 12, "--save-every", 3)
    process = launch(arguments)
    while process.poll() is None and not (run / "model.ckpt-3.index").exists():
        time.sleep(0.05)
    time.sleep(np.random.default_rng().uniform(0, 0.8))  # any moment: while stepping, logging or saving
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run was over before it was killed"

    process = launch(arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "continued behind step" in out
    assert_same(read_all(run), read_all(trained[0]))
    assert log(run) == log(trained[0])


@pytest.fixture
def stops(monkeypatch):
    """A function: object, name of its function, call, signal → this process gets the signal at that call."""

    def prepare(place, name, call, number):
        original, calls = getattr(place, name), itertools.count(1)

        def stopping(*arguments, **more):
            if next(calls) == call:
                os.kill(os.getpid(), number)
            return original(*arguments, **more)

        monkeypatch.setattr(place, name, stopping)

    return prepare


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_training_at_the_step(voc, checkpoint, trained, tmp_path, stops, number):
    run = tmp_path / "stopped"
    arguments = command(voc, checkpoint, run, "--steps", 12, "--save-every", 3)
    stops(RunKeeper, "on_train_batch_end", 5, number)
    with pytest.raises(Stopped, match=r"step 5 is saved in .*stopped; the same command goes on from there"):
        train_seg.main(arguments)
    assert read_all(run)["global_step"] == 5
    assert log(run)[-1][0] == "5"
    train_seg.main(arguments)
    assert_same(read_all(run), read_all(trained[0]))
    assert_same(read_all(run / "best"), read_all(trained[0] / "best"))
    assert [row for row in log(run) if row[0] not in ("5", "6")] == [r for r in log(trained[0]) if r[0] != "6"]


def test_a_validation_is_left_and_done_when_the_run_goes_on(voc, checkpoint, trained, tmp_path, stops):
    run = tmp_path / "stopped"
    arguments = command(voc, checkpoint, run, "--steps", 12, "--save-every", 3)
    stops(evaluation, "evaluate", 1, signal.SIGTERM)
    with pytest.raises(Stopped, match="step 6 is saved"):
        train_seg.main(arguments)
    assert log(run)[-1][0] == "6" and log(run)[-1][-1] == "" and not (run / "best").exists()
    stops(evaluation, "evaluate", 1, signal.SIGTERM)
    with pytest.raises(Stopped, match=r"step 6 is saved in .*stopped; the same command goes on from there"):
        train_seg.main(arguments)
    train_seg.main(arguments)
    assert log(run) == log(trained[0])
    assert_same(read_all(run / "best"), read_all(trained[0] / "best"))
    assert events(run) == events(trained[0])


def test_the_last_validation_too(voc, checkpoint, trained, tmp_path, stops):
    run = tmp_path / "stopped"
    arguments = command(voc, checkpoint, run, "--steps", 12, "--save-every", 3)
    stops(evaluation, "evaluate", 2, signal.SIGTERM)
    with pytest.raises(Stopped, match="step 12 is saved"):
        train_seg.main(arguments)
    train_seg.main(arguments)
    assert log(run) == log(trained[0])


def test_a_stopped_program_says_so_in_one_line(voc, checkpoint, tmp_path):
    run = tmp_path / "stopped"
    process = launch(command(voc, checkpoint, run, "--steps", 2000))
    while process.poll() is None and not (run / "log.csv").exists():
        time.sleep(0.05)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    said = [line for line in err.splitlines() if "stopped by SIGTERM: step " in line]
    assert len(said) == 1 and "Traceback" not in err


def events(run):
    """{tag: steps} of what TensorBoard shows, but for the clock's."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(run / "tensorboard"), {"tensors": 0})
    shown.Reload()
    return {tag: [event.step for event in shown.Tensors(tag)] for tag in shown.Tags()["tensors"]}


# A run and its data


@pytest.fixture
def on_own_data(voc, trained, tmp_path):
    """A function: flags → the finished run's command again, on a copy of run and data; and where these are."""
    root, run = tmp_path / "voc", tmp_path / "run"
    shutil.copytree(voc, root)
    shutil.copytree(trained[0], run)
    config = json.loads((run / "config.json").read_text())
    config["arguments"]["data"] = str(root)
    del config["sha256"]
    (run / "config.json").write_text(json.dumps(config))

    def again(*more):
        arguments = config["arguments"]
        train_seg.main(command(root, arguments["ckpt"], run, "--steps", 12, "--save-every", 3, *more))

    return again, root, run


def shorter_list(root):
    path = root / "ImageSets" / "Segmentation" / "trainaug.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[2:]))


def longer_mask(root):
    with open(root / "SegmentationClass" / "val_00001.png", "ab") as mask:
        mask.write(b"behind its end")


def renamed_class(root):
    path = root / "ImageSets" / "Segmentation" / "classes.txt"
    path.write_text(path.read_text().replace("disc", "disk"))


def other_order(root):
    path = root / "ImageSets" / "Segmentation" / "val.txt"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shorter_list, r"trainaug: 2 images fewer: JPEGImages/train_00000.jpg, JPEGImages/train_00001.jpg\)"),
        (longer_mask, r"val: 1 other files: JPEGImages/val_00001.jpg \([\d,]+ and [\d,]+ → [\d,]+ and [\d,]+ bytes\)"),
        (renamed_class, "classes: background, disc, square, triangle, star → background, disk, square"),
        (other_order, "val: the images in another order"),
    ],
)
def test_a_run_is_not_continued_on_other_data_without_a_word(on_own_data, change, said, capsys):
    again, root, run = on_own_data
    again()
    change(root)
    before = (run / "config.json").read_text()
    with pytest.raises(UserError, match=rf"no longer what the run was started with \(.*{said}.*--data-changed"):
        again()
    assert (run / "config.json").read_text() == before
    capsys.readouterr()
    again("--data-changed")
    assert "goes on with data that changed" in capsys.readouterr().out
    again()


def test_a_run_of_a_best_model_alone_is_bound_to_its_data_too(on_own_data):
    again, root, run = on_own_data
    for file in (run / "checkpoint", *run.glob("model.ckpt-*")):
        file.unlink()
    shorter_list(root)
    with pytest.raises(UserError, match="2 images fewer"):
        again()
    assert list((run / "best").glob("model.ckpt-*"))


def test_room_for_all_checkpoints_is_looked_at_before_the_first_step(voc, checkpoint, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4_400_000))
    with pytest.raises(
        UserError, match=r"3 checkpoints of [\d.]+ MB and the best of [\d.]+ MB: needs 5 MB .* 4 MB are free"
    ):
        train_seg.main(command(voc, checkpoint, tmp_path / "run", "--steps", 2, "--keep", 2))
    assert not (tmp_path / "run" / "log.csv").exists()


def test_a_class_more_never_fits(on_own_data):
    again, root, _ = on_own_data
    with open(root / "ImageSets" / "Segmentation" / "classes.txt", "a") as classes:
        classes.write("hexagon\n")
    with pytest.raises(UserError, match=r"was started with 5 classes .* now has 6: .*hexagon"):
        again("--data-changed", "--allow-absent", "hexagon")


def test_data_that_nobody_wrote_down_is_said_to_be_unknown(on_own_data, capsys):
    again, _, run = on_own_data
    config = json.loads((run / "config.json").read_text())
    del config["data"]
    (run / "config.json").write_text(json.dumps(config))
    again()
    assert "started before runs kept what their data were" in capsys.readouterr().out


def test_a_damaged_list_of_the_data_is_named(on_own_data):
    again, _, run = on_own_data
    (run / "data.csv").write_text("train,x\n")
    with pytest.raises(UserError, match=r"data\.csv: does not say what the run's data were .*--data-changed goes on"):
        again()
    again("--data-changed")
    again()


def test_other_worker_counts_and_repeats_give_the_same_losses(voc, checkpoint, trained, tmp_path):
    run = tmp_path / "workers"
    train_seg.main(command(voc, checkpoint, run, "--steps", 12, "--save-every", 3, "--workers", 1))
    assert log(run) == log(trained[0])


def test_finished_run_is_left_alone(voc, checkpoint, trained, capsys):
    run, _ = trained
    before = read_all(run)
    train_seg.main(command(voc, checkpoint, run, "--steps", 12, "--save-every", 3))
    assert "all 12 steps are done" in capsys.readouterr().out
    assert_same(read_all(run), before)


def test_evaluation_tells_the_model_and_repeats_the_run_s_last_score(voc, trained, tmp_path, capsys):
    run, _ = trained
    eval_seg.main(["--ckpt", str(run), "--data", str(voc), "--json", str(tmp_path / "e.json")])
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "e.json").read_text())
    last = list(csv.DictReader((run / "log.csv").read_text().splitlines()))[-1]
    assert result["miou"] == pytest.approx(float(last["miou"]), abs=1e-6)
    for name in ("background", "disc", "mIoU", "pixel accuracy"):
        assert name in out


def test_picture_of_predictions(voc, trained, tmp_path):
    import cv2

    eval_seg.main(
        ["--ckpt", str(trained[0]), "--data", str(voc), "--sheet", str(tmp_path / "s.png"), "--sheet-images", "2"]
    )
    picture = cv2.imread(str(tmp_path / "s.png"))
    assert picture.shape[1] == 3 * 246
    assert picture.shape[0] > 2 * 120


def test_dry_run_reports_and_writes_nothing(voc, checkpoint, tmp_path, capsys):
    train_seg.main(command(voc, checkpoint, tmp_path / "run", "--dry-run"))
    assert "105/105 backbone variables" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.fixture
def partial(checkpoint, tmp_path):
    from models.checkpoint import write_checkpoint

    tensors = {name: value for name, value in read_all(checkpoint).items() if "expanded_conv_6/" not in name}
    write_checkpoint(tmp_path / "partial.ckpt", tensors)
    return tmp_path / "partial.ckpt"


def test_backbone_variable_that_is_missing_stops_the_start(voc, partial, tmp_path):
    with pytest.raises(
        UserError, match=r"15 backbone variables did not arrive.*--allow-missing MobilenetV2/expanded_conv_6"
    ):
        train_seg.main(command(voc, partial, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_named_scopes_may_be_missing(voc, partial, tmp_path, capsys):
    allow = ["--allow-missing", "MobilenetV2/expanded_conv_6", "--dry-run"]
    train_seg.main(command(voc, partial, tmp_path / "run", *allow))
    assert "90/105 backbone variables" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ckpt", "nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        (["--data", "nowhere"], "nowhere"),
        (["--train-set", "nothing"], "nothing.txt: no such image set"),
        (["--exclude", "MobilenetV2/block1"], "'MobilenetV2/block1' matches no variable"),
        (["--freeze", "MobilenetV2/Con"], "'MobilenetV2/Con' matches no variable"),
        (["--allow-missing", "resnet_v2_50"], "'resnet_v2_50' matches no variable"),
        (["--rename", "a"], "OLD_SCOPE=NEW_SCOPE"),
        (["--rename", "slim=MobilenetV2"], "'slim' matches no variable"),
        (["--model", "resnet_v2_50"], "not the resnet_v2_50"),
        (["--model", "resnet_v2_51"], "no resnet_v2_51 in this checkpoint"),
        (["--ckpt", "none"], "name one with --model"),
        (["--ckpt", "none", "--model", "mobilenet_v2", "--ema"], "no checkpoint to restore from"),
        (["--ema"], "moving averages were asked for"),
        (["--accumulate", "3"], "must divide the batch of 2 images"),
        (["--warmup-steps", "40", "--steps", "40"], "must be fewer than the 40 steps"),
        (["--class-weights", "1,2"], "2 weights for the data's 5 classes"),
        (["--stage2"], "no segmentation head"),
        (["--stage2", "--ckpt", "none", "--model", "mobilenet_v2"], "needs the first stage's run"),
        (["--train", "new", "--freeze", "aspp0,image_pooling,concat_projection,logits"], "nothing is left to learn"),
    ],
)
def test_mistakes_are_said(voc, checkpoint, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        train_seg.main(command(voc, checkpoint, tmp_path / "run", *flags))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--crop-size", "--batch-size", "--steps", "--workers"])
def test_zero_is_refused_by_the_parser(voc, checkpoint, tmp_path, flag):
    with pytest.raises(UserError, match=f"{flag}: must be 1 or more"):
        train_seg.main(command(voc, checkpoint, tmp_path / "run", flag, "0"))


def break_mask(voc, how):
    from PIL import Image

    name = (voc / "ImageSets/Segmentation/train.txt").read_text().split()[0]
    path = voc / "SegmentationClass" / f"{name}.png"
    mask = Image.open(path)
    if how == "RGB":
        mask.convert("RGB").save(path)
    elif how == "size":
        mask.resize((40, 30), Image.Resampling.NEAREST).save(path)
    else:
        values = np.array(mask)
        values[0, 0] = 37
        broken = Image.fromarray(values)
        broken.putpalette(mask.getpalette())
        broken.save(path)


@pytest.mark.parametrize(
    ("how", "message"), [("RGB", "mode RGB"), ("size", "40x30"), ("label", "found 37"), ("jpeg", "cut short")]
)
def test_broken_data_stops_training_with_the_file_s_name(checkpoint, tmp_path, how, message):
    voc = tmp_path / "voc"
    draw_voc(voc, train=2, val=1)
    if how == "jpeg":
        for path in (voc / "JPEGImages").glob("*.jpg"):
            path.write_bytes(path.read_bytes()[:-200])
    else:
        break_mask(voc, how)
    with pytest.raises(UserError, match=message):
        train_seg.main(
            command(
                voc, checkpoint, tmp_path / "run", "--steps", "20", "--train-set", "train", "--allow-absent", "star"
            )
        )


def test_diverging_run_stops_with_advice(voc, checkpoint, tmp_path):
    flags = ["--steps", 60, "--learning-rate", 1e9, "--log-every", 1]
    with pytest.raises(
        UserError, match=r"the loss became (nan|inf) at step \d+ .*no checkpoint was saved yet.*--learning-rate"
    ):
        train_seg.main(command(voc, checkpoint, tmp_path / "run", *flags))


def test_weights_that_a_finite_loss_broke_are_not_saved(voc, checkpoint, tmp_path, monkeypatch):
    """The loss of a step says what the weights were before it."""
    monkeypatch.setattr("training.recipe.Poly", lambda *_: 1e38)  # more than a flag takes
    flags = ["--steps", 3, "--weight-decay", "1e6", "--save-every", 1, "--log-every", 1]
    with pytest.raises(UserError, match=r"no longer finite after step 1 .* no checkpoint was saved yet"):
        train_seg.main(command(voc, checkpoint, tmp_path / "run", *flags))
    assert not list((tmp_path / "run").glob("model.ckpt-*"))


@pytest.fixture(scope="module")
def every_option(voc, checkpoint, tmp_path_factory):
    """The flags of a run of 4 steps with all that the recipe has, and the run."""
    flags = ["--accumulate", 2, "--warmup-steps", 2, "--clip-norm", 1, "--class-weights", "balanced", "--no-flip"]
    flags += ["--hard-pixels", 0.5, "--preprocessing", "mean-subtracted", "--scale-range", "1,1.5", "--save-every", 2]
    run = tmp_path_factory.mktemp("runs") / "options"
    train_seg.main(command(voc, checkpoint, run, "--steps", 4, "--log-every", 1, *flags))
    return flags, run


def test_run_with_every_option_is_resumed_to_the_same_weights(voc, checkpoint, every_option, tmp_path):
    flags, whole = every_option
    run = tmp_path / "cut"
    shutil.copytree(whole, run)
    for file in run.glob("model.ckpt-4.*"):
        file.unlink()
    (run / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-2"\n')
    train_seg.main(command(voc, checkpoint, run, "--steps", 4, "--log-every", 1, *flags))
    assert_same(read_all(run), read_all(whole))
    assert log(run) == log(whole)
    rates = [float(row[2]) for row in log(run)]
    assert rates == pytest.approx([0.0035, 0.007 * 0.75**0.9, 0.007 * 0.5**0.9, 0.007 * 0.25**0.9])
    with pytest.raises(UserError, match=r"clip_norm: 1\.0 → 2\.0"):
        train_seg.main(command(voc, checkpoint, run, "--steps", 4, "--log-every", 1, *flags, "--clip-norm", 2))


def test_run_keeps_its_preprocessing_and_its_class_weights(voc, every_option):
    from data.voc import VOCSegmentation
    from inference.opening import build_segmenter, segmenter_of
    from models.preprocessing import MEAN_SUBTRACTED
    from training.losses import class_weights

    config = segmenter_of(every_option[1]).config
    assert build_segmenter(config).preprocessing is MEAN_SUBTRACTED
    weights = json.loads((every_option[1] / "config.json").read_text())["arguments"]["class_weights"]
    assert weights == class_weights("balanced", VOCSegmentation(voc, "trainaug"))


def test_second_stage_goes_on_from_the_first(voc, every_option, tmp_path, capsys):
    run = tmp_path / "second"
    flags = ["--stage2", "--steps", 1, "--weight-decay", 0]
    train_seg.main(command(voc, every_option[1], run, *flags))
    out = capsys.readouterr().out
    assert "missing in the checkpoint" not in out
    assert "warning" not in out  # its batch norm is frozen
    config = json.loads((run / "config.json").read_text())
    assert (config["model"]["output_stride"], config["model"]["preprocessing"]) == (8, "mean-subtracted")
    assert (config["arguments"]["learning_rate"], config["arguments"]["freeze_bn"]) == (0.001, "all")
    before, after = read_all(every_option[1]), read_all(run)
    for name in before:
        if "BatchNorm" in name and not name.endswith("/Momentum"):
            assert np.array_equal(before[name], after[name]), name
    step = np.abs(after["logits/semantic/weights"] - before["logits/semantic/weights"]).max()
    assert 0 < step < 0.1  # the head learnt on from where it was


def test_second_stage_s_defaults_give_way_to_flags():
    first = train_seg.parse_arguments(["--ckpt", "c", "--data", "d"])
    assert (first.output_stride, first.freeze_bn, first.learning_rate, first.run_dir) == (16, None, 0.007, "runs/seg")
    assert (first.steps, first.batch_size, first.crop_size, first.power) == (30_000, 16, 513, 0.9)
    assert (first.momentum, first.weight_decay, first.scale_range, first.flip) == (0.9, 1e-4, (0.5, 2.0), True)
    flags = ["--ckpt", "c", "--data", "d", "--stage2", "--learning-rate", "0.01", "--freeze-bn", "statistics"]
    second = train_seg.parse_arguments(flags)
    assert (second.output_stride, second.freeze_bn, second.learning_rate) == (8, "statistics", 0.01)
    assert second.run_dir != first.run_dir


def test_small_batches_of_live_batch_norm_are_warned_of(voc, checkpoint, tmp_path, capsys):
    def said(*flags):
        train_seg.main(command(voc, checkpoint, tmp_path / "run", "--dry-run", *flags))
        return capsys.readouterr().out

    out = said("--batch-size", 16, "--accumulate", 4)
    assert out.count("warning") == 1
    assert "from 4 images at a time" in out
    assert "--freeze-bn" in out
    assert "warning" not in said("--batch-size", 12)
    assert "warning" not in said("--freeze-bn")


def test_a_user_s_mistake_exits_with_2_and_no_traceback(tmp_path):
    process = launch(["--ckpt", "none", "--data", str(tmp_path)], ["train_seg.py"])
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err


def test_evaluation_needs_the_data_s_classes(trained, tmp_path):
    draw_voc(tmp_path, train=1, val=1)
    (tmp_path / "ImageSets/Segmentation/classes.txt").write_text("background\nshape\n")
    with pytest.raises(UserError, match="has 5 classes"):
        eval_seg.main(["--ckpt", str(trained[0]), "--data", str(tmp_path)])


@pytest.mark.parametrize("script", ["train_seg.py", "eval_seg.py", "train_cls.py", "inspect_ckpt.py"])
def test_help_imports_nothing_heavy(script):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{script}', '--help']\n"
        f"try: runpy.run_path('{script}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'keras', 'tensorflow', 'cv2', 'tqdm'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
