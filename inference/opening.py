"""Which model a script is to build: told by flags, by a run's configuration, or by the checkpoint's names alone."""

from dataclasses import dataclass

from command_line import renames
from data.voc import names_of
from engine.device import set_precision, use_xla
from engine.run_directory import read_config, run_of
from errors import UserError
from models.checkpoint import CheckpointError, open_checkpoint
from models.deeplab_v3 import BACKBONES, deeplab_v3
from models.identify import canonical_scope, identify
from models.layers import ON_TENSORFLOW, to_be_restored
from models.preprocessing import PREPROCESSINGS
from models.weight_init import MISMATCH, MISSING, checkpoint_guided_init, rename_scope


def checkpoint_identity(path, rename=None):
    """→ models.identify.Identity of a checkpoint, its names renamed first."""
    with open_checkpoint(path) as checkpoint:
        shapes = {rename_scope(name, rename or {}): shape for name, shape in checkpoint.shapes.items()}
    try:
        return identify(shapes)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def resolve_backbone(name, path, rename=None):
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


def segmenter_of(checkpoint, rename=None, **overrides):
    """The configuration of the DeepLab v3 that a checkpoint was saved from: its run's, or else told from its names.

    `overrides` that are not None replace what is told. Raises UserError when the checkpoint holds no DeepLab v3.
    """
    run = run_of(checkpoint)
    if run is not None:
        config = read_config(run)["model"]
        if "output_stride" not in config:
            raise UserError(f"{checkpoint}: this run trained a classifier, not a segmentation model")
    else:
        backbone, depth_multiplier, identity = resolve_backbone(None, checkpoint, rename)
        if not identity.segments:
            raise UserError(f"{checkpoint}: holds {identity}; no segmentation head (logits/semantic) is in it")
        config = {
            "backbone": backbone,
            "num_classes": identity.num_classes,
            "depth_multiplier": depth_multiplier,
            "atrous_rates": None if identity.atrous else (),
        }
    return config | {key: value for key, value in overrides.items() if value is not None}


def second_stage_config(name, num_classes, checkpoint, rename=None, **overrides):
    """`segmenter_of` the first stage's run or checkpoint, whose head is to learn on.

    Raises UserError where there is no such head: no checkpoint, no DeepLab v3, another backbone than `name`, which may
    be None, or another number of classes.
    """
    if checkpoint is None:
        raise UserError("--stage2 needs the first stage's run: --ckpt none has none")
    config = segmenter_of(checkpoint, rename, **overrides)
    if name not in (None, config["backbone"]):
        raise UserError(f"{checkpoint}: holds {config['backbone']}, not the {name} that --model asks for")
    if config["num_classes"] != num_classes:
        raise UserError(
            f"{checkpoint}: its head has {config['num_classes']} classes, the data {num_classes}; --stage2 goes on "
            "with the head as it is, so train a first stage on this data"
        )
    return config


@dataclass(frozen=True)
class OpenedSegmenter:
    """A DeepLab v3 with the weights of a checkpoint, and what the program that uses it must know.

    Attributes:
        model: the DeepLabV3. config: the keyword arguments it was built with. report: of its initialization.
        class_names: the run's, else VOC's 21, else "class 0" …
        crop_size: images are padded to this square, pixels.
    """

    model: object
    config: dict
    report: object
    class_names: tuple
    crop_size: int

    def predictor(self, eager=False, **options):
        """A ModelPredictor of it as it is now; `options` are `scales`, `flip` and `window`."""
        from inference.predictor import ModelPredictor

        frozen = ON_TENSORFLOW and not eager and not use_xla()
        return ModelPredictor(self.model, self.class_names, self.crop_size, eager=eager, frozen=frozen, **options)


def open_segmenter(checkpoint, args):
    """Builds the model that a checkpoint or run was saved from and loads all of it, for inference.

    Args:
        args: what `cli.add_segmenter_arguments` parsed.

    Raises UserError where the checkpoint holds no DeepLab v3 or not all of one.
    """
    rename = renames(args.rename)
    config = segmenter_of(
        checkpoint,
        rename,
        output_stride=args.output_stride,
        multi_grid=args.multi_grid,
        features=args.features,
        align_corners=None if args.upsampling is None else args.upsampling == "align-corners",
    )
    run = run_of(checkpoint)
    said = read_config(run) if run else {"classes": names_of(config["num_classes"]), "arguments": {"eval_size": 513}}
    set_precision(args.precision, training=False)
    model, report = load_segmenter(checkpoint, config, rename, args.ema)
    crop_size = args.crop_size or said["arguments"]["eval_size"]
    return OpenedSegmenter(model, config, report, tuple(said["classes"]), crop_size)


def load_segmenter(checkpoint, config, rename=None, ema=False):
    """Builds the model of `config` and loads the whole of it from `checkpoint`. → (model, Report)

    Raises CheckpointError when one of its variables is not in the checkpoint.
    """
    with to_be_restored():
        model = build_segmenter(config)
    report = checkpoint_guided_init(model, checkpoint, rename=rename, ema=ema)
    check_whole(report, checkpoint)
    return model, report


def build_segmenter(config, batch_norm_decay=0.997):
    """DeepLab v3 from its configuration: a dict of the keyword arguments of `deeplab_v3`.

    Its key `preprocessing`, where there is one, names what replaces the backbone's own (`PREPROCESSINGS`).
    """
    config = dict(config)
    preprocessing = config.pop("preprocessing", None)
    model = deeplab_v3(**config, batch_norm_decay=batch_norm_decay)
    if preprocessing is not None:
        model.preprocessing = PREPROCESSINGS[preprocessing]
    return model


def build_classifier(config, batch_norm_decay=0.997):
    """A backbone with slim's classifier, from {"backbone", "num_classes", "depth_multiplier"}."""
    options = {"num_classes": config["num_classes"], "batch_norm_decay": batch_norm_decay}
    if config["backbone"] == "mobilenet_v2":
        options["depth_multiplier"] = config["depth_multiplier"]
    return BACKBONES[config["backbone"]](**options)


def restored_tap(checkpoint, end_point, rename=None):
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


def check_whole(report, checkpoint):
    """Raises CheckpointError unless every variable of the model came from the checkpoint, by the Report."""
    absent = report.of(MISSING) + report.of(MISMATCH)
    if absent:
        raise CheckpointError(f"{checkpoint}: {len(absent)} of the model's variables are not in it\n{report}")
