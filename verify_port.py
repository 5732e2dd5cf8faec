"""Runs an old TensorFlow 1 graph and this project's model on one picture and compares them end point by end point.

python verify_port.py frozen.pb --ckpt resnet_v2_50.ckpt cat.jpg
python verify_port.py model.ckpt-30000.meta cat.jpg           the graph's own weights go into the model
python verify_port.py frozen.pb cat.jpg                       the same: the constants are the weights

The model is told from the names of the weights; the old graph's tensors are found by its own names. The picture is
preprocessed as the model wants, or, where the old graph does that itself, fed as whole pixels, and what that makes of
them is compared. So are a DeepLab's logits after upsampling, and with --ckpt the weights, variable by variable.

Exit code: 0 when all agree, 1 when something departs, 2 when something could not be read or run.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import command_line
from engine.options import Verification


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.ProgramParser(__doc__)
    parser.add_argument("old", metavar="OLD", help="frozen .pb; or .meta, its checkpoint's prefix or directory")
    parser.add_argument("image", metavar="IMAGE", help="picture to run both on")
    command_line.add_options(parser, Verification(), paper=False)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Compares, and says whether all agree."""
    args = parse_arguments(argv)
    # oneDNN's choice of kernels rounds differently for either side: up to 2e-5 behind a batch norm of tiny variance.
    if "tensorflow" not in sys.modules:  # which reads it once
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    from porting.verify import verify

    return 0 if verify(args.old, args.image, command_line.chosen(args, Verification)) else 1


if __name__ == "__main__":
    command_line.start(main)
