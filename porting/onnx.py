"""What ONNX Runtime runs: ONNX files."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from files.writing import temporary_folder
from inference.exported import INSIDE, require
from porting.served import Served, ServedSegmenter

IN_FLOAT = 4  # convolutions, the first; they lose most: without them mIoU is 82.01 instead of 80.43 (float32: 82.24)
AXES = {
    "images": ("batch", "height", "width"),
    "labels": ("batch", "height", "width"),
    "probabilities": ("batch", "height", "width"),
    "logits": ("batch", "small_height", "small_width"),
}


def write_onnx(served: Served, path: Path) -> None:
    """Input `images`; outputs those asked for."""
    path.write_bytes(_converted(served, served.any_size).SerializeToString(deterministic=True))


def write_onnx_int8(served: ServedSegmenter, path: Path) -> None:
    """All but preprocessing and the first convolutions in 8 bits (QDQ), weights per channel.

    uint8 image (1, H, W, 3) → float32 small logits. Calibrated by each activation's least and largest value, averaged
    over the pictures, which loses less than the outermost: mIoU 90.53 instead of 90.19, the float network's being 90.87
    (docs/measurements.md).
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(served.calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self.left, None)
            return None if picture is None else {"image": served.fed(picture).astype(np.float32)}

    with temporary_folder() as folder:
        onnx.save(_converted(served, served.small), folder / "float.onnx")
        quant_pre_process(folder / "float.onnx", folder / "folded.onnx")
        quantize_static(
            folder / "folded.onnx",
            folder / "int8.onnx",
            Pictures(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"CalibMovingAverage": True},
            nodes_to_exclude=_first_of(onnx.load(folder / "folded.onnx").graph),
        )
        model = onnx.load(folder / "int8.onnx")
    _take_bytes(model.graph)
    _describe(model, served)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _first_of(graph: Any) -> list[str]:
    """The names of preprocessing and of the first IN_FLOAT convolutions, with all that lies between them."""
    convolutions = [index for index, node in enumerate(graph.node) if node.op_type == "Conv"]
    return [node.name for node in graph.node[: [*convolutions, len(graph.node)][: IN_FLOAT + 1][-1]]]


def _take_bytes(graph: Any) -> None:
    """Makes the float32 input `image` uint8."""
    from onnx import TensorProto, helper

    pixels = f"{graph.input[0].name}_pixels"
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == graph.input[0].name:
                node.input[index] = pixels
    graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    graph.node.insert(0, helper.make_node("Cast", [graph.input[0].name], [pixels], to=TensorProto.FLOAT))


def _converted(served: Served, function: Any) -> Any:
    model, _ = require("tf2onnx").convert.from_function(function, function.input_signature, opset=served.opset)
    _pad_by_numbers(model.graph)
    _describe(model, served)
    return model


def _describe(model: Any, served: Served) -> None:
    """Names the axes, says what the numbers mean, and where there is no shape how many axes there are."""
    from onnx.helper import set_model_props

    for value in (*model.graph.input, *model.graph.output):
        shape = value.type.tensor_type.shape
        for axis, name in zip(shape.dim, AXES.get(value.name, ()), strict=False):
            if not axis.dim_value:
                axis.dim_param = name
    set_model_props(model, {INSIDE: json.dumps(served.description)})


def _pad_by_numbers(graph: Any) -> None:
    """Says in pixels what SAME padding is where a convolution has stride 1: ONNX Runtime dilates none with auto_pad."""
    from onnx.helper import get_attribute_value, make_attribute

    for node in (node for node in graph.node if node.op_type == "Conv"):
        settings = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
        if settings.get("auto_pad", b"").startswith(b"SAME") and set(settings["strides"]) == {1}:
            sides = zip(settings["kernel_shape"], settings["dilations"], strict=True)
            pads = [dilation * (kernel - 1) // 2 for kernel, dilation in sides]
            kept = [attribute for attribute in node.attribute if attribute.name != "auto_pad"]
            del node.attribute[:]
            node.attribute.extend([*kept, make_attribute("pads", pads * 2)])
