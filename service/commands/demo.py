"""`sketch-search demo`: indexes a gallery in a separate folder, serves it, and searches it once with a sketch."""

import logging
import sys
from pathlib import Path

import httpx

from sketch_search.indexer import BuildRequest, Progress, build
from sketch_search.indexer.samples import draw_sketch, write_samples
from sketch_search.model.files import check_replaceable, write_files
from sketch_search.model.images import as_png
from sketch_search.model.terminal import printable
from sketch_search.service.commands.search import results_table
from sketch_search.service.commands.serve import check_port, print_build, serve_until_stopped
from sketch_search.service.engine import open_matcher
from sketch_search.service.schemas.search import SearchResponse
from sketch_search.service.settings import Settings

SKETCHED = "umbrella"
RESULTS = 5
# On a busy machine.
PATIENCE_SECONDS = 120.0


def demo(settings: Settings, folder: Path, photos: Path | None) -> int:
    """Indexes ``photos``, or else a sample gallery, serves it until stopped, and shows one search."""
    # First, so that without a checkpoint nothing is drawn.
    system = settings.system or "default"
    matcher = open_matcher(settings, system)
    check_port(settings)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the server's own log has the same request
    sketch = folder / f"{SKETCHED}.png"
    check_replaceable(sketch)
    print("preparing the gallery and its index", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    samples = folder / "samples"
    if photos is None and not (samples / "photos").is_dir():
        write_samples(samples)
    gallery = photos if photos is not None else samples / "photos"
    # One index for the samples and one for the user's photos, so that neither replaces the other.
    name = "samples-index" if photos is None else "photos-index"
    index = folder / (name if system == "default" else f"{name}-{system}")
    report = build(index, BuildRequest([gallery], system=system), matcher, Progress(bar=True))
    write_files({sketch: as_png(draw_sketch(SKETCHED))})
    contents = "photos" if photos is not None else "pictures, drawn by this program or from scikit-learn"
    print(printable(f"{gallery}: {report.photos} {contents}"))
    print_build(report, settings)
    served = settings.model_copy(update={"index": index, "gallery": ()})
    return serve_until_stopped(served, lambda url, page: _show_first_search(served, sketch, url, page))


def _show_first_search(settings: Settings, sketch: Path, url: str, page: str) -> None:
    """Searches with the sketch at ``url``."""
    headers = {} if settings.api_key is None else {b"X-API-Key": settings.api_key.get_secret_value().encode()}
    try:
        # A proxy from the environment could not reach this machine.
        with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_SECONDS, trust_env=False) as http:
            found = http.post("/search", content=sketch.read_bytes(), params={"k": RESULTS}).raise_for_status()
    except httpx.HTTPError as error:
        print(printable(f"error: the first search failed: {error}"), file=sys.stderr)
        return
    answer = SearchResponse.model_validate_json(found.content)
    heading = printable(f"{sketch} finds, in {answer.timings_ms.total:.0f} ms:")
    print(f"\n{heading}\n\n{results_table(answer)}\n")
    print(f"Draw your own at {page} (Ctrl-C ends)", flush=True)
