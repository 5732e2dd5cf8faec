"""Keras comes without what it does not need, TensorFlow without its notes, and nothing else is lost."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTES = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795602747.263298    8530 port.cc:153] oneDNN custom operations are on.",
    "2026-11-25 10:32:27.263298: I tensorflow/core/platform/cpu_feature_guard.cc:210] This binary is optimized to use",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow",
    "E0000 00:00:1795602747.3    8530 cuda_dnn.cc:8310] Unable to register cuDNN factory: one has been registered",
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    "W0000 00:00:1795602747.3    8530 computation_placer.cc:177] computation placer already registered.",
    "E0000 00:00:1795602749.7    8530 cuda_platform.cc:52] failed call to cuInit: INTERNAL: UNKNOWN ERROR (303)",
)
KEPT = (
    "E0000 00:00:1795602749.7    8530 cuda_platform.cc:52] failed call to cuInit: CUDA_ERROR_NO_DEVICE (100)",
    "W0000 00:00:1795602749.7    8530 gpu_device.cc:2341] Cannot dlopen some GPU libraries.",
    "F0000 00:00:1795602749.7    8530 cpu_feature_guard.cc:32] The library was compiled to use AVX instructions",
    "INFO is a word too; so is Grüße",
)


def run(program, path=ROOT):
    """A Python process → (exit code, what arrived at its standard error)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_CPP")}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (path, ROOT)))
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return result.returncode, result.stderr


@pytest.fixture
def with_tensorflow(tmp_path):
    """A function: the body of a module that is imported as TensorFlow, the program → what `run` returns."""

    def imported(body, program="import tensorflow"):
        devices = "import os, types\nconfig = types.SimpleNamespace(list_physical_devices=lambda: [])\n"
        (tmp_path / "tensorflow.py").write_text(devices + textwrap.dedent(body))
        return run(f"from engine.startup import quiet_tensorflow\nquiet_tensorflow()\n{program}", tmp_path)

    return imported


def written(lines):
    """Statements that write these lines to file descriptor 2."""
    return "".join(f"os.write(2, {(line + chr(10)).encode()!r})\n" for line in lines)


def test_keras_comes_without_what_is_not_needed_and_tensorflow_without_a_word():
    code, stderr = run(
        """
        import gc, importlib.util, sys
        from engine.startup import import_keras
        keras = import_keras()
        assert keras.layers.Dense and import_keras() is keras
        assert not {"matplotlib", "sklearn", "scipy.sparse", "jax"} & set(sys.modules) and "tensorflow" in sys.modules
        assert "keras._tf_keras.keras.layers" not in sys.modules
        assert gc.isenabled() and gc.get_freeze_count() > 100_000
        import matplotlib.figure, scipy.sparse
        if importlib.util.find_spec("jax"):
            import jax.numpy
        import tensorflow as tf
        from tensorflow.keras import layers
        assert tf.keras.layers.Dense is layers.Dense is keras.layers.Dense
        import inference.opening, inference.predictor
        keras.ops.matmul(keras.ops.ones((2, 2)), keras.ops.ones((2, 2)))
        """
    )
    assert (code, stderr) == (0, "")


def test_tensorflow_alone_comes_without_it_too():
    code, stderr = run(
        """
        import gc, sys
        from engine.startup import quiet_tensorflow
        quiet_tensorflow()
        import tensorflow as tf
        assert not {"matplotlib", "sklearn", "scipy.sparse", "jax"} & set(sys.modules) and "keras" in sys.modules
        assert gc.isenabled() and gc.get_freeze_count() > 100_000
        assert tf.keras.layers.Dense(1)(tf.ones((1, 2))).shape == (1, 1)
        """
    )
    assert (code, stderr) == (0, "")


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="needs jax, requirements-dev.txt")
@pytest.mark.parametrize("first", ["", "quiet_tensorflow()\n        import tensorflow"])
def test_keras_has_the_jax_it_computes_with(first):
    code, stderr = run(
        f"""
        import os
        os.environ["KERAS_BACKEND"] = "jax"
        from engine.startup import import_keras, quiet_tensorflow
        {first}
        keras = import_keras()
        assert keras.backend.backend() == "jax" and float(keras.ops.sum(keras.ops.ones(3))) == 3
        """
    )
    assert (code, stderr) == (0, "")


def test_notes_are_dropped_and_every_other_line_arrives_in_order(with_tensorflow):
    lines = [line for pair in zip(NOTES, [*KEPT, "", "4", "5", "6"], strict=True) for line in pair]
    code, stderr = with_tensorflow(written(lines))
    assert code == 0
    assert stderr.splitlines() == [*KEPT, "", "4", "5", "6"]


def test_a_look_whether_tensorflow_is_there_changes_nothing(with_tensorflow):
    look = "import importlib.util, sys\nassert importlib.util.find_spec('tensorflow')\n"
    after = "\nassert not any('QuietFinder' in repr(finder) for finder in sys.meta_path)"
    assert with_tensorflow(written(NOTES), look + "import tensorflow" + after) == (0, "")


def test_a_line_without_an_end_arrives(with_tensorflow):
    assert with_tensorflow("os.write(2, b'no end')") == (0, "no end")


def test_only_the_import_is_filtered(with_tensorflow):
    code, stderr = with_tensorflow("", f"import tensorflow, os\n{written(NOTES)}")
    assert (code, stderr.splitlines()) == (0, list(NOTES))


def test_an_error_in_the_import_is_traced_back(with_tensorflow):
    code, stderr = with_tensorflow("raise ImportError('libtensorflow_cc.so.2: cannot open')")
    assert code == 1
    assert stderr.startswith("Traceback") and stderr.endswith("ImportError: libtensorflow_cc.so.2: cannot open\n")


@pytest.mark.parametrize("end", ["os.abort()", "os._exit(3)", "os.kill(os.getpid(), 9)"])
def test_last_words_of_a_process_that_dies_in_the_import_arrive(with_tensorflow, end):
    code, stderr = with_tensorflow(written([*NOTES, *KEPT]) + end)
    assert code != 0
    assert stderr.splitlines()[: len(KEPT)] == list(KEPT)


def test_a_child_that_outlives_the_import_keeps_its_stderr(with_tensorflow):
    child = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-S', '-c', CHILD])\n"
    code, stderr = with_tensorflow(
        "CHILD = 'import os, time; time.sleep(2); os.write(2, bytes([108, 97, 116, 101]))'\n" + child,
        "import os, tensorflow\nos.write(2, b'early ')",
    )
    assert (code, stderr) == (0, "early late")


def test_without_a_stderr_the_import_works(with_tensorflow):
    assert with_tensorflow("", "import os\nos.close(2)\nimport tensorflow") == (0, "")


def test_without_tensorflow_its_import_fails_as_ever():
    code, stderr = run(
        """
        import importlib.util, sys
        from engine.startup import quiet_tensorflow
        quiet_tensorflow()
        sys.path = [entry for entry in sys.path if "site-packages" not in entry]
        assert importlib.util.find_spec("tensorflow") is None
        import tensorflow
        """
    )
    assert code == 1
    assert stderr.endswith("ModuleNotFoundError: No module named 'tensorflow'\n")
