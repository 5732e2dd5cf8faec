"""What is exported: a model as functions of pictures, with its weights as constants of their graphs.

Batch norm is folded into the convolutions before it, and what is linear into those behind it (`models.folding`). For
TensorFlow that pays, since its own optimizer does not do it after a depthwise convolution: DeepLab v3 on MobileNet v2,
padded to 513x513, 2 cores, best of 25 interleaved passes, 83 ms instead of 106. tf2onnx and the TFLite converter fold
batch norm by themselves; what they make of it is as fast without.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from data.views import View
from engine.options import Exporting
from engine.pictures import spread_over
from exporting.eight_bits import STEPS, Readied, taking_pixels
from exporting.strips import labels_by_strips
from exporting.views import seen
from inference.upsampling import padded_picture, padded_size
from models.backend import dilated
from models.deeplab_v3 import DeepLabV3
from models.folding import folded_constants, folded_values, inference_values
from models.layers import Network, interpolation

Samples = Sequence[tuple[np.ndarray, Any]]
MEASURED = 50  # pictures, of those to calibrate on, whose activations weights are made ready for 8 bits by


class Served(ABC):
    """A model to be exported, as functions of pictures.

    Attributes:
        model: with its weights, all float32.
        any_size: tf.function, uint8 images (N, H, W, 3) → {"labels", "probabilities"}, that TensorFlow runs anywhere.
        converted: the same for a converter, to a runtime that has dilated depthwise convolutions.
        lite: tf.function that a TFLite file holds: one picture. None where there can be none.
        fixed: the one (height, width) of what is quantized, and of a segmentation model for runtimes that want fixed
            shapes; None where none is known.
        calibration: samples (uint8 picture (H, W, 3), anything) that the ranges of 8 bits are measured on; none, no 8
            bits.
        opset: of ONNX.
        description: what a file says of itself, as JSON can hold it.
    """

    model: Network
    any_size: Any
    converted: Any
    lite: Any
    fixed: tuple[int, int] | None

    def __init__(self, model: Network, how: Exporting, calibration: Samples) -> None:
        self.model, self.opset, self.calibration = model, how.opset, calibration
        self.description: dict[str, Any] = {}
        self._values = inference_values(model)
        images = tf.TensorSpec((how.batch, *(how.size or (None, None)), 3), tf.uint8, name="images")
        self.any_size = self._function(self._any_size, images, converted=False)
        self.converted = self._function(self._converted, images)

    @abstractmethod
    def _any_size(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """uint8 images (N, H, W, 3) → {"labels", "probabilities"}."""

    def _converted(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same by operations that other runtimes have, all of known shapes."""
        return self._any_size(images)

    @abstractmethod
    def fed(self, picture: np.ndarray) -> np.ndarray:
        """uint8 RGB (H, W, 3) → uint8 (1, *fixed, 3)."""

    @abstractmethod
    def _network(self, fed: tf.Tensor) -> tf.Tensor:
        """Preprocessed images → the model's logits, a segmentation model's small ones."""

    @abstractmethod
    def _logits(self, fed: tf.Tensor, values: Mapping[str, np.ndarray] | None = None) -> tf.Tensor:
        """The same by constants, with other values where given, after whatever is padded."""

    def centred(self, steps: int = STEPS) -> tuple[Any, int]:
        """→ (tf.function, float32 image (1, H, W, 3) less a number → {"logits"}, with weights made ready for 8 bits,
        `steps` of them (`exporting.eight_bits`); the number): the mean pixel, where preprocessing can be inside the
        weights, else 0."""
        ready = self._readied.rounded(steps)
        found = taking_pixels(self.model, self._network, ready, self._pixels.shape)
        values, middle = found or (ready, 0)

        def compute(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"logits": self._logits(image if found else self._preprocessed(image), values=values)}

        return self._function(compute, self._pixels), middle

    @property
    def _pixels(self) -> tf.TensorSpec:
        assert self.fixed is not None  # `Subject.refused`
        return tf.TensorSpec((1, *self.fixed, 3), tf.float32, name="image")

    @functools.cached_property
    def _readied(self) -> Readied:
        samples = (self.calibration[index] for index in spread_over(len(self.calibration), MEASURED))
        images = [np.asarray(self._preprocessed(tf.constant(self.fed(picture)))) for picture, _ in samples]
        return Readied(self.model, self._network, folded_values(self.model), images)

    def calibrating(self, middle: int) -> Iterator[np.ndarray]:
        """The pictures to calibrate `centred` on, as it takes them: float32 (1, H, W, 3), less its number.

        The last pixel of each has the least and the largest value, so that a step of an input of 8 bits is a pixel's.
        """
        for picture, _ in self.calibration:
            image = self.fed(picture).astype(np.float32) - middle
            image[0, -1, -1, :2] = np.array([0, 255]) - middle
            yield image

    @staticmethod
    def _function(computed: Callable[..., Any], *takes: tf.TensorSpec, converted: bool = True) -> Any:
        @functools.wraps(computed)
        def traced(*taken: tf.Tensor) -> Any:
            with dilated(natively=converted):
                return computed(*taken)

        return tf.function(traced, input_signature=takes, autograph=False)

    def _constants(self, values: Mapping[str, np.ndarray] | None = None) -> Any:
        return folded_constants(self.model, self._values if values is None else values)

    def _preprocessed(self, images: tf.Tensor) -> tf.Tensor:
        """The mean pixel, which padding is made of, becomes 0."""
        return self.model.preprocessing(tf.cast(images, tf.float32))


class ServedSegmenter(Served):
    """A DeepLabV3: labels uint8 (N, H, W), probabilities float32 (N, H, W, classes), and small logits float32
    (N, h, w, classes) of the padded picture, whichever `how.outputs` names.

    Args:
        crop_size: as of `inference.predictor.ModelPredictor`, which the functions equal.
        how: outputs, size and batch.
        calibration: as of Served.

    Attributes:
        fixed: `how.size`, else the crop size.
        lite: uint8 image (1, *fixed, 3). There is none without. So is `exact`, which also takes int32 size (2,): only
            so many rows and columns of the image are picture, whatever the others hold counts as padding.
    """

    def __init__(
        self,
        model: DeepLabV3,
        crop_size: int | None,
        how: Exporting = Exporting(),
        calibration: Samples = (),
    ) -> None:
        super().__init__(model, how, calibration)
        self.crop_size, self.outputs = crop_size, how.outputs
        self.fixed = how.size or (None if crop_size is None else (crop_size, crop_size))
        self.lite = self.exact = None
        if self.fixed is not None:
            image = tf.TensorSpec((1, *self.fixed, 3), tf.uint8, name="image")
            self.lite = self._function(
                lambda image: self._answers(self._preprocessed(image), enlarged=self._resized), image
            )
            self.exact = self._function(self._exact, image, tf.TensorSpec((2,), tf.int32, name="size"))

    def fed(self, picture: np.ndarray) -> np.ndarray:
        """As much of a picture as fits, padded with the mean pixel, rounded."""
        assert self.fixed is not None  # else there is no function that takes it
        return padded_picture(picture, self.fixed, np.round(self.model.preprocessing.mean).tolist())[None]

    def _any_size(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answers(self._preprocessed(images), by_strips=True)

    def _converted(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answers(self._preprocessed(images))

    def _exact(self, image: tf.Tensor, size: tf.Tensor) -> dict[str, tf.Tensor]:
        rows, columns = (tf.cast(tf.range(side) < size[axis], tf.float32) for axis, side in enumerate(image.shape[1:3]))
        fed = self._preprocessed(image) * rows[:, None, None] * columns[:, None]
        return self._answers(fed, enlarged=self._resized)

    def _answers(
        self, fed: tf.Tensor, enlarged: Callable[..., tf.Tensor] | None = None, by_strips: bool = False
    ) -> dict[str, tf.Tensor]:
        """Preprocessed images → what an export gives; the names are those of a frozen graph's tensors.

        enlarged: `_enlarged`, or what does the same for the runtime. by_strips: labels alone may be of
            `labels_by_strips`.
        """
        sides = [known or tf.shape(fed)[axis] for axis, known in ((1, fed.shape[1]), (2, fed.shape[2]))]
        padded = [self._padded(side) for side in sides]
        small = self._small_logits(fed, [new - side for new, side in zip(padded, sides, strict=True)])
        found, more = {}, set(self.outputs) - {"logits"}
        if "logits" in self.outputs:
            found["logits"] = tf.identity(small, name="logits")
        if by_strips and more == {"labels"} and self._in_whole_steps(padded):
            labels = labels_by_strips(small, padded, sides, self._step)
            found["labels"] = tf.ensure_shape(labels, fed.shape[:3], name="labels")
        elif more:
            logits = (enlarged or self._enlarged)(small, padded, sides)
            logits = tf.ensure_shape(logits, (*fed.shape[:3], self.model.num_classes))
            if "labels" in self.outputs:
                found["labels"] = tf.cast(tf.argmax(logits, -1, tf.int32), tf.uint8, name="labels")
            if "probabilities" in self.outputs:
                found["probabilities"] = tf.nn.softmax(logits, name="probabilities")
        return {name: found[name] for name in self.outputs}

    def _in_whole_steps(self, padded: Sequence[Any]) -> bool:
        """Whether pixels lie between the points of small logits in whole steps, of a padded picture of any size."""
        known = [self.crop_size if not isinstance(side, int) else side for side in padded]
        aligned = self.model.upsampling == "align-corners"
        return aligned and all(side is not None and (side - 1) % self._step == 0 for side in known)

    def _enlarged(self, small: tf.Tensor, padded: Sequence[Any], sides: Sequence[Any]) -> tf.Tensor:
        """`models.layers.resize_bilinear` to the padded picture's size, but only of the picture's own pixels."""
        n, h, w, c = tf.unstack(tf.shape(small))
        rows, columns = (
            interpolation(short, long, self.model.upsampling)[:side]
            for short, long, side in zip((h, w), padded, sides, strict=True)
        )
        across = tf.reshape(rows @ tf.reshape(small, (n, h, w * c)), (n, sides[0], w, c))
        return columns @ across

    def _resized(self, small: tf.Tensor, padded: Sequence[int], sides: Sequence[int]) -> tf.Tensor:
        """`_enlarged` by TensorFlow's own operation, which is LiteRT's fastest: 0.7 ms instead of 1.4."""
        how = {"align-corners": {"align_corners": True}, "half-pixel": {"half_pixel_centers": True}, "tf1": {}}
        whole = tf.raw_ops.ResizeBilinear(images=small, size=padded, **how[self.model.upsampling])
        return whole[:, : sides[0], : sides[1]]

    def _padded(self, side: Any) -> Any:
        """`inference.upsampling.padded_size` of one side, also of one that is not known before the graph runs."""
        if isinstance(side, int) or self.crop_size is None:
            return side if self.crop_size is None else padded_size(side, side, self.crop_size, self._stride)[0]
        return tf.where(
            side <= self.crop_size, self.crop_size, (side + self._stride - 2) // self._stride * self._stride + 1
        )

    @property
    def _step(self) -> int:
        """Of small logits, in pixels."""
        return self.model.feature_strides[-1]

    @property
    def _stride(self) -> int:
        return self.model.output_stride

    def _network(self, fed: tf.Tensor) -> tf.Tensor:
        return self.model.small_logits(fed)

    def _logits(self, fed: tf.Tensor, values: Mapping[str, np.ndarray] | None = None) -> tf.Tensor:
        return self._small_logits(fed, values=values)

    def _small_logits(
        self, fed: tf.Tensor, more: Sequence[Any] | None = None, values: Mapping[str, np.ndarray] | None = None
    ) -> tf.Tensor:
        """Small logits of preprocessed images, padded with so many rows and columns; with other values where given."""
        if more is None:
            more = [self._padded(side) - side for side in fed.shape[1:3]]
        if not (isinstance(more[0], int) and isinstance(more[1], int)) or any(more):
            fed = _extended(fed, *more)
        with self._constants(values):
            return self.model.small_logits(fed)


def _extended(images: tf.Tensor, rows: Any, columns: Any) -> tf.Tensor:
    """Images (N, H, W, C) with so many rows and columns of zeros more: row by row, which TensorFlow does in 0.65 of the
    time that it takes pixel by pixel."""
    n, height, width = (known or tf.shape(images)[axis] for axis, known in enumerate(images.shape[:3]))
    channels = images.shape[3]
    whole = tf.reshape(images, (n, height, width * channels))
    whole = tf.pad(whole, ((0, 0), (0, rows), (0, columns * channels)))
    return tf.reshape(whole, (n, height + rows, width + columns, channels))


class ServedClassifier(Served):
    """A classifier: labels int32 (N,), probabilities float32 (N, classes).

    Args:
        view: what it is shown of a picture, which is inside (`exporting.views`), but not of what is quantized.
        how, calibration: as of Served.

    Attributes:
        lite: the same of one picture of any size, uint8 images (1, H, W, 3).
        fixed: the view's.
    """

    def __init__(self, model: Network, view: View, how: Exporting = Exporting(), calibration: Samples = ()) -> None:
        super().__init__(model, how, calibration)
        self.view, self.fixed = view, (view.size, view.size)
        self.lite = self._function(
            self._any_size, tf.TensorSpec((1, *(how.size or (None, None)), 3), tf.uint8, name="images")
        )

    def fed(self, picture: np.ndarray) -> np.ndarray:
        """What is seen of a picture."""
        return self.view(picture)[None]

    def _network(self, fed: tf.Tensor) -> tf.Tensor:
        return self.model(fed, training=False)

    def _logits(self, fed: tf.Tensor, values: Mapping[str, np.ndarray] | None = None) -> tf.Tensor:
        with self._constants(values):
            return self._network(fed)

    def _any_size(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = self._logits(self._preprocessed(seen(self.view, images)))
        return {
            "labels": tf.cast(tf.argmax(logits, -1), tf.int32, name="labels"),
            "probabilities": tf.nn.softmax(logits, name="probabilities"),
        }
