"""The checkpoints that slim and research/deeplab published, by name.

Names and addresses are those of slim's README, of its pages on MobileNets and of research/deeplab's model zoo
(github.com/tensorflow/models, research/slim and research/deeplab/g3doc/model_zoo.md).
"""

import re
from dataclasses import dataclass

DOWNLOADS = "http://download.tensorflow.org/models"
STORAGE = "https://storage.googleapis.com"


@dataclass(frozen=True)
class Published:
    """A published checkpoint.

    Attributes:
        name: what it is called here. address: of its archive.
        about: one line. megabytes: of the archive, as published; None where nothing is said.
        inside: the folder of the archive that is meant where there are several.
        also: what the page that lists it calls it.
    """

    name: str
    address: str
    about: str
    megabytes: float | None = None
    inside: str = ""
    also: str = ""

    @property
    def file(self) -> str:
        """The archive's file name."""
        return self.address.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The archive's file name without its ending."""
        return re.sub(r"\.(tar\.gz|tgz)$", "", self.file)

    @property
    def size(self) -> str:
        """ " (23 MB)", or nothing where it is not known."""
        return "" if self.megabytes is None else f" ({self.megabytes:g} MB)"


def _model(name: str, stem: str, about: str, megabytes: float | None = None, also: str = "") -> Published:
    return Published(name, f"{DOWNLOADS}/{stem}.tar.gz", about, megabytes, also=also)


def _classifiers() -> list[Published]:
    resnets = [
        _model(f"resnet_v{version}_{depth}", f"resnet_v{version}_{depth}_{date}", "ImageNet, slim's classifier")
        for version, date in ((1, "2016_08_28"), (2, "2017_04_14"))
        for depth in (50, 101, 152)
    ]
    first = [
        (name, f"{DOWNLOADS}/mobilenet_v1_2018_02_22/{name}.tgz")
        for width in ("1.0", "0.75", "0.5", "0.25")
        for size in (224, 192, 160, 128)
        for name in (f"mobilenet_v1_{width}_{size}",)
    ]
    widths = [(width, size) for width in ("1.0", "0.75", "0.5", "0.35") for size in (224, 192, 160, 128, 96)]
    second = [
        (name, f"{STORAGE}/mobilenet_v2/checkpoints/{name}.tgz")
        for width, size in (("1.4", 224), ("1.3", 224), *widths)
        for name in (f"mobilenet_v2_{width}_{size}",)
    ]
    third = [  # "pristine" holds the raw weights, "ema" their moving averages, whose accuracy is the published one
        Published(
            f"mobilenet_v3_{kind}_{width}_224",
            f"{STORAGE}/mobilenet_v3/checkpoints/v3-{kind}_224_{width}_float.tgz",
            "ImageNet, slim's classifier",
            inside="ema",
        )
        for kind in ("large", "small")
        for width in ("1.0", "0.75")
    ]
    return [*resnets, *(Published(*each, "ImageNet, slim's classifier") for each in first + second), *third]


_DEEPLAB = [
    # VOC 2012; COCO before
    _model(
        "deeplabv3_mnv2_dm05_pascal_trainaug",
        "deeplabv3_mnv2_dm05_pascal_trainaug_2018_10_01",
        "VOC, MobileNet v2 0.5",
        7.6,
        "mobilenetv2_dm05_coco_voc_trainaug",
    ),
    _model(
        "deeplabv3_mnv2_dm05_pascal_trainval",
        "deeplabv3_mnv2_dm05_pascal_trainval_2018_10_01",
        "VOC, MobileNet v2 0.5",
        7.6,
        "mobilenetv2_dm05_coco_voc_trainval",
    ),
    _model(
        "deeplabv3_mnv2_pascal_trainaug",
        "deeplabv3_mnv2_pascal_train_aug_2018_01_29",
        "VOC, MobileNet v2",
        23,
        "mobilenetv2_coco_voc_trainaug",
    ),
    _model(
        "deeplabv3_mnv2_pascal_trainval",
        "deeplabv3_mnv2_pascal_trainval_2018_01_29",
        "VOC, MobileNet v2",
        23,
        "mobilenetv2_coco_voc_trainval",
    ),
    _model(
        "deeplabv3_pascal_trainaug",
        "deeplabv3_pascal_train_aug_2018_01_04",
        "VOC, Xception-65",
        439,
        "xception65_coco_voc_trainaug",
    ),
    _model(
        "deeplabv3_pascal_trainval",
        "deeplabv3_pascal_trainval_2018_01_04",
        "VOC, Xception-65",
        439,
        "xception65_coco_voc_trainval",
    ),
    # Cityscapes
    _model(
        "deeplabv3_mnv2_cityscapes_train",
        "deeplabv3_mnv2_cityscapes_train_2018_02_05",
        "Cityscapes, MobileNet v2",
        23,
        "mobilenetv2_coco_cityscapes_trainfine",
    ),
    _model(
        "deeplab_mnv3_large_cityscapes_trainfine",
        "deeplab_mnv3_large_cityscapes_trainfine_2019_11_15",
        "Cityscapes, MobileNet v3 large",
        17,
        "mobilenetv3_large_cityscapes_trainfine",
    ),
    _model(
        "deeplab_mnv3_small_cityscapes_trainfine",
        "deeplab_mnv3_small_cityscapes_trainfine_2019_11_15",
        "Cityscapes, MobileNet v3 small",
        5,
        "mobilenetv3_small_cityscapes_trainfine",
    ),
    _model(
        "deeplabv3_cityscapes_train",
        "deeplabv3_cityscapes_train_2018_02_06",
        "Cityscapes, Xception-65",
        439,
        "xception65_cityscapes_trainfine",
    ),
    _model(
        "deeplab_cityscapes_xception71_trainfine",
        "deeplab_cityscapes_xception71_trainfine_2018_09_08",
        "Cityscapes, Xception-71 with a dense prediction cell",
        445,
        "xception71_dpc_cityscapes_trainfine",
    ),
    _model(
        "deeplab_cityscapes_xception71_trainvalfine",
        "deeplab_cityscapes_xception71_trainvalfine_2018_09_08",
        "Cityscapes, Xception-71 with a dense prediction cell",
        446,
        "xception71_dpc_cityscapes_trainval",
    ),
    _model("edgetpu-deeplab", "edgetpu-deeplab_2020_03_09", "Cityscapes, MobileNet EdgeTPU", also="EdgeTPU-DeepLab"),
    _model(
        "edgetpu-deeplab-slim",
        "edgetpu-deeplab-slim_2020_03_09",
        "Cityscapes, MobileNet EdgeTPU 0.75",
        also="EdgeTPU-DeepLab-slim",
    ),
    # ADE20K
    _model(
        "deeplabv3_mnv2_ade20k_train",
        "deeplabv3_mnv2_ade20k_train_2018_12_03",
        "ADE20K, MobileNet v2",
        24.8,
        "mobilenetv2_ade20k_train",
    ),
    _model(
        "deeplabv3_xception_ade20k_train",
        "deeplabv3_xception_ade20k_train_2018_05_29",
        "ADE20K, Xception-65",
        439,
        "xception65_ade20k_train",
    ),
    # Backbones to start from
    _model("xception_41", "xception_41_2018_05_09", "ImageNet, DeepLab's Xception-41", 288, "xception_41_imagenet"),
    _model("xception_65", "deeplabv3_xception_2018_01_04", "ImageNet, Xception-65", 447, "xception_65_imagenet"),
    _model(
        "xception_65_coco",
        "xception_65_coco_pretrained_2018_10_02",
        "ImageNet and COCO, Xception-65",
        292,
        "xception_65_imagenet_coco",
    ),
    _model("xception_71", "xception_71_2018_05_09", "ImageNet, DeepLab's Xception-71", 474, "xception_71_imagenet"),
    _model(
        "resnet_v1_50_beta",
        "resnet_v1_50_2018_05_04",
        "ImageNet, DeepLab's root of three convolutions",
        274,
        "resnet_v1_50_beta_imagenet",
    ),
    _model(
        "resnet_v1_101_beta",
        "resnet_v1_101_2018_05_04",
        "ImageNet, DeepLab's root of three convolutions",
        477,
        "resnet_v1_101_beta_imagenet",
    ),
]

PUBLISHED = {each.name: each for each in (*_classifiers(), *_DEEPLAB)}
_BY_ANY_NAME = {name: each for each in PUBLISHED.values() for name in (each.also, each.file, each.stem, each.name)}


def published(name: str) -> Published | None:
    """The published checkpoint of a name: its own here, its archive's, or that of the page that lists it."""
    return _BY_ANY_NAME.get(name) if name else None
