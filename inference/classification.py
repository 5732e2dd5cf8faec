"""Classifiers at work: opened from whatever holds one, and asked about pictures; what is written of the answers."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.options import ClassifierOpening, Pictures
from engine.pictures import captioned, fitted, png
from engine.startup import import_keras
from engine.tables import as_csv
from errors import UserError
from files.output import marked
from files.writing import beside, write_whole
from inference.prediction import ahead, read_or_error, refuse_checkpoint_options
from inference.protocols import Classifier
from inference.runtimes import open_export

if TYPE_CHECKING:
    from inference.opening import OpenedClassifier

FEW = 16  # pictures that do not repay tracing a graph
TOP = 5  # classes of a picture that are told; its true class is to be among them
TILE = 240  # pixels of a picture's side on a sheet


@dataclass(frozen=True)
class OpenedModel:
    """A classifier to be used.

    Attributes:
        path: where it is. classifier: what classifies. opened: what was known of it; None for an export.
    """

    path: str
    classifier: Classifier
    opened: "OpenedClassifier | None" = None

    def introduction(self) -> str:
        """What was opened, in lines for a person."""
        if self.opened is not None:
            return self.opened.introduction()
        return f"{self.path}: an export, {self.classifier.num_classes} classes; what it sees of a picture is inside"


def open_model(path: str, how: ClassifierOpening = ClassifierOpening(), pictures: int | None = None) -> OpenedModel:
    """Opens the classifier in an export, or else in a checkpoint or run.

    pictures: how many it is opened for, where that is known.

    Raises UserError where there is none at `path`, or an option does not apply to an export.
    """
    if (export := open_export(path, classifies=True)) is not None:
        refuse_checkpoint_options(path, how)
        return OpenedModel(path, export)
    import_keras()
    from inference.opening import open_classifier
    from models.layers import ON_TENSORFLOW, without_variables

    # JAX compiles in any case.
    eager = ON_TENSORFLOW and pictures is not None and pictures <= FEW
    with without_variables() if eager else nullcontext():
        opened = open_classifier(path, how)
    return OpenedModel(path, opened.predictor(eager=eager), opened)


def probabilities_of(model: OpenedModel, images: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 RGB images → float32 (N, classes). Raises UserError for what is no number, of which nothing is best."""
    probabilities = model.classifier.probabilities_of(images)
    if not np.isfinite(probabilities).all():
        raise UserError(f"{model.path}: its probabilities are not all numbers; its weights are damaged, or diverged")
    return probabilities


def classify(
    model: OpenedModel, sources: Iterable[Path], as_read: Pictures = Pictures()
) -> Iterator[tuple[Path, np.ndarray | None, np.ndarray | UserError]]:
    """Yields (source, picture, probabilities (classes,)) of one after the other, the next being read meanwhile; of a
    file that cannot be read (source, None, why)."""
    for source, image in ahead((source, read_or_error(source, as_read)) for source in sources):
        if isinstance(image, UserError):
            yield source, None, image
        else:
            yield source, image, probabilities_of(model, [image])[0]


def best(probabilities: np.ndarray, class_names: Sequence[str], top: int = TOP) -> list[tuple[str, float]]:
    """[(class, probability)] of the `top` most probable classes, the most first."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [(class_names[label], float(probabilities[label])) for label in order]


class Written:
    """What is written of classified pictures: predictions.csv, a sheet of the first of them, all probabilities.

    Args:
        folder: where. top: classes a picture. sheet, probabilities: whether those are written.
    """

    SHOWN = 48  # pictures on the sheet

    def __init__(self, folder: Path, top: int = TOP, sheet: bool = True, probabilities: bool = False) -> None:
        self.folder, self.top, self.sheet, self.probabilities = folder, top, sheet, probabilities
        self._rows: list[list[Any]] = []
        self._shown: list[tuple[np.ndarray, str]] = []
        self._all: list[np.ndarray] = []

    @property
    def files(self) -> dict[str, Path]:
        """{what: where}."""
        names = {"csv": "predictions.csv"}
        names |= {"sheet": "sheet.png"} if self.sheet else {}
        names |= {"probabilities": "probabilities.npz"} if self.probabilities else {}
        return {what: self.folder / name for what, name in names.items()}

    def check(self, sources: Iterable[Path]) -> None:
        """Raises UserError where a file would replace a source."""
        inputs = {source.resolve() for source in sources}
        for path in self.files.values():
            if path.resolve() in inputs:
                raise UserError(f"{path}: would be written, but is an input itself; name another --out")

    def add(self, source: Path, picture: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> str:
        """Keeps what is found of a picture → a line about it."""
        found = best(probabilities, class_names, self.top)
        self._rows.append([source, *(cell for name, share in found for cell in (name, f"{share:.6g}"))])
        if self.sheet and len(self._shown) < self.SHOWN:
            self._shown.append((fitted(picture, TILE), f"{found[0][0]} {100 * found[0][1]:.1f} %"))
        if self.probabilities:
            self._all.append(probabilities)
        return ", ".join(f"{name} {100 * share:.1f} %" for name, share in found)

    def write(self, class_names: Sequence[str]) -> Iterator[Path]:
        """Writes, and yields each file that is there."""
        if not self._rows:
            return
        heads = [
            f"{what}_{place}" for place in range(1, (len(self._rows[0]) + 1) // 2) for what in ("class", "probability")
        ]
        for what, path in self.files.items():
            if what == "csv":
                write_whole(path, as_csv([["picture", *heads], *self._rows]))
            elif what == "sheet":
                images, captions = zip(*self._shown, strict=True)
                write_whole(path, marked(png(captioned(np.stack(images), [(text, True) for text in captions]))))
            else:
                with beside(path) as partial:
                    pictures = np.array([str(row[0]) for row in self._rows])
                    np.savez(
                        partial,
                        probabilities=np.stack(self._all),
                        pictures=pictures,
                        class_names=np.array(class_names),
                    )
            yield path
