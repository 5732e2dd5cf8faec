"""What the hardware decides: XLA and number formats."""

import keras


def use_xla() -> bool:
    """Keras' `jit_compile` for this device.

    JAX always compiles. Under TensorFlow XLA pays on a GPU; on a CPU it makes a training step four times slower, and
    fails with bfloat16.
    """
    if keras.backend.backend() == "jax":
        return True
    import tensorflow as tf

    several = tf.distribute.get_strategy().num_replicas_in_sync > 1  # XLA compiles no meeting of MirroredStrategy's
    return bool(tf.config.list_physical_devices("GPU")) and not several


def set_precision(name: str, training: bool = True) -> None:
    """Keras' policy for "float32", or "bfloat16": computations in bfloat16, statistics, softmax and loss in float32.

    For training the kernels stay float32 too. For inference they are rounded once, not anew in every call.
    """
    policies = {"float32": "float32", "bfloat16": "mixed_bfloat16" if training else "bfloat16"}
    keras.mixed_precision.set_dtype_policy(policies[name])
