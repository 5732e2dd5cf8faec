"""Times the input pipeline on a real VOC folder against tf.image and torchvision, interleaved in one run.

    python benchmarks/input_pipeline.py --data VOC2012 --torch-python .venv-torch/bin/python

Every contestant does the work that benchmarks/pipelines describes, with as many workers, in a process of its own. They
deliver batches in turns; who waits is stopped, with all its threads and processes, so that nobody works ahead.
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import turns

TITLES = {
    "ours": "this project",
    "memory": "this project, decoded images cached in memory",
    "disk": "this project, decoded images cached on disk",
    "tf_image": "tf.image in tf.data",
    "torchvision": "torchvision v2 in a DataLoader",
}
MODULES = {"memory": "ours", "disk": "ours"}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    turns.add_arguments(parser, ["ours", "tf_image", "torchvision"], size=513, rounds=9)
    parser.add_argument("--data", type=Path, required=True, help="folder in the VOC layout")
    parser.add_argument("--image-set", default="trainaug", help="[%(default)s]")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch [%(default)s]")
    parser.add_argument("--batches", type=int, default=20, help="batches in a turn [%(default)s]")
    parser.add_argument("--workers", type=int, default=2, help="threads, or processes, of each [%(default)s]")
    parser.add_argument("--floats", action="store_true", help="hand over float32 in [-1, 1] instead of uint8")
    parser.add_argument("--worker", choices=TITLES, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:  # its parent has checked them
        return args
    turns.check_arguments(parser, args, TITLES)
    if min(args.batch, args.batches, args.workers) < 1:
        parser.error("--batch, --batches and --workers must be 1 or more")
    sys.path.insert(0, str(turns.ROOT))
    from data.voc import DataError, VOCSegmentation

    try:
        VOCSegmentation(args.data, args.image_set)
    except DataError as error:
        parser.error(f"--data: {error}")
    return args


def listed(args):
    """[(image, mask)] of the image set, the masks as this project chooses them."""
    root = args.data
    names = (root / "ImageSets" / "Segmentation" / f"{args.image_set}.txt").read_text().split()
    folders = root / "SegmentationClassAug", root / "SegmentationClass"
    masks = ([folder / f"{name}.png" for folder in folders] for name in names)
    chosen = (next(filter(Path.is_file, paths), paths[-1]) for paths in masks)
    return [(root / "JPEGImages" / f"{name}.jpg", mask) for name, mask in zip(names, chosen, strict=True)]


# The worker.


def work(args):
    answers = turns.answer_stream()
    os.setpgrp()  # for the parent to stop and continue this process with its children
    from benchmarks.pipelines import Work

    files = listed(args)
    contestant = import_module(f"benchmarks.pipelines.{MODULES.get(args.worker, args.worker)}")
    state = {}

    def build():
        asked = Work(
            root=str(args.data),
            image_set=args.image_set,
            images=[str(image) for image, _ in files],
            masks=[str(mask) for _, mask in files],
            indices=[str(args.scratch / "indices" / mask.name) for _, mask in files],
            crop=args.size,
            batch=args.batch,
            workers=args.workers,
            floats=args.floats,
            cache={"memory": "memory", "disk": str(args.scratch / "cache")}.get(args.worker, "none"),
        )
        state["batches"], version = contestant.build(asked)
        return {"version": version, "parameters": None, "note": described([deliver() for _ in range(args.batches)])}

    def deliver():
        return next(state["batches"])

    def step():
        return turns.seconds_of(lambda: [deliver() for _ in range(args.batches)])

    turns.serve({"build": build, "step": step}, answers)
    state.clear()  # ends its threads and processes before the interpreter ends


def described(batches):
    """What was handed over: alike for all contestants, up to the luck of the draw."""
    from benchmarks.pipelines import IGNORE

    images, labels = batches[0]
    mean = statistics.mean(float(images.mean()) for images, _ in batches)
    ignored = statistics.mean(float((labels == IGNORE).mean()) for _, labels in batches)
    return (
        f"images {images.dtype} {images.shape}, mean {mean:.3f}; "
        f"labels {labels.dtype} {labels.shape}, {ignored:.1%} ignored"
    )


# The parent.


class Stopped(turns.Worker):
    """A worker that stands still while it is not asked, and whose CPU time is that of its whole process group."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.asked_cpu_seconds = Counter()

    def __exit__(self, *error):
        self._signal(signal.SIGCONT)
        super().__exit__(*error)

    def ask(self, command):
        self._signal(signal.SIGCONT)
        before = self.cpu_seconds()
        answer = super().ask(command)
        self.asked_cpu_seconds[command] += self.cpu_seconds() - before
        self._signal(signal.SIGSTOP)
        return answer

    def cpu_seconds(self):
        """CPU time of the process and its children so far; 0 where there is no /proc."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has ended
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.process.pid:
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _signal(self, number):
        with suppress(ProcessLookupError):  # before its first answer it has no group yet, and after its death no more
            os.killpg(self.process.pid, number)


def write_indices(args, folder):
    """Writes the masks as grey PNGs of class indices, for tf.io.decode_png."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    for _, path in listed(args):
        with Image.open(path) as mask:
            Image.fromarray(np.asarray(mask)).save(folder / path.name)


def table(args, facts, seconds, workers):
    """Markdown lines. A ratio is the median of the rounds' own ratios, for a round's turns stand side by side."""
    images = args.batch * args.batches
    first = args.contestants[0]
    yield f"| | images/s, median | min–max | {TITLES[first]} is faster | CPU per image (ms) |"
    yield "|---|---|---|---|---|"
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds[first], strict=True))
        cpu = 1000 * workers[name].asked_cpu_seconds["step"] / (images * len(times))
        yield (
            f"| {TITLES[name]} ({facts[name]['version']}) | {images / statistics.median(times):.0f} "
            f"| {images / max(times):.0f}–{images / min(times):.0f} | {ratio:.2f}x | {cpu:.2f} |"
        )


def main(argv=None):
    args = parse_args(argv)
    if args.worker:
        return work(args)
    load = turns.load_before()
    with tempfile.TemporaryDirectory() as scratch:
        if "tf_image" in args.contestants:
            write_indices(args, Path(scratch) / "indices")
        settings = ["--data", args.data.absolute(), "--image-set", args.image_set, "--scratch", scratch]
        settings += ["--size", args.size, "--batch", args.batch, "--batches", args.batches, "--workers", args.workers]
        settings += ["--floats"] if args.floats else []
        workers = {name: Stopped(__file__, name, settings, args.torch_python) for name in args.contestants}
        facts, seconds, idle = turns.compete(workers, args.rounds)
    kind = "float32 images in [-1, 1]" if args.floats else "uint8 images"
    turns.publish(
        [
            f"JPEG and PNG decoded, scaled by 0.5–2, cropped to {args.size}x{args.size}, padded, flipped: batches of "
            f"{args.batch} {kind} with int32 labels, {args.workers} workers each; {args.rounds} interleaved rounds of "
            f"{args.batches} batches.",
            "",
            *table(args, facts, seconds, workers),
            "",
            *turns.circumstances(load, idle),
        ],
        args.out,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
