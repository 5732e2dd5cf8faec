"""Predictions are written among predictions, never among what anybody else made."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.images import read_indices
from data.voc import mask_png
from errors import UserError
from files.output import claim, marked

MASK = np.array([[0, 1, 255], [2, 0, 0]], np.uint8)


def test_a_mark_changes_no_pixel_and_is_in_the_standards_place(tmp_path):
    content = marked(mask_png(MASK))
    (tmp_path / "m.png").write_bytes(content)
    assert np.array_equal(read_indices(tmp_path / "m.png"), MASK)
    with Image.open(io.BytesIO(content)) as picture:
        picture.verify()
        assert picture.info["Software"] == "slim-deeplab prediction"  # type: ignore[attr-defined]
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) is not None


def test_a_folder_of_predictions_is_taken_again(tmp_path):
    out = tmp_path / "new" / "out"
    claim(out, "--out")
    (out / "deeper").mkdir()
    for name in ("a.png", "deeper/b.png", "v_legend.png"):
        (out / name).write_bytes(marked(mask_png(MASK)))
    (out / "v_overlay.mp4").write_bytes(b"a video has no place for the mark, its legend has")
    np.savez(out / "a_probabilities.npz", probabilities=np.zeros((1, 1, 2)), class_names=np.array(["a", "b"]))
    (out / ".DS_Store").write_text("hidden files are nobody's work")
    claim(out, "--out")


def _mask(path: Path) -> None:
    path.write_bytes(mask_png(MASK))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("2007_000032.png", _mask),
        ("notes.txt", lambda path: path.write_text("mine")),
        ("film_overlay.mp4", lambda path: path.write_bytes(b"no legend beside it")),
        ("features.npz", lambda path: np.savez(path, x=np.zeros(1))),
        ("damaged.npz", lambda path: path.write_bytes(b"PK")),
        ("link.png", lambda path: path.symlink_to("nowhere")),
        ("empty.png", lambda path: path.write_bytes(b"")),
    ],
)
def test_a_folder_with_the_users_files_is_refused(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(UserError, match=rf"--save-pred .*: holds files .*\({name}\); .*--overwrite"):
        claim(tmp_path, "--save-pred")
    assert [file.name for file in tmp_path.iterdir()] == [name]
    claim(tmp_path, "--save-pred", overwrite=True)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(UserError, match=r"--out .*out: is a file"):
        claim(tmp_path / "out", "--out", overwrite=True)
