"""What happens beside the steps of a run: progress, log, TensorBoard, evaluation, checkpoints, in that order."""

import math
import sys
import time

import keras
import numpy as np

from errors import UserError
from models.weight_init import named_variables


class RunKeeper(keras.callbacks.Callback):
    """Keeps a RunDirectory up to date while `fit` runs.

    Every `log_every` steps, and wherever something is saved or evaluated, a row is logged with the mean loss since the
    row before. The row of a step is written before its checkpoint, and a resumed run drops the rows behind its
    checkpoint: so the log has each step once.

    Args:
        run: a RunDirectory.
        start_step, stop_step: the steps of this fit; steps count from 1.
        batch_size: images a step, for images/s.
        evaluate: a function () → {name: score}, its first the one that says which model is best; or None.
        score_names: the names of those scores.
        board: a Board of `training.tensorboard`.
        pictures: a function () → uint8 RGB (H, W, 3) of predictions, shown at each evaluation; or None.
        histograms: whether the weights' histograms go to the board at each evaluation.
    """

    def __init__(
        self,
        run,
        *,
        start_step,
        stop_step,
        batch_size,
        log_every,
        save_every,
        eval_every,
        keep,
        evaluate=None,
        score_names=(),
        board,
        pictures=None,
        histograms=False,
    ):
        super().__init__()
        self.run = run
        self.step, self.start_step, self.stop_step = start_step, start_step, stop_step
        self.batch_size = batch_size
        self.log_every, self.save_every, self.eval_every, self.keep = log_every, save_every, eval_every, keep
        self.evaluate, self.score_names = evaluate, score_names
        self.board, self.pictures, self.histograms = board, pictures, histograms
        # Wall clock of the whole run, evaluations included, over its interruptions.
        self.seconds_before = max((float(row["seconds"]) for row in run.log_rows()), default=0.0)
        self.best = max((float(row[self.score]) for row in run.log_rows() if row.get(self.score)), default=-math.inf)

    @property
    def score(self):
        """The column that says which model is best; None without evaluation."""
        return self.score_names[0] if self.score_names else None

    def on_train_begin(self, logs=None):
        self.began = time.perf_counter()
        self.progress = Progress(self.start_step, self.stop_step)
        self._open_window()

    def _open_window(self):
        self.model.reset_metrics()
        self.mean_losses = []  # of the window's steps so far, as the device has them
        self.window_start, self.window_opened = self.step, time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self.mean_losses.append(logs["loss"])
        last = self.step == self.stop_step
        saves = last or self.step % self.save_every == 0
        evaluates = self.evaluate is not None and (last or self.step % self.eval_every == 0)
        if saves or evaluates or self.step % self.log_every == 0:
            self._close_window(logs, saves, evaluates)
            self._open_window()
        self.progress.reach(self.step)

    def _close_window(self, logs, saves, evaluates):
        logs = {name: float(value) for name, value in logs.items()}
        self._check_loss()
        if saves or evaluates:
            self._check_weights()
        seconds = time.perf_counter() - self.window_opened
        rate = (self.step - self.window_start) * self.batch_size / seconds
        learning_rate = self._learning_rate()
        scores = dict.fromkeys(self.score_names, "")
        self.progress.show(self.step, logs | {"lr": learning_rate, "images/s": rate})
        if evaluates:
            scores = self.evaluate()
            self.progress.note(self.step, scores)
        row = {
            "step": self.step,
            **logs,
            "learning_rate": learning_rate,
            "images_per_second": round(rate, 3),
            "seconds": round(self.seconds_before + time.perf_counter() - self.began, 1),
            **scores,
        }
        self.run.log(row)
        norms = self.model.optimizer.gradient_norms()
        self.board.scalars(self.step, row | {f"gradient_norm/{scope}": norm for scope, norm in norms.items()})
        if evaluates and self.pictures:
            self.board.picture(self.step, "predictions", self.pictures())
        if evaluates and self.histograms:
            self.board.histograms(self.step, named_variables(self.model))
        if evaluates and scores[self.score] > self.best:
            self.best = scores[self.score]
            self.run.save_best(self.model, self.step)
        if saves:
            self.run.save(self.model, self.model.optimizer, self.step, self.keep)

    def _learning_rate(self):
        """The rate the step just done was made with."""
        schedule = self.model.optimizer._learning_rate
        return float(schedule(self.step - 1)) if callable(schedule) else float(self.model.optimizer.learning_rate)

    def _check_loss(self):
        """Stops the run at the first step whose loss is no number."""
        for step, loss in enumerate(map(float, self.mean_losses), self.window_start + 1):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss became {loss} at step {step}")

    def _check_weights(self):
        """Keeps from being saved what a finite loss has just broken."""
        for name, variable in named_variables(self.model).items():
            if not np.isfinite(np.asarray(variable)).all():
                raise self._diverged(f"{name} is no longer finite after step {self.step}")

    def _diverged(self, what):
        saved = self.run.last_step()
        if saved:
            kept = f"The last good checkpoint is model.ckpt-{saved}; --ckpt {self.run.path} starts from it."
        else:
            kept = "There is no good checkpoint, no checkpoint was saved yet."
        return UserError(
            f"{self.run.path}: {what} (learning rate {self._learning_rate():.4g}). {kept} Lower --learning-rate, add "
            "--warmup-steps or --clip-norm, or look at the labels; name another --run-dir."
        )

    def on_train_end(self, logs=None):
        self.progress.close()


class Progress:
    """tqdm's bar on a terminal, plain lines elsewhere (a log file, a pipe): step, loss, rate, images/s, time left."""

    def __init__(self, start, stop):
        self.start, self.stop, self.began = start, stop, time.perf_counter()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=stop, initial=start, unit="step", dynamic_ncols=True)

    def reach(self, step):
        """Says that `step` is done."""
        if self.bar is not None:
            self.bar.update(step - self.bar.n)

    def show(self, step, values):
        """Shows the values of the steps since the last time."""
        text = {name: f"{value:.4g}" for name, value in values.items()}
        if self.bar is not None:
            self.bar.set_postfix(text, refresh=False)
            return
        left = (time.perf_counter() - self.began) / (step - self.start) * (self.stop - step)
        shown = ", ".join(f"{name} {value}" for name, value in text.items())
        print(f"step {step}/{self.stop}: {shown}, {_clock(left)} left", flush=True)

    def note(self, step, scores):
        """Shows the scores of an evaluation, on a line of its own."""
        line = f"step {step}: {score_line(scores)}"
        if self.bar is not None:
            self.bar.write(line)
        else:
            print(line, flush=True)

    def close(self):
        """Ends the bar."""
        if self.bar is not None:
            self.bar.close()


def score_line(scores):
    """{name: number} as people read it in a log."""
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())


def _clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
