"""Measures classifiers on pictures whose classes are known: top 1 and top 5, by class, and what is taken for what.

python eval_cls.py --ckpt runs/cls --data hymenoptera_data
python eval_cls.py --ckpt mobilenet_v2_1.0_224 --data hymenoptera_data --label ants=ant,bees=bee
python eval_cls.py --ckpt runs/cls exported/model.onnx --data pictures.txt --json scores.json

The data are DATA/val/CLASS/*.jpg, or a text file of lines PATH CLASS. A class is the model's of the same name or
number, or for ImageNet's classes of the same WordNet id; --label says which it is otherwise. Model, classes and what is
seen of a picture are told from the run; of a checkpoint alone they are slim's, and printed.
"""

import argparse
from collections.abc import Sequence

import command_line
from engine.kinds import LABELLED, flag
from engine.options import ClassifierOpening, Pictures, PredictionFiles, Reading, ScoreFiles

OF_SCORES = ("json", "csv")
OF_ONE_MODEL = ("sheet", "worst", "confusion")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.ProgramParser(__doc__)
    command_line.add_models(parser)
    parser.add_argument("--data", required=True, help="folder with IMAGE_SET/CLASS, or a list: PATH CLASS a line")
    parser.add_argument("--image-set", default="val", help="folder in --data; . for --data itself [%(default)s]")
    parser.add_argument(
        "--label",
        type=command_line.argument_type(LABELLED),
        default={},
        metavar="THEIRS=OURS,…",
        help="the data's class THEIRS is the model's OURS, its name or number, e.g. ants=ant",
    )
    parser.add_argument("--strict-data", action="store_true", help="stop at files that are no images, do not skip them")
    command_line.add_options(parser, Reading(batch_size=16), only=("batch_size", "workers"))
    command_line.add_options(parser, Pictures())
    command_line.add_options(parser, ClassifierOpening())
    command_line.add_options(parser, ScoreFiles(), only=OF_SCORES)
    command_line.add_options(parser, PredictionFiles(), only=(*OF_ONE_MODEL, "sheet_images", "worst_images"))
    args = parser.parse_args(argv)
    command_line.check_models(args, OF_ONE_MODEL)
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and says where the results are."""
    args = parse_arguments(argv)
    from data.image_folder import labelled_pictures
    from engine.startup import import_keras

    dataset = labelled_pictures(
        args.data, args.image_set, args.strict_data, **command_line.chosen(args, Pictures).reading()
    )
    for path, reason in dataset.skipped:
        print(f"skipped: {path}: {reason}", flush=True)
    import_keras()
    from inference import accuracy
    from inference.classification import open_model
    from inference.measuring import check_outputs, table_names

    outputs = {name: path for name in (*OF_SCORES, *OF_ONE_MODEL) if (path := getattr(args, name))}
    check_outputs(outputs, dataset)
    how, reading = command_line.chosen(args, ClassifierOpening), command_line.chosen(args, Reading)
    pictures = command_line.chosen(args, PredictionFiles)
    measured = []
    for name, path in zip(table_names(args.ckpt), args.ckpt, strict=True):
        model = open_model(path, how)
        print(model.introduction(), flush=True)
        labels = accuracy.labels_of(model, dataset, args.label)
        measured.append(accuracy.measure(name, model, dataset, labels, reading, pictures))
    accuracy.report(measured, command_line.chosen(args, ScoreFiles))
    for name, path in outputs.items():
        print(f"{flag(name)}: {path}")


if __name__ == "__main__":
    command_line.start(main)
