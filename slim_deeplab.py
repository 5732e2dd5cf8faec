"""The door for Python: what the programs do, in a notebook.

    import slim_deeplab

    m = slim_deeplab.load("deeplabv3_mnv2_pascal_trainval.ckpt")    # a checkpoint, .tar.gz, directory, run or export
    m.predict("photo.jpg")                                          # a notebook shows the overlay and its legend
    print(m.evaluate("VOC2012", image_set="val"))                   # the table of `eval_seg.py`
    run = slim_deeplab.fine_tune("resnet_v2_50.ckpt", "VOC2012", recipe=slim_deeplab.Recipe(steps=3000))

Options are groups (`engine.options`): `Opening(output_stride=8)`, `Looks(flip=True)`, `Recipe(steps=3000)`.
"""

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.places import voc_folder
from engine.options import (
    FIRST_STAGE,
    SECOND_STAGE,
    Architecture,
    Devices,
    Learning,
    Looks,
    Opening,
    Pictures,
    PredictionFiles,
    Reading,
    Recipe,
    Restore,
    Run,
    ScoreFiles,
    SegmentationImages,
    SegmentationLoss,
)
from errors import UserError

if TYPE_CHECKING:
    import keras

    from engine.run_directory import RunDirectory
    from inference.measuring import Measured
    from inference.opening import Told
    from inference.protocols import Predictor
    from models.identify import Identity
    from models.weight_init import Report

__all__ = [
    "Architecture",
    "Devices",
    "Learning",
    "Looks",
    "Model",
    "Opening",
    "Pictures",
    "Prediction",
    "PredictionFiles",
    "Reading",
    "Recipe",
    "Restore",
    "Run",
    "ScoreFiles",
    "SegmentationImages",
    "SegmentationLoss",
    "UserError",
    "fine_tune",
    "load",
]


@dataclass(frozen=True)
class Prediction:
    """A picture, and what a model says of it. A notebook shows the overlay with its legend.

    Attributes:
        picture: uint8 RGB (H, W, 3). labels: uint8 (H, W), class indices. class_names: of the model.
    """

    picture: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    _predictor: "Predictor" = field(repr=False)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """float32 (H, W, classes); computed when it is first asked for."""
        return self._predictor.probabilities(self.picture)

    def overlay(self, legend: bool = True) -> np.ndarray:
        """uint8 RGB: the picture with the classes' colours over it, and below it their legend."""
        from engine import pictures

        if legend:
            return pictures.overlay_with_legend(self.picture, self.labels, self.class_names)
        unnamed = self.class_names[0] != pictures.BACKGROUND
        return pictures.overlay(self.picture, self.labels, paint_background=unnamed)

    def save(self, path: str | Path) -> Path:
        """Writes the overlay with its legend as a PNG, whole or not at all; → where."""
        from files.writing import write_whole

        write_whole(Path(path), self._repr_png_())
        return Path(path)

    def save_labels(self, path: str | Path) -> Path:
        """Writes the labels as a palette PNG, as VOC's masks are; → where."""
        from data.voc import write_mask

        write_mask(Path(path), self.labels)
        return Path(path)

    def _repr_png_(self) -> bytes:
        from engine.pictures import png

        return png(self.overlay())

    def __repr__(self) -> str:
        found, counts = np.unique(self.labels, return_counts=True)
        order = np.argsort(-counts)
        shares = ", ".join(f"{self.class_names[found[i]]} {100 * counts[i] / self.labels.size:.1f} %" for i in order)
        height, width = self.labels.shape
        return f"Prediction({width}x{height}: {shares})"


@dataclass(frozen=True)
class Model:
    """A segmentation model that `load` opened.

    Attributes:
        path: what it was opened from.
        class_names: background first.
        network: the Keras model, images (N, H, W, 3) preprocessed as `network.preprocessing` says → logits; None for
            an export, as are `report` and `told`.
        report: what was loaded. told: what was known of the network before.
    """

    path: str
    class_names: tuple[str, ...]
    network: "keras.Model | None"
    report: "Report | None"
    told: "Told | None"
    how: Opening
    looks: Looks
    _predictor: "Predictor" = field(repr=False)

    @property
    def identity(self) -> "Identity | None":
        """What the checkpoint's names tell; None for an export."""
        return self.told.identity if self.told else None

    @property
    def assumed(self) -> str:
        """One line about what names cannot tell and was taken as its family has it; empty for nothing."""
        return self.told.assumed if self.told else ""

    def predict(self, picture: str | Path | np.ndarray, as_read: Pictures = Pictures()) -> Prediction:
        """Labels a picture: a file, or uint8 RGB (H, W, 3), of any size.

        Raises:
            UserError: a file that is no image, or an array of another kind.
        """
        from data.images import read_image

        image = picture if isinstance(picture, np.ndarray) else read_image(picture, **as_read.reading())
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(f"a picture must be uint8 RGB (H, W, 3). Received: {image.dtype} {image.shape}")
        return Prediction(image, self._predictor.labels(image), self.class_names, self._predictor)

    def evaluate(
        self,
        data: str | Path | None = None,
        image_set: str = "val",
        *,
        reading: Reading = Reading(),
        scores: ScoreFiles = ScoreFiles(),
        pictures: PredictionFiles = PredictionFiles(),
        as_read: Pictures = Pictures(),
    ) -> "Measured":
        """Scores the model on an image set in the VOC layout, as `eval_seg.py` does; prints as its table.

        Raises:
            UserError: data that cannot be read, or of other classes.
        """
        from data.voc import VOCSegmentation
        from inference import measuring

        folder = voc_folder(data, (image_set,))
        dataset = VOCSegmentation(folder, image_set, ignore_label=reading.ignore_label, **as_read.reading())
        measuring.check_classes(self.path, self._predictor, dataset)
        measuring.check_data(dataset)
        name = Path(self.path).name
        opened = measuring.OpenedModel(name, self.path, self._predictor, self.told, self.how, self.looks)
        return measuring.measure(opened, dataset, reading, scores, pictures)


def load(ckpt: str | os.PathLike, how: Opening = Opening(), looks: Looks = Looks()) -> Model:
    """Opens a segmentation model for prediction and evaluation.

    Args:
        ckpt: what `--ckpt` takes: a checkpoint, `.tar.gz`, directory, run, or export.
        how: what is otherwise than the run, else the checkpoint's names, tell.
        looks: how often an image is looked at.

    Raises:
        UserError: nothing there that can be opened, or not all of it; or an option that an export cannot heed.
    """
    from engine.startup import import_keras
    from inference.prediction import refuse_checkpoint_options
    from inference.runtimes import open_export

    path = os.fspath(ckpt)
    export = open_export(path)
    if export is not None:
        refuse_checkpoint_options(path, how, looks)
        return Model(path, tuple(export.class_names), None, None, None, how, looks, export)
    import_keras()
    from inference.opening import open_segmenter

    opened = open_segmenter(path, how)
    return Model(
        path,
        opened.class_names,
        opened.model,
        opened.report,
        opened.told,
        how,
        looks,
        opened.predictor(looks),
    )


def fine_tune(
    ckpt: str | os.PathLike | None,
    data: str | os.PathLike | None = None,
    *,
    model: str | None = None,
    stage2: bool = False,
    restore: Restore | None = None,
    architecture: Architecture | None = None,
    images: SegmentationImages | None = None,
    pictures: Pictures | None = None,
    loss: SegmentationLoss | None = None,
    recipe: Recipe | None = None,
    learning: Learning | None = None,
    run: Run | None = None,
    devices: Devices | None = None,
) -> "RunDirectory | None":
    """Fine-tunes DeepLab v3 from a checkpoint, as `train_seg.py` does; the same call goes on with a run.

    Args:
        ckpt: what `--ckpt` takes; None trains from scratch.
        data: folder in the VOC layout; None is the first that is there of `data.places.VOC_PLACES`.
        model: the backbone, e.g. "resnet_v2_50"; None is told from the checkpoint.
        stage2: the paper's second stage.
        restore … devices: groups of options; None is the paper's (`engine.options.FIRST_STAGE`, `SECOND_STAGE`).

    Returns:
        the run, which `load` takes; None after a dry run.

    Raises:
        UserError: what a user can mend, before anything is written or with what was written whole.
    """
    from engine.startup import import_keras

    import_keras()
    from training.segmentation import train_segmentation

    given: dict[str, Any] = {
        "restore": restore,
        "architecture": architecture,
        "images": images,
        "pictures": pictures,
        "loss": loss,
        "recipe": recipe,
        "learning": learning,
        "run": run,
        "devices": devices,
    }
    options = replace(
        SECOND_STAGE if stage2 else FIRST_STAGE, **{name: group for name, group in given.items() if group is not None}
    )
    folder = voc_folder(data, (options.images.train_set, options.images.val_set))
    checkpoint = None if ckpt is None else os.fspath(ckpt)
    return train_segmentation(checkpoint, folder, options, stage2=stage2, model=model)
