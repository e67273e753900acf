"""Commands about checkpoint files: convert, init, info, fetch."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from model.checkpoint import (
    DESCRIPTION,
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
from model.network import ClipAtNetwork, Network, from_backbone, preset, read_backbone
from model.terminal import printable


def run_info(options: argparse.Namespace) -> None:
    """info [CHECKPOINT]"""
    path = default_checkpoint(options.checkpoint)
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
    if isinstance(network, ClipAtNetwork):
        shared = network.config.shared_norms
        whose = "that sketches and photos share" if shared else "of their own for sketches and photos"
        lines["clip-at"] = f"{network.config.prompts} prompts and LayerNorms {whose}; the encoder is frozen"
    if calibration.fusion is not None:
        lines["fusion weight"] = f"{calibration.fusion:g}"
    if calibration.diffusion is not None:
        lines["diffusion threshold"] = f"cosine {calibration.diffusion:g}"
    if config.words:
        lines["vocabulary"] = f"{len(config.words):,} words"
    if isinstance(network, Network) and not calibration.relation_trained:
        lines["relation network"] = "untrained, not offered"
    lines |= {name: metadata[name] for name in sorted(metadata.keys() - DESCRIPTION)}
    released = [
        field.name.removeprefix("released_")
        for field in dataclasses.fields(config)
        if field.name.startswith("released_") and getattr(config, field.name)
    ]
    if released:
        lines["released quirks"] = ", ".join(released)
    for name, value in lines.items():
        print(printable(f"{name + ':':<21}{value}"))


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
    print(printable(f"file:    {fetched.path}"))
    print(f"sha256:  {fetched.sha256}, {checks[fetched.checked]}\nlicence: {entry.licence}")
    print(printable(f"then:    {entry.command(fetched.path, cached=options.out is None)}"))


def run_convert(options: argparse.Namespace) -> None:
    """convert RELEASED.pth OUT.safetensors"""
    convert(options.source, options.target)
    print(printable(f"wrote {options.target}"))


def run_init(options: argparse.Namespace) -> None:
    """init PRESET --backbone FILE|TIMM-TAG OUT.safetensors"""
    network = from_backbone(preset(options.preset), read_backbone(options.backbone), options.seed)
    origin = f"encoder started from {Path(options.backbone).name}; relation network untrained"
    save_checkpoint(network, options.target, {"origin": origin})
    print(printable(f"wrote {options.target}: {origin}, so it matches by [Ret] alone until trained"))
