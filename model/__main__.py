"""python -m model: make, train, measure and look into checkpoints."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from model.backbone import from_backbone, read_backbone
from model.checkpoint import default_checkpoint, file_sha256, load_network, read_metadata, save_checkpoint
from model.config import METHODS, PRESETS, preset
from model.convert import convert
from model.corpus import (
    WITHOUT_NAMESAKE,
    Corpus,
    cache_folder,
    data_folder,
    read_class_folders,
    read_data,
    read_protocol,
    read_split,
)
from model.errors import ImageError, ModelError
from model.evaluation import Evaluation, counts, evaluate
from model.matcher import load
from model.metrics import CategoryMetrics
from model.recipe import read_recipe

RECIPES = Path(__file__).parent / "recipes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 2 with a sentence on standard error."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (ModelError, ImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; a training goes on from its last checkpoint when it is started again", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m model", description=__doc__)
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
    command.add_argument("recipe", type=Path, help=f"a TOML file, as in {RECIPES.name}/ of this package")
    command.add_argument("--backbone", required=True, metavar="FILE|TIMM-TAG", help="weights to start from")
    command.add_argument(
        "--start", type=Path, metavar="FILE", help="a checkpoint to begin with; the backbone stays the teacher"
    )
    command.add_argument("--run", type=Path, dest="folder", metavar="DIR", help="default: runs/NAME-OF-RECIPE")
    command.add_argument("--until", type=int, metavar="STEP", help="stop after this step; the next call goes on")
    command.add_argument("--out", type=Path, metavar="OUT.safetensors", help="default: DIR/final.safetensors")
    _add_data(command)
    command.set_defaults(run=run_train)

    command = commands.add_parser("evaluate", help="measure how well a checkpoint retrieves")
    command.add_argument("--weights", type=Path, metavar="FILE", help="default: the one that comes with the package")
    command.add_argument("--split", choices=("val", "unseen", "train"), default="val", help="classes (default: val)")
    command.add_argument("--method", action="append", choices=METHODS, help="default: all the checkpoint has")
    command.add_argument("--device", default="cpu")
    command.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    _add_data(command)
    command.set_defaults(run=run_evaluate)
    return top


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
    path = default_checkpoint(options.checkpoint or os.environ.get("SBIR_WEIGHTS") or None)
    metadata = read_metadata(path)
    network = load_network(path)
    config = network.config
    parameters = sum(tensor.numel() for tensor in network.parameters())
    lines = {
        "file": str(path),
        "sha256": file_sha256(path),
        "network": f"{config.name}, {parameters / 1e6:.1f} M parameters",
        "methods": f"{', '.join(config.methods)} (best: {config.best_method})",
        "tokens": f"sketch {config.token_count('sketch')}, photo {config.token_count('photo')}, of {config.width} dims",
    }
    if "rn" not in config.methods:
        lines["relation network"] = "untrained, not offered"
    lines |= {name: metadata[name] for name in sorted(set(metadata) - {"format", "version", "config"})}
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
    from model.calibration import calibrated, glance
    from model.training import Trainer
    from model.training_set import training_set

    recipe = read_recipe(options.recipe)
    training, validation = _training_corpora(options.data, recipe.split)
    folder = options.folder or Path("runs") / options.recipe.stem
    print(f"training on {counts(training)}; choices are made on {counts(validation)}")
    data, backbone = training_set(training, cache_folder() / "pixels"), read_backbone(options.backbone)
    start = load_network(options.start) if options.start else None
    trainer = Trainer(recipe, data, backbone, folder, start)
    trainer.run(lambda run: glance(run, validation), until=options.until)
    if trainer.step < recipe.steps:
        print(f"stopped at step {trainer.step} of {recipe.steps}; the same command goes on from here")
        return
    dtype = torch.bfloat16 if recipe.bf16 else torch.float32
    network, figures = calibrated(trainer.average, validation, dtype)
    target = options.out or folder / "final.safetensors"
    notes = {
        "origin": f"trained by recipe {options.recipe.name} from {(options.start or Path(options.backbone)).name}",
        "validation mAP@all": json.dumps(figures),
    }
    save_checkpoint(network.half(), target, notes)
    print(f"wrote {target}; mAP@all on validation classes: {figures}")


def run_evaluate(options: argparse.Namespace) -> None:
    """evaluate [--weights FILE] [--split NAME | --data DIR] [--method M]... [--json]"""
    path = default_checkpoint(options.weights or os.environ.get("SBIR_WEIGHTS") or None)
    matcher = load(path, options.device, None if options.dtype == "auto" else getattr(torch, options.dtype))
    apart: tuple[str, ...] = ()
    if options.data is not None:
        corpus = read_class_folders(options.data)
    else:
        corpus = read_protocol(options.split)
        apart = WITHOUT_NAMESAKE if options.split == "unseen" else ()
    unknown = [method for method in options.method or () if method not in matcher.methods]
    if unknown:
        raise ModelError(f"{path} cannot score by {unknown[0]!r}, only by {', '.join(matcher.methods)}")
    result = evaluate(matcher, corpus, options.method, apart)
    if options.json:
        print(json.dumps(as_json(result, path, matcher.checkpoint_sha256, str(matcher.dtype))))
    else:
        print(as_table(result, apart))


def as_json(result: Evaluation, path: Path, sha256: str, dtype: str) -> dict[str, object]:
    """What ``evaluate --json`` prints."""
    figures = result.methods.items()
    return {
        "methods": {method: dataclasses.asdict(part.overall) for method, part in figures},
        "by_source": {
            method: {source: dataclasses.asdict(row) for source, row in part.by_source.items()}
            for method, part in figures
        },
        "without_namesake": {method: dataclasses.asdict(part.apart) for method, part in figures if part.apart},
        "queries": result.queries,
        "photos": result.photos,
        "classes": result.classes,
        "checkpoint": path.name,
        "checkpoint_sha256": sha256,
        "dtype": dtype.removeprefix("torch."),
    }


def as_table(result: Evaluation, apart: Sequence[str]) -> str:
    """What ``evaluate`` prints for people."""

    def row(name: str, what: str, m: CategoryMetrics) -> str:
        values = (m.map_all, m.map_200, m.precision_100, m.precision_200)
        return f"{name:<17}{what:<22}" + "".join(f"{value:>10.4f}" for value in values)

    lines = [f"{result.queries} sketches of {result.classes} classes against {result.photos} photos", ""]
    lines.append(
        f"{'method':<17}{'queries':<22}" + "".join(f"{n:>10}" for n in ("mAP@all", "mAP@200", "P@100", "P@200"))
    )
    for method, part in result.methods.items():
        lines.append(row(method, "all", part.overall))
        lines += [row("", source, figures) for source, figures in part.by_source.items()]
        if part.apart is not None:
            lines.append(row("", "without namesake", part.apart))
    if apart and any(part.apart for part in result.methods.values()):
        lines += ["", "without a namesake in ImageNet-1k: " + ", ".join(apart)]
    return "\n".join(lines)


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="sketch/<class>/* and photo/<class>/* (default: the folder SKETCH_SEARCH_DATA names)",
    )


def _training_corpora(folder: Path | None, parts: Sequence[str]) -> tuple[Corpus, Corpus]:
    """Training and validation pictures. Of a folder without a split, every fifth class is for validation."""
    if folder is None:
        data = data_folder()
        corpus = read_data(data)
        wanted = [label for part in parts for label in read_split(data, part)]
        return corpus.of(wanted), corpus.of(read_split(data, "val")).protocol()
    corpus = read_class_folders(folder)
    held = corpus.labels[::5]
    return corpus.of(set(corpus.labels) - set(held)), corpus.of(held)


if __name__ == "__main__":
    sys.exit(main())
