"""Times the same DeepLab v3 from one image to its labels in this project, its exports and PyTorch, interleaved.

    python benchmarks/one_image.py --torch-python .venv-torch/bin/python --precision both

What is timed, from the outside: uint8 RGB (H, W, 3) in, uint8 (H, W) out, so that preprocessing, upsampling with
corners aligned and argmax are in it. Every contestant lives in a process of its own and gets the same image. The parent
lets one at a time predict, A B C A B C …, so that whatever else the machine does falls on all alike: quote the ratios,
not the seconds. `bfloat16` kernels are rounded once; the PyTorch contestants called `autocast` keep float32 kernels.

Those of 8 bits take part where `--exported` names a folder of export_seg.py with them, of the same network and size,
and `--image` a picture, of which all get the upper left corner, padded with grey.
"""

import argparse
import functools
import statistics
import sys
import tempfile
from pathlib import Path

import turns

TITLES = {
    "ours": "this project",
    "saved_model": "its SavedModel",
    "onnx": "its ONNX in ONNX Runtime",
    "tflite": "its TFLite in LiteRT",
    "onnx_int8": "its ONNX of 8 bits",
    "tflite_int8": "its TFLite of 8 bits",
    "torch": "PyTorch, channels_last",
    "torch-compile": "PyTorch, torch.compile",
    "torch-autocast": "PyTorch, autocast",
    "torch-autocast-compile": "PyTorch, autocast, torch.compile",
}
EXPORTS = ("saved_model", "onnx", "tflite")  # exporting.export's names
OF_8_BITS = ("onnx_int8", "tflite_int8")
ONLY_IN = {"float32": (*EXPORTS, *OF_8_BITS), "bfloat16": ("torch-autocast", "torch-autocast-compile")}
WARM_UP = 3


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [name for name in TITLES if name not in OF_8_BITS]
    turns.add_arguments(parser, contestants=usual, size=513, rounds=15)
    parser.add_argument("--exported", metavar="FOLDER", help="exports to take, instead of exporting random weights")
    parser.add_argument("--image", metavar="FILE", help="what is labelled [noise]")
    parser.add_argument("--precision", choices=["float32", "bfloat16", "both"], default="both")
    parser.add_argument("--worker", choices=TITLES, help=argparse.SUPPRESS)
    parser.add_argument("--exports", help=argparse.SUPPRESS)  # where the parent keeps them for its workers
    args = parser.parse_args(argv)
    if not args.worker:
        turns.check_arguments(parser, args, TITLES)
        if set(args.contestants) & set(OF_8_BITS) and not (args.exported and args.image):
            parser.error(f"{', '.join(OF_8_BITS)} are calibrated on pictures: --exported FOLDER and --image FILE")
    return args


def predictor(args):
    """The contestant of a worker → (labels, parameters or None, version)."""
    bfloat16 = args.precision == "bfloat16"
    if args.worker == "ours":
        from benchmarks.contestants import ours

        return ours.predictor(args.size, bfloat16)
    if turns.needs_torch(args.worker):
        from benchmarks.contestants import torch

        return torch.predictor(bfloat16, compiled="compile" in args.worker, autocast="autocast" in args.worker)
    from benchmarks.contestants import exported

    return exported.predictor(args.exports, args.worker)


def work(args):
    """The worker: opens its contestant and predicts one image at a time."""
    answers = turns.answer_stream()
    import numpy as np

    if args.image:
        image = np.load(args.image)
    else:
        image = np.random.default_rng(0).integers(0, 256, (args.size, args.size, 3), dtype=np.uint8)
    state = {}

    def build():
        state["labels"], parameters, version = predictor(args)
        first, *_ = [turns.seconds_of(step) for _ in range(WARM_UP)]
        found = state["labels"](image)
        if found.shape != image.shape[:2] or found.dtype != np.uint8:
            raise RuntimeError(f"labels must be uint8 {image.shape[:2]}. Received: {found.dtype} {found.shape}")
        note = f"{len(np.unique(found))} labels, first image {first:.1f} s"
        return {"parameters": parameters, "version": version, "note": note}

    def step():
        state["labels"](image)

    def export(name):
        from benchmarks.contestants import ours

        ours.export(name, args.size, args.exports, image)

    exports = {name: functools.partial(export, name) for name in EXPORTS}
    turns.serve({"build": build, "step": lambda: turns.seconds_of(step)} | exports, answers)


def main(argv=None):
    args = parse_args(argv)
    if args.worker:
        return work(args)
    load = turns.load_before()
    precisions = ["float32", "bfloat16"] if args.precision == "both" else [args.precision]
    with tempfile.TemporaryDirectory() as exports:
        settings = ["--size", args.size, "--exports", args.exported or exports]
        if args.image:
            settings += ["--image", corner(args.image, args.size, Path(exports, "image.npy"))]
        for name in args.contestants if "float32" in precisions and not args.exported else []:
            if name in EXPORTS:
                with turns.Worker(__file__, "ours", ["--precision", "float32", *settings]) as worker:
                    worker.ask(name)
        lines = []
        for precision in precisions:
            if names := able_to(precision, args.contestants):
                lines += [*section(precision, names, args, settings, load), ""]
    turns.publish(lines[:-1], args.out)
    return 0


def corner(image, size, path):
    """Writes the upper left corner of an image file, uint8 RGB (size, size, 3), as `path` → it, for all to load."""
    import numpy as np

    sys.path.insert(0, str(turns.ROOT))
    from data.images import read_image
    from inference.upsampling import padded_picture

    np.save(path, padded_picture(read_image(image), (size, size), (128, 128, 128)))
    return path


def able_to(precision, names):
    """Those of the contestants that compute in this precision."""
    others = {name for other, only in ONLY_IN.items() if other != precision for name in only}
    return [name for name in names if name not in others]


def section(precision, names, args, settings, load):
    """Lets the contestants of one precision take turns and yields the lines that tell how it went."""
    workers = {
        name: turns.Worker(__file__, name, ["--precision", precision, *settings], args.torch_python) for name in names
    }
    facts, seconds, idle = turns.compete(workers, args.rounds)
    peers = [name for name in names if turns.needs_torch(name)] or names
    best = min(peers, key=lambda name: statistics.median(seconds[name]))
    yield from (
        f"One image to labels, DeepLab v3 on ResNet-50 v2, output stride 16, {args.size}x{args.size}, {precision}; "
        f"{args.rounds} interleaved rounds.",
        "",
        *turns.table("image", TITLES, facts, seconds, against=best),
        "",
        *turns.circumstances(load, idle),
    )


if __name__ == "__main__":
    sys.exit(main())
