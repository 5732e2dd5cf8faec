"""Gradient accumulation: one step's batch, computed in parts one after the other, in the memory of one part.

The parts' losses are weighed by what their labels count. So the step is that of the whole batch, but for batch norm,
whose statistics are each part's own, and for hard pixels, which are each part's hardest.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from models.layers import replicas, sum_over_replicas

Tensor = Any  # of the library that Keras computes with
LabelWeights = Callable[[Tensor], Tensor]


def accumulate(model: keras.Model, parts: int, label_weights: LabelWeights) -> None:
    """Makes the compiled `model` take each training step in `parts` parts.

    Args:
        parts: a divisor of the batch size.
        label_weights: a function of labels (n, …) → float32 of their shape: what each counts in the loss.
    """
    step = _jax_step if keras.backend.backend() == "jax" else _tensorflow_step
    model.train_step = functools.partial(step, model, parts, label_weights)  # Keras asks the instance for it


def _in_parts(batch: Tensor, parts: int) -> Tensor:
    """(n, …) → (parts, n / parts, …)."""
    return ops.reshape(batch, (parts, -1, *batch.shape[1:]))


def _shares(labels: Tensor, label_weights: LabelWeights) -> Tensor:
    """Labels (parts, n, …) → float32 (parts,): what each part counts; they sum to 1."""
    weights = sum_over_replicas(ops.sum(ops.reshape(label_weights(labels), (labels.shape[0], -1)), axis=1))
    total = ops.sum(weights)
    return ops.where(total > 0, weights / ops.where(total > 0, total, 1.0), 1 / labels.shape[0])


def _tensorflow_step(
    model: keras.Model, parts: int, label_weights: LabelWeights, data: tuple[Tensor, ...]
) -> dict[str, Tensor]:
    """`keras.Model.train_step` under TensorFlow, in parts."""
    import tensorflow as tf

    images, labels = (_in_parts(batch, parts) for batch in data[:2])
    shares = _shares(labels, label_weights)
    variables = model.trainable_variables

    def add_part(part, gradients):
        with tf.GradientTape() as tape:
            outputs = model(images[part], training=True)
            loss = model.compute_loss(images[part], labels[part], outputs, training=True) * shares[part]
        # The tracker takes the mean over all images and replicas; the shares sum to 1 over the parts.
        model._loss_tracker.update_state(loss * parts * replicas(), sample_weight=images.shape[1])
        model.compute_metrics(images[part], labels[part], outputs)
        found = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return part + 1, [gradient + more for gradient, more in zip(gradients, found, strict=True)]

    start = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    if replicas() == 1:
        _, gradients = tf.while_loop(lambda part, _: part < parts, add_part, (0, start), parallel_iterations=1)
    else:
        gradients, whole = start, images
        for part in range(parts):  # replicas cannot meet within a loop of the graph
            with tf.control_dependencies(gradients):  # else all parts would be in memory at once
                images = tf.identity(whole)
            _, gradients = add_part(part, gradients)
    model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return model.get_metrics_result()


def _jax_step(
    model: keras.Model, parts: int, label_weights: LabelWeights, state: tuple[Any, ...], data: tuple[Tensor, ...]
) -> tuple[dict[str, Tensor], tuple[Any, ...]]:
    """`keras.Model.train_step` under JAX, in parts."""
    import jax

    trainable, others, optimizer, metrics = state
    images, labels = (_in_parts(batch, parts) for batch in data[:2])
    differentiate = jax.value_and_grad(model.compute_loss_and_updates, has_aux=True)

    def add_part(carry, part):
        gradients, others, metrics = carry
        images, labels, share = part
        (loss, (_, outputs, others, metrics)), found = differentiate(
            trainable, others, metrics, images, labels, None, training=True, optimizer_variables=optimizer
        )
        # The tracker takes the mean over all images; the shares sum to 1 over the parts.
        logs, metrics = model._update_metrics_variables(metrics, loss * share * parts, images, labels, outputs, None)
        gradients = [gradient + share * more for gradient, more in zip(gradients, found, strict=True)]
        return (gradients, others, metrics), logs

    start = ([ops.zeros_like(variable) for variable in trainable], others, metrics)
    parted = (images, labels, _shares(labels, label_weights))
    (gradients, others, metrics), logs = jax.lax.scan(add_part, start, parted)
    trainable, optimizer = model.optimizer.stateless_apply(optimizer, gradients, trainable)
    return {name: values[-1] for name, values in logs.items()}, (trainable, others, optimizer, metrics)
