"""Fine-tunes DeepLab v3 from a slim checkpoint on images in the PASCAL VOC layout.

python train_seg.py --ckpt resnet_v2_50
python train_seg.py --ckpt resnet_v2_50.ckpt --data VOC2012
python train_seg.py --stage2 --ckpt runs/seg --data VOC2012

The defaults are the paper's recipe (Chen et al., "Rethinking Atrous Convolution", section 4), --stage2 its second half.
"""

import argparse
from collections.abc import Sequence

import command_line
from data.places import VOC_PLACES, voc_folder
from engine.kinds import TEXT
from engine.options import FIRST_STAGE, SECOND_STAGE


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags; where --stage2 is among them, over the second stage's defaults."""
    args = _parser(stage2=False).parse_args(argv)
    return _parser(stage2=True).parse_args(argv) if args.stage2 else args


def _parser(stage2: bool) -> argparse.ArgumentParser:
    parser = command_line.ProgramParser(__doc__)
    parser.add_argument(
        "--ckpt",
        required=True,
        help="checkpoint, archive, run or published name to start from; none: scratch",
    )
    parser.add_argument("--data", help=f"folder in the VOC layout [the first there of {', '.join(VOC_PLACES)}]")
    parser.add_argument(
        "--model", type=command_line.argument_type(TEXT), help="backbone, e.g. resnet_v2_50 [told from the checkpoint]"
    )
    parser.add_argument(
        "--stage2",
        action="store_true",
        help="the paper's second stage, from the first one's run, all of whose model is restored: output stride 8, "
        "frozen batch norm, base rate 0.001; flags given besides win",
    )
    command_line.add_groups(parser, SECOND_STAGE if stage2 else FIRST_STAGE)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, or goes on with the run."""
    args = parse_arguments(argv)
    options = command_line.chosen_groups(args, FIRST_STAGE)
    data = voc_folder(args.data, (options.images.train_set, options.images.val_set))
    from engine.startup import import_keras

    import_keras()
    from training.segmentation import train_segmentation

    ckpt = None if args.ckpt == "none" else args.ckpt
    train_segmentation(ckpt, data, options, stage2=args.stage2, model=args.model)


if __name__ == "__main__":
    command_line.start(main)
