"""What the benchmarks share: contestants in processes of their own that take turns, and how the outcome is told.

The parent lets one contestant at a time do one piece of work, A B C A B C …, so that whatever else the machine does
falls on all alike: quote the ratios, not the seconds.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def add_arguments(parser, contestants, size, rounds):
    """Adds the flags that every benchmark has, with their defaults."""
    parser.add_argument("--contestants", type=lambda text: text.split(","), default=contestants)
    parser.add_argument("--size", type=int, default=size, help="height and width of the images in pixels")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--torch-python", type=Path, metavar="PATH", help="an interpreter that has torch and numpy")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")


def check_arguments(parser, args, titles):
    """Ends with a usage error where `args` cannot be meant; `titles` is {contestant: what the table calls it}."""
    if unknown := set(args.contestants) - set(titles):
        parser.error(f"--contestants: unknown {', '.join(sorted(unknown))}; there are {', '.join(titles)}")
    if min(args.size, args.rounds) < 1:
        parser.error(f"--size {args.size} and --rounds {args.rounds} must be 1 or more")
    if any(map(needs_torch, args.contestants)) and not args.torch_python:
        parser.error("--contestants torch needs --torch-python PATH, an interpreter of an environment with torch")
    if args.torch_python and not args.torch_python.is_file():
        parser.error(f"--torch-python: there is no {args.torch_python}")
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(f"--out: there is no folder {args.out.parent}")


def needs_torch(contestant):
    return contestant.startswith("torch")


# The worker: one contestant, told through stdin what to do; each answer is one line of JSON.


def answer_stream():
    """What the answers go to; from now on stdout is stderr, for what a library prints must not get between them."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def serve(commands, answers):
    """Answers the parent until it closes the pipe; `commands` is {name: function without arguments}."""
    for line in sys.stdin:
        print(json.dumps(commands[line.strip()]()), file=answers)


def seconds_of(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# The parent: starts the workers, lets them take turns, and tells what came out.


class Worker:
    """A contestant's process: `script --worker CONTESTANT SETTINGS…`, alive within a `with`."""

    def __init__(self, script, contestant, settings, torch_python=None, backend="tensorflow", root=ROOT):
        python = torch_python.absolute() if needs_torch(contestant) else sys.executable
        environment = {"PYTHONPATH": str(root), "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # JAX leaves the others their part of a GPU
        self.contestant = contestant
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self.process = subprocess.Popen(
            [python, script, "--worker", contestant, *map(str, settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=os.environ | environment,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # the end of its input ends the worker
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def ask(self, command):
        """The worker's answer to one of its commands; ends the program with the worker's stderr where it died."""
        try:
            print(command, file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.errors.seek(0)
            raise SystemExit(f"{self.contestant} ended at '{command}':\n{self.errors.read()[-3000:]}")
        return json.loads(answer)

    def cpu_seconds(self):
        """CPU time of the process so far; 0 where there is no /proc."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        if not stat.exists():
            return 0.0
        return sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def compete(workers, rounds, rest=0):
    """Builds all contestants, then lets them take turns.

    Args:
        workers: {contestant: Worker}, which answers "build" with {"version", "parameters" (int, or None where a format
            does not tell), "note"} and "step" with the seconds that it took.
        rest: seconds before each turn, in which threads that spin after theirs fall asleep.

    Returns:
        {contestant: what it answered to "build"}, {contestant: seconds of each round}, and the share of a CPU that the
        waiting workers burnt meanwhile.
    """
    with ExitStack() as stack:
        for worker in workers.values():
            stack.enter_context(worker)
        facts = _build_all(workers)
        seconds, idle = _take_turns(workers, rounds, rest)
    return facts, seconds, idle


def _build_all(workers):
    facts = {}
    for name, worker in workers.items():  # one after the other: their compilers want the whole machine, too
        facts[name] = worker.ask("build")
        print(f"{name}: {facts[name]['note']}", file=sys.stderr)
    counts = {name: fact["parameters"] for name, fact in facts.items() if fact["parameters"] is not None}
    if len(set(counts.values())) > 1:
        counts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise SystemExit(f"these are not the same network, trainable parameters differ: {counts}")
    return facts


def _take_turns(workers, rounds, rest):
    seconds = {name: [] for name in workers}
    idle = wall = 0.0
    for _ in range(rounds):
        for name, worker in workers.items():
            time.sleep(rest)
            waiting = [other for other in workers.values() if other is not worker]
            before = sum(other.cpu_seconds() for other in waiting)
            seconds[name].append(worker.ask("step"))
            idle += sum(other.cpu_seconds() for other in waiting) - before
            wall += seconds[name][-1]
        print("  ".join(f"{name} {times[-1]:.3f} s" for name, times in seconds.items()), file=sys.stderr)
    return seconds, idle / wall


def table(what, titles, facts, seconds, against):
    """Lines of a Markdown table: seconds of one `what`, and the median ratio to contestant `against`."""
    lines = [
        f"| | {what}, median (s) | min–max (s) | times {titles[against]} | trainable parameters |",
        "|---|---|---|---|---|",
    ]
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds[against], strict=True))
        parameters = facts[name]["parameters"]
        lines.append(
            f"| {titles[name]} ({facts[name]['version']}) | {statistics.median(times):.3f} "
            f"| {min(times):.3f}–{max(times):.3f} | {ratio:.2f} | {'' if parameters is None else f'{parameters:,}'} |"
        )
    return lines


def load_before():
    """Processes that wanted a core in the last minute; to be asked before the first worker starts."""
    return os.getloadavg()[0]


def circumstances(load, idle):
    """Lines that say where and in what company the figures were measured."""
    yield (
        f"On {hardware()}, Python {platform.python_version()}, commit {git_commit()}. "
        f"Load before the run {load:.1f}; the waiting processes took {idle:.1%} of a core."
    )
    if load > 0.5:
        yield "The machine was busy: not figures to quote. (Spinning OpenMP threads suffer more than others.)"


def hardware():
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    values = dict(line.replace("\t", "").split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    model = values.get("model name", platform.processor() or platform.machine()).strip()
    flags = [flag for flag in values.get("flags", "").split() if flag in ("avx2", "avx512f", "amx_tile", "amx_bf16")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {model} ({' '.join(flags) or 'flags unknown'})"


def git_commit():
    def git(*command):
        done = subprocess.run(["git", "-C", ROOT, *command], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    return f"{commit}-dirty" if git("status", "--porcelain") else commit


def publish(lines, out):
    """Prints the lines, and writes them to the file `out` where that is not None."""
    report = "\n".join(lines) + "\n"
    print(report, end="")
    if out:
        out.write_text(report)
