"""Runs an old TensorFlow 1 graph and this project's model on one picture and compares them end point by end point.

python verify_port.py frozen.pb --ckpt resnet_v2_50.ckpt cat.jpg
python verify_port.py model.ckpt-30000.meta cat.jpg           the graph's own weights go into the model
python verify_port.py frozen.pb cat.jpg                       the same: the constants are the weights

The model is told from the names of the weights, the picture is preprocessed as it wants, the tensors are found by
slim's names. A frozen graph's constants are also compared with --ckpt variable by variable.

Exit code: 0 when all agree, 1 when something departs, 2 when something could not be read or run.
"""

import argparse

import command_line as cli
from errors import UserError


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD", help="frozen .pb; or .meta, its checkpoint's prefix or directory")
    parser.add_argument("image", metavar="IMAGE", help="picture to run both on")
    parser.add_argument("--ckpt", help="weights of this project's model [those of OLD]")
    parser.add_argument("--old-ckpt", help="variables of OLD's graph [beside the .meta, else --ckpt]")
    parser.add_argument("--input", metavar="NAME", help="tensor of OLD to feed the picture to [its placeholder]")
    parser.add_argument(
        "--feed", action="append", default=[], metavar="NAME=NUMBER", help="value of another placeholder of OLD"
    )
    parser.add_argument(
        "--scope",
        "--rename",
        dest="rename",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="the old scope OLD is the model's scope NEW, e.g. slim_resnet=resnet_v2_50",
    )
    parser.add_argument(
        "--tolerance", type=cli.nonnegative_float, default=1e-4, help="of the largest magnitude [%(default)s]"
    )
    parser.add_argument("--size", type=cli.positive_int, help="resize the picture to N x N [as OLD wants, else not]")
    parser.add_argument("--output-stride", type=int, choices=(4, 8, 16, 32), help="of the model [as OLD has it]")
    parser.add_argument("--multi-grid", type=cli.int_list, help="dilations of block4's units in a DeepLab [1,2,4]")
    parser.add_argument("--features", choices=("postnorm", "block4"), help="what a DeepLab's head is fed [postnorm]")
    parser.add_argument("--json", metavar="FILE", help="write all of it to this file too")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_arguments(argv)
    rename, feeds = cli.renames(args.rename), numbers(args.feed)

    from porting.verify import verify

    return 0 if verify(args, rename, feeds) else 1


def numbers(texts):
    """["name=0.5", …] → {"name": 0.5, …}"""
    pairs = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            pairs[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            raise UserError(f"--feed takes NAME=NUMBER, got {text!r}")
    return pairs


if __name__ == "__main__":
    cli.run(main)
