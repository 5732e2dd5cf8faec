"""What a classifier sees of a picture is what slim's code, or its published figures, have it see."""

import numpy as np
import pytest
from PIL import Image

from data.transforms import resize_center_crop
from data.views import View

SIZES = [(40, 60), (75, 50), (33, 21), (5, 90), (1, 1)]


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_shorter_side_is_the_middle_of_the_resized_picture(size):
    image = picture(*size)
    factor = 37 / min(size)  # 32 of 37 pixels are 87.5 %
    height, width = (round(side * factor) for side in size)
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    top, left = (height - 32) // 2, (width - 32) // 2
    found = View(32, 0.875, "shorter-side")(image)
    assert found.shape == (32, 32, 3) and found.dtype == np.uint8
    assert np.abs(found - resized[top : top + 32, left : left + 32]).max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_stretch_is_slims_inception_preprocessing(size):
    import tensorflow as tf

    image = picture(*size)
    cropped = tf.image.central_crop(tf.constant(image, tf.float32), 0.875)
    expected = tf.compat.v1.image.resize_bilinear(cropped[None], (32, 32), align_corners=False)[0].numpy()
    assert np.abs(View(32, 0.875, "stretch")(image) - expected).max() <= 0.501


def test_square_is_what_a_training_validates_on():
    np.testing.assert_array_equal(View(32)(picture(75, 50)), resize_center_crop(picture(75, 50), 32))


def test_a_thin_picture_costs_no_more_than_another():
    assert View(224, 0.875, "shorter-side")(picture(1, 60_000)).shape == (224, 224, 3)


def test_it_says_what_it_does():
    assert str(View(224, 0.875, "shorter-side")) == "resized to a shorter side of 256, of which the central 224x224"
    assert "87.5 % of the shorter side" in str(View())
    assert "whatever their shape" in str(View(rule="stretch"))
