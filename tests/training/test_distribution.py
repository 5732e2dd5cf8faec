"""Several devices and several processes: the same run as on one, and what is said and kept when a process dies."""

import csv
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data.sample import draw_voc
from engine.options import Recipe
from errors import UserError
from tests import small_training
from tests.conftest import QUICK_JAX, read_all
from training.distribution import distribution_for
from training.run import check_recipe

ROOT = Path(__file__).parents[2]
STEPS = 20
TOLERANCE = 1e-3
needs_jax = pytest.mark.skipif(find_spec("jax") is None, reason="needs jax")


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    draw_voc(root, train=8, val=3)
    return root


@pytest.fixture(scope="module")
def trained_before(voc, tmp_path_factory):
    """Where all runs start: from weights of nothing, a rounding error grows a hundredfold a step."""
    run = tmp_path_factory.mktemp("before") / "run"
    longer = ["--steps", 80, "--log-every", 40, "--eval-every", 80, "--learning-rate", 0.02]
    small_training.main(flags(voc, run, *longer))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(small_training.START, str(run))
        yield


@pytest.fixture(scope="module")
def single(voc, trained_before, tmp_path_factory):
    """The run directory of 20 steps on one device, under TensorFlow."""
    run = tmp_path_factory.mktemp("single") / "run"
    small_training.main(flags(voc, run))
    return run


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of the processes: JAX compiles quickly, and each program once."""
    return QUICK_JAX | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


@pytest.fixture
def train(voc, environment, tmp_path):
    """A function (run directory, backend, flags) → Training, started in a process of its own; killed at the end."""
    with ExitStack() as stack:

        def start(run, backend, *more):
            name = f"{len(list(tmp_path.glob('*.out')))}"
            said, errors = (stack.enter_context(open(tmp_path / f"{name}.{kind}", "w")) for kind in ("out", "err"))
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.small_training", *flags(voc, run, *more)],
                cwd=ROOT,
                env=os.environ | environment | {"KERAS_BACKEND": backend},
                stdout=said,
                stderr=errors,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return Training(process, Path(said.name), Path(errors.name))

        yield start


@dataclass
class Training:
    """A process that trains, and the files it prints to."""

    process: subprocess.Popen
    said: Path
    errors: Path

    def finish(self, code=0):
        """→ (what it printed, its errors), once it ended with this code."""
        found = self.process.wait(timeout=300)
        assert found == code, self.errors.read_text()
        return self.said.read_text(), self.errors.read_text()


def flags(voc, run, *more):
    small = ["--data", voc, "--run-dir", run, "--crop-size", 49, "--eval-size", 129, "--batch-size", 8]
    small += ["--steps", STEPS, "--log-every", 1, "--save-every", 10, "--eval-every", STEPS, "--workers", 1]
    return [str(flag) for flag in (*small, "--learning-rate", 0.005, *more)]


def start_hosts(train, run):
    """Two processes on this machine that train one model."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        hosts = ",".join(f"127.0.0.1:{s.getsockname()[1]}" for s in (one, other))
    return [train(run, "jax", "--hosts", hosts, "--host", host) for host in (0, 1)]


def rows(run):
    return list(csv.DictReader((run / "log.csv").read_text().splitlines()))


def assert_follows(run, single):
    found, expected = rows(run), rows(single)
    assert [row["step"] for row in found] == [row["step"] for row in expected] == [str(n + 1) for n in range(STEPS)]
    for row, other in zip(found, expected, strict=True):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=TOLERANCE)
        assert row["learning_rate"] == other["learning_rate"]
    assert expected[-1]["loss"] != expected[0]["loss"]
    assert float(found[-1]["miou"]) == pytest.approx(float(expected[-1]["miou"]), rel=0.05)


def test_two_devices_under_mirrored_strategy_follow_one(train, single, tmp_path):
    said, _ = train(tmp_path / "run", "tensorflow", "--devices", 2).finish()
    assert_follows(tmp_path / "run", single)
    assert "2 replicas: equal weights" in said


@needs_jax
def test_two_processes_follow_one_and_only_the_first_writes_and_speaks(train, single, tmp_path):
    first, second = start_hosts(train, tmp_path / "run")
    said, _ = first.finish()
    assert_follows(tmp_path / "run", single)
    assert "2 replicas: equal weights" in said
    spoken = second.finish()[0].splitlines()
    assert all(line.startswith("[Gloo]") for line in spoken)  # which a library says by itself
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


@needs_jax
def test_a_process_that_dies_is_reported_and_the_run_goes_on_without_it(train, single, tmp_path):
    run = tmp_path / "run"
    first, second = start_hosts(train, run)
    while not (run / "checkpoint").exists():
        assert first.process.poll() is None, first.errors.read_text()
        time.sleep(0.05)
    second.process.kill()
    _, errors = first.finish(code=2)
    assert "another of the run's 2 processes is gone" in errors
    assert "The last checkpoint is model.ckpt-10" in errors
    assert "Traceback" not in errors
    said, _ = train(run, "jax").finish()
    assert "continued behind step 10" in said
    assert_follows(run, single)


def test_parts_of_a_batch_on_two_devices_are_the_parts_on_one(voc, train, tmp_path):
    more = ["--accumulate", 2, "--freeze-bn", "statistics", "--steps", 2, "--clip-norm", 0.5]
    small_training.main(flags(voc, tmp_path / "one", *more))
    train(tmp_path / "two", "tensorflow", *more, "--devices", 2).finish()
    one, two = (read_all(tmp_path / name / "model.ckpt-2") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_batch_that_devices_cannot_share_out_evenly_is_refused():
    recipe = Recipe(batch_size=8, accumulate=2)
    with pytest.raises(UserError, match="the 4 images that are computed at once cannot be shared out evenly to 3"):
        check_recipe(recipe, SimpleNamespace(devices=3, replicas=3))


def test_environment_variables_say_the_hosts_too(monkeypatch):
    monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", "a:1")
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "two")
    with pytest.raises(UserError, match="KERAS_DISTRIBUTION_NUM_PROCESSES=two"):
        distribution_for()
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(UserError, match="KERAS_BACKEND=jax"):
        distribution_for()


def test_hosts_need_jax():
    with pytest.raises(UserError, match="KERAS_BACKEND=jax"):
        distribution_for(1, ("a:1", "b:1"), 0)


def test_a_host_of_no_hosts_is_refused():
    with pytest.raises(UserError, match="--host 1: say of which --hosts"):
        distribution_for(1, None, 1)


def test_one_device_is_no_distribution():
    alone = distribution_for()
    assert (alone.replicas, alone.shard, alone.writes) == (1, (0, 1), True)
    assert alone.agreed(7) == 7
    assert alone.total("as it is") == "as it is"
