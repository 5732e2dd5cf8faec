"""Slices of the campaigns: a hundred damaged files of all kinds, and a few kills of what is quick to do again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGNS = Path(__file__).resolve().parents[2] / "campaigns"


def total(name, *flags):
    """→ [tried, refused, accepted …] of a campaign in a process of its own that found nothing wrong."""
    words = [sys.executable, str(CAMPAIGNS / f"{name}.py"), *flags]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return [int(cell) for cell in ended.stdout.splitlines()[-1].split()[1:]]


def test_damaged_files_of_every_kind():
    tried, refused, *_ = total("mutations", "--count", "200", "--seed", "7")
    assert tried == 200 and refused > 100


@pytest.mark.parametrize("programs", ["prepare_data sample,predict_seg,train_seg"])
def test_killed_programs_end_as_if_nothing_had_been(programs):
    tried, _, accepted, *_ = total("interruptions", "--kills", "6", "--seed", "3", "--programs", programs)
    assert tried == accepted >= 6


def test_a_reader_that_takes_what_is_damaged_is_seen(tmp_path):
    """The campaign's own judgement: of a reader without a check, of one that stumbles, and of one that dies."""
    from campaigns.mutations import Kind, attack
    from campaigns.outcome import Tally

    file = tmp_path / "number.txt"
    file.write_text("1000")
    bad = {
        "other result": file.read_bytes,
        "traceback": lambda: int(file.read_bytes()) + 1 / 0,
        "signal": lambda: os.kill(os.getpid(), signal.SIGKILL),
    }
    for wanted, read in bad.items():
        tally = Tally()
        attack(wanted, Kind([file], read), "b'1000'", 6, 0, tally, tmp_path, None)
        assert tally.exit_code == 1 and sum(said.startswith(wanted) for said in tally.failures) >= 3
        assert file.read_text() == "1000"
