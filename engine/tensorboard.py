"""TensorBoard events of a run."""


class Board:
    """Writes scalars, pictures and histograms under steps of training into `folder`."""

    def __init__(self, folder):
        import tensorflow as tf

        self._summary = tf.summary
        self._writer = tf.summary.create_file_writer(str(folder))

    def scalars(self, step, values):
        """{name: number}; what is no number (an empty cell of the log) is left out."""
        with self._writer.as_default(step):
            for name, value in values.items():
                if name != "step" and value != "":
                    self._summary.scalar(name, value)
        self._writer.flush()

    def pictures(self, step, name, pictures):
        """uint8 (N, H, W, 3), RGB."""
        with self._writer.as_default(step):
            self._summary.image(name, pictures, max_outputs=len(pictures))

    def histograms(self, step, values):
        """{name: array}."""
        with self._writer.as_default(step):
            for name, value in values.items():
                self._summary.histogram(name, value)
