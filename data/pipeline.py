"""tf.data: order, shards, batches, prefetch.

Every sample is a function of (seed, position): which sample the n-th is, and how it is augmented, depends on nothing
else. So a run that was stopped and resumed sees what an unbroken one sees, with any number of workers.
"""

import contextlib
import functools
import hashlib
import io
import itertools
import math
import os
import re
import threading
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from data.images import DataError, write_whole

# What a random stream is for; spawn keys keep the streams of one seed apart.
_ORDER, _AUGMENTATION = 0, 1
_PREFETCHED_BATCHES = 2
_ALIGNMENT = 64  # bytes; the most that Eigen, TensorFlow's array library, asks for


def sample_index(position, length, seed):
    """Says which of `length` samples stands at `position`: each epoch is a permutation of its own."""
    epoch, place = divmod(position, length)
    return int(_permutation(length, seed, epoch)[place])


def augmentation_rng(position, seed):
    """Returns the numpy.random.Generator that augments the sample at `position`."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_AUGMENTATION, position)))


@functools.lru_cache(maxsize=4)  # workers straddle the border between two epochs
def _permutation(length, seed, epoch):
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_ORDER, epoch))).permutation(length)


def cached(dataset, where):
    """Wraps `dataset` so that what it decodes is kept: `where` is "none", "memory" or a folder.

    A decoded sample takes 4 bytes a pixel, 0.75 MB at VOC's sizes: 7.9 GB for trainaug's 10,582.
    """
    if where == "none":
        return dataset
    return Cached(dataset) if where == "memory" else CachedOnDisk(dataset, where)


class Cached:
    """Keeps in memory what `dataset[i]` read once, where that fits. Its arrays are read-only, as they are shared."""

    def __init__(self, dataset):
        self._dataset, self._kept = dataset, {}

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, index):
        if index not in self._kept:
            sample = self._dataset[index]
            for part in sample:
                if isinstance(part, np.ndarray):
                    part.flags.writeable = False
            self._kept[index] = sample
        return self._kept[index]

    def __getattr__(self, name):
        if name.startswith("_"):  # else copying or unpickling, which ask before __init__ has run, would never end
            raise AttributeError(name)
        return getattr(self._dataset, name)


class CachedOnDisk(Cached):
    """Keeps in a folder what `dataset[i]` read once, one file a sample, which later runs and other processes read too.

    A file's name stands for the sample's source files with their sizes and times of change, the number of classes and
    the decoder: where any of these changes, the sample is read anew. What is then out of use stays in the folder.

    Args:
        dataset: whose `files(i)` are the paths that its `dataset[i]` reads.
        folder: is made where there is none.

    Raises:
        DataError: `dataset[i]` where the folder cannot be written to, or whatever reading the source raises.
    """

    def __init__(self, dataset, folder):
        super().__init__(dataset)
        self._folder = Path(folder)

    def __getitem__(self, index):
        path = self._folder / f"{self._key(index)}.npy"
        try:
            return _read_arrays(path)
        except (OSError, ValueError):  # there is none yet, or it is damaged
            sample = self._dataset[index]
        try:
            write_whole(path, _arrays_as_bytes(sample))
        except OSError as error:
            raise DataError(f"{path}: cannot cache a sample there: {error.strerror}. Choose another folder.") from error
        return sample

    def _key(self, index):
        sources = [(os.path.abspath(path), *_size_and_time(path)) for path in self._dataset.files(index)]
        return hashlib.sha256(repr((sources, self._dataset.num_classes, cv2.__version__)).encode()).hexdigest()[:32]


def _size_and_time(path):
    try:
        found = os.stat(path)
    except OSError:
        return None, None  # reading it will say what is wrong
    return found.st_size, found.st_mtime_ns


def _arrays_as_bytes(sample):
    content = io.BytesIO()
    for part in sample:
        np.save(content, part)
    return content.getvalue()


def _read_arrays(path):
    """(image, target), as they were written one after the other; not mapped: a whole read takes less than page faults.

    Raises OSError or ValueError for no file and for half a file.
    """
    with open(path, "rb") as file:
        try:
            return np.load(file), np.load(file)[()]  # [()] makes a number of a number's array
        except EOFError as error:
            raise ValueError(f"{path}: ends early") from error


def training_batches(
    dataset, transform, *, batch_size, seed, start_step, stop_step, workers=2, shard=(0, 1), preprocess=None
):
    """The shuffled, augmented batches of steps start_step … stop_step - 1, without end of epoch.

    Args:
        dataset: `len(dataset)` and `dataset[i] -> (image, target)`, arrays or a number.
        transform: `(image, target, rng) -> (image, target)`, all of one shape and dtype; a function of its arguments.
        batch_size: samples a step, over all processes.
        seed: a whole number, 0 or more.
        start_step, stop_step: the first step, and the one not reached any more.
        workers: how many batches are made at once; it changes no byte.
        shard: (process, processes): this process gets its contiguous part of every batch.
        preprocess: takes the images as a float32 tensor (n, H, W, 3) to the model's; None leaves them as they are.

    Returns:
        a tf.data.Dataset of known cardinality and static shapes: images (n, H, W, 3) and int32 targets (n, …), where n
        is `batch_size` over the number of processes. Iterate it within `original_errors()`.

    Raises:
        DataError: an empty data set, a batch size, shard, step range or worker count that cannot be; and whatever
            reading the first sample raises.
    """
    part, parts = shard
    _check(dataset, batch_size, workers)
    if not 0 <= part < parts or batch_size % parts:
        raise DataError(
            f"A batch of {batch_size} cannot be shared out as part {part} of {parts}: parts count from 0, "
            "and the batch size must be a multiple of their number."
        )
    if not 0 <= start_step <= stop_step:
        raise DataError(f"Steps must be 0 <= start <= stop. Received: start {start_step}, stop {stop_step}.")
    if seed < 0:
        raise DataError(f"The seed must be 0 or more. Received: {seed}.")
    local_size = batch_size // parts

    def sample(count):
        step, place = divmod(count, local_size)
        position = (start_step + step) * batch_size + part * local_size + place
        image, target = dataset[sample_index(position, len(dataset), seed)]
        return transform(image, target, augmentation_rng(position, seed))

    return _batches(sample, (stop_step - start_step) * local_size, local_size, workers, preprocess)


def evaluation_batches(dataset, transform, *, batch_size, workers=2, preprocess=None):
    """The whole data set in its own order, once; the last batch is smaller where the batch size does not divide it.

    Args:
        dataset, batch_size, workers, preprocess: as for `training_batches`.
        transform: `(image, target) -> (image, target)`, all of one shape and dtype: pad where sizes differ.

    Returns:
        a tf.data.Dataset as of `training_batches`.

    Raises:
        DataError: as `training_batches`.
    """
    _check(dataset, batch_size, workers)
    return _batches(lambda index: transform(*dataset[index]), len(dataset), batch_size, workers, preprocess)


def _check(dataset, batch_size, workers):
    if len(dataset) < 1:
        raise DataError("The data set is empty.")
    if batch_size < 1:
        raise DataError(f"The batch size must be at least 1. Received: {batch_size}.")
    if workers < 1:
        raise DataError(f"There must be at least 1 data worker. Received: {workers}.")


def _batches(sample, count, batch_size, workers, preprocess):
    """Batches sample(0) … sample(count - 1). The first is made here and now, for its shapes and its errors.

    A worker makes a whole batch and writes every sample where it belongs: the images are copied once, not once into a
    tensor of their own and once more into the batch.
    """
    first_image, first_target = map(np.asarray, sample(0))
    # A batch that is done early must wait for the one before it. Its worker need not: twice as many batches are begun
    # as there are workers, of which only so many are worked on.
    working = threading.BoundedSemaphore(workers)

    def checked(number):
        image, target = map(np.asarray, sample(number))
        for part, first in (image, first_image), (target, first_target):
            if part.shape != first.shape or part.dtype != first.dtype:
                raise DataError(
                    f"The samples of a batch must be alike: the first is {first.dtype} {first.shape}, sample "
                    f"{number} {part.dtype} {part.shape}."
                )
        return image, target

    def load(step):
        numbers = range(count)[step * batch_size : (step + 1) * batch_size]
        images = _aligned((len(numbers), *first_image.shape), first_image.dtype)
        targets = _aligned((len(numbers), *first_target.shape), first_target.dtype)
        with working:
            for place, number in enumerate(numbers):
                images[place], targets[place] = checked(number)
        return images, targets

    def batch(step):
        # Stateless, as a batch is a function of its number: where operations are made deterministic, TensorFlow would
        # run stateful ones one after the other.
        images, targets = tf.numpy_function(_remembering(load), [step], [first_image.dtype, first_target.dtype], False)
        size = None if count % batch_size else batch_size
        images.set_shape((size, *first_image.shape))
        targets.set_shape((size, *first_target.shape))
        return images, targets

    def widened(images, targets):
        # Only now, outside of Python: until all of a batch is there, images and masks stay small, as uint8.
        if preprocess is not None:
            images = preprocess(tf.cast(images, tf.float32))
        return images, tf.cast(targets, tf.int32)

    steps = tf.data.Dataset.range(-(-count // batch_size))
    batches = steps.map(batch, num_parallel_calls=2 * workers, deterministic=True)
    batches = batches.map(widened)
    return batches.prefetch(_PREFETCHED_BATCHES).with_options(_options(workers))


def _aligned(shape, dtype):
    """An empty array that TensorFlow takes as it is: where memory starts off its alignment, it copies it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _options(workers):
    options = tf.data.Options()
    options.threading.private_threadpool_size = 2 * workers + 1  # the batches begun, and what is done behind them
    options.autotune.enabled = False
    # A Keras distribution would cut the batches up by file or by element; they are already each process's own.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options


# TensorFlow turns a worker's exception into an error of its own, of which only the text survives. So the worker keeps
# the exception and puts a ticket into that text, for which `original_errors` hands it out again.
_tickets = itertools.count(1)
_kept_errors = {}
_KEPT_ERRORS = 64
_TICKET = re.compile(r"original error #(\d+)#")


def _remembering(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        try:
            return function(*arguments)
        except Exception as error:
            ticket = next(_tickets)
            _kept_errors[ticket] = error
            _kept_errors.pop(ticket - _KEPT_ERRORS, None)  # those of batches that nobody asked for
            raise RuntimeError(f"{type(error).__name__}: {error} (original error #{ticket}#)") from error

    return wrapper


@contextlib.contextmanager
def original_errors():
    """Within it, what went wrong in a worker is raised as itself, such as the DataError of a broken file.

    Put it round whatever iterates the batches: `with original_errors(): model.fit(batches)`. Every other error passes.
    """
    try:
        yield
    except Exception as error:
        ticket = _TICKET.search(str(error))
        original = _kept_errors.pop(int(ticket[1]), None) if ticket else None
        if original is None:
            raise
        raise original from None
