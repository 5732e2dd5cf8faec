"""An evaluation: opens models, measures each on a data set, and writes what was asked for."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.image_folder import LabelledPictures
from data.report import report_on
from data.voc import VOCSegmentation, unnamed
from engine.charts import confusion_picture, trimap_picture
from engine.kinds import flag as flag_of
from engine.options import Looks, Opening, PredictionFiles, Reading, ScoreFiles
from engine.pictures import png
from engine.scans import scan_folder
from engine.tables import write_scores
from errors import UserError
from files.output import claim
from files.writing import check_writable, write_whole
from inference import evaluation
from inference.boundary import TrimapCounter
from inference.metrics import score_rows, score_table, scores_by_class
from inference.opening import Told, open_segmenter
from inference.prediction import refuse_checkpoint_options
from inference.protocols import Predictor
from inference.submission import Submission, check_submission


@dataclass(frozen=True)
class OpenedModel:
    """A model to measure.

    Attributes:
        name: in tables. path: where it is. predictor: what labels images.
        told: what was known of it; None for an export. how, looks: how it was opened and looks at images.
    """

    name: str
    path: str
    predictor: Predictor
    told: Told | None
    how: Opening
    looks: Looks


@dataclass(frozen=True)
class Measured:
    """What was found of a model; prints as the table of its scores.

    Attributes:
        name: of the model. class_names: of the data.
        matrix: int64 (classes, classes), the confusion matrix.
        result: all that `--json` writes: "miou" …, fractions; "iou" by class.
    """

    name: str
    class_names: tuple[str, ...]
    matrix: np.ndarray
    result: dict[str, Any]

    def __getitem__(self, score: str) -> Any:
        """A score by its name: "miou", "pixel_accuracy", "iou" …"""
        return self.result[score]

    def __str__(self) -> str:
        return score_table({self.name: self.matrix}, self.class_names)


def open_models(paths: Sequence[str], how: Opening, looks: Looks, dataset: VOCSegmentation) -> list[OpenedModel]:
    """Opens checkpoints, runs and exports.

    Raises UserError where one cannot be opened, or has another number of classes than the data.
    """
    return [_open(name, path, how, looks, dataset) for name, path in zip(table_names(paths), paths, strict=True)]


def table_names(paths: Sequence[str]) -> list[str]:
    """What models are called in tables: the last part of their paths, or where two share it all of it."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _open(name: str, path: str, how: Opening, looks: Looks, dataset: VOCSegmentation) -> OpenedModel:
    from inference.runtimes import open_export

    predictor: Predictor | None = open_export(path)
    told = None
    if predictor is not None:
        refuse_checkpoint_options(path, how, looks)
    else:
        opened = open_segmenter(path, how)
        print(opened.introduction())
        predictor, told = opened.predictor(looks), opened.told
    check_classes(path, predictor, dataset)
    return OpenedModel(name, path, predictor, told, how, looks)


def check_classes(path: str, predictor: Predictor, dataset: VOCSegmentation) -> None:
    """Raises UserError where a model's classes are not the data's."""
    if predictor.num_classes != dataset.num_classes:
        raise UserError(
            f"{path}: has {predictor.num_classes} classes, {dataset.root} has {dataset.num_classes} "
            f"({', '.join(dataset.class_names)})"
        )
    if predictor.class_names != dataset.class_names and set(predictor.class_names) == set(dataset.class_names):
        raise UserError(f"{path}: has the data's classes in another order: {', '.join(predictor.class_names)}")
    if set(predictor.class_names).isdisjoint({*dataset.class_names, *unnamed(dataset.num_classes)}):
        theirs, ours = ", ".join(predictor.class_names), ", ".join(dataset.class_names)
        print(f"{path}: its classes, {theirs}, are compared with the data's, {ours}, by number", flush=True)


def check_data(dataset: VOCSegmentation) -> None:
    """Reads all masks once, says what was found, and raises DataError for what cannot have been meant."""
    found = report_on([dataset], remember=scan_folder())
    print(found.summary(), flush=True)
    found.check()


def check_outputs(
    outputs: Mapping[str, str], dataset: VOCSegmentation | LabelledPictures, overwrite: bool = False
) -> None:
    """Makes the folders of what is to be written, so that nothing is predicted in vain.

    Args:
        outputs: {flag's name: path}; `save_pred` is a folder, all others are files.
        overwrite: whether that folder may hold files that are no predictions of ours.

    Raises UserError where one cannot be written, two are one file, or predictions would lie among other files.
    """
    if "voc_submission" in outputs:
        check_submission(outputs["voc_submission"], dataset.num_classes)
    files = [file for index in range(len(dataset)) for file in dataset.files(index) if file is not None]
    own_files = {dataset.root.resolve(), *(file.resolve() for file in files)}
    # A folder of the data set may be a link to elsewhere, and one of masks may not be in use.
    own_folders = {dataset.root.resolve(), *(path.resolve() for path in dataset.root.glob("*/"))}
    own_folders |= {file.parent.resolve() for file in files}
    seen: dict[Path, str] = {}
    for name, written in outputs.items():
        path, flag = Path(written), flag_of(name)
        if path.resolve() in seen:
            raise UserError(f"{flag} {path}: {seen[path.resolve()]} is to be written there too; name another")
        seen[path.resolve()] = flag
        if name != "save_pred" and path.is_dir():
            raise UserError(f"{flag} {path}: is a folder; name a file")
        if name != "save_pred" and path.resolve() in own_files:
            raise UserError(f"{flag} {path}: is a file of the data set itself; name another")
        if name == "save_pred" and {path.resolve(), *path.resolve().parents} & own_folders:
            raise UserError(f"{flag} {path}: is a folder of the data set itself; name one outside {dataset.root}")
        if name == "save_pred":
            claim(path, flag, overwrite)
        else:
            check_writable(path)


def measure(
    model: OpenedModel,
    dataset: VOCSegmentation,
    reading: Reading = Reading(),
    scores: ScoreFiles = ScoreFiles(),
    pictures: PredictionFiles = PredictionFiles(),
) -> Measured:
    """Predicts and scores the whole data set; writes the predictions and pictures that are asked for."""
    classes, names = dataset.num_classes, dataset.class_names
    total = evaluation.ConfusionTotal(classes)
    trimap = TrimapCounter(classes) if scores.trimap else None
    worst = evaluation.WorstImages(classes, pictures.worst_images) if pictures.worst else None
    predict(model, dataset, reading, pictures, [consumer for consumer in (total, trimap, worst) if consumer])

    result = scores_by_class(total.matrix, names) | {
        "checkpoint": model.path,
        "image_set": dataset.image_set,
        "images": len(dataset),
        "model": model.told.config if model.told else None,
        "identity": str(model.told.identity) if model.told else None,
        "assumed": model.told.assumed if model.told else "",
        "scales": list(model.looks.scales),
        "flip": model.looks.flip,
        "window": model.looks.window,
        "crop_size": getattr(model.predictor, "crop_size", None),
        "precision": model.how.precision,
        "ema": model.how.ema,
        "confusion_matrix": total.matrix.tolist(),
    }
    if trimap:
        bands = [scores_by_class(matrix, names) for matrix in trimap.matrices]
        result["trimap"] = {"widths": list(trimap.widths)}
        result["trimap"] |= {score: [band[score] for band in bands] for score in ("miou", "miou_present")}
        result["trimap"]["iou"] = {name: [band["iou"][name] for band in bands] for name in names}
    if worst:
        result["worst"] = [{"name": dataset.names[index], "miou": miou} for miou, index, _ in worst.found]
        write_whole(str(pictures.worst), png(evaluation.worst_sheet(worst, dataset, names)))
    if pictures.confusion:
        write_whole(pictures.confusion, confusion_picture(total.matrix, names))
    if pictures.sheet:
        picture = evaluation.prediction_sheet(model.predictor, dataset, names, pictures.sheet_images)
        write_whole(pictures.sheet, png(picture))
    return Measured(model.name, names, total.matrix, result)


def predict(
    model: OpenedModel,
    dataset: VOCSegmentation,
    reading: Reading,
    pictures: PredictionFiles,
    consumers: Iterable[Any] = (),
) -> None:
    """Predicts the whole data set for the consumers, and for what writes the predictions that are asked for."""
    consumers = list(consumers)
    with contextlib.ExitStack() as stack:
        if pictures.save_pred:
            consumers.append(evaluation.PredictionWriter(pictures.save_pred, dataset.names))
        if pictures.voc_submission:
            submission = Submission(pictures.voc_submission, dataset.names, pictures.competition)
            consumers.append(stack.enter_context(submission))
        options = {"batch_size": reading.batch_size, "workers": reading.workers}
        evaluation.feed(consumers, model.predictor, dataset, **options)


def report(measured: Sequence[Measured], dataset: VOCSegmentation, scores: ScoreFiles) -> None:
    """Prints the scores of several Measured side by side, and writes the files that are asked for."""
    matrices = {found.name: found.matrix for found in measured}
    results = [found.result for found in measured]
    print(score_table(matrices, dataset.class_names))
    for image in results[0].get("worst", ()):
        print(f"worst: {image['name']}  mIoU {100 * image['miou']:.1f} %")
    write_scores(scores, score_rows(matrices, dataset.class_names), results)
    if scores.trimap:
        curves = {found.name: found.result["trimap"]["miou_present"] for found in measured}
        write_whole(scores.trimap, trimap_picture(results[0]["trimap"]["widths"], curves))
