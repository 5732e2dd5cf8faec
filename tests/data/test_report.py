"""What cannot have been meant stops before a training and before an evaluation, with the file and what to do."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.images import DataError
from data.report import _read_remembered, _remember, report_on, scan
from data.sample import draw_voc
from data.voc import VOCSegmentation, write_mask

FIELD = Path(__file__).parents[3] / "shared" / "field"
needs_field = pytest.mark.skipif(not FIELD.is_dir(), reason=f"needs the small inputs of {FIELD}")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    draw_voc(root, train=8, val=3)
    return root


@pytest.fixture
def root(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "voc")
    return tmp_path / "voc"


def training(root, train="train", val="val", reading=None, **how):
    sets = [VOCSegmentation(root, name, **(reading or {})) for name in (train, val)]
    return report_on(sets, trains=True, **how)


def sets(root):
    return root / "ImageSets" / "Segmentation"


def test_good_data_pass_and_are_told(root):
    report = training(root)
    report.check()
    text = str(report)
    assert "classes from" in text and "8 from SegmentationClass" in text and "left out: 4 of 15 pictures" in text
    masks = [VOCSegmentation(root, "train")[index][1] for index in range(8)]
    disc = sum((mask == 1).sum() for mask in masks) / sum(mask.size for mask in masks)
    row = next(line for line in text.splitlines() if line.startswith("disc")).split()
    assert row[1] == f"{100 * disc:.1f}" and row[3] == f"{100 * sum((mask == 1).any() for mask in masks) / 8:.1f}"
    assert report.train_pixels.tolist() == [sum(int((mask == label).sum()) for mask in masks) for label in range(5)]


@pytest.mark.parametrize("reads", [0, 1])
def test_a_class_without_a_pixel_stops_a_training_unless_it_is_named(root, reads):
    with open(sets(root) / "classes.txt", "a") as file:
        file.write("hexagon\n")
    with pytest.raises(DataError, match=r"no pixel of the 8 masks of `train` is hexagon.*--allow-absent hexagon"):
        training(root).check()
    training(root, allow_absent=["hexagon"]).check()
    report_on([VOCSegmentation(root, "val")]).check()  # nothing is learnt from these
    with pytest.raises(DataError, match="none of the classes"):
        training(root, allow_absent=["hexagone"]).check()


def test_a_header_in_the_class_file_is_told(root):
    path = sets(root) / "classes.txt"
    path.write_text("shapes of mine\n" + path.read_text())
    with pytest.raises(DataError, match=r"no pixel .* is star.*a line too many"):
        training(root).check()


def test_values_that_are_no_class_are_named_with_the_first_file(root):
    path = root / "SegmentationClass" / "train_00003.png"
    mask = np.array(Image.open(path))
    mask[0, :2] = 37, 99
    write_mask(path, mask)
    with pytest.raises(DataError, match=r"train_00003\.png: a mask may hold 0 … 4 .*found 37, 99.*--ignore-label"):
        training(root).check()


def test_another_void_is_ignored_when_it_is_said(root):
    for path in (root / "SegmentationClass").iterdir():
        mask = np.array(Image.open(path))
        write_mask(path, np.where(mask == 255, 11, mask).astype(np.uint8))
    with pytest.raises(DataError, match="found 11"):
        training(root).check()
    report = training(root, reading={"ignore_label": 11})
    report.check()
    _, mask = VOCSegmentation(root, "train", ignore_label=11)[0]
    assert 255 in mask and 11 not in mask
    assert report.sets[0].ignored > 0


@pytest.mark.parametrize("orientation", [1, 6])
def test_sizes_that_differ_are_told_and_exif_named_where_it_mends_them(root, orientation):
    for number in range(8):
        path = root / "JPEGImages" / f"train_{number:05d}.jpg"
        exif = Image.Exif()
        exif[274] = orientation
        picture = Image.open(path).resize((120, 90))
        picture.save(path, exif=exif)
        write_mask(root / "SegmentationClass" / f"train_{number:05d}.png", np.full((90, 120), number % 5, np.uint8))
    if orientation == 1:
        training(root).check()
        return
    with pytest.raises(DataError, match=r"mask is 120x90 .* its image 90x120.*--ignore-orientation"):
        training(root).check()
    training(root, reading={"turn": False}).check()


def test_overlap_and_repeats_stop_unless_allowed(root):
    (sets(root) / "val.txt").write_text("val_00000\nval_00001\ntrain_00002\n")
    with pytest.raises(DataError, match=r"`train` and `val` have 1 images in common, such as .*train_00002"):
        training(root).check()
    training(root, allow_repeats=True).check()
    (sets(root) / "val.txt").write_text("val_00000\nval_00000.jpg\n")
    with pytest.raises(DataError, match=r"`val` lists 1 images twice, such as .*val_00000"):
        training(root).check()


@pytest.mark.parametrize(("how", "message"), [("jpeg", "JPEG, whatever its name"), ("16", "mode I;16"), ("rgb", "RGB")])
def test_masks_that_are_lossy_or_deep_or_coloured_stop(root, how, message):
    path = root / "SegmentationClass" / "train_00001.png"
    mask = np.array(Image.open(path))
    if how == "jpeg":
        Image.fromarray(mask).save(path, "JPEG")
    else:
        cv2.imwrite(str(path), mask.astype(np.uint16) if how == "16" else np.dstack([mask] * 3))
    with pytest.raises(DataError, match=rf"train_00001\.png: .*{message}"):
        training(root).check()


def test_only_what_has_changed_is_read_again(root, tmp_path, monkeypatch):
    read = []
    from data import report

    real = report._facts
    monkeypatch.setattr(report, "_facts", lambda pair: read.append(pair.name) or real(pair))
    first = str(training(root, remember=tmp_path / "kept"))
    assert len(read) == 11
    assert str(training(root, remember=tmp_path / "kept")) == first and len(read) == 11
    write_mask(root / "SegmentationClass" / "val_00001.png", np.zeros((9, 9), np.uint8))
    training(root, remember=tmp_path / "kept")
    assert read[11:] == ["val_00001"]
    for file in (tmp_path / "kept").iterdir():
        file.write_text("{damaged")
    training(root, remember=tmp_path / "kept")
    assert len(read) == 23
    for file in (tmp_path / "kept").iterdir():  # it still is JSON
        file.write_text(file.read_text().replace('"orientation": 1', '"orientation": 2'))
    training(root, remember=tmp_path / "kept")
    assert len(read) == 34


def test_a_name_that_is_no_text_does_not_keep_others_from_being_remembered(root, tmp_path, monkeypatch):
    dataset = VOCSegmentation(root, "train")
    facts = scan(dataset, tmp_path / "kept")
    (file,) = (tmp_path / "kept").iterdir()
    strange, *others = _read_remembered(file)
    _remember(file, dict(zip([f"{strange}\udcff", *others], facts, strict=True)))
    assert list(_read_remembered(file)) == others


@needs_field
@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("ref", None),
        ("upper", None),
        ("bom", None),
        ("exif3", None),
        ("bin255", r"255 covers \d+\.\d % and is ignored.*class object has no pixel.*--foreground 255"),
        ("adaptive", r"the palette differs from that of"),
        ("jpegmask", "this one is JPEG"),
        ("png16", r"100 … 800.*--picture-range 100,800"),
    ],
)
def test_inputs_from_the_field(folder, message):
    report = report_on([VOCSegmentation(FIELD / folder, "val")])
    if message is None:
        report.check()
    else:
        with pytest.raises(DataError, match=message):
            report.check()


@needs_field
def test_what_is_read_in_the_field_is_what_was_meant():
    ref, bom, turned = (VOCSegmentation(FIELD / folder, "val") for folder in ("ref", "bom", "exif3"))
    for index in range(2):
        assert all(np.array_equal(*parts) for parts in zip(ref[index], bom[index], strict=True))
        assert np.abs(turned[index][0].astype(int) - ref[index][0]).mean() < 6  # saved again as JPEG
        assert np.array_equal(turned[index][1], ref[index][1])
    assert VOCSegmentation(FIELD / "png16", "val", picture_range=(100, 800))[0][0].std() > 20
    assert "2 carry an orientation, turned" in report_on([turned]).summary()
