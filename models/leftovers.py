"""Nothing loads into a network it was not trained in: what a checkpoint lacks, and what a network leaves of it."""

import re
from collections import Counter
from collections.abc import Iterable

from models.checkpoint import CheckpointError
from models.scopes import check_scopes, clean_scopes, first_match
from models.weight_init import LOADED, MISMATCH, UNUSED, Entry, Report

_SHOWN = 4
# What a leftover is a part of, by its name; for people.
_PARTS = (
    (re.compile(r"(?:^|/)decoder/"), "DeepLab v3+"),
    (re.compile(r"(?:^|/)meta_architecture/"), "a dense prediction cell"),
    (re.compile(r"(?:^|/)aspp\d"), "an atrous branch"),
    (re.compile(r"(?:^|/)image_pooling/"), "image pooling"),
    (re.compile(r"/block[5-9]/"), "a cascade of further blocks"),
    (re.compile(r"(?:^|/)(?:concat_projection|logits)/"), "a segmentation head"),
)


def part_of(name: str) -> str:
    """What a variable of this name is a part of, in words."""
    known = next((words for pattern, words in _PARTS if pattern.search(name)), None)
    return known or "nothing that is known here"


def leftovers(report: Report, allow_unused: Iterable[str] = ()) -> list[Entry]:
    """The checkpoint's variables that no variable of the model took, and of which no harmless kind is known.

    Args:
        allow_unused: scopes of the checkpoint that may stay unused. Raises ScopeError for one that holds nothing.
    """
    scopes = clean_scopes(allow_unused)
    check_scopes(scopes, [entry.source for entry in report.entries if entry.source], "allow-unused scope")
    return [entry for entry in report.of(UNUSED) if not entry.why and not first_match(entry.name, scopes)]


def check_meaning(report: Report, allow_unused: Iterable[str] = ()) -> None:
    """Raises CheckpointError unless all of the model came from the checkpoint, and all of that into the model.

    Args:
        allow_unused: as in `leftovers`.
    """
    absent = report.absent()
    if absent:
        named = _some(_with(entry.name, _misfit(report, entry)) for entry in absent)
        raise CheckpointError(
            f"{report.checkpoint}: {len(absent)} of the model's variables are not in it: {named}"
            f"{_fragments(report, absent)}\n{report.text(most=_SHOWN)}"
        )
    left = leftovers(report, allow_unused)
    if left:
        scopes = sorted({entry.name.split("/")[0] for entry in left})
        raise CheckpointError(
            f"{report.checkpoint}: this network has no place for {len(left)} of its variables: "
            f"{_some(_with(entry.name, part_of(entry.name)) for entry in left)}. A network that was trained with them "
            f"computes something else without; if that is wanted: --allow-unused {','.join(scopes)}\n"
            f"{report.text(most=_SHOWN)}"
        )


def _misfit(report: Report, entry: Entry) -> str:
    """How a variable that is in the checkpoint does not fit."""
    return report.reason(entry) if entry.status == MISMATCH else ""


def _with(name: str, words: str) -> str:
    return f"{name} ({words})" if words else name


def _fragments(report: Report, absent: list[Entry]) -> str:
    """What is there of those parts of the model that are mostly absent."""
    texts = []
    for part, count in sorted(Counter(_part(entry) for entry in absent).items()):
        there = [entry.source or "" for entry in report.of(LOADED) if _part(entry) == part]
        if 0 < len(there) < count:
            texts.append(f"; all it has of {part} is {_some(there)}")
    return "".join(texts)


def _part(entry: Entry) -> str:
    """The first scope of a variable of the model."""
    return (entry.variable or "").split("/")[0]


def _some(texts: Iterable[str]) -> str:
    texts = list(texts)
    return ", ".join(texts[:_SHOWN]) + (" …" if texts[_SHOWN:] else "")
