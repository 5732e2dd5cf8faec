"""What happens beside the steps of a run: progress, log, TensorBoard, evaluation, checkpoints, in that order."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from engine import stopping
from engine.run_directory import RunDirectory
from errors import UserError
from models.weight_init import named_variables
from training.tensorboard import NORMS, Board

PICTURE = "predictions"  # its name on the board
Evaluate = Callable[[], Mapping[str, float]]


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
        run: RunDirectory,
        *,
        start_step: int,
        stop_step: int,
        batch_size: int,
        log_every: int,
        save_every: int,
        eval_every: int,
        keep: int,
        evaluate: Evaluate | None = None,
        score_names: Sequence[str] = (),
        board: Board,
        pictures: Callable[[], np.ndarray] | None = None,
        histograms: bool = False,
    ) -> None:
        super().__init__()
        self.run = run
        self.step, self.start_step, self.stop_step = start_step, start_step, stop_step
        self.batch_size = batch_size
        self.log_every, self.save_every, self.eval_every, self.keep = log_every, save_every, eval_every, keep
        self.evaluate, self.score_names = evaluate, score_names
        self.board, self.pictures, self.histograms = board, pictures, histograms
        # Wall clock of the whole run, evaluations included, over its interruptions.
        self.seconds_before = max((float(row["seconds"]) for row in run.log_rows()), default=0.0)
        # The best so far is what best/ holds; where its step is trained again, it has no score yet.
        scored = {int(row["step"]): row.get(name) for name in score_names[:1] for row in run.log_rows()}
        self.best = float(scored.get(run.best_step()) or -math.inf)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keras calls it before the first step."""
        self.began = time.perf_counter()
        self.progress = Progress(self.start_step, self.stop_step)
        self._open_window()

    def _open_window(self) -> None:
        self.model.reset_metrics()
        self.mean_losses: list[Any] = []  # of the window's steps so far, as the device has them
        self.window_start, self.window_opened = self.step, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any]) -> None:
        """Keras calls it after each step, with the means since the metrics were reset."""
        self.step += 1
        self.mean_losses.append(logs["loss"])
        last = self.step == self.stop_step
        stops = stopping.received() is not None
        saves = last or stops or self.step % self.save_every == 0
        evaluate = self.evaluate if self._evaluates(self.step) else None
        if saves or evaluate or self.step % self.log_every == 0:
            self._close_window(logs, saves, evaluate)
            self._open_window()
        elif self.progress.is_silent():
            self.progress.show(self.step, {name: float(value) for name, value in logs.items()})
        self.progress.reach(self.step)
        if stopping.received() is not None:
            self.progress.close()
            self._stop()

    def _evaluates(self, step: int) -> bool:
        return step == self.stop_step or step % self.eval_every == 0

    def _stop(self) -> None:
        """Raises Stopped; an evaluation that the signal did not cut off ended its step without being saved."""
        if self.run.last_step() != self.step:
            self.run.save(self.model, self.model.optimizer, self.step, self.keep)
        self.check_stop()

    def check_stop(self) -> None:
        """Raises Stopped where a signal came, at a step that is saved."""
        if stopping.received() is not None:
            raise stopping.Stopped(
                f"step {self.step} is saved in {self.run.path}; the same command goes on from there"
                if self.step
                else "before the first step; the same command begins again"
            )

    def catch_up(self) -> None:
        """Does the evaluation that is missing where the run was stopped at a step of one."""
        rows = self.run.log_rows()
        logged = bool(rows) and int(rows[-1]["step"]) == self.step
        if self.evaluate and logged and self._evaluates(self.step) and rows[-1].get(self.score_names[0]) == "":
            try:
                scores = self.evaluate()
            except stopping.Stopped:
                self.check_stop()
                raise
            self.board.scalars(self.step, scores)
            self._keep_scores(scores)
            self.run.complete_row(self.step, scores)  # last: until then, it is done anew

    def _close_window(self, logs: Mapping[str, Any], saves: bool, evaluate: Evaluate | None) -> None:
        logs = {name: float(value) for name, value in logs.items()}
        self._check_loss()
        if saves or evaluate:
            self._check_weights()
        seconds = time.perf_counter() - self.window_opened
        rate = (self.step - self.window_start) * self.batch_size / seconds
        learning_rate = self._learning_rate()
        scores: Mapping[str, Any] = dict.fromkeys(self.score_names, "")
        self.progress.show(self.step, logs | {"lr": learning_rate, "images/s": rate})
        if evaluate:
            try:
                scores = evaluate()
                self.progress.note(self.step, scores)
            except stopping.Stopped:  # the row goes without; `catch_up` completes it
                evaluate, saves = None, True
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
        self.board.scalars(self.step, row | {f"{NORMS}{scope}": norm for scope, norm in norms.items()})
        if evaluate:
            self._keep_scores(scores)
        if saves:
            self.run.save(self.model, self.model.optimizer, self.step, self.keep)

    def _keep_scores(self, scores: Mapping[str, Any]) -> None:
        """What follows an evaluation: pictures, histograms, and the best model."""
        if self.pictures:
            self.board.picture(self.step, PICTURE, self.pictures())
        if self.histograms:
            self.board.histograms(self.step, named_variables(self.model))
        if scores[self.score_names[0]] > self.best:
            self.best = scores[self.score_names[0]]
            self.run.save_best(self.model, self.step)

    def _learning_rate(self) -> float:
        """The rate the step just done was made with."""
        schedule = self.model.optimizer._learning_rate
        return float(schedule(self.step - 1)) if callable(schedule) else float(self.model.optimizer.learning_rate)

    def _check_loss(self) -> None:
        """Stops the run at the first step whose loss is no number."""
        for step, loss in enumerate(map(float, self.mean_losses), self.window_start + 1):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss became {loss} at step {step}")

    def _check_weights(self) -> None:
        """Keeps from being saved what a finite loss has just broken."""
        for name, variable in named_variables(self.model).items():
            if not np.isfinite(np.asarray(variable)).all():
                raise self._diverged(f"{name} is no longer finite after step {self.step}")

    def _diverged(self, what: str) -> UserError:
        saved = self.run.last_step()
        if saved:
            kept = f"The last good checkpoint is model.ckpt-{saved}; --ckpt {self.run.path} starts from it."
        else:
            kept = "There is no good checkpoint, no checkpoint was saved yet."
        return UserError(
            f"{self.run.path}: {what} (learning rate {self._learning_rate():.4g}). {kept} Lower --learning-rate, add "
            "--warmup-steps or --clip-norm, or look at the labels; name another --run-dir."
        )

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keras calls it after the last step."""
        self.progress.close()


class Progress:
    """tqdm's bar on a terminal, plain lines elsewhere (a log file, a pipe): step, loss, rate, images/s, time left."""

    SECONDS: float = 30  # without a line, at most; steps may be slow

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.began = self.said = time.perf_counter()
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=stop, initial=start, unit="step", dynamic_ncols=True)

    def reach(self, step: int) -> None:
        """Says that `step` is done."""
        if self.bar is not None:
            self.bar.update(step - self.bar.n)

    def is_silent(self) -> bool:
        """Whether a line is due, as the last was long ago."""
        return self.bar is None and time.perf_counter() - self.said > self.SECONDS

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the values of the steps since the last time."""
        self.said = time.perf_counter()
        text = {name: f"{value:.4g}" for name, value in values.items()}
        if self.bar is not None:
            self.bar.set_postfix(text, refresh=False)
            return
        left = (time.perf_counter() - self.began) / (step - self.start) * (self.stop - step)
        shown = ", ".join(f"{name} {value}" for name, value in text.items())
        print(f"step {step}/{self.stop}: {shown}, {_clock(left)} left", flush=True)

    def note(self, step: int, scores: Mapping[str, float]) -> None:
        """Shows the scores of an evaluation, on a line of its own."""
        line = f"step {step}: {score_line(scores)}"
        if self.bar is not None:
            self.bar.write(line)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self.bar is not None:
            self.bar.close()


def score_line(scores: Mapping[str, float]) -> str:
    """{name: number} as people read it in a log."""
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
