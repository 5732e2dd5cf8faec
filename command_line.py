"""What the programs' command lines share: flags made from groups of options, errors that are said, not traced back."""

import argparse
import atexit
import contextlib
import dataclasses
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from engine import stopping
from engine.kinds import PATH, Kind, Option, OptionError, Options, described_options, flag, groups_of
from engine.startup import quiet_tensorflow
from errors import UserError

Group = TypeVar("Group", bound=Options)
Several = TypeVar("Several")


def start(main: Callable[[], int | None]) -> None:
    """`run`, in a process that is there for nothing else: its last act is to leave, without freeing a million objects
    one by one, as Python would (0.1 s). What waits for its end is done before."""
    code = 1  # after a traceback
    atexit.register(lambda: _leave(code))  # registered first, called last
    try:
        run(main)
    except SystemExit as ended:
        if not isinstance(ended.code, str):
            code = ended.code or 0
        raise


def _leave(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(code)


def run(main: Callable[[], int | None]) -> None:
    """Calls `main()` and exits with what it returns, with 2 after a user's mistake, with 128 + N after signal N."""
    quiet_tensorflow()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text of this system's encoding
    with stopping.listening():
        try:
            code = main()
            if sys.stdout is not None:  # it may have been closed before the program began
                sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            code = _ended_by(error)
    if code and _is_one_of_several():
        _leave(code)  # the usual end would wait for the others, for minutes, where they wait for this one
    sys.exit(code)


def _ended_by(error: BaseException) -> int:
    """Says what ended a program → its exit code; raises the error again where it is nobody's mistake but ours."""
    if isinstance(error, KeyboardInterrupt) or stopping.received():  # a signal's error may be a thread's of TensorFlow
        number = stopping.received() or signal.SIGINT
        said = f": {error}" if isinstance(error, KeyboardInterrupt) and str(error) else ""
        print(f"stopped by {signal.Signals(number).name}{said}", file=sys.stderr)
        return 128 + number
    if isinstance(error, BrokenPipeError):  # the reader of our output, such as `head`, has seen enough
        _drop_output()
        return 0
    if isinstance(error, UserError):
        said = str(error)
    elif isinstance(error, MemoryError):
        said = f"out of memory ({error or 'no more to be had'}): ask for smaller or fewer images"
    elif isinstance(error, OSError) and error.filename is not None:
        said = f"{error.filename}: {error.strerror}"
    elif isinstance(error, OSError) and _is_full(sys.stdout):
        said = f"standard output: cannot be written ({error.strerror})"
        _drop_output()
    elif _is_one_of_several():
        traceback.print_exception(error)  # which nobody does after os._exit
        return 1
    else:
        raise error
    print(f"error: {said}", file=sys.stderr)
    return 2


def _is_full(stream: Any) -> bool:
    """Whether a stream takes no more."""
    try:
        stream.write(" ")
        stream.flush()
    except OSError:
        return True
    return False


def _drop_output() -> None:
    """Sends what is still to be printed nowhere, that the end of the process does not fail at it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console() -> None:
    """What a console name starts (pyproject.toml): the program of that name, slim-train-seg is train_seg.py."""
    name = Path(sys.argv[0]).stem.removeprefix("slim-").replace("-", "_")
    start(importlib.import_module(name).main)


def _is_one_of_several() -> bool:
    """Whether other processes share this one's run (`training.distribution`)."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


@dataclasses.dataclass(frozen=True)
class ArgumentType:
    """An argparse type of a kind of values."""

    kind: Kind

    def __call__(self, text: str) -> Any:
        """The value that the text means."""
        try:
            return self.kind.from_text(text)
        except OptionError as error:
            raise argparse.ArgumentTypeError(str(error)) from error


class ProgramParser(argparse.ArgumentParser):
    """A parser whose help begins with the program's own docstring, and whose errors are one line.

    What takes a value and says no type is a path.
    """

    def __init__(self, description: str | None = None, **more: Any) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **more)
        self.register("type", None, ArgumentType(PATH))
        self.register("type", Path, ArgumentType(Kind(PATH.read, lambda text: Path(PATH.accept(text)))))

    def add_subparsers(self, **more: Any) -> Any:
        """As ever; the words of a command are for the command's own parser to judge."""
        commands = super().add_subparsers(**more)
        commands.type = str
        return commands

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        shown = "".join(character if character.isprintable() else repr(character)[1:-1] for character in message)
        raise UserError(f"{shown}. --help lists what there is")


def argument_type(kind: Kind) -> ArgumentType:
    """What `add_argument` takes as its `type`."""
    return ArgumentType(kind)


def add_options(
    parser: argparse.ArgumentParser, group: Options, *, paper: bool = True, only: Collection[str] | None = None
) -> None:
    """Adds the flags of a group of options, under its title; their defaults are the group's values.

    Args:
        paper: whether the help texts say the paper's values.
        only: the names of the options that become flags; all if None.
    """
    section = parser.add_argument_group(group.title)
    for name, described in described_options(group).items():
        if only is None or name in only:
            _add_flag(section, name, described, getattr(group, name), paper)


def _add_flag(section: Any, name: str, described: Option, default: Any, paper: bool) -> None:
    text = f"{described.meaning}, {described.unit}" if described.unit else described.meaning
    text += f"; the paper's: {described.paper}" if paper and described.paper else ""
    settings: dict[str, Any] = {"dest": name, "default": default}
    if described.kind is None:
        action = "store_true" if default is False else argparse.BooleanOptionalAction
        text += f" [{flag(name)}]" if default else f" [{described.shown}]" if described.shown else ""
        section.add_argument(flag(name), action=action, help=_plain(text), **settings)
        return
    shown = described.shown if default is None else _as_text(default)
    settings |= {"help": _plain(f"{text} [{shown}]" if shown else text), "type": argument_type(described.kind)}
    if described.choices:
        settings["choices"] = described.choices
    else:
        settings["metavar"] = described.takes or described.kind.takes
    if described.bare is not None:
        settings |= {"nargs": "?", "const": described.bare}
    if described.repeated:
        settings["action"] = _Joined
    if described.constants:
        section = section.add_mutually_exclusive_group()
        for constant, (value, meaning) in described.constants.items():
            section.add_argument(
                constant, dest=name, action="store_const", const=value, default=default, help=_plain(meaning)
            )
    section.add_argument(flag(name), *described.also, **settings)


def add_models(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that names one or several models."""
    said = "checkpoint, archive, run, export or published name"
    parser.add_argument("--ckpt", required=True, nargs="+", metavar="MODEL", help=said)


def check_models(args: argparse.Namespace, of_one: Collection[str]) -> None:
    """Raises UserError where a model is named twice, or several with an option that is for one."""
    if len(set(args.ckpt)) < len(args.ckpt):
        raise UserError(f"--ckpt: a model is named twice: {' '.join(args.ckpt)}")
    if len(args.ckpt) > 1 and (refused := [flag(name) for name in of_one if getattr(args, name)]):
        raise UserError(f"{', '.join(refused)}: for one model only, --ckpt names {len(args.ckpt)}; call once for each")


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that lets an output folder hold files that no program of ours wrote (`files.output.claim`)."""
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that holds other files too")


def chosen(args: argparse.Namespace, group: type[Group]) -> Group:
    """The group of options that a command line chose; options that it has no flag for are at their defaults."""
    return group(**{name: getattr(args, name) for name in described_options(group) if hasattr(args, name)})


def add_groups(parser: argparse.ArgumentParser, several: Any, *, paper: bool = True) -> None:
    """Adds the flags of all groups of a dataclass that holds several, as `engine.options.SegmentationTraining`."""
    for group in groups_of(several).values():
        add_options(parser, group, paper=paper)


def chosen_groups(args: argparse.Namespace, several: Several) -> Several:
    """`several` with the options that a command line chose."""
    groups = {name: chosen(args, type(group)) for name, group in groups_of(several).items()}
    return dataclasses.replace(several, **groups)  # type: ignore[type-var]


class _Joined(argparse.Action):
    """The dicts of a flag that is given several times, as one."""

    def __call__(
        self, parser: argparse.ArgumentParser, args: argparse.Namespace, values: Any, flag: str | None = None
    ) -> None:
        before = getattr(args, self.dest) or {}
        twice = [key for key in values if key in before]
        if twice:
            parser.error(f"argument {flag}: names {twice[0]!r} twice")
        setattr(args, self.dest, before | values)


def _as_text(value: Any) -> str:
    """A default as it would be typed; nothing where it is empty."""
    if isinstance(value, tuple):
        return ",".join(map(_as_text, value))
    if isinstance(value, dict):
        return ",".join(f"{old}={new}" for old, new in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    return text.replace("%", "%%")
