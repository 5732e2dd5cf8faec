"""The README.md of an export's folder: for each format in it a short program that needs none of this project."""

from collections.abc import Mapping, Sequence
from typing import Any

README = "README.md"

_HEAD = """# What is in this folder

Each file is the whole model: uint8 RGB pictures go in, upright, as they are; preprocessing is inside. `export.json`
says what the classes are, what each file takes and gives, and how well it agreed with the model. Each program below
needs its runtime, NumPy and Pillow. Run it in this folder, with a `picture.jpg`.
"""

_READ = """import json
import numpy as np
from PIL import Image{more}

names = json.load(open("export.json"))["classes"]
picture = np.asarray(Image.open("picture.jpg").convert("RGB"))
"""
_CROPPED = """picture = picture[:{rows}, :{columns}]  # this file takes {columns}x{rows} pixels: larger pictures are cut
image = np.full((1, {rows}, {columns}, 3), {padding}, np.uint8)  # smaller ones are padded with the mean pixel
image[0, : picture.shape[0], : picture.shape[1]] = picture
"""

_SHOW = {
    "labels": """labels = found["labels"][0][: picture.shape[0], : picture.shape[1]]
""",
    "probabilities": """labels = found["probabilities"][0][: picture.shape[0], : picture.shape[1]].argmax(-1)
""",
}
_SHOWN = """print("classes:", [names[label] for label in np.unique(labels)])
Image.fromarray(labels.astype(np.uint8)).save("labels.png")
"""
_SHOWN_CLASS = """print(names[found["labels"][0]], found["probabilities"][0].max())
"""

_ENLARGED = """
def weights(pixels, points):  # bilinear: what each pixel is of each point
    at = {position}
    return np.maximum(0, 1 - abs(at[:, None] - np.arange(points)))

down, across = weights({rows}, logits.shape[0]), weights({columns}, logits.shape[1])
logits = (down @ logits.transpose(2, 0, 1) @ across.T)[:, : picture.shape[0], : picture.shape[1]]
labels = logits.argmax(0)  # of the enlarged logits, not of the small ones: borders are finer so
"""
_POSITION = {
    "align-corners": "np.arange(pixels) * (points - 1) / max(pixels - 1, 1)",
    "half-pixel": "np.clip((np.arange(pixels) + 0.5) * points / pixels - 0.5, 0, points - 1)",
    "tf1": "np.clip(np.arange(pixels) * points / pixels, 0, points - 1)",
}

_RUN = {
    ".onnx": (
        "ONNX Runtime (`pip install onnxruntime`)",
        "\nimport onnxruntime",
        """session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
found = dict(zip([output.name for output in session.get_outputs()], session.run(None, {{"{takes}": image}})))
""",
    ),
    ".tflite": (
        "LiteRT (`pip install ai-edge-litert`)",
        "\nfrom ai_edge_litert.interpreter import Interpreter",
        """run = Interpreter("{file}").get_signature_runner()
found = run({takes}=image{size})
""",
    ),
    ".pb": (
        "TensorFlow (`pip install tensorflow`), a frozen graph",
        "\nimport tensorflow as tf",
        """graph = tf.compat.v1.GraphDef.FromString(open("{file}", "rb").read())
load = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
gives = {gives}
found = dict(zip(gives, load.prune("{takes}:0", [f"{{name}}:0" for name in gives])(tf.constant(image))))
found = {{name: value.numpy() for name, value in found.items()}}
""",
    ),
    "": (
        "TensorFlow (`pip install tensorflow`)",
        "\nimport tensorflow as tf",
        """model = tf.saved_model.load("{file}")
found = model.signatures["serving_default"]({takes}=tf.constant(image))
found = {{name: value.numpy() for name, value in found.items()}}
""",
    ),
}
_DEQUANTIZED = """scale, zero = run.get_output_details()["logits"]["quantization"]
logits = (found["logits"][0].astype(np.float32) - zero) * scale
"""


def readme(described: Mapping[str, Any]) -> str:
    """The README.md beside an export.json of this content."""
    sections = [_HEAD]
    for name, entry in described["formats"].items():
        if name == "slim":
            sections.append(f"## {name}: `{entry['file']}`\n\nA checkpoint under slim's names, for TensorFlow 1.\n")
        elif program := _program(entry, described):
            title = next(text for suffix, (text, _, _) in _RUN.items() if entry["file"].endswith(suffix))
            takes = f"Takes {entry['takes']}. Gives {', '.join(entry['gives'])}."
            sections.append(f"## {name}: `{entry['file']}`\n\n{title}. {takes}\n\n```python\n{program}```\n")
    return "\n".join(sections)


def _program(entry: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    if "gives" not in entry:
        return ""  # written by an earlier version, or by a format without a program
    _, imports, run = next(parts for suffix, parts in _RUN.items() if entry["file"].endswith(suffix))
    lines = [_READ.format(more=imports)]
    image = entry["inputs"]["image" if "image" in entry["inputs"] else "images"]
    rows, columns = image[1:3]
    if rows is None or columns is None:
        lines.append("image = picture[None]\n")
    else:
        lines.append(_CROPPED.format(rows=rows, columns=columns, padding=described.get("padding", 0)))
    if image[0] not in (None, 1):
        lines.append(f"image = np.repeat(image, {image[0]}, axis=0)  # this file takes {image[0]} pictures at once\n")
    takes = "image" if "image" in entry["inputs"] else "images"
    size = ", size=np.array(picture.shape[:2], np.int32)" if "size" in entry["inputs"] else ""
    lines.append(run.format(file=entry["file"], takes=takes, size=size, gives=entry["gives"]))
    return "".join([*lines, *_shown(entry, described)])


def _shown(entry: Mapping[str, Any], described: Mapping[str, Any]) -> Sequence[str]:
    if "padding" not in described:
        return [_SHOWN_CLASS]
    for name, text in _SHOW.items():
        if name in entry["gives"]:
            return [text, _SHOWN]
    dequantized = _DEQUANTIZED if entry["gives"]["logits"] == "uint8" else 'logits = found["logits"][0]\n'
    crop, stride = entry["crop_size"], entry["output_stride"]
    known = (
        "side" if crop is None else f"{crop} if side <= {crop} else (side + {stride - 2}) // {stride} * {stride} + 1"
    )
    padded = f"padded = lambda side: {known}  # what the file pads a side to\n"
    rows, columns = "padded(image.shape[1])", "padded(image.shape[2])"
    position = _POSITION[described["upsampling"]]
    return [dequantized, padded, _ENLARGED.format(rows=rows, columns=columns, position=position), _SHOWN]
