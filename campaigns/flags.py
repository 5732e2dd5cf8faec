"""Calls every program with thousands of hostile combinations of flags, and counts what becomes of each.

python campaigns/flags.py --attempts 3000 --runs 40

Each attempt is a call of a program that would work, but for one to four values: extreme, negative, no number, empty,
endless, of control characters, of another type or length, a device or a pipe, given twice. It runs in this process up
to where a network would get its variables. Of those that come so far, some are then really run on tiny data, each in a
process of its own with limits of time and memory.
"""

import argparse
import contextlib
import functools
import importlib
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import command_line
from campaigns.outcome import Outcome, Tally, outcome_of, told
from engine.kinds import NONNEGATIVE_INT

SMALL = "--crop-size 33 --eval-size 65 --batch-size 2 --steps 2 --workers 1"
CALLS = {  # by program and command: what works in the folder that `furnish` makes, inputs first
    "train_seg": f"--ckpt classifier.ckpt --data voc --run-dir run {SMALL} --eval-every 2",
    "train_cls": "--ckpt classifier.ckpt --data shapes --run-dir run --image-size 33 --batch-size 2 --steps 2",
    "eval_seg": "--ckpt segmenter.ckpt --data voc --crop-size 65",
    "predict_seg": "picture.jpg --ckpt segmenter.ckpt --out predicted --crop-size 65",
    "eval_cls": "--ckpt classifier.ckpt --data shapes --image-size 33 --classes shapes.txt",
    "predict_cls": "picture.jpg --ckpt classifier.ckpt --out predicted --image-size 33 --classes shapes.txt",
    "export_cls": "--ckpt classifier.ckpt --out exported --formats slim --image-size 33 --classes shapes.txt",
    "export_seg": "--ckpt segmenter.ckpt --out exported --formats slim --crop-size 65",
    "extract_features": "picture.jpg --ckpt classifier.ckpt --end-point MobilenetV2/expanded_conv_3/output "
    "--out features.npy --image-size 33",
    "inspect_ckpt": "classifier.ckpt",
    "verify_port": "old.pb picture.jpg --ckpt classifier.ckpt",
    "report_run": "run",
    "prepare_data sample": "--out drawn --train 2 --val 1",
    "prepare_data voc": "--out made --voc picture.jpg --sbd picture.jpg",
    "prepare_data pictures": "--images voc/JPEGImages --masks voc/SegmentationClass --out made",
    "prepare_data labelme": "--images voc/JPEGImages --out made",
    "prepare_data coco": "--file nothing.json --images voc/JPEGImages --out made",
    "prepare_data cvat": "--file nothing.json --images voc/JPEGImages --out made",
}
ONLY_PARSED = (  # of CALLS, as nothing is made for them
    "report_run",
    "prepare_data voc",
    "prepare_data labelme",
    "prepare_data coco",
    "prepare_data cvat",
)
NUMBERS = ["0", "-0", "1", "-1", "0.5", "2", "17", "nan", "inf", "-inf", "1e20", "1e-320", "1e400", "1_0", "٣", "0x10"]
NUMBERS += ["2147483647", "2147483648", "99999999999999999999"]
LISTS = ["1,2", "2,1", "1,1,1,1", "1,,2", ",", "1,", "0,0", "nan,1", "-1,1", "1e20,1e20", "0.5,inf", "300,300,300"]
LISTS += ["1=2", "1=2,1=3", "a=b", "a=b,a=c", "=", "a=", "a=nan", "a:1,a:1", ",".join(["1"] * 5000)]
TEXTS = [
    "",
    " ",
    "\0",
    "a\nb",
    "x" * 5000,
    "ü/名",
    "\udcff",
    "none",
    ".",
    "pipe",
    "zero",
    "~nobody/x",
    "-",
    "*",
    "[",
    "voc",
]
LONG = {"steps": 4, "batch_size": 32, "train": 20, "val": 20, "devices": 2, "workers": 64}
WIDE = ("crop_size", "eval_size", "image_size", "window", "size")


def furnish(folder):
    """Puts what CALLS name into a folder: two data sets, two checkpoints, a graph, a picture, and traps."""
    import keras
    import tensorflow as tf

    from data.sample import draw_image_folder, draw_voc
    from models.deeplab_v3 import deeplab_v3
    from models.mobilenet_v2 import mobilenet_v2
    from models.weight_init import save_checkpoint

    draw_voc(folder / "voc", train=12, val=2)
    draw_image_folder(folder / "shapes", train=2, val=1)
    (folder / "picture.jpg").write_bytes((folder / "voc/JPEGImages/val_00000.jpg").read_bytes())
    with shortened():
        save_checkpoint(mobilenet_v2(num_classes=4, depth_multiplier=0.35), folder / "classifier.ckpt")
        small = deeplab_v3("mobilenet_v2", 5, depth_multiplier=0.35)
        save_checkpoint(small, folder / "segmenter.ckpt")
    keras.utils.clear_session()
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(tf.float32, (None, None, None, 3), "images")
        tf.nn.conv2d(images, tf.zeros((3, 3, 3, 16)), 2, "SAME", name="MobilenetV2/Conv/Conv2D")
    (folder / "old.pb").write_bytes(graph.as_graph_def().SerializeToString())
    (folder / "shapes.txt").write_text("disc\nsquare\nstar\ntriangle\n")
    (folder / "nothing.json").write_text("{}")
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")  # not itself, which a rename would replace


def cleared(kept):
    """Removes what a call made in this folder, so that the next one finds it as it was."""
    for place in set(Path().iterdir()) - kept:
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()


def shortened():
    """A context within which MobileNet v2 ends with its seventh unit."""
    from models import mobilenet_v2

    return patch.object(mobilenet_v2, "INVERTED_RESIDUALS", mobilenet_v2.INVERTED_RESIDUALS[:7])


# What may be said


class Parsed(BaseException):
    """Carries a program's parser out of it."""


def parser_of(call):
    """The parser of "program" or "program command"."""
    program, *command = call.split()

    def caught(self, *_):
        raise Parsed(self)

    with patch.object(argparse.ArgumentParser, "parse_args", caught):
        try:
            importlib.import_module(program).parse_arguments([])
        except Parsed as found:
            parser = found.args[0]
    for word in command:
        commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = commands.choices[word]
    return parser


def type_of(parser, action):
    """What argparse makes the action's values with."""
    return parser._registry_get("type", action.type, action.type)


@functools.cache
def actions_of(call):
    """All flags and inputs of a program, but for --help."""
    return [action for action in parser_of(call)._actions if action.dest != "help"]


def with_value(call, words, action, value):
    """The words of a call that works, with this value of an action: of an input instead of its own."""
    if action.nargs == 0:
        return [*words, action.option_strings[0]]
    if action.option_strings:
        return [*words, f"{action.option_strings[0]}={value}"]
    place = [other for other in actions_of(call) if not other.option_strings].index(action)
    return [*words[:place], value, *words[place + 1 :]]


def attempt(call, rng):
    """→ the words of one hostile call, the program's own command first."""
    words = CALLS[call].split()
    for action in rng.sample(actions_of(call), k=min(rng.choice((1, 1, 1, 2, 3, 4)), len(actions_of(call)))):
        pools = [NUMBERS, LISTS, TEXTS, list(map(str, action.choices or NUMBERS))]
        for _ in range(rng.choice((1, 1, 1, 1, 2))):
            words = with_value(call, words, action, rng.choice(rng.choice(pools)))
    return [*call.split()[1:], *words]


# What becomes of it


class Reached(BaseException):
    """The call came to where a network would get its variables."""


class TooLong(BaseException):
    """The call has taken longer than any that is to be refused may."""


def _raise(what):
    def raising(*_, **__):
        raise what

    return raising


@contextlib.contextmanager
def without_networks():
    """Within it, networks have no variables, and what would fill or choose these raises Reached."""
    from models.network import Network

    places = (
        "inference.opening.checkpoint_guided_init",
        "training.run.initialize",
        "training.run.choose_what_learns",
        "porting.inspection.coverage",
        "porting.verify.checkpoint_guided_init",
        "models.taps.tap",
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(shortened())
        stack.enter_context(patch.object(Network, "build", lambda self, *_: None))
        for place in places:
            importlib.import_module(".".join(place.split(".")[:2]))
            stack.enter_context(patch(place, _raise(Reached)))
        yield


def judged(call, words, seconds=20):
    """→ (Outcome, standard error) of a call in this process."""
    main = importlib.import_module(call.split()[0]).main
    said, code, before = io.StringIO(), 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    previous = signal.signal(signal.SIGALRM, _raise(TooLong))
    signal.alarm(seconds)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            command_line.run(lambda: main(words))
    except SystemExit as ended:
        code = ended.code or 0
    except Reached:
        pass
    except TooLong:
        return Outcome.HANG, said.getvalue()
    except BaseException:
        return Outcome.TRACEBACK, traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > 2e6:  # kilobytes
        return Outcome.MEMORY, said.getvalue()
    return told(code, said.getvalue(), good_codes=(0, 1)), said.getvalue()


def is_short(call, words):
    """Whether a call asks for so little that it must end within the limits."""
    args = vars(importlib.import_module(call.split()[0]).parse_arguments(words))
    most = LONG | dict.fromkeys(WIDE, 300)
    counts = {name: args.get(name) for name in most}
    return len(args.get("scales", ())) < 5 and all(
        not isinstance(count, int) or count <= most[name] for name, count in counts.items()
    )


def run(call, words):
    """→ (Outcome, standard error) of a call in a process of its own, which really does what is asked for."""
    command = [sys.executable, str(Path(__file__).resolve()), "--really", call.split()[0], "--", *words]
    return outcome_of(command, seconds=180, gigabytes=6, good_codes=(0, 1))


def attack(attempts, rng, tally, show=lambda *_: None):
    """Adds so many attempts, in this folder, to the tally. → [(call, words)] of those that nothing refused"""
    furniture, accepted = set(Path().iterdir()), []
    for number in range(attempts):
        call = rng.choice(list(CALLS))
        words = attempt(call, rng)
        outcome, said = judged(call, words)
        cleared(furniture)
        tally.add(call, outcome, shown(words), said)
        show(number, call, outcome)
        if outcome is Outcome.ACCEPTED:
            accepted.append((call, words))
    return accepted


def run_some(accepted, runs, rng, tally, show=lambda *_: None):
    """Adds so many of the accepted calls, really run in this folder, to the tally."""
    furniture = set(Path().iterdir())
    short = [
        (call, words)
        for call, words in accepted
        if "prepare_data" not in call and is_short(call, words) and not any("\0" in word for word in words)
    ]
    for call, words in rng.sample(short, k=min(runs, len(short))):
        outcome, said = run(call, words)
        cleared(furniture)
        tally.add(f"{call}, really", outcome, shown(words), said)
        show("run", call, outcome)


def shown(words):
    """A call's words as a failure names them."""
    return " ".join(repr(word)[:80] if not word.isprintable() or not word else word[:80] for word in words)


def parse_arguments(argv=None):
    parser = command_line.ProgramParser(__doc__)
    count = command_line.argument_type(NONNEGATIVE_INT)
    parser.add_argument("--attempts", type=count, default=3000, help="in this process [%(default)s]")
    parser.add_argument("--runs", type=count, default=40, help="of those that were accepted [%(default)s]")
    parser.add_argument("--seed", type=count, default=0, help="[%(default)s]")
    parser.add_argument("--really", metavar="PROGRAM", help="run this program, with the words behind --")
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_arguments(argv)
    if args.really:
        with shortened():
            return importlib.import_module(args.really).main(args.words)
    rng, tally = random.Random(args.seed), Tally()

    def show(*what):
        print(*what, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        furnish(Path(folder))
        with without_networks():
            accepted = attack(args.attempts, rng, tally, show)
        run_some(accepted, args.runs, rng, tally, show)
    print(tally)
    return tally.exit_code


if __name__ == "__main__":
    command_line.run(main)
