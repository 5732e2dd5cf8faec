"""This project: its own model, compiled and trained as its scripts do."""

import keras
import tensorflow as tf

from benchmarks.contestants import CLASSES, RECIPE
from data.voc import VOC_CLASSES
from engine.device import set_precision
from inference.opening import OpenedSegmenter, Told
from models.deeplab_v3 import deeplab_v3
from training.recipe import compile_model, segmentation_loss

VERSION = f"tensorflow {tf.__version__}, keras {keras.__version__}"


def network():
    keras.utils.set_random_seed(0)
    return deeplab_v3("resnet_v2_50", num_classes=CLASSES, output_stride=16, multi_grid=(1, 2, 4))


def parameters(model):
    return sum(v.value.shape.num_elements() for v in model.trainable_weights)


def build(images, labels, bfloat16):
    set_precision("bfloat16" if bfloat16 else "float32")
    model = network()
    compile_model(model, RECIPE, segmentation_loss())
    batch = tf.constant(images), tf.constant(labels)
    return lambda: float(model.train_on_batch(*batch)), parameters(model), VERSION


def predictor(size, bfloat16):
    """→ (labels, parameters, version), where labels(image) is uint8 (H, W) of the uint8 RGB (H, W, 3) `image`."""
    set_precision("bfloat16" if bfloat16 else "float32", training=False)
    opened = opened_network(size)
    return opened.predictor().labels, parameters(opened.model), VERSION


def zoo_predictor(backbone, size, **options):
    """As `predictor`, of another network at output stride 16."""
    opened = opened_network(size, deeplab_v3(backbone, num_classes=CLASSES, output_stride=16, **options))
    return opened.predictor().labels, parameters(opened.model), VERSION


def opened_network(size, model=None):
    """As a program gets it from a checkpoint; the benchmarks' one network unless told."""
    return OpenedSegmenter(model or network(), told=Told({}), report=None, class_names=VOC_CLASSES, crop_size=size)


def export(name, size, folder, picture):
    """Writes the same network in the format `name` of exporting.export, which compares its labels of `picture`."""
    from exporting.export import export

    (outcome,) = export(opened_network(size), "seeded at random", folder, [name], picture)
    if not outcome.good:
        raise RuntimeError(str(outcome))
