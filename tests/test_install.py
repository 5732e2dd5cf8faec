"""What is installed is what is there: no room and no program is forgotten in pyproject.toml, nor let off a rule."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOOLS = PROJECT["tool"]
ROOMS = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
MODULES = {path.stem for path in ROOT.glob("*.py")}
NOT_PROGRAMS = {"errors", "command_line", "slim_deeplab"}


def contract(identifier):
    return next(each for each in TOOLS["importlinter"]["contracts"] if each["id"] == identifier)


def test_all_rooms_and_modules_are_installed():
    packages = {".".join(path.parent.relative_to(ROOT).parts) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert set(TOOLS["setuptools"]["packages"]) == packages
    assert set(TOOLS["setuptools"]["py-modules"]) == MODULES


def test_all_files_beside_the_modules_are_installed():
    beside = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    listed = TOOLS["setuptools"]["package-data"]
    assert {f"{room}/{name}" for room, names in listed.items() for name in names} == beside


def test_every_program_has_its_console_name():
    programs = MODULES - NOT_PROGRAMS
    assert PROJECT["project"]["scripts"] == {
        f"slim-{name.replace('_', '-')}": "command_line:console" for name in programs
    }


def test_a_console_name_starts_its_program(monkeypatch, capsys):
    from command_line import console

    monkeypatch.setattr("sys.argv", ["/somewhere/bin/slim-inspect-ckpt", "--help"])
    with pytest.raises(SystemExit) as end:
        console()
    assert end.value.code == 0
    assert "name by name, bit by bit" in capsys.readouterr().out


def test_every_room_stands_on_a_floor_and_knows_no_program():
    floors = {room.strip() for floor in contract("floors")["layers"] for room in floor.split("|")}
    assert floors == ROOMS == set(TOOLS["importlinter"]["root_packages"]) == set(contract("flags")["source_modules"])
    assert set(contract("flags")["forbidden_modules"]) == MODULES - {"errors"} | {"argparse"}
    assert set(TOOLS["mypy"]["files"]) == ROOMS | {"*.py"}


def test_errors_import_nothing_of_the_house():
    lines = (ROOT / "errors.py").read_text().splitlines()
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    assert imports == ["from collections.abc import Iterable"]


def test_lowest_versions_can_be_told():
    """`make test-min` turns `name>=1.2,<2` into `name==1.2` and knows no other form."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    for line in (line for line in lines if line and not line.startswith("#")):
        name, bound, rest = line.partition(">=")
        assert name and bound and rest.count(",<") == 1, line
        assert importlib.metadata.version(name)
