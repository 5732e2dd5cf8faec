"""What is told of a checkpoint, what is assumed and can be said otherwise, and what refuses to load."""

import json
import shutil
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.options import Architecture, Opening
from engine.run_directory import RunDirectory, RunError, run_of
from errors import UserError
from inference.opening import (
    Told,
    asked_of,
    build_segmenter,
    head_in_order,
    load_segmenter,
    open_segmenter,
    segmenter_of,
    segmenter_to_train,
)
from models.checkpoint import open_checkpoint, write_checkpoint
from models.deeplab_v3 import BACKBONES, deeplab_v3
from models.identify import Identity
from models.layers import without_variables
from models.preprocessing import preprocessing_of, slims_preprocessing
from models.weight_init import named_variables, save_checkpoint
from tests.golden_networks import GoldenFile, OpenWeights

MOBILE = {"backbone": "mobilenet_v2", "num_classes": 3, "depth_multiplier": 0.35}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A small DeepLab under the official names: its checkpoint, its {name: array}."""
    model = deeplab_v3(**MOBILE)
    prefix = tmp_path_factory.mktemp("official") / "model.ckpt-7"
    save_checkpoint(model, prefix)
    return prefix, {name: np.asarray(v) for name, v in named_variables(model).items()}


def values_of(opened):
    return {name: np.asarray(variable) for name, variable in named_variables(opened.model).items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_what_names_cannot_tell_is_said_in_one_line(official):
    told = segmenter_of(official[0])
    assert told.introduction().splitlines() == [
        "model: official DeepLab v3, mobilenet_v2 0.35, 3 classes",
        "assumed: output stride 16 (names cannot tell; see --output-stride)",
    ]
    assert segmenter_of(official[0], architecture=Architecture(output_stride=8)).assumed == ""


def test_what_a_family_assumes_can_be_said_otherwise():
    weights = OpenWeights("x.ckpt", GoldenFile("official_resnet_v1_50_plain").weights)
    told = segmenter_of(weights)
    assert told.assumed == (
        "multi-grid none, mean (123.15, 115.90, 103.06), atrous rates 6, 12, 18, output stride 16 "
        "(names cannot tell; see --multi-grid, --mean, --atrous-rates, --output-stride)"
    )
    said = Architecture(multi_grid=(1, 2, 4), mean=(1, 2, 3), bgr=True, atrous_rates=(1, 2, 3), upsampling="tf1")
    config = segmenter_of(weights, architecture=said).config
    assert (config["multi_grid"], config["atrous_rates"], config["upsampling"]) == ((1, 2, 4), (1, 2, 3), "tf1")
    fed = preprocessing_of(config["preprocessing"])
    assert (fed.mean, fed.scale, fed.order) == ((1, 2, 3), 1.0, "BGR")
    assert segmenter_of(weights, architecture=said).assumed == (
        "output stride 16 (names cannot tell; see --output-stride)"
    )


def test_no_multi_grid_is_a_multi_grid_of_ones():
    assert asked_of(Architecture(multi_grid=()), {"backbone": "resnet_v2_50"}) == {"multi_grid": (1, 1, 1)}
    assert asked_of(Architecture(multi_grid=()), {"backbone": "resnet_v2_18"}) == {"multi_grid": (1, 1)}


def test_a_mean_alone_is_subtracted_and_no_more():
    asked = asked_of(Architecture(mean=(1, 2, 3)), {"backbone": "mobilenet_v2"})
    fed = preprocessing_of(asked["preprocessing"])
    assert (fed.mean, fed.scale) == ((1, 2, 3), 1.0)
    asked = asked_of(Architecture(preprocessing="unit-range", bgr=True), {"backbone": "resnet_v1_50"})
    fed = preprocessing_of(asked["preprocessing"])
    assert (fed.mean, fed.order) == ((127.5, 127.5, 127.5), "BGR")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_slims_preprocessing_is_what_each_network_says(backbone):
    small = {"depth_multiplier": 0.35} if backbone.startswith("mobilenet_v2") else {}
    if small or backbone in ("resnet_v2_18", "resnet_v1_50"):  # one of a kind: building takes its time
        assert BACKBONES[backbone](**small).preprocessing == preprocessing_of(slims_preprocessing(backbone))


@pytest.fixture
def constant(official):
    """The same, opened to be used alone."""
    with without_variables():
        return open_segmenter(official[0])


@pytest.mark.parametrize("eager", [False, True])
def test_opened_without_variables_it_predicts_the_same_to_the_bit(official, constant, eager):
    image = np.random.default_rng(0).integers(0, 256, (65, 49, 3), np.uint8)
    expected = open_segmenter(official[0]).predictor(eager=eager)
    found = constant.predictor(eager=eager)
    for _ in range(2):
        assert np.array_equal(found.probabilities(image), expected.probabilities(image))
        assert np.array_equal(found.labels(image), expected.labels(image))
    made = [isinstance(weight._value, tf.Variable) for weight in constant.model.weights]
    assert not any(made) if eager else all(made)  # for a graph Keras makes some after all
    assert_same(values_of(constant), official[1])


def test_constants_are_the_same_in_every_thread_and_scope(official, constant):
    found = []
    thread = threading.Thread(target=lambda: found.append(values_of(constant)))
    thread.start()
    thread.join()
    with keras.StatelessScope(initialize_variables=False):
        found.append(values_of(constant))
    with keras.StatelessScope():  # whose end makes variables of whatever is none
        pass
    found.append(values_of(constant))
    for values in found:
        assert_same(values, official[1])


def test_a_constant_that_is_not_restored_is_an_error_and_the_end_of_it():
    with pytest.raises(RuntimeError, match="MobilenetV2/Conv/weights was not restored"), without_variables():
        deeplab_v3(**MOBILE)
    with pytest.raises(KeyError), without_variables():
        deeplab_v3(**MOBILE)
        raise KeyError
    with keras.StatelessScope():  # whose end makes variables of whatever is none
        pass


def test_averages_alone_are_the_weights(official, tmp_path):
    averages = {f"{name}/ExponentialMovingAverage": value for name, value in official[1].items()}
    write_checkpoint(tmp_path / "x.ckpt", averages)
    assert_same(values_of(open_segmenter(tmp_path / "x.ckpt")), official[1])
    assert_same(values_of(open_segmenter(tmp_path / "x.ckpt", Opening(ema=True))), official[1])


def test_averages_beside_the_weights_are_proposed(official, tmp_path):
    averages = {f"{name}/ExponentialMovingAverage": value + 1 for name, value in official[1].items()}
    write_checkpoint(tmp_path / "x.ckpt", official[1] | averages)
    raw, averaged = (open_segmenter(tmp_path / "x.ckpt", Opening(ema=ema)) for ema in (False, True))
    assert_same(values_of(raw), official[1])
    assert_same(values_of(averaged), {name: value + 1 for name, value in official[1].items()})
    assert "--ema takes them" in raw.introduction() and "--ema" not in averaged.introduction()


def test_a_tower_is_the_whole_network(official, tmp_path):
    write_checkpoint(tmp_path / "x.ckpt", {f"tower_0/{name}": value for name, value in official[1].items()})
    assert_same(values_of(open_segmenter(tmp_path / "x.ckpt")), official[1])


def test_of_two_networks_one_is_to_be_named(official, tmp_path):
    copies = {f"accum/{name}": 0 * value for name, value in official[1].items()}
    write_checkpoint(tmp_path / "x.ckpt", official[1] | copies)
    with pytest.raises(UserError, match="say which with --model MobilenetV2 or --model accum/MobilenetV2"):
        open_segmenter(tmp_path / "x.ckpt")
    assert_same(values_of(open_segmenter(tmp_path / "x.ckpt", Opening(model="MobilenetV2"))), official[1])
    accumulated = values_of(open_segmenter(tmp_path / "x.ckpt", Opening(model="accum")))
    assert not any(value.any() for value in accumulated.values())


@pytest.mark.parametrize(
    ("name", "shape", "part"),
    [
        ("decoder/decoder_conv1_pointwise/weights", (1, 1, 256, 256), "decoder"),
        ("aspp1_pointwise/weights", (1, 1, 112, 256), "aspp1_pointwise"),
        ("mystery_branch/weights", (1, 1, 256, 48), "mystery_branch"),
    ],
)
def test_what_the_network_would_leave_out_refuses(official, tmp_path, name, shape, part):
    write_checkpoint(tmp_path / "x.ckpt", official[1] | {name: np.zeros(shape, "float32")})
    with pytest.raises(UserError, match=part):
        open_segmenter(tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=part):
        segmenter = segmenter_to_train(None, 3, str(tmp_path / "x.ckpt"), {}, Architecture(), all_of_it=True)
        from inference.opening import load_segmenter

        load_segmenter(tmp_path / "x.ckpt", segmenter)


def test_what_is_known_to_be_harmless_does_not(official, tmp_path):
    more = {
        "global_step": np.int64(7),
        "MobilenetV2/Conv/weights/Momentum": official[1]["MobilenetV2/Conv/weights"],
        "MobilenetV2/Logits/Conv2d_1c_1x1/weights": np.zeros((1, 1, 1280, 1001), "float32"),
        "MobilenetV2/Conv/weights_quant/min": np.float32(0),
    }
    write_checkpoint(tmp_path / "x.ckpt", official[1] | more)
    assert_same(values_of(open_segmenter(tmp_path / "x.ckpt")), official[1])


def test_leftovers_that_are_allowed_by_name(official, tmp_path):
    write_checkpoint(tmp_path / "x.ckpt", official[1] | {"mystery/weights": np.zeros((1, 1, 2, 2), "float32")})
    assert_same(values_of(open_segmenter(tmp_path / "x.ckpt", Opening(allow_unused=("mystery",)))), official[1])
    with pytest.raises(UserError, match="allow-unused scope 'other' matches no variable"):
        open_segmenter(tmp_path / "x.ckpt", Opening(allow_unused=("mystery", "other")))


@pytest.fixture
def run(official, tmp_path):
    """A run directory whose settings names cannot tell."""
    folder = tmp_path / "run"
    run = RunDirectory(folder, {"eval_size": 65, "steps": 7})
    run.open()
    run.start(MOBILE | {"output_stride": 8, "upsampling": "half-pixel", "preprocessing": "mean-subtracted"}, "abc")
    run.close()
    for file in official[0].parent.glob("model.ckpt-7.*"):
        shutil.copy(file, folder)
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
    return folder


def assert_opened_as_the_run(opened):
    model = opened.model
    assert (model.output_stride, model.upsampling, model.preprocessing.mean[0]) == (8, "half-pixel", 123.68)
    assert (opened.class_names, opened.crop_size, opened.told.assumed) == (("a", "b", "c"), 65, "")


def test_config_json_alone_makes_a_folder_a_run(run, tmp_path):
    assert_opened_as_the_run(open_segmenter(run))
    (run / "run.lock").unlink()
    shutil.copytree(run, tmp_path / "copy")
    assert_opened_as_the_run(open_segmenter(tmp_path / "copy"))
    assert_opened_as_the_run(open_segmenter(tmp_path / "copy/model.ckpt-7"))
    assert_opened_as_the_run(open_segmenter(tmp_path / "copy/model.ckpt-7.index"))


def test_home_is_where_tilde_says(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.parent))
    assert_opened_as_the_run(open_segmenter("~/run"))


def test_a_checkpoint_copied_out_of_a_run_says_what_is_assumed(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for file in run.glob("model.ckpt-7.*"):
        shutil.copy(file, tmp_path / "elsewhere")
    opened = open_segmenter(tmp_path / "elsewhere/model.ckpt-7")
    assert opened.model.upsampling == "align-corners"
    assert opened.told.assumed.startswith("output stride 16")


def test_config_json_of_another_program_makes_no_run(official, tmp_path):
    for file in official[0].parent.glob("model.ckpt-7.*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["MobileNetV2"]}))
    assert run_of(tmp_path / "model.ckpt-7") is None
    (tmp_path / "log.csv").write_text("step,loss\n")
    with pytest.raises(RunError, match=r"config\.json: cannot be read as a run's configuration"):
        run_of(tmp_path / "model.ckpt-7")


def test_other_checkpoints_in_a_run_are_not_the_run_s(run):
    assert run_of(run / "pretrained.ckpt") is None
    assert run_of(run / "pretrained/model.ckpt-7") is None
    assert run_of(run / "best/model.ckpt-7") == run


def test_runs_of_before_are_opened_as_they_were(run):
    config = json.loads((run / "config.json").read_text())
    del config["model"]["upsampling"], config["sha256"]
    (run / "config.json").write_text(json.dumps(config | {"model": config["model"] | {"align_corners": False}}))
    assert_opened_as_the_run(open_segmenter(run))


def test_training_from_a_segmenter_begins_with_its_own_architecture():
    weights = OpenWeights("x.ckpt", GoldenFile("sthalles_os16").weights)
    told = segmenter_to_train(None, 5, weights, {}, Architecture(output_stride=16))
    expected = {"num_classes": 5, "features": "block4", "head_activation": "none", "upsampling": "tf1"}
    assert told.config | expected == told.config


@pytest.fixture
def of_three(tmp_path):
    """A run of three classes, and what is told of it."""
    run = RunDirectory(tmp_path / "three", {})
    run.open()
    run.start({"backbone": "none"}, ["background", "cat", "dog"])
    run.close()
    return str(run.path), Told({}, Identity("resnet_v2_18", "resnet_v2_18", num_classes=3, segments=True))


def test_a_head_s_classes_are_put_in_the_data_s_order_by_name(of_three):
    path, told = of_three
    ordered = head_in_order(told, path, ("dog", "background", "cat")).translation
    logits = np.arange(6.0).reshape(1, 1, 2, 3)  # columns: background, cat, dog
    assert ordered.values("logits/semantic/weights", logits).tolist() == [[[[2, 0, 1], [5, 3, 4]]]]
    assert ordered.values("logits/semantic/biases", np.array([10, 11, 12])).tolist() == [12, 10, 11]
    assert ordered.words("logits/semantic/biases") == "classes put in the data's order"
    assert head_in_order(told, path, ("background", "cat", "dog")) is told


def test_lite_r_aspp_s_classes_are_put_in_order_too(tmp_path):
    config = {"backbone": "mobilenet_v3_small_seg", "num_classes": 3, "output_stride": 16, "head": "lr-aspp"}
    run = RunDirectory(tmp_path, {"eval_size": 65, "steps": 7})
    run.start(config, "abc")
    save_checkpoint(build_segmenter(config), tmp_path / "model.ckpt-7")
    told = segmenter_of(tmp_path / "model.ckpt-7")
    images = np.random.default_rng(0).uniform(-1, 1, (1, 65, 65, 3)).astype("float32")
    plain, ordered = (
        np.asarray(load_segmenter(tmp_path / "model.ckpt-7", each)[0](images))
        for each in (told, head_in_order(told, tmp_path / "model.ckpt-7", ("c", "a", "b")))
    )
    np.testing.assert_array_equal(ordered, plain[..., [2, 0, 1]])


def test_a_head_of_as_many_other_classes_is_said(of_three):
    path, told = of_three
    assumed = head_in_order(told, path, ("background", "sheep", "cow")).assumed
    assert "background, cat, dog, become the data's, background, sheep, cow, by number" in assumed
    assert head_in_order(told, path, ("background", "sheep")) is told  # its logits do not fit, and are new


def test_a_network_that_cannot_be_built_is_a_user_s_mistake():
    with pytest.raises(UserError, match=r"resnet_v2_50: multi_grid needs one factor .*Received: \(1, 2\)"):
        build_segmenter({"backbone": "resnet_v2_50", "num_classes": 2, "multi_grid": (1, 2)})
    with pytest.raises(UserError, match="a MobileNet has no block4"):
        build_segmenter(MOBILE | {"multi_grid": (1, 2, 4)})


def test_portrait_network_as_checkpoint_and_as_frozen_graph(shared_data):
    checkpoint = shared_data / "checkpoints/deeplabv3_mnv2_dm05_portrait.ckpt"
    opened = open_segmenter(checkpoint)
    assert str(opened.told.identity) == "official DeepLab v3, mobilenet_v2 0.5, 2 classes"
    assert_same(
        values_of(open_segmenter(shared_data / "old_graphs/deeplabv3_mnv2_dm05_portrait_frozen.pb")), values_of(opened)
    )


@pytest.fixture(scope="module")
def field(shared_data, tmp_path_factory):
    """Checkpoints of kinds that people reported, as `make_checkpoints.py` writes them."""
    folder = tmp_path_factory.mktemp("field")
    script = shared_data.parent / "field/make_checkpoints.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v3plus", "all it has of decoder is decoder/decoder_conv1_pointwise/weights"),
        ("sepaspp", "all it has of aspp1_depthwise is aspp1_depthwise/depthwise_weights"),
        ("extra", r"mystery_branch/weights \(nothing that is known here\)"),
        ("twice", "say which with --model"),
    ],
)
def test_checkpoints_from_the_field_refuse(field, name, message):
    with pytest.raises(UserError, match=message):
        open_segmenter(field / name / "model.ckpt-1")


@pytest.mark.parametrize(("name", "how"), [("emaonly", {}), ("tower", {}), ("twice", {"model": "MobilenetV2"})])
def test_checkpoints_from_the_field_load(field, real_checkpoints, name, how):
    found = values_of(open_segmenter(field / name / "model.ckpt-1", Opening(**how)))
    with open_checkpoint(real_checkpoints / "deeplabv3_mnv2_pascal_trainval.ckpt") as original:
        assert_same(found, {name: original.read(name) for name in found})
