"""The training of a segmentation model on images in the VOC layout: what `train_seg.py` and `fine_tune` do."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from data.images import DataError
from data.pipeline import cached, training_batches
from data.places import check_memory
from data.report import report_on
from data.transforms import random_scale_crop_flip
from data.voc import VOCSegmentation
from engine.options import FIRST_STAGE, Recipe, SegmentationImages, SegmentationTraining
from engine.run_data import RunData
from engine.run_directory import RunDirectory
from engine.scans import scan_folder
from inference import evaluation, opening
from inference.metrics import SCORES
from inference.predictor import ModelPredictor, crop_size_advice
from training.losses import class_weights
from training.recipe import segmentation_loss
from training.run import Task, Training, run_training


def train_segmentation(
    ckpt: str | None,
    data: str,
    options: SegmentationTraining = FIRST_STAGE,
    *,
    stage2: bool = False,
    model: str | None = None,
) -> RunDirectory | None:
    """Fine-tunes DeepLab v3 from a checkpoint; a run directory that was left unfinished is continued.

    Args:
        ckpt: what `--ckpt` takes; None trains from scratch.
        data: folder in the VOC layout.
        options: for the second stage `engine.options.SECOND_STAGE`, or what is made of it.
        stage2: the paper's second stage, from the first one's run, all of whose model is restored.
        model: the backbone, e.g. "resnet_v2_50"; None is told from the checkpoint.

    Returns:
        the RunDirectory, or None after a dry run.

    Raises:
        UserError: what a user can mend, before anything is written or with what was written whole.
    """
    images, recipe, workers = options.images, options.recipe, options.run.workers
    crop, whole = images.crop_size, images.eval_size
    check_memory(recipe.batch_size, crop, f"--batch-size {recipe.batch_size} and --crop-size {crop}")
    check_memory(1, whole, f"--eval-size {whole}")
    reading = {"ignore_label": images.ignore_label, **options.pictures.reading()}
    train_set = VOCSegmentation(data, images.train_set, **reading)
    val_set = VOCSegmentation(data, images.val_set, **reading)
    found = report_on(
        [train_set, val_set],
        trains=True,
        allow_absent=images.allow_absent,
        allow_repeats=images.allow_repeats,
        remember=scan_folder(),
    )
    try:
        found.check()
    except DataError:
        print(found, flush=True)  # the table helps to see why
        raise
    # The run keeps the numbers.
    weights = class_weights(options.loss.class_weights, train_set, found.train_pixels)
    loss = dataclasses.replace(options.loss, class_weights=None if weights is None else tuple(weights))
    asked = Training(
        ckpt,
        options.restore,
        recipe,
        options.learning,
        options.run,
        options.devices,
        others=(options.architecture, images, options.pictures, loss),
        named={"data": data, "stage2": stage2, "model": model},
    )

    def configure(checkpoint: str | None) -> opening.Told:
        told = opening.segmenter_to_train(
            model, train_set.num_classes, checkpoint, options.restore.rename, options.architecture, all_of_it=stage2
        )
        return opening.head_in_order(told, checkpoint, train_set.class_names)

    def pictures(network: keras.Model) -> Callable[[], np.ndarray]:
        predictor = ModelPredictor(network, val_set.class_names, images.eval_size)
        return lambda: evaluation.prediction_sheet(predictor, val_set, val_set.class_names, 4)

    def build(config: dict[str, Any], batch_norm_decay: float) -> keras.Model:
        network = opening.build_segmenter(config, batch_norm_decay)
        for flag, size in {"--crop-size": images.crop_size, "--eval-size": images.eval_size}.items():
            if advice := crop_size_advice(network, size, flag):
                print(advice, flush=True)
        return network

    task = Task(
        class_names=train_set.class_names,
        data=RunData.of({images.train_set: train_set, images.val_set: val_set}, data),
        found=str(found),
        configure=configure,
        build=build,
        batches=_batches(train_set, images, recipe, workers),
        validator=lambda network, distribution: evaluation.Validator(
            network, val_set, images.eval_size, workers, distribution
        ),
        score_names=SCORES,
        loss=segmentation_loss(weights, loss.hard_pixels),
        pictures=pictures,
        whole=stage2,
    )
    return run_training(asked, task)


def _batches(train_set: VOCSegmentation, images: SegmentationImages, recipe: Recipe, workers: int) -> Callable:
    """What a Task's `batches` is: scaled, cropped, flipped, as the function (model, start, stop, shard) wants them."""

    def batches(model: keras.Model, start_step: int, stop_step: int, shard: tuple[int, int]) -> Any:
        def augment(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple:
            return random_scale_crop_flip(
                image,
                mask,
                rng,
                images.crop_size,
                model.preprocessing.mean,
                scale_range=images.scale_range,
                flip=images.flip,
            )

        return training_batches(
            cached(train_set, images.cache),
            augment,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            start_step=start_step,
            stop_step=stop_step,
            workers=workers,
            shard=shard,
            preprocess=model.preprocessing,
        )

    return batches
