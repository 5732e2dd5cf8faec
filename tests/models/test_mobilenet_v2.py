"""MobileNet v2 against the lists of slim's names, keras.applications' graph and itself at other output strides."""

from pathlib import Path

import keras
import numpy as np
import pytest

from models.checkpoint import write_checkpoint
from models.mobilenet_v2 import make_divisible, mobilenet_v2
from models.weight_init import checkpoint_guided_init, named_variables
from tests.networks import copy_weights, images_of, largest_difference, randomize

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4


def golden(depth_multiplier):
    """{name: shape} as the file in tests/golden has them; its head says where they come from."""
    lines = (GOLDEN / f"mobilenet_v2_{depth_multiplier}.txt").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {name: tuple(map(int, shape.split("x"))) for name, shape in rows}


def shapes_of(model):
    return {name: tuple(variable.shape) for name, variable in named_variables(model).items()}


def slim_name(keras_name):
    """`block_3_depthwise_BN/gamma` → `MobilenetV2/expanded_conv_3/depthwise/BatchNorm/gamma`."""
    layer, leaf = keras_name.split("/")
    is_norm = layer.startswith("bn_") or layer.endswith("_BN") or layer.endswith("_bn")
    layer = layer.removeprefix("bn_").removesuffix("_BN").removesuffix("_bn")
    block, _, part = layer.rpartition("_")
    if layer in ("Conv1", "Conv_1"):
        scope = {"Conv1": "Conv", "Conv_1": "Conv_1"}[layer]
    elif layer == "predictions":
        scope = "Logits/Conv2d_1c_1x1"
    else:
        scope = f"{block.replace('block', 'expanded_conv')}/{part}"
    if is_norm:
        return f"MobilenetV2/{scope}/BatchNorm/{leaf}"
    kernel = "depthwise_weights" if part == "depthwise" else "weights"
    return f"MobilenetV2/{scope}/{({'bias': 'biases'}).get(leaf, kernel)}"


def keras_mobilenet(alpha, size, **kwargs):
    return keras.applications.MobileNetV2(alpha=alpha, weights=None, input_shape=(size, size, 3), **kwargs)


@pytest.mark.parametrize("depth_multiplier", [1.0, 1.4])
def test_names_and_shapes_are_slims(depth_multiplier):
    expected = golden(depth_multiplier)
    assert len(expected) == 262
    assert shapes_of(mobilenet_v2(num_classes=1001, depth_multiplier=depth_multiplier)) == expected


@pytest.mark.parametrize("depth_multiplier", [0.35, 0.5, 0.75, 1.0, 1.3, 1.4])
def test_every_width_has_the_shapes_of_keras_applications(depth_multiplier):
    theirs = keras_mobilenet(depth_multiplier, 96, classes=1001)
    expected = {slim_name(variable.path): tuple(variable.shape) for variable in theirs.weights}
    expected["MobilenetV2/Logits/Conv2d_1c_1x1/weights"] = (
        1,
        1,
        *expected["MobilenetV2/Logits/Conv2d_1c_1x1/weights"],  # their dense layer is slim's 1x1 convolution
    )
    assert shapes_of(mobilenet_v2(num_classes=1001, depth_multiplier=depth_multiplier)) == expected


@pytest.mark.parametrize(
    ("channels", "rounded"),
    [(3, 8), (11.2, 16), (12, 16), (19.9, 24), (22.4, 24), (33.6, 32), (134.4, 136), (320, 320)],
)
def test_channels_are_rounded_as_slim_does(channels, rounded):
    assert make_divisible(channels) == rounded


@pytest.mark.parametrize(("alpha", "size"), [(1.4, 96), (0.35, 97)])
def test_keras_applications_mobilenet_is_the_same_network(alpha, size, tmp_path):
    theirs = keras_mobilenet(alpha, size, include_top=False)
    weights = {variable.path: variable for variable in theirs.weights}
    randomize(weights)
    write_checkpoint(tmp_path / "keras.ckpt", {path: np.asarray(variable) for path, variable in weights.items()})
    model = mobilenet_v2(depth_multiplier=alpha)
    checkpoint_guided_init(model, tmp_path / "keras.ckpt", rename=slim_name, strict=True)
    images = images_of(size)
    assert largest_difference(model(images), theirs(images, training=False)) < TOLERANCE


def test_the_real_checkpoint_loads_whole_and_gives_keras_applications_features(real_checkpoints):
    model = mobilenet_v2()
    report = checkpoint_guided_init(model, real_checkpoints / "mobilenet_v2_1.0_224.ckpt", strict=True)
    assert report.counts == dict.fromkeys(report.counts, 0) | {"loaded": 260, "optimizer slot or bookkeeping": 1}
    assert report.backbone[:2] == (260, 260)

    theirs = keras_mobilenet(1.0, 224, include_top=False)
    values = {name: np.asarray(variable) for name, variable in named_variables(model).items()}
    for variable in theirs.weights:
        variable.assign(values[slim_name(variable.path)])
    images = images_of(224)
    expected = theirs(images, training=False)
    assert np.max(expected) > 1.0  # features of real weights, not a field of zeros
    assert largest_difference(model(images), expected) < TOLERANCE


@pytest.mark.parametrize("output_stride", [16, 32])
def test_stride_8_subsampled_equals_larger_strides(output_stride):
    images = images_of((97, 129))
    dense = mobilenet_v2(depth_multiplier=0.35, include_last_conv=False, output_stride=8)
    randomize(named_variables(dense))
    strided = mobilenet_v2(depth_multiplier=0.35, include_last_conv=False, output_stride=output_stride)
    copy_weights(dense, strided)
    expected = np.asarray(dense(images))
    assert expected.shape == (1, 13, 17, 112)
    step = output_stride // 8
    assert largest_difference(strided(images), expected[:, ::step, ::step]) < TOLERANCE


def test_end_points_are_under_the_names_of_slims_tensors():
    net = mobilenet_v2(depth_multiplier=0.35)
    found = net.end_points(images_of(64))
    expected = {"MobilenetV2/Conv", "MobilenetV2/Conv_1"}
    for index in range(17):
        scope = f"MobilenetV2/expanded_conv{f'_{index}' if index else ''}"
        outputs = ["depthwise_output", "projection_output", "output"] + (["expansion_output"] if index else [])
        expected |= {f"{scope}/{output}" for output in outputs}
    assert found.keys() == expected
    assert found["MobilenetV2/expanded_conv_14/output"].shape == (1, 2, 2, 56)
    block = {key.rpartition("/")[2]: np.asarray(found[key]) for key in expected if "/expanded_conv_14/" in key}
    assert block["expansion_output"].shape[-1] == 6 * 56
    before = np.asarray(found["MobilenetV2/expanded_conv_13/output"])
    np.testing.assert_array_equal(block["output"], before + block["projection_output"])


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"output_stride": 4}, "Received: 4"),
        ({"num_classes": 5, "include_last_conv": False}, "Received: num_classes=5"),
    ],
)
def test_bad_arguments_are_said(arguments, received):
    with pytest.raises(ValueError, match=received):
        mobilenet_v2(**arguments)
