"""Every flag of every program: of a kind with bounds, and what the kind does not take ends in one line and exit code 2.

The programs' own parsers say which flags there are: a new one is judged by itself.
"""

import argparse
import importlib
import os
import tomllib
from pathlib import Path

import pytest

import command_line
from campaigns.flags import CALLS, actions_of, parser_of, type_of, with_value
from engine.kinds import OptionError

ROOT = Path(__file__).parents[2]
CHOSEN = (argparse._StoreTrueAction, argparse._StoreConstAction, argparse.BooleanOptionalAction)
VALUED = [
    pytest.param(call, action, id=f"{call} {action.dest if not action.option_strings else action.option_strings[0]}")
    for call in CALLS
    for action in actions_of(call)
    if not isinstance(action, CHOSEN)
]
OUT_OF_REACH = ("nan", "inf", "-inf", "1e20", "99999999999999999999", "x", "0x10")
# Where 0 says something: nothing moves, no decay, no warm-up, the first host or seed, equal to the bit, black, a class.
TAKE_ZERO = {"learning_rate", "power", "warmup_steps", "momentum", "weight_decay", "bn_decay", "seed", "restored_lr"}
TAKE_ZERO |= {"ignore_label", "host", "tolerance", "mean", "map", "class_weights", "feed"}
TAKE_NEGATIVES = {"feed"}


def kind_of(call, action):
    """The kind of its values; None where they are but chosen."""
    return None if action.choices and action.type is None else type_of(parser_of(call), action).kind


def takes(kind, text):
    """Whether it is of the kind."""
    try:
        return kind.from_text(text) is not None
    except OptionError:
        return False


def number_in(kind):
    """A text of the kind that ends with a number, and with nothing else in its place; None where there is no such."""
    texts = ("1", "0.5", "1,2", "1,2,3", "1=1", "a=1")
    return next((text for text in texts if takes(kind, text) and not takes(kind, f"{text[:-1]}x")), None)


def answer(capsys, call, words):
    """→ (exit code, standard error) of a program that only parses its command line."""
    program, *command = call.split()
    parse = importlib.import_module(program).parse_arguments
    with pytest.raises(SystemExit) as ended:
        command_line.run(lambda: parse([*command, *words]) and 0)
    return ended.value.code, capsys.readouterr().err


def refused(capsys, call, action, value):
    code, said = answer(capsys, call, with_value(call, CALLS[call].split(), action, value))
    if code == 0:
        return False
    named = action.option_strings[0] if action.option_strings else action.metavar
    assert code == 2 and said.startswith("error: ") and said.count("\n") == 1 and named in said, said
    return True


@pytest.mark.parametrize(("call", "action"), VALUED)
def test_no_flag_takes_a_value_of_no_kind(call, action):
    assert action.choices or isinstance(type_of(parser_of(call), action), command_line.ArgumentType)


@pytest.mark.parametrize(("call", "action"), VALUED)
def test_what_a_flag_s_kind_does_not_take_is_one_line(call, action, capsys):
    kind = kind_of(call, action)
    assert refused(capsys, call, action, "")
    if kind is None or (text := number_in(kind)) is None:
        too_long = ["x" * 5000] if kind is None or kind.takes is None else []
        assert all(refused(capsys, call, action, value) for value in (" ", "\0", "a\nb", *too_long))
        return
    before = text[: max(text.rfind(","), text.rfind("=")) + 1]
    for value in OUT_OF_REACH:
        assert refused(capsys, call, action, before + value), value
    assert refused(capsys, call, action, f"{before}-1") == (action.dest not in TAKE_NEGATIVES)
    if not action.choices:
        assert refused(capsys, call, action, f"{before}0") == (action.dest not in TAKE_ZERO)


def test_numbers_are_found_in_every_kind_that_has_some():
    kinds = {action.dest: kind_of(call, action) for call in CALLS for action in actions_of(call) if action.nargs != 0}
    numeric = {name for name, kind in kinds.items() if kind and number_in(kind)}
    assert {
        "steps",
        "momentum",
        "split",
        "scales",
        "mean",
        "image_pooling_crop_size",
        "map",
        "feed",
        "class_weights",
    } <= numeric
    assert numeric.isdisjoint({"ckpt", "exclude", "rename", "hosts", "allow_absent", "formats"})


def test_a_device_is_no_file(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    for place in ("/dev/zero", "/dev/full", str(tmp_path / "pipe")):
        for call in ("predict_seg", "inspect_ckpt", "extract_features", "verify_port", "report_run"):
            action = next(action for action in actions_of(call) if not action.option_strings)
            assert refused(capsys, call, action, place)
        for call, flag in (("train_seg", "--ckpt"), ("train_seg", "--data"), ("predict_seg", "--classes")):
            action = next(action for action in actions_of(call) if flag in action.option_strings)
            assert refused(capsys, call, action, place)


def test_a_call_that_is_right_is_taken(capsys):
    for call, words in CALLS.items():
        assert answer(capsys, call, words.split())[0] == 0


def test_every_program_is_attacked():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    programs = {name.removeprefix("slim-").replace("-", "_") for name in scripts}
    assert {call.split()[0] for call in CALLS} == programs
    commands = next(a for a in parser_of("prepare_data")._actions if isinstance(a, argparse._SubParsersAction)).choices
    assert {call.split()[1] for call in CALLS if call.startswith("prepare_data")} == set(commands)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (MemoryError("2 GB"), "error: out of memory (2 GB): ask for smaller or fewer images"),
        (PermissionError(13, "Permission denied", "a.png"), "error: a.png: Permission denied"),
    ],
)
def test_what_the_machine_refuses_is_one_line(raised, said, capsys):
    def main():
        raise raised

    with pytest.raises(SystemExit) as ended:
        command_line.run(main)
    assert ended.value.code == 2 and capsys.readouterr().err == f"{said}\n"
