"""TF1 graphs, made live by real TF1 and tf_slim, give as functions what they give in a Session."""

from contextlib import contextmanager

import numpy as np
import pytest

slim = pytest.importorskip("tests.slim_oracle", reason="needs tf_slim and tf_keras")

import tensorflow as tf  # noqa: E402

from errors import UserError  # noqa: E402
from models.checkpoint import CheckpointError  # noqa: E402
from porting.legacy_graph import LegacyGraphError, load_frozen, load_graph, load_meta  # noqa: E402

tf1 = slim.tf1
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 33, 33, 3)).astype("float32")


def tiny_net(images, is_training=False, scope="resnet_v2_50", **batch_norm):
    """slim's own resnet_v2 with one unit in each of two blocks and 4 channels. → (logits, end points)"""
    from tf_slim import batch_norm as layer
    from tf_slim.nets import resnet_v2
    from tf_slim.ops.arg_scope import arg_scope

    blocks = [resnet_v2.resnet_v2_block(name, 4, 1, 2) for name in ("block1", "block2")]
    with arg_scope(resnet_v2.resnet_arg_scope()), arg_scope([layer], **batch_norm):
        return resnet_v2.resnet_v2(images, blocks, 5, is_training, scope=scope)


def randomize(session):
    variables = tf1.global_variables()
    values = {v.op.name: slim._random_value(v.op.name, tuple(v.shape), 0) for v in variables}
    session.run([v.initializer for v in variables], {v.initializer.inputs[1]: values[v.op.name] for v in variables})
    return values


def save(session, prefix, v1=False, variables=None):
    version = tf1.train.SaverDef.V1 if v1 else tf1.train.SaverDef.V2
    tf1.train.Saver(variables, write_version=version).save(session, str(prefix))
    return prefix


def freeze(session, path, *outputs):
    graph_def = tf1.graph_util.convert_variables_to_constants(session, session.graph.as_graph_def(), outputs)
    path.write_bytes(graph_def.SerializeToString())
    return path


@contextmanager
def tf1_session(resource=False):
    """A fresh graph of TF1 and a session on it; no function of TF2 may run inside."""
    with tf1.Graph().as_default(), tf1.Session(config=tf1.ConfigProto(allow_soft_placement=True)) as session:
        tf1.get_variable_scope().set_use_resource(resource)
        yield session


@pytest.fixture(scope="module")
@slim._quiet
def inference(tmp_path_factory):
    """A net for inference, frozen and saved: {"pb", "prefix", "values", "expected", "names"}."""
    folder = tmp_path_factory.mktemp("inference")
    with tf1_session() as session:
        images = tf1.placeholder("float32", (None, 33, 33, 3), name="input")
        logits, end_points = tiny_net(images)
        values = randomize(session)
        return {
            "prefix": save(session, folder / "model.ckpt-7"),
            "pb": freeze(session, folder / "frozen.pb", logits.op.name),
            "values": values,
            "expected": session.run(end_points, {images: IMAGES}),
            "names": {key: tensor.name for key, tensor in end_points.items()},
        }


@pytest.fixture
def fresh_conditionals():
    """Switches back to how conditionals were built, whatever a test chose."""
    enabled = tf1.control_flow_v2_enabled()
    yield
    (tf1.enable_control_flow_v2 if enabled else tf1.disable_control_flow_v2)()


def test_tutorial_reads_a_variable_of_a_meta_graph(inference):
    name = "resnet_v2_50/conv1/weights"
    found = load_meta(f"{inference['prefix']}.meta")(None, [f"{name}:0", f"{name}/read:0"])
    for value in found.values():
        np.testing.assert_array_equal(value, inference["values"][name])


def test_tutorial_predicts_with_a_frozen_graph(inference):
    graph = load_frozen(inference["pb"])
    output = inference["names"]["resnet_v2_50/logits"]
    assert graph.input == "input:0" and graph.input_shape == (None, 33, 33, 3) and graph.frozen
    assert output in graph.tensors
    np.testing.assert_allclose(
        graph(IMAGES, [output])[output], inference["expected"]["resnet_v2_50/logits"], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("form", ["pb", "meta", "prefix", "directory"])
def test_every_end_point_is_found_and_equals_the_sessions(inference, form):
    prefix = inference["prefix"]
    path = {"pb": inference["pb"], "meta": f"{prefix}.meta", "prefix": prefix, "directory": prefix.parent}[form]
    graph = load_graph(path)
    names = {key: name for key, name in inference["names"].items() if key != "predictions"}
    found, scopes = graph.end_points(names)
    assert found == names and scopes == {"resnet_v2_50": "resnet_v2_50"}
    function = graph.prune(found.values())
    for images in (IMAGES, IMAGES[:1]):  # one function, any number of images
        values = function(images)
        for key, name in found.items():
            np.testing.assert_allclose(values[name], inference["expected"][key][: len(images)], rtol=1e-4, atol=1e-5)


def test_weights_of_a_frozen_graph_carry_their_names(inference):
    graph = load_frozen(inference["pb"])
    assert graph.variables == {name: value.shape for name, value in inference["values"].items()}
    found = graph.values(graph.variables)
    for name, value in inference["values"].items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("conditionals", ["switch", "functions"])
@slim._quiet
def test_training_graph(tmp_path, conditionals, resource, fresh_conditionals):
    """Momentum, summaries, moving averages, dropout, `is_training`: only what the logits need is taken."""
    (tf1.enable_control_flow_v2 if conditionals == "functions" else tf1.disable_control_flow_v2)()
    with tf1_session(resource) as session:
        images = tf1.placeholder("float32", (None, None, None, 3), name="images")
        labels = tf1.placeholder("int64", (None,), name="labels")
        is_training = tf1.placeholder("bool", (), name="is_training")
        keep_prob = tf1.placeholder("float32", (), name="keep_prob")
        with tf1.device("/device:GPU:7"):
            logits, end_points = tiny_net(images, is_training)
        dropped = tf1.nn.dropout(tf1.squeeze(logits, (1, 2), name="squeezed"), keep_prob=keep_prob)
        with tf1.control_dependencies(tf1.get_collection(tf1.GraphKeys.UPDATE_OPS)):
            output = tf1.identity(dropped, name="output")
        loss = tf1.losses.sparse_softmax_cross_entropy(labels, output)
        tf1.summary.scalar("loss", loss)
        tf1.train.MomentumOptimizer(0.1, 0.9).minimize(loss, tf1.train.create_global_step())
        session.run(tf1.global_variables_initializer())
        for v in tf1.trainable_variables():
            v.load(slim._random_value(v.op.name, tuple(v.shape), 0), session)
        model = {v.op.name: v for v in tf1.global_variables() if "Momentum" not in v.op.name}
        prefix = save(session, tmp_path / "model.ckpt-3", v1=True, variables=model)  # slots are not even there
        feed = {images: IMAGES, is_training: False, keep_prob: 1.0}
        expected = session.run({"output": output, **end_points}, feed)
    graph = load_meta(f"{prefix}.meta")
    names = {key: tensor.name for key, tensor in end_points.items() if key != "predictions"}
    found, scopes = graph.end_points(names)
    assert found == names and scopes == {"resnet_v2_50": "resnet_v2_50"}
    function = graph.prune(["output", *found.values()])
    assert function.fed == {"is_training:0": False, "keep_prob:0": 1.0}
    assert function.weights and not any("Momentum" in name for name in function.weights)
    values = function(IMAGES)
    np.testing.assert_allclose(values["output"], expected["output"], rtol=1e-4, atol=1e-5)
    for key, name in found.items():
        np.testing.assert_allclose(values[name], expected[key], rtol=1e-4, atol=1e-5)
    tap = graph.prune([found["resnet_v2_50/conv1"]])  # needs nothing beyond itself
    assert sorted(tap.weights) == ["resnet_v2_50/conv1/biases", "resnet_v2_50/conv1/weights"]
    assert not np.allclose(graph(IMAGES, ["output"], {"is_training": True})["output"], expected["output"], atol=1e-3)


@slim._quiet
def test_graph_built_for_training_says_so(tmp_path):
    with tf1_session() as session:
        images = tf1.placeholder("float32", IMAGES.shape)
        logits, _ = tiny_net(images, is_training=True)
        session.run(tf1.global_variables_initializer())
        graph = load_frozen(freeze(session, tmp_path / "frozen.pb", logits.op.name))
    assert graph.prune([logits.name]).normalizes_by_batch


def test_inference_graph_says_so_too(inference):
    assert not load_frozen(inference["pb"]).prune(["resnet_v2_50/logits/BiasAdd"]).normalizes_by_batch


@pytest.mark.parametrize("fused", [False, True])
@slim._quiet
def test_prefixed_and_repeated_scopes(tmp_path, fused):
    """`tower_0/…` of `tower_0` and `tower_1`, and unfused batch norm, whose last op is an addition."""
    with tf1_session() as session:
        images = tf1.placeholder("float32", IMAGES.shape)
        for tower in range(2):
            with tf1.name_scope(f"tower_{tower}"), tf1.variable_scope("", reuse=tower > 0, use_resource=False):
                _, end_points = tiny_net(images, scope="slim_resnet", fused=fused)
                if tower == 0:
                    first = end_points
        session.run(tf1.global_variables_initializer())
        graph = load_meta(f"{save(session, tmp_path / 'm.ckpt')}.meta")
    del first["predictions"]
    keys = {key.replace("slim_resnet", "resnet_v2_50"): tensor.name for key, tensor in first.items()}
    assert graph.end_points(keys) == ({}, {})
    assert graph.end_points(keys, {"resnet_v2_50": "slim_resnet"}) == (keys, {"resnet_v2_50": "tower_0/slim_resnet"})
    second, scopes = graph.end_points(keys, {"resnet_v2_50": "tower_1/slim_resnet"})
    assert second.keys() == keys.keys() and scopes == {"resnet_v2_50": "tower_1/slim_resnet"}


def test_mobile_names(tmp_path):
    """An end point that is an operation's own name; a head of several roots; a scope that is part of another's name."""
    with tf1_session() as session:
        x = tf1.placeholder("float32", (1, 4, 4, 3))
        with tf1.name_scope("MobilenetV2_1"):
            with tf1.name_scope("Conv"):
                x = tf1.nn.relu6(tf1.identity(x, "input"), "Relu6")
            with tf1.name_scope("Conv_1"):
                tf1.nn.relu6(x, "Relu6")
            with tf1.name_scope("expanded_conv_3"):
                with tf1.name_scope("project"):
                    projected = tf1.identity(x, "Identity")
                x = tf1.identity(tf1.add(x, tf1.identity(projected, "projection_output"), "add"), "output")
        with tf1.name_scope("aspp0"):
            x = tf1.nn.relu(x, "Relu")
        with tf1.name_scope("logits"), tf1.name_scope("semantic"):
            tf1.nn.bias_add(x, tf1.zeros(3), name="BiasAdd")
        path = tmp_path / "frozen.pb"
        path.write_bytes(session.graph.as_graph_def().SerializeToString())
    found, scopes = load_frozen(path).end_points(
        [
            "MobilenetV2/Conv",
            "MobilenetV2/expanded_conv_3/projection_output",
            "MobilenetV2/expanded_conv_3/output",
            "MobilenetV2/expanded_conv_4/output",
            "aspp0",
            "logits/semantic",
        ]
    )
    assert found == {
        "MobilenetV2/Conv": "MobilenetV2_1/Conv/Relu6:0",
        "MobilenetV2/expanded_conv_3/projection_output": "MobilenetV2_1/expanded_conv_3/projection_output:0",
        "MobilenetV2/expanded_conv_3/output": "MobilenetV2_1/expanded_conv_3/output:0",
        "aspp0": "aspp0/Relu:0",
        "logits/semantic": "logits/semantic/BiasAdd:0",
    }
    assert scopes == {"MobilenetV2": "MobilenetV2_1", "aspp0": "aspp0", "logits": "logits"}
    keys = ["image_pooling", "logits/semantic", "MobilenetV2/expanded_conv_3/projection_output"]
    theirs = {"image_pooling": "aspp0", "logits/semantic": "MobilenetV2/Conv_1"}
    found, scopes = load_frozen(path).end_points(keys, theirs)
    assert found["image_pooling"] == "aspp0/Relu:0" and scopes["logits/semantic"] == "MobilenetV2_1/Conv_1"


def test_what_a_graph_does_to_its_images(tmp_path):
    with tf1_session() as session:
        images = tf1.placeholder("uint8", (None, None, None, 3), name="images")
        height = tf1.shape(images)[1]
        x = tf1.cast(images, "float32") - [1.0, 2.0, 3.0]
        x = tf1.pad(x, [[0, 0], [0, 40 - height], [0, 5], [0, 0]], name="to_size")
        x = tf1.multiply(x, 2.0, name="scaled")
        kernel = tf1.constant(np.ones((3, 3, 3, 2), "float32"))
        y = tf1.nn.conv2d(tf1.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), kernel, 1, "VALID", name="conv")
        y = tf1.image.resize_bilinear(tf1.identity(y), (7, 8), name="small")
        tf1.image.resize_bilinear(y, (9, 10), name="large")
        tf1.nn.softmax(y)
        path = freeze(session, tmp_path / "frozen.pb", "large")
    graph = load_frozen(path)
    entrance = graph.entrance("small:0")
    assert entrance.tensor == "scaled:0" and entrance.operations == ("Sub", "Mul")  # not the shapes' Sub, not the pad
    assert graph.entrance("scaled:0") is None
    assert graph.shape_at("scaled:0") == (None, 40, None, 3)
    assert graph.upsampled("conv:0") == "large:0" and graph.upsampled("large:0") is None
    inner = load_frozen(path, input="scaled")
    assert inner.built_for == (None, 40, None, 3) and inner.input_shape is None
    assert inner.entrance("small:0").operations == ()


def test_queue_as_input_is_refused_with_candidates_and_can_be_replaced(tmp_path):
    with tf1_session() as session:
        queue = tf1.FIFOQueue(4, ["float32", "int64"], [(5, 5, 3), ()], name="batches")
        images, _ = queue.dequeue_many(2, name="batch")
        kernel = tf1.get_variable("net/conv1/weights", (3, 3, 3, 2), initializer=tf1.ones_initializer())
        with tf1.name_scope("net"), tf1.name_scope("conv1"):
            output = tf1.nn.relu(tf1.nn.conv2d(images * 2.0, kernel, 1, "SAME"), "Relu")
        session.run(kernel.initializer)
        prefix = save(session, tmp_path / "model.ckpt")
    with pytest.raises(LegacyGraphError, match=r"no placeholder.*candidates are net/conv1/mul:0, batch:0.*--input"):
        _ = load_meta(f"{prefix}.meta").input
    with pytest.raises(
        LegacyGraphError, match=r"reads batch:0 \(QueueDequeueManyV2\).*net/conv1/mul:0, batch:0.*--input"
    ):
        load_meta(f"{prefix}.meta").prune([output.name])
    pictures = np.ones((3, 7, 7, 3), "float32")
    doubled = load_meta(f"{prefix}.meta", input="batch:0")(pictures, [output.name])[output.name]
    plain = load_meta(f"{prefix}.meta", input="net/conv1/mul")(pictures, [output.name])[output.name]
    np.testing.assert_allclose(doubled, 2 * plain, rtol=1e-6)
    assert plain.any()


def test_several_placeholders_that_take_images(tmp_path):
    with tf1_session() as session:
        left, right = (tf1.placeholder("float32", (None, 4, 4, 3), name=name) for name in ("left", "right"))
        tf1.add(left, right, name="sum")
        path = freeze(session, tmp_path / "frozen.pb", "sum")
    with pytest.raises(LegacyGraphError, match=r"several placeholders take images: left:0, right:0; .*--input"):
        load_frozen(path).prune(["sum"])
    graph = load_frozen(path, input="left")
    with pytest.raises(LegacyGraphError, match=r"placeholder right \(float32\) has no value; .*--feed right"):
        graph.prune(["sum"])
    ones = np.ones((1, 4, 4, 3), "float32")
    np.testing.assert_array_equal(graph(ones, ["sum"], {"right": ones})["sum"], 2 * ones)


def test_placeholders_with_defaults(tmp_path):
    with tf1_session() as session:
        images = tf1.placeholder_with_default(np.zeros((1, 2, 2, 3), "float32"), (None, 2, 2, 3), name="images")
        training = tf1.placeholder_with_default(True, (), name="is_training")
        scale = tf1.placeholder_with_default(np.float32(3), (), name="scale")
        tf1.identity(images * scale * (1 + tf1.cast(training, "float32")), name="output")
        path = freeze(session, tmp_path / "frozen.pb", "output")
    ones = np.ones((1, 2, 2, 3), "float32")
    function = load_frozen(path).prune(["output"])
    assert function.fed == {"is_training:0": False}  # a default that is right for inference stays
    np.testing.assert_array_equal(function(ones)["output"], 3 * ones)


def test_images_of_another_shape(inference):
    graph = load_frozen(inference["pb"])
    output = [inference["names"]["resnet_v2_50/conv1"]]
    with pytest.raises(LegacyGraphError, match=r"input:0 takes images \(None, 33, 33, 3\).* \(1, 20, 33, 3\)"):
        graph(np.zeros((1, 20, 33, 3)), output)
    with pytest.raises(LegacyGraphError, match="need images, fed to input:0"):
        graph(None, output)


def test_names_that_are_not_there(inference):
    with pytest.raises(LegacyGraphError, match=r"no tensor 'conv1/BiasAdd:0'.*there are resnet_v2_50/conv1/BiasAdd:0"):
        load_frozen(inference["pb"])(IMAGES, ["conv1/BiasAdd:0"])
    with pytest.raises(LegacyGraphError, match="no tensor 'pixels'"):
        load_frozen(inference["pb"], input="pixels")


def test_unknown_op(tmp_path):
    graph_def = tf1.GraphDef()
    graph_def.node.add(name="x", op="Placeholder").attr["dtype"].type = tf.float32.as_datatype_enum
    graph_def.node.add(name="y", op="ContribFoo", input=["x"])
    graph_def.node.add(name="z", op="ContribFoo", input=["gone"])
    (tmp_path / "old.pb").write_bytes(graph_def.SerializeToString())
    graph = load_frozen(tmp_path / "old.pb", input="x")
    with pytest.raises(LegacyGraphError, match=r"old.pb: cannot be imported: its op ContribFoo is unknown"):
        graph.prune(["y"])
    with pytest.raises(LegacyGraphError, match="reads gone, which is not there: the file is cut short"):
        graph.prune(["z"])
    assert graph(np.float32(4), ["x"])["x"] == 4  # nothing else is imported


def test_variable_without_a_value(tmp_path):
    with tf1_session() as session:
        kernel = tf1.get_variable("net/kernel", (2,))
        other = tf1.get_variable("net/other", (2,))
        session.run([kernel.initializer, other.initializer])
        (tmp_path / "graph.pb").write_bytes(session.graph.as_graph_def().SerializeToString())
        prefix = save(session, tmp_path / "model.ckpt", variables=[other])
    with pytest.raises(LegacyGraphError, match=r"graph.pb: not frozen: net/kernel .* name the checkpoint"):
        load_frozen(tmp_path / "graph.pb")(None, ["net/kernel"])
    graph = load_frozen(tmp_path / "graph.pb", prefix)
    assert not graph.frozen and graph(None, ["net/other"])["net/other"].shape == (2,)
    with pytest.raises(LegacyGraphError, match=r"its variable net/kernel is not in .*model.ckpt"):
        graph(None, ["net/kernel"])


def test_wrong_files(tmp_path, inference):
    content = inference["pb"].read_bytes()
    meta = inference["prefix"].with_name("model.ckpt-7.meta").read_bytes()
    files = {"short.pb": content[:-1000], "text.pb": b"node { name: 1 }", "empty.pb": b"", "short.meta": meta[:-1000]}
    for name, text in files.items():
        (tmp_path / name).write_bytes(text)
    for load, name, message in (
        (load_frozen, "none.pb", "No such file"),
        (load_frozen, "empty.pb", "the file is empty"),
        (load_frozen, "short.pb", "cut short, damaged, or no GraphDef"),
        (load_frozen, "text.pb", "no GraphDef"),
        (load_frozen, ".", "a directory, not a graph"),
        (load_meta, "none.meta", "No such file"),
        (load_meta, "short.meta", "cut short, damaged, or no MetaGraphDef"),
    ):
        with pytest.raises(LegacyGraphError, match=message) as caught:
            load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and isinstance(caught.value, UserError)


def test_meta_without_checkpoint(tmp_path, inference):
    meta = tmp_path / "model.ckpt-7.meta"
    meta.write_bytes(inference["prefix"].with_name("model.ckpt-7.meta").read_bytes())
    with pytest.raises(LegacyGraphError, match=r"a graph without its variables: .*model.ckpt-7: no such checkpoint"):
        load_meta(meta)
    assert load_meta(meta, inference["prefix"])(None, ["resnet_v2_50/conv1/weights"])


def test_places_without_a_meta(tmp_path):
    with pytest.raises(LegacyGraphError, match=r"no \.meta file in this directory"):
        load_meta(tmp_path)
    with pytest.raises(LegacyGraphError, match=r"model.ckpt-9: no graph: model.ckpt-9.meta is not beside it"):
        load_meta(tmp_path / "model.ckpt-9")
    for name in ("a.meta", "b.meta"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint in this directory"):
        load_meta(tmp_path)


def test_saved_model_is_told_apart(tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda x: x + 1, input_signature=[tf.TensorSpec((), "float32")])
    tf.saved_model.save(module, str(tmp_path / "export"))
    with pytest.raises(LegacyGraphError, match=r"this is a SavedModel, .*tf.saved_model.load\('.*export'\)"):
        load_graph(tmp_path / "export" / "saved_model.pb")
    with pytest.raises(LegacyGraphError, match="a SavedModel; TensorFlow 2 runs it"):
        load_graph(tmp_path / "export")


def damaged_graph(path, damage):
    """A convolution and a resize whose GraphDef was damaged by a function of {name: node}."""
    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.float32, (None, None, None, 3), "images")
        found = tf.nn.relu(tf.nn.conv2d(images, tf.ones((3, 3, 3, 2)), 1, "SAME"), "relu")
        tf.compat.v1.image.resize(found, tf.constant([8, 8], name="size"), name="up")
    graph_def = graph.as_graph_def()
    damage({node.name: node for node in graph_def.node})
    path.write_bytes(graph_def.SerializeToString())
    return load_graph(path)


def test_operations_in_a_circle_are_named(tmp_path):
    graph = damaged_graph(tmp_path / "g.pb", lambda nodes: nodes["relu"].input.__setitem__(0, "relu"))
    for ask in (
        lambda: graph.end_points(["relu"]),
        lambda: graph.upsampled("relu:0"),
        lambda: graph.entrance("relu:0"),
    ):
        with pytest.raises(LegacyGraphError, match=r"g\.pb: its operations relu.* feed each other in a circle"):
            ask()


def test_a_damaged_size_is_known_before_there_is_room_for_it(tmp_path):
    def damage(nodes):
        nodes["size"].attr["value"].tensor.tensor_content = np.array([100_000, 100_000], "int32").tobytes()

    graph = damaged_graph(tmp_path / "g.pb", damage)
    with pytest.raises(LegacyGraphError, match=r"g\.pb: its operation 'up/.*' gives .*100000.* more than 1 GB at once"):
        graph(np.zeros((1, 8, 8, 3)), ["up/ResizeBilinear:0"])


def test_a_placeholder_of_no_type_takes_floats(tmp_path):
    def damage(nodes):
        nodes["images"].attr["dtype"].type = 0

    images = np.ones((1, 8, 8, 3))
    found, expected = (damaged_graph(tmp_path / "g.pb", how)(images, ["relu:0"]) for how in (damage, lambda _: None))
    assert np.array_equal(found["relu:0"], expected["relu:0"])


def test_a_damaged_dilation_is_said_before_the_kernel_ends_the_process(tmp_path):
    def damage(nodes):
        nodes["Conv2D"].attr["dilations"].list.i[2] = 2**31 - 1

    with pytest.raises(
        LegacyGraphError, match=r"g\.pb: the dilations of its operation 'Conv2D' are \[1, 1, 2147483647"
    ):
        damaged_graph(tmp_path / "g.pb", damage)
