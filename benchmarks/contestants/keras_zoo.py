"""Two networks of the zoo of stock Keras layers: Conv2D, DepthwiseConv2D, BatchNormalization, Resizing.

`SeparableConv2D` has no place for the batch norm that the originals have between its two halves, so each is a
DepthwiseConv2D and a Conv2D. Padding is "same" throughout, which costs what the originals' costs.
"""

import keras
import tensorflow as tf
from keras import layers, ops

from benchmarks.contestants import CLASSES, RATES
from models import mobilenet_v3
from models.layers import strides_and_dilations
from models.mobilenet_v2 import make_divisible


def _norm(x, activation="relu", epsilon=1e-3):
    x = layers.BatchNormalization(epsilon=epsilon)(x)
    return layers.Activation(activation)(x) if activation else x


def _conv(x, filters, size=1, stride=1, use_bias=False, activation=None):
    return layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=use_bias, activation=activation)(x)


def _depthwise(x, size=3, stride=1, dilation=1):
    return layers.DepthwiseConv2D(size, strides=stride, padding="same", dilation_rate=dilation, use_bias=False)(x)


def _separable(x, filters, stride=1, dilation=1, activation="relu", epsilon=1e-5):
    x = _norm(_depthwise(x, 3, stride, dilation), activation, epsilon)
    return _norm(_conv(x, filters), activation, epsilon)


def _resized(x, like):
    return layers.Resizing(like.shape[1], like.shape[2], interpolation="bilinear")(x)


def _xception_module(x, widths, shortcut, stride, dilation, inside=False):
    """→ the module's output, and that of its second convolution."""
    y, found = x, []
    for index, width in enumerate(widths):
        y = y if inside else layers.ReLU()(y)
        y = _separable(y, width, stride if index == 2 else 1, dilation, "relu" if inside else None, 1e-3)
        found.append(y)
    if shortcut == "conv":
        y = layers.Add()([y, _norm(_conv(x, widths[-1], 1, stride), None)])
    elif shortcut == "sum":
        y = layers.Add()([y, x])
    return y, found[1]


def xception_65(size):
    """DeepLab v3+ at output stride 16, as published for VOC."""
    images = keras.Input((size, size, 3))
    x = _norm(_conv(_norm(_conv(images, 32, 3, 2)), 64, 3))
    x, _ = _xception_module(x, [128] * 3, "conv", 2, 1)
    x, low_level = _xception_module(x, [256] * 3, "conv", 2, 1)
    x, _ = _xception_module(x, [728] * 3, "conv", 2, 1)
    for _ in range(16):
        x, _ = _xception_module(x, [728] * 3, "sum", 1, 1)
    x, _ = _xception_module(x, (728, 1024, 1024), "conv", 1, 1)
    x, _ = _xception_module(x, (1536, 1536, 2048), "none", 1, 2, inside=True)

    pooled = _norm(_conv(layers.GlobalAveragePooling2D(keepdims=True)(x), 256), epsilon=1e-5)
    branches = [layers.UpSampling2D(x.shape[1])(pooled), _norm(_conv(x, 256), epsilon=1e-5)]
    branches += [_separable(x, 256, dilation=rate) for rate in RATES]
    x = _norm(_conv(layers.Concatenate()(branches), 256), epsilon=1e-5)
    low_level = _norm(_conv(low_level, 48), epsilon=1e-5)
    x = layers.Concatenate()([_resized(x, low_level), low_level])
    x = _separable(_separable(x, 256), 256)
    return keras.Model(images, _resized(_conv(x, CLASSES, use_bias=True), images))


def mobilenet_v3_large_seg(size):
    """Lite R-ASPP at output stride 16."""
    images = keras.Input((size, size, 3))
    x = _norm(_conv(images, 16, 3, 2), "hard_swish")
    units = mobilenet_v3.KINDS["large_seg"][0]
    rates = strides_and_dilations([stride for *_, stride in units], 16, reached=2)
    for index, (unit, (stride, dilation)) in enumerate(zip(units, rates, strict=True)):
        kernel_size, expanded, width, squeeze_excite, activation, _ = unit
        name = "relu" if activation is mobilenet_v3.RE else "hard_swish"
        y = x if expanded == x.shape[-1] else _norm(_conv(x, expanded), name)
        y = _norm(_depthwise(y, kernel_size, stride, dilation), name)
        if index == 5:
            low_level = y
        if squeeze_excite:
            gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
            gate = _conv(gate, make_divisible(expanded / 4), use_bias=True, activation="relu")
            y = layers.Multiply()([y, _conv(gate, expanded, use_bias=True, activation="hard_sigmoid")])
        y = _norm(_conv(y, width), None)
        x = layers.Add()([x, y]) if stride == 1 and width == x.shape[-1] else y
    x = _norm(_conv(x, 6 * x.shape[-1]), "hard_swish")

    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = _conv(gate, 128, use_bias=True, activation="hard_sigmoid")
    x = layers.Multiply()([_norm(_conv(x, 128), epsilon=1e-5), gate])
    x = _conv(_resized(x, low_level), CLASSES, use_bias=True)
    x = layers.Add()([x, _conv(low_level, CLASSES, use_bias=True)])
    return keras.Model(images, _resized(x, images))


def predictor(network, size):
    """→ (labels, parameters, version), where labels(image) is uint8 (H, W) of the uint8 RGB (H, W, 3) `image`."""
    model = {"xception_65": xception_65, "mobilenet_v3_large_seg": mobilenet_v3_large_seg}[network](size)

    @tf.function(jit_compile=False)
    def labels(image):
        logits = model(tf.cast(image[None], "float32") / 127.5 - 1.0, training=False)
        return ops.cast(ops.argmax(logits, axis=-1)[0], "uint8")

    parameters = sum(v.value.shape.num_elements() for v in model.trainable_weights)
    return lambda image: labels(tf.constant(image)).numpy(), parameters, f"keras {keras.__version__}"
