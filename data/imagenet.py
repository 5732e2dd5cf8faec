"""ImageNet's 1000 classes (ILSVRC 2012), in the order of slim's labels: their WordNet ids and WordNet's words for them.

imagenet_classes.tsv: an id and its words, tab between them, in ascending order of the ids, which is the order of slim's
labels from 1 on (datasets/build_imagenet_data.py, imagenet_lsvrc_2015_synsets.txt). Ids and words are WordNet's, taken
from the tables of timm 1.0 (`timm/data/_info`, Apache-2.0). Slim's networks have a class more, the background, as their
first; its ResNet v1 has not.
"""

from collections import Counter
from functools import cache
from pathlib import Path

BACKGROUND = "background"
_TABLE = Path(__file__).with_name("imagenet_classes.tsv")


def imagenet_names(num_classes: int) -> tuple[str, ...] | None:
    """The names of 1001 classes, background first, or of 1000; None for another number, which is not ImageNet's.

    A name is WordNet's first word for it: all of its words where another class begins so too, and the id besides
    where even those are another's.
    """
    return _with_background(_names(), BACKGROUND, num_classes)


def imagenet_ids(num_classes: int) -> tuple[str, ...] | None:
    """Their WordNet ids, such as n01440764, in the same order; the background has none, ""."""
    return _with_background(tuple(each for each, _ in _rows()), "", num_classes)


def _with_background(entries: tuple[str, ...], background: str, num_classes: int) -> tuple[str, ...] | None:
    return {len(entries) + 1: (background, *entries), len(entries): entries}.get(num_classes)


@cache
def _rows() -> tuple[tuple[str, str], ...]:
    lines = _TABLE.read_text(encoding="utf-8").splitlines()
    return tuple((each, words) for each, _, words in (line.partition("\t") for line in lines))


@cache
def _names() -> tuple[str, ...]:
    first = Counter(_first(words) for _, words in _rows())
    whole = Counter(words for _, words in _rows())
    return tuple(
        words.partition(",")[0] if first[_first(words)] == 1 else words if whole[words] == 1 else f"{words} ({each})"
        for each, words in _rows()
    )


def _first(words: str) -> str:
    return words.partition(",")[0].lower()
