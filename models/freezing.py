"""What learns and what stays: scopes of variables, and batch norm with its moving statistics."""

from collections.abc import Collection, Iterable

import keras

from models.layers import BatchNorm
from models.scopes import check_scopes, clean_scopes, first_match
from models.weight_init import named_variables


def freeze(model: keras.Model, scopes: str | Iterable[str]) -> None:
    """Variables in `scopes` (whole path segments) stay as they are, moving statistics included.

    Raises ScopeError for a scope that holds none of the model's variables.
    """
    names = list(named_variables(model))
    scopes = clean_scopes(scopes)
    check_scopes(scopes, names, "freeze scope")
    freeze_variables(model, {name for name in names if first_match(name, scopes)})


def train_only(model: keras.Model, scopes: str | Iterable[str]) -> None:
    """Everything outside `scopes` stays as it is, moving statistics included.

    Raises ScopeError for a scope that holds none of the model's variables.
    """
    names = list(named_variables(model))
    scopes = clean_scopes(scopes)
    check_scopes(scopes, names, "train-only scope")
    freeze_variables(model, {name for name in names if not first_match(name, scopes)})


def freeze_batch_norm(model: keras.Model, statistics_only: bool = False) -> None:
    """Every batch norm keeps its moving statistics and uses them in training; gamma and beta stay too, or learn on."""
    for norm in batch_norms(model):
        norm.statistics_frozen = True
        if not statistics_only:
            norm.gamma.trainable = norm.beta.trainable = False


def batch_norms(model: keras.Model) -> list[BatchNorm]:
    """All BatchNorm layers of a model."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, BatchNorm)]


def learning_names(model: keras.Model) -> set[str]:
    """Names of the variables that training may change: trainable ones, and moving statistics that are live."""
    names = {id(variable): name for name, variable in named_variables(model).items()}
    learning = {names[id(variable)] for variable in model.trainable_variables}
    for norm in batch_norms(model):
        if norm.trainable and not norm.statistics_frozen:
            learning |= {names[id(norm.moving_mean)], names[id(norm.moving_variance)]}
    return learning


def freeze_variables(model: keras.Model, frozen: Collection[str]) -> None:
    """The variables of these names stay as they are; a batch norm whose moving statistics are among them is frozen."""
    variables = named_variables(model)
    for name in frozen:
        variables[name].trainable = False
    stopped = {id(variables[name]) for name in frozen}
    for norm in batch_norms(model):
        if id(norm.moving_mean) in stopped or id(norm.moving_variance) in stopped:
            norm.statistics_frozen = True
