"""Fine-tunes a classifier from a slim checkpoint on folders of images.

python train_cls.py --ckpt resnet_v2_50.ckpt --data hymenoptera_data

DATA/train/CLASS/*.jpg and DATA/val/CLASS/*.jpg. The checkpoint's own classifier is left out by itself where the number
of classes differs.
"""

import argparse
from collections.abc import Sequence

import command_line
from engine.kinds import TEXT
from engine.options import ClassificationTraining


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.ProgramParser(__doc__)
    parser.add_argument(
        "--ckpt",
        required=True,
        help="checkpoint, archive, run or published name to start from; none: scratch",
    )
    parser.add_argument("--data", required=True, help="folder with train/CLASS and val/CLASS")
    parser.add_argument(
        "--model", type=command_line.argument_type(TEXT), help="backbone, e.g. resnet_v2_50 [told from the checkpoint]"
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="three runs under one budget (all learns, only what is new, from scratch), a table and a plot",
    )
    command_line.add_groups(parser, ClassificationTraining(), paper=False)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, or goes on with the run; or compares three."""
    args = parse_arguments(argv)
    from engine.startup import import_keras

    import_keras()
    from training.classification import train_classifier

    options = command_line.chosen_groups(args, ClassificationTraining())
    ckpt = None if args.ckpt == "none" else args.ckpt
    train_classifier(ckpt, args.data, options, model=args.model, compare=args.compare)


if __name__ == "__main__":
    command_line.start(main)
