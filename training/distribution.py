"""Where a run's replicas are: devices of this machine, and processes on several that share one run.

TensorFlow runs them under MirroredStrategy, JAX under keras.distribution. Each replica computes an equal part of every
batch; statistics of batch norm, losses and gradients are the whole batch's (`models.layers.sum_over_replicas`), so
batch size and learning rate mean the same at any number of devices.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import keras
import numpy as np

from engine.run_directory import RunDirectory
from errors import UserError
from models.layers import ON_TENSORFLOW, Network
from models.weight_init import named_variables


class Distribution:
    """The replicas of one run, seen from one of its processes; by itself: one device, one process.

    Attributes:
        devices: replicas in this process. process, processes: which process this is, of how many.
    """

    devices, process, processes = 1, 0, 1

    @property
    def replicas(self) -> int:
        """How many parts a batch is computed in at once, over all processes."""
        return self.devices * self.processes

    @property
    def shard(self) -> tuple[int, int]:
        """(process, processes), as `data.pipeline.training_batches` takes it."""
        return self.process, self.processes

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes the run."""
        return self.process == 0

    def scope(self) -> AbstractContextManager:
        """Within it, variables are created on all devices."""
        return contextlib.nullcontext()

    def agreed(self, number: int) -> int:
        """A whole number → the first process's, in all of them: they wait for each other."""
        return number

    def total(self, values: np.ndarray) -> np.ndarray:
        """A NumPy array → its sum over the processes."""
        return values

    def digests(self, model: Network) -> set[bytes]:
        """One SHA-256 a replica, of the model's variables as that replica holds them → set of bytes."""
        return {_digest(np.asarray(variable) for variable in named_variables(model).values())}

    @contextlib.contextmanager
    def survivors_told(self, run: RunDirectory) -> Iterator[None]:
        """Within it, the loss of another process ends this one with a UserError that says how to go on."""
        yield


class Mirrored(Distribution):
    """Several devices of this machine under TensorFlow's MirroredStrategy."""

    def __init__(self, devices: int) -> None:
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            _check_devices(devices, len(gpus))
            names = [f"GPU:{index}" for index in range(devices)]
        else:
            cpu, virtual = tf.config.list_physical_devices("CPU")[0], tf.config.LogicalDeviceConfiguration()
            with contextlib.suppress(RuntimeError):  # TensorFlow has begun to compute, then they must be there already
                tf.config.set_logical_device_configuration(cpu, [virtual] * devices)
            _check_devices(devices, len(tf.config.list_logical_devices("CPU")))
            names = [f"CPU:{index}" for index in range(devices)]
        self.devices = devices
        self.strategy = tf.distribute.MirroredStrategy(names)

    def scope(self) -> AbstractContextManager:
        """The strategy's."""
        return self.strategy.scope()

    def digests(self, model: Network) -> set[bytes]:
        """One a device."""
        copies = [
            self.strategy.experimental_local_results(variable.value) for variable in named_variables(model).values()
        ]
        return {_digest(copy.numpy() for copy in replica) for replica in zip(*copies, strict=True)}


class DataParallel(Distribution):
    """Several devices, of one process or of several, under `keras.distribution.DataParallel` on JAX."""

    def __init__(self, devices: int, hosts: Sequence[str] = (), processes: int = 1, host: int = 0) -> None:
        import jax

        # Only the CPU's; where there is an accelerator, that is what is computed on.
        jax.config.update("jax_num_cpu_devices", devices)
        if hosts:
            try:
                keras.distribution.initialize(",".join(hosts), processes, host)
            except RuntimeError as error:
                raise UserError(f"--hosts {','.join(hosts)}: {_first_line(error)}") from error
        _check_devices(devices, jax.local_device_count())
        self.devices, self.process, self.processes = devices, jax.process_index(), jax.process_count()
        if not self.writes:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends; errors are said by each
        used = [
            f"{device.platform}:{device.id}"
            for process in range(self.processes)
            for device in jax.local_devices(process_index=process)[:devices]
        ]
        # Each process reads its own part of a batch: nothing is left to shard.
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=used, auto_shard_dataset=False))

    def agreed(self, number: int) -> int:
        """The first process's number, gathered by JAX."""
        return number if self.processes == 1 else int(self._gathered(np.asarray(number, np.int64))[0])

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum over the processes, gathered by JAX."""
        return values if self.processes == 1 else self._gathered(values).sum(axis=0)

    def _gathered(self, values: np.ndarray) -> np.ndarray:
        """An array, or number, of each process → (processes, …); bit by bit, as JAX would make 32 bits of 64."""
        from jax.experimental import multihost_utils

        words = np.frombuffer(values.tobytes(), np.uint8)
        found = np.asarray(multihost_utils.process_allgather(words)).reshape(self.processes, -1)
        return np.stack([np.frombuffer(row.tobytes(), values.dtype).reshape(values.shape) for row in found])

    def digests(self, model: Network) -> set[bytes]:
        """One a device of each process."""
        copies = [variable.value.addressable_shards for variable in named_variables(model).values()]
        own = [_digest(np.asarray(shard.data) for shard in replica) for replica in zip(*copies, strict=True)]
        return {row.tobytes() for row in self._gathered(np.frombuffer(b"".join(own), np.uint8)).reshape(-1, 32)}

    @contextlib.contextmanager
    def survivors_told(self, run: RunDirectory) -> Iterator[None]:
        """Turns the errors of Gloo and NCCL, by which JAX's processes meet, into LostProcess."""
        try:
            yield
        except Exception as error:
            if self.processes == 1 or isinstance(error, UserError) or not _is_of_meeting(error):
                raise
            saved = run.last_step()
            raise LostProcess(
                f"{run.path}: another of the run's {self.processes} processes is gone ({_first_line(error)}). "
                + (f"The last checkpoint is model.ckpt-{saved}. " if saved else "No checkpoint was saved yet. ")
                + "Start the run again, with the --hosts that are left: it goes on from there."
            ) from error


class LostProcess(UserError, RuntimeError):
    """A process of the run died. What is left cannot end in the usual way, which waits for all processes."""


def distribution_for(devices: int = 1, hosts: Sequence[str] | None = None, host: int | None = None) -> Distribution:
    """The Distribution over `devices` of this machine, and of each of `hosts` where there are several.

    To be made before anything is computed. Without GPUs the devices are virtual ones of the CPU, which is for trying
    things out: they share its cores.

    Args:
        hosts: ["address:port", …] of all processes, the first of which coordinates.
        host: which of them this process is, from 0.

    What is None is taken from Keras' own environment variables, where they are set: KERAS_DISTRIBUTION_JOB_ADDRESSES
    (of the first process or of all), KERAS_DISTRIBUTION_NUM_PROCESSES, KERAS_DISTRIBUTION_PROCESS_ID.

    Raises UserError where there are fewer devices, where hosts do not fit or do not answer, and for several hosts
    under TensorFlow.
    """
    processes = len(hosts or ())
    if not hosts:
        hosts = tuple(filter(None, os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES", "").split(",")))
        number = _number_in("KERAS_DISTRIBUTION_NUM_PROCESSES")
        processes = len(hosts) if number is None else number
    if not hosts:
        if host is not None:
            raise UserError(f"--host {host}: say of which --hosts")
        if devices == 1:
            return Distribution()
        return Mirrored(devices) if ON_TENSORFLOW else DataParallel(devices)
    host = _number_in("KERAS_DISTRIBUTION_PROCESS_ID") if host is None else host
    if ON_TENSORFLOW:
        raise UserError("--hosts: several machines train one model under JAX only; set KERAS_BACKEND=jax")
    if host is None or host >= processes:
        raise UserError(f"--host {host}: must say which of the {processes} hosts this is, from 0 to {processes - 1}")
    return DataParallel(devices, hosts, processes, host)


def _number_in(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise UserError(f"{variable}={text}: must be a whole number")
    return int(text) if text else None


def _check_devices(asked: int, there: int) -> None:
    if asked > there:
        raise UserError(f"--devices {asked}: there are only {there} here")


def _digest(arrays: Iterable[np.ndarray]) -> bytes:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _is_of_meeting(error: Exception) -> bool:
    """Whether processes failed to meet. JAX says so by its own error, or by a ValueError with that one's text."""
    import jax

    return isinstance(error, jax.errors.JaxRuntimeError) or any(name in str(error) for name in ("Gloo", "NCCL"))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
