"""Small networks under whichever backend Keras is told: `python -m tests.backend_contestant GIVEN.npz MADE.npz`.

Reads {variable's path: array} with `images` and `labels`; writes every network's outputs and end points, the loss of
one training step of DeepLab v3 and its variables after it. Fails when another backend imported TensorFlow on the way.
"""

import sys
from unittest.mock import patch

import numpy as np


def build():
    """→ (DeepLab v3 on a tiny ResNet v2, [the other families' backbones]), not yet initialized."""
    import keras

    from models import mobilenet_edgetpu, mobilenet_v1, mobilenet_v2, mobilenet_v3
    from models.deeplab_v3 import DeepLabV3
    from models.resnet import Bottleneck, BottleneckV1, LiteBottleneckV1, ResNet
    from models.xception import Xception

    def zeros(self, shape, dtype=None):
        return np.zeros(shape, "float32")

    cell = {
        "head": "dense-prediction-cell",
        "head_channels": 8,
        "decoder": "separable",
        "low_level": "entry_flow/block1/unit_1/xception_module/separable_conv2_pointwise",
    }
    windows = {"image_pooling_crop_size": (33, 33), "image_pooling_stride": (1, 2)}
    tiny = {"units": (1, 1, 1, 1), "width": 8, "output_stride": 16}
    first_units = mobilenet_v2.INVERTED_RESIDUALS[:7]
    with (
        patch.object(keras.initializers.VarianceScaling, "__call__", zeros),  # JAX compiles anew for each shape
        patch.object(mobilenet_v2, "INVERTED_RESIDUALS", first_units),
        patch.object(mobilenet_v1, "SEPARABLE_CONVOLUTIONS", mobilenet_v1.SEPARABLE_CONVOLUTIONS[:5]),
        patch.object(mobilenet_edgetpu, "FUSED", mobilenet_edgetpu.FUSED[:3]),
        patch.object(mobilenet_edgetpu, "DEPTHWISE", mobilenet_edgetpu.DEPTHWISE[7:10]),
        patch.dict(mobilenet_v3.KINDS, few=(mobilenet_v3.SMALL[:4], None, "expanded_conv_2/depthwise")),
    ):
        model = DeepLabV3(ResNet("v2", Bottleneck, batch_norm_decay=0.9, **tiny), num_classes=3, batch_norm_decay=0.9)
        v1 = ResNet("v1", BottleneckV1, num_classes=4, **tiny)
        model.build()
        v1.build()
        mobile = mobilenet_v2.mobilenet_v2(depth_multiplier=0.35, output_stride=8, include_last_conv=False)
        others = [
            ResNet("lite", LiteBottleneckV1, root=(4, 4, 8), **tiny),
            DeepLabV3(Xception("net", ((8, 2), (8, 2)), 0, output_stride=8), 3, name="xception", **cell),
            mobilenet_v1.MobileNetV1(depth_multiplier=0.25, output_stride=8),
            DeepLabV3(mobilenet_v3.MobileNetV3("few"), 3, name="v3", head="lr-aspp", head_channels=8, **windows),
            mobilenet_edgetpu.MobileNetEdgeTPU(depth_multiplier=0.25),
        ]
        for net in others:
            net.build()
    return model, [v1, mobile, *others]


def variables_of(model, others):
    return {variable.path: variable for net in (model, *others) for variable in net.variables}


def main(source, target):
    import keras

    from models.layers import recording

    on_jax = keras.backend.backend() == "jax"
    if on_jax:
        import jax
    model, others = build()
    given = dict(np.load(source))
    images, labels = given.pop("images"), given.pop("labels")
    variables = variables_of(model, others)
    assert variables.keys() == given.keys()
    for name, variable in variables.items():
        variable.assign(given[name])
    made = {}
    for net in (model, *others):

        def outputs(images, net=net):
            with recording({}) as found:
                found[""] = net(images)
            return found

        if on_jax:  # at once: it would compile each operation by itself
            outputs = jax.jit(outputs)
        made |= {f"output:{net.name}:{key}": np.asarray(x) for key, x in outputs(images).items()}

    model.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255),
        jit_compile=on_jax,
    )
    made["loss"] = model.train_on_batch(images, labels)
    made |= {f"variable:{name}": np.asarray(variable) for name, variable in variables.items()}
    foreign = sorted(name for name in sys.modules if name.split(".")[0] in ("tensorflow", "tf_keras"))
    assert not (on_jax and foreign), f"imported on the way: {foreign[:3]}"
    np.savez(target, **made)


if __name__ == "__main__":
    main(*sys.argv[1:])
