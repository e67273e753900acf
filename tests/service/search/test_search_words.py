import io
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from sketch_search.model import Tokens
from sketch_search.model.engine import Floats, Vocabulary, Weights
from sketch_search.model.errors import GalleryUnusable
from sketch_search.model.ranking import EXAMPLES
from sketch_search.model.search import Plan, Query, encode_things, query_of, rank, search_things
from sketch_search.service.errors import BadSearch
from sketch_search.service.schemas.query import TunedQuery
from sketch_search.service.schemas.search import SearchResponse
from sketch_search.service.search.plan import ReadText, TextTowers
from tests.networks import READING, saved_clip
from tests.searching import Searcher, searching
from tests.service.small_gallery import PHOTOS, draw_sketch

NAMES = ("dog", "DOGS", "hound", "cat", "sea lions", "Sea-Lion", "pick_up", "pick up trucks", "leaves")
Picture = Literal["sketch", "photo"] | None


@pytest.fixture
def searcher(either: Searcher) -> Searcher:
    return either


def find(searcher: Searcher, picture: Picture = "sketch", **asked: Any) -> SearchResponse:
    """Searches with a sketch, with the first photo of the gallery, or with neither."""
    image = draw_sketch() if picture == "sketch" else first_photo(searcher) if picture == "photo" else None
    kind = {"kind": "photo"} if picture == "photo" else {}
    return searcher.find(image, **kind, **asked)


def first_photo(searcher: Searcher) -> Image.Image:
    return Image.open(io.BytesIO(searcher.index.open_photo(int(searcher.index.ids[0])).whole()))


def ids(outcome: SearchResponse) -> list[int]:
    return [hit.id for hit in outcome.results]


def best_by(searcher: Searcher, word: str) -> list[int]:
    """Returns all photos, those that show most of a word first."""
    matcher, index = searcher.matcher, searcher.index
    scores = matcher.word_scores(Tokens.of_ret(index.vectors.of()), [matcher.book.find(word)])[0]
    return index.ids[np.lexsort((index.ids, -scores))].tolist()


def below(searcher: Searcher, folder: str) -> set[int]:
    index = searcher.index
    return {
        photo for photo in index.ids.tolist() if any(path.startswith(f"{folder}/") for path in index.photo(photo).paths)
    }


# Ways to search that go with every combination of parts, and those that need a sketch and nobody's likes.
_ANY: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"method": "ret"}, {"nprobe": 2}, {"nprobe": 1}, {"nprobe": "all"}, {"view": "groups"}, {"view": "auto"}]
)
_DRAWN: st.SearchStrategy[dict[str, Any]] = st.one_of(
    _ANY, st.sampled_from([{"method": "rn", "rerank": 3}, {"rerank": 3}, {"method": "rn", "nprobe": 1, "rerank": 2}])
)


@settings(max_examples=30)
@given(
    picture=st.sampled_from(["sketch", "photo", None]),
    word=st.none() | st.sampled_from(NAMES),
    folder=st.none() | st.sampled_from(["größe", "nowhere"]),
    data=st.data(),
)
def test_every_combination_of_parts_finds_the_photos_it_may(
    searcher: Searcher, picture: Picture, word: str | None, folder: str | None, data: st.DataObject
) -> None:
    every = searcher.index.ids.tolist()
    named = data.draw(st.lists(st.sampled_from(every), max_size=5, unique=True))
    liked = named[: data.draw(st.integers(0, len(named)))]
    unliked, kinds = named[len(liked) :: 2], named[len(liked) + 1 :: 2]
    way = data.draw(_DRAWN if picture == "sketch" else _ANY)
    asked: dict[str, Any] = {"like": liked, "unlike": unliked, "unlike_kind": kinds, "text": word, **way}
    if folder is not None:
        asked["folder"] = [folder]
    if picture is None and not liked and word is None:
        assume(folder is None or unliked)
        with pytest.raises(BadSearch, match="The query is empty"):
            find(searcher, picture, **asked)
        return
    found = find(searcher, picture, **asked)
    others = searcher.matcher.prepare(first_photo(searcher), "photo")[None] if picture == "photo" else None
    others = None if others is None else searcher.matcher.encode(others, "photo").ret
    without = find(searcher, picture, **asked | {"unlike": (), "unlike_kind": (), "view": "photos"})
    before, dislikes = [hit.id for hit in without.results], [*unliked, *kinds]
    if len(dislikes) == 1:
        allowed = set(every) - searcher.leaving(dislikes[0], bool(kinds), liked, others, before)
    else:
        allowed = set(every) - set(dislikes)
    if folder is not None:
        allowed &= below(searcher, folder)
    hits = found.results
    if found.groups is not None:
        assert not hits
        assert sum(kind.size for kind in found.groups) == found.candidates
        grouped = [hit for kind in found.groups for hit in (kind.best, *kind.more)]
        hits = tuple(sorted(grouped, key=lambda hit: hit.rank))
    else:
        assert [hit.rank for hit in hits] == list(range(1, found.candidates + 1))
    ranked = [hit.id for hit in hits]
    assert len(set(ranked)) == len(ranked)
    assert set(ranked) <= allowed
    if found.groups is None:
        assert set(itertools.takewhile(lambda photo: photo not in dislikes, before)) <= set(ranked)
    scores = [hit.raw_score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(map(math.isfinite, scores))
    assert all(score <= 1 if found.method == "rn" else score <= 0 for score in scores)
    if found.groups is None:
        first = sorted(set(liked) & allowed)
        assert ranked[: len(first)] == first
        if not way or way == {"method": "ret"} or way == {"nprobe": "all"}:
            assert set(ranked) == allowed
    assert all(0 < guess.probability <= 1 and guess.word in searcher.matcher.words for guess in found.guesses)
    assert picture == "sketch" or not found.guesses


@pytest.mark.parametrize("word", ["dog", "cat", "leaf"])
def test_a_word_alone_finds_what_shows_it_most_first(searcher: Searcher, word: str) -> None:
    found = find(searcher, None, text=word)
    assert (found.method, found.quality, len(found.results)) == ("ret", "good", PHOTOS)
    order = best_by(searcher, word)
    # Photos that look like the best ones are drawn in, but none leads that does not show the word.
    assert order[0] in ids(found)[:EXAMPLES]
    assert set(ids(found)[:EXAMPLES]) <= set(order[: PHOTOS // 3 + 1])
    assert ids(found).index(order[-1]) > PHOTOS // 2


def test_of_two_words_photos_are_compared_with_both(searcher: Searcher) -> None:
    gallery, matcher = searcher.gallery, searcher.matcher
    dog, cat = (matcher.book.find(word) for word in ("dog", "cat"))
    clusters = np.arange(len(gallery.clusters.sizes))
    asked = Query(method="ret", mean=gallery.clusters.mean, word=((dog,), (cat,)), clusters=clusters)
    both = matcher.word_scores(Tokens.of_ret(gallery.vectors(gallery.nearest(asked).rows)), [dog, cat]).mean(axis=0)
    np.testing.assert_allclose(np.asarray(gallery.nearest(asked).by_word), both, atol=1e-5)
    found = find(searcher, None, text="a cat with its dog")
    assert (found.word_read, found.word_means) == ("cat and dog", "cat and dog")
    assert find(searcher, None, text="dogs").word_means is None


def fitted(searcher: Searcher, monkeypatch: pytest.MonkeyPatch, shown: Weights) -> None:
    calibration = replace(searcher.matcher.calibration, shown=shown)
    monkeypatch.setattr(searcher.matcher, "calibration", calibration)


@pytest.mark.parametrize(("odds", "shown"), [(3.0, True), (0.0, None), (-4.0, False)])
def test_an_answer_says_how_probably_photos_show_what_is_asked_for(
    diffusing: Searcher, monkeypatch: pytest.MonkeyPatch, odds: float, shown: bool | None
) -> None:
    fitted(diffusing, monkeypatch, {"always": {"always": odds}})
    probable = 1 / (1 + math.exp(-odds))
    asked: list[tuple[Picture, str | None]] = [("sketch", None), (None, "dog"), ("sketch", "dog")]
    for picture, text in asked:
        found = find(diffusing, picture, text=text)
        assert (found.sketch_fits, found.word_fits) == (picture and shown, text and shown)
        scores = [hit.score for hit in found.results]
        # A word that does not name what is drawn is a thing of its own.
        assert len({*scores}) == 1
        assert scores[0] == pytest.approx(probable) or (picture and text and scores[0] == pytest.approx(probable**2))
        assert len(find(diffusing, picture, text=text, min_score=0.5).results) == PHOTOS * (scores[0] >= 0.5)
    assert find(diffusing, None, text="dog", folder=["nowhere"]).word_fits is False
    liked = [hit.score for hit in find(diffusing, like=[5]).results]
    assert liked == pytest.approx([1.0] + [probable] * (PHOTOS - 1))
    # Nobody fitted weights for these.
    others: list[dict[str, Any]] = [{"method": "rn"}, {"system": "two-stage"}]
    for other in others:
        found = find(diffusing, **other)
        assert (found.sketch_fits, found.results[0].score) == (None, 1.0)


def test_scores_fall_in_the_order_of_photos_and_those_below_the_least_are_left_out(
    diffusing: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted(diffusing, monkeypatch, {"always": {"always": 2.0}, "word": {"named": 0.5}, "diffused": {"one": 0.3}})
    pictures: tuple[Picture, ...] = ("sketch", None)
    for picture in pictures:
        found = find(diffusing, picture, text="dog")
        scores = [hit.score for hit in found.results]
        assert scores == sorted(scores, reverse=True)
        assert 0 < scores[-1] < scores[0] < 1
        least = scores[PHOTOS // 2]
        few = find(diffusing, picture, text="dog", min_score=least)
        assert few.results == tuple(hit for hit in found.results if hit.score >= least)
        assert (few.candidates, few.next) == (len(few.results), None)
        grouped = find(diffusing, picture, text="dog", min_score=least, view="groups")
        assert sum(group.size for group in grouped.groups or ()) == len(few.results)


def test_without_fitted_weights_scores_are_shares_and_nothing_is_denied(searcher: Searcher) -> None:
    pictures: tuple[Picture, ...] = ("sketch", None)
    for picture in pictures:
        found = find(searcher, picture, text="dog")
        assert (found.results[0].score, found.sketch_fits, found.word_fits) == (1.0, None, None)
    assert find(searcher, None, text="dog", folder=["nowhere"]).word_fits is None


@pytest.mark.parametrize("picture", ["sketch", "photo"])
@pytest.mark.parametrize("way", [{}, {"nprobe": 1}, {"method": "ret"}])
def test_a_word_lifts_its_photos(
    searcher: Searcher, picture: Picture, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Diffusion counts as without a word, so that the word alone makes the difference.
    monkeypatch.setitem(searcher.matcher.calibration.weights["diffused"], "worded", 0.0)
    for word in searcher.matcher.words:
        best = best_by(searcher, word)[0]
        before, after = ids(find(searcher, picture, **way)), ids(find(searcher, picture, text=word, **way))
        assert best in after
        assert after.index(best) <= (before.index(best) if best in before else PHOTOS)


CPU = "cpu"
WORDS = (("dog", "hound"), ("cat",), ("sea lion",))
TEXT = "my dog, on a beach"


class ByClip(Searcher):
    """A searcher with its text tower, asked as the engine asks them."""

    def __init__(self, searcher: Searcher) -> None:
        super().__init__(searcher.index, searcher.matcher)
        self.entry, self.towers = self.index.manifest.embedder, TextTowers(CPU)

    def find(self, picture: Image.Image | None, **asked: Any) -> SearchResponse:
        query = TunedQuery(**{"k": PHOTOS, **asked})
        return self.search(picture, query, self.towers.read(self.entry, query.text) if query.text else ReadText())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("by-clip")


@pytest.fixture(scope="module")
def by_clip(folder: Path, gallery: Path) -> Iterator[ByClip]:
    embedder = f"clip:{saved_clip(folder / 'reading-clip', READING)}"
    with searching(gallery, folder, embedder=embedder, words=WORDS, diffusion=0.2) as searcher:
        yield ByClip(searcher)


def test_a_text_lifts_the_photo_that_shows_it_most(by_clip: ByClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(by_clip.matcher.calibration.weights["diffused"], "worded", 0.0)
    for text in (TEXT, "שלום"):
        vector, embeddings = by_clip.towers.read(by_clip.entry, text).vector, by_clip.index.embeddings
        assert vector is not None
        assert embeddings is not None
        best = int(by_clip.index.ids[np.argmax(embeddings.of() @ vector)])
        for method in ("auto", "ret"):
            without, led = by_clip.find_sketch(method=method), by_clip.find_sketch(method=method, text=text)
            assert ids(led).index(best) <= ids(without).index(best)
        assert best in ids(by_clip.find_sketch(False, text=text))[:5]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.full(16, np.nan, np.float32), "are damaged; build this index again"),
        (np.ones(17, np.float32), "of length 16, but its model gives 17; delete the index folder and build"),
    ],
    ids=["no numbers", "too long"],
)
def test_a_text_whose_vector_cannot_be_is_refused(by_clip: ByClip, values: Floats, sentence: str) -> None:
    with pytest.raises(GalleryUnusable, match=sentence):
        by_clip.search(draw_sketch(), TunedQuery(text=TEXT), ReadText(values))


def test_a_word_hides_no_photo_that_the_drawing_finds(diffusing: Searcher) -> None:
    gallery, matcher, least, without = diffusing.gallery, diffusing.matcher, list[float](), list[float]()
    things = encode_things(matcher, matcher.preprocessing.drawing(draw_sketch()))
    drawn = np.argsort(search_things(gallery, matcher, things, PHOTOS).photos.ids)
    for word in matcher.words:
        _, query = query_of(gallery, matcher, things, matcher.best_method, text=word)
        query = replace(query, word=matcher.book.read(word).things)
        plan = Plan(query.method, PHOTOS, diffuse=True)
        for last, asked in ((least, query), (without, replace(query, readings=()))):
            ranks = np.argsort(rank(gallery, matcher, asked, plan).photos.ids)
            # How far photos move back, the first ones above all.
            last.append(float(np.maximum(ranks - drawn, 0) @ (1 / (1 + drawn))))
    assert all(np.less_equal(least, without))
    assert least < without


@pytest.mark.parametrize(
    ("guessed", "without"),
    [((0.5, 0.3), 0.0), ((0.02, 0.3), 0.25), ((0.004, 0.3), 0.625), ((0.02, 0.05), 0.25), ((0.0, 0.05), 0.4)],
)
def test_the_less_a_drawing_shows_a_word_the_more_it_is_read_without_it(
    diffusing: Searcher, guessed: tuple[float, float], without: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, matcher, text = diffusing.gallery, diffusing.matcher, diffusing.matcher.words[0]
    shown = np.array([[*guessed, *[0.0] * (len(matcher.words) - 2)]], np.float32)
    vocabulary = matcher.engine.vocabulary
    assert vocabulary is not None
    monkeypatch.setattr(matcher.engine, "vocabulary", replace(vocabulary, drawn=np.arange(len(matcher.words))))
    monkeypatch.setattr(Vocabulary, "guess", lambda *_: shown)
    things = encode_things(matcher, matcher.preprocessing.drawing(draw_sketch()))
    _, query = query_of(gallery, matcher, things, matcher.best_method, text=text)
    assert query.worded
    expected = [without] if without else []
    assert [reading.probability for reading in query.readings] == pytest.approx(expected)
    assert not any(reading.worded for reading in query.readings)
