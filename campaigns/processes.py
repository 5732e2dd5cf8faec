"""Programs in processes that are forked off this one, which has imported what they need: a second less for TensorFlow.

A forked process inherits no threads; so nothing may be computed here before.
"""

import importlib
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import command_line
from engine import stopping

PROGRAMS = (
    "train_seg eval_seg predict_seg export_seg train_cls eval_cls predict_cls export_cls extract_features inspect_ckpt "
    "prepare_data report_run"
)
THEIRS = (
    "training.segmentation training.classification training.report inference.measuring inference.runtimes "
    "exporting.export tensorboard"
)  # what they import when they are called


def import_all() -> None:
    """Imports the programs and what they need."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    command_line.quiet_tensorflow()
    for name in f"keras {PROGRAMS} {THEIRS}".split():
        importlib.import_module(name)


@dataclass
class Process:
    """A program that runs, or ran.

    Attributes:
        code: its exit code, a negative one a signal's; None while it runs.
        said, out: what it wrote to standard error and output, once it ended.
    """

    pid: int
    files: tuple[Any, Any]
    code: int | None = None
    out: str = ""
    said: str = ""

    def poll(self) -> int | None:
        """Its code, None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._end(status)
        return self.code

    def wait(self, seconds: float = 300) -> int:
        """Waits for its end. Raises TimeoutError after so long, with the process killed."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"process {self.pid} ran for more than {seconds} s")
            time.sleep(0.005)
        assert self.code is not None
        return self.code

    def kill(self, number: int) -> None:
        """Sends it, and what it started, a signal."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            os.kill(self.pid, number)

    def _end(self, status: int) -> None:
        self.code = os.waitstatus_to_exitcode(status)
        self.out, self.said = (_content(file) for file in self.files)


def _content(file: Any) -> str:
    with file:
        file.seek(0)
        return file.read().decode(errors="replace")


def start(
    words: Sequence[str],
    *,
    first: Callable[[], None] = lambda: None,
    patches: Callable[[], Any] = ExitStack,
    stdout: str | None = None,
) -> Process:
    """Starts `words`, as ["train_seg", "--ckpt", …].

    Args:
        first: is called in the new process, before the program.
        patches: gives a context within which the program runs, such as `tests.short_mobilenet.shortened`.
        stdout: a file that takes its output.
    """
    name, *flags = map(str, words)
    files = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed when they are read
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)  # until the new process answers as any new one
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return Process(pid, files)
    code = 70
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.setsid()
        out = files[0].fileno() if stdout is None else os.open(stdout, os.O_WRONLY)
        for number, file in (1, out), (2, files[1].fileno()):
            os.dup2(file, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        sys.argv = [f"{name}.py", *flags]
        first()
        with patches():
            command_line.run(lambda: importlib.import_module(name).main(flags))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        for stream in sys.stdout, sys.stderr:
            try:
                stream.flush()
            except OSError:
                code = code or 120  # as Python ends whose last output cannot be written
        os._exit(code)


def in_processes(jobs, work):
    """What each of several functions gives, each in a process of its own."""
    places = [work / f"job{number}" for number in range(len(jobs))]
    children = []
    for job, place in zip(jobs, places, strict=True):
        if not (pid := os.fork()):
            code = 1
            try:
                place.write_bytes(pickle.dumps(job()))
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    if any(codes):
        raise RuntimeError(f"jobs ended with {codes}")
    return [pickle.loads(place.read_bytes()) for place in places]
