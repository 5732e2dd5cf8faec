"""L2 as slim has it, for those who call plain `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.mobilenet_v2 import mobilenet_v2
from models.regularization import add_weight_decay
from models.weight_init import named_variables
from tests.networks import images_of

RATE = 0.01


def l2_of(model, rate=RATE):
    """slim's l2_regularizer(rate) of what slim regularizes, by TensorFlow 1's formula."""
    kernels = [v for name, v in named_variables(model).items() if name.endswith("/weights")]
    return rate * sum(float(tf.nn.l2_loss(tf.constant(np.asarray(kernel)))) for kernel in kernels)


def first_loss(model):
    """The loss that plain `fit` tells of its first step."""
    model.compile(
        keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    return model.fit(images_of(33, batch=2), np.array([1, 4]), batch_size=2, verbose=0).history["loss"][0]


def test_the_loss_of_plain_fit_has_the_l2_in_it(tiny_resnet):
    plain = first_loss(tiny_resnet)
    add_weight_decay(tiny_resnet, RATE)
    assert l2_of(tiny_resnet) > 0.5
    assert first_loss(tiny_resnet) == pytest.approx(plain + l2_of(tiny_resnet), rel=1e-5)
    add_weight_decay(tiny_resnet, 0)
    assert first_loss(tiny_resnet) == pytest.approx(plain, rel=1e-5)


def test_kernels_shrink_by_it_and_nothing_else_does(tiny_resnet):
    add_weight_decay(tiny_resnet, RATE)
    variables = named_variables(tiny_resnet)
    with tf.GradientTape() as tape:
        loss = sum(tiny_resnet.losses)
    gradients = tape.gradient(loss, [variable.value for variable in variables.values()])
    for (name, variable), gradient in zip(variables.items(), gradients, strict=True):
        if name.endswith("/weights"):
            np.testing.assert_allclose(gradient, RATE * np.asarray(variable), rtol=1e-6)
        else:
            assert gradient is None, name


def test_depthwise_kernels_and_what_is_frozen_are_not_decayed():
    net = mobilenet_v2(depth_multiplier=0.35)
    net.root.trainable = False
    add_weight_decay(net, RATE)
    decayed = {name for name, variable in named_variables(net).items() if variable.regularizer is not None}
    assert "MobilenetV2/expanded_conv_3/expand/weights" in decayed
    assert "MobilenetV2/Conv/weights" not in decayed
    assert all(name.endswith("/weights") for name in decayed)


def test_it_reaches_a_network_in_a_functional_model(tiny_resnet):
    images = keras.Input((None, None, 3))
    model = keras.Model(images, keras.layers.Dense(2)(tiny_resnet(images)))
    add_weight_decay(model, RATE)
    assert float(sum(model.losses)) == pytest.approx(l2_of(tiny_resnet), rel=1e-5)


def test_a_negative_rate_is_refused(tiny_resnet):
    with pytest.raises(ValueError, match="Received: -1"):
        add_weight_decay(tiny_resnet, -1)
