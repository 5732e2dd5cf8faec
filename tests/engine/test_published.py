"""Checkpoints by their published names: found beside, downloaded once, resumed, checked, unpacked; and the table."""

import gzip
import io
import re
import shutil
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import inspect_ckpt
from engine import download as downloads
from engine.published import located
from engine.zoo import PUBLISHED, published
from errors import UserError
from models.checkpoint import open_checkpoint, write_checkpoint
from tests.conftest import assert_same, read_all
from tests.loopback import Server

NAME = "resnet_v2_50_2017_04_14"


def archive_of(files):
    """The bytes of a .tar.gz."""
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=content, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


@pytest.fixture(scope="module")
def checkpoint_files(tensors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_checkpoint(folder / "resnet_v2_50.ckpt", tensors)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def archive(checkpoint_files):
    return archive_of(checkpoint_files | {"train.graph": b"what nobody reads"})


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv(downloads.CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv(downloads.MIRROR, "http://127.0.0.1:9")  # nobody is there
    monkeypatch.setattr(downloads, "PATIENCE", (0, 0))
    return tmp_path / "here"


@pytest.fixture
def serve(monkeypatch, request):
    """A function: (files, …) → the Server, running until the test ends."""

    def start(files, **more):
        server = Server(files, **more)
        running = server.running()
        monkeypatch.setenv(downloads.MIRROR, running.__enter__())
        request.addfinalizer(lambda: running.__exit__(None, None, None))
        return server

    return start


def test_a_published_name_is_downloaded_once(serve, archive, tensors, tmp_path, capsys):
    server = serve({f"{NAME}.tar.gz": archive})
    assert_same(read_all(located("resnet_v2_50")), tensors)
    said = capsys.readouterr().out
    assert f"/{NAME}.tar.gz to {tmp_path / 'cache'}" in said, "from where and where to"
    assert located("resnet_v2_50") == located(NAME) == tmp_path / "cache" / NAME
    assert server.asked == [(f"{NAME}.tar.gz", 0)]
    assert "downloading" not in capsys.readouterr().out
    left = {path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")}
    assert left == {NAME, f"{NAME}.sha256"}, "unpacked once, and nothing else kept"
    assert {path.suffix for path in (tmp_path / "cache" / NAME).iterdir()} == {".index", ".data-00000-of-00001"}


def test_a_connection_that_breaks_is_gone_on_with(serve, archive, tensors):
    third = len(archive) // 3
    server = serve({f"{NAME}.tar.gz": archive}, breaks=[third, third])
    assert_same(read_all(located("resnet_v2_50")), tensors)
    starts = [start for _, start in server.asked]
    assert starts[0] == 0 and len(starts) == 3
    assert starts == sorted(starts) and starts[1] > third / 2, "each goes on behind the one before"


def test_a_call_that_gave_up_is_gone_on_with_by_the_next(serve, archive, tensors):
    server = serve({f"{NAME}.tar.gz": archive}, breaks=[200_000, 0, 0, 0])
    with pytest.raises(UserError, match="The same command goes on where it stopped"):
        located("resnet_v2_50")
    before = len(server.asked)
    assert_same(read_all(located("resnet_v2_50")), tensors)
    assert server.asked[before][1] > 100_000


def test_the_last_byte_had_come_before_the_call_was_killed(serve, archive, tensors, monkeypatch):
    server = serve({f"{NAME}.tar.gz": archive})
    fetch_rest = downloads._fetch_rest

    def killed(*arguments):
        fetch_rest(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(downloads, "_fetch_rest", killed)
    with pytest.raises(KeyboardInterrupt):
        located("resnet_v2_50")
    monkeypatch.setattr(downloads, "_fetch_rest", fetch_rest)
    assert_same(read_all(located("resnet_v2_50")), tensors)
    assert [start for _, start in server.asked] == [0, len(archive)]


@pytest.mark.parametrize("versions", [True, False])
def test_pieces_of_two_versions_are_never_joined(serve, archive, tensors, versions):
    server = serve({f"{NAME}.tar.gz": archive[::-1]}, breaks=[200_000, 0, 0, 0], versions=versions)
    with pytest.raises(UserError):
        located("resnet_v2_50")
    server.files[f"{NAME}.tar.gz"] = archive
    assert_same(read_all(located("resnet_v2_50")), tensors)


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"two\nlines", b" ", b""])
def test_a_damaged_note_of_the_version_begins_anew(serve, archive, tensors, tmp_path, damage):
    server = serve({f"{NAME}.tar.gz": archive}, breaks=[200_000, 0, 0, 0])
    with pytest.raises(UserError):
        located("resnet_v2_50")
    (tmp_path / "cache" / f"{NAME}.tar.gz.download" / "version").write_bytes(damage)
    before = len(server.asked)
    assert_same(read_all(located("resnet_v2_50")), tensors)
    assert [start for _, start in server.asked[before:]] == [0]


def test_a_new_version_without_room_is_not_joined_to_the_old(serve, archive, tensors, monkeypatch):
    server = serve({f"{NAME}.tar.gz": archive[::-1]}, breaks=[200_000, 0, 0, 0])
    with pytest.raises(UserError):
        located("resnet_v2_50")
    server.files[f"{NAME}.tar.gz"] = archive
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "check_room", lambda *_: (_ for _ in ()).throw(UserError("no room")))
        with pytest.raises(UserError, match="no room"):
            located("resnet_v2_50")
    assert_same(read_all(located("resnet_v2_50")), tensors)


@pytest.mark.parametrize("damage", [b"\xff", b"half a su", b"\0" * 80])
def test_damaged_checksums_are_said(serve, archive, tmp_path, damage):
    serve({f"{NAME}.tar.gz": archive})
    located("resnet_v2_50")
    sums = tmp_path / "cache" / f"{NAME}.sha256"
    sums.write_bytes(damage)
    with pytest.raises(UserError, match=rf"{sums}: .*Delete it"):
        located("resnet_v2_50")


def test_what_is_damaged_in_the_cache_is_fetched_again_and_must_be_the_same(serve, archive, tensors, capsys):
    server = serve({f"{NAME}.tar.gz": archive})
    data = located("resnet_v2_50") / "resnet_v2_50.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-7] + b"changed")
    assert_same(read_all(located("resnet_v2_50")), tensors)
    assert f"{data}: is not what was unpacked" in capsys.readouterr().out
    assert len(server.asked) == 2

    data.write_bytes(b"")
    server.files[f"{NAME}.tar.gz"] = archive_of({"another.ckpt": b"another"})
    with pytest.raises(UserError, match=rf"Another file came first; delete .*{NAME}\.sha256"):
        located("resnet_v2_50")
    (data.parents[1] / f"{NAME}.sha256").unlink()
    assert [file.name for file in located("resnet_v2_50").iterdir()] == ["another.ckpt"]


def test_killed_while_unpacking(serve, archive, tensors, monkeypatch):
    server = serve({f"{NAME}.tar.gz": archive})
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractfile", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            located("resnet_v2_50")
    assert_same(read_all(located("resnet_v2_50")), tensors)
    assert len(server.asked) == 1, "the archive was there"


def test_archives_with_raw_and_averaged_weights_give_the_averaged(serve, checkpoint_files, tensors):
    raw = {f"v3-small_224_1.0_float/pristine/model.ckpt-1{name[17:]}": data for name, data in checkpoint_files.items()}
    ema = {f"v3-small_224_1.0_float/ema/model-1{name[17:]}": data for name, data in checkpoint_files.items()}
    serve({"v3-small_224_1.0_float.tgz": archive_of(raw | ema)})
    folder = located("mobilenet_v3_small_1.0_224")
    assert {file.name.partition(".")[0] for file in folder.iterdir()} == {"model-1"}
    assert_same(read_all(folder), tensors)


def test_no_room_on_the_disk_is_said_before_anything_is_written(serve, archive, tmp_path, monkeypatch):
    serve({f"{NAME}.tar.gz": archive})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(archive) - 1))
    with pytest.raises(UserError, match=r"needs .* MB .* are free"):
        located("resnet_v2_50")
    assert not (tmp_path / "cache" / NAME).exists()


def test_nobody_there_and_not_found(serve, tmp_path):
    with pytest.raises(
        UserError, match=rf"127.0.0.1:9/{NAME}.tar.gz: cannot be downloaded \([^(]*refused\).* \$SLIM_DEEPLAB_MIRROR"
    ):
        located("resnet_v2_50")
    serve({})
    with pytest.raises(UserError, match="404"):
        located("resnet_v2_50")


def test_an_archive_put_into_the_cache_by_hand_needs_no_network(archive, tensors, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{NAME}.tar.gz").write_bytes(archive)
    assert_same(read_all(located("resnet_v2_50")), tensors)


@pytest.mark.parametrize("damaged", [lambda a: a[: len(a) // 2], lambda _: b"<html>", lambda _: archive_of({"a": b""})])
def test_an_archive_that_is_none_is_said(archive, tmp_path, damaged):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{NAME}.tar.gz").write_bytes(damaged(archive))
    with pytest.raises(UserError, match=rf"{NAME}.tar.gz: .*Delete it to download it again"):
        located("resnet_v2_50")
    assert not (tmp_path / "cache" / NAME).exists()


@pytest.mark.parametrize("file", [f"{NAME}.tar.gz", "resnet_v2_50.tar.gz", "resnet_v2_50.tgz"])
@pytest.mark.parametrize("asked", ["resnet_v2_50.ckpt", "resnet_v2_50"])
def test_the_archive_beside_is_taken(archive, tensors, here, file, asked, capsys):
    (here / "weights").mkdir()
    for folder in (here, here / "weights"):
        (folder / file).write_bytes(archive)
    assert_same(read_all(located(asked)), tensors)
    assert_same(read_all(located(str(here / "weights" / asked))), tensors)
    assert f"taken from {here / 'weights' / file}" in capsys.readouterr().out


def test_an_archive_beside_of_no_published_name(archive, tensors, here):
    (here / "mine.tar.gz").write_bytes(archive)
    assert_same(read_all(located("mine.ckpt")), tensors)


def test_what_is_there_is_what_is_meant(here, tensors, archive):
    write_checkpoint("resnet_v2_50.ckpt", tensors)
    (here / f"{NAME}.tar.gz").write_bytes(archive)
    (here / "resnet_v2_101").mkdir()
    for there in ("resnet_v2_50.ckpt", "resnet_v2_50.ckpt.index", "resnet_v2_101", f"{NAME}.tar.gz"):
        assert located(there) == there
    (here / "resnet_v2_50.ckpt.index").unlink()
    assert located("resnet_v2_50.ckpt") == "resnet_v2_50.ckpt", "half a checkpoint is not a wish for another"
    with open_checkpoint(f"{NAME}.tar.gz") as opened:
        assert located(opened) is opened
    assert located(None) is None
    assert located("unknown.ckpt") == "unknown.ckpt"


@pytest.mark.parametrize("asked", ["resnet_v2_50.ckpt", "weights/resnet_v2_50", f"{NAME}.tar.gz"])
def test_a_file_that_can_be_had_is_not_downloaded_but_told_of(asked):
    with pytest.raises(UserError, match=rf"{asked}: no such checkpoint, .*{NAME}.tar.gz.* --ckpt resnet_v2_50$"):
        located(asked)


def test_programs_take_names(serve, archive, capsys):
    serve({f"{NAME}.tar.gz": archive})
    assert inspect_ckpt.main(["resnet_v2_50", "--list"]) == 0
    assert "75,224 values" in capsys.readouterr().out


def test_an_unreadable_cache_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(downloads.CACHE, str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot be written .*\$SLIM_DEEPLAB_CACHE"):
        located("resnet_v2_50")


def test_the_cache_is_the_platforms_where_nothing_is_said(monkeypatch):
    monkeypatch.delenv(downloads.CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    if sys.platform == "linux":
        assert str(downloads.cache_folder()) == "/somewhere/slim-deeplab"


def test_every_name_leads_to_one_checkpoint():
    names = [name for each in PUBLISHED.values() for name in {each.name, each.also, each.file, each.stem} - {""}]
    assert len(names) == len(set(names))
    assert all(published(name) for name in names)
    assert len({each.address for each in PUBLISHED.values()}) == len(PUBLISHED)
    assert published("") is None and published("resnet_v2_51") is None
    assert published("resnet_v1_50").stem == "resnet_v1_50_2016_08_28"
    assert published("mobilenetv2_coco_voc_trainaug") is published("deeplabv3_mnv2_pascal_trainaug")


def test_the_documents_list_every_name():
    text = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    for each in PUBLISHED.values():
        name = re.sub(r"^(mobilenet_v[123]_(?:large_|small_)?)[\d.]+_", r"\1W_", each.name)
        name = name if name.startswith("mobilenet_v3") else re.sub(r"_W_\d+$", "_W_S", name)
        assert f"`{name}`" in text, each.name


def test_names_say_what_the_loader_can_build():
    from models.deeplab_v3 import BACKBONES

    classifiers = {name for name in PUBLISHED if name.startswith("resnet_v") and not name.endswith("_beta")}
    assert classifiers <= set(BACKBONES)
    widths = {name.split("_")[2] for name in PUBLISHED if name.startswith("mobilenet_v2")}
    assert np.allclose(sorted(map(float, widths)), (0.35, 0.5, 0.75, 1.0, 1.3, 1.4))


def test_two_at_once_download_once(serve, archive):
    server = serve({f"{NAME}.tar.gz": archive})
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(located, ["resnet_v2_50", NAME])
    assert first == second
    assert len(server.asked) == 1
