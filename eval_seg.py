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
    parser.add_argument("--batch-size", type=cli.positive_int, default=1, help="[%(default)s]")
    parser.add_argument("--workers", type=cli.positive_int, default=2, help="threads that read images [%(default)s]")
    cli.add_segmenter_arguments(parser)
    parser.add_argument("--sheet", metavar="FILE.png", help="draw some images, their truth and predictions there")
    parser.add_argument("--sheet-images", type=cli.positive_int, default=6, help="[%(default)s]")
    parser.add_argument("--json", metavar="FILE", help="write the scores there too")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_arguments(argv)
    import json

    import numpy as np
    from tqdm import tqdm

    from data.images import write_whole
    from data.voc import VOCSegmentation
    from engine.build import open_segmenter
    from engine.evaluation import predicted, prediction_sheet
    from engine.metrics import confusion_matrix, score_table, scores_by_class
    from engine.pictures import png

    dataset = VOCSegmentation(args.data, args.image_set)
    opened = open_segmenter(args.ckpt, args)
    if len(opened.class_names) != dataset.num_classes:
        raise UserError(
            f"{args.ckpt}: has {len(opened.class_names)} classes, {args.data} has {dataset.num_classes} "
            f"({', '.join(dataset.class_names)})"
        )
    print(opened.report.text().splitlines()[0])
    print(opened.report.text().splitlines()[-1])
    predictor = opened.predictor()
    with tqdm(total=len(dataset), unit="image", disable=None) as bar:
        matrix = np.zeros((dataset.num_classes, dataset.num_classes), np.int64)
        for _, labels, mask in predicted(predictor, dataset, batch_size=args.batch_size, workers=args.workers):
            matrix += confusion_matrix(mask, labels, dataset.num_classes)
            bar.update()
    print(score_table(matrix, dataset.class_names))
    if args.sheet:
        picture = prediction_sheet(predictor, dataset, dataset.class_names, args.sheet_images)
        write_whole(args.sheet, png(picture))
        print(f"{args.sheet}: images, truth, predictions")
    if args.json:
        result = scores_by_class(matrix, dataset.class_names)
        result |= {"checkpoint": args.ckpt, "image_set": args.image_set, "images": len(dataset), "model": opened.config}
        result["confusion_matrix"] = matrix.tolist()
        write_whole(args.json, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    cli.run(main)
