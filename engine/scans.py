"""Where what was found of data sets is remembered, so that masks are read once (`data.report`)."""

import os
from pathlib import Path

CACHE = "SLIM_DEEPLAB_CACHE"  # an environment variable that names a folder for all that is kept between calls


def scan_folder() -> Path:
    """The folder of what was found of data sets; it need not exist."""
    platforms = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "slim-deeplab")
    return Path(os.environ.get(CACHE) or platforms).expanduser() / "scans"
