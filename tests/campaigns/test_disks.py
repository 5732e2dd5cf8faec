"""A slice of campaigns/disks.py: the programs that are quick, on a full, a limited and a read-only disk."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "campaigns" / "disks.py"


def test_programs_meet_disks_that_take_no_more():
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a disk of his own (unshare -rm)")
    words = [sys.executable, str(SCRIPT), "--tries", "2", "--seed", "1", "--programs", "predict_seg,inspect_ckpt"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    counts = next(line for line in ended.stdout.splitlines() if line.startswith("all ")).split()
    assert int(counts[2]) >= 8, "so many are refused at least"
