"""eval_seg.py from its command line: every output read back by other code, several models at once, mistakes."""

import csv
import json
import shutil
import tarfile
from io import BytesIO

import cv2
import keras
import numpy as np
import pytest
from PIL import Image

import command_line
import eval_seg
from data.sample import draw_voc
from data.voc import VOC_CLASSES, VOCSegmentation, names_of, palette
from errors import UserError
from inference.submission import Submission


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    draw_voc(root, train=1, val=4)
    sets = root / "ImageSets" / "Segmentation"
    (sets / "test.txt").write_text((sets / "val.txt").read_text())
    return root


@pytest.fixture(scope="module")
def voc21(voc, tmp_path_factory):
    """The same images as a data set of VOC's own classes, whose image set `test` has no masks."""
    root = tmp_path_factory.mktemp("voc21")
    (root / "JPEGImages").symlink_to(voc / "JPEGImages")
    sets = root / "ImageSets" / "Segmentation"
    sets.mkdir(parents=True)
    (sets / "classes.txt").write_text("\n".join(VOC_CLASSES))
    (sets / "test.txt").write_text((voc / "ImageSets/Segmentation/val.txt").read_text())
    return root


@pytest.fixture(scope="module")
def save_deeplab(tmp_path_factory):
    """A function (name, classes, seed) → checkpoint of a quick DeepLab v3 that says several classes on any image."""
    from models.deeplab_v3 import deeplab_v3
    from models.weight_init import save_checkpoint

    def save(name, classes, seed):
        keras.utils.set_random_seed(seed)
        model = deeplab_v3("mobilenet_v2", classes, depth_multiplier=0.35)
        rng = np.random.default_rng(seed)
        logits = model.logits.layers[0]
        logits.kernel.assign(rng.normal(size=logits.kernel.shape))
        images = rng.uniform(-1, 1, (2, 65, 65, 3)).astype("f")
        logits.bias.assign(-np.asarray(model.small_logits(images)).mean((0, 1, 2)))
        prefix = tmp_path_factory.mktemp("checkpoint") / name
        save_checkpoint(model, prefix)
        return str(prefix)

    return save


@pytest.fixture(scope="module")
def first(save_deeplab):
    return save_deeplab("first.ckpt", 5, 0)


@pytest.fixture(scope="module")
def second(save_deeplab):
    return save_deeplab("second.ckpt", 5, 1)


def evaluate(voc, *arguments):
    eval_seg.main(["--data", str(voc), "--crop-size", "129", *map(str, arguments)])


def palette_picture(file):
    with Image.open(file) as picture:
        picture.load()
    assert picture.mode == "P"
    return picture


def scored_elsewhere(predictions, dataset):
    """(matrix, mIoU) of uint8 predictions, by Keras."""
    metric = keras.metrics.MeanIoU(dataset.num_classes, ignore_class=255)
    for prediction, (_, mask) in zip(predictions, dataset, strict=True):
        metric.update_state(mask, prediction)
    return np.asarray(metric.total_cm), float(metric.result())


@pytest.fixture(scope="module")
def evaluated(voc, first, tmp_path_factory):
    """The folder with everything that can be asked for of one model."""
    out = tmp_path_factory.mktemp("out")
    files = {flag: out / f"{flag}.png" for flag in ("trimap", "sheet", "worst", "confusion")}
    pictures = [argument for flag, path in files.items() for argument in (f"--{flag}", path)]
    evaluate(
        voc,
        *("--ckpt", first, "--json", out / "deep" / "scores.json", "--csv", out / "scores.csv"),
        *pictures,
        *("--save-pred", out / "predictions", "--worst-images", 2, "--sheet-images", 2),
    )
    return out


def test_saved_predictions_read_back_by_other_code_give_the_same_scores(voc, evaluated):
    result = json.loads((evaluated / "deep" / "scores.json").read_text())
    dataset = VOCSegmentation(voc, "val")
    files = [evaluated / "predictions" / f"{name}.png" for name in dataset.names]
    pictures = [palette_picture(file) for file in files]
    for picture, file in zip(pictures, files, strict=True):
        assert np.array_equal(picture.convert("RGB"), palette()[np.asarray(picture)])
        assert np.array_equal(cv2.imread(str(file))[..., ::-1], picture.convert("RGB"))
    matrix, miou = scored_elsewhere(map(np.asarray, pictures), dataset)
    assert (matrix.sum(0) > 0).sum() > 1
    np.testing.assert_array_equal(result["confusion_matrix"], matrix)
    assert result["miou"] == pytest.approx(miou, abs=1e-6)
    assert len(list((evaluated / "predictions").iterdir())) == 4


def test_json_and_csv_say_the_same(evaluated):
    result = json.loads((evaluated / "deep" / "scores.json").read_text())
    rows = list(csv.DictReader((evaluated / "scores.csv").read_text().splitlines()))
    iou = {row["class"]: float(row["first.ckpt"]) for row in rows if row["score"] == "iou" and row["first.ckpt"]}
    assert iou == pytest.approx({name: value for name, value in result["iou"].items() if value is not None})
    means = {row["score"]: float(row["first.ckpt"]) for row in rows if row["score"] != "iou"}
    assert means == pytest.approx({name: result[name] for name in means})
    assert len(means) == 5
    assert (result["image_set"], result["images"], result["scales"], result["flip"]) == ("val", 4, [1.0], False)


def test_worst_images_and_trimap_are_in_the_json(voc, evaluated):
    result = json.loads((evaluated / "deep" / "scores.json").read_text())
    dataset, scored = VOCSegmentation(voc, "val"), []
    for name, sample in zip(dataset.names, dataset, strict=True):
        prediction = np.asarray(palette_picture(evaluated / "predictions" / f"{name}.png"))
        metric = keras.metrics.MeanIoU(5, ignore_class=255)
        metric.update_state(sample[1], prediction)
        scored.append((float(metric.result()), name))
    assert [worst["name"] for worst in result["worst"]] == [name for _, name in sorted(scored)[:2]]
    assert [worst["miou"] for worst in result["worst"]] == pytest.approx([miou for miou, _ in sorted(scored)[:2]])
    assert result["trimap"]["widths"][::10] == [1, 40]
    assert len(result["trimap"]["miou"]) == len(result["trimap"]["iou"]["disc"]) == 11


@pytest.mark.parametrize("name", ["trimap", "sheet", "worst", "confusion"])
def test_pictures_are_pngs_with_something_on_them(evaluated, name):
    picture = cv2.imread(str(evaluated / f"{name}.png"))
    assert min(picture.shape[:2]) > 200
    assert picture.std() > 5


def test_several_models_give_one_table(voc, first, second, tmp_path, capsys):
    files = ("--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv", "--trimap", tmp_path / "t.png")
    evaluate(voc, "--ckpt", first, second, *files)
    results = json.loads((tmp_path / "s.json").read_text())
    assert [result["checkpoint"] for result in results] == [first, second]
    assert results[0]["confusion_matrix"] != results[1]["confusion_matrix"]
    miou = next(row for row in csv.DictReader((tmp_path / "s.csv").read_text().splitlines()) if row["score"] == "miou")
    assert [float(miou["first.ckpt"]), float(miou["second.ckpt"])] == [result["miou"] for result in results]
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mIoU "))
    assert line.split()[1:] == [f"{100 * result['miou']:.2f}" for result in results]
    assert (tmp_path / "t.png").exists()


def test_averaging_reaches_the_predictor(voc, first, evaluated, tmp_path):
    flags = {
        "plain": (),
        "stride": ("--output-stride", 8),
        "scales": ("--scales", "0.75,1"),
        "flip": ("--flip",),
        "window": ("--window", 33),
    }
    matrices = {}
    for name, given in flags.items():
        evaluate(voc, "--ckpt", first, *given, "--json", tmp_path / f"{name}.json")
        matrices[name] = json.dumps(json.loads((tmp_path / f"{name}.json").read_text())["confusion_matrix"])
    assert len(set(matrices.values())) == len(flags)  # each makes a difference of its own
    paper = eval_seg.parse_arguments(["--ckpt", "a", "--data", "b", "--multi-scale"])
    assert paper.scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def test_submission_has_the_server_s_layout(voc, voc21, save_deeplab, tmp_path):
    archive, folder = tmp_path / "results.tar.gz", tmp_path / "predictions"
    test_set = ("--image-set", "test", "--predict-only", "--voc-submission", archive, "--save-pred", folder)
    evaluate(voc21, "--ckpt", save_deeplab("voc.ckpt", 21, 0), *test_set, "--competition", "comp5")
    names = (voc / "ImageSets/Segmentation/val.txt").read_text().split()
    with tarfile.open(archive, "r:gz") as tar:
        inside = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
    prefix = "results/VOC2012/Segmentation/comp5_test_cls"
    assert set(inside) == {f"{prefix}/{name}.png" for name in names}
    for name in names:
        picture = palette_picture(BytesIO(inside[f"{prefix}/{name}.png"]))
        with Image.open(voc / "JPEGImages" / f"{name}.jpg") as image:
            assert picture.size == image.size
        assert np.asarray(picture).max() < len(VOC_CLASSES)
        assert np.array_equal(picture, palette_picture(folder / f"{name}.png"))
    assert set(tmp_path.iterdir()) == {archive, folder}


def test_submission_is_for_models_of_any_data_unless_told(tmp_path):
    with Submission(tmp_path / "s.tgz", ["a"]) as submission:
        submission.add(0, np.zeros((2, 2), np.uint8))
    with tarfile.open(tmp_path / "s.tgz") as tar:
        assert tar.getnames() == ["results/VOC2012/Segmentation/comp6_test_cls/a.png"]
    assert eval_seg.parse_arguments(["--ckpt", "a", "--data", "b"]).competition == "comp6"


class Export:
    """What `open_export` gives, without a network: the class is how bright the red is."""

    num_classes = 5
    class_names = names_of(5)

    def padded_size(self, height, width):
        return 129, 129

    def labels_of(self, images):
        return [image[..., 0] // 52 for image in images]


def test_the_same_classes_in_another_order_are_refused(voc, monkeypatch):
    shuffled = Export()
    shuffled.class_names = VOCSegmentation(voc, "val").class_names[::-1]
    monkeypatch.setattr("inference.runtimes.open_export", lambda path: shuffled)
    with pytest.raises(UserError, match="another order"):
        eval_seg.main(["--data", str(voc), "--ckpt", "model.onnx"])


def test_an_export_is_measured_as_a_checkpoint_is(voc, tmp_path, monkeypatch):
    monkeypatch.setattr("inference.runtimes.open_export", lambda path: Export())
    eval_seg.main(["--data", str(voc), "--ckpt", "model.onnx", "--json", str(tmp_path / "s.json")])
    result, dataset = json.loads((tmp_path / "s.json").read_text()), VOCSegmentation(voc, "val")
    matrix, _ = scored_elsewhere([image[..., 0] // 52 for image, _ in dataset], dataset)
    assert result["confusion_matrix"] == matrix.tolist()
    assert result["model"] is None
    with pytest.raises(UserError, match=r"model.onnx: is an export.*--output-stride, --flip"):
        eval_seg.main(["--data", str(voc), "--ckpt", "model.onnx", "--output-stride", "8", "--flip"])


def test_an_interrupted_submission_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), Submission(tmp_path / "s.tar.gz", ["a"]) as submission:
        submission.add(0, np.zeros((2, 2), np.uint8))
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--ckpt", "a", "b", "--sheet", "s.png", "--save-pred", "p"], "--sheet, --save-pred: for one model only"),
        (["--ckpt", "a", "a"], "named twice"),
        (["--ckpt", "a", "--predict-only"], "--save-pred, --voc-submission"),
        (["--ckpt", "a", "--predict-only", "--save-pred", "p", "--json", "j", "--worst", "w"], "--json, --worst"),
    ],
)
def test_contradictions_are_told_at_once(arguments, text):
    with pytest.raises(UserError, match=text):
        eval_seg.main([*arguments, "--data", "nowhere"])


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (["--json", "{out}/file/s.json"], "file/s.json: cannot be written"),
        (["--sheet", "{out}"], "is a folder"),
        (["--sheet", "{out}/s.png", "--worst", "{out}/s.png"], "--sheet is to be written there too"),
        (["--save-pred", "{voc}/SegmentationClass"], "a folder of the data set itself"),
        (["--voc-submission", "{out}/s.zip"], "takes a .tar.gz"),
        (["--voc-submission", "{out}/s.tar.gz"], "21 classes, this data set has 5"),
    ],
)
def test_what_cannot_be_written_is_told_before_a_model_is_opened(voc, tmp_path, output, text):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=text):
        evaluate(voc, "--ckpt", "nowhere", *(part.format(out=tmp_path, voc=voc) for part in output))


def test_masks_are_safe_in_a_linked_folder_that_is_not_in_use_even_for_the_knowing(voc, tmp_path):
    root, elsewhere = tmp_path / "voc", tmp_path / "elsewhere"
    shutil.copytree(voc, root)
    (root / "SegmentationClass").rename(elsewhere)
    (root / "SegmentationClass").symlink_to(elsewhere)
    for place in elsewhere, elsewhere / "deeper":
        with pytest.raises(UserError, match="a folder of the data set itself"):
            evaluate(root, "--ckpt", "nowhere", "--save-pred", str(place), "--overwrite")
    with pytest.raises(UserError, match=r"holds files that are no predictions .*\(notes.txt\)"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")
        evaluate(root, "--ckpt", "nowhere", "--save-pred", str(tmp_path / "out"))


def test_another_number_of_classes_is_told_with_the_checkpoint(voc21, voc, first):
    with pytest.raises(UserError, match=r"first.ckpt: has 5 classes, .* has 21"):
        evaluate(voc21, "--ckpt", first, "--image-set", "test", "--predict-only", "--save-pred", voc / "p")


def test_missing_masks_are_an_error_unless_nothing_is_scored(voc21, first, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.run(lambda: evaluate(voc21, "--ckpt", first, "--image-set", "test"))
    assert stopped.value.code == 2
    assert "SegmentationClass" in capsys.readouterr().err
