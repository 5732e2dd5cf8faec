"""The training of a classifier on folders of images, by itself or as three experiments: what `train_cls.py` does."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from data.image_folder import ImageFolder
from data.pipeline import evaluation_batches, training_batches
from data.places import check_memory
from data.transforms import random_resized_crop_flip, resize_center_crop
from engine.options import ClassificationImages, ClassificationTraining, Pictures, Restore
from engine.published import located
from engine.run_data import RunData
from engine.run_directory import RunDirectory
from inference import opening
from inference.evaluation import ClassifierValidator, classes_of, classified_sheet
from training.comparison import write_comparison
from training.recipe import classification_loss
from training.run import Task, Training, run_training


def read_folders(
    data: str | Path, strict: bool = False, as_read: Pictures = Pictures()
) -> tuple[ImageFolder, ImageFolder]:
    """The data sets DATA/train and DATA/val, with the same classes; says which files were left out."""
    train_set = ImageFolder(data, "train", strict=strict, **as_read.reading())
    val_set = ImageFolder(data, "val", strict=strict, class_names=train_set.class_names, **as_read.reading())
    for path, reason in train_set.skipped + val_set.skipped:
        print(f"skipped: {path}: {reason}", flush=True)
    return train_set, val_set


def train_classifier(
    ckpt: str | None,
    data: str,
    options: ClassificationTraining,
    *,
    model: str | None = None,
    compare: bool = False,
) -> RunDirectory | None:
    """Fine-tunes a classifier from a checkpoint; a run directory that was left unfinished is continued.

    Args:
        ckpt: what `--ckpt` takes; None trains from scratch.
        data: folder with train/CLASS and val/CLASS.
        model: the backbone, e.g. "resnet_v2_50"; None is told from the checkpoint.
        compare: three runs under one budget in sub-folders of the run directory (everything learns, only what is new,
            from scratch), and a table and a plot of their validation curves.

    Returns:
        the RunDirectory; None after a dry run, or three runs.
    """
    images, batch, side = options.images, options.recipe.batch_size, options.images.image_size
    check_memory(batch, side, f"--batch-size {batch} and --image-size {side}")
    sets = read_folders(data, images.strict_data, options.pictures)
    asked = Training(
        ckpt,
        options.restore,
        options.recipe,
        options.learning,
        options.run,
        options.devices,
        others=(images, options.pictures),
        named={"data": data, "model": model, "compare": compare},
    )
    if not compare:
        return _train(asked, images, *sets)
    _compare(asked, images, *sets)
    return None


def _train(
    asked: Training, images: ClassificationImages, train_set: ImageFolder, val_set: ImageFolder
) -> RunDirectory | None:
    recipe, workers = asked.recipe, asked.run.workers

    def batches(model: keras.Model, start_step: int, stop_step: int, shard: tuple[int, int]) -> Any:
        return training_batches(
            train_set,
            lambda image, label, rng: (random_resized_crop_flip(image, rng, images.image_size), np.int32(label)),
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            start_step=start_step,
            stop_step=stop_step,
            workers=workers,
            shard=shard,
            preprocess=model.preprocessing,
        )

    def for_validation(image: np.ndarray, label: int) -> tuple[np.ndarray, np.int32]:
        return resize_center_crop(image, images.image_size), np.int32(label)

    def validator(model: keras.Model, distribution: Any) -> Callable:
        val_batches = evaluation_batches(
            val_set,
            for_validation,
            batch_size=recipe.batch_size,
            workers=workers,
            preprocess=model.preprocessing,
        )
        return ClassifierValidator(model, val_batches)

    def configure(checkpoint: str | None) -> opening.Told:
        name, rename = asked.named["model"], asked.restore.rename
        return opening.backbone_to_train(name, train_set.num_classes, checkpoint, rename)

    def pictures(model: keras.Model) -> Callable[[], np.ndarray]:
        classes = classes_of(model)
        return lambda: classified_sheet(classes, val_set, val_set.class_names, for_validation)

    task = Task(
        class_names=train_set.class_names,
        data=RunData.of({"train": train_set, "val": val_set}, asked.named["data"]),
        configure=configure,
        build=opening.build_classifier,
        batches=batches,
        validator=validator,
        score_names=("val_accuracy", "val_loss"),
        loss=classification_loss(),
        metrics=("accuracy",),
        pictures=pictures,
    )
    return run_training(asked, task)


def _compare(asked: Training, images: ClassificationImages, train_set: ImageFolder, val_set: ImageFolder) -> None:
    name, rename = asked.named["model"], asked.restore.rename
    backbone = opening.backbone_to_train(name, train_set.num_classes, located(asked.ckpt), rename).config["backbone"]
    everything, only_new = (dataclasses.replace(asked.learning, train=train) for train in ("all", "new"))
    experiments: dict[str, dict[str, Any]] = {
        "all": {"learning": everything},
        "new": {"learning": only_new},
        "scratch": {"learning": everything, "ckpt": None, "restore": Restore()},
    }
    runs = {}
    for name, changes in experiments.items():
        print(f"== {name}", flush=True)
        place = dataclasses.replace(asked.run, run_dir=str(Path(asked.run.run_dir) / name))
        named = {**asked.named, "model": backbone}
        experiment = dataclasses.replace(asked, run=place, named=named, **changes)
        if (run := _train(experiment, images, train_set, val_set)) is not None:
            runs[name] = run
        keras.utils.clear_session()
    if not asked.run.dry_run:
        print(write_comparison(asked.run.run_dir, runs, "val_accuracy"))
