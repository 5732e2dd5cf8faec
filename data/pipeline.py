"""tf.data: order, shards, batches, prefetch.

Every sample is a function of (seed, position): which sample the n-th is, and how it is augmented, depends on nothing
else. So a run that was stopped and resumed sees what an unbroken one sees, with any number of workers.
"""

import contextlib
import functools
import itertools
import math
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from data.cache import cached  # noqa: F401 - train_seg.py has it from here
from data.datasets import Dataset, Sample
from data.images import DataError

Transform = Callable[[np.ndarray, Any], Sample]
RandomTransform = Callable[[np.ndarray, Any, np.random.Generator], Sample]
Preprocess = Callable[[tf.Tensor], tf.Tensor]

# What a random stream is for; spawn keys keep the streams of one seed apart.
_ORDER, _AUGMENTATION = 0, 1
_PREFETCHED_BATCHES = 2
_ALIGNMENT = 64  # bytes; the most that Eigen, TensorFlow's array library, asks for


def sample_index(position: int, length: int, seed: int) -> int:
    """Says which of `length` samples stands at `position`: each epoch is a permutation of its own."""
    epoch, place = divmod(position, length)
    return int(_permutation(length, seed, epoch)[place])


def augmentation_rng(position: int, seed: int) -> np.random.Generator:
    """Returns the numpy.random.Generator that augments the sample at `position`."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_AUGMENTATION, position)))


@functools.lru_cache(maxsize=4)  # workers straddle the border between two epochs
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_ORDER, epoch))).permutation(length)


def training_batches(
    dataset: Dataset,
    transform: RandomTransform,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    stop_step: int,
    workers: int = 2,
    shard: tuple[int, int] = (0, 1),
    preprocess: Preprocess | None = None,
) -> tf.data.Dataset:
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

    def sample(count: int) -> Sample:
        step, place = divmod(count, local_size)
        position = (start_step + step) * batch_size + part * local_size + place
        image, target = dataset[sample_index(position, len(dataset), seed)]
        return transform(image, target, augmentation_rng(position, seed))

    return _batches(sample, (stop_step - start_step) * local_size, local_size, workers, preprocess)


def evaluation_batches(
    dataset: Dataset,
    transform: Transform,
    *,
    batch_size: int,
    workers: int = 2,
    preprocess: Preprocess | None = None,
) -> tf.data.Dataset:
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


def _check(dataset: Dataset, batch_size: int, workers: int) -> None:
    if len(dataset) < 1:
        raise DataError("The data set is empty.")
    if batch_size < 1:
        raise DataError(f"The batch size must be at least 1. Received: {batch_size}.")
    if workers < 1:
        raise DataError(f"There must be at least 1 data worker. Received: {workers}.")


def _batches(
    sample: Callable[[int], Sample], count: int, batch_size: int, workers: int, preprocess: Preprocess | None
) -> tf.data.Dataset:
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


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array that TensorFlow takes as it is: where memory starts off its alignment, it copies it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _options(workers: int) -> tf.data.Options:
    options = tf.data.Options()
    options.threading.private_threadpool_size = 2 * workers + 1  # the batches begun, and what is done behind them
    options.autotune.enabled = False
    # A Keras distribution would cut the batches up by file or by element; they are already each process's own.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options


# TensorFlow turns a worker's exception into an error of its own, of which only the text survives. So the worker keeps
# the exception and puts a ticket into that text, for which `original_errors` hands it out again.
_tickets = itertools.count(1)
_kept_errors: dict[int, Exception] = {}
_KEPT_ERRORS = 64
_TICKET = re.compile(r"original error #(\d+)#")


def _remembering(function: Callable) -> Callable:
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
def original_errors() -> Iterator[None]:
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
