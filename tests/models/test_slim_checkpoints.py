"""Names, shapes and checkpoints against TF-Slim's own, and the table of exact counts."""

from collections import Counter

import numpy as np
import pytest

from models.deeplab_v3 import BACKBONES
from models.resnet import resnet_v2_50
from models.weight_init import (
    BOOKKEEPING,
    CLASSES,
    LOADED,
    checkpoint_guided_init,
    model_guided_init,
    named_variables,
    save_checkpoint,
)
from tests.conftest import assert_same

SLIM_NETS = [
    "resnet_v2_50",
    "resnet_v2_101",
    "resnet_v2_152",
    "resnet_v2_200",
    "resnet_v1_50",
    "resnet_v1_101",
    "resnet_v1_152",
]

# (variables, parameters) of the features, with the classifier of 1001 classes, and in DeepLab v3 with 21 classes
COUNTS = {
    "resnet_v2_18": ((100, 11_185_408), (102, 11_698_921), (132, 15_325_717)),
    "resnet_v2_34": ((188, 21_302_848), (190, 21_816_361), (220, 25_443_157)),
    "resnet_v2_50": ((270, 23_564_800), (272, 25_615_849), (302, 39_108_373)),
    "resnet_v2_101": ((542, 42_626_560), (544, 44_677_609), (574, 58_170_133)),
    "resnet_v2_152": ((814, 58_331_648), (816, 60_382_697), (846, 73_875_221)),
    "resnet_v2_200": ((1070, 62_845_440), (1072, 64_896_489), (1102, 78_389_013)),
    "resnet_v1_50": ((265, 23_561_152), (267, 25_612_201), (297, 39_104_725)),
    "resnet_v1_101": ((520, 42_605_504), (522, 44_656_553), (552, 58_149_077)),
    "resnet_v1_152": ((775, 58_295_232), (777, 60_346_281), (807, 73_838_805)),
    "mobilenet_v2": ((260, 2_257_984), (262, 3_540_265), (272, 2_146_645)),
}


def test_no_builder_lacks_a_row():
    assert COUNTS.keys() == BACKBONES.keys()


@pytest.mark.parametrize("name", BACKBONES)
def test_exact_counts(name, shapes_of):
    def counts(top):
        shapes = shapes_of(name, top).values()
        return len(shapes), sum(int(np.prod(shape)) for shape in shapes)

    assert (counts("features"), counts("classifier"), counts("deeplab")) == COUNTS[name]


@pytest.fixture(scope="module")
def slim():
    return pytest.importorskip("tests.slim_oracle", reason="needs tf_slim and tf_keras")


@pytest.fixture(scope="module")
def slim_shapes(slim):
    """{net: {name: shape}} of slim's graphs with a classifier of 1001."""
    return {net: slim.slim_variables(net, 1001) for net in SLIM_NETS}


@pytest.mark.parametrize("net", SLIM_NETS)
def test_names_and_shapes_are_slims(net, slim_shapes, shapes_of):
    theirs = slim_shapes[net]
    assert shapes_of(net, "classifier") == theirs
    without = {name: shape for name, shape in theirs.items() if not name.startswith(f"{net}/logits/")}
    assert shapes_of(net, "features") == without


def test_slim_without_a_classifier_lacks_the_logits_alone(slim, slim_shapes, shapes_of):
    theirs = slim.slim_variables("resnet_v2_50")
    assert slim_shapes["resnet_v2_50"].keys() - theirs.keys() == {
        "resnet_v2_50/logits/weights",
        "resnet_v2_50/logits/biases",
    }
    assert shapes_of("resnet_v2_50", "features") == theirs


# The published checkpoint in kind and number: one V1 file of 719 names


@pytest.fixture(scope="module")
def official(slim, tmp_path_factory):
    """(path, {name: array}) of what slim's Saver wrote."""
    path = tmp_path_factory.mktemp("official") / "resnet_v2_50.ckpt"
    values = slim.write_checkpoint(path, "resnet_v2_50", 1001, v1=True, momentum=True, ema=True, global_step=1234)
    yield path, values
    path.unlink()  # 300 MB


@pytest.fixture(scope="module")
def net():
    return resnet_v2_50(num_classes=1001)


def current(net):
    return {name: np.asarray(variable) for name, variable in named_variables(net).items()}


def test_the_official_checkpoint_is_loaded_whole_by_both_guides(official, net):
    path, values = official
    assert len(values) == 719
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # one file, no index
    expected = {name: values[name] for name in named_variables(net)}
    assert sum("moving_" in name for name in expected) == 98
    reports = []
    for init in checkpoint_guided_init, model_guided_init:
        for variable in net.weights:
            variable.assign(np.full(variable.shape, np.nan))
        reports.append(init(net, path, strict=True))
        assert_same(current(net), expected)
    assert reports[0] == reports[1]

    report = reports[0]
    assert report.counts == dict.fromkeys(CLASSES, 0) | {LOADED: 272, BOOKKEEPING: 447}
    kinds = Counter(entry.why for entry in report.of(BOOKKEEPING))
    assert kinds == {"Momentum": 174, "ExponentialMovingAverage": 272, "global_step": 1}
    assert str(report).endswith("270/270 backbone variables, 23,564,800 values")


def test_the_moving_averages_of_the_official_checkpoint(official, net):
    path, values = official
    report = checkpoint_guided_init(net, path, strict=True, ema=True)
    assert_same(current(net), {name: values[f"{name}/ExponentialMovingAverage"] for name in named_variables(net)})
    assert report.counts == dict.fromkeys(CLASSES, 0) | {LOADED: 272, BOOKKEEPING: 447}


def test_slims_saver_restores_what_is_saved_here(slim, net, tmp_path):
    rng = np.random.default_rng(0)
    for variable in net.weights:
        variable.assign(rng.standard_normal(variable.shape, "float32"))
    values = current(net)
    trainable = [name for name, variable in named_variables(net).items() if variable.trainable]
    momentum = {name: rng.standard_normal(values[name].shape, "float32") for name in trainable}
    save_checkpoint(net, tmp_path / "model.ckpt-30000", {"Momentum": momentum}, global_step=30_000)

    restored = slim.slim_restore("resnet_v2_50", tmp_path / "model.ckpt-30000", 1001, momentum=True, global_step=True)
    slots = {f"{name}/Momentum": value for name, value in momentum.items()}
    assert_same(restored, values | slots | {"global_step": np.int64(30_000)})
