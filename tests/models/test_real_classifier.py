"""The published MobileNet v2 with its 1001 logits, on real photographs."""

import numpy as np
from PIL import Image

from models.mobilenet_v2 import mobilenet_v2
from models.weight_init import checkpoint_guided_init

LABELS = {"ants": 311, "bees": 310}  # background is 0


def photograph(path):
    """RGB pixels (224, 224, 3): the shorter side made 256, then the centre."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
        factor = 256 / min(image.size)
        image = image.resize([round(side * factor) for side in image.size], Image.Resampling.BILINEAR)
        left, top = ((side - 224) // 2 for side in image.size)
        return np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)


def test_ants_and_bees_are_told_as_often_as_they_were_by_the_original(real_checkpoints, shared_data):
    net = mobilenet_v2(num_classes=1001)
    report = checkpoint_guided_init(net, real_checkpoints / "mobilenet_v2_1.0_224_8bit.ckpt", strict=True)
    assert report.counts["loaded"] == 262

    paths = [
        path for name in LABELS for path in sorted((shared_data / "hymenoptera_data" / "val" / name).glob("*.jpg"))[:60]
    ]
    assert len(paths) == 120
    labels = np.array([LABELS[path.parent.name] for path in paths])[:, None]
    pixels = np.stack([photograph(path) for path in paths])
    logits = net.predict(net.preprocessing(pixels), batch_size=20, verbose=0)
    best = np.argsort(-logits, axis=1)[:, :5]
    assert (np.sum(best[:, :1] == labels), np.sum(best == labels)) == (101, 113)
