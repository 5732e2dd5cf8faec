"""This project: its own model, compiled and trained as its scripts do."""

import keras
import tensorflow as tf

from benchmarks.contestants import CLASSES, IGNORE, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY
from models.deeplab_v3 import deeplab_v3


def compiled_model():
    """The one place to change when the way the scripts compile a model does."""
    model = deeplab_v3("resnet_v2_50", num_classes=CLASSES, output_stride=16, multi_grid=(1, 2, 4))
    for variable in model.trainable_weights:
        if variable.name == "weights":
            variable.regularizer = keras.regularizers.L2(WEIGHT_DECAY / 2)
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORE),
        jit_compile=False,
    )
    return model


def build(images, labels, bfloat16):
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if bfloat16 else "float32")
    model = compiled_model()
    batch = tf.constant(images), tf.constant(labels)
    parameters = sum(v.value.shape.num_elements() for v in model.trainable_weights)
    version = f"tensorflow {tf.__version__}, keras {keras.__version__}"
    return lambda: float(model.train_on_batch(*batch)), parameters, version
