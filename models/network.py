"""What a network is made of and what it is: modules nested as slim's scopes, and a Keras model made of them.

A module is built by its parent, inside the parent's name scope, so that `variable.path` is the name the variable has
in a slim checkpoint.
"""

import inspect
import numbers
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from typing import Any, Self, TypeVar

import keras
from keras import ops

from models.backend import ON_TENSORFLOW, Tensor
from models.preprocessing import Preprocessing

# A class under this decorator is found again by `keras.models.load_model` once its module has been imported.
serializable = keras.saving.register_keras_serializable(package="slim_deeplab")

Built = TypeVar("Built")

_recorders: ContextVar[tuple] = ContextVar("recorders", default=())
_built_on_call: ContextVar[bool] = ContextVar("built_on_call", default=False)
_constants: ContextVar[list | None] = ContextVar("constants", default=None)


@contextmanager
def setting(variable: ContextVar, value: Any) -> Iterator[Any]:
    """Within it, the context variable has the value."""
    token = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(token)


@contextmanager
def recording(end_points: dict, only: "Module | None" = None) -> Iterator[dict]:
    """Within it, every module that is one of slim's end points writes its output to the dict under its path.

    only: the one module to do so, while a recording around it goes on.
    """
    around = () if only is None else _recorders.get()
    with setting(_recorders, (*around, (end_points, only))):
        yield end_points


def record(key: str, output: Tensor, function: Callable[[Tensor], Tensor] | None = None) -> None:
    """Writes what is no module's output under the key, where all end points are recorded.

    function: what is written is what it makes of the output; not called where nothing is recorded.
    """
    for end_points, only in _recorders.get():
        if only is None:
            end_points[key] = function(output) if function else output


def built_on_call() -> AbstractContextManager:
    """Within it, building a module leaves its children to their first call: what is not called has no variables."""
    return setting(_built_on_call, True)


def with_options_of(template: Callable[..., Built]) -> Callable[[Callable[..., Built]], Callable[..., Built]]:
    """Gives a builder the keyword arguments of `template`, for a reader, an editor and `inspect.signature`."""
    signature = inspect.signature(template)
    keywords = [p for p in signature.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]

    def decorate(builder: Callable[..., Built]) -> Callable[..., Built]:
        builder.__signature__ = signature.replace(parameters=keywords)  # type: ignore[attr-defined]
        builder.__doc__ = f"{builder.__doc__}\n\n{inspect.getdoc(template)}"
        return builder

    return decorate


COUNTS = ("num_classes", "in_channels", "width", "head_channels", "divisible_by")
COUNT_LISTS = ("units", "root", "multi_grid", "atrous_rates", "image_pooling_crop_size", "image_pooling_stride")


def checked(arguments: dict[str, Any]) -> dict[str, Any]:
    """A network's arguments, as they are.

    Raises ValueError for a count that is no whole number of 1 or more, a multiplier not over 0, a decay outside [0, 1).
    """
    for name, value in arguments.items():
        if value is None:
            continue
        if name in COUNTS and not _is_count(value):
            raise ValueError(f"{name} must be a whole number, 1 or more. Received: {value!r}")
        if name in COUNT_LISTS and not all(map(_is_count, value)):
            raise ValueError(f"{name} must be whole numbers, 1 or more. Received: {value!r}")
        if name == "depth_multiplier" and not 0 < value < float("inf"):
            raise ValueError(f"{name} must be over 0, and finite. Received: {value!r}")
        if name == "batch_norm_decay" and not 0 <= value < 1:
            raise ValueError(f"{name} must be 0 or more, and under 1. Received: {value!r}")
    return arguments


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


class _Constant:
    """The value of a weight that is no variable: Keras asks for it as for the first value of one."""

    value: Tensor | None = None

    def __call__(self, shape: Any, dtype: Any = None) -> Tensor:
        # Of a network that was given up Keras makes variables nevertheless, some day.
        return ops.zeros(shape, dtype) if self.value is None else self.value


@contextmanager
def without_variables() -> Iterator[None]:
    """Within it networks are built and restored whose weights are constants from its end on, until Keras makes
    variables of them, as it does before it traces a graph. Raises RuntimeError at its end where one was not restored.

    A variable of a new shape takes TensorFlow nearly a millisecond, all those of MobileNet v2 as long as two pictures.
    On other backends they are variables all the same.
    """
    if not ON_TENSORFLOW:
        yield
        return
    with setting(_constants, []) as constants, keras.StatelessScope(initialize_variables=False) as restored:
        yield
        for weight, constant in constants:
            constant.value = restored.get_current_value(weight)
            if constant.value is None:
                raise RuntimeError(f"{weight.path} was not restored, and is no variable")


class Module(keras.layers.Layer):
    """A layer whose children are known before its input is: building it builds them, nested by name."""

    end_point: str | None = None  # the key its output is recorded under, relative to its own path ("" is the path)

    def build(self, input_shape: Any = None) -> None:
        """Gives the module and its children their variables; no shape is needed."""
        for child in self._layers:
            if not child.built and not _built_on_call.get():
                child.build()
        self.built = True

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' own, but for `without_variables`."""
        if (constants := _constants.get()) is None:
            return super().add_weight(*args, **kwargs)
        kwargs["initializer"] = constant = _Constant()
        weight = super().add_weight(*args, **kwargs)
        constants.append((weight, constant))
        return weight

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `call` gives, recorded where that is asked for."""
        outputs = super().__call__(*args, **kwargs)
        recorders = _recorders.get()
        if recorders and self.end_point is not None:
            path = posixpath.normpath(posixpath.join(self.path, self.end_point))
            for end_points, only in recorders:
                if only is None or only is self:
                    end_points[path] = outputs
        return outputs


class Scope(Module):
    """Children called one after the other, named as a slim variable scope: `block1`, `unit_1`."""

    def __init__(self, name: str, layers: Sequence[Module], end_point: str | None = None):
        super().__init__(name=name)
        self.layers = layers
        self.end_point = end_point

    def call(self, x: Tensor) -> Tensor:
        """What the first child takes → what the last one gives."""
        for layer in self.layers:
            x = layer(x)
        return x


class Unscoped(Module):
    """A module whose children are named as if they were its parent's own: it adds nothing to a variable's name."""

    @contextmanager
    def _open_name_scope(self) -> Iterator[None]:
        yield


class Network(Module, keras.Model):
    """A whole model: what it was built with, which of its variables are backbone and which head, and how it is fed.

    `variable_prefix` is what its variables' paths have before the checkpoint's name: nothing for a backbone, whose
    own name is slim's scope. `options` are the arguments, besides the name, that JSON can hold.

    A network is an ordinary Keras model: `save("net.keras")`, `keras.models.load_model` and `clone_model` give one
    with the same variable names, preprocessing, precision and frozen parts, by itself and as a layer of another model.
    Before `load_model`, its module (`models.deeplab_v3` for all but taps) must have been imported. One that this
    project's recipe has compiled is loaded with `compile=False`: what goes on from there is the run's checkpoint.
    """

    variable_prefix: str = ""
    backbone_scope: str | None = None
    head_scopes: tuple[str, ...] = ()
    in_channels: int = 3
    preprocessing: Preprocessing = None  # type: ignore[assignment]  # every network says its own
    options: Mapping[str, Any] = {}
    # The 1x1 convolution without activation that a head's features come from, and those, 1x1 too, that alone take them.
    linear_features: tuple[Any, Sequence[Any]] | None = None

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        """What `call` gives of images (N, H, W, `in_channels`); ValueError where they are something else."""
        _check_images(images, self.preprocessing, self.in_channels)
        return super().__call__(images, *args, **kwargs)

    def stateless_call(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """As Keras has it, with `training` known to all layers within."""
        # Keras goes to `call` here, past `__call__` and the context by which the layers within learn of `training`.
        self._get_call_context().set_value("training", training)
        try:
            return super().stateless_call(*args, training=training, **kwargs)
        finally:
            self._maybe_reset_call_context()

    def end_points(self, images: Any) -> dict[str, Any]:
        """{slim's key: activation (N, h, w, C)} of one pass in inference mode over images (N, H, W, 3).

        A classifier's scores and predictions are (N, num_classes).

        Of a `keras.Input` they are symbolic: outputs that a functional model can be made of.
        """
        if isinstance(images, keras.KerasTensor):
            _check_images(images, self.preprocessing, self.in_channels)
            return EndPoints(self)(images)
        return self._end_points(images)

    def _end_points(self, images: Tensor) -> dict[str, Tensor]:
        with recording({}) as found:
            self(images, training=False)
        return {path.removeprefix(self.variable_prefix): output for path, output in found.items()}

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same network of: the arguments, the preprocessing, what is frozen."""
        preprocessing = None if self.preprocessing is None else asdict(self.preprocessing)
        return super().get_config() | {"preprocessing": preprocessing, "frozen": self._frozen()} | dict(self.options)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """The network that `get_config` told of, with new initial values; its variables exist at once."""
        options = dict(config)
        dtype, trainable, preprocessing, frozen = (
            options.pop(key) for key in ("dtype", "trainable", "preprocessing", "frozen")
        )
        with _dtype_policy(keras.dtype_policies.deserialize(dtype)):
            net = cls._from_options(options)
            net.build()
        if preprocessing is not None:
            net.preprocessing = Preprocessing(**preprocessing | {"mean": tuple(preprocessing["mean"])})
        net._freeze(trainable, **frozen)
        return net

    @classmethod
    def _from_options(cls, options: dict[str, Any]) -> Self:
        """The network of its name, its `options` and what else its own `get_config` adds."""
        return cls(**options)

    def _name_within(self, path: str) -> str:
        return path.removeprefix(self.variable_prefix)

    def _built_modules(self) -> list[Any]:
        return [module for module in self._flatten_layers(include_self=False) if module.built]

    def _frozen(self) -> dict[str, list[str]]:
        """Names of what does not learn: of modules, variables, and batch norms whose statistics stay."""
        modules = self._built_modules()
        frozen = {
            "modules": [module for module in modules if not module.trainable],
            "variables": [v for module in modules for v in module._trainable_variables if not v.trainable],
            "statistics": [module for module in modules if getattr(module, "statistics_frozen", False)],
        }
        return {kind: [self._name_within(one.path) for one in found] for kind, found in frozen.items()}

    def _freeze(self, trainable: bool, modules: list[str], variables: list[str], statistics: list[str]) -> None:
        """Brings back what `trainable` and `_frozen` were; setting a module sets all within, so parents come first."""
        if self._trainable != trainable:
            self.trainable = trainable
        names, still, unmoved = set(modules), set(variables), set(statistics)
        inner = [(module, self._name_within(module.path)) for module in self._built_modules()]
        for module, name in inner:
            if module.trainable != (name not in names):
                module.trainable = name not in names
        for module, name in inner:
            for variable in module._trainable_variables:
                variable.trainable = self._name_within(variable.path) not in still
            if hasattr(module, "statistics_frozen"):
                module.statistics_frozen = name in unmoved


@serializable
class EndPoints(keras.layers.Layer):
    """`Network.end_points` as a layer of a functional model: images (N, H, W, 3) → {slim's key: activation}."""

    def __init__(self, net: Network, name: str | None = None):
        super().__init__(name=name, dtype=net.dtype_policy)
        self.net = net

    def build(self, input_shape: Any = None) -> None:
        """Builds the network, where that has not been done."""
        if not self.net.built:
            self.net.build()
        self.built = True

    def call(self, images: Tensor) -> dict[str, Tensor]:
        """Images (N, H, W, 3) → {slim's key: activation (N, h, w, C)}, in inference mode."""
        return self.net._end_points(images)

    def get_config(self) -> dict[str, Any]:
        """The name and the network's config."""
        return {"name": self.name, "net": keras.saving.serialize_keras_object(self.net)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The layer that `get_config` told of."""
        return cls(keras.saving.deserialize_keras_object(config["net"]), config["name"])


@contextmanager
def _dtype_policy(policy: Any) -> Iterator[None]:
    """Within it, layers are made with the policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _check_images(images: Any, preprocessing: Preprocessing | None, channels: int) -> None:
    """Raises ValueError, with what is wrong, unless images are float (N, H, W, channels), as shape and type tell.

    A network without preprocessing takes anything.
    """
    if preprocessing is None:
        return
    dtype = getattr(images, "dtype", None)
    kind = type(images).__name__ if dtype is None else getattr(dtype, "name", str(dtype)).removeprefix("torch.")
    shape = getattr(images, "shape", None)
    if shape is None or getattr(shape, "rank", 0) is None:
        return  # nested lists, or a graph's tensor of unknown rank: for Keras to say
    shape = tuple(shape)
    if "float" not in kind:
        wrong = "these are no floats: preprocess them first, model.preprocessing(pixels)"
    elif len(shape) == 3:
        wrong = "the batch axis is missing: images[None]"
    elif len(shape) != 4:
        wrong = f"these have {len(shape)} axes, not 4"
    elif shape[3] in (channels, None):
        return
    elif shape[1] == channels:
        wrong = "the channels are to be the last axis"
    else:
        wrong = f"these have {shape[3]} channels, not {channels}{' (RGB)' if channels == 3 else ''}"
    raise ValueError(
        f"images must be float (N, H, W, {channels}), preprocessed as {preprocessing.name}; {wrong}. "
        f"Received: {kind} {shape}"
    )
