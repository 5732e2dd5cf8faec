"""Fine-tunes DeepLab v3 from a slim checkpoint on images in the PASCAL VOC layout.

python train_seg.py --ckpt resnet_v2_50.ckpt --data VOC2012
"""

import argparse

from engine import cli


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ckpt", required=True, help="checkpoint, .tar.gz, directory or run to start from; none: scratch"
    )
    parser.add_argument("--data", required=True, help="folder in the VOC layout")
    parser.add_argument("--train-set", default="trainaug", help="image set to train on [%(default)s]")
    parser.add_argument("--val-set", default="val", help="image set to evaluate on [%(default)s]")

    model = parser.add_argument_group("model")
    model.add_argument("--model", help="backbone, e.g. resnet_v2_50 [told from the checkpoint]")
    model.add_argument("--output-stride", type=int, choices=(8, 16, 32), default=16, help="[%(default)s]")
    model.add_argument("--multi-grid", type=cli.int_list, help="dilations of block4's units [1,2,4]")
    model.add_argument(
        "--features",
        choices=("postnorm", "block4"),
        default="postnorm",
        help="what the head is fed: `block4` is the raw sum, as peers' checkpoints on slim's v2 have it [%(default)s]",
    )
    model.add_argument(
        "--upsampling", choices=("align-corners", "half-pixel"), default="align-corners", help="[%(default)s]"
    )
    model.add_argument("--crop-size", type=cli.positive_int, default=513, help="pixels [%(default)s]")

    model.add_argument(
        "--eval-size",
        type=cli.positive_int,
        default=513,
        help="validation images are padded to this square [%(default)s]",
    )

    cli.add_training_arguments(
        parser, steps=30_000, batch_size=16, learning_rate=0.007, weight_decay=1e-4, run_dir="runs/seg"
    )
    return parser.parse_args(argv)


def model_config(args, num_classes, checkpoint):
    """The keyword arguments of `deeplab_v3`, from the flags and what the checkpoint says of its model."""
    from engine.build import resolve_backbone

    backbone, depth_multiplier, identity = resolve_backbone(args.model, checkpoint, cli.renames(args.rename))
    return {
        "backbone": backbone,
        "num_classes": num_classes,
        "output_stride": args.output_stride,
        "multi_grid": args.multi_grid,
        "depth_multiplier": depth_multiplier,
        "atrous_rates": () if identity and identity.segments and not identity.atrous else None,
        "features": args.features,
        "align_corners": args.upsampling == "align-corners",
    }


def main(argv=None):
    args = parse_arguments(argv)
    from data.pipeline import training_batches
    from data.transforms import random_scale_crop_flip
    from data.voc import VOCSegmentation
    from engine.build import build_segmenter
    from engine.evaluation import ConfusionCounter, evaluate, prediction_sheet
    from engine.inference import ModelPredictor
    from engine.metrics import SCORES, scores
    from engine.training import run_training, segmentation_loss

    train_set = VOCSegmentation(args.data, args.train_set)
    val_set = VOCSegmentation(args.data, args.val_set)

    def batches(model, start_step, stop_step):
        mean_pixel = model.preprocessing.mean
        return training_batches(
            train_set,
            lambda image, mask, rng: random_scale_crop_flip(image, mask, rng, args.crop_size, mean_pixel),
            batch_size=args.batch_size,
            seed=args.seed,
            start_step=start_step,
            stop_step=stop_step,
            workers=args.workers,
            preprocess=model.preprocessing,
        )

    def validator(model):
        counter = ConfusionCounter(model)
        return lambda: scores(evaluate(model, val_set, crop_size=args.eval_size, workers=args.workers, counter=counter))

    def pictures(model):
        predictor = ModelPredictor(model, val_set.class_names, args.eval_size)
        return lambda: prediction_sheet(predictor, val_set, val_set.class_names, 4)

    run_training(
        args,
        class_names=train_set.class_names,
        configure=lambda checkpoint: model_config(args, train_set.num_classes, checkpoint),
        build=build_segmenter,
        batches=batches,
        validator=validator,
        score_names=SCORES,
        loss=segmentation_loss(),
        pictures=pictures,
    )


if __name__ == "__main__":
    cli.run(main)
