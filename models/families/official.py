"""The authors' own: tensorflow/models' research/deeplab. Its names are this project's, so nothing is translated."""

from models.families.family import Family, Shapes, head_told
from models.scopes import first_match

_HEAD = ("image_pooling", "aspp0", "concat_projection", "logits/semantic", "decoder", "meta_architecture")


def has_head(shapes: Shapes, backbone: str) -> bool:
    """Whether something is there of the head that research/deeplab's names and this project's share."""
    return any(first_match(name, _HEAD) for name in shapes) or head_told(shapes)["branches"] > 0


def _assumed(backbone: str) -> dict:
    assumed = {"atrous_rates": (6, 12, 18), "output_stride": 16}
    if backbone.startswith("resnet_v1"):
        fed = "unit-range" if backbone.endswith("_beta") else "deeplab-mean-subtracted"
        assumed = {"preprocessing": fed} | assumed
    if not backbone.startswith("mobilenet"):
        assumed = {"multi_grid": None} | assumed
    if backbone.startswith("mobilenet_v3"):
        assumed |= {"image_pooling_crop_size": None}
    return assumed


FAMILY = Family(
    name="official",
    title="official",
    fixed=lambda backbone: {"upsampling": "align-corners"},
    assumed=_assumed,
    tells=has_head,
)
