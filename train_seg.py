"""Fine-tunes DeepLab v3 from a slim checkpoint on images in the PASCAL VOC layout.

python train_seg.py --ckpt resnet_v2_50.ckpt --data VOC2012
python train_seg.py --stage2 --ckpt runs/seg --data VOC2012

The defaults are the paper's recipe (Chen et al., "Rethinking Atrous Convolution", section 4), --stage2 its second half.
"""

import argparse

import command_line as cli

# What --stage2 has otherwise, unless a flag says so; None is what the first stage's run has.
STAGE2 = {
    "output_stride": 8,
    "freeze_bn": "all",
    "learning_rate": 0.001,
    "features": None,
    "upsampling": None,
    "run_dir": "runs/seg-stage2",
}
PAPER = {
    "steps": "30,000 in each stage",
    "batch_size": "16",
    "learning_rate": "0.007, in the second stage 0.001",
    "power": "0.9",
    "warmup_steps": "0",
    "momentum": "0.9",
    "weight_decay": "0.0001",
    "clip_norm": "none",
    "bn_decay": "0.9997",
    "freeze_bn": "all in the second stage",
}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ckpt", required=True, help="checkpoint, .tar.gz, directory or run to start from; none: scratch"
    )
    parser.add_argument("--data", required=True, help="folder in the VOC layout")
    parser.add_argument(
        "--train-set",
        default="trainaug",
        help="image set to train on; the paper's: trainaug, for its submission's second stage trainval [%(default)s]",
    )
    parser.add_argument("--val-set", default="val", help="image set to evaluate on [%(default)s]")
    parser.add_argument(
        "--stage2",
        action="store_true",
        help="the paper's second stage, from the first one's run, all of whose model is restored: output stride 8, "
        "frozen batch norm, base rate 0.001; flags given besides win",
    )

    model = parser.add_argument_group("model")
    model.add_argument("--model", help="backbone, e.g. resnet_v2_50 [told from the checkpoint]")
    model.add_argument(
        "--output-stride",
        type=int,
        choices=(8, 16, 32),
        default=16,
        help="the paper's: 16, in the second stage 8 [%(default)s]",
    )
    model.add_argument(
        "--multi-grid",
        type=cli.int_list,
        metavar="A,B,C",
        help="dilations of block4's units; the paper's: 1,2,4 [1,2,4]",
    )
    model.add_argument(
        "--features",
        choices=("postnorm", "block4"),
        default="postnorm",
        help="what the head is fed: `block4` is the raw sum, as peers' checkpoints on slim's v2 have it [%(default)s]",
    )
    model.add_argument(
        "--upsampling",
        choices=("align-corners", "half-pixel"),
        default="align-corners",
        help="of the logits; the paper's: align-corners [%(default)s]",
    )

    images = parser.add_argument_group("images")
    images.add_argument(
        "--crop-size", type=cli.positive_int, default=513, help="pixels; the paper's: 513 [%(default)s]"
    )
    images.add_argument(
        "--scale-range",
        type=cli.positive_range,
        default=(0.5, 2.0),
        metavar="LOW,HIGH",
        help="images are scaled by a random factor in it; the paper's: 0.5,2.0 [0.5,2.0]",
    )
    images.add_argument(
        "--no-flip", action="store_true", help="images are never flipped left to right; the paper's: every other one is"
    )
    images.add_argument(
        "--preprocessing",
        choices=("unit-range", "mean-subtracted"),
        help="[-1, 1], or RGB minus ImageNet's mean; the run keeps it [what slim fed the backbone]",
    )
    images.add_argument(
        "--cache",
        default="none",
        metavar="none|memory|DIR",
        help="keep decoded training images in memory or in a folder, 4 bytes a pixel [%(default)s]",
    )
    images.add_argument(
        "--eval-size",
        type=cli.positive_int,
        default=513,
        help="validation images are padded to this square; the paper's: 513 [%(default)s]",
    )

    loss = parser.add_argument_group("loss")
    loss.add_argument(
        "--class-weights",
        metavar="W0,W1,…",
        help="one a class, or a text file of them, or `balanced`: each class counts the same over the training set's "
        "pixels; the loss is the weighted mean; the paper's: none [none]",
    )
    loss.add_argument(
        "--hard-pixels",
        type=cli.fraction,
        default=1.0,
        metavar="FRACTION",
        help="loss-based bootstrapping: the mean over only this part of the pixels, the hardest; the paper's: 1 "
        "[%(default)s]",
    )

    cli.add_training_arguments(
        parser, steps=30_000, batch_size=16, learning_rate=0.007, weight_decay=1e-4, run_dir="runs/seg", paper=PAPER
    )
    if parser.parse_args(argv).stage2:
        parser.set_defaults(**STAGE2)
    return parser.parse_args(argv)


def model_config(args, num_classes, checkpoint):
    """What `inference.opening.build_segmenter` takes, from the flags and what the checkpoint says of its model."""
    from inference.opening import resolve_backbone, second_stage_config

    options = {
        "output_stride": args.output_stride,
        "multi_grid": args.multi_grid,
        "features": args.features,
        "align_corners": None if args.upsampling is None else args.upsampling == "align-corners",
        "preprocessing": args.preprocessing,
    }
    rename = cli.renames(args.rename)
    if args.stage2:
        return second_stage_config(args.model, num_classes, checkpoint, rename, **options)
    backbone, depth_multiplier, identity = resolve_backbone(args.model, checkpoint, rename)
    return {
        "backbone": backbone,
        "num_classes": num_classes,
        "depth_multiplier": depth_multiplier,
        "atrous_rates": () if identity and identity.segments and not identity.atrous else None,
        **options,
    }


def main(argv=None):
    args = parse_arguments(argv)
    from engine.startup import import_keras

    import_keras()
    from data.pipeline import cached, training_batches
    from data.transforms import random_scale_crop_flip
    from data.voc import VOCSegmentation
    from inference.evaluation import Validator, prediction_sheet
    from inference.metrics import SCORES
    from inference.opening import build_segmenter
    from inference.predictor import ModelPredictor
    from training.losses import class_weights
    from training.recipe import segmentation_loss
    from training.run import Task, run_training

    train_set = VOCSegmentation(args.data, args.train_set)
    val_set = VOCSegmentation(args.data, args.val_set)
    args.class_weights = class_weights(args.class_weights, train_set)  # the run keeps the numbers

    def batches(model, start_step, stop_step, shard):
        def augment(image, mask, rng):
            options = {"scale_range": args.scale_range, "flip": not args.no_flip}
            return random_scale_crop_flip(image, mask, rng, args.crop_size, model.preprocessing.mean, **options)

        return training_batches(
            cached(train_set, args.cache),
            augment,
            batch_size=args.batch_size,
            seed=args.seed,
            start_step=start_step,
            stop_step=stop_step,
            workers=args.workers,
            shard=shard,
            preprocess=model.preprocessing,
        )

    def pictures(model):
        predictor = ModelPredictor(model, val_set.class_names, args.eval_size)
        return lambda: prediction_sheet(predictor, val_set, val_set.class_names, 4)

    task = Task(
        class_names=train_set.class_names,
        configure=lambda checkpoint: model_config(args, train_set.num_classes, checkpoint),
        build=build_segmenter,
        batches=batches,
        validator=lambda model, distribution: Validator(model, val_set, args.eval_size, args.workers, distribution),
        score_names=SCORES,
        loss=segmentation_loss(args.class_weights, args.hard_pixels),
        pictures=pictures,
        whole=args.stage2,
    )
    run_training(args, task)


if __name__ == "__main__":
    cli.run(main)
