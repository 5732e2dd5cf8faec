"""Options: checked wherever they come from, the same from flags and from Python, and held once."""

import argparse
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import command_line
from engine import options
from engine.kinds import OptionError, changed, described_options, free_options, groups_of, recorded
from engine.options import (
    Learning,
    Looks,
    Opening,
    Recipe,
    Restore,
    Run,
)
from errors import UserError

GROUPS = [
    group
    for group in vars(options).values()
    if isinstance(group, type) and issubclass(group, options.Options) and group is not options.Options
]


def parsed(group, *flags):
    parser = command_line.ProgramParser()
    command_line.add_options(parser, group)
    return command_line.chosen(parser.parse_args(flags), type(group))


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_no_flags_are_the_defaults(group):
    assert parsed(group()) == group()
    assert changed(group()) == []


@pytest.mark.parametrize("defaults", [options.FIRST_STAGE, options.ClassificationTraining()])
def test_no_two_groups_of_a_training_share_a_name(defaults):
    names = [name for group in groups_of(defaults).values() for name in described_options(group)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_option_is_typed_explained_and_kept(group):
    for field in dataclasses.fields(group):
        described = field.metadata["option"]
        assert field.type is not None and described.meaning and not described.meaning.endswith(".")
        assert (described.kind is None) == (field.type in ("bool", bool, bool | None))
    assert json.loads(json.dumps(recorded(group())))  # what config.json holds


@pytest.mark.parametrize(
    ("group", "flags", "expected"),
    [
        (Recipe(), ["--steps", "5", "--learning-rate", "1e-3"], Recipe(steps=5, learning_rate=0.001)),
        (Recipe(), ["--clip-norm", "2"], Recipe(clip_norm=2.0)),
        (Restore(), ["--rename", "a=b,c/=d", "--rename", "e="], Restore(rename={"a": "b", "c": "d", "e": ""})),
        (Restore(), ["--exclude", "a/, b,"], Restore(exclude=("a", "b"))),
        (Learning(), ["--freeze-bn"], Learning(freeze_bn="all")),
        (Learning(), ["--freeze-bn", "statistics"], Learning(freeze_bn="statistics")),
        (Looks(), ["--multi-scale", "--flip"], Looks(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=True)),
        (Looks(), ["--scales", "0.5,1"], Looks(scales=(0.5, 1.0))),
        (options.SegmentationImages(), ["--no-flip"], options.SegmentationImages(flip=False)),
        (Opening(), ["--multi-grid", "1,2"], Opening(multi_grid=(1, 2))),
        (Opening(), ["--atrous-rates", "none"], Opening(atrous_rates=())),
        (options.SegmentationLoss(), ["--class-weights", "1,2"], options.SegmentationLoss(class_weights=(1.0, 2.0))),
        (options.Devices(), ["--hosts", "a:1,b:2"], options.Devices(hosts=("a:1", "b:2"))),
        (options.Verification(), ["--feed", "a:0=0.5"], options.Verification(feed={"a:0": 0.5})),
    ],
)
def test_flags_and_python_say_the_same(group, flags, expected):
    assert parsed(group, *flags) == expected


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        (Recipe, "steps", 0),
        (Recipe, "steps", None),
        (Recipe, "steps", 1.5),
        (Recipe, "steps", True),
        (Recipe, "momentum", 2),
        (Recipe, "learning_rate", float("nan")),
        (Recipe, "learning_rate", float("inf")),
        (Recipe, "precision", "float16"),
        (Run, "run_dir", ""),
        (Run, "workers", 100_000),
        (Run, "dry_run", "yes"),
        (Opening, "output_stride", 7),
        (Looks, "scales", ()),
        (Looks, "scales", 1.0),
        (options.Devices, "hosts", ("nowhere",)),
        (options.SegmentationImages, "scale_range", (2, 1)),
        (options.SegmentationImages, "scale_range", (1e-320, 1)),
        (options.Pictures, "picture_range", (1, 1)),
        (Recipe, "steps", float("inf")),
        (Recipe, "bn_decay", 1),
        (Recipe, "batch_size", 10**6),
        (Run, "run_dir", " "),
        (Run, "run_dir", "a\0b"),
        (Run, "run_dir", "a" * 300),
        (Run, "run_dir", "/dev/null"),
        (Run, "run_dir", "\ud800"),
        (Opening, "crop_size", 10**6),
        (Opening, "multi_grid", (1, 0)),
        (Opening, "atrous_rates", (10**6,)),
        (Looks, "scales", (1.0,) * 33),
        (options.Devices, "devices", 17),
        (options.Devices, "hosts", ("a:1", "a:1")),
        (options.Devices, "hosts", ("a:99999",)),
        (options.Verification, "feed", {"a": float("nan")}),
        (options.SegmentationLoss, "class_weights", "1,nan"),
    ],
)
def test_what_an_option_does_not_take_is_said(group, name, value):
    with pytest.raises(OptionError, match=rf"^{name} must .*Received: "):
        group(**{name: value})


@pytest.mark.parametrize(
    ("group", "values", "said"),
    [
        (Recipe, {"warmup_steps": 10, "steps": 10}, "--warmup-steps 10: must be fewer than the 10 steps"),
        (Recipe, {"batch_size": 8, "accumulate": 3}, "--accumulate 3: must divide the batch of 8 images"),
    ],
)
def test_options_that_contradict_each_other_are_refused(group, values, said):
    with pytest.raises(OptionError, match=said):
        group(**values)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    for group in (Recipe, Restore, Looks, Opening, options.Verification, options.Devices):
        for described in described_options(group).values():
            if described.kind is not None:
                try:
                    described.kind.from_text(text)
                except OptionError as error:
                    assert str(error).startswith("must")


def test_a_renamed_scope_that_is_named_twice_is_refused():
    with pytest.raises(UserError, match="'a' twice"):
        parsed(Restore(), "--rename", "a=b", "--rename", "a=c")
    with pytest.raises(UserError, match="'a' twice"):
        parsed(Restore(), "--rename", "a=b,a=c")


def test_what_may_differ_when_a_run_is_continued():
    assert free_options(Run(), options.Devices(), Recipe(), options.SegmentationImages()) == {
        *("run_dir", "data_changed", "dry_run", "histograms", "keep", "workers", "devices", "hosts", "host", "cache"),
        *("allow_absent", "allow_repeats"),
    }


def test_help_says_meaning_unit_paper_and_default():
    parser = argparse.ArgumentParser()
    command_line.add_options(parser, options.SegmentationImages())
    text = " ".join(parser.format_help().split())
    assert "side of the squares that are trained on, pixels; the paper's: 513 [513]" in text


def test_a_changed_option_is_named():
    assert changed(Opening(output_stride=8), Looks(flip=True)) == ["output_stride", "flip"]


@pytest.mark.parametrize(("steps", "expected"), [(30_000, 1000), (3000, 300), (100, 10), (4, 1)])
def test_a_run_s_curve_has_ten_points_or_more(steps, expected):
    assert Run().evaluates_every(steps) == expected and Run().saves_every(steps) == min(500, expected)
    assert Run(eval_every=7, save_every=9).evaluates_every(steps) == 7
