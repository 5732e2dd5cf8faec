"""Nothing is written past `files/writing.py`, and nothing that the project wrote is read past `files/records.py`.

A call that writes is within a `with` of one of the guards, in its own function, or its place is listed here with the
reason why it need not be; so is what reads JSON, CSV or text.
"""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
ROOMS = ("models", "data", "engine", "inference", "training", "porting", "exporting")
GUARDS = {f"files.writing.{name}" for name in ("writing", "beside", "folder_in", "temporary_folder")}

MODES = {
    "open": 1,
    "io.open": 1,
    "gzip.open": 1,
    "bz2.open": 1,
    "lzma.open": 1,
    "tarfile.open": 1,
    "zipfile.ZipFile": 1,
}
WRITERS = re.compile(
    r"os\.(open|fdopen|replace|renames?|link|symlink|mkdir|makedirs|mkfifo|remove|unlink|rmdir|removedirs|truncate)"
    r"|shutil\.(copy\w*|move|rmtree|make_archive|unpack_archive)|tempfile\.\w+"
    r"|numpy\.(save\w*|memmap)|cv2\.(imwrite\w*|VideoWriter|FileStorage)|(json|pickle|marshal)\.dump"
    r"|tensorflow\.(saved_model\.save|io\.(write_file|TFRecordWriter|gfile\.\w+)|raw_ops\.Save\w*"
    r"|summary\.create_file_writer|train\.Checkpoint)"
    r"|.*\.visualize_embeddings"
)
METHODS = {"write_text", "write_bytes", "mkdir", "unlink", "rmdir", "touch", "rename", "symlink_to", "hardlink_to",
           "chmod", "tofile", "save", "save_weights", "savefig", "to_csv", "extract", "extractall"}  # fmt: skip
READERS = re.compile(
    r"json\.loads?|msgspec\.\w+\.decode|csv\.(reader|DictReader)|(pickle|marshal)\.loads?|numpy\.load\w*"
)

MEMORY, NAMES = "writes into memory", "renames variables, no file"
WITHIN = "what calls it in its module is guarded"  # a test sees to it
FORMAT = "is called as an entry of FORMATS, which is guarded"  # so does another
DOWNLOAD = "`_download` says what the system refuses, and the next call goes on with what came"
WRITTEN = {
    "command_line.py:_drop_output": "/dev/null",
    "data/prepare/layout.py:_write_samples": WITHIN,
    "data/voc.py:mask_png": MEMORY,
    "engine/charts.py:_png": MEMORY,
    "engine/download.py:_download": DOWNLOAD,
    "engine/download.py:_fetch_rest": DOWNLOAD,
    "engine/download.py:_resuming.downloader": DOWNLOAD,
    "engine/download.py:alone": "a DownloadError of its own, which names the cache",
    "engine/run_directory.py:RunDirectory.start": "ignores what cannot be removed",
    "inference/prediction.py:_VideoWriter.write": WITHIN,
    "inference/submission.py:Submission.__enter__": "within `beside`, which `__exit__` ends",
    "models/checkpoint.py:_flush": WITHIN,
    "models/checkpoint.py:_linked": WITHIN,
    "models/identify.py:_described": NAMES,
    "models/identify.py:_family_of": NAMES,
    "models/weight_init.py:Rules.renamed": NAMES,
    "models/weight_init.py:Rules.targets": NAMES,
    "exporting/export.py:_move": WITHIN,
    "porting/graph_names.py:Names.renamed": NAMES,
    "exporting/huggingface.py:write_huggingface": FORMAT,
    "exporting/keras_file.py:write_keras": FORMAT,
    "exporting/lite.py:_write": FORMAT,
    "exporting/onnx.py:write_onnx": FORMAT,
    "exporting/onnx.py:write_onnx_int8": FORMAT,
    "exporting/saved_model.py:write_frozen": FORMAT,
    "training/callbacks.py:RunKeeper._close_window": "`RunDirectory.save`, which is guarded",
    "training/callbacks.py:RunKeeper._stop": "`RunDirectory.save`, which is guarded",
    "training/comparison.py:_plot": MEMORY,
    "training/distribution.py:DataParallel.__init__": "/dev/null",
    "training/report.py:_chart": MEMORY,
    "training/report.py:_predictions": MEMORY,
}
INSIDE = "of a whole export, by its checksum"
READ = {
    "data/imagenet.py:_rows": "a file of the program",
    "data/prepare/annotations.py:_parsed": "a user's annotations, against a schema",
    "data/prepare/pictures.py:read_colours": "a user's colour map, a line of it",
    "engine/run_data.py:RunData.read": "data.csv, whose SHA-256 is in config.json",
    "engine/run_directory.py:RunDirectory.__init__": "what it wrote itself into memory",
    "inference/networks.py:KerasExport._open": INSIDE,
    "inference/networks.py:TorchExport._open": INSIDE,
    "inference/networks.py:TransformersExport._open": INSIDE,
    "inference/runtimes.py:FrozenExport._open": INSIDE,
    "inference/runtimes.py:OnnxExport._open": INSIDE,
    "inference/runtimes.py:SavedModelExport._open": INSIDE,
    "inference/runtimes.py:_inside_lite": INSIDE,
    "exporting/torch_program.py:trace": "what `write_torch` has just written",
    "training/report.py:_page": "a file of the program",
}


def modules() -> list[Path]:
    return sorted([*HOUSE.glob("*.py"), *(path for room in ROOMS for path in (HOUSE / room).rglob("*.py"))])


def imported(tree: ast.AST) -> dict[str, str]:
    """{name in this module: what it is in full}, of imports anywhere in it."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def in_full(node: ast.expr, names: dict[str, str]) -> str:
    """`np.save` → "numpy.save"; empty for what is neither a name nor an attribute of what was imported."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "open" if node.id == "open" else "")
    if isinstance(node, ast.Attribute) and (owner := in_full(node.value, names)):
        return f"{owner}.{node.attr}"
    return ""


def may_write(call: ast.Call, place: int) -> bool:
    """Whether the mode of an `open`, its argument at `place`, is one that writes, or none that is written out."""
    modes = [*call.args[place : place + 1], *(word.value for word in call.keywords if word.arg == "mode")]
    return any(not isinstance(mode, ast.Constant) or set(str(mode.value)) & set("wax+") for mode in modes)


def writes(node: ast.AST, names: dict[str, str]) -> bool:
    """Whether it is a function that writes, be it called or handed on, or the call of an object's method that does."""
    if isinstance(node, ast.Attribute | ast.Name):
        return bool(WRITERS.fullmatch(in_full(node, names)))
    if not isinstance(node, ast.Call):
        return False
    if (full := in_full(node.func, names)) in MODES:
        return may_write(node, MODES[full])
    method = method_of(node, full)
    if method == "replace":  # a text's takes two
        return len(node.args) == 1 and not node.keywords
    return may_write(node, 0) if method == "open" else method in METHODS


def reads(node: ast.AST, names: dict[str, str]) -> bool:
    if isinstance(node, ast.Attribute | ast.Name):
        return bool(READERS.fullmatch(in_full(node, names)))
    return isinstance(node, ast.Call) and method_of(node, in_full(node.func, names)) == "read_text"


def method_of(call: ast.Call, full: str) -> str:
    """The method's name where it is one of an object's, or of `Path` by the class."""
    is_method = isinstance(call.func, ast.Attribute) and (not full or full.startswith("pathlib."))
    return call.func.attr if is_method else ""


def nodes(node: ast.AST, names: dict[str, str], within: str = "", guarded: bool = False) -> Iterator[tuple]:
    """Yields (node, the function it is in, whether it is guarded there); what is called later is not guarded."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        name = getattr(node, "name", "lambda")
        within, guarded = f"{within}.{name}".lstrip("."), False
    elif isinstance(node, ast.With | ast.AsyncWith):
        for item in node.items:
            yield from nodes(item, names, within, guarded)
            opened = item.context_expr
            guarded = guarded or (isinstance(opened, ast.Call) and in_full(opened.func, names) in GUARDS)
        for inner in node.body:
            yield from nodes(inner, names, within, guarded)
        return
    yield node, within, guarded
    for inner in ast.iter_child_nodes(node):
        yield from nodes(inner, names, within, guarded)


def past_the_guards(text: str, file: str) -> dict[str, list[str]]:
    """{file:function: [line: call]} of what writes unguarded."""
    return places(text, file, writes, lambda guarded: not guarded)


def read_past(text: str, file: str) -> dict[str, list[str]]:
    return places(text, file, reads, lambda guarded: True)


def places(text, file, matches, counts) -> dict[str, list[str]]:
    tree = ast.parse(text)
    names, found = imported(tree), {}
    for node, within, guarded in nodes(tree, names):
        if counts(guarded) and matches(node, names):
            found.setdefault(f"{file}:{within}", []).append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@functools.cache
def in_the_house(kind) -> dict[str, list[str]]:
    found = {}
    for path in modules():
        found |= kind(path.read_text("utf-8"), path.relative_to(HOUSE).as_posix())
    return found


@pytest.mark.parametrize(("kind", "allowed"), [(past_the_guards, WRITTEN), (read_past, READ)])
def test_nothing_goes_past_the_guards(kind, allowed):
    found = in_the_house(kind)
    assert {place: lines for place, lines in found.items() if place not in allowed} == {}
    assert allowed.keys() <= found.keys(), "these are listed and need not be"


@pytest.mark.parametrize("place", [place for place, reason in WRITTEN.items() if reason == WITHIN])
def test_what_is_handed_a_guarded_path_is_called_nowhere_else(place):
    file, _, function = place.partition(":")
    name = function.partition(".")[0]
    tree = ast.parse((HOUSE / file).read_text("utf-8"))
    used = [
        guarded for node, _, guarded in nodes(tree, imported(tree)) if isinstance(node, ast.Name) and node.id == name
    ]
    assert name.startswith("_") and used and all(used)


def test_formats_are_written_within_a_guard():
    call = r"(?<!def )write_(?:frozen|huggingface|keras|onnx|saved_model|tflite|torch)\("
    found = {path: re.findall(call, path.read_text("utf-8")) for path in modules()}
    assert {path.name: calls for path, calls in found.items() if calls}.keys() <= {"formats.py"}
    tree = ast.parse((HOUSE / "exporting" / "export.py").read_text("utf-8"))
    used = [guarded for node, _, guarded in nodes(tree, imported(tree))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "FORMATS[name].write"]  # fmt: skip
    assert used == [True]


@pytest.mark.parametrize(
    "line",
    [
        "path.write_text('x')",
        "open(path, 'ab')",
        "open(path, mode)",
        "path.open('x')",
        "os.replace(a, b)",
        "map(os.remove, paths)",
        "move(a, b)",
        "a.replace(b)",
        "Path.unlink(path)",
        "np.save(path, x)",
        "tempfile.mkdtemp()",
        "tf.io.write_file(path, x)",
    ],
)
def test_what_writes_is_seen_unless_it_is_guarded(line):
    imports = (
        "import os, tempfile\nimport numpy as np\nimport tensorflow as tf\nfrom pathlib import Path\n"
        "from shutil import move\nfrom files.writing import beside, writing\n"
    )
    assert list(past_the_guards(f"{imports}def f():\n {line}", "a.py")) == ["a.py:f"]
    assert list(past_the_guards(f"{imports}def f():\n with {line}, writing(path): pass", "a.py")) == ["a.py:f"]
    assert list(past_the_guards(f"{imports}with beside(path):\n def f(): {line}", "a.py")) == ["a.py:f"]
    assert not past_the_guards(f"{imports}def f():\n with beside(path): {line}", "a.py")
    assert not past_the_guards(f"{imports}def f():\n with writing(path), {line}: pass", "a.py")


@pytest.mark.parametrize("line", ["open(path)", "open(path, 'rb')", "text.replace('a', 'b')", "replace(options, a=1)"])
def test_what_reads_does_not_write(line):
    assert not past_the_guards(f"import os\nfrom dataclasses import replace\n{line}", "a.py")


@pytest.mark.parametrize("line", ["json.load(file)", "json.loads(text)", "csv.DictReader(file)", "path.read_text()"])
def test_what_reads_a_record_is_seen(line):
    assert read_past(f"import csv, json\n{line}", "a.py").keys() == {"a.py:"}
