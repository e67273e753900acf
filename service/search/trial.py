"""The trial of an index before it answers anybody: its files may be damaged in ways that only a search shows."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from indexer import IndexRefused
from service.schemas import SearchQuery
from service.search.plan import methods_of
from service.search.searcher import Searcher

RESULTS = 5


def check_searches(searcher: Searcher) -> None:
    """Search with a small drawing, once with nothing said but the number of results, and once by each method.

    Raises:
        IndexRefused: too few results, a score that is no number, or the search itself failed.
    """
    gallery = searcher.gallery
    for method in ("auto", *methods_of(searcher.matcher, gallery.tokens_kept)):
        query = SearchQuery(k=RESULTS, nprobe=None if method == "auto" else 1, method=method)
        try:
            found = searcher.search(_drawing(), query)
        # Damaged arrays fail in whatever way their shapes and values make numpy or PyTorch fail.
        except Exception as error:
            raise _refused(gallery.generation, f"a search by {method} failed ({type(error).__name__})") from error
        wanted = min(RESULTS, gallery.photo_count)
        if len(found.results) != wanted:
            raise _refused(
                gallery.generation, f"a search by {method} found {len(found.results)} photos instead of {wanted}"
            )
        scores = [hit.score for hit in found.results] + [cluster.score for cluster in found.clusters]
        if not all(map(math.isfinite, scores)):
            raise _refused(gallery.generation, f"a search by {method} gave a score that is no number")


def _drawing() -> Image.Image:
    picture = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((12, 20, 52, 60), outline="black", width=2)
    draw.line((8, 28, 32, 4, 56, 28), fill="black", width=2)
    return picture


def _refused(generation: str, problem: str) -> IndexRefused:
    return IndexRefused(
        f"generation {generation} did not stand its trial: {problem}; run `sketch-search index verify`."
    )
