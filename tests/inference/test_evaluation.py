"""Evaluation: whole images, padded and never resized, counted on the device as in NumPy; what is kept of each."""

import gc
import tracemalloc
import weakref

import keras
import numpy as np
import pytest
from PIL import Image

from data.sample import draw_voc
from data.voc import VOCSegmentation
from inference.evaluation import (
    ConfusionCounter,
    ConfusionTotal,
    ImageProgress,
    PredictionWriter,
    WorstImages,
    evaluate,
    evaluate_classifier,
    feed,
    predicted,
    worst_sheet,
)
from inference.metrics import confusion_matrix, scores
from inference.predictor import ModelPredictor, padded_size
from models.deeplab_v3 import DeepLabV3
from models.resnet import Bottleneck, ResNet


@pytest.fixture(scope="module")
def model():
    """DeepLab v3 of four classes on a tiny backbone; random logits, so that every class is predicted somewhere."""
    keras.utils.set_random_seed(0)
    with keras.name_scope("deeplab_v3"):
        backbone = ResNet("resnet_v2_50", Bottleneck, (1, 1, 1, 1), output_stride=16, width=8)
        backbone.build()
    model = DeepLabV3(backbone, 4)
    model.build()
    logits = model.logits.layers[0]
    rng = np.random.default_rng(0)
    logits.kernel.assign(rng.normal(size=logits.kernel.shape))
    logits.bias.assign(-np.asarray(model(rng.uniform(-1, 1, (2, 65, 65, 3)), training=False)).mean((0, 1, 2)))
    return model


class Images:
    """Random (image, mask) of given sizes."""

    def __init__(self, sizes):
        rng = np.random.default_rng(1)
        self.samples = []
        for size in sizes:
            image = rng.integers(0, 256, (*size, 3), np.uint8)
            mask = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), size)
            self.samples.append((image, mask))

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    def image_size(self, index):
        return self.samples[index][0].shape[:2]


@pytest.mark.parametrize("crop_size", [65, None])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_equals_a_plain_loop_in_numpy(model, tmp_path, batch_size, crop_size):
    images = Images([(40, 60), (65, 65), (33, 50), (90, 40)])  # the last does not fit the crop
    expected, one_by_one = np.zeros((4, 4), np.int64), []
    for image, mask in images.samples:
        height, width = padded_size(*mask.shape, crop_size)
        padded = np.full((1, height, width, 3), 127.5, "f")
        padded[0, : mask.shape[0], : mask.shape[1]] = image
        labels = np.asarray(model(padded / 127.5 - 1, training=False)).argmax(-1)[0]
        cut = labels[: mask.shape[0], : mask.shape[1]]
        expected += confusion_matrix(mask, cut, 4)
        one_by_one.append(cut)
    assert expected.any(0).sum() > 1
    seen = []
    found = evaluate(model, images, crop_size=crop_size, batch_size=batch_size, progress=seen.append)
    np.testing.assert_array_equal(found, expected)
    assert sum(seen) == 4
    predictor = ModelPredictor(model, "abcd", crop_size=crop_size)
    for index, labels, mask in predicted(predictor, images, batch_size=batch_size):
        assert np.array_equal(labels, one_by_one[index])
        assert np.array_equal(mask, images[index][1])


def test_counter_ignores_255(model):
    images = np.zeros((1, 33, 33, 3), "f")
    counter = ConfusionCounter(model)
    assert np.asarray(counter.predict_on_batch((images, np.full((1, 33, 33), 255, "i4")))).sum() == 0
    assert np.asarray(counter.predict_on_batch((images, np.zeros((1, 33, 33), "i4")))).sum() == 33 * 33


class Brightness:
    """A predictor without a network: the class is how bright the red is, and each array that it gave is known."""

    num_classes = 5

    def __init__(self):
        self.given = []

    def padded_size(self, height, width):
        return 128, 128

    def labels_of(self, images):
        labels = [image[..., 0] // 52 for image in images]
        self.given += map(weakref.ref, labels)
        return labels


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    draw_voc(root, train=1, val=60)
    return VOCSegmentation(root, "val")


def test_consumers_equal_a_loop_over_the_images(voc, tmp_path):
    total, worst = ConfusionTotal(5), WorstImages(5, 4)
    feed([total, worst, PredictionWriter(tmp_path / "out", voc.names)], Brightness(), voc, batch_size=7)
    expected, scored = np.zeros((5, 5), np.int64), []
    for index, (image, mask) in enumerate(voc):
        matrix = confusion_matrix(mask, image[..., 0] // 52, 5)
        expected += matrix
        scored.append((scores(matrix)["miou"], index))
        with Image.open(tmp_path / "out" / f"{voc.names[index]}.png") as written:
            assert np.array_equal(written, image[..., 0] // 52)
    np.testing.assert_array_equal(total.matrix, expected)
    assert [(miou, index) for miou, index, _ in worst.found] == sorted(scored)[:4]
    for _, index, labels in worst.found:
        assert np.array_equal(labels, voc[index][0][..., 0] // 52)
    picture = worst_sheet(worst, voc, voc.class_names)
    assert picture.shape[1] == 3 * 246


def test_an_image_that_is_ignored_as_a_whole_is_not_among_the_worst():
    worst = WorstImages(3, 2)
    labels = np.zeros((4, 4), np.uint8)
    for index, mask in enumerate((np.full((4, 4), 255, np.uint8), labels, labels + 1, labels)):
        worst.add(index, labels, mask)
    assert [(miou, index) for miou, index, _ in worst.found] == [(0.0, 2), (1.0, 1)]


def test_memory_does_not_grow_with_the_number_of_images(voc):
    """The most that is held at once, over a few images and over many: of NumPy's arrays, which tracemalloc sees."""

    class First:
        def __init__(self, count):
            self.names, self.image_size = voc.names[:count], voc.image_size

        def __len__(self):
            return len(self.names)

        def __getitem__(self, index):
            return voc[index]

    def peak(count):
        predictor, alive = Brightness(), []

        class Watch:
            def add(self, index, labels, mask):
                alive.append(sum(reference() is not None for reference in predictor.given))

        gc.collect()
        tracemalloc.start()
        try:
            feed([ConfusionTotal(5), WorstImages(5, 3), Watch()], predictor, First(count), workers=2)
            return tracemalloc.get_traced_memory()[1], max(alive)
        finally:
            tracemalloc.stop()

    peak(5)  # what is set up once
    few, many = peak(15), peak(60)
    assert many[0] < few[0] + 100_000  # bytes; one image and its mask are 50,000
    assert few[1] <= 6  # predictions: the worst, one that comes, one that goes
    assert many[1] <= 6


def test_progress_in_a_log_says_images_a_second_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr(ImageProgress, "SECONDS", 0)
    with ImageProgress(4) as progress:
        progress.advance()
        progress.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1/4 images, ")
    assert lines[0].endswith("left")
    assert "images/s" in lines[0]
    assert lines[-1].startswith("2 images in ")
    assert len(lines) == 3


def test_classifier_scores_equal_keras():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(7, 5)).astype("f"), rng.integers(0, 5, 7)

    class Model:
        def predict_on_batch(self, images):
            return images

    batches = [(logits[:4], labels[:4]), (logits[4:], labels[4:])]
    found = evaluate_classifier(Model(), batches)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    assert found["val_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert found["val_accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
