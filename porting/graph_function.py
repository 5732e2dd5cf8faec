"""A part of a graph, imported and restored, as a function of images."""

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from porting.graph_nodes import LegacyGraphError, node_dtype, split_tensor
from porting.graph_part import Part

if TYPE_CHECKING:
    from porting.legacy_graph import LegacyGraph

LARGEST = 1 << 30  # bytes of one tensor: 16 of the largest that a DeepLab has of a picture of 513x513


class LegacyFunction:
    """Some outputs of a LegacyGraph as a function of images (N, H, W, 3) → {name: array}.

    fed: {placeholder: value} of what it is fed beside the images. weights: names of the variables that it was restored
    with, or that were frozen into its constants. normalizes_by_batch: whether its batch norm was built for training.
    """

    def __init__(self, graph: "LegacyGraph", outputs: dict[str, str], part: Part) -> None:
        self.graph = graph
        self.fed = dict(part.fed)
        self.weights = list(part.weights.values())
        # A conditional has both branches; without one, batch norm in training mode means a graph made for training.
        self.normalizes_by_batch = not any(node.op == "Switch" for node in part.included.values()) and any(
            node.op.startswith("FusedBatchNorm") and node.attr["is_training"].b for node in part.included.values()
        )
        self._outputs = outputs
        self._images = part.images
        given = {tensor: np.asarray(value) for tensor, value in part.fed.items()}
        values = graph.values(self.weights)
        given |= {tensor: values[op] for tensor, op in part.weights.items()}
        self._given = {name: given[name] for name in outputs.values() if name in given}
        self._computed = [name for name in outputs.values() if name not in part.border]
        self._function = self._imported(part, given) if self._computed else None

    def _imported(self, part: Part, given: Mapping[str, Any]) -> Callable:
        """The part as a function of images; weights are captured by it, not copied into its graph."""
        import tensorflow as tf

        nodes = self.graph.nodes
        graph_def, stands = part.graph_def()
        held: dict[str, Any] = {}

        def function(images):
            feeds = {
                tensor: value.handle if isinstance(value, tf.Variable) else value for tensor, value in held.items()
            }
            feeds = {f"{stands[tensor]}:0": tf.identity(value) for tensor, value in feeds.items()}
            if self._images:
                feeds[f"{stands[self._images]}:0"] = images
            return tf.compat.v1.import_graph_def(graph_def, feeds, return_elements=self._computed, name="")

        self._held = held  # the function knows the variables by their handles only
        try:
            for tensor, value in given.items():
                node = nodes[split_tensor(tensor)[0]]
                is_handle = node.op == "VarHandleOp"
                dtype = node_dtype(node)
                held[tensor] = tf.Variable(value, trainable=False) if is_handle else tf.constant(value, dtype)
            imported = tf.compat.v1.wrap_function(function, [tf.TensorSpec(None, self._image_dtype())])
        except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
            raise self._explained(error, "cannot be imported") from error
        self._check_sizes(imported.graph)
        return imported

    def _check_sizes(self, imported: Any) -> None:
        """A damaged size of a resize or a pad is known before it is computed, and before there is room for it."""
        for operation in imported.get_operations():
            for output in operation.outputs:
                sides = [] if output.shape.rank is None else output.shape.as_list()
                if math.prod(side for side in sides if side is not None) * (output.dtype.size or 1) > LARGEST:
                    raise LegacyGraphError(
                        f"{self.graph.path}: its operation {operation.name!r} gives {output.shape}, more than "
                        f"{LARGEST >> 30} GB at once; the graph is damaged, or made for a larger machine"
                    )

    def _image_dtype(self) -> Any:
        import tensorflow as tf

        return node_dtype(self.graph.nodes[split_tensor(self._images)[0]]) if self._images else tf.float32

    def _explained(self, error: Exception, what: str) -> LegacyGraphError:
        cause = str(getattr(error, "message", None) or error).strip().splitlines()[0]
        unknown = re.search(r"Op type not registered '([^']+)'", str(error))
        if unknown:
            cause = f"its op {unknown.group(1)} is unknown to this TensorFlow; ask for outputs that do not need it"
        return LegacyGraphError(f"{self.graph.path}: {what}: {cause}")

    def __call__(self, images: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """→ {output as it was asked for: array}; LegacyGraphError for images that are missing or do not fit."""
        import tensorflow as tf

        found, shape = dict(self._given), () if images is None else np.shape(images)
        if self._images:
            if images is None:
                raise LegacyGraphError(f"{self.graph.path}: these outputs need images, fed to {self._images}")
            self._check(shape)
            found[self._images] = np.asarray(images)
        if self._function:
            try:
                fed = tf.cast(images if self._images else 0, self._image_dtype())
                results = self._function(fed)
            except (tf.errors.OpError, ValueError, TypeError) as error:
                raise self._explained(error, f"does not run on images of {shape}") from error
            found |= {name: np.asarray(value) for name, value in zip(self._computed, results, strict=True)}
        return {asked: found[name] for asked, name in self._outputs.items()}

    def _check(self, shape: tuple[int, ...]) -> None:
        wanted = self.graph.input_shape
        if wanted is not None and (
            len(wanted) != len(shape) or any(w not in (None, s) for w, s in zip(wanted, shape, strict=True))
        ):
            raise LegacyGraphError(f"{self.graph.path}: {self._images} takes images {wanted}. Received: {shape}")
