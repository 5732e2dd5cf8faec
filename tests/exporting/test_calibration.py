"""Pictures to calibrate on: no class is forgotten, as long as there are pictures."""

import numpy as np
import pytest

from data.sample import draw_voc
from engine.options import Exporting
from errors import UserError
from exporting.calibration import calibration_of, spread_over_classes


def mask(*labels):
    return np.array([[0, 255, *labels]], np.uint8)


def test_rare_classes_have_their_turn():
    masks = [*[mask(1)] * 50, mask(2), mask(3, 1), mask()]
    chosen = spread_over_classes(masks, 4)
    assert {50, 51, 52} <= set(chosen) and len(set(chosen)) == 4
    assert sorted(spread_over_classes(masks, 99)) == list(range(53))


def test_pictures_of_other_classes_are_refused(tmp_path):
    draw_voc(tmp_path, train=2, val=1)
    with pytest.raises(UserError, match=r"its classes are background, .* the model's cat, dog; name a folder"):
        calibration_of(Exporting(), str(tmp_path), ("cat", "dog"))
