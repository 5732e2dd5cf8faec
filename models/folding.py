"""Batch norm taken into the convolution before it: the same numbers with one operation less."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import keras
import numpy as np
from keras import ops

from models.layers import Conv2d, DepthwiseConv2d, batch_norm_folded


def folded_values(model: keras.Model) -> dict[str, np.ndarray]:
    """The values with which `model`, called within `layers.batch_norm_folded`, computes what it does in inference.

    Kernels are multiplied by what their batch norm multiplies with, and its beta becomes the bias. A batch norm that
    comes before a convolution (ResNet v2's preact and postnorm) has no kernel to go into, since a ReLU is in between.

    → {variable's path: array}, every variable: float32 where something was folded in, else as the variable is.
    """
    values = {variable.path: np.asarray(variable) for variable in model.weights}
    for layer in model._flatten_layers():
        if isinstance(layer, Conv2d) and layer.normalizer is not None:
            kernel, norm = layer.kernel.path, layer.normalizer
            gamma, beta, mean, variance = (
                values[v.path].astype(np.float64)
                for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
            )
            scale = gamma / np.sqrt(variance + norm.epsilon)
            by_channel = scale[:, None] if isinstance(layer, DepthwiseConv2d) else scale  # (k, k, C, 1), (k, k, in, C)
            values[kernel] = (values[kernel] * by_channel).astype(np.float32)
            values[norm.beta.path] = (beta - mean * scale).astype(np.float32)
    return values


@contextmanager
def folded_constants(model: keras.Model, values: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Within it, `model` computes with `folded_values` as constants of the graph that is traced: its runtime can
    prepare them once, where those of variables are prepared in every call."""
    constants = [
        (variable, ops.cast(ops.convert_to_tensor(values[variable.path]), variable.dtype)) for variable in model.weights
    ]
    with keras.StatelessScope(state_mapping=constants), batch_norm_folded():
        yield
