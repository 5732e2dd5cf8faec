"""What the tests share: real data where it is, tiny networks, checkpoints of a few variables in both formats."""

import functools
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

import models  # noqa: F401  # before TensorFlow, which is told to use oneDNN

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Where two workers share the cores, PyTorch's threads would wait for each other spinning, seconds in a call of 50 ms.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["SLIM_DEEPLAB_CACHE"] = os.path.join(tempfile.gettempdir(), f"slim-deeplab-tests-{os.getuid()}")

# Environment of processes that run JAX: compiled in half the time, to slower programs.
QUICK_JAX = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
}
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data and weights; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the real data and weights of {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def real_checkpoints(shared_data):
    return shared_data / "checkpoints"


@pytest.fixture(scope="module")
def short_mobilenet():
    """MobileNet v2 ends with its seventh unit in the tests of a module that uses this."""
    from tests.short_mobilenet import shortened

    with shortened():
        yield


@pytest.fixture
def tiny_resnet():
    """resnet_v2_50's names with one unit a block, 8 channels and 5 classes."""
    from models.resnet import Bottleneck, ResNet

    net = ResNet("resnet_v2_50", Bottleneck, (1, 1, 1, 1), num_classes=5, width=8)
    net.build()
    return net


@pytest.fixture(scope="session")
def tensors():
    """A few variables of several types and sizes, as `write_checkpoint` takes them."""
    rng = np.random.default_rng(0)
    return {
        "net/conv1/weights": rng.normal(size=(3, 3, 3, 8)).astype("float32"),
        "net/conv1/biases": rng.normal(size=8).astype("float32"),
        "net/logits/weights": rng.normal(size=(300, 250)).astype("float32"),
        "global_step": np.int64(7),
    }


def write_v1(path, tensors):
    """One file in TensorFlow's first format, as the published tarballs hold it."""
    import tensorflow as tf

    tf.raw_ops.Save(filename=str(path), tensor_names=list(tensors), data=[tf.constant(v) for v in tensors.values()])
    return path


def read_all(path):
    """{name: array} of a whole checkpoint."""
    from models.checkpoint import open_checkpoint

    with open_checkpoint(path) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.shapes}


def assert_same(found, expected):
    """Two {name: array} are equal in names, types, shapes and bits."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        value = np.asarray(value)  # noqa: PLW2901
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
        assert found[name].tobytes() == value.tobytes(), name


@pytest.fixture(scope="session")
def shapes_of():
    """A function: name of a builder, "features", "classifier" (1001) or "deeplab" (21) → {name: shape}.

    Each is built once and kept, with kernels of zeros, which takes a quarter of the time that random ones do. A
    network's features are those within its DeepLab, built by the same call, but for MobileNet v2's last convolution.
    """
    import keras
    from keras import ops

    from models.deeplab_v3 import BACKBONES, deeplab_v3
    from models.identify import canonical_scope
    from models.weight_init import named_variables

    def shapes(model):
        return {name: tuple(variable.shape) for name, variable in named_variables(model).items()}

    @functools.cache
    def built(name, top):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keras.initializers.HeNormal, "__call__", lambda _, shape, **__: ops.zeros(shape))
            if top == "deeplab":
                return shapes(deeplab_v3(name, num_classes=21))
            if top == "classifier":
                return shapes(BACKBONES[name](num_classes=1001))
            if name == "mobilenet_v2":
                return shapes(BACKBONES[name]())
        scope = canonical_scope(name)
        return {n: shape for n, shape in built(name, "deeplab").items() if n.startswith(f"{scope}/")}

    return lambda name, top: dict(built(name, top))
