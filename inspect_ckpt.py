"""Shows what is in a TensorFlow checkpoint, which model it is of, what that model would get from it; or compares two.

python inspect_ckpt.py resnet_v2_50.ckpt                    variables by scope, the model, the coverage
python inspect_ckpt.py resnet_v2_50.ckpt --list --stats     variables with mean, std, min, max; NaN and Inf
python inspect_ckpt.py a.ckpt --against b.ckpt              name by name, bit by bit

Exit code: 0; with --against 0 when both are equal and 1 when they differ; 2 when something could not be read.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

import command_line
from engine.kinds import CLASSES, TEXT
from engine.options import Restore


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.ProgramParser(__doc__)
    parser.add_argument(
        "ckpt",
        metavar="CKPT",
        help="V2 prefix, its .index alone, V1 file, .tar.gz, frozen .pb, directory, run or published name",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--against", metavar="OTHER", help="compare with this checkpoint, and do nothing else")
    what.add_argument("--list", action="store_true", help="list the variables, and do nothing else: no model is built")
    what.add_argument(
        "--model",
        type=command_line.argument_type(TEXT),
        metavar="NAME",
        help="which network is meant, and covered: resnet_v2_50, deeplab_v3/resnet_v2_50 …, or a scope [told by names]",
    )
    parser.add_argument(
        "--num-classes",
        type=command_line.argument_type(CLASSES),
        help="of the model's head [told from the checkpoint]",
    )
    parser.add_argument("--stats", action="store_true", help="mean, std, min, max of all variables; says NaN and Inf")
    parser.add_argument("--verbose", action="store_true", help="every variable on a line of its own")
    parser.add_argument("--json", metavar="FILE", help="write all of it to this file too")
    command_line.add_options(parser, Restore(), only=("rename", "ema"))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Shows, or compares."""
    args = parse_arguments(argv)
    rename = args.rename
    from engine.published import located
    from models.checkpoint import open_checkpoint
    from porting import difference, inspection

    needs_values = args.stats or args.against is not None
    with open_checkpoint(located(args.ckpt), names_only=not needs_values) as checkpoint:
        if args.against:
            found, finding, report = [], None, None
            with open_checkpoint(located(args.against)) as other:
                comparison = difference.compare(checkpoint, other, rename)
            print(comparison.text(args.verbose))
        else:
            comparison = None
            found = inspection.variables(checkpoint, args.stats)
            print(inspection.listing(checkpoint, found, args.verbose))
            finding, report = (None, None) if args.list else show_coverage(args, checkpoint, rename)
        if args.json:
            write_json(args.json, inspection.document(checkpoint, found, finding, report, comparison))
    return 1 if comparison and not comparison.same else 0


def show_coverage(args: argparse.Namespace, checkpoint: Any, rename: Mapping[str, str]) -> tuple[Any, Any]:
    """Prints which network is in the checkpoint and what that, or --model, would get from it. → (Finding, Report)"""
    from porting import inspection

    finding = inspection.find_network(checkpoint, rename, args.model, args.num_classes)
    print(finding.text(args.ema))
    if finding.model is None:
        return finding, None
    report = inspection.coverage(checkpoint, finding.model, rename, args.ema)
    print(f"\ncoverage of {finding.model}, nothing is loaded\n{report.text(args.verbose)}")
    return finding, report


def write_json(path: str, document: Any) -> None:
    """Writes what was found, whole or not at all."""
    from files.writing import write_whole

    write_whole(path, json.dumps(document, indent=1))


if __name__ == "__main__":
    command_line.start(main)
