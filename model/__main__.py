"""python -m model: convert released checkpoints, start new ones, look into them."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from model.backbone import from_backbone, read_backbone
from model.checkpoint import default_checkpoint, file_sha256, load_network, read_metadata, save_checkpoint
from model.config import PRESETS, preset
from model.convert import convert
from model.errors import ModelError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 2 with a sentence on standard error."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (ModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
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
    path = default_checkpoint(options.checkpoint)
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
        f.name for f in dataclasses.fields(config) if f.name.startswith("released_") and getattr(config, f.name)
    ]
    if released:
        lines["released quirks"] = ", ".join(name.removeprefix("released_") for name in released)
    for name, value in lines.items():
        print(f"{name + ':':<18}{value}")


if __name__ == "__main__":
    sys.exit(main())
