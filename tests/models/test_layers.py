"""The layers one by one: numbers against Keras, TensorFlow and TF-Slim; names, gradients, precision, recording."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from models.backend import dilated
from models.layers import (
    AtrousConv2d,
    BatchNorm,
    Conv2d,
    DepthwiseConv2d,
    Module,
    Network,
    Scope,
    batch_norm_folded,
    classify,
    max_pool,
    recording,
    resize_bilinear,
    subsample,
)
from models.resnet import Bottleneck, ResNet
from models.weight_init import named_variables
from tests.networks import images_of, largest_difference, randomize

EXACT = 2e-6


def built(layer):
    layer.build()
    randomize({variable.path: variable for variable in layer.weights})
    return layer


def features_of(size, channels=4):
    height, width = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(1).normal(size=(2, height, width, channels)).astype("float32")


# Convolutions


@pytest.mark.parametrize("size", [(9, 12), (17, 17)])
@pytest.mark.parametrize("dilation", [1, 2, 6, 18])
def test_dilated_convolution_equals_keras(size, dilation):
    conv = built(Conv2d(4, 5, 3, dilation=dilation, fixed_padding=True, name="conv"))
    x = features_of(size)
    expected = ops.conv(x, conv.kernel, padding="same", dilation_rate=dilation) + conv.bias
    assert largest_difference(conv(x), expected) < EXACT


@pytest.mark.parametrize("size", [(9, 12), (17, 17)])
@pytest.mark.parametrize("dilation", [2, 6, 10, 18])  # 10: only the middle row meets the lower map; 18: one tap
def test_tap_by_tap_equals_the_dilated_convolution_and_so_do_its_gradients(size, dilation):
    conv = built(AtrousConv2d(4, 5, dilation, name="conv"))
    x, weights = tf.constant(features_of(size)), tf.constant(features_of(size, 5)[::-1])

    def output_and_gradients(call):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = call(x)
            loss = tf.reduce_sum(output * weights)
        return output, *tape.gradient(loss, [x, conv.kernel.value])

    def plain(x):
        return ops.conv(x, conv.kernel, padding="same", dilation_rate=dilation) + conv.bias

    unknown_size = tf.function(conv, input_signature=[tf.TensorSpec((None, None, None, 4))])
    expected = output_and_gradients(plain)
    for call in (conv, tf.function(conv), unknown_size):
        found = output_and_gradients(call)
        assert all(largest_difference(a, b) < EXACT for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_depthwise_convolution_equals_tensorflows(dilation):
    conv = built(DepthwiseConv2d(4, 3, dilation=dilation, name="depthwise"))
    x = features_of((9, 12))
    expected = tf.nn.depthwise_conv2d(x, conv.kernel.value, [1, 1, 1, 1], "SAME", dilations=[dilation] * 2) + conv.bias
    assert largest_difference(conv(x), expected) < EXACT


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("dilation", [2, (1, 2), (1, 6), (18, 15)])
def test_a_dilated_depthwise_convolution_is_the_same_where_nothing_is_learned(kernel_size, dilation):
    conv = built(DepthwiseConv2d(4, kernel_size, dilation=dilation, name="depthwise"))
    x = features_of((9, 12))
    learning = conv(x)
    with batch_norm_folded():
        assert largest_difference(conv(x), learning) < EXACT
        with dilated(natively=False):
            assert largest_difference(conv(x), learning) < EXACT


@pytest.mark.parametrize("size", [(8, 11), (9, 12)])
@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), [(3, 1, 1), (3, 1, 2), (3, 2, 1), (7, 2, 1), (1, 2, 1)])
def test_fixed_padding_equals_slims_conv2d_same(size, kernel_size, stride, dilation):
    slim = pytest.importorskip("tests.slim_oracle", reason="needs tf_slim and tf_keras")
    from tf_slim.nets.resnet_utils import conv2d_same

    conv = built(Conv2d(4, 5, kernel_size, stride, dilation, fixed_padding=True, name="conv"))
    values = {"conv/weights": np.asarray(conv.kernel), "conv/biases": np.asarray(conv.bias)}
    x = features_of(size)
    with warnings.catch_warnings(), slim.tf1.Graph().as_default(), slim.tf1.Session() as session:
        warnings.simplefilter("ignore")  # tf_slim's own calls of what TF deprecated
        output = conv2d_same(slim.tf1.constant(x), 5, kernel_size, stride, rate=dilation, scope="conv")
        for variable in slim.tf1.global_variables():
            variable.load(values[variable.op.name], session)
        expected = np.maximum(session.run(output), 0)  # slim's conv2d has a ReLU by default
    assert largest_difference(ops.relu(conv(x)), expected) < EXACT


@pytest.mark.parametrize("size", [8, 9])
def test_fixed_padding_sees_the_same_pixels_at_even_and_odd_sizes(size):
    """Output pixel (i, j) is centred on input pixel (2i, 2j) whatever the size; SAME shifts by one at even sizes."""
    conv = built(Conv2d(1, 1, 3, 2, fixed_padding=True, name="conv"))
    same = built(Conv2d(1, 1, 3, 2, name="conv"))
    x = features_of(size, channels=1)
    dense = ops.conv(x, conv.kernel, padding="same") + conv.bias
    assert largest_difference(conv(x), dense[:, ::2, ::2]) < EXACT
    assert (largest_difference(same(x), conv(x)) < EXACT) == (size == 9)


@pytest.mark.parametrize("size", [(8, 11), (1, 2)])
def test_pooling_and_subsampling_equal_tensorflows(size):
    x = features_of(size)
    np.testing.assert_array_equal(max_pool(x, 3, 2), tf.nn.max_pool2d(x, 3, 2, "SAME"))
    np.testing.assert_array_equal(subsample(x, 2), tf.nn.max_pool2d(x, 1, 2, "SAME"))
    assert subsample(x, 1) is x


def test_normalizer_replaces_the_bias_and_comes_before_the_activation():
    conv = built(Conv2d(4, 5, 1, batch_norm={"epsilon": 1e-3}, activation=ops.relu, name="conv"))
    assert conv.bias is None
    norm = conv.normalizer
    x = features_of(5)
    y = np.einsum("nhwc,cd->nhwd", x, np.asarray(conv.kernel)[0, 0])
    y = (y - norm.moving_mean) / np.sqrt(np.asarray(norm.moving_variance) + 1e-3) * norm.gamma + norm.beta
    assert largest_difference(conv(x), np.maximum(y, 0)) < EXACT


def test_a_classifier_is_the_mean_and_a_matrix():
    logits = built(Conv2d(4, 3, 1, name="logits"))
    x = features_of((5, 7))
    expected = x.mean(axis=(1, 2)) @ np.asarray(logits.kernel)[0, 0] + np.asarray(logits.bias)
    assert largest_difference(classify(x, logits), expected) < EXACT


# Upsampling

SIZES = [((5, 7), (12, 31)), ((17, 17), (257, 257)), ((9, 9), (65, 65)), ((12, 5), (5, 3)), ((1, 4), (6, 1))]


@pytest.mark.parametrize(("size", "new_size"), SIZES)
def test_aligned_corners_equal_tensorflow_1(size, new_size):
    x = features_of(size)
    expected = tf.compat.v1.image.resize(x, new_size, align_corners=True)
    assert largest_difference(resize_bilinear(x, *new_size), expected) < 1e-5


@pytest.mark.parametrize(("size", "new_size"), SIZES[:3])
def test_half_pixel_centres_equal_tensorflow_2(size, new_size):
    x = features_of(size)
    expected = tf.image.resize(x, new_size)
    assert largest_difference(resize_bilinear(x, *new_size, upsampling="half-pixel"), expected) < 1e-5


@pytest.mark.parametrize(("size", "new_size"), SIZES)
def test_the_default_of_tensorflow_1_is_neither(size, new_size):
    x = features_of(size)
    expected = tf.raw_ops.ResizeBilinear(images=x, size=new_size, align_corners=False, half_pixel_centers=False)
    assert largest_difference(resize_bilinear(x, *new_size, upsampling="tf1"), expected) < 1e-5


def test_aligned_corners_put_features_on_the_pixels_they_were_computed_at():
    x = features_of(5)
    up = np.asarray(resize_bilinear(x, 65, 65))
    assert largest_difference(up[:, ::16, ::16], x) < EXACT
    assert largest_difference(np.asarray(resize_bilinear(x, 65, 65, upsampling="half-pixel"))[:, ::16, ::16], x) > 0.01


# Gradients


def test_gradients_of_a_dilated_strided_convolution_equal_keras():
    for stride, dilation in [(1, 6), (2, 1)]:
        conv = built(Conv2d(4, 5, 3, stride, dilation, fixed_padding=True, name="conv"))
        x = tf.constant(features_of(13))
        weights = [conv.kernel.value, conv.bias.value]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            loss = ops.sum(conv(x) ** 2)
            pad = 1 if stride > 1 else 0
            padded = ops.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
            theirs = ops.conv(padded, conv.kernel, stride, "valid" if pad else "same", dilation_rate=dilation)
            expected_loss = ops.sum((theirs + conv.bias) ** 2)
        found, expected = (tape.gradient(value, [x, *weights]) for value in (loss, expected_loss))
        for a, b in zip(found, expected, strict=True):
            assert largest_difference(a, b) < 1e-5


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_batch_norm_equal_those_of_its_formula(training):
    norm = built(BatchNorm(4, epsilon=1e-3))
    mean, variance = np.asarray(norm.moving_mean), np.asarray(norm.moving_variance)
    x = tf.constant(features_of(5))
    sources = [x, norm.gamma.value, norm.beta.value]
    weigh = features_of(5)[::-1]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        if training:
            mean, variance = tf.nn.moments(x, (0, 1, 2))
        formula = (x - mean) / tf.sqrt(variance + 1e-3) * norm.gamma.value + norm.beta.value
        expected_loss = ops.sum(weigh * formula)
        loss = ops.sum(weigh * norm(x, training=training))
    for source in sources:
        assert largest_difference(tape.gradient(loss, source), tape.gradient(expected_loss, source)) < 1e-5


def test_gradients_reach_every_trainable_variable_and_no_other(tiny_resnet):
    with tf.GradientTape() as tape:
        loss = ops.sum(resize_bilinear(tiny_resnet.features(images_of(65)), 65, 65) ** 2)
    named = {name: v for name, v in named_variables(tiny_resnet).items() if v.trainable}
    gradients = tape.gradient(loss, {name: v.value for name, v in named.items()})
    assert {name for name, g in gradients.items() if g is None} == {
        f"resnet_v2_50/logits/{n}" for n in ("weights", "biases")
    }
    assert all(np.any(np.asarray(g)) for g in gradients.values() if g is not None)


# Precision


@pytest.fixture
def bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("bfloat16")
def test_bfloat16_computes_in_bfloat16_and_keeps_variables_in_float32():
    net = ResNet("net", Bottleneck, (1, 1, 1, 1), num_classes=5, width=8)
    net.build()
    images = images_of(65, batch=2)
    outputs = net.end_points(images)
    dtypes = {key: keras.backend.standardize_dtype(x.dtype) for key, x in outputs.items()}
    assert dtypes.pop("net/spatial_squeeze") == dtypes.pop("predictions") == "float32"  # as what the network gives
    assert set(dtypes.values()) == {"bfloat16"}
    assert keras.backend.standardize_dtype(net(images).dtype) == "float32"

    mean = net.postnorm.moving_mean
    before = np.asarray(mean)
    assert keras.backend.standardize_dtype(net.features(images).dtype) == "bfloat16"
    net(images, training=True)
    moved = np.asarray(mean) - before
    assert {v.dtype for v in net.weights} == {"float32"}
    # steps of bfloat16 are 2^-8: float32 statistics hold what a step of 0.003 times a small mean adds
    assert np.any(moved)
    assert np.any(np.asarray(mean) != np.asarray(mean).astype(tf.bfloat16.as_numpy_dtype).astype("float32"))


@pytest.mark.usefixtures("bfloat16")
def test_upsampling_is_float32_whatever_the_policy():
    x = ops.cast(features_of(5), "bfloat16")
    assert keras.backend.standardize_dtype(resize_bilinear(x, 9, 9).dtype) == "float32"
    assert keras.backend.standardize_dtype(resize_bilinear(x, 9, 9, upsampling="half-pixel").dtype) == "float32"


# Names


def test_paths_are_nested_as_modules_are():
    conv = Conv2d(3, 4, 1, batch_norm={}, name="conv1")
    net = Scope("net", [Scope("unit_1", [conv]), Conv2d(4, 2, 1, name="logits")])
    net.build()
    assert [variable.path for variable in net.weights] == [
        "net/unit_1/conv1/weights",
        "net/unit_1/conv1/BatchNorm/gamma",
        "net/unit_1/conv1/BatchNorm/beta",
        "net/unit_1/conv1/BatchNorm/moving_mean",
        "net/unit_1/conv1/BatchNorm/moving_variance",
        "net/logits/weights",
        "net/logits/biases",
    ]
    assert [variable.path for variable in net.trainable_variables] == [
        variable.path for variable in net.weights if "moving" not in variable.path
    ]


def test_building_twice_makes_nothing_twice(tiny_resnet):
    before = [id(variable) for variable in tiny_resnet.weights]
    tiny_resnet.build()
    tiny_resnet(images_of(65))
    assert [id(variable) for variable in tiny_resnet.weights] == before


# Recording


def test_end_points_are_recorded_under_their_paths(tiny_resnet):
    images = images_of(65)
    found = tiny_resnet.end_points(images)
    unit = "resnet_v2_50/block1/unit_1/bottleneck_v2"
    assert list(found)[:6] == [f"resnet_v2_50/{name}" for name in ("conv1",)] + [
        f"{unit}/{name}" for name in ("conv1", "conv2", "conv3", "shortcut")
    ] + [unit]
    np.testing.assert_array_equal(found["resnet_v2_50/postnorm"], tiny_resnet.features(images))


def test_recordings_nest_and_end(tiny_resnet):
    images = images_of(65)
    outer, inner = {}, {}
    with recording(outer):
        tiny_resnet.conv1(images)
        with recording(inner):
            tiny_resnet(images)
        assert list(outer) == ["resnet_v2_50/conv1"]
        tiny_resnet.conv1(images)
    assert list(outer) == ["resnet_v2_50/conv1"]
    assert "resnet_v2_50/logits" in inner
    tiny_resnet(images)
    assert list(outer) == ["resnet_v2_50/conv1"]


def test_a_recording_of_one_module_is_no_end_of_the_one_around_it(tiny_resnet):
    images = images_of(65)
    around, one = {}, {}
    with recording(around), recording(one, only=tiny_resnet.conv1):
        tiny_resnet(images)
    assert list(one) == ["resnet_v2_50/conv1"]
    assert around.keys() == tiny_resnet.end_points(images).keys()


def test_a_recording_ends_where_the_network_fails(tiny_resnet):
    outer = {}
    with pytest.raises(ZeroDivisionError), recording(outer):
        1 / 0  # noqa: B018
    tiny_resnet(images_of(65))
    assert not outer


def test_end_points_in_a_tf_function(tiny_resnet):
    images = images_of(65)
    traced = tf.function(tiny_resnet.end_points)(images)
    eager = tiny_resnet.end_points(images)
    assert traced.keys() == eager.keys()
    for key, value in eager.items():
        assert largest_difference(traced[key], value) < 1e-5, key


def test_the_end_point_is_relative_to_the_path():
    class Doubled(Module):
        end_point = "../twice"

        def call(self, x):
            return 2 * x

    class Net(Network):
        variable_prefix = "net/"

        def __init__(self):
            super().__init__(name="net")
            self.inner = Scope("inner", [Doubled(name="doubled")])

        def call(self, x, training=False):
            return self.inner(x)

    net = Net()
    net.build()
    assert {key: float(value) for key, value in net.end_points(ops.ones(())).items()} == {"inner/twice": 2.0}
