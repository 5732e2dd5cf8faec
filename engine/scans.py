"""Where what was found of data sets is remembered, so that masks are read once (`data.report`)."""

from pathlib import Path

from engine.download import cache_folder


def scan_folder() -> Path:
    """The folder of what was found of data sets; it need not exist."""
    return cache_folder() / "scans"
