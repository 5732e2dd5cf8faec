"""Which network a checkpoint holds, and of which family: told by pure functions over its {name: shape}."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from errors import some
from models.checkpoint import OBJECT_BASED, CheckpointError, is_object_based
from models.families import FAMILIES
from models.families.family import Family, Shapes, Translation, head_told
from models.preprocessing import preprocessing_of
from models.scopes import first_match, within
from models.weight_init import AVERAGE, bookkeeping_kind

# Units in blocks 1, 2, 3: block4 has 3 in all but the 18-layer nets, and is what broken checkpoints lack.
_DEPTHS = {
    "basic_block_v2": {(2, 2, 2): "resnet_v2_18", (3, 4, 6): "resnet_v2_34"},
    "bottleneck_v2": {
        (3, 4, 6): "resnet_v2_50",
        (3, 4, 23): "resnet_v2_101",
        (3, 8, 36): "resnet_v2_152",
        (3, 24, 36): "resnet_v2_200",
    },
    "bottleneck_v1": {(3, 4, 6): "resnet_v1_50", (3, 4, 23): "resnet_v1_101", (3, 8, 36): "resnet_v1_152"},
    "lite_bottleneck_v1": {(2, 2, 2): "resnet_v1_18"},
}
_RESNET = re.compile(r"^(?P<scope>.+)/block(?P<block>[1-4])/unit_(?P<unit>\d+)/(?P<kind>\w+)/")
_INVERTED_RESIDUAL = re.compile(r"^(?P<scope>.+)/expanded_conv(_\d+)?/(expand|depthwise|project|squeeze_excite)/")
_XCEPTION = re.compile(r"^(?P<scope>.+)/(?P<flow>entry|middle|exit)_flow/block(?P<block>\d+)/unit_(?P<unit>\d+)/xcep")
_MOBILENET_V1 = re.compile(r"^(?P<scope>.+)/Conv2d_\d+_(depthwise|pointwise)/")
DEPTH_MULTIPLIERS = (1.0, 0.25, 0.35, 0.5, 0.75, 1.3, 1.4)
_SCOPES = {
    "mobilenet_v1": "MobilenetV1",
    "mobilenet_v2": "MobilenetV2",
    "mobilenet_v3_large": "MobilenetV3",
    "mobilenet_v3_small": "MobilenetV3",
    "mobilenet_v3_large_seg": "MobilenetV3",
    "mobilenet_v3_small_seg": "MobilenetV3",
    "mobilenet_edgetpu": "MobilenetEdgeTPU",
}
_CLASSIFIERS = ("logits", "Logits/Conv2d_1c_1x1")
# Which flag says otherwise, of what names cannot tell.
FLAGS = {
    "multi_grid": "--multi-grid",
    "preprocessing": "--mean",
    "features": "--features",
    "atrous_rates": "--atrous-rates",
    "upsampling": "--upsampling",
    "output_stride": "--output-stride",
    "image_pooling_crop_size": "--image-pooling-crop-size",
}


class UnknownNetwork(CheckpointError):
    """A checkpoint of a network that is known by its names, but that this project does not have."""


@dataclass(frozen=True)
class Identity:
    """What a checkpoint says of its model.

    backbone: a name of `models.deeplab_v3.BACKBONES`; scope: what the backbone is called in the checkpoint.
    num_classes: outputs of its head, None without one. segments: whether that head is DeepLab's.
    atrous: whether the head has dilated branches (`aspp1` …).
    family: of `models.families.FAMILIES`, by its name. config: for a segmenter, arguments of
    `models.deeplab_v3.deeplab_v3`, all that is told, fixed by the family's code, or assumed; JSON can hold it.
    assumed: {argument: value} of those that names cannot tell.
    translation: from the checkpoint's names and values to this project's.
    head: the variables, by their names here, that are not the backbone's.
    averages: "all" where there are moving averages alone, "some" where there are any, else "none".
    """

    backbone: str
    scope: str
    num_classes: int | None = None
    segments: bool = False
    atrous: bool = True
    depth_multiplier: float = 1.0
    divisible_by: int = 8
    family: str = "slim"
    config: dict[str, Any] = field(default_factory=dict, compare=False)
    assumed: dict[str, Any] = field(default_factory=dict, compare=False)
    translation: Translation = field(default_factory=Translation, compare=False)
    head: tuple[str, ...] = field(default=(), compare=False, repr=False)
    averages: str = field(default="none", compare=False)

    def __str__(self) -> str:
        from models.deeplab_v3 import OF_ANY_WIDTH

        width = f" {self.depth_multiplier:g}" if self.backbone in OF_ANY_WIDTH else ""
        classes = f", {self.num_classes} classes" if self.num_classes else ", no classifier"
        scope = "" if self.scope == canonical_scope(self.backbone) else f" (under the scope {self.scope})"
        return f"{self.kind}{self.backbone}{width}{classes}{scope}"

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold of it, and `text`, its one line."""
        left_out = ("translation", "head")
        told = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in left_out}
        return {**told, "text": str(self), "assumptions": self.assumptions()}

    def segmenter(self) -> dict[str, Any]:
        """`config`; CheckpointError where there is no segmentation head, or one without logits."""
        if not self.segments:
            raise CheckpointError(f"holds {self}; no segmentation head (logits/semantic) is in it")
        if self.num_classes is None:
            shown = ", ".join(self.head[:3]) + (" …" if self.head[3:] else "")
            raise CheckpointError(f"holds {self}; its head ({shown}) has no logits (logits/semantic/weights)")
        return dict(self.config)

    @property
    def kind(self) -> str:
        """ "official DeepLab v3+, " and the like; empty for a classifier."""
        if not self.segments:
            return ""
        title = next((family.title for family in FAMILIES if family.name == self.family), "")
        plus = "+" if self.config.get("decoder") else ""
        head = self.config.get("head", "aspp").replace("-", " ").replace("lr aspp", "Lite R-ASPP")
        return f"{title} DeepLab v3{plus}{'' if head == 'aspp' else f' with {head}'}, ".lstrip()

    def assumptions(self, said: tuple[str, ...] = ()) -> str:
        """One line of what is assumed and was not `said` (arguments of `deeplab_v3`) otherwise; empty for nothing."""
        left = {name: value for name, value in self.assumed.items() if name not in said}
        if not left:
            return ""
        words = ", ".join(_in_words(name, value) for name, value in left.items())
        return f"{words} (names cannot tell; see {', '.join(FLAGS[name] for name in left)})"


def _in_words(name: str, value: Any) -> str:
    if name == "preprocessing":
        fed = preprocessing_of(value)
        mean = ", ".join(f"{channel:.2f}" for channel in fed.mean)
        return f"mean ({mean})" + ("" if fed.order == "RGB" else f" in {fed.order}")
    if name == "image_pooling_crop_size" and value is None:
        return "image pooling over the whole image"
    if name == "multi_grid" and set(value) == {1}:
        return "multi-grid none"
    shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
    return f"{name.replace('_grid', '-grid').replace('_', ' ')} {shown}"


def canonical_scope(backbone: str) -> str:
    """slim's scope of a backbone."""
    return _SCOPES.get(backbone, backbone.removesuffix("_beta"))


@dataclass(frozen=True)
class Network:
    """A backbone that was found in a checkpoint: its scope there, and what it is, or else why that cannot be told."""

    scope: str
    backbone: str = ""
    depth_multiplier: float = 1.0
    divisible_by: int = 8
    problem: str = ""

    @property
    def prefix(self) -> str:
        """What stands before the backbone's name; empty, or with a slash at its end."""
        return self.scope[: self.scope.rfind("/") + 1]


def identify(shapes: Shapes, model: str | None = None, allow_unused: tuple[str, ...] = ()) -> Identity:
    """Which network is in {name: shape} of a checkpoint → Identity.

    Args:
        model: the backbone, or its scope in the checkpoint or what stands before that, where there are several.
        allow_unused: scopes of the checkpoint that may stay unused, so that they tell nothing.

    Raises CheckpointError where there is no network, none that is known, or several and `model` does not tell them
    apart; UnknownNetwork for one that is known by its name only.
    """
    variables, averages = variables_of(
        {name: shape for name, shape in shapes.items() if not first_match(name, allow_unused)}
    )
    networks = _resnets(variables, model) | _mobilenets(variables) | _xceptions(variables) | _mobilenets_v1(variables)
    if not networks:
        first = ", ".join(list(shapes)[:3])
        hint = f" It is {OBJECT_BASED}." if is_object_based(shapes) else ""
        raise CheckpointError(
            f"no ResNet v1, v2 or MobileNet v2 of slim's in this checkpoint (it has {first} …).{hint}"
        )
    network = _chosen(networks, model, variables)
    if network.problem:
        raise CheckpointError(network.problem)
    others = tuple((other.prefix, scope) for scope, other in networks.items() if scope != network.scope)
    return _described(network, others, variables, averages)


def variables_of(shapes: Shapes) -> tuple[dict[str, tuple[int, ...]], str]:
    """{name: shape} without optimizer slots and bookkeeping, and "none", "some" or "all": how many are averages.

    Where there are moving averages only, they are the variables, under the variables' names.
    """
    variables = {name: shape for name, shape in shapes.items() if bookkeeping_kind(name) is None}
    averages = {name.removesuffix(AVERAGE): shape for name, shape in shapes.items() if name.endswith(AVERAGE)}
    if averages and not variables:
        return averages, "all"
    return variables, "some" if averages else "none"


def _chosen(networks: dict[str, Network], model: str | None, shapes: Shapes) -> Network:
    """The one network, or the one that `model` names by scope, by what stands before it, or by its kind."""
    if model is not None:
        asked = model.strip("/")
        by_scope = [network for network in networks.values() if network.scope == asked]
        by_prefix = [network for network in networks.values() if network.prefix == f"{asked}/"]
        found = by_scope or by_prefix or [network for network in networks.values() if network.backbone == asked]
        if not found:
            raise CheckpointError(f"no {model} in this checkpoint; it has {_listing(networks, shapes)}")
        networks = {network.scope: network for network in found}
    if len(networks) == 1:
        return next(iter(networks.values()))
    raise CheckpointError(
        f"several networks in this checkpoint: {_listing(networks, shapes)}; "
        f"say which with --model {' or --model '.join(sorted(networks)[:10])}"
    )


def _listing(networks: dict[str, Network], shapes: Shapes) -> str:
    """The networks' scopes, each with its parts, or the variable that is all there is of it."""
    texts = []
    for scope in sorted(networks):
        names = [name for name in shapes if within(name, scope)]
        parts = sorted({name.removeprefix(f"{scope}/").partition("/")[0] for name in names})
        shown = names[0] if len(names) == 1 else ", ".join(parts[:6]) + (" …" if parts[6:] else "")
        texts.append(f"{scope} ({shown})")
    return some(texts)


def _described(network: Network, others: tuple, shapes: Shapes, averages: str) -> Identity:
    """The Identity of `network`: its family, and what names, family and assumptions say of its architecture."""
    canonical = canonical_scope(network.backbone)
    for prefix in _prefixes(network.prefix):
        bare = _without(prefix, network, canonical, others)
        family = _family_of(bare, canonical, shapes)
        if family.name != "slim":
            break
    else:  # nobody's head, wherever one looks for it
        bare = _without(network.prefix, network, canonical, others)
    own_name = network.scope.removeprefix(bare.prefix)
    scopes = dict(bare.scopes) | {
        own_name + old.removeprefix(canonical) if within(old, canonical) else old: new
        for old, new in family.scopes_on(canonical).items()
    }
    translation = replace(bare, family=family.name, scopes=scopes, leaves=family.leaves, changes=family.changes)
    here = {translation.rename(name): shape for name, shape in shapes.items() if not translation.left_out(name)}
    identity = Identity(
        backbone=network.backbone,
        scope=network.scope,
        depth_multiplier=network.depth_multiplier,
        divisible_by=network.divisible_by,
        family=family.name,
        translation=translation,
        averages=averages,
    )
    return _classifier(identity, here) if family.name == "slim" else _segmenter(identity, family, here)


def _prefixes(prefix: str) -> list[str]:
    """ "a/b/" → ["a/b/", "a/", ""]: a family may have its backbone deeper than its head."""
    parts = prefix.split("/")[:-1]
    return ["".join(f"{part}/" for part in parts[:count]) for count in range(len(parts), -1, -1)]


def _without(prefix: str, network: Network, canonical: str, others: tuple) -> Translation:
    """The Translation that drops `prefix` from all names and gives the backbone slim's scope."""
    deeper = network.prefix.removeprefix(prefix)
    return Translation(
        prefix=prefix,
        scopes={network.scope.removeprefix(prefix): canonical},
        others=tuple((other.removesuffix(deeper), scope) for other, scope in others),
    )


def _family_of(bare: Translation, canonical: str, shapes: Shapes) -> Family:
    named = {bare.rename(name): shape for name, shape in shapes.items() if not bare.left_out(name)}
    return next(family for family in FAMILIES if family.is_told_by(named, canonical))


def _classifier(identity: Identity, here: Shapes) -> Identity:
    scope = canonical_scope(identity.backbone)
    names = [f"{scope}/{classifier}/weights" for classifier in _CLASSIFIERS]
    logits = next((name for name in names if name in here), None)
    described = replace(
        identity,
        num_classes=here[logits][-1] if logits else None,
        atrous=not identity.backbone.startswith("mobilenet"),
    )
    return _if_there_is_one(described)


def _segmenter(identity: Identity, family: Family, here: Shapes) -> Identity:
    told = head_told(here)
    branches = told.pop("branches")
    assumed = family.assumed(identity.backbone)
    settings: dict[str, Any] = {"output_stride": 16, **told, **family.fixed(identity.backbone), **assumed}
    rates = settings.get("atrous_rates", ())[:branches]
    is_mobile = identity.backbone.startswith("mobilenet")
    if is_mobile:
        settings |= {"depth_multiplier": identity.depth_multiplier, "divisible_by": identity.divisible_by}
        settings.pop("multi_grid", None)
        settings.pop("features", None)
        if identity.backbone != "mobilenet_v2":
            settings.pop("last_conv", None)
    else:
        settings.pop("last_conv", None)
        units = 2 if "_18" in identity.backbone else 3
        grid = settings.get("multi_grid")
        settings["multi_grid"] = (1,) * units if grid is None else tuple(grid[:units])
    settings["atrous_rates"] = rates
    if not told["decoder"]:
        settings.pop("low_level", None)
    assumed = {name: settings[name] for name in assumed if name in settings and (name != "atrous_rates" or rates)}
    described = replace(
        identity,
        num_classes=told["num_classes"],
        segments=True,
        atrous=branches > 0,
        config={"backbone": identity.backbone, **settings},
        assumed=assumed,
        head=tuple(name for name in here if not within(name, canonical_scope(identity.backbone))),
    )
    return _if_there_is_one(described)


def _if_there_is_one(identity: Identity) -> Identity:
    """`identity`; UnknownNetwork where this project has no such network."""
    from models.deeplab_v3 import BACKBONES

    if identity.backbone in BACKBONES:
        return identity
    kind = f"{identity.kind.removesuffix(', ')} on " if identity.kind else ""
    classes = f", {identity.num_classes} classes" if identity.num_classes else ""
    raise UnknownNetwork(f"this is {kind}{identity.backbone}{classes}; this project has no such network (yet)")


def _resnets(shapes: Shapes, model: str | None) -> dict[str, Network]:
    units: dict[str, dict[str, int]] = {}
    kinds: dict[str, Counter] = {}
    for name in shapes:
        match = _RESNET.match(name)
        if match and match["kind"] in _DEPTHS:
            blocks = units.setdefault(match["scope"], {})
            kinds.setdefault(match["scope"], Counter())[match["kind"]] += 1
            blocks[match["block"]] = max(blocks.get(match["block"], 0), int(match["unit"]))
    return {
        scope: _resnet(scope, blocks, kinds[scope].most_common(1)[0][0], shapes, model)
        for scope, blocks in units.items()
    }


def _resnet(scope: str, blocks: dict[str, int], kind: str, shapes: Shapes, model: str | None) -> Network:
    known = _DEPTHS[kind]
    counted = {int(block) - 1: count for block, count in blocks.items() if block != "4"}
    matching = [name for depths, name in known.items() if all(depths[b] == count for b, count in counted.items())]
    root = [f"{scope}/{name}/weights" in shapes for name in ("conv1", "conv1_1", "conv1_2", "conv1_3")]
    beta = "_beta" if not root[0] and any(root) else ""
    for own_name in (scope.rpartition("/")[2], model):
        if own_name in matching:
            return Network(scope, f"{own_name}{beta}")
    if len(matching) == 1:
        return Network(scope, f"{matching[0]}{beta}")
    counts = ", ".join(f"block{block}: {count}" for block, count in sorted(blocks.items()))
    if matching:
        return Network(scope, problem=f"{scope}: could be {' or '.join(matching)} ({counts}); name the model")
    nearest = min(known, key=lambda depths: sum(depths[b] != count for b, count in counted.items()))
    odd = next(b for b, count in counted.items() if nearest[b] != count)
    last = next(name for name in shapes if within(name, f"{scope}/block{odd + 1}/unit_{counted[odd]}"))
    return Network(scope, problem=f"{scope}: units of {kind} as no known depth has them ({counts}: {last})")


def _scopes(pattern: re.Pattern, shapes: Shapes) -> list[str]:
    return list(dict.fromkeys(match["scope"] for match in map(pattern.match, shapes) if match))


def _mobilenets(shapes: Shapes) -> dict[str, Network]:
    return {scope: _mobilenet(scope, shapes) for scope in _scopes(_INVERTED_RESIDUAL, shapes)}


def _mobilenet(scope: str, shapes: Shapes) -> Network:
    """MobileNet v2, or what is built of its units: v3 has squeeze and excitation, EdgeTPU 3x3 expansions."""
    from models.mobilenet_edgetpu import DEPTHWISE, FUSED
    from models.mobilenet_v2 import INVERTED_RESIDUALS, make_divisible

    units = {name.removeprefix(f"{scope}/").partition("/")[0] for name in shapes if within(name, scope)}
    if sum(f"{scope}/expanded_conv" in name and "/squeeze_excite/" in name for name in shapes) > 1:
        return Network(scope, _mobilenet_v3(scope, units, shapes))
    if sum(shapes.get(f"{scope}/{unit}/expand/weights", ())[:2] == (3, 3) for unit in units) > 1:
        backbone, widths = "mobilenet_edgetpu", [unit[-2] for unit in (*FUSED, *DEPTHWISE)]
    else:
        backbone, widths = "mobilenet_v2", [width for width, _ in INVERTED_RESIDUALS]
    divisors = (8, 1) if backbone == "mobilenet_v2" else (8,)
    names = [f"expanded_conv{f'_{index}' if index else ''}/project" for index in range(len(widths))]
    return _of_some_width(scope, backbone, dict(zip(names, widths, strict=True)), make_divisible, divisors, shapes)


def _mobilenet_v3(scope: str, units: set[str], shapes: Shapes) -> str:
    """Large has fifteen units, small eleven; half as wide at the end where they are for segmentation."""
    from models.mobilenet_v3 import KINDS

    kind = "large" if "expanded_conv_11" in units else "small"
    wide = KINDS[kind][0]
    ends = [shapes.get(f"{scope}/expanded_conv_{index}/project/weights") for index in range(len(wide) - 3, len(wide))]
    ends.append(shapes.get(f"{scope}/Conv_1/weights"))
    full = [width for *_, width, _, _, _ in wide[-3:]] + [6 * wide[-1][2]]
    halved = sum(shape is not None and 2 * shape[-1] == width for shape, width in zip(ends, full, strict=True))
    return f"mobilenet_v3_{kind}{'_seg' if halved > 1 else ''}"


def _of_some_width(
    scope: str,
    backbone: str,
    widths: dict[str, int],
    rounded: Callable[[float, int], int],
    divisors: tuple[int, ...],
    shapes: Shapes,
) -> Network:
    """The Network with the depth multiplier that its channels tell.

    widths: {layer under the scope: channels at multiplier 1}. rounded: (channels, divisor) → channels.
    """
    there = {f"{scope}/{layer}/weights": w for layer, w in widths.items() if f"{scope}/{layer}/weights" in shapes}
    odd: dict[tuple[float, int], list[str]] = {}
    known = list(DEPTH_MULTIPLIERS)
    if there:  # a user's own may be any
        last = list(there)[-1]
        known.append(round(shapes[last][-1] / there[last], 2))
    for divisor in divisors:
        for multiplier in known:
            odd[multiplier, divisor] = [
                name for name, width in there.items() if shapes[name][-1:] != (rounded(width * multiplier, divisor),)
            ]
    multiplier, divisor = min(odd, key=lambda rule: len(odd[rule]))
    if not odd[multiplier, divisor]:
        return Network(scope, backbone, multiplier, divisor)
    return Network(
        scope,
        backbone,
        problem=f"{scope}: channels as no depth multiplier of {DEPTH_MULTIPLIERS} gives them "
        f"({odd[multiplier, divisor][0]}: {shapes[odd[multiplier, divisor][0]]})",
    )


def _mobilenets_v1(shapes: Shapes) -> dict[str, Network]:
    from models.mobilenet_v1 import SEPARABLE_CONVOLUTIONS, scaled_channels

    widths = {f"Conv2d_{n}_pointwise": width for n, (width, _) in enumerate(SEPARABLE_CONVOLUTIONS, start=1)}
    return {
        scope: _of_some_width(scope, "mobilenet_v1", widths, lambda width, _: scaled_channels(width, 1), (8,), shapes)
        for scope in _scopes(_MOBILENET_V1, shapes)
    }


def _xceptions(shapes: Shapes) -> dict[str, Network]:
    found = {}
    for scope in _scopes(_XCEPTION, shapes):
        matches = [match for match in map(_XCEPTION.match, shapes) if match and match["scope"] == scope]
        middle = max((int(match["unit"]) for match in matches if match["flow"] == "middle"), default=0)
        entry = max((int(match["block"]) for match in matches if match["flow"] == "entry"), default=0)
        found[scope] = Network(scope, f"xception_{71 if entry > 3 else 65 if middle > 8 else 41}")
    return found
