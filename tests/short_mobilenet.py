"""train_seg.py with a MobileNet v2 that ends with its seventh unit: `python -m tests.short_mobilenet FLAGS`.

Its training step is traced and compiled in less than half the time.
"""

import sys
from unittest.mock import patch

import command_line
import train_seg


def shortened():
    """A context within which the network is short."""
    from models import mobilenet_v2

    return patch.object(mobilenet_v2, "INVERTED_RESIDUALS", mobilenet_v2.INVERTED_RESIDUALS[:7])


def main(flags):
    with shortened():
        train_seg.main(flags)


if __name__ == "__main__":
    command_line.run(lambda: main(sys.argv[1:]))
