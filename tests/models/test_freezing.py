"""Frozen means frozen: bit for bit after training, moving statistics included; everything else moves."""

import keras
import numpy as np
import pytest

from models.freezing import freeze, freeze_batch_norm, learning_names, train_only
from models.scopes import ScopeError
from models.weight_init import named_variables

BLOCK1 = "resnet_v2_50/block1"


def train(model):
    rng = np.random.default_rng(0)
    before = {name: variable.numpy().copy() for name, variable in named_variables(model).items()}
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = rng.normal(size=(8, 33, 33, 3)).astype("f"), rng.integers(0, 5, 8)
    model.fit(images, labels, batch_size=4, epochs=2, verbose=0)
    after = named_variables(model)
    return {name for name, value in before.items() if not np.array_equal(value, after[name].numpy())}


@pytest.mark.parametrize(
    ("choose", "learns"),
    [
        (lambda m: None, lambda name: True),
        (
            lambda m: freeze(m, [BLOCK1, "resnet_v2_50/conv1"]),
            lambda n: not n.startswith((BLOCK1, "resnet_v2_50/conv1")),
        ),
        (lambda m: train_only(m, "resnet_v2_50/logits"), lambda n: n.startswith("resnet_v2_50/logits")),
        (freeze_batch_norm, lambda n: n.endswith(("weights", "biases"))),
        (lambda m: freeze_batch_norm(m, statistics_only=True), lambda n: "moving_" not in n),
    ],
    ids=["nothing frozen", "freeze", "train only", "batch norm", "statistics"],
)
def test_exactly_what_learns_moves(tiny_resnet, choose, learns):
    choose(tiny_resnet)
    expected = {name for name in named_variables(tiny_resnet) if learns(name)}
    assert learning_names(tiny_resnet) == expected
    assert train(tiny_resnet) == expected


@pytest.mark.parametrize("rule", [freeze, train_only])
def test_scope_without_variables_is_an_error(tiny_resnet, rule):
    with pytest.raises(ScopeError, match="block7"):
        rule(tiny_resnet, "resnet_v2_50/block7")


def test_scopes_are_whole_segments(tiny_resnet):
    with pytest.raises(ScopeError):
        freeze(tiny_resnet, "resnet_v2_50/bloc")
