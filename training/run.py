"""One way from a checkpoint to a finished run, for every task."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from data.pipeline import original_errors
from engine import stopping
from engine.device import set_precision
from engine.kinds import Options, changed, flag, free_options, recorded
from engine.options import Devices, Learning, Recipe, Restore, Run
from engine.published import located
from engine.run_data import RunData
from engine.run_directory import FollowedRun, RunDirectory, RunError, checkpoint_bytes
from errors import UserError
from files.writing import check_room
from inference.opening import Told
from models.leftovers import check_meaning
from training.callbacks import RunKeeper, score_line
from training.distribution import Distribution, distribution_for
from training.initialization import choose_what_learns, initialize, restored_names, scope_table
from training.losses import CrossEntropy
from training.recipe import batch_norm_decay, compile_model, small_batch_advice
from training.report import write_report
from training.tensorboard import Board, cut_events


@dataclass(frozen=True)
class Task:
    """What is trained, on what data, and how it is scored.

    Attributes:
        class_names, data: of the data sets; kept with the run's configuration.
        configure: a function of the checkpoint's path, or None → what is told of the model.
        build: a function of its configuration and batch norm's decay → model.
        batches: a function of (model, start step, stop step, shard) → tf.data.Dataset of the shard's part of those
            steps' batches.
        validator: a function of (model, Distribution) → a function () → {score name: value}, which may keep its
            confusion matrix as `matrix`.
        score_names: the scores' names, first the one that says which checkpoint is best.
        loss, metrics: of the compiled model; the loss is a CrossEntropy.
        pictures: a function of the model → a function () → uint8 RGB (H, W, 3) of some predictions, for TensorBoard
            and the report.
        found: what was found of the data, said before the first step.
        whole: whether all of the model must come from the checkpoint, its head too.
    """

    class_names: Sequence
    data: RunData
    configure: Callable[[str | None], Told]
    build: Callable
    batches: Callable
    validator: Callable
    score_names: Sequence
    loss: CrossEntropy
    metrics: Sequence = ()
    pictures: Callable | None = None
    found: str = ""
    whole: bool = False


@dataclass(frozen=True)
class Training:
    """What a training is asked to do, beside its task.

    Attributes:
        ckpt: what is restored from; None: nothing.
        others: groups of options, and named values, that are the task's own; the run keeps them too.
    """

    ckpt: str | None
    restore: Restore
    recipe: Recipe
    learning: Learning
    run: Run
    devices: Devices
    others: Sequence[Options] = ()
    named: Mapping[str, Any] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[Options, ...]:
        """All groups of options."""
        return (*self.others, self.restore, self.recipe, self.learning, self.run, self.devices)

    @property
    def arguments(self) -> dict[str, Any]:
        """What the run's `config.json` keeps of it."""
        return recorded(*self.groups, ckpt="none" if self.ckpt is None else str(self.ckpt), **self.named)


def run_training(asked: Training, task: Task) -> RunDirectory | None:
    """Builds, initializes, proves, and fits all steps, or goes on where the run directory stopped.

    Returns:
        the RunDirectory, or None after a dry run.
    """
    if asked.ckpt is None and (needing := changed(asked.restore)):
        raise UserError(f"{', '.join(map(flag, needing))}: there is no checkpoint to restore from, --ckpt is none")
    distribution = distribution_for(asked.devices.devices, asked.devices.hosts, asked.devices.host)
    check_recipe(asked.recipe, distribution)
    keep = RunDirectory if distribution.writes else FollowedRun
    run = keep(asked.run.run_dir, asked.arguments, free=free_options(*asked.groups))
    with distribution.survivors_told(run):
        return _train(run, asked, task, distribution)


def _train(run: RunDirectory, asked: Training, task: Task, distribution: Distribution) -> RunDirectory | None:
    _check_seen_by_all(run, distribution)
    if task.found:
        print(task.found, flush=True)
    recipe = asked.recipe
    resumes = run.last_step() > 0
    changed = _changed_data(run, asked, task) if run.has_saved() else []
    keras.utils.set_random_seed(recipe.seed)
    set_precision(recipe.precision)
    ckpt = None if resumes else located(asked.ckpt)
    told = Told(run.config()["model"], source=run.path / "config.json") if resumes else task.configure(ckpt)
    with distribution.scope(), told.blamed():
        automatic = batch_norm_decay(recipe.steps * recipe.accumulate)
        model = task.build(told.config, automatic if recipe.bn_decay is None else recipe.bn_decay)
    report = None
    if ckpt:
        print(told.introduction(asked.restore.ema), flush=True)
        report = initialize(model, ckpt, asked.restore, told.translation)
        if task.whole:
            check_meaning(report, asked.restore.allow_unused)
    restored = run.restored_names() if resumes else restored_names(report)
    choose_what_learns(model, asked.learning, restored)
    if not resumes:
        print(scope_table(model, restored), flush=True)
    if advice := small_batch_advice(model, recipe.batch_size // recipe.accumulate):
        print(advice, flush=True)
    if asked.run.dry_run:
        return None
    run.open()
    with contextlib.closing(run):
        if not resumes:
            run.start(told.config, task.class_names, report, task.data)
        elif changed:
            print(f"{run.path}: goes on with data that changed: {'; '.join(changed)}", flush=True)
            run.take_data(task.class_names, task.data)
        with distribution.scope():
            compile_model(
                model,
                recipe,
                task.loss,
                task.metrics,
                multiplied=dict.fromkeys(restored, asked.learning.restored_lr),
                gradient_norms=asked.run.histograms,
            )
        validate, draw = task.validator(model, distribution), task.pictures(model) if task.pictures else None
        if distribution.writes:
            _check_room(model, run, asked)
        with stopping.between_steps(distribution.processes == 1):
            _fit(model, run, asked, task, distribution, validate, draw)
        if distribution.writes:
            page = write_report(run, matrix=getattr(validate, "matrix", None), sheet=draw() if draw else None)
            print(f"{run.path}: report in {page}, best model in {run.best}", flush=True)
    return run


def _changed_data(run: RunDirectory, asked: Training, task: Task) -> list[str]:
    """What has changed of the data since the run was started; UserError where that is not wanted or cannot be."""
    before = run.config()["classes"]
    if len(before) != len(task.class_names):
        raise UserError(
            f"{run.path}: was started with {len(before)} classes ({', '.join(map(str, before))}); the data now has "
            f"{len(task.class_names)}: {', '.join(map(str, task.class_names))}. Name another --run-dir."
        )
    if asked.run.data_changed:
        try:
            return run.compare_data(task.class_names, task.data) or ["nothing"]
        except RunError as error:
            return [str(error)]
    if not run.keeps_data():
        print(f"{run.path}: was started before runs kept what their data were; whether it is the same is not known")
    if changed := run.compare_data(task.class_names, task.data):
        raise UserError(
            f"{run.path}: the data is no longer what the run was started with ({'; '.join(changed)}). Bring it back; "
            "or say --data-changed to go on with what it is now; or name another --run-dir: "
            f"--ckpt {run.path} starts from the run's weights."
        )
    return []


def _check_seen_by_all(run: RunDirectory, distribution: Distribution) -> None:
    """Raises UserError where this process sees another last checkpoint than the one that writes."""
    step = distribution.agreed(run.last_step())
    if step != run.last_step():
        raise UserError(
            f"{run.path}: the first host has model.ckpt-{step} as its last checkpoint there, this one "
            f"{run.last_step() or 'none'}; --run-dir must be a folder that all hosts share"
        )


def _check_room(model: keras.Model, run: RunDirectory, asked: Training) -> None:
    """Raises WriteError where what the run keeps has no room on its disk; a run that goes on has most of it already."""
    each = checkpoint_bytes(model, {"Momentum": model.optimizer.slots({v.path: v.path for v in model.weights})})
    best = checkpoint_bytes(model, {})
    kept = 1 if run.last_step() else asked.run.keep + 1  # one is written before the oldest goes
    what = f"{run.path}: {kept} checkpoints of {each / 1e6:,.1f} MB and the best of {best / 1e6:,.1f} MB"
    check_room(run.path, kept * each + best, what)


def check_recipe(recipe: Recipe, distribution: Distribution) -> None:
    """Raises UserError where the parts of a batch cannot be shared out to the devices."""
    part = recipe.batch_size // recipe.accumulate
    if part % distribution.replicas:
        raise UserError(
            f"--devices {distribution.devices}: the {part} images that are computed at once cannot be shared out "
            f"evenly to {distribution.replicas} devices"
        )


def _fit(
    model: keras.Model,
    run: RunDirectory,
    asked: Training,
    task: Task,
    distribution: Distribution,
    validate: Callable,
    pictures: Callable | None,
) -> None:
    steps = asked.recipe.steps
    start = run.restore(model, model.optimizer) if run.last_step() else 0
    run.cut_log(start)
    if distribution.writes:
        last = {name: text for row in run.log_rows()[-1:] for name, text in row.items()}
        unscored = last.get(task.score_names[0]) == ""
        cut_events(run.path / "tensorboard", start, {name for name in last if last[name]} if unscored else None)
    if start:
        print(f"{run.path}: continued behind step {start}", flush=True)
    keeper = RunKeeper(
        run,
        start_step=start,
        stop_step=steps,
        batch_size=asked.recipe.batch_size,
        log_every=asked.run.log_every,
        save_every=asked.run.saves_every(steps),
        eval_every=asked.run.evaluates_every(steps),
        keep=asked.run.keep,
        evaluate=validate,
        score_names=task.score_names,
        board=Board(run.path / "tensorboard" if distribution.writes else None),
        pictures=pictures if distribution.writes else None,
        histograms=asked.run.histograms,
    )
    keeper.set_model(model)
    keeper.catch_up()
    keeper.check_stop()
    if start >= steps:
        print(f"{run.path}: all {steps} steps are done; {score_line(validate())}", flush=True)
        return
    batches = task.batches(model, start, steps, distribution.shard)
    with original_errors():
        model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[keeper])
    if distribution.replicas > 1:
        check_replicas(model, distribution)


def check_replicas(model: keras.Model, distribution: Distribution) -> None:
    """Proves that all replicas ended with the same weights, to the bit, and says so; UserError where they did not."""
    different = len(distribution.digests(model))
    if different > 1:
        raise UserError(f"the {distribution.replicas} replicas ended with {different} different sets of weights")
    print(f"{distribution.replicas} replicas: equal weights", flush=True)
