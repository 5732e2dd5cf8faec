"""verify_port against graphs that real tf_slim built: it confirms equal ones and names where others depart."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

slim = pytest.importorskip("tests.slim_oracle", reason="needs tf_slim and tf_keras")

import verify_port  # noqa: E402
from engine.options import Verification  # noqa: E402
from errors import UserError  # noqa: E402
from models.checkpoint import CheckpointError, write_checkpoint  # noqa: E402
from models.scopes import ScopeError  # noqa: E402
from porting import verify as port  # noqa: E402
from porting.legacy_graph import LegacyGraphError  # noqa: E402
from tests.conftest import read_all  # noqa: E402

tf1 = slim.tf1
CHANGED = "resnet_v2_50/block2/unit_1/bottleneck_v2/conv2/weights"


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.fromarray(pixels).save(path)
    return str(path)


@slim._quiet
def old_graph(folder, build, size=None, is_training=False, momentum=False, batch=1):
    """Builds `build(images, is_training)`, random in every variable. → (path of .pb, checkpoint beside its .meta)"""
    with tf1.Graph().as_default(), tf1.Session() as session:
        tf1.get_variable_scope().set_use_resource(False)
        images = tf1.placeholder("float32", (batch, size, size, 3), name="images")
        output = build(images, is_training and tf1.placeholder("bool", (), name="is_training"))
        slim._add_extras(momentum=momentum, ema=False, global_step=momentum)
        variables = tf1.global_variables()
        values = {v.op.name: slim._random_value(v.op.name, tuple(v.shape), 0) for v in variables if v.shape.rank}
        feed = {v.initializer.inputs[1]: values[v.op.name] for v in variables if v.shape.rank}
        session.run([v.initializer for v in variables], feed)
        graph_def = session.graph.as_graph_def()
        frozen = tf1.graph_util.convert_variables_to_constants(session, graph_def, [output.op.name])
        (folder / "frozen.pb").write_bytes(frozen.SerializeToString())
        prefix = tf1.train.Saver().save(session, str(folder / "model.ckpt"), global_step=3)
        return str(folder / "frozen.pb"), prefix


def resnet(net, **kwargs):
    return lambda images, is_training: slim._build(net, images, 5, is_training=is_training, **kwargs)[0]


@pytest.fixture(scope="module")
def resnet_v2(tmp_path_factory):
    """A graph from the middle of a training: `is_training` is fed, and there are Momentum's slots."""
    folder = tmp_path_factory.mktemp("resnet_v2")
    return old_graph(folder, resnet("resnet_v2_50"), size=33, is_training=True, momentum=True)


@pytest.fixture(scope="module")
def slim_resnet(tmp_path_factory):
    """Behind a prefix, under a scope of its own, dilated, for images of any size."""
    folder = tmp_path_factory.mktemp("slim_resnet")
    build = resnet("resnet_v2_50", scope="slim_resnet", output_stride=16)

    def prefixed(*args):
        with tf1.variable_scope("model"):
            return build(*args)

    return old_graph(folder, prefixed)


def verify(capsys, *argv):
    """→ (exit code, what is printed)"""
    code = verify_port.main([str(argument) for argument in argv])
    return code, capsys.readouterr().out


@pytest.mark.parametrize("form", ["frozen", "meta"])
def test_resnet_v2_agrees(resnet_v2, picture, tmp_path, capsys, form):
    frozen, prefix = resnet_v2
    old = frozen if form == "frozen" else f"{prefix}.meta"
    code, text = verify(capsys, old, picture, "--json", tmp_path / "port.json")
    assert code == 0, text
    assert "the port stands: all 75 shared end points agree to 0.0001" in text
    assert "fed: is_training:0 = False" in text and "input: images:0, [-1, 1]" in text
    document = json.loads((tmp_path / "port.json").read_text())
    assert document["agree"] and document["departs_at"] is None and not document["not_in_old"]
    assert {row["end_point"]: row["tensor"] for row in document["end_points"]}.items() >= {
        "resnet_v2_50/conv1": "resnet_v2_50/conv1/BiasAdd:0",
        "resnet_v2_50/block1/unit_1/bottleneck_v2/conv1": "resnet_v2_50/block1/unit_1/bottleneck_v2/conv1/Relu:0",
        "resnet_v2_50/block4": "resnet_v2_50/block4/unit_3/bottleneck_v2/add:0",
        "resnet_v2_50/postnorm": "resnet_v2_50/postnorm/Relu:0",
        "resnet_v2_50/logits": "resnet_v2_50/logits/BiasAdd:0",
    }.items()
    assert max(row["relative"] for row in document["end_points"]) < 1e-5


def test_changed_weight_is_caught_and_named(resnet_v2, picture, tmp_path, capsys):
    frozen, prefix = resnet_v2
    tensors = read_all(prefix)
    tensors[CHANGED][1, 1, 0, 0] += 0.5
    write_checkpoint(tmp_path / "changed.ckpt", tensors)
    code, text = verify(capsys, frozen, "--ckpt", tmp_path / "changed.ckpt", picture, "--json", tmp_path / "port.json")
    departs = CHANGED.removesuffix("/weights")
    assert code == 1
    assert f"the port departs at {departs} ({departs}/Relu:0)" in text
    assert f"271 equal, 1 different\n  {CHANGED}  largest |Δ| 0.5" in text
    document = json.loads((tmp_path / "port.json").read_text())
    assert document["departs_at"] == departs and not document["agree"]
    assert [row["variable"] for row in document["weights"]["different"]] == [CHANGED]
    before = [row["end_point"] for row in document["end_points"]].index(departs)
    assert before > 0 and all(row["agrees"] for row in document["end_points"][:before])


def test_whose_variables_a_meta_graph_gets(resnet_v2, tmp_path):
    prefix = resnet_v2[1]
    own = port.open_graph(prefix, Verification(ckpt="other"))
    assert str(own.checkpoint) == prefix  # to be told apart from --ckpt
    assert port.open_graph(prefix, Verification(ckpt="other", old_ckpt="third")).checkpoint == "third"
    (tmp_path / "graph.meta").write_bytes(Path(f"{prefix}.meta").read_bytes())
    alone = str(tmp_path / "graph.meta")  # none beside it
    assert port.open_graph(alone, Verification(ckpt="other")).checkpoint == "other"
    with pytest.raises(LegacyGraphError, match="a graph without its variables"):
        port.open_graph(alone, Verification())


def test_resnet_v1_agrees(picture, tmp_path, capsys):
    frozen, prefix = old_graph(tmp_path, resnet("resnet_v1_50"), size=33, batch=2)
    code, text = verify(capsys, frozen, "--ckpt", prefix, picture, "--json", tmp_path / "port.json")
    assert code == 0, text
    assert "267 equal, 0 different" in text
    assert "all 74 shared end points agree" in text and "RGB minus mean" in text
    rows = json.loads((tmp_path / "port.json").read_text())["end_points"]
    tensors = {row["end_point"]: row["tensor"] for row in rows}
    assert tensors["resnet_v1_50/block1"] == "resnet_v1_50/block1/unit_3/bottleneck_v1/Relu:0"
    assert all(math.isfinite(row["relative"]) for row in rows)


def test_renamed_prefixed_and_dilated(slim_resnet, picture, tmp_path, capsys):
    code, text = verify(capsys, slim_resnet[0], picture, "--size", 49, "--json", tmp_path / "port.json")
    assert code == 0, text
    assert "resnet_v2_50 is model/slim_resnet in the old graph" in text
    document = json.loads((tmp_path / "port.json").read_text())
    shapes = {row["end_point"]: row["shape"] for row in document["end_points"]}
    assert len(shapes) == 75 and shapes["resnet_v2_50/block4"] == [1, 4, 4, 2048]  # output stride 16, from the graph


def test_wrong_output_stride_departs_by_shape(slim_resnet, picture, capsys):
    told = ["--scope", "model/slim_resnet=resnet_v2_50"]
    code, text = verify(capsys, slim_resnet[0], picture, *told, "--size", 49, "--output-stride", 32)
    assert code == 1
    assert "the port departs at resnet_v2_50/block3/unit_6" in text and "old 1x4x4" in text


def separable(x, kernel_scope, stride, rate):
    from tf_slim import separable_conv2d

    return separable_conv2d(x, None, 3, depth_multiplier=1, stride=stride, rate=rate, scope=kernel_scope)


def mobile_deeplab(images, is_training):
    """The published mobile DeepLab's graph out of tf_slim's layers: slim's names for MobileNet v2 and for the head."""
    from tf_slim import batch_norm, conv2d, separable_conv2d
    from tf_slim.ops.arg_scope import arg_scope

    from models.mobilenet_v2 import INVERTED_RESIDUALS

    def normalized(epsilon):
        return {"is_training": is_training, "epsilon": epsilon, "scale": True}

    def scoped(epsilon, activation):
        layers = [conv2d, separable_conv2d]
        return arg_scope(
            layers, normalizer_fn=batch_norm, normalizer_params=normalized(epsilon), activation_fn=activation
        )

    with tf1.variable_scope("MobilenetV2"), scoped(1e-3, tf1.nn.relu6):
        x = conv2d(images, 32, 3, stride=2, scope="Conv")
        reached, rate = 2, 1
        for index, (width, stride) in enumerate(INVERTED_RESIDUALS):
            dense = reached * stride > 16
            with tf1.variable_scope(f"expanded_conv_{index}" if index else "expanded_conv"):
                y = x
                if index:
                    y = tf1.identity(conv2d(x, 6 * x.shape[3], 1, scope="expand"), "expansion_output")
                y = tf1.identity(separable(y, "depthwise", 1 if dense else stride, rate), "depthwise_output")
                y = tf1.identity(conv2d(y, width, 1, activation_fn=None, scope="project"), "projection_output")
                x = tf1.identity(x + y if stride == 1 and x.shape[3] == width else y, "output")
            reached, rate = (reached, rate * stride) if dense else (reached * stride, rate)
    with scoped(1e-5, tf1.nn.relu):
        pooled = conv2d(tf1.reduce_mean(x, [1, 2], keepdims=True), 256, 1, scope="image_pooling")
        pooled = tf1.image.resize_bilinear(pooled, tf1.shape(x)[1:3], align_corners=True)
        branches = tf1.concat([pooled, conv2d(x, 256, 1, scope="aspp0")], 3)
        x = conv2d(branches, 256, 1, scope="concat_projection")
    with tf1.variable_scope("logits"):
        return conv2d(x, 4, 1, activation_fn=None, scope="semantic")


def test_mobile_deeplab_agrees(picture, tmp_path, capsys):
    frozen, _ = old_graph(tmp_path, mobile_deeplab)
    code, text = verify(capsys, frozen, picture, "--size", 65, "--json", tmp_path / "port.json")
    assert code == 0, text
    rows = json.loads((tmp_path / "port.json").read_text())["end_points"]
    tensors = {row["end_point"]: row["tensor"] for row in rows}
    assert tensors["MobilenetV2/Conv"] == "MobilenetV2/Conv/Relu6:0"
    assert tensors["MobilenetV2/expanded_conv_2/output"] == "MobilenetV2/expanded_conv_2/output:0"
    assert tensors["image_pooling"] == "image_pooling/Relu:0"
    assert tensors["logits/semantic"] == "logits/semantic/BiasAdd:0"
    assert "not found in the old graph" not in text


def test_end_points_before_a_missing_variable():
    keys = {
        **dict.fromkeys(["n/conv1", "n/block1/unit_1/b/conv1", "n/block1/unit_1/b", "n/block1", "n/postnorm"]),
    }
    assert port.before_first(keys, []) == list(keys)
    assert port.before_first(keys, ["n/postnorm/gamma"]) == list(keys)[:4]
    assert port.before_first(keys, ["n/block1/unit_1/b/preact/gamma"]) == ["n/conv1"]
    mobile = dict.fromkeys(["M/Conv", "M/expanded_conv_1/expansion_output", "M/expanded_conv_1/output"])
    assert port.before_first(mobile, ["M/expanded_conv_1/expand/weights"]) == ["M/Conv"]


def test_scopes_told_by_the_names():
    shapes = {
        f"import/resnet_v2_50/block{b}/unit_{n}/bottleneck_v2/conv1/weights": () for b, n in ((1, 3), (2, 4), (3, 6))
    }
    assert port.model_scopes("old.pb", shapes, {}) == {"import": ""}
    assert port.model_scopes("old.pb", {"w": ()}, {"other": "x"}, lenient=True) == {}
    with pytest.raises(CheckpointError, match=r"old.pb: no ResNet v1, v2 or MobileNet v2"):
        port.model_scopes("old.pb", {"w": ()}, {})


def test_report_that_cannot_be_written():
    with pytest.raises(UserError, match=r"--json /dev/null/port.json: cannot be written"):
        port.write_json("/dev/null/port.json", {"relative": math.inf})


def test_difference():
    ones = np.ones((1, 1, 1, 3), "float32")
    assert port.difference(4 * ones, 3 * ones) == (1.0, 0.25)
    assert port.difference(ones.reshape(1, 3), ones) == (0.0, 0.0)  # squeezed logits
    assert port.difference(0 * ones, 0 * ones) == (0.0, 0.0)
    assert port.difference(0 * ones, ones) == (1.0, math.inf)
    assert port.difference(ones, np.nan * ones) == (math.inf, math.inf)
    assert port.difference(ones, np.ones((1, 2, 2, 3))) == (math.inf, math.inf)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--size", "65"], UserError, r"--size 65: .*frozen.pb takes 33 x 33 only"),
        (["--input", "none:0"], LegacyGraphError, r"frozen.pb: no tensor 'none:0'"),
        (["--scope", "nowhere=resnet_v2_50"], ScopeError, "--scope 'nowhere' matches no"),
        (["--scope", "resnet_v2_50"], UserError, "OLD_SCOPE=NEW_SCOPE, got resnet_v2_50"),
        (["--feed", "is_training"], UserError, "--feed: must be NAME=NUMBER, got is_training"),
        (["--ckpt", "none.ckpt"], CheckpointError, r"none.ckpt: no such checkpoint"),
        (["--input", "resnet_v2_50/logits/BiasAdd"], UserError, "none of the model's end points"),
    ],
)
def test_a_users_mistakes(resnet_v2, picture, options, error, message):
    with pytest.raises(error, match=message):
        verify_port.main([resnet_v2[0], picture, *options])


def test_graph_that_takes_whole_pixels(picture, tmp_path):
    with tf1.Graph().as_default() as graph:
        x = tf1.cast(tf1.placeholder("uint8", (1, None, None, 3), name="ImageTensor"), "float32", name="ToFloat")
        tf1.nn.conv2d(x, tf1.constant(np.zeros((1, 1, 3, 1), "float32"), name="MobilenetV2/Conv/weights"), 1, "SAME")
    (tmp_path / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(UserError, match="no ResNet v1, v2 or MobileNet v2"):
        verify_port.main([str(tmp_path / "frozen.pb"), picture])
    graph = port.open_graph(str(tmp_path / "frozen.pb"), Verification())
    with pytest.raises(
        UserError, match=r"ImageTensor:0 takes whole pixels.* --input, such as ToFloat:0, ImageTensor:0"
    ):
        port.picture_size(None, graph, np.zeros((4, 4, 3)))
