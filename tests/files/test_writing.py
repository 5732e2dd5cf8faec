"""Whole or not at all, with the reason; what a killed process left is cleared, what another one writes is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from files import writing
from files.writing import WriteError, beside, check_room, clear_leftovers, folder_in, temporary_folder, write_whole


def test_bytes_and_text_are_written_and_nothing_else_stays(tmp_path):
    write_whole(tmp_path / "new" / "a.txt", b"old")
    write_whole(tmp_path / "new" / "a.txt", "größer")
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "new").iterdir()] == [("a.txt", "größer".encode())]


def test_what_fails_leaves_the_old_file_and_no_other(tmp_path):
    write_whole(tmp_path / "a.txt", b"old")
    with pytest.raises(ZeroDivisionError), beside(tmp_path / "a.txt") as partial:
        partial.write_bytes(b"half")
        1 / 0  # noqa: B018
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.txt", b"old")]


@pytest.mark.parametrize("name", ["file/under.txt", "folder"])
def test_a_place_that_is_something_else_is_named_with_the_reason(tmp_path, name):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match=rf"{name}: cannot be written \((File exists|Is a directory)\)"):
        write_whole(tmp_path / name, b"x")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_is_said():
    with pytest.raises(WriteError, match=r"/dev/full: cannot be written \(No space left on device\)"):  # noqa: SIM117
        with writing.writing("/dev/full"), open("/dev/full", "w") as file:
            file.write("x")


def test_a_name_as_long_as_the_system_allows(tmp_path):
    path = tmp_path / ("n" * 251 + ".png")
    write_whole(path, b"x")
    assert path.read_bytes() == b"x"


def test_folder_is_gone_afterwards_with_what_is_in_it(tmp_path):
    with folder_in(tmp_path) as folder:
        (folder / "a").mkdir()
        (folder / "a" / "b").write_text("x")
    assert not list(tmp_path.iterdir())


def test_temporary_folder_is_where_the_system_says(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder() as folder:
        assert folder.parent == tmp_path


def _left_by(code: str, folder: Path) -> list[Path]:
    """What a process leaves in `folder` that is killed at the end of `code`."""
    program = (
        f"import os, signal; from pathlib import Path; from files.writing import *; folder = Path({str(folder)!r})\n"
    )
    kill = "\n    os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", program + code + kill], check=False)
    return list(folder.iterdir())


def test_what_a_killed_process_left_is_cleared(tmp_path):
    [file] = _left_by('with beside(folder / "a.txt") as partial:\n    partial.write_text("half")', tmp_path)
    assert file.suffix == ".txt"
    assert (
        len(_left_by('with folder_in(folder) as made:\n    (made / "a").mkdir()', tmp_path)) == 1
    )  # it cleared the file
    write_whole(tmp_path / "b.txt", b"x")
    assert [file.name for file in tmp_path.iterdir()] == ["b.txt"]


def test_what_living_processes_and_other_hosts_write_stays(tmp_path):
    host, token = writing._HOST, "0" * 8
    ours, parents = f".partial-{host}-{os.getpid()}-{writing._TOKEN}-7.png", f".partial-{host}-{os.getppid()}-{token}-0"
    elsewhere, old = f".partial-{'0' * 8}-99-{token}-0", f".partial-{'0' * 8}-98-{token}-0.txt"
    namesake = f".partial-{host}-{os.getpid()}-{token}-0"  # of a process that had our number
    for name in (ours, parents, elsewhere, old, namesake, ".partial-notes"):
        (tmp_path / name).write_text("x")
    os.utime(tmp_path / old, (0, 0))
    clear_leftovers(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {ours, parents, elsewhere, ".partial-notes"}


def test_room_is_looked_at_before(tmp_path):
    check_room(tmp_path / "not" / "there", 1, "x")
    with pytest.raises(WriteError, match=r"x\.ckpt: needs 1,000,000,000,000,000 MB in .*there, where .* MB are free"):
        check_room(tmp_path / "there", 10**21, "x.ckpt")
