"""One way from a checkpoint to a finished run, for both training scripts."""

import contextlib

import keras

from data.pipeline import original_errors
from engine import cli
from engine.callbacks import RunKeeper, score_line
from engine.device import set_precision, use_xla
from engine.initialization import choose_what_learns, initialize, restored_names, scope_of, scope_table
from engine.optimizer import Momentum, add_weight_decay, poly
from engine.run_directory import RunDirectory
from engine.tensorboard import Board
from errors import UserError
from models.weight_init import named_variables

# The paper's 0.9997 is right for its 30,000 steps; a short run's statistics would never arrive.
PAPER_DECAY, PAPER_STEPS = 0.9997, 30_000


def run_training(
    args, *, class_names, configure, build, batches, validator, score_names, loss, metrics=(), pictures=None
):
    """Builds, initializes, proves, and fits `args.steps` steps, or goes on where the run directory stopped.

    Args:
        args: what `cli.add_restore_arguments` and `cli.add_training_arguments` parsed.
        class_names: of the data set; kept in the run's configuration.
        configure: a function of the checkpoint's path, or None → the model's configuration, a dict for JSON.
        build: a function of that configuration and batch norm's decay → model.
        batches: a function of (model, start step, stop step) → tf.data.Dataset of those steps' batches.
        validator: a function of the model → a function () → {score name: value}.
        score_names: the scores' names, first the one that says which checkpoint is best.
        loss, metrics: of the compiled model.
        pictures: a function of the model → a function () → uint8 RGB (H, W, 3) of some predictions, for TensorBoard.

    Returns:
        the RunDirectory, or None after a dry run.
    """
    checkpoint = None if args.ckpt == "none" else args.ckpt
    if checkpoint is None and (args.include or args.exclude or args.rename or args.ema or args.allow_missing):
        raise UserError("--include, --exclude, --rename, --ema and --allow-missing need a --ckpt to restore from")
    run = RunDirectory(args.run_dir, vars(args), free=cli.FREE_ARGUMENTS)
    resumes = run.last_step() > 0

    keras.utils.set_random_seed(args.seed)
    set_precision(args.precision)
    config = run.config()["model"] if resumes else configure(checkpoint)
    model = build(config, args.bn_decay or batch_norm_decay(args.steps))
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
    restored = run.restored_names() if resumes else restored_names(report)
    choose_what_learns(model, args, restored)
    if not resumes:
        print(scope_table(model, restored), flush=True)
    if args.dry_run:
        return None
    run.open()
    with contextlib.closing(run):
        if not resumes:
            run.start(config, class_names, report)
        compile_model(model, args, loss, metrics, slow=restored)
        _fit(model, run, args, batches, validator(model), score_names, pictures(model) if pictures else None)
    return run


def batch_norm_decay(steps):
    """The decay of moving statistics that forgets as much over `steps` steps as the paper's over its 30,000."""
    return min(PAPER_DECAY, max(0.9, 1 - (1 - PAPER_DECAY) * PAPER_STEPS / steps))


def compile_model(model, args, loss, metrics=(), slow=()):
    """Compiles with momentum SGD, the poly schedule and coupled L2; `slow` names learn at `args.restored_lr` times."""
    add_weight_decay(model, args.weight_decay)
    variables = named_variables(model)
    multipliers = {} if args.restored_lr == 1 else {variables[name].path: args.restored_lr for name in slow}
    schedule = poly(args.learning_rate, args.steps, args.power)
    names = {variable.path: name for name, variable in variables.items()}
    optimizer = Momentum(
        schedule,
        momentum=args.momentum,
        multipliers=multipliers,
        scope_of=(lambda path: scope_of(names[path], model.backbone_scope)) if args.histograms else None,
    )
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, loss, metrics=list(metrics), jit_compile=use_xla())


def _fit(model, run, args, batches, validate, score_names, pictures):
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
        score_names=score_names,
        board=Board(run.path / "tensorboard"),
        pictures=pictures,
        histograms=args.histograms,
    )
    with original_errors():
        model.fit(batches(model, start, args.steps), epochs=1, verbose=0, shuffle=False, callbacks=[keeper])


def segmentation_loss():
    """Mean cross entropy over the pixels not labelled 255, from float32 logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255, name="cross_entropy")


def classification_loss():
    """Mean cross entropy over the images, from float32 logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy")
