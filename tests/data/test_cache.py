"""What a data set decodes is kept: in memory, or in a folder that later runs read; no batch changes by it."""

import os

import numpy as np
import pytest

from data.cache import Cached, CachedOnDisk, cached
from data.image_folder import ImageFolder
from data.images import DataError
from data.sample import draw_image_folder, draw_voc
from data.voc import VOCSegmentation, write_mask
from files.writing import WriteError
from tests.data.test_pipeline import arrays, equal, train


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    draw_voc(root, train=11, val=5)
    return root


class Counting(VOCSegmentation):
    """Counts how often it is read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def test_cached_reads_once_and_passes_attributes_on(root):
    plain = Counting(root, "train")
    cached = Cached(plain)
    for _ in range(3):
        assert np.array_equal(cached[1][0], VOCSegmentation(root, "train")[1][0])
    assert plain.reads == 1
    assert len(cached) == 11 and cached.class_names == plain.class_names
    assert equal(arrays(train(cached)), arrays(train(VOCSegmentation(root, "train"))))
    with pytest.raises(ValueError, match="read-only"):
        cached[1][0][:] = 0
    with pytest.raises(AttributeError):
        _ = cached.nothing


@pytest.fixture
def on_disk(tmp_path):
    """A data set of its own and a function that opens it anew, cached in a folder that outlives the opening."""
    draw_voc(tmp_path / "voc", train=3, val=1)
    return lambda: CachedOnDisk(Counting(tmp_path / "voc", "train"), tmp_path / "cache" / "new")


def test_cache_on_disk_is_read_by_later_runs(on_disk):
    first, second = on_disk(), on_disk()
    fresh = [first[index] for index in range(3)]
    kept = [second[index] for index in range(3)]
    assert (first.reads, second.reads) == (3, 0)
    assert len(second) == 3 and second.class_names == first.class_names
    assert equal(fresh, kept) and equal(fresh, list(VOCSegmentation(first.root, "train")))


def test_cache_on_disk_changes_no_batch(root, tmp_path):
    plain = VOCSegmentation(root, "train")
    wanted = arrays(train(plain))
    for _ in range(2):  # written, and read
        assert equal(wanted, arrays(train(CachedOnDisk(plain, tmp_path))))


def test_changed_source_is_read_anew(on_disk):
    image, mask = on_disk()[1]
    _, mask_path = on_disk().files(1)
    write_mask(mask_path, np.zeros_like(mask))
    changed = on_disk()
    assert not changed[1][1].any() and changed.reads == 1
    os.utime(mask_path, (1, 1))  # a file of the same size from another day
    touched = on_disk()
    assert np.array_equal(touched[1][0], image) and touched.reads == 1


def test_other_classes_are_checked_anew(on_disk):
    dataset = on_disk()
    largest = max(int(mask[mask != 255].max()) for _, mask in dataset)
    names = "\n".join(f"class {label}" for label in range(largest)) + "\n"
    (dataset.root / "ImageSets" / "Segmentation" / "classes.txt").write_text(names)
    with pytest.raises(DataError, match=f"may hold 0 … {largest - 1}"):
        list(on_disk())


@pytest.mark.parametrize("kept", [0, 100, 20_000])
def test_damaged_cache_file_is_replaced(on_disk, kept):
    wanted = on_disk()[0]
    (file,) = on_disk()._folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:kept])
    damaged = on_disk()
    assert equal([damaged[0]], [wanted]) and damaged.reads == 1
    assert file.read_bytes() == whole


def test_a_flipped_bit_in_a_cache_file_is_no_other_sample(on_disk):
    wanted = on_disk()[0]
    (file,) = on_disk()._folder.iterdir()
    whole = file.read_bytes()
    for bit in np.random.default_rng(0).integers(0, 8 * len(whole), 30).tolist() + list(range(0, 128, 3)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        anew = on_disk()
        assert equal([anew[0]], [wanted]) and anew.reads == 1, bit


def test_damaged_pictures_are_not_cached_so_that_every_run_names_them(on_disk, capfd):
    dataset = VOCSegmentation(on_disk().root, "train", accept_damaged=True)
    image, _ = dataset.files(0)
    image.write_bytes(image.read_bytes()[:-200])
    cache = CachedOnDisk(dataset, image.parent / "cache")
    for _ in range(2):
        assert cache[0][0].any() and cache[1][0].any()
    assert len(list((image.parent / "cache").glob("*.sample"))) == 1
    assert capfd.readouterr().err.count(str(image)) == 1


def test_cache_on_disk_that_cannot_be_written_is_an_error(root, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(WriteError, match=r"file/cache.*: cannot be written"):
        CachedOnDisk(VOCSegmentation(root, "train"), tmp_path / "file" / "cache")[0]


def test_missing_source_says_what_it_says_uncached(on_disk):
    dataset = on_disk()
    dataset.files(2)[0].unlink()
    with pytest.raises(DataError, match=r"train_00002.jpg: cannot be read"):
        dataset[2]


def test_cache_on_disk_keeps_class_labels(tmp_path):
    draw_image_folder(tmp_path / "shapes", train=1, val=1)
    plain = ImageFolder(tmp_path / "shapes", "train")
    for _ in range(2):
        assert [label for _, label in CachedOnDisk(plain, tmp_path / "cache")] == [0, 1, 2, 3]


def test_cached_wraps_as_it_is_told(root, tmp_path):
    dataset = VOCSegmentation(root, "train")
    assert cached(dataset, "none") is dataset
    assert type(cached(dataset, "memory")) is Cached
    assert type(cached(dataset, str(tmp_path))) is CachedOnDisk
