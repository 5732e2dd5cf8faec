"""report.html: what a run did on one page, which asks nothing of the network, in a real browser too."""

import json
import re
import subprocess
import sys
from html import escape, unescape
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from engine.run_directory import RunDirectory, RunError
from files.records import sealed
from models.weight_init import BOOKKEEPING, LOADED, MISSING, Entry, Report
from report_run import main
from tests import browser
from training.report import write_report

SECTIONS = ["Configuration", "Initialization", "Curves", "Classes", "Confusion matrix", "Predictions", "Speed"]
CLASSES = ["background", "cat & dog", "<script>alert(1)</script>", "never seen"]
MATRIX = np.array([[900, 100, 0, 0], [50, 150, 0, 0], [30, 10, 60, 0], [0, 0, 0, 0]])
SHEET_COLOUR, LINE_COLOUR = (200, 30, 60), (31, 119, 180)

SEGMENTER = {"backbone": "resnet_v2_50", "num_classes": 4, "output_stride": 16, "multi_grid": [1, 2, 4]}
CLASSIFIER = {"backbone": "mobilenet_v2", "num_classes": 4, "depth_multiplier": 1.0}
ARGUMENTS = {"ckpt": "resnet_v2_50.ckpt", "steps": 4000, "batch_size": 8, "freeze": [], "ema": False}


def initialization():
    unit = "resnet_v2_50/block1/unit_1/bottleneck_v2/conv1"
    entries = (
        Entry(LOADED, f"{unit}/BatchNorm/beta", f"{unit}/BatchNorm/beta", (64,), (64,)),
        Entry(LOADED, f"{unit}/BatchNorm/gamma", f"{unit}/BatchNorm/gamma", (64,), (64,)),
        Entry(MISSING, variable="logits/semantic/weights", shape=(1, 1, 256, 4)),
        Entry(BOOKKEEPING, source="global_step", source_shape=(), why="global_step"),
    )
    return Report(entries, "resnet_v2_50.ckpt", "deeplab_v3", "resnet_v2_50", ("logits",))


def a_run(folder, rows, model=SEGMENTER, report=None, scores=("miou", "fwiou"), classes=CLASSES):
    """A run of 8 images a step at 4 images/s; from its 2nd row on, each row has its scores."""
    run = RunDirectory(folder, ARGUMENTS)
    run.open()
    run.start(model | {"num_classes": len(classes)}, classes, report)
    for number in range(1, rows + 1):
        row = {"step": 100 * number, "loss": 3 / number, "learning_rate": 0.01 / number, "images_per_second": 4.0}
        values = [0.1 * number if number > 1 else ""] * len(scores)
        run.log({**row, "seconds": 250.0 * number, **dict(zip(scores, values, strict=True))})
    run.close()
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = a_run(tmp_path_factory.mktemp("runs") / "shapes <1>", 6, report=initialization())
    write_report(run, matrix=MATRIX, sheet=np.full((90, 240, 3), SHEET_COLOUR, np.uint8))
    return run


@pytest.fixture(scope="module")
def page(run):
    return (run.path / "report.html").read_text()


class Reader(HTMLParser):
    """The texts of a page by tag, and each attribute (tag, name, value) of it."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.attributes, self._tag = {}, [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self._tag = tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        self._tag = None

    def handle_data(self, data):
        self.texts.setdefault(self._tag, []).append(data)


def facts(page):
    """{term: description} of the page's lists."""
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page)
    return {unescape(term): unescape(text) for term, text in pairs}


def test_page_shows_the_whole_run(page):
    read = Reader(page)
    assert read.texts["h2"] == SECTIONS
    assert read.texts["h1"] == ["shapes <1>"]
    found = facts(page)
    assert found["model"] == "DeepLab v3, resnet_v2_50"
    assert found["multi_grid"] == "1, 2, 4"
    assert (found["freeze"], found["ema"], found["batch_size"]) == ("–", "no", "8")
    assert found["steps"] == "4000"  # the setting; the summary's comes before it
    assert "600 of 4,000" in page
    assert found["best miou, at step 600"] == "0.6000"
    assert found["restored"] == "2/2 backbone variables"


def test_initialization_is_counted_and_listed_by_layer(page):
    read = Reader(page)
    assert "loaded: 2 variables, 128 values" in read.texts["summary"]
    assert "unused in the checkpoint: 0 variables" in read.texts["div"]
    assert read.texts["li"] == [
        "resnet_v2_50/block1/unit_1/bottleneck_v2/conv1/BatchNorm/{beta, gamma}",
        "logits/semantic/weights (new head)",
        "global_step (global_step)",
    ]


def test_classes_and_confusion_are_those_of_the_matrix(run, page):
    rows = re.findall(r'<tr><th>([^<]*)</th><td class="bar"[^>]*>(.*?)</td><td>(.*?)</td><td>(.*?)</td>', page)
    assert rows == [
        ("background", "83.3", "90.0", "1,000"),  # 900 / (1000 + 80)
        ("cat &amp; dog", "48.4", "75.0", "200"),  # 150 / (200 + 110)
        ("&lt;script&gt;alert(1)&lt;/script&gt;", "60.0", "60.0", "100"),
        ("never seen", "–", "–", "0"),
    ]
    assert 'title="cat &amp; dog → background: 25.0 %">25</td>' in page
    assert "Validation at step 600." in page


def test_speed_tells_training_from_the_rest(page):
    found = facts(page)
    assert found["images/s, median"] == "4"
    assert found["wall clock"] == "0:25:00"
    assert found["in training steps"] == "0:20:00"  # 600 steps of 8 images at 4 images/s
    assert found["evaluation, saving"] == "0:05:00 (20%)"


def test_page_fetches_nothing_and_runs_nothing(page):
    read = Reader(page)
    links = [value for _, name, value in read.attributes if name in ("src", "href", "xlink:href", "action", "poster")]
    assert links
    assert all(value.startswith(("#", "data:image/")) for value in links)
    assert not re.search(r"url\((?!#)|@import|https?:", page)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _, _ in read.attributes}
    assert "<script" not in page


def test_report_is_built_again_from_its_files(run, page, capsys):
    (run.path / "report.html").unlink()
    main([str(run.path)])
    assert (run.path / "report.html").read_text() == page
    assert capsys.readouterr().out.strip() == str(run.path / "report.html")


def test_classifier_has_its_accuracy_and_no_confusion_matrix(tmp_path):
    run = a_run(tmp_path / "run", 3, CLASSIFIER, scores=("val_accuracy", "val_loss"))
    page = write_report(run).read_text()
    read = Reader(page)
    assert read.texts["h2"] == ["Configuration", "Initialization", "Curves", "Speed"]
    assert "Validation loss" in read.texts["figcaption"]
    assert facts(page)["model"] == "classifier, mobilenet_v2"
    assert facts(page)["best val_accuracy, at step 300"] == "0.3000"
    assert "From scratch" in page


@pytest.mark.parametrize("rows", [0, 1])
def test_run_that_has_hardly_begun_has_a_report(tmp_path, rows):
    page = write_report(a_run(tmp_path / "run", rows)).read_text()
    assert f"{100 * rows} of 4,000" in page
    assert "best miou" not in page
    assert ("No step was logged yet" in page) == (rows == 0)


def test_report_of_many_classes_stays_small(tmp_path):
    run = a_run(tmp_path / "run", 1, classes=[f"class {number}" for number in range(150)])
    matrix = np.random.default_rng(0).integers(100, 1000, (150, 150))
    assert write_report(run, matrix=matrix).stat().st_size < 2e6


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("coverage.json", '{"counts": {', "coverage.json: Input data was truncated"),
        ("scores.json", "[]", "scores.json: Expected object, got array"),
        (
            "log.csv",
            "step,loss,learning_rate,images_per_second,seconds\n1,high,0.1,4,1\n",
            "log.csv: line 2: loss is 'high'",
        ),
        ("predictions.png", "no picture", "predictions.png"),
    ],
)
def test_damaged_file_is_named(tmp_path, name, text, said):
    run = a_run(tmp_path / "run", 2)
    (run.path / name).write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)):
        write_report(run)
    assert not (run.path / "report.html").exists()


def test_whatever_a_runs_files_hold_is_text_on_the_page(tmp_path):
    hostile = "<i title='&\">"
    run = a_run(tmp_path / "run", 2, report=initialization(), scores=(hostile,), classes=[hostile, "b"])
    coverage = json.loads((run.path / "coverage.json").read_text())
    coverage |= {"checkpoint": hostile, "model": hostile, "guide": hostile}
    coverage["entries"][0] |= {"variable": hostile, "reason": hostile}
    run.write("coverage.json", sealed({name: value for name, value in coverage.items() if name != "sha256"}))
    write_report(run, matrix=np.eye(2, dtype=int))
    page = write_report(run).read_text()
    assert page.count("&lt;i title=") >= 12
    assert "<i " not in page


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"config\.json: cannot be read as a run's configuration"):
        main([str(tmp_path)])


# In a real browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A function of (page's path, *flags) → (stdout, stderr) of a real Chromium without a window or a network."""
    browse = browser.chromium(tmp_path_factory.mktemp("profile"))
    return lambda path, *flags: browse(path.as_uri(), *flags)


def complaints(stderr):
    """What the page itself made the browser say."""
    return [line for line in stderr.splitlines() if "CONSOLE" in line]


def test_chromium_shows_every_section_without_a_complaint(chromium, run):
    dom, stderr = chromium(run.path / "report.html", "--dump-dom")
    read = Reader(dom)
    assert read.texts["h2"] == SECTIONS
    assert sum(tag == "svg" and name == "viewbox" for tag, name, _ in read.attributes) == 4
    assert complaints(stderr) == []


def test_chromium_is_kept_from_fetching(chromium, run, page, tmp_path):
    """The page's own policy refuses what is slipped in; so an empty list of complaints means something."""
    tampered = tmp_path / "tampered.html"
    tampered.write_text(page.replace("</body>", '<img src="https://example.org/x.png"><script>1</script></body>'))
    _, stderr = chromium(tampered, "--dump-dom")
    assert len(complaints(stderr)) == 2
    assert "Content Security Policy" in complaints(stderr)[0]


def test_chromium_draws_curves_and_pictures(chromium, run, tmp_path):
    shot = tmp_path / "shot.png"
    chromium(run.path / "report.html", "--window-size=1200,3000", f"--screenshot={shot}")
    pixels = cv2.imread(str(shot), cv2.IMREAD_COLOR_RGB).astype(int)
    assert pixels.shape == (3000, 1200, 3)
    for colour, least in ((SHEET_COLOUR, 20_000), (LINE_COLOUR, 200)):  # a sheet of 90 x 240 pixels; five curves
        assert (np.abs(pixels - colour).max(-1) <= 3).sum() >= least, colour


@pytest.mark.parametrize("width", [1200, 400])
def test_page_is_no_wider_than_the_window(chromium, tmp_path, width):
    """On a desktop and on a phone; in a frame, as a headless window is never narrower than 500 pixels."""
    run = a_run(tmp_path / "run", 2, report=initialization(), classes=[f"a longish name {n}" for n in range(30)])
    page = write_report(run, matrix=np.eye(30, dtype=int), sheet=np.zeros((90, 738, 3), np.uint8)).read_text()
    unguarded = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    measure = "parent.document.title = [innerWidth, document.documentElement.scrollWidth]"
    measured = unguarded.replace("</body>", f"<script>{measure}</script></body>")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<title></title><iframe style="border: 0; width: {width}px" srcdoc="{escape(measured)}"></iframe>'
    )
    dom, _ = chromium(frame, "--window-size=1300,900", "--dump-dom")
    assert Reader(dom).texts["title"][0] == f"{width},{width}"


def test_command_says_a_mistake_without_a_traceback(tmp_path):
    command = [sys.executable, "report_run.py", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
