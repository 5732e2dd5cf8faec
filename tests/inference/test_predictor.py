"""From an image to labels: averages equal plain loops, windows equal the whole image away from their borders."""

import itertools

import cv2
import keras
import numpy as np
import pytest

from inference.predictor import ModelPredictor, fed_to, mean_probabilities, padded_size, windows_over
from models.deeplab_v3 import DeepLabV3
from models.layers import UPSAMPLINGS
from models.resnet import Bottleneck, ResNet
from models.weight_init import named_variables
from tests.networks import randomize


def tiny(**options):
    """DeepLab v3 of four classes on a tiny backbone, with weights at which every class is predicted somewhere."""
    with keras.name_scope("deeplab_v3"):
        backbone = ResNet("resnet_v2_50", Bottleneck, (1, 1, 1, 1), output_stride=16, width=8)
        backbone.build()
    model = DeepLabV3(backbone, 4, atrous_rates=(), **options)
    model.build()
    randomize(named_variables(model))
    logits = model.logits.layers[0]
    logits.kernel.assign(10 * logits.kernel)
    image = image_of(65, 65)[None] / 127.5 - 1
    logits.bias.assign(logits.bias - np.asarray(model.small_logits(image)).mean((0, 1, 2)))
    return model


@pytest.fixture(scope="module")
def model():
    return tiny()


def image_of(height, width, seed=0):
    """uint8 RGB (height, width, 3): smooth random colours."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def aligned_resize(x, height, width):
    """float64 (h, w, C) → (height, width, C), bilinear with the corners aligned, by NumPy's own interpolation."""
    for axis, size in enumerate((height, width)):
        points = np.arange(x.shape[axis])
        weights = [np.interp(np.linspace(0, points[-1], size), points, points == point) for point in points]
        x = np.moveaxis(np.tensordot(weights, x, (0, axis)), 0, axis)
    return x


def plain_probabilities(model, image, crop_size, scales=(1.0,), flip=False):
    """The mean of single predictions, in NumPy: (H, W, classes)."""
    height, width = image.shape[:2]
    size = padded_size(height, width, crop_size, model.output_stride)
    padded = np.full((*size, 3), 127.5)
    padded[:height, :width] = image
    found = []
    for scale in scales:
        seen = aligned_resize(padded, *(round((side - 1) * scale) + 1 for side in size)) / 127.5 - 1
        for turned in (False, True) if flip else (False,):
            fed = seen[:, ::-1] if turned else seen
            logits = np.asarray(model.small_logits(fed[None].astype("f")), np.float64)[0]
            logits = aligned_resize(logits, *size)
            share = np.exp(logits - logits.max(-1, keepdims=True))
            share /= share.sum(-1, keepdims=True)
            found.append(share[:, ::-1] if turned else share)
    return np.mean(found, axis=0)[:height, :width]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((375, 500), (513, 513)), ((513, 513), (513, 513)), ((514, 100), (529, 513)), ((600, 800), (609, 801))],
)
def test_padded_size_is_the_crop_or_the_next_stride_multiple_plus_one(size, expected):
    assert padded_size(*size, 513, 16) == expected


def test_averages_equal_a_loop_over_single_predictions(model):
    image, options = image_of(60, 50), {"scales": (0.5, 1.25), "flip": True}
    expected = plain_probabilities(model, image, 65, **options)
    predictor = ModelPredictor(model, "abcd", crop_size=65, **options)
    np.testing.assert_allclose(predictor.probabilities(image), expected, atol=1e-5)
    labels = predictor.labels(image)
    assert len(np.unique(labels)) > 1
    sure = np.diff(np.sort(expected, axis=-1))[..., -1] > 1e-4
    assert np.array_equal(labels[sure], expected.argmax(-1)[sure])
    for less in {"scales": (0.5,), "flip": True}, {"scales": (0.5, 1.25)}:  # each prediction has a share in it
        assert np.abs(expected - plain_probabilities(model, image, 65, **less)).max() > 1e-3


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_one_graph_serves_images_of_many_sizes(upsampling):
    model = tiny(upsampling=upsampling)
    predictor = ModelPredictor(model, "abcd", crop_size=33, scales=(0.5,))
    traced = []
    for number, size in enumerate([(30, 20), (40, 60), (60, 50)]):
        image = image_of(*size, seed=number)
        found = predictor.probabilities(image)
        traced.append(predictor._probabilities.predict_function.experimental_get_tracing_count())
        eager = mean_probabilities(model, fed_to(model, image, padded_size(*size, 33))[None], scales=(0.5,))[0]
        np.testing.assert_allclose(found, np.asarray(eager)[: size[0], : size[1]], atol=1e-5)
    assert traced[-1] == traced[1]


def test_labels_of_a_batch_equal_those_of_single_images(model):
    images = [image_of(60, 50, 1), image_of(33, 64, 2)]
    predictor = ModelPredictor(model, "abcd", crop_size=65)
    for image, labels in zip(images, predictor.labels_of(images), strict=True):
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, predictor.labels(image))


@pytest.mark.parametrize("side", [1, 40, 64, 65, 66, 80, 129, 130, 1000, 1009])
def test_windows_give_each_feature_once_and_from_where_it_would_be(side):
    windows = windows_over(side, 65, 16)
    given = []
    for window in windows:
        assert window.seen.start % 16 == 0
        pixels = min(window.seen.stop, side) - window.seen.start
        kept, inner = (range(part.start, part.stop) for part in (window.kept, window.inner))
        assert [16 * index for index in kept] == [window.seen.start + 16 * index for index in inner]
        assert inner.start >= 0
        assert inner.stop <= -(-pixels // 16)
        given += kept
    assert given == list(range(-(-side // 16)))
    for before, after in itertools.pairwise(windows):  # a third of the window is shared, and cut in the middle
        assert before.seen.stop - after.seen.start > 16
        assert abs(before.seen.stop + after.seen.start - 1 - 32 * after.kept.start) <= 32


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ({}, {}),
        ({}, {"scales": (0.5, 1.0), "flip": True}),
        ({"decoder": "separable", "low_level": "block1/unit_1/bottleneck_v2/conv1"}, {}),
    ],
)
def test_sliding_window_equals_the_whole_image_away_from_window_borders(head, options):
    model = tiny(**head)
    image = image_of(257, 417)
    whole = ModelPredictor(model, "abcd", crop_size=257, **options).probabilities(image)
    predictor = ModelPredictor(model, "abcd", crop_size=257, window=257, **options)
    first, second = windows_over(417, 257, 16)
    slid = predictor.probabilities(image)
    np.testing.assert_allclose(slid.sum(-1), 1, atol=1e-5)
    assert np.array_equal(predictor.labels(image), slid.argmax(-1))
    assert (first.seen.stop, second.seen.start) == (257, 160)
    off = np.abs(slid - whole).max((0, 2))
    border = 16 * second.kept.start
    away = np.abs(np.arange(417) - border) > 48
    assert off[away].max() < 0.005  # not 0: through the image pooling the borders reach everywhere, thinned out
    assert off[~away].max() > 0.02  # so that the line above says something


@pytest.mark.parametrize("decoder", [None, "separable", "plain"])
def test_a_single_window_is_the_whole_image(decoder):
    model = tiny(decoder=decoder, low_level="block1/unit_1/bottleneck_v2/conv1")
    image = image_of(60, 50)
    whole = ModelPredictor(model, "abcd", crop_size=65).probabilities(image)
    predictor = ModelPredictor(model, "abcd", crop_size=65, window=65)
    fed = fed_to(model, image, (65, 65))
    windows = predictor._logits_by_windows(fed, 1.0, False)
    np.testing.assert_allclose(windows, model.small_logits(fed[None])[0], atol=1e-4)
    upsampled = np.concatenate(list(predictor._slide(image)))  # not asked of `probabilities`: the image fits a window
    np.testing.assert_allclose(upsampled, whole, atol=1e-5)


def test_sliding_window_feeds_the_backbone_no_more_than_a_window(model, monkeypatch):
    predictor = ModelPredictor(model, "abcd", crop_size=33, window=60)
    fed = []
    predict = predictor._features.predict_on_batch
    monkeypatch.setattr(predictor._features, "predict_on_batch", lambda x: fed.append(x.shape) or predict(x))
    assert predictor.labels(image_of(90, 200)).shape == (90, 200)
    assert set(fed) == {(1, 65, 65, 3)}  # the window, on the stride's grid
    assert len(fed) > 4


def test_large_pictures_are_predicted_without_constants(monkeypatch):
    model, image = tiny(), image_of(60, 50)
    frozen = ModelPredictor(model, "abcd", crop_size=65, frozen=True)
    monkeypatch.setattr("inference.predictor.LARGE", 0)
    monkeypatch.setattr(frozen, "_whole", None)
    live = ModelPredictor(model, "abcd", crop_size=65)
    assert np.array_equal(frozen.labels(image), live.labels(image))
    assert np.array_equal(frozen.probabilities(image), live.probabilities(image))


def test_frozen_predicts_the_same_and_keeps_its_weights():
    model = tiny()
    image = image_of(60, 50)
    live, frozen = (ModelPredictor(model, "abcd", crop_size=65, frozen=frozen) for frozen in (False, True))
    before = live.probabilities(image)
    np.testing.assert_allclose(frozen.probabilities(image), before, atol=1e-5)
    model.logits.layers[0].bias.assign_add([0, 0, 0, 5])
    assert np.abs(live.probabilities(image) - before).max() > 0.1
    np.testing.assert_allclose(frozen.probabilities(image), before, atol=1e-5)
