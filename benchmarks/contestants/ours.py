"""This project: its own model, compiled and trained as its scripts do."""

from types import SimpleNamespace

import keras
import tensorflow as tf

from benchmarks.contestants import CLASSES, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY
from engine.device import set_precision
from engine.training import compile_model, segmentation_loss
from models.deeplab_v3 import deeplab_v3

RECIPE = SimpleNamespace(
    learning_rate=LEARNING_RATE,
    momentum=MOMENTUM,
    weight_decay=WEIGHT_DECAY,
    steps=30_000,
    power=0.9,
    restored_lr=1.0,
    histograms=False,
)


def build(images, labels, bfloat16):
    set_precision("bfloat16" if bfloat16 else "float32")
    model = deeplab_v3("resnet_v2_50", num_classes=CLASSES, output_stride=16, multi_grid=(1, 2, 4))
    compile_model(model, RECIPE, segmentation_loss())
    batch = tf.constant(images), tf.constant(labels)
    parameters = sum(v.value.shape.num_elements() for v in model.trainable_weights)
    version = f"tensorflow {tf.__version__}, keras {keras.__version__}"
    return lambda: float(model.train_on_batch(*batch)), parameters, version
