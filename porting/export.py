"""A segmentation model written in several formats (`porting.formats`), each kept once it has agreed with the model.

What was written is opened in its own runtime and given a picture; the checkpoint is read again.
"""

import json
import os
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from data.images import read_image
from data.sample import draw_voc
from files.writing import folder_in, temporary_folder, write_whole
from inference.opening import OpenedSegmenter
from inference.predictor import ModelPredictor
from inference.runtimes import DESCRIPTION, Export, ExportError, LiteExport, open_export, read_description, require
from models.checkpoint import open_checkpoint
from models.deeplab_v3 import DeepLabV3
from models.weight_init import named_variables
from porting.formats import FORMATS, Served


@dataclass(frozen=True)
class Outcome:
    """What became of one format.

    Attributes:
        name, file: of the format; where it is or would have been.
        bytes: on disk.
        agreement: the fraction of the picture's pixels whose label is the model's; for the checkpoint, of its variables
            that are the model's to the bit.
        difference: the largest of a probability; None for the checkpoint.
        seconds: per image, median of a few; None for the checkpoint.
        good: whether it agrees as well as its format must, and so was kept.
    """

    name: str
    file: str
    bytes: int
    agreement: float
    difference: float | None
    seconds: float | None
    good: bool

    def __str__(self) -> str:
        agree = f"{100 * self.agreement:.3f} %"
        if self.difference is None:
            said = f"{agree} of the variables equal the model's to the bit"
        else:
            said = (
                f"{agree} of the labels equal the model's, probabilities differ by up to {self.difference:.1e}, "
                f"{self.seconds:.2f} s an image"
            )
        line = f"{self.name}: {self.file}, {self.bytes / 1e6:.2f} MB; {said}"
        if self.good:
            return line
        return f"{line}: WRONG, {100 * FORMATS[self.name].agreement:g} % must be equal; deleted"


def export(
    opened: OpenedSegmenter, checkpoint: str | Path, out: str | Path, formats: Iterable[str], picture: np.ndarray
) -> Iterator[Outcome]:
    """Writes a model in several formats into the folder `out`, each once it has agreed with the model on `picture`.

    Args:
        opened: an `inference.opening.OpenedSegmenter`, in float32.
        checkpoint: where it is from; its name is noted in export.json.
        formats: names out of FORMATS.
        picture: uint8 RGB (H, W, 3); TFLite is checked on as much of it as fits into its square.

    Yields:
        an Outcome for each format. What was in `out` before is only ever replaced by a good export.

    Raises:
        WriteError: `out` cannot be written to.
        ExportError: it holds exports of a model with other classes; or a format takes a
            square, and there is no crop size.
    """
    formats = tuple(formats)
    if opened.crop_size is None and (square := [name for name in formats if FORMATS[name].square]):
        raise ExportError(
            f"--crop-size none: {', '.join(square)} can only take pictures up to one size: name it with --crop-size N, "
            "or leave them out of --formats"
        )
    out = Path(out)
    if (out / "config.json").is_file():
        raise ExportError(f"{out}: is a run; export into a folder of its own, or --ckpt {out} would mean the export")
    served = Served(opened.model, opened.crop_size)
    reference = ModelPredictor(opened.model, opened.class_names, opened.crop_size)  # unfolded: that is checked too
    described = _description(out, opened)
    for name in formats:
        with folder_in(out) as folder:
            path = folder / FORMATS[name].file
            FORMATS[name].write(served, path)
            outcome = _outcome(name, path, reference, picture)
            if outcome.good:
                _move(folder, out)
                described["formats"][name] = {
                    "file": outcome.file,
                    "bytes": outcome.bytes,
                    "label_agreement": outcome.agreement,
                    "probability_difference": outcome.difference,
                    "checkpoint": Path(checkpoint).resolve().name,
                    "crop_size": opened.crop_size,
                    "output_stride": opened.model.output_stride,
                }
                write_whole(out / DESCRIPTION, json.dumps(described, indent=1, allow_nan=False).encode())
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


def _description(out: Path, opened: OpenedSegmenter) -> dict[str, Any]:
    """export.json as it is before this export: without formats, or with those that `out` holds of the same classes."""
    before = read_description(out)
    if before and before["classes"] != list(opened.class_names):
        raise ExportError(f"{out}: holds exports of a model with other classes; name another --out")
    fed = opened.model.preprocessing
    return {
        "classes": list(opened.class_names),
        "palette": "class k has colour k of PASCAL VOC's palette",
        "input": "uint8 RGB pictures at their own size",
        "done inside": f"(RGB - {fed.mean}) * {fed.scale:.6g}{'' if fed.order == 'RGB' else ', then in order BGR'}; "
        f"padding with {fed.mean}; upsampling; softmax",
        "formats": before["formats"] if before else {},
    }


def _outcome(name: str, path: Path, reference: ModelPredictor, picture: np.ndarray) -> Outcome:
    """Opens what was written to `path` in its own runtime, and compares it with the model."""
    difference: float | None
    seconds: float | None
    size = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
    if name == "slim":
        agreement, difference, seconds = _equal_variables(path, reference.model), None, None
    else:
        exported = open_export(path)
        assert exported is not None, path  # each format but this project's checkpoints has its runtime
        agreement, difference, seconds = _compared(exported, reference, picture)
    good = agreement >= FORMATS[name].agreement
    return Outcome(name, path.name, size, agreement, difference, seconds, good)


def _compared(
    exported: Export, reference: ModelPredictor, picture: np.ndarray, passes: int = 3
) -> tuple[float, float, float]:
    """→ (fraction of labels that are equal, largest difference of a probability, seconds per image)."""
    if isinstance(exported, LiteExport):
        picture = picture[: exported.size, : exported.size]
    agreement = np.mean(exported.labels(picture) == reference.labels(picture))
    difference = np.abs(exported.probabilities(picture) - reference.probabilities(picture)).max()
    times = []
    for _ in range(passes):
        start = time.perf_counter()
        exported.labels(picture)
        times.append(time.perf_counter() - start)
    return float(agreement), float(difference), statistics.median(times)


def _equal_variables(path: Path, model: DeepLabV3) -> float:
    """The fraction of the model's variables that the checkpoint holds to the bit."""
    with open_checkpoint(path) as checkpoint:
        equal = [
            name in checkpoint.shapes and checkpoint.read(name).tobytes() == np.asarray(variable).tobytes()
            for name, variable in named_variables(model).items()
        ]
    return sum(equal) / len(equal)
