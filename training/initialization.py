"""The start of a training script: the checkpoint goes in, the proof comes out, and nothing is missed in silence."""

import math

import keras

from engine.options import Learning, Restore
from errors import UserError
from models.checkpoint import CheckpointError
from models.families.family import Translation
from models.freezing import freeze, freeze_batch_norm, freeze_variables, learning_names, train_only
from models.scopes import check_scopes
from models.weight_init import LOADED, Report, checkpoint_guided_init, named_variables


def initialize(model: keras.Model, checkpoint: str, restore: Restore, translation: Translation) -> Report:
    """Loads `checkpoint`, its names and values translated, prints the report, and returns it.

    Raises CheckpointError when a backbone variable stays at its initial value though neither its scope is in
    `allow_missing` nor a rule of the user's left it out.
    """
    report = checkpoint_guided_init(
        model,
        checkpoint,
        include=restore.include,
        exclude=restore.exclude,
        rename=restore.rename,
        ema=restore.ema,
        translation=translation,
    )
    print(report, flush=True)
    check_scopes(restore.allow_missing, list(named_variables(model)), "allow-missing scope")
    absent = [entry for entry in report.not_loaded_backbone(restore.allow_missing) if not entry.why]
    if absent:
        blocks = sorted({"/".join(entry.variable.split("/")[:2]) for entry in absent})
        raise CheckpointError(
            f"{checkpoint}: {len(absent)} backbone variables did not arrive ({absent[0].variable}: {absent[0].status}"
            f"{', …' if absent[1:] else ''}). If they are to start anew, say so: --allow-missing {','.join(blocks)}"
        )
    return report


def choose_what_learns(model: keras.Model, learning: Learning, restored: set[str]) -> None:
    """Freezes what is not to learn; `restored` are the variables that `train="new"` leaves as they are.

    Raises UserError when nothing is left to learn.
    """
    if learning.train == "new":
        freeze_variables(model, restored)
    if learning.freeze:
        freeze(model, learning.freeze)
    if learning.train_only:
        train_only(model, learning.train_only)
    if learning.freeze_bn:
        freeze_batch_norm(model, statistics_only=learning.freeze_bn == "statistics")
    if not model.trainable_variables:
        raise UserError("nothing is left to learn: what was asked for freezes every trainable variable")


def restored_names(report: Report | None) -> set[str]:
    """Names of the model's variables that a checkpoint gave, by the Report; none without one."""
    return set() if report is None else {entry.variable for entry in report.of(LOADED)}


def scope_of(name: str, backbone_scope: str | None) -> str:
    """The scope a variable is counted under: a block of the backbone, a layer of the head."""
    parts = name.split("/")
    return "/".join(parts[: min(2 if parts[0] == backbone_scope else 1, len(parts) - 1)])


def scope_table(model: keras.Model, restored: set[str]) -> str:
    """Says for each scope of the model: restored or new, learns or frozen, how many variables and values."""
    learning = learning_names(model)
    rows: dict[str, dict[str, int]] = {}
    for name, variable in named_variables(model).items():
        row = rows.setdefault(
            scope_of(name, model.backbone_scope), {"restored": 0, "learning": 0, "variables": 0, "values": 0}
        )
        row["restored"] += name in restored
        row["learning"] += name in learning
        row["variables"] += 1
        row["values"] += math.prod(variable.shape)

    def share(count, total, all_of, none_of):
        return all_of if count == total else none_of if not count else f"{all_of} {count}/{total}"

    width = max(len(scope) for scope in rows)
    lines = [f"{'scope':<{width}}  {'origin':<16} {'training':<16} variables       values"]
    for scope, row in rows.items():
        origin = share(row["restored"], row["variables"], "restored", "new")
        training = share(row["learning"], row["variables"], "learns", "frozen")
        lines.append(f"{scope:<{width}}  {origin:<16} {training:<16} {row['variables']:>9} {row['values']:>12,}")
    return "\n".join(lines)
