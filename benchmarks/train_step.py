"""Times one training step of the same DeepLab v3 in this project and in its peers, interleaved in one run.

    python benchmarks/train_step.py --torch-python .venv-torch/bin/python --contestants ours,slim,keras,torch --peak

Every contestant lives in a process of its own and trains on the same seeded batch. The parent lets one at a time take
one step, A B C A B C …, so that whatever else the machine does falls on all alike: quote the ratios, not the seconds.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TITLES = {
    "ours": "this project",
    "slim": "tf_slim's graph, session.run",
    "keras": "stock keras.layers",
    "torch": "PyTorch, channels_last",
}
WARM_UP = 2


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contestants", type=lambda text: text.split(","), default=["ours", "slim", "keras"])
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--size", type=int, default=257, help="height and width of the images in pixels")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--torch-python", type=Path, metavar="PATH", help="an interpreter that has torch and numpy")
    parser.add_argument("--peak", action="store_true", help="also compare with the matrix-product peak of this machine")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    parser.add_argument("--worker", choices=TITLES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if unknown := set(args.contestants) - set(TITLES):
        parser.error(f"--contestants: unknown {', '.join(sorted(unknown))}; there are {', '.join(TITLES)}")
    if min(args.size, args.batch, args.rounds) < 1:
        parser.error(f"--size {args.size}, --batch {args.batch} and --rounds {args.rounds} must be 1 or more")
    if "torch" in args.contestants and not args.torch_python:
        parser.error("--contestants torch needs --torch-python PATH, an interpreter of an environment with torch")
    if args.torch_python and not args.torch_python.is_file():
        parser.error(f"--torch-python: there is no {args.torch_python}")
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(f"--out: there is no folder {args.out.parent}")
    return args


# The worker: one contestant, told through stdin what to do; each answer is one line of JSON.


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
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    from importlib import import_module

    contestant = import_module(f"benchmarks.contestants.{args.worker}")
    bfloat16 = args.precision == "bfloat16"
    state = {}

    def build():
        state["step"], parameters, version = contestant.build(*seeded_batch(args.size, args.batch), bfloat16)
        losses = [state["step"]() for _ in range(WARM_UP)]
        return {"parameters": parameters, "version": version, "losses": losses}

    def step():
        start = time.perf_counter()
        loss = state["step"]()
        return {"seconds": time.perf_counter() - start, "loss": loss}

    def peak(n=4096):
        return {"flops": 2 * n**3 / min(contestant.matmul_seconds(n, bfloat16) for _ in range(8))}

    def macs():
        return {"macs": args.batch * contestant.forward_macs(args.size)}

    commands = {"build": build, "step": step, "peak": peak, "macs": macs}
    for line in sys.stdin:
        print(json.dumps(commands[line.strip()]()), file=answers)


# The parent: starts the workers, lets them take turns, and writes the table.


class Worker:
    def __init__(self, name, args):
        python = args.torch_python.absolute() if name == "torch" else sys.executable
        settings = ["--precision", args.precision, "--size", str(args.size), "--batch", str(args.batch)]
        environment = {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
        self.name = name
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self.process = subprocess.Popen(
            [python, __file__, "--worker", name, *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=os.environ | environment,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # the end of its input ends the worker
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def ask(self, command):
        try:
            print(command, file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.errors.seek(0)
            raise SystemExit(f"{self.name} ended at '{command}':\n{self.errors.read()[-3000:]}")
        return json.loads(answer)

    def cpu_seconds(self):
        """CPU time of the process so far; None where there is no /proc."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        if not stat.exists():
            return None
        return sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def build_all(workers):
    facts = {}
    for name, worker in workers.items():  # one after the other: their compilers want the whole machine, too
        facts[name] = worker.ask("build")
        print(f"{name}: {facts[name]['parameters']:,} parameters, losses {facts[name]['losses']}", file=sys.stderr)
    if len({fact["parameters"] for fact in facts.values()}) > 1:
        counts = ", ".join(f"{name} {fact['parameters']:,}" for name, fact in facts.items())
        raise SystemExit(f"these are not the same network, trainable parameters differ: {counts}")
    return facts


def take_turns(workers, rounds):
    """({name: seconds of each round}, the share of a CPU that the waiting workers burnt meanwhile)."""
    seconds = {name: [] for name in workers}
    idle = wall = 0.0
    for _ in range(rounds):
        for name, worker in workers.items():
            waiting = [other for other in workers.values() if other is not worker]
            before = [other.cpu_seconds() or 0.0 for other in waiting]
            seconds[name].append(worker.ask("step")["seconds"])
            idle += sum((other.cpu_seconds() or 0.0) - then for other, then in zip(waiting, before, strict=True))
            wall += seconds[name][-1]
        print("  ".join(f"{name} {times[-1]:.3f} s" for name, times in seconds.items()), file=sys.stderr)
    return seconds, idle / wall


def measure_peak(args):
    """The better of TensorFlow's and PyTorch's matrix product: {"flops", "by", "macs"}."""
    best = {"flops": 0.0}
    for name in ["keras", *(["torch"] if args.torch_python else [])]:
        with Worker(name, args) as worker:
            found = worker.ask("peak") | {"by": "PyTorch" if name == "torch" else "TensorFlow"}
            best = max(best, found, key=lambda one: one["flops"])
            if name == "keras":
                macs = worker.ask("macs")["macs"]
    return best | {"macs": macs}


def table(seconds, facts):
    first = next(iter(seconds))
    lines = [
        f"| | step, median (s) | min–max (s) | times {TITLES[first]} | trainable parameters |",
        "|---|---|---|---|---|",
    ]
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds[first], strict=True))
        lines.append(
            f"| {TITLES[name]} ({facts[name]['version']}) | {statistics.median(times):.3f} "
            f"| {min(times):.3f}–{max(times):.3f} | {ratio:.2f} | {facts[name]['parameters']:,} |"
        )
    return lines


def hardware():
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    values = dict(line.replace("\t", "").split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    model = values.get("model name", platform.processor() or platform.machine()).strip()
    flags = [flag for flag in values.get("flags", "").split() if flag in ("avx2", "avx512f", "amx_tile", "amx_bf16")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {model} ({' '.join(flags) or 'flags unknown'})"


def git_commit():
    def git(*command):
        done = subprocess.run(["git", "-C", ROOT, *command], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    return f"{commit}-dirty" if git("status", "--porcelain") else commit


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
    load = os.getloadavg()[0]
    peak = measure_peak(args) if args.peak else None
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, args)) for name in args.contestants}
        facts = build_all(workers)
        seconds, idle = take_turns(workers, args.rounds)
    lines = [
        f"One training step, DeepLab v3 on ResNet-50 v2, output stride 16, {args.size}x{args.size}, "
        f"batch {args.batch}, {args.precision}; {args.rounds} interleaved rounds.",
        "",
        *table(seconds, facts),
        "",
        f"On {hardware()}, Python {platform.python_version()}, commit {git_commit()}. "
        f"Load before the run {load:.1f}; the waiting processes took {idle:.1%} of a core.",
    ]
    if load > 0.5:
        lines.append("The machine was busy: not figures to quote. (Spinning OpenMP threads suffer more than others.)")
    if "slim" in workers and args.precision != "float32":
        lines.append("tf_slim's graph ran in float32: it has no mixed precision.")
        seconds.pop("slim")  # from here on it is about the peak of the other precision
    if peak:
        lines += ["", *peak_lines(peak, seconds, args.precision)]
    report = "\n".join(lines) + "\n"
    print(report, end="")
    if args.out:
        args.out.write_text(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
