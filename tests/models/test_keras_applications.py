"""keras.applications as a second oracle: the same graphs under other names, with weights of no pattern carried over.

MobileNet v1, and v3 large and small: equal, but for v3's gates, whose slope there is 1/6 and not slim's 0.16667.
`keras.applications.Xception` is no oracle of research/deeplab's: it has max pools where that has strided convolutions,
no batch norm between depthwise and pointwise, VALID padding in its root, and is Chollet's first, of 36 convolutions,
which the zoo has not. ResNet v2 and MobileNet v2 have files of their own.
"""

import re
from unittest.mock import patch

import keras
import numpy as np
import pytest
from keras import ops

from models import mobilenet_v3
from models.mobilenet_v1 import mobilenet_v1
from models.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from models.weight_init import checkpoint_guided_init, named_variables
from tests.golden_networks import OpenWeights
from tests.networks import images_of, largest_difference, randomize

TOLERANCE = 1e-5
LEAVES = {"kernel": "weights", "bias": "biases"}


def v1_name(name):
    """`conv_dw_3_bn/gamma` → `MobilenetV1/Conv2d_3_depthwise/BatchNorm/gamma`."""
    layer, leaf = name.split("/")
    layer, norm = layer.removesuffix("_bn"), "BatchNorm/" if layer.endswith("_bn") else ""
    if layer == "conv1":
        scope = "Conv2d_0"
    elif layer == "conv_preds":
        scope = "Logits/Conv2d_1c_1x1"
    else:
        kind, index = re.fullmatch(r"conv_([dp]w)_(\d+)", layer).groups()
        scope = f"Conv2d_{index}_{'depthwise' if kind == 'dw' else 'pointwise'}"
    return f"MobilenetV1/{scope}/{norm}{_leaf(scope, leaf)}"


def v3_name(name):
    """`expanded_conv_3_squeeze_excite_conv_1/kernel` → `MobilenetV3/expanded_conv_3/squeeze_excite/Conv_1/weights`."""
    layer, leaf = name.split("/")
    layer, norm = layer.removesuffix("_bn"), "BatchNorm/" if layer.endswith("_bn") else ""
    known = {"conv": "Conv", "conv_1": "Conv_1", "conv_2": "Conv_2", "logits": "Logits/Conv2d_1c_1x1"}
    gate = re.fullmatch(r"(.+)_squeeze_excite_conv(_1)?", layer)
    if layer in known:
        scope = known[layer]
    elif gate:
        scope = f"{gate[1]}/squeeze_excite/Conv{gate[2] or ''}"
    else:
        unit, _, part = layer.rpartition("_")
        scope = f"{unit}/{part}"
    return f"MobilenetV3/{scope}/{norm}{_leaf(scope, leaf)}"


def _leaf(scope, leaf):
    if leaf == "kernel" and scope.endswith("depthwise"):
        return "depthwise_weights"
    return LEAVES.get(leaf, leaf)


CASES = {
    "v1": (keras.applications.MobileNet, mobilenet_v1, v1_name, {"alpha": 0.25}, {"depth_multiplier": 0.25}),
    "v3 large": (keras.applications.MobileNetV3Large, mobilenet_v3_large, v3_name, {"minimalistic": False}, {}),
    "v3 small": (keras.applications.MobileNetV3Small, mobilenet_v3_small, v3_name, {"minimalistic": False}, {}),
}


def theirs_and_ours(case, **options):
    """Both networks, ours with the weights of theirs."""
    build_theirs, build_ours, rename, their_options, our_options = CASES[case]
    if case.startswith("v3"):
        their_options = their_options | {"include_preprocessing": False}
    theirs = build_theirs(weights=None, input_shape=(96, 96, 3), classes=7, **their_options, **options)
    weights = {variable.path: variable for variable in theirs.weights}
    randomize(weights)
    values = {path: np.asarray(variable) for path, variable in weights.items()}
    with patch.object(mobilenet_v3, "hard_sigmoid", ops.hard_sigmoid):
        ours = build_ours(num_classes=7, **our_options)
    checkpoint_guided_init(ours, OpenWeights(case, values), rename=rename, strict=True)
    return theirs, ours, rename


@pytest.mark.parametrize("case", CASES)
def test_the_same_weights_give_the_same_logits(case):
    theirs, ours, _ = theirs_and_ours(case, classifier_activation=None)
    images = images_of(96, batch=2)
    expected = theirs(images, training=False)
    assert np.std(ops.convert_to_numpy(expected)) > 1e-2
    assert largest_difference(ours(images), expected) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_and_back(case):
    theirs, ours, rename = theirs_and_ours(case, classifier_activation=None)
    named = named_variables(ours)
    randomize(named, seed=5)
    for variable in theirs.weights:
        variable.assign(np.asarray(named[rename(variable.path)]))
    images = images_of(96)
    assert largest_difference(theirs(images, training=False), ours(images)) < TOLERANCE
