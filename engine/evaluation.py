"""A model on a whole data set: whole images, padded and never resized, into one confusion matrix."""

import functools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from keras import ops

from data.images import image_size
from data.pipeline import evaluation_batches, original_errors
from data.transforms import pad_to
from data.voc import IGNORE_LABEL
from engine.inference import Segmenter, padded_size
from engine.pictures import captioned, sheet


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


def evaluate(model, dataset, *, crop_size=513, batch_size=1, workers=2, progress=None, counter=None):
    """→ int64 confusion matrix (classes, classes) of a segmentation model over a data set of (image, mask).

    Args:
        progress: called with the number of images after each batch.
        counter: a ConfusionCounter of the model, kept by who evaluates often, so that it is compiled once.
    """
    counter = counter or ConfusionCounter(model)
    preprocess = model.preprocessing
    total = np.zeros((model.num_classes, model.num_classes), np.int64)
    groups = _by_size(dataset, functools.partial(padded_size, crop_size=crop_size, stride=model.output_stride))
    for size, indices in groups.items():

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


def predicted(predictor, dataset, *, batch_size=1, workers=2):
    """Predicts a whole data set of (image, mask), in constant memory.

    Args:
        predictor: a ModelPredictor, or an export's (`engine.runtimes`).
        batch_size: images of one padded size that are predicted at once.
        workers: threads that read images ahead.

    Yields:
        (index, uint8 labels (H, W), uint8 mask (H, W)), images of one padded size after each other.
    """
    batches = [
        indices[start : start + batch_size]
        for indices in _by_size(dataset, predictor.padded_size).values()
        for start in range(0, len(indices), batch_size)
    ]
    with ThreadPoolExecutor(workers) as readers:
        ahead = deque()
        for batch in (*batches, *[None] * workers):
            if batch is not None:
                ahead.append((batch, [readers.submit(dataset.__getitem__, index) for index in batch]))
            if len(ahead) > workers or (batch is None and ahead):
                indices, samples = ahead.popleft()
                images, masks = zip(*(sample.result() for sample in samples), strict=True)
                yield from zip(indices, predictor.labels_of(images), masks, strict=True)


def prediction_sheet(predictor, dataset, class_names, count):
    """uint8 RGB: `count` images spread over the data set, with truth and prediction (`engine.pictures.sheet`)."""
    indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    chosen = [dataset[index] for index in indices]
    return sheet([(image, mask, predictor.labels(image)) for image, mask in chosen], class_names)


class Subset:
    """Some of a data set's samples, as a data set."""

    def __init__(self, dataset, indices):
        self.dataset, self.indices = dataset, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        return self.dataset[self.indices[index]]


def _by_size(dataset, padded_size):
    """{padded size: indices}: images of one padded size can be batched, and share one compiled graph."""
    groups = {}
    for index, path in enumerate(dataset.image_paths):
        groups.setdefault(padded_size(*image_size(path)), []).append(index)
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
