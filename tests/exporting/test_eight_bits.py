"""Weights made ready for 8 bits: the network stays what it is, and its roundings cost less."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from exporting import eight_bits
from exporting.eight_bits import Readied, on_grid, taking_pixels
from models.deeplab_v3 import DeepLabV3
from models.folding import folded_constants, folded_values
from models.layers import DepthwiseConv2d
from models.mobilenet_v2 import mobilenet_v2
from models.resnet import Bottleneck, ResNet
from models.weight_init import named_variables
from tests.networks import randomize

SHAPE = (1, 65, 65, 3)


@pytest.fixture
def model(short_mobilenet):
    with keras.name_scope("deeplab_v3"):
        net = DeepLabV3(mobilenet_v2(depth_multiplier=0.35, include_last_conv=False, output_stride=16), 5)
        net.build()
    randomize(named_variables(net))
    return net


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.uniform(-1, 1, SHAPE).astype(np.float32) for _ in range(3)]


def logits(model, values, image):
    with folded_constants(model, values):
        return np.asarray(model.small_logits(tf.constant(image)))


def nearest(path, kernel, steps=127):
    """As a quantizer rounds: one step for each output, depthwise for each channel; `concat_projection` is two, the
    share of the pooled pixel and that of the map."""
    if path.endswith("concat_projection/weights"):
        return np.concatenate([nearest("", part, steps) for part in np.split(kernel, [256], axis=2)], axis=2)
    depthwise = kernel.shape[-1] == 1
    step = np.abs(kernel).max((0, 1, 3) if depthwise else (0, 1, 2), keepdims=True) / (127 if depthwise else steps)
    return np.round(kernel / np.where(step > 0, step, 1)) * step


def test_scaled_channels_change_nothing(model, images):
    before = folded_values(model)
    after = Readied(model, model.small_logits, before, images).balanced
    changed = [path for path in before if not np.array_equal(before[path], after[path])]
    assert {"depthwise_weights", "weights"} <= {path.rpartition("/")[2] for path in changed}
    assert any("/project/" in path for path in changed)  # of maps that are added up, too
    for image in images:
        np.testing.assert_allclose(logits(model, after, image), logits(model, before, image), atol=1e-3)


@pytest.mark.parametrize("steps", [127, 64])
def test_a_quantizer_finds_weights_on_its_grid_and_they_cost_less(model, images, steps):
    before = folded_values(model)
    after = Readied(model, model.small_logits, before, images).rounded(steps)
    kernels = [path for path in before if before[path].ndim == 4]
    for path in kernels:
        close = 1e-6 * np.abs(after[path]).max()
        np.testing.assert_allclose(nearest(path, after[path], steps), after[path], atol=close)
    usual = before | {path: nearest(path, before[path], steps).astype(np.float32) for path in kernels}
    whole = np.concatenate([logits(model, before, image) for image in images])
    ours, theirs = (
        np.square(np.concatenate([logits(model, values, image) for image in images]) - whole).mean()
        for values in (after, usual)
    )
    assert ours < 0.5 * theirs


def test_roundings_of_a_depthwise_kernel_are_near_the_best_of_all():
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(4, 9, 1))
    shared = rng.normal(size=(4, 500, 1))  # neighbouring pixels are alike
    inputs = shared + 0.2 * rng.normal(size=(4, 500, 9))
    covariance = np.einsum("gpi,gpj->gij", inputs, inputs) / 500
    step = np.abs(weights).max(1, keepdims=True) / 127

    def cost(found):
        error = (found - weights)[..., 0]
        return np.einsum("gi,gij,gj->g", error, covariance, error)

    found = on_grid(weights, covariance)
    np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-9)
    assert (np.abs(found).max(1) == np.abs(weights).max(1)).all()
    ways = np.array(list(itertools.product((0, 1), repeat=9)))
    for group in range(4):
        lower = np.floor(weights[group, :, 0] / step[group, 0])
        best = min(
            cost(np.broadcast_to(((lower + way) * step[group, 0])[:, None], weights.shape))[group] for way in ways
        )
        assert cost(found)[group] < 2 * best + 1e-12
    assert cost(found).sum() < 0.3 * cost(on_grid(weights)).sum()


def test_dead_channels_and_inputs_do_no_harm():
    weights = np.zeros((1, 4, 3))
    weights[0, :, 1] = 1, -2, 0.5, 0
    found = on_grid(weights, np.zeros((1, 4, 4)))
    np.testing.assert_allclose(found, weights, atol=2 / 127 / 2)
    assert not found[..., [0, 2]].any()


def test_inputs_that_hardly_vary_around_a_large_mean_do_no_harm():
    rng = np.random.default_rng(0)
    inputs = (1000 + 1e-3 * rng.normal(size=(50, 40))).astype(np.float32)
    mean = inputs.mean(0).astype(np.float64)
    covariance = (inputs.T @ inputs / 50).astype(np.float64) - np.outer(mean, mean)
    assert np.linalg.eigvalsh(covariance).min() < 0  # as float32 leaves it
    weights = rng.normal(size=(1, 40, 3))
    found = on_grid(weights, covariance[None])
    step = np.abs(weights).max(1) / 127
    np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-9)
    assert np.abs(found - weights).max() < 10 * step.max()


def test_pixels_less_the_mean_go_into_the_first_convolution(model):
    values = folded_values(model)
    found, middle = taking_pixels(model, model.small_logits, values, SHAPE)
    assert middle == 128
    pixels = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.float32)
    ours = logits(model, found, pixels - middle)
    theirs = logits(model, values, np.asarray(model.preprocessing(pixels)))
    # What is padded is 128 instead of 127.5.
    np.testing.assert_allclose(ours, theirs, atol=0.05 * np.abs(theirs).max())


def test_a_mean_pixel_of_a_colour_stays_outside():
    backbone = ResNet("resnet_v1_50", Bottleneck, (1, 1, 1, 1), output_stride=16, width=8)
    model = DeepLabV3(backbone, 5, preprocessing="mean-subtracted")
    model.build()
    assert taking_pixels(model, model.small_logits, folded_values(model), SHAPE) is None


def test_what_a_convolution_is_fed_is_measured_where_it_is(model, images):
    """Products of weights and the patches that are measured are the convolution's own outputs."""
    values = folded_values(model)

    def compare(image):
        followed, _ = eight_bits._follow(model, model.small_logits, values, image)
        checked = []
        for layer, channels, taken, _ in followed:
            kernel = values[layer.kernel.path][:, :, channels].astype(np.float32)
            patches = eight_bits._patches(layer, taken)
            pads = taken if layer.padding is None else tf.pad(taken, ((0, 0), *((layer.padding,) * 2,) * 2, (0, 0)))
            options = {"padding": "SAME" if layer.padding is None else "VALID"}
            if isinstance(layer, DepthwiseConv2d):
                ours = tf.einsum("pkc,kc->pc", patches, kernel.reshape(-1, kernel.shape[2]))
                theirs = keras.ops.depthwise_conv(
                    pads, kernel, layer.stride, options["padding"].lower(), dilation_rate=layer.dilation
                )
            else:
                ours = tf.einsum("pkc,kco->po", patches, kernel.reshape(-1, *kernel.shape[2:]))
                theirs = tf.nn.conv2d(pads, kernel, layer.stride, dilations=layer.dilation, **options)
            rows, columns = (-(-side // eight_bits.ACROSS) for side in theirs.shape[1:3])
            theirs = tf.reshape(theirs[0, ::rows, ::columns], ours.shape)
            checked.append(tf.reduce_max(tf.abs(ours - theirs)) / (1 + tf.reduce_max(tf.abs(theirs))))
        return checked

    found = tf.function(compare, autograph=False)(tf.constant(images[0]))
    assert len(found) > 8
    assert max(map(float, found)) < 1e-4
