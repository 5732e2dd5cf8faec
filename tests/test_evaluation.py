"""Evaluation: whole images, padded and never resized, counted on the device as in NumPy."""

import keras
import numpy as np
import pytest

from engine.evaluation import ConfusionCounter, evaluate, evaluate_classifier, predicted
from engine.inference import ModelPredictor, padded_size
from engine.metrics import confusion_matrix
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
    """Random (image, mask) of given sizes, written where `evaluate` looks for their headers."""

    def __init__(self, folder, sizes):
        import cv2

        rng = np.random.default_rng(1)
        self.samples, self.image_paths = [], []
        for index, size in enumerate(sizes):
            image = rng.integers(0, 256, (*size, 3), np.uint8)
            mask = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), size)
            path = folder / f"{index}.png"
            cv2.imwrite(str(path), image[..., ::-1])
            self.samples.append((image, mask))
            self.image_paths.append(path)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((375, 500), (513, 513)), ((513, 513), (513, 513)), ((514, 100), (529, 513)), ((600, 800), (609, 801))],
)
def test_padded_size_is_the_crop_or_the_next_stride_multiple_plus_one(size, expected):
    assert padded_size(*size, 513, 16) == expected


@pytest.mark.parametrize("batch_size", [1, 2])
def test_equals_a_plain_loop_in_numpy(model, tmp_path, batch_size):
    images = Images(tmp_path, [(40, 60), (65, 65), (33, 50), (90, 40)])  # the last does not fit the crop
    expected, one_by_one = np.zeros((4, 4), np.int64), []
    for image, mask in images.samples:
        height, width = padded_size(*mask.shape, 65)
        padded = np.full((1, height, width, 3), 127.5, "f")
        padded[0, : mask.shape[0], : mask.shape[1]] = image
        labels = np.asarray(model(padded / 127.5 - 1, training=False)).argmax(-1)[0]
        cut = labels[: mask.shape[0], : mask.shape[1]]
        expected += confusion_matrix(mask, cut, 4)
        one_by_one.append(cut)
    assert expected.any(0).sum() > 1
    seen = []
    found = evaluate(model, images, crop_size=65, batch_size=batch_size, progress=seen.append)
    np.testing.assert_array_equal(found, expected)
    assert sum(seen) == 4
    predictor = ModelPredictor(model, "abcd", crop_size=65)
    for index, labels, mask in predicted(predictor, images, batch_size=batch_size):
        assert np.array_equal(labels, one_by_one[index])
        assert np.array_equal(mask, images[index][1])


def test_counter_ignores_255(model):
    images = np.zeros((1, 33, 33, 3), "f")
    counter = ConfusionCounter(model)
    assert np.asarray(counter.predict_on_batch((images, np.full((1, 33, 33), 255, "i4")))).sum() == 0
    assert np.asarray(counter.predict_on_batch((images, np.zeros((1, 33, 33), "i4")))).sum() == 33 * 33


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
