"""What Keras opens, on any backend, where this project can be imported: the network as a `.keras` file.

Its layers are this project's own, so plain Keras has no meaning for them. Without this project Keras runs the
SavedModel, `keras.layers.TFSMLayer("saved_model", call_endpoint="serving_default")`, on TensorFlow.
"""

import json
import zipfile
from pathlib import Path

from exporting.served import Served
from inference.exported import INSIDE


def write_keras(served: Served, path: Path) -> None:
    """The model itself, batch norm and all, and what it is as a further file of the archive."""
    served.model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{INSIDE}.json", json.dumps(served.description))
