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

# (variables, parameters) of the features, with the classifier of 1001 classes where there is one, and in DeepLab with
# 21 classes. Variables beyond ResNet and MobileNet v2 agree with the golden files' (tests/golden), less global_step.
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
    "resnet_v1_18": ((100, 11_186_112), (102, 11_699_625), (132, 15_326_421)),
    "resnet_v1_18_beta": ((115, 11_167_920), (117, 11_681_433), (147, 15_308_229)),
    "resnet_v1_50_beta": ((275, 23_685_312), (277, 25_736_361), (307, 39_228_885)),
    "resnet_v1_101_beta": ((530, 42_729_664), (532, 44_780_713), (562, 58_273_237)),
    "xception_41": ((420, 25_035_872), (422, 27_086_921), (452, 40_579_445)),
    "xception_65": ((660, 38_052_512), (662, 40_103_561), (692, 53_596_085)),
    "xception_71": ((730, 40_488_712), (732, 42_539_761), (762, 56_032_285)),
    "mobilenet_v1": ((135, 3_228_864), (137, 4_254_889), (152, 3_892_693)),
    "mobilenet_v3_large": ((262, 2_996_352), (266, 5_508_713), (273, 3_248_002)),
    "mobilenet_v3_small": ((206, 939_120), (210, 2_555_993), (217, 1_091_794)),
    "mobilenet_v3_large_seg": ((262, 1_396_960), None, (273, 1_525_730)),
    "mobilenet_v3_small_seg": ((206, 398_944), None, (217, 477_890)),
    "mobilenet_edgetpu": ((290, 2_849_312), (292, 4_131_593), (307, 3_644_213)),
    "mobilenet_v2": ((260, 2_257_984), (262, 3_540_265), (272, 2_146_645)),
}


def test_no_builder_lacks_a_row():
    assert COUNTS.keys() == BACKBONES.keys()


@pytest.mark.parametrize("name", BACKBONES)
def test_exact_counts(name, shapes_of):
    def counts(top):
        shapes = shapes_of(name, top).values()
        return len(shapes), sum(int(np.prod(shape)) for shape in shapes)

    for top, expected in zip(("features", "classifier", "deeplab"), COUNTS[name], strict=True):
        assert expected is None or counts(top) == expected, top


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
