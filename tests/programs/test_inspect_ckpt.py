import json
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import command_line
import inspect_ckpt
from errors import UserError
from models.checkpoint import CheckpointError, open_checkpoint, write_checkpoint
from models.deeplab_v3 import BACKBONES
from models.mobilenet_v2 import mobilenet_v2
from models.scopes import ScopeError
from models.weight_init import LOADED, MISSING, UNUSED, named_variables, save_checkpoint
from porting import difference, inspection

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
    known = "it has MobilenetV2 .*networks of this project are resnet_v2_18, .*mobilenet_edgetpu, and deeplab_v3/"
    with pytest.raises(UserError, match=f"--model {name}: no {name} in this checkpoint; {known}"):
        inspect(mobile, "--model", name)


def test_a_checkpoint_of_no_known_model_is_listed_all_the_same(tmp_path, inspect, no_model):
    write_checkpoint(tmp_path / "m.ckpt", {"dense/kernel": np.zeros((2, 3), "float32")})
    code, text = inspect(tmp_path / "m.ckpt")
    assert code == 0
    assert "dense/kernel" in text
    assert "model: not told by the names: no ResNet v1" in text


@pytest.mark.parametrize("model", [(), ("--model", "xception_65"), ("--model", "xception_65/entry_flow")])
def test_a_network_that_this_project_lacks_is_called_by_its_name(tmp_path, inspect, no_model, model, monkeypatch):
    monkeypatch.delitem(BACKBONES, "xception_65")
    unit = "xception_65/{}/unit_{}/xception_module/separable_conv1_depthwise/depthwise_weights"
    names = [unit.format("entry_flow/block1", 1), unit.format("middle_flow/block1", 16)]
    tensors = {name: np.zeros((3, 3, 4, 1), "float32") for name in names}
    tensors |= {"image_pooling/weights": np.zeros((1, 1, 4, 4)), "logits/semantic/weights": np.zeros((1, 1, 4, 7))}
    write_checkpoint(tmp_path / "m.ckpt", tensors)
    if model[1:] == ("xception_65/entry_flow",):
        with pytest.raises(UserError, match="it has xception_65 "):
            inspect(tmp_path / "m.ckpt", *model)
        return
    code, text = inspect(tmp_path / "m.ckpt", *model)
    assert code == 0
    assert text.startswith(f"{tmp_path / 'm.ckpt'}: 4 variables")
    assert "model: this is official DeepLab v3 on xception_65, 7 classes; this project has no such network" in text


def test_moving_averages_are_covered_when_asked_for(mobile, mobile_values, tmp_path, inspect):
    with pytest.raises(CheckpointError, match="moving averages were asked for"):
        inspect(mobile, "--ema")
    averages = {f"{name}/ExponentialMovingAverage": value for name, value in mobile_values.items()}
    write_checkpoint(tmp_path / "ema.ckpt", mobile_values | averages)
    inspect(tmp_path / "ema.ckpt", "--ema", "--json", tmp_path / "out.json")
    entries = json.loads((tmp_path / "out.json").read_text())["coverage"]["entries"]
    assert "--ema takes them" in inspect(tmp_path / "ema.ckpt")[1]
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


MNV2 = "mobilenet_v2 1, 21 classes"
TRAINVAL = "deeplabv3_mnv2_pascal_trainval"


@pytest.fixture(scope="module")
def field_checkpoints(shared_data, tmp_path_factory):
    """The folder of six checkpoints whose names say more than that all variables are loaded."""
    script = shared_data.parent / "field" / "make_checkpoints.py"
    if not script.is_file():
        pytest.skip(f"needs {script}")
    folder = tmp_path_factory.mktemp("field")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), str(folder)])
        runpy.run_path(str(script))
    return folder


@pytest.mark.parametrize(
    "name, model, told, said, counts",
    [
        ("v3plus", None, f"official DeepLab v3+, {MNV2}", "assumed: output stride 16 (names", (273, 24, 0)),
        ("sepaspp", None, f"official DeepLab v3, {MNV2}", "assumed: atrous rates 6, 12, 18, output", (278, 24, 0)),
        ("emaonly", None, f"official DeepLab v3, {MNV2}", "moving averages alone: they are taken", (272, 0, 0)),
        ("twice", "MobilenetV2", f"official DeepLab v3, {MNV2}", "of another network, accum", (272, 0, 272)),
        ("twice", "accum", f"official DeepLab v3, {MNV2} (under the scope accum/Mob", "  from accum/", (272, 0, 272)),
        ("tower", None, f"official DeepLab v3, {MNV2} (under the scope tower_0/", "  from tower_0/", (272, 0, 0)),
        ("extra", None, f"official DeepLab v3, {MNV2}", "unused in the checkpoint: 1 variables", (272, 0, 1)),
    ],
)
def test_what_names_say_is_told(field_checkpoints, inspect, tmp_path, name, model, told, said, counts):
    options = ["--model", model] if model else []
    code, text = inspect(field_checkpoints / name, "--json", tmp_path / "out.json", *options)
    document = json.loads((tmp_path / "out.json").read_text())
    assert code == 0
    assert f"\nmodel: {told}" in text
    assert said in text
    assert tuple(document["coverage"]["counts"][status] for status in (LOADED, MISSING, UNUSED)) == counts
    assert document["identity"]["text"].startswith(told)
    assert document["assumed"]["output_stride"] == 16


def test_one_of_several_networks_has_to_be_named(field_checkpoints, inspect, tmp_path, no_model):
    code, text = inspect(field_checkpoints / "twice", "--json", tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    assert code == 0
    assert "model: not told by the names: several networks" in text
    assert text.endswith("say which with --model MobilenetV2 or --model accum/MobilenetV2\n")
    assert document["identity"] is None
    assert "several networks" in document["problem"]


def test_averages_alone_stand_in_the_tree(field_checkpoints, inspect, no_model):
    _, text = inspect(field_checkpoints / "emaonly", "--list")
    assert "  MobilenetV2         255 variables" in text
    assert "bookkeeping" not in text


def test_names_alone_tell_the_network(shared_data, real_checkpoints, inspect, tmp_path):
    index = shared_data / "old_graphs" / f"{TRAINVAL}_published.index"
    _, text = inspect(index, "--json", tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    kinds = Counter(variable["kind"] for variable in document["variables"])
    assert kinds == {None: 272, "Momentum": 164, "global_step": 1}
    assert text.startswith(f"{index}: 437 variables")
    assert "names and shapes alone" in text
    assert f"\nmodel: official DeepLab v3, {MNV2}\n" in text
    assert document["coverage"]["counts"][LOADED] == 272
    for asked in ("--stats",), ("--against", real_checkpoints / f"{TRAINVAL}.ckpt"):
        with pytest.raises(CheckpointError, match="data-00000-of-00001 is missing"):
            inspect(index, *asked)


@pytest.mark.parametrize("rename", [(), ("--rename", "MobilenetV2=net/MobilenetV2")])
def test_a_frozen_graph_tells_its_output_stride(shared_data, inspect, tmp_path, rename):
    graph = shared_data / "old_graphs" / "deeplabv3_mnv2_dm05_portrait_frozen.pb"
    _, text = inspect(graph, "--json", tmp_path / "out.json", *rename)
    document = json.loads((tmp_path / "out.json").read_text())
    assert "\nmodel: official DeepLab v3, mobilenet_v2 0.5, 2 classes" in text
    assert "assumed" not in text
    assert document["assumed"] == {}
    assert document["identity"]["config"]["output_stride"] == 8
    assert document["coverage"]["counts"][LOADED] == 272


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
        difference.compare(a, b, {"a": "b"})


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
    with pytest.raises(UserError, match=r"file/out.json: cannot be written"):
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
