"""New layers on an end point of a pretrained network: what the tutorials cut out of a graph by tensor names.

python -m examples.tap_block3 --ckpt resnet_v2_50_blocks123.ckpt --data hymenoptera_data

The network is told from the checkpoint, built and restored up to the end point and no further, and stays as it is
(--train-backbone lets it learn); a small classifier on top learns from DATA/train/CLASS/*.jpg and is measured on
DATA/val/CLASS/*.jpg.
"""

import argparse

import command_line
from engine.kinds import NONNEGATIVE, NONNEGATIVE_INT, POSITIVE_INT


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="checkpoint, .tar.gz, directory or run")
    parser.add_argument("--data", required=True, help="folder with train/CLASS and val/CLASS")
    parser.add_argument("--end-point", default="resnet_v2_50/block3", help="[%(default)s]")
    parser.add_argument(
        "--steps", type=command_line.argument_type(POSITIVE_INT), default=100, help="training steps [%(default)s]"
    )
    parser.add_argument(
        "--batch-size", type=command_line.argument_type(POSITIVE_INT), default=16, help="images a step [%(default)s]"
    )
    parser.add_argument(
        "--image-size", type=command_line.argument_type(POSITIVE_INT), default=224, help="pixels [%(default)s]"
    )
    parser.add_argument(
        "--learning-rate", type=command_line.argument_type(NONNEGATIVE), default=0.003, help="of Adam [%(default)s]"
    )
    parser.add_argument("--train-backbone", action="store_true", help="what is below the end point learns too")
    parser.add_argument("--seed", type=command_line.argument_type(NONNEGATIVE_INT), default=0, help="[%(default)s]")
    return parser.parse_args(argv)


def image_batches(args, preprocess):
    """→ (training batches, validation batches, class names), images as the network wants them."""
    import numpy as np

    from data.image_folder import ImageFolder
    from data.pipeline import evaluation_batches, training_batches
    from data.transforms import random_resized_crop_flip, resize_center_crop

    train_set = ImageFolder(args.data, "train")
    val_set = ImageFolder(args.data, "val", class_names=train_set.class_names)
    options = {"batch_size": args.batch_size, "preprocess": preprocess}
    training = training_batches(
        train_set,
        lambda image, label, rng: (random_resized_crop_flip(image, rng, args.image_size), np.int32(label)),
        seed=args.seed,
        start_step=0,
        stop_step=args.steps,
        **options,
    )
    validation = evaluation_batches(
        val_set, lambda image, label: (resize_center_crop(image, args.image_size), np.int32(label)), **options
    )
    return training, validation, train_set.class_names


def main(argv=None):
    args = parse_arguments(argv)

    import keras
    from keras import layers

    from data.pipeline import original_errors
    from engine.device import use_xla
    from inference.opening import restored_tap

    keras.utils.set_random_seed(args.seed)
    backbone, report = restored_tap(args.ckpt, args.end_point)
    print(report, flush=True)
    backbone.trainable = args.train_backbone  # of a batch norm, that is its moving statistics too

    training, validation, class_names = image_batches(args, backbone.preprocessing)
    model = keras.Sequential(
        [
            backbone,
            # An end point in the middle of a network is a raw sum of any scale: new layers begin with a batch norm.
            layers.BatchNormalization(momentum=0.9),
            layers.Activation("relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.2),
            layers.Dense(len(class_names), name="classifier"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(args.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=use_xla(),
    )
    with original_errors():
        model.fit(training, epochs=1, shuffle=False, verbose=2)
        _, accuracy = model.evaluate(validation, verbose=0)
    print(f"validation accuracy after {args.steps} steps: {accuracy:.4f}")


if __name__ == "__main__":
    command_line.start(main)
