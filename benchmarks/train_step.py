"""Times one training step of the same DeepLab v3 in this project and in its peers, interleaved in one run.

    python benchmarks/train_step.py --torch-python .venv-torch/bin/python --contestants ours,slim,keras,torch --peak

Every contestant lives in a process of its own and trains on the same seeded batch. The parent lets one at a time take
one step, A B C A B C …, so that whatever else the machine does falls on all alike: quote the ratios, not the seconds.
"""

import argparse
import statistics
import sys

import turns

TITLES = {
    "ours": "this project",
    "slim": "tf_slim's graph, session.run",
    "keras": "stock keras.layers",
    "torch": "PyTorch, channels_last",
}
WARM_UP = 2


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    turns.add_arguments(parser, contestants=["ours", "slim", "keras"], size=257, rounds=9)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--peak", action="store_true", help="also compare with the matrix-product peak of this machine")
    parser.add_argument("--worker", choices=TITLES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.batch < 1:
        parser.error(f"--batch {args.batch} must be 1 or more")
    if not args.worker:
        turns.check_arguments(parser, args, TITLES)
    return args


def seeded_batch(size, batch):
    """Images (N, H, W, 3) in [-1, 1] and labels (N, H, W) in 0..20, one pixel in twenty ignored."""
    import numpy as np

    from benchmarks.contestants import CLASSES, IGNORE

    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (batch, size, size, 3)).astype("float32")
    labels = rng.integers(0, CLASSES, (batch, size, size)).astype("int32")
    labels[rng.random(labels.shape) < 0.05] = IGNORE
    return images, labels


def work(args):
    """The worker: builds its contestant and trains it one step at a time."""
    answers = turns.answer_stream()
    from importlib import import_module

    contestant = import_module(f"benchmarks.contestants.{args.worker}")
    bfloat16 = args.precision == "bfloat16"
    state = {}

    def build():
        state["step"], parameters, version = contestant.build(*seeded_batch(args.size, args.batch), bfloat16)
        losses = [state["step"]() for _ in range(WARM_UP)]
        return {"parameters": parameters, "version": version, "note": f"{parameters:,} parameters, losses {losses}"}

    def peak(n=4096):
        return {"flops": 2 * n**3 / min(contestant.matmul_seconds(n, bfloat16) for _ in range(8))}

    def macs():
        return args.batch * contestant.forward_macs(args.size)

    step = {"step": lambda: turns.seconds_of(state["step"])}
    turns.serve({"build": build, "peak": peak, "macs": macs} | step, answers)


def worker(contestant, args):
    settings = ["--precision", args.precision, "--size", args.size, "--batch", args.batch]
    return turns.Worker(__file__, contestant, settings, args.torch_python)


def measure_peak(args):
    """The better of TensorFlow's and PyTorch's matrix product: {"flops", "by", "macs"}."""
    best = {"flops": 0.0}
    for name in ["keras", *(["torch"] if args.torch_python else [])]:
        with worker(name, args) as one:
            found = one.ask("peak") | {"by": "PyTorch" if name == "torch" else "TensorFlow"}
            best = max(best, found, key=lambda peak: peak["flops"])
            if name == "keras":
                macs = one.ask("macs")
    return best | {"macs": macs}


def peak_lines(peak, seconds, precision):
    flops = 3 * 2 * peak["macs"]
    ideal = flops / peak["flops"]
    yield (
        f"Matrix-product peak, {precision} 4096x4096 by {peak['by']}: {peak['flops'] / 1e9:.0f} GFLOP/s. "
        f"A step is {flops / 1e9:.0f} GFLOP of convolutions (three times the forward pass): {ideal:.3f} s at peak."
    )
    for name, times in seconds.items():
        yield f"- fraction of peak, {TITLES[name]}: {ideal / statistics.median(times):.0%}"


def main(argv=None):
    args = parse_args(argv)
    if args.worker:
        return work(args)
    load = turns.load_before()
    peak = measure_peak(args) if args.peak else None
    workers = {name: worker(name, args) for name in args.contestants}
    facts, seconds, idle = turns.compete(workers, args.rounds)
    lines = [
        f"One training step, DeepLab v3 on ResNet-50 v2, output stride 16, {args.size}x{args.size}, "
        f"batch {args.batch}, {args.precision}; {args.rounds} interleaved rounds.",
        "",
        *turns.table("step", TITLES, facts, seconds, against=args.contestants[0]),
        "",
        *turns.circumstances(load, idle),
    ]
    if "slim" in workers and args.precision != "float32":
        lines.append("tf_slim's graph ran in float32: it has no mixed precision.")
        seconds.pop("slim")  # from here on it is about the peak of the other precision
    if peak:
        lines += ["", *peak_lines(peak, seconds, args.precision)]
    turns.publish(lines, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
