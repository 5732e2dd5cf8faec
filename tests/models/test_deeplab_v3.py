"""DeepLab v3: names, output strides, rates, upsampling, and the published mobile networks on real images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.voc import VOCSegmentation
from models.deeplab_v3 import BACKBONES, DeepLabV3, deeplab_v3
from models.layers import Projection
from models.resnet import Bottleneck, BottleneckV1, ResNet
from models.weight_init import BOOKKEEPING, LOADED, checkpoint_guided_init, named_variables
from tests.networks import copy_weights, images_of, largest_difference, randomize

ASPP_CHANNELS = 256


def tiny(output_stride=16, block=Bottleneck, num_classes=3, backbone_options=None, **kwargs):
    backbone = ResNet("net", block, (1, 1, 1, 1), width=8, output_stride=output_stride, **(backbone_options or {}))
    model = DeepLabV3(backbone, num_classes, **kwargs)
    model.build()
    return model


# Names


def test_the_head_has_the_published_names_and_shapes():
    shapes = {name: tuple(variable.shape) for name, variable in named_variables(tiny()).items()}
    expected = {"logits/semantic/weights": (1, 1, ASPP_CHANNELS, 3), "logits/semantic/biases": (3,)}
    kernels = {
        "image_pooling": (1, 1, 256, ASPP_CHANNELS),
        "aspp0": (1, 1, 256, ASPP_CHANNELS),
        "aspp1": (3, 3, 256, ASPP_CHANNELS),
        "aspp2": (3, 3, 256, ASPP_CHANNELS),
        "aspp3": (3, 3, 256, ASPP_CHANNELS),
        "concat_projection": (1, 1, 5 * ASPP_CHANNELS, ASPP_CHANNELS),
    }
    for scope, shape in kernels.items():
        expected[f"{scope}/weights"] = shape
        for leaf in ("gamma", "beta", "moving_mean", "moving_variance"):
            expected[f"{scope}/BatchNorm/{leaf}"] = (ASPP_CHANNELS,)
    assert {name: shape for name, shape in shapes.items() if not name.startswith("net/")} == expected
    assert set(named_variables(tiny().backbone)) == set(shapes) - set(expected)


def test_the_models_own_name_is_no_part_of_the_variables_names():
    named = named_variables(deeplab_v3("resnet_v2_18", 3, name="mine"))
    assert {name.split("/")[0] for name in named} == {
        "resnet_v2_18",
        "image_pooling",
        "aspp0",
        "aspp1",
        "aspp2",
        "aspp3",
        "concat_projection",
        "logits",
    }
    assert all(variable.path == f"mine/{name}" for name, variable in named.items())


def test_every_part_of_the_head_is_a_head_scope():
    model = tiny(atrous_rates=(6, 12))
    heads = {name.split("/")[0] for name in named_variables(model)} - {model.backbone_scope}
    assert heads == set(model.head_scopes)


# Output stride, rates, multi-grid


@pytest.mark.parametrize(("output_stride", "rates"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9])])
def test_rates_follow_the_output_stride(output_stride, rates):
    model = deeplab_v3("resnet_v2_18", 3, output_stride=output_stride)
    assert [convolution.dilation for (convolution,) in model.context.branches] == [1, *rates]
    assert model.small_logits(images_of(65)).shape == (1, 64 // output_stride + 1, 64 // output_stride + 1, 3)


def test_one_set_of_weights_serves_every_output_stride():
    images = images_of((97, 129))
    models = {stride: tiny(stride) for stride in (8, 16, 32)}
    randomize(named_variables(models[8]))
    outputs = {}
    for stride, model in models.items():
        if stride != 8:
            copy_weights(models[8], model)
        outputs[stride] = np.asarray(model.backbone.features(images))
        assert model(images).shape == (1, 97, 129, 3)
    for stride in (16, 32):
        step = stride // 8
        assert largest_difference(outputs[stride], outputs[8][:, ::step, ::step]) < 1e-4
    # The rates follow, so that a branch looks at the same pixels; 1x1 and 3x3 see what they saw at stride 8.
    dense = {s: np.asarray(m.context.branches[3][0](outputs[s])) for s, m in models.items()}
    assert largest_difference(dense[16], dense[8][:, ::2, ::2]) < 1e-4


@pytest.mark.parametrize(
    ("multi_grid", "dilations"), [(None, [2, 4, 8]), ((1, 1, 1), [2, 2, 2]), ((1, 2, 1), [2, 4, 2])]
)
def test_multi_grid_is_the_papers_unless_told(multi_grid, dilations):
    model = deeplab_v3("resnet_v2_50", 3, multi_grid=multi_grid)
    assert [unit.layers[0].conv2.dilation for unit in model.backbone.block4.layers] == dilations


@pytest.mark.parametrize("backbone", ["resnet_v2_34", "resnet_v1_50", "mobilenet_v2"])
@pytest.mark.parametrize("size", [(65, 65), (61, 90)])
def test_logits_have_the_size_of_the_images(backbone, size):
    model = deeplab_v3(backbone, 4)
    logits = model(images_of(size, batch=2))
    assert logits.shape == (2, *size, 4)
    assert np.all(np.isfinite(logits))


def test_a_traced_model_takes_batches_of_any_size():
    model = tiny()
    traced = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3))])
    for size, batch in [((65, 65), 1), ((41, 70), 3)]:
        images = images_of(size, batch)
        assert largest_difference(traced(images), model(images)) < 1e-4


# The head


def test_a_pixel_is_projected_as_if_it_were_spread_and_concatenated():
    rng = np.random.default_rng(0)
    layer = Projection(9, 5, name="concat_projection", batch_norm={"epsilon": 1e-5}, activation=keras.ops.relu)
    layer.build()
    randomize(named_variables(layer))
    pixel, *maps = (rng.normal(size=(2, *size, 3)).astype(np.float32) for size in ((1, 1), (4, 6), (4, 6)))
    spread = np.broadcast_to(pixel, maps[0].shape)
    assert largest_difference(layer([pixel, *maps]), layer([spread, *maps])) < 1e-5


def test_image_pooling_is_the_first_and_sees_the_whole_image():
    model = tiny()
    randomize(named_variables(model))
    seen = {}
    model.context.concat_projection.call = lambda maps: seen.setdefault("maps", maps)[1]
    x = np.asarray(model.backbone.features(images_of(65)))
    model(images_of(65))
    pooled, *branches = map(np.asarray, seen["maps"])
    assert len(branches) == 4
    expected = np.asarray(model.context.image_pooling(x))
    mean = np.asarray(model.context.image_pooling(x.mean(axis=(1, 2), keepdims=True)))
    assert largest_difference(expected, mean) < 1e-5
    assert largest_difference(pooled, np.broadcast_to(expected, pooled.shape)) < 1e-5
    for found, (convolution,) in zip(branches, model.context.branches, strict=True):
        assert largest_difference(found, convolution(x)) < 1e-5


def test_logits_are_upsampled_with_aligned_corners_unless_told():
    model = tiny()
    randomize(named_variables(model))
    half = tiny(upsampling="half-pixel")
    copy_weights(model, half)
    images = images_of((65, 97))
    small = model.small_logits(images)
    aligned = tf.compat.v1.image.resize(small, (65, 97), align_corners=True)
    assert largest_difference(model(images), aligned) < 1e-5
    assert largest_difference(half(images), tf.image.resize(small, (65, 97))) < 1e-5
    assert largest_difference(half(images), aligned) > 0.01


def test_the_head_is_fed_from_postnorm_or_from_the_raw_sum():
    images = images_of(65)
    model, raw = tiny(), tiny(features="block4")
    randomize(named_variables(model))
    copy_weights(model, raw)  # names are the same: a checkpoint of the one fits the other
    assert (model.idle_scopes, raw.idle_scopes) == ((), ("net/postnorm",))
    end_points = model.backbone.end_points(images)
    fed = {"postnorm": end_points["net/postnorm"], "block4": end_points["net/block4"]}
    assert np.min(fed["postnorm"]) >= 0 > np.min(fed["block4"])
    for one in (model, raw):
        seen = []
        one.context.call = lambda x, seen=seen, call=one.context.call: seen.append(x) or call(x)
        one(images)
        np.testing.assert_array_equal(seen[0], fed[one.feature_source])
    trainable = {name for name, variable in named_variables(raw).items() if variable.trainable}
    assert not any("postnorm" in name for name in trainable)
    assert {name for name in trainable if "postnorm" not in name} == {
        name for name, v in named_variables(model).items() if v.trainable and "postnorm" not in name
    }


def test_both_sources_are_one_for_v1():
    model, raw = tiny(block=BottleneckV1), tiny(block=BottleneckV1, features="block4")
    randomize(named_variables(model))
    copy_weights(model, raw)
    np.testing.assert_array_equal(model(images_of(65)), raw(images_of(65)))


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet_v3_50"}, "Received: 'resnet_v3_50'; there are resnet_v2_18, "),
        ({"backbone": "mobilenet_v2", "multi_grid": (1, 2, 4)}, r"Received: \(1, 2, 4\)"),
        ({"backbone": "resnet_v2_18", "features": "block3"}, "Received: 'block3'"),
        ({"backbone": "resnet_v2_18", "output_stride": 5}, "Received: 5"),
        ({"backbone": "mobilenet_v2", "depth_multiplier": 0}, "depth_multiplier must be over 0"),
        ({"backbone": "mobilenet_v2", "atrous_rates": (6, -1)}, r"Received: \(6, -1\)"),
        ({"backbone": "mobilenet_v2", "atrous_rates": (1, 2), "output_stride": 32}, r"at 32 become \[0, 1\]"),
        ({"backbone": "mobilenet_v2", "head_channels": 0}, "head_channels must be a whole number"),
        ({"backbone": "resnet_v2_18", "multi_grid": (1, 2, 4)}, r"Received: \(1, 2, 4\)"),
    ],
)
def test_bad_arguments_are_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        deeplab_v3(num_classes=3, **arguments)


def test_every_backbone_is_there():
    kinds = ("resnet_v2_", "resnet_v1_", "xception_", "mobilenet_v", "mobilenet_edgetpu")
    assert all(any(name.startswith(kind) for name in BACKBONES) for kind in kinds)
    assert all(build.__name__ == name for name, build in BACKBONES.items())


# The published networks


@pytest.mark.parametrize(
    ("file", "pixel_accuracy"),
    [("deeplabv3_mnv2_pascal_trainval.ckpt", 0.95), ("deeplabv3_mnv2_pascal.ckpt", 0.85)],
)
def test_the_published_networks_load_whole_and_segment(file, pixel_accuracy, real_checkpoints, shared_data):
    model = deeplab_v3("mobilenet_v2", 21)
    report = checkpoint_guided_init(model, real_checkpoints / file, strict=True)
    assert {status: count for status, count in report.counts.items() if count} == {LOADED: 272, BOOKKEEPING: 1}

    right = labelled = 0
    dataset = VOCSegmentation(shared_data / "VOC2012", "val")
    for index in (0, 40, 80):
        image, mask = dataset[index][:2]
        height, width = mask.shape
        padded = np.full((513, 513, 3), 127.5, "float32")
        padded[:height, :width] = image
        labels = np.argmax(model(model.preprocessing(padded)[None]), axis=-1)[0, :height, :width]
        valid = mask != 255
        right += np.sum(labels[valid] == mask[valid])
        labelled += np.sum(valid)
        assert len(np.unique(mask[valid])) > 1  # something is there besides the background
    assert right / labelled > pixel_accuracy
