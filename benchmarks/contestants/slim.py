"""The same network as a TF-Slim graph, trained by session.run as the tutorials do; float32 only, as they are."""

import functools

import tensorflow as tf

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
from tests import slim_oracle  # importing it is what makes tf_slim importable on today's TensorFlow

tf1 = slim_oracle.tf1


def _network(images):
    import tf_slim as slim
    from tf_slim.nets import resnet_v2

    blocks = {}
    for scope, width, stride, dilation in units():
        # slim's own unit gets its rate from the output stride alone; multi-grid sets it for each unit
        unit = {"depth": 4 * width, "depth_bottleneck": width, "stride": stride, "dilation": dilation}
        blocks.setdefault(scope.partition("/")[0], []).append(unit)

    def bottleneck(net, *, rate, dilation, **kwargs):
        del rate  # always 1: the strides given here are the ones to be had
        return resnet_v2.bottleneck(net, rate=dilation, **kwargs)

    blocks = [resnet_v2.resnet_utils.Block(name, bottleneck, args) for name, args in blocks.items()]
    with slim.arg_scope(resnet_v2.resnet_arg_scope(WEIGHT_DECAY, DECAY, EPSILON)):
        with slim.arg_scope([slim.batch_norm], is_training=True):
            net, _ = resnet_v2.resnet_v2(images, blocks, global_pool=False, scope="resnet_v2_50")
            pooled = slim.conv2d(tf1.reduce_mean(net, [1, 2], keepdims=True), CHANNELS, 1, scope="image_pooling")
            branches = [tf1.image.resize_bilinear(pooled, net.shape[1:3], align_corners=True)]
            branches += [slim.conv2d(net, CHANNELS, 1, scope="aspp0")]
            branches += [slim.conv2d(net, CHANNELS, 3, rate=r, scope=f"aspp{i}") for i, r in enumerate(RATES, 1)]
            net = slim.conv2d(tf1.concat(branches, 3), CHANNELS, 1, scope="concat_projection")
        net = slim.conv2d(net, CLASSES, 1, activation_fn=None, normalizer_fn=None, scope="logits/semantic")
        return tf1.image.resize_bilinear(net, images.shape[1:3], align_corners=True)


def _train_op(logits, labels):
    valid = tf1.not_equal(labels, IGNORE)
    tf1.losses.sparse_softmax_cross_entropy(
        tf1.where(valid, labels, tf1.zeros_like(labels)), logits, tf1.to_float(valid)
    )
    loss = tf1.losses.get_total_loss()
    with tf1.control_dependencies(tf1.get_collection(tf1.GraphKeys.UPDATE_OPS)):
        optimizer = tf1.train.MomentumOptimizer(LEARNING_RATE, MOMENTUM)
        return optimizer.minimize(loss, tf1.train.get_or_create_global_step()), loss


def build(images, labels, bfloat16):
    del bfloat16
    with tf1.Graph().as_default():
        x, y = tf1.placeholder("float32", images.shape), tf1.placeholder("int32", labels.shape)
        run = _train_op(_network(x), y)
        session = tf1.Session()
        session.run(tf1.global_variables_initializer())
        parameters = sum(v.shape.num_elements() for v in tf1.trainable_variables())
    step = functools.partial(session.run, run, {x: images, y: labels})
    return lambda: float(step()[1]), parameters, f"tf_slim 1.1 on tensorflow {tf.__version__}"
