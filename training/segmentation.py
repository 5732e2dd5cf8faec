"""The training of a segmentation model on images in the VOC layout: what `train_seg.py` and `fine_tune` do."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from data.pipeline import cached, training_batches
from data.transforms import random_scale_crop_flip
from data.voc import VOCSegmentation
from engine.options import (
    Architecture,
    Devices,
    Learning,
    Recipe,
    Restore,
    Run,
    SegmentationImages,
    SegmentationLoss,
    segmentation_defaults,
)
from engine.run_directory import RunDirectory
from inference import evaluation, opening
from inference.metrics import SCORES
from inference.predictor import ModelPredictor
from training.losses import class_weights
from training.recipe import segmentation_loss
from training.run import Task, Training, run_training


def train_segmentation(
    ckpt: str | Path | None,
    data: str | Path,
    *,
    stage2: bool = False,
    restore: Restore | None = None,
    architecture: Architecture | None = None,
    images: SegmentationImages | None = None,
    loss: SegmentationLoss | None = None,
    recipe: Recipe | None = None,
    learning: Learning | None = None,
    run: Run | None = None,
    devices: Devices | None = None,
    model: str | None = None,
) -> RunDirectory | None:
    """Fine-tunes DeepLab v3 from a checkpoint; a run directory that was left unfinished is continued.

    Args:
        ckpt: what `--ckpt` takes; None trains from scratch.
        data: folder in the VOC layout.
        stage2: the paper's second stage, from the first one's run, all of whose model is restored.
        restore … devices: groups of options; None is `segmentation_defaults(stage2)`'s.
        model: the backbone, e.g. "resnet_v2_50"; None is told from the checkpoint.

    Returns:
        the RunDirectory, or None after a dry run.

    Raises:
        UserError: what a user can mend, before anything is written or with what was written whole.
    """
    given = (restore, architecture, images, loss, recipe, learning, run, devices)
    defaults = segmentation_defaults(stage2).values()
    restore, architecture, images, loss, recipe, learning, run, devices = (
        default if group is None else group for group, default in zip(given, defaults, strict=True)
    )
    train_set = VOCSegmentation(data, images.train_set)
    val_set = VOCSegmentation(data, images.val_set)
    # The run keeps the numbers.
    loss = dataclasses.replace(loss, class_weights=class_weights(loss.class_weights, train_set))
    asked = Training(
        None if ckpt is None else str(ckpt),
        restore,
        recipe,
        learning,
        run,
        devices,
        others=(architecture, images, loss),
        named={"data": str(data), "stage2": stage2, "model": model},
    )

    def configure(checkpoint: str | None) -> dict[str, Any]:
        return opening.config_to_train(
            model, train_set.num_classes, checkpoint, restore.rename, architecture, all_of_it=stage2
        )

    def pictures(network: keras.Model) -> Callable[[], np.ndarray]:
        predictor = ModelPredictor(network, val_set.class_names, images.eval_size)
        return lambda: evaluation.prediction_sheet(predictor, val_set, val_set.class_names, 4)

    task = Task(
        class_names=train_set.class_names,
        configure=configure,
        build=opening.build_segmenter,
        batches=_batches(train_set, images, recipe, run.workers),
        validator=lambda network, distribution: evaluation.Validator(
            network, val_set, images.eval_size, run.workers, distribution
        ),
        score_names=SCORES,
        loss=segmentation_loss(loss.class_weights, loss.hard_pixels),
        pictures=pictures,
        whole=stage2,
    )
    return run_training(asked, task)


def _batches(train_set: VOCSegmentation, images: SegmentationImages, recipe: Recipe, workers: int) -> Callable:
    """What a Task's `batches` is: scaled, cropped, flipped, as the function (model, start, stop, shard) wants them."""

    def batches(model: keras.Model, start_step: int, stop_step: int, shard: tuple[int, int]) -> Any:
        def augment(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple:
            options = {"scale_range": images.scale_range, "flip": images.flip}
            return random_scale_crop_flip(image, mask, rng, images.crop_size, model.preprocessing.mean, **options)

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
