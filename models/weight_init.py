"""From a checkpoint into a model, by name: names in, plan out, plan applied, report.

Everything up to the last step is pure functions over {name: shape}. Both walks, guided by the checkpoint's names or by
the model's, end in the same report, which puts every name of both sides in exactly one class.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from models.checkpoint import OBJECT_BASED, CheckpointError, is_object_based, open_checkpoint, write_checkpoint
from models.families.family import Change, Shapes, Translation
from models.scopes import check_scopes, clean_scopes, first_match, rename_scope, within

LOADED = "loaded"
MISSING = "missing in the checkpoint"
UNUSED = "unused in the checkpoint"
MISMATCH = "shape mismatch"
EXCLUDED = "excluded by rule"
BOOKKEEPING = "optimizer slot or bookkeeping"
Rename = Mapping[str, str] | Callable[[str], str]
CLASSES = (LOADED, MISSING, UNUSED, MISMATCH, EXCLUDED, BOOKKEEPING)
EXTRA_CHANNELS = ("zero", "mean")
FULLY_CONNECTED = Change("a fully connected layer", lambda w: w.reshape(1, 1, *w.shape), lambda shape: (1, 1, *shape))

AVERAGE = "/ExponentialMovingAverage"
_SLOT = re.compile(
    r"/((?:Momentum|RMSProp|AdamW?|Adagrad|AdagradDA|Adadelta|Ftrl|LARSOptimizer)(?:_\d+)?|"
    r"ExponentialMovingAverage|biased|local_step)$"
)
_COUNTER = re.compile(
    r"(?:^|/)(global_step|beta[12]_power(?:_\d+)?|mean_rgb|save_counter|_CHECKPOINTABLE_OBJECT_GRAPH)$"
)


# What quantization-aware training keeps of the ranges it saw: floating-point networks do without.
_RANGES = re.compile(r"(?:^|/)(?:\w+_)?quant/(?:.+/)?(?:min|max)$")
# Of a classifier, under the backbone's scope; a segmenter has none of it.
_CLASSIFIER_SCOPES = ("logits", "Logits", "AuxLogits", "Conv_1", "predictions")
_SEGMENTER = "logits/semantic/weights"


@dataclass(frozen=True)
class Entry:
    """What becomes of one variable: its name in the model, its name in the checkpoint, or both where they meet."""

    status: str
    variable: Any = None  # str, or None; so is source
    source: Any = None
    shape: Any = None  # Shape, or None; so is source_shape
    source_shape: Any = None
    why: str = ""

    @property
    def name(self) -> str:
        """The model's name of it, or else the checkpoint's."""
        return self.variable or self.source or ""


def bookkeeping_kind(name: str) -> str | None:
    """What an optimizer or a training loop keeps under `name` ("Momentum", "global_step" …); None for a variable."""
    match = _SLOT.search(name) or _COUNTER.search(name)
    return match.group(1) if match else None


@dataclass(frozen=True)
class Rules:
    """What the user asked for: scopes are whole path segments of the model's names.

    include, exclude: load only these scopes; never these.
    rename: {scope in the checkpoint: scope in the model}, or a callable from name to name.
    ema: take the ExponentialMovingAverage copy of a variable where there is one. Where there is nothing else, they are
        taken anyway.
    translation: what the checkpoint's family asks for, after `rename`.
    extra_channels: of EXTRA_CHANNELS: a kernel over RGB fits one over more channels, and this is what it has of these.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rename: Rename = field(default_factory=dict)
    ema: bool = False
    translation: Translation = field(default_factory=Translation)
    extra_channels: str | None = None

    def targets(self, checkpoint_shapes: Shapes) -> dict[str, str]:
        """{name in the checkpoint: name it would have in the model} for what is no bookkeeping, and of one network."""
        averaged = {name for name in checkpoint_shapes if name.endswith(AVERAGE)}
        if not self.ema and any(bookkeeping_kind(name) is None for name in checkpoint_shapes):
            averaged = set()
        if self.ema and not averaged:
            raise CheckpointError("moving averages were asked for, but the checkpoint holds none (no …" + AVERAGE + ")")
        targets = {}
        for source in checkpoint_shapes:
            variable = source.removesuffix(AVERAGE) if source in averaged else source
            if source not in averaged and (bookkeeping_kind(source) or source + AVERAGE in averaged):
                continue
            name = self.renamed(variable)
            if not self.translation.left_out(name):
                targets[source] = self.translation.rename(name)
        return targets

    def renamed(self, name: str) -> str:
        """A name in the checkpoint as the user has it called, before its family's translation."""
        return self.rename(name) if callable(self.rename) else rename_scope(name, self.rename)

    def check(self, model_shapes: Shapes, checkpoint_shapes: Shapes, targets: Mapping[str, str]) -> None:
        """Raises ScopeError for a scope that matches nothing, CheckpointError where two names become one."""
        known = [*model_shapes, *targets.values()]
        check_scopes(self.include, known, "include scope")
        check_scopes(self.exclude, known, "exclude scope")
        if not callable(self.rename):
            check_scopes(self.rename, checkpoint_shapes, "rename: the checkpoint's scope")
        twice = [name for name, count in Counter(targets.values()).items() if count > 1]
        if twice:
            sources = [source for source, target in targets.items() if target == twice[0]]
            raise CheckpointError(
                f"ambiguous: the checkpoint's {' and '.join(sources)} would both be the model's {twice[0]}"
            )

    def change(self, variable: str, shape: tuple[int, ...], source_shape: tuple[int, ...]) -> tuple[Change | None, str]:
        """→ (what is done to values of `source_shape` for the model's `variable`, or None; its words in a report)."""
        if change := self.translation.changes.get(variable):
            return change, self.translation.words(variable)
        if tuple(shape) == (1, 1, *source_shape):
            return FULLY_CONNECTED, FULLY_CONNECTED.words
        rgb_kernel = variable.endswith("/weights") and len(source_shape) == 4 and source_shape[2] == 3
        if self.extra_channels and rgb_kernel and len(shape) == 4 and shape[2] > 3:
            change = _over_more_channels(shape[2], self.extra_channels)
            return change, change.words
        return None, ""

    def forbids(self, name: str) -> str | None:
        """Why the rules keep the variable `name` from being loaded, or None."""
        if self.include and first_match(name, self.include) is None:
            return "not in include " + ", ".join(self.include)
        scope = first_match(name, self.exclude)
        return None if scope is None else f"exclude {scope}"


def _meet(variable, source, model_shapes, checkpoint_shapes, rules):
    """The entry of a name that both sides have."""
    shape, source_shape = model_shapes[variable], checkpoint_shapes[source]
    why = rules.forbids(variable)
    change, words = rules.change(variable, shape, source_shape)
    fits = shape == (change.shape(source_shape) if change else source_shape)
    status = EXCLUDED if why else LOADED if fits else MISMATCH
    if status == LOADED:
        why = words
    return Entry(status, variable, source, shape, source_shape, why or "")


def _over_more_channels(channels: int, extra: str) -> Change:
    """A kernel over RGB becomes one over more channels: the first three stay, the others are zero or those' mean."""

    def widened(kernel: np.ndarray) -> np.ndarray:
        mean = np.mean(kernel, axis=2, keepdims=True, dtype=np.float64).astype(kernel.dtype)
        others = np.repeat(mean if extra == "mean" else np.zeros_like(mean), channels - 3, axis=2)
        return np.concatenate([kernel, others], axis=2)

    words = f"channels 1 to 3 of {channels}, the rest {'their mean' if extra == 'mean' else 'zero'}"
    return Change(words, widened, lambda shape: (*shape[:2], channels, shape[3]))


def _only_in_model(variable, shape, rules):
    why = rules.forbids(variable)
    return Entry(EXCLUDED if why else MISSING, variable=variable, shape=shape, why=why or "")


def _only_in_checkpoint(source, shape, targets, rules, model_shapes):
    if source in targets:
        why = rules.forbids(targets[source])
        status = EXCLUDED if why else UNUSED
        return Entry(status, source=source, source_shape=shape, why=why or harmless(targets[source], model_shapes))
    kind = bookkeeping_kind(source)
    other = None if kind else rules.translation.left_out(rules.renamed(source))
    if other:
        return Entry(UNUSED, source=source, source_shape=shape, why=f"of another network, {other}")
    return Entry(BOOKKEEPING, source=source, source_shape=shape, why=kind or "raw value, its moving average was taken")


def harmless(name: str, model_shapes: Shapes) -> str:
    """Why a model of {name: shape} does well without the variable `name` of its checkpoint; empty where it may not.

    Known are the ranges of quantization-aware training, and the classifier on a segmenter's backbone.
    """
    if _RANGES.search(name):
        return "range of quantization-aware training"
    root, _, rest = name.partition("/")
    part = first_match(rest, _CLASSIFIER_SCOPES)
    if part is None or _SEGMENTER not in model_shapes:
        return ""
    beside = {other.split("/")[1] for other in model_shapes if other.startswith(f"{root}/")}
    is_classifier = part not in beside and beside & {"block1", "expanded_conv"}
    return "of the classifier, which a segmenter has none of" if is_classifier else ""


def checkpoint_guided_plan(model_shapes: Shapes, checkpoint_shapes: Shapes, rules: Rules) -> tuple[Entry, ...]:
    """Walks the checkpoint's names and looks for each in the model. → tuple of Entry."""
    targets = rules.targets(checkpoint_shapes)
    rules.check(model_shapes, checkpoint_shapes, targets)
    entries, reached = [], set()
    for source, shape in checkpoint_shapes.items():
        variable = targets.get(source)
        if variable in model_shapes:
            reached.add(variable)
            entries.append(_meet(variable, source, model_shapes, checkpoint_shapes, rules))
        else:
            entries.append(_only_in_checkpoint(source, shape, targets, rules, model_shapes))
    entries += [_only_in_model(name, shape, rules) for name, shape in model_shapes.items() if name not in reached]
    return _in_order(_whole_layers(entries))


def model_guided_plan(model_shapes: Shapes, checkpoint_shapes: Shapes, rules: Rules) -> tuple[Entry, ...]:
    """Walks the model's names and looks for each in the checkpoint. → tuple of Entry."""
    targets = rules.targets(checkpoint_shapes)
    rules.check(model_shapes, checkpoint_shapes, targets)
    sources = {variable: source for source, variable in targets.items()}
    entries, used = [], set()
    for variable, shape in model_shapes.items():
        source = sources.get(variable)
        if source is None:
            entries.append(_only_in_model(variable, shape, rules))
        else:
            used.add(source)
            entries.append(_meet(variable, source, model_shapes, checkpoint_shapes, rules))
    entries += [
        _only_in_checkpoint(source, shape, targets, rules, model_shapes)
        for source, shape in checkpoint_shapes.items()
        if source not in used
    ]
    return _in_order(_whole_layers(entries))


def _whole_layers(entries):
    """The entries, where a layer's weights without its biases, or these without those, are a mismatch of both."""
    layers: dict[str, set[str]] = {}
    for entry in entries:
        scope, _, leaf = (entry.variable or "").rpartition("/")
        if leaf in ("weights", "depthwise_weights", "biases"):
            layers.setdefault(scope, set()).add(entry.status)
    half = {scope for scope, statuses in layers.items() if LOADED in statuses and statuses & {MISSING, MISMATCH}}
    return [
        replace(entry, status=MISMATCH, why="")
        if entry.status == LOADED and entry.variable.rpartition("/")[0] in half
        else entry
        for entry in entries
    ]


def _in_order(entries):
    return tuple(sorted(entries, key=lambda e: (CLASSES.index(e.status), natural_order(e.name), e.source or "")))


@dataclass(frozen=True, repr=False)
class Report:
    """What an initialization did, or would do. `print(report)` is for people, `to_json()` for programs.

    head_scopes: scopes of the model that are expected to be new when the task is.
    idle_scopes: scopes of the model that it computes nothing with: it does well without their values.
    """

    entries: tuple[Entry, ...]
    checkpoint: str
    model: str
    backbone_scope: str | None = None
    head_scopes: tuple[str, ...] = ()
    guide: str = field(default="checkpoint", compare=False)
    idle_scopes: tuple[str, ...] = ()

    def of(self, status: str) -> list[Entry]:
        """The entries of one class."""
        return [entry for entry in self.entries if entry.status == status]

    @property
    def counts(self) -> dict[str, int]:
        """{class: number of entries}, all six classes."""
        return {status: len(self.of(status)) for status in CLASSES}

    def is_backbone(self, entry: Entry) -> bool:
        """Whether the entry is a variable of the model outside its head."""
        if entry.variable is None or first_match(entry.variable, self.head_scopes):
            return False
        return self.backbone_scope is None or within(entry.variable, self.backbone_scope)

    @property
    def backbone(self) -> tuple[int, int, int]:
        """(loaded, all, values loaded) over the model's backbone variables."""
        entries = [entry for entry in self.entries if self.is_backbone(entry)]
        loaded = [entry for entry in entries if entry.status == LOADED]
        return len(loaded), len(entries), sum(_size(entry.shape) for entry in loaded)

    def not_loaded_backbone(self, allowed: Iterable[str] = ()) -> list[Entry]:
        """Backbone entries that stay at their initial values outside the `allowed` scopes."""
        allowed = (*allowed, *self.idle_scopes)
        return [
            entry
            for entry in self.entries
            if entry.status != LOADED and self.is_backbone(entry) and not first_match(entry.name, allowed)
        ]

    def absent(self) -> list[Entry]:
        """Variables that the model computes with and that the checkpoint did not give, but for what rules excluded."""
        return [
            entry for entry in self.of(MISSING) + self.of(MISMATCH) if not first_match(entry.name, self.idle_scopes)
        ]

    def reason(self, entry: Entry) -> str:
        """Why an entry is in its class, in words; empty where the class says it all."""
        parts = [entry.why] if entry.why else []
        if entry.status == MISMATCH and entry.source_shape == entry.shape:
            parts.append("the layer's other half does not fit or is missing")
        elif entry.status == MISMATCH:
            parts.append(f"checkpoint {entry.source_shape}, model {entry.shape}")
        if entry.variable and entry.status == MISSING and first_match(entry.variable, self.idle_scopes):
            parts.append("nothing is computed with it")
        if entry.variable and entry.status in (MISSING, MISMATCH) and first_match(entry.variable, self.head_scopes):
            parts.append("new head")
        return "; ".join(parts)

    def to_json(self) -> str:
        """The whole report as a JSON text."""
        return json.dumps(self.document(), indent=1)

    def document(self) -> dict[str, Any]:
        """The whole report as what JSON can hold."""
        loaded, total, values = self.backbone
        return {
            "checkpoint": self.checkpoint,
            "model": self.model,
            "guide": self.guide,
            "counts": self.counts,
            "backbone": {"loaded": loaded, "variables": total, "values": values},
            "entries": [{**asdict(entry), "reason": self.reason(entry)} for entry in self.entries],
        }

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        """A summary of some lines, for who looks at it in a notebook; `print` shows all."""
        head, *_, last = self.text().splitlines()
        counts = ", ".join(f"{status}: {count}" for status, count in self.counts.items() if count)
        return f"{head}\n{counts}\n{last}"

    def text(self, verbose: bool = False, most: int | None = None) -> str:
        """Grouped text; `verbose` lists the loaded variables and the bookkeeping one by one too.

        Args:
            most: layers of a class that are listed, for an error's text; None: all.
        """
        sides: Counter[str] = Counter()
        for entry in self.entries:
            sides["model"] += entry.variable is not None
            sides["checkpoint"] += entry.source is not None
        lines = [
            f"{self.checkpoint} ({sides['checkpoint']} variables) → {self.model} ({sides['model']} variables), "
            f"{self.guide}-guided"
        ]
        for status in CLASSES:
            entries = self.of(status)
            if not entries:
                continue
            values = sum(_size(entry.source_shape if entry.shape is None else entry.shape) for entry in entries)
            lines.append(f"{status}: {len(entries)} variables, {values:,} values")
            if status == LOADED and not verbose:
                lines += self._summary(entries)
            elif status == BOOKKEEPING and not verbose:
                kinds = Counter(entry.why for entry in entries)
                lines += [f"  {kind}: {count}" for kind, count in sorted(kinds.items())]
            else:
                layers = self._grouped(entries)
                lines += layers[:most]
                if most and len(layers) > most:
                    lines.append(f"  and {len(layers) - most:,} more layers")
        loaded, total, values = self.backbone
        lines.append(f"{loaded}/{total} backbone variables, {values:,} values")
        return "\n".join(lines)

    def _summary(self, entries):
        """One line for each block of the backbone and each scope of the head, with numbers of variables and values."""
        groups: dict[str, list[Entry]] = {}
        for entry in entries:
            parts = entry.variable.split("/")
            depth = 2 if self.is_backbone(entry) else 1
            scope = "/".join(parts[: min(depth, len(parts) - 1)]) or entry.variable
            groups.setdefault(scope, []).append(entry)
        width = max(map(len, groups))
        return [
            f"  {scope:<{width}}  {len(found):>4} variables  {sum(_size(entry.shape) for entry in found):>12,} values"
            + _moved(scope, found)
            for scope, found in groups.items()
        ]

    def _grouped(self, entries):
        """One line a layer: `conv1/BatchNorm/{beta, gamma, moving_mean, moving_variance}`."""
        groups: dict[tuple, list] = {}
        for entry in entries:
            scope, _, leaf = entry.name.rpartition("/")
            parent, _, last = scope.rpartition("/")
            if entry.status == BOOKKEEPING:
                scope, leaf = parent, f"{last}/{leaf}"
            moved = f"  from {entry.source}" if entry.variable and entry.source not in (None, entry.variable) else ""
            groups.setdefault((scope, self.reason(entry), moved), []).append(leaf)
        lines = []
        for (scope, reason, moved), leaves in groups.items():
            names = leaves[0] if len(leaves) == 1 else "{" + ", ".join(leaves) + "}"
            path = f"{scope}/{names}" if scope else names
            lines.append(f"  {path}{moved}" + (f"  ({reason})" if reason else ""))
        return lines


def _moved(scope, entries):
    """What `scope` is called in the checkpoint, where that is another, and what was done to the values in it."""
    first = entries[0]
    leaf = first.variable.removeprefix(scope)
    there = first.source.removesuffix(AVERAGE).removesuffix(leaf)
    moved = "" if there == scope or first.source == first.variable else f"  from {there}"
    changed = sorted({entry.why for entry in entries if entry.why})
    return moved + (f"  ({', '.join(changed)})" if changed else "")


def _size(shape):
    return int(np.prod(shape, dtype=np.int64))


def natural_order(text: str) -> list:
    """A sorting key by which unit_2 stands before unit_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def named_variables(model: Any) -> dict[str, Any]:
    """{name in a checkpoint: variable} of a Keras model: the path is the name, less the model's own prefix.

    Raises CheckpointError when two variables have one path (two sibling layers of one name).
    """
    prefix = getattr(model, "variable_prefix", f"{model.name}/")
    named = {}
    for variable in model.weights:
        name = variable.path.removeprefix(prefix)
        if name in named:
            raise CheckpointError(f"ambiguous: two variables of the model {model.name} are named {name!r}")
        named[name] = variable
    return named


def checkpoint_guided_init(
    model: Any,
    checkpoint: Any,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    rename: Rename | None = None,
    strict: bool = False,
    ema: bool = False,
    apply: bool = True,
    translation: Translation | None = None,
    extra_channels: str | None = None,
) -> Report:
    """Loads `checkpoint` into `model`, walking the checkpoint's names, and returns the Report.

    Args:
        model: a built Keras model; its names are those of `named_variables`.
        checkpoint: a path, as `models.checkpoint.open_checkpoint` reads it.
        include, exclude: scopes of the model to load exclusively, or never. A scope that matches nothing is an error.
        rename: {scope in the checkpoint: scope in the model}, or a function from the one name to the other.
        strict: raise CheckpointError with the report when anything is missing, unused or of another shape.
        ema: take the `ExponentialMovingAverage` copies where there are any, instead of the raw values.
        apply: False only plans and reports.
        translation: what the checkpoint's family asks for (`models.identify.identify(…).translation`): other names,
            and values that are changed after they were read.
        extra_channels: "zero" or "mean": where the model's images have more channels than the checkpoint's RGB, the
            root kernel's first three are restored and the rest are zero, or the mean of the three.

    A fully connected layer's weights (in, out) are restored as a 1x1 convolution's of that name.

    Nothing is assigned before every tensor that is needed, and no other, has been read.
    """
    return _init(
        "checkpoint", model, checkpoint, include, exclude, rename, strict, ema, apply, translation, extra_channels
    )


def model_guided_init(
    model: Any,
    checkpoint: Any,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    rename: Rename | None = None,
    strict: bool = False,
    ema: bool = False,
    apply: bool = True,
    translation: Translation | None = None,
    extra_channels: str | None = None,
) -> Report:
    """As `checkpoint_guided_init`, walking the model's names; the report is the same."""
    return _init("model", model, checkpoint, include, exclude, rename, strict, ema, apply, translation, extra_channels)


def _init(guide, model, path, include, exclude, rename, strict, ema, apply, translation, extra_channels):
    if extra_channels not in (None, *EXTRA_CHANNELS):
        raise ValueError(f"extra_channels is one of {', '.join(EXTRA_CHANNELS)}. Received: {extra_channels!r}")
    variables = named_variables(model)
    if not callable(rename):
        rename = {old.strip("/"): new.strip("/") for old, new in (rename or {}).items()}
    translation = translation or Translation()
    rules = Rules(clean_scopes(include), clean_scopes(exclude), rename, ema, translation, extra_channels)
    plan = {"checkpoint": checkpoint_guided_plan, "model": model_guided_plan}[guide]
    with open_checkpoint(path) as checkpoint:
        entries = plan({name: tuple(v.shape) for name, v in variables.items()}, checkpoint.shapes, rules)
        backbone_scope, head_scopes = getattr(model, "backbone_scope", None), getattr(model, "head_scopes", ())
        idle_scopes = getattr(model, "idle_scopes", ())
        report = Report(entries, checkpoint.path, model.name, backbone_scope, tuple(head_scopes), guide, idle_scopes)
        if is_object_based(checkpoint.shapes) and not report.of(LOADED):
            raise CheckpointError(f"{checkpoint.path}: {OBJECT_BASED}")
        if strict and any(report.counts[status] for status in (MISSING, UNUSED, MISMATCH)):
            raise CheckpointError(f"strict: the checkpoint and the model do not match\n{report.text(most=10)}")
        if apply:
            values = [(entry, checkpoint.read(entry.source)) for entry in report.of(LOADED)]
            for entry, value in values:
                change, _ = rules.change(entry.variable, entry.shape, entry.source_shape)
                changed = change.values(value) if change else value
                variables[entry.variable].assign(changed.astype(variables[entry.variable].dtype, copy=False))
    return report


def save_checkpoint(
    model: Any,
    prefix: str | os.PathLike,
    slots: Mapping[str, Mapping[str, Any]] | None = None,
    global_step: int | None = None,
    rename: Mapping[str, str] | None = None,
    fully_connected: Iterable[str] = (),
) -> None:
    """Writes the model under slim's names; slim's own Saver restores the file bit for bit.

    Args:
        slots: {slot name: {variable name: array}}, such as {"Momentum": {…}}, saved as `<variable>/Momentum`.
        global_step: int, saved as the int64 scalar `global_step`.
        rename: {scope of the model: scope in the checkpoint}.
        fully_connected: scopes of the model whose 1x1 kernels (1, 1, in, out) are written as matrices (in, out).

    Raises ScopeError for a scope that matches nothing, CheckpointError where two names become one.
    """
    rename = {old.strip("/"): new.strip("/") for old, new in (rename or {}).items()}
    fully_connected = clean_scopes(fully_connected)
    tensors = {name: np.asarray(variable) for name, variable in named_variables(model).items()}
    for slot, values in (slots or {}).items():
        tensors |= {f"{name}/{slot}": np.asarray(value) for name, value in values.items()}
    check_scopes(rename, tensors, "rename: the model's scope")
    check_scopes(fully_connected, tensors, "fully connected scope")
    for name, tensor in tensors.items():
        if first_match(name, fully_connected) and tensor.shape[:2] == (1, 1):
            tensors[name] = tensor.reshape(tensor.shape[2:])
    count = len(tensors)
    tensors = {rename_scope(name, rename): tensor for name, tensor in tensors.items()}
    if len(tensors) != count:
        raise CheckpointError(f"ambiguous: rename {dict(rename)} makes two variables of one name")
    if global_step is not None:
        tensors["global_step"] = np.asarray(global_step, np.int64)
    write_checkpoint(prefix, tensors)
