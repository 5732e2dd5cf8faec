import contextlib
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from errors import UserError
from files.writing import WriteError, clear_leftovers
from models.checkpoint import CheckpointError, is_object_based, open_checkpoint, write_checkpoint
from tests.conftest import assert_same, read_all, write_v1

DATA = ".data-00000-of-00001"


@pytest.fixture
def v2(tensors, tmp_path):
    write_checkpoint(tmp_path / "m.ckpt-7", tensors)
    return tmp_path / "m.ckpt-7"


@pytest.fixture
def v1(tensors, tmp_path):
    return write_v1(tmp_path / "m.ckpt", tensors)


def refuses(path, *said):
    """Opening and reading all of `path` raises a CheckpointError that begins with the path and says what is `said`."""
    with pytest.raises(CheckpointError) as error:
        read_all(path)
    text = str(error.value)
    assert text.startswith(str(path)), text
    for part in said:
        assert part in text, text
    assert "\n" not in text
    return text


def archive(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def v2_members(prefix, name):
    return {name + part: Path(f"{prefix}{part}").read_bytes() for part in (".index", DATA)}


def state(folder, path):
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{path}"\nall_model_checkpoint_paths: "{path}"\n')


@contextlib.contextmanager
def limited_files(size):
    """The system lets no file become larger: as on a full disk, in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# What a user may name


@pytest.mark.parametrize("suffix", ["", ".index", DATA, ".meta"])
def test_a_v2_checkpoint_by_its_prefix_or_any_of_its_files(v2, tensors, suffix):
    assert_same(read_all(f"{v2}{suffix}"), tensors)


def test_shapes_and_types_are_there_before_any_value(v2, tensors):
    with open_checkpoint(v2) as checkpoint:
        assert checkpoint.shapes == {name: np.shape(value) for name, value in tensors.items()}
        assert checkpoint.dtypes == {name: value.dtype.name for name, value in tensors.items()}
        assert checkpoint.path == str(v2)
        with pytest.raises(CheckpointError, match=r"m\.ckpt-7: no variable 'net/nothing'"):
            checkpoint.read("net/nothing")


def test_a_v1_file(v1, tensors):
    assert_same(read_all(v1), tensors)


@pytest.mark.parametrize("ending, mode", [("tar.gz", "w:gz"), ("tgz", "w:gz"), ("tar", "w")])
def test_an_archive_with_a_v1_file(v1, tensors, tmp_path, ending, mode):
    path = archive(tmp_path / f"net.{ending}", {"net.ckpt": v1.read_bytes(), "README": b"read me"}, mode)
    assert_same(read_all(path), tensors)


@pytest.mark.parametrize("name", ["net_2018/model.ckpt-30000", "net/model-30000"])
def test_an_archive_with_a_v2_pair(v2, tensors, tmp_path, name):
    members = {**v2_members(v2, name), f"{name}.meta": b"a graph", "net/frozen.pb": b"another"}
    path = archive(tmp_path / "net.tar.gz", members)
    assert_same(read_all(path), tensors)


def test_nothing_is_left_of_an_unpacked_archive(v2, tmp_path, monkeypatch):
    path = archive(tmp_path / "net.tar.gz", v2_members(v2, "m.ckpt"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with open_checkpoint(path) as checkpoint:
        assert list((tmp_path / "temporary").iterdir())
        assert checkpoint.path == str(path)
    assert not list((tmp_path / "temporary").iterdir())


def test_a_directory_gives_what_its_checkpoint_file_names(v2, tensors, tmp_path):
    write_checkpoint(tmp_path / "m.ckpt-8", {"other": np.zeros(2)})
    state(tmp_path, "m.ckpt-7")
    assert_same(read_all(tmp_path), tensors)
    state(tmp_path, "m.ckpt-8")
    assert read_all(tmp_path).keys() == {"other"}


def test_a_v1_file_that_the_checkpoint_file_names(v1, tensors, tmp_path):
    v1.rename(tmp_path / "model-7")
    state(tmp_path, "/long/gone/model-7")
    assert_same(read_all(tmp_path), tensors)


def test_a_moved_directory_ignores_where_it_once_was(v2, tensors, tmp_path):
    state(tmp_path, "/long/gone/m.ckpt-7")
    assert_same(read_all(tmp_path), tensors)


def test_a_copied_directory_gives_its_own_checkpoint_not_the_original(v2, tensors, tmp_path):
    state(tmp_path, v2)
    copy = shutil.copytree(tmp_path, tmp_path / "copy", dirs_exist_ok=False, ignore=shutil.ignore_patterns("copy"))
    write_checkpoint(v2, {"changed": np.zeros(2)})
    assert_same(read_all(copy), tensors)


def test_a_directory_with_one_checkpoint_needs_no_checkpoint_file(v2, tensors, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / ".m.ckpt-9.partial").mkdir()
    assert_same(read_all(tmp_path), tensors)
    assert_same(read_all(f"{tmp_path}/"), tensors)


@pytest.mark.parametrize(
    "folder", ["lr=0.1 [1]", "what?", "all*", "back\\slash", "a.data-00000-of-00001.old", "x.index"]
)
def test_names_that_look_like_patterns_or_checkpoints_are_no_obstacle(folder, tensors, tmp_path):
    prefix = tmp_path / folder / "m[0]*.ckpt"
    write_checkpoint(prefix, tensors)
    assert_same(read_all(prefix), tensors)
    assert_same(read_all(f"{prefix}{DATA}"), tensors)
    state(prefix.parent, prefix.name)
    assert_same(read_all(prefix.parent), tensors)
    assert_same(read_all(write_v1(prefix.parent / "v1.ckpt", tensors)), tensors)


# What is wrong is said, with the file


def test_a_missing_file_is_told_with_what_lies_beside_it(v2, v1):
    refuses(v2.with_name("n.ckpt"), "no such checkpoint", "beside it there is m.ckpt, m.ckpt-7")
    refuses(v2.parent / "nowhere" / "n.ckpt", "no such checkpoint")
    refuses("~nobody-of-that-name/n.ckpt", "no such checkpoint")


def test_checkpoint_errors_are_user_errors(tmp_path):
    with pytest.raises(UserError):
        read_all(tmp_path / "nothing")


def test_an_empty_file(tmp_path):
    (tmp_path / "empty.ckpt").touch()
    refuses(tmp_path / "empty.ckpt", "the file is empty")


@pytest.mark.parametrize("lost", [".index", DATA])
def test_half_of_a_v2_pair(v2, lost):
    Path(f"{v2}{lost}").unlink()
    refuses(v2, f"m.ckpt-7{lost} is missing")


def test_a_missing_shard_is_named(v2, tensors):
    parts = [f"{v2}-part{i}" for i in range(2)]
    for part, names in zip(parts, [["net/conv1/weights"], ["net/conv1/biases"]], strict=True):
        tf.raw_ops.SaveV2(prefix=part, tensor_names=names, shape_and_slices=[""], tensors=[tensors[n] for n in names])
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(v2.parent / "sharded.ckpt"))
    assert_same(read_all(v2.parent / "sharded.ckpt"), {n: tensors[n] for n in tensors if "conv1" in n})
    (v2.parent / "sharded.ckpt.data-00001-of-00002").unlink()
    refuses(v2.parent / "sharded.ckpt", "sharded.ckpt.data-00001-of-00002")


@pytest.mark.parametrize("content", [b"\0", b"hello\n" * 1000, b"<!DOCTYPE html>" + bytes(500)])
def test_something_else_under_that_name(tmp_path, content):
    (tmp_path / "m.ckpt").write_bytes(content)
    refuses(tmp_path / "m.ckpt", "no TensorFlow checkpoint")


@pytest.mark.parametrize("name", ["model.h5", "weights.npy", "model.keras"])
def test_another_format_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"whatever")
    refuses(tmp_path / name, f"{Path(name).suffix} files are no TensorFlow checkpoints")


def test_a_directory_without_a_checkpoint(tmp_path):
    refuses(tmp_path, "no checkpoint in this directory")


def test_a_directory_with_several_and_no_word_which(v2, v1, tmp_path):
    refuses(tmp_path, "several checkpoints", "m.ckpt, m.ckpt-7")


def test_a_checkpoint_file_that_names_what_is_gone(v2, tmp_path):
    state(tmp_path, "m.ckpt-9")
    with pytest.raises(CheckpointError, match=r"m\.ckpt-9: no such checkpoint; beside it there is m\.ckpt-7"):
        read_all(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"{{{ nonsense"])
def test_a_damaged_checkpoint_file(v2, v1, tmp_path, content):
    (tmp_path / "checkpoint").write_bytes(content)
    refuses(tmp_path)


def damaged(content, points):
    """The bytes cut at each point, and with one bit turned there."""
    for point in points:
        yield content[:point]
        yield content[:point] + bytes([content[point] ^ 1 << point % 8]) + content[point + 1 :]


@pytest.mark.parametrize("form, file", [("v1", ""), ("v2", ".index"), ("v2", DATA)])
def test_damage_anywhere_is_noticed(form, file, tensors, request):
    """Every block of a V1 file and of an index, and every tensor of a V2 checkpoint, has its checksum."""
    path = request.getfixturevalue(form)
    damaged_file = Path(f"{path}{file}")
    content = damaged_file.read_bytes()
    size = len(content)
    points = {*range(0, min(size, 64)), *np.linspace(0, size - 1, 150, dtype=int).tolist(), *range(size - 80, size)}
    noticed = 0
    for variant in damaged(content, sorted(points)):
        damaged_file.write_bytes(variant)
        try:
            found = read_all(path)
        except CheckpointError as error:
            noticed += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
        else:
            assert_same(found, tensors)
    # every cut, and every bit but for some at a table's end that mean nothing: an unused block and padding
    assert noticed >= 2 * len(points) - 60


def test_the_data_of_another_write_is_noticed(v2, tensors):
    """As after a crash between the two renames of an overwritten checkpoint: no mixture passes."""
    index = Path(f"{v2}.index").read_bytes()
    write_checkpoint(v2, {name: value + 1 for name, value in tensors.items()})
    Path(f"{v2}.index").write_bytes(index)
    for name in tensors:
        with open_checkpoint(v2) as checkpoint, pytest.raises(CheckpointError, match="Checksum"):
            checkpoint.read(name)


def test_an_archive_without_a_checkpoint(tmp_path):
    refuses(archive(tmp_path / "net.tar.gz", {"README": b"", "net.pb": b"x"}), "holds 0 checkpoints (none)")


def test_an_archive_with_two_checkpoints(v2, tmp_path):
    members = v2_members(v2, "a.ckpt") | v2_members(v2, "b.ckpt")
    refuses(archive(tmp_path / "net.tar.gz", members), "holds 2 checkpoints (a.ckpt, b.ckpt)")
    members = v2_members(v2, "raw/a.ckpt") | v2_members(v2, "ema/a.ckpt")
    refuses(archive(tmp_path / "net.tar.gz", members), "holds 2 checkpoints (ema/a.ckpt, raw/a.ckpt)")
    many = {f"net/model.ckpt-{step}.index": b"" for step in range(2000)}
    refuses(archive(tmp_path / "net.tar.gz", many), "holds 2000 checkpoints", " and 1,990 more)")


def test_what_macos_adds_is_no_checkpoint(v2, tensors, tmp_path):
    hidden = {"net/._a.ckpt.index": b"\0\5\x16\7", f"net/._a.ckpt{DATA}": b"\0\5\x16\7", "__MACOSX/._a.ckpt": b"\0"}
    assert_same(read_all(archive(tmp_path / "net.tar.gz", v2_members(v2, "net/a.ckpt") | hidden)), tensors)
    (tmp_path / "folder").mkdir()
    for name, content in (v2_members(v2, "a.ckpt") | {"._a.ckpt.index": b"\0\5\x16\7", "._a.ckpt": b"\0"}).items():
        (tmp_path / "folder" / name).write_bytes(content)
    assert_same(read_all(tmp_path / "folder"), tensors)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE])
def test_what_is_no_file_of_an_archive_is_named(v2, tmp_path, kind):
    with tarfile.open(tmp_path / "net.tar", "w") as tar:
        member = tarfile.TarInfo("net/a.ckpt.index")
        member.type, member.linkname = kind, f"{v2}.index"
        tar.addfile(member)
    refuses(tmp_path / "net.tar", "net/a.ckpt.index in it is a link, a device or a sparse file")


def test_only_the_checkpoint_is_unpacked(v2, tmp_path, monkeypatch):
    path = archive(
        tmp_path / "net.tar.gz", v2_members(v2, "net/a.ckpt") | {"net/frozen.pb": bytes(1000), "a.meta": b""}
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with open_checkpoint(path):
        found = {file.name for file in (tmp_path / "temporary").rglob("*") if file.is_file()}
    assert found == {"a.ckpt.index", f"a.ckpt{DATA}"}


def test_an_archive_that_is_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = archive(tmp_path / "net.tar.gz", {"net/other": bytes(2_000_000), "net/a.ckpt": b"a"})
    monkeypatch.setattr("models.archive.LIMIT", 1_000_000)
    refuses(path, "unpacks to more than")


def test_no_room_for_what_is_unpacked_is_said_as_such(v2, tmp_path, monkeypatch):
    path = archive(tmp_path / "net.tar.gz", v2_members(v2, "a.ckpt"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(WriteError, match=r"net\.tar\.gz: needs 0 MB in .*temporary.* are free"):
            read_all(path)
    with limited_files(1000), pytest.raises(WriteError, match=r"temporary/.*cannot be written \(File too large\)"):
        read_all(path)
    assert not list((tmp_path / "temporary").iterdir())


def declares_more_than_it_holds(path, form):
    """A part of a variable of 10^12 values."""
    if form == "v1":
        arguments = {"filename": str(path), "shapes_and_slices": ["1000000 1000000 0,1:0,1"], "data": [tf.ones((1, 1))]}
        tf.raw_ops.SaveSlices(tensor_names=["a"], **arguments)
    else:
        arguments = {"shape_and_slices": ["1000000 1000000 0,1:0,1"], "tensors": [tf.ones((1, 1))]}
        tf.raw_ops.SaveV2(prefix=str(path), tensor_names=["a"], **arguments)


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_a_shape_that_the_file_cannot_hold_is_refused_before_there_is_room_for_it(tmp_path, form):
    declares_more_than_it_holds(tmp_path / "a.ckpt", form)
    refuses(tmp_path / "a.ckpt", "a is float32 of shape (1000000, 1000000), which is more than")


def test_what_packs_well_is_no_damage(tmp_path):
    packed = {"zeros": np.zeros((1000, 1000), "int64"), "ones": np.ones((1000, 1000), "float32")}
    assert_same(read_all(write_v1(tmp_path / "v1.ckpt", packed)), packed)


def test_a_type_that_the_first_format_cannot_give_back_is_called_so(tmp_path):
    path = write_v1(tmp_path / "half.ckpt", {"a": np.ones(3, "float16")})
    assert "damaged" not in refuses(path, "a is float16, which TensorFlow cannot read from a file of its first format")


@pytest.mark.parametrize("place", ["m.ckpt", "m.ckpt.index", f"m.ckpt{DATA}", "frozen.pb", "checkpoint"])
def test_what_is_no_file_is_refused_at_once(v2, tmp_path, place):
    (tmp_path / "other").mkdir()
    if place.startswith("m.ckpt."):
        for name, content in v2_members(v2, "m.ckpt").items():
            (tmp_path / "other" / name).write_bytes(content)
        (tmp_path / "other" / place).unlink()
    os.mkfifo(tmp_path / "other" / place)
    path = tmp_path / "other" if place == "checkpoint" else tmp_path / "other" / place
    refuses(path, f"{place}: a folder, a pipe or a device, and no file")


def test_a_device_is_refused_at_once():
    refuses("/dev/zero", "a folder, a pipe or a device, and no file")


def test_an_archive_with_half_a_pair(v2, tmp_path):
    members = {"net/a.ckpt.index": Path(f"{v2}.index").read_bytes()}
    refuses(archive(tmp_path / "net.tar.gz", members), f"in it, net/a.ckpt: a.ckpt.index is there, but a.ckpt{DATA}")


def test_an_archive_that_is_missing_or_none(tmp_path):
    refuses(tmp_path / "net.tar.gz", "no such file")
    (tmp_path / "net.tar.gz").write_bytes(b"<html>" * 100)
    refuses(tmp_path / "net.tar.gz", "cannot be unpacked")


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w"])
def test_a_damaged_archive(v2, tensors, tmp_path, mode):
    path = archive(tmp_path / "net.tar.gz", v2_members(v2, "net/m.ckpt"), mode)
    content = path.read_bytes()
    noticed = 0
    for variant in damaged(content, np.linspace(0, len(content) - 1, 25, dtype=int).tolist()):
        path.write_bytes(variant)
        try:
            found = read_all(path)
        except CheckpointError as error:
            noticed += 1
            assert str(error).startswith(str(path))
        else:
            assert_same(found, tensors)
    assert noticed >= 25


@pytest.mark.parametrize("name", ["../../outside.ckpt", "net/../../outside.ckpt"])
def test_an_archive_that_reaches_outside_is_refused(v2, tmp_path, name, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a" / "b"))
    before = sorted(tmp_path.rglob("*"))
    refuses(archive(tmp_path / "net.tar.gz", v2_members(v2, name)), "leads outside of where it is unpacked")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "net.tar.gz"])


def test_an_object_based_checkpoint_is_known_by_its_names(v2, tmp_path):
    tf.train.Checkpoint(net=tf.Variable(1.0)).write(str(tmp_path / "objects.ckpt"))
    with open_checkpoint(tmp_path / "objects.ckpt") as checkpoint, open_checkpoint(v2) as named:
        assert is_object_based(checkpoint.shapes)
        assert not is_object_based(named.shapes)


# Written whole or not at all


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_an_existing_checkpoint_is_replaced(v2, tensors):
    new = {"net/w": np.arange(5.0), "global_step": np.int64(8)}
    write_checkpoint(v2, new)
    assert_same(read_all(v2), new)
    assert sorted(p.name for p in v2.parent.iterdir()) == [f"m.ckpt-7{DATA}", "m.ckpt-7.index"]


def test_folders_are_made_and_types_kept(tmp_path):
    given = {
        "half": np.ones(3, "float16"),
        "flag": np.array(True),
        "step": np.int32(3),
        "wide": np.float64(1) / 3,
        "empty": np.zeros((0, 3), "float32"),
    }
    write_checkpoint(tmp_path / "new" / "folder" / "m.ckpt", given)
    assert_same(read_all(tmp_path / "new" / "folder" / "m.ckpt"), given)


def test_a_write_that_fails_in_the_middle_leaves_the_former(v2, tensors, monkeypatch):
    before = contents(v2.parent)

    def save(prefix, **_):
        Path(f"{prefix}{DATA}").write_bytes(b"half of it")
        raise tf.errors.ResourceExhaustedError(None, None, "no space left on device\nand a long trace")

    monkeypatch.setattr(tf.raw_ops, "SaveV2", save)
    with pytest.raises(WriteError, match=r"m\.ckpt-7: cannot be written \(no space left on device\)"):
        write_checkpoint(v2, {name: value + 1 for name, value in tensors.items()})
    assert contents(v2.parent) == before
    assert not list(v2.parent.glob(".*"))


def test_no_room_is_said_before_anything_is_written(v2, monkeypatch):
    before = contents(v2.parent)
    usage = shutil.disk_usage(v2.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=7_999))
    with pytest.raises(WriteError, match=r"m\.ckpt-7: needs 0 MB in"):
        write_checkpoint(v2, {"w": np.zeros(1000)})
    assert contents(v2.parent) == before


@pytest.mark.parametrize("limit", [0, 1000, 100_000])
def test_a_full_disk_leaves_the_former(v2, tensors, limit):
    """A limit on the size of files, which the system enforces as it does a full disk: in the middle of a write."""
    before = contents(v2.parent)
    refused = pytest.raises(WriteError, match=r"m\.ckpt-7: cannot be written .* Nothing that was there before is lost")
    with limited_files(limit), refused:
        write_checkpoint(v2, {name: value + 1 for name, value in tensors.items()})
    assert contents(v2.parent) == before
    assert not list(v2.parent.glob(".*"))


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"file: cannot be written|file/m\.ckpt: cannot be written"):
        write_checkpoint(tmp_path / "file" / "m.ckpt", {"w": np.zeros(2)})


WRITER = """
import os, sys, time
import numpy as np
from models.checkpoint import write_checkpoint
os.replace = lambda *_: time.sleep(600)  # never whole, however late the kill comes
write_checkpoint(sys.argv[1], {"w": np.ones(4_000_000)})
"""


def test_a_writer_killed_in_the_middle_leaves_the_former(v2, tensors):
    before = contents(v2.parent)
    command = [sys.executable, "-c", WRITER, str(v2)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL) as writer:
        deadline = time.monotonic() + 60
        while not list(v2.parent.glob(".partial-*/*")) and writer.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(writer.pid, signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
    left = contents(v2.parent)
    assert {name: left[name] for name in before} == before
    assert all(name.startswith(".partial-") for name in left.keys() - before.keys())
    assert left.keys() != before.keys()  # it was killed while writing
    assert_same(read_all(v2), tensors)
    assert_same(read_all(v2.parent), tensors)
    clear_leftovers(v2.parent)  # as the next writer does
    assert contents(v2.parent) == before
