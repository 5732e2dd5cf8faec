"""What prediction reads and writes: which files are meant, what becomes of each, pictures and videos one by one."""

import glob
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from data.class_names import read_class_names
from data.images import IMAGE_SUFFIXES, DataError, image_size, read_image
from data.voc import mask_png
from engine.kinds import Options, changed, flag
from engine.options import Looks, Opening, Pictures
from engine.pictures import BACKGROUND, legend, overlay, overlay_with_legend, png
from engine.startup import import_keras
from errors import UserError
from files.output import marked
from files.writing import WriteError, beside, make_folder, write_whole
from inference.protocols import Predictor

T = TypeVar("T")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")


# Which files


def find_inputs(places: Iterable[str], known: Sequence[str] = IMAGE_SUFFIXES + VIDEO_SUFFIXES) -> list[Path]:
    """The files that a user meant by `places` → [Path], each once.

    A place is a file, a folder (the files of the `known` suffixes directly in it, sorted, without hidden ones) or a
    glob pattern (the files that match, sorted; `**` crosses folders). Raises UserError for a place that gives nothing.
    """
    found: dict[Path, Path] = {}
    for place in places:
        path = Path(place)
        if path.is_dir():
            files = [p for p in sorted(path.iterdir()) if p.suffix.lower() in known and not p.name.startswith(".")]
            files = [p for p in files if p.is_file()]
            nothing = (
                f"{'no image' if known == IMAGE_SUFFIXES else 'no image or video'} in this folder ({', '.join(known)})"
            )
        elif path.exists():
            files, nothing = [path], ""
        else:
            files = [p for p in map(Path, sorted(glob.glob(place, recursive=True))) if p.is_file()]
            nothing = "matches no file" if glob.has_magic(place) else "no such file or folder"
        if not files:
            raise UserError(f"{place}: {nothing}")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


@dataclass(frozen=True)
class PictureTask:
    """A picture and the files that are written for it; None for those that nobody wants."""

    source: Path
    mask: Path
    overlay: Path | None = None
    probabilities: Path | None = None

    @property
    def written(self) -> list[Path]:
        """The files that are written for it."""
        return [path for path in (self.mask, self.overlay, self.probabilities) if path]


@dataclass(frozen=True)
class VideoTask:
    """A video and the files that are written for it."""

    source: Path
    overlay: Path
    legend: Path

    @property
    def written(self) -> list[Path]:
        """The files that are written for it."""
        return [self.overlay, self.legend]


Task = PictureTask | VideoTask


def plan(
    sources: Sequence[Path], out: str | Path, with_overlay: bool = True, with_probabilities: bool = False
) -> list[Task]:
    """What is written for each source, named after it → [Task].

    Raises UserError where two files would get one name, or one would replace an input.
    """
    tasks = [_task(source, Path(out) / source.stem, with_overlay, with_probabilities) for source in sources]
    inputs = {source.resolve() for source in sources}
    writer: dict[Path, Path] = {}
    for task in tasks:
        for path in task.written:
            if path.resolve() in inputs:
                raise UserError(
                    f"{path}: would be written for {task.source}, but is an input itself; name another --out"
                )
            if path in writer:
                raise UserError(
                    f"{path}: would be written for {writer[path]} and for {task.source}; "
                    "predict them in two calls with an --out each"
                )
            writer[path] = task.source
    return tasks


def _task(source: Path, stem: Path, with_overlay: bool, with_probabilities: bool) -> Task:
    def named(ending: str) -> Path:
        return stem.with_name(stem.name + ending)

    if source.suffix.lower() in VIDEO_SUFFIXES:
        if with_probabilities or not with_overlay:
            raise UserError(
                f"{source}: a video becomes an overlay and nothing else: no --probabilities, no --no-overlay"
            )
        return VideoTask(source, named("_overlay.mp4"), named("_legend.png"))
    return PictureTask(
        source,
        named(".png"),
        named("_overlay.png") if with_overlay else None,
        named("_probabilities.npz") if with_probabilities else None,
    )


# Which model


def open_predictor(path: str, how: Opening, looks: Looks, tasks: Sequence[Task], watch: "Stopwatch") -> Predictor:
    """The predictor of an export, or else of a checkpoint or run, with `labels(image)` and `probabilities(image)`.

    Args:
        tasks: what is to be predicted.
        watch: gets "imports" and "model built and restored", or an export's "imports, export opened".

    Raises UserError where there is none at `path`, or an option does not apply to an export.
    """
    from inference.runtimes import open_export

    export = open_export(path)
    if export is None:
        import_keras()
        from inference.opening import open_segmenter
        from models.layers import ON_TENSORFLOW, without_variables

        watch.lap("imports")
        with without_variables():
            opened = open_segmenter(path, how)
        print(opened.introduction(), flush=True)
        passes = len(looks.scales) * (2 if looks.flip else 1)
        # JAX compiles in any case.
        eager = ON_TENSORFLOW and looks.window is None
        eager = eager and _repay_no_tracing(tasks, opened.crop_size, passes)
        predictor = opened.predictor(looks, eager=eager)
        watch.lap("model built and restored")
        return predictor
    refuse_checkpoint_options(path, how, looks)
    watch.lap("imports, export opened")
    return export


def _repay_no_tracing(tasks: Sequence[Task], crop_size: int | None, passes: int) -> bool:
    """Whether there is so little to predict that tracing a graph takes longer than it saves.

    That is up to some four passes of 513x513 pixels. Larger pictures would also take more memory without a graph.
    """
    pixels = 0
    for task in tasks:
        if isinstance(task, VideoTask) or pixels > 1_000_000:
            return False
        try:
            height, width = image_size(task.source)
        except DataError:  # it is skipped, or so large that Pillow warns of it
            return False
        pixels += passes * max(height, crop_size or 0) * max(width, crop_size or 0)
    return pixels <= 1_100_000


def refuse_checkpoint_options(path: str, *groups: Options) -> None:
    """Raises UserError where an option was given that does not apply to the export at `path`."""
    if given := changed(*groups):
        flags = ", ".join(map(flag, given))
        raise UserError(f"{path}: is an export, whose network is fixed; {flags}: only for a checkpoint or run")


def class_names_of(predictor: Predictor, path: str | None = None) -> tuple[str, ...]:
    """The names in the file `path`, else the model's own; DataError where there are not as many as it has classes."""
    if path is None:
        return tuple(predictor.class_names)
    names = read_class_names(path)
    if len(names) != predictor.num_classes:
        raise DataError(f"{path}: names {len(names)} classes, the model has {predictor.num_classes}.")
    return names


# One after the other


def predict(
    predictor: Predictor, class_names: Sequence[str], tasks: Iterable[Task], as_read: Pictures = Pictures()
) -> Iterator[tuple[Task, str | UserError]]:
    """Predicts and writes every task's files, the next image being read meanwhile.

    Yields (Task, one line about what was found), or (Task, UserError) where its file cannot be read, the model cannot
    take it, or its name is too long. Raises WriteError.
    """
    read = ((task, None if isinstance(task, VideoTask) else read_or_error(task.source, as_read)) for task in tasks)
    for task, image in ahead(read):
        try:
            _check_names(task)
            if isinstance(task, VideoTask):
                yield task, _predict_video(predictor, class_names, task)
            elif isinstance(image, np.ndarray):
                yield task, _predict_image(predictor, class_names, task, image)
            elif image is not None:
                yield task, image
        except WriteError:  # the next one could not be written either
            raise
        except UserError as error:
            yield task, error


def _check_names(task: Task) -> None:
    """Raises UserError where the name of a file that is written has more bytes than the folder takes."""
    for path in task.written:
        most, length = os.pathconf(make_folder(path.parent), "PC_NAME_MAX"), len(os.fsencode(path.name))
        if length > most:
            raise UserError(f"{task.source}: would be written as {path.name}, a name of {length} bytes; {most} can be")


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yields what `items` gives; while the consumer works on one, the next is fetched in a thread."""
    items = iter(items)
    with ThreadPoolExecutor(1) as reader:
        pending = reader.submit(next, items, None)
        while (item := pending.result()) is not None:
            pending = reader.submit(next, items, None)
            yield item


def read_or_error(path: Path, as_read: Pictures = Pictures()) -> np.ndarray | DataError:
    """A picture, or why it cannot be read."""
    try:
        return read_image(path, **as_read.reading())
    except DataError as error:
        return error


def _predict_image(predictor: Predictor, class_names: Sequence[str], task: PictureTask, image: np.ndarray) -> str:
    if task.probabilities:  # the labels are taken from them: the network runs once, and the two files agree
        probabilities = predictor.probabilities(image)
        labels = probabilities.argmax(-1).astype(np.uint8)
        with beside(task.probabilities) as partial:
            np.savez(partial, probabilities=probabilities, class_names=np.array(class_names))
    else:
        labels = predictor.labels(image)
    write_whole(task.mask, marked(mask_png(labels)))
    if task.overlay:
        write_whole(task.overlay, marked(png(overlay_with_legend(image, labels, class_names))))
    height, width = labels.shape
    return f"{width}x{height}  {_shares(Counter(_counts(labels)), class_names)}"


def _predict_video(predictor: Predictor, class_names: Sequence[str], task: VideoTask) -> str:
    counts: Counter[int] = Counter()
    frames = 0
    paint_background = class_names[0] != BACKGROUND
    with beside(task.overlay) as partial, _VideoWriter(partial) as writer:
        for frame, rate in ahead(tqdm(read_frames(task.source), desc=task.source.name, unit="frame", disable=None)):
            labels = predictor.labels(frame)
            writer.write(overlay(frame, labels, paint_background=paint_background), rate)
            counts.update(_counts(labels))
            frames += 1
        if not frames:
            raise DataError(f"{task.source}: not one frame can be read. Replace or remove it.")
        writer.finish(frames)
        write_whole(task.legend, marked(png(legend(sorted(counts), class_names, width=writer.size[0]))))
    return f"{frames} frames of {writer.size[0]}x{writer.size[1]}  {_shares(counts, class_names)}"


def _counts(labels: np.ndarray) -> dict[int, int]:
    return dict(zip(*(part.tolist() for part in np.unique(labels, return_counts=True)), strict=True))


def _shares(counts: Counter[int], class_names: Sequence[str]) -> str:
    """{label: pixels} → "background 76.4 %, cat 23.6 %", the most first."""
    total = sum(counts.values())
    return ", ".join(f"{class_names[label]} {100 * count / total:.1f} %" for label, count in counts.most_common())


# Videos and large files


def read_frames(path: Path) -> Iterator[tuple[np.ndarray, float]]:
    """Yields (frame, frames a second) of a video: uint8 RGB (H, W, 3), upright, and a float. Nothing if unreadable."""
    video = cv2.VideoCapture(str(path))
    try:
        rate = video.get(cv2.CAP_PROP_FPS)
        while True:
            there, frame = video.read()
            if not there:
                return
            yield frame[..., ::-1], rate if 0 < rate < 1000 else 25.0
    finally:
        video.release()


class _VideoWriter:
    """An MPEG-4 video of the size of its first frame. Odd sides, which the format cannot have, get a line more."""

    def __init__(self, path):
        self.path, self.size, self._video = path, None, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the file."""
        if self._video:
            self._video.release()

    def finish(self, frames):
        """Ends the file; WriteError where it does not hold all frames, of which OpenCV says nothing."""
        self.close()
        written = cv2.VideoCapture(str(self.path)).get(cv2.CAP_PROP_FRAME_COUNT)
        if written != frames:
            raise WriteError(f"{self.path.parent}: {written:.0f} of {frames} frames were written; is the disk full?")

    def write(self, picture, rate):
        height, width = picture.shape[:2]
        if self._video is None:
            self.size = width, height
            even = width + width % 2, height + height % 2
            self._video = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), rate, even)
            if not self._video.isOpened():
                raise UserError(f"{self.path}: cannot be written as an MPEG-4 video by this OpenCV")
        frame = np.ascontiguousarray(picture[..., ::-1])
        self._video.write(cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE))


# Where the time goes


class Stopwatch:
    """Wall time by step, in seconds: `laps` {step: seconds}."""

    def __init__(self, started: float) -> None:
        self.laps: dict[str, float] = {}
        self._last = started

    def lap(self, step: str) -> None:
        """Counts all since the last lap, or the start, as `step`."""
        now = time.perf_counter()
        self.laps[step] = self.laps.get(step, 0.0) + now - self._last
        self._last = now

    def __str__(self) -> str:
        return "\n".join(f"{seconds:7.2f} s  {step}" for step, seconds in self.laps.items())


def time_network(predictor: Predictor, task: Task, watch: Stopwatch) -> None:
    """Predicts a picture again, which takes the time of its network alone."""
    if isinstance(task, PictureTask) and isinstance(image := read_or_error(task.source), np.ndarray):
        predict = predictor.probabilities if task.probabilities else predictor.labels
        watch.lap("the first input read again")
        with suppress(UserError):  # it was skipped, and said
            predict(image)
            watch.lap("of which the network: the first input predicted again")
