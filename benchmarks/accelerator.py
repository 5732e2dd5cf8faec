"""Times training and inference on an accelerator: this project under JAX beside torchvision, interleaved in one run.

    python benchmarks/accelerator.py --torch-python .venv-torch/bin/python --out accelerator.md

DeepLab v3 on ResNet-50, batch and images on the device. torchvision's `deeplabv3_resnet50`, compiled and channels_last,
takes part at this project's output stride, 16, and as it is published, at 8, which is several times the work. A turn is
`--repeats` steps, or batches, between two waits for the device. It needs no
TensorFlow, and where there is no GPU it runs on the CPU.
"""

import argparse
import statistics
import sys

import turns

TITLES = {
    "ours": "this project, JAX",
    "torchvision16": "torchvision, output stride 16",
    "torchvision8": "torchvision, output stride 8",
}
WARM_UP = 2


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    turns.add_arguments(parser, contestants=list(TITLES), size=513, rounds=7)
    parser.add_argument("--batch", type=int, default=16, help="images a step [%(default)s]")
    parser.add_argument("--repeats", type=int, default=10, help="steps a turn [%(default)s]")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16", help="[%(default)s]")
    parser.add_argument("--work", choices=["training", "inference", "both"], default="both", help="[%(default)s]")
    parser.add_argument("--worker", choices=TITLES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if min(args.batch, args.repeats) < 1:
        parser.error(f"--batch {args.batch} and --repeats {args.repeats} must be 1 or more")
    if not args.worker:
        turns.check_arguments(parser, args, TITLES)
    return args


def work(args):
    """The worker: one contestant, in training or in inference."""
    answers = turns.answer_stream()
    from train_step import seeded_batch

    images, labels = seeded_batch(args.size, args.batch)
    bfloat16 = args.precision == "bfloat16"
    if args.worker == "ours":
        from benchmarks.contestants import ours_jax as contestant

        options = {}
    else:
        from benchmarks.contestants import torchvision as contestant

        options = {"stride": int(args.worker.removeprefix("torchvision"))}
    state = {}

    def build():
        if args.work == "training":
            state["run"], parameters, version = contestant.trainer(images, labels, bfloat16, **options)
        else:
            state["run"], parameters, version = contestant.predictor(images, bfloat16, **options)
        first = state["run"](WARM_UP)
        note = f"{parameters:,} parameters, on {contestant.device()}, {args.work}: {first}"
        # Not one network in other words, as in the other benchmarks: so their sizes are said, and not compared.
        return {"parameters": None, "size": parameters, "version": version, "note": note, "device": contestant.device()}

    turns.serve({"build": build, "step": lambda: turns.seconds_of(lambda: state["run"](args.repeats))}, answers)


def section(kind, args, load):
    settings = ["--precision", args.precision, "--size", args.size, "--batch", args.batch, "--repeats", args.repeats]
    workers = {
        name: turns.Worker(__file__, name, [*settings, "--work", kind], args.torch_python, backend="jax")
        for name in args.contestants
    }
    facts, seconds, idle = turns.compete(workers, args.rounds)
    images = args.batch * args.repeats
    rates = {name: [images / s for s in times] for name, times in seconds.items()}
    yield (
        f"{kind.capitalize()}, DeepLab v3 on ResNet-50, {args.size}x{args.size}, batch {args.batch}, {args.precision}, "
        f"on {facts[args.contestants[0]]['device']}; {args.rounds} interleaved rounds of {args.repeats}."
    )
    yield from ("", "| | images/s, median | min–max | parameters |", "|---|---|---|---|")
    for name, values in rates.items():
        yield (
            f"| {TITLES[name]} ({facts[name]['version']}) | {statistics.median(values):.1f} "
            f"| {min(values):.1f}–{max(values):.1f} | {facts[name]['size']:,} |"
        )
    first, *others = args.contestants
    for other in others:
        ratio = statistics.median(a / b for a, b in zip(rates[first], rates[other], strict=True))
        yield f"- {TITLES[first]}: {ratio:.2f} times the images/s of {TITLES[other]}"
    yield from ("", *turns.circumstances(load, idle), "")


def main(argv=None):
    args = parse_args(argv)
    if args.worker:
        return work(args)
    load = turns.load_before()
    lines = []
    for kind in ["training", "inference"] if args.work == "both" else [args.work]:
        lines += section(kind, args, load)
    turns.publish(lines[:-1], args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
