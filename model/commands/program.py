"""python -m model: make, train, measure and look into checkpoints."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from model.checkpoint import (
    convert,
    default_checkpoint,
    fetch,
    file_sha256,
    known_checkpoint,
    known_checkpoints,
    load_network,
    read_metadata,
    save_checkpoint,
)
from model.datasets import LAYOUTS, PROTOCOLS, SPLITS, read_class_folders, read_protocol
from model.errors import ImageError, ModelError
from model.evaluation import CHANCE, COMPOSITES, RESAMPLED, Measurement, measure_composites, perform
from model.matcher import load
from model.network import METHODS, PRESETS, from_backbone, preset, read_backbone
from model.training import RECIPES

_EXAMPLES = """examples:
  {prog} info                   # of the network in use
  {prog} evaluate --data DIR    # sketch/CLASS/*, photo/CLASS/*
  {prog} train default --backbone FILE
  {prog} convert RELEASED.pth OUT.safetensors
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m model") -> int:
    """Runs one command; 0, or 2 with a sentence on standard error. ``prog``: how help names this program."""
    options = parser(prog).parse_args(arguments)
    try:
        options.run(options)
    except (ModelError, ImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; a training goes on from its last checkpoint when it is started again", file=sys.stderr)
        return 130
    return 0


def parser(prog: str = "python -m model") -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog=prog,
        description="Make, train and measure networks, and look into their checkpoints.",
        epilog=_EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"sketch-search {_version()}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("convert", help="turn a released ZSE-SBIR .pth file into a checkpoint")
    command.add_argument("source", type=Path, metavar="RELEASED.pth")
    command.add_argument("target", type=Path, metavar="OUT.safetensors")
    command.set_defaults(run=run_convert)

    command = commands.add_parser("init", help="make a new network from a pretrained ViT")
    command.add_argument("preset", choices=sorted(PRESETS))
    command.add_argument("--backbone", required=True, metavar="FILE|TIMM-TAG", help="safetensors file or timm tag")
    command.add_argument("--seed", type=int, default=0, help="for the parts that start random (default: 0)")
    command.add_argument("target", type=Path, metavar="OUT.safetensors")
    command.set_defaults(run=run_init)

    command = commands.add_parser("info", help="say what a checkpoint is")
    command.add_argument("checkpoint", type=Path, nargs="?", help="default: the one that comes with the package")
    command.set_defaults(run=run_info)

    command = commands.add_parser("train", help="train a network, or go on with a training")
    command.add_argument(
        "recipe", type=Path, help=f"a TOML file, or the name of one in {RECIPES.name}/ of this package, as default"
    )
    command.add_argument("--backbone", required=True, metavar="FILE|TIMM-TAG", help="weights to start from")
    command.add_argument(
        "--start", type=Path, metavar="FILE", help="a checkpoint to begin with; the backbone stays the teacher"
    )
    command.add_argument("--run", type=Path, dest="folder", metavar="DIR", help="default: runs/NAME-OF-RECIPE")
    command.add_argument("--until", type=int, metavar="STEP", help="stop after this step; the next call goes on")
    command.add_argument("--out", type=Path, metavar="OUT.safetensors", help="default: DIR/final.safetensors")
    _add_data(command)
    command.set_defaults(run=run_train)

    command = commands.add_parser("ablate", help="train and measure the table of ablations and baselines")
    command.add_argument("row", nargs="*", metavar="ROW", help="recipes of recipes/ablations (default: all)")
    command.add_argument("--backbone", required=True, metavar="FILE|TIMM-TAG", help="weights that all start from")
    command.add_argument(
        "--run", type=Path, dest="folder", metavar="DIR", default=Path("runs/ablations"), help="default: runs/ablations"
    )
    command.add_argument("--every", type=_two_numbers, metavar="S,P", help="only every S-th sketch and P-th photo")
    command.add_argument("--json", action="store_true", help="print one JSON list")
    _add_data(command)
    command.set_defaults(run=run_ablate)

    command = commands.add_parser("fetch", help="download a public checkpoint, or list those that are known")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", metavar="NAME", help="as --list prints it")
    which.add_argument("--list", action="store_true", help="print all that are known")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the Hugging Face cache, where the indexer and timm find it"
    )
    command.set_defaults(run=run_fetch)

    command = commands.add_parser("composites", help="measure whether matching patches point at the thing drawn")
    command.add_argument("--weights", type=Path, metavar="FILE", help="default: the one that comes with the package")
    command.add_argument("--split", choices=("val", "unseen", "train"), default="val", help="classes (default: val)")
    command.add_argument("--count", type=int, default=COMPOSITES, help=f"canvases (default: {COMPOSITES})")
    command.add_argument("--seed", type=int, default=0, help="of their choice (default: 0)")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    _add_data(command)
    command.set_defaults(run=run_composites)

    command = commands.add_parser("evaluate", help="measure how well a checkpoint retrieves")
    command.add_argument("--weights", type=Path, metavar="FILE", help="default: the one that comes with the package")
    command.add_argument(
        "--backbone", metavar="FILE|TIMM-TAG", help="measure an untrained ViT: alone, or beside the --weights named"
    )
    command.add_argument("--protocol", choices=PROTOCOLS, default="zero-shot", help="default: zero-shot")
    command.add_argument("--split", choices=SPLITS, help="classes (default: val, or all of --data)")
    command.add_argument(
        "--trained-on",
        metavar="NAME",
        help="cross-data-set: sketchy (default), tuberlin, quickdraw or, with --data, a split; generalised: train+val",
    )
    command.add_argument(
        "--layout", choices=LAYOUTS, default="folders", help="--data: class folders, public file lists, QMUL pairs"
    )
    command.add_argument("--every", type=_two_numbers, metavar="S,P", help="only every S-th sketch and P-th photo")
    command.add_argument("--method", action="append", choices=METHODS, help="default: all the checkpoint has")
    command.add_argument("--visual", action="store_true", help="also score by the mean visual token, as row vis")
    command.add_argument("--device", default="cpu")
    command.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--intervals", choices=RESAMPLED, help="print 95%% intervals, by resamples of these")
    command.add_argument("--csv", type=Path, metavar="FILE", help="write the figures of each query")
    command.add_argument("--against", type=Path, metavar="FILE.csv", help="compare with what --csv wrote elsewhere")
    command.add_argument(
        "--keep", metavar="R,R,...", help="sweep keep rates: r, r_S/r_I or r_S/r_I/r_CA, with their costs"
    )
    command.add_argument("--plot", type=Path, metavar="FILE", help="draw precision over recall, or the sweep")
    _add_data(command)
    command.set_defaults(run=run_evaluate)
    return top


def run_fetch(options: argparse.Namespace) -> None:
    """fetch NAME [--out DIR], fetch --list"""
    if options.list:
        for entry in known_checkpoints():
            origin = f"https://huggingface.co/{entry.repository}" if entry.repository else "by hand"
            print(f"{entry.name}\n  {entry.kind}, about {entry.megabytes} MB: {entry.purpose}")
            print(f"  licence: {entry.licence}\n  from: {entry.source}; {origin}\n  then: {entry.use}\n")
        return
    entry = known_checkpoint(options.name)
    fetched = fetch(entry, options.out)
    checks = {
        "registry": "as it should be",
        "record": "as when it was first fetched",
        "nothing": "not known before; written down, and compared from now on",
    }
    print(f"file:    {fetched.path}\nsha256:  {fetched.sha256}, {checks[fetched.checked]}\nlicence: {entry.licence}")
    print(f"then:    {entry.command(fetched.path, cached=options.out is None)}")


def run_composites(options: argparse.Namespace) -> None:
    """composites [--weights FILE] [--split NAME | --data DIR] [--count N] [--seed N] [--json]"""
    matcher = load(default_checkpoint(_named(options.weights)), dtype=torch.float32)
    corpus = read_protocol(options.split) if options.data is None else read_class_folders(options.data)
    with tqdm(desc="explaining", unit="composite", total=options.count, disable=None) as bar:
        result = measure_composites(matcher, corpus, options.count, options.seed, lambda _: bar.update())
    if options.json:
        print(json.dumps(dataclasses.asdict(result)))
        return
    print(f"{result.composites} composites of {result.classes} classes; by chance {CHANCE:.3f}")
    for name, interval in (
        ("best matches in the right quarter", result.right),
        ("compared tokens in the right quarter", result.tokens),
        ("composites most matches of which are there", result.most),
    ):
        print(f"{name:<44}{interval.value:.3f}  (95%: {interval.low:.3f} to {interval.high:.3f})")


def run_convert(options: argparse.Namespace) -> None:
    """convert RELEASED.pth OUT.safetensors"""
    convert(options.source, options.target)
    print(f"wrote {options.target}")


def run_init(options: argparse.Namespace) -> None:
    """init PRESET --backbone FILE|TIMM-TAG OUT.safetensors"""
    network = from_backbone(preset(options.preset), read_backbone(options.backbone), options.seed)
    origin = f"encoder started from {Path(options.backbone).name}; relation network untrained"
    save_checkpoint(network, options.target, {"origin": origin})
    print(f"wrote {options.target}: {origin}, so it matches by [Ret] alone until trained")


def run_info(options: argparse.Namespace) -> None:
    """info [CHECKPOINT]"""
    path = default_checkpoint(_named(options.checkpoint))
    metadata = read_metadata(path)
    network = load_network(path)
    config, calibration = network.config, network.calibration
    parameters = sum(tensor.numel() for tensor in network.parameters())
    lines = {
        "file": str(path),
        "sha256": file_sha256(path),
        "network": f"{config.name}, {parameters / 1e6:.1f} M parameters",
        "methods": f"{', '.join(calibration.methods)} (best: {calibration.best_method})",
        "tokens": f"sketch {config.token_count('sketch')}, photo {config.token_count('photo')}, of {config.width} dims",
    }
    if calibration.fusion is not None:
        lines["fusion weight"] = f"{calibration.fusion:g}"
    if calibration.diffusion is not None:
        lines["diffusion from"] = f"cosine {calibration.diffusion:g}"
    if "rn" not in calibration.methods:
        lines["relation network"] = "untrained, not offered"
    lines |= {name: metadata[name] for name in sorted(set(metadata) - {"format", "version", "config", "calibration"})}
    released = [
        field.name.removeprefix("released_")
        for field in dataclasses.fields(config)
        if field.name.startswith("released_") and getattr(config, field.name)
    ]
    if released:
        lines["released quirks"] = ", ".join(released)
    for name, value in lines.items():
        print(f"{name + ':':<21}{value}")


def run_train(options: argparse.Namespace) -> None:
    """train RECIPE --backbone FILE|TIMM-TAG [--start FILE] [--run DIR] [--until STEP] [--out OUT.safetensors]"""
    from model.training import Run, train

    folder = options.folder or Path("runs") / options.recipe.stem
    target = options.out or folder / "final.safetensors"
    run = Run(options.recipe, options.backbone, folder, target, options.data, options.start, options.until)
    train(run, print)


def run_ablate(options: argparse.Namespace) -> None:
    """ablate [ROW...] --backbone FILE|TIMM-TAG [--run DIR] [--every S,P] [--json]"""
    from model.training import ablate, ablation_table

    def say(sentence: str) -> None:
        print(sentence, file=sys.stderr)

    every = options.every or (1, 1)
    rows = ablate(options.row, options.backbone, options.folder, say, data=options.data, every=every)
    print(json.dumps([dataclasses.asdict(row) for row in rows]) if options.json else ablation_table(rows))


def run_evaluate(options: argparse.Namespace) -> None:
    """evaluate [--weights FILE] [--backbone FILE] [--protocol NAME] [--split NAME | --data DIR] [--json] ..."""
    asked = {field.name: getattr(options, field.name) for field in dataclasses.fields(Measurement)}
    if not options.backbone:
        asked["weights"] = _named(options.weights)
    perform(Measurement(**asked), print)


def _named(weights: Path | None) -> Path | str | None:
    return weights or os.environ.get("SBIR_WEIGHTS") or None


def _version() -> str:
    try:
        return importlib.metadata.version("sketch-search")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _two_numbers(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    if not (first.isdecimal() and second.isdecimal() and int(first) and int(second)):
        raise argparse.ArgumentTypeError(f"two numbers from 1 on with a comma between, not {text!r}")
    return int(first), int(second)


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="sketch/<class>/* and photo/<class>/* (default: the folder SKETCH_SEARCH_DATA names)",
    )


if __name__ == "__main__":
    sys.exit(main())
