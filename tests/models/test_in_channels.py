"""Images of any number of channels, and a fully connected classifier's way into a 1x1 convolution and back."""

import keras
import numpy as np
import pytest

from models.checkpoint import CheckpointError
from models.deeplab_v3 import BACKBONES, deeplab_v3
from models.layers import to_be_restored
from models.mobilenet_v1 import mobilenet_v1
from models.resnet import Bottleneck, ResNet
from models.scopes import ScopeError
from models.taps import tap
from models.weight_init import (
    LOADED,
    MISMATCH,
    checkpoint_guided_init,
    model_guided_init,
    named_variables,
    save_checkpoint,
)
from tests.conftest import assert_same, read_all
from tests.networks import randomize, values_of

ROOT = "resnet_v2_50/conv1/weights"


def small(in_channels=3, **options):
    net = ResNet("resnet_v2_50", Bottleneck, (1, 1, 1, 1), width=8, in_channels=in_channels, **options)
    net.build()
    return net


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
    """→ (path of a checkpoint over RGB, its network)."""
    net = small()
    randomize(named_variables(net))
    path = tmp_path_factory.mktemp("rgb") / "rgb.ckpt"
    save_checkpoint(net, path)
    return path, net


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_takes_other_channels_than_three(name):
    with to_be_restored():
        net = BACKBONES[name](in_channels=4)
    kernels = [variable for path, variable in named_variables(net).items() if path.endswith("/weights")]
    assert kernels[0].shape[2] == 4
    assert net.get_config()["in_channels"] == 4
    with pytest.raises(ValueError, match=r"float \(N, H, W, 4\).*these have 3 channels, not 4\."):
        net(np.zeros((1, 33, 33, 3), "float32"))


# Keras itself, under NumPy 2, where it reads a `.keras` file.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.parametrize("channels", [1, 4])
def test_a_deeplab_of_other_channels_is_called_saved_and_loaded(channels, tmp_path):
    model = deeplab_v3("mobilenet_v2", 5, depth_multiplier=0.35, in_channels=channels)
    images = np.random.default_rng(0).normal(size=(1, 33, 33, channels)).astype("float32")
    logits = np.asarray(model(images))
    assert logits.shape == (1, 33, 33, 5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.in_channels == channels
    np.testing.assert_array_equal(again(images), logits)


def test_a_tap_of_other_channels():
    features = tap("mobilenet_v1", "MobilenetV1/Conv2d_6_depthwise", depth_multiplier=0.25, in_channels=5)
    assert features(np.zeros((1, 33, 33, 5), "float32")).shape == (1, 3, 3, 64)


@pytest.mark.parametrize("init", [checkpoint_guided_init, model_guided_init])
@pytest.mark.parametrize(("extra", "words"), [("zero", "the rest zero"), ("mean", "the rest their mean")])
def test_first_channels_are_restored_and_the_rest_as_asked(init, extra, words, rgb):
    path, source = rgb
    net = small(5)
    report = init(net, path, extra_channels=extra)
    assert len(report.of(LOADED)) == len(report.entries)
    assert f"(channels 1 to 3 of 5, {words})" in str(report)
    kernel, expected = values_of(net)[ROOT], values_of(source)[ROOT]
    np.testing.assert_array_equal(kernel[:, :, :3], expected)
    if extra == "zero":
        assert not kernel[:, :, 3:].any()
        images = np.random.default_rng(1).normal(size=(1, 33, 33, 5)).astype("float32")
        np.testing.assert_allclose(net(images), source(images[..., :3]), rtol=1e-4, atol=1e-5)
    else:
        for channel in (3, 4):
            np.testing.assert_allclose(kernel[:, :, channel], expected.mean(2), rtol=1e-5, atol=1e-7)
    assert_same(
        {name: value for name, value in values_of(net).items() if name != ROOT},
        {name: value for name, value in values_of(source).items() if name != ROOT},
    )


def test_unasked_other_channels_are_a_mismatch_and_so_are_fewer(rgb):
    path, _ = rgb
    for channels, extra in ((4, None), (1, "mean")):
        report = checkpoint_guided_init(small(channels), path, extra_channels=extra)
        assert {entry.name for entry in report.of(MISMATCH)} == {ROOT, "resnet_v2_50/conv1/biases"}
    with pytest.raises(ValueError, match=r"extra_channels is one of zero, mean\. Received: 'red'"):
        checkpoint_guided_init(small(4), path, extra_channels="red")


def test_a_fully_connected_classifier_goes_in_and_comes_back(tmp_path):
    """As a user's own: slim's backbone, and `Predict/logits` on its pooled features."""
    net = small(num_classes=7)
    randomize(named_variables(net), seed=3)
    there, back = {"Predict/logits": "resnet_v2_50/logits"}, {"resnet_v2_50/logits": "Predict/logits"}
    momentum = {name: np.full(value.shape, 0.5, "float32") for name, value in values_of(net).items()}
    written = {"slots": {"Momentum": momentum}, "rename": back, "fully_connected": ["resnet_v2_50/logits"]}
    save_checkpoint(net, tmp_path / "theirs.ckpt", global_step=9, **written)
    theirs = read_all(tmp_path / "theirs.ckpt")
    assert theirs["Predict/logits/weights"].shape == theirs["Predict/logits/weights/Momentum"].shape == (256, 7)
    assert not [name for name in theirs if name.startswith("resnet_v2_50/logits")]

    again = small(num_classes=7)
    report = checkpoint_guided_init(again, tmp_path / "theirs.ckpt", rename=there, strict=True)
    assert "(a fully connected layer)" in report.text(verbose=True)
    assert_same(values_of(again), values_of(net))
    save_checkpoint(again, tmp_path / "again.ckpt", global_step=9, **written)
    assert_same(read_all(tmp_path / "again.ckpt"), theirs)


def test_a_matrix_of_another_size_is_a_mismatch(tmp_path):
    save_checkpoint(small(num_classes=7), tmp_path / "seven.ckpt", fully_connected=["resnet_v2_50/logits"])
    report = checkpoint_guided_init(small(num_classes=5), tmp_path / "seven.ckpt")
    assert [entry.name.rpartition("/")[2] for entry in report.of(MISMATCH)] == ["biases", "weights"]


def test_a_scope_that_is_not_there_or_two_of_one_name_are_not_written(tmp_path):
    net = mobilenet_v1(depth_multiplier=0.25)
    with pytest.raises(ScopeError, match="fully connected scope 'MobilenetV1/Logits' matches no variable"):
        save_checkpoint(net, tmp_path / "a.ckpt", fully_connected=["MobilenetV1/Logits"])
    with pytest.raises(ScopeError, match="rename: the model's scope 'Mobilenet' matches no variable"):
        save_checkpoint(net, tmp_path / "a.ckpt", rename={"Mobilenet": "X"})
    with pytest.raises(CheckpointError, match="two variables of one name"):
        save_checkpoint(net, tmp_path / "a.ckpt", rename={"MobilenetV1/Conv2d_1_pointwise": "MobilenetV1/Conv2d_0"})
    assert not list(tmp_path.iterdir())
