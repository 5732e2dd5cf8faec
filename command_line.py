"""What the scripts' command lines share: argument types, and errors that are said instead of traced back."""

import argparse
import importlib
import os
import sys
import traceback
from collections import defaultdict
from pathlib import Path

from engine.startup import quiet_tensorflow
from errors import UserError


def run(main):
    """Calls `main()` and exits with what it returns; a user's mistake is printed and exits with code 2."""
    quiet_tensorflow()
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
    except Exception:
        if not _is_one_of_several():
            raise
        traceback.print_exc()  # which nobody does after os._exit
        code = 1
    if code and _is_one_of_several():
        sys.stderr.flush()
        os._exit(code)  # the usual end would wait for the others, for minutes, where they wait for this one
    sys.exit(code)


def console() -> None:
    """What a console name starts (pyproject.toml): the program of that name, slim-train-seg is train_seg.py."""
    name = Path(sys.argv[0]).stem.removeprefix("slim-").replace("-", "_")
    run(importlib.import_module(name).main)


def _is_one_of_several():
    """Whether other processes share this one's run (`training.distribution`)."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


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


def positive_float(text):
    """An argparse type: a finite number above 0."""
    value = nonnegative_float(text)
    if not value:
        raise argparse.ArgumentTypeError("must be above 0, got 0")
    return value


def fraction(text):
    """An argparse type: a number above 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text}")
    return value


def positive_range(text):
    """An argparse type: "0.5,2" → (0.5, 2.0)."""
    low, high = (positive_float(part) for part in text.split(","))
    if low > high:
        raise argparse.ArgumentTypeError(f"must be LOW,HIGH with LOW no more than HIGH, got {text}")
    return low, high


def int_list(text):
    """An argparse type: "1,2,4" → (1, 2, 4); "" → ()."""
    return tuple(positive_int(part) for part in text.split(",") if part.strip())


def scale_list(text):
    """An argparse type: "0.5,1,1.5" → (0.5, 1.0, 1.5)."""
    scales = tuple(float(part) for part in text.split(","))
    if not all(0 < scale <= 8 for scale in scales):
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 8, got {text}")
    return scales


def scope_list(text):
    """An argparse type: comma-separated scopes → tuple of str."""
    return tuple(part.strip().strip("/") for part in text.split(",") if part.strip())


def host_list(text):
    """An argparse type: "a:1,b:2" → ("a:1", "b:2")."""
    hosts = tuple(part.strip() for part in text.split(",") if part.strip())
    for address in hosts:
        name, _, port = address.rpartition(":")
        if not name or not port.isdecimal():
            raise argparse.ArgumentTypeError(f"must be ADDRESS:PORT, got {address}")
    return hosts


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
    group.add_argument("--ema", action="store_true", help="take the moving averages of variables where there are any")
    return group


MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # the paper's, section 4.1


def add_averaging_arguments(parser):
    """--scales or --multi-scale, --flip, --window: how often an image is looked at (`OpenedSegmenter.predictor`)."""
    group = parser.add_argument_group("how often an image is looked at; probabilities are averaged")
    scales = group.add_mutually_exclusive_group()
    scales.add_argument(
        "--scales", type=scale_list, default=(1.0,), metavar="S,…", help="sizes at which the image is looked at [1]"
    )
    scales.add_argument(
        "--multi-scale",
        action="store_const",
        dest="scales",
        const=MULTI_SCALE,
        help="the paper's scales: " + ",".join(f"{scale:g}" for scale in MULTI_SCALE),
    )
    group.add_argument("--flip", action="store_true", help="the image and its mirror image")
    group.add_argument(
        "--window",
        type=positive_int,
        metavar="PIXELS",
        help="larger pictures go through the backbone by windows of this side, where memory does not hold them whole; "
        "the head sees all of them at once [whole]",
    )


def add_segmenter_arguments(parser):
    """What tells how a checkpoint's DeepLab v3 is built and fed for inference (`inference.opening.open_segmenter`)."""
    group = parser.add_argument_group("model")
    group.add_argument("--output-stride", type=int, choices=(8, 16, 32), help="[the run's, else 16]")
    group.add_argument("--multi-grid", type=int_list, help="dilations of block4's units [the run's, else 1,2,4]")
    group.add_argument(
        "--features", choices=("postnorm", "block4"), help="what the head is fed [the run's, else postnorm]"
    )
    group.add_argument("--upsampling", choices=("align-corners", "half-pixel"), help="[the run's, else align-corners]")
    group.add_argument(
        "--crop-size",
        type=positive_int,
        help="images are padded to this square, larger ones by less; best a multiple of the output stride plus one, "
        "where features and pixels have their corners aligned [the run's, else 513]",
    )
    group.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="[%(default)s]")
    group.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="scopes of the checkpoint")
    group.add_argument("--ema", action="store_true", help="take the moving averages of variables")
    return group


def add_training_arguments(parser, *, steps, batch_size, learning_rate, weight_decay, run_dir, paper=None):
    """What both training scripts take: what is restored, schedule, what learns, the run directory.

    paper: {argument: what the paper has it at}, for the help texts.
    """
    paper = defaultdict(str, {name: f"; the paper's: {value}" for name, value in (paper or {}).items()})
    add_restore_arguments(parser).add_argument(
        "--allow-missing",
        type=scope_list,
        default=(),
        metavar="SCOPE,…",
        help="backbone scopes that may be missing in the checkpoint; any other that is stops the start",
    )
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument(
        "--steps", type=positive_int, default=steps, help=f"training steps{paper['steps']} [%(default)s]"
    )
    recipe.add_argument(
        "--batch-size", type=positive_int, default=batch_size, help=f"images a step{paper['batch_size']} [%(default)s]"
    )
    recipe.add_argument(
        "--accumulate",
        type=positive_int,
        default=1,
        metavar="N",
        help="a step's images are computed in N parts, one after the other: the memory of one part, and the gradient "
        "of the whole, but for batch norm's statistics (see --freeze-bn) and the choice of --hard-pixels [%(default)s]",
    )
    recipe.add_argument(
        "--learning-rate",
        type=nonnegative_float,
        default=learning_rate,
        help=f"base rate{paper['learning_rate']} [%(default)s]",
    )
    recipe.add_argument(
        "--power",
        type=nonnegative_float,
        default=0.9,
        help=f"of the poly schedule, (1 - step/steps)^power{paper['power']} [%(default)s]",
    )
    recipe.add_argument(
        "--warmup-steps",
        type=nonnegative_int,
        default=0,
        metavar="N",
        help=f"the rate rises in a line over the first N steps{paper['warmup_steps']} [%(default)s]",
    )
    recipe.add_argument(
        "--momentum", type=nonnegative_float, default=0.9, help=f"TensorFlow 1's{paper['momentum']} [%(default)s]"
    )
    recipe.add_argument(
        "--weight-decay",
        type=nonnegative_float,
        default=weight_decay,
        help="L2 on convolution kernels: half the sum of squares joins the loss, as TensorFlow 1 and the paper have it"
        f"{paper['weight_decay']} [%(default)s]",
    )
    recipe.add_argument(
        "--clip-norm",
        type=positive_float,
        metavar="NORM",
        help=f"gradients are scaled down to this norm, over all of them at once{paper['clip_norm']} [none]",
    )
    recipe.add_argument(
        "--bn-decay",
        type=nonnegative_float,
        help=f"decay of batch norm's moving statistics{paper['bn_decay']} "
        "[0.9997 at 30,000 steps, for fewer what forgets as much]",
    )
    recipe.add_argument("--seed", type=nonnegative_int, default=0, help="same seed, same losses [%(default)s]")
    recipe.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="[%(default)s]")

    learns = parser.add_argument_group("what learns")
    scopes = {"type": scope_list, "default": (), "metavar": "SCOPE,…"}
    learns.add_argument(
        "--train", choices=("all", "new"), default="all", help="everything, or only what was not restored [%(default)s]"
    )
    learns.add_argument("--freeze", **scopes, help="these scopes stay as they are, batch norm statistics included")
    learns.add_argument("--train-only", **scopes, help="only these scopes learn")
    learns.add_argument(
        "--freeze-bn",
        nargs="?",
        const="all",
        choices=("all", "statistics"),
        help="batch norm keeps its moving statistics (and gamma and beta, unless only `statistics` is asked for)"
        f"{paper['freeze_bn']}",
    )
    learns.add_argument(
        "--restored-lr",
        type=nonnegative_float,
        default=1.0,
        metavar="FACTOR",
        help="on the learning rate of what was restored [%(default)s]",
    )

    run_group = parser.add_argument_group("run")
    run_group.add_argument("--run-dir", default=run_dir, help="where all of the run goes; it resumes [%(default)s]")
    run_group.add_argument("--dry-run", action="store_true", help="stop after the report, before anything is written")
    run_group.add_argument("--log-every", type=positive_int, default=20, help="steps [%(default)s]")
    run_group.add_argument("--save-every", type=positive_int, default=500, help="steps [%(default)s]")
    run_group.add_argument("--eval-every", type=positive_int, default=1000, help="steps [%(default)s]")
    run_group.add_argument(
        "--histograms", action="store_true", help="TensorBoard: weights' histograms and gradient norms by scope too"
    )
    run_group.add_argument("--keep", type=positive_int, default=2, help="how many last checkpoints stay [%(default)s]")
    run_group.add_argument("--workers", type=positive_int, default=2, help="threads that read images [%(default)s]")

    devices = parser.add_argument_group("devices; batch size and learning rate mean the same at any number of them")
    devices.add_argument(
        "--devices",
        type=positive_int,
        default=1,
        metavar="N",
        help="GPUs of this machine, and of each host, that share each batch; without any, so many parts of the CPU, "
        "to try things out [%(default)s]",
    )
    devices.add_argument(
        "--hosts",
        type=host_list,
        metavar="ADDRESS:PORT,…",
        help="machines that share each batch under KERAS_BACKEND=jax, the same on all of them; the first coordinates, "
        "and writes --run-dir, which all must see [KERAS_DISTRIBUTION_JOB_ADDRESSES]",
    )
    devices.add_argument(
        "--host",
        type=nonnegative_int,
        metavar="I",
        help="which of the --hosts this is, from 0 [KERAS_DISTRIBUTION_PROCESS_ID]",
    )


# What may differ when a run is continued: it changes no weight, or but by rounding.
FREE_ARGUMENTS = ("workers", "keep", "dry_run", "run_dir", "histograms", "cache", "devices", "hosts", "host")
