"""The recipe: loss, momentum SGD, the poly schedule, coupled L2 and batch norm's decay, compiled into a model."""

from collections.abc import Mapping, Sequence

import keras

from data.voc import IGNORE_LABEL
from engine.device import use_xla
from engine.options import Recipe
from models.freezing import batch_norms
from models.regularization import add_weight_decay
from models.weight_init import named_variables
from training.accumulation import accumulate
from training.initialization import scope_of
from training.losses import CrossEntropy
from training.optimizer import Momentum, Poly

# The paper's 0.9997 is right for its 30,000 steps; a short run's statistics would never arrive.
PAPER_DECAY, PAPER_STEPS = 0.9997, 30_000
# Fewer images than this give batch norm statistics that harm more than they help. Several devices share theirs.
ENOUGH_FOR_BATCH_NORM = 12


def segmentation_loss(class_weights: Sequence[float] | None = None, hard_fraction: float = 1.0) -> CrossEntropy:
    """Mean cross entropy over the pixels not labelled 255, from float32 logits; see CrossEntropy."""
    return CrossEntropy(class_weights, hard_fraction, ignore_label=IGNORE_LABEL)


def classification_loss() -> CrossEntropy:
    """Mean cross entropy over the images, from float32 logits."""
    return CrossEntropy()


def batch_norm_decay(steps: int) -> float:
    """The decay of moving statistics that forgets as much over `steps` updates as the paper's over its 30,000."""
    return min(PAPER_DECAY, max(0.9, 1 - (1 - PAPER_DECAY) * PAPER_STEPS / steps))


def small_batch_advice(model: keras.Model, images: int) -> str | None:
    """What to say of batch norm that learns its statistics from `images` images at once; None where that is well."""
    live = sum(norm.trainable and not norm.statistics_frozen for norm in batch_norms(model))
    if images >= ENOUGH_FOR_BATCH_NORM or not live:
        return None
    return (
        f"warning: {live} batch norms take their statistics from {images} images at a time; under "
        f"{ENOUGH_FOR_BATCH_NORM} they are too noisy to train well with. Freeze them (--freeze-bn, or "
        "--freeze-bn statistics), or make the parts larger (--batch-size, --accumulate, --crop-size, --precision)."
    )


def compile_model(
    model: keras.Model,
    recipe: Recipe,
    loss: CrossEntropy,
    metrics: Sequence = (),
    *,
    multiplied: Mapping[str, float] | None = None,
    gradient_norms: bool = False,
) -> None:
    """Compiles with momentum SGD, the poly schedule and coupled L2.

    Args:
        multiplied: {variable's name: factor on its learning rate}, 1 where not named.
        gradient_norms: whether the optimizer keeps the norm of each scope's gradients.
    """
    add_weight_decay(model, recipe.weight_decay)
    variables = named_variables(model)
    multipliers = {variables[name].path: factor for name, factor in (multiplied or {}).items() if factor != 1}
    schedule = Poly(recipe.learning_rate, recipe.steps, recipe.power, recipe.warmup_steps)
    names = {variable.path: name for name, variable in variables.items()}
    optimizer = Momentum(
        schedule,
        momentum=recipe.momentum,
        global_clipnorm=recipe.clip_norm,
        multipliers=multipliers,
        scope_of=(lambda path: scope_of(names[path], model.backbone_scope)) if gradient_norms else None,
    )
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, loss, metrics=list(metrics), jit_compile=use_xla())
    if recipe.accumulate > 1:
        accumulate(model, recipe.accumulate, loss.label_weights)
