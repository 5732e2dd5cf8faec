"""What every export is to who uses it, whatever runs it: the same methods as `inference.predictor.ModelPredictor`'s."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from data.imagenet import imagenet_names
from data.views import View
from data.voc import names_of, unnamed
from errors import UserError
from inference.cells import labels_from
from inference.export_record import DESCRIPTION, ExportError, read_description
from inference.upsampling import Size, padded_picture, padded_size, upsampled

INSIDE = "slim_deeplab"  # under which a file says what it is, as JSON: classes, colours, what goes in and comes out
OUTPUTS = ("labels", "probabilities", "logits")
REQUIREMENTS = {
    "torch": "requirements-torch.txt",
    "transformers": "requirements-huggingface.txt",
    "safetensors": "requirements-huggingface.txt",
}


class Export(ABC):
    """A model in a file, all that is done to a picture included: a segmentation model's padding, a classifier's crop.

    Attributes:
        path: of the file or, for a SavedModel, the folder.
        classifies: whether it is a classifier, which gives a picture one label, and not each of its pixels.
        num_classes: as the file tells it.
        class_names: by the export.json beside it, else by the file, else VOC's 21 or of a classifier ImageNet's, else
            "class 0" …
        inside: what the file says of itself; empty of one that says nothing.
        input: the name of what takes pictures.
        batch: how many pictures it takes at once; None: any.
        fixed: the one (height, width) that it takes, pixels; None: any.
        view: what a classifier is shown of a picture, where the file leaves that to who uses it.
        smaller: whether `fixed` is the largest that it takes, and smaller ones go in as they are.
        sized: whether it also takes how much of them is picture, as `size`.
        outputs: which of OUTPUTS it gives.
        quantized: whether its logits are 8 bits, to be scaled.
    """

    kind: str
    inside: dict[str, Any]
    input = "images"
    batch: int | None = None
    fixed: tuple[int, int] | None = None
    view: View | None = None
    smaller = sized = quantized = False

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        given = self._open()
        self.outputs = [name for name in OUTPUTS if name in given]
        if not self.outputs:
            raise ValueError(f"gives {', '.join(given) or 'nothing'}, not one of {', '.join(OUTPUTS)}")
        self.classifies = len(given[self.outputs[0]]) == (1 if self.outputs[0] == "labels" else 2)
        with_classes = [given[name][-1] for name in self.outputs if name != "labels"]
        self.num_classes = int(with_classes[0] if with_classes else len(self.inside["classes"]))
        self.class_names = self._class_names()
        if self.classifies and self._leaves_view():
            self.view = View(self.inside["image_size"], self.inside["central_fraction"], self.inside["resize"])

    def _leaves_view(self) -> bool:
        """Whether a classifier's file takes what is seen of a picture: those in 8 bits, which give logits alone."""
        return "probabilities" not in self.outputs

    @abstractmethod
    def _open(self) -> dict[str, Sequence[Any]]:
        """Opens `path` in its runtime, reads `inside` → the shapes of its outputs."""

    @abstractmethod
    def _compute(self, name: str, images: np.ndarray) -> np.ndarray:
        """What the output `name` is of uint8 images, as many and as large as the file takes."""

    def _run(self, name: str, images: np.ndarray) -> np.ndarray:
        """What the output `name` is of uint8 images (N, H, W, 3): of as many at once as the file takes.

        ExportError where the runtime stumbles over the file only now.
        """
        batch, fed = self.batch or len(images), self._fed(images)
        found = []
        for start in range(0, len(fed), batch):
            part = filled = fed[start : start + batch]
            if len(part) < batch:
                filled = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
            with explained(f"{self.path}: cannot be run"):
                found.append(self._compute(name, filled)[: len(part)])
        whole = np.concatenate(found)
        if name == "logits" or whole.ndim < 3:
            return whole
        return whole[:, : images.shape[1], : images.shape[2]]

    def _class_names(self) -> tuple[str, ...]:
        described = read_description(self.path.parent) or self.inside
        if not described:
            known = imagenet_names(self.num_classes) or unnamed(self.num_classes)
            return known if self.classifies else names_of(self.num_classes)
        if len(described["classes"]) != self.num_classes:
            raise ExportError(
                f"{self.path}: has {self.num_classes} classes, the {DESCRIPTION} beside it {len(described['classes'])}"
            )
        return tuple(described["classes"])

    def described(self) -> dict[str, Any]:
        """What it takes, in words, and what goes in and comes out, by name, as JSON can hold it."""
        kinds = {"labels": "int32" if self.classifies else "uint8", "probabilities": "float32"}
        kinds["logits"] = "uint8" if self.quantized else "float32"
        some = "uint8 RGB pictures" if self.batch is None else f"{self.batch} uint8 RGB picture{'s'[: self.batch > 1]}"
        gives = {name: kinds[name] for name in self.outputs}
        if self.view is not None:
            view, *done = self.inside["done inside"].split("; ")
            left = [view] if "probabilities" in gives else [view, done.pop()]
            seen = [self.batch, self.view.size, self.view.size, 3]
            takes = f"{some} of {self.view.size}x{self.view.size} pixels"
            told = {"done inside": "; ".join(done), "left to do": "; ".join(left)}
            return {"takes": takes, "inputs": {self.input: seen}, "gives": gives, **told}
        takes = f"{some} of any size"
        if self.fixed is not None and self.smaller:
            takes = f"{some} of up to {self.fixed[1]}x{self.fixed[0]} pixels"
        elif self.fixed is not None:
            takes = f"{some} of {self.fixed[1]}x{self.fixed[0]} pixels, a smaller one padded right and below"
            takes += ", and `size`, its height and width" if self.sized else " with the mean pixel"
        size = {"size": [2]} if self.sized else {}
        sides = (None, None) if self.fixed is None or self.smaller else self.fixed
        largest = {"largest": list(self.fixed)} if self.fixed and self.smaller else {}
        return {
            "takes": takes,
            "inputs": {self.input: [self.batch, *sides, 3], **size},
            **largest,
            "gives": gives,
        }

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """What images must share to be predicted as one batch → (height, width), pixels: here, their own size, or the
        one that the file takes; ExportError for an image that is larger."""
        self._fits(height, width)
        return (height, width) if self.fixed is None or self.smaller else self.fixed

    def labels(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB (H, W, 3) → uint8 (H, W)."""
        return self.labels_of([image])[0]

    def labels_of(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The labels of several images of one size, predicted as one batch."""
        if "labels" in self.outputs:
            return list(self._run("labels", np.stack(images)))
        if "probabilities" in self.outputs:
            return list(self._run("probabilities", np.stack(images)).argmax(-1).astype(np.uint8))
        return [labels_from(*small) for small in self._small_logits(np.stack(images))]

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB (H, W, 3) → float32 (H, W, classes); ExportError where there are labels alone."""
        if "probabilities" in self.outputs:
            return self._run("probabilities", image[None])[0]
        if "logits" not in self.outputs:
            raise ExportError(f"{self.path}: gives labels alone; export with --outputs labels,probabilities")
        logits = upsampled(*next(self._small_logits(image[None]))).transpose(1, 2, 0)
        return softmax(logits)

    def _small_logits(self, images: np.ndarray) -> Iterator[tuple[np.ndarray, Size, Size, str]]:
        """uint8 (N, H, W, 3) → of each what `upsampled` and `labels_from` take: what the file gives, and its sizes."""
        size, inside = (images.shape[1], images.shape[2]), self.inside
        height, width = self.fixed or size
        padded = padded_size(height, width, inside["crop_size"], inside["output_stride"])
        for small in self._run("logits", images):
            yield small, padded, size, inside["upsampling"]

    def _fed(self, images: np.ndarray) -> np.ndarray:
        """Images as the file takes them: a classifier's view of them, or padded to one size with the mean pixel."""
        if self.view is not None:
            return np.stack([self.view(image) for image in images])
        if self.fixed is None or images.shape[1:3] == self.fixed:
            return images
        self._fits(*images.shape[1:3])
        if self.smaller:
            return images
        mean_pixel = self.inside.get("padding", [0, 0, 0])
        return np.stack([padded_picture(image, self.fixed, mean_pixel) for image in images])

    def _fits(self, height: int, width: int) -> None:
        rows, columns = self.fixed or (height, width)
        if height > rows or width > columns:
            raise ExportError(
                f"{self.path}: takes pictures of up to {columns}x{rows} pixels, this one has {width}x{height}. "
                f"Use the SavedModel or ONNX, or export with --crop-size {max(height, width)} or more."
            )

    def probabilities_of(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """A classifier's of uint8 RGB images, each (H, W, 3) of its own size → float32 (N, classes)."""
        if "probabilities" in self.outputs:
            return np.concatenate([self._run("probabilities", image[None]) for image in images])
        return softmax(np.concatenate([self._run("logits", image[None]) for image in images]))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Makes an ExportError of whatever a runtime raises: each has exceptions of its own for a file that is damaged."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(f"{what} ({cause}). Export it again.") from error


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def sizes_of(shape: Sequence[Any]) -> tuple[int | None, tuple[int, int] | None]:
    """(how many pictures, their (height, width)) of images' shape (N, H, W, 3), where they are known."""
    batch, height, width = (int(side) if isinstance(side, (int, np.integer)) else None for side in shape[:3])
    return batch, None if height is None or width is None else (height, width)


def require(module: str) -> ModuleType:
    """Imports the runtime `module`; ExportError saying how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        extra = REQUIREMENTS.get(package, "requirements-export.txt")
        raise ExportError(f"{package} is not installed: pip install -r {extra}") from error
