"""What the networks of ImageNet share: how they are built, and the way from images to features or to scores."""

from abc import ABC, abstractmethod
from typing import Any

from models.layers import Tensor, classify
from models.network import Network, checked
from models.preprocessing import UNIT_RANGE


class Backbone(Network, ABC):
    """Features at an output stride for a head, or a classifier's scores.

    A network of its own sets its layers, `out_channels` and `low_level`, `logits` where there is a classifier, and says
    what `features` are.

    Args:
        name: slim's scope, and so the first part of every variable's name.
        num_classes: outputs of the classifier; None for features.
        output_stride: of `output_strides`.
        batch_norm_decay: of the moving statistics, under 1.
        in_channels: of the images.
        global_pool: False has the classifier score every place of the features.
        own: the network's other arguments, as JSON can hold them.

    Raises ValueError for another output stride, and whatever `models.network.checked` refuses.
    """

    preprocessing = UNIT_RANGE
    output_strides: tuple[int, ...] = (8, 16, 32)
    logits_scope = "Logits"  # "logits" in slim's ResNets, whose end points have other names too: see `classify`
    low_level: str | None = None  # the end point that a decoder is fed
    projection: Any = None  # the 1x1 convolution without activation that features come from, where they do
    out_channels: int

    def __init__(
        self,
        name: str,
        num_classes: int | None,
        output_stride: int,
        batch_norm_decay: float,
        in_channels: int,
        global_pool: bool,
        **own: Any,
    ):
        super().__init__(name=name)
        if output_stride not in self.output_strides:
            *others, last = self.output_strides
            raise ValueError(
                f"output_stride must be {', '.join(map(str, others))} or {last}. Received: {output_stride}"
            )
        self.options = checked(
            {
                "num_classes": num_classes,
                "output_stride": output_stride,
                "batch_norm_decay": batch_norm_decay,
                "in_channels": in_channels,
                "global_pool": global_pool,
                **own,
            }
        )
        self.backbone_scope = name
        self.head_scopes = (f"{name}/{self.logits_scope}",)
        self.num_classes = num_classes
        self.output_stride = output_stride
        self.in_channels = in_channels
        self.global_pool = global_pool
        self.logits: Any = None  # the 1x1 convolution of a classifier

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """What a head is to be fed (N, h, w, C)."""

    def raw_features(self, images: Tensor) -> Tensor:
        """The same as `features`, where nothing stands between the last unit and the head."""
        return self.features(images)

    def scores(self, features: Tensor) -> Tensor:
        """Features (N, h, w, C) → logits (N, num_classes)."""
        return classify(
            features, self.logits, self.global_pool, scope=self.path if self.logits_scope == "logits" else None
        )

    def call(self, images: Tensor, training: bool | None = False) -> Tensor:
        """Images (N, H, W, 3) → features (N, h, w, `out_channels`), or logits (N, num_classes)."""
        features = self.features(images)
        return features if self.logits is None else self.scores(features)
