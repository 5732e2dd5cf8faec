"""Batch norm folded into convolutions: the same output, batch norm's values untouched."""

import keras
import numpy as np
import pytest
from keras import ops

from models.deeplab_v3 import deeplab_v3
from models.folding import folded_constants, folded_values, inference_values
from models.layers import batch_norm_folded
from models.mobilenet_v2 import mobilenet_v2
from models.resnet import Bottleneck, ResNet
from models.weight_init import named_variables
from tests.networks import images_of, largest_difference, randomize, values_of


def small_resnet():
    net = ResNet("resnet_v2_50", Bottleneck, (1, 1, 1, 1), output_stride=16, width=8)
    net.build()
    return net


def small_v3plus():
    return deeplab_v3(
        "mobilenet_v2", 3, depth_multiplier=0.35, decoder="separable", separable_aspp=True, atrous_rates=(6,)
    )


@pytest.mark.parametrize(
    "build", [small_resnet, lambda: mobilenet_v2(output_stride=16, depth_multiplier=0.35), small_v3plus]
)
def test_folded_network_computes_the_same(build):
    net = build()
    randomize(named_variables(net))
    images, before = images_of(65), values_of(net)
    expected = net(images, training=False)
    folded = folded_values(net)
    assert folded.keys() == {variable.path for variable in net.weights}
    mapping = [(variable, ops.convert_to_tensor(folded[variable.path])) for variable in net.weights]
    with keras.StatelessScope(state_mapping=mapping):
        with batch_norm_folded():
            assert largest_difference(net(images, training=False), expected) < 1e-4
        assert largest_difference(net(images, training=False), expected) > 1e-2  # batch norm is applied once more
    for name, value in values_of(net).items():
        assert np.array_equal(value, before[name])


def test_what_is_folded():
    """Kernels before a batch norm change, ResNet v2's preact and postnorm do not."""
    net = small_resnet()
    randomize(named_variables(net))
    before = {variable.path: np.asarray(variable) for variable in net.weights}
    changed = {path for path, value in folded_values(net).items() if not np.array_equal(value, before[path])}
    assert changed == {
        f"resnet_v2_50/block{block}/unit_1/bottleneck_v2/{conv}/{leaf}"
        for block in (1, 2, 3, 4)
        for conv in ("conv1", "conv2")
        for leaf in ("weights", "BatchNorm/beta")
    }


def mobile(**options):
    """A mobile DeepLab: no dilated branches, unless told."""
    return deeplab_v3(
        "mobilenet_v2", 3, **{"depth_multiplier": 0.35, "atrous_rates": (), "head_channels": 16} | options
    )


BATCH_NORM = ["BatchNorm/" + leaf for leaf in ("gamma", "beta", "moving_mean", "moving_variance")]
PROJECTION = "deeplab_v3/MobilenetV2/expanded_conv_16/project"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_pooling": False},
        {"image_pooling_crop_size": (33, 33)},
        {"head_norm": "biases", "head_activation": "none"},
    ],
)
def test_the_last_projection_is_multiplied_into_a_head_of_1x1_convolutions(options):
    net = mobile(**options)
    randomize(named_variables(net))
    images, before = images_of(65), values_of(net)
    expected = net(images, training=False)
    values = inference_values(net)
    gone = {variable.path for variable in net.weights} - values.keys()
    assert gone == {f"{PROJECTION}/{leaf}" for leaf in ("weights", *BATCH_NORM)}
    assert values["deeplab_v3/aspp0/weights"].shape == (1, 1, 336, 16)  # what the projection took
    with folded_constants(net, values):
        assert largest_difference(net(images, training=False), expected) < 1e-4
    assert largest_difference(net(images, training=False), expected) == 0
    for name, value in values_of(net).items():
        assert np.array_equal(value, before[name])


@pytest.mark.parametrize(
    "build",
    [
        lambda: mobile(atrous_rates=(6,)),  # whose kernels of 3x3 would have three times the inputs
        lambda: mobile(head_channels=256),  # 336 x 256 are more than 336 x 112 and 112 x 256
        lambda: mobile(decoder="separable"),
        lambda: mobile(head="dense-prediction-cell"),
        lambda: deeplab_v3("mobilenet_edgetpu", 3, atrous_rates=(), head_channels=16),  # its last one has a ReLU
        lambda: mobilenet_v2(output_stride=16, depth_multiplier=0.35, include_last_conv=False),
        small_resnet,
    ],
)
def test_else_nothing_is_merged(build):
    net = build()
    expected = folded_values(net)
    found = inference_values(net)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[path], expected[path]) for path in found)
