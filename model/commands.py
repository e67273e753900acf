"""Declares the commands of `sketch-search model`, also run by `python -m model`. They import their code late."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sketch_search.model.command_line import CommandGroup, a_path, examples, run
from sketch_search.model.terminal import printable

if TYPE_CHECKING:
    from sketch_search.model.engine import CheckpointFiles
    from sketch_search.model.torch import RetNetwork

source = click.argument("source", type=a_path, metavar="IN.safetensors")
target = click.argument("target", type=a_path, metavar="OUT.safetensors")


@click.command()
@click.argument("checkpoint", type=a_path, required=False, envvar="SKETCH_SEARCH_WEIGHTS")
def info(checkpoint: Path | None) -> None:
    """Describe a checkpoint, by default that of SKETCH_SEARCH_WEIGHTS or the embedded one."""
    from sketch_search.model import engine

    path = engine.default_checkpoint(checkpoint)
    metadata = engine.read_metadata(path)
    read: CheckpointFiles | RetNetwork
    if importlib.util.find_spec("torch") is None:
        read = engine.read_files(path)
    else:
        from sketch_search.model.torch.checkpoint import load_network

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
        from sketch_search.model.torch import ClipAtNetwork

        lines["network"] += f", {sum(tensor.numel() for tensor in read.parameters()) / 1e6:.1f} M parameters"
        if isinstance(read, ClipAtNetwork):
            whose = "shared by" if read.config.shared_norms else "separate for"
            prompts = f"{read.config.prompts} prompts and LayerNorms {whose} sketches and photos"
            lines["clip-at"] = f"{prompts}; the encoder is frozen"
    seen, (fusion, diffusion) = engine.seen_classes(path), (calibration.fusion, calibration.diffusion)
    classes = f"trained on {len(seen.trained)}, chosen on {len(seen.chosen)}" if seen else ""
    untrained = isinstance(config, engine.ModelConfig) and not calibration.relation_trained
    quirks = (name for name, value in vars(config).items() if name.startswith("released_") and value)
    lines |= {
        "fusion weight": "" if fusion is None else f"{fusion:g}",
        "diffusion threshold": "" if diffusion is None else f"cosine {diffusion:g}",
        "vocabulary": f"{len(config.words):,} words" if config.words else "",
        "relation network": "untrained, not offered" if untrained else "",
        "classes seen": classes or "unknown, so zero-shot is unknown",
        **{name: metadata[name] for name in sorted(metadata.keys() - engine.DESCRIPTION)},
        "released quirks": ", ".join(name.removeprefix("released_") for name in quirks),
    }
    for name, value in lines.items():
        if value:
            print(printable(f"{name + ':':<21}{value}"))


@click.command()
@click.argument("source", type=a_path, metavar="RELEASED.pth")
@target
def convert(source: Path, target: Path) -> None:
    """Turn a released file of ZSE-SBIR or CLIP-AT into a checkpoint."""
    from sketch_search.model.torch.checkpoint import convert

    convert(source, target)
    print(printable(f"wrote {target}"))


@click.command()
@source
@click.argument("target", type=a_path, required=False, metavar="[DIR]")
def export(source: Path, target: Path | None) -> None:
    """Write the ONNX graphs that run a two-sided network without PyTorch.

    Their folder is created in DIR, by default where this program looks for it.
    """
    from sketch_search.model.engine import read_files
    from sketch_search.model.engine.graphs import own_folder, write_graphs

    folder = write_graphs(read_files(source).config, target or own_folder())
    print(printable(f"wrote {folder}"))


model = CommandGroup(
    "model",
    load=lambda: (info, convert, export),
    help="Describe, convert and export checkpoints.",
    epilog=examples("sketch-search model info FILE"),
)


def main(arguments: Sequence[str] | None = None, prog: str = "sketch-search model") -> int:
    """Runs one command, and returns its exit code."""
    return run(model, arguments, prog)
