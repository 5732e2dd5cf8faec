"""Exports a classifier for other programs, and checks each export in its own runtime.

python export_cls.py --ckpt runs/cls --out exported --image photo.jpg
python export_cls.py --ckpt runs/cls --out exported --calibrate hymenoptera_data

  saved_model      exported/saved_model            TensorFlow
  pb               exported/model.pb               TensorFlow, a frozen graph
  onnx             exported/model.onnx             ONNX Runtime
  onnx_int8        exported/model_int8.onnx        the same in 8 bits
  tflite           exported/model_float32.tflite   LiteRT
  tflite_float16   exported/model_float16.tflite   the same, weights in 16 bits
  tflite_dynamic8  exported/model_dynamic8.tflite  the same, weights in 8 bits, activations too while they are used
  tflite_int8      exported/model_int8.tflite      the same, all in 8 bits
  slim             exported/model.ckpt.*           a checkpoint under slim's names, without optimizer slots
  keras            exported/model.keras            Keras, on any backend, with this project's layers
  torch            exported/model.pt2              PyTorch alone; pictures cropped to what the network sees
  huggingface      exported/huggingface            Hugging Face's transformers; MobileNet v1 and v2

Without --formats the first are written, as far as slim, those of 8 bits with --calibrate alone. All but slim, keras and
huggingface take uint8 RGB pictures: of any size, and give labels and probabilities, crop, resizing and preprocessing
inside; torch and those of 8 bits cropped and resized, of which 8 bits give logits. exported/README.md has a short
program for each, exported/export.json says what the classes are.

Exit code: 0; 1 when an export disagreed with the model, and so was deleted.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import command_line
from engine.options import ClassifierOpening, Exporting
from export_seg import add_export_flags, run_export


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = command_line.ProgramParser(__doc__)
    add_export_flags(parser, ClassifierOpening(), left_out="outputs")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Exports, checks, and says where the exports are."""
    args = parse_arguments(argv)

    def opened() -> Any:
        from inference.opening import open_classifier

        return open_classifier(args.ckpt, command_line.chosen(args, ClassifierOpening))

    return run_export(args, opened, command_line.chosen(args, Exporting))


if __name__ == "__main__":
    command_line.start(main)
