"""TensorFlow's name-based checkpoints as files: found, opened, read by name, written whole or not at all."""

import lzma
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from errors import UserError
from models.frozen_graph import output_stride_of, parsed, weights_of

_V2_FILE = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
OTHER_FORMATS = {".h5", ".hdf5", ".keras", ".npy", ".npz", ".pb", ".pth", ".pt", ".onnx", ".tflite", ".safetensors"}

OBJECT_BASED = "an object-based TF 2 checkpoint (tf.train.Checkpoint); slim's are name-based"


class CheckpointError(UserError, ValueError):
    """A checkpoint that is missing, damaged, ambiguous, or does not hold what was asked of it."""


class Checkpoint:
    """An open checkpoint: `shapes` {name: tuple} and `dtypes` {name: NumPy-like name} at once, tensors on request."""

    def __init__(self, path: str | os.PathLike, prefix: str | os.PathLike) -> None:
        from tensorflow.compat.v1.train import NewCheckpointReader

        self.path, self.prefix = str(path), str(prefix)
        index = Path(f"{self.prefix}.index")
        self.has_data = not index.is_file() or any(index.parent.glob(f"{_escaped(index.stem)}.data-*"))
        with self._explained("opened"):
            self._reader = NewCheckpointReader(self.prefix)
            self.shapes = {name: tuple(s) for name, s in sorted(self._reader.get_variable_to_shape_map().items())}
            self.dtypes = {name: d.name for name, d in self._reader.get_variable_to_dtype_map().items()}

    def architecture(self, scope: str) -> dict[str, Any]:
        """Arguments of `models.deeplab_v3.deeplab_v3` that are told by more than names: none, as there is no graph."""
        return {}

    def read(self, name: str) -> np.ndarray:
        """The array stored under `name`; CheckpointError when the file is damaged there."""
        if name not in self.shapes:
            raise CheckpointError(f"{self.path}: no variable {name!r} in this checkpoint")
        if not self.has_data:
            raise CheckpointError(f"{self.path}: only names and shapes are here; its .data-00000-of-00001 is missing")
        with self._explained(f"read at {name!r}"):
            return np.asarray(self._reader.get_tensor(name))

    @contextmanager
    def _explained(self, action):
        import tensorflow as tf

        try:
            yield
        except (tf.errors.OpError, RuntimeError, ValueError, IndexError, MemoryError) as error:
            raise CheckpointError(
                f"{self.path}: cannot be {action}; the file is truncated, damaged or no TensorFlow checkpoint "
                f"({_cause(error)}). Copy or download it again."
            ) from error


class FrozenGraph:
    """A frozen graph as an open checkpoint: the constants that were its variables."""

    def __init__(self, path: Path) -> None:
        from tensorflow import as_dtype

        self.path = self.prefix = str(path)
        if (path.parent / "variables").is_dir():
            raise CheckpointError(f"{path}: a SavedModel of TensorFlow 2, no frozen graph; its variables lie beside it")
        try:
            self._graph = parsed(path.read_bytes())
            self._tensors = weights_of(self._graph)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
        self.shapes = {name: tuple(dim.size for dim in t.tensor_shape.dim) for name, t in self._tensors.items()}
        self.dtypes = {name: as_dtype(tensor.dtype).name for name, tensor in self._tensors.items()}

    def architecture(self, scope: str) -> dict[str, Any]:
        """What operations tell of the network whose backbone is in `scope`, and names do not: its output stride."""
        return {"output_stride": output_stride_of(self._graph, scope, self.shapes)}

    def read(self, name: str) -> np.ndarray:
        """The array that the constant holds; CheckpointError where there is none of this name."""
        from tensorflow import make_ndarray

        if name not in self._tensors:
            raise CheckpointError(f"{self.path}: no variable {name!r} in this graph")
        return make_ndarray(self._tensors[name])


def _cause(error):
    """The first line of what an exception says: TensorFlow's and tarfile's go on with what helps nobody."""
    lines = str(getattr(error, "message", None) or error).strip().splitlines()
    return lines[0].rstrip(":") if lines else type(error).__name__


def is_object_based(names: Iterable[str]) -> bool:
    """Whether the names are those that tf.train.Checkpoint gives: paths of Python attributes, not variable names."""
    return any(name.endswith("/.ATTRIBUTES/VARIABLE_VALUE") for name in names)


@contextmanager
def open_checkpoint(path: Any, names_only: bool = False) -> Iterator[Any]:
    """Opens what a user may name: a V2 prefix (or one of its files), a V1 file, a `.tar.gz` as published, a directory,
    or the `.pb` of a frozen graph, whose constants are one.

    A directory is read through its `checkpoint` file (so a run directory gives its last checkpoint), or by the only
    checkpoint in it. What is open already is passed on: anything with `path`, `shapes`, `dtypes` and `read`.

    Args:
        names_only: an `.index` without its data will do; reading a tensor of it raises CheckpointError.
    """
    if hasattr(path, "shapes"):
        yield path
        return
    path = Path(os.path.expanduser(path))
    if path.suffix == ".pb":
        yield FrozenGraph(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        if path.name.endswith((".tar.gz", ".tgz", ".tar")):
            prefix = _unpack(path, Path(folder))
        else:
            prefix = _without_wildcards(find_prefix(path, names_only), Path(folder))
        yield Checkpoint(path, prefix)


def find_prefix(path: str | os.PathLike, names_only: bool = False) -> Path:
    """The name TensorFlow wants for the checkpoint a user named `path`; CheckpointError when there is none.

    names_only: an `.index` alone is one.
    """
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        return _prefix_in(path)
    if path.suffix in OTHER_FORMATS:
        raise CheckpointError(f"{path}: {path.suffix} files are no TensorFlow checkpoints; give slim's .ckpt")
    prefix = Path(_V2_FILE.sub("", str(path)))
    index = Path(f"{prefix}.index")
    shards = list(prefix.parent.glob(f"{_escaped(prefix.name)}.data-*")) if prefix.parent.is_dir() else []
    if index.is_file():
        if not shards and not names_only:
            raise CheckpointError(f"{prefix}: {index.name} is there, but {prefix.name}.data-00000-of-00001 is missing")
        return prefix
    if shards:
        raise CheckpointError(f"{prefix}: {shards[0].name} is there, but {index.name} is missing")
    if prefix.is_file():
        if prefix.stat().st_size == 0:
            raise CheckpointError(f"{prefix}: the file is empty")
        return prefix
    beside = sorted(p.name for p in _checkpoints_in(prefix.parent)) if prefix.parent.is_dir() else []
    hint = f"; beside it there is {', '.join(beside[:8])}" if beside else ""
    raise CheckpointError(f"{path}: no such checkpoint{hint}")


def _without_wildcards(prefix, folder):
    """TensorFlow takes a name with "[1]" or "*" in it for a pattern: → `prefix`, or links to its files in `folder`."""
    if not re.search(r"[][*?\\]", str(prefix)):
        return prefix
    for file in (prefix, *prefix.parent.glob(f"{_escaped(prefix.name)}.*")):
        if file.is_file():
            (folder / f"ckpt{file.name.removeprefix(prefix.name)}").symlink_to(file.absolute())
    return folder / "ckpt"


def _escaped(name):
    return "".join(f"[{c}]" if c in "[]*?" else c for c in name)


def _checkpoints_in(folder):
    prefixes = {Path(str(p).removesuffix(".index")) for p in folder.glob("*.index")}
    return prefixes | {p for p in folder.glob("*.ckpt") if p.is_file()}


def _prefix_in(folder):
    import tensorflow as tf

    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except (tf.errors.OpError, ValueError) as error:
        raise CheckpointError(f"{folder / 'checkpoint'}: cannot be read ({_cause(error)})") from error
    if state and state.model_checkpoint_path:
        named = Path(state.model_checkpoint_path)
        # The file may name the place the directory once had; what counts is what lies beside it now.
        beside = folder / named.name
        there = [place for place in (beside, named) if place.is_file() or Path(f"{place}.index").is_file()]
        return find_prefix(there[0] if there else beside)
    found = sorted(_checkpoints_in(folder))
    if len(found) == 1:
        return find_prefix(found[0])
    if found:
        names = ", ".join(p.name for p in found[:8])
        raise CheckpointError(f"{folder}: several checkpoints and no readable `checkpoint` file; name one of {names}")
    raise CheckpointError(f"{folder}: no checkpoint in this directory (no `checkpoint` file, no .index, no .ckpt)")


def _unpack(archive, folder):
    if not archive.is_file():
        raise CheckpointError(f"{archive}: no such file")
    try:
        with tarfile.open(archive) as tar:
            wanted = [m for m in tar.getmembers() if m.isfile() and (".ckpt" in m.name or _V2_FILE.search(m.name))]
            tar.extractall(folder, wanted, filter="data")
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise CheckpointError(f"{archive}: cannot be unpacked ({_cause(error)}); download it again") from error
    found = sorted({p for directory in (folder, *folder.rglob("*/")) for p in _checkpoints_in(directory)})
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise CheckpointError(f"{archive}: holds {len(found)} checkpoints ({names}), where one is expected")
    try:
        return find_prefix(found[0])
    except CheckpointError as error:
        raise CheckpointError(f"{archive}: in it, {str(error).replace(f'{folder}/', '')}") from error


def write_checkpoint(prefix: str | os.PathLike, tensors: Mapping[str, Any]) -> None:
    """Writes {name: array} as a name-based V2 checkpoint that a TF1 `Saver` restores.

    The files are written beside and renamed, the index last: a checkpoint is there whole or not at all.
    Raises CheckpointError, with what was there before untouched, when the disk is full or the place is not writable.
    """
    import tensorflow as tf

    prefix = Path(prefix)
    partial = prefix.parent / f".{prefix.name}.partial"
    names = sorted(tensors)
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        with tf.device("CPU"):
            tf.raw_ops.SaveV2(
                prefix=str(partial / prefix.name),
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                # An array, since TensorFlow keeps scalars in a cache, where -0.0 is 0.0.
                tensors=[tf.constant(np.asarray(tensors[name])) for name in names],
            )
        written = sorted(partial.iterdir(), key=lambda file: file.suffix == ".index")
        for file in written:
            _flush(file)
        for file in written:
            os.replace(file, prefix.parent / file.name)
    except (OSError, tf.errors.OpError) as error:
        raise CheckpointError(f"{prefix}: cannot be written ({_cause(error)}); nothing saved before is lost") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _flush(file):
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())
