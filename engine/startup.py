"""What a program that gives one result and ends should not spend its time, or its reader's, on."""

import contextlib
import gc
import os
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any

# Keras imports these wherever they are installed, for galleries of pictures and for wrappers that nobody here uses.
_UNNEEDED = ("matplotlib", "sklearn")
# TensorFlow imports these, the latter for its legacy Keras. What else Keras may compute with needs them.
_UNNEEDED_BY_TENSORFLOW = ("jax", "scipy.sparse")
_OTHER_BACKENDS = ("keras.src.backend.jax", "keras.src.backend.torch")
# All of Keras a second time, for who says tf.keras: a hundred modules of names.
_SECOND_KERAS = "keras._tf_keras.keras"
# What TensorFlow says of itself on every start, whatever the level of its log: notes of level I, and these.
_NOTES = re.compile(
    rb"I\d{4} \d\d:\d\d:|[\d-]+ [\d:.]+: I (tensorflow|external)/"
    rb"|WARNING: All log messages before absl::InitializeLog"
    rb"|To enable the following instructions: "  # goes on from the note that the binary is optimized for this CPU
    rb"|.*(Unable to register cu\w+ factory|computation placer already registered|TF-TRT Warning: Could not find)"
    rb"|INFO: Created TensorFlow Lite \w+ delegate"
    rb"|.*failed call to cuInit: .*\(303\)"  # there is no CUDA driver; a driver that fails has other numbers
)


def import_keras() -> ModuleType:
    """→ Keras, and TensorFlow where that is what it computes with, as programs import them (`quiet_tensorflow`)."""
    quiet_tensorflow()
    with _sparingly():
        import keras

    return keras


@contextlib.contextmanager
def _sparingly() -> Iterator[None]:
    """Within it Keras and TensorFlow are imported in half the time: as if matplotlib, scikit-learn and, where Keras
    computes with TensorFlow, JAX and scipy.sparse were not there, `tf.keras` when it is first used, and without the
    garbage collector, which would look for garbage among a million objects that stay, and again when the program ends.

    All of these can be imported afterwards as ever.
    """
    finder, collects = _SparingFinder(), gc.isenabled()
    gc.disable()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if collects:
            gc.freeze()
            gc.enable()


class _SparingFinder:
    """Finds no module that is not needed, and the second Keras without what is in it."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        alone = not any(backend in sys.modules for backend in _OTHER_BACKENDS)
        if name in _UNNEEDED or (alone and name in _UNNEEDED_BY_TENSORFLOW):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        spec = PathFinder.find_spec(name, path) if name == _SECOND_KERAS else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec  # None: the next finder is asked


def quiet_tensorflow() -> None:
    """From here on the first import of TensorFlow, wherever it happens, takes half the time (`_sparingly`) and drops
    the notes on its start and on finding the devices; all else that is written to the standard error meanwhile arrives
    there (`notes_dropped`).
    """
    if "tensorflow" not in sys.modules and not any(isinstance(finder, _QuietFinder) for finder in sys.meta_path):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its later notes; its errors stay
        sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder:
    """Stands before the finders of modules until TensorFlow is imported, and has that done quietly."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name) if name == "tensorflow" else None
        if spec is None or spec.loader is None:
            return None  # the next finder is asked
        load = spec.loader.exec_module

        def load_quietly(module: ModuleType) -> None:
            import models  # noqa: F401  # what TensorFlow is told before it is imported

            sys.meta_path.remove(self)
            with notes_dropped(), _sparingly():
                load(module)
                module.config.list_physical_devices()  # what is said of them is said at the first look

        spec.loader.exec_module = load_quietly  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def notes_dropped() -> Iterator[None]:
    """Within it, what is written to file descriptor 2, by C++ too, goes line by line through a process that drops
    `_NOTES` and writes all else where it would have gone.

    A process, and not a thread or a file to read afterwards: it outlives this one, so that the last words of a crash
    arrive too. It ends with its last writer; a child of this process that goes on writing keeps it.
    """
    import subprocess

    try:
        stderr = os.dup(2)
    except OSError:  # there is none
        yield
        return
    command = [sys.executable, "-I", "-S", __file__]
    # in a session of its own, so that Ctrl-C, which ends this process, lets it pass on what is said of that
    notes_filter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stderr, start_new_session=True)
    assert notes_filter.stdin is not None
    os.dup2(notes_filter.stdin.fileno(), 2)
    notes_filter.stdin.close()
    try:
        yield
    finally:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        with contextlib.suppress(subprocess.TimeoutExpired):
            notes_filter.wait(timeout=1)


def _pass_on() -> None:
    """What the process of `notes_dropped` does: from standard input to standard output, less the notes."""
    for line in sys.stdin.buffer:
        if not _NOTES.match(line):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    _pass_on()
