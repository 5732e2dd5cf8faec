"""A step in parts is the step of the whole batch, under each backend, and needs the memory of a part."""

import dataclasses
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from engine.options import Recipe
from tests.conftest import QUICK_JAX

ROOT = Path(__file__).parents[2]
RECIPE = Recipe(learning_rate=0.05, weight_decay=1e-3, steps=10, warmup_steps=2, clip_norm=1.0)


def batches(steps=3):
    """[(images (16, 17, 17, 3), labels (16, 17, 17))], of which some have far fewer labels that count than others."""
    rng = np.random.default_rng(0)
    ignored = np.linspace(0, 1, 16)[:, None, None]
    return [
        (
            rng.uniform(-1, 1, (16, 17, 17, 3)).astype("float32"),
            np.where(rng.random((16, 17, 17)) < ignored, 255, rng.integers(0, 3, (16, 17, 17))).astype("int32"),
        )
        for _ in range(steps)
    ]


def train(parts, freeze_bn=True, class_weights=(1.0, 0.5, 3.0)):
    """→ (losses of three steps, {name: array} before, and after) of two layers, their batch norm frozen or not."""
    import keras

    from models.freezing import freeze_batch_norm
    from models.layers import Conv2d, Network
    from tests.networks import values_of
    from training.recipe import compile_model, segmentation_loss

    class Tiny(Network):
        def __init__(self):
            super().__init__(name="tiny")
            self.variable_prefix = "tiny/"
            self.first = Conv2d(3, 8, 3, batch_norm={}, activation=keras.ops.relu, name="first")
            self.second = Conv2d(8, 3, 1, name="second")

        def call(self, images, training=False):
            return self.second(self.first(images))

    keras.utils.set_random_seed(0)
    model = Tiny()
    model.build()
    if freeze_bn:
        freeze_batch_norm(model)
    before = values_of(model)
    compile_model(model, dataclasses.replace(RECIPE, accumulate=parts), segmentation_loss(class_weights))
    losses = []
    for images, labels in batches():
        model.reset_metrics()
        losses.append(float(model.train_on_batch(images, labels)))
    return losses, before, values_of(model)


def assert_parts_make_the_whole():
    losses, before, whole = train(1)
    losses_in_parts, _, in_parts = train(4)
    np.testing.assert_allclose(losses_in_parts, losses, rtol=1e-5)
    for name, value in whole.items():
        np.testing.assert_allclose(in_parts[name], value, atol=1e-5, err_msg=name)
    moved = max(np.abs(whole[name] - before[name]).max() for name in whole)
    assert moved > 1e-3


def test_four_parts_of_four_images_are_a_batch_of_sixteen():
    assert_parts_make_the_whole()


@pytest.mark.skipif(find_spec("jax") is None, reason="needs jax")
def test_the_same_under_jax():
    code = "from tests.training.test_accumulation import assert_parts_make_the_whole as check; check()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env=os.environ | QUICK_JAX | {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_live_batch_norm_moves_once_a_part():
    _, before, whole = train(1, freeze_bn=False)
    _, _, in_parts = train(4, freeze_bn=False)
    name = "first/weights"
    assert np.any(in_parts[name] != before[name])
    name = "first/BatchNorm/moving_mean"
    ratio = np.abs(in_parts[name] - before[name]).mean() / np.abs(whole[name] - before[name]).mean()
    assert 3 < ratio < 5  # at a decay near 1


def test_a_batch_without_a_label_that_counts_only_decays():
    import tensorflow as tf

    from training.accumulation import _shares

    np.testing.assert_allclose(_shares(tf.zeros((4, 2, 3)), tf.zeros_like), 0.25)
    np.testing.assert_allclose(_shares(tf.constant([[[1.0]], [[3.0]]]), tf.identity), [0.25, 0.75])
