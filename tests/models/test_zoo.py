"""The zoo's table in docs/checkpoints.md: each row is a published name, and names alone tell the model it says."""

import re
from pathlib import Path

import pytest

from engine.zoo import _DEEPLAB, PUBLISHED
from models.identify import identify
from tests.golden_networks import FOLDER, GoldenFile

DOCUMENT = Path(__file__).parents[2] / "docs" / "checkpoints.md"
SECTION = DOCUMENT.read_text().partition("\n## The zoo\n")[2].partition("\n## ")[0]
ROWS = {
    name: (told, file) for name, told, file in re.findall(r"^\| `([\w.-]+)` \| ([^|]+) \| `(\w+)` \|", SECTION, re.M)
}


def published_shapes(file, told):
    """{name: shape} of a golden file's checkpoint, with as many classes as `told` has, or the backbone alone."""
    shapes = GoldenFile(file).shapes
    classes = re.search(r"(\d+) classes", told)
    if classes is None:  # of a segmenter
        return {name: shape for name, shape in shapes.items() if re.match(r"(xception|resnet)\w+/(?!logits/)", name)}
    count = int(classes[1])
    return {
        name: (*shape[:-1], count) if name.startswith("logits/semantic/") else shape for name, shape in shapes.items()
    }


@pytest.mark.parametrize("name", ROWS)
def test_names_alone_tell_the_model_that_the_row_says(name):
    told, file = ROWS[name]
    assert name in PUBLISHED
    assert str(identify(published_shapes(file, told))) == told


def test_every_published_deeplab_and_its_backbones_have_a_row():
    assert len(_DEEPLAB) == 16 + 6
    assert {published.name for published in _DEEPLAB} <= set(ROWS)


def test_every_row_is_proven_by_a_file():
    assert {file for _, file in ROWS.values()} <= {path.stem for path in FOLDER.glob("*.npz")}
