"""One training loop for both scripts: compile, resume, fit."""

import keras

from data.pipeline import original_errors
from engine.callbacks import RunKeeper
from engine.device import use_xla
from engine.optimizer import Momentum, add_weight_decay, poly
from engine.tensorboard import Board

# The paper's 0.9997 is right for its 30,000 steps; a short run's statistics would never arrive.
PAPER_DECAY, PAPER_STEPS = 0.9997, 30_000


def batch_norm_decay(steps):
    """The decay of moving statistics that forgets as much over `steps` steps as the paper's over its 30,000."""
    return min(PAPER_DECAY, max(0.9, 1 - (1 - PAPER_DECAY) * PAPER_STEPS / steps))


def prepare(model, args, loss, metrics=()):
    """Compiles the model with momentum SGD, the poly schedule, coupled L2 and `loss`."""
    add_weight_decay(model, args.weight_decay)
    schedule = poly(args.learning_rate, args.steps, args.power)
    optimizer = Momentum(schedule, momentum=args.momentum)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, loss, metrics=list(metrics), jit_compile=use_xla())


def train(model, run, args, batches, evaluate=None, score_names=()):
    """Fits the compiled model from the run's last checkpoint, or from its start, to `args.steps`.

    Args:
        run: a RunDirectory.
        args: steps, batch_size, log_every, save_every, eval_every, keep.
        batches: a function (start step, stop step) → tf.data.Dataset of those steps' batches.
        evaluate, score_names: as in RunKeeper.
    """
    start = run.restore(model, model.optimizer) if run.last_step() else 0
    run.cut_log(start)
    if start:
        print(f"{run.path}: continued behind step {start}", flush=True)
    if start >= args.steps:
        print(f"{run.path}: all {args.steps} steps are done", flush=True)
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
        evaluate=evaluate,
        score_names=score_names,
        board=Board(run.path / "tensorboard"),
    )
    with original_errors():
        model.fit(batches(start, args.steps), epochs=1, verbose=0, shuffle=False, callbacks=[keeper])


def segmentation_loss():
    """Mean cross entropy over the pixels not labelled 255, from float32 logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255, name="cross_entropy")
