"""What Hugging Face's `transformers` opens: its MobileNet v1 and v2 classifiers, and its DeepLab on MobileNet v2.

The names and the order of axes are those of `transformers/models/mobilenet_v1` and `mobilenet_v2`, whose converters of
TensorFlow's checkpoints are gone.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.views import STRETCH
from exporting.served import Served
from inference.export_record import ExportError
from inference.exported import INSIDE, require
from models.deeplab_v3 import DeepLabV3
from models.mobilenet_v1 import MobileNetV1
from models.mobilenet_v2 import MobileNetV2
from models.network import Network
from models.preprocessing import Preprocessing
from models.weight_init import named_variables

LEAVES = {  # of a variable; in a BatchNorm or not
    "gamma": "normalization.weight",
    "beta": "normalization.bias",
    "moving_mean": "normalization.running_mean",
    "moving_variance": "normalization.running_var",
    "weights": "convolution.weight",
    "depthwise_weights": "convolution.weight",
    "biases": "convolution.bias",
}
PARTS = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
SCOPES = {
    "MobilenetV1/Conv2d_0": "mobilenet_v1.conv_stem",
    "MobilenetV2/Conv": "mobilenet_v2.conv_stem.first_conv",
    "MobilenetV2/Conv_1": "mobilenet_v2.conv_1x1",
    "image_pooling": "segmentation_head.conv_pool",
    "aspp0": "segmentation_head.conv_aspp",
    "concat_projection": "segmentation_head.conv_projection",
    "logits/semantic": "segmentation_head.classifier",
}
# Of its DeepLab's head there is this one form.
HEAD = {
    "head": "aspp",
    "atrous_rates": (),
    "head_channels": 256,
    "head_norm": "batch-norm",
    "head_activation": "relu",
    "image_pooling": True,
    "image_pooling_crop_size": None,
    "decoder": None,
}
DROPOUT = {"mobilenet_v1": 0.001, "mobilenet_v2": 0.2, "deeplab": 0.1}  # slim's and DeepLab's, less what they keep


def their_name(name: str) -> str:
    """The name in `transformers` of a variable of slim's; ValueError for one that has none there."""
    scope, _, leaf = name.rpartition("/")
    scope = scope.removesuffix("/BatchNorm")
    if re.fullmatch(r"Mobilenet(V1|V2)/Logits/Conv2d_1c_1x1", scope):
        return {"weights": "classifier.weight", "biases": "classifier.bias"}[leaf]
    if found := re.fullmatch(r"MobilenetV1/Conv2d_(\d+)_(depthwise|pointwise)", scope):
        layer = 2 * int(found[1]) - (2 if found[2] == "depthwise" else 1)
        module = f"mobilenet_v1.layer.{layer}"
    elif found := re.fullmatch(r"MobilenetV2/expanded_conv(?:_(\d+))?/(expand|depthwise|project)", scope):
        block = f"layer.{int(found[1]) - 1}" if found[1] else "conv_stem"
        module = f"mobilenet_v2.{block}.{PARTS[found[2]]}"
    elif scope in SCOPES:
        module = SCOPES[scope]
    else:
        raise ValueError(f"{name}: has no place in transformers' MobileNets")
    return f"{module}.{LEAVES[leaf]}"


def translated(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{slim's name: array} → {transformers' name: array}: kernels (out, in, k, k), and each batch norm's count of
    batches, which is not known: 0."""
    found: dict[str, np.ndarray] = {}
    for name, value in values.items():
        theirs = their_name(name)
        axes = (2, 3, 0, 1) if name.endswith("/depthwise_weights") else (3, 2, 0, 1)
        turned = value.transpose(axes) if value.ndim == len(axes) else value
        found[theirs] = np.ascontiguousarray(turned[..., 0, 0] if theirs == "classifier.weight" else turned)
        if theirs.endswith("running_mean"):
            found[theirs.replace("running_mean", "num_batches_tracked")] = np.array(0, np.int64)
    return found


def refused(served: Served) -> str | None:
    """Why `transformers` has no such network, and what to do; None where it has."""
    wrong = next(_unlike(served.model, served.description.get("resize")), None)
    return f"huggingface: transformers' architectures have no {wrong}; leave it out of --formats" if wrong else None


def _unlike(model: Network, rule: str | None) -> Iterator[str]:
    """What of the network, or of its view by `rule`, `transformers` cannot express."""
    net: Any = model
    if isinstance(model, DeepLabV3):
        net = model.backbone
        for option, has in HEAD.items():
            if model.options[option] != has:
                yield f"DeepLab's head whose {option} is {model.options[option]!r}, only {has!r}"
    if type(net) not in ((MobileNetV2,) if net is not model else (MobileNetV1, MobileNetV2)):
        yield f"{net.name}{' under DeepLab' if net is not model else ''}, only MobileNet v2, and v1 as a classifier"
    if isinstance(net, MobileNetV1) and net.output_stride != 32:
        yield f"MobileNet v1 of output stride {net.output_stride}, only of 32"
    if net.in_channels != 3:
        yield f"images of {net.in_channels} channels that its image processor could prepare"
    if not net.options.get("global_pool", True):
        yield "classifier without global pooling"
    if model.preprocessing.order != "RGB":
        yield "image processor that puts blue first"
    if rule == STRETCH:
        yield "image processor that stretches the middle of a picture (--resize stretch)"


def configuration(model: Network, class_names: list[str]) -> dict[str, Any]:
    """config.json of a network that is not `refused`."""
    net: Any = model.backbone if isinstance(model, DeepLabV3) else model
    kind, title = ("mobilenet_v1", "MobileNetV1") if isinstance(net, MobileNetV1) else ("mobilenet_v2", "MobileNetV2")
    task = "ForSemanticSegmentation" if isinstance(model, DeepLabV3) else "ForImageClassification"
    config = {
        "architectures": [f"{title}{task}"],
        "model_type": kind,
        "depth_multiplier": net.depth_multiplier,
        "hidden_act": "relu6",
        "layer_norm_eps": 0.001,
        "tf_padding": True,
        "classifier_dropout_prob": DROPOUT["deeplab" if isinstance(model, DeepLabV3) else kind],
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: index for index, name in enumerate(class_names)},
    }
    if isinstance(net, MobileNetV2):
        width = net.divisible_by
        config |= {"output_stride": net.output_stride, "depth_divisible_by": width, "min_depth": width}
        config |= {"first_layer_is_expansion": True, "finegrained_output": True}
    return config


def processor(fed: Preprocessing, kind: str, view: Mapping[str, Any]) -> dict[str, Any]:
    """preprocessor_config.json; `view`: image_size and shorter_side of a classifier, else empty.

    A segmentation model's pictures keep their size: padding is not among what its processor can do.
    """
    config: dict[str, Any] = {
        "image_processor_type": f"{kind}ImageProcessor",
        "do_resize": bool(view),
        "do_center_crop": bool(view),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [channel / 255 for channel in fed.mean],
        "image_std": [1 / (255 * fed.scale)] * 3,
    }
    if view:
        side = view["image_size"]
        config |= {"resample": 2, "size": {"shortest_edge": view["shorter_side"]}}  # 2: bilinear
        config |= {"crop_size": {"height": side, "width": side}}
    return config


def write_huggingface(served: Any, path: Path) -> None:
    """A folder of config.json, preprocessor_config.json and model.safetensors, and beside them what the export is.

    Raises ExportError where an array has another shape than `transformers` gives it.
    """
    torch, transformers = require("torch"), require("transformers")
    model = served.model
    names = served.description["classes"]
    config = configuration(model, names)
    values = translated({name: np.asarray(value) for name, value in named_variables(model).items()})
    (title,) = config["architectures"]
    settings = getattr(transformers, title.partition("For")[0] + "Config")(**config)
    with torch.device("meta"):
        theirs = {
            name: tuple(value.shape) for name, value in getattr(transformers, title)(settings).state_dict().items()
        }
    for name in theirs.keys() - values.keys():
        if not (isinstance(model, DeepLabV3) and name.startswith("mobilenet_v2.conv_1x1.")):
            raise ExportError(f"transformers' {title} has a {name} that the model has not")
        # Its DeepLab computes a last convolution whose output nothing takes, and which the checkpoints do not have.
        values[name] = np.zeros(theirs[name], np.int64 if name.endswith("num_batches_tracked") else np.float32)
    for name, value in values.items():
        if theirs.get(name) != value.shape:
            raise ExportError(f"{name}: {value.shape} here, {theirs.get(name)} in transformers' {title}")
    view = (
        {}
        if isinstance(model, DeepLabV3)
        else {"image_size": served.view.size, "shorter_side": served.view.shorter_side}
    )
    path.mkdir()
    (path / "model.safetensors").write_bytes(require("safetensors.numpy").save(values, {"format": "pt"}))
    for name, content in {
        "config.json": config,
        "preprocessor_config.json": processor(model.preprocessing, title.partition("For")[0], view),
        f"{INSIDE}.json": served.description,
    }.items():
        (path / name).write_text(json.dumps(content, indent=1) + "\n")
