"""Which model a program is to build: told by flags, by a run's configuration, or by the checkpoint's names alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from data.voc import names_of
from engine.device import set_precision, use_xla
from engine.kinds import described_options
from engine.options import Architecture, Looks, Opening
from engine.run_directory import read_config, run_of
from errors import UserError
from models.checkpoint import CheckpointError, open_checkpoint
from models.deeplab_v3 import BACKBONES, DeepLabV3, deeplab_v3
from models.identify import Identity, canonical_scope, identify
from models.layers import ON_TENSORFLOW, to_be_restored
from models.preprocessing import PREPROCESSINGS
from models.weight_init import MISMATCH, MISSING, Report, checkpoint_guided_init, rename_scope


def checkpoint_identity(path: str | Path, rename: Mapping[str, str] | None = None) -> Identity:
    """→ models.identify.Identity of a checkpoint, its names renamed first."""
    with open_checkpoint(path) as checkpoint:
        shapes = {rename_scope(name, rename or {}): shape for name, shape in checkpoint.shapes.items()}
    try:
        return identify(shapes)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def resolve_backbone(
    name: str | None, path: str | Path | None, rename: Mapping[str, str] | None = None
) -> tuple[str, float, Identity | None]:
    """The backbone asked for by `name`, or else the one in the checkpoint `path` (None: from scratch).

    → (name, depth multiplier, Identity or None). Raises UserError where the two contradict each other, or neither
    says anything.
    """
    if name is not None and name not in BACKBONES:
        raise UserError(f"--model {name}: unknown; there are {', '.join(BACKBONES)}")
    if path is None:
        if name is None:
            raise UserError("--ckpt none tells no model: name one with --model")
        return name, 1.0, None
    identity = checkpoint_identity(path, rename)
    if name is not None and name != identity.backbone:
        raise UserError(f"{path}: holds {identity}, not the {name} that --model asks for")
    scope = canonical_scope(identity.backbone)
    if identity.scope != scope:
        raise UserError(
            f"{path}: holds {identity}; its variables are {identity.scope}/…, the model's {scope}/…: "
            f"add --rename {identity.scope}={scope}"
        )
    return identity.backbone, identity.depth_multiplier, identity


def segmenter_of(
    checkpoint: str | Path, rename: Mapping[str, str] | None = None, architecture: Architecture | None = None
) -> dict[str, Any]:
    """The configuration of the DeepLab v3 that a checkpoint was saved from: its run's, or else told from its names.

    What `architecture` says replaces what is told. Raises UserError when the checkpoint holds no DeepLab v3.
    """
    run = run_of(checkpoint)
    if run is not None:
        config = read_config(run)["model"]
        if "output_stride" not in config:
            raise UserError(f"{checkpoint}: this run trained a classifier, not a segmentation model")
    else:
        backbone, depth_multiplier, identity = resolve_backbone(None, checkpoint, rename)
        if identity is None or not identity.segments:
            raise UserError(f"{checkpoint}: holds {identity}; no segmentation head (logits/semantic) is in it")
        config = {
            "backbone": backbone,
            "num_classes": identity.num_classes,
            "depth_multiplier": depth_multiplier,
            "atrous_rates": None if identity.atrous else (),
        }
    return config | asked_of(architecture or Architecture())


def asked_of(architecture: Architecture) -> dict[str, Any]:
    """What a configuration gets of an Architecture: the options that are not None, as `build_segmenter` names them."""
    asked = {name: getattr(architecture, name) for name in described_options(Architecture)}
    upsampling = asked.pop("upsampling")
    if upsampling is not None:
        asked["align_corners"] = upsampling == "align-corners"
    return {name: value for name, value in asked.items() if value is not None}


def config_to_train(
    name: str | None,
    num_classes: int,
    checkpoint: str | None,
    rename: Mapping[str, str],
    architecture: Architecture,
    *,
    all_of_it: bool = False,
) -> dict[str, Any]:
    """The configuration of the DeepLab v3 that a training builds: as asked, else as the checkpoint's, else the paper's.

    Args:
        name: the backbone that is asked for; None is told from the checkpoint.
        num_classes: of the data.
        all_of_it: the checkpoint's head is to learn on, in the paper's second stage.

    Raises UserError where checkpoint, name and data contradict each other.
    """
    if all_of_it:
        if checkpoint is None:
            raise UserError("--stage2 needs the first stage's run: --ckpt none has none")
        config = segmenter_of(checkpoint, rename, architecture)
        if name not in (None, config["backbone"]):
            raise UserError(f"{checkpoint}: holds {config['backbone']}, not the {name} that --model asks for")
        if config["num_classes"] != num_classes:
            raise UserError(
                f"{checkpoint}: its head has {config['num_classes']} classes, the data {num_classes}; --stage2 goes on "
                "with the head as it is, so train a first stage on this data"
            )
        return config
    backbone, depth_multiplier, identity = resolve_backbone(name, checkpoint, rename)
    return {
        "backbone": backbone,
        "num_classes": num_classes,
        "depth_multiplier": depth_multiplier,
        "atrous_rates": () if identity and identity.segments and not identity.atrous else None,
        **asked_of(architecture),
    }


@dataclass(frozen=True)
class OpenedSegmenter:
    """A DeepLab v3 with the weights of a checkpoint, and what the program that uses it must know.

    Attributes:
        model: the DeepLabV3. config: the keyword arguments it was built with. report: of its initialization.
        class_names: the run's, else VOC's 21, else "class 0" …
        crop_size: images are padded to this square, pixels.
    """

    model: DeepLabV3
    config: dict[str, Any]
    report: Report
    class_names: tuple[str, ...]
    crop_size: int

    def predictor(self, looks: Looks = Looks(), *, eager: bool = False) -> "ModelPredictor":  # noqa: F821
        """A ModelPredictor of it as it is now."""
        from inference.predictor import ModelPredictor

        frozen = ON_TENSORFLOW and not eager and not use_xla()
        options = {"scales": looks.scales, "flip": looks.flip, "window": looks.window}
        return ModelPredictor(self.model, self.class_names, self.crop_size, eager=eager, frozen=frozen, **options)


def open_segmenter(checkpoint: str, how: Opening = Opening()) -> OpenedSegmenter:
    """Builds the model that a checkpoint or run was saved from and loads all of it, for inference.

    Raises UserError where the checkpoint holds no DeepLab v3 or not all of one.
    """
    config = segmenter_of(checkpoint, how.rename, how)
    run = run_of(checkpoint)
    said = read_config(run) if run else {"classes": names_of(config["num_classes"]), "arguments": {"eval_size": 513}}
    set_precision(how.precision, training=False)
    model, report = load_segmenter(checkpoint, config, how.rename, how.ema)
    crop_size = how.crop_size or said["arguments"]["eval_size"]
    return OpenedSegmenter(model, config, report, tuple(said["classes"]), crop_size)


def load_segmenter(
    checkpoint: str, config: Mapping[str, Any], rename: Mapping[str, str] | None = None, ema: bool = False
) -> tuple[DeepLabV3, Report]:
    """Builds the model of `config` and loads the whole of it from `checkpoint`. → (model, Report)

    Raises CheckpointError when one of its variables is not in the checkpoint.
    """
    with to_be_restored():
        model = build_segmenter(config)
    report = checkpoint_guided_init(model, checkpoint, rename=rename, ema=ema)
    check_whole(report, checkpoint)
    return model, report


def build_segmenter(config: Mapping[str, Any], batch_norm_decay: float = 0.997) -> DeepLabV3:
    """DeepLab v3 from its configuration: a dict of the keyword arguments of `deeplab_v3`.

    Its key `preprocessing`, where there is one, names what replaces the backbone's own (`PREPROCESSINGS`).
    """
    config = dict(config)
    preprocessing = config.pop("preprocessing", None)
    model = deeplab_v3(**config, batch_norm_decay=batch_norm_decay)
    if preprocessing is not None:
        model.preprocessing = PREPROCESSINGS[preprocessing]
    return model


def build_classifier(config: Mapping[str, Any], batch_norm_decay: float = 0.997) -> keras.Model:
    """A backbone with slim's classifier, from {"backbone", "num_classes", "depth_multiplier"}."""
    options = {"num_classes": config["num_classes"], "batch_norm_decay": batch_norm_decay}
    if config["backbone"] == "mobilenet_v2":
        options["depth_multiplier"] = config["depth_multiplier"]
    return BACKBONES[config["backbone"]](**options)


def restored_tap(checkpoint: str, end_point: str, rename: Mapping[str, str] | None = None) -> tuple["Tap", Report]:  # noqa: F821
    """The network that a checkpoint holds, built as far as `end_point` and loaded from it. → (models.taps.Tap, Report)

    Raises TapError for an end point that the network does not have, CheckpointError where one of the variables up to
    there is not in the checkpoint.
    """
    from models.taps import tap

    backbone, depth_multiplier, identity = resolve_backbone(None, checkpoint, rename)
    options = {} if identity.segments else {"num_classes": identity.num_classes}
    if backbone == "mobilenet_v2":
        options["depth_multiplier"] = depth_multiplier
    model = tap(backbone, end_point, **options)
    report = checkpoint_guided_init(model, checkpoint, rename=rename)
    check_whole(report, checkpoint)
    return model, report


def check_whole(report: Report, checkpoint: str) -> None:
    """Raises CheckpointError unless every variable of the model came from the checkpoint, by the Report."""
    absent = report.of(MISSING) + report.of(MISMATCH)
    if absent:
        raise CheckpointError(f"{checkpoint}: {len(absent)} of the model's variables are not in it\n{report}")
