"""Searches of an index that keeps no tokens: by vectors alone, with all else that a search does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer import build, open_index
from service.engine import Engine
from service.errors import BadSearch
from service.schemas import ExplainParams, SearchQuery
from service.settings import Settings
from service.sharding import check_searches
from tests.pictures import encoded
from tests.searching import Searcher
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_sketch

Both = tuple[Searcher, Searcher]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory, gallery: Path, diffusing: Searcher) -> Path:
    folder = tmp_path_factory.mktemp("without") / "index"
    build([gallery], folder, diffusing.matcher, clusters=CLUSTERS, embedder="ret", tokens="none")
    return folder


@pytest.fixture(scope="module")
def both(without: Path, diffusing: Searcher) -> Iterator[Both]:
    """Opens one gallery without and with tokens."""
    with open_index(without, diffusing.matcher) as small:
        yield Searcher(small, diffusing.matcher), diffusing


@pytest.mark.parametrize(
    "asked", [{}, {"text": "cat"}, {"like": (3,)}, {"unlike": (5,)}, {"view": "kinds"}, {"nprobe": 2}]
)
def test_it_is_searched_as_one_with_tokens_by_ret(both: Both, asked: dict[str, Any]) -> None:
    small = both[0].search(draw_sketch(), SearchQuery(k=PHOTOS, **asked))
    whole = both[1].search(draw_sketch(), SearchQuery(k=PHOTOS, method="ret", diffuse=True, **asked))
    assert (small.method, small.results, small.kinds) == ("ret", whole.results, whole.kinds)


def test_near_duplicates_are_found_by_ret(both: Both) -> None:
    folded = both[0].search(draw_sketch(), SearchQuery(k=PHOTOS, fold=True))
    assert all(hit.copies is not None for hit in folded.results)


def test_it_explains_by_the_photos_files_and_rebuilds_nothing(without: Path, diffusing: Searcher) -> None:
    engine = Engine(Settings(index=without), diffusing.matcher)
    sketch = engine.prepare(encoded(draw_sketch()))
    model_info, index_info = engine.info()
    assert (model_info.methods, model_info.best_method, index_info.tokens) == (("ret",), "ret", 1)
    check_searches(engine.searcher)
    answer = engine.explain(sketch, ExplainParams(photo=[5], nearest=4))
    assert (len(answer.nearest), len(answer.photos[0].nearest)) == (4, 4)
    with pytest.raises(BadSearch, match="this index keeps none; build it with --tokens all"):
        engine.explain(sketch, ExplainParams(photo=[5], rebuild="gallery"))
    engine.close()
