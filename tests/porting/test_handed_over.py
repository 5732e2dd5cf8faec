"""Exports for PyTorch and for Hugging Face's transformers: each agrees with the model where only its runtime is."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from data.images import read_image
from data.sample import CLASS_NAMES, draw_voc
from data.views import View
from engine.options import ClassifierOpening, Exporting, Opening
from inference.export_record import ExportError
from inference.opening import OpenedClassifier, open_classifier, open_segmenter
from inference.predictor import ModelPredictor
from inference.runtimes import open_export
from models.deeplab_v3 import DeepLabV3, deeplab_v3
from models.mobilenet_v1 import mobilenet_v1
from models.mobilenet_v2 import mobilenet_v2
from models.weight_init import named_variables
from porting.export import drawn_picture, export
from porting.huggingface import their_name, translated
from tests.networks import randomize
from tests.short_mobilenet import shortened

# Keras reads and writes HDF5 in a way that NumPy 2 only just allows.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
CROP = 65
MOBILE_HEAD = {"atrous_rates": (), "upsampling": "align-corners"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """One that fills the crop, and one that is smaller."""
    folder = tmp_path_factory.mktemp("sample")
    draw_voc(folder, train=1, val=1)
    picture = read_image(folder / "JPEGImages" / "val_00000.jpg")
    return [np.ascontiguousarray(part) for part in (picture[:CROP, :CROP], picture[20:60, 30:87])]


def segmenter(pictures, **options):
    """The least mobile DeepLab, random, and all classes equally likely on the pictures."""
    model = deeplab_v3("mobilenet_v2", num_classes=5, depth_multiplier=0.35, **MOBILE_HEAD | options)
    randomize(named_variables(model))
    predictor = ModelPredictor(model, CLASS_NAMES, CROP)
    bias = model.logits.layers[0].bias
    likely = [np.log(predictor.probabilities(picture)).mean((0, 1)) for picture in pictures]
    bias.assign(bias - np.mean(likely, axis=0))
    return SimpleNamespace(model=model, class_names=CLASS_NAMES, crop_size=CROP, predictor=lambda: predictor)


def classifier(net, rule="square"):
    """Of five classes, and random."""
    randomize(named_variables(net))
    return OpenedClassifier(net, None, None, CLASS_NAMES, View(32, rule=rule))


def written(opened, folder, name, **how):
    (outcome,) = export(opened, "model.ckpt", folder, (name,), drawn_picture(), Exporting(**how))
    assert outcome.good, outcome
    return outcome


BOTH = ("labels", "probabilities")
# None of these can be imported, and PyTorch, which looks whether some are there, finds none.
ALONE = "import sys; sys.modules |= dict.fromkeys({others!r})\n"
OURS = ["keras", "tensorflow", "jax", "cv2", "models", "data", "engine", "inference", "porting", "files", "errors"]


def run_program(folder, name, picture, others):
    """Runs what the export's README.md says of a format, as it stands, on a picture → what it prints."""
    Image.fromarray(picture).save(folder / "picture.png")
    text = (folder / "README.md").read_text()
    program = re.search(rf"## {name}: .*?```python\n(.*?)```", text, re.DOTALL).group(1)
    program = ALONE.format(others=others) + program.replace("picture.jpg", "picture.png")
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# PyTorch


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs requirements-torch.txt")


@pytest.fixture(scope="module")
def program(pictures, tmp_path_factory):
    """(the folder of a PyTorch program, the model that it is of)."""
    pytest.importorskip("torch", reason="needs requirements-torch.txt")
    folder = tmp_path_factory.mktemp("torch")
    opened = segmenter(pictures)
    written(opened, folder, "torch", outputs=BOTH)
    return folder, opened.predictor()


def test_a_torch_program_is_the_model_at_any_size_up_to_the_crop(program, pictures):
    found, model = open_export(program[0] / "model.pt2"), program[1]
    for picture in pictures:
        assert (found.labels(picture) == model.labels(picture)).mean() >= 0.999
        np.testing.assert_allclose(found.probabilities(picture), model.probabilities(picture), atol=1e-4)
    three = found.labels_of([pictures[1]] * 3)
    assert len(three) == 3 and (three[2] == model.labels(pictures[1])).mean() >= 0.999
    with pytest.raises(ExportError, match=rf"up to {CROP}x{CROP} pixels, this one has 70x20"):
        found.labels(np.zeros((20, 70, 3), np.uint8))


def test_a_torch_program_runs_with_torch_alone(program, pictures, tmp_path):
    folder, model = program
    for one in folder.iterdir():
        (tmp_path / one.name).symlink_to(one)
    assert "classes: [" in run_program(tmp_path, "torch", pictures[1], OURS)
    found = np.asarray(Image.open(tmp_path / "labels.png"))
    assert (found == model.labels(pictures[1])).mean() >= 0.999


def test_a_torch_program_classifies_what_is_seen_of_a_picture(torch, tmp_path):
    opened = classifier(mobilenet_v2(num_classes=5, depth_multiplier=0.35))
    written(opened, tmp_path, "torch")
    picture = drawn_picture()
    ours = opened.predictor().probabilities_of([picture, picture[:40]])
    np.testing.assert_allclose(
        open_export(tmp_path / "model.pt2", classifies=True).probabilities_of([picture, picture[:40]]), ours, atol=1e-4
    )
    entry = json.loads((tmp_path / "export.json").read_text())["formats"]["torch"]
    assert entry["inputs"] == {"images": [None, 32, 32, 3]}
    assert entry["left to do"].startswith("the central square of 87.5 %")
    assert CLASS_NAMES[ours[0].argmax()] in run_program(tmp_path, "torch", picture, OURS)


# Hugging Face's transformers


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers", reason="needs requirements-huggingface.txt")


def test_kernels_and_names_are_turned():
    values = {
        "MobilenetV2/Conv/weights": np.arange(3 * 3 * 2 * 4.0).reshape(3, 3, 2, 4),
        "MobilenetV2/expanded_conv/depthwise/depthwise_weights": np.arange(3 * 3 * 4.0).reshape(3, 3, 4, 1),
        "MobilenetV2/expanded_conv_16/project/BatchNorm/moving_mean": np.arange(4.0),
        "MobilenetV2/Logits/Conv2d_1c_1x1/weights": np.arange(4 * 5.0).reshape(1, 1, 4, 5),
        "logits/semantic/biases": np.arange(5.0),
        "MobilenetV1/Conv2d_13_pointwise/BatchNorm/gamma": np.arange(4.0),
    }
    found = translated(values)
    assert (
        found["mobilenet_v2.conv_stem.first_conv.convolution.weight"][3, 1, 2, 0]
        == values["MobilenetV2/Conv/weights"][2, 0, 1, 3]
    )
    depthwise = values["MobilenetV2/expanded_conv/depthwise/depthwise_weights"]
    assert found["mobilenet_v2.conv_stem.conv_3x3.convolution.weight"][3, 0, 2, 1] == depthwise[2, 1, 3, 0]
    assert found["classifier.weight"][4, 2] == values["MobilenetV2/Logits/Conv2d_1c_1x1/weights"][0, 0, 2, 4]
    assert found.keys() >= {
        "mobilenet_v2.layer.15.reduce_1x1.normalization.running_mean",
        "mobilenet_v2.layer.15.reduce_1x1.normalization.num_batches_tracked",
        "segmentation_head.classifier.convolution.bias",
        "mobilenet_v1.layer.25.normalization.weight",
    }
    with pytest.raises(ValueError, match="resnet_v2_50/conv1/weights: has no place"):
        their_name("resnet_v2_50/conv1/weights")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"atrous_rates": (6, 12)}, r"head whose atrous_rates is \(6, 12\)"),
        ({"decoder": "plain"}, "head whose decoder is 'plain'"),
        ({"image_pooling_crop_size": (65, 65)}, "head whose image_pooling_crop_size"),
        ({"preprocessing": "caffe-mean-subtracted"}, "puts blue first"),
    ],
)
def test_a_deeplab_that_transformers_cannot_express_is_refused(tmp_path, options, said):
    with shortened(), keras.name_scope("deeplab_v3"):
        backbone = mobilenet_v2(depth_multiplier=0.35, include_last_conv=False, output_stride=16)
        model = DeepLabV3(backbone, 5, **MOBILE_HEAD | options)
        model.build()
    opened = SimpleNamespace(model=model, class_names=CLASS_NAMES, crop_size=CROP)
    with pytest.raises(ExportError, match=f"huggingface: .* have no .*{said}.*leave it out of --formats"):
        list(export(opened, "m", tmp_path / "out", ("huggingface",), drawn_picture()))
    assert not (tmp_path / "out").exists()


def test_a_classifier_that_transformers_cannot_express_is_refused(tmp_path):
    refused = {
        "MobileNet v1 of output stride 16": classifier(
            mobilenet_v1(num_classes=5, depth_multiplier=0.25, output_stride=16)
        ),
        "without global pooling": classifier(mobilenet_v1(num_classes=5, depth_multiplier=0.25, global_pool=False)),
        "stretches the middle": classifier(mobilenet_v1(num_classes=5, depth_multiplier=0.25), "stretch"),
    }
    for said, opened in refused.items():
        with pytest.raises(ExportError, match=said):
            list(export(opened, "m", tmp_path / "out", ("huggingface",), drawn_picture()))


@pytest.mark.parametrize(
    "build",
    [
        lambda: mobilenet_v1(num_classes=5, depth_multiplier=0.25),
        lambda: mobilenet_v2(num_classes=5, depth_multiplier=0.35, output_stride=8),
    ],
)
def test_transformers_classifies_as_the_model_does(transformers, tmp_path, build):
    opened = classifier(build())
    assert written(opened, tmp_path, "huggingface").difference < 1e-4
    printed = run_program(tmp_path, "huggingface", drawn_picture(), OURS)
    assert any(name in printed for name in CLASS_NAMES)


@pytest.mark.parametrize("stride", [8, 16])
def test_transformers_segments_as_the_model_does(transformers, pictures, tmp_path, stride):
    opened = segmenter(pictures, output_stride=stride)
    written(opened, tmp_path, "huggingface")
    found, model = open_export(tmp_path / "huggingface"), opened.predictor()
    for picture in pictures:
        np.testing.assert_allclose(found.probabilities(picture), model.probabilities(picture), atol=1e-4)
    if stride == 16:
        run_program(tmp_path, "huggingface", pictures[1], OURS)
        labels = np.asarray(Image.open(tmp_path / "labels.png"))
        assert (labels == model.labels(pictures[1])).mean() >= 0.999


def test_weights_that_are_missing_refuse(transformers, pictures, tmp_path):
    from safetensors.numpy import load, save

    written(segmenter(pictures), tmp_path, "huggingface")
    path = tmp_path / "huggingface" / "model.safetensors"
    values = load(path.read_bytes())
    del values["segmentation_head.conv_aspp.convolution.weight"]
    path.write_bytes(save(values, {"format": "pt"}))
    (tmp_path / "export.json").unlink()
    with pytest.raises(ExportError, match="not all of its weights are the model's"):
        open_export(tmp_path / "huggingface")


@pytest.mark.parametrize("name", ["keras", "torch", "huggingface"])
def test_published_networks_agree_on_real_pictures(real_checkpoints, shared_data, tmp_path, name):
    for module in {"torch": ("torch",), "huggingface": ("torch", "transformers")}.get(name, ()):
        pytest.importorskip(module, reason=f"needs {module}")
    photos = sorted((shared_data / "VOC2012" / "JPEGImages").glob("*.jpg"))[:2]
    pictures = [read_image(photo) for photo in photos]
    segments = open_segmenter(real_checkpoints / "deeplabv3_mnv2_pascal_trainval.ckpt", Opening())
    classifies = open_classifier(real_checkpoints / "mobilenet_v2_1.0_224_8bit.ckpt", ClassifierOpening())
    tasks = [(segments, tmp_path / "seg"), (classifies, tmp_path / "cls")]
    for opened, folder in tasks[: 1 if name == "torch" else 2]:  # PyTorch takes long to trace one
        outcome = written(opened, folder, name, outputs=BOTH)
        found = open_export(folder / outcome.file, classifies=None)
        ours = opened.predictor()
        for picture in pictures:
            if found.classifies:
                apart = found.probabilities_of([picture]) - ours.probabilities_of([picture])
            else:
                apart = found.probabilities(picture) - ours.probabilities(picture)
                assert (found.labels(picture) == ours.labels(picture)).mean() > 0.9999
            assert np.abs(apart).max() < 1e-4
