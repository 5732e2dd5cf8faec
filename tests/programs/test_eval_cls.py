"""eval_cls.py from its command line: whose class is whose, what is counted, what is refused."""

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

import command_line
import eval_cls
import slim_deeplab
from data.image_folder import ImageFolder, ImageList
from data.imagenet import imagenet_names
from data.sample import draw_image_folder
from errors import UserError
from inference import accuracy
from inference.classification import OpenedModel
from models import mobilenet_v2
from models.weight_init import save_checkpoint
from tests.small_classifier import CLASSES, level, save_run, small_classifier

WHOLE = mobilenet_v2.INVERTED_RESIDUALS


pytestmark = pytest.mark.usefixtures("short_mobilenet")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    draw_image_folder(root, train=1, val=3)
    return root


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory):
    model = small_classifier()
    level(model, [image for image, _ in (ImageFolder(folders, "val")[i] for i in range(12))])
    return save_run(tmp_path_factory.mktemp("runs") / "run", model)


def ended(*flags):
    """→ exit code of eval_cls.py."""
    with pytest.raises(SystemExit) as end:
        command_line.run(lambda: eval_cls.main([str(flag) for flag in flags]))
    return end.value.code


class Drawn:
    """Says of the i-th picture that it is given what the i-th row has."""

    def __init__(self, rows, class_names):
        self.rows, self.class_names, self.num_classes = list(rows), tuple(class_names), len(class_names)

    def probabilities_of(self, images):
        return np.stack([self.rows.pop(0) for _ in images])


def drawn(folders, class_names, values=None):
    """(model, probabilities) of random answers to the 12 pictures."""
    rows = np.random.default_rng(0).dirichlet(np.ones(len(class_names)), 12).astype("float32")
    rows = rows if values is None else values
    return OpenedModel("drawn.ckpt", Drawn(rows, class_names)), rows


def test_scores_are_scikit_learns(folders):
    names = [*CLASSES[::-1], "a", "b", "c"]  # the data's are among the model's, in another order
    model, rows = drawn(folders, names)
    dataset = ImageFolder(folders, "val")
    labels = accuracy.labels_of(model, dataset, {})
    assert [names[label] for label in labels] == list(CLASSES)
    found = accuracy.measure("drawn", model, dataset, labels)
    truth = [labels[label] for _, label in dataset.samples]
    for key, k in (("top1", 1), ("top5", 5)):
        assert found[key] == pytest.approx(top_k_accuracy_score(truth, rows, k=k, labels=range(7)))
    assert 0 < found["top1"] < found["top5"] < 1
    matrix = confusion_matrix(truth, rows.argmax(1), labels=[*labels, *(set(range(7)) - set(labels))])
    assert np.array_equal(np.array(found["confusion_matrix"])[:, :4], matrix[:4, :4])
    assert np.array_equal(np.array(found["confusion_matrix"])[:, 4], matrix[:4, 4:].sum(1))
    assert found["confusion_columns"] == [*CLASSES, "any other"]
    assert found["loss"] == pytest.approx(-np.log(rows[range(12), truth]).mean(), rel=1e-6)


def test_equal_probabilities_are_in_the_order_of_the_classes(folders):
    """As `argmax` has them: a network that says the same of all classes is right for the first alone."""
    model, _ = drawn(folders, CLASSES, np.full((12, 4), 0.25, "float32"))
    dataset = ImageFolder(folders, "val")
    found = accuracy.measure("flat", model, dataset, accuracy.labels_of(model, dataset, {}))
    assert [found["classes"][name]["top1"] for name in CLASSES] == [1, 0, 0, 0]
    assert found["top5"] is None  # of four classes it would say nothing


def test_probabilities_that_are_no_numbers_are_refused(folders):
    rows = np.full((12, 4), 0.25, "float32")
    rows[3, 0] = np.nan
    model, _ = drawn(folders, CLASSES, rows)
    dataset = ImageFolder(folders, "val")
    with pytest.raises(UserError, match=r"drawn\.ckpt: its probabilities are not all numbers"):
        accuracy.measure("nan", model, dataset, accuracy.labels_of(model, dataset, {}))


def listed(tmp_path, folders, *words):
    picture = ImageFolder(folders, "val").samples[0][0]
    (tmp_path / "list.txt").write_text("".join(f"{picture} {word}\n" for word in words))
    return ImageList(tmp_path / "list.txt")


def test_a_class_is_told_by_name_number_wordnet_id_or_label(folders, tmp_path):
    model, _ = drawn(folders, imagenet_names(1001))
    assert accuracy.labels_of(model, listed(tmp_path, folders, "ant", "310", "n01440764"), {}) == [311, 310, 1]
    assert accuracy.labels_of(model, listed(tmp_path, folders, "ants"), {"ants": "ant"}) == [311]
    numbered, _ = drawn(folders, ["1", "2", "3"])  # where numbers are names, no position is meant
    assert accuracy.labels_of(numbered, listed(tmp_path, folders, "1"), {}) == [0]
    with pytest.raises(UserError, match="'0' is none of the 3"):
        accuracy.labels_of(numbered, listed(tmp_path, folders, "0"), {})


@pytest.mark.parametrize(
    ("words", "said", "error"),
    [
        (["ants"], {}, r"'ants' is none of the 1001 .* --label ants=CLASS"),
        (["ant", "311"], {}, "'ant' and '311' are both the model's 'ant'"),
        (["ant"], {"bees": "bee"}, "--label bees=bee: .* has no class 'bees', but ant"),
        (["ant"], {"ant": "emmets"}, "'emmets' is none of the 1001"),
    ],
)
def test_a_class_that_is_not_told_is_refused(folders, tmp_path, words, said, error):
    model, _ = drawn(folders, imagenet_names(1001))
    with pytest.raises(UserError, match=error):
        accuracy.labels_of(model, listed(tmp_path, folders, *words), said)


def test_a_run_is_measured_and_all_files_are_written(run, folders, tmp_path, capsys):
    files = {
        name: tmp_path / f"{name}.{'png' if name in ('worst', 'sheet', 'confusion') else name}"
        for name in ("json", "csv", "worst", "sheet", "confusion")
    }
    flags = [each for name, path in files.items() for each in (f"--{name}", path)]
    assert ended("--ckpt", run, "--data", folders, *flags) in (0, None)
    out = capsys.readouterr().out
    assert "resized to 32x32 by area" in out and "assumed" not in out  # the run tells
    found = json.loads(files["json"].read_text())
    assert found["pictures"] == 12 and sum(map(sum, found["confusion_matrix"])) == 12
    rows = {(row["score"], row["class"]): row["run"] for row in csv.DictReader(files["csv"].read_text().splitlines())}
    assert float(rows["top1", ""]) == found["top1"] and rows["top5", ""] == ""
    assert all(files[name].read_bytes().startswith(b"\x89PNG") for name in ("worst", "sheet", "confusion"))
    shares = [picture["probability"] for picture in found["worst"]]
    assert shares == sorted(shares) and len(shares) == 8
    assert f"worst: {found['worst'][0]['picture']}" in out
    by_python = slim_deeplab.load(run).evaluate(folders)
    assert by_python["top1"] == found["top1"] and by_python["confusion_matrix"] == found["confusion_matrix"]


def test_what_a_checkpoint_cannot_tell_is_said(run, folders, tmp_path, capsys):
    save_checkpoint(small_classifier(), tmp_path / "alone.ckpt")
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    command = ["--ckpt", tmp_path / "alone.ckpt", "--data", folders]
    assert ended(*command) == 2
    out, err = capsys.readouterr()
    assert "assumed: 224 pixels (--image-size), shorter-side (--resize), slim's preprocessing" in out
    assert "its classes have no names (--classes)" in out
    assert "'disc' is none of the 4" in err
    said = ["--image-size", 32, "--resize", "square", "--mean", "1,2,3", "--classes", tmp_path / "classes.txt"]
    assert ended(*command, *said) in (0, None)
    out = capsys.readouterr().out
    assert "assumed" not in out
    assert "RGB minus (1.00, 2.00, 3.00)" in out


def test_mistakes_are_said(run, folders, tmp_path, capsys):
    picture = ImageFolder(folders, "val").samples[0][0]
    for flags, said in (
        ([run, run, "--data", folders], "a model is named twice"),
        ([run, tmp_path / "b", "--data", folders, "--worst", "w.png"], "--worst: for one model only"),
        ([run, "--data", folders, "--image-set", "test"], "no such folder"),
        ([run, "--data", folders, "--json", tmp_path], "is a folder; name a file"),
        ([run, "--data", folders, "--sheet", picture], "is a file of the data set itself"),
        ([run, "--data", folders, "--label", "ants"], "must be THEIRS=OURS"),
        ([run, "--data", folders, "--classes", picture], "cannot be read as text"),
        ([run, "--data", folders, "--resize", "crop"], "invalid choice"),
    ):
        assert ended("--ckpt", *flags) == 2
        assert said in capsys.readouterr().err
    assert picture.stat().st_size


def test_a_damaged_picture_is_named(run, folders, tmp_path, capsys):
    whole = ImageFolder(folders, "val").samples[0][0]
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:400])
    (tmp_path / "list.txt").write_text(f"{whole} disc\ncut.jpg disc\n")
    assert ended("--ckpt", run, "--data", tmp_path / "list.txt") == 2
    assert "cut.jpg: this JPEG is cut short" in capsys.readouterr().err


def test_the_published_network_is_right_as_often_as_it_was(real_checkpoints, shared_data, tmp_path, capsys):
    """101 and 113 of 120, as the data's README has it: so the names stand in slim's order."""
    val = shared_data / "hymenoptera_data" / "val"
    lines = [
        f"{path} {name}"
        for place, name in (("ants", "ant"), ("bees", "bee"))
        for path in sorted((val / place).glob("*.jpg"))[:60]
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    command = ["--ckpt", real_checkpoints / "mobilenet_v2_1.0_224_8bit.ckpt", "--data", tmp_path / "list.txt"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mobilenet_v2, "INVERTED_RESIDUALS", WHOLE)
        assert ended(*command, "--json", tmp_path / "scores.json") in (0, None)
    found = json.loads((tmp_path / "scores.json").read_text())
    assert (round(120 * found["top1"]), round(120 * found["top5"])) == (101, 113)
    assert "its 1001 classes are ImageNet's (--classes)" in capsys.readouterr().out
