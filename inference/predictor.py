"""From an image to labels or probabilities: padding, scales, flip and sliding window, the same for every program."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np
from keras import ops

from data.views import View
from engine.device import use_xla
from inference.cells import labels_from
from inference.upsampling import Size, aligned_size, padded_size
from models.deeplab_v3 import DeepLabV3
from models.folding import folded_constants, inference_values
from models.layers import Network, interpolation, resize_bilinear

Tensor = Any  # of the library that Keras computes with

STRIP = 256  # rows of a large picture that are upsampled at once
LARGE = 4 * 513**2  # pixels from which constants no longer pay: they take gigabytes more, and next to no time off


def logits_at(model: DeepLabV3, images: Tensor, scale: float = 1.0) -> Tensor:
    """float32 logits (N, H, W, classes) of images (N, H, W, 3) that the network sees at `scale` times their size."""
    height, width = ops.shape(images)[1:3]
    logits = merged_logits(model, model.small_logits(seen_at(model, images, scale)), (height, width), scale)
    return resize_bilinear(logits, height, width, model.upsampling)


def seen_at(model: DeepLabV3, images: Tensor, scale: float) -> Tensor:
    """Images (N, H, W, 3) as the network sees them at `scale`: a side of n pixels becomes scaled(n, scale)."""
    if scale == 1:
        return images
    height, width = (scaled(side, scale) for side in ops.shape(images)[1:3])
    return resize_bilinear(images, height, width, model.upsampling)


def merged_logits(model: DeepLabV3, logits: Tensor, size: tuple[Any, Any], scale: float) -> Tensor:
    """Small logits (N, h, w, classes) of images of `size` seen at `scale` → those that are upsampled to that size.

    As in the authors' own evaluation (research/deeplab, model.py, multi_scale_logits): at scales under 1 they first get
    as many points as the images' own logits have, and only from there the images' size, which is two bilinear steps.
    That is of code that aligns corners; a model that upsamples otherwise was published without several scales, and all
    its logits go to the images' size in one step.
    """
    if scale >= 1 or model.upsampling != "align-corners":
        return logits
    stride = 4 if model.decoder else model.output_stride
    height, width = (scaled(side, 1 / stride) for side in size)
    return resize_bilinear(logits, height, width, model.upsampling)


def scaled(side: Any, scale: float) -> Any:
    """(side - 1) * scale + 1 without its fraction: of an int, or of a scalar tensor of a graph for several sizes.

    So features and pixels keep their corners aligned where it has no fraction; the authors' `scale_dimension`.
    """
    if isinstance(side, int):
        return int((side - 1) * scale + 1)
    return ops.cast(ops.cast(side - 1, "float64") * scale + 1, "int32")


def mean_probabilities(
    model: DeepLabV3, images: Tensor, scales: Sequence[float] = (1.0,), flip: bool = False
) -> Tensor:
    """Softmax (N, H, W, classes), averaged over scales and, with `flip`, over the images and their mirror images."""
    total: Tensor = 0.0
    for scale in scales:
        total += ops.softmax(logits_at(model, images, scale))
        if flip:
            total += ops.softmax(logits_at(model, images[:, :, ::-1], scale))[:, :, ::-1]
    return total / (len(scales) * (2 if flip else 1))


class Compiled(keras.Model):
    """A computation of a model, compiled for `predict_on_batch` alone: on one device, wherever the model is trained."""

    def __init__(self, model: Network, eager: bool = False) -> None:
        super().__init__()
        self.model = model
        self.built = True
        self.eager = eager
        if not eager:
            self.compile(jit_compile=use_xla())
        self._on_one_device: Callable | None = None

    def predict_on_batch(self, x: Any) -> Any:
        """What `call` makes of the batch `x`."""
        if self.eager:
            return self(x, training=False)
        if keras.distribution.distribution() is None:  # there is one under JAX alone
            return super().predict_on_batch(x)
        import jax

        variables = self.model.variables
        if self._on_one_device is None:

            def computed(values, x):
                with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
                    return self.call(x)

            self._on_one_device = jax.jit(computed)
        return self._on_one_device([variable.value.addressable_data(0) for variable in variables], x)


class Segmenter(Compiled):
    """Wraps a segmentation model for inference: images, preprocessed and padded, in; int32 labels (N, H, W) out.

    Args:
        scales, flip: over which the probabilities are averaged (`mean_probabilities`).
        eager: without tracing, for the few images that do not repay it.
        constants: `models.folding.inference_values` of the model, to compute with; None: with its variables.
    """

    def __init__(
        self,
        model: DeepLabV3,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        eager: bool = False,
        constants: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        super().__init__(model, eager)
        self.scales, self.flip = tuple(scales), flip
        self.weights_used = nullcontext if constants is None else partial(folded_constants, model, constants)

    @property
    def averages(self) -> bool:
        """Whether there is more than one prediction to average."""
        return self.flip or self.scales != (1.0,)

    def call(self, images: Tensor) -> Tensor:
        """Images (N, H, W, 3), preprocessed and padded → integer labels (N, H, W)."""
        with self.weights_used():
            if not self.averages:  # the largest logit is the largest probability
                return ops.argmax(self.model(images, training=False), axis=-1)
            return ops.argmax(mean_probabilities(self.model, images, self.scales, self.flip), axis=-1)


class SmallLogits(Segmenter):
    """The same, with float32 logits (N, h, w, classes) out, of which `inference.cells.labels_from` makes labels; of
    one scale alone."""

    def call(self, images: Tensor) -> Tensor:
        """Images (N, H, W, 3), preprocessed and padded → float32 (N, h, w, classes)."""
        with self.weights_used():
            return ops.cast(self.model.small_logits(images), "float32")


class ProbabilityMapper(Segmenter):
    """The same, with float32 probabilities (N, H, W, classes) out."""

    def call(self, images: Tensor) -> Tensor:
        """Images (N, H, W, 3), preprocessed and padded → float32 (N, H, W, classes)."""
        with self.weights_used():
            return mean_probabilities(self.model, images, self.scales, self.flip)


class Part(Compiled):
    """A part of a segmentation model: `function`, one of its methods."""

    def __init__(self, model: Network, function: Callable[[Tensor], Tensor], eager: bool = False) -> None:
        super().__init__(model, eager)
        self.function = function

    def call(self, inputs: Tensor) -> Tensor:
        """What `function` makes of them."""
        return self.function(inputs)


class ModelPredictor:
    """What any image of its own size is predicted with, by a model of this project.

    `inference.runtimes` has the same methods for exported models.

    Args:
        model: a DeepLabV3 with its weights.
        class_names: its classes, background first.
        crop_size: images are padded to this square, larger ones to the next multiple of the stride plus one; pixels.
            None: they keep their own size.
        scales, flip: averaged over.
        window: pictures that are larger than this square, pixels, go through the backbone window by window; the head
            sees all windows' features at once, so that its image pooling and its widest dilations see what they would
            otherwise. None: pictures go in whole.
        eager: without tracing: the first image is predicted in half the time, the following take twice as long.
        frozen: for a model that learns no more: its weights, as they are now, become constants, with batch norm folded
            into them. Under TensorFlow on a CPU that takes a fifth off the time. Pictures over LARGE do
            without.
    """

    def __init__(
        self,
        model: DeepLabV3,
        class_names: Iterable[str],
        crop_size: int | None = 513,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        window: int | None = None,
        eager: bool = False,
        frozen: bool = False,
    ) -> None:
        self.model, self.class_names, self.crop_size = model, tuple(class_names), crop_size
        stride = model.output_stride
        self.window = None if window is None else padded_size(max(window, stride), 1, 1, stride)[0]
        self.scales, self.flip = tuple(scales), flip
        constants = inference_values(model) if frozen else None
        averaged = Segmenter(model, scales, flip, eager, constants)
        self._averaged = averaged if averaged.averages else None
        self._small_logits = SmallLogits(model, eager=eager, constants=constants)
        self._probabilities = ProbabilityMapper(model, scales, flip, eager, constants)
        self._unfrozen = ModelPredictor(model, class_names, crop_size, scales, flip) if frozen else self

    @cached_property
    def _features(self) -> Part:
        # Not frozen: folded constants take gigabytes more, and windows are for who has none to spare.
        return Part(self.model, self.model.features)

    @cached_property
    def _head(self) -> Part:
        return Part(self.model, self.model.head)

    @property
    def num_classes(self) -> int:
        """How many classes the model tells apart, background included."""
        return self.model.num_classes

    def padded_size(self, height: int, width: int) -> Size:
        """What an image of this size is padded to → (height, width), pixels."""
        return padded_size(height, width, self.crop_size, self.model.output_stride)

    def labels(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB (H, W, 3) → uint8 (H, W)."""
        return self.labels_of([image])[0]

    def labels_of(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The labels of several images that are padded to one size, predicted as one batch."""
        if self._slides(images[0]):  # all are padded to one size
            return [self._labels_by_windows(image) for image in images]
        if self._is_large(images[0]):
            return self._unfrozen.labels_of(images)
        if self._averaged is not None:
            return [labels.astype(np.uint8) for labels in self._whole(images, self._averaged)]
        return [
            self._labels_from(small, image)
            for small, image in zip(self._run(images, self._small_logits), images, strict=True)
        ]

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB (H, W, 3) → float32 (H, W, classes)."""
        if self._slides(image):
            return np.concatenate(list(self._slide(image)))
        if self._is_large(image):
            return self._unfrozen.probabilities(image)
        return self._whole([image], self._probabilities)[0]

    def _slides(self, image: np.ndarray) -> bool:
        return self.window is not None and max(self.padded_size(*image.shape[:2])) > self.window

    def _is_large(self, image: np.ndarray) -> bool:
        return self._unfrozen is not self and math.prod(self.padded_size(*image.shape[:2])) > LARGE

    def _run(self, images: Sequence[np.ndarray], network: Compiled) -> np.ndarray:
        """What the network makes of images that are padded to one size, as one batch."""
        size = self.padded_size(*images[0].shape[:2])
        return np.asarray(network.predict_on_batch(np.stack([fed_to(self.model, image, size) for image in images])))

    def _whole(self, images: Sequence[np.ndarray], network: Compiled) -> list[np.ndarray]:
        """The same, of which every pixel is one of the padded image, without what was padded."""
        found = zip(self._run(images, network), images, strict=True)
        return [part[: image.shape[0], : image.shape[1]] for part, image in found]

    def _labels_from(self, small: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Small logits (h, w, classes) of the padded image → uint8 labels (H, W) of the image."""
        height, width = image.shape[:2]
        return labels_from(small, self.padded_size(height, width), (height, width), self.model.upsampling)

    def _labels_by_windows(self, image: np.ndarray) -> np.ndarray:
        if self._averaged is not None:
            return np.concatenate([strip.argmax(-1).astype(np.uint8) for strip in self._slide(image)])
        fed = fed_to(self.model, image, self.padded_size(*image.shape[:2]))
        return self._labels_from(self._logits_by_windows(fed, 1.0, False), image)

    def _slide(self, image: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the probabilities (rows, W, classes) of one strip of the image after the other."""
        height, width = image.shape[:2]
        size = self.padded_size(height, width)
        fed = fed_to(self.model, image, size)
        passes = [(scale, mirrored) for scale in self.scales for mirrored in ((False, True) if self.flip else (False,))]
        small = [self._to_be_upsampled(self._logits_by_windows(fed, *one), size) for one in passes]
        for top in range(0, height, STRIP):
            rows = slice(top, min(top + STRIP, height))
            logits = (ops.matmul(across[:width], ops.tensordot(down[rows], part, 1)) for part, down, across in small)
            total: Any = sum(np.asarray(ops.softmax(strip)) for strip in logits)
            yield total / len(passes)

    def _logits_by_windows(self, fed: np.ndarray, scale: float, mirrored: bool) -> np.ndarray:
        """float32 (H, W, 3) → `merged_logits`, float32 (h, w, classes), of it at `scale`, turned back if mirrored."""
        images = np.asarray(seen_at(self.model, fed[None, :, ::-1] if mirrored else fed[None], scale))
        stride = self.model.output_stride
        windows = [windows_over(side, self.window or side, stride) for side in images.shape[1:3]]
        strides = (stride, 4) if self.model.decoder else (stride,)  # a decoder is fed those of stride 4 too
        features: list[np.ndarray] = []
        for rows, columns in itertools.product(*windows):
            parts = self._features.predict_on_batch(images[:, rows.seen, columns.seen])
            parts = [np.asarray(part) for part in (parts if self.model.decoder else (parts,))]
            if not features:
                shapes = [[math.ceil(side / each) for side in images.shape[1:3]] for each in strides]
                features = [np.zeros((1, *s, p.shape[-1]), p.dtype) for s, p in zip(shapes, parts, strict=True)]
            for whole, part, each in zip(features, parts, strides, strict=True):
                down, across = rows.finer(stride // each), columns.finer(stride // each)
                whole[:, down.kept, across.kept] = part[:, down.inner, across.inner]
        seen = tuple(features) if self.model.decoder else features[0]
        small = np.asarray(self._head.predict_on_batch(seen), np.float32)
        logits = np.asarray(merged_logits(self.model, small, fed.shape[:2], scale))[0]
        return logits[:, ::-1] if mirrored else logits

    def _to_be_upsampled(self, logits: np.ndarray, size: Size) -> tuple[Any, Any, Any]:
        """Logits (h, w, classes) → (logits, (H, h), (W, w)): with what takes them down and across to `size`."""
        sides = zip(logits.shape[:2], size, strict=True)
        return logits, *(interpolation(small, side, self.model.upsampling) for small, side in sides)


class ClassifierPredictor:
    """What pictures of any size are classified with, by a model of this project.

    `inference.runtimes` has the same method for exported models.

    Args:
        model: a backbone with a classifier and its weights.
        class_names: its classes, in the order of its logits.
        view: what it is shown of a picture.
        eager: without tracing: the first picture is classified in a quarter of the time, the following take three times
            as long.
    """

    def __init__(self, model: Network, class_names: Iterable[str], view: View, eager: bool = False) -> None:
        self.model, self.class_names, self.view = model, tuple(class_names), view
        self._network = Part(model, self._probabilities, eager)

    @property
    def num_classes(self) -> int:
        """How many classes the model tells apart."""
        return len(self.class_names)

    def probabilities_of(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 RGB images, each (H, W, 3) of its own size → float32 (N, classes), computed as one batch."""
        seen = np.stack([self.view(image) for image in images]).astype(np.float32)
        fed = np.asarray(self.model.preprocessing(seen), np.float32)
        return np.asarray(self._network.predict_on_batch(fed))

    def _probabilities(self, images: Tensor) -> Tensor:
        return ops.softmax(ops.cast(self.model(images, training=False), "float32"))


@dataclass(frozen=True)
class Window:
    """A window along one axis. `seen`: its pixels of the image; of the features, which are a stride apart, `kept` are
    those that it is to give to the image's, and `inner` the same counted from the window's own first."""

    seen: slice
    kept: slice
    inner: slice

    def finer(self, times: int) -> "Window":
        """The same window over features that are `times` as dense."""
        kept, inner = (slice(part.start * times, part.stop * times) for part in (self.kept, self.inner))
        return Window(self.seen, kept, inner)


def windows_over(side: int, window: int, stride: int) -> list[Window]:
    """Covers `side` pixels with windows, all of one size and at multiples of the stride.

    So a window's features sit where those of the whole image would. Neighbours share a third of a window, in whole
    strides, of which each gives the half that is farther from its own border, where it saw padding instead of picture.
    """
    window = min(window, side)
    window += (side - window) % stride  # TensorFlow's SAME pads by what is left at a stride: as much as in the image
    shared = window // 3 // stride
    step = max(stride, (window - 1) // stride * stride - shared * stride)
    count = 1 + math.ceil((side - window) / step)
    last = math.ceil((side - window) / stride) * stride
    starts = [min(index * step, last) for index in range(count)]
    between = ((before + window - 1 + after) // 2 // stride for before, after in itertools.pairwise(starts))
    cuts = [0, *between, math.ceil(side / stride)]
    return [
        Window(
            slice(start, start + window),
            slice(first, end),
            slice(first - start // stride, end - start // stride),
        )
        for start, (first, end) in zip(starts, itertools.pairwise(cuts), strict=True)
    ]


def crop_size_advice(model: DeepLabV3, crop_size: int | None, flag: str = "--crop-size") -> str | None:
    """What to say of a square that images are padded to, or cut to for training; None where that is well.

    Only of models that align corners, as the one that was measured: the published DeepLab on MobileNet v2 has an mIoU
    of 82.6 % on 40 images of VOC's val at 513, and of 74.2 % at 512.
    """
    if crop_size is None or model.upsampling != "align-corners":
        return None
    stride = model.output_stride
    better = aligned_size(crop_size, stride)
    if crop_size == better:
        return None
    return (
        f"warning: {flag} {crop_size} is no multiple of the output stride {stride} plus one: features and pixels do "
        f"not have their corners aligned, which cost 8 points of mIoU where it was measured; {better} is the next"
    )


def fed_to(model: DeepLabV3, image: np.ndarray, size: Size) -> np.ndarray:
    """uint8 RGB (H, W, 3) → float32 (*size, 3): preprocessed as the model wants it, padded with the mean pixel."""
    fed = np.zeros((*size, 3), np.float32)  # which the mean pixel becomes
    fed[: image.shape[0], : image.shape[1]] = model.preprocessing(image.astype(np.float32))
    return fed
