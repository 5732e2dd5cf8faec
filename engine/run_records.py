"""What a run's directory holds beside checkpoints, as it must be: config.json, coverage.json, log.csv."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict

import msgspec

from files.records import Count, Positive, RecordError, checked, read_json, read_rows

Small = Annotated[int, msgspec.Meta(ge=1, le=10_000)]  # channels, dilations, strides
LONGEST = 1e9  # seconds of a run, 30 years
COLUMNS = {"step", "loss", "learning_rate", "images_per_second", "seconds"}  # the first ones of log.csv

REMEDY = "Copy it again, or undo the edit; the checkpoints are untouched"


class RunError(RecordError):
    """A run directory that cannot be used as asked."""


class Arguments(TypedDict, total=False):
    """Of a run's arguments those that other programs use, and that change nothing silently."""

    steps: Positive
    batch_size: Positive
    eval_size: Positive | Literal["none"] | None
    image_size: Positive


class ModelSettings(TypedDict, total=False):
    """The arguments of `models.deeplab_v3.deeplab_v3`, or of a backbone with its classifier."""

    backbone: Required[str]
    num_classes: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    output_stride: Small
    multi_grid: list[Small] | None
    depth_multiplier: Annotated[float, msgspec.Meta(gt=0, le=16)]
    divisible_by: Small
    atrous_rates: list[Small] | None
    features: str
    upsampling: str
    align_corners: bool  # of runs before `upsampling` had its name
    head: str | None
    head_channels: Small | None
    separable_aspp: bool
    image_pooling: bool
    image_pooling_crop_size: list[Small] | None
    image_pooling_stride: list[Small]
    rates_follow_stride: bool
    head_norm: str
    head_activation: str
    decoder: str | None
    low_level: str | None
    preprocessing: dict[str, Any] | str | None
    last_conv: bool
    in_channels: Small


class SetSummary(TypedDict):
    """An image set of a run."""

    images: Count
    bytes: Count


class DataSummary(TypedDict):
    """What a run's data were (`engine.run_data`)."""

    sets: dict[str, SetSummary]
    sha256: str


class RunConfig(TypedDict):
    """config.json."""

    arguments: dict[str, Any]
    model: dict[str, Any]
    classes: list[str]
    data: NotRequired[DataSummary | None]


class Backbone(TypedDict):
    """How much of the backbone was restored."""

    loaded: Count
    variables: Count
    values: Count


class CoverageEntry(TypedDict):
    """What became of a variable."""

    status: str
    variable: str | None
    source: str | None
    shape: list[Count] | None
    source_shape: list[Count] | None
    why: str
    reason: str


class Coverage(TypedDict):
    """coverage.json: the report of a run's initialization (`models.weight_init.Report`)."""

    checkpoint: str
    model: str
    guide: str
    counts: dict[str, Count]
    backbone: Backbone
    entries: list[CoverageEntry]


def read_config(folder: str | Path) -> RunConfig:
    """The config.json of the run in `folder`; RunError where it is damaged or was edited."""
    path = Path(folder) / "config.json"
    try:
        return _config(path)
    except RecordError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise RunError(f"{path}: cannot be read as a run's configuration: {said}") from error


def _config(path: Path) -> RunConfig:
    config = read_json(path, RunConfig, REMEDY, closed=True)
    checked(config["arguments"], Arguments, path, REMEDY, "arguments")
    checked(config["model"], ModelSettings, path, REMEDY, "model")
    if strange := sorted(config["model"].keys() - ModelSettings.__annotations__.keys()):
        raise RecordError(f"{path}: model.{strange[0]}: no such setting. {REMEDY}")
    classes, outputs = len(config["classes"]), config["model"].get("num_classes")
    if outputs not in (None, classes):
        raise RecordError(f"{path}: model.num_classes: {outputs}, with {classes} names in classes. {REMEDY}")
    return config


def read_coverage(folder: str | Path) -> Coverage | None:
    """The coverage.json of the run in `folder`, None where nothing was restored; RecordError as for `read_config`."""
    path = Path(folder) / "coverage.json"
    return read_json(path, Coverage, REMEDY, closed=True) if path.exists() else None


def read_log(path: Path) -> list[dict[str, str]]:
    """[{column: text}] of log.csv; RecordError where a line is not what a run writes.

    All is numbers. Scores, the columns behind `seconds`, may be empty or no number.
    """
    rows = read_rows(path) if path.exists() else []
    columns = list(rows[0]) if rows else []
    if rows and columns[0] != "step":
        raise RecordError(f"{path}: line 1: step is not the first column. {REMEDY}")
    scores = columns[columns.index("seconds") + 1 :] if "seconds" in columns else []
    before = 0
    for number, row in enumerate(rows, 2):
        for column, text in row.items():
            if not _is_right(column, text, column in scores):
                raise RecordError(f"{path}: line {number}: {column} is {text[:40]!r}. {REMEDY}")
        if int(row["step"]) <= before:
            raise RecordError(f"{path}: line {number}: step {row['step']} follows {before}. {REMEDY}")
        before = int(row["step"])
    return rows


def _is_right(column: str, text: str, is_score: bool) -> bool:
    if column == "step":
        return text.isascii() and text.isdecimal() and len(text) < 10
    if is_score and not text:
        return True
    try:
        value = float(text)
    except ValueError:
        return False
    if column in ("seconds", "images_per_second"):
        return 0 <= value <= LONGEST
    return math.isfinite(value) or (is_score and math.isnan(value))
