"""Makes data sets in the layouts that the other programs read.

python prepare_data.py voc --out VOC2012                         PASCAL VOC 2012 with SBD's masks: trainaug and val
python prepare_data.py sample --out demo/voc                     shapes to segment, in VOC's layout
python prepare_data.py sample --out demo/shapes --kind folder    the same shapes to classify, one folder a class
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import command_line
from engine.kinds import NONNEGATIVE_INT, POSITIVE_INT
from errors import UserError


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line as a namespace."""
    parser = command_line.ProgramParser(__doc__)
    commands = parser.add_subparsers(title="what is made", metavar="COMMAND", required=True)
    sample = commands.add_parser("sample", help="a small data set of drawn shapes", description=draw_sample.__doc__)
    sample.set_defaults(make=draw_sample)
    sample.add_argument("--out", required=True, metavar="FOLDER", help="where it is drawn")
    sample.add_argument(
        "--kind", choices=("voc", "folder"), default="voc", help="VOC's layout, or one folder a class [%(default)s]"
    )
    counts: dict[str, Any] = {"type": command_line.argument_type(POSITIVE_INT), "metavar": "N"}
    sample.add_argument(
        "--train", **counts, default=48, help="training images; for folder, of each class [%(default)s]"
    )
    sample.add_argument(
        "--val", **counts, default=16, help="validation images; for folder, of each class [%(default)s]"
    )
    sample.add_argument(
        "--seed",
        type=command_line.argument_type(NONNEGATIVE_INT),
        default=0,
        help="same seed, same bytes [%(default)s]",
    )
    _add_voc(commands)
    return parser.parse_args(argv)


def _add_voc(commands: Any) -> None:
    voc = commands.add_parser("voc", help="PASCAL VOC 2012 with SBD's masks", description=make_voc.__doc__)
    voc.set_defaults(make=make_voc)
    voc.add_argument(
        "--out", required=True, metavar="FOLDER", help="where it is made; VOC as it was unpacked there is taken"
    )
    voc.add_argument("--voc", metavar="ARCHIVE", help="VOCtrainval_11-May-2012.tar [downloaded, 2.0 GB]")
    voc.add_argument("--sbd", metavar="ARCHIVE", help="SBD's benchmark.tgz [downloaded, 1.4 GB]")
    voc.add_argument("--accept-other", action="store_true", help="take archives of other checksums than the official")


def main(argv: Sequence[str] | None = None) -> None:
    """Makes what the command names; UserError where it cannot be written."""
    args = parse_arguments(argv)
    try:
        args.make(args)
    except OSError as error:
        raise UserError(f"--out {args.out}: cannot be written ({error.strerror})") from error


def draw_sample(args: argparse.Namespace) -> None:
    """Draws discs, squares, triangles and stars, of which only the form tells the classes apart."""
    from data.sample import draw_image_folder, draw_voc

    draw = draw_voc if args.kind == "voc" else draw_image_folder
    draw(args.out, args.train, args.val, args.seed)
    print(f"Drew {args.train} training and {args.val} validation images under {args.out}.")


def make_voc(args: argparse.Namespace) -> None:
    """Makes VOC 2012 with the 10,582 images of trainaug from both official archives, or goes on where it was killed."""
    from data.prepare.voc import SBD, VOC, Archive, checked, prepare_voc
    from engine.download import download

    def archive(given: str | None, official: Archive) -> Path:
        if given is None:
            return download(official.address, f"md5:{official.md5}")
        return checked(given, official, args.accept_other)

    print(prepare_voc(args.out, lambda: archive(args.voc, VOC), lambda: archive(args.sbd, SBD)))
    print(f"python train_seg.py --ckpt resnet_v2_50 --data {args.out}")


if __name__ == "__main__":
    command_line.run(main)
