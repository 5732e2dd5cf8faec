"""A frozen graph opens as the checkpoint that it was frozen from."""

import numpy as np
import pytest
import tensorflow as tf

from models.checkpoint import CheckpointError, open_checkpoint
from porting.graph_nodes import LegacyGraphError
from porting.legacy_graph import load_graph
from tests.conftest import assert_same, read_all

VALUES = {
    "net/conv1/weights": np.arange(24, dtype="float32").reshape(1, 2, 3, 4),
    "net/conv1/BatchNorm/gamma": np.array([1, -0.0, 3, 4], "float32"),
    "net/logits/biases": np.zeros(4, "float32"),
    "aspp1x1/kernel": np.ones((1, 1, 4, 2), "float16"),
}


def frozen(path, values, prefix="", read=False):
    """Writes a GraphDef that holds the arrays as constants, beside other operations and constants."""
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder("float32", (1, None, None, 3), name=f"{prefix}ImageTensor")
        tf.reshape(images, [-1], name=f"{prefix}Reshape")
        for name, value in values.items():
            constant = tf.constant(value, name=f"{prefix}{name}{'/read' if read else ''}")
            tf.identity(constant, name=f"{prefix}{name}{'_copy' if read else '/read'}")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("prefix", ["", "import/"])
def test_constants_are_read_under_the_variables_names(tmp_path, prefix, read):
    path = frozen(tmp_path / "graph.pb", VALUES, prefix, read)
    assert_same(read_all(path), {f"{prefix}{name}": value for name, value in VALUES.items()})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.path == str(path)
        assert checkpoint.dtypes[f"{prefix}aspp1x1/kernel"] == "float16"
        assert checkpoint.shapes[f"{prefix}net/conv1/weights"] == (1, 2, 3, 4)
        with open_checkpoint(checkpoint) as again:
            assert again is checkpoint


def test_what_is_no_frozen_graph_is_said(tmp_path):
    path = tmp_path / "graph.pb"
    with pytest.raises(CheckpointError, match=r"graph\.pb: cannot be read \(No such file"), open_checkpoint(path):
        pass
    path.write_bytes(b"whatever")
    with pytest.raises(CheckpointError, match=r"graph\.pb: cut short, damaged, or no frozen"), open_checkpoint(path):
        pass
    frozen(path, {})
    with pytest.raises(CheckpointError, match=r"graph\.pb: no weights under variables' names"), open_checkpoint(path):
        pass
    with open_checkpoint(frozen(path, VALUES)) as checkpoint, pytest.raises(CheckpointError, match="no variable 'a'"):
        checkpoint.read("a")


def test_a_saved_model_is_named_as_such(tmp_path):
    (tmp_path / "variables").mkdir()
    with (
        pytest.raises(CheckpointError, match="a SavedModel of TensorFlow 2"),
        open_checkpoint(frozen(tmp_path / "saved_model.pb", VALUES)),
    ):
        pass


def test_operations_tell_the_output_stride(tmp_path):
    """7x7 / 2, pool 3x3 / 2, 3x3 / 2 beside its 1x1 shortcut and subsampling; and one that lies elsewhere."""
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder("float32", (1, 64, 64, 3))

        def conv(x, name, size, stride):
            kernel = tf.constant(np.ones((size, size, x.shape[-1], 3), "float32"), name=f"{name}/weights")
            return tf.nn.conv2d(x, tf.identity(kernel, f"{name}/weights/read"), stride, "SAME", name=f"{name}/Conv2D")

        x = tf.nn.max_pool2d(conv(images, "net/conv1", 7, 2), 3, 2, "SAME", name="net/pool1/MaxPool")
        subsampled = tf.nn.max_pool2d(x, 1, 2, "VALID", name="net/block1/MaxPool")
        shortcut = conv(x, "net/block1/shortcut", 1, 2) + subsampled
        conv(conv(x, "net/block1/conv2", 3, 2) + shortcut, "net/block1/conv3", 3, 1)
        conv(images, "network/conv1", 3, 2)
    path = tmp_path / "graph.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.architecture("net") == {"output_stride": 8}
        assert checkpoint.architecture("network") == {"output_stride": 2}


def declaring(path, shape, values=(1.0,), content=b"", dtype=1, declared=None):
    """Writes a GraphDef with one constant whose shape and values are told apart."""
    graph = tf.compat.v1.GraphDef()
    node = graph.node.add(name="net/conv1/weights", op="Const")
    node.attr["dtype"].type = dtype if declared is None else declared
    tensor = node.attr["value"].tensor
    tensor.dtype, tensor.tensor_content = dtype, content
    tensor.float_val.extend(values)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    path.write_bytes(graph.SerializeToString())
    return path


@pytest.mark.parametrize(
    "damage",
    [
        {"shape": (1_000_000, 1_000_000)},  # which TensorFlow fills with the last value
        {"shape": (2**62, 2**62)},
        {"shape": (-1, 3)},
        {"shape": (0, 5)},
        {"shape": (3,), "content": bytes(8), "values": ()},
        {"shape": (3,), "dtype": 99},
        {"shape": (3,), "declared": 5},  # at which TensorFlow's optimizer ends the process
    ],
)
def test_a_constant_that_does_not_hold_what_it_declares_is_refused_before_there_is_room_for_it(tmp_path, damage):
    path = declaring(tmp_path / "graph.pb", **damage)
    with pytest.raises(CheckpointError, match=r"graph\.pb: the constant 'net/conv1/weights' .*damaged"):
        read_all(path)
    with pytest.raises(LegacyGraphError, match=r"graph\.pb: the constant 'net/conv1/weights' .*damaged"):
        load_graph(path)


def test_an_operation_without_strides_is_said(tmp_path):
    graph = tf.compat.v1.GraphDef.FromString(frozen(tmp_path / "graph.pb", VALUES).read_bytes())
    graph.node.add(name="net/pool", op="MaxPool")
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    with (
        open_checkpoint(tmp_path / "graph.pb") as checkpoint,
        pytest.raises(CheckpointError, match=r"graph\.pb: an op"),
    ):
        checkpoint.architecture("net")


def test_a_constant_of_one_value_is_filled_with_it(tmp_path):
    assert_same(
        read_all(declaring(tmp_path / "graph.pb", (100, 200))), {"net/conv1/weights": np.ones((100, 200), "f4")}
    )
