"""What ONNX Runtime runs: ONNX files."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from exporting.served import Served
from files.writing import temporary_folder
from inference.exported import INSIDE, require

STEPS_OF_7_BITS = 64
AXES = {
    "images": ("batch", "height", "width"),
    "labels": ("batch", "height", "width"),
    "probabilities": ("batch", "height", "width"),
    "logits": ("batch", "small_height", "small_width"),
}


def write_onnx(served: Served, path: Path) -> None:
    """Input `images`; outputs those asked for."""
    path.write_bytes(_converted(served, served.converted).SerializeToString(deterministic=True))


def write_onnx_int8(served: Served, path: Path) -> None:
    """All in 8 bits (QDQ), weights per channel: uint8 image (1, H, W, 3), of a classifier what it sees of it → float32
    logits, of a segmentation model small ones.

    Calibrated by each activation's least and largest value. Weights have 7 bits, 64 steps up and down: without VNNI a
    processor adds two products of bytes in 16 bits, which those of 127 steps are too large for, so that an ImageNet
    classifier names another class there, one time in five. uint8 weights are not, and take twice as long with VNNI.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = served.calibrating(middle)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"image": image}

    function, middle = served.centred(STEPS_OF_7_BITS)
    with temporary_folder() as folder:
        onnx.save(_converted(served, function), folder / "float.onnx")
        # Shapes are numbers here: those with names would need sympy.
        quant_pre_process(folder / "float.onnx", folder / "folded.onnx", skip_symbolic_shape=True)
        quantize_static(
            folder / "folded.onnx",
            folder / "int8.onnx",
            Pictures(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # to STEPS_OF_7_BITS
            extra_options={"TensorQuantOverrides": _depthwise_in_8_bits(folder / "folded.onnx")},
        )
        model = onnx.load(folder / "int8.onnx")
    _take_bytes(model.graph, middle)
    _describe(model, served)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _depthwise_in_8_bits(path: Path) -> dict[str, list[dict[str, Any]]]:
    """For ONNX Runtime's quantizer: which weights are not to be of 7 bits, since they are multiplied in 16 anywhere."""
    import onnx
    from onnx.helper import get_attribute_value

    graph = onnx.load(path).graph
    outputs = {constant.name: constant.dims[0] for constant in graph.initializer if len(constant.dims) == 4}
    groups = {
        node.input[1]: get_attribute_value(attribute)
        for node in graph.node
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "group"
    }
    return {
        name: [{"axis": 0, "reduce_range": False}] for name, count in groups.items() if outputs.get(name) == count > 1
    }


def _take_bytes(graph: Any, less: int) -> None:
    """Makes the float32 input `image` a uint8 one, of which the number is taken."""
    from onnx import TensorProto, helper

    (taken,) = graph.input
    for node in graph.node:
        node.input[:] = [f"{name}_centred" if name == taken.name else name for name in node.input]
    taken.type.tensor_type.elem_type = TensorProto.UINT8
    graph.initializer.append(helper.make_tensor(f"{taken.name}_middle", TensorProto.FLOAT, (), [less]))
    graph.node.insert(0, helper.make_node("Cast", [taken.name], [f"{taken.name}_pixels"], to=TensorProto.FLOAT))
    subtracted = [f"{taken.name}_pixels", f"{taken.name}_middle"]
    graph.node.insert(1, helper.make_node("Sub", subtracted, [f"{taken.name}_centred"]))


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
