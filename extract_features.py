"""Features of images from any end point of a pretrained network, as one NumPy array.

python extract_features.py PHOTOS --out photos.npy --ckpt mobilenet_v2_1.0.ckpt --end-point MobilenetV2/Conv_1 --pool

photos.npy holds float32 (N, h, w, channels), or (N, channels) with --pool; photos.txt the N images' paths, in order.
The network is told from the checkpoint, and built and restored up to the end point only. A wrong end point lists those
that look like it.

Exit code: 0; 1 when files were skipped because they could not be read (they are named); 2 when nothing was written.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import command_line
from engine.kinds import BATCH, PIXELS, TEXT
from engine.options import Opening, Pictures
from errors import UserError


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.ProgramParser(__doc__)
    parser.add_argument("images", nargs="+", metavar="FOLDER_OR_IMAGE", help="folders are searched to the bottom")
    parser.add_argument("--ckpt", required=True, help="checkpoint, .tar.gz, directory, run or published name")
    parser.add_argument(
        "--end-point",
        type=command_line.argument_type(TEXT),
        required=True,
        metavar="KEY",
        help="such as resnet_v2_50/block3",
    )
    parser.add_argument("--out", required=True, metavar="FEATURES.npy", help="where the array goes; the list beside it")
    parser.add_argument(
        "--image-size", type=command_line.argument_type(PIXELS), default=224, help="pixels [%(default)s]"
    )
    parser.add_argument(
        "--batch-size", type=command_line.argument_type(BATCH), default=16, help="images at once [%(default)s]"
    )
    parser.add_argument("--pool", action="store_true", help="the mean over height and width")
    command_line.add_options(parser, Opening(), only=("model", "rename"))
    command_line.add_options(parser, Pictures())
    return parser.parse_args(argv)


def find_images(places: Sequence[str]) -> list[Path]:
    """The files that were named and those in the folders that were, each folder's sorted and without hidden ones."""
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            inside = [path for path in sorted(place.rglob("*")) if path.is_file()]
            found += [p for p in inside if not any(part.startswith(".") for part in p.relative_to(place).parts)]
        else:
            found.append(place)
    if not found:
        raise UserError(f"{', '.join(places)}: no files in it")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Extracts and writes."""
    args = parse_arguments(argv)
    if not args.out.endswith(".npy"):
        raise UserError(f"--out {args.out}: must end in .npy")
    paths = find_images(args.images)

    from data.images import DataError
    from inference.features import extract, write_features
    from inference.opening import restored_tap

    model, report = restored_tap(args.ckpt, args.end_point, args.rename, args.model)
    loaded, total, values = report.backbone
    print(f"{args.ckpt}: {loaded}/{total} variables up to {args.end_point}, {values:,} values", flush=True)

    skipped: list[DataError] = []
    rows = extract(
        model, paths, args.image_size, args.batch_size, args.pool, skipped, command_line.chosen(args, Pictures)
    )
    shape = write_features(args.out, rows)
    for error in skipped:
        print(f"skipped: {error}")
    print(f"{args.out}: {' x '.join(map(str, shape))}")
    return 1 if skipped else 0


if __name__ == "__main__":
    command_line.start(main)
