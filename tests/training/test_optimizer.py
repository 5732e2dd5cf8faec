"""Momentum and schedule are TensorFlow 1's: the same numbers as its own optimizer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.regularization import add_weight_decay
from training.optimizer import Momentum, Poly


def test_equals_tensorflow_1_momentum_under_a_decaying_rate():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)).astype("f"), rng.normal(size=(6, 3, 4)).astype("f")
    ours = keras.Variable(start)
    optimizer = Momentum(Poly(0.1, 6))
    optimizer.build([ours])
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)])

    theirs = tf.Variable(start)
    step = tf.Variable(0)
    rate = tf.compat.v1.train.polynomial_decay(0.1, step, 6, 0.0, 0.9)
    reference = tf.compat.v1.train.MomentumOptimizer(rate, 0.9)
    for gradient in gradients:
        reference.apply_gradients([(tf.constant(gradient), theirs)])
        step.assign_add(1)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
    np.testing.assert_allclose(
        optimizer.momentums[0].numpy(), reference.get_slot(theirs, "momentum").numpy(), rtol=1e-6
    )


def test_multiplier_scales_the_rate_of_one_variable():
    first, second = keras.Variable(np.ones(2, "f"), name="first"), keras.Variable(np.ones(2, "f"), name="second")
    optimizer = Momentum(0.5, multipliers={second.path: 0.1})
    optimizer.build([first, second])
    optimizer.apply([tf.ones(2), tf.ones(2)])
    np.testing.assert_allclose(first.numpy(), 0.5)
    np.testing.assert_allclose(second.numpy(), 0.95)


def test_gradient_norms_are_kept_by_scope():
    variables = [keras.Variable(np.ones(2, "f"), name=name) for name in ("a", "b", "c")]
    optimizer = Momentum(0.5, scope_of=lambda path: "ab" if path in ("a", "b") else "c")
    optimizer.build(variables)
    optimizer.apply([tf.constant([3.0, 0.0]), tf.constant([0.0, 4.0]), tf.constant([1.0, 0.0])])
    assert optimizer.gradient_norms() == pytest.approx({"ab": 5.0, "c": 1.0})


def test_poly_starts_at_the_base_and_ends_at_zero():
    schedule = Poly(0.007, 100)
    assert float(schedule(0)) == pytest.approx(0.007)
    assert float(schedule(50)) == pytest.approx(0.007 * 0.5**0.9)
    assert float(schedule(100)) == 0


def test_warm_up_rises_in_a_line_to_the_poly_schedule():
    schedule, plain = Poly(0.007, 100, warmup_steps=10), Poly(0.007, 100)
    for step in (0, 1, 4, 9, 10, 50, 100):
        assert float(schedule(step)) == pytest.approx(min(1, (step + 1) / 10) * float(plain(step)))


def test_clipping_is_tensorflow_s_by_global_norm():
    rng = np.random.default_rng(0)
    for scale in (1.0, 0.01):  # above the norm, and below it
        gradients = [scale * rng.normal(size=(3,)).astype("f"), scale * rng.normal(size=(2, 2)).astype("f")]
        variables = [keras.Variable(np.zeros_like(g), name=f"v{i}") for i, g in enumerate(gradients)]
        optimizer = Momentum(
            1.0, global_clipnorm=0.5, scope_of=lambda path: "all", multipliers={variables[1].path: 0.1}
        )
        optimizer.build(variables)
        optimizer.apply([tf.constant(g) for g in gradients])
        clipped, norm = tf.clip_by_global_norm(gradients, 0.5)
        np.testing.assert_allclose(variables[0].numpy(), -clipped[0], rtol=1e-5)
        np.testing.assert_allclose(variables[1].numpy(), -0.1 * clipped[1], rtol=1e-5)
        assert optimizer.gradient_norms() == pytest.approx({"all": float(norm)})  # as they were before


def test_weight_decay_is_half_the_sum_of_squares_of_kernels_only(tiny_resnet):
    add_weight_decay(tiny_resnet, 0.01)
    expected = 0.005 * sum(float((v.numpy() ** 2).sum()) for v in tiny_resnet.weights if v.name == "weights")
    assert float(sum(tiny_resnet.losses)) == pytest.approx(expected, rel=1e-5)
    add_weight_decay(tiny_resnet, 0)
    assert not tiny_resnet.losses
