"""Taps: an end point as output, the variables up to there and no other; restored, frozen, trained, saved."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from models.freezing import batch_norms, freeze, freeze_batch_norm, learning_names
from models.mobilenet_v2 import MobileNetV2
from models.preprocessing import MEAN_SUBTRACTED, UNIT_RANGE
from models.resnet import BasicBlock, Bottleneck, BottleneckV1, ResNet
from models.taps import TapError, tap
from models.weight_init import (
    BOOKKEEPING,
    LOADED,
    UNUSED,
    checkpoint_guided_init,
    model_guided_init,
    named_variables,
    save_checkpoint,
)
from tests.conftest import QUICK_JAX, assert_same, read_all
from tests.networks import images_of, largest_difference, randomize, values_of

UNIT = "net/block2/unit_1/bottleneck_v2"


def tiny(block=Bottleneck, **kwargs):
    """Not built."""
    return ResNet("net", block, (1, 1, 1, 1), width=8, **kwargs)


def mobile(**kwargs):
    """Not built."""
    return MobileNetV2(depth_multiplier=0.35, **kwargs)


def built(net):
    net.build()
    randomize(named_variables(net))
    return net


def saved(net, folder):
    save_checkpoint(net, folder / "model.ckpt", global_step=7)
    return folder / "model.ckpt"


# What is built


def test_every_end_point_of_a_resnet_can_be_tapped(tmp_path):
    check_end_points(lambda: tiny(num_classes=3), tmp_path)


@pytest.mark.parametrize("make", [lambda: tiny(BottleneckV1), lambda: tiny(BasicBlock), mobile])
def test_end_points_of_the_other_networks_can_be_tapped(make, tmp_path):
    check_end_points(make, tmp_path, every=11)


def check_end_points(make, folder, every=1):
    whole = built(make())
    checkpoint = saved(whole, folder)
    images = images_of(65)
    expected = whole.end_points(images)
    names = list(named_variables(whole))
    sizes = []
    for key in list(expected)[::every]:
        model = tap(make(), key)
        report = checkpoint_guided_init(model, checkpoint)
        assert report.counts[LOADED] == len(model.weights), key
        assert report.counts[LOADED] + report.counts[UNUSED] + report.counts[BOOKKEEPING] == len(names) + 1, key
        output = model(images)
        np.testing.assert_array_equal(output, expected[key], err_msg=key)
        assert model.out_channels == output.shape[-1]
        sizes.append(len(model.weights))
    assert sizes == sorted(sizes)  # end points are in the order of computation
    assert sizes[0] < len(names) / 8


def test_only_what_leads_to_the_tap_is_built():
    names = list(named_variables(tap(tiny(), f"{UNIT}/conv1")))
    assert names[-5:] == [
        f"{UNIT}/conv1/{name}"
        for name in (
            "weights",
            "BatchNorm/gamma",
            "BatchNorm/beta",
            "BatchNorm/moving_mean",
            "BatchNorm/moving_variance",
        )
    ]
    assert {"/".join(name.split("/")[:4]) for name in names} == {
        "net/conv1/weights",
        "net/conv1/biases",
        "net/block1/unit_1/bottleneck_v2",
        UNIT,
    }
    # conv1's own unit: its preact and itself, no shortcut and nothing behind
    assert {name.split("/")[4] for name in names if name.startswith(UNIT)} == {"preact", "conv1"}


def test_a_tap_in_the_middle_of_an_inverted_residual():
    names = named_variables(tap("mobilenet_v2", "MobilenetV2/expanded_conv_14/expansion_output", depth_multiplier=0.35))
    last = "MobilenetV2/expanded_conv_14"
    assert {name.removeprefix(last) for name in names if name.startswith(last)} == {
        "/expand/weights",
        "/expand/BatchNorm/gamma",
        "/expand/BatchNorm/beta",
        "/expand/BatchNorm/moving_mean",
        "/expand/BatchNorm/moving_variance",
    }
    assert not any("expanded_conv_15" in name or "Conv_1/" in name for name in names)


def test_a_tap_computes_nothing_behind_its_end_point():
    model = tap(tiny(), "net/block2")
    assert not model.net.block3.built
    traced = tf.function(model).get_concrete_function(tf.TensorSpec((None, None, None, 3)))
    kinds = [operation.type for operation in traced.graph.get_operations()]
    assert kinds.count("Conv2D") == 1 + 2 * 4
    assert list(model.end_points(images_of(65)))[-1] == "net/block2"


def test_a_tap_says_what_its_network_says():
    model = tap("resnet_v1_50", "resnet_v1_50/conv1", output_stride=8)
    assert (model.backbone_scope, model.variable_prefix, model.out_channels) == ("resnet_v1_50", "", 64)
    assert model.preprocessing is MEAN_SUBTRACTED
    assert tap(mobile(), "MobilenetV2/Conv").preprocessing is UNIT_RANGE


def test_a_tap_can_be_summed_up():
    model = tap(tiny(), "net/conv1")
    lines = []
    model.summary(print_fn=lines.append)
    assert model.count_params() == 7 * 7 * 3 * 8 + 8
    assert "1,184" in "\n".join(lines)


# Errors


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        ("block3", "net/block3"),
        ("net/blok3", "net/block3"),
        ("net/block2/unit_1/bottleneck_v2/conv_1", f"{UNIT}/conv1"),
        ("?", "net/conv1, net/block1, net/block2, net/block3, net/block4, net/postnorm"),
    ],
)
def test_an_unknown_end_point_lists_those_that_look_like_it(asked, offered):
    with pytest.raises(TapError) as error:
        tap(tiny(), asked)
    said, near = str(error.value).split("; near it are: ")
    assert said == f"net has no end point {asked!r}"
    assert offered in near


def test_an_unknown_or_finished_network_is_refused():
    with pytest.raises(ValueError, match="Received: 'resnet_v9'; there are resnet_v2_18"):
        tap("resnet_v9", "resnet_v9/block1")
    with pytest.raises(ValueError, match="Received: net, built"):
        tap(built(tiny()), "net/block1")


def test_networks_built_after_a_tap_are_whole():
    expected = len(built(tiny()).weights)
    tap(tiny(), "net/block1")
    with pytest.raises(TapError):
        tap(tiny(), "net/block7")
    assert len(built(tiny()).weights) == expected


# Restored, frozen, trained, saved


def test_the_real_half_broken_checkpoint_serves_whole_up_to_block3(real_checkpoints):
    model = tap("resnet_v2_50", "resnet_v2_50/block3")
    assert len(model.weights) == 216
    report = checkpoint_guided_init(model, real_checkpoints / "resnet_v2_50_blocks123.ckpt")
    assert {status: count for status, count in report.counts.items() if count} == {
        LOADED: 216,
        UNUSED: 5,
        BOOKKEEPING: 1,
    }
    assert str(report).endswith("216/216 backbone variables, 8,573,440 values")
    assert str(report) == str(model_guided_init(model, real_checkpoints / "resnet_v2_50_blocks123.ckpt")).replace(
        "model-guided", "checkpoint-guided"
    )
    assert 1.0 < np.max(model(images_of(65))) < 1000.0


def with_new_layers(backbone):
    return keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, name="new")])


def fit(model, steps=2):
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    images = images_of(65, batch=6)
    model.fit(images, np.arange(6) % 3, batch_size=6, epochs=steps, verbose=0)


def changed(model, before):
    return {name for name, value in values_of(model).items() if value.tobytes() != before[name].tobytes()}


def test_all_of_a_tap_and_the_new_layers_learn(tmp_path):
    backbone = tap(tiny(batch_norm_decay=0.5), f"{UNIT}/conv2")
    checkpoint_guided_init(backbone, saved(built(tiny()), tmp_path))
    model = with_new_layers(backbone)
    model.build((None, 65, 65, 3))
    before = values_of(model)
    fit(model)
    assert changed(model, before) == set(before)


@pytest.mark.parametrize("how", ["trainable", "freeze", "batch norm"])
def test_what_is_frozen_in_a_tap_stays_to_the_bit(how, tmp_path):
    backbone = tap(tiny(batch_norm_decay=0.5), "net/block2")
    checkpoint_guided_init(backbone, saved(built(tiny()), tmp_path))
    model = with_new_layers(backbone)
    model.build((None, 65, 65, 3))
    if how == "trainable":
        backbone.trainable = False
    elif how == "freeze":
        freeze(backbone, "net")
    else:
        freeze_batch_norm(backbone)
    before = values_of(model)
    new = {"new/kernel", "new/bias"}
    if how == "batch norm":
        new |= {name for name in before if name.endswith(("weights", "biases"))}
    else:
        assert learning_names(backbone) == set()
    fit(model)
    assert changed(model, before) == new


def test_batch_norms_of_a_tap_are_those_that_were_built():
    assert len(batch_norms(tap(tiny(), "net/block2"))) == 2 * 3


def test_a_saved_tap_with_its_new_layers_holds_all_of_it(tmp_path):
    backbone = tap(tiny(), "net/block2")
    model = with_new_layers(backbone)
    model.build((None, 65, 65, 3))
    randomize(named_variables(model))
    save_checkpoint(model, tmp_path / "model.ckpt")
    content = read_all(tmp_path / "model.ckpt")
    assert_same(content, values_of(model))
    assert {"net/conv1/weights", "new/kernel"} <= content.keys()
    fresh = with_new_layers(tap(tiny(), "net/block2"))
    fresh.build((None, 65, 65, 3))
    checkpoint_guided_init(fresh, tmp_path / "model.ckpt", strict=True)
    images = images_of(65)
    np.testing.assert_array_equal(fresh(images, training=False), model(images, training=False))


def test_restored_values_survive_to_the_first_step(tmp_path):
    """There is one order: a network is initialized when it is built, and what is restored then stays."""
    checkpoint = saved(built(tiny()), tmp_path)
    backbone = tap(tiny(), "net/block2")
    checkpoint_guided_init(backbone, checkpoint)
    model = with_new_layers(backbone)
    seen = []

    class First(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if not seen:
                seen.append(values_of(backbone))

    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(images_of(65, batch=3), np.arange(3), callbacks=[First()], verbose=0)
    restored = read_all(checkpoint)
    assert_same(seen[0], {name: restored[name] for name in seen[0]})


def test_a_tap_goes_into_functional_and_subclassed_models():
    class Classifier(keras.Model):
        def __init__(self):
            super().__init__()
            self.backbone = tap(tiny(), "net/block2")
            self.pool = keras.layers.GlobalAveragePooling2D()
            self.new = keras.layers.Dense(3, name="new")

        def call(self, images, training=False):
            return self.new(self.pool(self.backbone(images, training=training)))

    images = keras.Input((65, 65, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(tap(tiny(), "net/block2")(images))
    functional = keras.Model(images, keras.layers.Dense(3, name="new")(pooled))
    for model in (functional, Classifier()):
        model(images_of(65))
        before = values_of(model)
        fit(model)
        assert len(before) == 2 + len(tap(tiny(), "net/block2").weights)
        assert len(changed(model, before)) == len(before)


@pytest.mark.skipif(find_spec("jax") is None, reason="needs jax")
def test_a_tap_learns_under_jax_without_tensorflow():
    program = """
import sys
import numpy as np
import keras
from models.resnet import Bottleneck, ResNet
from models.taps import tap
backbone = tap(ResNet("net", Bottleneck, (1, 1, 1, 1), width=8), "net/block1/unit_1/bottleneck_v2/conv2")
model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
images = np.random.default_rng(0).normal(size=(4, 33, 33, 3)).astype("float32")
model(images)
before = {v.path: np.asarray(v) for v in model.weights}
model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(images, np.array([0, 1, 0, 1]), verbose=0)
still = [v.path for v in model.weights if np.all(np.asarray(v) == before[v.path])]
assert not still, still
assert len(before) == 2 + 4 + 2 * 5 + 2, len(before)
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env=os.environ | QUICK_JAX | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_example_learns_on_a_folder_of_images(tmp_path):
    checkpoint = saved(built(mobile()), tmp_path)
    for split in ("train", "val"):
        for label, colour in {"blue": (0, 0, 200), "red": (200, 0, 0)}.items():
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (50, 40), tuple(c + 10 * number for c in colour)).save(folder / f"{number}.jpg")
    arguments = ["--ckpt", checkpoint, "--data", tmp_path / "data", "--end-point", "MobilenetV2/expanded_conv_3/output"]
    arguments += ["--steps", "40", "--learning-rate", "0.01", "--image-size", "33"]
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-m", "examples.tap_block3", *arguments],
        cwd=Path(__file__).parents[2],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("validation accuracy after 40 steps: ")
    assert float(last.split()[-1]) >= 0.75


def test_largest_difference_notices():
    assert largest_difference([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert largest_difference([np.nan], [1.0]) == largest_difference([1.0], [1.0, 1.0]) == np.inf
