import keras
import numpy as np
import pytest
import tensorflow as tf

from data.cache import Cached
from data.image_folder import ImageFolder
from data.images import DataError
from data.pipeline import (
    augmentation_rng,
    evaluation_batches,
    original_errors,
    sample_index,
    training_batches,
)
from data.sample import draw_image_folder, draw_voc
from data.transforms import pad_to, random_resized_crop_flip, random_scale_crop_flip
from data.voc import VOCSegmentation
from tests.data.test_image_folder import SHARED, needs_shared

MEAN = (123.68, 116.78, 103.94)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    draw_voc(root, train=11, val=5)
    return root


@pytest.fixture(scope="module")
def dataset(root):
    return Cached(VOCSegmentation(root, "train"))


class Numbers:
    """Samples that are their own numbers."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return np.full((2, 3, 3), index, np.uint8), index


class Broken(Numbers):
    """One of whose samples raises."""

    def __init__(self, length, at, error):
        super().__init__(length)
        self.at, self.error = at, error

    def __getitem__(self, index):
        if index == self.at:
            raise self.error
        return super().__getitem__(index)


def crop(image, mask, rng):
    return random_scale_crop_flip(image, mask, rng, 33, MEAN)


def same(image, target, rng=None):
    return image, target


def train(dataset, transform=crop, **options):
    arguments = {"batch_size": 4, "seed": 0, "start_step": 0, "stop_step": 5} | options
    return training_batches(dataset, transform, **arguments)


def arrays(batches):
    return [tuple(part.numpy() for part in batch) for batch in batches]


def equal(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b) and a.dtype == b.dtype
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


# Order


def test_each_epoch_is_a_permutation_of_its_own():
    epochs = [[sample_index(epoch * 50 + place, 50, seed=3) for place in range(50)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert epochs[0] != [sample_index(place, 50, seed=4) for place in range(50)]
    assert epochs[2][7] == sample_index(107, 50, seed=3)


def test_random_streams_are_all_distinct():
    # [seed, 1] and [seed, 1, 0] would seed the same generator: NumPy fills its entropy up with zeros.
    orders = [np.random.SeedSequence(5, spawn_key=(0, epoch)) for epoch in range(4)]
    states = {tuple(order.generate_state(4)) for order in orders}
    draws = {augmentation_rng(position, seed).random() for position in range(50) for seed in (0, 1, 5)}
    assert len(draws) == 150
    assert len(states | {tuple(augmentation_rng(p, 5).bit_generator.seed_seq.generate_state(4)) for p in range(4)}) == 8
    assert augmentation_rng(7, 5).random() == augmentation_rng(7, 5).random()


def test_batches_follow_the_order_across_epochs():
    batches = arrays(train(Numbers(6), same, batch_size=4, stop_step=6, seed=2))
    seen = np.concatenate([labels for _, labels in batches])
    assert seen.tolist() == [sample_index(position, 6, seed=2) for position in range(24)]
    assert all(np.all(images[:, 0, 0, 0] == labels) for images, labels in batches)


def test_transform_gets_the_generator_of_its_position():
    def draw(image, target, rng):
        return image, rng.integers(2**30)

    seen = np.concatenate([labels for _, labels in arrays(train(Numbers(6), draw, start_step=2, seed=9))])
    assert seen.tolist() == [augmentation_rng(position, 9).integers(2**30) for position in range(8, 20)]


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_change_no_byte(dataset, workers):
    assert equal(arrays(train(dataset, workers=1)), arrays(train(dataset, workers=workers)))


def test_restart_equals_skipping(dataset):
    assert equal(arrays(train(dataset))[3:], arrays(train(dataset, start_step=3)))
    assert not equal(arrays(train(dataset)), arrays(train(dataset, seed=1)))


def test_iterating_twice_gives_the_same(dataset):
    batches = train(dataset)
    assert equal(arrays(batches), arrays(batches))


def test_shards_join_to_the_whole_batch(dataset):
    whole = arrays(train(dataset, batch_size=6))
    shards = [arrays(train(dataset, batch_size=6, shard=(part, 3))) for part in range(3)]
    joined = [tuple(np.concatenate(parts) for parts in zip(*steps, strict=True)) for steps in zip(*shards, strict=True)]
    assert equal(whole, joined)


# Batches


def test_training_batches_have_known_size_and_shape(dataset):
    batches = train(dataset, start_step=2, stop_step=9, batch_size=6, shard=(1, 2))
    assert batches.cardinality() == 7
    images, labels = batches.element_spec
    assert (images.shape, images.dtype) == ((3, 33, 33, 3), tf.uint8)
    assert (labels.shape, labels.dtype) == ((3, 33, 33), tf.int32)
    assert len(arrays(batches)) == 7
    nothing = train(dataset, start_step=2, stop_step=2)
    assert nothing.cardinality() == 0 and arrays(nothing) == []


def test_preprocess_gets_the_batch_as_floats(dataset):
    def preprocess(images):
        assert images.dtype == tf.float32 and images.shape == (4, 33, 33, 3)
        return images / 127.5 - 1

    plain, scaled = arrays(train(dataset)), arrays(train(dataset, preprocess=preprocess))
    for (images, labels), (floats, same_labels) in zip(plain, scaled, strict=True):
        assert floats.dtype == np.float32
        np.testing.assert_allclose(floats, images / 127.5 - 1, atol=1e-6)
        assert np.array_equal(labels, same_labels)


def test_classification_labels_are_a_vector(tmp_path):
    draw_image_folder(tmp_path, train=2, val=1)
    batches = train(ImageFolder(tmp_path, "train"), lambda i, t, r: (random_resized_crop_flip(i, r, 24), t))
    images, labels = batches.element_spec
    assert (images.shape, labels.shape, labels.dtype) == ((4, 24, 24, 3), (4,), tf.int32)
    assert set(np.concatenate([labels for _, labels in arrays(batches)])) == {0, 1, 2, 3}


@pytest.mark.parametrize(("batch_size", "sizes"), [(2, [2, 2, 1]), (5, [5]), (8, [5])])
def test_evaluation_goes_through_once_in_order(root, batch_size, sizes):
    val = VOCSegmentation(root, "val")
    batches = evaluation_batches(val, lambda i, m: pad_to(i, m, 129, 130, MEAN), batch_size=batch_size)
    assert batches.cardinality() == len(sizes)
    assert batches.element_spec[0].shape[1:] == (129, 130, 3)
    found = arrays(batches)
    assert [len(labels) for _, labels in found] == sizes
    masks = np.concatenate([labels for _, labels in found])
    for index, mask in enumerate(masks):
        original = val[index][1]
        assert np.array_equal(mask[: original.shape[0], : original.shape[1]], original)
        assert np.all(mask[original.shape[0] :] == 255)


def test_evaluation_keeps_float_images(root):
    batches = evaluation_batches(
        VOCSegmentation(root, "val"), lambda i, m: pad_to(i.astype(np.float32), m, 128, 128, MEAN), batch_size=2
    )
    images = next(iter(batches))[0].numpy()
    assert images.dtype == np.float32 and images[0, -1, -1].tolist() == np.array(MEAN, np.float32).tolist()


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size must be at least 1. Received: 0"),
        ({"workers": 0}, "at least 1 data worker"),
        ({"shard": (0, 3)}, "batch of 4 cannot be shared out as part 0 of 3"),
        ({"shard": (2, 2)}, "part 2 of 2"),
        ({"shard": (-1, 2)}, "part -1 of 2"),
        ({"start_step": 6}, "start 6, stop 5"),
        ({"start_step": -1}, "start -1"),
        ({"seed": -1}, "seed must be 0 or more. Received: -1"),
    ],
)
def test_impossible_arguments_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        train(Numbers(6), same, **options)


def test_empty_dataset_is_refused():
    with pytest.raises(DataError, match="data set is empty"):
        train(Numbers(0), same)
    with pytest.raises(DataError, match="data set is empty"):
        evaluation_batches(Numbers(0), same, batch_size=1)
    with pytest.raises(DataError, match="batch size"):
        evaluation_batches(Numbers(1), same, batch_size=0)


@pytest.fixture
def spoiled(tmp_path):
    """A data set whose last training image is cut short, and the samples' order under seed 0 does not start with it."""
    draw_voc(tmp_path, train=6, val=1)
    last = sample_index(5, 6, seed=0)
    path = tmp_path / "JPEGImages" / f"train_{last:05d}.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    return VOCSegmentation(tmp_path, "train"), path


def small_model():
    return keras.Sequential([keras.Input((33, 33, 3)), keras.layers.Conv2D(5, 1)])


def test_broken_file_comes_out_as_itself_when_iterating(spoiled):
    dataset, path = spoiled
    batches = train(dataset, batch_size=2)
    seen = 0
    with pytest.raises(DataError) as caught, original_errors():
        for _ in batches:
            seen += 1
    assert str(caught.value).startswith(f"{path}: this JPEG is cut short")
    assert "Traceback" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert seen == 2  # what came before it was delivered


def test_broken_file_comes_out_as_itself_from_fit(spoiled):
    dataset, path = spoiled
    model = small_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    model.compile("sgd", loss, jit_compile=False)
    batches = train(dataset, batch_size=2, preprocess=lambda images: images / 127.5 - 1)
    with pytest.raises(DataError, match="this JPEG is cut short") as caught, original_errors():
        model.fit(batches, shuffle=False, verbose=0)  # Keras warns of shuffling a tf.data pipeline
    assert str(path) in str(caught.value)


def test_first_sample_fails_at_once():
    order = [sample_index(position, 6, seed=0) for position in range(6)]
    with pytest.raises(DataError, match="broken"):
        train(Broken(6, order[0], DataError("broken")), same)


def test_each_pipeline_raises_its_own_error():
    last = sample_index(5, 6, seed=0)
    pipelines = [train(Broken(6, last, DataError(f"broken {name}")), same, batch_size=2) for name in "ab"]
    iterators = [iter(batches) for batches in pipelines]
    for _ in range(2):
        for iterator in iterators:
            next(iterator)
    for name, iterator in zip("ba", reversed(iterators), strict=True):
        with pytest.raises(DataError, match=f"^broken {name}$"), original_errors():
            next(iterator)


def test_a_programming_error_comes_out_as_itself_too():
    last = sample_index(5, 6, seed=0)
    with pytest.raises(ZeroDivisionError, match="of mine"), original_errors():
        arrays(train(Broken(6, last, ZeroDivisionError("of mine")), same))


def test_other_errors_pass_and_success_is_silent():
    with original_errors():
        arrays(train(Numbers(6), same))
    with pytest.raises(KeyError, match="of the caller"), original_errors():
        raise KeyError("of the caller")
    with pytest.raises(tf.errors.InvalidArgumentError), original_errors():
        tf.reshape(tf.zeros(3), (2, 2))


@pytest.mark.parametrize("change", [lambda i: i[:, :2], lambda i: i.astype(np.float32)])
def test_samples_that_differ_are_refused(change):
    def transform(image, target):
        return (change(image), target) if target == 3 else (image, target)

    batches = evaluation_batches(Numbers(5), transform, batch_size=2)
    with pytest.raises(DataError, match=r"must be alike: the first is uint8.*sample 3"), original_errors():
        arrays(batches)


# Real data


@needs_shared
def test_real_voc_makes_batches():
    voc = VOCSegmentation(SHARED / "VOC2012", "trainaug")
    batches = train(voc, lambda i, m, r: random_scale_crop_flip(i, m, r, 257, MEAN), batch_size=4, stop_step=3)
    with original_errors():
        found = arrays(batches)
    assert [images.shape for images, _ in found] == [(4, 257, 257, 3)] * 3
    assert set(np.unique(np.concatenate([labels.ravel() for _, labels in found]))) <= {*range(21), 255}
