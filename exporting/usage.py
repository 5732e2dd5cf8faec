"""The README.md of an export's folder: for each format in it a short program, which but for Keras' needs none of this
project."""

from collections.abc import Mapping, Sequence
from typing import Any

from data.views import SHORTER_SIDE, SQUARE, STRETCH, View

README = "README.md"

_HEAD = """# What is in this folder

Each file is the whole model: uint8 RGB pictures go in, upright, as they are; preprocessing is inside, where
nothing is said to be left to do. `export.json` says what the classes are, what each file takes and gives, and how well
it agreed with the model. Each program below needs its runtime, NumPy and Pillow. Run it in this folder, with a
`picture.jpg`.
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
# What a classifier is shown of a picture, by rule (`data.views.View`): the part seen, and what its pixels become.
_SEEN = {
    SQUARE: """side = max(1, round(min(picture.shape[:2]) * {share}))  # of the central square, resized by area
top, left = ((length - side) // 2 for length in picture.shape[:2])
seen = picture[top : top + side, left : left + side]

def weights(pixels):
    step, at = pixels / {side}, np.arange(pixels)
    if step >= 1:
        edges = np.arange({side} + 1)[:, None] * step
        return np.maximum(0, np.minimum(edges[1:], at + 1) - np.maximum(edges[:-1], at)) / step
    near = np.clip((np.arange({side}) + 0.5) * step - 0.5, 0, pixels - 1)
    return np.maximum(0, 1 - abs(near[:, None] - at))
""",
    SHORTER_SIDE: """seen = picture

def weights(pixels):  # resized to a shorter side of {shorter}, bilinearly; the middle is cut out
    resized = round(pixels * {shorter} / min(picture.shape[:2]))
    step = pixels / resized
    at = ((resized - {side}) // 2 + np.arange({side}) + 0.5) * step
    shares = np.maximum(0, 1 - abs(at[:, None] - np.arange(pixels) - 0.5) / max(step, 1))
    return shares / shares.sum(1, keepdims=True)
""",
    STRETCH: """top, left = (int((side - side * {share}) / 2) for side in picture.shape[:2])
seen = picture[top : picture.shape[0] - top, left : picture.shape[1] - left]  # resized bilinearly, as TensorFlow 1 does

def weights(pixels):
    at = np.minimum(np.arange({side}) * (pixels / {side}), pixels - 1)
    return np.maximum(0, 1 - abs(at[:, None] - np.arange(pixels)))
""",
}
_RESIZED = """
image = weights(seen.shape[0]) @ seen.transpose(2, 0, 1) @ weights(seen.shape[1]).T
image = np.rint(image).astype(np.uint8).transpose(1, 2, 0)[None]
"""
_PADDED = """padded = lambda side: {known}  # what {whose} pads a side to
"""
_FED = """more = [padded(side) - side for side in image.shape[1:3]]
fed = np.pad(fed, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)))  # preprocessed, the mean pixel is 0
"""
_SOFTMAX = """powers = np.exp(logits - logits.max())
found = {"labels": logits.argmax(-1), "probabilities": powers / powers.sum()}
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
    ".pt2": (
        "PyTorch (`pip install torch`)",
        "\nimport torch",
        """program = torch.export.load("{file}").module()
found = {{name: value.numpy() for name, value in program(torch.tensor(image)).items()}}
""",
    ),
    ".keras": (
        "Keras, where this project can be imported (`PYTHONPATH`), on any backend",
        "\nimport keras\nimport models.deeplab_v3  # this project's layers",
        """net = keras.saving.load_model("{file}")
fed = net.preprocessing(image.astype(np.float32))
""",
    ),
    "huggingface": (
        "`transformers` (`pip install transformers torch`)",
        "\nimport torch\nfrom transformers import AutoImageProcessor, AutoModelFor{task}",
        """processor, net = (
    kind.from_pretrained("{file}") for kind in (AutoImageProcessor, AutoModelFor{task})
)
fed = processor(images=[picture], return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
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
# What makes logits of what is fed: a segmentation model's are small.
_NETWORKS = {
    ".keras": ("keras.ops.convert_to_numpy(net.small_logits(fed))", "keras.ops.convert_to_numpy(net(fed))"),
    "huggingface": (
        "net(torch.tensor(fed).permute(0, 3, 1, 2)).logits.detach().permute(0, 2, 3, 1).numpy()",
        "net(torch.tensor(fed).permute(0, 3, 1, 2)).logits.detach().numpy()",
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
            takes += f" Left to do: {entry['left to do']}." if "left to do" in entry else ""
            sections.append(f"## {name}: `{entry['file']}`\n\n{title}. {takes}\n\n```python\n{program}```\n")
    return "\n".join(sections)


def _program(entry: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    if "gives" not in entry:
        return ""  # written by an earlier version, or by a format without a program
    suffix, (_, imports, run) = next(item for item in _RUN.items() if entry["file"].endswith(item[0]))
    segments = "padding" in described
    task = "SemanticSegmentation" if segments else "ImageClassification"
    lines = [_READ.format(more=imports.format(task=task))]
    image = next(iter(entry["inputs"].values()))
    rows, columns = image[1:3]
    if "left to do" in entry and not segments:
        lines.append(seen_of(entry) if suffix != "huggingface" else "")
    elif "largest" in entry:
        lines.append("image = picture[:{}, :{}][None]  # this file takes no larger ones\n".format(*entry["largest"]))
    elif rows is None or columns is None:
        lines.append("image = picture[None]\n")
    else:
        lines.append(_CROPPED.format(rows=rows, columns=columns, padding=described.get("padding", 0)))
    if image[0] not in (None, 1):
        lines.append(f"image = np.repeat(image, {image[0]}, axis=0)  # this file takes {image[0]} pictures at once\n")
    takes = "image" if "image" in entry["inputs"] else "images"
    size = ", size=np.array(picture.shape[:2], np.int32)" if "size" in entry["inputs"] else ""
    lines.append(run.format(file=entry["file"], takes=takes, size=size, gives=entry["gives"], task=task))
    if suffix in _NETWORKS:
        small, logits = _NETWORKS[suffix]
        if not segments:
            return "".join([*lines, f"logits = {logits}\n", _SOFTMAX, _SHOWN_CLASS])
        lines += [_padded(entry, "this model"), _FED, f'found = {{"logits": {small}}}\n']
    return "".join([*lines, *_shown(entry, described)])


def _shown(entry: Mapping[str, Any], described: Mapping[str, Any]) -> Sequence[str]:
    gives = entry["gives"]
    logits = _DEQUANTIZED if gives.get("logits") == "uint8" else 'logits = found["logits"][0]\n'
    if "padding" not in described:
        softmax = [] if "probabilities" in gives else [logits, "logits = logits[None]\n", _SOFTMAX]
        return [*softmax, _SHOWN_CLASS]
    for name, text in _SHOW.items():
        if name in gives:
            return [text, _SHOWN]
    padded = "" if "left to do" in entry else _padded(entry, "the file")
    rows, columns = "padded(image.shape[1])", "padded(image.shape[2])"
    position = _POSITION[described["upsampling"]]
    return [logits, padded, _ENLARGED.format(rows=rows, columns=columns, position=position), _SHOWN]


def _padded(entry: Mapping[str, Any], whose: str) -> str:
    crop, stride = entry["crop_size"], entry["output_stride"]
    known = (
        "side" if crop is None else f"{crop} if side <= {crop} else (side + {stride - 2}) // {stride} * {stride} + 1"
    )
    return _PADDED.format(known=known, whose=whose)


def seen_of(entry: Mapping[str, Any]) -> str:
    """Lines that make `image`, uint8 (1, size, size, 3), of `picture`: what a classifier's View is, in NumPy alone.

    entry: what export.json says of a format.
    """
    view = View(entry["image_size"], entry["central_fraction"], entry["resize"])
    return _SEEN[view.rule].format(side=view.size, share=view.fraction, shorter=view.shorter_side) + _RESIZED
