"""A campaign tells a good answer from a bad one, and counts both."""

import sys

import pytest

from campaigns.outcome import Outcome, Tally, outcome_of, told


@pytest.mark.parametrize(
    ("code", "stderr", "expected"),
    [
        (0, "", Outcome.ACCEPTED),
        (2, "a warning\nerror: --steps: must be 1 or more\n", Outcome.REFUSED),
        (2, "usage: …\n", Outcome.TRACEBACK),
        (2, "error: a\nerror: b\n", Outcome.TRACEBACK),
        (1, "Traceback (most recent call last):\n  …\nKeyError: 1\n", Outcome.TRACEBACK),
        (1, "", Outcome.TRACEBACK),
        (-11, "", Outcome.SIGNAL),
    ],
)
def test_an_exit_tells_its_outcome(code, stderr, expected):
    assert told(code, stderr) is expected
    assert told(1, "", good_codes=(0, 1)) is Outcome.ACCEPTED


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import time; time.sleep(60)", Outcome.HANG),
        ("import time; kept = b'1' * 300_000_000; time.sleep(60)", Outcome.MEMORY),
        ("import os; os.abort()", Outcome.SIGNAL),
        ("raise KeyError(1)", Outcome.TRACEBACK),
    ],
)
def test_a_program_that_does_not_end_well_is_ended(program, expected):
    found, _ = outcome_of([sys.executable, "-c", program], seconds=0.7, gigabytes=0.2)
    assert found is expected


def test_the_table_adds_up_and_every_failure_is_named():
    tally = Tally()
    tally.add("train_seg", Outcome.REFUSED)
    tally.add("train_seg", Outcome.HANG, "--steps 1e20", "nothing was said")
    tally.add("eval_seg", Outcome.ACCEPTED)
    assert tally.exit_code == 1 and str(tally).startswith("hang: train_seg --steps 1e20\n    nothing was said\n")
    assert str(tally).splitlines()[-1].split() == ["all", "3", "1", "1", "0", "0", "0", "1", "0"]
