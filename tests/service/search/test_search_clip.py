"""Searches over an index that was clustered by CLIP: by any text, and by CLIP's vector of the sketch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
from indexer import IndexRefused, Request, build, open_index, open_towers
from model import Matcher
from service.errors import BadSearch
from service.schemas import SearchQuery, SearchResponse
from service.towers import ClipVectors, TextVector, Towers
from tests.indexer.clip_models import READING, saved_clip
from tests.networks import tiny_checkpoint
from tests.searching import Searcher
from tests.service.sharding.shards_here import assert_same, cut, links_to, searcher_of
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_sketch

CPU = "cpu"
WORDS = (("dog", "hound"), ("cat",), ("sea lion",))
TEXT = "my dog, on a beach"


class ByClip:
    """A searcher with its towers, asked as the engine asks them."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.matcher = searcher.matcher
        self.entry = searcher.index.manifest.embedder
        self.towers = Towers(CPU)
        self.drawing = self.matcher.preprocessing.pixels(draw_sketch(), "sketch")

    def vectors(self, drawn: bool, **asked: Any) -> ClipVectors:
        pixels = self.drawing if drawn and asked.get("method") == "clip" else None
        return self.towers.vectors(self.entry, asked.get("text"), pixels)

    def find(self, drawn: bool = True, **asked: Any) -> SearchResponse:
        query = SearchQuery(**{"k": PHOTOS, **asked})
        return self.searcher.search(self.drawing if drawn else None, query, self.vectors(drawn, **asked))

    def embeddings(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(p, e): what CLIP made of the photos, in the order of ``index.ids``."""
        assert self.searcher.index.embeddings is not None
        return self.searcher.index.embeddings.of()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_clip(tmp_path_factory.mktemp("clip") / "reading-clip", READING)


@pytest.fixture(scope="module")
def clip_index(tmp_path_factory: pytest.TempPathFactory, gallery: Path, clip: Path) -> tuple[Path, Matcher]:
    folder = tmp_path_factory.mktemp("by-clip")
    matcher = model.load(tiny_checkpoint(folder / "tiny.safetensors", words=WORDS, diffusion=0.2), dtype="float32")
    build(folder / "index", Request([gallery], clusters=CLUSTERS, embedder=f"clip:{clip}"), matcher)
    return folder / "index", matcher


@pytest.fixture(scope="module")
def by_clip(clip_index: tuple[Path, Matcher]) -> Iterator[ByClip]:
    with open_index(*clip_index) as index:
        yield ByClip(Searcher(index, clip_index[1]))


def ids(outcome: SearchResponse) -> list[int]:
    return [hit.id for hit in outcome.results]


def test_method_clip_ranks_by_the_cosine_of_clips_vectors(by_clip: ByClip) -> None:
    found = by_clip.find(method="clip")
    sketch = by_clip.vectors(True, method="clip").sketch
    assert sketch is not None
    cosines = dict(zip(by_clip.searcher.index.ids.tolist(), by_clip.embeddings() @ sketch, strict=True))
    assert ids(found) == sorted(cosines, key=lambda photo: (-cosines[photo], photo))
    assert [hit.raw_score for hit in found.results] == pytest.approx(sorted(cosines.values(), reverse=True), abs=1e-6)
    assert (found.method, found.diffused, found.words, found.candidates) == ("clip", False, None, PHOTOS)


def test_by_clusters_clip_opens_those_whose_photos_are_nearest(by_clip: ByClip) -> None:
    every = by_clip.find(method="clip", nprobe="all")
    assert every.results == by_clip.find(method="clip").results
    means = {cluster.id: cluster.score for cluster in every.clusters}
    scores = {hit.id: hit.raw_score for hit in every.results}
    for cluster in range(by_clip.searcher.index.cluster_count):
        of_cluster = [scores[photo] for photo in by_clip.searcher.index.cluster_ids(cluster).tolist()]
        assert means[cluster] == pytest.approx(np.mean(of_cluster), abs=1e-6)
    one = by_clip.find(method="clip", nprobe=1, k=1)
    assert [cluster.id for cluster in one.clusters] == [max(means, key=means.__getitem__)]


# Ways to search that go with method clip, and all of them with a text.
WAYS: list[dict[str, Any]] = [
    {},
    {"diffuse": True},
    {"fold": True},
    {"view": "kinds"},
    {"view": "auto"},
    {"nprobe": 2},
    {"budget_ms": 1e-6},
    {"folder": ["größe"]},
    {"unlike": [3]},
    {"k": 4, "offset": 3},
]


@pytest.mark.parametrize("text", [None, TEXT])
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("method", ["clip", "auto"])
def test_clip_goes_with_every_other_part_of_a_query(
    by_clip: ByClip, method: str, way: dict[str, Any], text: str | None
) -> None:
    found = by_clip.find(method=method, text=text, **way)
    hits = found.results or tuple(hit for kind in found.groups or () for hit in (kind.best, *kind.more))
    assert hits
    assert np.isfinite([hit.raw_score for hit in hits]).all()
    if found.groups is None:
        assert [hit.raw_score for hit in hits] == sorted((hit.raw_score for hit in hits), reverse=True)
    assert found.words == (None if text is None else "clip")
    assert found.diffused == (way.get("diffuse") is True or (method == "auto" and "diffuse" not in way))


def test_shards_answer_as_one_index_does(by_clip: ByClip, clip_index: tuple[Path, Matcher], tmp_path: Path) -> None:
    index, matcher = clip_index
    links = links_to(cut(index, matcher, tmp_path, [photo % 3 for photo in range(PHOTOS)]), matcher)
    for asked in ({"method": "clip"}, {"method": "clip", "text": TEXT}, {"method": "rn", "text": TEXT, "rerank": 4}):
        query = SearchQuery.model_validate({"k": PHOTOS, **asked})
        found = searcher_of(links, matcher).search(by_clip.drawing, query, by_clip.vectors(True, **asked))
        assert_same(found, by_clip.find(**asked))


def test_a_text_lifts_the_photo_that_shows_it_most(by_clip: ByClip) -> None:
    for text in (TEXT, "שלום"):
        vector = by_clip.vectors(False, text=text).text
        assert vector is not None
        best = int(by_clip.searcher.index.ids[np.argmax(by_clip.embeddings() @ vector.values)])
        for method in ("auto", "ret", "clip"):
            without, led = by_clip.find(method=method), by_clip.find(method=method, text=text)
            assert ids(led).index(best) <= ids(without).index(best)
        assert best in ids(by_clip.find(drawn=False, text=text))[:5]


@pytest.mark.parametrize(
    ("drawn", "asked", "sentence"),
    [
        (
            False,
            {"method": "clip", "text": TEXT},
            r"A word without a sketch is compared by \[Ret\], not by method 'clip'",
        ),
        (True, {"method": "clip", "like": [5]}, r"Liked photos are compared by \[Ret\], not by method 'clip'"),
        (True, {"method": "clip", "kind": "photo"}, r"Photos are compared by \[Ret\], not by method 'clip'"),
        (True, {"method": "clip", "rerank": 3}, "relation network, which method 'clip' does not use: leave it out"),
    ],
)
def test_what_does_not_go_with_clip_is_refused(
    by_clip: ByClip, drawn: bool, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadSearch, match=sentence):
        by_clip.find(drawn, **asked)


def test_an_index_by_ret_has_no_method_clip(index: Any, matcher: Matcher) -> None:
    searcher = Searcher(index, matcher)
    with pytest.raises(BadSearch, match="this index was not clustered by CLIP; build it with --embedder clip, or use"):
        searcher.search(draw_sketch(), SearchQuery(method="clip"))
    refused = ClipVectors(refusal="its weights are gone.")
    with pytest.raises(BadSearch, match="no vocabulary, and CLIP cannot read other words: its weights are gone: leave"):
        searcher.search(draw_sketch(), SearchQuery(text="dog"), refused)


def test_scores_that_are_no_numbers_are_refused(by_clip: ByClip) -> None:
    damaged = ClipVectors(sketch=np.full(16, np.nan, np.float32))
    with pytest.raises(IndexRefused, match="are damaged; run `sketch-search index build"):
        by_clip.searcher.search(by_clip.drawing, SearchQuery(method="clip"), damaged)


@pytest.mark.parametrize("asked", [{"method": "clip"}, {"text": TEXT}])
def test_vectors_of_another_length_than_the_index_has_are_refused(by_clip: ByClip, asked: dict[str, Any]) -> None:
    longer = np.ones(17, np.float32)
    vectors = ClipVectors(TextVector(longer) if "text" in asked else None, None if "text" in asked else longer)
    with pytest.raises(IndexRefused, match="of length 16, and its model gives 17; delete the index folder and build"):
        by_clip.searcher.search(by_clip.drawing, SearchQuery(**asked), vectors)


def test_a_text_is_known_by_what_it_says_and_few_are_kept(by_clip: ByClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.towers.TEXTS_KEPT", 2)
    towers = Towers(CPU)
    first = towers.vectors(by_clip.entry, "a dog", None)
    assert isinstance(first.text, TextVector)
    assert first.milliseconds > 0
    assert towers.is_at_once(by_clip.entry, " a  dog", None)
    assert towers.vectors(by_clip.entry, " a  dog", None) == ClipVectors(first.text)
    for other in ("a cat", "a horse"):
        assert not towers.is_at_once(by_clip.entry, other, None)
        towers.vectors(by_clip.entry, other, None)
    assert not towers.is_at_once(by_clip.entry, "a dog", None)
    assert not towers.is_at_once(by_clip.entry, "a cat", by_clip.drawing)


def test_towers_are_loaded_once_and_again_for_another_model_or_after_a_while(by_clip: ByClip) -> None:
    loaded: list[str] = []
    clock = [100.0]
    gone = by_clip.entry.model_copy(update={"spec": "clip:/nowhere", "sha256": "0" * 64})

    def load(entry: Any, device: str) -> Any:
        loaded.append(entry.spec)
        return open_towers(entry, device)

    towers = Towers(CPU, load, lambda: clock[0])
    for text in ("a", "b", "c"):
        towers.vectors(by_clip.entry, text, None)
    assert loaded == [by_clip.entry.spec]
    for _ in range(2):
        assert "neither a file nor an open_clip model" in (towers.vectors(gone, "a", by_clip.drawing).refusal or "")
    assert towers.is_at_once(gone, "b", by_clip.drawing)
    assert towers.refusal(gone) is not None
    assert towers.refusal(by_clip.entry) is None
    clock[0] += 11
    assert not towers.is_at_once(gone, "b", None)
    assert towers.vectors(gone, "b", None).text is None
    assert loaded == [by_clip.entry.spec, gone.spec, gone.spec]
