"""One way from a checkpoint to a finished run, for both training scripts."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras

import command_line as cli
from data.pipeline import original_errors
from engine.device import set_precision
from engine.run_directory import FollowedRun, RunDirectory
from errors import UserError
from inference.opening import check_whole
from training.callbacks import RunKeeper, score_line
from training.distribution import distribution_for
from training.initialization import choose_what_learns, initialize, restored_names, scope_table
from training.losses import CrossEntropy
from training.recipe import batch_norm_decay, compile_model, small_batch_advice
from training.report import write_report
from training.tensorboard import Board


@dataclass(frozen=True)
class Task:
    """What is trained, on what data, and how it is scored.

    Attributes:
        class_names: of the data set; kept in the run's configuration.
        configure: a function of the checkpoint's path, or None → the model's configuration, a dict for JSON.
        build: a function of that configuration and batch norm's decay → model.
        batches: a function of (model, start step, stop step, shard) → tf.data.Dataset of the shard's part of those
            steps' batches.
        validator: a function of (model, Distribution) → a function () → {score name: value}, which may keep its
            confusion matrix as `matrix`.
        score_names: the scores' names, first the one that says which checkpoint is best.
        loss, metrics: of the compiled model; the loss is a CrossEntropy.
        pictures: a function of the model → a function () → uint8 RGB (H, W, 3) of some predictions, for TensorBoard
            and the report.
        whole: whether all of the model must come from the checkpoint, its head too.
    """

    class_names: Sequence
    configure: Callable
    build: Callable
    batches: Callable
    validator: Callable
    score_names: Sequence
    loss: CrossEntropy
    metrics: Sequence = ()
    pictures: Callable | None = None
    whole: bool = False


def run_training(args, task):
    """Builds, initializes, proves, and fits `args.steps` steps, or goes on where the run directory stopped.

    Args:
        args: what `cli.add_restore_arguments` and `cli.add_training_arguments` parsed.
        task: a Task.

    Returns:
        the RunDirectory, or None after a dry run.
    """
    checkpoint = None if args.ckpt == "none" else args.ckpt
    if checkpoint is None and (args.include or args.exclude or args.rename or args.ema or args.allow_missing):
        raise UserError("--include, --exclude, --rename, --ema and --allow-missing need a --ckpt to restore from")
    distribution = distribution_for(args.devices, args.hosts, args.host)
    _check_recipe(args, distribution)
    keep = RunDirectory if distribution.writes else FollowedRun
    run = keep(args.run_dir, vars(args), free=cli.FREE_ARGUMENTS)
    with distribution.survivors_told(run):
        return _train(run, args, checkpoint, task, distribution)


def _train(run, args, checkpoint, task, distribution):
    _check_seen_by_all(run, distribution)
    resumes = run.last_step() > 0
    keras.utils.set_random_seed(args.seed)
    set_precision(args.precision)
    config = run.config()["model"] if resumes else task.configure(checkpoint)
    with distribution.scope():
        model = task.build(config, args.bn_decay or batch_norm_decay(args.steps * args.accumulate))
    report = None
    if checkpoint and not resumes:
        report = initialize(
            model,
            checkpoint,
            include=args.include,
            exclude=args.exclude,
            rename=cli.renames(args.rename),
            ema=args.ema,
            allow_missing=args.allow_missing,
        )
        if task.whole:
            check_whole(report, checkpoint)
    restored = run.restored_names() if resumes else restored_names(report)
    choose_what_learns(model, args, restored)
    if not resumes:
        print(scope_table(model, restored), flush=True)
    if advice := small_batch_advice(model, args.batch_size // args.accumulate):
        print(advice, flush=True)
    if args.dry_run:
        return None
    run.open()
    with contextlib.closing(run):
        if not resumes:
            run.start(config, task.class_names, report)
        with distribution.scope():
            compile_model(model, args, task.loss, task.metrics, slow=restored)
        validate, draw = task.validator(model, distribution), task.pictures(model) if task.pictures else None
        _fit(model, run, args, task, distribution, validate, draw)
        if distribution.writes:
            write_report(run, matrix=getattr(validate, "matrix", None), sheet=draw() if draw else None)
    return run


def _check_seen_by_all(run, distribution):
    """Raises UserError where this process sees another last checkpoint than the one that writes."""
    step = distribution.agreed(run.last_step())
    if step != run.last_step():
        raise UserError(
            f"{run.path}: the first host has model.ckpt-{step} as its last checkpoint there, this one "
            f"{run.last_step() or 'none'}; --run-dir must be a folder that all hosts share"
        )


def _check_recipe(args, distribution):
    if args.batch_size % args.accumulate:
        raise UserError(f"--accumulate {args.accumulate}: must divide the batch of {args.batch_size} images")
    if args.batch_size // args.accumulate % distribution.replicas:
        raise UserError(
            f"--devices {args.devices}: the {args.batch_size // args.accumulate} images that are computed at once "
            f"cannot be shared out evenly to {distribution.replicas} devices"
        )
    if args.warmup_steps >= args.steps:
        raise UserError(f"--warmup-steps {args.warmup_steps}: must be fewer than the {args.steps} steps")


def _fit(model, run, args, task, distribution, validate, pictures):
    start = run.restore(model, model.optimizer) if run.last_step() else 0
    run.cut_log(start)
    if start:
        print(f"{run.path}: continued behind step {start}", flush=True)
    if start >= args.steps:
        print(f"{run.path}: all {args.steps} steps are done; {score_line(validate())}", flush=True)
        return
    keeper = RunKeeper(
        run,
        start_step=start,
        stop_step=args.steps,
        batch_size=args.batch_size,
        log_every=args.log_every,
        save_every=args.save_every,
        eval_every=args.eval_every,
        keep=args.keep,
        evaluate=validate,
        score_names=task.score_names,
        board=Board(run.path / "tensorboard" if distribution.writes else None),
        pictures=pictures if distribution.writes else None,
        histograms=args.histograms,
    )
    batches = task.batches(model, start, args.steps, distribution.shard)
    with original_errors():
        model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[keeper])
    if distribution.replicas > 1:
        check_replicas(model, distribution)


def check_replicas(model, distribution):
    """Proves that all replicas ended with the same weights, to the bit, and says so; UserError where they did not."""
    different = len(distribution.digests(model))
    if different > 1:
        raise UserError(f"the {distribution.replicas} replicas ended with {different} different sets of weights")
    print(f"{distribution.replicas} replicas: equal weights", flush=True)
