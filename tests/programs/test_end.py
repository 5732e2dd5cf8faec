"""How a program ends: at once, but with all that was to be done before, and with its exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def started(main, begin="command_line.start(main)"):
    """A process that starts a program with this `main` → (exit code, standard output, standard error)."""
    program = f"import atexit, sys, threading, time\nimport command_line\ndef main():\n    {main}\n{begin}"
    words = [sys.executable, "-c", program]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("end", "code"),
    [("return", 0), ("return 0", 0), ("return 3", 3), ("sys.exit()", 0), ("sys.exit(4)", 4), ("sys.exit('no')", 1)],
)
def test_the_exit_code_is_the_program_s(end, code):
    assert started(end)[0] == code


def test_a_traceback_is_written_and_the_exit_code_is_one():
    code, _, stderr = started("1 / 0")
    assert code == 1 and stderr.startswith("Traceback") and stderr.endswith("ZeroDivisionError: division by zero\n")


def test_threads_end_handlers_run_and_what_was_printed_arrives_before():
    code, stdout, _ = started(
        "threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start(); "
        "atexit.register(print, 'handler', end=''); print('main'); return 5"
    )
    assert (code, stdout) == (5, "main\nthread\nhandler")


def test_nothing_is_freed_one_by_one():
    freed = "globals()['kept'] = type('Kept', (), {'__del__': lambda _: print('freed')})()"
    assert started(freed)[1] == ""
    assert started(freed, "sys.exit(main())")[1] == "freed\n"


def test_a_closed_output_is_no_reason_not_to_end():
    assert started("sys.stdout.close(); sys.stderr.close(); sys.exit(6)")[0] == 6
    assert started("sys.stdout = None; print('to nobody')")[0] == 0
