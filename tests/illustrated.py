"""Draws docs/research/figures: what the default network and ZSE-SBIR's see in the sample gallery."""

import json
import sys
import tempfile
from pathlib import Path

from sketch_search.indexer.samples import write_samples
from sketch_search.model.engine import default_checkpoint, file_sha256
from sketch_search.model.torch.checkpoint import load_network, save_checkpoint
from sketch_search.training.commands import main as run


def main(out: Path) -> int:
    """Runs the commands that docs/research/figures.md names. weights.json says which weights they drew by."""
    digests = {name: file_sha256(default_checkpoint(name)) for name in PLACES}
    (out / "weights.json").write_text(json.dumps(digests, indent=1) + "\n")
    with tempfile.TemporaryDirectory(prefix="sketch-search-figures-") as folder:
        write_samples(samples := Path(folder) / "samples")
        code = max(draw(samples / "sketches", samples / "photos", name, out / place) for name, place in PLACES.items())
        # Figure 4 of ZSE-SBIR's network, which selects nothing by itself, at the rates of the paper's.
        selecting, drawn = Path(folder) / "selecting.safetensors", Path(folder) / "drawn"
        rates = {"keep_sketch": 0.7, "keep_photo": 0.7, "keep_cross": 0.9}
        save_checkpoint(load_network(default_checkpoint("zse")).with_config(**rates), selecting)
        code = max(code, draw(samples / "sketches", samples / "photos", str(selecting), drawn))
        (drawn / "selection.png").replace(out / PLACES["zse"] / "selection.png")
        return code


#: The folder of each network's figures.
PLACES = {"default": "", "zse": "zse"}


def draw(sketches: Path, photos: Path, name: str, out: Path) -> int:
    weights = ["--weights", name]
    sketch, umbrellas, mushrooms = str(sketches / "umbrella.png"), str(photos / "umbrella"), str(photos / "mushroom")
    return max(
        run(["illustrate", sketch, str(photos), "-o", str(out), *weights]),
        run(["rebuild", sketch, str(photos), "-o", str(out / "rebuilt.png"), *weights]),
        run(["rebuild", sketch, str(photos), "--nearest", "5", "-o", str(out / "nearest.png"), *weights]),
        run(["shared-matches", sketch, umbrellas, "--training", mushrooms, "-o", str(out / "shared.png"), *weights]),
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
