"""The same network of stock Keras layers: Conv2D(dilation_rate=), BatchNormalization, Resizing."""

import time

import keras
import tensorflow as tf
from keras import layers

from benchmarks.contestants import (
    CHANNELS,
    CLASSES,
    DECAY,
    EPSILON,
    IGNORE,
    LEARNING_RATE,
    MOMENTUM,
    RATES,
    WEIGHT_DECAY,
    units,
)


def _conv(x, filters, size, stride=1, dilation=1, use_bias=False):
    if stride > 1 and size > 1:
        x = layers.ZeroPadding2D(size // 2)(x)
    return layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        dilation_rate=dilation,
        use_bias=use_bias,
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(WEIGHT_DECAY / 2),
    )(x)


def _norm(x):
    return layers.ReLU()(layers.BatchNormalization(momentum=DECAY, epsilon=EPSILON)(x))


def _bottleneck(x, width, stride, dilation):
    preact = _norm(x)
    if x.shape[-1] != 4 * width:
        shortcut = _conv(preact, 4 * width, 1, stride, use_bias=True)
    else:
        shortcut = layers.MaxPooling2D(1, stride)(x) if stride > 1 else x
    y = _norm(_conv(preact, width, 1))
    y = _norm(_conv(y, width, 3, stride, dilation))
    return layers.Add()([shortcut, _conv(y, 4 * width, 1, use_bias=True)])


def network(size):
    images = keras.Input((size, size, 3))
    x = _conv(images, 64, 7, 2, use_bias=True)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for _, width, stride, dilation in units():
        x = _bottleneck(x, width, stride, dilation)
    x = _norm(x)
    pooled = _norm(_conv(layers.GlobalAveragePooling2D(keepdims=True)(x), CHANNELS, 1))
    branches = [layers.UpSampling2D(x.shape[1])(pooled), _norm(_conv(x, CHANNELS, 1))]
    branches += [_norm(_conv(x, CHANNELS, 3, dilation=rate)) for rate in RATES]
    x = _norm(_conv(layers.Concatenate()(branches), CHANNELS, 1))
    x = _conv(x, CLASSES, 1, use_bias=True)
    return keras.Model(images, layers.Resizing(size, size, dtype="float32")(x))


def build(images, labels, bfloat16):
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if bfloat16 else "float32")
    model = network(images.shape[1])
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORE),
        jit_compile=False,
    )
    batch = tf.constant(images), tf.constant(labels)
    parameters = sum(v.value.shape.num_elements() for v in model.trainable_weights)
    return lambda: float(model.train_on_batch(*batch)), parameters, f"keras {keras.__version__}"


def forward_macs(size):
    """Multiplications of one image's forward pass, in the convolutions alone, those with padding counted too."""
    convs = [layer for layer in network(size).layers if isinstance(layer, layers.Conv2D)]
    return sum(c.output.shape[1] * c.output.shape[2] * c.kernel.value.shape.num_elements() for c in convs)


def matmul_seconds(n, bfloat16):
    a = tf.random.normal((n, n), dtype="bfloat16" if bfloat16 else "float32")
    start = time.perf_counter()
    float(tf.matmul(a, a)[0, 0])
    return time.perf_counter() - start
