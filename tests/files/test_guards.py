"""Nothing goes past the guards: who writes is within one of files/writing.py, who reads our own files uses records."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("models", "data", "engine", "inference", "training", "porting")
MODULES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))] + sorted(ROOT.glob("*.py"))

GUARDS = {"writing", "beside", "folder_in", "temporary_folder"}  # of files/writing.py
WRITES = {
    *("write_text", "write_bytes", "mkdir", "makedirs", "touch", "unlink", "rmdir", "rmtree", "symlink", "symlink_to"),
    *("copyfile", "copytree", "move", "savez", "savetxt", "imwrite", "VideoWriter", "TFRecordWriter", "SaveV2"),
    *("mkdtemp", "mkstemp", "TemporaryDirectory", "TemporaryFile", "NamedTemporaryFile"),
}
# What is called within a guard, or has one of its own; each says why.
GUARDED_ELSEWHERE = {
    "engine/download.py": "goes on with what came before: its own errors, DownloadError",
    "engine/published.py": "removes what it has just unpacked, within the lock of download.py",
    "engine/run_directory.py": "removes what an attempt without a step left; a failure is met by the next writing",
    "inference/prediction.py": "the video writer's file is one of `beside`, and its frames are counted",
    "porting/lite.py": "writers of export.export, which gives them a folder of folder_in",
    "porting/onnx.py": "writers of export.export",
    "porting/saved_model.py": "writers of export.export",
    "porting/export.py": "_move is called within folder_in",
    "inference/submission.py": "an archive whose path `beside` gave",
    "training/distribution.py": "writes to /dev/null",
    "data/prepare/layout.py": "_write_samples is called within folder_in",
    "models/checkpoint.py": "links in a folder of temporary_folder; checkpoints within writing",
    "training/tensorboard.py": "a table in memory",
}
READS = {("json", "load"), ("json", "loads"), ("csv", "reader"), ("csv", "DictReader"), ("np", "load")}
READ_ELSEWHERE = {
    "engine/run_data.py": "of a text that files/records.py has read",
    "engine/run_directory.py": "arguments as JSON would give them: nothing is read",
    "inference/runtimes.py": "what stands inside an export, whose checksum was looked at",
    "data/prepare/pictures.py": "a user's colour table, read by data/content.py",
}


def calls(tree):
    """Yields (call, whether it is lexically within a guard)."""

    def walk(node, guarded):
        if isinstance(node, ast.With):
            names = {_name(item.context_expr.func) for item in node.items if isinstance(item.context_expr, ast.Call)}
            guarded = guarded or bool(names & GUARDS)
        if isinstance(node, ast.Call):
            yield node, guarded
        for child in ast.iter_child_nodes(node):
            yield from walk(child, guarded)

    yield from walk(tree, False)


def _name(function):
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _writes(call):
    name = _name(call.func)
    if name in ("open", "fdopen"):
        modes = [a.value for a in [*call.args[1:], *(k.value for k in call.keywords)] if isinstance(a, ast.Constant)]
        return any(isinstance(mode, str) and set(mode) & set("wax+") for mode in modes)
    moved = name in ("replace", "rename") and isinstance(call.func, ast.Attribute) and _name(call.func.value) == "os"
    return name in WRITES or moved


def unguarded(tree):
    """The calls that write outside a guard."""
    return [ast.unparse(call)[:80] for call, guarded in calls(tree) if _writes(call) and not guarded]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_whoever_writes_does_it_within_a_guard(path):
    if path.relative_to(ROOT).as_posix() not in GUARDED_ELSEWHERE:
        assert not unguarded(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_our_own_files_are_read_by_records(path):
    if path.relative_to(ROOT).as_posix() not in READ_ELSEWHERE:
        found = [
            ast.unparse(call)[:80]
            for call, _ in calls(ast.parse(path.read_text()))
            if isinstance(call.func, ast.Attribute) and (_name(call.func.value), call.func.attr) in READS
        ]
        assert not found


def test_no_exception_is_out_of_use():
    for name in GUARDED_ELSEWHERE:
        assert unguarded(ast.parse((ROOT / name).read_text())), name
    assert all((ROOT / name).is_file() for name in READ_ELSEWHERE)


PAST = """
with open("x") as f, writing("x"):
    open("x", "w")
open("y", "wb")
p.write_text("x")
os.replace(a, b)
"a".replace("a", "b")
"""


def test_what_goes_past_is_seen():
    assert unguarded(ast.parse(PAST)) == ["open('y', 'wb')", "p.write_text('x')", "os.replace(a, b)"]
