"""What the tests of networks share: inputs, weights that hide no mix-up, and one measure of difference."""

import numpy as np

from models.weight_init import named_variables


def images_of(size, batch=1, seed=0):
    """float32 (batch, height, width, 3) in [-1, 1]; `size` is an int or (height, width)."""
    height, width = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(seed).uniform(-1, 1, (batch, height, width, 3)).astype("float32")


def largest_difference(found, expected):
    """max |found - expected| over max |expected|; infinite where the shapes differ or a number is missing."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape or not np.all(np.isfinite(found)):
        return np.inf
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


def randomize(variables, seed=0):
    """Gives each of {name: variable} values of its own, moving statistics too, with activations kept in scale."""
    rng = np.random.default_rng(seed)
    for name, variable in variables.items():
        noise = rng.standard_normal(variable.shape)
        leaf = name.rpartition("/")[2]
        if leaf in ("gamma", "moving_variance"):
            value = 1.0 + 0.1 * np.clip(noise, -3, 3)
        elif variable.ndim < 2:
            value = 0.1 * noise
        else:
            fan_in = np.prod(variable.shape[:2] if "depthwise" in name else variable.shape[:-1])
            value = noise * np.sqrt(1.5 / fan_in)
        variable.assign(value.astype("float32"))


def values_of(model):
    """{name: array} of all variables."""
    return {name: np.asarray(variable) for name, variable in named_variables(model).items()}


def copy_weights(source, target):
    """Both have the same names; the values of the one become the other's."""
    values = values_of(source)
    assert values.keys() == named_variables(target).keys()
    for name, variable in named_variables(target).items():
        variable.assign(values[name])
