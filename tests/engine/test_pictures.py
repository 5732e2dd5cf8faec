"""Pictures: VOC's colours, aligned to the pixel, every class named."""

import cv2
import numpy as np
import pytest

from data.voc import VOC_CLASSES, palette
from engine.pictures import legend, overlay, overlay_with_legend, png, sheet


def test_overlay_is_aligned_to_the_pixel():
    image = np.full((40, 50, 3), 100, np.uint8)
    mask = np.zeros((40, 50), np.uint8)
    mask[7, :] = 15
    mask[:, 31] = 255
    painted = overlay(image, mask)
    changed = (painted != image).any(-1)
    assert np.array_equal(changed, mask == 15)  # background and ignored pixels stay
    expected = np.round(0.4 * 100 + 0.6 * palette()[15].astype(float))
    assert np.abs(painted[7, 0] - expected).max() <= 1


def test_class_0_is_painted_where_it_is_something_of_its_own():
    image, mask = np.full((20, 30, 3), 100, np.uint8), np.zeros((20, 30), np.uint8)
    assert np.array_equal(overlay(image, mask), image)
    assert (overlay(image, mask, paint_background=True) != image).all()
    own, vocs = (overlay_with_legend(image, mask, names)[:20, :30] for names in (("sky", "tree"), VOC_CLASSES))
    assert np.array_equal(own, overlay(image, mask, paint_background=True)) and np.array_equal(vocs, image)


def test_a_dark_colour_has_a_border_on_dark_ground_only():
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 10:20] = 4  # (0, 0, 128)
    on_dark = overlay(np.full((20, 30, 3), 10, np.uint8), mask)
    assert (on_dark[5, 10:20] > 200).all() and (on_dark[7, 12] < 100).all() and (on_dark[mask == 0] == 10).all()
    assert (overlay(np.full((20, 30, 3), 120, np.uint8), mask)[5, 12, :2] < 100).all()


def test_legend_shows_every_colour_and_breaks_lines():
    strip = legend(range(21), VOC_CLASSES, 400)
    colours = {tuple(colour) for colour in strip.reshape(-1, 3)}
    assert all(tuple(palette()[label]) in colours for label in range(21))
    assert strip.shape[1] == 400
    assert strip.shape[0] > legend([0], VOC_CLASSES, 400).shape[0]


def test_legend_is_wider_rather_than_cut():
    names = ("background", "a class with a name of many words")
    strip = legend([1], names, 40)
    assert strip.shape[1] > 200
    assert (strip[:, -6:] == 255).all()  # the text ends before the picture does
    assert (strip[:, -40:] != 255).any()


@pytest.mark.parametrize("size", [(20, 30), (375, 500), (1500, 2000)])
def test_overlay_with_legend_names_what_is_shown(size):
    image = np.full((*size, 3), 90, np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[3:9, 4:7], mask[11:15] = 15, 255
    picture = overlay_with_legend(image, mask, VOC_CLASSES)
    assert np.array_equal(picture[: size[0], : size[1]], overlay(image, mask))
    below = picture[size[0] :]
    assert (picture[: size[0], size[1] :] == 255).all()
    saturated = np.unique(below[np.ptp(below.astype(int), axis=-1) > 0], axis=0)
    assert saturated.tolist() == [palette()[15].tolist()]  # neither background nor ignored pixels nor another class
    squares = (below == palette()[15]).all(-1)
    assert squares.any(1).sum() >= max(13, size[0] // 60)  # larger on larger images


def test_only_background_is_said():
    picture = overlay_with_legend(np.full((20, 300, 3), 90, np.uint8), np.zeros((20, 300), np.uint8), VOC_CLASSES)
    assert np.array_equal(picture[20:], legend([0], VOC_CLASSES, 300))


def test_sheet_is_as_wide_as_its_legend():
    image, mask = np.zeros((30, 30, 3), np.uint8), np.ones((30, 30), np.uint8)
    names = ("background", "a class with a name of many more words than fit")
    assert sheet([(image, mask, mask)], names, tile=30).shape[1] > 3 * 36


def test_sheet_has_a_row_a_sample_and_reads_back():
    image = np.zeros((30, 60, 3), np.uint8)
    mask = np.zeros((30, 60), np.uint8)
    mask[5:20, 5:20] = 3
    picture = sheet([(image, mask, mask.astype(np.int64))] * 2, VOC_CLASSES, tile=60)
    assert picture.shape[1] == 3 * 66
    assert np.array_equal(cv2.imdecode(np.frombuffer(png(picture), np.uint8), cv2.IMREAD_COLOR_RGB), picture)
