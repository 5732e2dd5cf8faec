"""Fine-tunes a classifier from a slim checkpoint on folders of images.

python train_cls.py --ckpt resnet_v2_50.ckpt --data hymenoptera_data

DATA/train/CLASS/*.jpg and DATA/val/CLASS/*.jpg. The checkpoint's own classifier is left out by itself where the number
of classes differs.
"""

import argparse
import copy
from pathlib import Path

import command_line as cli


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ckpt", required=True, help="checkpoint, .tar.gz, directory or run to start from; none: scratch"
    )
    parser.add_argument("--data", required=True, help="folder with train/CLASS and val/CLASS")
    parser.add_argument(
        "--strict-data", action="store_true", help="stop at files that are no images instead of skipping"
    )
    parser.add_argument("--model", help="backbone, e.g. resnet_v2_50 [told from the checkpoint]")
    parser.add_argument("--image-size", type=cli.positive_int, default=224, help="pixels [%(default)s]")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="three runs under one budget (all learns, only what is new, from scratch), a table and a plot",
    )
    cli.add_training_arguments(
        parser, steps=300, batch_size=32, learning_rate=0.01, weight_decay=5e-4, run_dir="runs/cls"
    )
    return parser.parse_args(argv)


def model_config(args, num_classes, checkpoint):
    """What `inference.opening.build_classifier` takes, from the flags and what the checkpoint says of its model."""
    from inference.opening import resolve_backbone

    backbone, depth_multiplier, _ = resolve_backbone(args.model, checkpoint, cli.renames(args.rename))
    return {"backbone": backbone, "num_classes": num_classes, "depth_multiplier": depth_multiplier}


def train(args, train_set, val_set):
    """One run; returns its RunDirectory, or None after a dry run."""
    import numpy as np

    from data.pipeline import evaluation_batches, training_batches
    from data.transforms import random_resized_crop_flip, resize_center_crop
    from inference.evaluation import ClassifierValidator, classified_sheet
    from inference.opening import build_classifier
    from training.recipe import classification_loss
    from training.run import Task, run_training

    def batches(model, start_step, stop_step, shard):
        return training_batches(
            train_set,
            lambda image, label, rng: (random_resized_crop_flip(image, rng, args.image_size), np.int32(label)),
            batch_size=args.batch_size,
            seed=args.seed,
            start_step=start_step,
            stop_step=stop_step,
            workers=args.workers,
            shard=shard,
            preprocess=model.preprocessing,
        )

    def for_validation(image, label):
        return resize_center_crop(image, args.image_size), np.int32(label)

    def validator(model, distribution):
        val_batches = evaluation_batches(
            val_set,
            for_validation,
            batch_size=args.batch_size,
            workers=args.workers,
            preprocess=model.preprocessing,
        )
        return ClassifierValidator(model, val_batches)

    task = Task(
        class_names=train_set.class_names,
        configure=lambda checkpoint: model_config(args, train_set.num_classes, checkpoint),
        build=build_classifier,
        batches=batches,
        validator=validator,
        score_names=("val_accuracy", "val_loss"),
        loss=classification_loss(),
        metrics=("accuracy",),
        pictures=lambda model: lambda: classified_sheet(model, val_set, val_set.class_names, for_validation),
    )
    return run_training(args, task)


def compare(args, train_set, val_set):
    """The three runs in sub-folders of the run directory, then a table and a plot of their validation curves."""
    import keras

    from training.comparison import write_comparison

    args.model = model_config(args, train_set.num_classes, args.ckpt)["backbone"]
    runs = {}
    for name, changes in {
        "all": {"train": "all"},
        "new": {"train": "new"},
        "scratch": {"train": "all", "ckpt": "none", "include": (), "exclude": (), "rename": [], "ema": False},
    }.items():
        print(f"== {name}", flush=True)
        run_args = copy.copy(args)
        vars(run_args).update(changes, run_dir=str(Path(args.run_dir) / name))
        if name == "scratch":
            run_args.allow_missing = ()
        runs[name] = train(run_args, train_set, val_set)
        keras.utils.clear_session()
    if not args.dry_run:
        print(write_comparison(args.run_dir, runs, "val_accuracy"))


def main(argv=None):
    args = parse_arguments(argv)
    from engine.startup import import_keras

    import_keras()
    from data.image_folder import ImageFolder

    train_set = ImageFolder(args.data, "train", strict=args.strict_data)
    val_set = ImageFolder(args.data, "val", strict=args.strict_data, class_names=train_set.class_names)
    for path, reason in train_set.skipped + val_set.skipped:
        print(f"skipped: {path}: {reason}", flush=True)
    (compare if args.compare else train)(args, train_set, val_set)


if __name__ == "__main__":
    cli.run(main)
