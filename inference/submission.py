"""The archive that the PASCAL VOC evaluation server takes, written image by image."""

import io
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from data.voc import VOC_CLASSES, mask_png
from errors import UserError
from files.writing import beside


def check_submission(path: str | Path, num_classes: int) -> None:
    """Raises UserError where the archive's name or the number of classes is not what the server takes."""
    if not str(path).endswith((".tar.gz", ".tgz")):
        raise UserError(f"--voc-submission {path}: the server takes a .tar.gz or .tgz; name the file so")
    if num_classes != len(VOC_CLASSES):
        raise UserError(
            f"--voc-submission: the server scores VOC's {len(VOC_CLASSES)} classes, this data set has {num_classes}"
        )


class Submission:
    """results/VOC2012/Segmentation/<competition>_test_cls/<name>.png, palette PNGs of class indices, in a .tar.gz.

    A context manager: the file appears when all went well, whole, or not at all.

    Args:
        path: the archive, .tar.gz or .tgz.
        names: the images' names, in the order of the data set.
        competition: "comp5" for models trained on VOC's own data alone, "comp6" for others, pre-trained ones included.
    """

    def __init__(self, path: str | Path, names: Sequence[str], competition: str = "comp6") -> None:
        self.path, self.names = Path(path), names
        self.folder = f"results/VOC2012/Segmentation/{competition}_test_cls"

    def __enter__(self) -> "Submission":
        with ExitStack() as opened:
            partial = opened.enter_context(beside(self.path))
            self._archive = opened.enter_context(tarfile.open(partial, "w:gz"))
            self._opened = opened.pop_all()
        return self

    def add(self, index: int, labels: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Adds the labels of the image `index`, uint8 (H, W)."""
        content = mask_png(labels)
        member = tarfile.TarInfo(f"{self.folder}/{self.names[index]}.png")
        member.size = len(content)
        self._archive.addfile(member, io.BytesIO(content))

    def __exit__(self, *error: Any) -> bool | None:
        return self._opened.__exit__(*error)
