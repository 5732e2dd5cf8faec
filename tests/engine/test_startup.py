"""Keras is imported without what it does not need, and that can still be imported afterwards."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import gc, sys
from engine.startup import import_keras
keras = import_keras()
assert keras.layers.Dense and import_keras() is keras
assert "matplotlib" not in sys.modules and "sklearn" not in sys.modules
assert gc.isenabled() and gc.get_freeze_count() > 100_000
import matplotlib.figure
import inference.opening, inference.predictor
"""


def test_keras_comes_without_matplotlib():
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
