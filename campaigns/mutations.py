"""Damages files of every kind that the project reads, by thousands, and counts what its readers make of each.

python campaigns/mutations.py --count 10000 --seed 0

A file is damaged by flipped bits, cuts, zeros, insertions, removals, parts of itself elsewhere and numbers at their
extremes; a text also by what an editor's user does. Where a kind has a checksum, it must be refused or give what the
whole file gives; where it has none, it may also be taken. Each is read in a process that is watched: its time, its
memory, whether it dies. A refusal must name the file.
"""

import hashlib
import io
import json
import os
import pickle
import random
import resource
import signal
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import command_line
from campaigns.outcome import Outcome, Tally
from campaigns.processes import in_processes
from engine.kinds import NAMES, NONNEGATIVE_INT, PATH, POSITIVE_INT
from errors import UserError

SECONDS, BYTES = 60, 1_500_000_000
BATCH = 150  # files that one process reads
STRANGE = [None, True, -1, 0, 1e308, 10**30, "", "x" * 3000, "\0", "ü/名", "../../etc/passwd", [], {}, [[[]]], {"": 0}]


@dataclass
class Kind:
    """Files of one kind.

    Attributes:
        files: those that are damaged, one at a time.
        read: a function () → what is made of them, of what `repr` tells apart.
        whole: whether a damaged one may only be refused, or give what the whole one gives.
        text: whether it is damaged as a text too.
        names: what a refusal must name one of; the damaged file's own name always does.
        graph: whether it is a GraphDef, whose fields are damaged too.
    """

    files: list[Path]
    read: Callable[[], object]
    whole: bool = True
    text: bool = False
    names: list[str] = field(default_factory=list)
    graph: bool = False


# Damage


def damaged(content, rng, kind):
    if kind.text and rng.random() < 0.5:
        return edited(content, rng)
    if kind.graph and rng.random() < 0.7:
        return with_other_fields(content, rng)
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 8))):
        at = rng.randrange(len(content)) if content else 0
        count = min(rng.choice((1, 2, 4, 16, 300)), len(content) - at)
        end = at + count
        match rng.randrange(8):
            case 0 | 1:
                if content:
                    content[at] ^= 1 << rng.randrange(8)
            case 2:
                del content[rng.choice((at, len(content) - 1, 0)) :]
            case 3:
                content[at:end] = bytes(count)
            case 4:
                content[at:at] = rng.randbytes(count or 1)
            case 5:
                del content[at:end]
            case 6:
                other = rng.randrange(len(content)) if content else 0
                content[at:end] = content[other : other + count]
            case 7:
                number = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**24, 0x7F000000))
                content[at : at + 4] = number.to_bytes(4, rng.choice(("little", "big")))
    return bytes(content)


def edited(content, rng):
    """As somebody with an editor: another value, a line more, less, twice, elsewhere, in another encoding."""
    try:
        document = json.loads(content)
        if not isinstance(document, list | dict):
            raise ValueError
    except ValueError:
        lines = content.split(b"\n")
        at, odd = rng.randrange(len(lines)), rng.choice((b"", b"nan", b"-1", b"9" * 40, b"\0", b"\xff", "ü".encode()))
        match rng.randrange(5):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[rng.randrange(len(lines))])
            case 2:
                lines[at] = odd
            case 3:
                words = lines[at].split(b",")
                words[rng.randrange(len(words))] = odd
                lines[at] = b",".join(words)
            case 4:
                return b"\n".join(lines).decode(errors="replace").encode("utf-16")
        return b"\n".join(lines)
    for _ in range(rng.choice((1, 1, 2))):
        place = document
        while place:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            key = rng.choice(keys)
            if isinstance(place[key], list | dict) and place[key] and rng.random() < 0.8:
                place = place[key]
                continue
            if rng.random() < 0.2:
                del place[key]
            else:
                place[key] = rng.choice(STRANGE)
            break
    return json.dumps(document).encode()


def with_other_fields(content, rng):
    """A GraphDef that is one still, with fields of other values, left out or twice."""
    from google.protobuf.message import Message
    from tensorflow.core.framework.graph_pb2 import GraphDef

    graph = GraphDef.FromString(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = graph
        while fields := place.ListFields():
            name, value = rng.choice([(field.name, value) for field, value in fields])
            kind = place.DESCRIPTOR.fields_by_name[name]
            drops = rng.random() < 0.1
            if kind.message_type and kind.message_type.GetOptions().map_entry:
                key = rng.choice(sorted(value))
                if drops:
                    del value[key]
                    break
                place = value[key]
            elif kind.message_type and isinstance(value, Message):
                if drops:
                    place.ClearField(name)
                    break
                place = value
            elif kind.message_type:
                at = rng.randrange(len(value))
                if drops:
                    del value[at]
                    break
                place = value[at]
            else:
                _put_another(place, name, value, rng)
                break
    return graph.SerializeToString()


def _put_another(message, name, value, rng):
    """Another value in a field of numbers or names, or one of several; what is no value of its type clears it."""
    several = not isinstance(value, str | bytes | int | float)
    old = rng.choice(value) if several else value
    numbers = (0, -1, 1, 7, 19, 101, 10**6, 2**31 - 1, 2**40, -(2**62))
    names = ("", "x", "images", "/", "a:0", "^", "x" * 5000, "ü")
    odd = {bool: [not old], float: [0.0, -1.0, 1e30, float("nan")], bytes: [b"", b"\0" * 12], str: names}
    try:
        new = rng.choice(odd.get(type(old), numbers))
        if several:
            value[rng.randrange(len(value))] = new
        else:
            setattr(message, name, new)
    except ValueError:
        message.ClearField(name)


# What is read


def furnish(folder):
    """Makes one example of each kind in a folder. → {name: what is read of it}"""
    for make in make_checkpoints, make_pictures, make_texts, make_run, make_exports, make_graphs:
        make(folder)
    return {name: repr(kind.read()) for name, kind in kinds_in(folder).items()}


def kinds_in(folder):
    """{name: Kind} of what `furnish` made there. Nothing is computed: forked processes inherit no threads."""
    kinds = {}
    for kinds_of in checkpoints, pictures, texts, runs, exports, graphs:
        kinds |= kinds_of(folder)
    return kinds


def make_checkpoints(folder):
    import numpy as np
    import tensorflow as tf

    from models.checkpoint import write_checkpoint

    rng = np.random.default_rng(0)
    tensors = {f"net/block{number}/weights": rng.standard_normal((3, 3, 8, 8), np.float32) for number in range(12)}
    place = folder / "checkpoints"
    write_checkpoint(place / "v2.ckpt", tensors | {"global_step": np.int64(7)})
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        for name, value in tensors.items():
            tf.compat.v1.get_variable(name, initializer=value, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        v1 = tf.compat.v1.train.Saver(write_version=tf.compat.v1.train.SaverDef.V1)
        v1.save(session, str(place / "v1.ckpt"), write_meta_graph=False, write_state=False)
    with tarfile.open(place / "a.tar.gz", "w:gz") as archive:
        for file in place.glob("v2.ckpt.*"):
            archive.add(file, f"published/{file.name}")
    state = folder / "state"
    write_checkpoint(state / "model.ckpt-7", tensors)
    (state / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')


def checkpoints(folder):
    from models.checkpoint import open_checkpoint

    place, state = folder / "checkpoints", folder / "state"

    def reading(path):
        def read():
            with open_checkpoint(path) as opened:
                values = {name: opened.read(name) for name in opened.shapes}
            return {name: (value.shape, _sum(value.tobytes())) for name, value in values.items()}

        return read

    v2 = sorted(place.glob("v2.ckpt.*"))
    return {
        "checkpoint, V2": Kind(v2, reading(place / "v2.ckpt"), names=["v2.ckpt"]),
        "checkpoint, V1": Kind([place / "v1.ckpt"], reading(place / "v1.ckpt")),
        "checkpoint, archive": Kind([place / "a.tar.gz"], reading(place / "a.tar.gz")),
        "checkpoint, `checkpoint`": Kind([state / "checkpoint"], reading(state), text=True, names=["state"]),
    }


PICTURES = ("jpeg.jpg", "progressive.jpg", "colours.png", "deep.png", "tiff.tif", "bmp.bmp", "webp.webp")
MASKS = ("palette.png", "grey.png", "mask.gif", "mask.tiff")


def make_pictures(folder):
    import cv2
    import numpy as np
    from PIL import Image

    from data.cache import CachedOnDisk
    from data.images import read_image, read_indices
    from data.sample import draw_voc
    from data.voc import VOCSegmentation, mask_png

    place = folder / "pictures"
    draw_voc(place / "voc", train=2, val=1)
    photo = read_image(place / "voc/JPEGImages/val_00000.jpg")
    mask = read_indices(place / "voc/SegmentationClass/val_00000.png")
    made = {
        "jpeg.jpg": cv2.imencode(".jpg", photo)[1].tobytes(),
        "progressive.jpg": cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
        "colours.png": cv2.imencode(".png", photo)[1].tobytes(),
        "deep.png": cv2.imencode(".png", photo.astype(np.uint16) * 257)[1].tobytes(),
        "tiff.tif": cv2.imencode(".tif", photo)[1].tobytes(),
        "bmp.bmp": cv2.imencode(".bmp", photo)[1].tobytes(),
        "webp.webp": cv2.imencode(".webp", photo)[1].tobytes(),
        "palette.png": mask_png(mask),
        "grey.png": cv2.imencode(".png", mask)[1].tobytes(),
    }
    for name, content in made.items():
        (place / name).write_bytes(content)
    for kind in "GIF", "TIFF":
        Image.fromarray(mask).save(place / f"mask.{kind.lower()}")
    CachedOnDisk(VOCSegmentation(place / "voc", "train"), place / "cache")[0]


def pictures(folder):
    from data.cache import CachedOnDisk
    from data.images import read_image, read_indices
    from data.voc import VOCSegmentation

    place = folder / "pictures"

    def picture(name):
        return Kind(
            [place / name],
            lambda: _array(read_image(place / name, picture_range=(0, 65535))),
            whole=name.endswith(".png"),
        )

    def indices(name):
        return Kind([place / name], lambda: _array(read_indices(place / name)), whole=name.endswith(".png"))

    cached = CachedOnDisk(VOCSegmentation(place / "voc", "train"), place / "cache")
    return {
        **{f"picture, {name}": picture(name) for name in PICTURES},
        **{f"mask, {name}": indices(name) for name in MASKS},
        "cache": Kind(sorted((place / "cache").iterdir()), lambda: list(map(_array, cached[0]))),
    }


def make_texts(folder):
    from data.sample import draw_voc

    place = folder / "texts"
    draw_voc(place, train=4, val=1)
    images = place / "JPEGImages"
    (place / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\ndog:0,9,0::\n"
    )
    polygon = [[1, 1], [40, 2], [30, 40]]
    shape = {"label": "cat", "points": polygon, "shape_type": "polygon", "group_id": None, "flags": {}}
    (images / "train_00000.json").write_text(
        json.dumps({"shapes": [shape], "imagePath": "train_00000.jpg", "imageHeight": 90, "imageWidth": 90})
    )
    runs = {"counts": [10, 5, 8085], "size": [90, 90]}
    objects = [
        {"id": 1, "image_id": 5, "category_id": 3, "segmentation": [[1, 1, 40, 2, 30, 40]], "iscrowd": 0},
        {"id": 2, "image_id": 5, "category_id": 3, "segmentation": runs, "iscrowd": 1},
    ]
    found = {"images": [{"id": 5, "file_name": "train_00000.jpg", "height": 90, "width": 90}]}
    found |= {"annotations": objects, "categories": [{"id": 3, "name": "cat"}]}
    (place / "coco.json").write_text(json.dumps(found))
    (place / "cvat.xml").write_text(
        '<annotations><image id="0" name="train_00000.jpg" width="90" height="90"><polygon label="cat" '
        'points="1,1;40,2;30,40" z_order="0"/><mask label="cat" rle="3,4,9" left="1" top="2" width="4" height="4" '
        'z_order="1"/></image></annotations>'
    )


def texts(folder):
    from data.prepare.annotations import coco, cvat, labelme
    from data.prepare.layout import LeftOut
    from data.prepare.pictures import read_colours
    from data.voc import VOCSegmentation

    place = folder / "texts"
    lists, images = place / "ImageSets/Segmentation", place / "JPEGImages"

    def prepared(read, *arguments):
        def masks():
            names, samples = read(*arguments, None, LeftOut())
            return names, [_array(sample.mask) for sample in samples]

        return masks

    return {
        "list": Kind([lists / "train.txt"], lambda: VOCSegmentation(place, "train").names, False, True, [str(place)]),
        "class file": Kind([lists / "classes.txt"], lambda: VOCSegmentation(place, "val").class_names, False, True),
        "colour map": Kind([place / "labelmap.txt"], lambda: read_colours(place / "labelmap.txt"), False, True),
        "labelme": Kind([images / "train_00000.json"], prepared(labelme, images), False, True, [str(images)]),
        "COCO": Kind([place / "coco.json"], prepared(coco, place / "coco.json", images), False, True),
        "CVAT": Kind([place / "cvat.xml"], prepared(cvat, place / "cvat.xml", images), False, True),
    }


def make_run(folder):
    import numpy as np

    from engine.run_directory import RunDirectory
    from models.deeplab_v3 import deeplab_v3
    from models.weight_init import checkpoint_guided_init, save_checkpoint
    from tests.short_mobilenet import shortened
    from training.report import write_report

    place = folder / "run"
    with shortened():
        model = deeplab_v3("mobilenet_v2", 3, depth_multiplier=0.35)
        save_checkpoint(model, folder / "start.ckpt")
        report = checkpoint_guided_init(model, folder / "start.ckpt")
    run = RunDirectory(place, {"steps": 4, "batch_size": 2, "eval_size": 33})
    run.open()
    settings = {"backbone": "mobilenet_v2", "num_classes": 3, "output_stride": 16, "depth_multiplier": 0.35}
    run.start(settings, ["background", "cat", "dog"], report)
    for step in (2, 4):
        row = {"step": step, "loss": 0.5, "learning_rate": 0.1, "images_per_second": 4.0, "seconds": 2.0 * step}
        run.log(row | {"miou": 0.25 * step / 4})
    save_checkpoint(model, place / "model.ckpt-4", global_step=4)
    (place / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-4"\n')
    run.close()
    write_report(run, matrix=np.arange(9).reshape(3, 3))


def runs(folder):
    from engine.run_directory import RunDirectory
    from engine.run_records import read_config
    from inference.opening import open_segmenter
    from tests.short_mobilenet import shortened
    from training.report import write_report

    place = folder / "run"

    def page():
        found = RunDirectory(place, read_config(place)["arguments"])
        return [_sum(write_report(found).read_bytes()), sorted(found.restored_names()), found.log_rows()]

    def opened():
        with shortened():
            return open_segmenter(place).introduction()

    records = [place / name for name in ("config.json", "coverage.json", "scores.json")]
    return {
        "run: config, coverage, scores": Kind(records, page, text=True, names=[str(place)]),
        "run: log": Kind([place / "log.csv"], page, whole=False, text=True),
        "run: config, its model opened": Kind([place / "config.json"], opened, text=True, names=[str(place)]),
    }


EXPORTS = {
    "saved_model": "saved_model",
    "pb": "model.pb",
    "onnx": "model.onnx",
    "tflite": "model_float32.tflite",
    "keras": "model.keras",
}


def make_exports(folder):
    from exporting.export import drawn_picture, export
    from inference.opening import open_segmenter
    from tests.short_mobilenet import shortened

    with shortened():
        opened = open_segmenter(folder / "run")
        outcomes = list(export(opened, folder / "run", folder / "exports", tuple(EXPORTS), drawn_picture()))
    (folder / "bare").mkdir()
    for outcome in outcomes:
        if not outcome.good:
            raise RuntimeError(str(outcome))
        if outcome.name != "saved_model":
            (folder / "bare" / outcome.file).write_bytes((folder / "exports" / outcome.file).read_bytes())


def exports(folder):
    import numpy as np

    from inference.runtimes import open_export
    from tests.short_mobilenet import shortened

    place = folder / "exports"
    files = {name: place / file for name, file in EXPORTS.items()}
    picture = np.random.default_rng(0).integers(0, 256, (33, 33, 3), np.uint8)

    def reading(path):
        def read():
            with shortened():  # Keras builds the network anew
                return _array(open_export(path).labels(picture))

        return read

    kinds = {}
    for name, path in files.items():
        all_ = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        kinds[f"export, {name}"] = Kind(all_, reading(path), names=[path.name])
        if name != "saved_model":
            bare = folder / "bare" / path.name
            kinds[f"export, {name} alone"] = Kind([bare], reading(bare), whole=False)
    kinds["export.json"] = Kind([place / "export.json"], reading(files["onnx"]), text=True)
    return kinds


def make_graphs(folder):
    import numpy as np
    import tensorflow as tf

    place = folder / "graphs"
    place.mkdir()
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(tf.float32, (None, None, None, 3), "images")
        weights = tf.constant(
            np.random.default_rng(0).standard_normal((3, 3, 3, 8), np.float32), name="net/conv/weights"
        )
        read = tf.identity(weights, "net/conv/weights/read")
        found = tf.nn.relu(tf.nn.conv2d(images, read, 2, "SAME", name="net/conv/Conv2D"), "net/conv/Relu")
        tf.identity(found, "logits/semantic")
    (place / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())


def graphs(folder):
    import numpy as np

    from models.checkpoint import open_checkpoint
    from porting.legacy_graph import load_graph

    place, image = folder / "graphs", np.linspace(0, 1, 9 * 9 * 3, dtype="float32").reshape(1, 9, 9, 3)

    def as_checkpoint():
        with open_checkpoint(place / "frozen.pb") as opened:
            opened.architecture("net")
            return {name: _array(opened.read(name)) for name in opened.shapes}

    def as_graph():
        graph = load_graph(place / "frozen.pb")
        outputs = ["logits/semantic:0"]
        told = graph.variables, graph.built_for, graph.candidates(), graph.entrance(outputs[0])
        ends = graph.end_points(["net/conv", "logits/semantic"]), graph.upsampled(outputs[0])
        return told, ends, [_array(array) for array in graph(image, outputs).values()]

    return {
        "old graph, its weights": Kind([place / "frozen.pb"], as_checkpoint, whole=False, graph=True),
        "old graph": Kind([place / "frozen.pb"], as_graph, whole=False, graph=True),
    }


def _sum(content):
    return hashlib.sha256(content).hexdigest()


def _array(array):
    return (
        None
        if array is None
        else (getattr(array, "shape", ()), _sum(array.tobytes()))
        if hasattr(array, "tobytes")
        else array
    )


# The campaign


class TooLong(BaseException):
    """A reader took more than SECONDS."""


def _too_long(*_):
    raise TooLong


def read_once(kind, file, content, expected):
    """→ (Outcome, what was said) of one damaged file."""
    file.write_bytes(content)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory is counted from here
    signal.alarm(SECONDS)
    sys.stderr = io.StringIO()
    said = io.StringIO()
    try:
        found = repr(kind.read())
        told = not kind.whole or "is not known" in sys.stderr.getvalue()
        outcome = Outcome.ACCEPTED if found == expected or told else Outcome.OTHER
        why = f"{found[:200]} not {expected[:200]}"
    except UserError as error:
        why = str(error)
        named = any(name in why for name in (file.name, *kind.names)) and len(why) < 4000
        outcome = Outcome.REFUSED if named else Outcome.TRACEBACK
    except TooLong:
        outcome, why = Outcome.HANG, ""
    except MemoryError as error:
        outcome, why = Outcome.MEMORY, str(error)
    except BaseException:
        traceback.print_exc(file=said)
        outcome, why = Outcome.TRACEBACK, said.getvalue()
    finally:
        signal.alarm(0)
    return (Outcome.MEMORY, f"{peak() / 1e9:.1f} GB; {why}") if peak() > BYTES + BASE[0] else (outcome, why)


BASE = [0]


def peak():
    """The most bytes of memory that this process has had since they were counted."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def batch(kind, attempts, originals, expected, report):
    """In a process of its own: reads the damaged files of (number, file, seed) one after the other."""
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    sys.stdout = sys.stderr = io.StringIO()
    signal.signal(signal.SIGALRM, _too_long)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    BASE[0] = peak()
    with open(report, "ab", buffering=0) as stream:
        for file, seed in attempts:
            content = damaged(originals[file], random.Random(seed), kind)
            stream.write(pickle.dumps(("begun", file, seed)))
            outcome, why = read_once(kind, file, content, expected)
            stream.write(pickle.dumps((outcome, file, seed, why)))
            file.write_bytes(originals[file])


def attack(name, kind, expected, count, seed, tally, place, keep):
    """Adds so many damaged files of a kind to the tally."""
    originals = {file: file.read_bytes() for file in kind.files}
    rng = random.Random(f"{seed} {name}")
    attempts = [(rng.choice(kind.files), rng.randrange(1 << 48)) for _ in range(count)]
    while attempts:
        report = place / "report"
        if not (pid := os.fork()):
            try:
                batch(kind, attempts[:BATCH], originals, expected, report)
            finally:
                os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        done = 0
        with open(report, "rb") as stream:
            entries = []
            while stream.peek(1):
                entries.append(pickle.load(stream))
        report.unlink()
        for entry in entries:
            if entry[0] != "begun":
                done += 1
                count_one(tally, name, entry, kind, originals, keep)
        if entries and entries[-1][0] == "begun":
            done += 1
            died = (Outcome.SIGNAL, *entries[-1][1:], f"the process ended with {code}")
            count_one(tally, name, died, kind, originals, keep)
        if not done:
            raise RuntimeError(f"{name}: a process read nothing and ended with {code}")
        for file, content in originals.items():
            file.write_bytes(content)
        attempts = attempts[done:]


def count_one(tally, name, entry, kind, originals, keep):
    outcome, file, seed, why = entry
    tally.add(name, outcome, f"{file.name} damaged by {seed}", why)
    if keep and not outcome.good:
        content = damaged(originals[file], random.Random(seed), kind)
        (Path(keep) / f"{outcome.name}-{seed}-{file.name}").write_bytes(content)


def parse_arguments(argv=None):
    parser = command_line.ProgramParser(__doc__)
    whole = command_line.argument_type
    parser.add_argument("--count", type=whole(POSITIVE_INT), default=10_000, help="damaged files [%(default)s]")
    parser.add_argument("--jobs", type=whole(POSITIVE_INT), default=2, help="at once [%(default)s]")
    parser.add_argument("--seed", type=whole(NONNEGATIVE_INT), default=0, help="[%(default)s]")
    parser.add_argument("--kinds", type=whole(NAMES), default=(), metavar="WORD,…", help="those of such a name [all]")
    parser.add_argument(
        "--keep", type=whole(PATH), metavar="DIR", help="a folder for the files that were answered badly"
    )
    return parser.parse_args(argv)


def work_off(place, count, seed, wanted, keep):
    """→ Tally of so many damaged files, made in a folder."""
    place.mkdir()
    [expected] = in_processes([lambda: furnish(place)], place)
    tally, kinds = Tally(), kinds_in(place)
    chosen = [name for name in kinds if not wanted or any(word in name for word in wanted)]
    for number, name in enumerate(chosen):
        share = (number + 1) * count // len(chosen) - number * count // len(chosen)
        attack(name, kinds[name], expected[name], share, seed, tally, place, keep)
        print(f"{name}: {share}", file=sys.stderr, flush=True)
    return tally


def main(argv=None):
    args = parse_arguments(argv)
    if args.keep:
        Path(args.keep).mkdir(parents=True, exist_ok=True)
    command_line.quiet_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            lambda number=number: work_off(
                Path(folder, f"work{number}"), -(-args.count // args.jobs), args.seed + number, args.kinds, args.keep
            )
            for number in range(args.jobs)
        ]
        tally = Tally.of(in_processes(jobs, Path(folder)))
    print(tally)
    return tally.exit_code


if __name__ == "__main__":
    command_line.run(main)
