import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.images import DataError
from data.transforms import pad_to, random_resized_crop_flip, random_scale_crop_flip, resize_center_crop

MEAN = (123.68, 116.78, 103.94)


class Scripted:
    """A generator whose draws are known: the scale, the window's (top, left), and whether to flip."""

    def __init__(self, scale, corner, flip):
        self.scale, self.corner, self.flip = scale, iter(corner), flip

    def uniform(self, low, high):
        assert low <= self.scale <= high
        return self.scale

    def integers(self, high):
        value = next(self.corner)
        assert 0 <= value < high
        return value

    def random(self):
        return 0.25 if self.flip else 0.75


def picture(height, width, seed=0):
    """A smooth random image and a mask of 5 classes that is a function of it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image = cv2.normalize(cv2.GaussianBlur(pixels, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    return image, (image[..., 0] // 52).astype(np.uint8)


def assert_equal_but_for_rounding(image, expected):
    assert np.abs(image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_crop_equals_resizing_everything_and_then_cropping(scale, flip):
    image, mask = picture(120, 160)
    top, left, crop = 6, 10, 40
    out, out_mask = random_scale_crop_flip(image, mask, Scripted(scale, (top, left), flip), crop, MEAN)
    size = round(160 * scale), round(120 * scale)
    window = np.s_[int(top * scale) :, int(left * scale) :]
    expected = cv2.resize(image, size)[window][:crop, :crop]
    expected_mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)[window][:crop, :crop]
    if flip:
        expected, expected_mask = expected[:, ::-1], expected_mask[:, ::-1]
    assert np.array_equal(out_mask, expected_mask)
    # At the window's edge there is no neighbour to mix with: the outermost pixel may differ there, slightly.
    assert_equal_but_for_rounding(out[1:-1, 1:-1], expected[1:-1, 1:-1])
    assert np.abs(out.astype(int) - expected).max() < 16


@pytest.mark.parametrize("scale", [0.61, 0.8, 1.3, 1.9])
def test_image_and_mask_stay_aligned(scale):
    columns = np.tile(np.arange(32, dtype=np.uint8), (32, 1))
    image = np.repeat(8 * columns[..., None], 3, axis=2)
    out, mask = random_scale_crop_flip(image, columns, Scripted(scale, (0, 0), False), 64, MEAN)
    inside = mask != 255
    offset = out[..., 0][inside] / 8 - mask[inside]
    # OpenCV's plain nearest neighbour is off by a quarter of a pixel and more; a tie goes up or down by its version
    assert abs(offset.mean()) < 0.15
    assert np.abs(offset).max() <= 0.625  # half a pixel, and the rounding of the image's values


def test_small_image_is_padded_at_bottom_and_right():
    image, mask = picture(20, 30)
    out, out_mask = random_scale_crop_flip(image, mask, Scripted(1.0, (0, 0), False), 40, MEAN)
    assert np.array_equal(out[:20, :30], image) and np.array_equal(out_mask[:20, :30], mask)
    assert np.all(out[20:] == (124, 117, 104)) and np.all(out[:, 30:] == (124, 117, 104))
    assert np.all(out_mask[20:] == 255) and np.all(out_mask[:, 30:] == 255)


def test_small_image_is_scaled_before_it_is_padded():
    image, mask = picture(10, 16)
    out, out_mask = random_scale_crop_flip(image, mask, Scripted(1.5, (0, 0), True), 30, MEAN)
    inside = out_mask != 255
    assert inside[:15, -24:].all() and inside.sum() == 15 * 24
    assert_equal_but_for_rounding(out[:15, -24:][:, ::-1], cv2.resize(image, (24, 15)))


def test_the_thread_s_own_resizing_rounds_as_before():
    image, mask = picture(30, 30)
    expected = cv2.resize(image, (40, 40))
    random_scale_crop_flip(image, mask, np.random.default_rng(0), 40, MEAN)
    assert np.array_equal(cv2.resize(image, (40, 40)), expected)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    crop=st.integers(1, 70),
    seed=st.integers(0, 2**32),
    low=st.floats(0.1, 1),
    factor=st.floats(1, 8),
)
def test_any_size_gives_a_whole_crop_from_its_seed(shape, crop, seed, low, factor):
    image, mask = picture(*shape)
    results = [
        random_scale_crop_flip(image, mask, np.random.default_rng(seed), crop, MEAN, scale_range=(low, low * factor))
        for _ in range(2)
    ]
    for out, out_mask in results:
        assert out.shape == (crop, crop, 3) and out_mask.shape == (crop, crop)
        assert out.dtype == out_mask.dtype == np.uint8
        assert set(np.unique(out_mask)) <= {0, 1, 2, 3, 4, 255}
        assert np.all(out[out_mask == 255] == (124, 117, 104))
        assert (out_mask != 255).any()
    assert np.array_equal(results[0][0], results[1][0]) and np.array_equal(results[0][1], results[1][1])


def test_draws_cover_scales_places_and_flips():
    ramp = np.tile(np.arange(100, dtype=np.uint8), (100, 1))
    image = np.repeat(ramp[..., None], 3, axis=2)
    outs = [random_scale_crop_flip(image, ramp, np.random.default_rng(seed), 32, MEAN)[1] for seed in range(200)]
    steps = np.array([(int(out[0, -1]) - int(out[0, 0])) / 31 for out in outs])
    assert 0.35 < (steps < 0).mean() < 0.65
    scales = 1 / np.abs(steps)
    assert scales.min() < 0.6 and scales.max() > 1.8 and 1.1 < scales.mean() < 1.4  # uniform in the scale
    corners = [min(out[0, 0], out[0, -1]) for out in outs]
    assert min(corners) < 5 and max(corners) > 75
    other = random_scale_crop_flip(image, ramp, np.random.default_rng(0), 32, MEAN, scale_range=(3, 3))[1]
    assert np.ptp(other[0].astype(int)) in (9, 10, 11)


def test_arguments_are_not_written_to():
    image, mask = picture(50, 50)
    image.flags.writeable = mask.flags.writeable = False
    for seed in range(20):
        random_scale_crop_flip(image, mask, np.random.default_rng(seed), 40, MEAN)
        random_resized_crop_flip(image, np.random.default_rng(seed), 20)
    resize_center_crop(image, 20)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pad_to_pads_at_bottom_and_right(dtype):
    image, mask = picture(5, 7)
    image = image.astype(dtype)
    out, out_mask = pad_to(image, mask, 9, 8, MEAN)
    assert out.dtype == dtype and out.shape == (9, 8, 3) and out_mask.shape == (9, 8)
    assert np.array_equal(out[:5, :7], image) and np.array_equal(out_mask[:5, :7], mask)
    mean = np.array(MEAN, np.float32) if dtype == np.float32 else np.array([124, 117, 104])
    assert np.all(out[5:] == mean) and np.all(out[:, 7:] == mean)
    assert np.all(out_mask[5:] == 255) and np.all(out_mask[:, 7:] == 255)


def test_pad_to_takes_no_mask_and_leaves_what_fits():
    image, mask = picture(5, 7)
    assert pad_to(image, None, 6, 7, MEAN)[1] is None
    out, out_mask = pad_to(image, mask, 5, 7, MEAN)
    assert np.array_equal(out, image) and np.array_equal(out_mask, mask)


@pytest.mark.parametrize(("height", "width"), [(4, 7), (5, 6)])
def test_pad_to_refuses_a_larger_image(height, width):
    with pytest.raises(DataError, match=rf"7x5 pixels .* does not fit {width}x{height}"):
        pad_to(*picture(5, 7), height, width, MEAN)


def test_center_crop_takes_the_middle():
    image = np.zeros((100, 200, 3), np.uint8)
    image[10:90, 60:140] = 255
    assert np.all(resize_center_crop(image, 40, fraction=0.8) == 255)
    assert resize_center_crop(image, 40, fraction=0.9).min() == 0
    assert resize_center_crop(image, 40).shape == (40, 40, 3)


def test_shrinking_averages_and_enlarging_interpolates():
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    image = np.repeat(checks[..., None].astype(np.uint8), 3, axis=2)
    assert np.abs(resize_center_crop(image, 16, fraction=1).astype(int) - 128).max() <= 1
    assert len(np.unique(resize_center_crop(image[:4, :4], 32, fraction=1))) > 10


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), size=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_classification_crops_have_the_size_asked_for(height, width, size, seed):
    image, _ = picture(height, width)
    first, second = (random_resized_crop_flip(image, np.random.default_rng(seed), size) for _ in range(2))
    assert first.shape == resize_center_crop(image, size).shape == (size, size, 3)
    assert first.dtype == np.uint8 and np.array_equal(first, second)


def test_random_resized_crops_keep_to_area_and_ratio():
    rows, columns = np.indices((200, 200)).astype(np.uint8)
    image = np.stack([rows, columns, rows], axis=2)
    areas, ratios, flips = [], [], []
    for seed in range(200):
        crop = random_resized_crop_flip(image, np.random.default_rng(seed), 50, area=(0.2, 0.5)).astype(int)
        height, width = crop[-1, 0, 0] - crop[0, 0, 0], crop[0, -1, 1] - crop[0, 0, 1]
        flips.append(width < 0)
        areas.append(height * abs(width) * (50 / 49) ** 2 / 200**2)  # from centre to centre is 49 of 50 pixels
        ratios.append(abs(width) / height)
    assert 0.35 < np.mean(flips) < 0.65
    assert 0.18 < min(areas) < 0.23 and 0.46 < max(areas) < 0.52
    assert 0.70 < min(ratios) < 0.80 and 1.25 < max(ratios) < 1.40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i, m, r: random_scale_crop_flip(i, m, r, 0, MEAN), "crop size must be at least 1 pixel. Received: 0"),
        (lambda i, m, r: random_scale_crop_flip(i, m, r, 9, MEAN, scale_range=(2, 1)), "scale range .* Received: 2, 1"),
        (lambda i, m, r: random_scale_crop_flip(i, m, r, 9, MEAN, scale_range=(0, 1)), "scale range"),
        (lambda i, m, r: random_scale_crop_flip(i, m, r, 9, MEAN, scale_range=(1, float("inf"))), "scale range"),
        (lambda i, m, r: random_scale_crop_flip(i, m, r, 9, MEAN, scale_range=(float("nan"), 1)), "scale range"),
        (lambda i, m, r: random_resized_crop_flip(i, r, 0), "size must be at least 1"),
        (
            lambda i, m, r: random_resized_crop_flip(i, r, 9, area=(0.5, 1.5)),
            "area must be .* <= 1. Received: 0.5, 1.5",
        ),
        (lambda i, m, r: random_resized_crop_flip(i, r, 9, ratio=(0, 1)), "ratio"),
        (lambda i, m, r: resize_center_crop(i, -3), "size"),
        (lambda i, m, r: resize_center_crop(i, 9, fraction=1.1), "fraction"),
    ],
)
def test_impossible_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(*picture(20, 20), np.random.default_rng(0))
    assert isinstance(caught.value, DataError)
