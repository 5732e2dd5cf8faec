"""How far this project's networks are from the graphs that the families' own code built: a table for the papers.

python benchmarks/families.py

Facts and comparison are the tests' (`tests/golden`, `tests/models/test_golden_families.py`): weights and a picture that
a formula makes, and 96 values of each tensor that the original graph gave for them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import command_line
from engine.startup import import_keras


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """No flags but --help."""
    return command_line.ProgramParser(__doc__).parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parse_arguments(argv)
    import_keras()
    import keras
    import numpy as np

    from models.identify import identify
    from tests.golden_networks import SCATTER, SETTLED, GoldenFile
    from tests.models import test_golden_families as golden

    print("| golden file | told as | tensors | largest difference | of what two libraries differ by |")
    print("|---|---|---|---|---|")
    for name in (*golden.SEGMENTERS, *golden.CLASSIFIERS):
        keras.utils.clear_session()
        file = GoldenFile(name)
        opened = golden.opened if name in golden.SEGMENTERS else golden.opened_classifier
        departed = golden.departures(file, *opened(file))
        allowed = {t: max(SETTLED, SCATTER * file.tensors[t]["self_difference"]) for t in departed}
        largest = max(departed[tensor] * allowed[tensor] for tensor in departed)
        scatter = np.max([departed[tensor] * SCATTER for tensor in departed])
        print(f"| `{name}` | {identify(file.shapes)} | {len(departed)} | {largest:.1e} | {scatter:.2f}x |", flush=True)


if __name__ == "__main__":
    command_line.run(main)
