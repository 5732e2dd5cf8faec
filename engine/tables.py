"""Scores and answers as files for other programs."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from engine.options import ScoreFiles
from files.writing import write_whole


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as the text of a CSV file."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue()


def write_scores(files: ScoreFiles, rows: Iterable[Sequence[Any]], results: Sequence[dict[str, Any]]) -> None:
    """Writes the files that are asked for: `rows` as CSV, and as JSON `results`, of each model one."""
    if files.csv:
        write_whole(files.csv, as_csv(rows))
    if files.json:
        content = results[0] if len(results) == 1 else results
        write_whole(files.json, json.dumps(content, indent=1, allow_nan=False))
