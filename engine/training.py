"""One way from a checkpoint to a finished run, for both training scripts."""

import contextlib

import keras

from data.pipeline import original_errors
from data.voc import IGNORE_LABEL
from engine import cli
from engine.accumulation import accumulate
from engine.build import check_whole
from engine.callbacks import RunKeeper, score_line
from engine.device import set_precision, use_xla
from engine.initialization import choose_what_learns, initialize, restored_names, scope_of, scope_table
from engine.losses import CrossEntropy
from engine.optimizer import Momentum, Poly, add_weight_decay
from engine.report import write_report
from engine.run_directory import RunDirectory
from engine.tensorboard import Board
from errors import UserError
from models.freezing import batch_norms
from models.weight_init import named_variables

# The paper's 0.9997 is right for its 30,000 steps; a short run's statistics would never arrive.
PAPER_DECAY, PAPER_STEPS = 0.9997, 30_000
# Fewer images than this give batch norm statistics that harm more than they help.
ENOUGH_FOR_BATCH_NORM = 12


def run_training(
    args,
    *,
    class_names,
    configure,
    build,
    batches,
    validator,
    score_names,
    loss,
    metrics=(),
    pictures=None,
    whole=False,
):
    """Builds, initializes, proves, and fits `args.steps` steps, or goes on where the run directory stopped.

    Args:
        args: what `cli.add_restore_arguments` and `cli.add_training_arguments` parsed.
        class_names: of the data set; kept in the run's configuration.
        configure: a function of the checkpoint's path, or None → the model's configuration, a dict for JSON.
        build: a function of that configuration and batch norm's decay → model.
        batches: a function of (model, start step, stop step) → tf.data.Dataset of those steps' batches.
        validator: a function of the model → a function () → {score name: value}, which may keep its confusion matrix
            as `matrix`.
        score_names: the scores' names, first the one that says which checkpoint is best.
        loss, metrics: of the compiled model; the loss is a CrossEntropy.
        pictures: a function of the model → a function () → uint8 RGB (H, W, 3) of some predictions, for TensorBoard
            and the report.
        whole: whether all of the model must come from the checkpoint, its head too.

    Returns:
        the RunDirectory, or None after a dry run.
    """
    checkpoint = None if args.ckpt == "none" else args.ckpt
    if checkpoint is None and (args.include or args.exclude or args.rename or args.ema or args.allow_missing):
        raise UserError("--include, --exclude, --rename, --ema and --allow-missing need a --ckpt to restore from")
    _check_recipe(args)
    run = RunDirectory(args.run_dir, vars(args), free=cli.FREE_ARGUMENTS)
    resumes = run.last_step() > 0

    keras.utils.set_random_seed(args.seed)
    set_precision(args.precision)
    config = run.config()["model"] if resumes else configure(checkpoint)
    model = build(config, args.bn_decay or batch_norm_decay(args.steps * args.accumulate))
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
        if whole:
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
            run.start(config, class_names, report)
        compile_model(model, args, loss, metrics, slow=restored)
        validate, draw = validator(model), pictures(model) if pictures else None
        _fit(model, run, args, batches, validate, score_names, draw)
        write_report(run, matrix=getattr(validate, "matrix", None), sheet=draw() if draw else None)
    return run


def _check_recipe(args):
    if args.batch_size % args.accumulate:
        raise UserError(f"--accumulate {args.accumulate}: must divide the batch of {args.batch_size} images")
    if args.warmup_steps >= args.steps:
        raise UserError(f"--warmup-steps {args.warmup_steps}: must be fewer than the {args.steps} steps")


def small_batch_advice(model, images):
    """What to say of batch norm that learns its statistics from `images` images at once; None where that is well."""
    live = sum(norm.trainable and not norm.statistics_frozen for norm in batch_norms(model))
    if images >= ENOUGH_FOR_BATCH_NORM or not live:
        return None
    return (
        f"warning: {live} batch norms take their statistics from {images} images at a time; under "
        f"{ENOUGH_FOR_BATCH_NORM} a device they are too noisy to train well with. Freeze them (--freeze-bn, or "
        "--freeze-bn statistics), or make the parts larger (--batch-size, --accumulate, --crop-size, --precision)."
    )


def batch_norm_decay(steps):
    """The decay of moving statistics that forgets as much over `steps` updates as the paper's over its 30,000."""
    return min(PAPER_DECAY, max(0.9, 1 - (1 - PAPER_DECAY) * PAPER_STEPS / steps))


def compile_model(model, args, loss, metrics=(), slow=()):
    """Compiles with momentum SGD, the poly schedule and coupled L2; `slow` names learn at `args.restored_lr` times.

    `loss` is a CrossEntropy.
    """
    add_weight_decay(model, args.weight_decay)
    variables = named_variables(model)
    multipliers = {} if args.restored_lr == 1 else {variables[name].path: args.restored_lr for name in slow}
    schedule = Poly(args.learning_rate, args.steps, args.power, args.warmup_steps)
    names = {variable.path: name for name, variable in variables.items()}
    optimizer = Momentum(
        schedule,
        momentum=args.momentum,
        global_clipnorm=args.clip_norm,
        multipliers=multipliers,
        scope_of=(lambda path: scope_of(names[path], model.backbone_scope)) if args.histograms else None,
    )
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, loss, metrics=list(metrics), jit_compile=use_xla())
    if args.accumulate > 1:
        accumulate(model, args.accumulate, loss.label_weights)


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


def segmentation_loss(class_weights=None, hard_fraction=1.0):
    """Mean cross entropy over the pixels not labelled 255, from float32 logits; see CrossEntropy."""
    return CrossEntropy(class_weights, hard_fraction, ignore_label=IGNORE_LABEL)


def classification_loss():
    """Mean cross entropy over the images, from float32 logits."""
    return CrossEntropy()
