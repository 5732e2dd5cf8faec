"""ResNet v2 and v1 against TF-Slim's own graphs, keras.applications' and themselves at other output strides."""

import warnings

import keras
import numpy as np
import pytest

from models import resnet
from models.checkpoint import write_checkpoint
from models.layers import BatchNorm
from models.resnet import BasicBlock, Bottleneck, BottleneckV1, ResNet
from models.weight_init import checkpoint_guided_init, named_variables
from tests.networks import copy_weights, images_of, largest_difference, randomize

TOLERANCE = 1e-4  # max |difference| over max |reference|, float32


# TF-Slim, restored from a checkpoint that TF-Slim wrote


@pytest.fixture(scope="module")
def slim():
    return pytest.importorskip("tests.slim_oracle", reason="needs tf_slim and tf_keras")


@pytest.fixture(scope="module")
def slim_checkpoint(slim, tmp_path_factory):
    """A function: name of a net → checkpoint that slim wrote of it with 7 classes; written once a net."""
    folder, written = tmp_path_factory.mktemp("slim"), set()

    def checkpoint(net):
        if net not in written:
            slim.write_checkpoint(folder / net, net, num_classes=7)
            written.add(net)
        return folder / net

    return checkpoint


@pytest.mark.parametrize(
    ("net", "size", "output_stride"),
    [
        ("resnet_v2_50", 224, 32),
        ("resnet_v2_50", 225, 16),
        ("resnet_v2_50", 193, 8),
        ("resnet_v2_50", 256, 16),
        ("resnet_v2_50", (97, 128), 8),
        ("resnet_v2_101", 97, 32),
        ("resnet_v1_50", 128, 32),
        ("resnet_v1_50", (129, 96), 8),
        ("resnet_v1_101", 65, 16),
    ],
)
def test_every_end_point_equals_slims(slim, slim_checkpoint, net, size, output_stride):
    images = images_of(size)
    expected = slim.slim_end_points(net, slim_checkpoint(net), images, 7, output_stride=output_stride)
    expected[f"{net}/spatial_squeeze"] = expected[f"{net}/logits"][:, 0, 0]
    expected["predictions"] = expected["predictions"][:, 0, 0]

    model = getattr(resnet, net)(num_classes=7, output_stride=output_stride)
    checkpoint_guided_init(model, slim_checkpoint(net), strict=True)
    found = model.end_points(images)

    assert found.keys() == expected.keys()
    units = sum(key.endswith(("bottleneck_v2", "bottleneck_v1")) for key in expected)
    assert units == {"50": 16, "101": 33}[net.rpartition("_")[2]]
    for key, value in expected.items():
        assert largest_difference(found[key], value) < TOLERANCE, key


@pytest.mark.parametrize("net", ["resnet_v2_50", "resnet_v1_50"])
def test_without_a_global_pool_the_map_of_class_scores_equals_slims(slim, slim_checkpoint, net):
    images = images_of((97, 65))
    expected = slim.slim_end_points(net, slim_checkpoint(net), images, 7, global_pool=False)
    assert expected[f"{net}/logits"].shape == (1, 4, 3, 7)

    model = getattr(resnet, net)(num_classes=7, global_pool=False)
    checkpoint_guided_init(model, slim_checkpoint(net), strict=True)
    found = model.end_points(images)
    assert found.keys() == expected.keys()
    for key in (f"{net}/logits", "predictions"):
        assert largest_difference(found[key], expected[key]) < TOLERANCE, key
    assert largest_difference(model(images), expected[f"{net}/logits"]) < TOLERANCE


# keras.applications


def test_keras_applications_resnet50v2_is_the_same_network(tmp_path):
    theirs = keras.applications.ResNet50V2(include_top=False, weights=None, input_shape=(129, 129, 3))
    weights = {variable.path: variable for variable in theirs.weights}
    randomize(weights)
    # Theirs pads pool1 with zeros, slim's does not count the padding: equal where the root's output is positive.
    bias = weights["conv1_conv/bias"]
    bias.assign(bias + 20.0)
    write_checkpoint(tmp_path / "keras.ckpt", {path: np.asarray(variable) for path, variable in weights.items()})

    model = resnet.resnet_v2_50()
    checkpoint_guided_init(model, tmp_path / "keras.ckpt", rename=slim_name, strict=True)
    images = images_of(129)
    assert largest_difference(model(images, training=False), theirs(images, training=False)) < TOLERANCE


def slim_name(keras_name):
    """`conv2_block1_2_bn/gamma` → `resnet_v2_50/block1/unit_1/bottleneck_v2/conv2/BatchNorm/gamma`."""
    layer, leaf = keras_name.split("/")
    leaf = {"kernel": "weights", "bias": "biases"}.get(leaf, leaf)
    if layer in ("conv1_conv", "post_bn"):
        return f"resnet_v2_50/{'conv1' if layer == 'conv1_conv' else 'postnorm'}/{leaf}"
    stage, unit, *part = layer.split("_")
    scope = f"resnet_v2_50/block{int(stage[-1]) - 1}/unit_{unit.removeprefix('block')}/bottleneck_v2"
    match part:
        case ["preact", "bn"]:
            return f"{scope}/preact/{leaf}"
        case ["0", "conv"]:
            return f"{scope}/shortcut/{leaf}"
        case [number, "bn"]:
            return f"{scope}/conv{number}/BatchNorm/{leaf}"
        case [number, "conv"]:
            return f"{scope}/conv{number}/{leaf}"


# Output stride and multi-grid


def tiny(block=Bottleneck, units=(2, 2, 2, 2), **kwargs):
    net = ResNet("net", block, units, width=8, **kwargs)
    net.build()
    return net


@pytest.mark.parametrize("block", [Bottleneck, BottleneckV1, BasicBlock])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_stride_4_subsampled_equals_larger_strides(block, output_stride):
    images = images_of((97, 129))
    dense = tiny(block, output_stride=4)
    randomize(named_variables(dense))
    strided = tiny(block, output_stride=output_stride)
    copy_weights(dense, strided)
    expected = np.asarray(dense(images))
    assert expected.shape == (1, 25, 33, 64 * block.expansion)
    step = output_stride // 4
    assert largest_difference(strided(images), expected[:, ::step, ::step]) < TOLERANCE


@pytest.mark.parametrize(
    ("output_stride", "dilations"),
    [(4, (1, 2, 4, 8)), (8, (1, 1, 2, 4)), (16, (1, 1, 1, 2)), (32, (1, 1, 1, 1))],
)
def test_units_behind_the_output_stride_dilate(output_stride, dilations):
    net = tiny(output_stride=output_stride)
    found = [units_of(getattr(net, f"block{n}"))[-1].conv2.dilation for n in (1, 2, 3, 4)]
    # the last unit of a block does the striding, and what it no longer skips the units behind it dilate over
    assert found == list(dilations)


def units_of(block):
    return [scope.layers[0] for scope in block.layers]


def test_multi_grid_changes_nothing_but_the_dilation_of_block4():
    plain, grid = tiny(output_stride=16), tiny(output_stride=16, multi_grid=(1, 4))
    assert [unit.conv2.dilation for unit in units_of(plain.block4)] == [2, 2]
    assert [unit.conv2.dilation for unit in units_of(grid.block4)] == [2, 8]
    randomize(named_variables(plain))
    copy_weights(plain, grid)
    images = images_of(97)
    before, after = plain.end_points(images), grid.end_points(images)
    assert before.keys() == after.keys()
    differing = [key for key in before if np.any(np.asarray(before[key]) != np.asarray(after[key]))]
    assert differing[0] == "net/block4/unit_2/bottleneck_v2/conv2"
    assert all(key.startswith(("net/block4", "net/postnorm")) for key in differing)
    assert [before[key].shape for key in differing] == [after[key].shape for key in differing]


# Batch norm


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_and_its_moving_statistics_equal_slims(slim, training):
    import tf_slim

    values = {
        "gamma": np.array([0.5, 1.5, -1.0], "float32"),
        "beta": np.array([0.1, -0.2, 0.3], "float32"),
        "moving_mean": np.array([1.0, 2.0, 3.0], "float32"),
        "moving_variance": np.array([0.5, 1.0, 2.0], "float32"),
    }
    x = np.random.default_rng(0).normal(2.0, 3.0, (2, 3, 2, 3)).astype("float32")  # 12 values: Bessel's 12/11 shows
    with warnings.catch_warnings(), slim.tf1.Graph().as_default(), slim.tf1.Session() as session:
        warnings.simplefilter("ignore")  # tf_slim's own calls of what TF deprecated
        output = tf_slim.batch_norm(
            slim.tf1.constant(x),
            decay=0.9,
            epsilon=1e-5,
            scale=True,
            is_training=training,
        )
        variables = {v.op.name.rpartition("/")[2]: v for v in slim.tf1.global_variables()}
        session.run([v.initializer for v in variables.values()])
        for name, value in values.items():
            variables[name].load(value, session)
        updates = slim.tf1.get_collection(slim.tf1.GraphKeys.UPDATE_OPS)
        expected_output = session.run([output, *updates])[0]
        expected = session.run(variables)

    norm = BatchNorm(3, epsilon=1e-5, decay=0.9)
    norm.build()
    for name, value in values.items():
        getattr(norm, name).assign(value)
    assert largest_difference(norm(x, training=training), expected_output) < 1e-6
    for name, value in expected.items():
        assert np.any(value != values[name]) == (training and name.startswith("moving")), name
        assert largest_difference(getattr(norm, name), value) < 1e-6, name


def test_an_untrained_pass_changes_no_statistics(tiny_resnet):
    assert moved_statistics(tiny_resnet, training=False) == set()
    assert len(moved_statistics(tiny_resnet, training=True)) == 2 * len(list(norms_of(tiny_resnet)))


@pytest.mark.parametrize("how", ["statistics_frozen", "trainable"])
def test_frozen_statistics_stay_to_the_bit(tiny_resnet, how):
    for norm in norms_of(tiny_resnet.block2):
        setattr(norm, how, how == "statistics_frozen")
    moved = moved_statistics(tiny_resnet, training=True)
    assert moved
    assert not any("/block2/" in name for name in moved)


def norms_of(model):
    return (layer for layer in model._flatten_layers() if isinstance(layer, BatchNorm))


def moved_statistics(net, training):
    """Names of the moving statistics that a pass changes."""
    statistics = {name: v for name, v in named_variables(net).items() if "moving_" in name}
    before = {name: np.asarray(v).tobytes() for name, v in statistics.items()}
    net(images_of(65), training=training)
    return {name for name, v in statistics.items() if np.asarray(v).tobytes() != before[name]}


# Arguments


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"output_stride": 12}, "Received: 12"),
        ({"output_stride": 64}, "Received: 64"),
        ({"multi_grid": (1, 2)}, r"Received: \(1, 2\)"),
        ({"multi_grid": ()}, r"Received: \(\)"),
        ({"multi_grid": (1, 0, 2)}, r"multi_grid must be whole numbers, 1 or more. Received: \(1, 0, 2\)"),
        ({"num_classes": 0}, "num_classes must be a whole number, 1 or more. Received: 0"),
        ({"width": 8.5}, "Received: 8.5"),
        ({"batch_norm_decay": 2}, "batch_norm_decay must be 0 or more, and under 1. Received: 2"),
    ],
)
def test_bad_arguments_are_said(arguments, received):
    with pytest.raises(ValueError, match=received):
        resnet.resnet_v2_50(**arguments)


def test_another_name_is_another_scope():
    net = resnet.resnet_v2_18(name="slim_resnet", num_classes=3)
    assert all(name.startswith("slim_resnet/") for name in named_variables(net))
    assert net(images_of(65)).shape == (1, 3)
