"""Slim's end points of a classifier, and class scores of every place where there is no global pool."""

import keras
import numpy as np
import pytest

from models.mobilenet_edgetpu import mobilenet_edgetpu
from models.mobilenet_v1 import mobilenet_v1
from models.mobilenet_v2 import mobilenet_v2
from models.mobilenet_v3 import mobilenet_v3_small
from models.resnet import BasicBlock, ResNet
from models.taps import tap
from models.weight_init import named_variables
from models.xception import xception_41
from tests.networks import copy_weights, images_of, largest_difference, randomize

SIZE = (65, 97)  # features of 3 x 4 in a ResNet and an Xception


def resnet(**options):
    net = ResNet("net", BasicBlock, (2, 2, 2, 2), width=8, **options)
    net.build()
    return net


def small_mobilenet_v2(**options):
    return mobilenet_v2(depth_multiplier=0.35, **options)


RESNET = ("global_pool", "net/logits", "net/spatial_squeeze", "predictions")


def mobilenet_keys(scope):
    return ("global_pool", f"{scope}/Logits/Conv2d_1c_1x1", "Logits", "Predictions")


NETS = [
    (resnet, RESNET, 64),
    (lambda **options: xception_41(name="net", **options), RESNET, 2048),
    (lambda **options: mobilenet_v1(depth_multiplier=0.25, **options), mobilenet_keys("MobilenetV1"), 256),
    (small_mobilenet_v2, mobilenet_keys("MobilenetV2"), 1280),
    (mobilenet_v3_small, mobilenet_keys("MobilenetV3"), 1024),
    (lambda **options: mobilenet_edgetpu(depth_multiplier=0.75, **options), mobilenet_keys("MobilenetEdgeTPU"), 960),
]


def randomized(build, **options):
    net = build(num_classes=5, **options)
    randomize(named_variables(net))
    return net


@pytest.mark.parametrize(("build", "keys", "channels"), NETS)
def test_a_classifier_ends_in_slims_end_points(build, keys, channels):
    net, images = randomized(build), images_of(SIZE, batch=2)
    found = {key: np.asarray(value) for key, value in net.end_points(images).items()}
    assert tuple(found)[-4:] == keys
    pooled, logits, scores, predictions = (found[key] for key in keys)
    assert pooled.shape == (2, 1, 1, channels) and logits.shape == (2, 1, 1, 5)
    np.testing.assert_array_equal(scores, logits[:, 0, 0])
    assert largest_difference(scores, net(images)) < 1e-5
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    assert largest_difference(predictions, exponentials / exponentials.sum(axis=1, keepdims=True)) < 1e-5


@pytest.mark.parametrize(("build", "keys"), [(build, keys) for build, keys, _ in NETS])
def test_without_a_global_pool_every_place_is_scored(build, keys):
    net = randomized(build, global_pool=False)
    assert net.get_config()["global_pool"] is False
    images = images_of(SIZE)
    found = net.end_points(images)
    missing = {"global_pool", "net/spatial_squeeze"}
    assert [key for key in found if key in (*keys, *missing)] == [key for key in keys if key not in missing]
    height, width = net.features(images).shape[1:3]
    assert height > 1 and width > 1
    assert found[keys[-1]].shape == net(images).shape == (1, height, width, 5)
    assert largest_difference(np.asarray(found[keys[-1]]).sum(axis=-1), np.ones((1, height, width))) < 1e-5


def test_the_scores_of_all_places_average_to_those_of_the_global_pool():
    pooled, everywhere = randomized(resnet), resnet(num_classes=5, global_pool=False)
    copy_weights(pooled, everywhere)
    images = images_of(SIZE)
    assert largest_difference(np.asarray(everywhere(images)).mean(axis=(1, 2)), pooled(images)) < 1e-5


@pytest.mark.parametrize(("build", "keys"), [(resnet, RESNET), (small_mobilenet_v2, mobilenet_keys("MobilenetV2"))])
def test_they_are_outputs_of_functional_models_and_of_copies(build, keys):
    net, images = randomized(build), images_of(SIZE)
    inputs = keras.Input((*SIZE, 3))
    symbolic = net.end_points(inputs)
    model = keras.Model(inputs, [symbolic[key] for key in keys])
    again = type(net).from_config(net.get_config())
    copy_weights(net, again)
    expected, copied = net.end_points(images), again.end_points(images)
    for key, output in zip(keys, model(images), strict=True):
        assert largest_difference(output, expected[key]) < 1e-5, key
        assert largest_difference(copied[key], expected[key]) < 1e-5, key


def test_a_tap_at_the_global_pool_has_no_classifier():
    features = tap("mobilenet_v2", "global_pool", depth_multiplier=0.35, num_classes=5)
    assert features(images_of(65)).shape == (1, 1, 1, 1280)
    assert not any("Logits" in name for name in named_variables(features))


def test_a_network_without_classes_has_none_of_them():
    assert not set(resnet().end_points(images_of(33))) & set(RESNET)
