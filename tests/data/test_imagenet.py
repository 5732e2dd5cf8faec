"""ImageNet's classes: slim's numbers for them, and no two of one name."""

from data.imagenet import imagenet_ids, imagenet_names


def test_names_and_ids_stand_at_slims_labels():
    names, ids = imagenet_names(1001), imagenet_ids(1001)
    assert (len(names), len(ids)) == (1001, 1001)
    assert (names[0], ids[0]) == ("background", "")
    assert (names[1], names[310], names[311], names[1000]) == ("tench", "bee", "ant", "toilet tissue")
    assert (ids[1], ids[311]) == ("n01440764", "n02219486")
    assert list(ids[1:]) == sorted(set(ids[1:]))
    assert (imagenet_names(1000), imagenet_ids(1000)) == (names[1:], ids[1:])  # ResNet v1 has no background


def test_every_name_is_one_class_alone():
    names = imagenet_names(1001)
    assert len({name.lower() for name in names}) == 1001
    assert {"crane (n02012849)", "crane (n03126707)", "maillot", "maillot, tank suit"} <= set(names)


def test_other_numbers_are_not_imagenets():
    assert imagenet_names(999) is None and imagenet_names(2) is None and imagenet_ids(1002) is None
