"""What a run's data were, written down and compared."""

import pytest

from engine.run_data import RunData


class Files:
    """A data set of files: picture and mask."""

    reading = ()

    def __init__(self, root, names):
        self.root, self.names = root, names

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        raise AssertionError("nothing is read")

    def files(self, index):
        return [self.root / self.names[index], None]


def data_of(root, **sets):
    return RunData.of({name: Files(root, names) for name, names in sets.items()}, root)


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(("a", "b", "c", 'so, "called"', "ü\udcff")):
        (tmp_path / name).write_bytes(b"x" * (1000 + number))
    return tmp_path


def test_what_is_written_is_read_again(root):
    found = data_of(root, train=["a", 'so, "called"', "ü\udcff", "not there"], val=["a"])
    assert found.sets["train"][0] == ("a", "1000", "")
    assert RunData.read(found.csv()) == found
    assert found.summary()["sets"] == {"train": {"images": 4, "bytes": 3007}, "val": {"images": 1, "bytes": 1000}}


def test_a_folder_that_moved_is_the_same_data(root):
    moved = root.parent / "moved"
    before = data_of(root, train=["a", "b"])
    root.rename(moved)
    assert data_of(moved, train=["a", "b"]) == before


def test_what_changed_is_said(root):
    before = data_of(root, train=["a", "b", "c"], val=["c"])
    (root / "b").write_bytes(b"x" * 2000)
    assert data_of(root, train=["a", "b", "c"], val=["c"]).changes(before) == [
        "train: 1 other files: b (1,001 and no → 2,000 and no bytes)"
    ]
    assert data_of(root, train=["c", "a"], test=["a"]).changes(before) == [
        "train: 1 images fewer: b",
        "val: 1 images fewer: c",
        "test: 1 images more: a",
    ]
    assert not before.changes(before)


def test_of_many_only_some_are_named(root):
    names = [f"n{number}" for number in range(10_000)]
    [said] = data_of(root, train=names).changes(data_of(root, train=[]))
    assert said == "train: 10,000 images more: n0, n1, n2 and 9,997 more"


def test_an_image_that_is_listed_twice_counts_twice(root):
    assert data_of(root, train=["a", "a"]).changes(data_of(root, train=["a"])) == ["train: 1 images more: a"]


def test_a_line_of_nothing_is_refused():
    with pytest.raises(ValueError, match="a line of 1 cells"):
        RunData.read("train\n")
