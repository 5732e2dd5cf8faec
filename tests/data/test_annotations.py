"""What annotation tools write, of whatever wrong shape, is drawn or refused with its file's name."""

import copy
import json

import pytest

from data.content import DataError
from data.prepare.annotations import coco, cvat, labelme
from data.prepare.layout import LeftOut

WRONG = (None, -1, 10**12, 1.5, "", "../../x", "\0", [], [[]], [None, 1], {}, {"size": [4, 9], "counts": [9]}, True)
SQUARE = [[1, 1], [6, 1], [6, 3], [1, 3]]
RUNS = {"size": [8, 9], "counts": [20, 12, 40]}
COCO = {
    "categories": [{"id": 1, "name": "cat"}],
    "images": [{"id": 5, "file_name": "a.jpg", "height": 8, "width": 9}],
    "annotations": [
        {"image_id": 5, "category_id": 1, "segmentation": [[1, 1, 6, 1, 6, 3]]},
        {"image_id": 5, "category_id": 1, "segmentation": RUNS},
    ],
}
LABELME = {
    "imageHeight": 8,
    "imageWidth": 9,
    "imagePath": "a.jpg",
    "shapes": [
        {"label": "cat", "points": SQUARE, "shape_type": kind}
        for kind in ("polygon", "rectangle", "circle", "mask", "line")
    ],
}
CVAT = (
    '<a><image name="a.jpg" height="8" width="9"><polygon label="cat" points="1,1;6,1;6,3" z_order="0"/>'
    '<box label="cat" xtl="1" ytl="1" xbr="4" ybr="5"/><ellipse label="cat" cx="4" cy="4" rx="2" ry="1"/>'
    '<mask label="cat" rle="1,2,1" left="1" top="2" width="2" height="2"/></image></a>'
)


def places(tree, path=()):
    """Yields the way to every value in a tree of dicts and lists."""
    yield path
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield from places(tree[key], (*path, key))


def spoilt(tree, path, wrong):
    if not path:
        return wrong
    tree = copy.deepcopy(tree)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = wrong
    return tree


def outcome(read, file):
    """Reads all there is; says whether it was refused, which names the file."""
    try:
        _, samples = read()
        assert all(sample.mask.shape for sample in samples)
    except DataError as error:
        assert str(file.parent) in str(error)
        return True
    return False


@pytest.mark.parametrize("tool", ["coco", "labelme"])
def test_json_of_wrong_shapes_is_drawn_or_refused(tmp_path, tool):
    file, tree = tmp_path / "a.json", {"coco": COCO, "labelme": LABELME}[tool]
    (tmp_path / "a.jpg").write_bytes(b"")

    def read():
        left_out = LeftOut()
        return coco(file, tmp_path, None, left_out) if tool == "coco" else labelme(tmp_path, None, left_out)

    refused = tried = 0
    for path in places(tree):
        for wrong in WRONG:
            file.write_text(json.dumps(spoilt(tree, path, wrong)))
            refused += outcome(read, file)
            tried += 1
    assert refused > 0.8 * tried


def test_coco_and_cvat_are_drawn_where_nothing_is_wrong_and_refused_where_a_number_is(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "a.json").write_text(json.dumps(COCO))
    assert not outcome(lambda: coco(tmp_path / "a.json", tmp_path, None, LeftOut()), tmp_path / "a.json")
    file = tmp_path / "a.xml"
    file.write_text(CVAT)
    assert not outcome(lambda: cvat(file, tmp_path, None, LeftOut()), file)
    for number in "124589":  # all that there are
        for wrong in ("x", "nan", 10**12):
            file.write_text(CVAT.replace(f'"{number}"', f'"{wrong}"'))
            assert outcome(lambda: cvat(file, tmp_path, None, LeftOut()), file), (number, wrong)


@pytest.mark.parametrize(
    ("path", "wrong", "message"),
    [
        (("images", 0, "height"), "8", r"a\.json: is no COCO file of instances: .*`int`.*images.*height"),
        (("images", 0, "width"), 10**9, r"a\.json, a\.jpg: has 1000000000x8 pixels .*At most"),
        (("images", 0, "file_name"), "../../home/a.jpg", "is no name of a picture within a folder"),
        (("annotations", 0, "category_id"), 9, "category 9, which it does not name"),
        (("annotations", 0, "segmentation"), [[1, 2, 3]], r"a\.json, a\.jpg: cannot be drawn: "),
        (("annotations", 0, "segmentation"), [[0, 0, 1e12, 0, 1, 1]], "coordinates must be within"),
        (("annotations", 1, "segmentation", "counts"), [10**15], "runs of 1000000000000000 pixels"),
        (("annotations", 1, "segmentation", "size"), [9, 8], "runs of 9x8 for 8x9 pixels"),
    ],
)
def test_coco_says_what_is_wrong_where(tmp_path, path, wrong, message):
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "a.json").write_text(json.dumps(spoilt(COCO, path, wrong)))
    with pytest.raises(DataError, match=message):
        list(coco(tmp_path / "a.json", tmp_path, None, LeftOut())[1])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b"[1]", b'{"images": NaN}', b"<a>" * 9])
def test_what_is_no_annotation_at_all_is_refused(tmp_path, content):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    for read in (coco, cvat):
        with pytest.raises(DataError, match=r"a\.json: "):
            read(file, tmp_path, None, LeftOut())
    with pytest.raises(DataError, match=r"(a\.json|no file of labelme's)"):
        labelme(tmp_path, None, LeftOut())
