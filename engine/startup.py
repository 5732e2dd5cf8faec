"""What a program that gives one result and ends should not spend its time on."""

import gc
import sys
from types import ModuleType
from typing import Any

# Keras imports these wherever they are installed, for galleries of pictures and for wrappers that nobody here uses.
_UNNEEDED = ("matplotlib", "sklearn")


def import_keras() -> ModuleType:
    """→ Keras, imported in half the time: as if matplotlib and scikit-learn were not installed, and without the
    garbage collector, which would look for garbage among a million objects that stay, and again when the program ends.

    The two packages can be imported afterwards as ever.
    """
    hidden = [name for name in _UNNEEDED if name not in sys.modules and "keras" not in sys.modules]
    absent: Any = dict.fromkeys(hidden)  # None in sys.modules makes an import fail
    sys.modules.update(absent)
    gc.disable()
    try:
        import keras

        return keras
    finally:
        gc.freeze()
        gc.enable()
        for name in hidden:
            del sys.modules[name]
