"""The layers all networks are made of, under slim's names: the only file that knows which backend it runs on.

A module is built by its parent, inside the parent's name scope, so that `variable.path` is the name the variable has
in a slim checkpoint. Everything else is `keras.ops`; a few TensorFlow fast paths (native and tap-by-tap dilated
convolution, fused batch norm, subsampling) are here because Keras' own are several times slower on a CPU.
"""

import posixpath
from contextlib import contextmanager
from contextvars import ContextVar

import keras
from keras import ops

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
if ON_TENSORFLOW:
    import tensorflow as tf

_recorders = ContextVar("recorders", default=())
_built_on_call = ContextVar("built_on_call", default=False)
_folded = ContextVar("folded", default=False)
_to_be_restored = ContextVar("to_be_restored", default=False)


@contextmanager
def _within(setting, value):
    token = setting.set(value)
    try:
        yield value
    finally:
        setting.reset(token)


@contextmanager
def recording(end_points, only=None):
    """Within it, every module that is one of slim's end points writes its output to the dict under its path.

    only: the one module to do so, while a recording around it goes on.
    """
    around = () if only is None else _recorders.get()
    with _within(_recorders, (*around, (end_points, only))):
        yield end_points


def built_on_call():
    """Within it, building a module leaves its children to their first call: what is not called has no variables."""
    return _within(_built_on_call, True)


def batch_norm_folded():
    """Within it, all that is left of a convolution's batch norm is its beta: for the values of `models.folding`."""
    return _within(_folded, True)


def to_be_restored():
    """Within it, kernels are built as zeros: drawing random ones takes longer than reading those that replace them."""
    return _within(_to_be_restored, True)


class Module(keras.layers.Layer):
    """A layer whose children are known before its input is: building it builds them, nested by name."""

    end_point = None  # the key its output is recorded under, relative to its own path ("" is the path itself)

    def build(self, input_shape=None):
        for child in self._layers:
            if not child.built and not _built_on_call.get():
                child.build()
        self.built = True

    def __call__(self, *args, **kwargs):
        outputs = super().__call__(*args, **kwargs)
        recorders = _recorders.get()
        if recorders and self.end_point is not None:
            path = posixpath.normpath(posixpath.join(self.path, self.end_point))
            for end_points, only in recorders:
                if only is None or only is self:
                    end_points[path] = outputs
        return outputs


class Network(Module, keras.Model):
    """A whole model: what it was built with, which of its variables are backbone and which head, and how it is fed.

    `variable_prefix` is what its variables' paths have before the checkpoint's name: nothing for a backbone, whose
    own name is slim's scope.
    """

    variable_prefix = ""
    backbone_scope = None
    head_scopes = ()
    preprocessing = None

    def stateless_call(self, *args, training=None, **kwargs):
        # Keras goes to `call` here, past `__call__` and the context by which the layers within learn of `training`.
        self._get_call_context().set_value("training", training)
        try:
            return super().stateless_call(*args, training=training, **kwargs)
        finally:
            self._maybe_reset_call_context()

    def end_points(self, images):
        """{slim's key: activation (N, h, w, C)} of one pass in inference mode over images (N, H, W, 3)."""
        with recording({}) as found:
            self(images, training=False)
        return {path.removeprefix(self.variable_prefix): output for path, output in found.items()}


class Scope(Module):
    """Children called one after the other, named as a slim variable scope: `block1`, `unit_1`."""

    def __init__(self, name, layers, end_point=None):
        super().__init__(name=name)
        self.layers = layers
        self.end_point = end_point

    def call(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class BatchNorm(Module):
    """slim.batch_norm over the last axis: `gamma`, `beta`, `moving_mean`, `moving_variance`, all float32.

    Uses and updates batch statistics only when called with `training=True` while it is trainable and its statistics
    are not frozen: a frozen batch norm keeps its moving statistics to the bit. As in slim's fused batch norm, the
    moving variance gets the unbiased batch variance (Bessel's correction). On several devices the statistics are those
    of all their images.
    """

    def __init__(self, channels, epsilon=1e-5, decay=0.997, activation=None, name="BatchNorm"):
        super().__init__(name=name)
        self.channels = channels
        self.epsilon = epsilon
        self.decay = decay
        self.activation = activation
        self.statistics_frozen = False

    def build(self, input_shape=None):
        def weight(name, initial, trainable):
            return self.add_weight(
                name=name,
                shape=(self.channels,),
                initializer=initial,
                trainable=trainable,
                dtype="float32",
                autocast=False,
                aggregation="only_first_replica",  # of what replicas assign: the same, as they share their statistics
            )

        self.gamma = weight("gamma", "ones", True)
        self.beta = weight("beta", "zeros", True)
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)
        self.built = True

    def call(self, x, training=False):
        if training and self.trainable and not self.statistics_frozen:
            x, mean, variance = _normalize_by_batch(x, self.gamma, self.beta, self.epsilon)
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance)
        else:
            x = _normalize(x, self.gamma, self.beta, self.moving_mean, self.moving_variance, self.epsilon)
        return self.activation(x) if self.activation else x

    def _move(self, average, value):
        average.assign(average - (average - value) * (1.0 - self.decay))


class Conv2d(Module):
    """slim.conv2d: convolution, then batch norm (`BatchNorm` inside the layer's scope) or bias, then activation.

    Args:
        in_channels, out_channels: int.
        kernel_size, stride, dilation: int, the same in both directions.
        fixed_padding: where the stride is over 1, pad by hand and equally on both sides (slim's `conv2d_same`), so
            that the output does not depend on whether the input's size is odd or even.
        batch_norm: keyword arguments of `BatchNorm`, or None for a bias instead.
        activation: a function of the output, or None.
        initializer: of the kernel.
        end_point: where slim keeps this layer's output under another name than the layer's own.
    """

    kernel_name = "weights"

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        dilation=1,
        *,
        fixed_padding=False,
        batch_norm=None,
        activation=None,
        initializer="he_normal",
        end_point="",
        name,
    ):
        super().__init__(name=name)
        self.end_point = end_point
        self.kernel_shape = self._kernel_shape(kernel_size, in_channels, out_channels)
        self.out_channels = out_channels
        self.stride = stride
        self.dilation = dilation
        self.padding = (dilation * (kernel_size - 1)) // 2 if fixed_padding and stride > 1 else None
        self.activation = activation
        self.initializer = initializer
        self.normalizer = None if batch_norm is None else BatchNorm(out_channels, **batch_norm)

    @staticmethod
    def _kernel_shape(kernel_size, in_channels, out_channels):
        return (kernel_size, kernel_size, in_channels, out_channels)

    def build(self, input_shape=None):
        initializer = "zeros" if _to_be_restored.get() else self.initializer
        self.kernel = self.add_weight(name=self.kernel_name, shape=self.kernel_shape, initializer=initializer)
        self.bias = None
        if self.normalizer is None:
            self.bias = self.add_weight(name="biases", shape=(self.out_channels,), initializer="zeros")
        super().build()

    def _convolve(self, x):
        if self.padding is None:
            return _convolve(x, self.kernel, self.stride, "SAME", self.dilation)
        # Padded here and not by the convolution: TensorFlow's explicit padding keeps it from its fast CPU kernels.
        pad = (self.padding, self.padding)
        return _convolve(ops.pad(x, ((0, 0), pad, pad, (0, 0))), self.kernel, self.stride, "VALID", self.dilation)

    def call(self, x):
        x = self._convolve(x)
        if self.normalizer is None:
            x = _add_bias(x, ops.cast(self.bias, x.dtype))
        elif _folded.get():
            x = _add_bias(x, ops.cast(self.normalizer.beta, x.dtype))
        else:
            x = self.normalizer(x)
        return self.activation(x) if self.activation else x


class AtrousConv2d(Conv2d):
    """A 3x3 `Conv2d` of stride 1 whose dilation comes near the size of the map, as in ASPP: most taps see padding."""

    def __init__(self, in_channels, out_channels, dilation, **kwargs):
        super().__init__(in_channels, out_channels, 3, dilation=dilation, **kwargs)

    def _convolve(self, x):
        height, width = x.shape[1:3]
        if height is not None and width is not None and max(height, width) <= self.dilation:
            return _convolve(x, self.kernel[1:2, 1:2], 1, "SAME", 1)  # only the middle tap ever meets the map
        return _convolve_atrous(x, self.kernel, self.dilation)


class DepthwiseConv2d(Conv2d):
    """slim.separable_conv2d with no pointwise part: one filter a channel, `depthwise_weights` (k, k, channels, 1)."""

    kernel_name = "depthwise_weights"

    def __init__(self, channels, kernel_size, stride=1, dilation=1, **kwargs):
        super().__init__(channels, channels, kernel_size, stride, dilation, **kwargs)

    @staticmethod
    def _kernel_shape(kernel_size, in_channels, out_channels):
        return (kernel_size, kernel_size, in_channels, 1)

    def _convolve(self, x):
        if self.padding is None:
            return _convolve_depthwise(x, self.kernel, self.stride, "same", self.dilation)
        pad = (self.padding, self.padding)
        return _convolve_depthwise(ops.pad(x, ((0, 0), pad, pad, (0, 0))), self.kernel, self.stride, "valid", self.dilation)


def _convolve_depthwise(x, kernel, stride, padding, dilation):
    # TensorFlow's own kernel knows no dilation in its gradient; Keras goes through SpaceToBatch, which is right in both.
    return ops.depthwise_conv(x, kernel, strides=stride, padding=padding, dilation_rate=dilation)


def strides_and_dilations(strides, output_stride, reached=1):
    """What each of some layers has to do so that all together do not stride further than `output_stride`.

    Until that is reached a layer keeps its stride. After that it strides by 1, and what it would have strided by
    multiplies the dilation of those behind it, not its own: slim's `stack_blocks_dense`.

    strides: of the layers, one after the other; reached: what was strided before them.
    → [(stride, dilation)] of the layers.
    """
    found, dilation = [], 1
    for stride in strides:
        dense = reached * stride > output_stride
        found.append((1 if dense else stride, dilation))
        if dense:
            dilation *= stride
        else:
            reached *= stride
    return found


def max_pool(x, size, stride):
    """(N, H, W, C) → (N, ceil(H / stride), ceil(W / stride), C), padded as TensorFlow's SAME."""
    return ops.max_pool(x, size, strides=stride, padding="same")


def classify(features, logits):
    """Features (N, h, w, C) → float32 (N, num_classes): global mean, then the 1x1 convolution `logits`."""
    x = logits(ops.mean(features, axis=(1, 2), keepdims=True))
    return ops.cast(ops.squeeze(x, axis=(1, 2)), "float32")


UPSAMPLINGS = ("align-corners", "half-pixel", "tf1")


def resize_bilinear(x, height, width, upsampling="align-corners"):
    """(N, h, w, C) → (N, height, width, C) float32, by one of UPSAMPLINGS.

    "align-corners": the corner pixels of both lie on each other: features of stride k sit at pixels 0, k, 2k …, which
    is where the network computed them when the input's size is a multiple of k plus one. "half-pixel": pixels are
    areas, as `tf.image.resize` has it. "tf1": the default of TensorFlow 1's `resize_bilinear`, neither of the two: the
    upper left corners lie on each other and the scale is the quotient of the sizes.
    """
    x = ops.cast(x, "float32")
    n, h, w, c = ops.shape(x)
    rows = ops.matmul(interpolation(h, height, upsampling), ops.reshape(x, (n, h, w * c)))
    return ops.matmul(interpolation(w, width, upsampling), ops.reshape(rows, (n, height, w, c)))


def interpolation(size, new_size, upsampling="align-corners"):
    """float32 (new_size, size): each row weighs the two nearest of `size` points. Sizes may be scalars of a graph."""
    position = ops.arange(new_size, dtype="float32")[:, None]
    last = ops.cast(size - 1, "float32")
    if upsampling == "align-corners":
        position = position * (last / ops.cast(ops.maximum(new_size - 1, 1), "float32"))
    else:
        centre = 0.5 if upsampling == "half-pixel" else 0.0
        position = (position + centre) * ((last + 1.0) / ops.cast(new_size, "float32")) - centre
        position = ops.minimum(ops.maximum(position, 0.0), last)
    return ops.relu(1.0 - ops.abs(position - ops.arange(size, dtype="float32")[None, :]))


def _normalize_plainly(x, gamma, beta, mean, variance, epsilon):
    scale = gamma * ops.rsqrt(variance + epsilon)
    return ops.cast((ops.cast(x, "float32") - mean) * scale + beta, x.dtype)


def _normalize_by_moments(x, gamma, beta, epsilon, moments):
    """Batch norm by `moments` (mean, biased variance) of all the replicas' x → (x, mean, unbiased variance)."""
    mean, variance = moments
    count = ops.cast(ops.size(x) // x.shape[-1] * replicas(), "float32")
    unbiased = variance * (count / ops.maximum(count - 1, 1))
    return _normalize_plainly(x, gamma, beta, mean, variance, epsilon), mean, unbiased


if ON_TENSORFLOW:

    def replicas():
        """How many replicas run this code at the same time, each on its part of the batch."""
        context = tf.distribute.get_replica_context()
        return 1 if context is None else context.num_replicas_in_sync

    def sum_over_replicas(values):
        """A tensor, or a list of them → their sums over the replicas."""
        if replicas() == 1:
            return values
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    def _convolve(x, kernel, stride, padding, dilation):
        # tf.nn.conv2d dilates natively; keras.ops.conv goes through SpaceToBatch, 3x slower a training step.
        return tf.nn.conv2d(x, ops.convert_to_tensor(kernel), stride, padding, dilations=dilation)

    def _convolve_atrous(x, kernel, dilation):
        if None in x.shape[1:3]:
            return _convolve(x, kernel, 1, "SAME", dilation)
        settings = {"strides": [1] * 4, "padding": "SAME", "dilations": [1, dilation, dilation, 1]}

        @tf.custom_gradient
        def by_taps(x, kernel):
            def gradient(dy):  # here the native kernels are the faster ones
                return (
                    tf.raw_ops.Conv2DBackpropInput(input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, **settings),
                    tf.raw_ops.Conv2DBackpropFilter(
                        input=x, filter_sizes=tf.shape(kernel), out_backprop=dy, **settings
                    ),
                )

            return _sum_of_taps(x, kernel, dilation), gradient

        return by_taps(x, tf.convert_to_tensor(kernel))

    def _sum_of_taps(x, kernel, dilation):
        """One 1x1 convolution a tap, over just the part of the map that the tap sees. On a CPU that takes 0.8 times
        the time of the dilated convolution in float32, and in bfloat16, which it has no good kernel for, 0.2 to 0.4."""
        height, width = x.shape[1:3]
        taps = []
        for row in range(3):
            for column in range(3):
                down, right = (row - 1) * dilation, (column - 1) * dilation
                if abs(down) >= height or abs(right) >= width:
                    continue
                top, bottom = max(0, -down), min(height, height - down)
                left, end = max(0, -right), min(width, width - right)
                seen = x[:, top + down : bottom + down, left + right : end + right]
                tap = tf.nn.conv2d(seen, kernel[row : row + 1, column : column + 1], 1, "VALID")
                taps.append(tf.pad(tap, ((0, 0), (top, height - bottom), (left, width - end), (0, 0))))
        return tf.add_n(taps)

    def subsample(x, stride):
        """Every stride-th pixel: slim's 1x1 max pool, which is also several times faster than a strided slice."""
        return x if stride == 1 else tf.nn.max_pool2d(x, 1, stride, "VALID")

    def _add_bias(x, bias):
        return tf.nn.bias_add(x, bias)  # unlike a plain sum, this becomes a part of the convolution

    def _mean_of_all(x):
        """The mean of each channel over all replicas' x (n, H, W, C), which are of one size."""
        return sum_over_replicas(ops.mean(x, axis=(0, 1, 2))) / replicas()

    def _normalize_by_batch(x, gamma, beta, epsilon):
        if replicas() > 1:
            wide = ops.cast(x, "float32")
            mean = _mean_of_all(wide)
            moments = mean, _mean_of_all(ops.square(wide - mean))
            return _normalize_by_moments(x, gamma, beta, epsilon, moments)
        return tf.compat.v1.nn.fused_batch_norm(x, gamma.value, beta.value, epsilon=epsilon, is_training=True)

    def _normalize(x, gamma, beta, mean, variance, epsilon):
        return tf.compat.v1.nn.fused_batch_norm(
            x, gamma.value, beta.value, mean.value, variance.value, epsilon=epsilon, is_training=False
        )[0]

else:

    def replicas():
        """One: under JAX one program computes the whole batch, wherever its parts are."""
        return 1

    def sum_over_replicas(values):
        """The values, which are the whole batch's."""
        return values

    def _convolve(x, kernel, stride, padding, dilation):
        return ops.conv(x, kernel, strides=stride, padding=padding.lower(), dilation_rate=dilation)

    def _convolve_atrous(x, kernel, dilation):
        return _convolve(x, kernel, 1, "SAME", dilation)

    def subsample(x, stride):
        """Every stride-th pixel, as slim's 1x1 max pool."""
        return x if stride == 1 else x[:, ::stride, ::stride, :]

    def _add_bias(x, bias):
        return x + bias

    def _normalize_by_batch(x, gamma, beta, epsilon):
        moments = ops.moments(ops.cast(x, "float32"), axes=(0, 1, 2))
        return _normalize_by_moments(x, gamma, beta, epsilon, moments)

    _normalize = _normalize_plainly
