"""Networks as Keras models: saved, loaded, cloned, in functional models, fed wrong inputs; names stay slim's."""

import copy
import inspect
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import models.mobilenet_edgetpu
import models.mobilenet_v1
import models.mobilenet_v2
from models.deeplab_v3 import BACKBONES, DeepLabV3, deeplab_v3
from models.freezing import freeze, freeze_batch_norm, learning_names, train_only
from models.mobilenet_edgetpu import mobilenet_edgetpu
from models.mobilenet_v1 import mobilenet_v1
from models.mobilenet_v2 import mobilenet_v2
from models.mobilenet_v3 import KINDS, mobilenet_v3_small
from models.preprocessing import Preprocessing
from models.resnet import BasicBlock, Bottleneck, BottleneckV1, LiteBottleneckV1, ResNet
from models.taps import tap
from models.weight_init import checkpoint_guided_init, named_variables, save_checkpoint
from models.xception import Xception
from tests.conftest import QUICK_JAX, assert_same, read_all
from tests.networks import images_of, randomize, values_of
from training.losses import CrossEntropy
from training.optimizer import Momentum

# Keras reads HDF5's datasets in a way that NumPy 2 only just allows.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SIZE = (49, 65)


def resnet(block=Bottleneck, built=True, last_units=1, **kwargs):
    net = ResNet("net", block, (1, 1, 1, last_units), width=8, **kwargs)
    if built:
        net.build()
    return net


def small_xception(**kwargs):
    net = Xception("net", ((8, 2), (8, 2)), 0, **kwargs)
    net.build()
    return net


def segmenter(backbone, **kwargs):
    model = DeepLabV3(backbone, 3, **kwargs)
    model.build()
    return model


NETWORKS = {
    "v2 basic": lambda: resnet(BasicBlock, num_classes=3),
    "v2 bottleneck": lambda: resnet(last_units=2, output_stride=8, multi_grid=(1, 2)),
    "v1": lambda: resnet(BottleneckV1, num_classes=3, output_stride=16),
    "mobilenet": lambda: mobilenet_v2(depth_multiplier=0.35, num_classes=3, output_stride=16),
    "deeplab on v2": lambda: segmenter(
        resnet(built=False, output_stride=8), features="block4", upsampling="half-pixel", atrous_rates=(3, 4)
    ),
    "deeplab on v1": lambda: segmenter(resnet(BottleneckV1, built=False, output_stride=16), name="other"),
    "deeplab on mobilenet": lambda: deeplab_v3("mobilenet_v2", 3, depth_multiplier=0.35),
    "deeplab with a decoder": lambda: deeplab_v3(
        "mobilenet_v2",
        3,
        depth_multiplier=0.35,
        divisible_by=1,
        decoder="separable",
        separable_aspp=True,
        atrous_rates=(6,),
        upsampling="tf1",
        preprocessing="caffe-mean-subtracted",
    ),
    "lite units and a root of three": lambda: resnet(LiteBottleneckV1, root=(4, 4, 8), num_classes=3),
    "xception": lambda: small_xception(num_classes=3, output_stride=16, multi_grid=(1, 2, 1)),
    "mobilenet v1": lambda: mobilenet_v1(depth_multiplier=0.25, num_classes=3, output_stride=16),
    "mobilenet v3": lambda: mobilenet_v3_small(num_classes=3),
    "edgetpu": lambda: mobilenet_edgetpu(depth_multiplier=0.25, num_classes=3),
    "deeplab with lr-aspp": lambda: deeplab_v3(
        "mobilenet_v3_small_seg", 3, image_pooling_crop_size=(33, 33), image_pooling_stride=(1, 2)
    ),
    "deeplab with a dense prediction cell": lambda: segmenter(
        resnet(built=False, output_stride=16),
        head="dense-prediction-cell",
        head_channels=8,
        decoder="plain",
        low_level="block1/unit_1/bottleneck_v2/conv1",
    ),
    "tap": lambda: tap(resnet(built=False), "net/block2/unit_1/bottleneck_v2/conv2"),
}


@pytest.fixture(autouse=True)
def short_mobilenet(monkeypatch):
    """They end with a few units: built and saved in half the time."""
    monkeypatch.setattr(models.mobilenet_v2, "INVERTED_RESIDUALS", models.mobilenet_v2.INVERTED_RESIDUALS[:7])
    monkeypatch.setattr(models.mobilenet_v1, "SEPARABLE_CONVOLUTIONS", models.mobilenet_v1.SEPARABLE_CONVOLUTIONS[:5])
    monkeypatch.setattr(models.mobilenet_edgetpu, "FUSED", models.mobilenet_edgetpu.FUSED[:3])
    monkeypatch.setattr(models.mobilenet_edgetpu, "DEPTHWISE", models.mobilenet_edgetpu.DEPTHWISE[7:10])
    for kind, (units, *rest) in KINDS.items():
        monkeypatch.setitem(KINDS, kind, (units[:4], *rest))


@pytest.fixture(params=NETWORKS)
def make(request):
    """A function that builds one of the networks."""
    return NETWORKS[request.param]


def randomized(net):
    randomize(named_variables(net))
    return net


def saved_and_loaded(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def in_functional(net):
    """Images → the network's output, and what a new layer makes of it."""
    images = keras.Input((None, None, 3))
    output = net(images)
    return keras.Model(images, [output, keras.layers.Dense(2, name="new")(output)])


def paths(model):
    return [variable.path for variable in model.weights]


# Save and load


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a functional model"])
def test_a_loaded_network_computes_the_same_and_saves_the_same_slim_checkpoint(make, inside, tmp_path):
    net = randomized(make())
    images = images_of(SIZE)
    expected = np.asarray(net(images))
    if inside:
        loaded_model = saved_and_loaded(in_functional(net), tmp_path)
        np.testing.assert_array_equal(loaded_model(images)[0], expected)
        loaded = loaded_model.get_layer(net.name)
    else:
        loaded = saved_and_loaded(net, tmp_path)
    assert type(loaded) is type(net)
    assert paths(loaded) == paths(net)
    np.testing.assert_array_equal(loaded(images), expected)

    save_checkpoint(loaded, tmp_path / "model.ckpt")
    assert_same(read_all(tmp_path / "model.ckpt"), values_of(net))
    fresh = make()
    checkpoint_guided_init(fresh, tmp_path / "model.ckpt", strict=True)
    np.testing.assert_array_equal(fresh(images), expected)


def test_clones_are_new_networks_of_the_same_names(make):
    net = randomized(make())
    functional = in_functional(net)
    for clone in (keras.models.clone_model(net), keras.models.clone_model(functional).get_layer(net.name)):
        assert paths(clone) == paths(net)
        assert not {id(v) for v in clone.weights} & {id(v) for v in net.weights}
        clone.set_weights(net.get_weights())
        np.testing.assert_array_equal(clone(images_of(SIZE)), net(images_of(SIZE)))
    np.testing.assert_array_equal(copy.deepcopy(net)(images_of(SIZE)), net(images_of(SIZE)))


def test_a_loaded_network_says_of_itself_what_the_saved_one_does(make, tmp_path):
    net = make()
    net.preprocessing = Preprocessing("of my own", (1.0, 2.0, 3.0), 0.5)
    loaded = saved_and_loaded(net, tmp_path)
    for said in (
        "name",
        "preprocessing",
        "variable_prefix",
        "backbone_scope",
        "head_scopes",
        "num_classes",
        "output_stride",
        "out_channels",
        "feature_source",
        "upsampling",
        "end_point_key",
    ):
        assert getattr(loaded, said, None) == getattr(net, said, None), said
    assert loaded.get_config() == net.get_config()
    assert list(loaded.end_points(images_of(SIZE))) == list(net.end_points(images_of(SIZE)))


def test_a_network_that_the_recipe_compiled_is_loaded_without_it(tmp_path):
    net = randomized(resnet(num_classes=3))
    net.compile(Momentum(0.1), CrossEntropy())
    net.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(images_of(33)), net(images_of(33)))


def test_precision_survives_where_it_is_not_the_session_s(tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        net = randomized(NETWORKS["deeplab on v2"]())
        net.save(tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy(before)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert keras.config.dtype_policy() == before
    assert {layer.dtype_policy.name for layer in loaded._flatten_layers()} == {"mixed_bfloat16"}
    np.testing.assert_array_equal(loaded(images_of(SIZE)), net(images_of(SIZE)))
    assert loaded.end_points(keras.Input((None, None, 3)))["net/block4"].dtype == "bfloat16"


@pytest.mark.parametrize(
    "how",
    [
        lambda net: freeze(net, "net/block1"),
        lambda net: train_only(net, "net/block4"),
        lambda net: freeze_batch_norm(net, statistics_only=True),
        lambda net: setattr(net, "trainable", False),
        lambda net: setattr(net.block2, "trainable", False),
        lambda net: [setattr(net, "trainable", False), setattr(net.block4, "trainable", True)],
    ],
    ids=["scope", "all but a scope", "statistics", "network", "layer", "all but a layer"],
)
@pytest.mark.parametrize("copied", ["loaded", "cloned", "inside", "in deeplab"])
def test_what_is_frozen_stays_frozen(how, copied, tmp_path):
    net = resnet(BasicBlock)
    how(net)
    expected = flags(net)
    match copied:
        case "loaded":
            found = saved_and_loaded(net, tmp_path)
        case "cloned":
            found = keras.models.clone_model(net)
        case "inside":
            found = saved_and_loaded(in_functional(net), tmp_path).get_layer("net")
        case "in deeplab":
            found = saved_and_loaded(segmenter(net), tmp_path).backbone
    assert flags(found) == expected
    assert learning_names(found) == learning_names(net)
    net.trainable = found.trainable = True
    assert learning_names(found) == learning_names(net)


def flags(net):
    """Everything that decides what learns."""
    return [
        (layer.name, layer.trainable, getattr(layer, "statistics_frozen", None), [v.trainable for v in layer.weights])
        for layer in net._flatten_layers()
    ]


def test_a_network_that_is_inside_others_keeps_slim_s_names(tmp_path):
    net = NETWORKS["deeplab on v2"]()
    images = keras.Input((None, None, 3))
    inner = keras.Model(images, net(images), name="inner")
    outer = keras.Sequential([keras.Input((None, None, 3)), inner], name="outer")
    loaded = saved_and_loaded(outer, tmp_path).get_layer("inner").get_layer("deeplab_v3")
    assert list(named_variables(loaded)) == list(named_variables(net))
    assert "net/conv1/weights" in named_variables(loaded)


# End points of a keras.Input


def test_end_points_of_an_input_make_a_functional_model(make, tmp_path):
    net = randomized(make())
    images = images_of(SIZE)
    expected = net.end_points(images)
    inputs = keras.Input((None, None, 3))
    outputs = net.end_points(inputs)
    assert list(outputs) == list(expected)
    for key, output in outputs.items():
        assert isinstance(output, keras.KerasTensor), key
        assert output.shape[-1] == expected[key].shape[-1], key
    model = keras.Model(inputs, outputs)
    for one in (model, saved_and_loaded(model, tmp_path)):
        assert paths(one) == paths(net)
        found = one(images)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_a_layer_on_end_points_learns_with_the_network():
    net = randomized(resnet(batch_norm_decay=0.5))
    inputs = keras.Input((None, None, 3))
    outputs = net.end_points(inputs)
    pooled = [keras.layers.GlobalAveragePooling2D()(outputs[key]) for key in ("net/block2", "net/postnorm")]
    model = keras.Model(inputs, keras.layers.Dense(2, name="new")(keras.layers.concatenate(pooled)))
    before = {v.path: np.asarray(v) for v in model.weights}
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(images_of(33, batch=4), np.array([0, 1, 0, 1]), verbose=0)
    moved = {v.path for v in model.weights if np.any(np.asarray(v) != before[v.path])}
    assert moved == {path for path in before if "moving_" not in path}  # end points are in inference mode


# Wrong inputs


WRONG = {
    "pixels": (np.zeros((1, 33, 33, 3), "uint8"), "no floats: preprocess", "uint8 (1, 33, 33, 3)"),
    "whole numbers": (np.zeros((1, 33, 33, 3), "int64"), "no floats: preprocess", "int64 (1, 33, 33, 3)"),
    "one image": (np.zeros((224, 224, 3), "float32"), "the batch axis is missing", "float32 (224, 224, 3)"),
    "four channels": (np.zeros((1, 33, 33, 4), "float32"), "4 channels, not 3", "float32 (1, 33, 33, 4)"),
    "channels first": (np.zeros((2, 3, 33, 33), "float32"), "the last axis", "float32 (2, 3, 33, 33)"),
    "a vector": (np.zeros((3,), "float32"), "1 axes, not 4", "float32 (3,)"),
    "files": (np.array(["a.jpg"]), "no floats", "(1,)"),
    "a tensor": (tf.zeros((1, 33, 33, 1)), "1 channels", "float32 (1, 33, 33, 1)"),
    "input of pixels": (keras.Input((None, None, 3), dtype="uint8"), "no floats", "uint8 (None, None, None, 3)"),
    "input of four channels": (keras.Input((None, None, 4)), "4 channels", "float32 (None, None, None, 4)"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("call", ["call", "end points"])
def test_a_wrong_input_is_said_with_what_was_received(wrong, call):
    images, problem, received = WRONG[wrong]
    for make in (NETWORKS["v1"], NETWORKS["deeplab on mobilenet"], NETWORKS["tap"]):
        net = make()
        with pytest.raises(ValueError) as error:
            (net if call == "call" else net.end_points)(images)
        said = str(error.value)
        assert said.startswith(f"images must be float (N, H, W, 3), preprocessed as {net.preprocessing.name}; ")
        assert problem in said
        assert said.endswith(f"{received}")


def test_the_check_of_inputs_puts_nothing_into_the_graph(monkeypatch):
    net = NETWORKS["deeplab on v2"]()

    def operations():
        traced = tf.function(net).get_concrete_function(tf.TensorSpec((None, None, None, 3)))
        return [operation.type for operation in traced.graph.get_operations()]

    checked = operations()
    monkeypatch.setattr("models.network._check_images", lambda *_: None)
    assert operations() == checked


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
def test_every_kind_of_float_is_taken(kind):
    images = keras.ops.convert_to_tensor(images_of(33), dtype=kind)
    assert resnet(num_classes=3)(images).shape == (1, 3)


# Signatures


@pytest.mark.parametrize("builder", [*BACKBONES.values(), deeplab_v3, tap], ids=lambda builder: builder.__name__)
def test_builders_show_their_options_and_say_what_they_are(builder):
    parameters = inspect.signature(builder).parameters.values()
    assert len(parameters) > 3
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)
    assert all(p.annotation is not p.empty for p in parameters)
    for part in ("Args:", "Returns:", "(N, H, W, 3)", "Raises:", *(p.name for p in parameters)):
        assert part in inspect.getdoc(builder)


def test_the_options_shown_are_those_of_the_network():
    for builder in BACKBONES.values():
        shown = {name: p.default for name, p in inspect.signature(builder).parameters.items() if name != "name"}
        of_network = inspect.signature(inspect.signature(builder).return_annotation.__init__).parameters
        fixed = ("self", "name", "block", "units", "root", "entry", "middle", "kind")  # by the builder
        assert shown == {name: p.default for name, p in of_network.items() if name not in fixed}


def test_an_option_that_a_network_has_not_is_refused():
    with pytest.raises(TypeError, match="depth_multiplier"):
        BACKBONES["resnet_v2_50"](depth_multiplier=0.5)
    with pytest.raises(ValueError, match=r"resnet_v2_50 has no depth_multiplier; it has num_classes, .*Received: 0.5"):
        tap("resnet_v2_50", "resnet_v2_50/block1", depth_multiplier=0.5)
    with pytest.raises(ValueError, match=r"net has its options already. Received: \{'output_stride': 8\}"):
        tap(resnet(built=False), "net/block1", output_stride=8)


# The other backends


@pytest.mark.skipif(find_spec("jax") is None, reason="needs jax")
def test_end_points_wrong_inputs_and_a_file_of_tensorflow_s_under_jax(tmp_path):
    net = randomized(segmenter(resnet(built=False, output_stride=16)))
    in_functional(net).save(tmp_path / "model.keras")
    images = images_of(33)
    np.savez(tmp_path / "given.npz", images=images, logits=net(images))
    program = f"""
import sys
import jax
import keras
import numpy as np
from models.deeplab_v3 import DeepLabV3
from models.resnet import Bottleneck, ResNet
net = ResNet("net", Bottleneck, (1, 1, 1, 1), width=8)
net.build()
outputs = net.end_points(keras.Input((None, None, 3)))
assert outputs["net/block4"].shape == (None, None, None, 256), outputs["net/block4"].shape
try:
    net(np.zeros((33, 33, 3), "uint8"))
except ValueError as error:
    assert str(error).endswith("Received: uint8 (33, 33, 3)"), error
else:
    raise AssertionError
assert "tensorflow" not in sys.modules  # Keras itself imports it when it reads or writes a file
loaded = keras.models.load_model("{tmp_path}/model.keras").get_layer("deeplab_v3")
assert loaded.weights[0].path == "deeplab_v3/net/conv1/weights"
given = np.load("{tmp_path}/given.npz")
logits = jax.jit(loaded)(given["images"])
assert np.max(np.abs(logits - given["logits"])) < 1e-4 * np.max(np.abs(given["logits"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env=os.environ | QUICK_JAX | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
