"""The door for Python: what the programs do, in a notebook.

    import slim_deeplab

    m = slim_deeplab.load("deeplabv3_mnv2_pascal_trainval.ckpt")    # a checkpoint, .tar.gz, directory, run or export
    m.predict("photo.jpg")                                          # a notebook shows the overlay and its legend
    print(m.evaluate("VOC2012", image_set="val"))                   # the table of `eval_seg.py`
    slim_deeplab.load("runs/cls").predict("photo.jpg").classes      # a classifier's, the most probable first
    run = slim_deeplab.fine_tune("resnet_v2_50.ckpt", "VOC2012", recipe=slim_deeplab.Recipe(steps=3000))

Options are groups (`engine.options`): `Opening(output_stride=8)`, `Looks(flip=True)`, `Recipe(steps=3000)`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from data.places import voc_folder
from engine.options import (
    FIRST_STAGE,
    SECOND_STAGE,
    Architecture,
    ClassifierOpening,
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
    Weights,
)
from errors import UserError

if TYPE_CHECKING:
    import keras

    from engine.run_directory import RunDirectory
    from inference.accuracy import Measured as MeasuredClassifier
    from inference.classification import OpenedModel
    from inference.measuring import Measured
    from inference.opening import Told
    from inference.protocols import Predictor
    from models.identify import Identity
    from models.weight_init import Report

__all__ = [
    "Architecture",
    "Classification",
    "Classifier",
    "ClassifierOpening",
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
class _Loaded:
    """What `load` opened.

    Attributes:
        path: what it was opened from. class_names: in the order of its outputs.
        network: the Keras model, images (N, H, W, 3) preprocessed as `network.preprocessing` says → logits; None for
            an export, as are `report` and `told`.
        report: what was loaded. told: what was known of the network before.
    """

    path: str
    class_names: tuple[str, ...]
    network: "keras.Model | None"
    report: "Report | None"
    told: "Told | None"

    @property
    def identity(self) -> "Identity | None":
        """What the checkpoint's names tell; None for an export."""
        return self.told.identity if self.told else None

    @property
    def assumed(self) -> str:
        """One line about what names cannot tell and was taken as its family has it; empty for nothing."""
        return self.told.assumed if self.told else ""


@dataclass(frozen=True)
class Model(_Loaded):
    """A segmentation model that `load` opened; its classes have the background first."""

    how: Opening
    looks: Looks
    _predictor: "Predictor" = field(repr=False)

    def predict(self, picture: str | Path | np.ndarray, as_read: Pictures = Pictures()) -> Prediction:
        """Labels a picture: a file, or uint8 RGB (H, W, 3), of any size.

        Raises:
            UserError: a file that is no image, or an array of another kind.
        """
        image = _picture(picture, as_read)
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


@dataclass(frozen=True)
class Classification:
    """A picture, and what a classifier says of it. A notebook shows it with its class.

    Attributes:
        picture: uint8 RGB (H, W, 3). class_names: of the model.
        probabilities: float32 (classes,), in the order of `class_names`.
    """

    picture: np.ndarray
    class_names: tuple[str, ...]
    probabilities: np.ndarray

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, the most probable first."""
        return tuple(name for name, _ in self.best(len(self.class_names)))

    def best(self, top: int = 5) -> list[tuple[str, float]]:
        """[(class, probability)] of the most probable classes, the most first."""
        from inference.classification import best

        return best(self.probabilities, self.class_names, top)

    def _repr_png_(self) -> bytes:
        from engine.pictures import captioned, fitted, png

        return png(captioned(fitted(self.picture, 320)[None], [(self._caption(), True)], columns=1))

    def _caption(self) -> str:
        (name, probability), *_ = self.best(1)
        return f"{name} {100 * probability:.1f} %"

    def __repr__(self) -> str:
        height, width = self.picture.shape[:2]
        said = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in self.best())
        return f"Classification({width}x{height}: {said})"


@dataclass(frozen=True)
class Classifier(_Loaded):
    """A classifier that `load` opened."""

    _opened: "OpenedModel" = field(repr=False)

    def predict(self, picture: str | Path | np.ndarray, as_read: Pictures = Pictures()) -> Classification:
        """Classifies a picture: a file, or uint8 RGB (H, W, 3), of any size.

        Raises:
            UserError: a file that is no image, or an array of another kind.
        """
        from inference.classification import probabilities_of

        image = _picture(picture, as_read)
        return Classification(image, self.class_names, probabilities_of(self._opened, [image])[0])

    def evaluate(
        self,
        data: str | Path,
        image_set: str = "val",
        *,
        label: Mapping[str, str] = MappingProxyType({}),
        reading: Reading = Reading(batch_size=16),
        pictures: PredictionFiles = PredictionFiles(),
        as_read: Pictures = Pictures(),
    ) -> "MeasuredClassifier":
        """Scores the classifier on DATA/IMAGE_SET/CLASS/ or a list, as `eval_cls.py` does; prints as its table.

        Args:
            label: {the data's class: the model's}, for those that have other names.

        Raises:
            UserError: data that cannot be read, or a class that the model does not have.
        """
        from data.image_folder import labelled_pictures
        from inference import accuracy

        dataset = labelled_pictures(data, image_set, **as_read.reading())
        labels = accuracy.labels_of(self._opened, dataset, label)
        return accuracy.measure(Path(self.path).name, self._opened, dataset, labels, reading, pictures)


def _picture(picture: str | Path | np.ndarray, as_read: Pictures) -> np.ndarray:
    from data.images import read_image

    image = picture if isinstance(picture, np.ndarray) else read_image(picture, **as_read.reading())
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"a picture must be uint8 RGB (H, W, 3). Received: {image.dtype} {image.shape}")
    return image


def load(ckpt: str | os.PathLike, how: Weights | None = None, looks: Looks = Looks()) -> Model | Classifier:
    """Opens a model for prediction and evaluation: a segmentation model, or a classifier.

    Args:
        ckpt: what `--ckpt` takes: a checkpoint, `.tar.gz`, directory, run, or export.
        how: what is otherwise than the run, else the checkpoint's names, tell: an Opening, or of a classifier a
            ClassifierOpening.
        looks: how often an image is looked at; not by a classifier.

    Raises:
        UserError: nothing there that can be opened, or not all of it; or an option that an export cannot heed, or that
            is for the other kind of model.
    """
    from engine.startup import import_keras
    from inference.prediction import refuse_checkpoint_options
    from inference.runtimes import open_export

    path = os.fspath(ckpt)
    export = open_export(path, classifies=None)
    if export is None:
        import_keras()
        from inference.opening import classifies, open_segmenter

        is_classifier = classifies(path, how or Opening())
    else:
        is_classifier = export.classifies
    kind, is_one = (ClassifierOpening, "a classifier") if is_classifier else (Opening, "a segmentation model")
    if not isinstance(how or kind(), kind):
        raise UserError(f"{path}: is {is_one}; how it is opened is a {kind.__name__}. Received: {how}")
    if is_classifier:
        return _classifier(path, how, looks)
    opening = how if isinstance(how, Opening) else Opening()
    if export is not None:
        refuse_checkpoint_options(path, opening, looks)
        return Model(path, tuple(export.class_names), None, None, None, opening, looks, export)
    opened = open_segmenter(path, opening)
    return Model(
        path,
        opened.class_names,
        opened.model,
        opened.report,
        opened.told,
        opening,
        looks,
        opened.predictor(looks),
    )


def _classifier(path: str, how: Weights | None, looks: Looks) -> Classifier:
    from engine.kinds import changed
    from inference.classification import open_model

    if given := changed(looks):
        raise UserError(f"{path}: is a classifier, which looks at a picture once; leave out {', '.join(given)}")
    model = open_model(path, how if isinstance(how, ClassifierOpening) else ClassifierOpening())
    opened, names = model.opened, tuple(model.classifier.class_names)
    if opened is None:
        return Classifier(path, names, None, None, None, model)
    return Classifier(path, names, opened.model, opened.report, opened.told, model)


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
