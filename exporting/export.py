"""A model written in several formats (`exporting.formats`), each kept once it has agreed with the model.

What was written is opened in its own runtime and given a picture; the checkpoint is read again.
"""

import os
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from data.images import read_image
from data.sample import draw_voc
from engine.options import Exporting
from exporting.formats import FORMATS
from exporting.subjects import Subject, subject_of
from exporting.usage import README, readme
from files.records import sealed
from files.writing import folder_in, temporary_files_in, temporary_folder, write_whole
from inference.export_record import DESCRIPTION, ExportError, checksum, read_description
from inference.exported import require
from inference.opening import OpenedClassifier, OpenedSegmenter
from inference.runtimes import open_export
from models.checkpoint import open_checkpoint
from models.weight_init import named_variables


@dataclass(frozen=True)
class Outcome:
    """What became of one format.

    Attributes:
        name, file: of the format; where it is or would have been.
        bytes: on disk.
        agreement: the fraction of the picture's pixels whose label is the model's, or how much of a classifier's
            probability is where the model has it; for the checkpoint, of its variables that are the model's to the bit.
        needed: what it must be.
        of: what agrees, in words.
        difference: the largest of a probability; None where there are none.
        seconds: per image, median of a few; None for the checkpoint.
        told: what export.json says of it besides: what it takes and gives, and how 8 bits stand on real pictures.
    """

    name: str
    file: str
    bytes: int
    agreement: float
    needed: float
    of: str
    difference: float | None = None
    seconds: float | None = None
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether it agrees as well as its format must, and so was kept."""
        return self.agreement >= self.needed

    def __str__(self) -> str:
        said = f"{100 * self.agreement:.3f} % of the {self.of}"
        if self.difference is not None:
            said += f", probabilities differ by up to {self.difference:.1e}"
        if self.seconds is not None:
            said += f", {self.seconds:.3f} s an image"
        if real := self.told.get("on real pictures"):
            said += f"; {self.told['calibrated on']}: "
            score, name = ("miou", "mIoU") if "miou" in real else ("top1", "top 1")
            said += (
                f"{100 * real['label_agreement']:.3f} % of the labels, {name} "
                f"{100 * real[score]:.2f} where the model has {100 * real[f'model_{score}']:.2f}"
            )
        line = f"{self.name}: {self.file}, {self.bytes / 1e6:.2f} MB; {said}"
        if self.good:
            return line
        return f"{line}: WRONG, {100 * self.needed:g} % must be equal; deleted"


def export(
    opened: OpenedSegmenter | OpenedClassifier,
    checkpoint: str | Path,
    out: str | Path,
    formats: Iterable[str],
    picture: np.ndarray,
    how: Exporting = Exporting(),
) -> Iterator[Outcome]:
    """Writes a model in several formats into the folder `out`, each once it has agreed with the model on `picture`.

    Args:
        opened: a segmentation model or a classifier (`inference.opening`), in float32.
        checkpoint: where it is from; its name is noted in export.json.
        formats: names out of FORMATS.
        picture: uint8 RGB (H, W, 3).
        how: what the exports take and give.

    Yields:
        an Outcome for each format. What was in `out` before is only ever replaced by a good export.

    Raises:
        WriteError: `out` cannot be written to.
        ExportError: it holds exports of a model with other classes; or a format takes one size and there is no
            crop size, or wants pictures that it is calibrated on.
    """
    formats = tuple(formats)
    subject = subject_of(opened, how)
    if reason := subject.refused(formats):
        raise ExportError(reason)
    out = Path(out)
    if (out / "config.json").is_file():
        raise ExportError(f"{out}: is a run; export into a folder of its own, or --ckpt {out} would mean the export")
    described = _description(out, subject)
    for name in formats:
        with folder_in(out) as folder, folder_in(out) as others:
            path = folder / FORMATS[name].file
            with temporary_files_in(others):
                FORMATS[name].write(subject.served, path)
            outcome = _outcome(name, path, subject, picture)
            if outcome.good:
                _move(folder, out)
                described["formats"][name] = {
                    "file": outcome.file,
                    "bytes": outcome.bytes,
                    **({} if name == "slim" else {"sha256": checksum(out / outcome.file)}),
                    subject.key: outcome.agreement,
                    "probability_difference": outcome.difference,
                    "checkpoint": Path(checkpoint).resolve().name,
                    **subject.settings(),
                    **outcome.told,
                }
                write_whole(out / README, readme(described))
                write_whole(out / DESCRIPTION, sealed(described))
        yield outcome


def drawn_picture() -> np.ndarray:
    """uint8 RGB (H, W, 3): for who names no picture to check on."""
    with temporary_folder() as folder:
        draw_voc(folder, train=1, val=1)
        return read_image(next(Path(folder, "JPEGImages").glob("val_*.jpg")))


def check_installed(formats: Iterable[str]) -> None:
    """Raises ExportError where one of the formats needs a module that is not installed, or Keras another backend."""
    if keras.backend.backend() != "tensorflow":
        raise ExportError(f"KERAS_BACKEND={keras.backend.backend()}: only TensorFlow exports; unset it")
    for module in sorted({module for name in formats for module in FORMATS[name].needs}):
        require(module)


def _move(folder: Path, out: Path) -> None:
    """Moves all that is in `folder` to `out`, a checkpoint's index last, in place of what has the same name there."""
    for new in sorted(folder.iterdir(), key=lambda file: file.suffix == ".index"):
        if (out / new.name).is_dir():
            os.replace(out / new.name, folder / ".replaced")
        os.replace(new, out / new.name)


def _description(out: Path, subject: Subject) -> dict[str, Any]:
    """export.json as it is before this export: without formats, or with those that `out` holds of the same classes."""
    before = read_description(out)
    if before and before["classes"] != list(subject.class_names):
        raise ExportError(f"{out}: holds exports of a model with other classes; name another --out")
    formats = before["formats"] if before else {}
    return {"classes": list(subject.class_names), **subject.description(), "formats": formats}


def _outcome(name: str, path: Path, subject: Subject, picture: np.ndarray, passes: int = 3) -> Outcome:
    """Opens what was written to `path` in its own runtime, and compares it with the model."""
    size = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
    if name == "slim":
        equal, said = _equal_variables(path, subject.served.model), "variables equal the model's to the bit"
        return Outcome(name, path.name, size, equal, FORMATS[name].agreement, said)
    exported = open_export(path, classifies=None, is_new=True)
    assert exported is not None, path  # each format but this project's checkpoints has its runtime
    agreement, difference, predict = subject.compared(exported, picture)
    times = []
    for _ in range(passes):
        start = time.perf_counter()
        predict()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    told = exported.described() | subject.checked(name, exported)
    if real := told.get("on real pictures"):
        agreement = real[subject.key]  # of many, which a single picture's does not outweigh
    return Outcome(name, path.name, size, agreement, subject.needed(name), subject.agreeing, difference, seconds, told)


def _equal_variables(path: Path, model: keras.Model) -> float:
    """The fraction of the model's variables that the checkpoint holds to the bit."""
    with open_checkpoint(path) as checkpoint:
        equal = [
            name in checkpoint.shapes and checkpoint.read(name).tobytes() == np.asarray(variable).tobytes()
            for name, variable in named_variables(model).items()
        ]
    return sum(equal) / len(equal)
