"""What values an option takes: how one is read from a command line's text, and which are accepted from Python."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from errors import UserError

NONE = "none"  # the value of an option, where its being None means that it is told elsewhere
LARGEST = 2**31 - 1  # what counts, sizes and seeds may be at most: more than any machine has of anything


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
            raise OptionError(f"{_reason(error)}, got {text}") from error


def _reason(error: Exception) -> str:
    """What an option's value must be. Python's own errors of int() and float() do not say it."""
    text = str(error)
    return text if text.startswith("must") else "must be a number"


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

    Its values are checked when it is made, wherever they come from. Raises OptionError.

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
    except (ValueError, TypeError) as error:
        raise OptionError(f"{name} {error}. Received: {value!r}") from error
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


def number(low: float = 0.0, high: float = math.inf, *, above: bool = False, below: bool = False) -> Kind:
    """Finite numbers from `low` to `high`, without the one or the other where `above` or `below`."""
    bounds = ([f"above {low:g}" if above else f"{low:g} or more"] if math.isfinite(low) else []) + (
        [f"below {high:g}" if below else f"at most {high:g}"] if math.isfinite(high) else []
    )

    def accept(value: Any) -> float:
        value = float(value)
        inside = (low < value if above else low <= value) and (value < high if below else value <= high)
        if not (math.isfinite(value) and inside):
            raise ValueError(f"must be a number, {' and '.join(bounds)}")
        return value

    return Kind(float, accept, "X")


def or_none(of: Kind) -> Kind:
    """The values of one kind, and the word "none"."""

    def accept(value: Any) -> Any:
        try:
            return NONE if value == NONE else of.accept(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{_reason(error)}, or {NONE}") from error

    return Kind(lambda text: NONE if text == NONE else of.read(text), accept, f"{of.takes}|{NONE}")


def several(of: Kind, takes: str, count: int | None = None, *, empty: bool = False) -> Kind:
    """Comma-separated values of one kind → tuple; `count` of them where that is given."""

    def read(text: str) -> tuple:
        return tuple(of.read(part.strip()) for part in text.split(",") if part.strip())

    def accept(values: Any) -> tuple:
        if isinstance(values, (str, int, float)):
            raise ValueError(f"must be a list, {takes}")
        values = tuple(of.accept(value) for value in values)
        if (count is not None and len(values) != count) or not (values or empty):
            raise ValueError(f"must be {takes}")
        return values

    return Kind(read, accept, takes)


def _text(value: Any) -> str:
    text = str(value)
    if not text:
        raise ValueError("must not be empty")
    return text


TEXT = Kind(str, _text)  # paths, too
POSITIVE_INT = whole(1)
NONNEGATIVE_INT = whole(0)
POSITIVE = number(above=True)
NONNEGATIVE = number()
SHARE = number(0, 1, above=True)


def _class_weights(value: Any) -> str | tuple[float, ...]:
    return value if isinstance(value, str) and value else several(NONNEGATIVE, "W0,W1,…").accept(value)


CLASS_WEIGHTS = Kind(str, _class_weights, "W0,W1,…")


def _range(values: Any) -> tuple[float, float]:
    low, high = several(POSITIVE, "LOW,HIGH", 2).accept(values)
    if low > high:
        raise ValueError("must be LOW,HIGH with LOW no more than HIGH")
    return low, high


RANGE = Kind(several(POSITIVE, "LOW,HIGH", 2).read, _range, "LOW,HIGH")


def _value_range(values: Any) -> tuple[float, float]:
    low, high = several(number(-math.inf), "LOW,HIGH", 2).accept(values)
    if low >= high:
        raise ValueError("must be LOW,HIGH with LOW less than HIGH")
    return low, high


VALUE_RANGE = Kind(several(number(-math.inf), "LOW,HIGH", 2).read, _value_range, "LOW,HIGH")
INTS = several(POSITIVE_INT, "A,B,C", empty=True)
SCALES = several(number(0, 8, above=True), "S,…")


GRID = Kind(lambda text: () if text.strip() == "none" else INTS.read(text), INTS.accept, "A,B,C|none")
SIZE = several(POSITIVE_INT, "H,W", 2)
MEAN = several(number(0, 255), "R,G,B", 3)


def _scopes(values: Any) -> tuple[str, ...]:
    given = [values] if isinstance(values, str) else list(values)
    return tuple(part.strip().strip("/") for text in given for part in text.split(",") if part.strip().strip("/"))


SCOPES = Kind(_scopes, _scopes, "SCOPE,…")


def _names(values: Any) -> tuple[str, ...]:
    given = values.split(",") if isinstance(values, str) else values
    return tuple(str(name).strip() for name in given if str(name).strip())


NAMES = Kind(_names, _names, "CLASS,…")


def _hosts(values: Any) -> tuple[str, ...]:
    hosts = tuple(part.strip() for part in (values.split(",") if isinstance(values, str) else values) if part.strip())
    for address in hosts:
        name, _, port = address.rpartition(":")
        if not name or not port.isdecimal():
            raise ValueError(f"must be ADDRESS:PORT, not {address!r}")
    return hosts


HOSTS = Kind(_hosts, _hosts, "ADDRESS:PORT,…")


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


RENAMES = Kind(_read_renames, _renames, "OLD=NEW")


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
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    try:
        return {int(value): int(label) for value, _, label in pairs}
    except ValueError as error:
        raise ValueError("must be VALUE=CLASS,…, numbers from 0 to 255") from error


def _labels(pairs: Any) -> dict[int, int]:
    return {LABEL.accept(value): LABEL.accept(label) for value, label in pairs.items()}


LABELS = Kind(_read_labels, _labels, "VALUE=CLASS,…")


def _read_feeds(text: str) -> dict[str, float]:
    name, _, value = text.rpartition("=")
    if not name:
        raise ValueError("must be NAME=NUMBER")
    try:
        return {name: float(value)}
    except ValueError as error:
        raise ValueError("must be NAME=NUMBER") from error


FEEDS = Kind(_read_feeds, lambda pairs: {str(name): float(value) for name, value in pairs.items()}, "NAME=NUMBER")
