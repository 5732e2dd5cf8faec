"""tf.image in tf.data. It reads the masks from grey PNGs: tf.io.decode_png turns a palette's indices into colours."""

import tensorflow as tf

from benchmarks.pipelines import IGNORE, MEAN_PIXEL, PREFETCHED_BATCHES, SCALES


def build(work):
    def sample(image_file, mask_file):
        image = tf.io.decode_jpeg(tf.io.read_file(image_file), channels=3)
        mask = tf.io.decode_png(tf.io.read_file(mask_file), channels=1)
        scale = tf.random.uniform((), *SCALES)
        size = tf.cast(tf.round(tf.cast(tf.shape(mask)[:2], tf.float32) * scale), tf.int32)
        image = tf.image.resize(image, size)
        mask = tf.image.resize(mask, size, "nearest")
        kept = tf.minimum(size, work.crop)
        top = tf.random.uniform((), 0, size[0] - kept[0] + 1, tf.int32)
        left = tf.random.uniform((), 0, size[1] - kept[1] + 1, tf.int32)
        image = image[top : top + kept[0], left : left + kept[1]]
        mask = mask[top : top + kept[0], left : left + kept[1]]
        missing = [[0, work.crop - kept[0]], [0, work.crop - kept[1]], [0, 0]]
        mean = tf.constant(MEAN_PIXEL)
        image = tf.pad(image - mean, missing) + mean
        mask = tf.pad(mask, missing, constant_values=IGNORE)
        if tf.random.uniform(()) < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        shape = (work.crop, work.crop)
        image = tf.ensure_shape(image, (*shape, 3))
        if not work.floats:
            image = tf.cast(tf.round(image), tf.uint8)
        return image, tf.ensure_shape(mask[..., 0], shape)

    def finish(images, masks):
        return images / 127.5 - 1 if work.floats else images, tf.cast(masks, tf.int32)

    files = tf.data.Dataset.from_tensor_slices((work.images, work.indices))
    samples = files.shuffle(len(work.images)).repeat().map(sample, num_parallel_calls=work.workers)
    batches = samples.batch(work.batch, drop_remainder=True).map(finish).prefetch(PREFETCHED_BATCHES)
    options = tf.data.Options()
    options.threading.private_threadpool_size = work.workers + 1  # as this project's: the workers, and what batches
    return batches.with_options(options).as_numpy_iterator(), f"TensorFlow {tf.__version__}"
