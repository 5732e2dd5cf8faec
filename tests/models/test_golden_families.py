"""Every family's checkpoints, opened by their names alone, compute what their own graphs do: `tests/golden`.

The facts are numbers that the public TF1 graphs gave for weights and a picture that a formula makes. An inner tensor is
compared wherever it is one of this project's end points, so that a failure says where it begins.
"""

from dataclasses import replace

import numpy as np
import pytest
from keras import ops

from models.checkpoint import write_checkpoint
from models.deeplab_v3 import BACKBONES, OF_ANY_WIDTH, deeplab_v3
from models.families import FAMILIES
from models.identify import identify
from models.layers import BatchNorm, Conv2d, recording, to_be_restored
from models.leftovers import check_meaning
from models.weight_init import checkpoint_guided_init
from tests.golden_networks import FOLDER, GoldenFile, OpenWeights, picture

# What names cannot tell: the settings of a graph that are not its family's default.
CROPPED_POOLING = {"image_pooling_crop_size": (161, 161), "image_pooling_stride": (4, 5)}
SAID = {
    "official_edgetpu_slim_os32": {"output_stride": 32},
    "official_mnv2_os8_offgrid": {"output_stride": 8},
    "official_mnv3_large_seg": {"output_stride": 32, **CROPPED_POOLING},
    "official_mnv3_small_seg": {"output_stride": 32, **CROPPED_POOLING},
    "official_mnv3_small_seg_os16_offgrid": CROPPED_POOLING | {"image_pooling_crop_size": (129, 129)},
    "official_resnet_v1_50_beta_grid124": {"multi_grid": (1, 2, 4)},
    "official_resnet_v1_50_beta_v3plus": {"multi_grid": (1, 2, 4)},
    "official_resnet_v1_50_beta_v3plus_os8_offgrid": {"multi_grid": (1, 2, 4), "output_stride": 8},
    "official_resnet_v1_101_beta_grid124": {"multi_grid": (1, 2, 4)},
    "official_resnet_v1_101_beta_v3plus": {"multi_grid": (1, 2, 4)},
    "official_resnet_v1_50_plain_grid124": {"multi_grid": (1, 2, 4)},
    "official_resnet_v1_50_plain_grid124_os8_offgrid": {"multi_grid": (1, 2, 4), "output_stride": 8},
    "official_resnet_v1_50_sep_grid124": {"multi_grid": (1, 2, 4)},
    "official_xception_65_v3plus_os8_offgrid": {"output_stride": 8},
    "rishizek_v3_os8": {"output_stride": 8},
    "sthalles_os8": {"output_stride": 8},
}
IDENTITIES = {
    "imagenet_mobilenet_v1_05": "mobilenet_v1 0.5, 1001 classes",
    "imagenet_mobilenet_v1_10": "mobilenet_v1 1, 1001 classes",
    "imagenet_mobilenet_v3_large": "mobilenet_v3_large, 1001 classes",
    "imagenet_mobilenet_v3_small": "mobilenet_v3_small, 1001 classes",
    "imagenet_resnet_v1_50_beta": "resnet_v1_50_beta, 1001 classes",
    "imagenet_xception_65": "xception_65, 1001 classes",
    "imagenet_xception_71": "xception_71, 1001 classes",
    "official_edgetpu": "official DeepLab v3, mobilenet_edgetpu 1, 19 classes",
    "official_edgetpu_slim_os32": "official DeepLab v3, mobilenet_edgetpu 0.75, 19 classes",
    "official_mnv2_dm05": "official DeepLab v3, mobilenet_v2 0.5, 21 classes",
    "official_mnv3_large_seg": "official DeepLab v3 with Lite R-ASPP, mobilenet_v3_large_seg, 19 classes",
    "official_mnv3_small_seg": "official DeepLab v3 with Lite R-ASPP, mobilenet_v3_small_seg, 19 classes",
    "official_resnet_v1_18": "official DeepLab v3, resnet_v1_18, 21 classes",
    "official_resnet_v1_18_beta": "official DeepLab v3, resnet_v1_18_beta, 21 classes",
    "official_resnet_v1_50_beta_v3plus": "official DeepLab v3+, resnet_v1_50_beta, 21 classes",
    "official_resnet_v1_101_beta_grid124": "official DeepLab v3, resnet_v1_101_beta, 21 classes",
    "official_xception_41_v3plus": "official DeepLab v3+, xception_41, 21 classes",
    "official_xception_65_v3": "official DeepLab v3, xception_65, 21 classes",
    "official_xception_65_v3plus": "official DeepLab v3+, xception_65, 21 classes",
    "official_xception_71_v3plus": "official DeepLab v3+, xception_71, 21 classes",
    "official_xception_71_dpc": "official DeepLab v3+ with dense prediction cell, xception_71, 19 classes",
}
FILES = sorted(path.stem for path in FOLDER.glob("*.npz"))
CLASSIFIERS = [name for name in FILES if name.startswith("imagenet_")]
SEGMENTERS = [name for name in FILES if name not in CLASSIFIERS]

# What ends a layer's or a unit's scope.
_AFTER = ("/Relu", "/Relu6", "/hard_swish/mul_1", "/mul", "/BiasAdd", "/add", "/BatchNorm/FusedBatchNormV3")
_NO_END_POINTS = ("concat", "Pool", "aspp_pools", "upsample")  # of concatenations, pools and resizes
_GATED = "mul_1"  # what MobileNet v3's gate is multiplied with, in no scope
WRITTEN = ("official_mnv2", "leimao_mobilenet_10", "nanqingd", "rishizek_v3_os16", "sthalles_os16")


@pytest.fixture(scope="module")
def file(request):
    """The GoldenFile of this name: tests that need the same one run one after the other."""
    return GoldenFile(request.param)


def end_point_of(tensor, translation):
    """A graph's tensor → this project's key of it, which may not be there."""
    scope = next((tensor.removesuffix(after) for after in _AFTER if tensor.endswith(after)), tensor)
    scope = scope.removeprefix("MobilenetV1/")  # which is there twice
    if scope.endswith("/expand"):  # of fused units: slim lists what it lists of the others
        scope = scope.removesuffix("expand") + "expansion_output"
    return translation.rename(f"{scope}/weights").removesuffix("/weights")


def opened(file, checkpoint=None, changes=None, **said):
    """The segmenter that a golden file's checkpoint tells, with its weights, and the translation of its names.

    said: what a user says otherwise. changes: replaces what the family does to values.
    """
    identity = identify(file.shapes)
    translation = identity.translation if changes is None else replace(identity.translation, changes=changes)
    with to_be_restored():
        model = deeplab_v3(**identity.config | SAID.get(file.name, {}) | said)
    checkpoint = checkpoint or OpenWeights(file.name, file.weights)
    check_meaning(checkpoint_guided_init(model, checkpoint, translation=translation))
    return model, translation


def opened_classifier(file):
    """The classifier that a golden file's checkpoint tells, with its weights, and the translation of its names."""
    identity = identify(file.shapes)
    width = {"depth_multiplier": identity.depth_multiplier} if identity.backbone in OF_ANY_WIDTH else {}
    with to_be_restored():
        model = BACKBONES[identity.backbone](num_classes=identity.num_classes, **width)
    check_meaning(checkpoint_guided_init(model, OpenWeights(file.name, file.weights)))
    return model, identity.translation


def departures(file, model, translation):
    """{tensor: how far it is from the graph's, 1 being what is tolerated} of all that can be compared, in order."""
    images = np.ascontiguousarray(model.preprocessing(picture(*file.size).astype("float32")))[None]
    with recording({}) as found:
        output = model(ops.convert_to_tensor(images), training=False)
    found = {key.removeprefix(model.variable_prefix): value for key, value in found.items()}
    found |= {"small_logits": found.get("logits/semantic", found.get("decoder")), "full_logits": output}
    if "logits" in file.tensors:  # of a classifier; some graphs leave it a map of one pixel
        found["logits"] = np.reshape(output, file.tensors["logits"]["shape"])
    keys = {tensor: end_point_of(tensor, translation) for tensor in file.tensors}
    keys |= {tensor: tensor for tensor in ("small_logits", "full_logits", "logits") if tensor in file.tensors}
    return {tensor: file.difference(tensor, found[key]) for tensor, key in keys.items() if key in found}


def assert_same_network(file, departed):
    """Every tensor of the graph that is an end point here is as near as two libraries of convolutions are."""
    assert {tensor: by for tensor, by in departed.items() if by > 1} == {}
    left = set(file.tensors) - set(departed) - {_GATED}
    assert {tensor for tensor in left if not any(kind in tensor for kind in _NO_END_POINTS)} == set()


@pytest.mark.parametrize("file", SEGMENTERS, indirect=True)
def test_a_segmenter_opened_by_its_names_computes_what_its_graph_does(file, tmp_path):
    checkpoint = None
    if file.name in WRITTEN:
        checkpoint = tmp_path / "model.ckpt-7"
        write_checkpoint(checkpoint, file.weights)
    assert_same_network(file, departures(file, *opened(file, checkpoint)))


@pytest.mark.parametrize("file", CLASSIFIERS, indirect=True)
def test_a_classifier_opened_by_its_names_computes_what_its_graph_does(file):
    assert_same_network(file, departures(file, *opened_classifier(file)))


@pytest.mark.parametrize(("name", "words"), IDENTITIES.items())
def test_a_network_is_told_from_its_names(name, words):
    assert str(identify(GoldenFile(name).shapes)) == words


def test_every_family_is_proven():
    proven = {identify(GoldenFile(name).shapes).family for name in SEGMENTERS + CLASSIFIERS}
    assert proven == {family.name for family in FAMILIES} - {"own"}  # whose names are official ones
    assert all(name in FILES for name in (*SAID, *IDENTITIES, *WRITTEN))


OTHER_MEAN = {"name": "", "mean": (122.68, 116.67, 104.01), "scale": 1.0, "order": "BGR"}
OTHER_ORDER = {"name": "", "mean": (123.68, 116.78, 103.94), "scale": 1.0, "order": "RGB"}
WRONG = [
    ("leimao_mobilenet_10", {"changes": {}}),
    ("leimao_mobilenet_10", {"head_activation": "relu"}),
    ("leimao_mobilenet_10", {"upsampling": "align-corners"}),
    ("leimao_mobilenet_10", {"preprocessing": OTHER_MEAN}),
    ("leimao_mobilenet_10", {"preprocessing": OTHER_ORDER}),
    ("official_mnv2", {"head_activation": "none"}),
    ("official_mnv2", {"upsampling": "half-pixel"}),
    ("official_mnv2", {"upsampling": "tf1"}),
    ("official_mnv2", {"output_stride": 8}),
    ("official_mnv2", {"preprocessing": "mean-subtracted"}),
    ("official_mnv2_aspp", {"atrous_rates": (6, 12, 17)}),
    ("official_mnv2_aspp_plain", {"atrous_rates": (6, 12, 17)}),
    ("official_mnv2_decoder_ade20k", {"upsampling": "tf1"}),
    ("official_edgetpu", {"output_stride": 8}),
    ("official_mnv3_small_seg", {"image_pooling_crop_size": None}),
    ("official_mnv3_small_seg", {"image_pooling_stride": (4, 4)}),
    ("official_mnv3_small_seg", {"output_stride": 16}),
    ("official_resnet_v1_18_beta", {"multi_grid": (1, 2)}),
    ("official_resnet_v1_50_plain", {"multi_grid": (1, 2, 4)}),
    ("official_resnet_v1_50_plain", {"preprocessing": "mean-subtracted"}),
    (
        "official_xception_41_v3plus",
        {"low_level": "entry_flow/block2/unit_1/xception_module/separable_conv1_pointwise"},
    ),
    ("official_xception_71_dpc", {"multi_grid": (1, 2, 1)}),
    ("rishizek_v3plus_os16", {"changes": {}}),
    ("rishizek_v3plus_os16", {"features": "postnorm"}),
    ("rishizek_v3plus_os16", {"low_level": "block1/unit_2/bottleneck_v2/conv1"}),
    ("sthalles_os8", {"rates_follow_stride": True}),
    ("sthalles_os8", {"multi_grid": (1, 1, 1)}),
]


@pytest.mark.parametrize(("file", "setting"), WRONG, indirect=["file"])
def test_one_wrong_setting_is_seen(file, setting):
    departed = departures(file, *opened(file, **setting))
    assert departed["full_logits"] > 1


@pytest.mark.parametrize("file", ["official_mnv2"], indirect=True)
@pytest.mark.parametrize(("right", "wrong"), [(1e-5, 1e-3), (1e-3, 1e-5)])
def test_another_epsilon_is_seen(file, right, wrong):
    model, translation = opened(file)
    changed = [layer for layer in model._flatten_layers() if isinstance(layer, BatchNorm) and layer.epsilon == right]
    for norm in changed:
        norm.epsilon = wrong
    assert changed and departures(file, model, translation)["full_logits"] > 1


@pytest.mark.parametrize("file", ["official_mnv3_small_seg"], indirect=True)
@pytest.mark.parametrize("gate", ["squeeze_excite", "head"])
def test_a_sixth_in_place_of_the_gates_0_16667_is_seen(file, gate):
    model, translation = opened(file)
    if gate == "head":
        changed = [model.context.gate]
    else:
        changed = [unit.squeeze_excite.excite for unit in model.backbone.units if unit.squeeze_excite]
    for layer in changed:
        layer.activation = lambda x: ops.relu6(x + 3.0) / 6
    assert changed and departures(file, model, translation)["full_logits"] > 1


@pytest.mark.parametrize("file", ["official_xception_65_v3plus_os8_offgrid"], indirect=True)
def test_tensorflows_own_padding_in_place_of_the_hand_made_is_seen(file):
    model, translation = opened(file)
    for layer in model.backbone._flatten_layers():
        if isinstance(layer, Conv2d):
            layer.padding = None
    assert departures(file, model, translation)["full_logits"] > 1
