"""How many photos a second are indexed, and in how much memory, by the command that the README names; `make bench`.

Each build is a process of its own, from nothing until its index is live. Of all rounds the fastest counts: other
programs only ever make them slower.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sketch_search.model.datasets.corpus import DATA_VARIABLE, data_folder, read_data
from sketch_search.model.images.files import open_image
from tests.benchmarks.command import Command, by_matcher
from tests.benchmarks.galleries import draw_gallery
from tests.benchmarks.results import Row

SEED = 0
PHOTOS, LARGE, ROUNDS = 400, 32, 5
# The size of a photo from a phone.
MEGAPIXELS = (4032, 3024)
# Noise of such a photo in mediocre light, in grey levels. Without it the files would be far too small.
_NOISE = 4.0
# The JPEG quality that phones use.
_QUALITY = 92
# Memory not by getrusage: what that says of a process includes the peak of the process that started it.
_MEASURED_BUILD = """
import sys, time
from pathlib import Path
from sketch_search.indexer.commands import main
begun = time.perf_counter()
if main(sys.argv[1:]):
    sys.exit("the build failed")
took = time.perf_counter() - begun
lines = Path("/proc/self/status").read_text().splitlines()
print(took, next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def gather(folder: Path, count: int) -> bool:
    """Puts photos of SKETCH_SEARCH_DATA into ``folder``, or drawn ones where that is not set; whether they are real."""
    if not os.environ.get(DATA_VARIABLE):
        draw_gallery(folder, count)
        return False
    photos = read_data(data_folder()).photos
    folder.mkdir(parents=True)
    for number, photo in enumerate(random.Random(SEED).sample(photos, count)):
        shutil.copyfile(photo.path, folder / f"{number:05}{photo.path.suffix.lower()}")
    return True


def enlarge(photos: Sequence[Path], folder: Path) -> None:
    """Write these photos as a camera would have taken them: JPEGs of twelve megapixels, with noise."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(SEED).normal(0, _NOISE, (*MEGAPIXELS[::-1], 3)).round().astype(np.int16)
    for number, path in enumerate(photos):
        pixels = np.asarray(open_image(path).resize(MEGAPIXELS, Image.Resampling.BICUBIC))
        noisy = (pixels + np.roll(noise, 101 * number, axis=1)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:03}.jpg", quality=_QUALITY)


def pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def measured(way: str, folder: Path, weights: Path, rounds: int, device: str = "cpu") -> Row:
    """Builds an index of a folder so many times. Returns a row of the fastest build."""
    builds = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            command = ["build", str(folder), "--index", f"{place}/index", "--quiet", "--weights", str(weights)]
            done = subprocess.run(
                [sys.executable, "-c", _MEASURED_BUILD, *command, "--embedder", "ret", "--device", device],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            builds.append(tuple(map(float, done.stdout.split())))
    seconds, kib = min(builds)
    photos = len(pictures(folder))
    return {"way": way, "photos": photos, "photos a second": photos / seconds, "memory (MiB)": kib / 1024}


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("indexing", __doc__, device=True)
    quick = command.begin(arguments).quick
    few, photos, rounds = (4, 12, 1) if quick else (LARGE, PHOTOS, ROUNDS)
    weights, matcher = command.weights(), command.load()
    name = matcher.config.name
    with tempfile.TemporaryDirectory() as place:
        small, large = Path(place) / "small", Path(place) / "large"
        real = gather(small, photos)
        enlarge(pictures(small)[:few], large)
        rows = [
            measured(f"{name}, whole build", small, weights, rounds, command.options.device),
            measured(f"{name}, whole build of 12 MP JPEGs", large, weights, rounds, command.options.device),
        ]
    said = f"{'Photos' if real else 'Drawn pictures'}; the fastest build of {rounds}."
    command.save(command.result("Indexing", by_matcher(matcher), said=said, rows=rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
