"""Pictures to calibrate on: no class is forgotten, as long as there are pictures."""

import pytest

from data.sample import draw_voc
from engine.options import Exporting
from errors import UserError
from exporting.calibration import calibration_of, spread_over_classes


def test_rare_classes_have_their_turn():
    shown = [*[{1}] * 50, {2}, {3, 1}, set()]
    chosen = spread_over_classes(shown, 4)
    assert {50, 51, 52} <= set(chosen) and len(set(chosen)) == 4
    assert sorted(spread_over_classes(shown, 99)) == list(range(53))


def test_pictures_of_other_classes_are_refused(tmp_path):
    draw_voc(tmp_path, train=2, val=1)
    with pytest.raises(UserError, match=r"its classes are background, .* the model's cat, dog; name a folder"):
        calibration_of(Exporting(), str(tmp_path), ("cat", "dog"))
