"""This project under JAX, its state on the device from one step to the next, as `fit` keeps it."""

import os

import jax
import keras
import numpy as np

from benchmarks.contestants import CLASSES, RECIPE
from engine.device import set_precision
from models.deeplab_v3 import deeplab_v3
from training.recipe import compile_model, segmentation_loss


def device():
    return f"{jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores"


def _network(bfloat16, training):
    assert keras.backend.backend() == "jax"
    set_precision("bfloat16" if bfloat16 else "float32", training=training)
    keras.utils.set_random_seed(0)
    return deeplab_v3("resnet_v2_50", num_classes=CLASSES, output_stride=16, multi_grid=(1, 2, 4))


def _parameters(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_weights)


def trainer(images, labels, bfloat16):
    """→ (run, parameters, version), where run(steps) trains so many steps on the batch and returns the last loss."""
    model = _network(bfloat16, training=True)
    compile_model(model, RECIPE, segmentation_loss())
    model._symbolic_build(data_batch=(images[:1], labels[:1]))
    model.make_train_function()
    batch = jax.device_put(images), jax.device_put(labels)
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = [[variable.value for variable in group] for group in groups]

    def run(steps):
        nonlocal state
        for _ in range(steps):
            logs, state = model.train_function(state, iter([batch]))
        return float(logs["loss"])

    return run, _parameters(model), f"jax {jax.__version__}, keras {keras.__version__}"


def predictor(images, bfloat16):
    """→ (run, parameters, version), where run(times) predicts the labels of the batch so often."""
    model = _network(bfloat16, training=False)
    variables = model.variables
    values, batch = [variable.value for variable in variables], jax.device_put(images)

    @jax.jit
    def labels(values, images):
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            return keras.ops.argmax(model(images, training=False), axis=-1).astype("uint8")

    def run(times):
        for _ in range(times):
            found = labels(values, batch)
        return int(found[0, 0, 0])

    return run, _parameters(model), f"jax {jax.__version__}, keras {keras.__version__}"
