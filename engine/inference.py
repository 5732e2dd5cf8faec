"""From an image to labels or probabilities: padding, scales, flip and sliding window, the same for every program."""

import itertools
import math

import keras
import numpy as np
from keras import ops

from data.transforms import pad_to
from engine.device import use_xla
from models.layers import resize_bilinear

MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # the paper's, section 4.1


def logits_at(model, images, scale=1.0):
    """float32 logits (N, H, W, classes) of images (N, H, W, 3) that the network sees at `scale` times their size.

    As in the authors' own evaluation: a side of n pixels becomes (n - 1) * scale + 1, so that features and pixels keep
    their corners aligned, and the small logits go straight to the images' own size.
    """
    height, width = ops.shape(images)[1:3]
    if scale != 1:
        sides = (max(2, round((side - 1) * scale) + 1) for side in (height, width))
        images = resize_bilinear(images, *sides, model.align_corners)
    return resize_bilinear(model.small_logits(images), height, width, model.align_corners)


def mean_probabilities(model, images, scales=(1.0,), flip=False):
    """Softmax (N, H, W, classes), averaged over scales and, with `flip`, over the images and their mirror images."""
    total = 0.0
    for scale in scales:
        total += ops.softmax(logits_at(model, images, scale))
        if flip:
            total += ops.softmax(logits_at(model, images[:, :, ::-1], scale))[:, :, ::-1]
    return total / (len(scales) * (2 if flip else 1))


class Segmenter(keras.Model):
    """Wraps a segmentation model for inference: images, preprocessed and padded, in; int32 labels (N, H, W) out.

    Args:
        scales, flip: over which the probabilities are averaged (`mean_probabilities`).
    """

    def __init__(self, model, scales=(1.0,), flip=False):
        super().__init__(name="segmenter")
        self.model, self.scales, self.flip = model, tuple(scales), flip
        self.built = True
        self.compile(jit_compile=use_xla())

    @property
    def averages(self):
        """Whether there is more than one prediction to average."""
        return self.flip or self.scales != (1.0,)

    def call(self, images):
        if not self.averages:  # the largest logit is the largest probability
            return ops.argmax(self.model(images, training=False), axis=-1)
        return ops.argmax(mean_probabilities(self.model, images, self.scales, self.flip), axis=-1)


class ProbabilityMapper(Segmenter):
    """The same, with float32 probabilities (N, H, W, classes) out."""

    def call(self, images):
        return mean_probabilities(self.model, images, self.scales, self.flip)


class ModelPredictor:
    """What any image of its own size is predicted with, by a model of this project.

    `engine.runtimes` has the same two methods for exported models.

    Args:
        model: a DeepLabV3 with its weights.
        class_names: its classes, background first.
        crop_size: images are padded to this square, larger ones to the next multiple of the stride plus one; pixels.
        scales, flip: averaged over.
        window: side of the sliding window for pictures that are larger than it, pixels; None: pictures go in whole.
    """

    def __init__(self, model, class_names, crop_size=513, scales=(1.0,), flip=False, window=None):
        self.model, self.class_names, self.crop_size = model, tuple(class_names), crop_size
        self.window = None if window is None else padded_size(window, window, 1, model.output_stride)[0]
        self._labels = Segmenter(model, scales, flip)
        self._probabilities = ProbabilityMapper(model, scales, flip)

    @property
    def num_classes(self):
        return self.model.num_classes

    def padded_size(self, height, width):
        """What an image of this size is padded to → (height, width), pixels."""
        return padded_size(height, width, self.crop_size, self.model.output_stride)

    def labels(self, image):
        """uint8 RGB (H, W, 3) → uint8 (H, W)."""
        return self.labels_of([image])[0]

    def labels_of(self, images):
        """The labels of several images that are padded to one size, predicted as one batch."""
        if any(map(self._slides, images)):
            return [self.probabilities(image).argmax(-1).astype(np.uint8) for image in images]
        return [labels.astype(np.uint8) for labels in self._whole(images, self._labels)]

    def probabilities(self, image):
        """uint8 RGB (H, W, 3) → float32 (H, W, classes)."""
        return self._slide(image) if self._slides(image) else self._whole([image], self._probabilities)[0]

    def _slides(self, image):
        return self.window is not None and max(image.shape[:2]) > self.window

    def _whole(self, images, network):
        size = self.padded_size(*images[0].shape[:2])
        fed = np.stack([fed_to(self.model, image, size) for image in images])
        found = np.asarray(network.predict_on_batch(fed))
        return [part[: image.shape[0], : image.shape[1]] for part, image in zip(found, images, strict=True)]

    def _slide(self, image):
        height, width = image.shape[:2]
        total = np.zeros((height, width, self.num_classes), np.float32)
        seen = np.zeros((height, width, 1), np.float32)
        starts = (window_starts(side, self.window, self.model.output_stride) for side in (height, width))
        for top, left in itertools.product(*starts):
            part = image[top : top + self.window, left : left + self.window]
            fed = fed_to(self.model, part, (self.window, self.window))
            found = np.asarray(self._probabilities.predict_on_batch(fed[None]))[0, : part.shape[0], : part.shape[1]]
            total[top : top + self.window, left : left + self.window] += found
            seen[top : top + self.window, left : left + self.window] += 1
        return np.divide(total, seen, out=total)


def padded_size(height, width, crop_size=513, stride=16):
    """What an image of this size is padded to → (height, width), pixels.

    Each side to `crop_size`, or where it is longer to the next multiple of the stride plus one, at which features and
    pixels have their corners aligned.
    """
    return tuple(crop_size if n <= crop_size else math.ceil((n - 1) / stride) * stride + 1 for n in (height, width))


def window_starts(side, window, stride):
    """Where the windows over `side` pixels begin: two thirds of a window apart, at multiples of the stride.

    So a window's features sit where those of the whole image would. The last window may reach beyond the side.
    """
    step = max(stride, window * 2 // 3 // stride * stride)
    count = 1 if side <= window else 1 + math.ceil((side - window) / step)
    return [index * step for index in range(count)]


def fed_to(model, image, size):
    """uint8 RGB (H, W, 3) → float32 (*size, 3): padded with the mean pixel and preprocessed as the model wants it."""
    padded, _ = pad_to(image.astype(np.float32), None, *size, model.preprocessing.mean)
    return np.asarray(model.preprocessing(padded), np.float32)
