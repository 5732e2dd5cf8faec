"""Classifiers measured on pictures whose classes are known: top 1 and top 5, by class, and what is taken for what."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.image_folder import LabelledPictures
from data.imagenet import imagenet_ids, imagenet_names
from engine.charts import confusion_picture
from engine.options import PredictionFiles, Reading, ScoreFiles
from engine.pictures import captioned, fitted, png, spread_over
from engine.tables import write_scores
from errors import UserError
from files.writing import write_whole
from inference.classification import TILE, TOP, OpenedModel, probabilities_of
from inference.evaluation import ImageProgress, read_ahead

OTHERS = "any other"  # what a picture is taken for, where none of the data's classes is
MEANS = {"top1": "top 1", "top5": "top 5", "mean_class_accuracy": "mean over classes"}


def labels_of(model: OpenedModel, dataset: LabelledPictures, said: Mapping[str, str]) -> list[int]:
    """Which of the model's classes each of the data's is: by its name, its number, or its WordNet id for ImageNet's.

    Args:
        said: {the data's class: the model's}, for those that have other names.

    Raises UserError where one is none of the model's, or two are the same.
    """
    names = model.classifier.class_names
    if absent := [word for word in said if word not in dataset.class_names]:
        raise UserError(
            f"--label {absent[0]}={said[absent[0]]}: {dataset.root} has no class {absent[0]!r}, but "
            f"{_some(dataset.class_names)}"
        )
    known = _known(names)
    labels: dict[int, str] = {}
    for word in dataset.class_names:
        label = known.get(said.get(word, word))
        if label is None:
            raise UserError(
                f"{dataset.root}: its class {said.get(word, word)!r} is none of the {len(names)} of {model.path} "
                f"({_some(names)}); say which it is: --label {word}=CLASS, by name or number"
            )
        if label in labels:
            raise UserError(f"{dataset.root}: {labels[label]!r} and {word!r} are both the model's {names[label]!r}")
        labels[label] = word
    return list(labels)


def _known(names: Sequence[str]) -> dict[str, int]:
    """{what a class may be called: its label}."""
    known: dict[str, int] = {}
    if not any(name.isdecimal() for name in names):  # else a number is a name
        known |= {str(label): label for label in range(len(names))}
    if names == imagenet_names(len(names)):
        known |= {word: label for label, word in enumerate(imagenet_ids(len(names)) or ()) if word}
    return known | {name: label for label, name in enumerate(names)}


def _some(names: Sequence[str]) -> str:
    """The first few of some names."""
    return ", ".join(names[:TOP]) + (" …" if len(names) > TOP else "")


@dataclass(frozen=True)
class Answers:
    """What a model says of pictures whose classes are known; arrays (N,).

    Attributes:
        truth: the data's class, an index. said: the model's label. rank: how many labels come before the true one.
        probability: of the true one. said_probability: of the one that is said.
    """

    truth: np.ndarray
    said: np.ndarray
    rank: np.ndarray
    probability: np.ndarray
    said_probability: np.ndarray


def answers_of(
    model: OpenedModel, dataset: LabelledPictures, labels: Sequence[int], reading: Reading = Reading()
) -> Answers:
    """Classifies a whole data set; `labels` as of `labels_of`."""
    length, size = len(dataset), reading.batch_size
    batches = [range(start, min(start + size, length)) for start in range(0, length, size)]
    rows: list[tuple[int, int, int, float, float]] = []
    with ImageProgress(length) as progress:
        for _, samples in read_ahead(dataset, batches, reading.workers):
            found = probabilities_of(model, [image for image, _ in samples])
            for (_, truth), row in zip(samples, found, strict=True):
                label = labels[truth]
                before = (row > row[label]).sum() + (row[:label] == row[label]).sum()
                rows.append((truth, int(row.argmax()), int(before), float(row[label]), float(row.max())))
                progress.advance()
    return Answers(*map(np.array, zip(*rows, strict=True)))


@dataclass(frozen=True)
class Measured:
    """What was found of a classifier; prints as the table of its scores.

    Attributes:
        name: of the model. class_names: of the data. answers: to each picture.
        result: all that `--json` writes: "top1" …, fractions; "classes", the same by class.
    """

    name: str
    class_names: tuple[str, ...]
    answers: Answers
    result: dict[str, Any]

    def __getitem__(self, score: str) -> Any:
        """A score by its name: "top1", "top5", "loss" …"""
        return self.result[score]

    def __str__(self) -> str:
        return table([self])


def measure(
    name: str,
    model: OpenedModel,
    dataset: LabelledPictures,
    labels: Sequence[int],
    reading: Reading = Reading(),
    pictures: PredictionFiles = PredictionFiles(),
) -> Measured:
    """Classifies and scores the whole data set; writes the pictures that are asked for."""
    answers = answers_of(model, dataset, labels, reading)
    names, opened = dataset.class_names, model.opened
    columns = list(names) + ([OTHERS] if model.classifier.num_classes > len(names) else [])
    matrix = confusion(answers, labels)[:, : len(columns)]
    result = scores(answers, names, model.classifier.num_classes) | {
        "checkpoint": model.path,
        "data": str(dataset.root),
        "labels": dict(zip(names, labels, strict=True)),
        "skipped": len(dataset.skipped),
        "model": opened.told.config if opened else None,
        "identity": str(opened.told.identity) if opened else None,
        "assumed": opened.told.assumed if opened else "",
        "view": vars(opened.view) if opened else None,
        "ema": opened.ema if opened else None,
        "confusion_columns": columns,
        "confusion_matrix": matrix.tolist(),
    }
    if pictures.worst:
        worst = np.argsort(answers.probability, kind="stable")[: pictures.worst_images].tolist()
        result["worst"] = [
            {"picture": str(dataset.samples[index][0]), **_said(model, dataset, answers, index)} for index in worst
        ]
        write_whole(pictures.worst, png(_sheet(model, dataset, answers, worst)))
    if pictures.sheet:
        shown = spread_over(len(dataset), pictures.sheet_images)
        write_whole(pictures.sheet, png(_sheet(model, dataset, answers, shown)))
    if pictures.confusion:
        write_whole(pictures.confusion, confusion_picture(matrix, names, columns, of="pictures"))
    return Measured(name, tuple(names), answers, result)


def confusion(answers: Answers, labels: Sequence[int]) -> np.ndarray:
    """int64 (classes, classes + 1): pictures by the data's class and by what they are taken for, last any other."""
    column = {label: number for number, label in enumerate(labels)}
    matrix = np.zeros((len(labels), len(labels) + 1), np.int64)
    for truth, said in zip(answers.truth.tolist(), answers.said.tolist(), strict=True):
        matrix[truth, column.get(said, len(labels))] += 1
    return matrix


def scores(answers: Answers, class_names: Sequence[str], num_classes: int) -> dict[str, Any]:
    """{"pictures", "top1", "top5", "mean_class_accuracy", "loss", "classes": {name: …}}: fractions, and nats.

    Args:
        num_classes: of the model. Where it has no more than TOP, "top5" says nothing and is None.
    """

    def accuracies(rank: np.ndarray) -> dict[str, Any]:
        within = float((rank < TOP).mean()) if num_classes > TOP else None
        return {"pictures": len(rank), "top1": float((rank == 0).mean()), "top5": within}

    by_class = {name: accuracies(answers.rank[answers.truth == index]) for index, name in enumerate(class_names)}
    return {
        **accuracies(answers.rank),
        "mean_class_accuracy": float(np.mean([found["top1"] for found in by_class.values()])),
        "loss": float(-np.log(np.maximum(answers.probability, np.finfo(np.float32).tiny)).mean()),
        "classes": by_class,
    }


def table(measured: Sequence[Measured]) -> str:
    """The scores of one or several models on the same data as text: a line a class, then the means, in percent."""
    several = len(measured) > 1
    names = measured[0].class_names
    width = max(map(len, (*names, *MEANS.values())))
    heads = [found.name for found in measured] if several else ["top 1 [%]", "top 5 [%]"]
    keys = ["top1"] if several else ["top1", "top5"]
    widths = [max(7, len(head)) for head in heads]

    def line(name: str, values: Iterable[float | None], digits: int, end: str = "") -> str:
        cells = ("-" if value is None else f"{100 * value:.{digits}f}" for value in values)
        return "  ".join([f"{name:<{width}}", *map(str.rjust, cells, widths)]) + end

    lines = ["  ".join([f"{'class':<{width}}", *map(str.rjust, heads, widths), f"{'pictures':>8}"])]
    for name in names:
        values = [found["classes"][name][key] for found in measured for key in keys]
        lines.append(line(name, values, 1, f"  {measured[0]['classes'][name]['pictures']:>8,}"))
    for key, title in MEANS.items():
        lines.append(line(title, [found[key] for found in measured], 2))
    return "\n".join(lines)


def rows(measured: Sequence[Measured]) -> list[list[Any]]:
    """The scores for other programs: a header, a row a class and score, a row a mean; fractions, "" for none."""
    found: list[tuple[Any, ...]] = [("score", "class", *(each.name for each in measured))]
    for key in ("top1", "top5"):
        found += [(key, name, *(each["classes"][name][key] for each in measured)) for name in measured[0].class_names]
    found += [(key, "", *(each[key] for each in measured)) for key in (*MEANS, "loss")]
    return [["" if cell is None else cell for cell in row] for row in found]


def report(measured: Sequence[Measured], files: ScoreFiles = ScoreFiles()) -> None:
    """Prints the scores of several Measured side by side, and writes the files that are asked for."""
    print(table(measured))
    if len(measured) == 1:
        right = round(measured[0]["top1"] * measured[0]["pictures"])
        print(f"{right} of {measured[0]['pictures']} pictures right, loss {measured[0]['loss']:.4f}")
    for picture in measured[0].result.get("worst", ()):
        print(f"worst: {picture['picture']}  {_caption(picture)}")
    write_scores(files, rows(measured), [found.result for found in measured])


def _said(model: OpenedModel, dataset: LabelledPictures, answers: Answers, index: int) -> dict[str, Any]:
    return {
        "class": dataset.class_names[answers.truth[index]],
        "probability": float(answers.probability[index]),
        "said": model.classifier.class_names[answers.said[index]],
        "said_probability": float(answers.said_probability[index]),
        "right": bool(answers.rank[index] == 0),
    }


def _caption(said: Mapping[str, Any]) -> str:
    if said["right"]:
        return f"{said['class']} {100 * said['probability']:.1f} %"
    return (
        f"{said['said']} {100 * said['said_probability']:.1f} %, is {said['class']} {100 * said['probability']:.1f} %"
    )


def _sheet(model: OpenedModel, dataset: LabelledPictures, answers: Answers, chosen: Sequence[int]) -> np.ndarray:
    said = [_said(model, dataset, answers, index) for index in chosen]
    images = np.stack([fitted(dataset[index][0], TILE) for index in chosen])
    return captioned(images, [(_caption(each), each["right"]) for each in said])
