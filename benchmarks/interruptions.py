"""Kills a training run many times, resumes it each time, and compares what comes out with the run nobody killed.

python benchmarks/interruptions.py --kills 20 -- --ckpt mobilenet_v2_1.0_224.ckpt --data VOC2012 --crop-size 129 \\
    --batch-size 4 --steps 210 --save-every 3 --log-every 1 --eval-every 105

What follows `--` goes to train_seg.py. Every second kill waits until a checkpoint is being written; the others come at
a random moment. The comparison is bit by bit: every variable and slot of the last checkpoint, and every row of the log
but for its two columns of time.
"""

import argparse
import csv
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import command_line
from engine.kinds import NONNEGATIVE_INT, POSITIVE_INT

SCRIPT = Path(__file__).resolve().parents[1] / "train_seg.py"
CLOCKED = {"images_per_second", "seconds"}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=command_line.argument_type(POSITIVE_INT), default=20, help="[%(default)s]")
    parser.add_argument(
        "--seed", type=command_line.argument_type(NONNEGATIVE_INT), default=0, help="of the moments [%(default)s]"
    )
    parser.add_argument("training", nargs="+", metavar="-- FLAGS", help="of train_seg.py, without --run-dir")
    args = parser.parse_args(argv)
    known = argparse.ArgumentParser(add_help=False)
    known.add_argument("--steps", type=int, required=True)
    args.steps = known.parse_known_args(args.training)[0].steps
    return args


def start(flags, run, output):
    return subprocess.Popen([sys.executable, str(SCRIPT), *flags, "--run-dir", str(run)], stdout=output, stderr=output)


def rows(run):
    """[{column: text}] of the log's whole rows."""
    path = run / "log.csv"
    text = path.read_text() if path.exists() else ""
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def wait_for(condition, process, log):
    """Polls until the condition holds; ends everything where the run ended before."""
    while not condition():
        if process.poll() is not None:
            sys.exit(
                f"the run was over (exit code {process.returncode}) before it was killed:\n{log.read_text()[-2000:]}"
            )
        time.sleep(0.0002)


def kill(process, run, step, in_write, delay, log):
    """Kills the run some time behind `step` → what it left: the last logged step, and whether half a checkpoint."""

    def writing():
        return any(run.glob(".model.ckpt-*.partial/*"))

    wait_for(lambda: (last := rows(run)[-1:]) and int(last[0]["step"]) >= step, process, log)
    time.sleep(delay)
    if in_write:
        wait_for(writing, process, log)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return int(rows(run)[-1]["step"]), writing()


def compare(run, unbroken, steps):
    """Exits with what differs, if anything. → (variables compared, rows compared)"""
    from models.checkpoint import open_checkpoint

    with open_checkpoint(run) as found, open_checkpoint(unbroken) as expected:
        if found.shapes != expected.shapes:
            sys.exit("the checkpoints hold other variables")
        different = [
            name for name in found.shapes if np.asarray(found.read(name)).tobytes() != expected.read(name).tobytes()
        ]
        if different:
            sys.exit(f"{len(different)} variables differ, such as {different[0]}")
        variables = len(found.shapes)
    timeless = [[{k: v for k, v in row.items() if k not in CLOCKED} for row in rows(one)] for one in (run, unbroken)]
    numbers = [int(row["step"]) for row in timeless[0]]
    if len(set(numbers)) < len(numbers) or numbers[-1] != steps:
        sys.exit(f"the log's steps are {numbers}")
    if timeless[0] != timeless[1]:
        sys.exit("the logs differ")
    return variables, len(numbers)


def main(argv=None):
    args = parse_arguments(argv)
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        unbroken, run, log = Path(folder, "unbroken"), Path(folder, "killed"), Path(folder, "output.txt")
        with open(log, "w") as output:
            if start(args.training, unbroken, output).wait():
                sys.exit(log.read_text())
            written_in = 0
            for number in range(1, args.kills + 1):
                process = start(args.training, run, output)
                after = number * args.steps // (args.kills + 1)
                step, partial = kill(process, run, after, number % 2 == 0, rng.uniform(0, 0.5), log)
                written_in += partial
                print(f"kill {number}: behind step {step}{', half a checkpoint left' if partial else ''}", flush=True)
            if start(args.training, run, output).wait():
                sys.exit(log.read_text())
        variables, count = compare(run, unbroken, args.steps)
    print(
        f"{args.kills} kills, {written_in} of them while a checkpoint was being written: {variables} variables and "
        f"slots equal to the bit, {count} rows of the log equal, no step twice, none missing"
    )


if __name__ == "__main__":
    command_line.run(main)
