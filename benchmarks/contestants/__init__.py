"""One DeepLab v3 (ResNet-50 v2, output stride 16, multi-grid) in each framework's own words, as the benchmarks time it.

A module here is a contestant. For train_step.py, `build(images, labels, bfloat16)` gives (step, parameters, version),
where `step()` trains on the batch once and returns the loss, and `parameters` is the number of trainable values. For
one_image.py, `predictor(…)` gives (labels, parameters, version), where `labels(image)` is what is timed: uint8 RGB
(H, W, 3) → uint8 (H, W). All share what is here.
"""

from engine.options import Recipe

CLASSES, IGNORE = 21, 255
LEARNING_RATE, MOMENTUM = 0.007, 0.9
WEIGHT_DECAY = 1e-4  # of half the sum of squares of the kernels
DECAY, EPSILON = 0.997, 1e-5
RATES, CHANNELS = (6, 12, 18), 256
# What `training.recipe.compile_model` takes, for this project's own contestants.
RECIPE = Recipe(learning_rate=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


def units():
    """(scope, width, stride, dilation) of each bottleneck: the stride comes last in block1 and block2."""
    for block, (width, count) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
        for unit in range(1, count + 1):
            stride = 2 if block <= 2 and unit == count else 1
            dilation = (2, 4, 8)[unit - 1] if block == 4 else 1  # 2 for the output stride, times multi-grid 1, 2, 4
            yield f"block{block}/unit_{unit}", width, stride, dilation
