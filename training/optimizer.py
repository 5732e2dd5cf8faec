"""Momentum SGD and the poly schedule as slim and the paper have them."""

import keras
from keras import ops

from models.layers import ON_TENSORFLOW, sum_over_replicas
from models.regularization import add_weight_decay

__all__ = ["Momentum", "Poly", "add_weight_decay"]


class Momentum(keras.optimizers.SGD):
    """accumulator ← momentum · accumulator + gradient; variable ← variable − learning rate · accumulator.

    That is TensorFlow 1's and PyTorch's momentum. Keras' own folds the learning rate into the accumulator, which is
    not what a checkpoint's `<variable>/Momentum` holds, and differs as soon as the learning rate changes.

    Args:
        multipliers: {variable path: factor on its learning rate}, 1 where not named.
        scope_of: a function from variable path to scope; given, the norm of the last step's gradients in each scope is
            kept for `gradient_norms`.
    """

    def __init__(self, learning_rate, momentum=0.9, multipliers=None, scope_of=None, **kwargs):
        super().__init__(learning_rate, momentum=momentum, **kwargs)
        self.multipliers = dict(multipliers or {})
        self.scope_of = scope_of

    def build(self, variables):
        super().build(variables)
        self._scopes = {}
        if self.scope_of:
            for index, variable in enumerate(variables):
                self._scopes.setdefault(self.scope_of(variable.path), []).append(index)
            self._norms = self.add_variable(
                (len(self._scopes),), name="gradient_norms", aggregation="only_first_replica"
            )

    def apply(self, grads, trainable_variables=None):
        grads = sum_over_replicas(list(grads))  # Keras would do it after clipping, which is to see the whole batch's
        if self._scopes:
            squares = [ops.sum(ops.square(ops.cast(gradient, "float32"))) for gradient in grads]
            norms = [ops.sqrt(sum(squares[index] for index in indices)) for indices in self._scopes.values()]
            self._norms.assign(ops.stack(norms))
        return super().apply(grads, trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars

    def gradient_norms(self):
        """{scope: Euclidean norm of the last step's gradients in it}."""
        return dict(zip(self._scopes, map(float, self._norms.numpy()), strict=True)) if self._scopes else {}

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        accumulator = self.momentums[index]
        factor = self.multipliers.get(self._trainable_variables[index].path, 1.0)
        rate = ops.cast(learning_rate, accumulator.dtype) * factor
        gradient = ops.cast(gradient, accumulator.dtype)
        if ON_TENSORFLOW:
            import tensorflow as tf

            # One pass over memory instead of four; the same arithmetic. Keras hands over the bare tf.Variable.
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle,
                accum=accumulator.value.handle,
                lr=rate,
                grad=gradient,
                momentum=ops.cast(self.momentum, accumulator.dtype),
            )
            return
        accumulated = accumulator * self.momentum + gradient
        self.assign(accumulator, accumulated)
        self.assign_sub(variable, rate * accumulated)

    def slots(self, names):
        """{variable name: accumulator}; `names` is {variable path: variable name}."""
        return {
            names[variable.path]: accumulator
            for variable, accumulator in zip(self._trainable_variables, self.momentums, strict=True)
        }


class Poly(keras.optimizers.schedules.PolynomialDecay):
    """base · (1 − step / steps) ^ power, the paper's schedule; the first `warmup_steps` rise to it in a line.

    Steps count from 0: with a warm-up the first is made with 1 / `warmup_steps` of the schedule's rate.
    """

    def __init__(self, base, steps, power=0.9, warmup_steps=0):
        super().__init__(base, steps, end_learning_rate=0.0, power=power)
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        rate = super().__call__(step)
        if not self.warmup_steps:
            return rate
        return rate * ops.minimum((ops.cast(step, rate.dtype) + 1.0) / self.warmup_steps, 1.0)
