"""Every option of training, evaluation, prediction and export, once: type, unit, default, the paper's value, meaning.

A group is what one subject's functions take. The programs make their flags from the groups (`command_line.add_options`)
and a run's `config.json` keeps the options under the same names. "The paper" is Chen et al., "Rethinking Atrous
Convolution for Semantic Image Segmentation" (2017), section 4.
"""

from dataclasses import dataclass, field
from typing import Any

from engine.kinds import (
    BATCH,
    CLASS_WEIGHTS,
    DEVICES,
    FEEDS,
    GRID,
    HOSTS,
    LABEL,
    LABELLED,
    MEAN,
    NAMES,
    NONNEGATIVE,
    NONNEGATIVE_INT,
    OUTPUTS,
    PATH,
    PIXELS,
    POSITIVE,
    POSITIVE_INT,
    RANGE,
    RENAMES,
    SCALES,
    SCOPES,
    SHARE,
    SIZE,
    SMOOTHING,
    TEXT,
    THREADS,
    VALUE_RANGE,
    OptionError,
    Options,
    option,
    or_none,
    whole,
)

MEANT = "which network of the checkpoint, by its kind or its scope there"
UNUSED = "scopes of the checkpoint that the network may leave out, though it was trained with them"
TOLD = "as told, else the paper's"
RENAMED = "the checkpoint's scope OLD is the model's scope NEW, e.g. slim_resnet=resnet_v2_50"
PAPER_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


@dataclass(frozen=True)
class Restore(Options):
    """What is taken from a checkpoint when a training starts."""

    title = "what is restored"

    include: tuple[str, ...] = option((), "load only variables in these scopes (whole path segments)", SCOPES)
    exclude: tuple[str, ...] = option((), "load no variable in these scopes", SCOPES)
    rename: dict[str, str] = option({}, RENAMED, RENAMES, repeated=True)
    ema: bool = option(False, "take the moving averages of variables where there are any")
    allow_unused: tuple[str, ...] = option((), f"{UNUSED}; only --stage2 stops at them", SCOPES)
    allow_missing: tuple[str, ...] = option(
        (), "backbone scopes that may be missing in the checkpoint; any other that is stops the start", SCOPES
    )


@dataclass(frozen=True)
class Feeding(Options):
    """What a network is fed, where it is not to be as told."""

    title = "what the network is fed"

    preprocessing: str | None = option(
        None,
        "[-1, 1], or RGB less a mean: slim's, DeepLab's, or Caffe's, which is BGR; a run keeps it",
        TEXT,
        shown=TOLD,
        choices=("unit-range", "mean-subtracted", "deeplab-mean-subtracted", "caffe-mean-subtracted"),
    )
    mean: tuple[float, float, float] | None = option(
        None, "of red, green and blue, which is subtracted", MEAN, shown=TOLD
    )
    bgr: bool | None = option(None, "the network is fed blue first", shown=TOLD)


@dataclass(frozen=True)
class Architecture(Feeding):
    """The segmentation model, where it is not to be as told: None is what the run, the checkpoint, or the paper has."""

    title = "model"

    output_stride: int | None = option(
        None,
        "input size over feature size",
        POSITIVE_INT,
        paper="16, in the second stage 8",
        shown="the run's, else 16",
        choices=(8, 16, 32),
    )
    multi_grid: tuple[int, ...] | None = option(
        None, "dilations of block4's units; `none` for none", GRID, paper="1,2,4", shown=TOLD
    )
    atrous_rates: tuple[int, ...] | None = option(
        None,
        "dilations of the head's branches at output stride 16; `none` for none",
        GRID,
        paper="6,12,18",
        shown=TOLD,
    )
    features: str | None = option(
        None,
        "what the head is fed: `block4` is the raw sum, as peers' checkpoints on slim's v2 have it",
        TEXT,
        shown=TOLD,
        choices=("postnorm", "block4"),
    )
    upsampling: str | None = option(
        None,
        "of the logits; `tf1` is TensorFlow 1's default, as the public re-implementations have it",
        TEXT,
        paper="align-corners",
        shown=TOLD,
        choices=("align-corners", "half-pixel", "tf1"),
    )
    image_pooling_crop_size: tuple[int, int] | None = option(
        None,
        "image pooling averages over windows of this height and width, those of the crops of training",
        SIZE,
        unit="pixels",
        shown=f"{TOLD}: over all",
    )


@dataclass(frozen=True)
class Weights(Options):
    """Which weights of a checkpoint are taken, and what is computed with them in."""

    title = "model"

    precision: str = option("float32", "of the computation", TEXT, choices=("float32", "bfloat16"))
    model: str | None = option(None, MEANT, TEXT, shown="the only one")
    allow_unused: tuple[str, ...] = option((), UNUSED, SCOPES)
    rename: dict[str, str] = option({}, RENAMED, RENAMES, repeated=True)
    ema: bool = option(False, "take the moving averages of variables where there are any")


@dataclass(frozen=True)
class Opening(Weights, Architecture):
    """How a checkpoint's segmentation model is opened."""

    title = "model"

    crop_size: int | str | None = option(
        None,
        "images are padded to this square, larger ones by less; best a multiple of the output stride plus one, where "
        "features and pixels have their corners aligned. `none`: they keep their own size, as rishizek's code has it",
        or_none(PIXELS),
        unit="pixels",
        paper="513",
        shown="the run's, else 513",
    )


@dataclass(frozen=True)
class ClassifierOpening(Weights, Feeding):
    """How a checkpoint's classifier is opened, and what it is shown of a picture."""

    title = "model"

    image_size: int | None = option(
        None, "side of the square that the network sees", POSITIVE_INT, unit="pixels", shown="the run's, else 224"
    )
    central_fraction: float = option(0.875, "how much of a picture is seen; slim's", SHARE, unit="a fraction")
    resize: str | None = option(
        None,
        "`square`: that fraction of the shorter side is a square, resized by area, as train_cls.py validates; "
        "`shorter-side`: it is resized to image size over fraction and the middle cut out, as slim's "
        "vgg_preprocessing; `stretch`: the fraction of height and width becomes the square whatever its shape, as "
        "slim's inception_preprocessing",
        TEXT,
        shown="square for a run, else shorter-side",
        choices=("square", "shorter-side", "stretch"),
    )
    classes: str | None = option(
        None, "names of the classes, one a line", PATH, takes="FILE", shown="the run's, else ImageNet's or numbers"
    )


@dataclass(frozen=True)
class Looks(Options):
    """How often an image is looked at for one prediction."""

    title = "how often an image is looked at; probabilities are averaged"

    scales: tuple[float, ...] = option(
        (1.0,),
        "sizes at which the image is looked at",
        SCALES,
        paper="0.5,0.75,1,1.25,1.5,1.75",
        constants={"--multi-scale": (PAPER_SCALES, "the paper's scales: 0.5,0.75,1,1.25,1.5,1.75")},
    )
    flip: bool = option(False, "the image and its mirror image")
    window: int | None = option(
        None,
        "larger pictures go through the backbone by windows of this side, where memory does not hold them whole; the "
        "head sees all of them at once",
        PIXELS,
        unit="pixels",
        shown="whole",
    )


@dataclass(frozen=True)
class Pictures(Options):
    """How picture files are read, by every program."""

    title = "picture files"

    ignore_orientation: bool = option(
        False, "read pictures as they are stored, not turned as their orientation tag says; masks are never turned"
    )
    picture_range: tuple[float, float] | None = option(
        None, "values of pictures of more than 8 bits that become black and white", VALUE_RANGE, shown="refused"
    )
    accept_damaged: bool = option(
        False,
        "damaged pictures are decoded as far as they go, and named, instead of refused; damaged masks never are",
        free=True,
    )

    def reading(self) -> dict[str, Any]:
        """As the keyword arguments of `data.images.read_image`."""
        return {
            "turn": not self.ignore_orientation,
            "picture_range": self.picture_range,
            "accept_damaged": self.accept_damaged,
        }


@dataclass(frozen=True)
class Exporting(Options):
    """What exports take and give, by export_seg.py and export_cls.py."""

    title = "what an export takes and gives"

    size: tuple[int, int] | None = option(
        None, "the one height and width of pictures", SIZE, unit="pixels", shown="any; of a format of one size the crop"
    )
    batch: int | None = option(
        None, "the one number of pictures at once; TFLite's and 8 bits' is 1", POSITIVE_INT, shown="any"
    )
    opset: int = option(18, "the version of ONNX's operators", whole(13, 21))
    outputs: tuple[str, ...] = option(
        ("labels",),
        "labels, probabilities, logits: the fewer the faster; logits are small, those of the padded picture. 8 bits "
        "give small logits always",
        OUTPUTS,
    )
    calibrate: str | None = option(
        None,
        "training data, laid out as for training, on whose pictures 8 bits are calibrated and checked",
        PATH,
        takes="DATA",
        shown="no 8 bits",
    )
    calibrate_set: str = option("train", "image set of --calibrate to calibrate on", TEXT, takes="NAME")
    check_set: str = option("val", "image set of --calibrate to check 8 bits on", TEXT, takes="NAME")
    calibrate_images: int = option(100, "spread over the classes", POSITIVE_INT)
    check_images: int = option(40, "spread over the image set", POSITIVE_INT)
    label: dict[str, str] = option(
        {}, "the class THEIRS of --calibrate is the model's OURS, its name or number, e.g. ants=ant", LABELLED
    )


IGNORED = "value in the masks of what does not count, in training and in scores"


@dataclass(frozen=True)
class SegmentationImages(Options):
    """The images of a segmentation model's training."""

    title = "images"

    train_set: str = option(
        "trainaug", "image set to train on", TEXT, paper="trainaug, for its submission's second stage trainval"
    )
    val_set: str = option("val", "image set to evaluate on", TEXT, paper="val")
    crop_size: int = option(513, "side of the squares that are trained on", PIXELS, unit="pixels", paper="513")
    scale_range: tuple[float, float] = option(
        (0.5, 2.0), "images are scaled by a random factor in it", RANGE, paper="0.5,2.0"
    )
    flip: bool = option(True, "every other image is flipped left to right, as the paper has it")
    cache: str = option(
        "none",
        "keep decoded training images in `memory` or in a folder, 4 bytes a pixel",
        PATH,
        takes="none|memory|DIR",
        free=True,
    )
    ignore_label: int = option(255, IGNORED, LABEL)
    allow_absent: tuple[str, ...] = option(
        (),
        "classes that no pixel of the training set may have; any other that is absent stops the start",
        NAMES,
        free=True,
    )
    allow_repeats: bool = option(
        False, "an image may be in both image sets, or twice in one; scores then prove little", free=True
    )
    eval_size: int = option(513, "validation images are padded to this square", PIXELS, unit="pixels", paper="513")


@dataclass(frozen=True)
class ClassificationImages(Options):
    """The images of a classifier's training."""

    title = "images"

    image_size: int = option(224, "side of the squares that the network sees", PIXELS, unit="pixels")
    strict_data: bool = option(False, "stop at files that are no images instead of skipping")


@dataclass(frozen=True)
class SegmentationLoss(Options):
    """The loss of segmentation."""

    title = "loss"

    class_weights: str | tuple[float, ...] | None = option(
        None,
        "one a class, or a text file of them, or `balanced`: each class counts the same over the training set's "
        "pixels; the loss is the weighted mean",
        CLASS_WEIGHTS,
        paper="none",
        shown="none",
    )
    hard_pixels: float = option(
        1.0,
        "loss-based bootstrapping: the mean over only this part of the pixels, the hardest",
        SHARE,
        unit="a fraction",
        paper="1",
    )


@dataclass(frozen=True)
class Recipe(Options):
    """How a model is trained: schedule, momentum SGD, weight decay, batch norm."""

    title = "recipe"

    steps: int = option(30_000, "training steps", POSITIVE_INT, paper="30,000 in each stage")
    batch_size: int = option(16, "images a step", BATCH, paper="16")
    accumulate: int = option(
        1,
        "a step's images are computed in so many parts, one after the other: the memory of one part, and the gradient "
        "of the whole, but for batch norm's statistics (see --freeze-bn) and the choice of --hard-pixels",
        POSITIVE_INT,
    )
    learning_rate: float = option(0.007, "base rate", NONNEGATIVE, paper="0.007, in the second stage 0.001")
    power: float = option(0.9, "of the poly schedule, (1 - step/steps)^power", NONNEGATIVE, paper="0.9")
    warmup_steps: int = option(0, "the rate rises in a line over the first steps", NONNEGATIVE_INT, paper="0")
    momentum: float = option(0.9, "TensorFlow 1's", SMOOTHING, paper="0.9")
    weight_decay: float = option(
        1e-4,
        "L2 on convolution kernels: half the sum of squares joins the loss, as TensorFlow 1 and the paper have it",
        NONNEGATIVE,
        paper="0.0001",
    )
    clip_norm: float | None = option(
        None, "gradients are scaled down to this norm, over all of them at once", POSITIVE, paper="none", shown="none"
    )
    bn_decay: float | None = option(
        None,
        "decay of batch norm's moving statistics",
        SMOOTHING,
        paper="0.9997",
        shown="0.9997 at 30,000 steps, for fewer what forgets as much",
    )
    seed: int = option(0, "same seed, same losses", NONNEGATIVE_INT)
    precision: str = option(
        "float32",
        "of the computation; statistics, softmax and loss stay float32",
        TEXT,
        choices=("float32", "bfloat16"),
    )

    def check(self) -> None:
        """Whether warm-up and steps, batch and parts go together."""
        if self.batch_size % self.accumulate:
            raise OptionError(f"--accumulate {self.accumulate}: must divide the batch of {self.batch_size} images")
        if self.warmup_steps >= self.steps:
            raise OptionError(f"--warmup-steps {self.warmup_steps}: must be fewer than the {self.steps} steps")


@dataclass(frozen=True)
class Learning(Options):
    """Which variables learn, and how fast."""

    title = "what learns"

    train: str = option("all", "everything, or only what was not restored", TEXT, choices=("all", "new"))
    freeze: tuple[str, ...] = option((), "these scopes stay as they are, batch norm statistics included", SCOPES)
    train_only: tuple[str, ...] = option((), "only these scopes learn", SCOPES)
    freeze_bn: str | None = option(
        None,
        "batch norm keeps its moving statistics (and gamma and beta, unless only `statistics` is asked for)",
        TEXT,
        paper="all in the second stage",
        shown="none",
        choices=("all", "statistics"),
        bare="all",
    )
    restored_lr: float = option(1.0, "factor on the learning rate of what was restored", NONNEGATIVE)


@dataclass(frozen=True)
class Run(Options):
    """Where a run is kept and what is written when."""

    title = "run"

    run_dir: str = option("runs/seg", "where all of the run goes; it resumes", PATH, takes="DIR", free=True)
    dry_run: bool = option(False, "stop after the report, before anything is written", free=True)
    log_every: int = option(20, "steps between two rows of the log", POSITIVE_INT)
    save_every: int | None = option(
        None, "steps between two checkpoints", POSITIVE_INT, shown="500, or a tenth of the steps"
    )
    eval_every: int | None = option(
        None, "steps between two evaluations", POSITIVE_INT, shown="1000, or a tenth of the steps"
    )
    histograms: bool = option(False, "TensorBoard: weights' histograms and gradient norms by scope too", free=True)
    keep: int = option(2, "how many last checkpoints stay", POSITIVE_INT, free=True)
    workers: int = option(2, "threads that read images", THREADS, free=True)
    data_changed: bool = option(False, "go on with a run whose data are no longer as they were", free=True)

    def saves_every(self, steps: int) -> int:
        """Steps between two checkpoints of a run of so many."""
        return self.save_every or max(1, min(500, steps // 10))

    def evaluates_every(self, steps: int) -> int:
        """Steps between two evaluations of a run of so many: its curve has ten points or more."""
        return self.eval_every or max(1, min(1000, steps // 10))


@dataclass(frozen=True)
class Devices(Options):
    """The devices, and hosts, that share each batch."""

    title = "devices; batch size and learning rate mean the same at any number of them"

    devices: int = option(
        1,
        "GPUs of this machine, and of each host, that share each batch; without any, so many parts of the CPU, to try "
        "things out",
        DEVICES,
        free=True,
    )
    hosts: tuple[str, ...] | None = option(
        None,
        "machines that share each batch under KERAS_BACKEND=jax, the same on all of them; the first coordinates, and "
        "writes --run-dir, which all must see",
        HOSTS,
        shown="KERAS_DISTRIBUTION_JOB_ADDRESSES",
        free=True,
    )
    host: int | None = option(
        None,
        "which of the --hosts this is, from 0",
        NONNEGATIVE_INT,
        shown="KERAS_DISTRIBUTION_PROCESS_ID",
        free=True,
    )


@dataclass(frozen=True)
class Reading(Options):
    """How a data set is read for evaluation."""

    title = "reading"

    batch_size: int = option(1, "images of one size that are predicted at once", BATCH)
    workers: int = option(2, "threads that read images", THREADS)
    ignore_label: int = option(255, IGNORED, LABEL)


@dataclass(frozen=True)
class ScoreFiles(Options):
    """The files that an evaluation of one or several models writes."""

    title = "scores, of one or several models"

    json: str | None = option(None, "all scores and the confusion matrix; of several models a list", PATH, takes="FILE")
    csv: str | None = option(None, "a row a class and a mean, a column a model; fractions", PATH, takes="FILE")
    trimap: str | None = option(
        None, "draw the mIoU within 1 … 40 pixels of boundaries; numbers go to --json", PATH, takes="FILE.png"
    )


@dataclass(frozen=True)
class PredictionFiles(Options):
    """The pictures and predictions that an evaluation of one model writes."""

    title = "pictures and predictions, of one model"

    sheet: str | None = option(None, "draw some images, their truth and predictions", PATH, takes="FILE.png")
    sheet_images: int = option(6, "how many", POSITIVE_INT)
    worst: str | None = option(
        None,
        "list and draw the images of lowest mIoU, or of the least probability for their class",
        PATH,
        takes="FILE.png",
    )
    worst_images: int = option(8, "how many", POSITIVE_INT)
    confusion: str | None = option(None, "draw the confusion matrix", PATH, takes="FILE.png")
    save_pred: str | None = option(None, "write each prediction into this folder as a palette PNG", PATH, takes="DIR")
    voc_submission: str | None = option(
        None, "write the archive that the VOC evaluation server takes", PATH, takes="FILE.tar.gz"
    )
    competition: str = option(
        "comp6",
        "its folder: comp5 is for models trained on VOC's own data alone, comp6 for others, such as those pre-trained "
        "on ImageNet",
        TEXT,
        choices=("comp5", "comp6"),
    )


@dataclass(frozen=True)
class Verification(Architecture):
    """How an old graph and this project's model are compared, and the model where it is not to be as told."""

    title = "what is compared, and how"

    output_stride: int | None = option(
        None, "of the model", POSITIVE_INT, shown="as OLD has it", choices=(4, 8, 16, 32)
    )
    model: str | None = option(None, MEANT, TEXT, shown="the only one")
    ckpt: str | None = option(None, "weights of this project's model", PATH, shown="those of OLD")
    old_ckpt: str | None = option(
        None, "variables of OLD's graph", PATH, takes="CKPT", shown="beside the .meta, else --ckpt"
    )
    input: str | None = option(
        None, "tensor of OLD to feed the picture to", TEXT, takes="NAME", shown="its placeholder"
    )
    feed: dict[str, float] = option({}, "value of another placeholder of OLD", FEEDS, repeated=True)
    scope: dict[str, str] = option(
        {},
        "the old scope OLD is the model's scope NEW, e.g. slim_resnet=resnet_v2_50",
        RENAMES,
        repeated=True,
        also=("--rename",),
    )
    tolerance: float = option(1e-4, "of the largest magnitude", NONNEGATIVE)
    size: int | None = option(None, "the picture is resized to N x N", PIXELS, shown="as OLD wants, else not")
    json: str | None = option(None, "write all of it to this file too", PATH, takes="FILE")


@dataclass(frozen=True)
class SegmentationTraining:
    """All groups of options of a segmentation model's training; the defaults are the paper's first stage."""

    restore: Restore = field(default_factory=Restore)
    architecture: Architecture = field(default_factory=lambda: Architecture(output_stride=16))
    images: SegmentationImages = field(default_factory=SegmentationImages)
    pictures: Pictures = field(default_factory=Pictures)
    loss: SegmentationLoss = field(default_factory=SegmentationLoss)
    recipe: Recipe = field(default_factory=Recipe)
    learning: Learning = field(default_factory=Learning)
    run: Run = field(default_factory=Run)
    devices: Devices = field(default_factory=Devices)


FIRST_STAGE = SegmentationTraining()
SECOND_STAGE = SegmentationTraining(
    architecture=Architecture(output_stride=8),
    recipe=Recipe(learning_rate=0.001),
    learning=Learning(freeze_bn="all"),
    run=Run(run_dir="runs/seg-stage2"),
)


@dataclass(frozen=True)
class ClassificationTraining:
    """All groups of options of a classifier's training."""

    restore: Restore = field(default_factory=Restore)
    images: ClassificationImages = field(default_factory=ClassificationImages)
    pictures: Pictures = field(default_factory=Pictures)
    recipe: Recipe = field(
        default_factory=lambda: Recipe(steps=300, batch_size=32, learning_rate=0.01, weight_decay=5e-4)
    )
    learning: Learning = field(default_factory=Learning)
    run: Run = field(default_factory=lambda: Run(run_dir="runs/cls"))
    devices: Devices = field(default_factory=Devices)
