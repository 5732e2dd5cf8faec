"""Images in, features out: batch by batch onto the disk, whole or not at all."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.images import DataError, read_image
from data.places import check_memory
from data.transforms import resize_center_crop
from engine.device import use_xla
from engine.options import Pictures
from errors import UserError
from files.writing import folder_in


def extract(
    model: Any,
    paths: Sequence[Path],
    image_size: int,
    batch_size: int,
    pool: bool,
    skipped: list[DataError],
    as_read: Pictures = Pictures(),
) -> Iterator[tuple[Path, np.ndarray]]:
    """Yields (path, features) in the order of `paths`: float32 (h, w, channels), or (channels,) of their mean.

    Args:
        model: images (N, H, W, 3) → (N, h, w, channels), with its `preprocessing`.
        image_size: each image's central square is resized to this many pixels.
        skipped: a list that gets the DataError of every file that cannot be read.
    """
    batch = min(batch_size, len(paths))
    check_memory(batch, image_size, f"--batch-size {batch_size} and --image-size {image_size}")
    model.compile(jit_compile=use_xla())
    for start in range(0, len(paths), batch_size):
        images, read = [], []
        for path in paths[start : start + batch_size]:
            try:
                images.append(resize_center_crop(read_image(path, **as_read.reading()), image_size))
                read.append(path)
            except DataError as error:
                skipped.append(error)
        if images:
            inputs = model.preprocessing(np.stack(images).astype("float32")).astype("float32")
            features = np.asarray(model.predict_on_batch(inputs), "float32")
            yield from zip(read, features.mean(axis=(1, 2)) if pool else features, strict=True)


def write_features(path: str | Path, rows: Iterable[tuple[Any, np.ndarray]]) -> tuple[int, ...]:
    """Writes (name, array) pairs, all of one shape, as `path` and the names as .txt beside it. → the array's shape

    Raises UserError when there are none, the place cannot be written, or the .txt would replace another file; what was
    there before is then untouched.
    """
    path = Path(path)
    names_file = path.with_suffix(".txt")
    if names_file == path or (names_file.exists() and not path.exists()):
        raise UserError(f"{names_file}: would be replaced by the names of what is in {path.name}; name another --out")
    names: list[str] = []
    shape: tuple[int, ...] = ()
    with folder_in(path.parent) as folder:
        raw, array, listing = (folder / name for name in ("raw", "array", "listing"))
        with open(raw, "wb") as file:
            for name, row in rows:
                names.append(str(name))
                shape = row.shape
                file.write(row.tobytes())
        if not names:
            raise UserError(f"{path}: nothing to write, not one of the files could be read as an image")
        shape = (len(names), *shape)
        with open(array, "wb") as file, open(raw, "rb") as values:  # the header says how many came in the end
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            shutil.copyfileobj(values, file)
        listing.write_text("".join(f"{name}\n" for name in names))
        array.replace(path)
        listing.replace(names_file)
    return shape
