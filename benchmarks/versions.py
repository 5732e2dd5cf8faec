"""How long a picture takes to its labels by this version of the project and by another one, whose checkout lies beside.

    python benchmarks/versions.py ../before --data VOC2012 --pairs deeplab.ckpt:deeplab.ckpt old/model.pb:new/model.pb

A pair is what the other version opens and, behind the colon, what this one does: a checkpoint, or the export that each
wrote of it. The two live in processes of their own, each with its version's code, and take turns on each image; the
last of several predictions in a turn is timed. Quote the ratios, not the milliseconds.
"""

import argparse
import statistics
import sys
from itertools import zip_longest
from pathlib import Path

import turns

TITLES = ("before", "now")
REST = 0.1  # seconds before each turn: ONNX Runtime's threads spin for a while after theirs
WARM_UP = 4  # predictions after it, before the one that is timed: a processor that rested is slow for some


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", metavar="CHECKOUT", help="folder of the other version")
    parser.add_argument("--pairs", nargs="+", required=True, metavar="BEFORE:NOW", help="what each version opens")
    parser.add_argument("--data", required=True, help="folder in the VOC layout")
    parser.add_argument("--image-set", default="val", help="[%(default)s]")
    parser.add_argument("--images", type=int, default=30, help="[%(default)s]")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    parser.add_argument("--worker", choices=TITLES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not args.worker:
        if wrong := [pair for pair in args.pairs if len(pair.split(":")) != len(TITLES)]:
            parser.error(f"--pairs: BEFORE:NOW, not {', '.join(wrong)}")
        if args.images < 2:
            parser.error(f"--images {args.images} must be 2 or more")
    return args


def work(args):
    """The worker, with the code of its version: opens its model, and labels the next image at each step."""
    answers = turns.answer_stream()
    import numpy as np

    from data.voc import VOCSegmentation
    from engine.pictures import spread_over
    from inference.runtimes import open_export

    dataset = VOCSegmentation(args.data, args.image_set)
    images = [dataset[index][0] for index in spread_over(len(dataset), args.images)]
    state = {"turn": 0}

    def opened(model):
        if (export := open_export(Path(model))) is not None:
            return export
        from engine.options import Opening
        from inference.opening import open_segmenter

        return open_segmenter(model, Opening()).predictor()

    def build():
        state["labels"] = opened(args.pairs[0]).labels
        counts = [np.bincount(state["labels"](image).reshape(-1)).tolist() for image in images]
        return {"parameters": None, "version": "", "note": f"{len(images)} images", "counts": counts}

    def step():
        image = images[state["turn"] % len(images)]
        state["turn"] += 1
        for _ in range(WARM_UP):
            state["labels"](image)
        return turns.seconds_of(lambda: state["labels"](image))

    turns.serve({"build": build, "step": step}, answers)


def compare(pair, args):
    """Lets both versions label the images in turns → (row of the table, CPU that the waiting one took)."""
    roots = (Path(args.before).resolve(), turns.ROOT)
    settings = ["--data", args.data, "--image-set", args.image_set, "--images", args.images]
    workers = {
        title: turns.Worker(__file__, title, [args.before, "--pairs", model, *settings], root=root)
        for title, model, root in zip(TITLES, pair.split(":"), roots, strict=True)
    }
    facts, seconds, idle = turns.compete(workers, args.images, REST)
    least, middle, most = statistics.quantiles((b / a for a, b in zip(*seconds.values(), strict=True)), n=4)
    counted = zip(*(facts[title]["counts"] for title in TITLES), strict=True)
    apart = sum(abs(a - b) for both in counted for a, b in zip_longest(*both, fillvalue=0)) / 2
    pixels = sum(map(sum, facts["now"]["counts"]))
    times = " | ".join(f"{1000 * statistics.median(seconds[title]):.1f} ms" for title in TITLES)
    model = Path(pair.split(":")[1]).name
    return f"| {model} | {times} | {middle:.2f} ({least:.2f}–{most:.2f}) | {apart / pixels:.4%} |", idle


def main(argv=None):
    args = parse_args(argv)
    if args.worker:
        return work(args)
    if not Path(args.before, "inference").is_dir():
        sys.exit(f"{args.before}: no checkout of this project, it has no inference/")
    load = turns.load_before()
    rows, idle = zip(*(compare(pair, args) for pair in args.pairs), strict=True)
    lines = [
        f"One picture to labels, {args.images} of {args.image_set}, a process of each version in turns.",
        "",
        "| | before | now | ratio, median (middle half) | labels in other classes, at least |",
        "|---|---|---|---|---|",
        *rows,
        "",
        *turns.circumstances(load, max(idle)),
    ]
    turns.publish(lines, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
