"""Runs an old TensorFlow 1 graph and this project's model on one picture and compares them end point by end point.

python verify_port.py frozen.pb --ckpt resnet_v2_50.ckpt cat.jpg
python verify_port.py model.ckpt-30000.meta cat.jpg           the graph's own weights go into the model
python verify_port.py frozen.pb cat.jpg                       the same: the constants are the weights

The model is told from the names of the weights, the picture is preprocessed as it wants, the tensors are found by
slim's names. A frozen graph's constants are also compared with --ckpt variable by variable.

Exit code: 0 when all agree, 1 when something departs, 2 when something could not be read or run.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path

from engine import cli
from errors import UserError


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD", help="frozen .pb; or .meta, its checkpoint's prefix or directory")
    parser.add_argument("image", metavar="IMAGE", help="picture to run both on")
    parser.add_argument("--ckpt", help="weights of this project's model [those of OLD]")
    parser.add_argument("--old-ckpt", help="variables of OLD's graph [beside the .meta, else --ckpt]")
    parser.add_argument("--input", metavar="NAME", help="tensor of OLD to feed the picture to [its placeholder]")
    parser.add_argument(
        "--feed", action="append", default=[], metavar="NAME=NUMBER", help="value of another placeholder of OLD"
    )
    parser.add_argument(
        "--scope",
        "--rename",
        dest="rename",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="the old scope OLD is the model's scope NEW, e.g. slim_resnet=resnet_v2_50",
    )
    parser.add_argument(
        "--tolerance", type=cli.nonnegative_float, default=1e-4, help="of the largest magnitude [%(default)s]"
    )
    parser.add_argument("--size", type=cli.positive_int, help="resize the picture to N x N [as OLD wants, else not]")
    parser.add_argument("--output-stride", type=int, choices=(4, 8, 16, 32), help="of the model [as OLD has it]")
    parser.add_argument("--multi-grid", type=cli.int_list, help="dilations of block4's units in a DeepLab [1,2,4]")
    parser.add_argument("--features", choices=("postnorm", "block4"), help="what a DeepLab's head is fed [postnorm]")
    parser.add_argument("--json", metavar="FILE", help="write all of it to this file too")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_arguments(argv)
    rename, feeds = cli.renames(args.rename), numbers(args.feed)

    from data.images import read_image

    picture = read_image(args.image)
    graph = open_graph(args)
    old_rename = model_scopes(graph.path, graph.variables, rename)
    with tempfile.TemporaryDirectory() as folder:
        weights = args.ckpt or own_weights(graph, folder)
        new_rename = model_scopes(weights if args.ckpt else graph.path, shapes_in(weights), rename)
        check_rename(rename, graph, old_rename | new_rename)
        scopes = {new: old for old, new in old_rename.items() if new} | {new: old for old, new in rename.items()}
        size = picture_size(args, graph, picture)
        stride = args.output_stride or stride_of(graph, scopes, size, feeds, weights, new_rename)
        model, absent = build_model(args, weights, new_rename, stride)
    print(f"old: {graph.path}" + ("" if graph.frozen else f", variables of {graph.checkpoint}"))
    print(f"new: {model.name} with the weights of {args.ckpt or 'the old graph'}")
    if absent:
        print(f"{len(absent)} of the model's variables are not among them: {absent[0]} …; no end point from there on")

    images = model.preprocessing(resized(picture, size).astype("float32")).astype("float32")[None]
    ours = {key: value.numpy() for key, value in model.end_points(images).items()}
    ours = {key: ours[key] for key in before_first(ours, absent)}
    tensors, chosen = graph.end_points(list(ours), scopes)
    if not tensors:
        raise UserError(
            f"{graph.path}: none of the model's end points ({', '.join(list(ours)[:3])} …) is found behind "
            f"{graph.input}; a scope of another name is told with --scope OLD=NEW, another input with --input"
        )
    function = graph.prune(list(tensors.values()), feeds)
    batch = (graph.input_shape or [None])[0] or 1
    theirs = function(images.repeat(batch, axis=0))
    print(f"input {graph.input} {images.shape}, {model.preprocessing.name}")
    for name, value in function.fed.items():
        print(f"fed {name} = {value}")
    for root, scope in chosen.items():
        if root != scope:
            print(f"{root} is {scope} in the old graph")

    rows = [compare(key, tensor, theirs[tensor][:1], ours[key], args.tolerance) for key, tensor in tensors.items()]
    variables = compare_weights(graph, model, old_rename, args.tolerance) if args.ckpt and graph.frozen else []
    unshared = [key for key in ours if key not in tensors]
    agree = show(rows, variables, unshared, args.tolerance)
    if args.json:
        write_json(
            args.json,
            {
                "old": graph.path,
                "weights": args.ckpt,
                "model": model.name,
                "input": graph.input,
                "fed": {name: float(value) for name, value in function.fed.items()},
                "tolerance": args.tolerance,
                "agree": agree,
                "departs_at": next((row["end_point"] for row in rows if not row["agrees"]), None),
                "end_points": rows,
                "not_in_old": unshared,
                "variables": variables,
            },
        )
    return 0 if agree else 1


def numbers(texts):
    """["name=0.5", …] → {"name": 0.5, …}"""
    pairs = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            pairs[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            raise UserError(f"--feed takes NAME=NUMBER, got {text!r}")
    return pairs


def open_graph(args):
    """OLD with its variables: --old-ckpt, or those beside a `.meta`, or --ckpt."""
    from models.legacy_graph import LegacyGraphError, load_frozen, load_graph, load_meta

    if Path(args.old).suffix == ".pb":
        return load_frozen(args.old, args.old_ckpt or args.ckpt, args.input)
    try:
        return load_graph(args.old, args.old_ckpt, args.input)
    except LegacyGraphError:
        if args.old_ckpt or not args.ckpt:
            raise
        return load_meta(args.old, args.ckpt, args.input)


def shapes_in(path):
    from models.checkpoint import open_checkpoint

    with open_checkpoint(path) as checkpoint:
        return checkpoint.shapes


def own_weights(graph, folder):
    """A checkpoint of what the old graph itself runs with: its own, or one made of a frozen graph's constants."""
    from models.checkpoint import write_checkpoint
    from models.legacy_graph import LegacyGraphError

    if graph.checkpoint is not None:
        return graph.checkpoint
    if not graph.frozen:
        raise LegacyGraphError(f"{graph.path}: no weights under slim's names in this graph; give them with --ckpt")
    prefix = Path(folder) / "constants.ckpt"
    write_checkpoint(prefix, graph.constants())
    return prefix


def model_scopes(path, shapes, rename):
    """The rename that brings `shapes` under slim's names: what of `rename` applies, and what the names themselves tell.

    A prefix (`import/`, `tower_0/`) is dropped; a backbone of another name gets slim's.
    """
    from models.checkpoint import CheckpointError
    from models.identify import canonical_scope, identify
    from models.scopes import within
    from models.weight_init import rename_scope

    rename = {old: new for old, new in rename.items() if any(within(name, old) for name in shapes)}
    try:
        identity = identify({rename_scope(name, rename): shape for name, shape in shapes.items()})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    canonical = canonical_scope(identity.backbone)
    if identity.scope.endswith(f"/{canonical}"):
        return rename | {identity.scope.removesuffix(f"/{canonical}"): ""}
    return rename if identity.scope == canonical else rename | {identity.scope: canonical}
