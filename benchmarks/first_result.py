"""How long one small picture takes from the command line to the written files, and how much of that is the network.

python benchmarks/first_result.py --picture photo.jpg --models runs/seg exported/model.onnx --rounds 5

Runs predict_seg.py anew each time, the models in turn, and prints a Markdown table. A round that is not counted comes
first, so that files lie in memory.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import command_line
from engine.kinds import POSITIVE_INT

SCRIPT = Path(__file__).resolve().parents[1] / "predict_seg.py"
LAP = re.compile(r"^ *(\d+\.\d+) s  (.+)$", re.MULTILINE)
NETWORK = "of which the network"


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", required=True)
    parser.add_argument("--models", required=True, nargs="+", metavar="MODEL", help="checkpoints, runs, exports")
    parser.add_argument("--rounds", type=command_line.argument_type(POSITIVE_INT), default=5, help="[%(default)s]")
    return parser.parse_args(argv)


def predict(model, picture, *flags):
    """Runs predict_seg.py. → (wall seconds, what it printed)"""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(SCRIPT), "--ckpt", model, picture, "--out", out, *flags]
        started = time.perf_counter()
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
    if result.returncode:
        sys.exit(f"{' '.join(command)}: exit code {result.returncode}\n{result.stderr}")
    return seconds, result.stdout


def measure(models, picture, rounds):
    """→ {model: [(wall seconds, {step: seconds})]}. The wall time is of a run that does not measure itself."""
    found = {model: [] for model in models}
    for number in range(rounds + 1):
        for model in models:
            seconds, _ = predict(model, picture)
            steps = {step: float(value) for value, step in LAP.findall(predict(model, picture, "--timing")[1])}
            if number:
                found[model].append((seconds, steps))
    return found


def table(found):
    """One row a model: medians over the rounds, and the range of the whole."""
    lines = [
        "| model | command to files | imports | model opened | read, predicted, written | of which the network |",
        "|---|---|---|---|---|---|",
    ]
    for model, runs in found.items():
        whole = [seconds for seconds, _ in runs]
        steps = {step: statistics.median(steps[step] for _, steps in runs) for step in runs[0][1]}
        imports, opened = steps.get("imports"), steps.get("model built and restored")
        network = next(seconds for step, seconds in steps.items() if step.startswith(NETWORK))
        median = statistics.median(whole)
        cells = [
            f"{median:.2f} s ({min(whole):.2f}–{max(whole):.2f})",
            f"{imports:.2f} s" if imports is not None else "",
            f"{opened:.2f} s" if opened is not None else f"{steps['imports, export opened']:.2f} s with imports",
            f"{steps['first input read, predicted, written']:.2f} s",
            f"{network:.2f} s, {network / median:.0%} of all",
        ]
        lines.append(f"| {Path(model).name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv=None):
    args = parse_arguments(argv)
    print(table(measure(args.models, args.picture, args.rounds)))


if __name__ == "__main__":
    main()
