"""Preprocessings: mean, scale, order of channels, and how they are written down and changed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from models.preprocessing import (
    CAFFE_MEAN_SUBTRACTED,
    DEEPLAB_MEAN_SUBTRACTED,
    MEAN_SUBTRACTED,
    PREPROCESSINGS,
    UNIT_RANGE,
    Preprocessing,
    preprocessing_of,
)

PIXEL = np.array([[[255, 127.5, 0]]], "float32")


def test_pixels_become_what_each_network_is_fed():
    np.testing.assert_allclose(UNIT_RANGE(PIXEL), [[[1, 0, -1]]], atol=1e-6)
    np.testing.assert_allclose(MEAN_SUBTRACTED(PIXEL), [[[131.32, 10.72, -103.94]]], atol=1e-4)
    np.testing.assert_allclose(DEEPLAB_MEAN_SUBTRACTED(PIXEL), [[[131.85, 11.6, -103.06]]], atol=1e-4)
    np.testing.assert_allclose(CAFFE_MEAN_SUBTRACTED(PIXEL), [[[-104.00699, 10.83123, 132.32109]]], atol=1e-4)


@pytest.mark.parametrize("key", PREPROCESSINGS)
def test_the_mean_pixel_which_padding_is_made_of_becomes_zero(key):
    mean = np.asarray(PREPROCESSINGS[key].mean, "float32")[None, None]
    np.testing.assert_allclose(PREPROCESSINGS[key](mean), np.zeros((1, 1, 3)), atol=1e-6)


@pytest.mark.parametrize("fed", [*PREPROCESSINGS.values(), Preprocessing("mine", (1.0, 2.0, 3.0), 0.5, "BGR")])
def test_what_json_holds_of_it_gives_it_back(fed):
    assert preprocessing_of(json.loads(json.dumps(fed.to_config()))) == fed
    assert preprocessing_of(fed) is fed


def test_mean_and_order_can_be_said_otherwise():
    changed = preprocessing_of("mean-subtracted", mean=(1, 2, 3), bgr=True)
    assert (changed.mean, changed.scale, changed.order) == ((1, 2, 3), 1.0, "BGR")
    assert str(changed) == changed.name == "BGR minus (1.00, 2.00, 3.00)"
    assert str(preprocessing_of("unit-range", bgr=True)) == "BGR minus (127.50, 127.50, 127.50), times 1/127.5"
    assert preprocessing_of("caffe-mean-subtracted", bgr=False).order == "RGB"
    assert preprocessing_of("mean-subtracted", mean=MEAN_SUBTRACTED.mean, bgr=False) is MEAN_SUBTRACTED


def test_others_are_refused():
    with pytest.raises(ValueError, match=r"unknown preprocessing\. Received: 'vgg'; there are unit-range, "):
        preprocessing_of("vgg")
    with pytest.raises(ValueError, match="Received: 'GBR'"):
        replace(UNIT_RANGE, order="GBR")
