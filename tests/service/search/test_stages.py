"""The gallery as a search asks for it, by itself: what it finds in cells and scores; and the stopwatch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from indexer import Index
from model import Matcher
from service.gallery import Cells, Find, Shard, Table, best_first
from service.schemas import SearchQuery
from service.search.plan import Stopwatch, encode_picture
from tests.searching import Searcher
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_sketch

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def gallery_of_index(index: Index, matcher: Matcher) -> Shard:
    return Shard(index, matcher)


@pytest.fixture(scope="module")
def find(gallery_of_index: Shard, matcher: Matcher) -> Find:
    """For all photos of all cells, each scored."""
    tokens = encode_picture(draw_sketch(), "sketch", matcher, Stopwatch(CPU), matcher.encode)
    return Find("rn", gallery_of_index.cells.mean, cells=np.arange(CLUSTERS)).of_tokens(tokens)


@pytest.fixture(scope="module")
def every(gallery_of_index: Shard, find: Find) -> Table:
    return gallery_of_index.find(find)


def test_with_every_cell_opened_every_photo_is_found_and_scored(every: Table, index: Index) -> None:
    assert (every.rows.tolist(), every.ids.tolist()) == (list(range(PHOTOS)), index.ids.tolist())
    assert np.isfinite(every.scores).all()
    assert np.array_equal(every.vectors, index.vectors.of().numpy())


def test_the_photos_of_opened_cells_are_found_with_the_scores_they_have_among_all(
    gallery_of_index: Shard, find: Find, every: Table
) -> None:
    some = gallery_of_index.find(replace(find, cells=np.array([1, 3])))
    inside = np.isin(every.cells, [1, 3])
    for name in ("rows", "ids", "cells", "by_vector", "scores"):
        assert getattr(some, name).tolist() == getattr(every, name)[inside].tolist()
    assert len(gallery_of_index.find(replace(find, cells=np.empty(0, np.int64)))) == 0


def test_only_the_best_by_vector_come_into_the_table_and_the_best_of_these_are_scored(
    gallery_of_index: Shard, find: Find, every: Table
) -> None:
    few = gallery_of_index.find(replace(find, count=9, rerank=4))
    order = best_first(every.ids, every.by_vector)
    assert set(few.ids.tolist()) == set(every.ids[order[:9]].tolist())
    scored = np.isfinite(few.scores)
    assert set(few.ids[scored].tolist()) == set(every.ids[order[:4]].tolist())
    assert few.scores[scored].tolist() == every.scores[few.rows[scored]].tolist()


def test_tables_of_parts_of_the_cells_join_to_that_of_all(gallery_of_index: Shard, find: Find, every: Table) -> None:
    wanted = replace(find, count=7, rerank=3)
    parts = [gallery_of_index.find(replace(wanted, cells=cells)) for cells in np.array_split(np.arange(CLUSTERS), 3)]
    joined, whole = Table.joined(parts).best(wanted), gallery_of_index.find(wanted)
    assert joined.rows.tolist() == whole.rows.tolist()
    assert np.array_equal(joined.scores, whole.scores, equal_nan=True)


def test_a_spent_budget_leaves_the_first_portion(
    gallery_of_index: Shard, find: Find, every: Table, matcher: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matcher, "chunk", 5)
    hurried = gallery_of_index.find(replace(find, budget_ms=1e-9))
    scored = np.isfinite(hurried.scores)
    assert (hurried.complete, scored.sum()) == (False, 5)
    assert set(hurried.rows[scored].tolist()) == set(best_first(every.ids, every.by_vector, 5).tolist())
    at_ease = gallery_of_index.find(replace(find, budget_ms=1e9))
    assert (at_ease.complete, np.isfinite(at_ease.scores).sum()) == (True, PHOTOS)


def test_all_photos_compare_by_ret_as_those_that_are_named(
    index: Index, matcher: Matcher, find: Find, every: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.gallery.shard.BLOCK", 4)
    again = Shard(index, matcher).find(find)
    assert again.by_vector.tolist() == every.by_vector.tolist()


@pytest.mark.parametrize("count", [None, 0, 1, 7, 30, 31])
def test_the_best_few_are_the_first_of_all(count: int | None) -> None:
    generator = np.random.default_rng(3)
    ids, scores = generator.permutation(30), generator.integers(0, 9, 30).astype(np.float32)
    by_hand = sorted(range(30), key=lambda place: (-scores[place], ids[place]))
    assert best_first(ids, scores, count).tolist() == by_hand[:count]


def test_a_gallery_kept_on_the_device_answers_as_one_that_is_read(
    index: Index, matcher: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Searcher(index, matcher)
    monkeypatch.setattr("service.gallery.shard.BATCH", 4)
    monkeypatch.setattr(Shard, "_fits", lambda _: True)
    kept = Searcher(index, matcher)
    # From now on nothing may be read.
    monkeypatch.setattr(index, "photo_tokens", None)
    found = kept.search(draw_sketch(0), SearchQuery(nprobe="all", method="rn", k=50))
    monkeypatch.undo()
    assert found.results == read.search(draw_sketch(0), SearchQuery(nprobe="all", method="rn", k=50)).results
    assert len(found.results) == index.photo_count


def test_all_time_until_the_last_lap_belongs_to_a_stage() -> None:
    watch = Stopwatch(CPU)
    for stage in ("prepare", "encode", "photos", "diffusion", "photos"):
        watch.lap(stage)
    timings = watch.timings()
    assert timings.clusters == 0
    parts = timings.prepare + timings.encode + timings.photos + timings.diffusion
    assert parts == pytest.approx(timings.total)
    assert timings.total <= watch.passed() < 1e9


def test_a_second_level_finds_nearly_all_of_the_cells_that_are_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.gallery.table.MANY_CELLS", 1)
    monkeypatch.setattr("service.gallery.table.NEAR_CELLS", 256)
    random, count, opened = np.random.default_rng(0), 20_000, 64
    # Cells of real photos lie in groups, as photos do.
    groups = random.normal(size=(200, 32))
    vectors = groups[random.integers(200, size=count)] + 0.8 * random.normal(size=(count, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    tokens = np.empty((count, 1, 32), np.float16), np.empty((count, 0), np.uint8)
    cells = Cells(np.ones(count, np.int64), vectors, *tokens)
    queries = (vectors[random.integers(count, size=50)] + 0.1 * random.normal(size=(50, 32))).astype(np.float32)
    shares = [np.isin(np.argsort(-(vectors @ query))[:opened], cells.near(query[None])).mean() for query in queries]
    assert np.mean(shares) > 0.98
    assert len(cells.near(queries[:1])) == 256


@pytest.mark.parametrize(
    "asked", [{}, {"quality": "fast"}, {"like": [1]}, {"nprobe": 2}, {"nprobe": "all"}, {"folder": ["red"]}]
)
def test_a_search_by_a_second_level_of_cells_answers_as_one_without(
    index: Index, matcher: Matcher, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    searcher = Searcher(index, matcher)
    plain = searcher.find_sketch(**asked)
    monkeypatch.setattr("service.gallery.table.MANY_CELLS", 1)
    found = searcher.find_sketch(**asked)
    assert (found.results, found.clusters) == (plain.results, plain.clusters)
