"""Exported classifiers: pictures of any size go in as they are, and come out in the classes of predict_cls.py."""

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from PIL import Image

import command_line
import eval_cls
import export_cls
import export_seg
import predict_cls
from data.image_folder import ImageFolder
from data.images import read_image
from data.sample import draw_image_folder, draw_voc
from errors import UserError
from exporting.formats import FORMATS
from exporting.saved_model import write_frozen
from inference.runtimes import ExportError, open_export
from models.checkpoint import open_checkpoint
from models.weight_init import named_variables
from tests.small_classifier import CLASSES, level, save_run, small_classifier

EIGHT_BITS = export_seg.CALIBRATED
RUNTIMES = [*(name for name in export_seg.USUAL if name != "slim"), *EIGHT_BITS]
# A random network decides by less than a trained one.
OVERLAP = {"tflite_dynamic8": 0.5, "onnx_int8": 0.5, "tflite_int8": 0.5}

pytestmark = pytest.mark.usefixtures("short_mobilenet")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    draw_image_folder(root, train=1, val=2)
    return root


@pytest.fixture(scope="module")
def pictures(folders):
    """Of several sizes and shapes."""
    read = [read_image(path) for path, _ in ImageFolder(folders, "val").samples]
    cuts = [(96, 96), (40, 90), (90, 25), (31, 31)] * 2
    return [np.ascontiguousarray(image[:h, :w]) for image, (h, w) in zip(read, cuts, strict=True)]


@pytest.fixture(scope="module")
def model(pictures):
    model = small_classifier()
    level(model, pictures)
    return model


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "run", model)


@pytest.fixture(scope="module")
def exported(run, folders, tmp_path_factory):
    """The folder of all formats."""
    folder = tmp_path_factory.mktemp("exported")
    calibrated = ["--calibrate", str(folders), "--calibrate-images", "3"]
    with pytest.MonkeyPatch.context() as patch:
        for name, overlap in OVERLAP.items():
            patch.setitem(FORMATS, name, replace(FORMATS[name], overlap=overlap))
        assert export_cls.main(["--ckpt", str(run), "--out", str(folder), *calibrated]) == 0
    return folder


@pytest.fixture(scope="module")
def reference(run):
    from inference.opening import open_classifier

    return open_classifier(run).predictor()


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_export_agrees_with_the_model_at_every_size(exported, reference, pictures, name):
    found = open_export(exported / FORMATS[name].file, classifies=True)
    assert (found.num_classes, found.class_names, found.classifies) == (4, CLASSES, True)
    ours, theirs = reference.probabilities_of(pictures), found.probabilities_of(pictures)
    assert (theirs.shape, theirs.dtype) == ((8, 4), np.float32)
    assert len(set(ours.argmax(-1))) > 1
    # Half of a pixel's last bit may be rounded the other way, where a crop is computed in another order.
    assert np.abs(ours - theirs).max() < (0.2 if name in OVERLAP else 0.02)


@pytest.mark.parametrize("name", EIGHT_BITS)
def test_8_bits_leave_the_view_and_say_so_and_how(exported, pictures, tmp_path, name):
    described = json.loads((exported / "export.json").read_text())["formats"][name]
    assert described["takes"] == "1 uint8 RGB picture of 32x32 pixels" and described["inputs"] == {
        "image": [1, 32, 32, 3]
    }
    assert described["done inside"].startswith("(RGB - ") and described["left to do"].endswith("by area; softmax")
    real = described["on real pictures"]
    assert set(real) == {"probability_agreement", "label_agreement", "top1", "model_top1"}
    text = (exported / "README.md").read_text()
    program = re.search(rf"## {name}: .*?```python\n(.*?)```", text, re.DOTALL).group(1)
    for file in ("export.json", described["file"]):
        (tmp_path / file).symlink_to(exported / file)
    found = open_export(exported / described["file"], classifies=True)
    Image.fromarray(pictures[1]).save(tmp_path / "picture.png")
    done = subprocess.run(
        [sys.executable, "-I", "-c", program.replace("picture.jpg", "picture.png")],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    (expected,) = found.probabilities_of([pictures[1]])
    said, probability = done.stdout.split()
    assert (said, float(probability)) == (CLASSES[expected.argmax()], pytest.approx(expected.max(), rel=1e-4))


def test_no_processor_adds_up_more_than_16_bits_take(exported):
    """Two products of a pixel's byte and a weight, as those without VNNI do; depthwise they are added up in 32."""
    graph = onnx.load(exported / "model_int8.onnx").graph
    constants = {constant.name: onnx.numpy_helper.to_array(constant) for constant in graph.initializer}
    quantized = {
        node.output[0]: constants.get(node.input[0]) for node in graph.node if node.op_type == "DequantizeLinear"
    }
    largest = {True: 0, False: 0}
    for node in (node for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")):
        kernel = quantized[node.input[1]]
        assert kernel.dtype == np.int8
        is_depthwise = kernel.ndim == 4 and kernel.shape[1] == 1 < kernel.shape[0]
        largest[is_depthwise] = max(largest[is_depthwise], np.abs(kernel.astype(int)).max())
    assert largest == {True: 127, False: 64} and 2 * 255 * 64 < 2**15


def test_a_class_to_calibrate_on_that_the_model_has_not_is_refused(run, folders, tmp_path):
    said = ["--ckpt", str(run), "--out", str(tmp_path / "out"), "--calibrate", str(folders)]
    with pytest.raises(UserError, match="'cat' is none of the 4 of the model"):
        export_cls.main([*said, "--label", f"{CLASSES[0]}=cat"])
    with pytest.raises(ExportError, match="onnx_int8: measured on pictures; name some of the training set"):
        export_cls.main([*said[:4], "--formats", "onnx_int8"])


PLAIN = {
    "onnx": """
import json, sys, numpy as np, onnxruntime
from PIL import Image
names = json.load(open("export.json"))["classes"]
session = onnxruntime.InferenceSession("model.onnx")
for path in sys.argv[1:]:
    picture = np.asarray(Image.open(path).convert("RGB"))[None]
    labels, probabilities = session.run(["labels", "probabilities"], {"images": picture})
    print(names[labels[0]])
""",
    "tflite": """
import json, sys, numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
names = json.load(open("export.json"))["classes"]
classify = Interpreter("model_float32.tflite").get_signature_runner()
for path in sys.argv[1:]:
    picture = np.asarray(Image.open(path).convert("RGB"))[None]
    print(names[classify(images=picture)["labels"][0]])
""",
    "saved_model": """
import json, sys, numpy as np, tensorflow as tf
from PIL import Image
names = json.load(open("export.json"))["classes"]
classify = tf.saved_model.load("saved_model").signatures["serving_default"]
for path in sys.argv[1:]:
    picture = np.asarray(Image.open(path).convert("RGB"))[None]
    print(names[int(classify(images=tf.constant(picture))["labels"][0])])
""",
}


@pytest.mark.parametrize("name", PLAIN)
def test_ten_plain_lines_give_the_classes_of_predict_cls(exported, run, pictures, tmp_path, name):
    paths = [tmp_path / f"{number}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    predict_cls.main(["--ckpt", str(run), *map(str, paths), "--out", str(tmp_path / "out"), "--no-sheet"])
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    command = [sys.executable, "-I", "-c", PLAIN[name], *map(str, paths)]
    found = subprocess.run(command, cwd=exported, check=True, capture_output=True, text=True).stdout.split()
    said = [(row["class_1"], float(row["probability_1"]) - float(row["probability_2"])) for row in rows]
    decided = [(name, one) for (name, by), one in zip(said, found, strict=True) if by > 0.05]  # a random network's
    assert len(decided) > 4 and len(set(decided)) > 1
    assert all(name == one for name, one in decided)


def test_the_description_says_what_goes_in_and_what_comes_out(exported, model):
    described = json.loads((exported / "export.json").read_text())
    assert described["classes"] == list(CLASSES)
    assert described["input"] == "uint8 RGB pictures of any size, upright"
    assert tuple(described["formats"]) == export_seg.USUAL + EIGHT_BITS
    for entry in described["formats"].values():
        assert (entry["image_size"], entry["central_fraction"], entry["resize"]) == (32, 0.875, "square")
        said = entry["done inside"] + entry.get("left to do", "")
        assert "87.5 % of the shorter side" in said and "RGB" in entry["done inside"]
    with open_checkpoint(exported / "model.ckpt") as checkpoint:
        for name, variable in named_variables(model).items():
            assert checkpoint.read(name).tobytes() == np.asarray(variable).tobytes()


def test_an_export_is_measured_and_asked_as_a_run_is(exported, run, folders, tmp_path, capsys):
    import slim_deeplab

    scores = tmp_path / "scores.json"
    models = [str(run), str(exported), str(exported / "model.onnx"), str(exported / "model_float32.tflite")]
    eval_cls.main(["--ckpt", *models, "--data", str(folders), "--json", str(scores)])
    found = json.loads(scores.read_text())
    assert [each["checkpoint"] for each in found] == models
    assert all(each["confusion_matrix"] == found[0]["confusion_matrix"] for each in found)
    assert "what it sees of a picture is inside" in capsys.readouterr().out
    picture = ImageFolder(folders, "val").samples[0][0]
    by_export, by_run = slim_deeplab.load(exported), slim_deeplab.load(run)
    assert by_export.predict(picture).classes == by_run.predict(picture).classes
    assert by_export.network is None and by_export.class_names == CLASSES
    with pytest.raises(UserError, match="is an export, whose network is fixed; --image-size"):
        eval_cls.main(["--ckpt", str(exported), "--data", str(folders), "--image-size", "64"])


def test_onnx_needs_no_tensorflow(exported, folders, tmp_path):
    picture = ImageFolder(folders, "val").samples[0][0]
    program = (
        "import sys, predict_cls; predict_cls.main(sys.argv[1:]);"
        "assert not {'tensorflow', 'keras', 'ai_edge_litert'} & set(sys.modules)"
    )
    command = ["--ckpt", exported / "model.onnx", picture, "--out", tmp_path / "out"]
    subprocess.run([sys.executable, "-c", program, *command], check=True, capture_output=True)


def test_a_classifier_is_no_segmentation_model(exported, tmp_path):
    import eval_seg

    draw_voc(tmp_path, train=1, val=1)
    with pytest.raises(ExportError, match=r"model\.onnx: is a classifier; it is for predict_cls\.py"):
        eval_seg.main(["--ckpt", str(exported / "model.onnx"), "--data", str(tmp_path)])


def test_a_wrong_export_is_deleted(run, tmp_path, monkeypatch, capsys):
    def write_upside_down(served, path):
        served._values = {key: -value if "Conv2d_1c" in key else value for key, value in served._values.items()}
        write_frozen(served, path)

    monkeypatch.setitem(FORMATS, "pb", replace(FORMATS["pb"], write=write_upside_down))
    with pytest.raises(SystemExit) as end:
        command_line.run(
            lambda: export_cls.main(["--ckpt", str(run), "--out", str(tmp_path / "out"), "--formats", "pb"])
        )
    assert end.value.code == 1
    assert "WRONG, 99 % must be equal; deleted" in capsys.readouterr().out
    assert not list((tmp_path / "out").iterdir())
