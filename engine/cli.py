"""What the scripts' command lines share: argument types, and errors that are said instead of traced back."""

import argparse
import os
import sys

from errors import UserError


def run(main):
    """Calls `main()` and exits with what it returns; a user's mistake is printed and exits with code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes; its errors stay
    try:
        code = main()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def positive_int(text):
    """An argparse type: 1, 2, 3 …"""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text}")
    return value


def nonnegative_int(text):
    """An argparse type: 0, 1, 2 …"""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return value


def nonnegative_float(text):
    """An argparse type: a finite number that is not negative."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number, not negative, got {text}")
    return value


def int_list(text):
    """An argparse type: "1,2,4" → (1, 2, 4); "" → ()."""
    return tuple(positive_int(part) for part in text.split(",") if part.strip())


def scope_list(text):
    """An argparse type: comma-separated scopes → tuple of str."""
    return tuple(part.strip().strip("/") for part in text.split(",") if part.strip())


def renames(texts):
    """["old=new", "a=b,c=d"] → {"old": "new", …}; UserError for anything else."""
    pairs = {}
    for part in (part for text in texts for part in text.split(",") if part.strip()):
        old, equals, new = part.strip().partition("=")
        if not equals or not old.strip("/"):
            raise UserError(f"--rename takes OLD_SCOPE=NEW_SCOPE, got {part.strip()!r}")
        if old.strip("/") in pairs:
            raise UserError(f"--rename names {old.strip('/')!r} twice")
        pairs[old.strip("/")] = new.strip("/")
    return pairs


def add_restore_arguments(parser):
    """--include, --exclude, --rename, --ema: what is taken from a checkpoint."""
    group = parser.add_argument_group("what is restored")
    scopes = {"type": scope_list, "default": (), "metavar": "SCOPE,…"}
    group.add_argument("--include", **scopes, help="load only variables in these scopes (whole path segments)")
    group.add_argument("--exclude", **scopes, help="load no variable in these scopes")
    group.add_argument(
        "--rename",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="the checkpoint's scope OLD is the model's scope NEW, e.g. slim_resnet=resnet_v2_50",
    )
    group.add_argument("--ema", action="store_true", help="take the ExponentialMovingAverage copies where there are any")
    return group
