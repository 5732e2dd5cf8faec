"""This project: OpenCV and Pillow on NumPy arrays in the threads of tf.data."""

import cv2
import tensorflow as tf

from benchmarks.pipelines import MEAN_PIXEL, SCALES
from data.pipeline import cached, training_batches
from data.transforms import random_scale_crop_flip
from data.voc import VOCSegmentation


def build(work):
    dataset = cached(VOCSegmentation(work.root, work.image_set), work.cache)
    if work.cache != "none":
        for index in range(len(dataset)):
            dataset[index]  # a first epoch fills the cache; what is timed is every later one
    batches = training_batches(
        dataset,
        lambda image, mask, rng: random_scale_crop_flip(image, mask, rng, work.crop, MEAN_PIXEL, scale_range=SCALES),
        batch_size=work.batch,
        seed=0,
        start_step=0,
        stop_step=10**6,
        workers=work.workers,
        preprocess=(lambda images: images / 127.5 - 1) if work.floats else None,
    )
    return batches.as_numpy_iterator(), f"OpenCV {cv2.__version__}, TensorFlow {tf.__version__}"
