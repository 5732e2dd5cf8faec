"""The band around boundaries: distances against brute force, bands that nest, real masks."""

import numpy as np
import pytest

from data.voc import read_mask
from inference.boundary import WIDTHS, TrimapCounter, boundary_distance
from inference.metrics import confusion_matrix


def random_mask(seed, border):
    """uint8 (24, 30): blocks of three classes; with `border`, some pixels of 255."""
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.integers(0, 3, (4, 5)), np.ones((6, 6))).astype(np.uint8)
    mask[rng.random(mask.shape) < 0.02 * border] = 255
    return mask


def plain_distance(mask):
    """Pixel by pixel: to the nearest 255, or without any, to the nearest pixel of another class."""
    points = np.argwhere(np.ones_like(mask))
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    flat = mask.ravel()
    ends = np.broadcast_to(flat == 255, apart.shape) if (flat == 255).any() else flat[:, None] != flat
    return np.where(ends, apart, np.inf).min(1).reshape(mask.shape)


@pytest.mark.parametrize("border", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_distance_is_that_to_the_nearest_ignored_pixel_or_else_to_another_class(seed, border):
    mask = random_mask(seed, border)
    assert (mask == 255).any() == border
    valid = mask != 255
    np.testing.assert_allclose(boundary_distance(mask)[valid], plain_distance(mask)[valid], atol=1e-4)


def test_a_mask_without_boundary_is_in_no_band():
    mask = np.zeros((8, 9), np.uint8)
    assert np.isinf(boundary_distance(mask)).all()
    counter = TrimapCounter(3)
    counter.add(0, mask, mask)
    assert counter.matrices.sum() == 0


def test_matrices_count_the_pixels_within_each_width():
    counter = TrimapCounter(3, widths=(1, 3, 8))
    expected = np.zeros((3, 3, 3), np.int64)
    for seed in range(4):
        mask = random_mask(seed, border=seed < 2)
        labels = random_mask(seed + 10, border=False)
        counter.add(seed, labels, mask)
        distance = plain_distance(mask)
        for number, width in enumerate(counter.widths):
            within = (distance <= width + 1e-6) & (mask != 255)
            expected[number] += confusion_matrix(mask[within], labels[within], 3)
    assert expected[0].sum() < expected[1].sum() < expected[2].sum()
    np.testing.assert_array_equal(counter.matrices, expected)


def test_width_one_of_two_halves_is_a_column_on_either_side():
    mask = np.zeros((5, 10), np.uint8)
    mask[:, 5:] = 1
    counter = TrimapCounter(2, widths=(1, 2))
    counter.add(0, np.zeros_like(mask), mask)
    assert counter.matrices.tolist() == [[[5, 0], [5, 0]], [[10, 0], [10, 0]]]


def test_real_mask(shared_data):
    folder = shared_data / "VOC2012" / "SegmentationClass"
    mask = read_mask(min(folder.glob("*.png")), 21)
    counter = TrimapCounter(21)
    counter.add(0, np.where(mask == 255, 0, mask), mask)
    pixels = counter.matrices.sum((1, 2))
    assert len(pixels) == len(WIDTHS)
    assert (np.diff(pixels) > 0).all()
    assert pixels[-1] <= (mask != 255).sum()
    by_dilation = (plain_dilation(mask == 255, WIDTHS[1]) & (mask != 255)).sum()
    assert pixels[1] == by_dilation


def plain_dilation(there, radius):
    """Within `radius` pixels of where it is: shifted over itself."""
    steps = np.arange(-radius, radius + 1)
    shifts = [(y, x) for y in steps for x in steps if y * y + x * x <= radius * radius]
    padded = np.pad(there, radius)
    return np.any([np.roll(padded, shift, (0, 1)) for shift in shifts], axis=0)[radius:-radius, radius:-radius]
