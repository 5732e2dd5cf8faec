"""What values an option takes: how one is read from a command line's text, and which are accepted from Python."""

import dataclasses
import math
import os
import stat
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from errors import UserError

NONE = "none"  # the value of an option, where its being None means that it is told elsewhere
LARGEST = 2**31 - 1  # what counts and seeds may be at most: what NumPy, TensorFlow and Keras all take
LARGEST_NUMBER = 1e9  # what numbers may be at most, unless a kind says otherwise
MOST = 32  # values of a list


class OptionError(UserError, ValueError):
    """A value that an option does not take."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of values.

    Attributes:
        read: text → value; ValueError where it says none.
        accept: value → the value as it is kept (lists become tuples); ValueError says what it must be.
        takes: what the values look like, for help texts: "A,B,C".
    """

    read: Callable[[str], Any]
    accept: Callable[[Any], Any]
    takes: str | None = None

    def from_text(self, text: str) -> Any:
        """The accepted value that a command line's text means; OptionError says what was wrong with it."""
        try:
            return self.accept(self.read(text))
        except (ValueError, TypeError, OverflowError) as error:
            raise OptionError(f"{_reason(error)}, got {_on_one_line(text)}") from error


def _reason(error: Exception) -> str:
    """What an option's value must be. Python's own errors of int() and float() do not say it."""
    text = str(error)
    return text if text.startswith("must") else "must be a number"


def _on_one_line(text: str) -> str:
    """What was typed, as an error can show it."""
    shown = text if text.isprintable() and text else repr(text)
    return shown if len(shown) <= 200 else f"{shown[:200]} … ({len(text)} characters)"


def option(default: Any, meaning: str, kind: Kind | None = None, **more: Any) -> Any:
    """A field of `Options`.

    Args:
        meaning: one line.
        kind: of its values; None for a flag, which is True or False.
        **more: attributes of `Option`.
    """
    made = {"default_factory": type(default)} if isinstance(default, dict) else {"default": default}
    return dataclasses.field(**made, metadata={"option": Option(meaning, kind, **more)})


@dataclasses.dataclass(frozen=True)
class Option:
    """What there is to say of one option beside its name, type and default.

    Attributes:
        meaning: one line. kind: of its values; None: it is True or False.
        unit: of its values. paper: what the paper has it at (Chen et al. 2017, section 4), as text.
        shown: the default as help texts show it, where the value itself says too little.
        choices: the only values there are. bare: what the flag without a value means.
        takes: what its values look like, where its kind does not say it.
        repeated: whether the flag may be given several times, its dicts joined.
        also: other names of the flag.
        constants: {flag: (value, help)}: flags that stand for one value of this option.
        free: whether it may differ when a run is continued: it changes no weight, or but by rounding.
    """

    meaning: str
    kind: Kind | None = None
    unit: str | None = None
    paper: str | None = None
    shown: str | None = None
    choices: tuple = ()
    bare: Any = None
    takes: str | None = None
    repeated: bool = False
    also: tuple[str, ...] = ()
    constants: Mapping[str, tuple[Any, str]] = dataclasses.field(default_factory=dict)
    free: bool = False


class Options:
    """A group of options on one subject: a frozen dataclass whose fields are made by `option`.

    Its values, and whether they go together (`check`), are checked when it is made, wherever they come from. Raises
    OptionError.

    Attributes:
        title: of the group, in help texts.
    """

    title: ClassVar[str]

    def __post_init__(self) -> None:
        """Checks every value, and keeps lists as tuples."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is not None or field.default is not None:
                object.__setattr__(self, field.name, _accepted(field.name, value, field.metadata["option"]))
        self.check()

    def check(self) -> None:
        """Raises OptionError where values that are right by themselves contradict each other."""


def _accepted(name: str, value: Any, described: Option) -> Any:
    try:
        if value is None:
            raise ValueError("must not be None")
        if described.kind is None:
            if not isinstance(value, bool):
                raise ValueError("must be True or False")
        else:
            value = described.kind.accept(value)
        if described.choices and value not in described.choices:
            raise ValueError(f"must be one of {', '.join(map(str, described.choices))}")
    except (ValueError, TypeError, OverflowError) as error:
        raise OptionError(f"{name} {_reason(error)}. Received: {value!r}") from error
    return value


def described_options(group: Options | type[Options]) -> dict[str, Option]:
    """{name: Option} of a group, in order."""
    fields = dataclasses.fields(group)  # type: ignore[arg-type]
    return {field.name: field.metadata["option"] for field in fields}


def groups_of(several: Any) -> dict[str, Options]:
    """{field: group of options} of a dataclass that holds several groups, in order."""
    return {field.name: getattr(several, field.name) for field in dataclasses.fields(several)}


def recorded(*groups: Options, **more: Any) -> dict[str, Any]:
    """All options of several groups as one flat dict, as a run's `config.json` keeps them; `more` goes before."""
    flat = dict(more)
    for group in groups:
        flat |= {name: getattr(group, name) for name in described_options(group)}
    return flat


def changed(*groups: Options) -> list[str]:
    """The names of the options that are not at their groups' own defaults."""
    return [
        name for group in groups for name, value in recorded(group).items() if value != recorded(type(group)())[name]
    ]


def free_options(*groups: Options) -> set[str]:
    """The names of the options that may differ when a run is continued."""
    return {name for group in groups for name, described in described_options(group).items() if described.free}


def flag(name: str) -> str:
    """An option's flag: "run_dir" → "--run-dir"."""
    return "--" + name.replace("_", "-")


# Kinds


def whole(low: int = 0, high: int = LARGEST) -> Kind:
    """Whole numbers from `low` to `high`."""

    def accept(value: Any) -> int:
        if isinstance(value, bool) or int(value) != value:
            raise ValueError("must be a whole number")
        if not low <= value <= high:
            raise ValueError(f"must be {low} or more" if value < low else f"must be {high} or less")
        return int(value)

    def read(text: str) -> int:
        try:
            return int(text)
        except ValueError as error:
            raise ValueError("must be a whole number") from error

    return Kind(read, accept, "N")


def number(low: float = 0.0, high: float = LARGEST_NUMBER, *, above: bool = False, below: bool = False) -> Kind:
    """Finite numbers from `low` to `high`, without the one or the other where `above` or `below`."""
    bounds = f"{'above' if above else 'from'} {low:g} {'and below' if below else 'to'} {high:g}"

    def accept(value: Any) -> float:
        value = float(value)
        inside = (low < value if above else low <= value) and (value < high if below else value <= high)
        if not (math.isfinite(value) and inside):
            raise ValueError(f"must be a number {bounds}")
        return value

    return Kind(float, accept, "X")


def or_none(of: Kind) -> Kind:
    """The values of one kind, and the word "none"."""

    def accept(value: Any) -> Any:
        try:
            return NONE if value == NONE else of.accept(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{_reason(error)}, or {NONE}") from error

    return Kind(lambda text: NONE if text == NONE else of.read(text), accept, f"{of.takes}|{NONE}")


def several(of: Kind, takes: str, count: int | None = None) -> Kind:
    """Comma-separated values of one kind → tuple; `count` of them where that is given, else MOST at most."""

    def read(text: str) -> tuple:
        return tuple(of.read(part.strip()) for part in text.split(","))

    def accept(values: Any) -> tuple:
        if isinstance(values, (str, int, float)):
            raise ValueError(f"must be a list, {takes}")
        values = tuple(of.accept(value) for value in values)
        if (count is not None and len(values) != count) or not values:
            raise ValueError(f"must be {takes}")
        if len(values) > MOST:
            raise ValueError(f"must be {takes} of {MOST} values at most")
        return values

    return Kind(read, accept, takes)


def several_or_none(of: Kind, takes: str) -> Kind:
    """The same, or an empty tuple, which is the word "none" in a text."""
    some = several(of, takes)
    return Kind(
        lambda text: () if text.strip() == NONE else some.read(text),
        lambda values: () if isinstance(values, (tuple, list)) and not values else some.accept(values),
        f"{takes}|{NONE}",
    )


def _text(value: Any) -> str:
    text = str(value)
    if not text.strip():
        raise ValueError("must not be empty")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("must have no line breaks or other control characters")
    return text


def _path(value: Any) -> str:
    text = _text(value)
    try:
        mode = os.stat(os.path.expanduser(text)).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return text  # there is none yet, or it is a pattern, or a published name
    except UnicodeEncodeError as error:
        raise ValueError("must be a path that this system can have") from error
    except OSError as error:
        raise ValueError(f"must be a path that can be followed ({error.strerror})") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError("must be a file or a folder, and is a device, a pipe or a socket")
    return text


def _name(value: Any) -> str:
    text = _text(value)
    if len(text.encode(errors="surrogatepass")) > 200:  # a file may be named after it, of 255 bytes
        raise ValueError("must have 200 bytes at most")
    return text


TEXT = Kind(str, _name)
PATH = Kind(str, _path)  # of a file or folder that is there, or that can be; also whatever else `--ckpt` takes
POSITIVE_INT = whole(1)
NONNEGATIVE_INT = whole(0)
POSITIVE = number(above=True)
NONNEGATIVE = number()
SHARE = number(0, 1, above=True)
SMOOTHING = number(0, 1, below=True)  # of what was: momentum and decay, under which nothing is ever forgotten
PIXELS = whole(1, 32_768)  # a side; no larger picture can be read, and a square of it takes 13 GB
BATCH = whole(1, 65_536)  # images
CLASSES = whole(1, 32_768)
THREADS = whole(1, 1024)
DEVICES = whole(1, 16)  # of one host; a step of so many parts of a CPU takes minutes to compile
DILATION = whole(1, 512)


def _class_weights(value: Any) -> str | tuple[float, ...]:
    weights = several(NONNEGATIVE, "W0,W1,…")
    if not isinstance(value, str):
        return weights.accept(value)
    return weights.accept(weights.read(value)) if "," in value else _path(value)


CLASS_WEIGHTS = Kind(str, _class_weights, "W0,W1,…")


def ordered(of: Kind, gap: float = 0.0) -> Kind:
    """LOW,HIGH of one kind, HIGH no less than LOW and `gap`."""
    pair = several(of, "LOW,HIGH", 2)

    def accept(values: Any) -> tuple[float, float]:
        low, high = pair.accept(values)
        if high < low + gap or (gap and high == low):
            raise ValueError(f"must be LOW,HIGH with LOW {'less' if gap else 'no more'} than HIGH")
        return low, high

    return Kind(pair.read, accept, "LOW,HIGH")


RANGE = ordered(number(0.01, 100))
VALUE_RANGE = ordered(number(-LARGEST_NUMBER), 1e-9)
SCALES = several(number(0, 8, above=True), "S,…")
GRID = several_or_none(DILATION, "A,B,C")
SIZE = several(PIXELS, "H,W", 2)
MEAN = several(number(0, 255), "R,G,B", 3)


def _filled(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """`read`, but for a text that names nothing: from a command line that is a mistake, such as an unset variable."""

    def filled(text: str) -> Any:
        found = read(_text(text))
        if not found:
            raise ValueError("must not be empty")
        return found

    return filled


def _scopes(values: Any) -> tuple[str, ...]:
    given = [values] if isinstance(values, str) else list(values)
    return tuple(part.strip().strip("/") for text in given for part in text.split(",") if part.strip().strip("/"))


SCOPES = Kind(_filled(_scopes), _scopes, "SCOPE,…")


def _names(values: Any) -> tuple[str, ...]:
    given = values.split(",") if isinstance(values, str) else values
    return tuple(str(name).strip() for name in given if str(name).strip())


NAMES = Kind(_filled(_names), _names, "CLASS,…")


def _outputs(values: Any) -> tuple[str, ...]:
    outputs, known = tuple(dict.fromkeys(_names(values))), ("labels", "probabilities", "logits")
    if not outputs or not set(outputs) <= set(known):
        raise ValueError(f"must be of {', '.join(known)}")
    return outputs


OUTPUTS = Kind(_filled(_names), _outputs, "NAME,…")


def _hosts(values: Any) -> tuple[str, ...]:
    hosts = tuple(part.strip() for part in (values.split(",") if isinstance(values, str) else values) if part.strip())
    for address in hosts:
        name, _, port = address.rpartition(":")
        if not name or not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 2**16):
            raise ValueError(f"must be ADDRESS:PORT, not {address!r}")
    if len(set(hosts)) < len(hosts):
        raise ValueError("must not name a host twice")
    return hosts


HOSTS = Kind(_filled(_hosts), _hosts, "ADDRESS:PORT,…")


def _read_renames(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        old, equals, new = part.partition("=")
        if not equals or not old.strip("/"):
            raise ValueError("must be OLD_SCOPE=NEW_SCOPE")
        if old.strip("/") in pairs:
            raise ValueError(f"must not name {old.strip('/')!r} twice")
        pairs[old.strip("/")] = new.strip("/")
    return pairs


def _renames(pairs: Any) -> dict[str, str]:
    return {str(old).strip("/"): str(new).strip("/") for old, new in pairs.items()}


RENAMES = Kind(_filled(_read_renames), _renames, "OLD=NEW")


def _read_labelled(text: str) -> dict[str, str]:
    pairs = [part.rpartition("=") for part in text.split(",") if part.strip()]
    if not pairs or not all(theirs.strip() and ours.strip() for theirs, _, ours in pairs):
        raise ValueError("must be THEIRS=OURS,…")
    return {theirs.strip(): ours.strip() for theirs, _, ours in pairs}


LABELLED = Kind(
    _read_labelled, lambda pairs: {str(theirs): str(ours) for theirs, ours in pairs.items()}, "THEIRS=OURS,…"
)


LABEL = whole(0, 255)


def _read_labels(text: str) -> dict[int, int]:
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        found = [(int(value), int(label)) for value, _, label in pairs]
    except ValueError as error:
        raise ValueError("must be VALUE=CLASS,…, numbers from 0 to 255") from error
    if len(dict(found)) < len(found):
        raise ValueError("must name each VALUE once")
    return dict(found)


def _labels(pairs: Any) -> dict[int, int]:
    return {LABEL.accept(value): LABEL.accept(label) for value, label in pairs.items()}


LABELS = Kind(_read_labels, _labels, "VALUE=CLASS,…")


FED = number(-LARGEST_NUMBER)


def _read_feeds(text: str) -> dict[str, float]:
    name, _, value = text.rpartition("=")
    if not name.strip():
        raise ValueError("must be NAME=NUMBER")
    return {_text(name): FED.read(value)}


FEEDS = Kind(_read_feeds, lambda pairs: {str(name): FED.accept(value) for name, value in pairs.items()}, "NAME=NUMBER")
