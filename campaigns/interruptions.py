"""Kills programs, repeats the same commands until they are done, and compares what comes out with what nobody killed.

python campaigns/interruptions.py --kills 1000 --seed 0

A kill is SIGKILL, SIGTERM or SIGINT, at a random moment or before a random file operation (opened for writing, renamed,
removed, made) of a program or of what it does in the folder of temporary files. One to four kills follow each other,
then the command runs to its end. Then all that it wrote must be equal to the bit; a run's log and its TensorBoard have
each step once, in order, with the values that they must have; and nothing half-written is left anywhere.
"""

import csv
import functools
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import command_line
from campaigns import processes
from campaigns.disks import COMMANDS, different, leftovers, prepare, tree
from campaigns.outcome import Outcome, Tally
from engine.kinds import NAMES, NONNEGATIVE_INT, POSITIVE_INT
from tests.short_mobilenet import shortened

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONGEST_CHAIN = 4
CLOCKED = {"images_per_second", "seconds"}
SECONDS = 240
# TensorFlow's, removed at the end of a process that has one; and the file by which Python tries that folder out.
THEIRS = re.compile(r"__autograph_generated_file|\w{8}$")
KILLED = {name: command for name, command in COMMANDS.items() if name not in ("inspect_ckpt", "report_run")}


def counting(folders, fire_at=0, number=signal.SIGKILL, told=None):
    """Hooks into file operations within `folders` of this process; before the operation `fire_at` it signals itself."""
    state = {"count": 0}

    def hook(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")) and any(
            folder in str(arguments[0]) for folder in folders
        ):
            state["count"] += 1
            if told is not None:
                told.write_text(str(state["count"]))
            if state["count"] == fire_at:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)


class Attack:
    """One command, what it must write, and its kills."""

    def __init__(self, name, command, data, work, rng):
        self.name, self.command, self.data, self.work, self.rng = name, command, data, work, rng
        good = work / "good" / name
        good.mkdir(parents=True)
        counted = work / "counted"
        began = time.perf_counter()
        self.run(good, first=functools.partial(counting, [str(good), str(good) + "-tmp"], told=counted), must=True)
        self.seconds = time.perf_counter() - began
        self.operations = int(counted.read_text())
        counted.unlink()
        self.wanted, self.log, self.events = results(good), log_of(good), events_of(good)

    def start(self, out, first=lambda: None):
        temporary = Path(f"{out}-tmp")
        temporary.mkdir(exist_ok=True)

        def prepared():
            os.environ["TMPDIR"], tempfile.tempdir = str(temporary), None
            first()

        return processes.start(self.command.placed(out, self.data), patches=shortened, first=prepared)

    def run(self, out, first=lambda: None, must=False):
        process = self.start(out, first)
        process.wait(SECONDS)
        if must and process.code:
            raise RuntimeError(f"{self.command.text}: {process.code}\n{process.out}\n{process.said}")
        return process

    def chain(self, number, tally, kills):
        """Adds one to `kills` kills and what came of them to the tally → how many there were."""
        out = self.work / f"{self.name.replace(' ', '_')}-{number}"
        out.mkdir()
        done, told = 0, []
        try:
            for _ in range(min(kills, self.rng.randint(1, LONGEST_CHAIN))):
                process, said = self.killed(out)
                told.append(f"{said}: {process.code}")
                done += 1
                if self.was_done(process):
                    break
                if wrong := self.wrong_end(process, said):
                    tally.add(self.name, wrong, " then ".join(told), process.said)
                    return done
                if process.code == 0:
                    break
            process = self.run(out)
            outcome, why = self.judged(out, process)
        except TimeoutError as error:
            outcome, why = Outcome.HANG, str(error)
        for _ in range(done):
            tally.add(self.name, outcome, " then ".join(told), why)
        shutil.rmtree(out)
        shutil.rmtree(f"{out}-tmp")
        return done

    def killed(self, out):
        """→ (the process that was killed, or was done before; what was done to it)"""
        number = self.rng.choice(SIGNALS)
        if self.rng.random() < 0.6:
            at = self.rng.randint(1, self.operations)
            places = [str(out), f"{out}-tmp"]
            process = self.start(out, functools.partial(counting, places, at, number))
            process.wait(SECONDS)
            return process, f"{number.name} before operation {at}"
        process, moment = self.start(out), self.rng.random() * 1.1 * self.seconds
        deadline = time.monotonic() + moment
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        if process.poll() is None:
            process.kill(number)
            process.wait(SECONDS)
        return process, f"{number.name} after {moment:.2f} s"

    def wrong_end(self, process, said):
        """What is wrong with how a process ended; None where nothing is."""
        number = signal.Signals[said.split()[0]]
        if process.code in (0, -number if number == signal.SIGKILL else 128 + number):
            stopped = process.said.count("stopped by") == (process.code > 0)
            return None if stopped and "Traceback" not in process.said else Outcome.TRACEBACK
        # Before the program listens, a signal ends the process as it does any.
        return None if process.code == -number and not process.said else Outcome.TRACEBACK

    def was_done(self, process):
        """Whether a data set was refused because the one before it, killed or not, had written it."""
        return process.code == 2 and "is not empty" in process.said and "prepare_data" in self.name

    def judged(self, out, process):
        if process.code and not self.was_done(process):
            return Outcome.TRACEBACK, f"{process.code}: {process.said}"
        if (found := results(out)) != self.wanted:
            return Outcome.OTHER, f"differs: {different(found, self.wanted)}"
        if log_of(out) != self.log:
            return Outcome.OTHER, f"log: {log_of(out)}\nnot {self.log}"
        if events_of(out) != self.events:
            return Outcome.OTHER, f"events: {events_of(out)}\nnot {self.events}"
        temporary = [name for name in os.listdir(f"{out}-tmp") if not THEIRS.match(name)]
        if left := leftovers(out) + temporary:
            return Outcome.OTHER, f"left: {left}"
        return Outcome.ACCEPTED, ""


def results(out):
    """`tree`, of a run's last checkpoint alone: where a signal stopped it, another earlier one is kept."""
    found = tree(out)
    steps = [int(name.split("-")[1].split(".")[0]) for name in found if name.startswith("run/model.ckpt-")]
    earlier = [f"run/model.ckpt-{step}." for step in steps if step < max(steps)]
    return {
        name: content
        for name, content in found.items()
        if name != "run/checkpoint" and not any(map(name.startswith, earlier))
    }


def log_of(out):
    """The rows of a run's log but for the clock's columns."""
    path = out / "run" / "log.csv"
    rows = csv.DictReader(path.read_text().splitlines()) if path.exists() else ()
    return [{name: text for name, text in row.items() if name not in CLOCKED} for row in rows]


def events_of(out):
    """{tag: [(step, value)]} as TensorBoard shows a run, but for the clock's."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = out / "run" / "tensorboard"
    if not folder.exists():
        return {}
    shown = EventAccumulator(str(folder), {"tensors": 0})
    shown.Reload()
    found = {}
    for tag in shown.Tags()["tensors"]:
        if tag not in CLOCKED:
            found[tag] = [(event.step, event.tensor_proto.SerializeToString()) for event in shown.Tensors(tag)]
    return found


def work_off(names, data, work, kills, seed, minutes):
    """Attacks until there were so many kills or the time is over → Tally"""
    rng, tally, number = random.Random(seed), Tally(), 0
    work.mkdir()
    attacks = [Attack(name, KILLED[name], data, work, rng) for name in names]
    deadline, done = time.monotonic() + 60 * minutes, 0
    while done < kills and time.monotonic() < deadline:
        done += attacks[number % len(attacks)].chain(number, tally, kills - done)
        number += 1
    return tally


def parse_arguments(argv=None):
    parser = command_line.ProgramParser(__doc__)
    whole = command_line.argument_type
    parser.add_argument("--kills", type=whole(POSITIVE_INT), default=1000, help="[%(default)s]")
    parser.add_argument("--minutes", type=whole(POSITIVE_INT), default=120, help="at most [%(default)s]")
    parser.add_argument("--jobs", type=whole(POSITIVE_INT), default=2, help="at once [%(default)s]")
    parser.add_argument("--seed", type=whole(NONNEGATIVE_INT), default=0, help="[%(default)s]")
    parser.add_argument("--programs", type=whole(NAMES), default=tuple(KILLED), metavar="NAME,…", help="[all]")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_arguments(argv)
    processes.import_all()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        data.mkdir()
        prepare(data)
        share = -(-args.kills // args.jobs)
        jobs = [
            functools.partial(
                work_off, args.programs, data, Path(folder, f"work{number}"), share, args.seed + number, args.minutes
            )
            for number in range(args.jobs)
        ]
        tally = Tally.of(processes.in_processes(jobs, Path(folder)))
    print(tally)
    return tally.exit_code


if __name__ == "__main__":
    command_line.run(main)
