"""This project's runs where only their checkpoints are left: a DeepLab on ResNet v2, which research/deeplab has not."""

from models.families.family import Family
from models.families.official import has_head

FAMILY = Family(
    name="own",
    title="this project's",
    assumed=lambda backbone: {
        "multi_grid": (1, 2, 4),
        "features": "postnorm",
        "atrous_rates": (6, 12, 18),
        "preprocessing": "unit-range",
        "upsampling": "align-corners",
        "output_stride": 16,
    },
    tells=lambda shapes, backbone: backbone.startswith("resnet_v2") and has_head(shapes, backbone),
)
