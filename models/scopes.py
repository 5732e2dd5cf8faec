"""Scopes: variable names cut at "/". `resnet_v2_50/block1` holds `…/block1/unit_1/…`, never `…/block10`."""

from collections.abc import Collection, Iterable, Mapping

from errors import UserError


class ScopeError(UserError, ValueError):
    """A scope that selects nothing, or that two rules fight over."""


def within(name: str, scope: str) -> bool:
    """Whether the variable `name` is `scope` or lies in it."""
    return name == scope or name.startswith(scope + "/")


def first_match(name: str, scopes: Iterable[str]) -> str | None:
    """The first of `scopes` that `name` lies in, or None."""
    return next((scope for scope in scopes if within(name, scope)), None)


def rename_scope(name: str, rename: Mapping[str, str]) -> str:
    """`name` with its longest matching scope of `rename` {old scope: new scope} replaced."""
    scope = max((old for old in rename if within(name, old)), key=len, default=None)
    return name if scope is None else (rename[scope] + name[len(scope) :]).strip("/")


def check_scopes(scopes: Iterable[str], names: Collection[str], purpose: str) -> None:
    """Raises ScopeError when one of `scopes` holds none of `names`: a mistyped scope must not pass in silence."""
    for scope in scopes:
        if not any(within(name, scope) for name in names):
            level = scope.count("/") + 1
            known = sorted({"/".join(name.split("/")[:level]) for name in names})
            shown = ", ".join(known[:12]) + (" …" if len(known) > 12 else "")
            raise ScopeError(f"{purpose} {scope!r} matches no variable; scopes of that depth are: {shown}")


def clean_scopes(scopes: str | Iterable[str] | None) -> tuple[str, ...]:
    """Scopes as given by a user, one string or several, comma-separated or not → tuple without trailing slashes."""
    given = [scopes] if isinstance(scopes, str) else list(scopes or ())
    return tuple(part.strip().strip("/") for scope in given for part in scope.split(",") if part.strip().strip("/"))
