"""What the exports of one model are worth: mIoU, agreement with the model, size and time of each, on real images.

    python benchmarks/export_formats.py exported --ckpt deeplab.ckpt --data VOC2012 --images 40

The images are spread evenly over the image set. Model and exports take turns on each image, so that whatever else the
machine does falls on all alike, and the second of two predictions in a turn is timed: threads of the one before, which
spin for a while in ONNX Runtime, take a third from the first. Quote the ratios, not the milliseconds. A file of
--beside, such as the TFLite export of an earlier version, takes part too; the ratios are to the first of them, else to
the model.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import command_line
from engine.kinds import POSITIVE_INT
from engine.options import Opening
from errors import UserError


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exported", metavar="EXPORTED", help="a folder that export_seg.py wrote")
    parser.add_argument("--ckpt", required=True, help="what it was exported from")
    parser.add_argument("--data", required=True, help="folder in the VOC layout")
    parser.add_argument("--image-set", default="val", help="[%(default)s]")
    parser.add_argument("--images", type=command_line.argument_type(POSITIVE_INT), default=40, help="[%(default)s]")
    parser.add_argument("--beside", metavar="FILE", nargs="*", default=(), help="other exports of it")
    parser.add_argument("--out", metavar="FILE", help="also write the table there")
    command_line.add_options(parser, Opening())
    return parser.parse_args(argv)


class Contestant:
    """A predictor, and what it has done so far.

    Attributes:
        matrix: int64 confusion matrix (classes, classes).
        agreements: of each image, the fraction of pixels labelled as the model does.
        seconds: of each image.
    """

    def __init__(self, title, predictor, size):
        self.title, self.predictor, self.bytes = title, predictor, size
        self.matrix, self.agreements, self.seconds = 0, [], []

    def predict(self, image):
        self.predictor.labels(image)
        start = time.perf_counter()
        labels = self.predictor.labels(image)
        self.seconds.append(time.perf_counter() - start)
        return labels


def contestants(args):
    """The model first, then its exports."""
    from inference.opening import open_segmenter
    from inference.predictor import ModelPredictor
    from inference.runtimes import open_export, read_description

    how = command_line.chosen(args, Opening)
    description = read_description(args.exported)
    if description is None:
        raise UserError(f"{args.exported}: has no export.json; name a folder that export_seg.py wrote")
    opened = open_segmenter(args.ckpt, how)
    plain = ModelPredictor(opened.model, opened.class_names, opened.crop_size)
    found = [
        Contestant("the model", plain, None),
        Contestant("as the programs run it, batch norm folded", opened.predictor(), None),
    ]
    for name, entry in description["formats"].items():
        path = Path(args.exported, entry["file"])
        predictor = open_export(path) or open_segmenter(path, how).predictor()
        found.append(Contestant(f"{name}, `{entry['file']}`", predictor, entry["bytes"]))
    for path in map(Path, args.beside):
        found.append(Contestant(f"beside, `{path}`", open_export(path), path.stat().st_size))
    return found


def measure(entrants, dataset, indices, progress):
    from inference.metrics import confusion_matrix

    for entrant in entrants:  # the first call compiles
        entrant.predictor.labels(dataset[indices[0]][0])
    for index in indices:
        image, mask = dataset[index]
        expected = None
        for entrant in entrants:
            labels = entrant.predict(image)
            expected = labels if expected is None else expected
            entrant.agreements.append(float((labels == expected).mean()))
            entrant.matrix = entrant.matrix + confusion_matrix(mask, labels, dataset.num_classes)
        progress()


def table(entrants, what):
    from inference.metrics import scores

    lines = [
        what,
        "",
        "| | mIoU, classes in the labels | labels equal to the model's | worst image | size | time per image | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    first = next((entrant for entrant in entrants if entrant.title.startswith("beside")), entrants[0])
    for entrant in entrants:
        miou = scores(entrant.matrix)["miou_present"]
        size = "" if entrant.bytes is None else f"{entrant.bytes / 1e6:.2f} MB"
        mean, worst = statistics.mean(entrant.agreements), min(entrant.agreements)
        ratio = statistics.median(a / b for a, b in zip(entrant.seconds, first.seconds, strict=True))
        lines.append(
            f"| {entrant.title} | {100 * miou:.2f} | {100 * mean:.3f} % | {100 * worst:.3f} % | {size} "
            f"| {1000 * statistics.median(entrant.seconds):.0f} ms | {ratio:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main(argv=None):
    args = parse_args(argv)
    from tqdm import tqdm

    from data.voc import VOCSegmentation
    from engine.pictures import spread_over
    from files.writing import write_whole

    dataset = VOCSegmentation(args.data, args.image_set)
    indices = spread_over(len(dataset), args.images)
    entrants = contestants(args)
    with tqdm(total=len(indices), unit="image", disable=None) as bar:
        measure(entrants, dataset, indices, bar.update)
    what = (
        f"{Path(args.ckpt).name}, {len(indices)} images of {args.image_set}, {os.cpu_count()} cores "
        f"({platform.machine()}), median time"
    )
    text = table(entrants, what)
    print(text)
    if args.out:
        write_whole(args.out, text.encode())


if __name__ == "__main__":
    command_line.run(main)
