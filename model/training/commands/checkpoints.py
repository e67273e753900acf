"""Declares the commands that make, convert and describe checkpoints."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sketch_search.model import engine
from sketch_search.model.command_line import a_path
from sketch_search.model.terminal import printable
from sketch_search.model.training.commands import options

if TYPE_CHECKING:
    from sketch_search.model.training.network import RetNetwork


@click.command()
@click.argument("checkpoint", type=a_path, required=False, envvar="SBIR_WEIGHTS")
def info(checkpoint: Path | None) -> None:
    """Describe a checkpoint, by default that of SBIR_WEIGHTS or the embedded one."""
    path = engine.default_checkpoint(checkpoint)
    metadata = engine.read_metadata(path)
    read: engine.CheckpointFiles | RetNetwork
    if importlib.util.find_spec("torch") is None:
        read = engine.read_files(path)
    else:
        from sketch_search.model.training.checkpoint import load_network

        read = load_network(path)
    config, calibration = read.config, read.calibration
    lines = {
        "file": str(path),
        "sha256": engine.file_sha256(path),
        "network": config.name,
        "methods": f"{', '.join(calibration.methods)} (best: {calibration.best_method})",
        "tokens": f"sketch {config.token_count('sketch')}, photo {config.token_count('photo')}, of {config.width} dims",
    }
    if not isinstance(read, engine.CheckpointFiles):
        from sketch_search.model.training.network import ClipAtNetwork

        lines["network"] += f", {sum(tensor.numel() for tensor in read.parameters()) / 1e6:.1f} M parameters"
        if isinstance(read, ClipAtNetwork):
            shared = read.config.shared_norms
            whose = "shared by sketches and photos" if shared else "separate for sketches and photos"
            lines["clip-at"] = f"{read.config.prompts} prompts and LayerNorms {whose}; the encoder is frozen"
    if calibration.fusion is not None:
        lines["fusion weight"] = f"{calibration.fusion:g}"
    if calibration.diffusion is not None:
        lines["diffusion threshold"] = f"cosine {calibration.diffusion:g}"
    if config.words:
        lines["vocabulary"] = f"{len(config.words):,} words"
    if isinstance(config, engine.ModelConfig) and not calibration.relation_trained:
        lines["relation network"] = "untrained, not offered"
    seen = engine.seen_classes(path)
    lines["classes seen"] = (
        f"trained on {len(seen.trained)}, chosen on {len(seen.chosen)}" if seen else "unknown, so zero-shot is unknown"
    )
    lines |= {name: metadata[name] for name in sorted(metadata.keys() - engine.DESCRIPTION)}
    released = [
        field.name.removeprefix("released_")
        for field in dataclasses.fields(config)
        if field.name.startswith("released_") and getattr(config, field.name)
    ]
    if released:
        lines["released quirks"] = ", ".join(released)
    for name, value in lines.items():
        print(printable(f"{name + ':':<21}{value}"))


@click.command()
@click.argument("source", type=a_path, metavar="RELEASED.pth")
@options.target
def convert(source: Path, target: Path) -> None:
    """Turn a released file of ZSE-SBIR or CLIP-AT into a checkpoint."""
    from sketch_search.model.training.checkpoint import convert

    convert(source, target)
    print(printable(f"wrote {target}"))


@click.command()
@click.argument("sources", type=a_path, nargs=-1, required=True, metavar="IN.safetensors...")
@options.target
def average(sources: tuple[Path, ...], target: Path) -> None:
    """Average the weights of networks trained alike. The calibration is the first one's."""
    from sketch_search.model.training.checkpoint import average_checkpoints

    average_checkpoints(sources, target)
    print(printable(f"wrote {target}; give it words with sketch-search model words"))


@click.command()
@options.source
@click.argument("target", type=a_path, required=False, metavar="[DIR]")
def export(source: Path, target: Path | None) -> None:
    """Write the ONNX graphs that run a two-sided network without PyTorch.

    Their folder is created in DIR, by default where this program looks for it.
    """
    from sketch_search.model.engine.graphs import own_folder, write_graphs

    folder = write_graphs(engine.read_files(source).config, target or own_folder())
    print(printable(f"wrote {folder}"))


COMMANDS = (info, convert, average, export)
