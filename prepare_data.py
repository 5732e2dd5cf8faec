"""Makes data sets in the layouts that the other programs read.

python prepare_data.py voc --out VOC2012                         PASCAL VOC 2012 with SBD's masks: trainaug and val
python prepare_data.py pictures --images PHOTOS --masks MASKS --out DATA    own pictures and masks, in VOC's layout
python prepare_data.py labelme --images ANNOTATED --out DATA                what labelme's files beside them say
python prepare_data.py coco --file instances.json --images PHOTOS --out DATA
python prepare_data.py cvat --file annotations.xml --images PHOTOS --out DATA
python prepare_data.py sample --out demo/voc                     shapes to segment, in VOC's layout
python prepare_data.py sample --out demo/shapes --kind folder    the same shapes to classify, one folder a class
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import command_line
from engine.kinds import LABELS, NONNEGATIVE_INT, number, whole


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
    counts: dict[str, Any] = {"type": command_line.argument_type(whole(1, 100_000)), "metavar": "N"}
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
    _add_pictures(commands)
    _add_labelme(commands)
    _add_file(commands, "coco", "COCO's JSON file", make_coco)
    _add_file(commands, "cvat", "CVAT's XML file (CVAT for images 1.1)", make_cvat)
    return parser.parse_args(argv)


def _add_pictures(commands: Any) -> None:
    pictures = commands.add_parser("pictures", help="own pictures and masks", description=make_pictures.__doc__)
    pictures.set_defaults(make=make_pictures)
    pictures.add_argument("--images", required=True, metavar="DIR", type=Path, help="the pictures, also in sub-folders")
    pictures.add_argument(
        "--masks", required=True, metavar="DIR", type=Path, help="of the pictures' names, perhaps with an addition"
    )
    meaning = pictures.add_mutually_exclusive_group()
    meaning.add_argument(
        "--colours",
        metavar="FILE",
        type=Path,
        help="CVAT's labelmap.txt, Roboflow's _classes.csv, or lines name,r,g,b",
    )
    meaning.add_argument(
        "--foreground",
        metavar="VALUE",
        type=command_line.argument_type(whole(1, 255)),
        help="of masks of 0 and this, as 255",
    )
    pictures.add_argument(
        "--map",
        metavar="VALUE=CLASS,…",
        type=command_line.argument_type(LABELS),
        default={},
        help="values of the masks that become other classes; 11=255 ignores 11",
    )
    _add_common(pictures)


def _add_labelme(commands: Any) -> None:
    labelme = commands.add_parser("labelme", help="labelme's files", description=make_labelme.__doc__)
    labelme.set_defaults(make=make_labelme)
    labelme.add_argument("--images", required=True, metavar="DIR", type=Path, help="pictures with their JSON files")
    _add_common(labelme)


def _add_file(commands: Any, name: str, kind: str, make: Any) -> None:
    parser = commands.add_parser(name, help=kind, description=make.__doc__)
    parser.set_defaults(make=make)
    parser.add_argument("--file", required=True, type=Path, help=kind)
    parser.add_argument("--images", required=True, metavar="DIR", type=Path, help="the pictures that it names")
    _add_common(parser)


def _add_common(parser: Any) -> None:
    parser.add_argument("--out", required=True, metavar="DATA", type=Path, help="a new folder")
    parser.add_argument(
        "--classes", metavar="FILE", type=Path, help="names, one a line, background first, in the order that is wanted"
    )
    parser.add_argument(
        "--split",
        type=command_line.argument_type(number(0, 1, above=True, below=True)),
        default=0.2,
        metavar="SHARE",
        help="of the images, for validation [%(default)s]",
    )
    parser.add_argument("--seed", type=command_line.argument_type(NONNEGATIVE_INT), default=0, help="[%(default)s]")
    parser.add_argument("--link", action="store_true", help="link the pictures instead of copying them")


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
    """Makes what the command names."""
    args = parse_arguments(argv)
    args.make(args)


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


def make_pictures(args: argparse.Namespace) -> None:
    """Makes VOC's layout of own pictures and masks of indices, colours, or one value."""
    from data.prepare.layout import LeftOut
    from data.prepare.pictures import annotated, matched, meaning_of

    left_out = LeftOut()
    masks = [mask for *_, mask in matched(args.images, args.masks, LeftOut())]
    meaning = meaning_of(
        masks, classes=args.classes, colours=args.colours, foreground=args.foreground, changed=args.map
    )
    _write(args, meaning.names, annotated(args.images, args.masks, meaning, left_out), left_out)


def make_labelme(args: argparse.Namespace) -> None:
    """Makes VOC's layout of pictures that labelme annotated; of overlapping shapes, the later is on top."""
    from data.prepare.annotations import labelme
    from data.prepare.layout import LeftOut

    left_out = LeftOut()
    _write(args, *labelme(args.images, args.classes, left_out), left_out)


def make_coco(args: argparse.Namespace) -> None:
    """Makes VOC's layout of a COCO file's instances; of overlapping objects, the smaller is on top."""
    from data.prepare.annotations import coco
    from data.prepare.layout import LeftOut

    left_out = LeftOut()
    _write(args, *coco(args.file, args.images, args.classes, left_out), left_out)


def make_cvat(args: argparse.Namespace) -> None:
    """Makes VOC's layout of what CVAT annotated; overlapping shapes lie in CVAT's order."""
    from data.prepare.annotations import cvat
    from data.prepare.layout import LeftOut

    left_out = LeftOut()
    _write(args, *cvat(args.file, args.images, args.classes, left_out), left_out)


def _write(args: argparse.Namespace, names: Sequence[str], samples: Any, left_out: Any) -> None:
    """Writes the data set, shows it, and reports on it."""
    from data.prepare.layout import write_data_set
    from data.report import report_on
    from data.voc import VOCSegmentation
    from engine.pictures import overlays, png
    from files.writing import write_whole

    def draw_overlays(data: Path) -> None:
        write_whole(data / "overlays.png", png(overlays(VOCSegmentation(data, "train"), 12)))

    write_data_set(args.out, samples, names, val_share=args.split, seed=args.seed, link=args.link, finish=draw_overlays)
    train, val = (VOCSegmentation(args.out, image_set) for image_set in ("train", "val"))
    found = report_on([train, val], trains=True)
    print(found)
    print("\n".join(filter(None, (str(left_out), f"classes in this order: {', '.join(names)}"))))
    print(f"look at the masks over their pictures: {args.out / 'overlays.png'}")
    found.check()
    print(f"python train_seg.py --ckpt CHECKPOINT --data {args.out} --train-set train")


if __name__ == "__main__":
    command_line.start(main)
