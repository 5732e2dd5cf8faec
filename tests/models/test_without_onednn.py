"""TensorFlow without oneDNN, as it comes on a processor without AVX-512: what dilates computes and learns the same.

Exports there are in `tests/exporting/test_export.py`.
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from models.layers import AtrousConv2d, Conv2d, DepthwiseConv2d, batch_norm_folded
from models.weight_init import named_variables
from tests.networks import largest_difference, randomize

ROOT = Path(__file__).parents[2]
LAYERS = {
    "plain": lambda: Conv2d(4, 5, 3, dilation=2, name="conv"),
    "tap by tap": lambda: AtrousConv2d(4, 5, 6, name="conv"),
    "depthwise": lambda: DepthwiseConv2d(4, 3, dilation=(2, 3), name="conv"),
}


def computed():
    """{layer: what it gives, then its gradients; "LAYER, folded": what it gives where nothing is learned}"""
    found = {}
    x = tf.constant(np.random.default_rng(1).normal(size=(2, 9, 12, 4)).astype("float32"))
    for name, layer in LAYERS.items():
        conv = layer()
        conv.build()
        randomize(named_variables(conv))
        learn = tf.function(lambda x, conv=conv: gradients(conv, x))
        found |= {f"{name}, {index}": value.numpy() for index, value in enumerate(learn(x))}
        with batch_norm_folded():
            found[f"{name}, folded"] = tf.function(conv)(x).numpy()
    return found


def gradients(conv, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        given = conv(x)
        loss = tf.reduce_sum(given**2)
    return given, *tape.gradient(loss, [x, conv.kernel.value])


def write(path):
    """In a process of its own: `computed`, with what was said meanwhile."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = computed()
    np.savez(path, said=sorted({str(one.message) for one in said}), **found)


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    path = tmp_path_factory.mktemp("without") / "found.npz"
    program = "import sys; from tests.models.test_without_onednn import write; write(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", program, path],
        cwd=ROOT,
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"},
        check=True,
        capture_output=True,
    )
    return dict(np.load(path))


def test_layers_compute_and_learn_the_same(without):
    for name, expected in computed().items():
        assert largest_difference(without[name], expected) < 2e-6, name


def test_it_is_said_that_learning_is_slow(without):
    assert any("TF_ENABLE_ONEDNN_OPTS=1" in said for said in without["said"])


@pytest.mark.parametrize(("said", "kept"), [(None, "1"), ("0", "0")])
def test_onednn_is_on_unless_it_was_turned_off(said, kept):
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    program = "import models, os; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment | ({} if said is None else {"TF_ENABLE_ONEDNN_OPTS": said}),
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == kept
