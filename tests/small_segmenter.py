"""Small DeepLabs with random weights, as opened ones are, which predict every class somewhere on some pictures."""

from types import SimpleNamespace

import keras
import numpy as np

from data.sample import CLASS_NAMES
from inference.predictor import ModelPredictor
from models.deeplab_v3 import DeepLabV3
from models.resnet import Bottleneck, ResNet
from models.weight_init import named_variables
from tests.networks import randomize

CROP = 65


def small_segmenter(**options):
    """DeepLab v3 of five classes on a ResNet of a unit a block."""
    with keras.name_scope("deeplab_v3"):
        backbone = ResNet("resnet_v2_50", Bottleneck, (1, 1, 1, 1), output_stride=16, width=8)
        backbone.build()
    model = DeepLabV3(backbone, 5, **options)
    model.build()
    return model


def levelled(model, pictures):
    """Gives the model random weights, with which all classes are equally likely on the pictures, and returns it."""
    randomize(named_variables(model))
    predictor = ModelPredictor(model, CLASS_NAMES, CROP)
    bias = model.logits.layers[0].bias
    likely = [np.log(predictor.probabilities(picture)).mean((0, 1)) for picture in pictures]
    bias.assign(bias - np.mean(likely, axis=0))
    return model


def opened(model):
    """What `exporting.export.export` takes."""
    predictor = ModelPredictor(model, CLASS_NAMES, CROP)
    return SimpleNamespace(model=model, class_names=CLASS_NAMES, crop_size=CROP, predictor=lambda: predictor)
