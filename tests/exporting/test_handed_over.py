"""Exports for Keras, for PyTorch and for Hugging Face's transformers: each agrees with the model."""

import json
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from data.images import read_image
from data.sample import CLASS_NAMES
from data.views import RULES, View
from engine.options import ClassifierOpening, Exporting, Opening
from exporting.export import drawn_picture, export
from exporting.huggingface import their_name, translated
from exporting.usage import seen_of
from inference.export_record import ExportError
from inference.opening import OpenedClassifier, open_classifier, open_segmenter
from inference.runtimes import open_export
from models.deeplab_v3 import DeepLabV3, deeplab_v3
from models.mobilenet_v1 import mobilenet_v1
from models.mobilenet_v2 import mobilenet_v2
from models.preprocessing import Preprocessing
from models.weight_init import named_variables
from tests.networks import randomize
from tests.short_mobilenet import shortened
from tests.small_segmenter import CROP, levelled, opened, small_segmenter

# Keras reads and writes HDF5 in a way that NumPy 2 only just allows.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
NEEDED = {"torch": "requirements-torch.txt", "transformers": "requirements-huggingface.txt"}
# The head that transformers knows.
MOBILE_HEAD = {"atrous_rates": (), "upsampling": "align-corners"}


def needs(*modules):
    for module in modules:
        pytest.importorskip(module, reason=f"needs {NEEDED[module]}")


def classifier(net, rule="square"):
    """Of five classes, and random."""
    randomize(named_variables(net))
    return OpenedClassifier(net, None, None, CLASS_NAMES, View(32, rule=rule))


def written(source, folder, name):
    (outcome,) = export(source, "model.ckpt", folder, (name,), drawn_picture(), Exporting(outputs=BOTH))
    assert outcome.good, outcome
    return folder / outcome.file


BOTH = ("labels", "probabilities")
# None of these can be imported, and PyTorch, which looks whether some are there, finds none.
ALONE = """import os, sys
sys.modules |= dict.fromkeys({others!r})
for folder, program in {programs!r}:
    os.chdir(folder)
    exec(program, {{"__name__": "__main__"}})
"""
OURS = [
    "keras",
    "tensorflow",
    "jax",
    "cv2",
    "models",
    "data",
    "engine",
    "inference",
    "porting",
    "exporting",
    "files",
    "errors",
]


def run_programs(name, folders, picture, others):
    """Runs what the README.md of each folder says of a format, as it stands, on a picture → what they print."""
    programs = []
    for folder in folders:
        Image.fromarray(picture).save(folder / "picture.png")
        text = (folder / "README.md").read_text()
        program = re.search(rf"## {name}: .*?```python\n(.*?)```", text, re.DOTALL).group(1)
        programs.append((str(folder), program.replace("picture.jpg", "picture.png")))
    alone = ALONE.format(others=others, programs=programs)
    done = subprocess.run([sys.executable, "-I", "-c", alone], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def equal_labels(folder, expected):
    """The fraction of the labels that a program left which are as expected."""
    return (np.asarray(Image.open(folder / "labels.png")) == expected).mean()


@pytest.fixture(scope="module")
def pictures():
    """One that fills the crop, and one that is smaller."""
    picture = drawn_picture()
    return [np.ascontiguousarray(part) for part in (picture[:CROP, :CROP], picture[20:60, 30:87])]


@pytest.fixture(scope="module")
def small_classifier():
    return classifier(mobilenet_v1(num_classes=5, depth_multiplier=0.25))


# Keras; of a segmentation model in tests/exporting/test_export.py


def test_a_keras_file_classifies_as_the_model_does(small_classifier, tmp_path):
    seen = [drawn_picture(), drawn_picture()[:40]]
    found = open_export(written(small_classifier, tmp_path, "keras"), classifies=True).probabilities_of(seen)
    np.testing.assert_allclose(found, small_classifier.predictor().probabilities_of(seen), atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(97, 80), (40, 90), (25, 31)])
def test_the_programs_show_a_classifier_what_the_model_is_shown(rule, size):
    picture = drawn_picture()[: size[0], : size[1]]
    found = {"picture": picture, "np": np}
    exec(seen_of({"image_size": 32, "central_fraction": 0.8, "resize": rule}), found)
    apart = np.abs(found["image"][0].astype(int) - View(32, 0.8, rule)(picture))
    assert apart.max() <= 1  # halves may be rounded the other way


# PyTorch


@pytest.fixture(scope="module")
def segmenting_program(pictures, tmp_path_factory):
    """(a PyTorch program, the model that it is of)."""
    needs("torch")
    fed = Preprocessing("blue first", (120.0, 125.0, 130.0), 1 / 127.5, "BGR")
    model = small_segmenter(atrous_rates=(2,), head_channels=16, preprocessing=fed)
    source = opened(levelled(model, pictures))
    return written(source, tmp_path_factory.mktemp("torch"), "torch"), source.predictor()


@pytest.fixture(scope="module")
def classifying_program(small_classifier, tmp_path_factory):
    needs("torch")
    return written(small_classifier, tmp_path_factory.mktemp("torch"), "torch"), small_classifier.predictor()


def test_a_torch_program_is_the_model_at_any_size_up_to_the_crop(segmenting_program, pictures):
    found, model = open_export(segmenting_program[0]), segmenting_program[1]
    for picture in pictures:
        assert (found.labels(picture) == model.labels(picture)).mean() >= 0.999
        np.testing.assert_allclose(found.probabilities(picture), model.probabilities(picture), atol=1e-4)
    three = found.labels_of([pictures[1]] * 3)
    assert len(three) == 3 and (three[2] == model.labels(pictures[1])).mean() >= 0.999
    with pytest.raises(ExportError, match=rf"up to {CROP}x{CROP} pixels, this one has 70x20"):
        found.labels(np.zeros((20, 70, 3), np.uint8))


def test_a_torch_program_classifies_what_is_seen_of_a_picture(classifying_program):
    path, model = classifying_program
    seen = [drawn_picture(), drawn_picture()[:40]]
    found = open_export(path, classifies=True).probabilities_of(seen)
    np.testing.assert_allclose(found, model.probabilities_of(seen), atol=1e-4)
    entry = json.loads((path.parent / "export.json").read_text())["formats"]["torch"]
    assert entry["inputs"] == {"images": [None, 32, 32, 3]}
    assert entry["left to do"].startswith("the central square of 87.5 %")


def test_torch_programs_run_with_torch_alone(segmenting_program, classifying_program, pictures):
    (segments, model), (classifies, classes) = segmenting_program, classifying_program
    said = run_programs("torch", [segments.parent, classifies.parent], pictures[1], [*OURS, "transformers"])
    assert "classes: [" in said
    assert equal_labels(segments.parent, model.labels(pictures[1])) >= 0.999
    assert CLASS_NAMES[classes.probabilities_of([pictures[1]])[0].argmax()] in said.splitlines()[-1]


# Hugging Face's transformers


@pytest.fixture(scope="module")
def transformers_segmenter(pictures, tmp_path_factory):
    """(the folder of the least mobile DeepLab for transformers, the model that it is of)."""
    needs("torch", "transformers")
    net = deeplab_v3("mobilenet_v2", num_classes=5, depth_multiplier=0.35, output_stride=16, **MOBILE_HEAD)
    source = opened(levelled(net, pictures))
    return written(source, tmp_path_factory.mktemp("segments"), "huggingface"), source.predictor()


@pytest.fixture(scope="module")
def transformers_classifier(small_classifier, tmp_path_factory):
    needs("torch", "transformers")
    return written(small_classifier, tmp_path_factory.mktemp("classifies"), "huggingface"), small_classifier.predictor()


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
    with pytest.raises(ExportError, match=f"huggingface: .* have no .*{said}.*leave it out of --formats"):
        list(export(opened(model), "m", tmp_path / "out", ("huggingface",), drawn_picture()))
    assert not (tmp_path / "out").exists()


def test_a_classifier_that_transformers_cannot_express_is_refused(tmp_path):
    refused = {
        "MobileNet v1 of output stride 16": classifier(
            mobilenet_v1(num_classes=5, depth_multiplier=0.25, output_stride=16)
        ),
        "without global pooling": classifier(mobilenet_v1(num_classes=5, depth_multiplier=0.25, global_pool=False)),
        "stretches the middle": classifier(mobilenet_v1(num_classes=5, depth_multiplier=0.25), "stretch"),
    }
    for said, source in refused.items():
        with pytest.raises(ExportError, match=said):
            list(export(source, "m", tmp_path / "out", ("huggingface",), drawn_picture()))


def test_transformers_segments_as_the_model_does(transformers_segmenter, pictures):
    found, model = open_export(transformers_segmenter[0]), transformers_segmenter[1]
    for picture in pictures:
        np.testing.assert_allclose(found.probabilities(picture), model.probabilities(picture), atol=1e-4)


def test_transformers_classifies_as_the_model_does(transformers_classifier, tmp_path):
    strided = classifier(mobilenet_v2(num_classes=5, depth_multiplier=0.35, output_stride=8))
    both = [transformers_classifier, (written(strided, tmp_path, "huggingface"), strided.predictor())]
    seen = [drawn_picture()]
    for path, model in both:
        found = open_export(path, classifies=True).probabilities_of(seen)
        np.testing.assert_allclose(found, model.probabilities_of(seen), atol=1e-4)


def test_what_transformers_opens_needs_nothing_of_this_project(
    transformers_segmenter, transformers_classifier, pictures
):
    (segments, model), (classifies, _) = transformers_segmenter, transformers_classifier
    said = run_programs("huggingface", [segments.parent, classifies.parent], pictures[1], OURS)
    assert equal_labels(segments.parent, model.labels(pictures[1])) >= 0.999
    assert any(name in said.splitlines()[-1] for name in CLASS_NAMES)


def test_weights_that_are_missing_refuse(transformers_segmenter, tmp_path):
    from safetensors.numpy import load, save

    folder = shutil.copytree(transformers_segmenter[0], tmp_path / "huggingface")
    path = folder / "model.safetensors"
    values = load(path.read_bytes())
    del values["segmentation_head.conv_aspp.convolution.weight"]
    path.write_bytes(save(values, {"format": "pt"}))
    with pytest.raises(ExportError, match="not all of its weights are the model's"):
        open_export(folder)


# PyTorch takes long to trace them: docs/serving.md says how they agree.
def test_published_networks_agree_on_a_real_picture(real_checkpoints, shared_data, tmp_path):
    needs("torch", "transformers")
    picture = read_image(shared_data / "VOC2012" / "JPEGImages" / "2007_003106.jpg")
    source = open_segmenter(real_checkpoints / "deeplabv3_mnv2_pascal_trainval.ckpt", Opening())
    found, model = open_export(written(source, tmp_path / "seg", "huggingface")), source.predictor()
    assert (found.labels(picture) == model.labels(picture)).mean() > 0.9999
    assert np.abs(found.probabilities(picture) - model.probabilities(picture)).max() < 1e-4
    source = open_classifier(real_checkpoints / "mobilenet_v2_1.0_224_8bit.ckpt", ClassifierOpening())
    found, model = open_export(written(source, tmp_path / "cls", "huggingface"), classifies=True), source.predictor()
    assert np.abs(found.probabilities_of([picture]) - model.probabilities_of([picture])).max() < 1e-4
