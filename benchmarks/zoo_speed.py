"""Times two networks of the zoo, one image to its labels, in this project and of stock Keras layers, interleaved.

    python benchmarks/zoo_speed.py

Xception-65 v3+ and MobileNet v3 large with Lite R-ASPP, both at output stride 16: uint8 RGB (H, W, 3) in, uint8 (H, W)
out. The contestants take turns, each in a process of its own; quote the ratios, not the seconds.
"""

import argparse
import functools

import turns

TITLES = {"ours": "this project", "keras": "stock Keras layers"}
NETWORKS = {"xception_65": {"separable_aspp": True, "decoder": "separable"}, "mobilenet_v3_large_seg": {}}
WARM_UP = 2


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    turns.add_arguments(parser, contestants=list(TITLES), size=513, rounds=10)
    parser.add_argument("--networks", type=lambda text: text.split(","), default=list(NETWORKS))
    parser.add_argument("--worker", choices=TITLES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if unknown := set(args.networks) - set(NETWORKS):
        parser.error(f"--networks: unknown {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    if not args.worker:
        turns.check_arguments(parser, args, TITLES)
    return args


def predictor(contestant, network, size):
    if contestant == "ours":
        from benchmarks.contestants import ours

        return ours.zoo_predictor(network, size, **NETWORKS[network])
    from benchmarks.contestants import keras_zoo

    return keras_zoo.predictor(network, size)


def work(args, answers):
    import numpy as np

    image = np.random.default_rng(0).integers(0, 256, (args.size, args.size, 3), dtype="uint8")
    made = {}

    def build():
        labels, parameters, version = predictor(args.worker, args.networks[0], args.size)
        for _ in range(WARM_UP):
            labels(image)
        made["step"] = functools.partial(labels, image)
        return {"version": version, "parameters": parameters, "note": f"{parameters:,} parameters"}

    turns.serve({"build": build, "step": lambda: turns.seconds_of(made["step"])}, answers)


def main():
    args = parse_args()
    if args.worker:
        work(args, turns.answer_stream())
        return
    lines = []
    for network in args.networks:
        load = turns.load_before()
        settings = ["--size", args.size, "--networks", network]
        workers = {name: turns.Worker(__file__, name, settings) for name in args.contestants}
        facts, seconds, idle = turns.compete(workers, args.rounds)
        lines += [f"{network}, {args.size}x{args.size}, output stride 16, float32", ""]
        lines += turns.table("one image", TITLES, facts, seconds, args.contestants[-1])
        lines += ["", *turns.circumstances(load, idle), ""]
    turns.publish(lines, args.out)


if __name__ == "__main__":
    main()
