"""The papers say what is so: commands parse, links and paths resolve, snippets run, the walks name what is there."""

import argparse
import ast
import importlib
import inspect
import itertools
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from errors import UserError

ROOT = Path(__file__).parents[1]
PAPERS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAPERS += [ROOT / "benchmarks/README.md", ROOT / "campaigns/README.md"]
PAPERS += sorted((ROOT / "docs").glob("*.md"))
ROOMS = ("porting", "exporting", "training", "inference", "engine", "models", "data")
ROOMS += ("tests", "examples", "benchmarks", "campaigns", "docs")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


# What is in a paper


def prose(text):
    """The text without its fenced blocks."""
    return FENCE.sub("", text)


def inline_codes(text):
    """What stands between backticks outside fenced blocks, each on one line; it may go over the end of a line."""
    paragraphs = re.split(r"\n\s*\n", prose(text))
    return [" ".join(found[1].split()) for paragraph in paragraphs for found in CODE.findall(paragraph)]


def fenced_lines(text):
    """The lines of fenced blocks that are in no language: commands, without their prompt, lines joined at a `\\`."""
    blocks = [content for language, content in FENCE.findall(text) if not language]
    return [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def commands(text):
    """All command lines of a paper that call `python` or `make`."""
    lines = [*fenced_lines(text), *inline_codes(text)]
    return [line for line in lines if re.match(r"([A-Z_]+=\S+ )*(python|make) ", line)]


def anchors(text):
    """The anchors that GitHub gives a paper's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.replace(" ", "-") for title in kept}


def sections(text):
    """{title: text} of a paper's second-level headings."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def each(found):
    """Parameters of a test: all that `found` finds in each paper, under its name."""
    return [
        pytest.param(item, id=f"{paper.relative_to(ROOT)}: {item}")
        for paper in PAPERS
        for item in dict.fromkeys(found(paper.read_text(encoding="utf-8")))
    ]


# Commands


def words_of(command):
    """→ (words, whether the command is cut short).

    Square brackets are around flags that may be left out, `16|8` is either, `…` is a value, or more of the kind.
    """
    words = shlex.split(re.sub(r"\[(--[^]]*)\]", r"\1", command.partition("#")[0]))
    while re.match("[A-Z_]+=", words[0]):  # of the environment
        del words[0]
    kept = [word for before, word in pairs_of(words) if word != "…" or before.startswith("--")]
    return [word.partition("|")[0] for word in kept], "…" in command


def pairs_of(words):
    """Each word with the one before it, of the first an empty one."""
    return itertools.pairwise(["", *words])


class Refused(Exception):
    """A parser does not take the command."""


@pytest.fixture
def strict_parsers(monkeypatch):
    """Parsers raise Refused, take no abbreviated flag, and ask for nothing of a command that is cut short."""
    state = {"cut_short": False}
    parse = argparse.ArgumentParser.parse_known_args

    def parse_known_args(self, *args, **kwargs):
        self.allow_abbrev = False
        if state["cut_short"]:
            for action in self._actions:
                action.required = False
        return parse(self, *args, **kwargs)

    def error(self, message):
        raise Refused(message)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
    monkeypatch.setattr(argparse.ArgumentParser, "error", error)
    return state


def parser_of(words):
    """→ (the function that parses the arguments of `python words…`, the arguments); None for what is not ours."""
    if words[0] == "-m":
        if words[1].partition(".")[0] not in ROOMS:
            return None, ()
        name, arguments = words[1], words[2:]
    else:
        assert (ROOT / words[0]).is_file(), f"there is no program {words[0]}"
        name, arguments = words[0].removesuffix(".py").replace("/", "."), words[1:]
    module = importlib.import_module(name)
    arguments = [sys.executable if before == "--torch-python" else word for before, word in pairs_of(arguments)]
    return getattr(module, "parse_arguments", None) or module.parse_args, arguments


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the data set that commands and snippets name, of VOC's classes."""
    import numpy as np

    from data.sample import draw_voc
    from data.voc import VOC_CLASSES, read_mask, write_mask

    folder = tmp_path_factory.mktemp("place")
    draw_voc(folder / "VOC2012", train=8, val=2)
    (folder / "VOC2012" / "ImageSets" / "Segmentation" / "classes.txt").write_text("\n".join(VOC_CLASSES))
    path = folder / "VOC2012" / "SegmentationClass" / "train_00000.png"
    mask = read_mask(path, 5)
    mask[0, :21] = np.arange(21)  # else a training stops at classes that no pixel has
    write_mask(path, mask)
    (folder / "DATA").symlink_to(folder)
    return folder


@pytest.mark.parametrize("command", each(commands))
def test_command_is_taken(command, strict_parsers, place, monkeypatch):
    (program, *words), strict_parsers["cut_short"] = words_of(command)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words) <= set(targets), f"the Makefile has {targets}"
        return
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])  # what stands beside a program
    monkeypatch.chdir(place)  # a benchmark looks at once whether its data are there
    parse, arguments = parser_of(words)
    if parse is not None:
        parse(arguments)


def test_commands_are_found():
    """What the test above is given is not nothing: some that are split over lines, prompted, or within a sentence."""
    found = [command for paper in PAPERS for command in commands(paper.read_text(encoding="utf-8"))]
    assert len(found) > 40
    for program in (
        "train_seg",
        "eval_seg",
        "predict_seg",
        "export_seg",
        "train_cls",
        "eval_cls",
        "inspect_ckpt",
        "verify_port",
    ):
        assert any(f"python {program}.py" in command for command in found), program
    text = "Say `python\na.py --x 1` and:\n\n```\n$ python b.py \\\n    --y 2  # so\nno command\n```\n"
    assert [" ".join(words_of(command)[0]) for command in commands(text)] == ["python b.py --y 2", "python a.py --x 1"]


@pytest.mark.parametrize("flag", ["--multi-scales", "--multi-scal"])
def test_a_flag_that_is_not_there_is_refused(flag, strict_parsers):
    import eval_seg

    with pytest.raises((Refused, UserError), match=flag):
        eval_seg.parse_arguments(["--ckpt", "runs/seg", "--data", "VOC2012", flag])
    strict_parsers["cut_short"] = True
    with pytest.raises((Refused, UserError), match=flag):
        eval_seg.parse_arguments(["--ckpt", "runs/seg", flag])


def flags_of_all_programs(monkeypatch):
    """The flags of every program and benchmark of the repository."""
    flags = set()

    def parse_known_args(self, *args, **kwargs):
        below = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        for parser in [self, *(parser for action in below for parser in action.choices.values())]:
            flags.update(flag for action in parser._actions for flag in action.option_strings)
        raise Refused

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    for file in sorted([*ROOT.glob("*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob("campaigns/*.py")]):
        if re.search(r"^def parse_arg(ument)?s\(", file.read_text(encoding="utf-8"), re.MULTILINE):
            parse, _ = parser_of([str(file.relative_to(ROOT))])
            with pytest.raises(Refused):
                parse([])
    return flags


def test_flags_in_the_text_are_there(monkeypatch):
    known = flags_of_all_programs(monkeypatch)
    assert len(known) > 100
    for paper in PAPERS:
        codes = inline_codes(paper.read_text(encoding="utf-8"))
        named = {flag for code in codes if code.startswith("--") for flag in re.findall(r"(?:^| )(--[\w-]+)", code)}
        assert named <= known, paper


# Links and paths


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.relative_to(ROOT)))
def test_links_resolve(paper):
    broken = []
    for link in LINK.findall(prose(paper.read_text(encoding="utf-8"))):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (paper.parent / path).resolve() if path else paper
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.relative_to(ROOT)))
def test_paths_in_the_text_are_there(paper):
    codes = inline_codes(paper.read_text(encoding="utf-8"))
    paths = [code for code in codes if re.fullmatch(r"[\w./-]+\.(py|md|txt|toml|png)", code)]
    ours = [path for path in paths if path.partition("/")[0] in ROOMS or re.fullmatch(r"\w+\.py", path)]
    beside = paper.parent if paper.parent.name == "benchmarks" else ROOT
    assert not [path for path in ours if not (ROOT / path).exists() and not (beside / path).exists()]


def test_readme_fits_on_two_screens():
    assert (ROOT / "README.md").stat().st_size <= 9_000


def test_words_that_people_search_for_are_there():
    text = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    for words in (
        "No module named 'tensorflow.contrib'",
        "module 'tensorflow' has no attribute 'contrib'",
        "tf.train.Checkpoint(model)",
    ):
        assert words in text


def test_the_error_of_load_weights_is_what_keras_says(tiny_resnet):
    text = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="File format not supported") as error:
        tiny_resnet.load_weights("resnet_v2_50.ckpt")
    assert f"ValueError: {error.value}" in text


# Walks


def walks():
    """(file, name that must be defined in it) of CONTRIBUTING's section "A walk": a line begins with the file."""
    lines = re.findall(
        r"^\d+\. `([\w/]+\.py)`(.*(?:\n {3}.*)*)",
        sections((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))["A walk"],
        re.MULTILINE,
    )
    return [(file, name) for file, rest in lines for name in re.findall(r"`(\w+)`", rest)]


@pytest.mark.parametrize(("file", "name"), walks())
def test_walk_names_what_is_there(file, name):
    defined = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
    kinds = (ast.FunctionDef, ast.ClassDef)
    assert name in {node.name for node in defined if isinstance(node, kinds)}, f"{file} defines no {name}"


def test_walks_are_found():
    assert len(walks()) > 15


def test_house_names_every_module():
    house = sections((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))["The house"]
    named = set(re.findall(r"\w+", next(content for language, content in FENCE.findall(house) if not language)))
    rooms = ("porting", "exporting", "training", "inference", "engine", "models", "data")
    modules = [*ROOT.glob("*.py"), *(file for room in rooms for file in (ROOT / room).rglob("*.py"))]
    modules = [file for file in modules if file.stem != "__init__"]
    assert len(modules) > 50
    assert not sorted(str(file.relative_to(ROOT)) for file in modules if file.stem not in named)


# Snippets


def snippets(paper):
    """{section: its Python blocks, one after the other}"""
    texts = sections(paper.read_text(encoding="utf-8"))
    found = {
        title: "\n".join(c for lang, c in FENCE.findall(text) if lang == "python") for title, text in texts.items()
    }
    return {title: code for title, code in found.items() if code}


@pytest.mark.parametrize("paper", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_snippets_are_python(paper):
    for title, code in snippets(paper).items():
        code = code.replace("[…]", "[]")  # noqa: PLW2901 - more of the kind
        compile(code, f"{paper.name}, {title}", "exec")


@pytest.fixture(scope="module")
def furnished(place):
    """The folder with what else the snippets name: checkpoints and a picture."""
    import cv2

    from data.sample import draw_image_folder
    from models.checkpoint import write_checkpoint
    from models.deeplab_v3 import deeplab_v3
    from models.mobilenet_v1 import mobilenet_v1
    from models.mobilenet_v2 import mobilenet_v2
    from models.resnet import resnet_v1_50
    from models.weight_init import save_checkpoint

    segmenter = deeplab_v3("mobilenet_v2", 21, depth_multiplier=0.35)
    save_checkpoint(segmenter, place / "deeplabv3_mnv2_pascal_trainval.ckpt")
    save_checkpoint(mobilenet_v2(depth_multiplier=0.35), place / "mobilenet_v2_0.35.ckpt")
    save_checkpoint(mobilenet_v2(num_classes=1001, depth_multiplier=0.35), place / "mobilenet_v2_1001.ckpt")
    draw_image_folder(place / "shapes", train=1, val=2)
    save_checkpoint(mobilenet_v1(depth_multiplier=0.25), place / "mobilenet_v1_0.25.ckpt")
    theirs, scope = resnet_v1_50(num_classes=2, width=8), "resnet_v1_50/logits"
    save_checkpoint(theirs, place / "predict_logits.ckpt", rename={scope: "Predict/logits"}, fully_connected=[scope])
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    shapes = {f"g_conv{n}/BatchNorm/{leaf}": (8,) for n in (1, 2) for leaf in norm}
    shapes |= {"g_conv1/weights": (3, 3, 4, 8), "g_conv2/weights": (3, 3, 8, 8), "g_added/weights": (1, 1, 8, 3)}
    write_checkpoint(place / "enhancer.ckpt", {name: np.full(shape, 0.5, "f4") for name, shape in shapes.items()})
    cv2.imwrite(str(place / "photo.jpg"), np.full((40, 60, 3), 128, np.uint8))
    return place


# Keras itself, under NumPy 2, where it reads a `.keras` file.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.parametrize(
    ("paper", "title"),
    [(paper, title) for paper in ("README.md", "docs/python.md") for title in snippets(ROOT / paper)],
)
def test_snippets_run(paper, title, furnished, monkeypatch):
    code = snippets(ROOT / paper)[title]
    monkeypatch.chdir(furnished)
    if "fine_tune(" in code:  # three thousand steps: it is only looked at whether it takes what it is given
        import slim_deeplab

        signature = inspect.signature(slim_deeplab.fine_tune)
        monkeypatch.setattr(slim_deeplab, "fine_tune", signature.bind)
    exec(compile(code, f"{paper}, {title}", "exec"), {"__name__": title})
    if "overlay.png" in code:
        overlay = furnished / "overlay.png"
        assert overlay.stat().st_size
        overlay.unlink()


# Sections of docs/tutorials.md whose Python is this project's; TensorFlow 1's stands there under "py".
OLD_AND_NEW = (
    "Four channels instead of three",
    "A fully connected classifier, `Predict/logits`",
    "An own network, in part restored, in part trained, saved whole",
    "MobileNet v1 in two phases",
    "Watching it",
)


@pytest.fixture(scope="module")
def left_by(furnished):
    """A function: title of a section of docs/tutorials.md → the names that its lines, once run, have left."""

    def run(title, monkeypatch):
        monkeypatch.chdir(furnished)
        names = {"__name__": title}
        exec(compile(snippets(ROOT / "docs" / "tutorials.md")[title], f"tutorials.md, {title}", "exec"), names)
        return names

    return run


def test_four_channels_begin_as_three(left_by, furnished, monkeypatch):
    names = left_by(OLD_AND_NEW[0], monkeypatch)
    from tests.conftest import read_all
    from tests.networks import values_of

    root = "MobilenetV2/Conv/weights"
    kernel, rgb = values_of(names["model"])[root], read_all(furnished / "mobilenet_v2_0.35.ckpt")[root]
    np.testing.assert_array_equal(kernel[:, :, :3], rgb)
    assert kernel.shape[2] == 4 and not kernel[:, :, 3].any()
    assert "(channels 1 to 3 of 4, the rest zero)" in str(names["report"])
    assert names["logits"].shape == (1, 65, 65, 2)


def test_predict_logits_comes_back_bit_for_bit(left_by, furnished, monkeypatch):
    names = left_by(OLD_AND_NEW[1], monkeypatch)
    from tests.conftest import assert_same, read_all

    theirs = read_all(furnished / "predict_logits.ckpt")
    assert theirs["Predict/logits/weights"].shape == (256, 2)
    assert "(a fully connected layer)" in names["report"].text(verbose=True)
    assert_same(read_all(furnished / "back.ckpt"), theirs)


def test_an_own_network_learns_in_part_and_is_saved_whole(left_by, furnished, monkeypatch):
    names = left_by(OLD_AND_NEW[2], monkeypatch)
    from tests.conftest import assert_same, read_all
    from tests.networks import values_of

    before, saved = read_all(furnished / "enhancer.ckpt"), read_all(furnished / "enhancer_with_g_add.ckpt")
    assert_same(saved, values_of(names["net"]))
    assert saved["g_add/biases"].any()  # began as zeros
    kept = {name: value for name, value in saved.items() if name.startswith("g_conv")}
    assert_same(kept, {name: value for name, value in before.items() if name.startswith("g_conv")})
    assert saved.keys() - kept.keys() == {"g_add/weights", "g_add/biases"}
    assert [entry.source for entry in names["report"].of("unused in the checkpoint")] == ["g_added/weights"]


def test_mobilenet_v1_learns_in_two_phases(left_by, furnished, monkeypatch):
    import keras

    from tests.conftest import read_all
    from tests.networks import values_of

    begun, fit = read_all(furnished / "mobilenet_v1_0.25.ckpt"), keras.Model.fit
    moved, head = [], []

    def watched(model, *args, **kwargs):
        features = model.layers[0]
        fit(model, *args, **kwargs)
        moved.append({name for name, value in values_of(features).items() if (value != begun[name]).any()})
        head.append(np.asarray(model.layers[-1].kernel))

    monkeypatch.setattr(keras.Model, "fit", watched)
    names = left_by(OLD_AND_NEW[3], monkeypatch)
    assert len(moved) == 2
    assert not moved[0]
    assert moved[1] and not [name for name in moved[1] if "Conv2d_0/" in name or "Conv2d_1_" in name]
    assert (head[0] != head[1]).any()
    assert max(values_of(names["features"])) == "MobilenetV1/Conv2d_6_depthwise/depthwise_weights"


def test_feature_maps_and_an_embedding_are_there_to_see(left_by, furnished, monkeypatch):
    left_by(OLD_AND_NEW[4], monkeypatch)
    board = furnished / "runs" / "look" / "tensorboard"
    (events,) = board.glob("events.out.tfevents.*")
    assert b"resnet_v2_18/block1" in events.read_bytes()
    assert len((board / "embeddings" / "features-0" / "features.tsv").read_text().splitlines()) == 12
    assert (board / "projector_config.pbtxt").is_file()
