"""The same training batches made by each framework's own means, as input_pipeline.py times them.

A module here is a contestant: `build(work)` gives (an endless iterator of batches, version). A batch is the pair of
arrays (images, labels) that a training step would be handed: images (N, crop, crop, 3), uint8 or float32 in [-1, 1],
and int32 labels (N, crop, crop). All do this work for each sample:

    JPEG and PNG decoded; both scaled by a random factor, the image bilinearly without antialiasing, the mask by nearest
    neighbour; a random window of `crop` pixels; what is missing padded at the bottom and right, the image with the mean
    pixel, the mask with 255; every other one flipped.
"""

from dataclasses import dataclass

MEAN_PIXEL = (127.5, 127.5, 127.5)
SCALES = (0.5, 2.0)
IGNORE = 255
PREFETCHED_BATCHES = 2


@dataclass(frozen=True)
class Work:
    """What is asked of a contestant.

    Attributes:
        root, image_set: a folder in VOC's layout.
        images, masks: the files of the image set, in its order.
        indices: the same masks as grey PNGs whose values are the class indices, for who cannot read a palette's.
        crop: the side of the result in pixels.
        batch: samples in a batch.
        workers: samples made at once.
        floats: whether the images are handed over as float32 in [-1, 1].
        cache: "none", "memory" or a folder, for who can keep what was decoded.
    """

    root: str
    image_set: str
    images: list
    masks: list
    indices: list
    crop: int
    batch: int
    workers: int
    floats: bool
    cache: str
