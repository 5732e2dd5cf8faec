"""A run's directory: continued only by its own command, log and checkpoints in step, nothing of others overwritten."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from engine.run_data import RunData
from engine.run_directory import RunDirectory, RunError, run_of
from models.checkpoint import open_checkpoint
from models.weight_init import named_variables
from training.optimizer import Momentum

ARGUMENTS = {"steps": 10, "workers": 2, "freeze": ("a",)}


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run", ARGUMENTS, free=("workers",))
    run.open()
    run.start({"backbone": "none"}, ["background", "thing"])
    yield run
    run.close()


def test_nothing_is_written_before_open(tmp_path):
    RunDirectory(tmp_path / "run", ARGUMENTS)
    assert not (tmp_path / "run").exists()


def test_same_arguments_continue_other_ones_are_refused(run):
    (run.path / "model.ckpt-5.index").touch()
    RunDirectory(run.path, ARGUMENTS | {"workers": 4}, free=("workers",))
    with pytest.raises(RunError, match="steps: 10 → 20"):
        RunDirectory(run.path, ARGUMENTS | {"steps": 20}, free=("workers",))


def test_a_run_that_saved_no_step_may_be_started_otherwise(run):
    (run.path / "coverage.json").write_text("{}")
    (run.path / "tensorboard").mkdir()
    (run.path / "tensorboard" / "events.out.tfevents.1").touch()
    run.close()
    other = RunDirectory(run.path, ARGUMENTS | {"steps": 20}, free=("workers",))
    other.open()
    other.start({"backbone": "other"}, ["background", "thing"])
    other.close()
    assert other.config()["arguments"]["steps"] == 20
    assert not (run.path / "coverage.json").exists() and not (run.path / "tensorboard").exists()


def test_a_run_of_a_best_model_alone_is_not_started_otherwise_and_begins_anew(run, tiny_resnet):
    run.save_best(tiny_resnet, 5)
    assert run.has_saved() and not run.last_step()
    with pytest.raises(RunError, match="steps: 10 → 20"):
        RunDirectory(run.path, ARGUMENTS | {"steps": 20})
    run.start({"backbone": "none"}, ["background", "thing"])
    assert not run.has_saved() and not run.best.exists()


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="no run of ours"):
        RunDirectory(tmp_path, ARGUMENTS)
    with pytest.raises(RunError, match="is a file"):
        RunDirectory(tmp_path / "thesis.tex", ARGUMENTS)


def test_two_processes_cannot_train_in_one_directory(run):
    with pytest.raises(RunError, match="in use"):
        RunDirectory(run.path, ARGUMENTS).open()


def test_broken_configuration_is_said(run):
    (run.path / "config.json").write_text('{"arguments": ')
    with pytest.raises(RunError, match=r"config\.json"):
        RunDirectory(run.path, ARGUMENTS)


def test_data_are_compared_with_those_of_any_name(run, tmp_path):
    data = RunData({"train": [("a\nb\udcff.jpg", "3", "")]})
    run.start({"backbone": "none"}, ["a", "b"], data=data)
    assert run.compare_data(["a", "b"], data) == []


def test_a_list_of_data_that_is_none_is_said_and_not_waited_for(run):
    data = RunData({"train": [("a.jpg", "3", "")]})
    run.start({"backbone": "none"}, ["a", "b"], data=data)
    for make, message in (Path.mkdir, "a folder"), (os.mkfifo, "a folder, a pipe"), (Path.touch, "it is not what"):
        (run.path / "data.csv").rename(run.path / f"before-{make.__name__}")
        make(run.path / "data.csv")
        with pytest.raises(RunError, match=rf"data\.csv: does not say .*\({message}.*--data-changed"):
            run.compare_data(["a", "b"], data)


def test_log_is_cut_at_the_checkpoint_and_torn_lines_are_dropped(run):
    for step in (5, 10, 15):
        run.log({"step": step, "loss": 0.5})
    with open(run.path / "log.csv", "a") as log:
        log.write("20,0.")
    assert [row["step"] for row in run.log_rows()] == ["5", "10", "15"]
    run.cut_log(10)
    run.log({"step": 15, "loss": 0.25})
    assert (run.path / "log.csv").read_text() == "step,loss\n5,0.5\n10,0.5\n15,0.25\n"
    run.cut_log(0)
    run.log({"step": 5, "loss": 0.5})
    assert (run.path / "log.csv").read_text() == "step,loss\n5,0.5\n"


def test_checkpoints_carry_slots_and_step_and_only_the_last_stay(run, tiny_resnet):
    optimizer = Momentum(0.1)
    optimizer.build(tiny_resnet.trainable_variables)
    for slot in optimizer.momentums:
        slot.assign(np.full(slot.shape, 0.25))
    for step in (10, 20, 30):
        run.save(tiny_resnet, optimizer, step, keep=2)
    assert sorted(path.name for path in run.path.glob("*.index")) == ["model.ckpt-20.index", "model.ckpt-30.index"]
    assert run.last_step() == 30
    with open_checkpoint(run.path) as checkpoint:
        trainable = {name for name, variable in named_variables(tiny_resnet).items() if variable.trainable}
        assert {name for name in checkpoint.shapes if name.endswith("/Momentum")} == {
            f"{n}/Momentum" for n in trainable
        }

    for variable in [*tiny_resnet.weights, *optimizer.momentums]:
        variable.assign(np.zeros(variable.shape))
    assert run.restore(tiny_resnet, optimizer) == 30
    assert int(optimizer.iterations) == 30
    assert all(np.all(slot.numpy() == 0.25) for slot in optimizer.momentums)
    assert tiny_resnet.conv1.kernel.numpy().any()


def test_best_is_a_directory_of_its_own(run, tiny_resnet):
    for step in (10, 20):
        run.save_best(tiny_resnet, step)
    assert [path.name for path in run.best.glob("*.index")] == ["model.ckpt-20.index"]
    assert run.last_step() == 0
    assert run_of(run.best) == run_of(run.path) == run_of(run.best / "model.ckpt-20") == run.path


def test_a_later_best_of_an_attempt_that_was_killed_is_removed(run, tiny_resnet):
    run.save_best(tiny_resnet, 30)
    assert run.best_step() == 30
    run.save_best(tiny_resnet, 20)
    assert sorted(path.name for path in run.best.iterdir()) == [
        "checkpoint",
        "model.ckpt-20.data-00000-of-00001",
        "model.ckpt-20.index",
    ]
    assert run.best_step() == 20


def test_the_directory_can_be_moved(run, tiny_resnet, tmp_path):
    run.save_best(tiny_resnet, 10)
    moved = run.path.rename(tmp_path / "elsewhere")
    with open_checkpoint(moved / "best") as checkpoint:
        assert checkpoint.read("global_step") == 10


def test_configuration_says_what_the_run_is(run):
    config = json.loads((run.path / "config.json").read_text())
    assert config["arguments"]["steps"] == 10
    assert run.config()["classes"] == ["background", "thing"]
