"""Signals: raised at once, only remembered between steps, sent again where a callback swallowed them, and forgotten."""

import os
import signal
import subprocess
import sys
import time

import pytest

import command_line
from engine import stopping
from engine.stopping import Stopped, between_steps, check, listening, received

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_raises_at_once_and_the_answers_of_before_come_back(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped), listening():
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert signal.getsignal(number) is before and received() is None
    check()


def test_between_steps_it_is_remembered():
    with between_steps():
        os.kill(os.getpid(), signal.SIGTERM)
        assert received() == signal.SIGTERM
        with pytest.raises(Stopped):
            check()


def test_a_program_says_what_stopped_it(capsys):
    def main():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)

    with pytest.raises(SystemExit) as ended:
        command_line.run(main)
    assert ended.value.code == 143
    assert capsys.readouterr().err == "stopped by SIGTERM\n"


def test_what_comes_of_a_signal_is_its_end(capsys):
    def main():
        with between_steps():
            os.kill(os.getpid(), signal.SIGINT)
            raise SystemError("a worker of TensorFlow's returned a result with an exception set")

    with pytest.raises(SystemExit) as ended:
        command_line.run(main)
    assert ended.value.code == 130 and "SystemError" not in capsys.readouterr().err


def process(code):
    words = [sys.executable, "-c", "import os, signal, time\nfrom engine.stopping import *\n" + code]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def test_a_second_signal_ends_at_once():
    ended = process(
        "with between_steps():\n    os.kill(os.getpid(), signal.SIGTERM)\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('went on')"
    )
    assert ended.returncode == 143 and not ended.stdout


def test_a_signal_that_a_callback_swallowed_is_sent_again():
    ended = process(
        "class Lost:\n    def __del__(self):\n        os.kill(os.getpid(), signal.SIGTERM)\n        time.sleep(0.1)\n"
        "try:\n    with listening():\n        Lost()\n        time.sleep(5)\n        print('went on')\n"
        "except Stopped:\n    print('stopped')"
    )
    assert ended.stdout == "stopped\n" and "Traceback" not in ended.stderr
