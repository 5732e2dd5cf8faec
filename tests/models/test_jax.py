"""The same networks under KERAS_BACKEND=jax: no TensorFlow, the same numbers before and after a training step."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests import backend_contestant
from tests.conftest import QUICK_JAX
from tests.networks import images_of, largest_difference, randomize

pytestmark = pytest.mark.skipif(find_spec("jax") is None, reason="needs jax")

TOLERANCE = 1e-4
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Inputs, and what each backend made of them in a process of its own: ({name: array}, tensorflow's, jax's)."""
    folder = tmp_path_factory.mktemp("backends")
    variables = backend_contestant.variables_of(*backend_contestant.build())
    randomize(variables)
    labels = np.random.default_rng(3).choice([0, 1, 2, 255], (2, 49, 65)).astype("int32")
    given = {name: np.asarray(variable) for name, variable in variables.items()}
    given |= {"images": images_of((49, 65), batch=2), "labels": labels}
    np.savez(folder / "given.npz", **given)
    made = [run(backend, folder) for backend in ("tensorflow", "jax")]
    return given, *made


def run(backend, folder):
    """What the contestant makes under a backend; it fails by itself when TensorFlow is imported under another."""
    files = folder / "given.npz", folder / f"{backend}.npz"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.backend_contestant", *files],
        cwd=ROOT,
        env=os.environ | QUICK_JAX | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(files[1]))


OTHERS = ("v1", "MobilenetV2", "lite", "xception", "MobilenetV1", "v3", "MobilenetEdgeTPU")


@pytest.mark.parametrize("net", ["deeplab_v3", *OTHERS])
def test_outputs_and_end_points_are_the_same(results, net):
    _, on_tensorflow, on_jax = results
    assert on_jax.keys() == on_tensorflow.keys()
    keys = [key for key in on_tensorflow if key.startswith(f"output:{net}:")]
    assert len(keys) > 10
    for key in keys:
        assert largest_difference(on_jax[key], on_tensorflow[key]) < TOLERANCE, key


def test_the_loss_of_a_training_step_is_the_same(results):
    _, on_tensorflow, on_jax = results
    assert 0 < on_tensorflow["loss"] < 10
    assert abs(on_jax["loss"] - on_tensorflow["loss"]) < TOLERANCE * on_tensorflow["loss"]


def test_the_variables_after_a_training_step_are_the_same(results):
    given, on_tensorflow, on_jax = results
    trained = [name for name in given if name.startswith("deeplab_v3/")]
    statistics = [name for name in trained if "moving_" in name]
    assert len(statistics) == 2 * (4 * 3 + 1 + 6)  # three a unit, postnorm, the head
    for name in trained:
        key = f"variable:{name}"
        assert largest_difference(on_jax[key], on_tensorflow[key]) < TOLERANCE, name
    moved = [name for name in trained if np.any(on_jax[f"variable:{name}"] != given[name])]
    assert set(statistics) <= set(moved)
    assert "deeplab_v3/aspp3/weights" in moved
