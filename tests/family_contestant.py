"""Every family of networks, small, under whichever backend Keras is told: `python -m tests.family_contestant FOLDER`.

Each is given weights by a formula; its output and the gradients of all its variables go to FOLDER/BACKEND.npz. Under
TensorFlow each is saved as FOLDER/NAME.ckpt; the other backends load that file. Fails when building or running a
network imported another backend's TensorFlow.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np

from tests.golden_networks import OpenWeights, weight
from tests.networks import images_of

FAMILIES = (
    "resnet_v2",
    "resnet_v1_beta",
    "xception",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3",
    "mobilenet_edgetpu",
    "deeplab_v3",
    "deeplab_v3plus",
    "dense_prediction_cell",
    "lr_aspp",
)


def _builders():
    """{one of FAMILIES: function that builds it}, of few units."""
    from models import mobilenet_v3
    from models.deeplab_v3 import DeepLabV3
    from models.mobilenet_edgetpu import mobilenet_edgetpu
    from models.mobilenet_v1 import mobilenet_v1
    from models.mobilenet_v2 import mobilenet_v2
    from models.resnet import Bottleneck, BottleneckV1, ResNet
    from models.xception import Xception

    entry = ((8, 2), (16, 2), (728, 2))
    units = {"units": (2, 1, 1, 1), "width": 8}

    def resnet(**options):
        return ResNet("resnet_v2_50", Bottleneck, **units, **options)

    def segmenter(backbone, **options):
        return DeepLabV3(backbone, 3, head_channels=16, **options)

    return {
        "resnet_v2": lambda: resnet(num_classes=4),
        "resnet_v1_beta": lambda: ResNet("resnet_v1_50", BottleneckV1, num_classes=4, root=(8, 8, 16), **units),
        "xception": lambda: Xception("xception_41", entry, 1, output_stride=16, multi_grid=(1, 2, 1)),
        "mobilenet_v1": lambda: mobilenet_v1(num_classes=4, depth_multiplier=0.25),
        "mobilenet_v2": lambda: mobilenet_v2(num_classes=4, depth_multiplier=0.35),
        "mobilenet_v3": lambda: mobilenet_v3.mobilenet_v3_small(num_classes=4, output_stride=16),
        "mobilenet_edgetpu": lambda: mobilenet_edgetpu(num_classes=4, depth_multiplier=0.25),
        "deeplab_v3": lambda: segmenter(resnet(output_stride=8, multi_grid=(2,))),
        "deeplab_v3plus": lambda: segmenter(
            mobilenet_v2(depth_multiplier=0.35, output_stride=16, include_last_conv=False),
            separable_aspp=True,
            decoder="separable",
        ),
        "dense_prediction_cell": lambda: segmenter(resnet(output_stride=16), head="dense-prediction-cell"),
        "lr_aspp": lambda: segmenter(
            mobilenet_v3.mobilenet_v3_small_seg(output_stride=16), head="lr-aspp", image_pooling_crop_size=(33, 33)
        ),
    }


def _shortened():
    """A context within which the mobile networks are shorter."""
    from models import mobilenet_edgetpu, mobilenet_v1, mobilenet_v2, mobilenet_v3

    small = mobilenet_v3.SMALL[:6]
    kinds = {"small": (small, 64), "small_seg": (mobilenet_v3.for_segmentation(small), None)}
    stack = ExitStack()
    for module, name, value in (
        (mobilenet_edgetpu, "FUSED", mobilenet_edgetpu.FUSED[:3]),
        (mobilenet_edgetpu, "DEPTHWISE", mobilenet_edgetpu.DEPTHWISE[:2]),
        (mobilenet_v1, "SEPARABLE_CONVOLUTIONS", mobilenet_v1.SEPARABLE_CONVOLUTIONS[:5]),
        (mobilenet_v2, "INVERTED_RESIDUALS", mobilenet_v2.INVERTED_RESIDUALS[:7]),
        (mobilenet_v3, "KINDS", {kind: (*of, "expanded_conv_2/depthwise") for kind, of in kinds.items()}),
    ):
        stack.enter_context(patch.object(module, name, value))
    return stack


def build():
    """→ {one of FAMILIES: its small network}, with kernels of zeros."""
    import keras

    from models.layers import to_be_restored

    with _shortened(), to_be_restored():
        nets = {}
        for name, builder in _builders().items():
            with keras.name_scope("deeplab_v3"):  # what a DeepLab's backbone is built in; no part of another's names
                nets[name] = builder()
            nets[name].build()
    return nets


def output_and_gradients(backend, net, images):
    """One pass in inference mode → its output, and {name: gradient} of the sum of output times fixed numbers."""
    from models.weight_init import named_variables

    named = {name: v for name, v in named_variables(net).items() if v.trainable}
    run = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}[backend]
    output, gradients = run(net, images, [*named.values()])
    return output, dict(zip(named, gradients, strict=True))


def _direction(shape):
    return np.random.default_rng(1).standard_normal(shape).astype("float32")


def _on_tensorflow(net, images, variables):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        output = net(images, training=False)
        loss = tf.reduce_sum(output * _direction(output.shape))
    return output.numpy(), [g.numpy() for g in tape.gradient(loss, [v.value for v in variables])]


def _on_jax(net, images, variables):
    import jax

    fixed = [v.value for v in net.non_trainable_variables]

    def loss_of(trained):
        output, _ = net.stateless_call(trained, fixed, images, training=False)
        return (output * _direction(output.shape)).sum(), output

    found, output = jax.jit(jax.grad(loss_of, has_aux=True))([v.value for v in net.trainable_variables])
    of = {v.path: gradient for v, gradient in zip(net.trainable_variables, found, strict=True)}
    return np.asarray(output), [np.asarray(of[v.path]) for v in variables]


def _on_torch(net, images, variables):
    import torch

    assert isinstance(net, torch.nn.Module)
    output = net(torch.from_numpy(images), training=False)
    (output * torch.from_numpy(_direction(tuple(output.shape)))).sum().backward()
    return output.detach().numpy(), [v.value.grad.numpy() for v in variables]


def main(folder):
    import keras

    from models.weight_init import checkpoint_guided_init, named_variables, save_checkpoint

    backend = keras.backend.backend()
    nets, made = build(), {}
    for family, net in nets.items():
        shapes = {name: tuple(v.shape) for name, v in named_variables(net).items()}
        values = {name: weight(name, shape) for name, shape in shapes.items()}
        checkpoint_guided_init(net, OpenWeights(family, values), strict=True)
        output, gradients = output_and_gradients(backend, net, images_of((49, 65)))
        made |= {f"{family}:output": output} | {f"{family}:gradient:{name}": g for name, g in gradients.items()}
    foreign = sorted(name for name in sys.modules if name.split(".")[0] in ("tensorflow", "tf_keras"))
    assert backend == "tensorflow" or not foreign, f"imported on the way: {foreign[:3]}"

    for family, net in nets.items():
        path = Path(folder) / f"{family}.ckpt"
        if backend == "tensorflow":
            save_checkpoint(net, path)
            continue
        for variable in net.weights:
            variable.assign(np.zeros(variable.shape, "float32"))
        checkpoint_guided_init(net, path, strict=True)  # with TensorFlow's reader
        for name, variable in named_variables(net).items():
            expected = weight(name, tuple(variable.shape))
            assert np.array_equal(np.asarray(variable), expected), f"{family}: {name}"
    np.savez(Path(folder) / f"{backend}.npz", **made)


if __name__ == "__main__":
    main(*sys.argv[1:])
