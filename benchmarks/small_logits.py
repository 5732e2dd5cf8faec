"""Labels from small logits, cell by cell, beside labels from logits at full size: time of each, and where they differ.

    python benchmarks/small_logits.py --ckpt deeplab.ckpt --data VOC2012 --images 40

The images are spread evenly over the image set. On each, the programs' predictor and the same network with all logits
enlarged in its graph, as the programs had it before, take turns, uint8 RGB in and uint8 labels out. A round that is not
counted comes first.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import command_line
from engine.kinds import POSITIVE_INT
from engine.options import Opening
from engine.startup import import_keras


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, metavar="PATH")
    parser.add_argument("--data", required=True, help="folder in the VOC layout")
    parser.add_argument("--image-set", default="val", help="[%(default)s]")
    parser.add_argument("--images", type=command_line.argument_type(POSITIVE_INT), default=40, help="[%(default)s]")
    parser.add_argument("--rounds", type=command_line.argument_type(POSITIVE_INT), default=3, help="[%(default)s]")
    command_line.add_options(parser, Opening())
    return parser.parse_args(argv)


def at_full_size(opened):
    """labels(image), all logits enlarged and compared in the graph."""
    import numpy as np

    from inference.predictor import Segmenter, fed_to
    from models.folding import inference_values

    model, predictor = opened.model, opened.predictor()
    network = Segmenter(model, constants=inference_values(model))

    def labels(image):
        fed = fed_to(model, image, predictor.padded_size(*image.shape[:2]))[None]
        return np.asarray(network.predict_on_batch(fed))[0, : image.shape[0], : image.shape[1]].astype(np.uint8)

    return labels


def main(argv=None):
    args = parse_args(argv)
    import_keras()
    from data.voc import VOCSegmentation
    from engine.pictures import spread_over
    from inference.opening import open_segmenter

    dataset = VOCSegmentation(args.data, args.image_set)
    opened = open_segmenter(args.ckpt, command_line.chosen(args, Opening))
    ways = {"at full size": at_full_size(opened), "cell by cell": opened.predictor().labels}
    seconds = {name: [] for name in ways}
    differing = compared = 0
    for index in spread_over(len(dataset), args.images):
        image, _ = dataset[index]
        for number in range(args.rounds + 1):
            found = {}
            for name, labels in ways.items():
                started = time.perf_counter()
                found[name] = labels(image)
                if number:
                    seconds[name].append(time.perf_counter() - started)
        one, other = found.values()
        differing, compared = differing + int((one != other).sum()), compared + one.size
    for name, times in seconds.items():
        print(f"{name}: median {1000 * statistics.median(times):.1f} ms, least {1000 * min(times):.1f} ms")
    ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
    print(f"ratio, median of {len(times)} turns: {ratio:.2f}; {differing} of {compared:,} labels differ")


if __name__ == "__main__":
    main()
