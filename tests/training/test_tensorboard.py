"""What a Board writes is what TensorBoard reads: its own event files and its own projector plugin."""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import data_provider, event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.projector import projector_plugin
from werkzeug.test import Client

from errors import UserError
from files.writing import WriteError
from training.tensorboard import MAPS, Board, cut_events, tiled


def picture_of(folder, tag):
    """uint8 (H, W, 3) of the one picture under the tag, and its step."""
    import tensorflow as tf

    (file,) = folder.glob("events.out.tfevents.*")
    found = [
        (event.step, value.tensor)
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
        if value.tag == tag
    ]
    ((step, tensor),) = found
    return step, np.asarray(Image.open(io.BytesIO(tensor.string_val[2])))


def projector(folder):
    """A function: route of the projector over the runs in `folder`, its query → the answer's bytes."""
    runs = event_multiplexer.EventMultiplexer()
    runs.AddRunsFromDirectory(str(folder))
    runs.Reload()
    provider = data_provider.MultiplexerDataProvider(runs, str(folder))
    plugin = projector_plugin.ProjectorPlugin(base_plugin.TBContext(data_provider=provider, logdir=str(folder)))
    apps = plugin.get_plugin_apps()

    def get(route, **query):
        answer = Client(apps[route]).get(route, query_string=query)
        assert answer.status_code == 200, answer.data
        return answer.data

    return get


def test_feature_maps_are_a_grid_of_channels_each_from_black_to_white(tmp_path):
    activation = np.random.default_rng(0).normal(size=(2, 4, 6, MAPS + 5)).astype("float32")
    activation[0, :, :, 1] = 3.0  # has no range
    Board(tmp_path).feature_maps(7, "block4", activation)
    step, picture = picture_of(tmp_path, "block4")
    assert (step, picture.shape) == (7, (8 * 4, 8 * 6, 3))
    assert not picture[:4, 6:12].any()
    for channel in (0, 9, MAPS - 1):
        row, column = divmod(channel, 8)
        shown = picture[4 * row : 4 * row + 4, 6 * column : 6 * column + 6]
        values = activation[0, :, :, channel]
        expected = (values - values.min()) / np.ptp(values) * 255
        assert np.abs(shown - expected[..., None]).max() <= 0.51


def test_tiles_are_square_in_number():
    pictures = np.arange(1, 6, dtype="uint8").reshape(5, 1, 1, 1)
    np.testing.assert_array_equal(tiled(pictures)[..., 0], [[1, 2, 3], [4, 5, 0], [0, 0, 0]])


def test_the_projector_reads_the_embedding(tmp_path):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 7)).astype("float32")
    pictures = rng.integers(0, 256, (5, 6, 4, 3)).astype("uint8")
    labels = ["ant", "bee", "ant\tor\nbee", "Ümläut", 3]
    board = Board(tmp_path / "run")
    board.embedding(10, "features", features, labels, pictures)
    board.embedding(20, "features", features + 1, labels)
    board.embedding(20, "features", features + 2, labels)  # once more: it replaces

    get = projector(tmp_path)
    assert json.loads(get("/runs")) == ["run"]
    first, second = json.loads(get("/info", run="run"))["embeddings"]
    assert (first["tensorName"], second["tensorName"]) == ("features/10", "features/20")
    assert first["tensorShape"] == [5, 7]
    assert first["sprite"]["singleImageDim"] == [4, 6]
    for name, expected in (("features/10", features), ("features/20", features + 2)):
        read = np.frombuffer(get("/tensor", run="run", name=name), "float32").reshape(5, 7)
        np.testing.assert_array_equal(read, expected)
    assert get("/metadata", run="run", name="features/10").decode() == "ant\nbee\nant or bee\nÜmläut\n3\n"
    sprite = np.asarray(Image.open(io.BytesIO(get("/sprite_image", run="run", name="features/10"))))
    np.testing.assert_array_equal(sprite, tiled(pictures))


def test_what_does_not_belong_together_is_refused(tmp_path):
    board = Board(tmp_path)
    with pytest.raises(ValueError, match="5 features, but 4 labels"):
        board.embedding(1, "features", np.zeros((5, 2)), range(4))
    with pytest.raises(ValueError, match="resize them first"):
        board.embedding(1, "features", np.zeros((2, 2)), "ab", np.zeros((2, 5000, 1, 3), "uint8"))
    assert not (tmp_path / "projector_config.pbtxt").exists()


@pytest.mark.parametrize("damage", [b"embeddings {", b"\xff"])
def test_a_damaged_configuration_of_the_projector_is_said(tmp_path, damage):
    (tmp_path / "projector_config.pbtxt").write_bytes(damage)
    with pytest.raises(UserError, match=r"projector_config\.pbtxt: .*"):
        Board(tmp_path).embedding(1, "features", np.zeros((2, 2)), "ab")


def test_an_embedding_that_cannot_be_written_is_said(tmp_path):
    board = Board(tmp_path)
    (tmp_path / "embeddings").write_text("a file")
    with pytest.raises(WriteError, match="embeddings"):
        board.embedding(1, "features", np.zeros((2, 2)), "ab")


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    board = Board(None)
    board.feature_maps(1, "block4", np.zeros((1, 2, 2, 3)))
    board.embedding(1, "features", np.zeros((2, 2)), "ab")
    assert not list(tmp_path.iterdir())


def test_steps_that_are_trained_again_are_in_the_events_once(tmp_path):
    for first, last in ((1, 6), (5, 9), (3, 5)):  # three processes, the later ones from behind a checkpoint
        cut_events(tmp_path, first - 1)
        board = Board(tmp_path)
        for step in range(first, last + 1):
            board.scalars(step, {"loss": 100 * first + step})
        del board
    with open(next(tmp_path.glob("events.*")), "ab") as file:
        file.write(b"half a record")  # of a process that was killed
    cut_events(tmp_path, 4)
    assert shown_losses(tmp_path) == [(1, 101), (2, 102), (3, 303), (4, 304)]


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_kill_while_events_are_cut_loses_none(tmp_path, monkeypatch, call):
    for first, last in ((1, 3), (4, 6), (7, 9)):
        board = Board(tmp_path)
        for step in range(first, last + 1):
            board.scalars(step, {"loss": step})
        del board
    calls = itertools.count(1)

    def killed(partial, path, replace=Path.replace):
        if next(calls) == call:
            raise KeyboardInterrupt
        return replace(partial, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        cut_events(tmp_path, 8)
    cut_events(tmp_path, 8)
    assert shown_losses(tmp_path) == [(step, step) for step in range(1, 9)]


def shown_losses(folder):
    """[(step, loss)] that TensorBoard shows of a run, in order of steps: files of one second have none by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    shown = EventAccumulator(str(folder), {"tensors": 0})
    shown.Reload()
    return sorted((event.step, float(make_ndarray(event.tensor_proto))) for event in shown.Tensors("loss"))
