"""Every family of networks under KERAS_BACKEND=jax and torch: it builds, loads, and computes what TensorFlow does.

Each backend has a process of its own, `tests.family_contestant`, in which also the checkpoint's way in is checked, that
nothing imports TensorFlow, and, under torch, that a network is a `torch.nn.Module`. Whole networks are in
`test_golden_families.py`; a training step under JAX is in `test_jax.py`.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import QUICK_JAX
from tests.family_contestant import FAMILIES
from tests.networks import largest_difference

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4
# What NumPy 2 says of the way that Keras makes arrays of torch's tensors.
WARNINGS = ("-W", "error", "-W", "ignore:__array__ implementation:DeprecationWarning")
needs = {
    backend: pytest.mark.skipif(find_spec(backend) is None, reason=f"needs {backend}, {file}")
    for backend, file in (("jax", "requirements-dev.txt"), ("torch", "requirements-torch.txt"))
}


@pytest.fixture(scope="module")
def made_by(tmp_path_factory):
    """A function: backend → {"FAMILY:output", "FAMILY:gradient:NAME": array}, made once."""
    folder = tmp_path_factory.mktemp("families")
    made = {}

    def run(backend):
        if backend not in made:
            done = subprocess.run(
                [sys.executable, *WARNINGS, "-m", "tests.family_contestant", folder],
                cwd=ROOT,
                env=os.environ | QUICK_JAX | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            made[backend] = dict(np.load(folder / f"{backend}.npz"))
        return made[backend]

    run("tensorflow")  # first: it writes the checkpoints that the others load
    return run


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", [pytest.param(name, marks=mark) for name, mark in needs.items()])
def test_output_and_gradients_are_those_of_tensorflow(backend, family, made_by):
    expected, found = (
        {name: array for name, array in made_by(one).items() if name.startswith(f"{family}:")}
        for one in ("tensorflow", backend)
    )
    assert found.keys() == expected.keys()
    assert len(found) > 20
    departed = {name: largest_difference(found[name], array) for name, array in expected.items()}
    assert {name: by for name, by in departed.items() if by > TOLERANCE} == {}
    assert all(np.any(array) for array in expected.values())  # no zeros that would hide a gradient that is missing
