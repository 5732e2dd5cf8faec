"""The one exception that means: the user can mend this. The scripts print its text and exit with code 2."""

from collections.abc import Iterable


class UserError(Exception):
    """Says what was wrong, with the value and the file, and what to do about it; a text without end is cut."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) < 4000 else f"{text[:2500]} … {text[-1000:]}"


def some(names: Iterable[str], most: int = 10) -> str:
    """Names in a line for an error's text: the first ones, and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
