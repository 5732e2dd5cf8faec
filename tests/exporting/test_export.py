"""Exports: each agrees with the model in its own runtime, and a wrong one never arrives."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

import command_line
import export_seg
from data.images import read_image
from data.sample import CLASS_NAMES, draw_voc
from engine.options import Exporting, Opening
from exporting.export import check_installed, drawn_picture, export
from exporting.formats import FORMATS
from exporting.saved_model import write_frozen
from files.writing import WriteError
from inference.evaluation import predicted
from inference.export_record import ExportError, read_description
from inference.opening import open_segmenter
from inference.runtimes import open_export
from models import mobilenet_v2
from models.checkpoint import open_checkpoint
from models.deeplab_v3 import deeplab_v3
from models.weight_init import named_variables
from tests.small_segmenter import CROP, levelled, opened, small_segmenter

# Keras reads and writes HDF5 in a way that NumPy 2 only just allows.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

EXTRAS = ("torch", "huggingface")  # tests/exporting/test_handed_over.py
ALL = tuple(name for name in FORMATS if name not in EXTRAS)
RUNTIMES = [name for name in ALL if name != "slim"]
# A random network decides by less than a trained one: 8 bits move more of its borders.
AGREEMENT = {name: FORMATS[name].agreement for name in FORMATS} | {
    "tflite_dynamic8": 0.85,
    "tflite_int8": 0.5,
    "onnx_int8": 0.5,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three sizes: a fit for the crop, smaller, and larger than it in one direction."""
    folder = tmp_path_factory.mktemp("sample")
    draw_voc(folder, train=1, val=1)
    picture = read_image(folder / "JPEGImages" / "val_00000.jpg")
    return [np.ascontiguousarray(part) for part in (picture[:CROP, :CROP], picture[20:60, 30:87], picture[:50])]


@pytest.fixture(scope="module")
def model(pictures):
    return levelled(small_segmenter(), pictures)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory, pictures):
    """(folder of all formats, the model's predictor, outcomes)."""
    folder, data = tmp_path_factory.mktemp("exported"), tmp_path_factory.mktemp("data")
    draw_voc(data, train=4, val=2)
    how = Exporting(outputs=("labels", "probabilities"), calibrate=str(data), calibrate_images=3)
    source = opened(model)
    with pytest.MonkeyPatch.context() as patch:
        for name, agreement in AGREEMENT.items():
            patch.setitem(FORMATS, name, replace(FORMATS[name], agreement=agreement))
        for extra in ("torch", "sympy"):  # which it brings: these formats must do without
            patch.setitem(sys.modules, extra, None)
        outcomes = list(export(source, "somewhere/model.ckpt-3", folder, ALL, pictures[0], how))
    return folder, source.predictor(), outcomes


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_export_agrees_with_the_model(exported, pictures, name):
    folder, model, _ = exported
    found = open_export(folder / FORMATS[name].file)
    assert (found.num_classes, found.class_names) == (5, CLASS_NAMES)
    for picture in pictures:
        if found.fixed is not None and max(picture.shape) > CROP:
            with pytest.raises(ExportError, match=rf"up to {CROP}x{CROP} pixels, this one has {picture.shape[1]}x50"):
                found.labels(picture)
            continue
        labels, probabilities = found.labels(picture), found.probabilities(picture)
        assert (labels.dtype, labels.shape) == (np.uint8, picture.shape[:2])
        assert (probabilities.dtype, probabilities.shape) == (np.float32, (*picture.shape[:2], 5))
        expected = model.labels(picture)
        assert len(np.unique(expected)) > 1
        assert (labels == expected).mean() >= AGREEMENT[name]
        if AGREEMENT[name] == 0.999:
            np.testing.assert_allclose(probabilities, model.probabilities(picture), atol=1e-4)


def test_outcomes_and_description_tell_what_is_there(exported):
    folder, model, outcomes = exported
    described = json.loads((folder / "export.json").read_text())
    assert described["classes"] == list(CLASS_NAMES)
    assert [outcome.name for outcome in outcomes] == list(ALL) == list(described["formats"])
    for outcome in outcomes:
        entry = described["formats"][outcome.name]
        assert outcome.good
        assert entry["checkpoint"] == "model.ckpt-3"
        files = list(folder.glob(f"{entry['file']}*"))
        files = [file for place in files for file in (place.rglob("*") if place.is_dir() else [place])]
        assert entry["bytes"] == sum(file.stat().st_size for file in files if file.is_file()) > 0
    sizes = {outcome.name: outcome.bytes for outcome in outcomes}
    assert sizes["tflite_dynamic8"] < 0.6 * sizes["tflite"]
    assert sizes["tflite_float16"] < 0.6 * sizes["tflite"]
    assert not list(folder.glob(".*"))
    with open_checkpoint(folder / "model.ckpt") as checkpoint:
        for name, variable in named_variables(model.model).items():
            assert checkpoint.read(name).tobytes() == np.asarray(variable).tobytes()


PLAIN = """
import sys
import numpy as np
import tensorflow as tf
assert not any(name in sys.modules for name in ("models", "engine", "data"))
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
found = served(images=tf.constant(np.load(sys.argv[2])[None]))
np.savez(sys.argv[3], **{name: value.numpy()[0] for name, value in found.items()})
"""


def test_saved_model_needs_nothing_of_this_project(exported, pictures, tmp_path):
    folder, model, _ = exported
    np.save(tmp_path / "picture.npy", pictures[2])
    arguments = [str(folder / "saved_model"), "picture.npy", "found.npz"]
    subprocess.run([sys.executable, "-I", "-c", PLAIN, *arguments], cwd=tmp_path, check=True, capture_output=True)
    found = np.load(tmp_path / "found.npz")
    assert (found["labels"] == model.labels(pictures[2])).mean() >= 0.999
    np.testing.assert_allclose(found["probabilities"], model.probabilities(pictures[2]), atol=1e-4)


def test_frozen_graph_runs_in_a_session(exported, pictures):
    import tensorflow as tf

    folder, model, _ = exported
    graph = tf.compat.v1.GraphDef.FromString((folder / "model.pb").read_bytes())
    assert not any("Variable" in node.op or "VarHandle" in node.op for node in graph.node)
    with tf.Graph().as_default():
        labels, probabilities = tf.compat.v1.import_graph_def(
            graph, name="", return_elements=["labels:0", "probabilities:0"]
        )
        with tf.compat.v1.Session() as session:
            found = session.run([labels, probabilities], {"images:0": np.stack([pictures[1]] * 2)})
    for image in range(2):
        assert (found[0][image] == model.labels(pictures[1])).mean() >= 0.999


ITS_RUNTIME = {
    "onnx": "onnxruntime",
    "tflite": "ai_edge_litert",
    "saved_model": "tensorflow",
    "pb": "tensorflow",
    "keras": "tensorflow",
}
# Of what is installed a program may only have its own runtime, NumPy and Pillow; TensorFlow brings others with it.
ALONE = """
import sys
sys.path.append({path!r})
class Refusing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {others!r}:
            raise ImportError(f"{{name}}: not in a user's environment")
sys.meta_path.insert(0, Refusing())
"""
HOUSE = str(Path(__file__).parents[2])
OURS = {"models", "data", "engine", "inference", "porting", "exporting", "files", "errors", "slim_deeplab"}


@pytest.fixture(scope="module")
def logits(model, pictures, tmp_path_factory):
    """The folder of exports that give small logits alone."""
    folder = tmp_path_factory.mktemp("logits")
    outcomes = list(export(opened(model), "m", folder, ("onnx", "tflite"), pictures[0], Exporting(outputs=("logits",))))
    assert all(outcome.good for outcome in outcomes)
    return folder


@pytest.fixture(scope="module")
def mobile(pictures, tmp_path_factory):
    """The folder of exports for TensorFlow of a network whose last unit dilates a depthwise convolution."""
    folder = tmp_path_factory.mktemp("mobile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mobilenet_v2, "INVERTED_RESIDUALS", [(16, 1), (24, 2), (32, 2), (48, 2), (48, 1)])
        model = deeplab_v3("mobilenet_v2", num_classes=5, output_stride=8, atrous_rates=())
    outcomes = list(export(opened(levelled(model, pictures)), "m", folder, ("saved_model", "pb"), pictures[0]))
    assert all(outcome.good for outcome in outcomes)
    return folder


@pytest.mark.parametrize("name", [*RUNTIMES, "logits/onnx", "logits/tflite", "mobile/saved_model", "mobile/pb"])
def test_a_program_runs_as_it_stands_with_its_runtime_alone(exported, logits, mobile, pictures, tmp_path, name):
    """TensorFlow without oneDNN, which dilates no depthwise convolution then: as it comes on many processors."""
    place, _, name = name.rpartition("/")
    place = {"": exported[0], "logits": logits, "mobile": mobile}[place]
    for one in place.iterdir():
        (tmp_path / one.name).symlink_to(one)
    Image.fromarray(pictures[2]).save(tmp_path / "picture.png")
    text = (place / "README.md").read_text()
    program = re.search(rf"## {name}: .*?```python\n(.*?)```", text, re.DOTALL).group(1)
    program = program.replace("picture.jpg", "picture.png")  # to the bit, for the comparison
    runtime = ITS_RUNTIME.get(name) or ITS_RUNTIME[name.partition("_")[0]]
    others = (
        (OURS if name != "keras" else set())
        | {"torch", "jax", "cv2"}
        | (set() if runtime == "tensorflow" else {"tensorflow", "keras"})
    )
    others |= set(ITS_RUNTIME.values()) - {runtime} if runtime != "tensorflow" else set()
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE.format(others=others, path=HOUSE if name == "keras" else ".") + program],
        cwd=tmp_path,
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = np.asarray(Image.open(tmp_path / "labels.png"))
    picture = np.asarray(Image.open(tmp_path / "picture.png"))
    ours = open_export(place / FORMATS[name].file)
    rows, columns = ours.fixed or picture.shape[:2]
    expected = ours.labels(picture[:rows, :columns])
    assert found.shape == expected.shape and (found == expected).mean() > 0.999
    assert "classes: [" in done.stdout and any(one in done.stdout for one in CLASS_NAMES)


def test_tflite_ignores_what_lies_beyond_the_picture(exported, pictures):
    folder, model, _ = exported
    runner = open_export(folder / "model_exact.tflite")._runner
    height, width = pictures[1].shape[:2]
    image = np.random.default_rng(0).integers(0, 256, (1, CROP, CROP, 3), np.uint8)
    image[0, :height, :width] = pictures[1]
    found = runner(image=image, size=np.array([height, width], np.int32))["labels"][0, :height, :width]
    assert (found == model.labels(pictures[1])).mean() >= 0.999


def test_onnx_needs_no_tensorflow(exported):
    program = (
        "import sys; from inference.runtimes import open_export; import numpy as np;"
        "open_export(sys.argv[1]).labels(np.zeros((20, 30, 3), np.uint8));"
        "assert not {'tensorflow', 'keras', 'ai_edge_litert'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, exported[0] / "model.onnx"], check=True, capture_output=True)


def test_an_export_is_evaluated_as_a_model_is(exported, pictures):
    class Images:
        def __len__(self):
            return len(samples)

        def image_size(self, index):
            return samples[index].shape[:2]

        def __getitem__(self, index):
            return samples[index], np.zeros(samples[index].shape[:2], np.uint8)

    samples = [pictures[0], pictures[1], pictures[1][:, ::-1], pictures[0]]
    folder, model, _ = exported
    for name, equal in (("saved_model", 0.999), ("model_exact.tflite", 0.999), ("model_float32.tflite", 0.98)):
        for index, labels, _ in predicted(open_export(folder / name), Images(), batch_size=2):
            assert (labels == model.labels(samples[index])).mean() >= equal


@pytest.fixture
def one(exported, tmp_path):
    """A function: formats → outcomes of exporting into a folder of this test's own."""
    source = opened(exported[1].model)
    return lambda *formats, how=Exporting(), **options: list(
        export(SimpleNamespace(**vars(source) | options), "model.ckpt", tmp_path / "out", formats, drawn_picture(), how)
    )


def test_onnx_names_its_axes_and_takes_the_operators_asked_for(one, tmp_path):
    import onnx

    how = Exporting(outputs=("labels", "probabilities", "logits"), opset=17)
    assert [outcome.good for outcome in one("onnx", how=how)] == [True]
    model = onnx.load(tmp_path / "out" / "model.onnx")
    said = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert said == {
        "images": ["batch", "height", "width", 3],
        "labels": ["batch", "height", "width"],
        "probabilities": ["batch", "height", "width", 5],
        "logits": ["batch", "small_height", "small_width", 5],
    }
    assert next(used.version for used in model.opset_import if used.domain == "") == 17


def test_one_size_and_number_of_pictures(one, exported, pictures, tmp_path):
    assert all(outcome.good for outcome in one("onnx", "tflite", how=Exporting(size=(50, 90), batch=2)))
    entries = json.loads((tmp_path / "out" / "export.json").read_text())["formats"]
    assert entries["onnx"]["inputs"] == {"images": [2, 50, 90, 3]}
    assert entries["tflite"]["inputs"] == {"image": [1, 50, 90, 3]}
    assert entries["tflite"]["takes"].startswith("1 uint8 RGB picture of 90x50 pixels, a smaller one padded")
    for name in ("model.onnx", "model_float32.tflite"):
        found, picture = open_export(tmp_path / "out" / name), pictures[2][:, :90]
        for labels in found.labels_of([picture] * 3):  # more than the file takes at once
            assert (labels == exported[1].labels(picture)).mean() >= 0.999
        with pytest.raises(ExportError, match="takes pictures of up to 90x50 pixels, this one has 128x50"):
            found.labels(pictures[2])
        with pytest.raises(ExportError, match="gives labels alone; export with --outputs labels,probabilities"):
            found.probabilities(picture)


def test_all_of_tflite_int8_is_in_8_bits(exported):
    from ai_edge_litert.interpreter import Interpreter

    lite = Interpreter(str(exported[0] / "model_int8.tflite"))
    assert {np.dtype(one["dtype"]).name for one in lite.get_tensor_details()} <= {"uint8", "int8", "int32"}
    (takes,), (gives,) = lite.get_input_details(), lite.get_output_details()
    assert takes["dtype"] is gives["dtype"] is np.uint8
    assert takes["quantization"][0] == 1  # pixels as they are
    channels = max(len(one["quantization_parameters"]["scales"]) for one in lite.get_tensor_details())
    assert channels > 8  # weights have a scale a channel


def test_8_bits_are_checked_on_real_pictures(exported):
    for outcome in exported[2]:
        if FORMATS[outcome.name].calibrated:
            assert "3 pictures of train, spread over the classes; checked on 2 of val" in str(outcome)
            entry = json.loads((exported[0] / "export.json").read_text())["formats"][outcome.name]
            assert entry["on real pictures"] == outcome.told["on real pictures"]
            assert set(outcome.told["on real pictures"]) == {"label_agreement", "miou", "model_miou"}


def test_a_wrong_export_is_deleted_and_what_was_good_stays(one, exported, tmp_path, monkeypatch):
    assert [outcome.good for outcome in one("slim")] == [True]
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def write_upside_down(served, path):
        served._values = served._values | {
            key: -value for key, value in served._values.items() if key.endswith("semantic/weights")
        }
        write_frozen(served, path)

    monkeypatch.setitem(FORMATS, "pb", replace(FORMATS["pb"], write=write_upside_down))
    monkeypatch.setitem(FORMATS, "slim", replace(FORMATS["slim"], write=_write_another))
    outcomes = one("pb", "slim")
    assert [outcome.good for outcome in outcomes] == [False, False]
    assert "99.9 % must be equal; deleted" in str(outcomes[0])
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def _write_another(served, path):
    from models.weight_init import save_checkpoint

    gamma = next(variable for variable in served.model.weights if variable.path.endswith("gamma"))
    kept = np.asarray(gamma)
    gamma.assign(np.nextafter(kept, 9))
    save_checkpoint(served.model, path)
    gamma.assign(kept)


def test_a_writer_that_fails_leaves_nothing(one, tmp_path, monkeypatch):
    def write_half(_, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setitem(FORMATS, "pb", replace(FORMATS["pb"], write=write_half))
    with pytest.raises(WriteError, match=r"out: cannot be written .No space left on device."):
        one("pb")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_is_for_one_set_of_classes(one):
    one("slim")
    with pytest.raises(ExportError, match="other classes; name another --out"):
        one("slim", class_names=("background", *"abcd"))
    one("slim")


@pytest.mark.parametrize(
    ("name", "formats"), [("tf2onnx", ["onnx"]), ("onnxruntime", ["onnx"]), ("ai_edge_litert", ["pb", "tflite"])]
)
def test_a_runtime_that_is_not_installed(monkeypatch, name, formats):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExportError, match=f"{name} is not installed: pip install -r requirements-export.txt"):
        check_installed(formats)
    check_installed(["pb", "saved_model", "slim"])


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ExportError, match="KERAS_BACKEND=jax: only TensorFlow exports"):
        check_installed(["slim"])


@pytest.mark.parametrize("name", ["saved_model/saved_model.pb", "model.pb", "model.onnx", "model_float32.tflite"])
@pytest.mark.parametrize("content", [b"", b"no such thing", None])
def test_a_broken_file_is_said(exported, tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    whole = (exported[0] / name).read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ExportError, match=r"cannot be opened as .* Export it again"):
        open_export(path)


@pytest.mark.parametrize(
    "name", ["saved_model", "model.pb", "model.onnx", "model_float32.tflite", "model_int8.onnx", "model_int8.tflite"]
)
def test_any_changed_byte_is_seen(exported, tmp_path, name):
    folder = tmp_path / "exports"
    shutil.copytree(exported[0], folder)
    rng = np.random.default_rng(0)
    files = [folder / name] if (folder / name).is_file() else [p for p in (folder / name).rglob("*") if p.is_file()]
    for number in range(60):
        file = files[number % len(files)]
        whole = file.read_bytes()
        at = int(rng.integers(len(whole)))
        file.write_bytes(whole[:at] + bytes([whole[at] ^ int(rng.integers(1, 256))]) + whole[at + 1 :])
        with pytest.raises(ExportError, match="is not what was exported"):
            open_export(folder / name)
        file.write_bytes(whole)
    assert open_export(folder / name).num_classes == len(exported[1].class_names)


def test_a_changed_description_is_refused_or_says_the_same(exported, tmp_path):
    whole, rng = (exported[0] / "export.json").read_bytes(), np.random.default_rng(0)
    told, refused = read_description(exported[0]), 0
    for at in rng.integers(len(whole), size=200):
        changed = bytes([whole[at] ^ int(rng.integers(1, 256))])
        (tmp_path / "export.json").write_bytes(whole[:at] + changed + whole[at + 1 :])
        try:
            assert read_description(tmp_path) == told
        except ExportError as error:
            refused += "export.json: " in str(error)
    assert refused > 150


def test_an_export_without_its_checksum_is_said_to_be_unknown(exported, tmp_path, capsys):
    shutil.copy(exported[0] / "model.onnx", tmp_path)
    open_export(tmp_path / "model.onnx")
    assert "model.onnx: no export.json beside it has its checksum" in capsys.readouterr().out
    open_export(exported[0] / "model.onnx")
    assert "checksum" not in capsys.readouterr().out


def test_what_is_no_export(tmp_path):
    assert open_export(tmp_path) is None
    assert open_export(tmp_path / "model.ckpt") is None
    with pytest.raises(ExportError, match="no such file"):
        open_export(tmp_path / "model.onnx")
    (tmp_path / "export.json").write_text('{"classes": ["a"], "formats": {"onnx": {"file": "model.onnx"}}}')
    with pytest.raises(ExportError, match=r"holds no SavedModel; name one of model\.onnx"):
        open_export(tmp_path)
    (tmp_path / "export.json").write_text("{")
    with pytest.raises(ExportError, match=r"export\.json: Input data was truncated"):
        open_export(tmp_path)


def test_a_folder_of_exports_is_its_saved_model(exported):
    assert open_export(exported[0]).path == exported[0] / "saved_model"


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_file_by_itself_says_its_classes_and_what_it_does(exported, tmp_path, name):
    source, path = exported[0] / FORMATS[name].file, tmp_path / FORMATS[name].file
    shutil.copytree(source, path) if source.is_dir() else shutil.copy(source, path)
    found = open_export(path)
    assert found.class_names == CLASS_NAMES
    assert found.inside["colours"] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert found.inside["padding"] == [128, 128, 128]
    assert "127.5" in found.inside["done inside"]


def command(*arguments):
    """→ exit code of export_seg.py."""
    with pytest.raises(SystemExit) as ended:
        command_line.run(lambda: export_seg.main([str(argument) for argument in arguments]))
    return ended.value.code


def test_command_line(exported, tmp_path, capsys, monkeypatch):
    assert tuple(FORMATS) == export_seg.FORMATS
    assert tuple(name for name in FORMATS if FORMATS[name].calibrated) == export_seg.CALIBRATED
    given = SimpleNamespace(**vars(opened(exported[1].model)), introduction=lambda: "all of its variables")
    monkeypatch.setattr("inference.opening.open_segmenter", lambda *_: given)
    assert command("--ckpt", "x.ckpt", "--out", tmp_path / "out", "--formats", "slim") == 0
    said = capsys.readouterr().out
    assert "checked on a drawn picture; --image checks on a real one" in said
    assert "slim: model.ckpt, " in said
    assert "100.000 % of the variables equal the model's to the bit" in said
    monkeypatch.setitem(FORMATS, "pb", replace(FORMATS["pb"], agreement=1.1))
    assert command("--ckpt", "x.ckpt", "--out", tmp_path / "wrong", "--formats", "pb") == 1
    assert "WRONG" in capsys.readouterr().out
    assert list((tmp_path / "wrong").iterdir()) == []
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert command("--ckpt", "x.ckpt", "--out", tmp_path / "never") == 2
    assert "requirements-export.txt" in capsys.readouterr().err
    assert not (tmp_path / "never").exists()
    assert command("--ckpt", "x.ckpt", "--out", tmp_path / "never", "--precision", "bfloat16") == 2
    assert command("--ckpt", "x.ckpt", "--out", tmp_path / "never", "--formats", "h5") == 2
    assert command("--ckpt", "x.ckpt", "--out", tmp_path / "never", "--formats", "tflite_int8") == 2
    assert "tflite_int8: measured on pictures; name some" in capsys.readouterr().err


def test_published_checkpoint_on_real_pictures(shared_data, real_checkpoints, tmp_path):
    checkpoint = real_checkpoints / "deeplabv3_mnv2_pascal_trainval.ckpt"
    source = open_segmenter(checkpoint, Opening(crop_size=257))
    photo = read_image(shared_data / "VOC2012" / "JPEGImages" / "2007_003106.jpg")
    formats = ("saved_model", "onnx", "tflite", "tflite_dynamic8")
    assert all(outcome.good for outcome in export(source, checkpoint, tmp_path, formats, photo))
    exports = {name: open_export(tmp_path / FORMATS[name].file) for name in formats}
    model = source.predictor()
    for part in (photo[:257, :257], photo[100:333, 50:250], photo[:240, :400]):
        expected = model.labels(part)
        assert len(np.unique(expected)) > 1
        for name, found in exports.items():
            if max(part.shape) <= 257 or not name.startswith("tflite"):
                assert (found.labels(part) == expected).mean() >= FORMATS[name].agreement, name
