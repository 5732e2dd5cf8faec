"""A model on a whole data set: whole images, padded and never resized; what is counted, kept and written of them."""

import functools
import heapq
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

from data.datasets import Dataset, ImageDataset, NamedDataset, Sample
from data.pipeline import Transform, evaluation_batches, original_errors
from data.transforms import pad_to
from data.voc import IGNORE_LABEL, mask_png
from engine import stopping
from engine.pictures import captioned, sheet, spread_over
from files.output import marked
from files.writing import write_whole
from inference.metrics import confusion_matrix, scores
from inference.predictor import Part, Segmenter, Tensor, padded_size
from inference.protocols import Consumer, Predictor, Share
from models.deeplab_v3 import DeepLabV3
from models.layers import Network


class ConfusionCounter(Segmenter):
    """Images and labels in, their confusion matrix (classes, classes) out, counted on the device."""

    def call(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Images (N, H, W, 3), preprocessed and padded, and integer labels (N, H, W) → integer (classes, classes)."""
        images, labels = inputs
        classes = self.model.num_classes
        cells = ops.where(labels == IGNORE_LABEL, classes**2, labels * classes + super().call(images))
        cells = ops.reshape(cells, (-1,))
        counts = ops.segment_sum(
            ops.ones_like(cells), cells, num_segments=classes**2 + 1
        )  # bincount, jitted by JAX too
        return ops.reshape(counts[: classes**2], (classes, classes))


def evaluate(
    model: DeepLabV3,
    dataset: ImageDataset,
    *,
    crop_size: int | None = 513,
    batch_size: int = 1,
    workers: int = 2,
    progress: Callable[[int], None] | None = None,
    counter: ConfusionCounter | None = None,
) -> np.ndarray:
    """→ int64 confusion matrix (classes, classes) of a segmentation model over a data set of (image, mask).

    Args:
        crop_size: as of `inference.predictor.ModelPredictor`.
        progress: called with the number of images after each batch.
        counter: a ConfusionCounter of the model, kept by who evaluates often, so that it is compiled once.
    """
    counter = counter or ConfusionCounter(model)
    preprocess = model.preprocessing
    total = np.zeros((model.num_classes, model.num_classes), np.int64)
    groups = _by_size(dataset, functools.partial(padded_size, crop_size=crop_size, stride=model.output_stride))
    for size, indices in groups.items():

        def pad(image: np.ndarray, mask: np.ndarray, size: tuple[int, int] = size) -> Sample:
            return pad_to(image.astype(np.float32), mask, *size, preprocess.mean)

        batches = evaluation_batches(
            Subset(dataset, indices), pad, batch_size=batch_size, workers=workers, preprocess=preprocess
        )
        with original_errors():
            for images, labels in batches:
                stopping.check()
                # NumPy in between: what tf.data gives, JAX does not take.
                counted = counter.predict_on_batch((np.asarray(images), np.asarray(labels)))
                total += np.asarray(counted, np.int64)
                if progress:
                    progress(int(images.shape[0]))
    return total


class Validator:
    """Scores a segmentation model while it is trained; each process of the run takes its share of the data set.

    Attributes:
        matrix: the confusion matrix of the last call.
    """

    def __init__(
        self, model: DeepLabV3, dataset: ImageDataset, crop_size: int, workers: int, distribution: Share
    ) -> None:
        self.model, self.distribution = model, distribution
        self.dataset = Subset(dataset, range(len(dataset))[distribution.process :: distribution.processes])
        self.options: dict[str, Any] = {"crop_size": crop_size, "workers": workers, "counter": ConfusionCounter(model)}

    def __call__(self) -> dict[str, float]:
        """→ `inference.metrics.scores` of the whole data set."""
        self.matrix = self.distribution.total(evaluate(self.model, self.dataset, **self.options))
        return scores(self.matrix)


def predicted(
    predictor: Predictor, dataset: ImageDataset, *, batch_size: int = 1, workers: int = 2
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Predicts a whole data set of (image, mask), in constant memory.

    Args:
        predictor: a ModelPredictor, or an export's (`inference.runtimes`).
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
    for indices, samples in read_ahead(dataset, batches, workers):
        images, masks = zip(*samples, strict=True)
        yield from zip(indices, predictor.labels_of(list(images)), masks, strict=True)


def read_ahead(
    dataset: Dataset, batches: Sequence[Sequence[int]], workers: int
) -> Iterator[tuple[Sequence[int], list[Sample]]]:
    """Yields (indices, samples) of one batch after the other, in constant memory; threads read ahead."""
    with ThreadPoolExecutor(workers) as readers:
        ahead: deque[tuple[Sequence[int], list[Future[Sample]]]] = deque()
        for batch in (*batches, *[None] * workers):
            if batch is not None:
                ahead.append((batch, [readers.submit(dataset.__getitem__, index) for index in batch]))
            if len(ahead) > workers or (batch is None and ahead):
                indices, samples = ahead.popleft()
                yield indices, [sample.result() for sample in samples]


def feed(
    consumers: Iterable[Consumer],
    predictor: Predictor,
    dataset: ImageDataset,
    *,
    batch_size: int = 1,
    workers: int = 2,
) -> None:
    """Predicts a whole data set, `predicted`, for several consumers at once, and shows how far it is.

    Consumers are ConfusionTotal, WorstImages, PredictionWriter, and `inference.boundary.TrimapCounter`,
    `inference.submission.Submission`.
    """
    with ImageProgress(len(dataset)) as progress:
        for index, labels, mask in predicted(predictor, dataset, batch_size=batch_size, workers=workers):
            stopping.check()
            for consumer in consumers:
                consumer.add(index, labels, mask)
            progress.advance()


class ConfusionTotal:
    """The confusion matrix of all images: `matrix`, int64 (classes, classes)."""

    def __init__(self, num_classes: int) -> None:
        self.matrix = np.zeros((num_classes, num_classes), np.int64)

    def add(self, index: int, labels: np.ndarray, mask: np.ndarray) -> None:
        """Counts the labels of an image, uint8 (H, W), against its mask, uint8 (H, W)."""
        self.matrix += confusion_matrix(mask, labels, len(self.matrix))


class WorstImages:
    """Keeps the `count` images whose own mIoU, over the classes in truth or prediction, is lowest."""

    def __init__(self, num_classes: int, count: int) -> None:
        self.num_classes, self.count = num_classes, count
        self._heap: list[tuple[float, int, np.ndarray]] = []

    def add(self, index: int, labels: np.ndarray, mask: np.ndarray) -> None:
        """Considers an image; one of which every pixel is ignored has no score and is left out."""
        miou = scores(confusion_matrix(mask, labels, self.num_classes))["miou"]
        if not np.isnan(miou):
            heapq.heappush(self._heap, (-miou, -index, labels))
            if len(self._heap) > self.count:
                heapq.heappop(self._heap)

    @property
    def found(self) -> list[tuple[float, int, np.ndarray]]:
        """[(mIoU, index, uint8 labels (H, W))], the worst first."""
        return [(-miou, -index, labels) for miou, index, labels in sorted(self._heap, key=lambda e: e[:2])[::-1]]


class PredictionWriter:
    """Writes each image's labels as a palette PNG, `folder/<name>.png`."""

    def __init__(self, folder: str | Path, names: Sequence[str]) -> None:
        self.folder, self.names = Path(folder), names

    def add(self, index: int, labels: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Writes the labels of the image `index`, uint8 (H, W)."""
        write_whole(self.folder / f"{self.names[index]}.png", marked(mask_png(labels)))


class ImageProgress:
    """How many of `total` images are done, images/s and the time left: a bar on a terminal, else a line now and then.

    A context manager; at its end the sum is said.
    """

    SECONDS: float = 15  # between two lines of a log

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def __enter__(self) -> "ImageProgress":
        self._began = self._said = time.perf_counter()
        layout = "{n_fmt}/{total_fmt} images |{bar}| {rate_noinv_fmt}, {remaining} left"
        self._bar = tqdm(total=self.total, unit=" images", dynamic_ncols=True, bar_format=layout, disable=None)
        return self

    def advance(self) -> None:
        """Says that one more image is done."""
        self.done += 1
        self._bar.update()
        now = time.perf_counter()
        if self._bar.disable and now - self._said > self.SECONDS:
            self._said = now
            rate = self.done / (now - self._began)
            left = tqdm.format_interval((self.total - self.done) / rate)
            print(f"{self.done}/{self.total} images, {rate:.2f} images/s, {left} left", file=sys.stderr, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        self._bar.close()
        if kind is None:
            seconds = time.perf_counter() - self._began
            took = tqdm.format_interval(seconds)
            print(f"{self.done} images in {took}, {self.done / seconds:.2f} images/s", file=sys.stderr)


def prediction_sheet(predictor: Predictor, dataset: Dataset, class_names: Sequence[str], count: int) -> np.ndarray:
    """uint8 RGB: `count` images spread over the data set, with truth and prediction (`engine.pictures.sheet`)."""
    chosen = [dataset[index] for index in spread_over(len(dataset), count)]
    return sheet([(image, mask, predictor.labels(image)) for image, mask in chosen], class_names)


def worst_sheet(worst: WorstImages, dataset: NamedDataset, class_names: Sequence[str]) -> np.ndarray:
    """uint8 RGB: the images of a WorstImages, the worst first, each with its name, mIoU, truth and prediction."""
    samples, captions = [], []
    for miou, index, labels in worst.found:
        image, mask = dataset[index]
        samples.append((image, mask, labels))
        captions.append(f"{dataset.names[index]}: mIoU {100 * miou:.1f} %")
    return sheet(samples, class_names, captions=captions)


class Subset:
    """Some of a data set's samples, as a data set."""

    def __init__(self, dataset: ImageDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) in pixels of the image of the sample `index`."""
        return self.dataset.image_size(self.indices[index])


def _by_size(
    dataset: ImageDataset, padded_size: Callable[[int, int], tuple[int, int]]
) -> dict[tuple[int, int], list[int]]:
    """{padded size: indices}: images of one padded size can be batched, and share one compiled graph."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index in range(len(dataset)):
        groups.setdefault(padded_size(*dataset.image_size(index)), []).append(index)
    return groups


def classes_of(model: Network) -> Part:
    """A classifier in inference, images (N, H, W, 3) → logits (N, classes); to be kept, as it is compiled once."""
    return Part(model, functools.partial(model, training=False))


def classified_sheet(
    classes: Part, dataset: Dataset, class_names: Sequence[str], transform: Transform, count: int = 12
) -> np.ndarray:
    """uint8 RGB: `count` images spread over the data set, each with the class said and, where wrong, the true one.

    Args:
        classes: `classes_of` the classifier.
        transform: an image and its label → what the network is to see, uint8 RGB of one size, and the label.
    """
    samples = [transform(*dataset[index]) for index in spread_over(len(dataset), count)]
    images = np.stack([image for image, _ in samples])
    fed = np.asarray(classes.model.preprocessing(images.astype(np.float32)), np.float32)
    said = np.asarray(classes.predict_on_batch(fed)).argmax(-1)
    captions = [
        (class_names[label] if label == guess else f"{class_names[guess]}, is {class_names[label]}", label == guess)
        for (_, label), guess in zip(samples, said, strict=True)
    ]
    return captioned(images, captions)


class ClassifierValidator:
    """Scores a classifier while it is trained, on batches of (images, labels) that every process of the run reads."""

    def __init__(self, model: Network, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        self.batches = batches
        self.network = classes_of(model)

    def __call__(self) -> dict[str, float]:
        """→ {"val_accuracy", "val_loss"}, as fraction and nats."""
        return evaluate_classifier(self.network, self.batches)


def evaluate_classifier(model: keras.Model, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """→ {"val_accuracy", "val_loss"} of a classifier over batches of (images, labels), as fractions and nats."""
    right, loss, count = 0, 0.0, 0
    with original_errors():
        for images, targets in batches:
            stopping.check()
            labels = np.asarray(targets)
            logits = np.asarray(model.predict_on_batch(np.asarray(images)), np.float64)
            log_sum = np.logaddexp.reduce(logits, axis=-1)
            loss += float((log_sum - np.take_along_axis(logits, labels[:, None], 1)[:, 0]).sum())
            right += int((logits.argmax(-1) == labels).sum())
            count += len(labels)
    return {"val_accuracy": right / count, "val_loss": loss / count}
