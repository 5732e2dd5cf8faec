"""A small slice of the campaign of hostile flags, and that it would see what went wrong."""

import os
import random
from pathlib import Path

import pytest

from campaigns import flags
from campaigns.outcome import Outcome, Tally
from errors import UserError


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("place"), Path.cwd()
    os.chdir(folder)
    flags.furnish(folder)
    with flags.without_networks():
        yield folder
    os.chdir(before)


@pytest.mark.parametrize("call", [call for call in flags.CALLS if call not in flags.ONLY_PARSED])
def test_what_is_varied_works_by_itself(call, place):
    before = set(Path().iterdir())
    outcome, said = flags.judged(call, [*call.split()[1:], *flags.CALLS[call].split()])
    flags.cleared(before)
    assert outcome is Outcome.ACCEPTED, said


def test_no_hostile_call_gets_further_than_a_line(place):
    tally = Tally()
    accepted = flags.attack(300, random.Random(0), tally)
    assert not tally.failures and len(accepted) > 10


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(KeyError("steps"), Outcome.TRACEBACK), (UserError("no"), Outcome.REFUSED), (flags.TooLong(), Outcome.HANG)],
)
def test_a_call_that_goes_wrong_is_seen(monkeypatch, raised, expected):
    monkeypatch.setattr("report_run.main", flags._raise(raised))
    assert flags.judged("report_run", ["run"])[0] is expected
