"""TensorFlow's name-based checkpoints as files: found, opened, read by name, written whole or not at all."""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from errors import UserError, some
from files.records import read_bytes
from files.writing import check_room, folder_in, temporary_folder, why, writing
from models.archive import V2_FILE, ArchiveError, unpack
from models.frozen_graph import output_stride_of, parsed, weights_of

OTHER_FORMATS = {".h5", ".hdf5", ".keras", ".npy", ".npz", ".pb", ".pth", ".pt", ".onnx", ".tflite", ".safetensors"}

OBJECT_BASED = "an object-based TF 2 checkpoint (tf.train.Checkpoint); slim's are name-based"
GRAPH_LIMIT = 2 << 30  # bytes: a protocol buffer's
STATE_LIMIT = 16 << 20  # bytes of a `checkpoint` file
V1_PACKED = 64  # times: more than what compression, and integers of one byte, make of the first format's


class CheckpointError(UserError, ValueError):
    """A checkpoint that is missing, damaged, ambiguous, or does not hold what was asked of it."""


class Checkpoint:
    """An open checkpoint: `shapes` {name: tuple} and `dtypes` {name: NumPy-like name} at once, tensors on request."""

    def __init__(self, path: str | os.PathLike, prefix: str | os.PathLike) -> None:
        from tensorflow.compat.v1.train import NewCheckpointReader

        self.path, self.prefix = str(path), str(prefix)
        self._is_v2 = Path(f"{self.prefix}.index").is_file()
        data = _shards(Path(self.prefix)) if self._is_v2 else [Path(self.prefix)]
        self.has_data = bool(data)
        self._bytes = sum(file.stat().st_size for file in data)
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
        self._check_size(name)
        with self._explained(f"read at {name!r}"):
            return np.asarray(self._reader.get_tensor(name))

    def _check_size(self, name: str) -> None:
        """TensorFlow makes room for what the names' table declares, before it looks at what is there."""
        from tensorflow import as_dtype

        shape, dtype = self.shapes[name], as_dtype(self.dtypes[name])
        if not self._is_v2 and dtype.is_floating and dtype.size == 2:
            raise CheckpointError(
                f"{self.path}: {name} is {dtype.name}, which TensorFlow cannot read from a file of its "
                "first format, though it writes it; save it in the second (write_version=tf.train.SaverDef.V2)"
            )
        packed = 1 if self._is_v2 else V1_PACKED
        if math.prod(shape) * max(1, dtype.size) > packed * self._bytes:
            raise CheckpointError(
                f"{self.path}: {name} is {dtype.name} of shape {shape}, which is more than the file's {self._bytes:,} "
                "bytes hold; it is damaged. Copy or download it again."
            )

    @contextmanager
    def _explained(self, action):
        import tensorflow as tf

        try:
            yield
        except (tf.errors.OpError, RuntimeError, ValueError, IndexError, MemoryError) as error:
            raise CheckpointError(
                f"{self.path}: cannot be {action}; the file is truncated, damaged or no TensorFlow checkpoint "
                f"({why(error)}). Copy or download it again."
            ) from error


class FrozenGraph:
    """A frozen graph as an open checkpoint: the constants that were its variables."""

    def __init__(self, path: Path) -> None:
        from tensorflow import as_dtype

        self.path = self.prefix = str(path)
        if (path.parent / "variables").is_dir():
            raise CheckpointError(f"{path}: a SavedModel of TensorFlow 2, no frozen graph; its variables lie beside it")
        try:
            self._graph = parsed(read_bytes(path, GRAPH_LIMIT, CheckpointError))
            self._tensors = weights_of(self._graph)
            self.dtypes = {name: as_dtype(tensor.dtype).name for name, tensor in self._tensors.items()}
        except CheckpointError:
            raise
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: {error}") from error
        self.shapes = {name: tuple(dim.size for dim in t.tensor_shape.dim) for name, t in self._tensors.items()}

    def architecture(self, scope: str) -> dict[str, Any]:
        """What operations tell of the network whose backbone is in `scope`, and names do not: its output stride."""
        try:
            return {"output_stride": output_stride_of(self._graph, scope, self.shapes)}
        except (ValueError, IndexError) as error:  # an operation that lacks strides, or an input
            raise CheckpointError(f"{self.path}: an operation in it is damaged ({error}); copy it again") from error

    def read(self, name: str) -> np.ndarray:
        """The array that the constant holds; CheckpointError where there is none of this name."""
        from tensorflow import make_ndarray

        if name not in self._tensors:
            raise CheckpointError(f"{self.path}: no variable {name!r} in this graph")
        return make_ndarray(self._tensors[name])


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
    if path.name.endswith((".tar.gz", ".tgz", ".tar")):
        with temporary_folder() as folder:
            yield Checkpoint(path, _unpacked(path, folder))
        return
    prefix = find_prefix(path, names_only)
    if not re.search(r"[][*?\\]", str(prefix)):
        yield Checkpoint(path, prefix)
        return
    with temporary_folder() as folder:
        yield Checkpoint(path, _linked(prefix, folder))


def find_prefix(path: str | os.PathLike, names_only: bool = False) -> Path:
    """The name TensorFlow wants for the checkpoint a user named `path`; CheckpointError when there is none.

    names_only: an `.index` alone is one.
    """
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        return _prefix_in(path)
    if path.suffix in OTHER_FORMATS:
        raise CheckpointError(f"{path}: {path.suffix} files are no TensorFlow checkpoints; give slim's .ckpt")
    prefix = Path(V2_FILE.sub("", str(path)))
    index = Path(f"{prefix}.index")
    shards = _shards(prefix)
    if strange := [file for file in (path, prefix, index, *shards) if file.exists() and not file.is_file()]:
        raise CheckpointError(f"{strange[0]}: a folder, a pipe or a device, and no file")
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
    beside = sorted(p.name for p in _checkpoints_in(prefix.parent))
    hint = f"; beside it there is {some(beside)}" if beside else ""
    raise CheckpointError(f"{path}: no such checkpoint{hint}")


def _linked(prefix: Path, folder: Path) -> Path:
    """TensorFlow takes a name with "[1]" or "*" in it for a pattern: → links to its files in `folder`."""
    for file in (prefix, *prefix.parent.glob(f"{_escaped(prefix.name)}.*")):
        if file.is_file():
            (folder / f"ckpt{file.name.removeprefix(prefix.name)}").symlink_to(file.absolute())
    return folder / "ckpt"


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "[]*?" else c for c in name)


def _shards(prefix: Path) -> list[Path]:
    return list(prefix.parent.glob(f"{_escaped(prefix.name)}.data-*"))


def _checkpoints_in(folder: Path) -> set[Path]:
    """The prefixes of a folder; hidden files, as macOS adds them, are none."""
    prefixes = {Path(str(p).removesuffix(".index")) for p in folder.glob("[!.]*.index")}
    return prefixes | {p for p in folder.glob("[!.]*.ckpt") if p.is_file()}


def _prefix_in(folder: Path) -> Path:
    if (folder / "checkpoint").exists():
        named = _named_last(folder)
        # The file may name the place the directory once had; what counts is what lies beside it now.
        beside = folder / named.name
        there = [place for place in (beside, named) if place.is_file() or Path(f"{place}.index").is_file()]
        return find_prefix(there[0] if there else beside)
    found = sorted(_checkpoints_in(folder))
    if len(found) == 1:
        return find_prefix(found[0])
    if found:
        names = some(p.name for p in found)
        raise CheckpointError(f"{folder}: several checkpoints and no `checkpoint` file; name one of {names}")
    raise CheckpointError(f"{folder}: no checkpoint in this directory (no `checkpoint` file, no .index, no .ckpt)")


def _named_last(folder: Path) -> Path:
    """The prefix that the folder's `checkpoint` file names as the last."""
    import tensorflow as tf

    file = folder / "checkpoint"
    read_bytes(file, STATE_LIMIT, CheckpointError)
    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except (tf.errors.OpError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read ({why(error)}); delete it and name a checkpoint") from error
    if state is None or not Path(state.model_checkpoint_path).name:
        raise CheckpointError(f"{file}: names no checkpoint as TensorFlow does; delete it and name a checkpoint")
    return Path(state.model_checkpoint_path)


def _unpacked(archive: Path, folder: Path) -> Path:
    """The prefix in `folder` of the checkpoint that is unpacked there."""
    if not archive.is_file():
        raise CheckpointError(f"{archive}: {'no file' if archive.exists() else 'no such file'}")
    try:
        inside = unpack(archive, folder)
    except ArchiveError as error:
        raise CheckpointError(str(error)) from error
    try:
        return find_prefix(folder / inside.name)
    except CheckpointError as error:
        raise CheckpointError(f"{archive}: in it, {str(error).replace(str(folder), str(inside.parent))}") from error


def write_checkpoint(prefix: str | os.PathLike, tensors: Mapping[str, Any]) -> None:
    """Writes {name: array} as a name-based V2 checkpoint that a TF1 `Saver` restores.

    The files are written beside and renamed, the index last: a checkpoint is there whole or not at all.
    Raises WriteError, with what was there before untouched, when the disk is full or the place is not writable.
    """
    import tensorflow as tf

    prefix = Path(prefix)
    names = sorted(tensors)
    # An array, since TensorFlow keeps scalars in a cache, where -0.0 is 0.0.
    values = [np.asarray(tensors[name]) for name in names]
    check_room(prefix.parent, sum(value.nbytes for value in values), prefix)
    with folder_in(prefix.parent) as partial, writing(prefix):
        with tf.device("CPU"):
            tf.raw_ops.SaveV2(
                prefix=str(partial / prefix.name),
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                tensors=[tf.constant(value) for value in values],
            )
        written = sorted(partial.iterdir(), key=lambda file: file.suffix == ".index")
        for file in written:
            _flush(file)
        for file in written:
            os.replace(file, prefix.parent / file.name)


def _flush(file):
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())
