"""Exports in runtimes that are none of ours: OpenCV's, and a browser's."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.sample import CLASS_NAMES
from engine.options import Exporting
from exporting.export import drawn_picture, export
from tests.browser import chromium
from tests.small_segmenter import levelled, opened, small_segmenter

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "node_modules" / "onnxruntime-web" / "dist"


@pytest.fixture(scope="module")
def picture():
    return drawn_picture()[:60, :90]


@pytest.fixture(scope="module")
def exported(picture, tmp_path_factory):
    """(the folder of an ONNX export, the labels that its model gives the picture)."""
    folder = tmp_path_factory.mktemp("served")
    source = opened(levelled(small_segmenter(), [picture]))
    (outcome,) = export(source, "m", folder / "exported", ("onnx",), picture, Exporting())
    assert outcome.good
    labels = source.predictor().labels(picture)
    assert len(np.unique(labels)) > 1
    return folder, labels


def test_opencv_runs_the_onnx_export(exported, picture):
    net = cv2.dnn.readNetFromONNX(str(exported[0] / "exported" / "model.onnx"))
    net.setInput(picture[None], "images")
    found = net.forward("labels")
    assert (found[0] == exported[1]).mean() >= 0.999


# Loaded only when the page within it is ready: until then the server does not answer for the image.
FRAME = """<!doctype html>
<iframe src="/examples/segment.html?picture=/picture.png" id="page"></iframe>
<pre id="found"></pre>
<img src="/ready">
<script>
const wait = setInterval(() => {
  const page = document.getElementById("page").contentDocument;
  if (!["done", "failed"].includes(page.title)) return;
  clearInterval(wait);
  const canvas = page.getElementById("labels");
  const rgba = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  document.getElementById("found").textContent = JSON.stringify({
    said: page.getElementById("classes").textContent, width: canvas.width, rgba: Array.from(rgba),
  });
  fetch("/release");
}, 50);
</script>
"""


class Handler(SimpleHTTPRequestHandler):
    """The page and onnxruntime-web of the project, the export of the test; and `/ready`, once `/release` was asked."""

    def __init__(self, served, ready, *args):
        self.served, self.ready = served, ready
        super().__init__(*args)

    def translate_path(self, path):
        path = path.partition("?")[0].lstrip("/")
        return str((ROOT if path.startswith(("examples/", "node_modules/")) else self.served) / path)

    def do_GET(self):
        if self.path == "/release":
            self.ready.set()
        if self.path == "/ready":
            self.ready.wait(60)
        super().do_GET()

    def log_message(self, *_):
        pass


def test_a_page_segments_a_picture_in_chromium(exported, picture, tmp_path):
    browse = chromium(tmp_path)
    if not RUNTIME.is_dir():
        pytest.skip(f"no {RUNTIME.relative_to(ROOT)}: npm install --no-save --no-package-lock onnxruntime-web")
    folder, labels = exported
    Image.fromarray(picture).save(folder / "picture.png")
    (folder / "frame.html").write_text(FRAME)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, folder, threading.Event()))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        dom, _ = browse(f"http://127.0.0.1:{server.server_port}/frame.html", "--dump-dom")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    found = json.loads(dom.partition('<pre id="found">')[2].partition("</pre>")[0])
    assert found["said"].endswith(" ms"), found["said"]
    colours = np.array(json.loads((folder / "exported" / "export.json").read_text())["colours"], np.uint8)
    shown = np.array(found["rgba"], np.uint8).reshape(-1, found["width"], 4)[..., :3]
    assert shown.shape == (*labels.shape, 3)
    assert (shown == colours[labels]).all(-1).mean() >= 0.999
    for label in np.unique(labels):
        assert CLASS_NAMES[label] in found["said"]
