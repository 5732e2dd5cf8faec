"""PASCAL VOC 2012 with the masks of the Semantic Boundaries Dataset, from both official archives.

VOC (Everingham et al., "The Pascal Visual Object Classes Challenge: A Retrospective", 2015) has masks of 1,464 images
to train on and of 1,449 to validate. SBD (Hariharan et al., "Semantic Contours from Inverse Detectors", 2011) has masks
of 11,355 images of VOC, some of `val` among them. `trainaug`, on which DeepLab is trained, is VOC's `train` and all of
SBD's that is not in VOC's `val`: 10,582 images.
"""

import contextlib
import functools
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from data.content import DataError, read_text
from data.voc import mask_png
from files.writing import check_room, write_whole

TRAINAUG, VAL = 10_582, 1_449  # images


@dataclass(frozen=True)
class Archive:
    """A published archive: its address, its MD5 as published, and the folder in it that counts."""

    address: str
    md5: str
    root: PurePosixPath

    @property
    def file(self) -> str:
        """Its file name."""
        return self.address.rpartition("/")[2]


VOC = Archive(
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "6cd6e144f989b92b3379bac3b3de84fd",
    PurePosixPath("VOCdevkit/VOC2012"),
)
SBD = Archive(
    "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "82b4d87ceb2ed10f6038a1cba92111cb",
    PurePosixPath("benchmark_RELEASE/dataset"),
)


def prepare_voc(out: str | Path, voc: Callable[[], Path], sbd: Callable[[], Path]) -> str:
    """Makes a folder in VOC's layout whose `trainaug` and `val` are DeepLab's.

    VOC's archive is unpacked whole. SegmentationClassAug gets SBD's masks of the images that VOC has none of: VOC's
    own, which have borders, are better where both have one, and a mask of `val` there would be read by mistake. Each
    file is written beside and renamed, the lists last, so a call that was killed is gone on with by the next one, and
    a call on a folder that is done does nothing. VOC unpacked already, as `out`, is taken as it is.

    Args:
        voc, sbd: give the archives, when they are needed.

    Returns:
        what is there now, in lines; and how it differs from the published lists, where it does.

    Raises:
        UserError: an archive that is damaged or another one; no room on the disk.
    """
    folder = Folder(Path(out))
    if not folder.has_trainaug():
        if not folder.has_voc():
            folder.unpack_voc(voc())
        folder.add_sbd(sbd())
    return folder.summary()


class Folder:
    """A folder in VOC's layout that is being made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lists = root / "ImageSets" / "Segmentation"
        self.masks, self.aug = root / "SegmentationClass", root / "SegmentationClassAug"
        self.images = root / "JPEGImages"

    def names(self, image_set: str) -> list[str]:
        """The names of an image set; none where it is not there."""
        path = self.lists / f"{image_set}.txt"
        return read_text(path).split() if path.is_file() else []

    def has_voc(self) -> bool:
        """Whether VOC lies there: its lists, which are unpacked last, and all that they name."""
        names = self.names("trainval")
        images, masks = _stems(self.images), _stems(self.masks)
        complete = images.issuperset(names) and masks.issuperset(names)
        return bool(names and self.names("train") and self.names("val")) and complete

    def has_trainaug(self) -> bool:
        """Whether `trainaug` lies there with all that it names."""
        names = self.names("trainaug")
        masks = _stems(self.masks) | _stems(self.aug)
        return bool(names) and self.has_voc() and _stems(self.images).issuperset(names) and masks.issuperset(names)

    def unpack_voc(self, archive: Path) -> None:
        """Unpacks what is not there yet; the lists of the image sets come last."""
        there = sum(file.stat().st_size for file in self.root.rglob("*") if file.is_file())
        check_room(self.root, archive.stat().st_size - there, archive)
        lists: dict[Path, bytes] = {}
        for place, size, read in _files_of(archive, VOC.root):
            target = self.root / place
            if target.parent == self.lists:
                lists[target] = read()
            elif not target.is_file() or target.stat().st_size != size:
                write_whole(target, read())
        for target, content in lists.items():
            write_whole(target, content)
        if not self.has_voc():
            raise DataError(
                f"{archive}: is not all of VOC 2012: after unpacking, images, masks or the lists train, val and "
                f"trainval are missing under {self.root}. Download it again."
            )

    def add_sbd(self, archive: Path) -> None:
        """Adds SBD's masks of images without one, images that are not there, and `trainaug` at the end."""
        images, masks, done = _stems(self.images), _stems(self.masks), _stems(self.aug)
        named: set[str] = set()
        for place, _, read in _files_of(archive, SBD.root):
            if place.name in ("train.txt", "val.txt"):
                named |= set(read().decode(errors="replace").split())
            elif place.suffix == ".mat" and place.parent.name == "cls":
                if place.stem not in masks | done:
                    write_whole(self.aug / f"{place.stem}.png", mask_png(_mask_of(read(), f"{archive}: {place}")))
            elif place.parent.name == "img" and place.stem not in images:
                write_whole(self.images / place.name, read())
        names = sorted((set(self.names("train")) | named) - set(self.names("val")))
        lacking = set(names) - (masks | _stems(self.aug)) or set(names) - _stems(self.images)
        if not named or lacking:
            what = f"mask or image of {min(lacking)} … ({len(lacking)} lack one)" if lacking else "train.txt, val.txt"
            raise DataError(f"{archive}: is not all of SBD, there is no {what}. Download it again.")
        write_whole(self.lists / "trainaug.txt", "".join(f"{name}\n" for name in names).encode())

    def summary(self) -> str:
        """What the image sets hold, and how they differ from those published."""
        train, val, trainaug = (set(self.names(name)) for name in ("train", "val", "trainaug"))
        lines = [
            f"{self.root}: trainaug {len(trainaug):,} images, {len(train & trainaug):,} of them VOC's train; "
            f"val {len(val):,} images"
        ]
        published = {"trainaug": (len(trainaug), TRAINAUG), "val": (len(val), VAL)}
        differing = [
            f"{name} has {found:,} images, not {wanted:,}"
            for name, (found, wanted) in published.items()
            if found != wanted
        ]
        if both := val & trainaug:
            differing.append(f"{len(both):,} images of val are in trainaug too: {min(both)} …")
        if without := train - trainaug:
            differing.append(f"{len(without):,} images of VOC's train are not in trainaug: {min(without)} …")
        return "\n".join(lines + [f"differs from what is published: {each}" for each in differing])


def _stems(folder: Path) -> set[str]:
    return {name.rpartition(".")[0] for name in os.listdir(folder)} if folder.is_dir() else set()


def _mask_of(content: bytes, what: str) -> np.ndarray:
    """The class indices, uint8 (H, W), in one of SBD's `cls/NAME.mat`."""
    from scipy.io import loadmat

    try:
        mask = loadmat(io.BytesIO(content))["GTcls"][0]["Segmentation"][0]
    except Exception as error:  # whatever SciPy raises on a damaged file
        raise DataError(f"{what}: holds no GTcls.Segmentation ({error})") from error
    if not isinstance(mask, np.ndarray) or mask.dtype != np.uint8 or mask.ndim != 2:
        raise DataError(f"{what}: its GTcls.Segmentation holds no class indices of 8 bits")
    return mask


def _files_of(archive: Path, root: PurePosixPath) -> Iterator[tuple[PurePosixPath, int, Callable[[], bytes]]]:
    """Yields (path below `root`, bytes, a function that reads it) of each file of an archive, in its order."""
    from tqdm import tqdm

    total = archive.stat().st_size
    with (
        open(archive, "rb") as file,
        tqdm(total=total, unit="B", unit_scale=True, desc=archive.name, disable=None) as bar,
        _told_of(archive),
        tarfile.open(fileobj=file) as tar,
    ):
        for member in tar:
            bar.update(file.tell() - bar.n)
            place = PurePosixPath(member.name)
            if member.isfile() and place.is_relative_to(root) and ".." not in place.parts:
                yield place.relative_to(root), member.size, functools.partial(_read, archive, tar, member)
        bar.update(total - bar.n)


def _read(archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    with _told_of(archive):
        file = tar.extractfile(member)
        return b"" if file is None else file.read()


@contextlib.contextmanager
def _told_of(archive: Path) -> Iterator[None]:
    """Within it, what goes wrong is the archive's fault."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{archive}: is damaged or cut short ({error}). What was made of it stays; download it again."
        ) from error


def checked(archive: str | Path, official: Archive, accept_other: bool = False) -> Path:
    """The path of an archive that is the official one.

    Args:
        accept_other: another one is accepted, and said.

    Raises:
        DataError: no file, or another one than the official.
    """
    path = Path(archive).expanduser()
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    if found == official.md5:
        return path
    other = f"{path}: is not {official.file} as published: its MD5 is {found}, not {official.md5}"
    if not accept_other:
        raise DataError(f"{other}. Download it again; if another version is meant, --accept-other takes it.")
    print(f"{other}; taken all the same", flush=True)
    return path
