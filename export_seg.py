"""Exports a segmentation model for other programs, and checks each export in its own runtime.

python export_seg.py --ckpt runs/seg --out exported --image photo.jpg
python export_seg.py --ckpt runs/seg --out exported --calibrate VOC2012

  saved_model      exported/saved_model            TensorFlow; pictures of any size
  pb               exported/model.pb               TensorFlow, a frozen graph; pictures of any size
  onnx             exported/model.onnx             ONNX Runtime; pictures of any size
  onnx_int8        exported/model_int8.onnx        the same in 8 bits; pictures of --crop-size pixels
  tflite           exported/model_float32.tflite   LiteRT; pictures of --crop-size pixels
  tflite_exact     exported/model_exact.tflite     the same, and a second input says how much of it is picture
  tflite_float16   exported/model_float16.tflite   as tflite, weights in 16 bits
  tflite_dynamic8  exported/model_dynamic8.tflite  the same, weights in 8 bits, activations too while they are used
  tflite_int8      exported/model_int8.tflite      the same, all in 8 bits
  slim             exported/model.ckpt.*           a checkpoint under slim's names, without optimizer slots
  keras            exported/model.keras            Keras, on any backend, with this project's layers
  torch            exported/model.pt2              PyTorch alone; pictures of up to --crop-size pixels
  huggingface      exported/huggingface            Hugging Face's transformers; DeepLab on MobileNet v2

Without --formats the first are written, as far as slim, but tflite_exact and, without --calibrate, those of 8 bits.

All but slim, keras and huggingface take uint8 RGB pictures and give labels; preprocessing, padding and upsampling are
inside.
exported/README.md has a short program for each, exported/export.json says what the classes are.

Exit code: 0; 1 when an export disagreed with the model, and so was deleted.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import command_line
from engine.kinds import NAMES, Kind, Options
from engine.options import Exporting, Opening, Pictures
from errors import UserError

USUAL = ("saved_model", "pb", "onnx", "tflite", "tflite_float16", "tflite_dynamic8", "slim")
CALIBRATED = ("onnx_int8", "tflite_int8")
HANDED_OVER = ("keras", "torch", "huggingface")
FORMATS = (*USUAL, *CALIBRATED, *HANDED_OVER, "tflite_exact")


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    if not set(names) <= set(FORMATS):
        raise ValueError(f"must be of {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(names))


FORMAT_LIST = Kind(NAMES.read, _known, "NAME,…")


def add_export_flags(parser: argparse.ArgumentParser, how: Options, left_out: str) -> None:
    """What export_cls.py takes too; `how` the model is opened, and the option of Exporting it lacks, are its own."""
    parser.add_argument("--ckpt", required=True, help="checkpoint, .tar.gz, directory, run or published name")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the exports go")
    parser.add_argument(
        "--formats",
        type=command_line.argument_type(FORMAT_LIST),
        metavar="NAME,…",
        help="[the usual of the above]",
    )
    parser.add_argument(
        "--image", metavar="PICTURE", help="what the exports are checked on [a picture that is drawn for it]"
    )
    command_line.add_options(parser, how)
    command_line.add_options(parser, Exporting(), only={field.name for field in fields(Exporting)} - {left_out})
    command_line.add_options(parser, Pictures())


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.ProgramParser(__doc__)
    add_export_flags(parser, Opening(), left_out="label")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Exports, checks, and says where the exports are."""
    args = parse_arguments(argv)

    def opened() -> Any:
        from inference.opening import open_segmenter

        return open_segmenter(args.ckpt, command_line.chosen(args, Opening))

    return run_export(args, opened, command_line.chosen(args, Exporting))


def run_export(args: argparse.Namespace, open_model: Callable[[], Any], how: Exporting) -> int:
    """Exports the model that `open_model` gives → exit code."""
    if args.precision != "float32":
        raise UserError(f"--precision {args.precision}: exports are float32; --formats has others that are smaller")
    from engine.startup import import_keras

    import_keras()
    from data.images import read_image
    from exporting.export import check_installed, drawn_picture, export

    formats = args.formats or (USUAL if how.calibrate is None else USUAL + CALIBRATED)
    check_installed(formats)
    picture = read_image(args.image, **command_line.chosen(args, Pictures).reading()) if args.image else drawn_picture()
    opened = open_model()
    print(opened.introduction())
    print(f"checked on {args.image or 'a drawn picture; --image checks on a real one'}", flush=True)
    good = True
    for outcome in export(opened, args.ckpt, args.out, formats, picture, how):
        print(outcome, flush=True)
        good &= outcome.good
    print(f"exports, their description and how they are used: {args.out}")
    return 0 if good else 1


if __name__ == "__main__":
    command_line.start(main)
