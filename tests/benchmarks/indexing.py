"""How many photos a second are indexed, beside the released encoder's shape and CLIP; `make bench`.

All ways take turns, and the least time of all rounds counts, so that other work of the machine slows all of them alike.
The released encoder and CLIP have random weights, on which time does not depend, and see fewer of the same photos.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from indexer import Request, build
from indexer.building.request import DEFAULT_BATCH
from model.datasets.corpus import DATA_VARIABLE, data_folder, read_data
from model.engine import Floats, Modality, Tokens
from model.images.files import open_image
from model.images.preprocess import Preprocessing
from model.matcher import Matcher
from model.network.zse import Network
from tests.benchmarks.command import Command, by_matcher, least_seconds
from tests.benchmarks.galleries import draw_gallery
from tests.benchmarks.results import Result
from tests.benchmarks.scoring import clip_tower, released_network, released_tokens

RELEASED = "released encoder"
SEED = 0
PHOTOS = 400
# Photos of twelve megapixels, and those that the released encoder and CLIP see, which take about ten times as long.
LARGE = 32
ROUNDS = 5
# The size of a photo from a phone.
MEGAPIXELS = (4032, 3024)
# Noise of such a photo in mediocre light, in grey levels. Without it the files would be far too small.
_NOISE = 4.0
# The JPEG quality that phones use.
_QUALITY = 92
_THREADS = os.cpu_count() or 1
# Not by getrusage: what that says of a process includes the peak of the process that started it.
_MEASURED_BUILD = """
import sys
from pathlib import Path
from indexer.commands import main
if main(sys.argv[1:]):
    sys.exit("the build failed")
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""

Prepare: TypeAlias = Callable[[Path], Floats]


@dataclass(frozen=True)
class Way:
    """A way to work through ``photos`` photos. In a list of ways, all others are compared with the first."""

    name: str
    photos: int
    run: Callable[[], object]
    peak_mib: float | None = None


class Other:
    """Another image encoder, (b, 3, H, W) -> (b, n, d) or (b, d), used in place of a matcher."""

    def __init__(self, encoder: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._encoder = encoder

    @torch.inference_mode()
    def encode(self, images: Floats, modality: Modality) -> Tokens:
        """All that the encoder gives, as one vector a photo."""
        return Tokens.of_ret(self._encoder(torch.from_numpy(images)).reshape(len(images), -1).numpy())


class WholePictures(Preprocessing):
    """A preprocessing for which large JPEGs are decoded whole."""

    def least_side(self, modality: str) -> None:
        """Returns None, so that photos are decoded at their full size."""


def gather(folder: Path, count: int) -> bool:
    """Put ``count`` photos into ``folder``: a seeded choice of SKETCH_SEARCH_DATA where that is set, else drawn ones.

    Returns whether they are real.
    """
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
    """Returns the files in a folder and below, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def build_anew(folder: Path, matcher: Matcher) -> None:
    """Build an index of ``folder`` from nothing until it is live, and throw it away."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        build(Path(place) / "index", Request([folder], embedder="ret"), matcher)


def prepared(paths: Sequence[Path], prepare: Prepare) -> list[Floats]:
    """Open and prepare all files, on all cores."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(prepare, paths))


def encode(pixels: Iterator[Floats], count: int, matcher: Matcher) -> None:
    """Encode ``count`` prepared photos in batches, as a build does."""
    for start in range(0, count, DEFAULT_BATCH):
        matcher.encode(np.stack([next(pixels) for _ in range(start, min(start + DEFAULT_BATCH, count))]), "photo")


def prepare_and_encode(paths: Sequence[Path], prepare: Prepare, matcher: Matcher) -> None:
    """Prepare files on all cores, and encode them at the same time."""
    with ThreadPoolExecutor(_THREADS) as pool:
        encode(pool.map(prepare, paths), len(paths), matcher)


def preparing(preprocessing: Preprocessing) -> Prepare:
    """Makes the function that turns a file into the input of a network."""
    return lambda path: preprocessing.prepare(preprocessing.open(path, "photo"), "photo")


def clip_preparing() -> Prepare:
    """Makes the function that turns a file into CLIP's input, by open_clip's own transform."""
    import open_clip

    transform = open_clip.image_transform(224, is_train=False)
    return lambda path: transform(open_image(path)).numpy()


def peak_mib(folder: Path, weights: Path) -> float | None:
    """The most memory, in MiB, of a process that builds an index of ``folder``; None where the system does not say."""
    if not Path("/proc/self/status").exists():
        return None
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        command = [sys.executable, "-c", _MEASURED_BUILD, "build", str(folder), "--index", f"{place}/index", "--quiet"]
        command += ["--weights", str(weights), "--embedder", "ret", "--device", "cpu"]
        return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout) / 1024


def ways(
    small: Path,
    large: Path,
    matcher: Matcher,
    released: Network,
    clip: nn.Module,
    few: int,
    peaks: Sequence[float | None],
) -> list[Way]:
    """Returns all ways: the released encoder, what is compared with it, and builds of large JPEGs.

    Args:
        small, large: folders of photos as they are, and of large JPEGs.
        few: how many photos the released encoder and CLIP see.
        peaks: the most memory of builds of ``small`` and ``large``, in MiB.
    """
    whole = Matcher(matcher.engine, matcher.checkpoint_sha256)
    whole.preprocessing = WholePictures(**vars(whole.preprocessing))
    paths, larger = pictures(small), pictures(large)
    name, config = matcher.config.name, released.config
    squashed = Preprocessing(
        config.image_size, config.mean, config.std, config.released_preprocessing, config.released_padding
    )
    shape = cast(Matcher, Other(lambda images: released_tokens(released, images)))
    tower = cast(Matcher, Other(clip))
    pixels = prepared(paths, preparing(matcher.preprocessing))
    return [
        Way(RELEASED, few, lambda: prepare_and_encode(paths[:few], preparing(squashed), shape)),
        Way("CLIP ViT-B/32", few, lambda: prepare_and_encode(paths[:few], clip_preparing(), tower)),
        Way(f"{name}, whole build", len(paths), lambda: build_anew(small, matcher), peaks[0]),
        Way(f"{name}, decode and prepare", len(paths), lambda: prepared(paths, preparing(matcher.preprocessing))),
        Way(f"{name}, encode", len(paths), lambda: encode(iter(pixels), len(pixels), matcher)),
        Way(f"{name}, whole build of 12 MP JPEGs", len(larger), lambda: build_anew(large, matcher), peaks[1]),
        Way(f"{name}, the same, decoded whole", len(larger), lambda: build_anew(large, whole)),
    ]


def measure(command: Command, matcher: Matcher, released: Network, clip: nn.Module) -> Result:
    """Measure everything; a run of the first way before is not counted."""
    quick = command.options.quick
    few, larger, photos, rounds = (4, 4, 12, 1) if quick else (LARGE, LARGE, PHOTOS, ROUNDS)
    with tempfile.TemporaryDirectory() as place:
        small, large = Path(place) / "small", Path(place) / "large"
        real = gather(small, photos)
        enlarge(pictures(small)[:larger], large)
        peaks = [peak_mib(folder, command.weights()) for folder in (small, large)]
        compared = ways(small, large, matcher, released, clip, few, peaks)
        compared[0].run()
        least = least_seconds([way.run for way in compared], rounds)
    rates = [way.photos / seconds for way, seconds in zip(compared, least, strict=True)]
    return command.result(
        "Indexing",
        by_matcher(matcher),
        said=f"{'Photos' if real else 'Drawn pictures'}, {rounds} rounds; the least time of all counts.",
        rows=[
            {
                "way": way.name,
                "photos": way.photos,
                "photos a second": rate,
                "times faster": rate / rates[0],
                "memory (MiB)": way.peak_mib,
            }
            for way, rate in zip(compared, rates, strict=True)
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/indexing.json."""
    command = Command("indexing", __doc__)
    command.begin(arguments)
    command.save(measure(command, command.load(), released_network(), clip_tower()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
