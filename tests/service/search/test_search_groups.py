from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sketch_search.indexer import BuildRequest, build, open_index
from sketch_search.model import Matcher
from sketch_search.model.ranking import groups_of
from sketch_search.service.schemas.query import TunedQuery, View
from sketch_search.service.schemas.search import ResultGroup, SearchResult
from sketch_search.service.search import searcher as searcher_module
from sketch_search.service.search.plan import GROUPED
from sketch_search.service.search.searcher import is_far_ahead
from tests.pictures import photo
from tests.searching import Searcher, mean_direction, searching
from tests.service.small_gallery import PHOTOS, draw_sketch, save_copy


@pytest.fixture
def searcher(diffusing: Searcher) -> Searcher:
    return diffusing


def kinds(searcher: Searcher, **asked: Any) -> tuple[ResultGroup, ...]:
    outcome = searcher.search(draw_sketch(), TunedQuery(view="groups", **asked))
    assert outcome.results == ()
    assert outcome.groups is not None
    return outcome.groups


def ranking(searcher: Searcher, **asked: Any) -> tuple[SearchResult, ...]:
    outcome = searcher.find_sketch(k=GROUPED, **asked)
    assert outcome.groups is None
    return outcome.results


def with_all_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searcher_module, "MORE", PHOTOS)


# Every way in which photos can be chosen, scored and ranked.
_CHOICE: dict[str, st.SearchStrategy[Any]] = {"nprobe": st.sampled_from([1, 2, 3, "all"]), "diffuse": st.booleans()}
ways: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({}, optional={"method": st.just("ret"), "quality": st.just("good"), **_CHOICE}),
    st.fixed_dictionaries(
        {"method": st.sampled_from(["auto", "rn"]), "rerank": st.integers(1, PHOTOS + 3)}, optional=_CHOICE
    ),
)


@settings(max_examples=25)
@given(way=ways)
def test_every_ranked_photo_is_in_one_kind_in_order_of_the_ranking(searcher: Searcher, way: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        with_all_photos(patch)
        found = kinds(searcher, k=GROUPED, **way)
    photos = ranking(searcher, **way)
    grouped = [hit for kind in found for hit in (kind.best, *kind.more)]
    assert sorted(grouped, key=lambda hit: hit.rank) == list(photos)
    assert [1 + len(kind.more) for kind in found] == [kind.size for kind in found]
    some = kinds(searcher, k=GROUPED, **way)
    every = [[hit.id for hit in (kind.best, *kind.more)] for kind in found]
    assert [[*(hit.id for hit in (kind.best, *kind.more)), *kind.others] for kind in some] == every
    if way.get("diffuse") is False:
        bests = [kind.best.rank for kind in found]
        assert bests == sorted(bests)
        ranks = [[hit.rank for hit in (kind.best, *kind.more)] for kind in found]
        assert ranks == [sorted(of_kind) for of_kind in ranks]
    assert [kind.rank for kind in found] == list(range(1, len(found) + 1))


@pytest.mark.parametrize("diffuse", [False, True])
def test_both_rankings_give_photos_by_turns(searcher: Searcher, monkeypatch: pytest.MonkeyPatch, diffuse: bool) -> None:
    with_all_photos(monkeypatch)
    whole: dict[str, Any] = {"nprobe": "all", "method": "rn"}
    before = [hit.id for hit in ranking(searcher, diffuse=False, **whole)]
    after = [hit.id for hit in ranking(searcher, diffuse=diffuse, **whole)]
    assert (before != after) == diffuse
    turns = list(dict.fromkeys(photo for pair in zip(before, after, strict=True) for photo in pair))
    ret, ids = searcher.index.vectors.of(), searcher.index.ids.tolist()
    mine = groups_of(ret[[ids.index(photo) for photo in turns]], mean_direction(ret)).tolist()
    found = kinds(searcher, k=GROUPED, diffuse=diffuse, **whole)
    assert [[hit.id for hit in (kind.best, *kind.more)] for kind in found] == [
        sorted((photo for photo, its in zip(turns, mine, strict=True) if its == kind), key=after.index)
        for kind in range(max(mine) + 1)
    ]
    # A gallery in which every photo were a kind, or all of them one, would test little.
    assert 1 < len(found) < PHOTOS


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


@pytest.mark.parametrize(("far_ahead", "view"), [(True, "photos"), (False, "groups")])
def test_one_kind_far_ahead_is_shown_as_photos_and_any_other_ranking_as_kinds(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch, far_ahead: bool, view: View
) -> None:
    monkeypatch.setattr("sketch_search.service.search.searcher.FAR_AHEAD", 0.0 if far_ahead else 1.1)
    found = searcher.find_sketch(view="auto", k=3, offset=1)
    named = searcher.find_sketch(view=view, k=3, offset=1)
    assert (found.view, found.results, found.groups) == (view, named.results, named.groups)
    assert named.view is None


# The number of files of each picture: the same pixels in files that differ, so that each is a photo.
FILES = [1, 4, 1, 2, 3, 1, 1, 5, 2, 1]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    folder = tmp_path_factory.mktemp("fold")
    for picture, count in enumerate(FILES):
        for number in range(count):
            save_copy(folder / "photos" / str(number) / f"{picture}.png", picture, number)
    with (
        searching(folder / "photos", folder, clusters=3, diffusion=0.2) as opened,
        pytest.MonkeyPatch.context() as patch,
    ):
        # To a network with random weights, all pictures are much the same.
        patch.setattr("sketch_search.model.ranking.SAME", 0.9999)
        yield opened


def picture(copied: Searcher, photo: int) -> str:
    return copied.index.photo(photo).paths[0].split("/")[1]


def copies(hit: SearchResult) -> tuple[int, ...]:
    assert hit.copies is not None
    return hit.copies


def test_exposures_and_bursts_that_a_camera_numbered_fold_to_one_result(default: Matcher, tmp_path: Path) -> None:
    def exposed(stops: float) -> Image.Image:
        light = (np.asarray(photo("house", 256)) / 255) ** 2.2 * 2**stops
        return Image.fromarray(np.uint8(255 * light.clip(0, 1) ** (1 / 2.2)))

    shots = {f"DSC_010{number}.JPG": exposed(stops) for number, stops in enumerate((0, -1.5, 2))}
    # The same by names that no camera gives to shots in a row, and other pictures by names that it does.
    shots |= {f"{name} house.JPG": exposed(stops) for name, stops in (("dark", -1.5), ("bright", 2))}
    shots |= {f"IMG_001{number}.JPG": photo(shape, 256) for number, shape in enumerate(("star", "circle", "cross"))}
    (tmp_path / "photos").mkdir()
    for name, shot in shots.items():
        shot.save(tmp_path / "photos" / name, quality=95)
    build(tmp_path / "index", BuildRequest([tmp_path / "photos"], clusters=1, embedder="ret"), default)
    with open_index(tmp_path / "index", default) as index:
        searcher = Searcher(index, default)
        folded = [(hit.id, *copies(hit)) for hit in searcher.find_sketch(fold=True).results]
        names = [{index.photo(number).paths[0] for number in ids} for ids in folded]
    (camera,) = (one for one in names if "DSC_0100.JPG" in one)
    assert {"DSC_0100.JPG", "DSC_0101.JPG", "DSC_0102.JPG"} <= camera
    assert "bright house.JPG" not in camera
    assert [one for one in names if any(name.startswith("IMG_") for name in one) and len(one) > 1] == []


@pytest.mark.parametrize(
    "way", [{}, {"method": "rn", "diffuse": False}, {"method": "ret"}, {"nprobe": "all"}, {"folder": ["0", "2"]}]
)
def test_folded_results_are_the_ranking_without_folding(copied: Searcher, way: dict[str, Any]) -> None:
    ranked, folded = copied.find_sketch(**way), copied.find_sketch(fold=True, **way)
    assert not any("copies" in hit for hit in ranked.model_dump()["results"])
    first: dict[str, list[int]] = {}
    for hit in ranked.results:
        first.setdefault(picture(copied, hit.id), []).append(hit.id)
    assert [[hit.id, *copies(hit)] for hit in folded.results] == list(first.values())
    scores = {hit.id: hit.raw_score for hit in ranked.results}
    assert [hit.raw_score for hit in folded.results] == [scores[hit.id] for hit in folded.results]
