"""The size that pictures are padded to, from the flag to the labels: a square, their own size, and what costs."""

import numpy as np
import pytest

from data.images import read_image
from data.sample import draw_voc
from engine.kinds import OptionError
from engine.options import Looks, Opening, Run, SegmentationImages, SegmentationTraining
from exporting.export import export
from inference.opening import open_segmenter
from inference.runtimes import ExportError
from models.checkpoint import write_checkpoint
from tests.golden_networks import GoldenFile, picture
from training.segmentation import train_segmentation

ADVICE = "512 is no multiple of the output stride 16 plus one"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "model.ckpt-7"
    write_checkpoint(path, GoldenFile("official_mnv2").weights)
    return str(path)


@pytest.fixture(scope="module")
def of_their_own_size(checkpoint):
    return open_segmenter(checkpoint, Opening(crop_size="none"))


def test_values():
    assert [Opening(crop_size=size).crop_size for size in (None, "none", 513)] == [None, "none", 513]
    for wrong in (0, "all", 1.5):
        with pytest.raises(OptionError, match=r"crop_size must be .*, or none"):
            Opening(crop_size=wrong)


def test_pictures_keep_their_own_size(of_their_own_size):
    model, image = of_their_own_size.model, picture(90, 121)
    fed = np.ascontiguousarray(model.preprocessing(image.astype("float32")))[None]
    expected = np.asarray(model(fed, training=False))[0].argmax(-1)
    assert of_their_own_size.crop_size is None
    assert np.array_equal(of_their_own_size.predictor().labels(image), expected)


def test_what_costs_is_said_once_and_nothing_else(checkpoint, capsys):
    for how, advised in ((Opening(crop_size="none"), 0), (Opening(), 0), (Opening(crop_size=512), 1)):
        open_segmenter(checkpoint, how)
        assert capsys.readouterr().out.count(f"warning: --crop-size {ADVICE}") == advised
    open_segmenter(checkpoint, Opening(crop_size=512, upsampling="half-pixel"))
    assert capsys.readouterr().out == ""


def test_a_training_says_it_of_both_of_its_sizes(tmp_path, capsys):
    draw_voc(tmp_path, train=8, val=1)  # eight have all classes
    for size, advised in ((512, True), (513, False)):
        options = SegmentationTraining(
            images=SegmentationImages(train_set="train", crop_size=size, eval_size=size),
            run=Run(run_dir=str(tmp_path / "run"), dry_run=True),
        )
        train_segmentation(None, str(tmp_path), options, model="mobilenet_v2")
        said = capsys.readouterr().out
        assert all((f"warning: {flag} {ADVICE}" in said) == advised for flag in ("--crop-size", "--eval-size"))


def test_an_export_without_a_crop_size(of_their_own_size, tmp_path):
    for formats in (("tflite_float16",), ("saved_model", "tflite")):
        with pytest.raises(ExportError, match=f"--crop-size none: {formats[-1]} .* --crop-size N"):
            list(export(of_their_own_size, "model.ckpt-7", tmp_path, formats, picture(90, 121)))
    assert not list(tmp_path.iterdir())
    (outcome,) = export(of_their_own_size, "model.ckpt-7", tmp_path, ("saved_model",), picture(90, 121))
    assert outcome.good


def test_windows_of_a_picture_of_its_own_size_are_padded_as_it_is(shared_data, real_checkpoints):
    opened = open_segmenter(str(real_checkpoints / "deeplabv3_mnv2_pascal_trainval.ckpt"), Opening(crop_size="none"))
    image = read_image(shared_data / "VOC2012" / "JPEGImages" / "2007_001299.jpg")
    assert image.shape[0] % 16 != 1 and image.shape[1] % 16 != 1
    whole = opened.predictor().labels(image)
    assert len(np.unique(whole)) > 1
    by_windows = opened.predictor(Looks(window=257)).labels(image)
    assert (by_windows == whole).mean() > 0.985  # 0.93 where windows are a multiple of the stride plus one
