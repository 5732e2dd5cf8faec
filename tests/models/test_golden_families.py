"""Every family's checkpoints, opened by their names alone, compute what their own graphs do: `tests/golden`.

The facts are numbers that the public TF1 graphs gave for weights and a picture that a formula makes. An inner tensor is
compared wherever it is one of this project's end points, so that a failure says where it begins.
"""

import functools

import numpy as np
import pytest
from keras import ops

from models.deeplab_v3 import BACKBONES, deeplab_v3
from models.identify import UnknownNetwork, identify
from models.layers import recording, to_be_restored
from models.weight_init import checkpoint_guided_init
from tests.golden_networks import FOLDER, GoldenFile, OpenWeights, picture

# What names cannot tell: the settings of a graph that are not its family's default.
SAID = {
    "official_mnv2_os8_offgrid": {"output_stride": 8},
    "official_resnet_v1_50_plain_grid124": {"multi_grid": (1, 2, 4)},
    "official_resnet_v1_50_plain_grid124_os8_offgrid": {"multi_grid": (1, 2, 4), "output_stride": 8},
    "official_resnet_v1_50_sep_grid124": {"multi_grid": (1, 2, 4)},
    "rishizek_v3_os8": {"output_stride": 8},
    "sthalles_os8": {"output_stride": 8},
}
REFUSED = {
    "imagenet_mobilenet_v1_05": "mobilenet_v1, 1001 classes",
    "imagenet_mobilenet_v1_10": "mobilenet_v1, 1001 classes",
    "imagenet_mobilenet_v3_large": "mobilenet_v3_large, 1001 classes",
    "imagenet_mobilenet_v3_small": "mobilenet_v3_small, 1001 classes",
    "imagenet_resnet_v1_50_beta": "resnet_v1_50_beta, 1001 classes",
    "imagenet_xception_65": "xception_65, 1001 classes",
    "imagenet_xception_71": "xception_71, 1001 classes",
    "official_edgetpu": "official DeepLab v3 on mobilenet_edgetpu, 19 classes",
    "official_edgetpu_slim_os32": "official DeepLab v3 on mobilenet_edgetpu, 19 classes",
    "official_mnv3_large_seg": "official DeepLab v3+ on mobilenet_v3_large",
    "official_mnv3_large_seg_os16": "official DeepLab v3+ on mobilenet_v3_large",
    "official_mnv3_small_seg": "official DeepLab v3+ on mobilenet_v3_small",
    "official_mnv3_small_seg_os16_offgrid": "official DeepLab v3+ on mobilenet_v3_small",
    "official_resnet_v1_18": "official DeepLab v3 on resnet_v1_18, 21 classes",
    "official_resnet_v1_18_beta": "official DeepLab v3 on resnet_v1_18_beta, 21 classes",
    "official_resnet_v1_50_beta_grid124": "official DeepLab v3 on resnet_v1_50_beta, 21 classes",
    "official_resnet_v1_50_beta_v3plus": "official DeepLab v3+ on resnet_v1_50_beta, 21 classes",
    "official_resnet_v1_50_beta_v3plus_os8_offgrid": "official DeepLab v3+ on resnet_v1_50_beta, 21 classes",
    "official_resnet_v1_101_beta_grid124": "official DeepLab v3 on resnet_v1_101_beta, 21 classes",
    "official_resnet_v1_101_beta_v3plus": "official DeepLab v3+ on resnet_v1_101_beta, 21 classes",
    "official_xception_41_v3plus": "official DeepLab v3+ on xception_41, 21 classes",
    "official_xception_65_v3": "official DeepLab v3 on xception_65, 21 classes",
    "official_xception_65_v3plus": "official DeepLab v3+ on xception_65, 21 classes",
    "official_xception_65_v3plus_os8_offgrid": "official DeepLab v3+ on xception_65, 21 classes",
    "official_xception_71_v3plus": "official DeepLab v3+ on xception_71, 21 classes",
    "official_xception_71_dpc": "official DeepLab v3+ on xception_71 with a dense prediction cell, 19 classes",
}
FILES = sorted(path.stem for path in FOLDER.glob("*.npz"))
CLASSIFIERS = [name for name in FILES if name.startswith("imagenet_") and name not in REFUSED]
SEGMENTERS = [name for name in FILES if name not in (*REFUSED, *CLASSIFIERS)]

_AFTER = ("/Relu", "/Relu6", "/BiasAdd", "/add", "/BatchNorm/FusedBatchNormV3")  # what ends a layer's or a unit's scope


def golden(name):
    return _golden(name)


@functools.lru_cache(maxsize=2)
def _golden(name):
    return GoldenFile(name)


def end_point_of(tensor, translation):
    """A graph's tensor → this project's key of it, which may not be there."""
    scope = next((tensor.removesuffix(after) for after in _AFTER if tensor.endswith(after)), tensor)
    return translation.rename(f"{scope}/weights").removesuffix("/weights")


def opened(file, **said):
    """The segmenter that a golden file's checkpoint tells, with its weights; `said` is what a user says otherwise."""
    identity = identify(file.shapes)
    with to_be_restored():
        model = deeplab_v3(**identity.config | said)
    checkpoint_guided_init(model, OpenWeights(file.name, file.weights), translation=identity.translation, strict=False)
    return model, identity


def departures(file, model, translation):
    """{tensor: how far it is from the graph's, 1 being what is tolerated} of all that can be compared, in order."""
    images = model.preprocessing(picture(*file.size).astype("float32"))[None]
    with recording({}) as found:
        full = model(ops.convert_to_tensor(np.ascontiguousarray(images)), training=False)
    found = {key.removeprefix(model.variable_prefix): value for key, value in found.items()}
    found |= {"small_logits": found["logits/semantic"], "full_logits": full}
    keys = {tensor: end_point_of(tensor, translation) for tensor in file.tensors}
    return {tensor: file.difference(tensor, found[key]) for tensor, key in keys.items() if key in found}


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_segmenter_opened_by_its_names_computes_what_its_graph_does(name):
    file = golden(name)
    model, identity = opened(file, **SAID.get(name, {}))
    departed = departures(file, model, identity.translation)
    assert {tensor: by for tensor, by in departed.items() if by > 1} == {}
    uncompared = set(file.tensors) - set(departed)
    assert all("concat" in tensor or "Pool" in tensor or "aspp_pools" in tensor or "upsample" in tensor for tensor in uncompared)
    print(name, len(departed), max(departed.values()), sorted(uncompared))
