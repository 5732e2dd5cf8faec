"""Measures a segmentation model on an image set in the PASCAL VOC layout: IoU of each class and their means.

python eval_seg.py --ckpt runs/seg --data VOC2012

The model and its number of classes are told from the checkpoint, its settings from the run it lies in. Images are
padded with the mean pixel, never resized.
"""

import argparse

from engine import cli
from errors import UserError


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="checkpoint, .tar.gz, directory or run")
    parser.add_argument("--data", required=True, help="folder in the VOC layout")
    parser.add_argument("--image-set", default="val", help="[%(default)s]")
    parser.add_argument("--output-stride", type=int, choices=(8, 16, 32), help="[the run's, else 16]")
    parser.add_argument("--multi-grid", type=cli.int_list, help="dilations of block4's units [the run's, else 1,2,4]")
    parser.add_argument(
        "--features", choices=("postnorm", "block4"), help="what the head is fed [the run's, else postnorm]"
    )
    parser.add_argument("--upsampling", choices=("align-corners", "half-pixel"), help="[the run's, else align-corners]")
    parser.add_argument(
        "--crop-size",
        type=cli.positive_int,
        help="images are padded to this square, larger ones by less [the run's, else 513]",
    )
    parser.add_argument("--batch-size", type=cli.positive_int, default=1, help="[%(default)s]")
    parser.add_argument("--workers", type=cli.positive_int, default=2, help="threads that read images [%(default)s]")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="[%(default)s]")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="scopes of the checkpoint")
    parser.add_argument("--ema", action="store_true", help="take the moving averages of variables")
    parser.add_argument("--sheet", metavar="FILE.png", help="draw some images, their truth and predictions there")
    parser.add_argument("--sheet-images", type=cli.positive_int, default=6, help="[%(default)s]")
    parser.add_argument("--json", metavar="FILE", help="write the scores there too")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_arguments(argv)
    import json

    from tqdm import tqdm

    from data.images import write_whole
    from data.voc import VOCSegmentation
    from engine.build import load_segmenter, segmenter_of
    from engine.device import set_precision
    from engine.evaluation import evaluate, prediction_sheet
    from engine.metrics import score_table, scores_by_class
    from engine.pictures import png
    from engine.run_directory import read_config, run_of

    dataset = VOCSegmentation(args.data, args.image_set)
    rename = cli.renames(args.rename)
    config = segmenter_of(
        args.ckpt,
        rename,
        output_stride=args.output_stride,
        multi_grid=args.multi_grid,
        features=args.features,
        align_corners=None if args.upsampling is None else args.upsampling == "align-corners",
    )
    if config["num_classes"] != dataset.num_classes:
        raise UserError(
            f"{args.ckpt}: has {config['num_classes']} classes, {args.data} has {dataset.num_classes} "
            f"({', '.join(dataset.class_names)})"
        )
    run = run_of(args.ckpt)
    crop_size = args.crop_size or (read_config(run)["arguments"]["eval_size"] if run else 513)
    set_precision(args.precision)
    model, report = load_segmenter(args.ckpt, config, rename, args.ema)
    print(report.text().splitlines()[0])
    print(report.text().splitlines()[-1])
    with tqdm(total=len(dataset), unit="image", disable=None) as bar:
        matrix = evaluate(
            model,
            dataset,
            crop_size=crop_size,
            batch_size=args.batch_size,
            workers=args.workers,
            progress=bar.update,
        )
    print(score_table(matrix, dataset.class_names))
    if args.sheet:
        picture = prediction_sheet(model, dataset, dataset.class_names, args.sheet_images, crop_size)
        write_whole(args.sheet, png(picture))
        print(f"{args.sheet}: images, truth, predictions")
    if args.json:
        result = scores_by_class(matrix, dataset.class_names)
        result |= {"checkpoint": args.ckpt, "image_set": args.image_set, "images": len(dataset), "model": config}
        result["confusion_matrix"] = matrix.tolist()
        write_whole(args.json, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    cli.run(main)
