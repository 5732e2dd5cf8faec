"""Averages over scales and mirror images are the authors' own evaluation: `tests/golden/multiscale`.

The facts are numbers that research/deeplab's predict_labels_multi_scale gave, one graph of which held all scales, for
weights and a picture that a formula makes.
"""

import numpy as np
import pytest

from inference import predictor
from inference.predictor import ModelPredictor, fed_to, mean_probabilities, merged_logits, seen_at
from models.deeplab_v3 import deeplab_v3
from models.identify import identify
from models.layers import to_be_restored
from models.weight_init import checkpoint_guided_init
from tests.golden_networks import FOLDER, GoldenFile, OpenWeights, picture

FILES = sorted(f"multiscale/{path.stem}" for path in (FOLDER / "multiscale").glob("*.npz"))
A_FEW_PIXELS = 0.0002  # of a picture's, whose two best classes are as likely but for rounding


@pytest.fixture(scope="module", params=FILES)
def file(request):
    return GoldenFile(request.param)


@pytest.fixture(scope="module")
def model(file):
    with to_be_restored():
        model = deeplab_v3(**identify(file.shapes).config | {"output_stride": file.config["output_stride"]})
    checkpoint_guided_init(model, OpenWeights(file.name, file.weights))
    return model


def options_of(file):
    return {"scales": tuple(file.config["eval_scales"]), "flip": file.config["add_flipped_images"]}


def images_of(file, model):
    return fed_to(model, picture(*file.size), file.size)[None]


def test_every_scale_has_the_authors_logits(file, model):
    images, departed = images_of(file, model), {}
    for scale in file.config["eval_scales"]:
        for which, turned in {"": images, "mirrored ": images[:, :, ::-1]}.items():
            small = model.small_logits(seen_at(model, turned, scale))
            merged = merged_logits(model, small, file.size, scale)
            departed[f"scale {scale} {which}logits"] = (small, merged)
    found = {key: small for key, (small, _) in departed.items()}
    found |= {key.replace("logits", "merged_logits"): merged for key, (_, merged) in departed.items()}
    compared = {name: file.difference(name, found[name]) for name in file.tensors if name != "mean_probabilities"}
    assert len(compared) == (24 if file.config["add_flipped_images"] else 12)
    assert {name: by for name, by in compared.items() if by > 1} == {}


def test_a_picture_of_its_own_size_is_predicted_as_the_authors_do(file, model):
    of_its_own_size = ModelPredictor(model, range(model.num_classes), crop_size=None, **options_of(file))
    image = picture(*file.size)
    found = of_its_own_size.probabilities(image)
    assert file.difference("mean_probabilities", found[None]) < 1
    with np.load(FOLDER / f"{file.name}.npz") as archive:
        assert np.mean(found.argmax(-1) != archive["labels"]) <= A_FEW_PIXELS
    by_windows = np.concatenate(list(of_its_own_size._slide(image)))  # of which one is enough
    assert file.difference("mean_probabilities", by_windows[None]) < 1


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        ("merged_logits", lambda model, logits, size, scale: logits),  # one step of enlargement
        ("scaled", lambda side, scale: round((side - 1) * scale) + 1),
    ],
)
def test_another_way_to_scale_is_seen(file, model, monkeypatch, function, wrong):
    monkeypatch.setattr(predictor, function, wrong)
    departed = file.difference(
        "mean_probabilities", mean_probabilities(model, images_of(file, model), **options_of(file))
    )
    is_seen = function == "merged_logits" or "offgrid" in file.name  # elsewhere there is nothing to cut
    assert departed > 100 if is_seen else departed < 1
