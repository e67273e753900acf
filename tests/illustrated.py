"""Draws docs/research/figures: what the default network sees in the sample gallery."""

import sys
import tempfile
from pathlib import Path

from sketch_search.indexer.samples import write_samples
from sketch_search.model.commands import main as run


def main(out: Path) -> int:
    """Runs the commands that docs/research/figures.md names."""
    with tempfile.TemporaryDirectory(prefix="sketch-search-figures-") as folder:
        samples = write_samples(Path(folder) / "samples")
        sketch, photos = str(samples.sketches / "umbrella.png"), str(samples.photos)
        umbrellas, mushrooms = (str(samples.photos / name) for name in ("umbrella", "mushroom"))
        return max(
            run(["illustrate", sketch, photos, "-o", str(out)]),
            run(["rebuild", sketch, photos, "-o", str(out / "rebuilt.png")]),
            run(["rebuild", sketch, photos, "--nearest", "5", "-o", str(out / "nearest.png")]),
            run(["shared-matches", sketch, umbrellas, "--training", mushrooms, "-o", str(out / "shared.png")]),
        )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
