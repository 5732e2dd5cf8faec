"""report.html: a run on one page that opens offline, built from the files of its run directory.

Beside what every run keeps (config.json, coverage.json, log.csv) it shows, where they are there,

scores.json       the last evaluation with its confusion matrix, as `eval_seg.py --json` writes it
predictions.png   a sheet of predictions, as `eval_seg.py --sheet` draws it
"""

import base64
import io
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from html import escape
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
import numpy as np

from data.images import read_image
from engine.pictures import png
from engine.run_directory import RunDirectory
from engine.run_records import COLUMNS, LONGEST, RunConfig, read_coverage
from errors import some
from files.records import Count, Positive, RecordError, checked, read_json, sealed
from files.writing import write_whole
from inference.metrics import class_iou, scores, scores_by_class

NAME = "report.html"
_TEMPLATE = Path(__file__).with_name("report_template.html")
_NUMBERED_CLASSES = 32  # a larger confusion matrix shows its numbers only under the pointer


def write_report(run: RunDirectory, *, matrix: np.ndarray | None = None, sheet: np.ndarray | None = None) -> Path:
    """Writes report.html, and what it needs to be built again, into the run's directory; returns its path.

    Args:
        run: a RunDirectory; one that is still being trained, or trained no step yet, will do.
        matrix: integer (classes, classes) of the evaluation at the last logged step, kept as scores.json;
            None leaves what is there.
        sheet: uint8 RGB (H, W, 3) of predictions, kept as predictions.png; None leaves what is there.

    Raises:
        RecordError: a file of the run is damaged or was edited.
    """
    if matrix is not None:
        results = {"step": int(run.log_rows()[-1]["step"]), **scores_by_class(matrix, run.config()["classes"])}
        run.write("scores.json", sealed(results | {"confusion_matrix": np.asarray(matrix).tolist()}))
    if sheet is not None:
        write_whole(run.path / "predictions.png", png(sheet))
    write_whole(run.path / NAME, _page(run).encode())
    return run.path / NAME


def _page(run: RunDirectory) -> str:
    config, rows = run.config(), run.log_rows()
    if rows and (absent := COLUMNS - rows[0].keys()):
        raise RecordError(f"{run.path / 'log.csv'}: line 1: {some(sorted(absent))} is missing. No report without it")
    log = Log(rows)
    schedule = checked(config["arguments"], Schedule, run.path / "config.json", "No report without it", "arguments")
    coverage, results = read_coverage(run.path), _read_scores(run.path / "scores.json")
    sections = {
        "Configuration": _configuration(config),
        "Initialization": _initialization(coverage),
        "Curves": _curves(log),
        "Classes": results and _classes(results),
        "Confusion matrix": results and _confusion(results),
        "Predictions": _predictions(run.path / "predictions.png"),
        "Speed": _speed(log, schedule["batch_size"]),
    }
    sections = {title: body for title, body in sections.items() if body}
    anchors = {title: title.lower().replace(" ", "-") for title in sections}
    return Template(_TEMPLATE.read_text()).substitute(
        title=escape(run.path.resolve().name),
        summary=_pairs(_summary(config, schedule["steps"], coverage, log)),
        navigation="\n".join(f'<a href="#{anchors[title]}">{title}</a>' for title in sections),
        sections="\n".join(
            f'<section id="{anchors[title]}"><h2>{title}</h2>\n{body}</section>' for title, body in sections.items()
        ),
    )


class Schedule(TypedDict):
    """Of a run's arguments, those that its report counts with."""

    steps: Positive
    batch_size: Positive


class Scores(TypedDict):
    """Of scores.json what is shown; all scores follow from the matrix."""

    confusion_matrix: list[list[Annotated[int, msgspec.Meta(ge=0, le=2**46)]]]
    iou: dict[str, float | None]
    step: NotRequired[Count]
    checkpoint: NotRequired[str]
    image_set: NotRequired[str]
    images: NotRequired[Count]


def _read_scores(path: Path) -> Scores | None:
    """What scores.json holds; None without the file."""
    if not path.exists():
        return None
    remedy = "Remove it to have a report without it"
    results = read_json(path, Scores, remedy)
    sizes = {len(results["iou"]), len(results["confusion_matrix"]), *map(len, results["confusion_matrix"])}
    if len(sizes) > 1 or not results["iou"]:
        raise RecordError(f"{path}: confusion_matrix: not of {len(results['iou'])} rows and columns as iou. {remedy}")
    return results


class Log:
    """log.csv as numbers. `scores` are the columns behind `seconds`, the first of them says which model is best."""

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        self.rows = [{name: float(text) if text else math.nan for name, text in row.items()} for row in rows]
        names = list(rows[0]) if rows else []
        self.scores = names[names.index("seconds") + 1 :] if rows else []
        self.trained = names[1 : names.index("learning_rate")] if rows else []  # loss and metrics of training

    def points(self, name: str) -> list[tuple[int, float]]:
        """[(step, value)] where there is a value."""
        return [(int(row["step"]), row[name]) for row in self.rows if math.isfinite(row[name])]

    def best(self) -> tuple[int, float] | None:
        """(step, value) of the best model by the first score; None without an evaluation."""
        points = self.points(self.scores[0]) if self.scores else []
        return max(points, key=lambda point: point[1], default=None)


def _summary(config: RunConfig, steps: int, coverage: Mapping[str, Any] | None, log: Log) -> dict[str, Any]:
    last = log.rows[-1] if log.rows else None
    kind = "DeepLab v3" if "output_stride" in config["model"] else "classifier"
    summary = {"model": f"{kind}, {config['model']['backbone']}", "classes": len(config["classes"])}
    if coverage:
        summary["restored"] = "{loaded}/{variables} backbone variables".format(**coverage["backbone"])
    summary["steps"] = f"{int(last['step']) if last else 0:,} of {steps:,}"
    if best := log.best():
        step, value = best
        summary[f"best {log.scores[0]}, at step {step:,}"] = f"{value:.4f}"
    if last:
        summary["images/s, median"] = f"{_median_rate(log):.3g}"
        summary["wall clock"] = _clock(last["seconds"])
    return summary


def _configuration(config: RunConfig) -> str:
    settings = {"model": config["model"], "arguments": config["arguments"]}
    groups = [f"<h3>{title}</h3>\n" + _pairs(values, "settings") for title, values in settings.items()]
    names = ", ".join(map(escape, config["classes"]))
    return "\n".join([*groups, f"<h3>classes ({len(config['classes'])})</h3>\n<p>{names}</p>"])


def _pairs(values: Mapping[str, Any], css: str | None = None) -> str:
    items = "\n".join(f"<div><dt>{escape(name)}</dt><dd>{escape(_said(v))}</dd></div>" for name, v in values.items())
    return f'<dl class="{css}">\n{items}\n</dl>' if css else items


def _said(value: Any) -> str:
    """A setting as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ("", []):
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _initialization(coverage: Mapping[str, Any] | None) -> str:
    if coverage is None:
        return "<p>From scratch: nothing was restored.</p>"
    lists = []
    for status, count in coverage["counts"].items():
        entries = [entry for entry in coverage["entries"] if entry["status"] == status]
        values = sum(math.prod(entry["shape"] or entry["source_shape"] or ()) for entry in entries)
        title = f"{escape(status)}: {count:,} variables" + (f", {values:,} values" if count else "")
        layers = "\n".join(f"<li>{escape(line)}</li>" for line in _layers(entries))
        lists.append(
            f"<details><summary>{title}</summary><ul>{layers}</ul></details>" if count else f"<div>{title}</div>"
        )
    backbone = coverage["backbone"]
    restored = escape(f"{backbone['loaded']}/{backbone['variables']} backbone variables")
    return (
        f"<p>{escape(coverage['checkpoint'])} → {escape(coverage['model'])}, {escape(coverage['guide'])}-guided: "
        f"<strong>{restored}</strong>, {backbone['values']:,} values.</p>\n" + "\n".join(lists)
    )


def _layers(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One line a layer: `conv1/BatchNorm/{beta, gamma}`, with the reason where there is one."""
    layers: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        scope, slash, leaf = (entry["variable"] or entry["source"]).rpartition("/")
        layers.setdefault((scope + slash, entry["reason"]), []).append(leaf)
    for (scope, reason), leaves in layers.items():
        names = leaves[0] if len(leaves) == 1 else "{" + ", ".join(leaves) + "}"
        yield f"{scope}{names}" + (f" ({reason})" if reason else "")


def _curves(log: Log) -> str:
    if not log.rows:
        return "<p>No step was logged yet.</p>"
    losses = [name for name in log.scores if name.endswith("loss")]
    charts = {
        "Training loss, weight decay included": ["loss"],
        "Learning rate": ["learning_rate"],
        "Scores, fractions": [name for name in (*log.scores, *log.trained) if name not in ("loss", *losses)],
        "Validation loss": losses,
    }
    figures = [_figure(title, log, names) for title, names in charts.items() if any(map(log.points, names))]
    return '<div class="charts">\n' + "\n".join(figures) + "</div>"


def _figure(title: str, log: Log, names: Sequence[str]) -> str:
    svg = _chart({name: log.points(name) for name in names})
    return f'<figure role="img" aria-label="{escape(title)}"><figcaption>{escape(title)}</figcaption>{svg}</figure>'


def _chart(curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """{name: [(step, value)]} → inline SVG in the page's own colours and fonts."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": NAME}):
        figure = Figure(figsize=(5.2, 3), layout="constrained")
        axes = figure.subplots()
        for name, points in curves.items():
            steps, values = zip(*points, strict=True) if points else ((), ())
            axes.plot(steps, values, label=name, linewidth=1.3, marker="o" if len(points) < 30 else None, markersize=3)
        axes.set_xlabel("step")
        axes.set_xlim(left=0)
        axes.grid(color="#808080", alpha=0.3)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize="small")
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace("#000000", "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r' (?:xmlns(?::xlink)?="[^"]*"|id="[\w.]+_\d+"|(?<=<svg )(?:width|height)="[^"]*")', "", svg)


def _classes(results: "Scores") -> str:
    matrix = np.asarray(results["confusion_matrix"])
    support = matrix.sum(1)
    rows = []
    for name, iou, right, pixels in zip(results["iou"], class_iou(matrix), np.diag(matrix), support, strict=True):
        bar = '<td class="bar">–' if math.isnan(iou) else f'<td class="bar" style="--v:{100 * iou:.1f}">{100 * iou:.1f}'
        accuracy = f"{100 * right / pixels:.1f}" if pixels else "–"
        rows.append(f"<tr><th>{escape(name)}</th>{bar}</td><td>{accuracy}</td><td>{pixels:,}</td></tr>")
    means = {name: "–" if math.isnan(score) else f"{score:.4f}" for name, score in scores(matrix).items()}
    return (
        f"<p>{_measured(results)}</p>\n"
        '<div class="wide"><table class="classes">\n<thead><tr><th>class</th><th class="bar">IoU, %</th>'
        "<th>accuracy, %</th><th>pixels</th></tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>\n"
        f'<dl class="summary">{_pairs(means)}</dl>'
    )


def _measured(results: "Scores") -> str:
    """Where the scores come from: this run's evaluation, or eval_seg.py's."""
    if "step" in results:
        return f"Validation at step {results['step']:,}."
    return escape(f"{results.get('checkpoint')}, image set {results.get('image_set')}, {results.get('images')} images.")


def _confusion(results: "Scores") -> str:
    matrix = np.asarray(results["confusion_matrix"], np.float64)
    support = matrix.sum(1, keepdims=True)
    shares = 100 * np.divide(matrix, support, out=np.zeros_like(matrix), where=support > 0)
    names = [escape(name) for name in results["iou"]]
    numbered = len(names) <= _NUMBERED_CLASSES
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = [
        f"<tr><th>{truth}</th>"
        + "".join(_cell(truth, name, share, numbered) for name, share in zip(names, row, strict=True))
        + "</tr>"
        for truth, row in zip(names, shares, strict=True)
    ]
    return (
        "<p>A row a true class, a column a predicted one; percent of the true class's pixels.</p>\n"
        f'<div class="wide"><table class="confusion{"" if numbered else " dense"}">\n'
        f"<thead><tr><th></th>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _cell(truth: str, predicted: str, share: float, numbered: bool) -> str:
    if share < 0.05:
        return "<td></td>"
    number = f"{share:.0f}" if numbered and share >= 0.5 else ""
    return f'<td style="--v:{share:.1f}" title="{truth} → {predicted}: {share:.1f} %">{number}</td>'


def _predictions(path: Path) -> str | None:
    if not path.is_file():
        return None
    from PIL import Image

    stream = io.BytesIO()  # the PNG is kept beside; on the page a fifth of its size will do
    Image.fromarray(read_image(path)).save(stream, "jpeg", quality=88)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="images, truth and predictions" src="data:image/jpeg;base64,{data}">'


def _speed(log: Log, batch_size: int) -> str | None:
    if not log.rows:
        return None
    total = log.rows[-1]["seconds"]
    steps = [0, *(row["step"] for row in log.rows)]
    training = sum(
        (step - before) * batch_size / max(row["images_per_second"], 0.0005)  # which is rounded to 0
        for (before, step), row in zip(pairwise(steps), log.rows, strict=True)
    )
    rest = max(0, total - training)  # the log's seconds are rounded
    facts = {
        "images/s, median": f"{_median_rate(log):.3g}",
        "a step, median": f"{batch_size / max(_median_rate(log), 0.0005):.3g} s",
        "wall clock": _clock(total),
        "in training steps": _clock(training),
        "evaluation, saving": _clock(rest) + (f" ({rest / total:.0%})" if total else ""),
    }
    return (
        f'<dl class="summary">{_pairs(facts)}</dl>\n<div class="charts">'
        + _figure("Images/s, training steps only", log, ["images_per_second"])
        + "</div>"
    )


def _median_rate(log: Log) -> float:
    return statistics.median(row["images_per_second"] for row in log.rows)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(min(seconds, LONGEST))))
