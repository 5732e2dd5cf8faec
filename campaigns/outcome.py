"""What became of each of many attempts to break a program: told from how a process ended, counted, shown as a table."""

import enum
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path


class Outcome(enum.Enum):
    """How one attempt ended; the values are the table's columns."""

    REFUSED = "refused well"  # exit code 2, and a line that says why
    ACCEPTED = "accepted"  # with the result it should have, where there is one to compare with
    OTHER = "other result"
    TRACEBACK = "traceback"  # or an exit that neither refuses nor succeeds
    SIGNAL = "signal"
    HANG = "hang"
    MEMORY = "memory"

    @property
    def good(self):
        return self in (Outcome.REFUSED, Outcome.ACCEPTED)


class Tally:
    """Counts outcomes by row, and keeps what every failure was."""

    def __init__(self):
        self.counts = {}
        self.failures = []

    def add(self, row, outcome, attempt="", why=""):
        """attempt: what was tried, and why: what was said of it; both are kept where it went wrong."""
        self.counts.setdefault(row, Counter())[outcome] += 1
        if not outcome.good:
            self.failures.append(f"{outcome.value}: {row} {attempt}\n    {why.strip()[-600:]}")

    @classmethod
    def of(cls, parts):
        """What several of them counted, as one."""
        tally = cls()
        for part in parts:
            for row, counts in part.counts.items():
                tally.counts.setdefault(row, Counter()).update(counts)
            tally.failures += part.failures
        return tally

    @property
    def exit_code(self):
        """1 where anything went wrong."""
        return 1 if self.failures else 0

    def __str__(self):
        header = ["", "tried", *(outcome.value for outcome in Outcome)]
        total = sum(self.counts.values(), Counter())
        rows = [
            [name, counts.total(), *(counts[outcome] for outcome in Outcome)]
            for name, counts in [*self.counts.items(), ("all", total)]
        ]
        widths = [max(len(str(row[column])) for row in [header, *rows]) for column in range(len(header))]
        lines = [
            "  ".join(
                [
                    f"{row[0]:<{widths[0]}}",
                    *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
                ]
            )
            for row in [header, *rows]
        ]
        return "\n".join([*self.failures, *lines])


def told(code, stderr, good_codes=(0,)):
    """The outcome that a program's exit code and standard error tell.

    good_codes: those of a program that did what it was asked to; a negative code is a signal's.
    """
    if code < 0:
        return Outcome.SIGNAL
    if "Traceback (most recent call last)" in stderr:
        return Outcome.TRACEBACK
    if code == 2:
        said = [line for line in stderr.splitlines() if line.startswith("error: ")]
        return Outcome.REFUSED if len(said) == 1 else Outcome.TRACEBACK
    return Outcome.ACCEPTED if code in good_codes else Outcome.TRACEBACK


def outcome_of(command, seconds, gigabytes, good_codes=(0,), **more):
    """Runs a command in a process group of its own, ended where it takes too long or too much. → (Outcome, stderr)

    more: as for subprocess.Popen.
    """
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True, **more
        )
        ended, deadline = None, time.monotonic() + seconds
        while ended is None and process.poll() is None:
            if _resident(process.pid) > gigabytes * 1e9:
                ended = Outcome.MEMORY
            elif time.monotonic() > deadline:
                ended = Outcome.HANG
            else:
                time.sleep(0.05)
        if ended:
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        stderr.seek(0)
        said = stderr.read().decode(errors="replace")
    return ended or told(code, said, good_codes), said


def _resident(pid):
    """Bytes of memory that a process has now; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
