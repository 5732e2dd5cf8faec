import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import checkpoint as checkpoint_module
from models.checkpoint import CheckpointError, write_checkpoint
from models.scopes import ScopeError
from models.weight_init import (
    AVERAGE,
    BOOKKEEPING,
    CLASSES,
    EXCLUDED,
    LOADED,
    MISMATCH,
    MISSING,
    UNUSED,
    Report,
    Rules,
    bookkeeping_kind,
    checkpoint_guided_init,
    checkpoint_guided_plan,
    model_guided_init,
    model_guided_plan,
    named_variables,
    natural_order,
    save_checkpoint,
)
from tests.conftest import assert_same, read_all

GUIDED_INITS = pytest.mark.parametrize("init", [checkpoint_guided_init, model_guided_init])
GUIDED_PLANS = pytest.mark.parametrize("plan", [checkpoint_guided_plan, model_guided_plan])


# Pure plans over {name: shape}

SEGMENTS = ["net", "a", "b", "block1", "block10", "w", "Momentum", "global_step", "ExponentialMovingAverage", "²"]
names = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4).map("/".join)
shapes = st.sampled_from([(), (2,), (3,), (2, 3)])
sides = st.dictionaries(names, shapes, max_size=12)
slots = st.sampled_from(["", "/Momentum", "/Adam_1", AVERAGE])


@st.composite
def situations(draw):
    """A model, a checkpoint that has some of its names, shapes and slots and some of its own, and rules."""
    model = draw(sides)
    checkpoint = draw(sides)
    for name, shape in model.items():
        if draw(st.booleans()):
            checkpoint[name + draw(slots)] = draw(st.sampled_from([shape, shape, shape, (7,)]))
            checkpoint[name] = shape
    # scopes out of the names there are, or every second draw of rules would be refused
    known = sorted({n.rsplit("/", cut)[0] for n in (*model, *checkpoint) for cut in (0, 1, 2)} | {"nowhere"})
    scopes = st.lists(st.sampled_from(known), max_size=2).map(tuple)
    rename = st.dictionaries(st.sampled_from(known), st.sampled_from([*known, ""]), max_size=2)
    include = draw(st.one_of(st.just(()), scopes))
    return model, checkpoint, Rules(include, draw(scopes), draw(rename), draw(st.booleans()))


def outcome(plan, *args):
    try:
        return plan(*args)
    except (ScopeError, CheckpointError) as error:
        return f"{type(error).__name__}: {error}"


@settings(max_examples=300, deadline=None)
@given(situations())
def test_the_classes_partition_both_sides_and_the_guides_agree(situation):
    model, checkpoint, _ = situation
    by_checkpoint, by_model = (outcome(plan, *situation) for plan in (checkpoint_guided_plan, model_guided_plan))
    assert by_checkpoint == by_model
    if isinstance(by_checkpoint, str):
        return  # both refused, with one text
    report = Report(by_checkpoint, "ckpt", "model")
    assert sorted(e.variable for e in report.entries if e.variable is not None) == sorted(model)
    assert sorted(e.source for e in report.entries if e.source is not None) == sorted(checkpoint)
    assert sum(report.counts.values()) == len(report.entries)
    for entry in report.entries:
        assert entry.status in CLASSES
        assert entry.shape == model.get(entry.variable)
        assert entry.source_shape == checkpoint.get(entry.source)
        both = entry.variable is not None and entry.source is not None
        assert both or entry.status not in (LOADED, MISMATCH)
        if both and entry.status != EXCLUDED:
            assert entry.status == (LOADED if entry.shape == entry.source_shape else MISMATCH)
    report.text(), report.text(verbose=True)


@GUIDED_PLANS
def test_each_name_is_put_where_it_belongs(plan):
    model = {"net/w": (2,), "net/b": (3,), "net/new": (1,), "net/block1/w": (2,), "net/block10/w": (2,)}
    checkpoint = {
        "net/w": (2,),
        "net/w/Momentum": (2,),
        "net/b": (4,),
        "net/old": (5,),
        "net/block1/w": (2,),
        "net/block10/w": (2,),
        "global_step": (),
    }
    entries = plan(model, checkpoint, Rules(exclude=("net/block1",)))
    assert {e.name: e.status for e in entries} == {
        "net/w": LOADED,
        "net/block10/w": LOADED,
        "net/new": MISSING,
        "net/old": UNUSED,
        "net/b": MISMATCH,
        "net/block1/w": EXCLUDED,
        "net/w/Momentum": BOOKKEEPING,
        "global_step": BOOKKEEPING,
    }
    assert {e.name: e.why for e in entries if e.why} == {
        "net/block1/w": "exclude net/block1",
        "net/w/Momentum": "Momentum",
        "global_step": "global_step",
    }


@GUIDED_PLANS
def test_include_keeps_whole_segments_only(plan):
    shapes = {"net/block1/w": (2,), "net/block10/w": (2,), "net/block1": (1,)}
    entries = plan(shapes, shapes, Rules(include=("net/block1",)))
    assert {e.name: e.status for e in entries} == {
        "net/block1/w": LOADED,
        "net/block1": LOADED,
        "net/block10/w": EXCLUDED,
    }


@GUIDED_PLANS
def test_the_longest_rename_wins_and_cuts_at_segments(plan):
    model = {"new/w": (1,), "head/w": (1,), "old10/w": (1,)}
    checkpoint = {"old/w": (1,), "old/head/w": (1,), "old10/w": (1,)}
    entries = plan(model, checkpoint, Rules(rename={"old": "new", "old/head": "head"}))
    assert {(e.source, e.variable) for e in entries if e.status == LOADED} == {
        ("old/w", "new/w"),
        ("old/head/w", "head/w"),
        ("old10/w", "old10/w"),
    }


@GUIDED_PLANS
def test_rename_may_be_a_function(plan):
    entries = plan({"net/w": (1,)}, {"layer_w": (1,)}, Rules(rename=lambda name: name.replace("layer_", "net/")))
    assert [(e.status, e.variable, e.source) for e in entries] == [(LOADED, "net/w", "layer_w")]


@GUIDED_PLANS
@pytest.mark.parametrize("rename", [{"a": "net", "b": "net"}, lambda name: "net/w"])
def test_two_names_that_become_one_are_an_error(plan, rename):
    with pytest.raises(
        CheckpointError, match="ambiguous: the checkpoint's a/w and b/w would both be the model's net/w"
    ):
        plan({"net/w": (1,)}, {"a/w": (1,), "b/w": (1,)}, Rules(rename=rename))


@GUIDED_PLANS
@pytest.mark.parametrize(
    "rules, purpose",
    [
        (Rules(include=("net/blok1",)), "include scope 'net/blok1'"),
        (Rules(exclude=("net/block",)), "exclude scope 'net/block'"),
        (Rules(rename={"nett": "net"}), "rename: the checkpoint's scope 'nett'"),
    ],
)
def test_a_scope_that_matches_nothing_is_an_error(plan, rules, purpose):
    shapes = {"net/block1/w": (1,)}
    with pytest.raises(ScopeError, match=purpose):
        plan(shapes, shapes, rules)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("net/conv1/weights/Momentum", "Momentum"),
        ("train/net/conv1/weights/Momentum", "Momentum"),
        ("net/conv1/weights/RMSProp", "RMSProp"),
        ("net/conv1/weights/RMSProp_1", "RMSProp_1"),
        ("net/conv1/weights/Adam", "Adam"),
        ("net/conv1/weights/Adam_1", "Adam_1"),
        ("net/conv1/weights/AdamW_1", "AdamW_1"),
        ("net/conv1/weights/Adagrad", "Adagrad"),
        ("net/conv1/weights/Ftrl_1", "Ftrl_1"),
        ("net/conv1/BatchNorm/moving_mean/ExponentialMovingAverage", "ExponentialMovingAverage"),
        ("net/conv1/BatchNorm/moving_mean/biased", "biased"),
        ("net/conv1/BatchNorm/moving_mean/local_step", "local_step"),
        ("global_step", "global_step"),
        ("train/global_step", "global_step"),
        ("beta1_power", "beta1_power"),
        ("beta2_power", "beta2_power"),
        ("beta1_power_1", "beta1_power_1"),
        ("optimizer/beta2_power", "beta2_power"),
        ("resnet_v1_50/mean_rgb", "mean_rgb"),
        ("mean_rgb", "mean_rgb"),
        ("_CHECKPOINTABLE_OBJECT_GRAPH", "_CHECKPOINTABLE_OBJECT_GRAPH"),
        ("net/conv1/weights", None),
        ("net/conv1/BatchNorm/beta", None),
        ("net/conv1/BatchNorm/moving_mean", None),
        ("net/Momentum/weights", None),
        ("net/Adam/biases", None),
        ("net/conv1/weights/Momentum/extra", None),
        ("net/my_global_step", None),
        ("net/global_step_embedding", None),
        ("net/AdamNet", None),
        ("net/beta1_powers", None),
        ("Momentum", None),
        ("net/mean_rgb_2/weights", None),
    ],
)
def test_bookkeeping_is_told_from_variables(name, kind):
    assert bookkeeping_kind(name) == kind


def test_names_are_ordered_as_people_count():
    given = ["n/unit_10/w", "n/unit_2/w", "n/unit_2/b", "n/x²", "n"]
    assert sorted(given, key=natural_order) == ["n", "n/unit_2/b", "n/unit_2/w", "n/unit_10/w", "n/x²"]


# Moving averages


@GUIDED_PLANS
def test_moving_averages_are_taken_where_there_are_any(plan):
    model = {"net/w": (2,), "net/b": (3,)}
    checkpoint = {"net/w": (2,), f"net/w{AVERAGE}": (2,), "net/b": (3,), "net/w/Momentum": (2,)}
    entries = plan(model, checkpoint, Rules(ema=True))
    assert {(e.status, e.variable, e.source) for e in entries} == {
        (LOADED, "net/w", f"net/w{AVERAGE}"),
        (LOADED, "net/b", "net/b"),
        (BOOKKEEPING, None, "net/w"),
        (BOOKKEEPING, None, "net/w/Momentum"),
    }


@GUIDED_PLANS
def test_moving_averages_follow_a_rename(plan):
    entries = plan({"net/w": (2,)}, {"old/w": (2,), f"old/w{AVERAGE}": (2,)}, Rules(rename={"old": "net"}, ema=True))
    assert [e.source for e in entries if e.status == LOADED] == [f"old/w{AVERAGE}"]


@GUIDED_PLANS
def test_a_checkpoint_without_moving_averages_has_none_to_give(plan):
    with pytest.raises(CheckpointError, match="moving averages were asked for"):
        plan({"net/w": (2,)}, {"net/w": (2,)}, Rules(ema=True))


@GUIDED_INITS
def test_the_values_of_the_averages_arrive(init, tiny_resnet, tmp_path):
    values = {name: np.full(v.shape, 1.0, "float32") for name, v in named_variables(tiny_resnet).items()}
    averages = {name + AVERAGE: value + 1 for name, value in values.items() if "block1" in name}
    write_checkpoint(tmp_path / "m.ckpt", values | averages)
    report = init(tiny_resnet, tmp_path / "m.ckpt", ema=True)
    assert report.counts[LOADED] == len(values)
    assert report.counts[BOOKKEEPING] == len(averages)
    for name, variable in named_variables(tiny_resnet).items():
        assert (np.asarray(variable) == (2 if "block1" in name else 1)).all(), name


# Applied to a model


def randomized(net, seed=0):
    """Gives every variable values of its own. → {name: array}"""
    rng = np.random.default_rng(seed)
    for variable in net.weights:
        variable.assign(rng.normal(size=variable.shape))
    return {name: np.asarray(variable) for name, variable in named_variables(net).items()}


@pytest.fixture
def saved(tiny_resnet, tmp_path):
    """(prefix, values) of a checkpoint with slots and global_step; the model holds other values by now."""
    values = randomized(tiny_resnet)
    momentum = {name: value + 1 for name, value in values.items()}
    save_checkpoint(tiny_resnet, tmp_path / "m.ckpt-7", {"Momentum": momentum}, global_step=7)
    randomized(tiny_resnet, seed=1)
    return tmp_path / "m.ckpt-7", values


def current(net):
    return {name: np.asarray(variable) for name, variable in named_variables(net).items()}


def test_saved_variables_slots_and_step_are_in_the_file(saved):
    prefix, values = saved
    slots = {f"{name}/Momentum": value + 1 for name, value in values.items()}
    assert_same(read_all(prefix), values | slots | {"global_step": np.int64(7)})


@GUIDED_INITS
def test_what_was_saved_is_loaded_bit_for_bit(init, saved, tiny_resnet):
    prefix, values = saved
    report = init(tiny_resnet, prefix, strict=True)
    assert_same(current(tiny_resnet), values)
    assert report.counts == dict.fromkeys(CLASSES, 0) | {LOADED: len(values), BOOKKEEPING: len(values) + 1}
    backbone = [value for name, value in values.items() if "/logits/" not in name]
    assert report.backbone == (len(backbone), len(backbone), sum(value.size for value in backbone))
    assert str(report).endswith(f"{len(backbone)}/{len(backbone)} backbone variables, {report.backbone[2]:,} values")


def test_both_guides_give_one_report(saved, tiny_resnet):
    options = {"exclude": ["resnet_v2_50/logits"], "apply": False}
    by_checkpoint = checkpoint_guided_init(tiny_resnet, saved[0], **options)
    by_model = model_guided_init(tiny_resnet, saved[0], **options)
    assert by_checkpoint == by_model
    assert by_checkpoint.guide != by_model.guide


def test_a_plan_loads_nothing(saved, tiny_resnet):
    before = current(tiny_resnet)
    report = checkpoint_guided_init(tiny_resnet, saved[0], apply=False)
    assert report.counts[LOADED] == len(before)
    assert_same(current(tiny_resnet), before)


@GUIDED_INITS
def test_only_what_is_needed_is_read(init, saved, tiny_resnet, monkeypatch):
    read = []
    original = checkpoint_module.Checkpoint.read
    monkeypatch.setattr(
        checkpoint_module.Checkpoint, "read", lambda self, name: read.append(name) or original(self, name)
    )
    init(tiny_resnet, saved[0], include=["resnet_v2_50/block1"], apply=False)
    assert read == []
    report = init(tiny_resnet, saved[0], include=["resnet_v2_50/block1"])
    assert sorted(read) == sorted(e.source for e in report.of(LOADED))
    assert all(name.startswith("resnet_v2_50/block1/") for name in read)


@GUIDED_INITS
def test_a_damaged_tensor_changes_nothing(init, saved, tiny_resnet):
    prefix, values = saved
    data = prefix.parent / f"{prefix.name}.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[content.index(values["resnet_v2_50/postnorm/gamma"].tobytes())] ^= 1
    data.write_bytes(content)
    before = current(tiny_resnet)
    with pytest.raises(CheckpointError, match=rf"{prefix.name}: cannot be read at '.*/gamma'.*Checksum"):
        init(tiny_resnet, prefix)
    assert_same(current(tiny_resnet), before)


@GUIDED_INITS
def test_strict_raises_with_the_report(init, saved, tiny_resnet):
    prefix, values = saved
    del values["resnet_v2_50/conv1/weights"]
    values["resnet_v2_50/logits/biases"] = np.zeros(9, "float32")
    values["resnet_v2_50/extra"] = np.zeros(3, "float32")
    write_checkpoint(prefix, values)
    before = current(tiny_resnet)
    with pytest.raises(CheckpointError) as error:
        init(tiny_resnet, prefix, strict=True)
    assert_same(current(tiny_resnet), before)
    report = init(tiny_resnet, prefix)
    assert str(error.value).endswith(str(report))
    # Each takes the other half of its layer with it.
    assert [report.counts[status] for status in (MISSING, UNUSED, MISMATCH)] == [1, 1, 3]
    assert "conv1/weights" in str(report)
    assert "conv1/biases  (the layer's other half does not fit or is missing)" in str(report)
    assert "checkpoint (9,), model (5,); new head" in str(report)


def test_excluded_variables_are_no_breach_of_strictness(saved, tiny_resnet):
    prefix, values = saved
    values["resnet_v2_50/logits/biases"] = np.zeros(9, "float32")
    write_checkpoint(prefix, values)
    before = current(tiny_resnet)
    report = checkpoint_guided_init(tiny_resnet, prefix, exclude="resnet_v2_50/logits/", strict=True)
    assert report.counts[EXCLUDED] == 2
    after = current(tiny_resnet)
    for name in after:
        same = np.array_equal(after[name], before[name])
        assert same == name.startswith("resnet_v2_50/logits/"), name


def test_the_rename_of_a_foreign_scope_may_end_in_a_slash(saved, tiny_resnet):
    prefix, values = saved
    write_checkpoint(prefix, {name.replace("resnet_v2_50", "slim_resnet"): value for name, value in values.items()})
    checkpoint_guided_init(tiny_resnet, prefix, rename={"slim_resnet/": "resnet_v2_50/"}, strict=True)
    assert_same(current(tiny_resnet), values)


def test_json_equals_the_report(saved, tiny_resnet):
    report = checkpoint_guided_init(tiny_resnet, saved[0], exclude="resnet_v2_50/logits", apply=False)
    document = json.loads(report.to_json())
    assert document["counts"] == report.counts
    assert document["checkpoint"] == str(saved[0])
    assert tuple(document["backbone"].values()) == report.backbone
    assert len(document["entries"]) == len(report.entries)
    for found, entry in zip(document["entries"], report.entries, strict=True):
        assert (found["status"], found["variable"], found["source"]) == (entry.status, entry.variable, entry.source)
        for key, shape in ("shape", entry.shape), ("source_shape", entry.source_shape):
            assert found[key] == (None if shape is None else list(shape))
        assert found["reason"] == report.reason(entry)


def test_the_text_groups_layers_and_counts(tiny_resnet, tmp_path):
    values = {n: np.zeros(v.shape, "float32") for n, v in named_variables(tiny_resnet).items() if "/conv1/" not in n}
    save = values | {f"{name}/Adam": value for name, value in values.items()}
    write_checkpoint(tmp_path / "m.ckpt", save)
    report = checkpoint_guided_init(tiny_resnet, tmp_path / "m.ckpt", apply=False)
    text = str(report)
    assert "block1/unit_1/bottleneck_v2/conv1/BatchNorm/{beta, gamma, moving_mean, moving_variance}" in text
    assert f"  Adam: {len(values)}\n" in text
    assert f"({len(save)} variables) → resnet_v2_50 ({len(tiny_resnet.weights)} variables)" in text
    assert text.count("\n") < report.text(verbose=True).count("\n")


def test_an_object_based_checkpoint_is_named_as_such(tiny_resnet, tmp_path):
    import tensorflow as tf

    tf.train.Checkpoint(model=tiny_resnet).write(str(tmp_path / "objects.ckpt"))
    with pytest.raises(CheckpointError, match=r"objects\.ckpt: an object-based TF 2 checkpoint"):
        checkpoint_guided_init(tiny_resnet, tmp_path / "objects.ckpt")


def test_two_variables_of_one_path_are_an_error():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__(name="twins")
            self.first = keras.layers.Dense(2, name="dense")
            self.second = keras.layers.Dense(2, name="dense")

        def call(self, x):
            return self.second(self.first(x))

    model = Twins()
    model(np.zeros((1, 2), "float32"))
    with pytest.raises(CheckpointError, match="ambiguous: two variables of the model twins are named 'dense/kernel'"):
        named_variables(model)
