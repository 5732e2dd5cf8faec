import pytest

from models.checkpoint import CheckpointError, open_checkpoint
from models.deeplab_v3 import BACKBONES
from models.identify import DEPTH_MULTIPLIERS, Identity, canonical_scope, identify
from models.mobilenet_v2 import mobilenet_v2
from models.weight_init import named_variables

MOBILE = "mobilenet_v2"
CLASSIFIERS = [name for name in BACKBONES if not name.endswith("_seg")]


def renamed(shapes, old, new):
    return {name.replace(f"{old}/", f"{new}/"): shape for name, shape in shapes.items()}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_network_is_told_from_its_names(name, shapes_of):
    scope, atrous = canonical_scope(name), not name.startswith("mobilenet")
    assert identify(shapes_of(name, "features")) == Identity(name, scope, None, False, atrous)
    if name in CLASSIFIERS:
        assert identify(shapes_of(name, "classifier")) == Identity(name, scope, 1001, False, atrous)
    family = "own" if name.startswith("resnet_v2") else "official"  # which has the very same names
    assert identify(shapes_of(name, "deeplab")) == Identity(name, scope, 21, True, atrous, family=family)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("scope", ["net", "train/tower_0/net"])
def test_the_scope_may_have_another_name(name, scope, shapes_of):
    shapes = renamed(shapes_of(name, "classifier"), canonical_scope(name), scope)
    identity = identify(shapes)
    assert (identity.backbone, identity.scope, identity.num_classes) == (name, scope, 1001)
    assert str(identity).endswith(f"(under the scope {scope})")


def test_a_scope_that_lies_about_the_depth(shapes_of):
    shapes = renamed(shapes_of("resnet_v2_101", "features"), "resnet_v2_101", "resnet_v2_50")
    assert identify(shapes) == Identity("resnet_v2_101", "resnet_v2_50")


def test_slots_and_averages_change_nothing(shapes_of):
    shapes = shapes_of("resnet_v2_50", "classifier")
    for name, shape in list(shapes.items()):
        shapes |= {f"{name}/Momentum": shape, f"{name}/ExponentialMovingAverage": shape}
    assert identify(shapes | {"global_step": ()}) == Identity("resnet_v2_50", "resnet_v2_50", 1001)


@pytest.mark.parametrize("multiplier", DEPTH_MULTIPLIERS)
def test_the_width_of_mobilenet(multiplier):
    net = mobilenet_v2(depth_multiplier=multiplier, num_classes=5)
    identity = identify({name: tuple(v.shape) for name, v in named_variables(net).items()})
    assert (identity.depth_multiplier, identity.num_classes) == (multiplier, 5)
    assert str(identity).startswith(f"mobilenet_v2 {multiplier:g}, 5 classes")


def test_channels_of_no_known_width(shapes_of):
    shapes = shapes_of(MOBILE, "features")
    shapes["MobilenetV2/expanded_conv_4/project/weights"] = (1, 1, 192, 33)
    with pytest.raises(CheckpointError, match="MobilenetV2: channels as no depth multiplier"):
        identify(shapes)


def test_a_mobile_head_with_dilated_branches(shapes_of):
    head = {f"aspp{i}/weights": (3, 3, 320, 256) for i in (1, 2, 3)}
    assert identify(shapes_of(MOBILE, "deeplab") | head).atrous


def test_the_real_checkpoints(real_checkpoints):
    for file, identity in {
        "resnet_v2_50_blocks123.ckpt": Identity("resnet_v2_50", "resnet_v2_50"),
        "mobilenet_v2_1.0_224.ckpt": Identity(MOBILE, "MobilenetV2", atrous=False),
        "deeplabv3_mnv2_pascal.ckpt": Identity(MOBILE, "MobilenetV2", 21, True, False, family="official"),
        "deeplabv3_mnv2_dm05_portrait.ckpt": Identity(MOBILE, "MobilenetV2", 2, True, False, 0.5, 1, "official"),
    }.items():
        with open_checkpoint(real_checkpoints / file) as checkpoint:
            assert identify(checkpoint.shapes) == identity


def test_half_a_network_is_told_by_its_scope(shapes_of):
    shapes = {name: shape for name, shape in shapes_of("resnet_v2_50", "features").items() if "/block1/" in name}
    assert identify(shapes).backbone == "resnet_v2_50"
    with pytest.raises(CheckpointError, match=r"net: could be resnet_v2_50 or resnet_v2_101 .*block1: 3"):
        identify(renamed(shapes, "resnet_v2_50", "net"))


def test_a_network_without_block4_is_told_by_the_others(shapes_of):
    shapes = {name: shape for name, shape in shapes_of("resnet_v2_152", "features").items() if "/block4/" not in name}
    assert identify(renamed(shapes, "resnet_v2_152", "net")).backbone == "resnet_v2_152"


def test_units_that_no_depth_has(shapes_of):
    shapes = shapes_of("resnet_v2_50", "features")
    shapes["resnet_v2_50/block3/unit_7/bottleneck_v2/conv1/weights"] = (1, 1, 1024, 256)
    shapes = renamed(shapes, "resnet_v2_50", "net")
    with pytest.raises(CheckpointError, match=r"net: units of bottleneck_v2 as no known depth has them .*block3: 7"):
        identify(shapes)


def test_two_networks_in_one_checkpoint(shapes_of):
    shapes = shapes_of("resnet_v2_18", "features") | shapes_of(MOBILE, "features")
    with pytest.raises(
        CheckpointError, match=r"several networks in this checkpoint: MobilenetV2 \(Conv, Conv_1, exp.*"
    ):
        identify(shapes)
    assert identify(shapes, MOBILE).backbone == MOBILE
    assert identify(shapes, "resnet_v2_18").backbone == "resnet_v2_18"


@pytest.mark.parametrize("shapes", [{}, {"global_step": ()}, {"dense/kernel": (3, 4), "dense/bias": (4,)}])
def test_a_checkpoint_of_something_else(shapes):
    with pytest.raises(CheckpointError, match="no ResNet v1, v2 or MobileNet v2"):
        identify(shapes)


def test_an_object_based_checkpoint_is_named_as_such():
    with pytest.raises(CheckpointError, match="object-based TF 2 checkpoint"):
        identify({"net/kernel/.ATTRIBUTES/VARIABLE_VALUE": (3,), "_CHECKPOINTABLE_OBJECT_GRAPH": ()})
