"""Which model a program is to build, and with what settings: said by options, else told by a run or a checkpoint.

What a run keeps in its `config.json` is known. Of a checkpoint alone, names tell the network and its family
(`models.identify`); what they cannot tell is assumed as the family's own code has it, is said (`Told.introduction`),
and can be said otherwise by an `Architecture`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from data.class_names import read_class_names
from data.imagenet import imagenet_names
from data.images import DataError
from data.places import check_memory
from data.views import SHORTER_SIDE, SQUARE, View
from data.voc import VOC_CLASSES, names_of, unnamed
from engine.device import set_precision, use_xla
from engine.kinds import NONE
from engine.options import Architecture, ClassifierOpening, Feeding, Looks, Opening, Weights
from engine.published import located
from engine.run_directory import run_of
from engine.run_records import read_config
from errors import UserError
from files.records import RecordError
from inference.predictor import crop_size_advice
from models.checkpoint import CheckpointError, open_checkpoint
from models.deeplab_v3 import BACKBONES, DeepLabV3, deeplab_v3
from models.families.family import Change, Translation
from models.identify import Identity, identify
from models.layers import ON_TENSORFLOW, Network, to_be_restored
from models.leftovers import check_meaning
from models.preprocessing import Preprocessing, preprocessing_of, slims_preprocessing
from models.scopes import within
from models.weight_init import Report, checkpoint_guided_init, rename_scope

if TYPE_CHECKING:
    from inference.predictor import ClassifierPredictor, ModelPredictor
    from models.taps import Tap

EVALUATION_SIZE = 513  # pixels; the paper's
CLASSIFIER_SIZE = 224  # pixels; slim's default_image_size of the networks that are here
MOST_CLASSES = 100_000  # that a classifier's names may be of


@dataclass(frozen=True)
class Told:
    """What is known of a model before it is built.

    Attributes:
        config: what `build_segmenter` or `build_classifier` takes.
        identity: what the checkpoint's names tell; None without a checkpoint.
        assumed: one line about the settings that names cannot tell and nobody said; empty for none.
        source: the config.json that all of `config` is from; None where it is not.
    """

    config: dict[str, Any]
    identity: Identity | None = None
    assumed: str = ""
    source: Path | None = None

    @property
    def translation(self) -> Translation:
        """From the checkpoint's names and values to this project's."""
        return Translation() if self.identity is None else self.identity.translation

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Within it, a network that cannot be built is the mistake of the file that its configuration is from."""
        try:
            yield
        except UserError as error:
            if self.source is None:
                raise
            raise RecordError(f"{self.source}: its model cannot be built: {error}") from error

    def introduction(self, ema: bool = True) -> str:
        """What was told and what was assumed, in lines for a person; empty without a checkpoint.

        Args:
            ema: whether moving averages are taken; where they are not, but are there, that is said too.
        """
        if self.identity is None:
            return ""
        lines = [f"model: {self.identity}"]
        if self.assumed:
            lines.append(f"assumed: {self.assumed}")
        if self.identity.averages == "some" and not ema:
            lines.append("moving averages of its variables are in the checkpoint too; --ema takes them")
        return "\n".join(lines)


def checkpoint_identity(
    path: str | Path, rename: Mapping[str, str] | None = None, model: str | None = None
) -> Identity:
    """What a checkpoint's names tell, the names renamed first.

    Args:
        model: which network is meant, by its kind or its scope in the checkpoint, where there are several.
    """
    return _identity_and_graph(path, rename, model)[0]


def _identity_and_graph(
    path: str | Path,
    rename: Mapping[str, str] | None,
    model: str | None = None,
    allow_unused: tuple[str, ...] = (),
) -> tuple[Identity, dict[str, Any]]:
    """What the names tell, and what a frozen graph's operations tell besides: arguments of `deeplab_v3`."""
    with open_checkpoint(path) as checkpoint, _said_of(path):
        sources = {rename_scope(name, rename or {}): name for name in checkpoint.shapes}
        identity = identify({new: checkpoint.shapes[old] for new, old in sources.items()}, model, allow_unused)
        inside = next((name for name in sources if within(name, identity.scope)), "")
        return identity, checkpoint.architecture(sources.get(inside, "").removesuffix(inside[len(identity.scope) :]))


@contextmanager
def _said_of(path: str | Path) -> Iterator[None]:
    """Within it, what is wrong with a checkpoint is said with its path."""
    try:
        yield
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error


def backbone_to_train(
    name: str | None, num_classes: int, path: str | None, rename: Mapping[str, str] | None = None
) -> Told:
    """The backbone asked for by `name`, or else the one in the checkpoint `path` (None: from scratch).

    Raises UserError where the two contradict each other, or neither says anything.
    """
    if path is None:
        if name is None:
            raise UserError("--ckpt none tells no model: name one with --model")
        if name not in BACKBONES:
            raise UserError(f"--model {name}: unknown; there are {', '.join(BACKBONES)}")
        return Told({"backbone": name, "num_classes": num_classes, "depth_multiplier": 1.0})
    if name in BACKBONES and (only := _only_backbone(path, rename)) not in (None, name):
        raise UserError(f"{path}: holds {only}, not the {name} that --model asks for")
    identity = checkpoint_identity(path, rename, name)
    return Told(_classifier_config(identity, num_classes), identity)


def _classifier_config(identity: Identity, num_classes: int) -> dict[str, Any]:
    return {
        "backbone": identity.backbone,
        "num_classes": num_classes,
        "depth_multiplier": identity.depth_multiplier,
        "divisible_by": identity.divisible_by,
    }


def _only_backbone(path: str, rename: Mapping[str, str] | None) -> str | None:
    """The backbone that a checkpoint tells without help; None where it needs some."""
    try:
        return checkpoint_identity(path, rename).backbone
    except CheckpointError:
        return None


def segmenter_of(
    checkpoint: str | Path,
    rename: Mapping[str, str] | None = None,
    architecture: Architecture | None = None,
    model: str | None = None,
    allow_unused: tuple[str, ...] = (),
) -> Told:
    """The DeepLab that a checkpoint was saved from: its run's, or else told from its names.

    What `architecture` says replaces what is told. Raises UserError when the checkpoint holds no DeepLab.
    """
    architecture = architecture or Architecture()
    run = run_of(checkpoint)
    identity, graph = _identity_and_graph(checkpoint, rename, model, allow_unused)
    if run is not None:
        config = _of_today(read_config(run)["model"])
        if "output_stride" not in config:
            raise UserError(
                f"{checkpoint}: this run trained a classifier, not a segmentation model; it is for predict_cls.py, "
                "eval_cls.py and export_cls.py"
            )
        asked = asked_of(architecture, config)
        return Told(config | asked, identity, source=None if asked else run / "config.json")
    with _said_of(checkpoint):
        config = identity.segmenter() | graph
    asked = asked_of(architecture, config)
    return Told(config | asked, identity, identity.assumptions((*graph, *asked)))


def _of_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration, also of those that were written before `upsampling` had its name."""
    config = dict(config)
    aligned = config.pop("align_corners", None)
    if aligned is not None:
        config["upsampling"] = "align-corners" if aligned else "half-pixel"
    return config


def asked_of(architecture: Architecture, config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model's configuration an Architecture replaces."""
    plain = ("output_stride", "features", "upsampling", "atrous_rates", "image_pooling_crop_size")
    asked = {name: value for name in plain if (value := getattr(architecture, name)) is not None}
    if architecture.multi_grid is not None:
        units = 2 if "_18" in config["backbone"] else 3
        asked["multi_grid"] = architecture.multi_grid or (1,) * units
    fed = _preprocessing_asked(architecture, config)
    return asked if fed is None else asked | {"preprocessing": fed.to_config()}


def _preprocessing_asked(architecture: Feeding, config: Mapping[str, Any]) -> Preprocessing | None:
    named, mean, bgr = architecture.preprocessing, architecture.mean, architecture.bgr
    if named is None and mean is None and bgr is None:
        return None
    fed = preprocessing_of(named or config.get("preprocessing") or slims_preprocessing(config["backbone"]))
    if mean is not None and named is None and fed.scale != 1:
        fed = preprocessing_of("mean-subtracted", bgr=fed.order == "BGR")  # a mean alone is subtracted, and no more
    return preprocessing_of(fed, mean, bgr)


def segmenter_to_train(
    name: str | None,
    num_classes: int,
    checkpoint: str | None,
    rename: Mapping[str, str],
    architecture: Architecture,
    *,
    all_of_it: bool = False,
) -> Told:
    """The DeepLab that a training builds: as asked, else as the checkpoint's, else the paper's.

    Args:
        name: the backbone that is asked for, or where it is in the checkpoint; None is told from the checkpoint.
        num_classes: of the data.
        all_of_it: the checkpoint's head is to learn on, in the paper's second stage.

    Raises UserError where checkpoint, name and data contradict each other.
    """
    if all_of_it:
        return _second_stage(name, num_classes, checkpoint, rename, architecture)
    told = backbone_to_train(name, num_classes, checkpoint, rename)
    if checkpoint is not None and told.identity is not None and told.identity.segments:
        if told.identity.num_classes is None:  # a head to begin from, less its logits
            config = told.identity.config
            return Told(config | {"num_classes": num_classes} | asked_of(architecture, config), told.identity)
        told = segmenter_of(checkpoint, rename, architecture, name)
        return Told(told.config | {"num_classes": num_classes}, told.identity, told.assumed)
    papers = {"features": "postnorm", "upsampling": "align-corners"}
    return Told(papers | told.config | asked_of(architecture, told.config), told.identity)


def head_in_order(told: Told, checkpoint: str | None, class_names: Sequence[str]) -> Told:
    """`told` with the head's classes in the order of the data's, by name, where the checkpoint has them in another.

    Where it has as many but others, its logits are where the new head starts, and that is said.
    """
    if checkpoint is None or told.identity is None or told.identity.num_classes != len(class_names):
        return told
    run = run_of(checkpoint)
    theirs = tuple(names_of(told.identity.num_classes) if run is None else read_config(run)["classes"])
    if not told.identity.segments or theirs == tuple(class_names) or (run is None and theirs != VOC_CLASSES):
        return told
    if set(theirs) != set(class_names):
        said = f"its head's classes, {', '.join(theirs)}, become the data's, {', '.join(class_names)}, by number"
        return replace(told, assumed="; ".join(filter(None, (told.assumed, f"{said} (--exclude logits: a new head)"))))
    order = [theirs.index(name) for name in class_names]
    change = Change("classes put in the data's order", lambda values: values[..., order], by_family=False)
    # Lite R-ASPP's decoder puts out the classes, twice.
    lite = told.config.get("head") == "lr-aspp"
    scopes = ("decoder/feature_projection0", "decoder/decoder_conv0") if lite else ("logits/semantic",)
    ordered = {f"{scope}/{leaf}": change for scope in scopes for leaf in ("weights", "biases")}
    changes = {**told.translation.changes, **ordered}
    translation = replace(told.translation, changes=changes)
    return replace(told, identity=replace(told.identity, translation=translation))


def _second_stage(
    name: str | None,
    num_classes: int,
    checkpoint: str | None,
    rename: Mapping[str, str],
    architecture: Architecture,
) -> Told:
    if checkpoint is None:
        raise UserError("--stage2 needs the first stage's run: --ckpt none has none")
    told = segmenter_of(checkpoint, rename, architecture)
    config = told.config
    if name not in (None, config["backbone"]):
        raise UserError(f"{checkpoint}: holds {config['backbone']}, not the {name} that --model asks for")
    if config["num_classes"] != num_classes:
        raise UserError(
            f"{checkpoint}: its head has {config['num_classes']} classes, the data {num_classes}; --stage2 goes on "
            "with the head as it is, so train a first stage on this data"
        )
    return told


@dataclass(frozen=True)
class OpenedSegmenter:
    """A DeepLab with the weights of a checkpoint, and what the program that uses it must know.

    Attributes:
        model: the DeepLabV3. told: what was known of it before it was built. report: of its initialization.
        class_names: the run's, else VOC's 21, else "class 0" …
        crop_size: images are padded to this square, pixels; None: they keep their own size.
        ema: whether its weights are moving averages.
    """

    model: DeepLabV3
    told: Told
    report: Report
    class_names: tuple[str, ...]
    crop_size: int | None
    ema: bool = False

    def introduction(self) -> str:
        """What was opened: the model, what was assumed of it, and how much of it arrived."""
        lines = self.report.text().splitlines()
        return "\n".join(filter(None, (lines[0], self.told.introduction(self.ema), lines[-1])))

    def predictor(self, looks: Looks = Looks(), *, eager: bool = False) -> "ModelPredictor":
        """A ModelPredictor of it as it is now."""
        from inference.predictor import ModelPredictor

        return ModelPredictor(
            self.model,
            self.class_names,
            self.crop_size,
            scales=looks.scales,
            flip=looks.flip,
            window=looks.window,
            eager=eager,
            frozen=ON_TENSORFLOW and not eager and not use_xla(),
        )


def open_segmenter(checkpoint: str | Path, how: Opening = Opening()) -> OpenedSegmenter:
    """Builds the model that a checkpoint or run was saved from and loads all of it, for inference.

    Raises UserError where the checkpoint holds no DeepLab, not all of one, or something that the network leaves out.
    """
    checkpoint = located(checkpoint)
    told = segmenter_of(checkpoint, how.rename, how, how.model, how.allow_unused)
    run = run_of(checkpoint)
    set_precision(how.precision, training=False)
    model, report = load_segmenter(checkpoint, told, how.rename, how.ema, how.allow_unused)
    class_names, eval_size = names_of(told.config["num_classes"]), EVALUATION_SIZE
    if run is not None:
        said = read_config(run)
        class_names, eval_size = tuple(said["classes"]), said["arguments"].get("eval_size", EVALUATION_SIZE)
    size = eval_size if how.crop_size is None else how.crop_size
    crop_size = None if size == NONE else int(size)
    if crop_size is not None:
        check_memory(1, crop_size, f"--crop-size {crop_size}", values=3 + model.num_classes)
    if advice := crop_size_advice(model, crop_size):
        print(advice, flush=True)
    return OpenedSegmenter(model, told, report, class_names, crop_size, how.ema)


def classifies(checkpoint: str | Path, how: Weights = Weights()) -> bool:
    """Whether a checkpoint or run is a classifier's, as its run or its names tell."""
    checkpoint = located(checkpoint)
    if (run := run_of(checkpoint)) is not None:
        return "output_stride" not in read_config(run)["model"]
    identity = checkpoint_identity(checkpoint, how.rename, how.model)
    return identity.num_classes is not None and not identity.segments


def classifier_of(checkpoint: str | Path, how: ClassifierOpening = ClassifierOpening()) -> Told:
    """The classifier that a checkpoint was saved from: its run's, or else told from its names.

    Raises UserError when the checkpoint holds none.
    """
    run = run_of(checkpoint)
    identity, _ = _identity_and_graph(checkpoint, how.rename, how.model, how.allow_unused)
    for_segmenters = "it is for predict_seg.py, eval_seg.py and export_seg.py"
    if run is not None:
        config = read_config(run)["model"]
        if "output_stride" in config:
            raise UserError(f"{checkpoint}: this run trained a segmentation model, not a classifier; {for_segmenters}")
    elif identity.segments:
        raise UserError(f"{checkpoint}: holds {identity}, a segmentation model, not a classifier; {for_segmenters}")
    elif identity.num_classes is None:
        raise UserError(f"{checkpoint}: holds {identity}; train_cls.py trains one on it")
    else:
        config = _classifier_config(identity, identity.num_classes)
    fed = _preprocessing_asked(how, config)
    source = None if run is None or fed is not None else run / "config.json"
    return Told(config if fed is None else config | {"preprocessing": fed.to_config()}, identity, source=source)


@dataclass(frozen=True)
class OpenedClassifier:
    """A classifier with the weights of a checkpoint, and what the program that uses it must know.

    Attributes:
        model: a backbone with slim's classifier. told: what was known of it before it was built, and what was assumed.
        report: of its initialization.
        class_names: those of --classes, else the run's, else ImageNet's, else "class 0" …
        view: what it is shown of a picture. ema: whether its weights are moving averages.
    """

    model: Network
    told: Told
    report: Report
    class_names: tuple[str, ...]
    view: View
    ema: bool = False

    def introduction(self) -> str:
        """What was opened: the model, what was assumed of it, what it is shown, and how much of it arrived."""
        lines = self.report.text().splitlines()
        shown = f"pictures: {self.view}; {self.model.preprocessing}"
        return "\n".join(filter(None, (lines[0], self.told.introduction(self.ema), shown, lines[-1])))

    def predictor(self, *, eager: bool = False) -> "ClassifierPredictor":
        """A ClassifierPredictor of it."""
        from inference.predictor import ClassifierPredictor

        return ClassifierPredictor(self.model, self.class_names, self.view, eager)


def open_classifier(checkpoint: str | Path, how: ClassifierOpening = ClassifierOpening()) -> OpenedClassifier:
    """Builds the classifier that a checkpoint or run was saved from and loads all of it, for inference.

    Raises UserError where the checkpoint holds none, not all of one, or something that the network leaves out.
    """
    checkpoint = located(checkpoint)
    told = classifier_of(checkpoint, how)
    run = run_of(checkpoint)
    said = None if run is None else read_config(run)
    size, rule = CLASSIFIER_SIZE, SHORTER_SIDE
    if said is not None:
        size, rule = said["arguments"].get("image_size", CLASSIFIER_SIZE), SQUARE
    view = View(how.image_size or size, how.central_fraction, how.resize or rule)
    class_names, assumed = _classifiers_names(how.classes, said, told.config["num_classes"])
    if said is None:
        told = replace(told, assumed="; ".join(filter(None, (_assumed_of_pictures(how, view), assumed))))
    set_precision(how.precision, training=False)
    model, report = _loaded(build_classifier, checkpoint, told, how.rename, how.ema, how.allow_unused)
    return OpenedClassifier(model, told, report, class_names, view, how.ema)


def _classifiers_names(
    path: str | None, run: Mapping[str, Any] | None, num_classes: int
) -> tuple[tuple[str, ...], str]:
    """→ (the names of a classifier's classes, what was assumed of them)."""
    if path is not None:
        names = read_class_names(path, MOST_CLASSES)
        if len(names) != num_classes:
            raise DataError(f"{path}: names {len(names)} classes, the model has {num_classes}.")
        return names, ""
    if run is not None:
        return tuple(run["classes"]), ""
    if (known := imagenet_names(num_classes)) is not None:
        return known, f"its {num_classes} classes are ImageNet's (--classes)"
    return unnamed(num_classes), "its classes have no names (--classes)"


def _assumed_of_pictures(how: ClassifierOpening, view: View) -> str:
    """What nobody said of what a classifier is shown, and a checkpoint cannot tell."""
    said = {
        f"{view.size} pixels (--image-size)": how.image_size,
        f"{view.rule} (--resize)": how.resize,
        "slim's preprocessing of this network (--preprocessing, --mean)": how.preprocessing or how.mean,
    }
    return ", ".join(text for text, given in said.items() if given is None)


def load_segmenter(
    checkpoint: str | Path,
    told: Told,
    rename: Mapping[str, str] | None = None,
    ema: bool = False,
    allow_unused: tuple[str, ...] = (),
) -> tuple[DeepLabV3, Report]:
    """Builds the model that is told of and loads the whole of it from `checkpoint`.

    Raises CheckpointError when one of its variables is not in the checkpoint, or the checkpoint has one that belongs to
    a network which computes something else.
    """
    return _loaded(build_segmenter, checkpoint, told, rename, ema, allow_unused)


def _loaded(
    build: Callable[[Mapping[str, Any]], Any],
    checkpoint: str | Path,
    told: Told,
    rename: Mapping[str, str] | None,
    ema: bool,
    allow_unused: tuple[str, ...],
) -> tuple[Any, Report]:
    with to_be_restored(), told.blamed():
        model = build(told.config)
    report = checkpoint_guided_init(model, checkpoint, rename=rename, ema=ema, translation=told.translation)
    check_meaning(report, allow_unused)
    return model, report


@contextmanager
def mended_by_user(config: Mapping[str, Any]) -> Iterator[None]:
    """Within it, a network that cannot be built as configured is a user's mistake."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise UserError(f"{config.get('backbone')}: {error}") from error


def build_segmenter(config: Mapping[str, Any], batch_norm_decay: float = 0.997) -> DeepLabV3:
    """DeepLab from its configuration: a dict of the keyword arguments of `deeplab_v3`.

    Raises UserError where there is no such network.
    """
    with mended_by_user(config):
        return deeplab_v3(**config, batch_norm_decay=batch_norm_decay)


def build_classifier(config: Mapping[str, Any], batch_norm_decay: float = 0.997) -> keras.Model:
    """A backbone with slim's classifier, from {"backbone", "num_classes", "depth_multiplier", "divisible_by"}, and
    "preprocessing" where it is not slim's."""
    options = {"num_classes": config["num_classes"], "batch_norm_decay": batch_norm_decay}
    with mended_by_user(config):
        network = BACKBONES[config["backbone"]](**options, **_width(config))
        if "preprocessing" in config:
            network.preprocessing = preprocessing_of(config["preprocessing"])
    return network


def _width(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration says how wide the backbone is, where that can be said."""
    taken = inspect.signature(BACKBONES[config["backbone"]]).parameters
    return {name: config[name] for name in ("depth_multiplier", "divisible_by") if name in config and name in taken}


def restored_tap(
    checkpoint: str, end_point: str, rename: Mapping[str, str] | None = None, model: str | None = None
) -> tuple["Tap", Report]:
    """The network that a checkpoint holds, built as far as `end_point` and loaded from it.

    Raises TapError for an end point that the network does not have, CheckpointError where one of the variables up to
    there is not in the checkpoint.
    """
    from models.taps import tap

    checkpoint = located(checkpoint)
    identity = checkpoint_identity(checkpoint, rename, model)
    width = {"depth_multiplier": identity.depth_multiplier, "divisible_by": identity.divisible_by}
    options = _width({"backbone": identity.backbone, **width})
    if not identity.segments:
        options["num_classes"] = identity.num_classes
    network = tap(identity.backbone, end_point, **options)
    report = checkpoint_guided_init(network, checkpoint, rename=rename, translation=identity.translation)
    if absent := report.absent():
        raise CheckpointError(
            f"{checkpoint}: {len(absent)} of the model's variables are not in it\n{report.text(most=10)}"
        )
    return network, report
