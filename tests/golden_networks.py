"""What the graphs of public DeepLabs compute for weights and a picture that a formula makes: `tests/golden`."""

import json
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "golden"
SETTLED = 2e-6  # of the largest number: where two libraries agree to the bit, this much is still rounding
SCATTER = 8  # times what two libraries of convolutions differ by on the same graph

GAINS = {"MobilenetEdgeTPU": (1.0, 1.4), "MobilenetV3": (1.1, 1.75)}


def weight(name, shape):
    """The values of one variable, which follow from its name."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    scope, _, leaf = name.rpartition("/")
    if leaf == "moving_variance":
        return random.uniform(0.6, 1.4, shape).astype("float32")
    if leaf == "gamma":
        return random.uniform(0.7, 1.3, shape).astype("float32")
    noise = random.standard_normal(shape)
    if leaf in ("beta", "moving_mean", "biases", "bias"):
        return (0.2 * noise).astype("float32")
    area = shape[0] * shape[1]
    if leaf == "depthwise_weights":
        return ((noise - noise.mean((0, 1))) / area**0.5 + 1 / area).astype("float32")
    fan = area * shape[2]
    if shape[2] == 3:  # the root, which sees pictures; some are fed whole pixels
        pixels = shape[0] == 7 or name.startswith("backbone/")
        return (noise * (3 / fan) ** 0.5 / (64 if pixels else 1)).astype("float32")
    expand, project = GAINS.get(name.partition("/")[0], (1.15, 1.7))
    gains = {"shortcut": 1.0, "expand": expand, "project": project, "conv3": 0.55, "separable_conv3_pointwise": 0.65}
    gain = gains.get(scope.rpartition("/")[2], 1.55)
    return ((noise - 0.7 * noise.mean((0, 1, 2))) * gain / fan**0.5).astype("float32")


def picture(height, width):
    """uint8 RGB (height, width, 3) of waves, tiles and grain."""
    y, x, c = np.mgrid[:height, :width, :3].astype("int64")
    wave = (x * (2 + c) + y * (3 - c)) % 510
    wave = np.minimum(wave, 510 - wave)
    tiles = ((x // 23) * (31 + 17 * c) + (y // 19) * (57 - 11 * c)) % 256
    grain = ((x * 7919 + y * 104729 + c * 1299709) ^ (x * y // 4)) % 61
    return np.minimum((2 * wave + 3 * tiles) * 4 // 25 + grain, 255).astype("uint8")


class GoldenFile:
    """One graph: `shapes` {name: shape} of its checkpoint, `size` of the picture, `tensors` {name: facts}, `config`."""

    def __init__(self, name):
        self.name = name
        with np.load(FOLDER / f"{name}.npz") as archive:
            facts = json.loads(str(archive["facts"]))
            self._values = archive["values"]
        self.shapes = {variable: tuple(shape) for variable, shape in facts["variables"].items()}
        self.size = tuple(facts["size"])
        self.config = facts["config"]
        self.tensors = facts["tensors"]

    @cached_property
    def weights(self):
        """{name: array} of the whole checkpoint."""
        values = {name: weight(name, shape) for name, shape in self.shapes.items() if name != "global_step"}
        return values | {"global_step": np.int64(7)}

    def difference(self, name, found):
        """How far an array is from the graph's tensor, in units of what is tolerated; infinite where shapes differ."""
        index, facts = list(self.tensors).index(name), self.tensors[name]
        found = np.asarray(found, np.float32)
        if found.shape != tuple(facts["shape"]):
            return np.inf
        values = self._values[index]
        at = np.linspace(0, found.size - 1, len(values)).astype(int)
        tolerated = max(SETTLED, SCATTER * facts["self_difference"]) * facts["max_abs"]
        return float(np.max(np.abs(found.reshape(-1)[at] - values)) / tolerated)


class OpenWeights:
    """{name: array} as an open checkpoint, which needs no file."""

    def __init__(self, path, values):
        self.path = self.prefix = path
        self._values = values
        self.shapes = {name: np.shape(value) for name, value in values.items()}
        self.dtypes = {name: np.asarray(value).dtype.name for name, value in values.items()}

    def read(self, name):
        return self._values[name]

    def architecture(self, scope):
        return {}
