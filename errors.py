"""The one exception that means: the user can mend this. The scripts print its text and exit with code 2."""

from collections.abc import Iterable


class UserError(Exception):
    """Says what was wrong, with the value and the file, and what to do about it."""


def some(names: Iterable[str], most: int = 10) -> str:
    """Names in a line for an error's text: the first ones, and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
