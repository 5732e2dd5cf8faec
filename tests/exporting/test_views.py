"""What an export computes of a picture is what the model is shown of it."""

import numpy as np
import pytest
import tensorflow as tf

from data.views import RULES, View
from exporting.views import seen

SIZES = [(40, 60), (375, 500), (33, 21), (5, 90), (1, 1), (64, 64), (333, 100), (36, 37), (1539, 1536)]


@pytest.mark.parametrize("fraction", [0.875, 1.0, 0.5])
@pytest.mark.parametrize("rule", RULES)
def test_a_graph_sees_what_the_view_gives(rule, fraction):
    view = View(32, fraction, rule)
    any_size = tf.TensorSpec((None, None, None, 3), tf.uint8)
    graph = tf.function(lambda images: seen(view, images), input_signature=[any_size], autograph=False)
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        images = rng.integers(0, 256, (2, height, width, 3), np.uint8)
        found = graph(images).numpy()
        for image, by_graph in zip(images, found, strict=True):
            apart = np.abs(by_graph - view(image).astype(int))
            assert apart.max() <= 1, (height, width)
            if rule != "square" or min(height, width) * fraction >= 32:  # OpenCV enlarges with weights of few bits
                assert apart.mean() < 0.005, (height, width)
