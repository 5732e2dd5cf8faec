"""Classifies pictures.

python predict_cls.py --ckpt runs/cls photos/ 'more/*.jpg' --out predictions
python predict_cls.py --ckpt mobilenet_v2_1.0_224 photo.jpg

predictions/predictions.csv has a row a picture: its path, then its most probable classes and their probabilities.
predictions/sheet.png shows the first pictures with the class of each. --probabilities adds probabilities.npz:
`probabilities`, float32 (pictures, classes), `pictures` and `class_names`.

The model is a checkpoint, a run, or an export (SavedModel, .pb, .onnx, .tflite); its classes are told from
it, those of slim's own checkpoints are ImageNet's.

Exit code: 0; 1 when files were skipped because they could not be read (they are named); 2 for a mistake in the call.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import command_line
from engine.kinds import POSITIVE_INT
from engine.options import ClassifierOpening, Pictures
from errors import UserError


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.ProgramParser(__doc__)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="picture, folder of such, or quoted pattern")
    parser.add_argument(
        "--ckpt", required=True, metavar="MODEL", help="checkpoint, archive, run, export or published name"
    )
    parser.add_argument("--out", default="predictions", metavar="DIR", help="[%(default)s]")
    parser.add_argument(
        "--top", type=command_line.argument_type(POSITIVE_INT), default=5, metavar="N", help="classes [%(default)s]"
    )
    parser.add_argument("--sheet", action=argparse.BooleanOptionalAction, default=True, help="[--sheet]")
    parser.add_argument("--probabilities", action="store_true", help="write all of them: 4 bytes a picture and class")
    command_line.add_overwrite(parser)
    command_line.add_options(parser, ClassifierOpening())
    command_line.add_options(parser, Pictures())
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Classifies one picture after the other, then writes."""
    args = parse_arguments(argv)
    from data.images import IMAGE_SUFFIXES
    from files.output import claim
    from inference import classification, prediction

    sources = prediction.find_inputs(args.inputs, IMAGE_SUFFIXES)
    written = classification.Written(Path(args.out), args.top, args.sheet, args.probabilities)
    written.check(sources)
    claim(args.out, "--out", args.overwrite)
    model = classification.open_model(args.ckpt, command_line.chosen(args, ClassifierOpening), len(sources))
    print(model.introduction(), flush=True)
    skipped = 0
    for source, picture, found in classification.classify(model, sources, command_line.chosen(args, Pictures)):
        if picture is None or isinstance(found, UserError):
            skipped += 1
            print(f"skipped: {found}", file=sys.stderr, flush=True)
        else:
            print(f"{source}  {written.add(source, picture, found, model.classifier.class_names)}", flush=True)
    for path in written.write(model.classifier.class_names):
        print(path)
    print(f"{len(sources) - skipped} of {len(sources)} classified → {args.out}")
    return 1 if skipped else 0


if __name__ == "__main__":
    command_line.start(main)
