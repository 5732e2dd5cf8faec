"""verify_port against graphs that real tf_slim built: it confirms equal ones and names where others depart."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

slim = pytest.importorskip("tests.slim_oracle", reason="needs tf_slim and tf_keras")

import command_line  # noqa: E402
import verify_port  # noqa: E402
from engine.options import Verification  # noqa: E402
from errors import UserError  # noqa: E402
from models.checkpoint import CheckpointError, write_checkpoint  # noqa: E402
from models.scopes import ScopeError  # noqa: E402
from porting import verify as port  # noqa: E402
from porting.agreement import difference  # noqa: E402
from porting.graph_pictures import picture_size  # noqa: E402
from porting.legacy_graph import LegacyGraphError, load_frozen  # noqa: E402
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
def old_graph(folder, build, size=None, is_training=False, momentum=False, batch=1, dtype="float32"):
    """Builds `build(images, is_training)`, random in every variable. → (path of .pb, checkpoint beside its .meta)"""
    with tf1.Graph().as_default(), tf1.Session() as session:
        tf1.get_variable_scope().set_use_resource(False)
        images = tf1.placeholder(dtype, (batch, size, size, 3), name="images")
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
    assert document["agree"] and document["departs_at"] is None
    # what the classifier's other end points are called is no tensor's name in slim's graph
    assert document["not_in_old"] == ["global_pool", "resnet_v2_50/spatial_squeeze", "predictions"]
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
    assert "1 weights differ: the graphs may still be the same" in text and "leave out --ckpt" in text
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
        x = conv2d(x, 4, 1, activation_fn=None, scope="semantic")
    return tf1.image.resize_bilinear(x, tf1.shape(images)[1:3], align_corners=True, name="upsampled")


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
    assert tensors["upsampled logits"] == "upsampled:0" and rows[-1]["shape"] == [1, 65, 65, 4]
    assert "and the upsampled logits agree" in text and "preprocessing" not in tensors
    assert "model: official DeepLab v3, mobilenet_v2 1, 4 classes" in text
    assert "not found in the old graph" not in text and "assumed" not in text  # the stride was seen
    code, text = verify(capsys, frozen, picture, "--size", 65, "--upsampling", "half-pixel")
    assert code == 1 and "the port departs at upsampled logits (upsampled:0)" in text and "72 of 72 end points" in text


def exported(images, is_training):
    """The authors' exporter: whole pixels of one picture, padded to 65 x 65 with the mean pixel, to [-1, 1]."""
    pixels = tf1.cast(tf1.squeeze(images, [0]), "float32")
    height, width = tf1.unstack(tf1.shape(pixels)[:2])
    pixels = tf1.pad(pixels - 127.5, [[0, tf1.maximum(65 - height, 0)], [0, tf1.maximum(65 - width, 0)], [0, 0]])
    network_input = tf1.reshape(pixels + 127.5, (1, 65, 65, 3)) * (2 / 255) - 1
    return mobile_deeplab(tf1.identity(network_input, "network_input"), is_training)


@pytest.fixture(scope="module")
def exporter(tmp_path_factory):
    return old_graph(tmp_path_factory.mktemp("exporter"), exported, dtype="uint8")[0]


def test_exported_function_is_compared_from_pixels_to_upsampled_logits(exporter, picture, tmp_path, capsys):
    code, text = verify(capsys, exporter, picture, "--json", tmp_path / "port.json")
    assert code == 0, text
    assert "input: images:0, whole pixels, 37 x 65; the picture is resized from 40 x 70; " in text
    assert "the old graph preprocesses them itself and pads them to 65 x 65\n" in text
    assert "all 72 shared end points, the preprocessing and the upsampled logits agree" in text
    rows = {row["end_point"]: row for row in json.loads((tmp_path / "port.json").read_text())["end_points"]}
    assert rows["preprocessing"]["tensor"] == "network_input:0"
    assert rows["preprocessing"]["shape"] == rows["preprocessing"]["old_shape"] == [1, 65, 65, 3]
    assert rows["upsampled logits"]["old_shape"] == [1, 65, 65, 4]


def test_preprocessing_that_differs_is_named(exporter, picture, capsys):
    code, text = verify(capsys, exporter, picture, "--mean", "120,127.5,127.5")
    assert code == 1
    assert "the port departs at preprocessing (network_input:0)" in text
    assert "to compare only what comes behind: --input network_input:0" in text
    code, text = verify(capsys, exporter, picture, "--input", "network_input:0")
    assert code == 0 and "65 x 65; the picture is resized from 40 x 70" in text, text  # the size it was built for


def test_picture_that_does_not_fit(exporter, picture):
    with pytest.raises(UserError, match=r"--size 66: .*frozen.pb pads pictures to 65 x 65"):
        verify_port.main([exporter, picture, "--size", "66"])


@pytest.mark.parametrize(
    ("scaled", "words"),
    [
        (lambda x: (x / 255 - 0.5) * 2, "whole pixels, 33 x 33"),
        (lambda x: (x - 0.5) * 2, "pixels as fractions, 33 x 33"),
        (lambda x: x * 1.0, "[-1, 1], 33 x 33"),
    ],
)
def test_floats_are_scaled_inside(picture, tmp_path, scaled, words, capsys):
    def build(images, is_training):
        return mobile_deeplab(tf1.identity(scaled(images), "network_input"), is_training)

    frozen, _ = old_graph(tmp_path, build, size=33)
    code, text = verify(capsys, frozen, picture)
    assert code == 0, text
    assert f"input: images:0, {words}; the picture is resized from 40 x 70; the old graph preprocesses" in text
    assert "all 72 shared end points, the preprocessing and the upsampled logits agree" in text


def rishizek(images, is_training):
    """His tensorflow-deeplab-v3, stride 16: slim's ResNet, its raw sum, his head, image pooling last."""
    from tf_slim import batch_norm, conv2d
    from tf_slim.ops.arg_scope import arg_scope

    x = slim._build("resnet_v2_50", images, None, is_training=is_training, global_pool=False, output_stride=16)[1][
        "resnet_v2_50/block4"
    ]
    size = tf1.shape(x)[1:3]
    norm = {"is_training": is_training, "epsilon": 1e-5, "scale": True}
    with tf1.variable_scope("aspp"), arg_scope([conv2d], normalizer_fn=batch_norm, normalizer_params=norm):
        branches = [conv2d(x, 256, 1, scope="conv_1x1")]
        branches += [conv2d(x, 256, 3, rate=6 * i, scope=f"conv_3x3_{i}") for i in (1, 2, 3)]
        with tf1.variable_scope("image_level_features"):
            pooled = conv2d(tf1.reduce_mean(x, [1, 2], keepdims=True), 256, 1, scope="conv_1x1")
            pooled = tf1.image.resize_bilinear(pooled, size, name="upsample")
        x = conv2d(tf1.concat([*branches, pooled], 3), 256, 1, scope="conv_1x1_concat")
    with tf1.variable_scope("upsampling_logits"):
        x = conv2d(x, 4, 1, activation_fn=None, scope="conv_1x1")
        return tf1.image.resize_bilinear(x, tf1.shape(images)[1:3], name="upsample")


def test_head_under_other_names_is_compared_end_point_by_end_point(picture, tmp_path, capsys):
    frozen, prefix = old_graph(tmp_path, rishizek, size=33)
    code, text = verify(capsys, frozen, "--ckpt", prefix, picture, "--json", tmp_path / "port.json")
    assert code == 0, text
    assert "model: rishizek's DeepLab v3, resnet_v2_50, 4 classes" in text and "assumed" not in text
    assert "scope: aspp0 is aspp/conv_1x1 in the old graph" in text
    assert "298 equal, 0 different\n  not in the old graph: 4, such as resnet_v2_50/postnorm/gamma" in text
    rows = json.loads((tmp_path / "port.json").read_text())["end_points"]
    assert {row["end_point"]: row["tensor"] for row in rows}.items() >= {
        "image_pooling": "aspp/image_level_features/conv_1x1/Relu:0",
        "aspp0": "aspp/conv_1x1/Relu:0",
        "aspp3": "aspp/conv_3x3_3/Relu:0",
        "concat_projection": "aspp/conv_1x1_concat/Relu:0",
        "logits/semantic": "upsampling_logits/conv_1x1/BiasAdd:0",
        "upsampled logits": "upsampling_logits/upsample:0",
    }.items()
    code, text = verify(capsys, f"{prefix}.meta", picture, "--features", "postnorm")
    assert code == 1 and "the port departs at aspp0" in text
    code, text = verify(capsys, frozen, picture, "--upsampling", "align-corners")
    assert code == 1 and "the port departs at upsampled logits" in text


def test_every_option_of_a_model_is_a_flag():
    flags = "--upsampling tf1 --preprocessing caffe-mean-subtracted --mean 1,2,3 --no-bgr --multi-grid none"
    flags += " --features block4 --atrous-rates 6,12 --output-stride 4"
    args = verify_port.parse_arguments(["old.pb", "cat.jpg", *flags.split()])
    how = command_line.chosen(args, Verification)
    assert (how.upsampling, how.preprocessing, how.mean, how.bgr) == ("tf1", "caffe-mean-subtracted", (1, 2, 3), False)
    assert (how.multi_grid, how.features, how.atrous_rates, how.output_stride) == ((), "block4", (6, 12), 4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--multi-grid", "1,2"], r"resnet_v2_50: multi_grid needs one factor .* Received: \(1, 2\)"),
        (["--image-pooling-crop-size", "33,33"], "--image-pooling-crop-size: .* is no DeepLab"),
    ],
)
def test_what_the_network_cannot_have_is_said(resnet_v2, picture, flags, message):
    with pytest.raises(UserError, match=message):
        verify_port.main([resnet_v2[0], picture, *flags])


def test_options_of_a_head_where_there_is_none(resnet_v2, picture):
    with pytest.raises(UserError, match="--upsampling: resnet_v2_50, 5 classes is no DeepLab"):
        verify_port.main([resnet_v2[0], picture, "--upsampling", "tf1"])


def test_real_graph_of_float_pixels(shared_data, picture, tmp_path, capsys):
    with tf1.Graph().as_default(), tf1.Session() as session:
        meta = str(shared_data / "old_graphs" / "resnet_v2_50_float_pixels.meta")
        saver = tf1.train.import_meta_graph(meta, clear_devices=True)
        session.run(tf1.global_variables_initializer())
        prefix = saver.save(session, str(tmp_path / "model.ckpt"))
    code, text = verify(capsys, f"{prefix}.meta", picture)
    assert code == 0, text
    assert "whole pixels, 346 x 346" in text and "all 75 shared end points and the preprocessing agree" in text
    code, text = verify(capsys, f"{prefix}.meta", picture, "--input", "Mul:0")
    assert code == 0 and "input: Mul:0, [-1, 1], 346 x 346; the picture is resized from 40 x 70" in text, text
    assert "all 75 shared end points agree" in text


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_real_portrait_graph_stands_to_2e_5(shared_data, with_checkpoint):
    old = shared_data / "old_graphs" / "deeplabv3_mnv2_dm05_portrait_frozen.pb"
    ckpt = ["--ckpt", shared_data / "checkpoints" / "deeplabv3_mnv2_dm05_portrait.ckpt"] * with_checkpoint
    photo = next((shared_data / "VOC2012" / "JPEGImages").glob("2007_000063.jpg"))
    program = Path(verify_port.__file__)
    done = subprocess.run(
        [sys.executable, program.name, old, *ckpt, photo, "--tolerance", "2e-5"],
        cwd=program.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model: official DeepLab v3, mobilenet_v2 0.5, 2 classes" in done.stdout
    assert "new: deeplab_v3 at output stride 8" in done.stdout and "pads them to 513 x 513" in done.stdout
    assert "all 72 shared end points, the preprocessing and the upsampled logits agree to 2e-05" in done.stdout


def test_end_points_before_a_missing_variable():
    keys = {
        **dict.fromkeys(["n/conv1", "n/block1/unit_1/b/conv1", "n/block1/unit_1/b", "n/block1", "n/postnorm"]),
    }
    assert port.before_first(keys, []) == list(keys)
    assert port.before_first(keys, ["n/postnorm/gamma"]) == list(keys)[:4]
    assert port.before_first(keys, ["n/block1/unit_1/b/preact/gamma"]) == ["n/conv1"]
    mobile = dict.fromkeys(["M/Conv", "M/expanded_conv_1/expansion_output", "M/expanded_conv_1/output"])
    assert port.before_first(mobile, ["M/expanded_conv_1/expand/weights"]) == ["M/Conv"]


def test_report_that_cannot_be_written():
    with pytest.raises(UserError, match=r"/dev/null/port.json: cannot be written"):
        port.write_json("/dev/null/port.json", {"relative": math.inf})


def test_difference():
    ones = np.ones((1, 1, 1, 3), "float32")
    assert difference(4 * ones, 3 * ones) == (1.0, 0.25)
    assert difference(ones.reshape(1, 3), ones) == (0.0, 0.0)  # squeezed logits
    assert difference(0 * ones, 0 * ones) == (0.0, 0.0)
    assert difference(0 * ones, ones) == (1.0, math.inf)
    assert difference(ones, np.nan * ones) == (math.inf, math.inf)
    assert difference(ones, np.ones((1, 2, 2, 3))) == (math.inf, math.inf)


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


def test_graph_of_no_known_network(picture, tmp_path):
    with tf1.Graph().as_default() as graph:
        x = tf1.cast(tf1.placeholder("uint8", (1, None, None, 3), name="ImageTensor"), "float32", name="ToFloat")
        tf1.nn.conv2d(x, tf1.constant(np.zeros((1, 1, 3, 1), "float32"), name="MobilenetV2/Conv/weights"), 1, "SAME")
    (tmp_path / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(UserError, match=r"frozen.pb: no ResNet v1, v2 or MobileNet v2"):
        verify_port.main([str(tmp_path / "frozen.pb"), picture])
    free = load_frozen(tmp_path / "frozen.pb")
    assert picture_size(None, free, np.zeros((4, 6, 3)), (None, None)) == (4, 6)
    assert picture_size(None, free, np.zeros((4, 6, 3)), (None, 3)) == (2, 3)
