"""leimao's DeepLab-V3: all of the backbone, a head of plain layers, image pooling last, pictures as OpenCV has them."""

from models.families.family import POOLING_FIRST, Family

FAMILY = Family(
    name="leimao",
    title="leimao's",
    scopes={
        "conv2d": "image_pooling",
        "aspp1x1": "aspp0",
        "aspp3x3_1": "aspp1",
        "aspp3x3_2": "aspp2",
        "aspp3x3_3": "aspp3",
        "aspp_outputs": "concat_projection",
        "logits": "logits/semantic",
    },
    leaves={"kernel": "weights", "bias": "biases"},
    fixed=lambda backbone: {
        "head_norm": "biases",
        "head_activation": "none",
        "upsampling": "tf1",
        "output_stride": 16,
        "multi_grid": None,
        "atrous_rates": (6, 12, 18),
        "last_conv": True,
    },
    # The mean of his pictures is not in his checkpoints; VGG's stands for it.
    assumed=lambda backbone: {
        "preprocessing": {"name": "BGR minus mean", "mean": (123.68, 116.78, 103.94), "scale": 1.0, "order": "BGR"}
    },
    changes=POOLING_FIRST,
    tells=lambda shapes, backbone: any(name.startswith(("aspp1x1/", "aspp3x3_", "aspp_outputs/")) for name in shapes),
)
