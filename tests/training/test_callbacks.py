"""What a RunKeeper takes over from the run that it goes on with."""

import math

import pytest

from engine.run_directory import RunDirectory
from training.callbacks import RunKeeper
from training.tensorboard import Board


@pytest.mark.parametrize(
    ("held", "best"),
    [
        (2, 0.5),
        (1, 0.25),  # the better one's checkpoint was removed
        (4, -math.inf),  # of an attempt that was killed: its step is trained again
        (None, -math.inf),
    ],
)
def test_the_best_so_far_is_the_one_that_is_there(tmp_path, held, best):
    run = RunDirectory(tmp_path, {})
    run.open()
    run.start({}, ["a", "b"])
    for step, miou in enumerate((0.25, 0.5, ""), 1):
        run.log({"step": step, "loss": 1.0, "seconds": step, "miou": miou})
    if held:
        run.best.mkdir()
        (run.best / f"model.ckpt-{held}.index").touch()
    keeper = RunKeeper(
        run,
        start_step=3,
        stop_step=9,
        batch_size=1,
        log_every=1,
        save_every=1,
        eval_every=1,
        keep=1,
        score_names=("miou",),
        board=Board(None),
    )
    run.close()
    assert keeper.best == best
