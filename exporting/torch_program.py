"""What PyTorch runs, without Keras or this project: a `torch.export` program.

Keras has one backend a process, so the network is traced in a process of its own, to which it is handed as `.keras`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from files.writing import temporary_folder

HOUSE = Path(__file__).parents[1]
NETWORK, SETTINGS = "network.keras", "settings.json"
MANY = 2  # pictures in the batch that is traced: of one, PyTorch would take 1 for fixed


def write_torch(served: Any, path: Path) -> None:
    """uint8 images (N, H, W, 3) → the outputs by name; of a segmentation model any size up to `served.fixed`, of a
    classifier squares of its view's size."""
    from inference.exported import INSIDE, ExportError
    from inference.upsampling import padded_size

    settings: dict[str, Any] = {"name": f"{INSIDE}.json", "batch": served.any_size.input_signature[0].shape[0]}
    if "image_size" in served.description:
        side = served.description["image_size"]
        settings |= {"outputs": ("labels", "probabilities"), "largest": (side, side)}
    else:
        (rows, columns), stride = served.fixed, served.model.output_stride
        padded = padded_size(rows, columns, served.crop_size, stride)
        settings |= {"outputs": served.outputs, "largest": served.fixed, "padded": padded}
    settings["description"] = served.description
    with temporary_folder() as folder:
        served.model.save(folder / NETWORK)
        (folder / SETTINGS).write_text(json.dumps(settings))
        command = [sys.executable, "-m", "exporting.torch_program", str(folder), str(path.resolve())]
        environment = os.environ | {"KERAS_BACKEND": "torch"}
        done = subprocess.run(command, cwd=HOUSE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ExportError(
            f"torch: PyTorch cannot trace the network ({(done.stderr.strip() or 'killed').splitlines()[-1]})"
        )


def trace(folder: Path, path: Path) -> None:
    """Writes to `path` the program of the network and the settings in `folder`; in a process of Keras on PyTorch."""
    import keras
    import torch

    import models.deeplab_v3
    from models.folding import folded_constants, inference_values

    settings = json.loads((folder / SETTINGS).read_text())
    network = keras.saving.load_model(folder / NETWORK, compile=False)
    values = inference_values(network)
    segments = isinstance(network, models.deeplab_v3.DeepLabV3)
    computed = _segmented if segments else _classified

    class Program(torch.nn.Module):  # of no parameters: the weights are constants, batch norm folded into them
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            with folded_constants(network, values):
                found = computed(network, images, settings)
            return {name: found[name] for name in settings["outputs"]}

    rows, columns = settings["largest"]
    traced = torch.zeros((settings["batch"] or MANY, *((2, 3) if segments else (rows, columns)), 3), dtype=torch.uint8)
    sides = {1: torch.export.Dim("height", max=rows), 2: torch.export.Dim("width", max=columns)} if segments else {}
    batch = {} if settings["batch"] else {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad():
        program = torch.export.export(Program().eval(), (traced,), dynamic_shapes={"images": batch | sides})
    _tidy(program.graph)
    said = settings["description"] | {key: settings[key] for key in ("outputs", "largest", "batch")}
    torch.export.save(program, path, extra_files={settings["name"]: json.dumps(said)})


def _tidy(graph: Any) -> None:
    """Drops what Keras asks for in vain, of every layer: casts to the type that is there, looks at what that is, an
    order of axes that the next operation undoes, which costs two copies, and a copy of each weight in every call."""
    import torch

    aten = torch.ops.aten
    # A constant is copied, and taken out of what learns, lest it be changed: nothing here changes any.
    unchanged = (aten.lift_fresh_copy.default, aten.detach_.default)
    casts = (aten.to.dtype, aten.to.device, aten.to.dtype_layout)
    for node in list(graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
            continue
        in_vain = node.target in unchanged or (node.target is aten.contiguous.default and not node.kwargs)
        if in_vain or (node.target in casts and node.meta["val"].dtype == node.args[0].meta["val"].dtype):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _preprocessed(fed: Any, images: Any) -> Any:
    """`models.preprocessing.Preprocessing` in PyTorch's own operations: what is traced meets no array of NumPy."""
    import torch

    pixels = (images.to(torch.float32) - torch.tensor(fed.mean)) * fed.scale
    return pixels if fed.order == "RGB" else pixels.flip(-1)


def _segmented(network: Any, images: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """As `exporting.served.ServedSegmenter`, but the padded size is always the same, which makes shapes known."""
    import torch

    from models.layers import interpolation

    height, width = images.shape[1:3]
    rows, columns = settings["padded"]
    fed = _preprocessed(network.preprocessing, images)
    small = network.small_logits(torch.nn.functional.pad(fed, (0, 0, 0, columns - width, 0, rows - height)))
    n, h, w, classes = small.shape
    down, across = interpolation(h, rows, network.upsampling), interpolation(w, columns, network.upsampling)
    logits = across[:width] @ (down[:height] @ small.reshape(n, h, w * classes)).reshape(n, height, w, classes)
    return {"labels": logits.argmax(-1).to(torch.uint8), "probabilities": logits.softmax(-1), "logits": small}


def _classified(network: Any, images: Any, _: dict[str, Any]) -> dict[str, Any]:
    import torch

    logits = network(_preprocessed(network.preprocessing, images), training=False)
    return {"labels": logits.argmax(-1).to(torch.int32), "probabilities": logits.softmax(-1)}


if __name__ == "__main__":
    trace(Path(sys.argv[1]), Path(sys.argv[2]))
