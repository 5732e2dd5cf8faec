"""Pictures: VOC's colours, aligned to the pixel, every class named."""

import cv2
import numpy as np

from data.voc import VOC_CLASSES, palette
from engine.pictures import legend, overlay, png, sheet


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


def test_legend_shows_every_colour_and_breaks_lines():
    strip = legend(range(21), VOC_CLASSES, 400)
    colours = {tuple(colour) for colour in strip.reshape(-1, 3)}
    assert all(tuple(palette()[label]) in colours for label in range(21))
    assert strip.shape[1] == 400
    assert strip.shape[0] > legend([0], VOC_CLASSES, 400).shape[0]


def test_sheet_has_a_row_a_sample_and_reads_back():
    image = np.zeros((30, 60, 3), np.uint8)
    mask = np.zeros((30, 60), np.uint8)
    mask[5:20, 5:20] = 3
    picture = sheet([(image, mask, mask.astype(np.int64))] * 2, VOC_CLASSES, tile=60)
    assert picture.shape[1] == 3 * 66
    assert np.array_equal(cv2.imdecode(np.frombuffer(png(picture), np.uint8), cv2.IMREAD_COLOR_RGB), picture)
