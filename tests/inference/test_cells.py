"""Labels from small logits, cell by cell, are those of the largest logits at full size."""

import numpy as np
import pytest

from inference.cells import labels_from
from models.layers import UPSAMPLINGS, resize_bilinear


def at_full_size(small, padded, size, upsampling):
    """Logits (*size, classes), all of them interpolated."""
    return np.asarray(resize_bilinear(small[None], *padded, upsampling))[0, : size[0], : size[1]]


def smooth(rng, shape):
    """Logits of a map that is mostly of one piece, as a network gives them."""
    coarse = rng.normal(size=(3, 3, shape[-1])).astype(np.float32)
    return at_full_size(coarse, shape[:2], shape[:2], "half-pixel") + 0.05 * rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_every_label_is_of_the_largest_of_all_interpolated(upsampling):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        h, w, classes, height, width = (int(rng.integers(1, most)) for most in (12, 12, 30, 120, 120))
        size = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        draw = smooth if seed % 2 else np.random.Generator.standard_normal
        small = np.asarray(draw(rng, (h, w, classes)), np.float32)
        full = at_full_size(small, (height, width), size, upsampling)
        labels = labels_from(small, (height, width), size, upsampling)
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, full.argmax(-1)), seed


@pytest.mark.parametrize(("upsampling", "padded"), [("align-corners", (33, 65)), ("half-pixel", (36, 72))])
def test_of_equal_logits_the_first_counts_at_corners_and_in_between(upsampling, padded):
    for seed in range(20):  # whole numbers and weights of few bits: nothing is rounded, and much is equal
        small = np.random.default_rng(seed).integers(0, 3, (9, 9, 6)).astype(np.float32)
        full = at_full_size(small, padded, padded, upsampling)
        assert (np.sort(full, -1)[..., -1] == np.sort(full, -1)[..., -2]).mean() > 0.05
        assert np.array_equal(labels_from(small, padded, padded, upsampling), full.argmax(-1)), seed


def test_classes_that_rounding_makes_equal_between_two_points_are_told_apart_as_at_full_size():
    one = np.float32(1)
    below, above = np.nextafter(one, np.float32(0)), np.nextafter(one, np.float32(2))
    small = np.array([[[below, one], [one, above]]])  # the second class is larger at both, and not half way
    full = at_full_size(small, (1, 3), (1, 3), "align-corners")
    assert full.argmax(-1).tolist() == [[1, 0, 1]]
    assert labels_from(small, (1, 3), (1, 3), "align-corners").tolist() == [[1, 0, 1]]
