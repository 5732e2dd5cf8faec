"""Several runs under one budget side by side: a table and a plot of their validation curves."""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.run_directory import RunDirectory
from files.writing import write_whole

Curve = list[dict[str, Any]]  # a row an evaluation: step, score and seconds


def write_comparison(folder: str | Path, runs: Mapping[str, RunDirectory], score: str) -> str:
    """Writes comparison.json, comparison.md and comparison.png into `folder`; returns the table's text.

    Args:
        runs: {name: RunDirectory}.
        score: the column of their logs that is compared.
    """
    curves = {name: _curve(run.log_rows(), score) for name, run in runs.items()}
    lines = [f"| run | last {score} | best {score} | at step | seconds |", "|---|---|---|---|---|"]
    for name, curve in curves.items():
        best = max(curve, key=lambda point: point[score])
        lines.append(
            f"| {name} | {curve[-1][score]:.4f} | {best[score]:.4f} | {best['step']} | {curve[-1]['seconds']:.0f} |"
        )
    table = "\n".join(lines)
    folder = Path(folder)
    write_whole(folder / "comparison.md", (table + "\n").encode())
    write_whole(folder / "comparison.json", json.dumps(curves, indent=1).encode())
    write_whole(folder / "comparison.png", _plot(curves, score))
    return table


def _curve(rows: Iterable[Mapping[str, str]], score: str) -> Curve:
    return [
        {"step": int(row["step"]), score: float(row[score]), "seconds": float(row["seconds"])}
        for row in rows
        if row[score]
    ]


def _plot(curves: Mapping[str, Curve], score: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot([p["step"] for p in curve], [p[score] for p in curve], marker="o", markersize=3, label=name)
    axes.set(xlabel="step", ylabel=score, ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()
