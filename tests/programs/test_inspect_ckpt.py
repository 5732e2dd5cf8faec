import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import command_line
import inspect_ckpt
from errors import UserError
from models.checkpoint import CheckpointError, open_checkpoint, write_checkpoint
from models.mobilenet_v2 import mobilenet_v2
from models.scopes import ScopeError
from models.weight_init import LOADED, MISSING, named_variables, save_checkpoint
from porting import inspection
from tests.golden_networks import GoldenFile

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def mobile_values():
    """{name: array} of the narrowest MobileNet v2 with 5 classes."""
    net = mobilenet_v2(depth_multiplier=0.35, num_classes=5)
    return {name: np.asarray(variable) for name, variable in named_variables(net).items()}


@pytest.fixture
def mobile(mobile_values, tmp_path):
    """Its checkpoint with Momentum slots of two variables and global_step."""
    slots = {f"{name}/Momentum": value for name, value in list(mobile_values.items())[:2]}
    write_checkpoint(tmp_path / "mobile.ckpt", mobile_values | slots | {"global_step": np.int64(3)})
    return tmp_path / "mobile.ckpt"


@pytest.fixture
def pair(tmp_path):
    """A function: two {name: array} → the paths of their checkpoints."""

    def write(a, b):
        for name, tensors in ("a.ckpt", a), ("b.ckpt", b):
            write_checkpoint(tmp_path / name, tensors)
        return str(tmp_path / "a.ckpt"), str(tmp_path / "b.ckpt")

    return write


@pytest.fixture
def inspect(capsys):
    """A function: arguments → (exit code of main, what it printed)."""

    def call(*arguments):
        code = inspect_ckpt.main([str(argument) for argument in arguments])
        return code, capsys.readouterr().out

    return call


@pytest.fixture
def no_model(monkeypatch):
    def build(*_):
        raise AssertionError("a model was built")

    monkeypatch.setattr(inspection, "build", build)


# Listing


def test_a_list_of_scopes_with_bookkeeping_counted(mobile, mobile_values, inspect, no_model):
    code, text = inspect(mobile, "--list")
    lines = [line.split() for line in text.splitlines()]
    values = sum(value.size for value in mobile_values.values())
    slots = sum(value.size for value in list(mobile_values.values())[:2]) + 1
    assert code == 0
    assert text.startswith(f"{mobile}: {len(mobile_values) + 3} variables, {values + slots:,} values, ")
    assert ["MobilenetV2", str(len(mobile_values)), "variables", f"{values:,}", "values"] in lines
    assert ["expanded_conv_16", "15", "variables"] in [line[:3] for line in lines]
    assert text.endswith("optimizer slots and bookkeeping: 3 variables\n  Momentum: 2\n  global_step: 1\n")
    assert text.index("expanded_conv_2 ") < text.index("expanded_conv_10 ")
    assert len(lines) < 30
    assert "!!!" not in text


def test_verbose_lists_every_variable(mobile, mobile_values, inspect, no_model):
    _, text = inspect(mobile, "--list", "--verbose")
    lines = {line.split()[0]: line for line in text.splitlines()[1:]}
    assert lines.keys() >= mobile_values.keys()
    assert "float32 (3, 3, 3, 16)" in lines["MobilenetV2/Conv/weights"]
    assert "int64 ()  (global_step)" in lines["global_step"]


def test_statistics_and_loud_nan(tmp_path, inspect, no_model):
    values = np.array([1, 2, 3, 6], "float32")
    bad = np.array([1, np.nan, np.inf, -np.inf, np.nan], "float32")
    write_checkpoint(tmp_path / "m.ckpt", {"net/w": values, "net/bad": bad, "net/none": np.full(3, np.nan)})
    _, text = inspect(tmp_path / "m.ckpt", "--list", "--verbose", "--stats")
    assert "net/w     float32 (4,)  mean 3  std 1.871  min 1  max 6" in text
    assert "net/none  float64 (3,)  no finite value" in text
    assert "!!! net/bad: 2 NaN, 2 Inf of 5 values" in text
    assert "!!! net/none: 3 NaN, 0 Inf of 3 values" in text
    assert "!!! net/w" not in text


def test_statistics_of_a_scope_are_those_of_all_its_values(tmp_path, inspect):
    rng = np.random.default_rng(0)
    tensors = {f"net/w{i}": rng.normal(i, 1, size=i + 1) for i in range(4)}
    everything = np.concatenate(list(tensors.values()))
    write_checkpoint(tmp_path / "m.ckpt", tensors)
    _, text = inspect(tmp_path / "m.ckpt", "--list", "--stats")
    assert f"mean {everything.mean():.4g}  std {everything.std():.4g}  min {everything.min():.4g}" in text


def test_statistics_of_what_is_no_number(tmp_path, inspect):
    tensors = {"text": np.array(["a", "bc"]), "flag": np.array(True), "empty": np.zeros((0, 2)), "z": np.complex64(1j)}
    write_checkpoint(tmp_path / "m.ckpt", tensors)
    code, text = inspect(tmp_path / "m.ckpt", "--list", "--stats", "--verbose")
    assert code == 0
    assert "flag   bool ()  mean 1" in text
    assert "text   string (2,)\n" in text


# The model and its coverage


def test_the_model_is_told_and_covered(mobile, mobile_values, inspect):
    code, text = inspect(mobile)
    assert code == 0
    assert "model: mobilenet_v2 0.35, 5 classes\n" in text
    assert f"loaded: {len(mobile_values)} variables" in text
    assert text.endswith(f"260/260 backbone variables, {sum_backbone(mobile_values):,} values\n")


def sum_backbone(values):
    return sum(value.size for name, value in values.items() if "/Logits/" not in name)


def test_a_foreign_scope_is_told_and_renamed(mobile_values, tmp_path, inspect):
    foreign = {name.replace("MobilenetV2", "tower/net"): value for name, value in mobile_values.items()}
    write_checkpoint(tmp_path / "m.ckpt", foreign)
    _, text = inspect(tmp_path / "m.ckpt")
    assert "(under the scope tower/net)" in text
    assert text.endswith(f"260/260 backbone variables, {sum_backbone(mobile_values):,} values\n")
    _, text = inspect(tmp_path / "m.ckpt", "--rename", "tower/net=MobilenetV2")
    assert "(under the scope" not in text
    assert text.endswith(f"260/260 backbone variables, {sum_backbone(mobile_values):,} values\n")


def test_another_number_of_classes(mobile, inspect):
    _, text = inspect(mobile, "--num-classes", 7)
    assert "shape mismatch: 2 variables" in text
    assert "MobilenetV2/Logits/Conv2d_1c_1x1/biases  (checkpoint (5,), model (7,); new head)" in text


@pytest.mark.parametrize("name, head", [("mobilenet_v2", 0), ("deeplab_v3/mobilenet_v2", 17)])
def test_a_model_that_is_named(mobile, inspect, tmp_path, name, head):
    code, _ = inspect(mobile, "--model", name, "--json", tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    assert code == 0
    assert document["model"]["segments"] == bool(head)
    assert document["model"]["depth_multiplier"] == 0.35
    assert document["model"]["num_classes"] == (21 if head else 5)
    assert document["coverage"]["counts"][MISSING] == head
    loaded, variables = (document["coverage"]["backbone"][key] for key in ("loaded", "variables"))
    assert loaded == variables == (255 if head else 260)


def test_the_wrong_model_is_covered_by_nothing(mobile, inspect):
    _, text = inspect(mobile, "--model", "resnet_v2_18")
    assert text.endswith("0/100 backbone variables, 0 values\n")


@pytest.mark.parametrize("name", ["resnet_v2_51", "deeplab_v4/resnet_v2_50", "deeplab_v3/"])
def test_an_unknown_model_is_an_error_that_lists_the_known(mobile, inspect, name):
    with pytest.raises(
        UserError, match=f"--model {name}: unknown; there are resnet_v2_18, .*mobilenet_v2, and deeplab"
    ):
        inspect(mobile, "--model", name)


def test_a_checkpoint_of_no_known_model_is_listed_all_the_same(tmp_path, inspect, no_model):
    write_checkpoint(tmp_path / "m.ckpt", {"dense/kernel": np.zeros((2, 3), "float32")})
    code, text = inspect(tmp_path / "m.ckpt")
    assert code == 0
    assert "dense/kernel" in text
    assert "model: not told by the names: no ResNet v1" in text


def test_moving_averages_are_covered_when_asked_for(mobile, mobile_values, tmp_path, inspect):
    with pytest.raises(CheckpointError, match="moving averages were asked for"):
        inspect(mobile, "--ema")
    averages = {f"{name}/ExponentialMovingAverage": value for name, value in mobile_values.items()}
    write_checkpoint(tmp_path / "ema.ckpt", mobile_values | averages)
    inspect(tmp_path / "ema.ckpt", "--ema", "--json", tmp_path / "out.json")
    entries = json.loads((tmp_path / "out.json").read_text())["coverage"]["entries"]
    sources = [entry["source"] for entry in entries if entry["status"] == LOADED]
    assert sorted(sources) == sorted(averages)


def test_a_rename_that_matches_nothing(mobile, inspect):
    with pytest.raises(ScopeError, match="'slim_mobile' matches no variable"):
        inspect(mobile, "--rename", "slim_mobile=MobilenetV2")


def test_real_half_of_a_network(real_checkpoints, inspect):
    _, text = inspect(real_checkpoints / "resnet_v2_50_blocks123.ckpt")
    assert "model: resnet_v2_50, no classifier" in text
    assert "missing in the checkpoint: 49 variables" in text
    assert text.endswith("221/270 backbone variables, 9,101,824 values\n")


# Families

FIELD = ROOT.parent / "shared" / "field"


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """The folder of the checkpoints that `make_checkpoints.py` writes."""
    if not FIELD.is_dir():
        pytest.skip(f"needs {FIELD}")
    folder = tmp_path_factory.mktemp("field")
    done = python(str(FIELD / "make_checkpoints.py"), str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "v3plus",
            ["model: official DeepLab v3+, mobilenet_v2 1, 21 classes\nhead: image pooling, aspp0, separable d"],
        ),
        (
            "sepaspp",
            ["head: image pooling, aspp0, 3 separable atrous branches\nassumed: atrous rates 6, 12, 18, output"],
        ),
        ("emaonly", ["moving averages: all there is (272 variables); ", "loaded: 272 variables"]),
        (
            "twice",
            ["model: not told by the names: several networks", "--model MobilenetV2 or --model accum/Mobilenet"],
        ),
        ("tower", ["(under the scope tower_0/MobilenetV2)\nhead: image pooling, aspp0\n", "loaded: 272 variables"]),
        ("extra", ["without a place in this network: 1: mystery_branch/weights (nothing that is known here)"]),
    ],
)
def test_checkpoints_of_the_field_are_told_as_what_they_are(field, inspect, name, said):
    code, text = inspect(field / name)
    assert code == 0
    for words in said:
        assert words in text


@pytest.mark.parametrize("place", ["MobilenetV2", "accum"])
def test_one_of_two_networks_is_named_by_its_place(field, inspect, place):
    code, text = inspect(field / "twice", "--model", place, "--verbose")
    assert code == 0
    assert "loaded: 272 variables" in text and "255/255 backbone variables" in text
    assert ("logits/semantic/biases  from accum/logits/semantic/biases" in text) == (place == "accum")


def test_a_place_that_is_not_there_is_told_with_those_that_are(field, inspect):
    with pytest.raises(UserError, match=r"--model tower: unknown; .* the checkpoint: it has MobilenetV2 .* accum/Mob"):
        inspect(field / "twice", "--model", "tower")


def test_real_index_alone(shared_data, inspect, tmp_path):
    index = shared_data / "old_graphs" / "deeplabv3_mnv2_pascal_trainval_published.index"
    code, text = inspect(index, "--json", tmp_path / "out.json")
    assert code == 0
    assert f"{index}: 437 variables" in text and "  Momentum: 164\n  global_step: 1\n" in text
    assert "model: official DeepLab v3, mobilenet_v2 1, 21 classes\n" in text
    assert "assumed: output stride 16 (names cannot tell; see --output-stride)\n" in text
    assert "loaded: 272 variables" in text
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["assumed"].startswith("output stride 16")
    assert document["model"]["family"] == "official" and document["model"]["config"]["upsampling"] == "align-corners"
    assert document["model"]["text"] == "official DeepLab v3, mobilenet_v2 1, 21 classes"


def test_an_index_alone_has_no_statistics(mobile, inspect):
    Path(f"{mobile}.data-00000-of-00001").unlink()
    code, text = inspect(f"{mobile}.index")
    assert code == 0 and "model: mobilenet_v2 0.35, 5 classes" in text
    with pytest.raises(CheckpointError, match="only names and shapes are here"):
        inspect(f"{mobile}.index", "--stats")
    with pytest.raises(CheckpointError, match="data-00000-of-00001 is missing"):
        inspect(mobile, "--against", mobile)


def test_real_frozen_graph_is_a_checkpoint(shared_data, inspect):
    code, text = inspect(shared_data / "old_graphs" / "deeplabv3_mnv2_dm05_portrait_frozen.pb", "--stats")
    assert code == 0
    assert "model: official DeepLab v3, mobilenet_v2 0.5, 2 classes\n" in text
    assert "loaded: 272 variables" in text and "!!!" not in text


def test_a_network_that_this_project_lacks_is_named(tmp_path, inspect, no_model):
    units = [f"entry_flow/block{block}/unit_1" for block in (1, 2, 3)]
    units += [f"middle_flow/block1/unit_{unit}" for unit in range(1, 17)]
    tensors = {f"dense_net/{unit}/xception_module/separable_conv1_depthwise/depthwise_weights": [0.0] for unit in units}
    tensors |= {"meta_architecture/cell/weights": [0.0], "meta_architecture/weights": [0.0]}
    tensors |= {"logits/semantic/weights": np.zeros((1, 1, 256, 19), "float32")}
    write_checkpoint(tmp_path / "m.ckpt", tensors)
    code, text = inspect(tmp_path / "m.ckpt", "--json", tmp_path / "out.json")
    assert code == 0
    said = (
        "this is official DeepLab v3 on xception_65 with a dense prediction cell, 19 classes; this project has no such"
    )
    assert f"model: {said}" in text
    assert f"model: {said}" in inspect(tmp_path / "m.ckpt", "--model", "dense_net")[1]
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["model"] is None and document["coverage"] is None and document["untold"].startswith(said)


def test_heads_of_the_peers_are_covered_under_their_names():
    checkpoint = SimpleNamespace(path="peer", prefix="peer", shapes=GoldenFile("rishizek_v3_os16").shapes)
    identity, untold = inspection.told(checkpoint, {})
    assert (str(identity), untold) == ("rishizek's DeepLab v3, resnet_v2_50, 21 classes", "")
    assert inspection.head_parts(identity) == "image pooling, aspp0, 3 atrous branches"
    report = inspection.coverage(checkpoint, identity)
    assert report.counts[LOADED] == len(checkpoint.shapes.keys() - {"global_step"})
    assert not inspection.homeless(report)
    sources = {entry.variable: entry.source for entry in report.entries}
    assert sources["aspp0/weights"] == "aspp/conv_1x1/weights"


def test_moving_averages_are_proposed(mobile_values, tmp_path, inspect):
    averages = {f"{name}/ExponentialMovingAverage": value for name, value in mobile_values.items()}
    write_checkpoint(tmp_path / "ema.ckpt", mobile_values | averages)
    proposed = f"moving averages: of {len(averages)} variables; every program takes them with --ema\n"
    assert proposed in inspect(tmp_path / "ema.ckpt")[1]
    assert proposed not in inspect(tmp_path / "ema.ckpt", "--ema")[1]


# Comparison


def test_equal_checkpoints(pair, inspect, no_model):
    tensors = {"net/w": np.array([1, np.nan, -0.0], "float32"), "step": np.int64(3), "text": np.array(["a"])}
    code, text = inspect(*with_against(pair(tensors, tensors)))
    assert code == 0
    assert "equal bit for bit: 3\nA and B are equal\n" in text


def with_against(paths):
    return paths[0], "--against", paths[1]


def test_every_kind_of_difference(pair, inspect, tmp_path, no_model):
    base = np.arange(12, dtype="float32").reshape(3, 4)
    moved = base.copy()
    moved[1, 2] += 0.5
    moved[2, 3] -= 2
    a = {"same": base, "a_only": base, "shape": base, "type": base, "moved": base, "text": np.array(["a", "b"])}
    b = {"same": base, "b_only": base, "shape": base.T, "type": base.astype("float64"), "moved": moved}
    b["text"] = np.array(["a", "c"])
    code, text = inspect(*with_against(pair(a, b)), "--json", tmp_path / "out.json")
    assert code == 1
    assert "only in A: 1\n  a_only\n" in text
    assert "only in B: 1\n  b_only\n" in text
    assert "shape  A float32 (3, 4), B float32 (4, 3)" in text
    assert "type  A float32 (3, 4), B float64 (3, 4)" in text
    assert "different values: 2\n  moved  2 of 12 values differ, max |Δ| 2 at [2, 3]: A 11, B 9\n" in text
    assert "text  1 of 2 values differ" in text
    assert text.endswith("equal bit for bit: 1\nA and B differ\n")
    comparison = json.loads((tmp_path / "out.json").read_text())["comparison"]
    assert (comparison["same"], comparison["only_first"], comparison["equal"]) == (False, ["a_only"], ["same"])


@pytest.mark.parametrize(
    "a, b, said",
    [
        (1.0, np.nan, "max |Δ| inf at []: A 1, B nan"),
        (0.0, -0.0, "1 of 1 values differ, max |Δ| 0 at []: A 0, B -0"),
        (np.inf, -np.inf, "max |Δ| inf"),
        (np.int64(2**62), np.int64(2**62 + 1), f"A {2**62}, B {2**62 + 1}"),
        (np.array(True), np.array(False), "max |Δ| 1 at []: A True, B False"),
    ],
)
def test_differences_that_subtraction_alone_would_miss(pair, inspect, a, b, said, tmp_path):
    code, text = inspect(*with_against(pair({"x": a}, {"x": b})), "--json", tmp_path / "out.json")
    assert code == 1
    assert said in text
    # no NaN and no Infinity, which JSON does not have
    json.loads((tmp_path / "out.json").read_text(), parse_constant=pytest.fail)


def test_the_largest_difference_stands_first_and_ten_are_shown(pair, inspect):
    a = {f"v{i}": np.zeros(2) for i in range(12)}
    b = {f"v{i}": np.full(2, i + 1.0) for i in range(12)}
    _, text = inspect(*with_against(pair(a, b)))
    shown = [line.split()[0] for line in text.splitlines() if "max |Δ|" in line]
    assert shown == [f"v{i}" for i in range(11, 1, -1)]
    assert "… and 2 more (--verbose)" in text
    _, text = inspect(*with_against(pair(a, b)), "--verbose")
    assert text.count("max |Δ|") == 12


def test_comparison_after_a_rename(pair, inspect):
    paths = with_against(pair({"old/w": np.ones(2)}, {"new/w": np.ones(2)}))
    assert inspect(*paths)[0] == 1
    assert inspect(*paths, "--rename", "old=new")[0] == 0
    with pytest.raises(ScopeError):
        inspect(*paths, "--rename", "nothing=new")


def test_a_rename_that_makes_one_name_of_two(pair):
    first, second = pair({"a/w": np.ones(2), "b/w": np.ones(2)}, {"b/w": np.ones(2)})
    with open_checkpoint(first) as a, open_checkpoint(second) as b, pytest.raises(CheckpointError, match="both be b/w"):
        inspection.compare(a, b, {"a": "b"})


def test_a_saved_model_and_its_copy_are_equal(tiny_resnet, tmp_path, inspect):
    for name in "a.ckpt", "b.ckpt":
        save_checkpoint(tiny_resnet, tmp_path / name, global_step=1)
    assert inspect(tmp_path / "a.ckpt", "--against", tmp_path / "b.ckpt")[0] == 0
    tiny_resnet.weights[0].assign_add(np.full(tiny_resnet.weights[0].shape, 1e-3))
    save_checkpoint(tiny_resnet, tmp_path / "b.ckpt", global_step=1)
    code, text = inspect(tmp_path / "a.ckpt", "--against", tmp_path / "b.ckpt")
    assert code == 1
    assert "different values: 1\n" in text


# JSON, and the command line


def test_json_holds_all_of_it(mobile, mobile_values, inspect, tmp_path):
    inspect(mobile, "--stats", "--json", tmp_path / "new" / "out.json")
    document = json.loads((tmp_path / "new" / "out.json").read_text())
    found = {variable["name"]: variable for variable in document["variables"]}
    assert found.keys() >= mobile_values.keys()
    weights = mobile_values["MobilenetV2/Conv/weights"]
    assert found["MobilenetV2/Conv/weights"]["bytes"] == weights.nbytes
    assert found["MobilenetV2/Conv/weights"]["statistics"]["max"] == weights.max()
    assert found["global_step"]["kind"] == "global_step"
    assert document["model"]["backbone"] == "mobilenet_v2"
    assert document["coverage"]["counts"][LOADED] == len(mobile_values)
    assert document["comparison"] is None


def test_a_json_file_that_cannot_be_written(mobile, inspect, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--json .*: cannot be written"):
        inspect(mobile, "--list", "--json", tmp_path / "file" / "out.json")


def test_a_users_mistake_exits_with_2_and_no_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["inspect_ckpt.py", str(tmp_path / "nothing.ckpt")])
    with pytest.raises(SystemExit) as stop:
        command_line.run(inspect_ckpt.main)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'nothing.ckpt'}: no such checkpoint\n"


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_script_itself(pair):
    paths = with_against(pair({"w": np.zeros(2)}, {"w": np.ones(2)}))
    done = python("inspect_ckpt.py", *paths)
    assert done.returncode == 1, done.stderr
    assert "max |Δ| 1 at [0]: A 0, B 1" in done.stdout
    assert "Traceback" not in done.stderr


def test_help_imports_nothing_heavy():
    script = """
import sys, inspect_ckpt
try:
    inspect_ckpt.main(["--help"])
finally:
    assert not {"tensorflow", "keras", "numpy"} & sys.modules.keys()
"""
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert "0 when both are equal and 1 when they differ" in " ".join(done.stdout.split())
