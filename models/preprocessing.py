"""What each family of networks wants to be fed: slim's two ways from 8-bit RGB to floats."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Preprocessing:
    """`(pixels - mean) * scale` over RGB pixels in [0, 255]; `mean` is also the pixel that padding is made of."""

    name: str
    mean: tuple[float, float, float]
    scale: float

    def __call__(self, pixels):
        """float32 RGB (..., 3) in [0, 255], of any array library → what the network is fed, same shape."""
        return (pixels - np.asarray(self.mean, np.float32)) * self.scale


UNIT_RANGE = Preprocessing("[-1, 1]", (127.5, 127.5, 127.5), 1 / 127.5)  # slim's inception_preprocessing
MEAN_SUBTRACTED = Preprocessing("RGB minus mean", (123.68, 116.78, 103.94), 1.0)  # slim's vgg_preprocessing
PREPROCESSINGS = {"unit-range": UNIT_RANGE, "mean-subtracted": MEAN_SUBTRACTED}
