"""Signals that ask a program to end: SIGTERM, which clusters send, and SIGINT, which is Ctrl-C.

The first one raises Stopped in the main thread, so that what is half done is cleared away; where that must not be,
within `between_steps`, it is only remembered. A second one ends the process at once.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Signals:
    """What came, and whether it is only remembered."""

    received: int | None = None
    remembers_only = False


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end; the text says what is kept and how to go on."""


def received() -> int | None:
    """The number of the signal that came; None while there was none."""
    return _Signals.received


def check() -> None:
    """Raises Stopped where a signal came: between two images of what may last long."""
    if _Signals.received is not None:
        raise Stopped("")


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Within it the signals are answered as this module says; nothing is changed outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, hook = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    sys.unraisablehook = _again
    for number in SIGNALS:
        signal.signal(number, _answer)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
        if before[signal.SIGINT] is not _answer:
            _Signals.received = None  # the process may go on, as a notebook's does


def _again(lost: "sys.UnraisableHookArgs") -> None:
    """Sends the signal once more where Stopped came up in a callback, of which Python lets no exception out."""
    number = _Signals.received
    if isinstance(lost.exc_value, Stopped) and number is not None:
        _Signals.received = None
        threading.Timer(0.02, os.kill, (os.getpid(), number)).start()
    else:
        sys.__unraisablehook__(lost)


@contextlib.contextmanager
def between_steps(wanted: bool = True) -> Iterator[None]:
    """Within it a signal is only remembered: what is within asks for it, by `received` or `check`, when it suits.

    wanted: False changes nothing.
    """
    with listening() if wanted else contextlib.nullcontext():
        _Signals.remembers_only = wanted
        try:
            yield
        finally:
            _Signals.remembers_only = False


def _answer(number: int, _: Any) -> None:
    if _Signals.received is not None:
        os._exit(128 + number)
    _Signals.received = number
    if not _Signals.remembers_only:
        raise Stopped("")
