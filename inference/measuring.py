"""What `eval_seg.py` does: opens models, measures each on a data set, and writes what was asked for."""

import contextlib
import csv
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from data.images import write_whole
from engine.charts import confusion_picture, trimap_picture
from engine.pictures import png
from errors import UserError
from inference import evaluation
from inference.boundary import TrimapCounter
from inference.metrics import score_rows, score_table, scores_by_class
from inference.opening import open_segmenter
from inference.prediction import refuse_checkpoint_flags
from inference.submission import Submission, check_submission


@dataclass(frozen=True)
class OpenedModel:
    """A model to measure: its name in tables, its path, its predictor, and its configuration (None for an export)."""

    name: str
    path: str
    predictor: object
    config: dict | None


@dataclass(frozen=True)
class Measured:
    """What was found of a model: its name, its confusion matrix, and all that `--json` writes."""

    name: str
    matrix: object
    result: dict


def open_models(paths, args, dataset):
    """→ [OpenedModel] of checkpoints, runs and exports.

    Raises UserError where one cannot be opened, or has another number of classes than the data.
    """
    names = [Path(path).name for path in paths]
    names = names if len(set(names)) == len(names) else paths
    return [_open(name, path, args, dataset) for name, path in zip(names, paths, strict=True)]


def _open(name, path, args, dataset):
    from inference.runtimes import open_export

    predictor, config = open_export(path), None
    if predictor is not None:
        refuse_checkpoint_flags(path, args)
    else:
        opened = open_segmenter(path, args)
        lines = opened.report.text().splitlines()
        print(f"{lines[0]}\n{lines[-1]}")
        predictor, config = opened.predictor(scales=args.scales, flip=args.flip, window=args.window), opened.config
    if predictor.num_classes != dataset.num_classes:
        raise UserError(
            f"{path}: has {predictor.num_classes} classes, {dataset.root} has {dataset.num_classes} "
            f"({', '.join(dataset.class_names)})"
        )
    if predictor.class_names != dataset.class_names and set(predictor.class_names) == set(dataset.class_names):
        raise UserError(f"{path}: has the data's classes in another order: {', '.join(predictor.class_names)}")
    return OpenedModel(name, path, predictor, config)


def check_outputs(outputs, dataset):
    """Makes the folders of what is to be written, so that nothing is predicted in vain.

    Args:
        outputs: {flag's name: path}; `save_pred` is a folder, all others are files.

    Raises UserError where one cannot be written, two are one file, or predictions would replace masks.
    """
    if "voc_submission" in outputs:
        check_submission(outputs["voc_submission"], dataset.num_classes)
    own_folders = {dataset.root.resolve()}
    for index in range(len(dataset)):  # a folder of the data set may be a link to elsewhere
        own_folders |= {file.parent.resolve() for file in dataset.files(index) if file is not None}
    seen = {}
    for name, path in outputs.items():
        flag, path = f"--{name.replace('_', '-')}", Path(path)  # noqa: PLW2901
        if path.resolve() in seen:
            raise UserError(f"{flag} {path}: {seen[path.resolve()]} is to be written there too; name another")
        seen[path.resolve()] = flag
        folder = path if name == "save_pred" else path.parent
        if name != "save_pred" and path.is_dir():
            raise UserError(f"{flag} {path}: is a folder; name a file")
        if name == "save_pred" and {path.resolve(), path.resolve().parent} & own_folders:
            raise UserError(f"{flag} {path}: is a folder of the data set itself; name one outside {dataset.root}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UserError(f"{flag} {path}: cannot be written there ({error.strerror})") from error


def measure(model, dataset, args):
    """Predicts and scores the whole data set; writes the predictions and pictures that `args` ask for. → Measured"""
    classes, names = dataset.num_classes, dataset.class_names
    total = evaluation.ConfusionTotal(classes)
    trimap = TrimapCounter(classes) if args.trimap else None
    worst = evaluation.WorstImages(classes, args.worst_images) if args.worst else None
    predict(model, dataset, args, [consumer for consumer in (total, trimap, worst) if consumer])

    result = scores_by_class(total.matrix, names) | {
        "checkpoint": model.path,
        "image_set": dataset.image_set,
        "images": len(dataset),
        "model": model.config,
        "scales": list(args.scales),
        "flip": args.flip,
        "window": args.window,
        "crop_size": getattr(model.predictor, "crop_size", None),
        "precision": args.precision,
        "ema": args.ema,
        "confusion_matrix": total.matrix.tolist(),
    }
    if trimap:
        bands = [scores_by_class(matrix, names) for matrix in trimap.matrices]
        result["trimap"] = {"widths": list(trimap.widths)}
        result["trimap"] |= {score: [band[score] for band in bands] for score in ("miou", "miou_present")}
        result["trimap"]["iou"] = {name: [band["iou"][name] for band in bands] for name in names}
    if worst:
        result["worst"] = [{"name": dataset.names[index], "miou": miou} for miou, index, _ in worst.found]
        write_whole(args.worst, png(evaluation.worst_sheet(worst, dataset, names)))
    if args.confusion:
        write_whole(args.confusion, confusion_picture(total.matrix, names))
    if args.sheet:
        picture = evaluation.prediction_sheet(model.predictor, dataset, names, args.sheet_images)
        write_whole(args.sheet, png(picture))
    return Measured(model.name, total.matrix, result)


def predict(model, dataset, args, consumers=()):
    """Predicts the whole data set for the consumers, and for what writes predictions where `args` ask for them."""
    consumers = list(consumers)
    with contextlib.ExitStack() as stack:
        if args.save_pred:
            consumers.append(evaluation.PredictionWriter(args.save_pred, dataset.names))
        if args.voc_submission:
            submission = Submission(args.voc_submission, dataset.names, args.competition)
            consumers.append(stack.enter_context(submission))
        options = {"batch_size": args.batch_size, "workers": args.workers}
        evaluation.feed(consumers, model.predictor, dataset, **options)


def report(measured, dataset, args):
    """Prints the scores of several Measured side by side, and writes them where `args` ask for it."""
    matrices = {found.name: found.matrix for found in measured}
    results = [found.result for found in measured]
    print(score_table(matrices, dataset.class_names))
    for image in results[0].get("worst", ()):
        print(f"worst: {image['name']}  mIoU {100 * image['miou']:.1f} %")
    if args.csv:
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows(score_rows(matrices, dataset.class_names))
        write_whole(args.csv, lines.getvalue().encode())
    if args.trimap:
        curves = {found.name: found.result["trimap"]["miou_present"] for found in measured}
        write_whole(args.trimap, trimap_picture(results[0]["trimap"]["widths"], curves))
    if args.json:
        content = results[0] if len(results) == 1 else results
        write_whole(args.json, json.dumps(content, indent=1, allow_nan=False).encode())
