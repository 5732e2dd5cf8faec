"""Builds a run's report.html anew, from the files of its directory.

python report_run.py runs/seg

Training writes the report by itself. Built again, it shows what was measured since: scores.json, as
`eval_seg.py --json` writes it, and predictions.png, as `eval_seg.py --sheet` draws it, where the run has them.
"""

import argparse
from collections.abc import Sequence

import command_line


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line as a namespace."""
    parser = command_line.ProgramParser(__doc__)
    parser.add_argument("run_dir", metavar="RUN", help="the run whose report.html is built")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Builds the report and prints where it lies."""
    folder = parse_arguments(argv).run_dir

    from engine.run_directory import RunDirectory
    from engine.run_records import read_config
    from training.report import write_report

    print(write_report(RunDirectory(folder, read_config(folder)["arguments"])))


if __name__ == "__main__":
    command_line.start(main)
