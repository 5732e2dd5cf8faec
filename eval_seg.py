"""Measures segmentation models on an image set in the PASCAL VOC layout: IoU of each class and their means.

python eval_seg.py --ckpt runs/seg --data VOC2012
python eval_seg.py --ckpt runs/seg --data VOC2012 --output-stride 8 --multi-scale --flip
python eval_seg.py --ckpt runs/seg --data VOC2012 --image-set test --predict-only --voc-submission results.tar.gz

The model and its number of classes are told from the checkpoint, its settings from the run it lies in. Images are
padded with the mean pixel, never resized. Several checkpoints, runs or exports give one table side by side.
"""

import argparse
from collections.abc import Iterable, Sequence

import command_line
from data.places import VOC_PLACES, voc_folder
from engine.kinds import TEXT, flag
from engine.options import Looks, Opening, Pictures, PredictionFiles, Reading, ScoreFiles
from errors import UserError

ONE_MODEL_ONLY = ("sheet", "confusion", "worst", "save_pred", "voc_submission")
WITHOUT_MASKS = ("save_pred", "voc_submission")
OUTPUTS = ("json", "csv", "sheet", "confusion", "trimap", "worst", "save_pred", "voc_submission")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.ProgramParser(__doc__)
    command_line.add_models(parser)
    parser.add_argument("--data", help=f"folder in the VOC layout [the first there of {', '.join(VOC_PLACES)}]")
    parser.add_argument("--image-set", type=command_line.argument_type(TEXT), default="val", help="[%(default)s]")
    parser.add_argument(
        "--predict-only", action="store_true", help="the image set has no masks, as VOC's test: nothing is scored"
    )
    for group in (Reading(), Pictures(), Opening(), Looks(), ScoreFiles(), PredictionFiles()):
        command_line.add_options(parser, group)
    command_line.add_overwrite(parser)
    args = parser.parse_args(argv)
    check_flags(args)
    return args


def check_flags(args: argparse.Namespace) -> None:
    """Raises UserError for flags that contradict each other."""
    command_line.check_models(args, ONE_MODEL_ONLY)
    given = [name for name in OUTPUTS if getattr(args, name)]
    if args.predict_only:
        if refused := [name for name in given if name not in WITHOUT_MASKS]:
            raise UserError(f"--predict-only: without masks there is nothing to score: leave out {flags_of(refused)}")
        if not given:
            raise UserError(f"--predict-only: say what becomes of the predictions: {flags_of(WITHOUT_MASKS)}")


def flags_of(names: Iterable[str]) -> str:
    """The flags of several options, as text."""
    return ", ".join(map(flag, names))


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and says where the results are."""
    args = parse_arguments(argv)
    data = voc_folder(args.data, (args.image_set,))
    from engine.startup import import_keras

    import_keras()
    from data.voc import VOCSegmentation
    from inference import measuring

    how, looks = command_line.chosen(args, Opening), command_line.chosen(args, Looks)
    reading, scores = command_line.chosen(args, Reading), command_line.chosen(args, ScoreFiles)
    pictures = command_line.chosen(args, PredictionFiles)
    as_read = {"ignore_label": reading.ignore_label, **command_line.chosen(args, Pictures).reading()}
    dataset = VOCSegmentation(data, args.image_set, masks=not args.predict_only, **as_read)
    outputs = {name: path for name in OUTPUTS if (path := getattr(args, name))}
    measuring.check_outputs(outputs, dataset, args.overwrite)
    models = measuring.open_models(args.ckpt, how, looks, dataset)
    measuring.check_data(dataset)
    if args.predict_only:
        measuring.predict(models[0], dataset, reading, pictures)
    else:
        measured = []
        while models:  # each is let go before the next one runs
            measured.append(measuring.measure(models.pop(0), dataset, reading, scores, pictures))
        measuring.report(measured, dataset, scores)
    for name, path in outputs.items():
        print(f"{flag(name)}: {path}")


if __name__ == "__main__":
    command_line.start(main)
