from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from indexer import Index
from model import Matcher
from model.network import Calibration, Method
from service.schemas import SearchQuery
from service.search.gallery.scorer import BATCH, GalleryScorer
from service.search.parts import QueryParts
from service.search.ranking import best_first
from service.search.searcher import Searcher
from tests.service.small_gallery import draw_sketch


def test_a_gallery_kept_on_the_device_answers_as_one_that_is_read(
    index: Index, matcher: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.search.gallery.scorer.BATCH", 4)
    read = Searcher(index, matcher)
    monkeypatch.setattr(GalleryScorer, "_fits", lambda _: True)
    kept = Searcher(index, matcher)
    # From now on nothing may be read.
    monkeypatch.setattr(index, "photo_tokens", None)
    found = kept.search(draw_sketch(0), SearchQuery(nprobe="all", method="rn", k=50))
    monkeypatch.undo()
    assert found.results == read.search(draw_sketch(0), SearchQuery(nprobe="all", method="rn", k=50)).results
    assert len(found.results) == index.photo_count


@pytest.mark.parametrize(
    ("device", "methods", "free", "reserved", "fits"),
    [
        ("cuda", ("rn", "ret"), 1 << 40, 0, True),
        ("cuda", ("rn", "ret"), 1000, 1000, False),
        # The live generation's tokens take most of what PyTorch has.
        ("cuda", ("rn", "ret"), 1000, 1 << 40, True),
        ("cuda", ("ret",), 1 << 40, 0, False),
        ("cpu", ("rn", "ret"), 0, 0, False),
    ],
)
def test_only_a_gpu_with_room_keeps_all_tokens_that_are_scored(
    device: str,
    methods: tuple[Method, ...],
    free: int,
    reserved: int,
    fits: bool,
    index: Index,
    matcher: Matcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = GalleryScorer(index, matcher)
    calibration = Calibration(methods=methods)
    monkeypatch.setattr(scorer, "_matcher", SimpleNamespace(device=torch.device(device), calibration=calibration))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: reserved)
    assert scorer._fits() is fits


def test_photos_scored_in_several_batches_score_as_alone(index: Index, matcher: Matcher) -> None:
    scorer = GalleryScorer(index, matcher)
    parts = QueryParts(matcher.encode(matcher.prepare(draw_sketch(0), "sketch")[None], "sketch"))
    rows = np.arange(index.photo_count)[np.arange(BATCH + 5) % index.photo_count]
    scores = scorer.scores(parts, rows, "rn")
    alone = [scorer.scores(parts, rows[i : i + 1], "rn")[0] for i in range(index.photo_count)]
    assert scores.tolist() == [alone[i % index.photo_count] for i in range(len(rows))]


@pytest.mark.parametrize("count", [None, 0, 1, 7, 30, 31])
def test_the_best_few_are_the_first_of_all(count: int | None) -> None:
    generator = np.random.default_rng(3)
    ids, scores = generator.permutation(30), generator.integers(0, 9, 30).astype(np.float32)
    by_hand = sorted(range(30), key=lambda place: (-scores[place], ids[place]))
    assert best_first(ids, scores, count).tolist() == by_hand[:count]


def test_all_photos_score_by_ret_as_those_that_are_named(
    index: Index, matcher: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.search.gallery.scorer.RET_BATCH", 4)
    scorer = GalleryScorer(index, matcher)
    parts = QueryParts(matcher.encode(matcher.prepare(draw_sketch(0), "sketch")[None], "sketch"))
    rows = np.random.default_rng(0).permutation(index.photo_count)
    assert scorer.ret_scores(parts)[rows].tolist() == scorer.scores(parts, rows, "ret").tolist()
