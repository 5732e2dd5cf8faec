"""Batch norm taken into the convolution before it: the same numbers with one operation less."""

import numpy as np

from models.layers import Conv2d, DepthwiseConv2d


def folded_values(model):
    """The values with which `model`, called within `layers.batch_norm_folded`, computes what it does in inference.

    Kernels are multiplied by what their batch norm multiplies with, and its beta becomes the bias. A batch norm that
    comes before a convolution (ResNet v2's preact and postnorm) has no kernel to go into, since a ReLU is in between.

    → {variable's path: float32 array}, every variable of the model.
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
