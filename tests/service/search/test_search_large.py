"""Searches by an inverted file. In a gallery this small it finds every photo, so that all answers must be the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import model
from indexer import build, open_index
from model import Tokens
from service.schemas import SearchQuery, SearchResponse
from service.search.gallery.ret import RetInMemory, RetOnDisk
from service.search.searcher import Searcher
from tests.networks import tiny_checkpoint
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_sketch

Both = tuple[Searcher, Searcher]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, gallery: Path) -> Iterator[Both]:
    """The same gallery, whole in memory and by an inverted file."""
    folder = tmp_path_factory.mktemp("large")
    file = tiny_checkpoint(folder / "tiny.safetensors", words=(("dog",), ("cat",), ("leaf",)), diffusion=0.2)
    matcher = model.load(file, dtype=torch.float32)
    build([gallery], folder / "small", matcher, clusters=CLUSTERS, embedder="ret")
    build([gallery], folder / "large", matcher, clusters=CLUSTERS, embedder="ret", inverted_from=1)
    with open_index(folder / "small", matcher) as small, open_index(folder / "large", matcher) as large:
        yield Searcher(small, matcher), Searcher(large, matcher)


def test_the_inverted_file_is_used(both: Both) -> None:
    small, large = (searcher.scorer for searcher in both)
    assert isinstance(small.gallery_ret, RetInMemory)
    assert isinstance(large.gallery_ret, RetOnDisk)
    assert (small.is_large, large.is_large) == (False, True)


def test_ret_its_priors_and_words_are_the_same_of_every_photo(both: Both) -> None:
    small, large = (searcher.scorer.gallery_ret for searcher in both)
    rows, sketch = np.array([7, 3, 22, 0]), Tokens.of_ret(torch.randn(1, both[0].matcher.config.width))
    assert small.of(rows).equal(large.of(rows))
    assert small.scores(sketch, rows).tolist() == large.scores(sketch, rows).tolist()
    assert small.word_scores(1, rows).tolist() == large.word_scores(1, rows).tolist()
    assert small.mean.numpy() == pytest.approx(large.mean.numpy(), abs=1e-6)
    assert small.likeness(rows[:2], rows) == pytest.approx(large.likeness(rows[:2], rows), abs=1e-5)
    assert small.leaving(rows[:1], rows[1:]).tolist() == large.leaving(rows[:1], rows[1:]).tolist()


QUERIES: dict[str, dict[str, Any]] = {
    "a sketch": {},
    "by the relation network": {"method": "rn", "thin": 5},
    "by [Ret]": {"method": "ret"},
    "by clusters": {"select": "clusters", "nprobe": 2},
    "by clusters, thinned": {"select": "clusters", "nprobe": 2, "thin": 4},
    "in a folder": {"folder": ("größe",)},
    "since a day": {"after": "1999-01-01"},
    "with a liked photo": {"like": (3,)},
    "without an unliked photo": {"unlike": (5,)},
    "with a word": {"text": "cat"},
    "with all of it": {"text": "dog", "like": (2,), "unlike": (8,), "folder": ("größe",)},
    "in kinds": {"view": "kinds"},
    "folded": {"fold": True},
}


@pytest.mark.parametrize("asked", QUERIES.values(), ids=QUERIES.keys())
def test_every_query_gets_the_answer_of_the_gallery_in_memory(asked: dict[str, Any], both: Both) -> None:
    small, large = (_found(searcher, asked) for searcher in both)
    assert [hit.id for hit in small.results] == [hit.id for hit in large.results]
    assert [hit.score for hit in small.results] == pytest.approx([hit.score for hit in large.results], abs=1e-5)
    same: dict[str, Any] = {
        "results": (),
        "timings_ms": small.timings_ms,
        "generation": small.generation,
        "kinds": None,
    }
    assert small.model_copy(update=same) == large.model_copy(update=same)
    kinds = [[kind.best.id for kind in outcome.kinds or ()] for outcome in (small, large)]
    assert kinds[0] == kinds[1]


def test_a_word_alone_gets_the_answer_of_the_gallery_in_memory(both: Both) -> None:
    small, large = (searcher.search(None, SearchQuery(text="leaf", k=PHOTOS)) for searcher in both)
    assert [hit.id for hit in small.results] == [hit.id for hit in large.results]
    assert len(small.results) == PHOTOS


def test_a_filter_that_leaves_nothing_gives_no_results(both: Both) -> None:
    assert both[1].search(draw_sketch(), SearchQuery(folder=("nowhere",))).results == ()
    assert both[1].search(draw_sketch(), SearchQuery(folder=("nowhere",), like=(3,), text="cat")).results == ()


def _found(searcher: Searcher, asked: dict[str, Any]) -> SearchResponse:
    return searcher.search(draw_sketch(), SearchQuery(**{"k": PHOTOS, **asked}))
