"""Predicts pictures and videos with a segmentation model.

python predict_seg.py --ckpt runs/seg photos/ 'more/*.jpg' holiday.mp4 --out predictions

Each picture NAME gives NAME.png, the class indices as a palette PNG of the picture's own size (turned as
its orientation tag says, as viewers show it), and NAME_overlay.png, the picture with the classes' colours over it and
their legend below. --probabilities adds NAME_probabilities.npz: `probabilities`, float32 (H, W, classes), and
`class_names`. A video gives NAME_overlay.mp4 and NAME_legend.png.

The model is a checkpoint, a run, or an export (SavedModel, .pb, .onnx, .tflite); classes are told from it.

Exit code: 0; 1 when files were skipped because they could not be read (they are named); 2 for a mistake in the call,
such as an input that does not exist or two that would be written under one name, before anything is predicted.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import command_line
from engine.options import Looks, Opening, Pictures
from errors import UserError

STARTED = time.perf_counter()


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.ProgramParser(__doc__)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image, video, folder of such, or quoted pattern")
    parser.add_argument(
        "--ckpt", required=True, metavar="MODEL", help="checkpoint, archive, run, export or published name"
    )
    parser.add_argument("--out", default="predictions", metavar="DIR", help="[%(default)s]")
    parser.add_argument("--overlay", action=argparse.BooleanOptionalAction, default=True, help="[--overlay]")
    parser.add_argument("--probabilities", action="store_true", help="write them too: 4 bytes a pixel and class")
    parser.add_argument("--classes", metavar="FILE", help="names, one a line, background first [the model's]")
    parser.add_argument("--timing", action="store_true", help="say where the time went; predicts the first image twice")
    command_line.add_overwrite(parser)
    command_line.add_options(parser, Opening())
    command_line.add_options(parser, Looks())
    command_line.add_options(parser, Pictures())
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Predicts one input after the other."""
    args = parse_arguments(argv)
    from files.output import claim
    from inference import prediction

    watch = prediction.Stopwatch(STARTED)
    tasks = prediction.plan(prediction.find_inputs(args.inputs), args.out, args.overlay, args.probabilities)
    claim(args.out, "--out", args.overwrite)
    predictor = prediction.open_predictor(
        args.ckpt, command_line.chosen(args, Opening), command_line.chosen(args, Looks), tasks, watch
    )
    as_read = command_line.chosen(args, Pictures)
    class_names = prediction.class_names_of(predictor, args.classes)
    skipped = 0
    for task, found in prediction.predict(predictor, class_names, tasks, as_read):
        if isinstance(found, UserError):
            skipped += 1
            print(f"skipped: {found}", file=sys.stderr, flush=True)
        else:
            print(f"{task.source}  {found}", flush=True)
        watch.lap("first input read, predicted, written" if task is tasks[0] else "the other inputs")
    print(f"{len(tasks) - skipped} of {len(tasks)} predicted → {args.out}")
    if args.timing:
        prediction.time_network(predictor, tasks[0], watch)
        print(watch)
    return 1 if skipped else 0


if __name__ == "__main__":
    command_line.start(main)
