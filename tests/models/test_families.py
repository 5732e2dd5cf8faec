"""What names tell of whose network a checkpoint is, what they cannot, and what is refused: names and shapes alone."""

import functools
import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from models.checkpoint import CheckpointError, open_checkpoint
from models.deeplab_v3 import deeplab_v3
from models.families import FAMILIES
from models.identify import canonical_scope, identify
from models.layers import to_be_restored
from models.leftovers import check_meaning, leftovers
from models.mobilenet_v2 import mobilenet_v2
from models.scopes import ScopeError
from models.weight_init import (
    AVERAGE,
    BOOKKEEPING,
    LOADED,
    MISMATCH,
    UNUSED,
    Report,
    Rules,
    checkpoint_guided_init,
    checkpoint_guided_plan,
    harmless,
    model_guided_plan,
    named_variables,
)
from tests.conftest import assert_same
from tests.golden_networks import GoldenFile

MOBILE = "official_mnv2"


@functools.cache
def shapes_of(name):
    """{name: shape} of a golden file's checkpoint."""
    return GoldenFile(name).shapes


@functools.cache
def _shapes_of_model(config):
    config = {key: tuple(v) if isinstance(v, list) else v for key, v in json.loads(config).items()}
    with pytest.MonkeyPatch.context() as patch, to_be_restored():
        patch.setattr(keras.initializers.TruncatedNormal, "__call__", lambda _, shape, **__: ops.zeros(shape))
        model = deeplab_v3(**config) if "output_stride" in config else mobilenet_v2(**config)
    return {name: tuple(variable.shape) for name, variable in named_variables(model).items()}


def model_shapes(identity):
    """{name: shape} of the network that an Identity tells; built once for each configuration."""
    config = (
        identity.segmenter()
        if identity.segments
        else {
            "num_classes": identity.num_classes,
            "depth_multiplier": identity.depth_multiplier,
            "divisible_by": identity.divisible_by,
        }
    )
    return _shapes_of_model(json.dumps(config))


def planned(shapes, *, ema=False, model=None, allow_unused=(), guide=checkpoint_guided_plan):
    """The Report of what a checkpoint of {name: shape} would give to the network that its names tell."""
    identity = identify(shapes, model, allow_unused)
    rules = Rules(ema=ema, translation=identity.translation)
    entries = guide(model_shapes(identity), shapes, rules)
    scope = canonical_scope(identity.backbone)
    idle = (f"{scope}/postnorm",) if identity.config.get("features") == "block4" else ()
    return Report(entries, "model.ckpt", "deeplab_v3", scope, idle_scopes=idle)


def loaded(report):
    return {(entry.variable, entry.source) for entry in report.of(LOADED)}


# Families


@pytest.mark.parametrize(
    ("name", "text", "assumed"),
    [
        ("official_mnv2_dm05", "official DeepLab v3, mobilenet_v2 0.5, 21 classes", ["output_stride"]),
        ("official_mnv2_decoder_ade20k", "official DeepLab v3+, mobilenet_v2 1, 151 classes", ["output_stride"]),
        (
            "official_resnet_v1_50_sep_grid124",
            "official DeepLab v3, resnet_v1_50, 21 classes",
            ["multi_grid", "preprocessing", "atrous_rates", "output_stride"],
        ),
        ("rishizek_v3plus_os16", "rishizek's DeepLab v3+, resnet_v2_50, 21 classes", ["output_stride"]),
        ("nanqingd", "NanqingD's DeepLab v3, resnet_v1_50, 21 classes", []),
        ("sthalles_os8", "sthalles' DeepLab v3, resnet_v2_50, 21 classes", ["multi_grid", "output_stride"]),
        (
            "leimao_mobilenet_10",
            "leimao's DeepLab v3, mobilenet_v2 1, 21 classes (under the scope backbone/MobilenetV2)",
            ["preprocessing"],
        ),
        ("imagenet_mobilenet_v2_10", "mobilenet_v2 1, 1001 classes", []),
    ],
)
def test_a_family_says_itself_in_one_line_and_what_it_assumes(name, text, assumed):
    identity = identify(shapes_of(name))
    assert (str(identity), list(identity.assumed)) == (text, assumed)
    document = json.loads(json.dumps(identity.to_json()))
    assert (document["text"], list(document["assumed"])) == (text, assumed)
    assert set(document["config"]) == set(identity.config)  # a run's configuration can hold it


def test_what_is_assumed_is_one_line_with_the_flags_that_say_otherwise():
    identity = identify(shapes_of("official_resnet_v1_50_plain"))
    assert identity.assumptions() == (
        "multi-grid none, mean (123.15, 115.90, 103.06), atrous rates 6, 12, 18, output stride 16 "
        "(names cannot tell; see --multi-grid, --mean, --atrous-rates, --output-stride)"
    )
    assert identity.assumptions(("multi_grid", "preprocessing", "atrous_rates")) == (
        "output stride 16 (names cannot tell; see --output-stride)"
    )
    assert identify(shapes_of("nanqingd")).assumptions() == ""


def test_names_of_families_are_their_own():
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("name", ["rishizek_v3_os16", "nanqingd", "leimao_mobilenet_10"])
def test_the_report_shows_both_names_and_what_was_permuted(name):
    shapes = shapes_of(name)
    report = planned(shapes)
    assert set(loaded(report)) == set(loaded(planned(shapes, guide=model_guided_plan)))
    family = identify(shapes).family
    (line,) = [line for line in report.text().splitlines() if line.startswith("  concat_projection")]
    there = {"rishizek": "aspp/conv_1x1_concat", "NanqingD": "resnet_v1_50/fusion/1x1conv", "leimao": "aspp_outputs"}
    assert f"permuted by {family}" in line
    if family != "leimao":
        assert f"from {there[family]}" in line
    assert f"concat_projection/weights  from {there[family]}/" in report.text(verbose=True)


def test_permuted_values_are_those_of_a_projection_that_sees_image_pooling_first():
    kernel = np.arange(1280 * 2, dtype="float32").reshape(1, 1, 1280, 2)
    pooled_last = np.random.default_rng(0).normal(size=(1, 5, 256)).astype("float32")
    pooled_first = np.roll(pooled_last, 1, axis=1)
    translation = identify(shapes_of("rishizek_v3_os16")).translation
    changed = translation.values("concat_projection/weights", kernel)
    np.testing.assert_allclose(
        pooled_first.reshape(1, -1) @ changed[0, 0], pooled_last.reshape(1, -1) @ kernel[0, 0], 1e-5
    )


@pytest.mark.parametrize(
    ("multiplier", "divisor"), [(0.5, 1), (0.5, 8), (1.4, 1), (1.4, 8), (0.75, 1), (0.35, 8), (0.25, 1)]
)
def test_both_roundings_of_channels_are_told_from_shapes(multiplier, divisor):
    with to_be_restored():
        net = mobilenet_v2(depth_multiplier=multiplier, divisible_by=divisor, num_classes=5)
    identity = identify({name: tuple(v.shape) for name, v in named_variables(net).items()})
    assert (identity.depth_multiplier, identity.divisible_by) == (multiplier, divisor)


def test_fully_connected_logits_become_a_convolution_of_1x1():
    shapes = shapes_of("imagenet_mobilenet_v2_10") | {"MobilenetV2/Logits/Conv2d_1c_1x1/weights": (1280, 1001)}
    report = planned(shapes)
    check_meaning(report)
    assert "(a fully connected layer)" in report.text(verbose=True)


def test_a_head_without_logits_is_one_to_begin_from_and_no_segmenter():
    shapes = {name: shape for name, shape in shapes_of(MOBILE).items() if "logits" not in name}
    identity = identify(shapes)
    assert (identity.segments, identity.num_classes) == (True, None)
    with pytest.raises(CheckpointError, match=r"its head \(.*\) has no logits \(logits/semantic/weights\)"):
        identity.segmenter()
    with pytest.raises(CheckpointError, match="holds mobilenet_v2 1, 1001 classes; no segmentation head"):
        identify(shapes_of("imagenet_mobilenet_v2_10")).segmenter()


# Several networks, prefixes, averages


@pytest.mark.parametrize("name", [MOBILE, "rishizek_v3_os16", "nanqingd", "leimao_mobilenet_10"])
@pytest.mark.parametrize("prefix", ["tower_0/", "import/", "train/tower_0/"])
def test_a_prefix_before_a_whole_network_is_dropped_from_its_head_too(name, prefix):
    shapes = {f"{prefix}{variable}": shape for variable, shape in shapes_of(name).items()}
    assert identify(shapes).config == identify(shapes_of(name)).config
    check_meaning(planned(shapes))


@pytest.mark.parametrize("name", [MOBILE, "nanqingd"])
def test_a_backbone_of_another_name_is_given_slims(name):
    scope = identify(shapes_of(name)).scope
    shapes = {variable.replace(f"{scope}/", "net/"): shape for variable, shape in shapes_of(name).items()}
    check_meaning(planned(shapes))
    assert str(identify(shapes)).endswith("(under the scope net)")


@pytest.mark.parametrize("other", ["accum/", "tower_1/"])
def test_of_two_copies_one_is_named(other):
    first = "" if other == "accum/" else "tower_0/"
    shapes = {f"{first}{name}": shape for name, shape in shapes_of(MOBILE).items()}
    shapes |= {f"{other}{name}": shape for name, shape in shapes_of(MOBILE).items()}
    with pytest.raises(CheckpointError) as error:
        identify(shapes)
    for prefix in (first, other):
        assert f"--model {prefix}MobilenetV2" in str(error.value)
        report = planned(shapes, model=f"{prefix}MobilenetV2")
        check_meaning(report)
        assert all(entry.source.startswith(prefix) for entry in report.of(LOADED))
        assert {entry.why for entry in report.of(UNUSED)} == {
            f"of another network, {other if prefix == first else first}MobilenetV2"
        }


def test_two_extractors_are_told_apart_by_what_stands_before_them():
    backbone = {name: s for name, s in shapes_of("nanqingd").items() if "/block" in name or "/conv1/" in name}
    first = {f"First/{name}": shape for name, shape in backbone.items() if "/block4/" not in name}
    second = {f"Second/{name}": shape for name, shape in backbone.items() if "/block4/" in name}
    shapes = first | second | {"Second/ClassPredictor/weights": (2048, 91)}
    with pytest.raises(
        CheckpointError, match=r"several .*First/resnet_v1_50 \(block1, block2, block3, conv1\), Second/re"
    ):
        identify(shapes)
    with pytest.raises(CheckpointError, match="several"):
        identify(shapes, "resnet_v1_50")
    for model in ("First", "First/resnet_v1_50"):
        identity = identify(shapes, model)
        assert (identity.scope, identity.backbone) == ("First/resnet_v1_50", "resnet_v1_50")
        assert identity.translation.left_out("Second/ClassPredictor/weights") == "Second/resnet_v1_50"
        assert identity.translation.rename("First/resnet_v1_50/conv1/weights") == "resnet_v1_50/conv1/weights"
    with pytest.raises(CheckpointError, match="no resnet_v2_50 in this checkpoint; it has First/resnet_v1_50"):
        identify(shapes, "resnet_v2_50")


def test_half_a_network_is_told_by_who_asks_for_it():
    shapes = {
        name.replace("resnet_v2_50", "net"): shape
        for name, shape in shapes_of("rishizek_v3_os16").items()
        if "/block1/" in name
    }
    with pytest.raises(CheckpointError, match="could be resnet_v2_50 or resnet_v2_101"):
        identify(shapes)
    assert identify(shapes, "resnet_v2_101").backbone == "resnet_v2_101"


@pytest.mark.parametrize("name", [MOBILE, "rishizek_v3_os16"])
@pytest.mark.parametrize("ema", [True, False])
def test_where_there_are_moving_averages_only_they_are_taken(name, ema):
    shapes = {f"{variable}{AVERAGE}": shape for variable, shape in shapes_of(name).items() if shape}
    identity = identify(shapes)
    assert (identity.averages, identity.config) == ("all", identify(shapes_of(name)).config)
    report = planned(shapes, ema=ema)
    check_meaning(report)
    assert len(report.of(LOADED)) == len(shapes)


def test_averages_beside_the_variables_are_told_and_left_alone():
    shapes = shapes_of(MOBILE) | {f"{name}{AVERAGE}": shape for name, shape in shapes_of(MOBILE).items() if shape}
    assert identify(shapes).averages == "some"
    assert identify(shapes_of(MOBILE)).averages == "none"
    assert loaded(planned(shapes)) == loaded(planned(shapes_of(MOBILE)))
    del shapes["MobilenetV2/Conv/weights"]  # which its average does not stand in for
    with pytest.raises(CheckpointError, match="MobilenetV2/Conv/weights"):
        check_meaning(planned(shapes))


# Leftovers


def test_a_decoder_of_which_there_is_a_part_is_no_v3():
    shapes = shapes_of(MOBILE) | {"decoder/decoder_conv1_pointwise/weights": (1, 1, 256, 256)}
    assert str(identify(shapes)).startswith("official DeepLab v3+")
    with pytest.raises(CheckpointError, match="all it has of decoder is decoder/decoder_conv1_pointwise/weights"):
        check_meaning(planned(shapes))
    without = planned(shapes, allow_unused=("decoder",))
    check_meaning(without, ("decoder",))
    assert loaded(without) == loaded(planned(shapes_of(MOBILE)))


def test_what_has_no_place_is_named_with_what_it_is_of():
    shapes = shapes_of(MOBILE) | {"decoder/other/weights": (1, 1, 256, 48), "mystery_branch/weights": (1, 1, 256, 48)}
    report = planned(shapes)
    assert [entry.source for entry in leftovers(report)] == ["decoder/other/weights", "mystery_branch/weights"]
    with pytest.raises(CheckpointError) as error:
        check_meaning(report)
    text = str(error.value)
    assert "decoder/other/weights (DeepLab v3+), mystery_branch/weights (nothing that is known here)" in text
    assert "--allow-unused decoder,mystery_branch" in text
    check_meaning(report, ["decoder", "mystery_branch"])
    with pytest.raises(CheckpointError, match="mystery_branch/weights"):
        check_meaning(report, "decoder/other")
    with pytest.raises(ScopeError, match="allow-unused scope 'decodr' matches no variable"):
        check_meaning(report, "decodr")


@pytest.mark.parametrize(("name", "needed"), [("rishizek_v3_os16", False), ("leimao_resnet_50", True)])
def test_a_postnorm_that_nothing_is_computed_with_may_be_missing(name, needed):
    shapes = {variable: shape for variable, shape in shapes_of(name).items() if "/postnorm/" not in variable}
    report = planned(shapes)
    if needed:
        with pytest.raises(
            CheckpointError, match="4 of the model's variables are not in it: resnet_v2_50/postnorm/beta"
        ):
            check_meaning(report)
    else:  # as in a frozen graph
        check_meaning(report)
        assert "nothing is computed with it" in str(report)


HARMLESS = {
    "MobilenetV2/Conv/act_quant/min": (),
    "MobilenetV2/expanded_conv_3/project/weights_quant/max": (),
    "MobilenetV2/expanded_conv_5/add_quant/min": (),
    "MobilenetV2/Conv_1/weights": (1, 1, 320, 1280),
    "MobilenetV2/Conv_1/BatchNorm/gamma": (1280,),
    "MobilenetV2/Logits/Conv2d_1c_1x1/weights": (1, 1, 1280, 1001),
    "MobilenetV2/Conv/act_quant/MobilenetV2/Conv/act_quant/min/biased": (),
    "MobilenetV2/Conv/weights/Momentum": (3, 3, 3, 32),
    "MobilenetV2/Conv/weights/Adam_1": (3, 3, 3, 32),
    "beta1_power": (),
}


def test_harmless_kinds_change_nothing_and_say_why():
    whole = planned(shapes_of(MOBILE))
    report = planned(shapes_of(MOBILE) | HARMLESS)
    check_meaning(report)
    assert loaded(report) == loaded(whole)
    assert all(entry.why for entry in report.of(UNUSED) + report.of(BOOKKEEPING))
    assert "range of quantization-aware training" in str(report)
    assert "of the classifier, which a segmenter has none of" in str(report)


def test_a_classifier_has_no_harmless_head():
    classifier = _shapes_of_model('{"num_classes": 1001}')
    assert harmless("MobilenetV2/Logits/Other/weights", classifier) == ""
    assert harmless("logits/semantic/weights", classifier) == ""


@pytest.mark.parametrize("gone", ["weights", "biases"])
def test_half_a_layer_is_a_mismatch_of_both(gone):
    shapes = shapes_of(MOBILE)
    report = planned({name: shape for name, shape in shapes.items() if name != f"logits/semantic/{gone}"})
    (other,) = report.of(MISMATCH)
    assert other.variable == f"logits/semantic/{'biases' if gone == 'weights' else 'weights'}"
    assert "the layer's other half does not fit or is missing" in report.reason(other)


# One variable more, less, elsewhere, or of another shape: another number never comes of it

TRIED = (
    "official_mnv2",
    "official_mnv2_decoder_ade20k",
    "official_mnv2_aspp",
    "official_mnv2_dm05",
    "rishizek_v3_os16",
    "rishizek_v3plus_os16",
    "nanqingd",
    "sthalles_os16",
    "leimao_mobilenet_10",
    "leimao_resnet_50",
    "imagenet_mobilenet_v2_10",
)
ADDED = (
    "{}_2",
    "{}/part",
    "extra/{}",
    "mystery/weights",
    "aspp4/weights",
    "aspp1/other",
    "aspp1_depthwise/depthwise_weights",
    "decoder/decoder_conv1_pointwise/weights",
    "decoder/decoder_conv0/decoder_conv0_2/weights",
    "image_pooling/other",
    "meta_architecture/branch0_pointwise/weights",
    "resnet_v2_50/block3/unit_7/bottleneck_v2/conv1/weights",
    "resnet_v1_50/block5/unit_1/bottleneck_v1/conv1/weights",
    "MobilenetV2/expanded_conv_17/project/weights",
    "MobilenetV2/Conv_2/weights",
    "accum/MobilenetV2/expanded_conv_3/project/weights",
    *HARMLESS,
)


@st.composite
def mutations(draw):
    """(a golden file's name, {variable: its shape, None without it} that is changed)."""
    checkpoint = draw(st.sampled_from(TRIED))
    shapes = shapes_of(checkpoint)
    name = draw(st.sampled_from(sorted(n for n in shapes if shapes[n])))
    kind = draw(st.sampled_from(["add", "drop", "rename", "reshape"]))
    if kind == "add":
        new = draw(st.sampled_from(ADDED)).format(name)
        return checkpoint, {new: HARMLESS.get(new, (1, 1, 256, 256))}
    if kind == "drop":
        return checkpoint, {name: None}
    if kind == "rename":
        new = draw(st.sampled_from([f"{name}_old", f"old/{name}", name.replace("/", "/old_", 1)]))
        return checkpoint, {name: None, new: shapes[name]}
    axis = draw(st.integers(0, len(shapes[name]) - 1))
    return checkpoint, {name: tuple(n + (index == axis) for index, n in enumerate(shapes[name]))}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(mutations())
def test_one_changed_variable_gives_the_same_result_or_is_named(mutation):
    checkpoint, changes = mutation
    shapes = shapes_of(checkpoint)
    changed = {name: shape for name, shape in (shapes | changes).items() if shape is not None}
    try:
        report = planned(changed)
        check_meaning(report)
    except CheckpointError as error:
        here = [identify(shapes).translation.rename(name) for name in changes]
        assert any(name in str(error) for name in (*changes, *here))
    else:  # the same, but for what nothing is computed with
        assert {pair for pair in loaded(planned(shapes)) - loaded(report) if "/postnorm/" not in pair[0]} == set()
        assert loaded(report) <= loaded(planned(shapes))


# Real files


def test_a_users_own_network_loads_by_its_names_from_checkpoint_and_frozen_graph(real_checkpoints, shared_data):
    checkpoint = real_checkpoints / "deeplabv3_mnv2_dm05_portrait.ckpt"
    frozen = shared_data / "old_graphs" / "deeplabv3_mnv2_dm05_portrait_frozen.pb"
    models = []
    for path, more in ((checkpoint, {}), (frozen, {"output_stride": 8})):
        with open_checkpoint(path) as opened:
            identity = identify(opened.shapes)
            assert opened.architecture(identity.scope) == more  # it was frozen at a stride that names do not tell
        assert str(identity) == "official DeepLab v3, mobilenet_v2 0.5, 2 classes"
        model = deeplab_v3(**identity.config)
        report = checkpoint_guided_init(model, path, translation=identity.translation)
        check_meaning(report)
        assert report.counts[LOADED] == 272
        models.append({name: np.asarray(variable) for name, variable in named_variables(model).items()})
    assert_same(*models)


def test_a_lone_index_tells_its_network_and_no_values(shared_data):
    index = shared_data / "old_graphs" / "deeplabv3_mnv2_pascal_trainval_published.index"
    with pytest.raises(CheckpointError, match=r"data-00000-of-00001 is missing"), open_checkpoint(index):
        pass
    with open_checkpoint(index, names_only=True) as checkpoint:
        assert len(checkpoint.shapes) == 437
        assert str(identify(checkpoint.shapes)) == "official DeepLab v3, mobilenet_v2 1, 21 classes"
        with pytest.raises(CheckpointError, match=r"only names and shapes are here; .*data-00000-of-00001 is missing"):
            checkpoint.read("MobilenetV2/Conv/weights")
