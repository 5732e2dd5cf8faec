"""sthalles' deeplab_v3: ResNet v2's raw sum, no ReLU in the head, rates that stay as they are at stride 8."""

from models.families.family import Family

FAMILY = Family(
    name="sthalles",
    title="sthalles'",
    scopes={
        "DeepLab_v3/ASPP_layer/image_level_conv_1x1": "image_pooling",
        "DeepLab_v3/ASPP_layer/conv_1x1_0": "aspp0",
        "DeepLab_v3/ASPP_layer/conv_3x3_1": "aspp1",
        "DeepLab_v3/ASPP_layer/conv_3x3_2": "aspp2",
        "DeepLab_v3/ASPP_layer/conv_3x3_3": "aspp3",
        "DeepLab_v3/ASPP_layer/conv_1x1_output": "concat_projection",
        "DeepLab_v3/logits": "logits/semantic",
    },
    fixed=lambda backbone: {
        "features": "block4",
        "head_activation": "none",
        "upsampling": "tf1",
        "rates_follow_stride": False,
        "atrous_rates": (6, 12, 18),
        "preprocessing": "mean-subtracted",
    },
    assumed=lambda backbone: {"multi_grid": (1, 2, 4), "output_stride": 16},
)
