"""What is asked of a data set, whatever it is read from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

# An image, uint8 (H, W, 3) RGB, and its target: a mask, uint8 (H, W), None where nobody has one, or a class's number.
Sample = tuple[np.ndarray, Any]


class Dataset(Protocol):
    """Samples by number, read when they are asked for."""

    def __len__(self) -> int:
        """How many samples there are."""

    def __getitem__(self, index: int, /) -> Sample:
        """The sample `index`, from 0."""


class ImageDataset(Dataset, Protocol):
    """One whose images' sizes can be had without decoding them."""

    def image_size(self, index: int, /) -> tuple[int, int]:
        """(height, width) in pixels of the image of the sample `index`."""


class NamedDataset(Dataset, Protocol):
    """One whose samples have names."""

    @property
    def names(self) -> Sequence[str]:
        """The images' names, in the order of the samples."""


class FileDataset(Dataset, Protocol):
    """One whose samples depend on files and a few settings alone, and so can be kept (`data.cache`)."""

    @property
    def reading(self) -> tuple[Any, ...]:
        """Those settings, as plain values."""

    def files(self, index: int) -> Sequence[Path]:
        """The files that `dataset[index]` reads."""
