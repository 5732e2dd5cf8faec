"""rishizek's tensorflow-deeplab-v3 and tensorflow-deeplab-v3-plus: ResNet v2's raw sum, image pooling last."""

from models.families.family import POOLING_FIRST, Family

FAMILY = Family(
    name="rishizek",
    title="rishizek's",
    scopes={
        "aspp/image_level_features/conv_1x1": "image_pooling",
        "aspp/conv_1x1": "aspp0",
        "aspp/conv_3x3_1": "aspp1",
        "aspp/conv_3x3_2": "aspp2",
        "aspp/conv_3x3_3": "aspp3",
        "aspp/conv_1x1_concat": "concat_projection",
        "upsampling_logits/conv_1x1": "logits/semantic",
        "decoder/low_level_features/conv_1x1": "decoder/feature_projection0",
        "decoder/upsampling_logits/conv_3x3_1": "decoder/decoder_conv0/decoder_conv0_1",
        "decoder/upsampling_logits/conv_3x3_2": "decoder/decoder_conv0/decoder_conv0_2",
        "decoder/upsampling_logits/conv_1x1": "logits/semantic",
    },
    fixed=lambda backbone: {
        "features": "block4",
        "upsampling": "tf1",
        "multi_grid": None,
        "atrous_rates": (6, 12, 18),
        "low_level": "block1/unit_3/bottleneck_v2/conv1",
        "preprocessing": "mean-subtracted",
    },
    assumed=lambda backbone: {"output_stride": 16},
    changes=POOLING_FIRST,
)
