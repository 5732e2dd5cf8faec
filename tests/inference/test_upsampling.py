"""Small logits become a picture's labels in NumPy as they do in the model."""

import numpy as np
import pytest

from inference.upsampling import upsampled
from models.layers import UPSAMPLINGS, resize_bilinear


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("padded", [(65, 65), (65, 81), (60, 77)])
def test_numpy_enlarges_as_the_model_does(upsampling, padded):
    small = np.random.default_rng(0).normal(size=(5, 6, 4)).astype(np.float32)
    expected = np.asarray(resize_bilinear(small[None], *padded, upsampling))[0, :50, :43]
    found = upsampled(small, padded, (50, 43), upsampling)
    np.testing.assert_allclose(found.transpose(1, 2, 0), expected, atol=1e-5)
