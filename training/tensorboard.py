"""TensorBoard events of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Board:
    """Writes scalars, pictures and histograms under steps of training into `folder`; nothing where it is None."""

    def __init__(self, folder: str | Path | None) -> None:
        import tensorflow as tf

        self._summary = tf.summary
        no_writer = tf.summary.create_noop_writer
        self._writer = no_writer() if folder is None else tf.summary.create_file_writer(str(folder))

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """{name: number}; what is no number (an empty cell of the log) is left out."""
        with self._writer.as_default(step):
            for name, value in values.items():
                if name != "step" and value != "":
                    self._summary.scalar(name, value)
        self._writer.flush()

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """uint8 RGB (H, W, 3)."""
        with self._writer.as_default(step):
            self._summary.image(name, picture[None])

    def histograms(self, step: int, values: Mapping[str, Any]) -> None:
        """{name: array or variable}; TensorBoard groups them by scope."""
        with self._writer.as_default(step):
            for name, value in values.items():
                self._summary.histogram(name, np.asarray(value))
