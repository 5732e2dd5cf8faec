"""The real TF-Slim as an oracle: its graphs, names, end points and checkpoints, made and read live by TF1's own Saver.

Names are checkpoint names ("resnet_v2_50/conv1/weights"), shapes are tuples, values are NumPy arrays. `net` is the name
of a builder in tf_slim.nets: resnet_v1_50 … resnet_v1_200, resnet_v2_50 … resnet_v2_200. This project is not used here.
Importing raises ModuleNotFoundError where tf_slim or tf_keras is missing, so a test file begins with:

    slim = pytest.importorskip("tests.slim_oracle", reason="needs tf_slim and tf_keras")
"""

import functools
import importlib
import sys
import warnings
import zlib
from contextlib import contextmanager

import numpy as np


def _quiet(function):
    """tf_slim calls what TF deprecated long ago; only its own calls may do so unheard, the suite's may not."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **kwargs)

    return wrapped


@_quiet
def _import_slim():
    """tf_slim looks for TF1's layer classes where tf_keras kept them before 2.16; show it where they are now."""
    old, new = "tf_keras.legacy_tf_layers", "tf_keras.src.legacy_tf_layers"
    for module in ("", ".base", ".convolutional", ".core", ".normalization", ".pooling"):
        sys.modules.setdefault(old + module, importlib.import_module(new + module))
    importlib.import_module("tf_slim")
    return importlib.import_module("tensorflow").compat.v1


tf1 = _import_slim()


def _build(net, images, num_classes=None, **kwargs):
    """Adds slim's graph under the net's own arg_scope to the default graph; returns (output, end_points)."""
    module = importlib.import_module(f"tf_slim.nets.{net.rpartition('_')[0]}")
    from tf_slim.ops.arg_scope import arg_scope

    with arg_scope(module.resnet_arg_scope(weight_decay=0.0)):  # the losses would only slow the graph down
        return getattr(module, net)(images, num_classes, **{"is_training": False, **kwargs})


@contextmanager
def _session(net, num_classes, shape=(1, 33, 33, 3), **kwargs):
    """A fresh graph of the net on a placeholder: yields (session, images, output, end_points)."""
    tf1.disable_tensor_equality()  # else slim compares each new variable to all others: four times slower
    try:
        with tf1.Graph().as_default(), tf1.Session() as session:
            tf1.get_variable_scope().set_use_resource(False)  # TF1's plain variables: half the ops
            images = tf1.placeholder("float32", shape)
            yield session, images, *_build(net, images, num_classes, **kwargs)
    finally:
        tf1.enable_tensor_equality()


def _model_variables():
    return tf1.get_collection(tf1.GraphKeys.MODEL_VARIABLES)


def _add_extras(momentum, ema, global_step):
    """What a training run keeps beside the model, under the names that TF1's own classes give it."""
    model = _model_variables()
    if global_step:
        tf1.train.create_global_step()
    if momentum:  # zero gradients: back-propagation would double the graph, and slots are made all the same
        optimizer = tf1.train.MomentumOptimizer(0.1, 0.9)
        optimizer.apply_gradients([(tf1.zeros(v.shape), v) for v in tf1.trainable_variables()])
    if ema:  # apply() would add a conditional for each variable, which takes longer than all the rest
        name_of = tf1.train.ExponentialMovingAverage(0.9999).average_name
        for v in model:
            tf1.get_variable(name_of(v), v.shape, initializer=tf1.zeros_initializer(), trainable=False)


def _random_value(name, shape, seed):
    """A sane value that depends on (name, seed) alone, so the same in every graph that has the variable."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    name = name.removesuffix("/ExponentialMovingAverage")
    kind = name.rpartition("/")[2]
    if kind == "moving_variance":
        return rng.uniform(0.7, 1.3, shape).astype("float32")
    if kind == "gamma":
        return rng.uniform(0.8, 1.2, shape).astype("float32")
    # He's weights keep the activations' scale; a small last conv keeps the sum over a hundred residual units small
    scale = np.sqrt(2 / np.prod(shape[:-1])) if kind == "weights" else 0.1
    scale *= 0.25 if name.endswith("/conv3/weights") else 1.0
    return rng.standard_normal(shape, "float32") * np.float32(scale)


@_quiet
def slim_variables(net, num_classes=None, **kwargs):
    """{name: shape} of slim's model variables (moving statistics included), in the order slim creates them.

    `kwargs` go to slim's builder (output_stride, global_pool …).
    """
    with _session(net, num_classes, **kwargs):
        return {v.op.name: tuple(v.shape) for v in _model_variables()}


@_quiet
def write_checkpoint(
    prefix,
    net,
    num_classes=None,
    *,
    seed=0,
    v1=False,
    momentum=False,
    ema=False,
    global_step=None,
    randomize=True,
    extra=None,
):
    """Saves slim's graph with TF1's Saver and returns {name: array} of all that is in the checkpoint.

    v1: one file named `prefix`, as in the published tarballs; else the V2 pair `prefix.index`, `prefix.data-…`.
    momentum, ema: also `<variable>/Momentum` of the trainable variables, `<variable>/ExponentialMovingAverage` of all.
    global_step: an int adds that variable. extra: {name: array} of further variables (mean_rgb, somebody's Adam).
    randomize: every variable, moving statistics and slots included, gets a value of its own from (name, seed), scaled
    so that activations stay O(1); False keeps the initializers (gamma 1, slots 0), which would hide mix-ups.
    No `checkpoint` state file and no `.meta` are written. The published resnet_v2_50.ckpt in kind and number (719):
    write_checkpoint(path, "resnet_v2_50", 1001, v1=True, momentum=True, ema=True, global_step=0).
    """
    given = dict(extra or {})
    with _session(net, num_classes) as (session, *_):
        _add_extras(momentum, ema, global_step is not None)
        for name, value in given.items():
            tf1.get_variable(name, initializer=tf1.constant(value), trainable=False)
        variables = {v.op.name: v for v in tf1.global_variables()}
        if global_step is not None:
            given["global_step"] = np.int64(global_step)
        if randomize:
            given = {n: _random_value(n, tuple(v.shape), seed) for n, v in variables.items() if n not in given} | given
        # an initializer takes a fed value as well as its own: everything is set in one call
        feed = {variables[name].initializer.inputs[1]: value for name, value in given.items()}
        session.run([v.initializer for v in variables.values()], feed)
        version = tf1.train.SaverDef.V1 if v1 else tf1.train.SaverDef.V2
        saver = tf1.train.Saver(variables, write_version=version)
        saver.save(session, str(prefix), write_meta_graph=False, write_state=False)
        return session.run(variables)


@_quiet
def slim_restore(net, prefix, num_classes=None, *, momentum=False, ema=False, global_step=False):
    """{name: array} as TF1's Saver restores them into slim's graph; it raises when one that is asked for is missing."""
    with _session(net, num_classes) as (session, *_):
        _add_extras(momentum, ema, global_step)
        variables = {v.op.name: v for v in tf1.global_variables()}
        tf1.train.Saver(variables).restore(session, str(prefix))
        return session.run(variables)


@_quiet
def slim_end_points(net, checkpoint, images, num_classes=None, *, output_stride=None, global_pool=True):
    """{key: array} of all that slim's graph, restored from `checkpoint`, makes of images (N, H, W, 3), in inference.

    The keys are slim's own; beside them v2 nets get `<net>/postnorm` (after its ReLU), which slim does not list, and
    nets with a global pool get `global_pool`, which tf_slim, older than the models' repository, does not.
    With num_classes there are `<net>/logits` and `predictions` too: (N, 1, 1, C), or (N, h, w, C) unless global_pool.
    """
    images = np.asarray(images, "float32")
    kwargs = {"output_stride": output_stride, "global_pool": global_pool}
    with _session(net, num_classes, images.shape, **kwargs) as (session, feed, _, end_points):
        if "_v2_" in net:
            end_points[f"{net}/postnorm"] = session.graph.get_tensor_by_name(f"{net}/postnorm/Relu:0")
        if global_pool:
            end_points["global_pool"] = session.graph.get_tensor_by_name(f"{net}/pool5:0")
        tf1.train.Saver(_model_variables()).restore(session, str(checkpoint))
        return session.run(dict(end_points), {feed: images})
