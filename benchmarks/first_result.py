"""How long one small picture takes from the command line to the written files, and how much of that is the network.

python benchmarks/first_result.py --picture photo.jpg --models runs/seg exported/model.onnx --rounds 5

Runs predict_seg.py anew each time, the models in turn, and prints a Markdown table. A round that is not counted comes
first, so that files lie in memory. With --beside, that program of another version takes its turns too.
"""

import argparse
import re
import resource
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
    parser.add_argument("--beside", metavar="PROGRAM", help="predict_seg.py of another version")
    parser.add_argument("--rounds", type=command_line.argument_type(POSITIVE_INT), default=5, help="[%(default)s]")
    return parser.parse_args(argv)


def predict(program, model, picture, *flags):
    """Runs the program. → (wall seconds, CPU seconds, what it printed)"""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(program), "--ckpt", model, picture, "--out", out, *flags]
        started, worked = time.perf_counter(), cpu_seconds()
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started, cpu_seconds() - worked
    if result.returncode:
        sys.exit(f"{' '.join(command)}: exit code {result.returncode}\n{result.stderr}")
    return *seconds, result.stdout


def cpu_seconds():
    """CPU time of all that has been run so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(models, programs, picture, rounds):
    """→ {(model, program): [(wall seconds, CPU seconds, {step: seconds})]}. The first two are of a run that does not
    measure itself."""
    found = {(model, program): [] for model in models for program in programs}
    for number in range(rounds + 1):
        for (model, program), runs in found.items():
            wall, cpu, _ = predict(program, model, picture)
            laps = LAP.findall(predict(program, model, picture, "--timing")[-1])
            if number:
                runs.append((wall, cpu, {step: float(value) for value, step in laps}))
    return found


def table(found):
    """One row a model: medians over the rounds, and the range of the whole."""
    lines = [
        "| model | command to files | CPU | imports | model opened | read, predicted, written | of which the network |",
        "|---|---|---|---|---|---|---|",
    ]
    for (model, program), runs in found.items():
        whole, worked, laps = zip(*runs, strict=True)
        steps = {step: statistics.median(each[step] for each in laps) for step in laps[0]}
        imports, opened = steps.get("imports"), steps.get("model built and restored")
        network = next(seconds for step, seconds in steps.items() if step.startswith(NETWORK))
        median = statistics.median(whole)
        cells = [
            f"{median:.2f} s ({min(whole):.2f}–{max(whole):.2f})",
            f"{statistics.median(worked):.2f} s",
            f"{imports:.2f} s" if imports is not None else "",
            f"{opened:.2f} s" if opened is not None else f"{steps['imports, export opened']:.2f} s with imports",
            f"{steps['first input read, predicted, written']:.2f} s",
            f"{network:.2f} s, {network / median:.0%} of all",
        ]
        title = Path(model).name if program == SCRIPT else f"{Path(model).name}, beside"
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv=None):
    args = parse_arguments(argv)
    programs = [SCRIPT] if args.beside is None else [SCRIPT, args.beside]
    print(table(measure(args.models, programs, args.picture, args.rounds)))


if __name__ == "__main__":
    main()
