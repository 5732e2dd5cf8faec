"""NanqingD's DeepLabV3-Tensorflow: all of it in the scope of ResNet v1, image pooling last, pictures for Caffe."""

from models.families.family import POOLING_FIRST, Family

FAMILY = Family(
    name="NanqingD",
    title="NanqingD's",
    scopes={
        "{backbone}/img_pool/1x1conv": "image_pooling",
        "{backbone}/aspp/1x1conv": "aspp0",
        "{backbone}/aspp/rate6": "aspp1",
        "{backbone}/aspp/rate12": "aspp2",
        "{backbone}/aspp/rate18": "aspp3",
        "{backbone}/fusion/1x1conv": "concat_projection",
        "{backbone}/logits/Conv": "logits/semantic",
    },
    fixed=lambda backbone: {
        "upsampling": "tf1",
        "output_stride": 16,
        "multi_grid": (1, 2, 4),
        "atrous_rates": (6, 12, 18),
        "preprocessing": "caffe-mean-subtracted",
    },
    changes=POOLING_FIRST,
)
