"""Searches for kinds: what a search for photos ranks, grouped by look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import build, open_index
from model.ranking import kinds_of
from service.gallery import Floats
from service.schemas import Kind, SearchQuery, SearchResult, View
from service.search import searcher as searching
from service.search.plan import GROUPED
from service.search.searcher import MORE
from service.search.shown import Groups, group_kinds, is_far_ahead
from tests.searching import Searcher, mean_direction
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_photo, draw_sketch, save_copy


@pytest.fixture
def searcher(diffusing: Searcher) -> Searcher:
    return diffusing


def kinds(searcher: Searcher, **asked: Any) -> tuple[Kind, ...]:
    outcome = searcher.search(draw_sketch(), SearchQuery(view="kinds", **asked))
    assert outcome.results == ()
    assert outcome.kinds is not None
    return outcome.kinds


def ranking(searcher: Searcher, **asked: Any) -> tuple[SearchResult, ...]:
    outcome = searcher.search(draw_sketch(), SearchQuery(k=GROUPED, **asked))
    assert outcome.kinds is None
    return outcome.results


def with_all_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "MORE", PHOTOS)


# Every way in which photos can be chosen, scored and ranked.
_CHOICES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.just({"quality": "good"}),
    st.just({"nprobe": 2}),
    st.fixed_dictionaries({"nprobe": st.sampled_from([1, 3, "all"])}),
)
_SCORES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.just({"method": "ret"}),
    st.fixed_dictionaries({"method": st.sampled_from(["auto", "rn"]), "rerank": st.integers(1, PHOTOS + 3)}),
)
_LIMITS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {}, optional={"diffuse": st.booleans(), "budget_ms": st.sampled_from([1e-6, 600_000])}
)
ways = st.builds(lambda *parts: {name: value for part in parts for name, value in part.items()}, _CHOICES, _SCORES)
ways = st.builds(lambda way, limits: {**way, **limits}, ways, _LIMITS)


@settings(max_examples=40, deadline=None)
@given(way=ways)
def test_every_ranked_photo_is_in_exactly_one_kind_and_undiffused_kinds_are_in_the_order_of_the_ranking(
    searcher: Searcher, way: dict[str, Any]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        with_all_photos(patch)
        found = kinds(searcher, k=GROUPED, **way)
    photos = ranking(searcher, **way)
    grouped = [hit for kind in found for hit in (kind.best, *kind.more)]
    assert sorted(grouped, key=lambda hit: hit.rank) == list(photos)
    assert [1 + len(kind.more) for kind in found] == [kind.size for kind in found]
    if way.get("diffuse") is False:
        bests = [kind.best.rank for kind in found]
        assert bests == sorted(bests)
        ranks = [[hit.rank for hit in (kind.best, *kind.more)] for kind in found]
        assert ranks == [sorted(of_kind) for of_kind in ranks]
    assert [kind.rank for kind in found] == list(range(1, len(found) + 1))


@settings(max_examples=20, deadline=None)
@given(way=ways, k=st.integers(1, 9))
def test_pages_continue_the_kinds(searcher: Searcher, way: dict[str, Any], k: int) -> None:
    whole = kinds(searcher, k=GROUPED, **way)
    pages = [kinds(searcher, k=k, offset=offset, **way) for offset in range(0, len(whole) + k, k)]
    assert tuple(kind for page in pages for kind in page) == whole
    assert pages[-1] == ()


def test_kinds_are_those_of_the_model_around_the_mean_of_the_whole_gallery(searcher: Searcher) -> None:
    photos = ranking(searcher, diffuse=False)
    ret, ids = searcher.index.vectors.of(), searcher.index.ids.tolist()
    mine = kinds_of(ret[[ids.index(hit.id) for hit in photos]], mean_direction(ret)).tolist()
    found = kinds(searcher, k=GROUPED, diffuse=False)
    assert [kind.best for kind in found] == [photos[mine.index(kind)] for kind in range(max(mine) + 1)]
    assert [kind.size for kind in found] == np.bincount(mine).tolist()
    # A gallery in which every photo were a kind, or all of them one, would test little.
    assert 1 < len(found) < PHOTOS


def test_a_diffused_ranking_and_that_before_diffusion_give_photos_to_the_kinds_by_turns(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_all_photos(monkeypatch)
    whole: dict[str, Any] = {"nprobe": "all", "method": "rn"}
    before = [hit.id for hit in ranking(searcher, diffuse=False, **whole)]
    after = [hit.id for hit in ranking(searcher, diffuse=True, **whole)]
    assert before != after
    turns = list(dict.fromkeys(photo for pair in zip(before, after, strict=True) for photo in pair))
    ret, ids = searcher.index.vectors.of(), searcher.index.ids.tolist()
    mine = kinds_of(ret[[ids.index(photo) for photo in turns]], mean_direction(ret)).tolist()
    found = kinds(searcher, k=GROUPED, diffuse=True, **whole)
    assert [[hit.id for hit in (kind.best, *kind.more)] for kind in found] == [
        [photo for photo, its in zip(turns, mine, strict=True) if its == kind] for kind in range(max(mine) + 1)
    ]


def test_where_a_photo_is_liked_kinds_are_in_the_order_of_the_ranking(searcher: Searcher) -> None:
    liked = ranking(searcher)[4].id
    found = kinds(searcher, k=GROUPED, like=(liked,))
    assert found[0].best.id == liked
    bests = [kind.best.rank for kind in found]
    assert bests == sorted(bests)


def test_beside_its_best_photo_a_kind_shows_only_a_few_more(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(len(kind.more) == min(MORE, kind.size - 1) for kind in kinds(searcher))
    monkeypatch.setattr(searching, "MORE", 1)
    few = kinds(searcher, k=GROUPED)
    with_all_photos(monkeypatch)
    whole = kinds(searcher, k=GROUPED)
    assert [kind.more for kind in few] == [kind.more[:1] for kind in whole]
    assert [kind.size for kind in few] == [kind.size for kind in whole]


def test_only_the_best_photos_are_grouped_however_many_are_ranked(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("plan", "searcher"):
        monkeypatch.setattr(f"service.search.{module}.GROUPED", 6)
    with_all_photos(monkeypatch)
    for way in ({}, {"nprobe": "all"}, {"method": "rn", "diffuse": False}):
        grouped = [hit for kind in kinds(searcher, k=PHOTOS, **way) for hit in (kind.best, *kind.more)]
        assert len(grouped) == 6
    assert sorted(hit.rank for hit in grouped) == [1, 2, 3, 4, 5, 6], "as no diffusion changed the ranking"
    # Whatever page is asked for, no further photos are scored.
    asked = SearchQuery(view="kinds", method="rn", nprobe=1, diffuse=False, k=1)
    first = searcher.search(draw_sketch(), asked)
    later = searcher.search(draw_sketch(), asked.model_copy(update={"offset": 1000}))
    assert (later.kinds, later.candidates) == ((), first.candidates)


def test_clusters_are_opened_until_there_are_enough_photos_to_group(searcher: Searcher) -> None:
    assert len(searcher.search(draw_sketch(), SearchQuery(view="kinds", nprobe=1, k=1)).clusters) == CLUSTERS


def test_photos_with_equal_scores_are_grouped_in_the_order_of_their_ids(searcher: Searcher, tmp_path: Path) -> None:
    for number in range(6):
        save_copy(tmp_path / "photos" / f"{number}.png", seed=3, number=number)
    draw_photo(4).save(tmp_path / "photos" / "6.png")
    build([tmp_path / "photos"], tmp_path / "index", searcher.matcher, clusters=1, embedder="ret")
    with open_index(tmp_path / "index", searcher.matcher) as index:
        small = Searcher(index, searcher.matcher)
        photos = ranking(small, method="rn")
        found = kinds(small, method="rn")
    same = [hit.id for hit in photos if hit.paths != ("6.png",)]
    assert same == sorted(same)
    assert sorted(kind.size for kind in found) == [1, 6]
    six = next(kind for kind in found if kind.size == 6)
    assert [hit.id for hit in (six.best, *six.more)] == same[: 1 + MORE]


def test_one_photo_is_one_kind(searcher: Searcher, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    draw_photo(3).save(tmp_path / "photos" / "one.png")
    build([tmp_path / "photos"], tmp_path / "index", searcher.matcher, clusters=1, embedder="ret")
    with open_index(tmp_path / "index", searcher.matcher) as index:
        (one,) = kinds(Searcher(index, searcher.matcher))
    assert (one.rank, one.size, one.best.paths, one.more) == (1, 1, ("one.png",), ())


def test_rows_are_grouped_by_their_places_in_the_order_given(searcher: Searcher) -> None:
    vectors = searcher.gallery.vectors(np.random.default_rng(1).permutation(PHOTOS))
    mean = searcher.gallery.cells.mean
    groups = group_kinds(vectors, mean)
    assert sorted(place for group in groups for place in group.tolist()) == list(range(PHOTOS))
    assert all((np.diff(group) > 0).all() for group in groups)
    assert [int(group[0]) for group in groups] == sorted(int(group[0]) for group in groups)
    # No index is empty, but a grouping of nothing is nothing.
    assert group_kinds(vectors[:0], mean) == ()


def test_a_kind_is_far_ahead_if_it_holds_much_of_the_support() -> None:
    groups = (np.array([0, 2]), np.array([1]), np.array([3, 4]))
    scores = np.array([0.9, 0.5, 0.3, 0.2, 0.1], np.float32)
    assert is_far_ahead(scores, groups, "rn")
    assert is_far_ahead(scores, (np.array([0]), *groups[1:], np.array([2])), "rn")
    assert not is_far_ahead(np.full(5, 0.5, np.float32), (np.array([0]), *groups[1:], np.array([2])), "rn")
    # Distances: what is far has no support, however many photos it is.
    near = np.array([-0.1, *[-2.0] * 50], np.float32)
    assert is_far_ahead(near, (np.array([0]), np.arange(1, 51)), "ret")
    assert not is_far_ahead(np.zeros(0, np.float32), (), "rn")


@pytest.mark.parametrize(("far_ahead", "view"), [(True, "photos"), (False, "kinds")])
def test_one_kind_far_ahead_is_shown_as_photos_and_any_other_ranking_as_kinds(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch, far_ahead: bool, view: View
) -> None:
    monkeypatch.setattr("service.search.shown.FAR_AHEAD", 0.0 if far_ahead else 1.1)
    found = searcher.search(draw_sketch(), SearchQuery(view="auto", k=3, offset=1))
    named = searcher.search(draw_sketch(), SearchQuery(view=view, k=3, offset=1))
    assert (found.view, found.results, found.kinds) == (view, named.results, named.kinds)
    assert named.view is None


def test_whether_a_kind_is_far_ahead_is_decided_by_the_kinds_that_are_shown(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    grouped: list[list[list[float]]] = []

    def noted(vectors: Floats, mean: Floats) -> Groups:
        grouped.append(vectors.tolist())
        return group_kinds(vectors, mean)

    monkeypatch.setattr(searching, "group_kinds", noted)
    monkeypatch.setattr("service.search.shown.FAR_AHEAD", 1.1)
    for view in ("kinds", "auto"):
        assert searcher.search(draw_sketch(), SearchQuery(view=view)).kinds
    shown, decided = grouped
    assert decided == shown
    # Photos by their scores before diffusion take turns with the ranking, which begins otherwise.
    photos = searcher.search(draw_sketch(), SearchQuery(k=PHOTOS)).results
    rows = searcher.gallery.rows_of_ids([photo.id for photo in photos])
    assert shown != searcher.gallery.vectors(rows).tolist()
