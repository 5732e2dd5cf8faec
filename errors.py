"""The one exception that means: the user can mend this. The scripts print its text and exit with code 2."""


class UserError(Exception):
    """Says what was wrong, with the value and the file, and what to do about it."""
