"""A small classifier and a run that holds it, as train_cls.py leaves one, without the training."""

import numpy as np

from data.sample import SHAPES
from data.views import View
from engine.run_directory import RunDirectory
from models.mobilenet_v2 import mobilenet_v2
from models.weight_init import named_variables, save_checkpoint
from tests.networks import randomize

CLASSES = tuple(sorted(SHAPES))
SIZE = 32


def small_classifier(num_classes=4):
    """MobileNet v2 of the least width; random weights, and logits far enough apart for a wrong picture to show."""
    model = mobilenet_v2(num_classes=num_classes, depth_multiplier=0.35)
    randomize(named_variables(model))
    kernel = named_variables(model)["MobilenetV2/Logits/Conv2d_1c_1x1/weights"]
    kernel.assign(10 * kernel)
    return model


def level(model, pictures):
    """Makes all classes equally likely on the pictures, so that not one of them is said of all."""
    seen = np.stack([View(SIZE)(picture) for picture in pictures]).astype("float32")
    bias = named_variables(model)["MobilenetV2/Logits/Conv2d_1c_1x1/biases"]
    bias.assign(bias - np.asarray(model(model.preprocessing(seen), training=False)).mean(0))


def save_run(folder, model, class_names=CLASSES):
    """Writes the model as the run `folder`."""
    run = RunDirectory(folder, {"image_size": SIZE, "steps": 7})
    run.open()
    config = {"backbone": "mobilenet_v2", "num_classes": len(class_names), "depth_multiplier": 0.35, "divisible_by": 8}
    run.start(config, class_names)
    run.close()
    save_checkpoint(model, folder / "model.ckpt-7")
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
    return folder
