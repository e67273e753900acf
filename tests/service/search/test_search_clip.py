"""Searches by any text over an index that was clustered by CLIP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
from indexer import IndexRefused, Request, build, open_index
from model import Matcher
from service.errors import BadSearch
from service.schemas import SearchQuery, SearchResponse
from service.towers import ReadText, TextTowers, TextVector
from tests.indexer.clip_models import READING, saved_clip
from tests.networks import tiny_checkpoint
from tests.searching import Searcher
from tests.service.sharding.shards_here import assert_same, cut, links_to, searcher_of
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_sketch

CPU = "cpu"
WORDS = (("dog", "hound"), ("cat",), ("sea lion",))
TEXT = "my dog, on a beach"


class ByClip:
    """A searcher with its text tower, asked as the engine asks them."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.matcher = searcher.matcher
        self.entry = searcher.index.manifest.embedder
        self.towers = TextTowers(CPU)
        self.drawing = self.matcher.preprocessing.pixels(draw_sketch(), "sketch")

    def read(self, text: str | None) -> ReadText:
        return ReadText() if text is None else self.towers.read(self.entry, text)

    def find(self, drawn: bool = True, **asked: Any) -> SearchResponse:
        query = SearchQuery(**{"k": PHOTOS, **asked})
        return self.searcher.search(self.drawing if drawn else None, query, self.read(query.text))

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


# Ways to search that go with a text.
WAYS: list[dict[str, Any]] = [
    {},
    {"diffuse": True},
    {"fold": True},
    {"view": "kinds"},
    {"view": "auto"},
    {"nprobe": 2},
    {"folder": ["größe"]},
    {"unlike": [3]},
    {"k": 4, "offset": 3},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_text_goes_with_every_other_part_of_a_query(by_clip: ByClip, way: dict[str, Any]) -> None:
    found = by_clip.find(text=TEXT, **way)
    hits = found.results or tuple(hit for kind in found.groups or () for hit in (kind.best, *kind.more))
    assert hits
    assert np.isfinite([hit.raw_score for hit in hits]).all()
    if found.groups is None:
        assert [hit.raw_score for hit in hits] == sorted((hit.raw_score for hit in hits), reverse=True)
    assert found.words == "clip"
    assert found.diffused == way.get("diffuse", True)


def test_shards_answer_as_one_index_does(by_clip: ByClip, clip_index: tuple[Path, Matcher], tmp_path: Path) -> None:
    index, matcher = clip_index
    links = links_to(cut(index, matcher, tmp_path, [photo % 3 for photo in range(PHOTOS)]), matcher)
    asked: dict[str, Any] = {"method": "rn", "text": TEXT, "rerank": 4}
    query = SearchQuery.model_validate({"k": PHOTOS, **asked})
    found = searcher_of(links, matcher).search(by_clip.drawing, query, by_clip.read(TEXT))
    assert_same(found, by_clip.find(**asked))


def test_a_text_lifts_the_photo_that_shows_it_most(by_clip: ByClip) -> None:
    for text in (TEXT, "שלום"):
        vector = by_clip.read(text).vector
        assert vector is not None
        best = int(by_clip.searcher.index.ids[np.argmax(by_clip.embeddings() @ vector.values)])
        for method in ("auto", "ret"):
            without, led = by_clip.find(method=method), by_clip.find(method=method, text=text)
            assert ids(led).index(best) <= ids(without).index(best)
        assert best in ids(by_clip.find(drawn=False, text=text))[:5]


def test_a_text_that_nothing_reads_is_refused_with_the_reason(index: Any, matcher: Matcher) -> None:
    searcher = Searcher(index, matcher)
    refused = ReadText(refusal="its weights are gone.")
    with pytest.raises(BadSearch, match="no vocabulary, and CLIP cannot read other words: its weights are gone: leave"):
        searcher.search(draw_sketch(), SearchQuery(text="dog"), refused)


def test_scores_that_are_no_numbers_are_refused(by_clip: ByClip) -> None:
    damaged = ReadText(TextVector(np.full(16, np.nan, np.float32)))
    with pytest.raises(IndexRefused, match="are damaged; build this index again"):
        by_clip.searcher.search(by_clip.drawing, SearchQuery(text=TEXT), damaged)


def test_a_vector_of_another_length_than_the_index_has_is_refused(by_clip: ByClip) -> None:
    longer = ReadText(TextVector(np.ones(17, np.float32)))
    with pytest.raises(IndexRefused, match="of length 16, and its model gives 17; delete the index folder and build"):
        by_clip.searcher.search(by_clip.drawing, SearchQuery(text=TEXT), longer)


def test_a_text_is_known_by_what_it_says_and_few_are_kept(by_clip: ByClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.towers.TEXTS_KEPT", 2)
    towers = TextTowers(CPU)
    first = towers.read(by_clip.entry, "a dog")
    assert isinstance(first.vector, TextVector)
    assert first.milliseconds > 0
    assert towers.read(by_clip.entry, " a  dog") == ReadText(first.vector)
    for other in ("a cat", "a horse"):
        assert towers.read(by_clip.entry, other).milliseconds > 0
    assert towers.read(by_clip.entry, "a dog").milliseconds > 0
