"""Which network a checkpoint belongs to, told from its names and shapes alone: pure functions over {name: shape}."""

import re
from dataclasses import dataclass

from models.checkpoint import OBJECT_BASED, CheckpointError, is_object_based

# Units in blocks 1, 2, 3: block4 has 3 in all but the 18-layer net, and is what broken checkpoints lack.
_DEPTHS = {
    "basic_block_v2": {(2, 2, 2): "resnet_v2_18", (3, 4, 6): "resnet_v2_34"},
    "bottleneck_v2": {
        (3, 4, 6): "resnet_v2_50",
        (3, 4, 23): "resnet_v2_101",
        (3, 8, 36): "resnet_v2_152",
        (3, 24, 36): "resnet_v2_200",
    },
    "bottleneck_v1": {(3, 4, 6): "resnet_v1_50", (3, 4, 23): "resnet_v1_101", (3, 8, 36): "resnet_v1_152"},
}
_RESNET_UNIT = re.compile(r"^(?P<scope>.+)/block(?P<block>[1-4])/unit_(?P<unit>\d+)/(?P<kind>\w+)/.*weights$")
_MOBILENET_ROOT = re.compile(r"^(?P<scope>.+)/expanded_conv/depthwise/depthwise_weights$")
DEPTH_MULTIPLIERS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
_HEAD_LOGITS = "logits/semantic/weights"


@dataclass(frozen=True)
class Identity:
    """What a checkpoint says of its model.

    backbone: a name of `models.deeplab_v3.BACKBONES`; scope: what the backbone is called in the checkpoint.
    num_classes: outputs of its head, None without one. segments: whether that head is DeepLab's.
    atrous: whether the head has dilated branches (`aspp1` …).
    """

    backbone: str
    scope: str
    num_classes: int | None = None
    segments: bool = False
    atrous: bool = True
    depth_multiplier: float = 1.0

    def __str__(self):
        width = f" {self.depth_multiplier:g}" if self.backbone == "mobilenet_v2" else ""
        kind = "DeepLab v3 on " if self.segments else ""
        classes = f", {self.num_classes} classes" if self.num_classes else ", no classifier"
        scope = "" if self.scope == canonical_scope(self.backbone) else f" (under the scope {self.scope})"
        return f"{kind}{self.backbone}{width}{classes}{scope}"


def canonical_scope(backbone):
    """slim's scope of a backbone."""
    return "MobilenetV2" if backbone == "mobilenet_v2" else backbone


def identify(shapes):
    """→ Identity of the one network in {name: shape}; CheckpointError when there is none, or none that is known."""
    scopes = _resnets(shapes) | _mobilenets(shapes)
    if not scopes:
        first = ", ".join(list(shapes)[:3])
        hint = f" It is {OBJECT_BASED}." if is_object_based(shapes) else ""
        raise CheckpointError(
            f"no ResNet v1, v2 or MobileNet v2 of slim's in this checkpoint (it has {first} …).{hint}"
        )
    if len(scopes) > 1:
        raise CheckpointError(f"several networks in this checkpoint: {', '.join(sorted(scopes))}; name the model")
    ((scope, (backbone, multiplier)),) = scopes.items()
    classifier = "Logits/Conv2d_1c_1x1" if backbone == "mobilenet_v2" else "logits"
    segments = _HEAD_LOGITS in shapes
    logits = shapes.get(_HEAD_LOGITS) or shapes.get(f"{scope}/{classifier}/weights")
    return Identity(
        backbone=backbone,
        scope=scope,
        num_classes=logits[-1] if logits else None,
        segments=segments,
        atrous="aspp1/weights" in shapes if segments else backbone != "mobilenet_v2",
        depth_multiplier=multiplier,
    )


def _resnets(shapes):
    units, kinds = {}, {}
    for name in shapes:
        match = _RESNET_UNIT.match(name)
        if match and match["kind"] in _DEPTHS:
            blocks = units.setdefault(match["scope"], {})
            kinds[match["scope"]] = match["kind"]
            blocks[match["block"]] = max(blocks.get(match["block"], 0), int(match["unit"]))
    found = {}
    for scope, blocks in units.items():
        known = _DEPTHS[kinds[scope]]
        matching = [
            name
            for depths, name in known.items()
            if all(depths[int(block) - 1] == count for block, count in blocks.items() if block != "4")
        ]
        own_name = scope.rpartition("/")[2]
        if own_name in matching:
            found[scope] = own_name, 1.0
        elif len(matching) == 1:
            found[scope] = matching[0], 1.0
        else:
            counts = ", ".join(f"block{block}: {count}" for block, count in sorted(blocks.items()))
            if matching:
                raise CheckpointError(f"{scope}: could be {' or '.join(matching)} ({counts}); name the model")
            raise CheckpointError(f"{scope}: units of {kinds[scope]} as no known depth has them ({counts})")
    return found


def _mobilenets(shapes):
    found = {}
    for name in shapes:
        match = _MOBILENET_ROOT.match(name)
        if match:
            scope = match["scope"]
            found[scope] = "mobilenet_v2", _depth_multiplier(scope, shapes)
    return found


def _depth_multiplier(scope, shapes):
    from models.mobilenet_v2 import INVERTED_RESIDUALS, make_divisible

    widths = {
        f"{scope}/expanded_conv{f'_{index}' if index else ''}/project/weights": width
        for index, (width, _) in enumerate(INVERTED_RESIDUALS)
    }
    for multiplier in DEPTH_MULTIPLIERS:
        if all(shapes[n][-1] == make_divisible(w * multiplier) for n, w in widths.items() if n in shapes):
            return multiplier
    raise CheckpointError(f"{scope}: channels as no depth multiplier of {DEPTH_MULTIPLIERS} gives them")
