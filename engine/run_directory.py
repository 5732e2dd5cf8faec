"""A run's directory: configuration, log, checkpoints; opened again, it is the run continued.

config.json         what the run was started with, the model it was resolved to, and what its data were
data.csv            each image of its data, with its files' sizes
coverage.json       the report of the initialization
log.csv             one row a logged step
model.ckpt-N        the last checkpoints, under slim's names, with Momentum slots and global_step
best/model.ckpt-N   the best by the validation score
tensorboard/        events
"""

import csv
import fcntl
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.run_data import RunData, sha256
from engine.run_records import RunConfig, RunError, read_config, read_coverage, read_log
from files.records import read_bytes, sealed
from files.writing import check_room, clear_leftovers, write_whole, writing
from models.checkpoint import CheckpointError, find_prefix, open_checkpoint
from models.weight_init import LOADED, Report, model_guided_init, save_checkpoint

if TYPE_CHECKING:
    from models.layers import Network


class Optimizer(Protocol):
    """What a checkpoint keeps of an optimizer (`training.optimizer.Momentum`)."""

    iterations: Any  # the variable that counts its steps

    def slots(self, names: Mapping[str, str], /) -> dict[str, Any]:
        """{name: momentum variable}, for {path: name} of the model's variables."""


class RunDirectory:
    """`path` as the place of a run with these `arguments` (a dict that JSON can hold), new or to be continued.

    Nothing is written before `open`. Raises RunError when the directory holds something else, or another run with
    other arguments (those in `free` may differ).
    """

    def __init__(self, path: str | Path, arguments: Mapping[str, Any], free: Iterable[str] = ()) -> None:
        self.path = Path(path).expanduser()
        self.best = self.path / "best"
        self._config = self.path / "config.json"
        self._log = self.path / "log.csv"
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path}: is a file, not a run directory")
        names = [p.name for p in self.path.iterdir()] if self.path.exists() else []
        others = [name for name in names if name not in _BEFORE_CONFIG and not name.startswith(".partial-")]
        arguments = json.loads(json.dumps(arguments))
        if self._config.is_file():
            self._compare(arguments, free)
        elif others:
            raise RunError(
                f"{self.path}: not empty and no run of ours (no config.json, but {others[0]}); name another --run-dir"
            )
        self.arguments = arguments
        self._lock: int | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {self.last_step()} steps saved)"

    def open(self) -> None:
        """Makes the directory and keeps every other process from training in it, until `close` or the process's end.

        Raises RunError where another one does, and WriteError.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / "run.lock", os.O_CREAT | os.O_WRONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._lock = lock
        except OSError as error:
            os.close(lock)
            raise RunError(f"{self.path}: in use by another process that trains there") from error
        for folder in self.path, self.best, self.path / "tensorboard":
            clear_leftovers(folder)

    def close(self) -> None:
        """Lets others train in the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _compare(self, arguments: Mapping[str, Any], free: Iterable[str]) -> None:
        before = self.config()["arguments"]
        changed = [
            f"{key}: {before.get(key)!r} → {arguments.get(key)!r}"
            for key in sorted({*before, *arguments} - set(free))
            if before.get(key) != arguments.get(key)
        ]
        if changed and self.has_saved():
            raise RunError(
                f"{self.path}: holds a run that was started otherwise ({'; '.join(changed)}). Repeat its command to "
                f"continue it, or name another --run-dir; --ckpt {self.path} starts from its weights."
            )

    def has_saved(self) -> bool:
        """Whether a step was ever saved; a run without one has nothing to lose by being started otherwise."""
        return any(any(folder.glob("model.ckpt-*")) for folder in (self.path, self.best))

    def config(self) -> RunConfig:
        """What config.json holds."""
        return read_config(self.path)

    def start(
        self,
        model_config: Mapping[str, Any],
        class_names: Iterable[str],
        report: Report | None = None,
        data: RunData | None = None,
    ) -> None:
        """Writes down what the run is, before its first step; what an attempt without one left is gone."""
        with writing(self.path):
            (self.path / "coverage.json").unlink(missing_ok=True)
        for folder in self.best, self.path / "tensorboard":
            shutil.rmtree(folder, ignore_errors=True)
        if report is not None:
            self.write("coverage.json", sealed(report.document()))
        self._configure(model_config, class_names, data)

    def _configure(self, model_config: Mapping[str, Any], class_names: Iterable[str], data: RunData | None) -> None:
        config = {"arguments": self.arguments, "model": model_config, "classes": list(class_names)}
        if data is not None:
            self.write("data.csv", data.csv())
            config["data"] = data.summary()
        self.write("config.json", sealed(config))

    def compare_data(self, class_names: Sequence[str], data: RunData) -> list[str]:
        """What has changed of the data since the run was started, in words; nothing where all is as it was.

        Raises RunError where what they were cannot be read.
        """
        config = self.config()
        before = config["classes"]
        changed = [] if before == list(class_names) else [f"classes: {_listed(before)} → {_listed(class_names)}"]
        if (told := config.get("data")) is None:
            return changed
        path = self.path / "data.csv"
        try:
            text = read_bytes(path).decode("utf-8", "surrogateescape")
            if sha256(text) != told["sha256"]:
                raise ValueError("it is not what config.json names")
            return changed + data.changes(RunData.read(text))
        except (ValueError, csv.Error) as error:
            said = str(error).removeprefix(f"{path}: ")
            raise RunError(
                f"{path}: does not say what the run's data were ({said}); --data-changed goes on with what they are"
            ) from error

    def keeps_data(self) -> bool:
        """Whether the run wrote down what its data were; those of before 0.2 did not."""
        return self.config().get("data") is not None

    def take_data(self, class_names: Sequence[str], data: RunData) -> None:
        """Writes down that the run goes on with other data."""
        self._configure(self.config()["model"], class_names, data)

    def restored_names(self) -> set[str]:
        """Names of the model's variables that the run's initialization restored, by its coverage.json."""
        coverage = read_coverage(self.path)
        entries = [] if coverage is None else coverage["entries"]
        return {entry["variable"] for entry in entries if entry["status"] == LOADED and entry["variable"]}

    def write(self, name: str, text: str) -> None:
        """Writes a text file of the run, whole or not at all. Raises WriteError."""
        write_whole(self.path / name, text.encode("utf-8", "surrogateescape"))

    # Checkpoints

    def last_step(self) -> int:
        """The step of the last checkpoint; 0 without one."""
        return _step(find_prefix(self.path)) if (self.path / "checkpoint").is_file() else 0

    def best_step(self) -> int:
        """The step of the best model that is there; 0 without one."""
        return max((_step(p.with_suffix("")) for p in self.best.glob("model.ckpt-*.index")), default=0)

    def restore(self, model: "Network", optimizer: Optimizer) -> int:
        """Puts the last checkpoint into model and optimizer, whole; returns its step."""
        model_guided_init(model, self.path, strict=True)
        with open_checkpoint(self.path) as checkpoint:
            step = _step_in(checkpoint, _step(find_prefix(self.path)))
            for name, slot in optimizer.slots(_names(model)).items():
                slot.assign(_slot_in(checkpoint, f"{name}/Momentum", tuple(slot.shape)))
        optimizer.iterations.assign(step)
        return step

    def save(self, model: "Network", optimizer: Optimizer, step: int, keep: int) -> None:
        """Saves model.ckpt-<step> with everything a resumed run needs, and drops all but the last `keep`."""
        slots = {"Momentum": optimizer.slots(_names(model))}
        self._save(self.path, keep, model, step, slots)

    def save_best(self, model: "Network", step: int) -> None:
        """Saves the model alone as the best so far."""
        self._save(self.best, 1, model, step, None)

    def _save(
        self, folder: Path, keep: int, model: "Network", step: int, slots: dict[str, dict[str, Any]] | None
    ) -> None:
        self._check_there()
        check_room(folder, checkpoint_bytes(model, slots or {}), folder / f"model.ckpt-{step}")
        save_checkpoint(model, folder / f"model.ckpt-{step}", slots=slots, global_step=step)
        saved = {_step(p.with_suffix("")) for p in folder.glob("model.ckpt-*.index")}
        kept = sorted(s for s in saved if s <= step)[-keep:]  # a later one is of an attempt that was not gone on with
        _point_to(folder, kept)
        with writing(folder):
            for old in saved - set(kept):
                # The index first: without it, what is left is no checkpoint.
                for file in sorted(folder.glob(f"model.ckpt-{old}.*"), key=lambda p: p.suffix != ".index"):
                    file.unlink()

    def _check_there(self) -> None:
        if not self._config.is_file():
            raise RunError(
                f"{self.path}: is no longer there, or without its config.json: somebody removed it while it trained. "
                "Nothing more is written"
            )

    # Log

    def log_rows(self) -> list[dict[str, str]]:
        """[{column: text}] of log.csv, whole rows only."""
        return read_log(self._log)

    def cut_log(self, step: int) -> None:
        """Drops the rows behind `step`: they are about to be trained again."""
        rows = [row for row in self.log_rows() if int(row["step"]) <= step]
        if rows or self._log.is_file():
            self._write_log(rows)

    def _write_log(self, rows: Sequence[Mapping[str, str]]) -> None:
        stream = io.StringIO()
        if rows:
            writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        self.write("log.csv", stream.getvalue())

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends a row {column: value}; every row has the same columns."""
        self._check_there()
        with writing(self._log, "The checkpoints are whole."), open(self._log, "a", newline="") as stream:
            writer = csv.DictWriter(stream, row.keys(), lineterminator="\n")
            if not stream.tell():
                writer.writeheader()
            writer.writerow(row)

    def complete_row(self, step: int, scores: Mapping[str, Any]) -> None:
        """Puts the scores {column: value} of an evaluation into the row of `step`, which was logged without them."""
        rows = [row | {k: str(v) for k, v in scores.items()} if int(row["step"]) == step else row
                for row in self.log_rows()]  # fmt: skip
        self._write_log(rows)


class FollowedRun(RunDirectory):
    """A run that another process writes: this one reads it, and writes nothing."""

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        """Is left to the process that writes."""

    open = close = start = write = save = save_best = cut_log = log = complete_row = take_data = _nothing


_OWN_CHECKPOINT = re.compile(r"model\.ckpt-\d+(\.index|\.data-.*)?$")
_OWN_FILES = ("log.csv", "coverage.json", "run.lock")
_BEFORE_CONFIG = ("run.lock", "coverage.json", "data.csv")  # what a run that was killed at once may have


def run_of(checkpoint: Any) -> Path | None:
    """The run directory that a user named, itself or by one of its checkpoints, or None.

    Its `config.json` alone makes a folder one, so that a copied run is still a run. Raises RunError for a run
    whose `config.json` cannot be read.
    """
    if not isinstance(checkpoint, str | os.PathLike):
        return None  # one that is open already
    path = Path(checkpoint).expanduser()
    folders = [path]
    if _OWN_CHECKPOINT.match(path.name):
        folders.append(path.parent)
    folders += [folder.parent for folder in folders if folder.name == "best"]
    return next((folder for folder in folders if _is_run(folder)), None)


def _is_run(folder: Path) -> bool:
    config = folder / "config.json"
    if not config.is_file():
        return False
    try:
        read_config(folder)
    except RunError:  # of another program, unless one of ours lies beside it
        if any((folder / name).exists() for name in _OWN_FILES):
            raise
        return False
    return True


def checkpoint_bytes(model: "Network", slots: Mapping[str, Mapping[str, Any]]) -> int:
    """What a checkpoint takes on the disk: its values, and some for their names."""
    variables = [*model.weights, *(slot for of_kind in slots.values() for slot in of_kind.values())]
    return sum(4 * math.prod(variable.shape) + 256 for variable in variables)


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names))


def _names(model: "Network") -> dict[str, str]:
    prefix = model.variable_prefix
    return {variable.path: variable.path.removeprefix(prefix) for variable in model.weights}


def _step(prefix: str | Path) -> int:
    match = re.search(r"-(\d+)$", Path(prefix).name)
    if not match:
        raise CheckpointError(f"{prefix}: not a run's checkpoint (model.ckpt-N)")
    return int(match.group(1))


def _step_in(checkpoint: Any, named: int) -> int:
    """The checkpoint's `global_step`, which must be the one in its name."""
    step = checkpoint.read("global_step")
    if step.shape or step.dtype.kind not in "iu" or int(step) != named:
        told = step.tolist() if step.size < 10 else f"of shape {step.shape}"
        raise CheckpointError(
            f"{checkpoint.prefix}: its global_step is {told}, not {named} as in its name; it cannot be continued. "
            "--ckpt starts another run from its weights."
        )
    return named


def _slot_in(checkpoint: Any, name: str, shape: tuple[int, ...]) -> Any:
    found = checkpoint.shapes.get(name)
    if found != shape:
        raise CheckpointError(
            f"{checkpoint.prefix}: {name} {'is not in it' if found is None else f'has the shape {found}'}, where this "
            f"run's optimizer keeps {shape}; it cannot be continued. --ckpt starts another run from its weights."
        )
    return checkpoint.read(name)


def _point_to(folder: Path, steps: list[int]) -> None:
    """Rewrites TensorFlow's `checkpoint` file, with relative names so that the directory can be moved."""
    names = [f"model.ckpt-{step}" for step in steps]
    lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
    write_whole(folder / "checkpoint", "\n".join(lines) + "\n")
