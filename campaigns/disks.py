"""Lets programs meet disks that take no more: full, read-only, with a quota, without a place for temporary files, gone.

python campaigns/disks.py --tries 8 --seed 0

Each program first runs on a good disk; what it wrote there is what it must write. It then runs where that, or part of
it, cannot be written, over a result of an earlier run where it has one. Refused well is: exit code 2, one line, every
file that was there before as it was or whole as it must become, no leftover; and the same command, once there is room,
gives the result it must.

Small disks of their own are mounted in a namespace of this program, for which Linux asks no right (`unshare -rm`).
"""

import argparse
import ctypes
import hashlib
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import command_line
from campaigns import processes
from campaigns.outcome import Outcome, Tally, told
from engine.kinds import NONNEGATIVE_INT, POSITIVE_INT
from tests.short_mobilenet import shortened

NAMESPACE = "SLIM_DEEPLAB_CAMPAIGN_NAMESPACE"  # set in the process that has its own mounts
VARYING = {"log.csv", "report.html", "run.lock"}  # hold times of day or of computation
SECONDS = 240
PRINTED = 16_384  # bytes: more than a program prints, which a quota would stop too


@dataclass(frozen=True)
class Command:
    """A program's call.

    Attributes:
        text: the call, where {data} is what it reads and {out} the folder that it writes to.
        again: whether it may be called over what an earlier call of it wrote.
    """

    text: str
    again: bool = True

    def placed(self, out, data):
        return [word.format(out=out, data=data) for word in self.text.split()]


COMMANDS = {
    "train_seg": Command(
        "train_seg --ckpt none --model mobilenet_v2 --data {data}/voc --crop-size 33 --eval-size 65 --batch-size 2 "
        "--workers 1 --steps 4 --save-every 2 --eval-every 4 --log-every 1 --run-dir {out}/run",
        again=False,
    ),
    "train_cls": Command(
        "train_cls --ckpt none --model mobilenet_v2 --data {data}/shapes --image-size 33 --batch-size 2 --workers 1 "
        "--steps 4 --save-every 2 --eval-every 2 --log-every 1 --run-dir {out}/run",
        again=False,
    ),
    "eval_cls": Command("eval_cls --ckpt {data}/cls/run --data {data}/shapes --json {out}/s.json --csv {out}/s.csv"),
    "predict_cls": Command("predict_cls {data}/pictures --ckpt {data}/cls/run --out {out}/p --probabilities"),
    "export_cls": Command("export_cls --ckpt {data}/cls/run --formats slim,pb,tflite --out {out}/e"),
    "eval_seg": Command(
        "eval_seg --ckpt {data}/run --data {data}/voc --save-pred {out}/pred --json {out}/s.json --csv {out}/s.csv "
        "--sheet {out}/sheet.png --worst {out}/worst.png"
    ),
    "predict_seg": Command("predict_seg {data}/pictures --ckpt {data}/run --out {out}/p --probabilities"),
    "export_seg": Command("export_seg --ckpt {data}/run --formats slim,pb,tflite --out {out}/e"),
    "extract_features": Command(
        "extract_features {data}/pictures --ckpt {data}/run --image-size 64 "
        "--end-point MobilenetV2/expanded_conv_4/output --out {out}/f.npy"
    ),
    "inspect_ckpt": Command("inspect_ckpt {data}/run --json {out}/i.json"),
    "prepare_data sample": Command("prepare_data sample --out {out}/s --train 6 --val 2"),
    "prepare_data pictures": Command(
        "prepare_data pictures --images {data}/voc/JPEGImages --masks {data}/voc/SegmentationClassAug "
        "--classes {data}/voc/ImageSets/Segmentation/classes.txt --out {out}/d",
        again=False,
    ),
    "report_run": Command("report_run {out}/run"),
}


# Disks


def mount(folder):
    """A disk of its own at `folder`."""
    _call("mount", b"none", os.fsencode(folder), b"tmpfs", 0, b"size=1g")


def leave(folder, room):
    """Makes a disk as large as what is on it and so many bytes more."""
    found = os.statvfs(folder)
    size = (found.f_blocks - found.f_bfree) * found.f_frsize + max(room, 1)
    _call("mount", b"none", os.fsencode(folder), b"tmpfs", 32, f"size={size}".encode())  # MS_REMOUNT


def read_only(folder):
    _call("mount", b"none", os.fsencode(folder), b"tmpfs", 32 | 1, None)  # MS_REMOUNT | MS_RDONLY


def unmount(folder):
    _call("umount2", os.fsencode(folder), 2)  # MNT_DETACH


def _call(name, *arguments):
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def in_own_namespace():
    """Calls this program again where it may mount; an exit that says so where the system does not let it."""
    if os.environ.get(NAMESPACE):
        return
    if not shutil.which("unshare"):
        sys.exit("campaigns/disks.py: there is no `unshare` (util-linux) here; nothing was tried")
    os.execvpe("unshare", ["unshare", "-rm", sys.executable, *sys.argv], os.environ | {NAMESPACE: "1"})


# What is in a folder


def tree(folder):
    """{name: SHA-256 of its content, less the folder's own name} of all files but those that vary from run to run."""
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(_content(path, folder)).hexdigest()
        for path in files
        if path.name not in VARYING and "tensorboard" not in path.parts
    }


def _content(path, folder):
    """A file's bytes, less what tells where it is: the folder's name, and the sum over a text with that name."""
    content = path.read_bytes().replace(os.fsencode(folder), b"")
    return re.sub(rb'"sha256": "\w+"\n}$', b"", content) if path.name == "config.json" else content


def size_of(folder):
    return sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in Path(folder).rglob("*"))


def largest_in(folder):
    return max(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def leftovers(folder):
    return [str(path) for path in Path(folder).rglob("*") if ".partial-" in path.name or path.name.endswith(".partial")]


# The campaign


@dataclass
class Campaign:
    """All tries; `data` has what the commands read, `work` is where they write."""

    data: Path
    work: Path
    rng: random.Random
    tries: int
    tally: Tally = field(default_factory=Tally)

    def attack(self, name, command):
        """Every kind of bad disk for one command."""
        good = self.work / "good"
        good.mkdir()
        if name == "report_run":
            shutil.copytree(self.data / "run", good / "run")
        self.run(command, good, must=True)
        wanted, need = tree(good), size_of(good)
        largest = largest_in(good)
        for number in range(self.tries):
            share = (number + self.rng.random()) / self.tries
            earlier = good if command.again and number % 2 else None
            self.on_disk(f"{name}: full disk", command, wanted, int(share * need), earlier)
            self.quota(f"{name}: quota", command, wanted, max(PRINTED, int(share**2 * largest)), earlier)
        self.on_disk(f"{name}: read-only", command, wanted, None, good if command.again else None)
        self.without_temporary_files(f"{name}: no temporary files", command, wanted)
        self.full_output(f"{name}: output to a full device", command, good)
        shutil.rmtree(good)

    def run(self, command, out, must=False, **more):
        process = processes.start(command.placed(out, self.data), patches=shortened, **more)
        try:
            process.wait(SECONDS)
        except TimeoutError as error:
            return Outcome.HANG, str(error)
        outcome = told(process.code, process.said)
        if must and outcome is not Outcome.ACCEPTED:
            raise RuntimeError(f"{command.text}: {process.code}\n{process.out}\n{process.said}")
        return outcome, process.said

    def on_disk(self, row, command, wanted, room, earlier):
        """On a disk of `room` bytes, or a read-only one."""
        disk = self.work / "disk"
        disk.mkdir()
        mount(disk)
        try:
            before = self.fill(disk, earlier, command)
            if room is None:
                read_only(disk)
            else:
                leave(disk, room)
            outcome, said = self.run(command, disk)
            outcome, said = self.judged(disk, before, wanted, outcome, said)
            self.tally.add(row, outcome, f"room {room}, over an earlier result: {earlier is not None}", said)
            if outcome is Outcome.REFUSED and room is not None:
                leave(disk, 1 << 30)
                self.repeat(row, command, disk, wanted)
        finally:
            unmount(disk)
            disk.rmdir()

    def quota(self, row, command, wanted, most, earlier):
        """Where no file may become larger than `most` bytes."""
        disk = self.work / "quota"
        disk.mkdir()
        before = self.fill(disk, earlier, command)

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

        outcome, said = self.run(command, disk, first=limit)
        outcome, said = self.judged(disk, before, wanted, outcome, said)
        self.tally.add(row, outcome, f"quota {most}, over an earlier result: {earlier is not None}", said)
        if outcome is Outcome.REFUSED:
            self.repeat(row, command, disk, wanted)
        shutil.rmtree(disk)

    def without_temporary_files(self, row, command, wanted):
        """Where the folder of temporary files is on a full disk."""
        disk, full = self.work / "out", self.work / "full"
        disk.mkdir()
        full.mkdir()
        mount(full)
        leave(full, 0)
        (full / "filling").touch()
        before = self.fill(disk, None, command)

        def there():
            os.environ["TMPDIR"] = str(full)
            tempfile.tempdir = None

        try:
            outcome, said = self.run(command, disk, first=there)
            outcome, said = self.judged(disk, before, wanted, outcome, said)
            self.tally.add(row, outcome, "", said)
        finally:
            unmount(full)
            full.rmdir()
            shutil.rmtree(disk)

    def full_output(self, row, command, good):
        """Where what it prints goes to a full device."""
        disk = self.work / "out"
        disk.mkdir()
        self.fill(disk, None, command)
        outcome, said = self.run(command, disk, stdout="/dev/full")
        self.tally.add(row, Outcome.OTHER if outcome is Outcome.ACCEPTED else outcome, "", said or "exit code 0")
        shutil.rmtree(disk)

    def fill(self, disk, earlier, command):
        """Copies an earlier result, or what the command is for. → the tree"""
        if earlier is not None:
            shutil.copytree(earlier, disk, dirs_exist_ok=True)
        elif command.text.startswith("report_run"):
            shutil.copytree(self.data / "run", disk / "run", ignore=shutil.ignore_patterns("report.html"))
        return tree(disk)

    def judged(self, disk, before, wanted, outcome, said):
        """The outcome, or what is wrong with what is on the disk."""
        if not outcome.good:
            return outcome, said
        after = tree(disk)
        if left := leftovers(disk):
            return Outcome.OTHER, f"left: {left}\n{said}"
        if outcome is Outcome.ACCEPTED:
            return (outcome, said) if after == wanted else (Outcome.OTHER, f"differs: {different(after, wanted)}")
        lost = [name for name in before if name not in after]
        half = [name for name, found in after.items() if found not in (before.get(name), wanted.get(name))]
        half = [name for name in half if not may_be_behind(name)]
        return (outcome, said) if not lost + half else (Outcome.OTHER, f"lost {lost}, half written {half}\n{said}")

    def repeat(self, row, command, disk, wanted):
        """The same command, now that there is room."""
        outcome, said = self.run(command, disk)
        if outcome is Outcome.ACCEPTED and (tree(disk) != wanted or leftovers(disk)):
            outcome, said = Outcome.OTHER, f"{different(tree(disk), wanted)} {leftovers(disk)}"
        if outcome is Outcome.REFUSED:
            outcome = Outcome.OTHER
        self.tally.add(f"{row}, then room", outcome, "", said)

    # Runs

    def removed(self, command):
        """The run's folder goes while it trains."""
        for number in range(self.tries):
            out = self.work / "removed"
            out.mkdir()
            left = self.rng.randrange(1, 30)

            def at_a_write(event, arguments, left=[left], out=out):  # noqa: B006 - counts
                if event in ("open", "os.rename") and str(out) in str(arguments[0]):
                    left[0] -= 1
                    if left[0] == 0:
                        shutil.rmtree(out / "run", ignore_errors=True)

            outcome, said = self.run(command, out, first=lambda hook=at_a_write: sys.addaudithook(hook))
            self.tally.add("train_seg: folder removed", outcome, f"at write {number}", said)
            shutil.rmtree(out)

    def second(self, command):
        """A second process in a run that another one is training."""
        out = self.work / "shared"
        out.mkdir()
        longer = Command(f"{command.text} --steps 400")
        first = processes.start(longer.placed(out, self.data), patches=shortened)
        while not (out / "run" / "log.csv").exists() and first.poll() is None:
            pass
        outcome, said = self.run(longer, out)
        wrong = outcome is Outcome.ACCEPTED or first.poll() is not None
        self.tally.add("train_seg: second process", Outcome.OTHER if wrong else outcome, "", said)
        first.kill(signal.SIGKILL)
        first.wait()
        shutil.rmtree(out)


def may_be_behind(name):
    """Whether a run's file may be of an earlier step than at its end."""
    return name.startswith("run/")


def different(one, other):
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))[:8]


def prepare(data):
    """What the commands read: a data set, pictures, and a run."""
    drawing = f"prepare_data sample --out {data}/voc --train 8 --val 2".split()
    folders = f"prepare_data sample --kind folder --out {data}/shapes --train 3 --val 1".split()
    trained = COMMANDS["train_seg"].placed(data, data), COMMANDS["train_cls"].placed(data / "cls", data)
    for words in drawing, folders, *trained:
        process = processes.start(words, patches=shortened)
        if process.wait(SECONDS):
            raise RuntimeError(f"{words}\n{process.out}\n{process.said}")
    (data / "pictures").mkdir()
    for picture in sorted((data / "voc" / "JPEGImages").glob("val*")):
        shutil.copy(picture, data / "pictures")


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whole = command_line.argument_type
    parser.add_argument("--tries", type=whole(POSITIVE_INT), default=8, help="sizes of each disk [%(default)s]")
    parser.add_argument("--seed", type=whole(NONNEGATIVE_INT), default=0, help="of the sizes [%(default)s]")
    parser.add_argument("--programs", default="", metavar="NAME,…", help="only those [all]")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_arguments(argv)
    in_own_namespace()
    processes.import_all()
    with tempfile.TemporaryDirectory() as folder:
        data, work = Path(folder, "data"), Path(folder, "work")
        data.mkdir()
        work.mkdir()
        prepare(data)
        campaign = Campaign(data, work, random.Random(args.seed), args.tries)
        wanted = args.programs.split(",") if args.programs else COMMANDS
        chosen = {name: COMMANDS[name] for name in wanted}
        for name, command in chosen.items():
            campaign.attack(name, command)
            print(f"{name}: {sum(counts.total() for counts in campaign.tally.counts.values())} so far", flush=True)
        if "train_seg" in chosen:
            campaign.removed(chosen["train_seg"])
            campaign.second(chosen["train_seg"])
    print(campaign.tally)
    return campaign.tally.exit_code


if __name__ == "__main__":
    sys.exit(main())
