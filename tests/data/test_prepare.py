"""Own pictures and what annotation tools write become the layout that trains, with the masks that were drawn."""

import base64
import json

import cv2
import numpy as np
import pytest
from PIL import Image

import prepare_data
from data.images import DataError, read_indices
from data.voc import VOCSegmentation, palette
from errors import UserError

HEIGHT, WIDTH = 40, 60
NAMES = tuple("abcd")
CAT, DOG = [(5, 5), (30, 8), (22, 33)], [(28, 10), (55, 12), (50, 35), (30, 30)]


@pytest.fixture
def photos(tmp_path):
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        path = tmp_path / "photos" / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "photos"


def drawn(*polygons):
    """A plain drawing: [(points, label)]."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for points, label in polygons:
        cv2.fillPoly(mask, [np.array(points, np.int32)], label)
    return mask


TRUTH = drawn((CAT, 1), (DOG, 2))


def made(photos, capsys, *command):
    """The data set that a command makes: ({name: mask}, class names)."""
    out = photos.parent / "data"
    prepare_data.main([*map(str, command), "--out", str(out), "--split", "0.25"])
    assert (out / "overlays.png").stat().st_size > 1000
    assert "classes in this order: background" in capsys.readouterr().out
    sets = [VOCSegmentation(out, name) for name in ("train", "val")]
    assert (len(sets[0]), len(sets[1])) == (3, 1)
    return {pair.name: read_indices(pair.mask) for part in sets for pair in part.pairs}, sets[0].class_names


def assert_masks(found, truth):
    assert sorted(found) == list(NAMES)
    for mask in found.values():
        assert np.array_equal(mask, truth)


# Pictures


def masks(photos, mask, ending=".png", mode=None):
    folder = photos.parent / "masks"
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        picture = Image.fromarray(mask)
        (picture.convert(mode) if mode else picture).save(folder / f"{name}{ending}")
    return folder


@pytest.mark.parametrize("mode", [None, "1", "RGB"])
def test_masks_of_0_and_255(photos, capsys, mode):
    folder = masks(photos, np.where(TRUTH > 0, 255, 0).astype(np.uint8), mode=mode)
    found, names = made(photos, capsys, "pictures", "--images", photos, "--masks", folder, "--foreground", 255)
    assert names == ("background", "object")
    assert_masks(found, (TRUTH > 0).astype(np.uint8))


@pytest.mark.parametrize(
    "text",
    [
        "# label:color_rgb:parts:actions\ncat:10,20,30::\nbackground:1,1,1::\ndog:200,0,7::\n",
        "name,r,g,b\nbackground,1,1,1\ncat,10,20,30\ndog,200,0,7\n",
    ],
)
def test_masks_of_colours(photos, capsys, text):
    folder = masks(photos, np.array([(1, 1, 1), (10, 20, 30), (200, 0, 7)], np.uint8)[TRUTH], "_mask.png")
    (photos.parent / "colours").write_text(text)
    files = ("--masks", folder, "--colours", photos.parent / "colours")
    found, names = made(photos, capsys, "pictures", "--images", photos, *files)
    assert names == ("background", "cat", "dog")
    assert_masks(found, TRUTH)


def test_roboflow_s_masks_lie_beside_their_pictures(photos, capsys):
    for name in NAMES:
        Image.fromarray(TRUTH).save(photos / f"{name}_mask.png")
    (photos / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    files = ("--images", photos, "--masks", photos, "--colours", photos / "_classes.csv")
    found, names = made(photos, capsys, "pictures", *files)
    assert names == ("background", "cat", "dog")
    assert_masks(found, TRUTH)


def test_palettes_that_differ_are_mended_by_vocs_colours(photos, capsys):
    folder = photos.parent / "masks"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        order = np.random.default_rng(number).permutation(3)  # which value has which class
        values = np.argsort(order)[TRUTH].astype(np.uint8)
        picture = Image.fromarray(values)
        picture.putpalette(palette()[order].tobytes())
        picture.save(folder / f"{name}.png")
    found, _ = made(photos, capsys, "pictures", "--images", photos, "--masks", folder)
    assert_masks(found, TRUTH)


def test_another_void_is_mapped(photos, capsys):
    folder = masks(photos, np.where(TRUTH == 0, 11, TRUTH - 1).astype(np.uint8))
    (photos.parent / "names.txt").write_text("background\ndog\n")
    files = ("--images", photos, "--masks", folder, "--classes", photos.parent / "names.txt", "--map", "11=255")
    found, _ = made(photos, capsys, "pictures", *files)
    assert_masks(found, np.where(TRUTH == 0, 255, TRUTH - 1))


def test_what_does_not_fit_is_said(photos):
    folder = masks(photos, TRUTH)
    arguments = ["pictures", "--images", str(photos), "--masks", str(folder), "--out", str(photos.parent / "data")]
    with pytest.raises(UserError, match=r"holds 1, 2 beside 0, 255.*--map 1=CLASS"):
        prepare_data.main([*arguments, "--foreground", "255"])
    (folder / "a.png").write_bytes(cv2.imencode(".jpg", TRUTH)[1].tobytes())
    with pytest.raises(UserError, match=r"a\.png: .*JPEG"):
        prepare_data.main([*arguments, "--foreground", "255"])
    with pytest.raises(UserError, match=r"no picture there has a mask of its name"):
        prepare_data.main(["pictures", "--images", str(photos), "--masks", str(photos), "--out", "x"])
    assert not (photos.parent / "data").exists()
    (photos.parent / "data").mkdir()
    (photos.parent / "data" / "thesis.tex").write_text("years of work")
    (folder / "a.png").write_bytes((folder / "b.png").read_bytes())
    with pytest.raises(UserError, match="is not empty"):
        prepare_data.main([*arguments])


# Annotation tools


def test_labelme(photos, capsys):
    part = TRUTH[30:36, 28:56] == 2  # drawn with a brush: a mask within its box
    brush = base64.b64encode(cv2.imencode(".png", part.astype(np.uint8) * 255)[1].tobytes()).decode()
    shapes = [
        {"label": "cat", "points": CAT, "shape_type": "polygon"},
        {"label": "dog", "points": DOG, "shape_type": "polygon"},
        {"label": "dog", "points": [[28, 30], [55, 35]], "shape_type": "mask", "mask": brush},
        {"label": "cat", "points": [[1, 1], [3, 3]], "shape_type": "line"},
        {"label": "__ignore__", "points": [[0, 38], [4, 39]], "shape_type": "rectangle"},
    ]
    for name in NAMES:
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None}
        (photos / f"{name}.json").write_text(json.dumps(content | {"imageHeight": HEIGHT, "imageWidth": WIDTH}))
    truth = TRUTH.copy()
    truth[38:40, 0:5] = 255
    found, names = made(photos, capsys, "labelme", "--images", photos)
    assert names == ("background", "cat", "dog")
    assert_masks(found, truth)


def coco_file(photos, segmentations):
    sizes = {"height": HEIGHT, "width": WIDTH}
    content = {
        "images": [{"id": number, "file_name": f"{name}.jpg", **sizes} for number, name in enumerate(NAMES)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {
                "id": 10 * image + category,
                "image_id": image,
                "category_id": category,
                "segmentation": said,
                "iscrowd": 0,
            }
            for image in range(4)
            for category, said in segmentations.items()
        ],
    }
    (photos.parent / "instances.json").write_text(json.dumps(content))
    return photos.parent / "instances.json"


def run_lengths(pixels):
    flat = pixels.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(pixels.shape), "counts": [0, *lengths] if flat[0] else lengths}


@pytest.mark.parametrize("kind", ["polygons", "runs", "compressed"])
def test_coco(photos, capsys, kind):
    cat, dog = drawn((CAT, 1)) > 0, drawn((DOG, 1)) > 0
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    for pixels, label in sorted([(cat, 1), (dog, 2)], key=lambda part: -part[0].sum()):
        truth[pixels] = label  # the smaller is on top
    if kind == "polygons":
        said = {3: [np.ravel(CAT).tolist()], 7: [np.ravel(DOG).tolist()]}
    elif kind == "runs":
        said = {3: run_lengths(cat), 7: run_lengths(dog)}
    else:
        coder = pytest.importorskip("pycocotools.mask")
        said = {}
        for key, pixels in ((3, cat), (7, dog)):
            runs = coder.encode(np.asfortranarray(pixels.astype(np.uint8)))
            said[key] = {"size": runs["size"], "counts": runs["counts"].decode()}
    found, names = made(photos, capsys, "coco", "--file", coco_file(photos, said), "--images", photos)
    assert names == ("background", "cat", "dog")
    assert_masks(found, truth)


def test_cvat(photos, capsys):
    def points(polygon):
        return ";".join(f"{x}.00,{y}.00" for x, y in polygon)

    images = "".join(
        f'<image id="{number}" name="{name}.jpg" width="{WIDTH}" height="{HEIGHT}">'
        f'<polygon label="dog" points="{points(DOG)}" occluded="0" z_order="1"/>'
        f'<polygon label="cat" points="{points(CAT)}" occluded="0" z_order="0"/>'
        f'<mask label="cat" rle="0, 2, 1, 3" left="1" top="36" width="3" height="2" z_order="2"/></image>'
        for number, name in enumerate(NAMES)
    )
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("cat", "dog"))
    path = photos.parent / "annotations.xml"
    path.write_text(f"<annotations><meta><job><labels>{labels}</labels></job></meta>{images}</annotations>")
    truth = TRUTH.copy()
    truth[36, 1:3], truth[37, 1:4] = 1, 1
    found, names = made(photos, capsys, "cvat", "--file", path, "--images", photos)
    assert names == ("background", "cat", "dog")
    assert_masks(found, truth)


def test_the_split_follows_the_seed_and_pictures_may_be_linked(photos, capsys):
    folder = masks(photos, TRUTH)
    arguments = ["pictures", "--images", str(photos), "--masks", str(folder), "--link", "--out"]
    texts = []
    for out, seed in (("one", "1"), ("two", "1")):
        prepare_data.main([*arguments, str(photos.parent / out), "--seed", seed])
        texts.append((photos.parent / out / "ImageSets/Segmentation/train.txt").read_text())
    assert texts[0] == texts[1] and "classes in this order: background, class 1, class 2" in capsys.readouterr().out
    assert (photos.parent / "one/JPEGImages/a.jpg").is_symlink()


def test_a_mask_that_fits_the_picture_as_it_is_stored_is_told(photos):
    folder = masks(photos, TRUTH)
    exif = Image.Exif()
    exif[274] = 6
    Image.open(photos / "b.jpg").save(photos / "b.jpg", exif=exif)
    with pytest.raises(DataError, match=r"b\.jpg: is 40x60 .* its mask 60x40: it fits as it is stored, but not turned"):
        prepare_data.main(
            ["pictures", "--images", str(photos), "--masks", str(folder), "--out", str(photos.parent / "x")]
        )
