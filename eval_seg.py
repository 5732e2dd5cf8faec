"""Measures segmentation models on an image set in the PASCAL VOC layout: IoU of each class and their means.

python eval_seg.py --ckpt runs/seg --data VOC2012
python eval_seg.py --ckpt runs/seg --data VOC2012 --output-stride 8 --multi-scale --flip
python eval_seg.py --ckpt runs/seg --data VOC2012 --image-set test --predict-only --voc-submission results.tar.gz

The model and its number of classes are told from the checkpoint, its settings from the run it lies in. Images are
padded with the mean pixel, never resized. Several checkpoints, runs or exports give one table side by side.
"""

import argparse

import command_line as cli
from errors import UserError

ONE_MODEL_ONLY = ("sheet", "confusion", "worst", "save_pred", "voc_submission")
WITHOUT_MASKS = ("save_pred", "voc_submission")
OUTPUTS = ("json", "csv", "sheet", "confusion", "trimap", "worst", "save_pred", "voc_submission")


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ckpt", required=True, nargs="+", metavar="MODEL", help="checkpoint, .tar.gz, directory, run or export"
    )
    parser.add_argument("--data", required=True, help="folder in the VOC layout")
    parser.add_argument("--image-set", default="val", help="[%(default)s]")
    parser.add_argument("--batch-size", type=cli.positive_int, default=1, help="[%(default)s]")
    parser.add_argument("--workers", type=cli.positive_int, default=2, help="threads that read images [%(default)s]")
    cli.add_segmenter_arguments(parser)
    cli.add_averaging_arguments(parser)

    scores = parser.add_argument_group("scores, of one or several models")
    scores.add_argument("--json", metavar="FILE", help="all scores and the confusion matrix; of several models a list")
    scores.add_argument("--csv", metavar="FILE", help="a row a class and a mean, a column a model; fractions")
    scores.add_argument(
        "--trimap", metavar="FILE.png", help="draw the mIoU within 1 … 40 pixels of boundaries; numbers go to --json"
    )
    pictures = parser.add_argument_group("pictures and predictions, of one model")
    pictures.add_argument("--sheet", metavar="FILE.png", help="draw some images, their truth and predictions")
    pictures.add_argument("--sheet-images", type=cli.positive_int, default=6, metavar="N", help="[%(default)s]")
    pictures.add_argument("--worst", metavar="FILE.png", help="list and draw the images of lowest mIoU")
    pictures.add_argument("--worst-images", type=cli.positive_int, default=8, metavar="N", help="[%(default)s]")
    pictures.add_argument("--confusion", metavar="FILE.png", help="draw the confusion matrix")
    pictures.add_argument("--save-pred", metavar="DIR", help="write each prediction there as a palette PNG")
    pictures.add_argument(
        "--voc-submission", metavar="FILE.tar.gz", help="write the archive that the VOC evaluation server takes"
    )
    pictures.add_argument(
        "--competition",
        choices=("comp5", "comp6"),
        default="comp6",
        help="its folder: comp5 is for models trained on VOC's own data alone, comp6 for others, such as those "
        "pre-trained on ImageNet [%(default)s]",
    )
    pictures.add_argument(
        "--predict-only", action="store_true", help="the image set has no masks, as VOC's test: nothing is scored"
    )
    args = parser.parse_args(argv)
    check_flags(args)
    return args


def check_flags(args):
    """Raises UserError for flags that contradict each other."""
    if len(set(args.ckpt)) < len(args.ckpt):
        raise UserError(f"--ckpt: a model is named twice: {' '.join(args.ckpt)}")
    given = [name for name in OUTPUTS if getattr(args, name)]
    if len(args.ckpt) > 1 and (refused := [name for name in given if name in ONE_MODEL_ONLY]):
        raise UserError(f"{flags_of(refused)}: for one model only, --ckpt names {len(args.ckpt)}; call once for each")
    if args.predict_only:
        if refused := [name for name in given if name not in WITHOUT_MASKS]:
            raise UserError(f"--predict-only: without masks there is nothing to score: leave out {flags_of(refused)}")
        if not given:
            raise UserError(f"--predict-only: say what becomes of the predictions: {flags_of(WITHOUT_MASKS)}")


def flags_of(names):
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def main(argv=None):
    args = parse_arguments(argv)
    from engine.startup import import_keras

    import_keras()
    from data.voc import VOCSegmentation
    from inference import measuring

    dataset = VOCSegmentation(args.data, args.image_set, masks=not args.predict_only)
    measuring.check_outputs({flag: path for flag in OUTPUTS if (path := getattr(args, flag))}, dataset)
    models = measuring.open_models(args.ckpt, args, dataset)
    if args.predict_only:
        measuring.predict(models[0], dataset, args)
        return
    measured = []
    while models:  # each is let go before the next one runs
        measured.append(measuring.measure(models.pop(0), dataset, args))
    measuring.report(measured, dataset, args)


if __name__ == "__main__":
    cli.run(main)
