"""train_seg.py with a DeepLab v3 small enough to train in seconds: `python -m tests.small_training FLAGS`.

Its kernels are drawn by NumPy: the same under every backend, and JAX would compile a program for each shape.
"""

import os
import sys
from unittest.mock import patch

import numpy as np

import command_line
import train_seg

START = "START_FROM"  # environment variable: a run directory of this module, whose weights a new run starts from


def kernel(self, shape, dtype=None):
    """Stands in for Keras' initializers."""
    rng = np.random.default_rng(np.random.SeedSequence(shape))
    return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))).astype("float32")


def build(config, batch_norm_decay):
    """resnet_v2_50's names with one unit a block and 8 channels."""
    from models.deeplab_v3 import DeepLabV3
    from models.resnet import Bottleneck, ResNet

    net = ResNet("resnet_v2_50", Bottleneck, (1, 1, 1, 1), width=8, output_stride=16, batch_norm_decay=batch_norm_decay)
    model = DeepLabV3(net, config["num_classes"], batch_norm_decay=batch_norm_decay)
    model.build()
    if START in os.environ:
        from models.weight_init import model_guided_init

        model_guided_init(model, os.environ[START], strict=True)
    return model


def main(flags):
    import keras

    with (
        patch("inference.opening.build_segmenter", build),
        patch.object(keras.initializers.VarianceScaling, "__call__", kernel),
        patch.object(keras.initializers.TruncatedNormal, "__call__", kernel),
        patch("inference.evaluation.prediction_sheet", lambda *_: np.zeros((8, 8, 3), np.uint8)),
    ):
        train_seg.main(["--ckpt", "none", "--model", "resnet_v2_50", *flags])


if __name__ == "__main__":
    command_line.run(lambda: main(sys.argv[1:]))
