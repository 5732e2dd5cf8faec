"""Boundary quality: the scores within a narrow band, the trimap, around the boundaries of the truth.

After Kohli et al., "Robust higher order potentials for enforcing label consistency" (2009), as the DeepLab papers
measure it: VOC's masks border every object with pixels that are ignored, and the band is what lies near to those.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from data.voc import IGNORE_LABEL
from inference.metrics import confusion_matrix

WIDTHS = (1, 2, 3, 4, 5, 7, 10, 14, 20, 28, 40)  # pixels


def boundary_distance(mask: np.ndarray) -> np.ndarray:
    """How far each pixel is from a boundary of its mask, pixels: float32 (H, W), infinite where there is none.

    The boundary is what is labelled IGNORE_LABEL. In a mask without such pixels a pixel's distance is that to the
    nearest pixel of another class.
    """
    ignored = mask == IGNORE_LABEL
    distance = np.full(mask.shape, np.inf, np.float32)
    regions = [~ignored] if ignored.any() else [mask == label for label in np.unique(mask)]
    for region in regions:
        if not region.all():  # else there is nothing to be near to
            found = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            np.copyto(distance, found, where=region)
    return distance


class TrimapCounter:
    """Adds up, image by image, a confusion matrix within each of several widths of the band.

    Args:
        widths: the largest distances from the boundary that belong to a band, pixels, ascending.
    """

    def __init__(self, num_classes: int, widths: Sequence[int] = WIDTHS) -> None:
        self.widths = tuple(widths)
        self._rings = np.zeros((len(widths), num_classes, num_classes), np.int64)

    def add(self, index: int, labels: np.ndarray, mask: np.ndarray) -> None:
        """Counts an image's labels, uint8 (H, W), against its mask, uint8 (H, W)."""
        ring = np.searchsorted(self.widths, boundary_distance(mask))  # the first band that a pixel belongs to
        for number in range(len(self.widths)):
            within = ring == number
            self._rings[number] += confusion_matrix(mask[within], labels[within], self._rings.shape[1])

    @property
    def matrices(self) -> np.ndarray:
        """int64 (widths, classes, classes): the confusion matrix of the band of each width."""
        return self._rings.cumsum(axis=0)
