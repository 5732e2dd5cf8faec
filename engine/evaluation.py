"""A model on a whole data set: whole images, padded and never resized, into one confusion matrix."""

import math

import keras
import numpy as np
from keras import ops

from data.images import image_size
from data.pipeline import evaluation_batches, original_errors
from data.transforms import pad_to
from data.voc import IGNORE_LABEL
from engine.device import use_xla
from engine.pictures import captioned, sheet


class Segmenter(keras.Model):
    """Wraps a segmentation model for inference: images in, int32 label maps (N, H, W) out."""

    def __init__(self, model):
        super().__init__(name="segmenter")
        self.model = model
        self.built = True
        self.compile(jit_compile=use_xla())

    def call(self, images):
        return ops.argmax(self.model(images, training=False), axis=-1)


class ConfusionCounter(Segmenter):
    """Images and labels in, their confusion matrix (classes, classes) out, counted on the device."""

    def call(self, inputs):
        images, labels = inputs
        classes = self.model.num_classes
        cells = ops.where(labels == IGNORE_LABEL, classes**2, labels * classes + super().call(images))
        cells = ops.reshape(cells, (-1,))
        counts = ops.segment_sum(
            ops.ones_like(cells), cells, num_segments=classes**2 + 1
        )  # bincount, jitted by JAX too
        return ops.reshape(counts[: classes**2], (classes, classes))


def padded_size(height, width, crop_size=513, stride=16):
    """What an image of this size is padded to → (height, width), pixels.

    Each side to `crop_size`, or where it is longer to the next multiple of the stride plus one, at which features and
    pixels have their corners aligned.
    """
    return tuple(crop_size if n <= crop_size else math.ceil((n - 1) / stride) * stride + 1 for n in (height, width))


def evaluate(model, dataset, *, crop_size=513, batch_size=1, workers=2, progress=None, counter=None):
    """→ int64 confusion matrix (classes, classes) of a segmentation model over a data set of (image, mask).

    Args:
        progress: called with the number of images after each batch.
        counter: a ConfusionCounter of the model, kept by who evaluates often, so that it is compiled once.
    """
    counter = counter or ConfusionCounter(model)
    preprocess = model.preprocessing
    total = np.zeros((model.num_classes, model.num_classes), np.int64)
    for size, indices in _by_size(dataset, crop_size).items():

        def pad(image, mask, size=size):
            return pad_to(image.astype(np.float32), mask, *size, preprocess.mean)

        batches = evaluation_batches(
            Subset(dataset, indices), pad, batch_size=batch_size, workers=workers, preprocess=preprocess
        )
        with original_errors():
            for images, labels in batches:
                # NumPy in between: what tf.data gives, JAX does not take.
                counted = counter.predict_on_batch((np.asarray(images), np.asarray(labels)))
                total += np.asarray(counted, np.int64)
                if progress:
                    progress(int(images.shape[0]))
    return total


def predict(model, image, crop_size=513, segmenter=None):
    """uint8 RGB image (H, W, 3) → uint8 label map (H, W), padded as in `evaluate` and cut back."""
    segmenter = segmenter or Segmenter(model)
    height, width = image.shape[:2]
    size = padded_size(height, width, crop_size)
    padded, _ = pad_to(image.astype(np.float32), None, *size, model.preprocessing.mean)
    fed = np.asarray(model.preprocessing(padded), np.float32)
    return segmenter.predict_on_batch(fed[None])[0, :height, :width].astype(np.uint8)


def prediction_sheet(model, dataset, class_names, count, crop_size=513, segmenter=None):
    """uint8 RGB: `count` images spread over the data set, with truth and prediction (`engine.pictures.sheet`)."""
    segmenter = segmenter or Segmenter(model)
    indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    chosen = [dataset[index] for index in indices]
    return sheet([(image, mask, predict(model, image, crop_size, segmenter)) for image, mask in chosen], class_names)


class Subset:
    """Some of a data set's samples, as a data set."""

    def __init__(self, dataset, indices):
        self.dataset, self.indices = dataset, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        return self.dataset[self.indices[index]]


def _by_size(dataset, crop_size):
    """{padded size: indices}: images of one padded size can be batched, and share one compiled graph."""
    groups = {}
    for index, path in enumerate(dataset.image_paths):
        groups.setdefault(padded_size(*image_size(path), crop_size), []).append(index)
    return groups


def classified_sheet(model, dataset, class_names, transform, count=12):
    """uint8 RGB: `count` images spread over the data set, each with the class said and, where wrong, the true one."""
    indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    samples = [transform(*dataset[index]) for index in indices]
    images = np.stack([image for image, _ in samples])
    fed = np.asarray(model.preprocessing(images.astype(np.float32)), np.float32)
    said = np.asarray(model.predict_on_batch(fed)).argmax(-1)
    captions = [
        (class_names[label] if label == guess else f"{class_names[guess]}, is {class_names[label]}", label == guess)
        for (_, label), guess in zip(samples, said, strict=True)
    ]
    return captioned(images, captions)


def evaluate_classifier(model, batches):
    """→ {"val_accuracy", "val_loss"} of a classifier over batches of (images, labels), as fractions and nats."""
    right, loss, count = 0, 0.0, 0
    with original_errors():
        for images, targets in batches:
            labels = np.asarray(targets)
            logits = np.asarray(model.predict_on_batch(np.asarray(images)), np.float64)
            log_sum = np.logaddexp.reduce(logits, axis=-1)
            loss += float((log_sum - np.take_along_axis(logits, labels[:, None], 1)[:, 0]).sum())
            right += int((logits.argmax(-1) == labels).sum())
            count += len(labels)
    return {"val_accuracy": right / count, "val_loss": loss / count}
