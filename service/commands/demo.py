"""A first look: a gallery indexed in a folder of its own, and one sketch to search it with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from indexer import BuildReport, Progress, build
from indexer.samples import THINGS, draw_sketch, write_samples
from service.client import Client
from service.engine import open_matcher
from service.schemas import SearchResponse
from service.settings import Settings

SKETCHED = "umbrella"
RESULTS = 5
# The first search may wait for the checkpoint and the index to be opened.
PATIENCE = 120.0


@dataclass(frozen=True)
class Demo:
    """What is there to be served.

    Attributes:
        settings: those given, with the demo's own index. gallery: the folder indexed. sketch: the file to search with.
        contents: what the gallery holds, in words. report: what the build of the index did.
    """

    settings: Settings
    gallery: Path
    sketch: Path
    contents: str
    report: BuildReport


def prepare(settings: Settings, folder: Path, photos: Path | None, *, bar: bool) -> Demo:
    """Index ``photos``, or else a sample gallery drawn once, in ``folder``; what is there already is not done again.

    Args:
        bar: show how far it is on standard error.

    Raises:
        ModelError, IndexerError: the checkpoint cannot be opened, or the gallery cannot be indexed.
        OSError: ``folder`` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Opened first: without a checkpoint nothing needs to be drawn.
    matcher = open_matcher(settings)
    samples = folder / "samples"
    if photos is None and not (samples / "photos").is_dir():
        write_samples(samples)
    gallery = photos if photos is not None else samples / "photos"
    # Two indexes, so that the samples and one's own photos do not take turns in one.
    index = folder / ("samples-index" if photos is None else "photos-index")
    report = build([gallery], index, matcher, clusters=None, embedder="auto", progress=Progress(bar=bar))
    sketch = folder / f"{SKETCHED}.png"
    draw_sketch(SKETCHED).save(sketch)
    contents = describe_samples(gallery) if photos is None else f"{report.photos} photos"
    return Demo(settings.model_copy(update={"index": index, "gallery": ()}), gallery, sketch, contents, report)


def describe_samples(gallery: Path) -> str:
    """How many pictures of a sample gallery are drawn, and how many are photos."""
    # Counted in the folder, which an earlier run may have written, with or without scikit-learn.
    things = [file.parent.name for file in gallery.glob("*/*.jpg")]
    drawn = [thing for thing in things if thing in THINGS]
    copied = len(things) - len(drawn)
    said = f"{len(things)} pictures: {len(drawn)} drawn of {len(set(drawn))} things"
    return f"{said}, {copied} photos from scikit-learn" if copied else said


def search_once(demo: Demo, url: str) -> SearchResponse:
    """The answer of the server at ``url`` to the demo's sketch; waits while it starts.

    Raises:
        ServiceError: it refuses. httpx.HTTPError: it does not answer.
    """
    key = demo.settings.api_key
    with Client(url, None if key is None else key.get_secret_value(), timeout=PATIENCE) as client:
        return client.search(demo.sketch, k=RESULTS)
