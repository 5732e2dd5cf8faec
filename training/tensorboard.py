"""TensorBoard events of a run."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from engine.pictures import png
from files.records import RecordError, read_text
from files.writing import beside, make_folder, write_whole, writing

NORMS = "gradient_norm/"  # how their tags begin
MAPS = 64  # of feature maps in one picture
SPRITE = 8192  # pixels that TensorBoard takes of a sprite's side


class Board:
    """Writes scalars, pictures, histograms and embeddings under steps of training into `folder`; nothing where it is
    None."""

    def __init__(self, folder: str | Path | None) -> None:
        import tensorflow as tf

        self._summary = tf.summary
        no_writer = tf.summary.create_noop_writer
        self._folder = None if folder is None else Path(folder)
        with writing(folder or ""):
            self._writer = no_writer() if folder is None else tf.summary.create_file_writer(str(folder))

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """{name: number}; what is no number (an empty cell of the log) is left out."""
        with self._written(step):
            for name, value in values.items():
                if name != "step" and value != "":
                    self._summary.scalar(name, value)

    @contextmanager
    def _written(self, step: int) -> Iterator[None]:
        """Within it summaries go to `step`; afterwards they are on the disk, or WriteError says why not."""
        with writing(self._folder or ""):
            with self._writer.as_default(step):
                yield
            self._writer.flush()

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """uint8 RGB (H, W, 3)."""
        with self._written(step):
            self._summary.image(name, picture[None])

    def feature_maps(self, step: int, name: str, activation: Any) -> None:
        """The first channels, MAPS at most, of an activation's (N, h, w, C) first image, side by side as a picture."""
        maps = np.moveaxis(np.asarray(activation, np.float32)[0, :, :, :MAPS], -1, 0)
        grid = tiled(np.stack([_as_gray(one) for one in maps])[..., None])
        self.picture(step, name, np.repeat(grid, 3, axis=-1))

    def histograms(self, step: int, values: Mapping[str, Any]) -> None:
        """{name: array or variable}; TensorBoard groups them by scope."""
        with self._written(step):
            for name, value in values.items():
                self._summary.histogram(name, np.asarray(value))

    def embedding(
        self, step: int, name: str, features: Any, labels: Sequence[Any], pictures: np.ndarray | None = None
    ) -> None:
        """Points of TensorBoard's projector, each with its label and picture; they replace those of the name's step.

        Args:
            features: numbers (N, C). labels: N, of anything that prints.
            pictures: uint8 RGB (N, h, w, 3), small: all must fit on a square of SPRITE pixels a side.

        Raises ValueError where the three are not of one number, or the pictures are too large.
        """
        features = np.asarray(features, np.float32)
        if len(labels) != len(features) or (pictures is not None and len(pictures) != len(features)):
            raise ValueError(f"{len(features)} features, but {len(labels)} labels or another number of pictures")
        if self._folder is None:
            return
        from google.protobuf import text_format
        from tensorboard.plugins import projector

        # The projector reads no file from outside the folder of its configuration, and takes paths relative to that.
        place = Path("embeddings") / f"{name.replace('/', '_')}-{step}"
        files = make_folder(self._folder / place)
        with beside(files / "features.tsv") as partial:
            np.savetxt(partial, features, fmt="%.9g", delimiter="\t")
        lines = [" ".join(str(label).split()) for label in labels]  # one column of one line each, without a header
        write_whole(files / "labels.tsv", "".join(f"{line}\n" for line in lines))

        configuration = self._folder / "projector_config.pbtxt"
        config = projector.ProjectorConfig()
        if configuration.exists():
            try:
                text_format.Parse(read_text(configuration), config)
            except text_format.ParseError as error:
                raise RecordError(f"{configuration}: cannot be read ({error}). Delete it; it is made anew") from error
        others = [one for one in config.embeddings if one.tensor_name != f"{name}/{step}"]
        del config.embeddings[:]
        config.embeddings.extend(others)
        shown = config.embeddings.add(tensor_name=f"{name}/{step}", tensor_shape=features.shape)
        shown.tensor_path = (place / "features.tsv").as_posix()
        shown.metadata_path = (place / "labels.tsv").as_posix()
        if pictures is not None:
            write_whole(files / "pictures.png", _sprite(pictures))
            shown.sprite.image_path = (place / "pictures.png").as_posix()
            shown.sprite.single_image_dim.extend((pictures.shape[2], pictures.shape[1]))  # width, height
        write_whole(configuration, text_format.MessageToString(config))
        with writing(self._folder):
            self._writer.flush()  # a folder is a run only where there are events


def cut_events(folder: str | Path, step: int, only: Collection[str] | None = None) -> None:
    """Drops the events behind `step`, whose steps are about to be trained again, and what a killed process half wrote.

    Each file is written anew on its own, so that a kill in between loses none of the others.

    Args:
        only: where given, of the events at `step` but these tags and norms of gradients stay: an evaluation was cut off
            there, and will be done anew.

    Raises WriteError.
    """
    import tensorflow as tf
    from tensorboard.compat.proto.event_pb2 import Event

    for file in Path(folder).glob("events.out.tfevents.*"):
        with beside(file) as partial, tf.io.TFRecordWriter(str(partial)) as writer:
            for content in _whole_records(file):
                event = Event.FromString(content)
                again = only is not None and event.step == step and not _is_of(event, only)
                if event.step <= step and not again:
                    writer.write(content)


def _is_of(event: Any, tags: Collection[str]) -> bool:
    return all(value.tag in tags or value.tag.startswith(NORMS) for value in event.summary.value)


def _whole_records(file: Path) -> Iterator[bytes]:
    import tensorflow as tf

    try:
        for record in tf.data.TFRecordDataset(str(file)):
            yield record.numpy()
    except tf.errors.DataLossError:  # the process was killed while it wrote
        return


def tiled(pictures: np.ndarray) -> np.ndarray:
    """(N, h, w, C) → (rows * h, columns * w, C): one beside the other, as many rows as columns, the rest zero."""
    count, height, width, channels = pictures.shape
    side = int(np.ceil(np.sqrt(count)))
    grid = np.zeros((side * side, height, width, channels), pictures.dtype)
    grid[:count] = pictures
    rows = grid.reshape(side, side, height, width, channels).swapaxes(1, 2)
    return rows.reshape(side * height, side * width, channels)


def _as_gray(values: np.ndarray) -> np.ndarray:
    """Numbers (h, w) → uint8: the least of them black, the largest white; black where all are the same."""
    least, most = values.min(), values.max()
    return np.round((values - least) * (255 / (most - least) if most > least else 0)).astype(np.uint8)


def _sprite(pictures: np.ndarray) -> bytes:
    """All pictures in one PNG, as the projector cuts it up again."""
    sprite = tiled(pictures)
    if max(sprite.shape) > SPRITE:
        raise ValueError(f"the pictures make one of {sprite.shape[:2]}, over {SPRITE} a side: resize them first")
    return png(sprite)
