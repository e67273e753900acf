import io
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sketch_search import Remote
from sketch_search.indexer import BuildRequest, EmbedderEntry, build, open_text_tower
from sketch_search.model import Matcher
from sketch_search.model.search import encode_things, gallery_of, search_things, stages
from sketch_search.model.terminal import BAD_INPUT
from sketch_search.model.torch import TextTower
from sketch_search.remote import ClientError
from sketch_search.service.commands import main
from sketch_search.service.http.middleware import MAX_BYTES
from sketch_search.service.schemas.explain import InfoResponse, WordsResponse
from sketch_search.service.settings import Settings
from sketch_search.training.corpus import Corpus, Picture
from sketch_search.training.evaluation.scoring import encode_pictures, search_matrices
from tests.benchmarks.results import Soak, soak
from tests.networks import READING, saved_clip
from tests.pictures import drawing, encoded, specks
from tests.programs import PATIENCE, SOAK_TIMEOUT, wait_for
from tests.service.busy_server import Gate
from tests.service.search.test_things import on_paper
from tests.service.served import asked, error, served, wordy
from tests.service.small_gallery import draw_photo

WORDS = (("sofa", "couch"), ("dog", "hound"), ("cat",), ("sea lion",), ("dogsled",), ("Ärmel",))


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory, gallery: Path, settings: Settings) -> Settings:
    return wordy(settings, gallery, tmp_path_factory.mktemp("words"), WORDS)


@pytest.fixture(scope="module")
def http_words(worded: Settings) -> Iterator[httpx.Client]:
    with asked(worded) as connection:
        yield connection


def by_command(settings: Settings, text: str, *options: str) -> int:
    place = ("--index", str(settings.index), "--weights", str(settings.weights))
    return main(["search", "--text", text, *place, *options])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", ["cat", "dog", "dogsled", "sea lion", "sofa", "Ärmel"]),
        ("?limit=2", ["cat", "dog"]),
        ("?prefix=DO", ["dog", "dogsled", "doggy"]),
        ("?prefix=sea_l", ["sea lion"]),
        # "cat" begins so itself, "sofa" has a further name that does.
        ("?prefix=c", ["cat", "sofa"]),
        ("?prefix=h&limit=1", ["dog"]),
        ("?prefix=do&limit=2", ["dog", "dogsled"]),
        ("?prefix=%C3%A4", ["Ärmel"]),
        ("?prefix=%00", []),
    ],
)
def test_words_are_completed(http_words: httpx.Client, query: str, words: list[str]) -> None:
    answer = http_words.get(f"/words{query}")
    assert answer.status_code == 200
    assert WordsResponse.model_validate_json(answer.content, strict=True)
    assert (answer.json()["vocabulary"], answer.json()["words"]) == (len(WORDS), words)


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        (
            "hudn",
            "unknown_word",
            "'hudn' is an unknown word; the vocabulary has 6 words, such as sofa, dog, cat; similar words",
        ),
        (
            "quaternion",
            "unknown_word",
            "'quaternion' is an unknown word; the vocabulary has 6 words, such as sofa, dog",
        ),
        (" \u00a0_-", "bad_parameter", "text must have letters."),
        ("dog\x00", "bad_parameter", "text must not contain control characters."),
        # It would turn the direction of writing.
        ("\N{RIGHT-TO-LEFT OVERRIDE}god", "bad_parameter", "text must not contain control characters."),
        ("d" * 101, "bad_parameter", "text must have at most 100 characters, not 101."),
        ("\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 100, "bad_parameter", "characters, not 1800."),
        ("d" * 10_000, "bad_parameter", f"The query has 10005 bytes; the limit is {MAX_BYTES}."),
    ],
    ids=range(8),
)
def test_unknown_text_is_refused(http_words: httpx.Client, sketch: bytes, text: str, code: str, sentence: str) -> None:
    for body in (b"", sketch):
        answer = http_words.post("/search", content=body, params={"text": text})
        assert error(answer, sentence) == (422, code)
        assert answer.json()["error"].get("nearest") == (["dog"] if text == "hudn" else None)
        assert len(answer.text) < 1000


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"params": {"thing_text": "'"}}, "thing_text must have letters."),
        ({"params": {"thing_text": "cat\u202e"}}, "thing_text must not contain control characters."),
        ({"params": {"thing_text": "\ufdfa" * 50}}, "thing_text must have at most 100 characters, not 900."),
        ({"params": {"thing_text": ["cat", "", "dog"]}}, "thing_text names 3 things, but 1 are drawn: name fewer."),
        (
            {"data": {"strokes": json.dumps([{"points": [[0, 0]], "word": "'"}])}},
            "The word of a stroke must have letters",
        ),
        ({"params": {"text": "'"}}, "text must have letters."),
    ],
    ids=range(6),
)
def test_no_word_is_taken_anywhere_that_cannot_be_one(
    default_settings: Settings, sketch: bytes, named: dict[str, Any], sentence: str
) -> None:
    with asked(default_settings) as http:
        for path in ("/search", "/locate?photo=1", "/explain?photo=1"):
            url = httpx.URL(path).copy_merge_params(named.get("params", {}))
            answer = http.post(url, files={"file": sketch}, data=named.get("data"))
            assert error(answer, sentence) == (422, "bad_parameter")


FEW, MANY = 60, 10_000
MARKS = ["", " ", "'", "-", "\u202e", "\ufdfa" * 50, "\0", "cat", "red dog", "2 cats and a sofa", "猫", "x" * 101]
NAMES = st.sampled_from(MARKS) | st.text(max_size=9)
PLACES = st.floats(-1, 2) | st.sampled_from([0, 0.5, 1])
DRAWN_STROKES = st.lists(
    st.fixed_dictionaries(
        {"points": st.lists(st.tuples(PLACES, PLACES), min_size=1, max_size=6)},
        optional={"width": st.floats(0, 1), "filled": st.booleans(), "thing": st.integers(0, 20), "word": NAMES},
    ),
    max_size=30,
)
NAMED = st.fixed_dictionaries(
    {},
    optional={
        "text": NAMES,
        "thing_text": st.lists(NAMES, max_size=8),
        "things": st.sampled_from(["auto", "one"]),
        "places": st.sampled_from(["auto", "yes", "no"]),
        "colours": st.sampled_from(["auto", "no"]),
        "kind": st.sampled_from(["sketch", "photo"]),
        "writing": st.just("yes"),
        "like": st.integers(0, 3),
    },
)


@pytest.fixture(scope="module")
def knowing(default_settings: Settings) -> Iterator[httpx.Client]:
    with asked(default_settings) as http:
        yield http


@pytest.fixture(scope="module")
def asking() -> Iterator[Soak]:
    with soak(
        "Searches, explanations and places by generated words, strokes and things. None is answered by 500"
    ) as run:
        yield run


@pytest.mark.fuzz
@pytest.mark.timeout(SOAK_TIMEOUT)
@hypothesis.settings(max_examples=FEW if hypothesis.settings().max_examples < MANY / 2 else MANY)
@given(
    path=st.sampled_from(["/search", "/locate?photo=1&photo=2", "/explain?photo=1"]),
    pictures=st.lists(
        st.sampled_from([encoded(drawing("star")), encoded(specks(5)), encoded(specks(3, 60))]), max_size=3
    ),
    strokes=st.none() | DRAWN_STROKES,
    params=NAMED,
)
def test_no_words_strokes_and_things_are_answered_by_500(
    knowing: httpx.Client,
    asking: Soak,
    path: str,
    pictures: list[bytes],
    strokes: list[dict[str, Any]] | None,
    params: dict[str, Any],
) -> None:
    asking.times += 1
    data = None if strokes is None else {"strokes": json.dumps(strokes)}
    files = [("file", (None, picture)) for picture in pictures]
    answer = knowing.post(httpx.URL(path).copy_merge_params(params), files=files, data=data)
    assert answer.status_code < 500, answer.text


def test_a_checkpoint_without_a_vocabulary_says_so(http: httpx.Client, sketch: bytes) -> None:
    assert http.get("/words?prefix=d").json() == {"vocabulary": 0, "words": []}
    assert http.get("/info").json()["model"]["vocabulary"] == 0
    assert http.post("/search", content=sketch).json()["guesses"] == []
    for body in (b"", sketch):
        answer = http.post("/search", content=body, params={"text": "dog"})
        assert error(answer, "This checkpoint has no vocabulary: leave text out.") == (422, "bad_parameter")


TEXT = "my dog, on a beach"
NAME = "CLIP from reading-clip"


@pytest.fixture(scope="module")
def by_clip(tmp_path_factory: pytest.TempPathFactory, gallery: Path, settings: Settings) -> Settings:
    """The settings of a server whose index was clustered by CLIP, and whose checkpoint has two words."""
    folder = tmp_path_factory.mktemp("by-clip")
    clip = saved_clip(folder / "reading-clip", READING)
    shutil.copytree(gallery, folder / "photos")
    return wordy(settings, folder / "photos", folder, (("dog", "hound"), ("cat",)), f"clip:{clip}")


@pytest.fixture(scope="module")
def http_clip(by_clip: Settings) -> Iterator[httpx.Client]:
    with asked(by_clip) as connection:
        yield connection


def test_words_and_info_name_the_text_tower(http_clip: httpx.Client, http: httpx.Client) -> None:
    words = http_clip.get("/words").json()
    assert words == {"vocabulary": 2, "words": ["cat", "dog"], "text_tower": NAME}
    index = http_clip.get("/info").json()["index"]
    assert (index["text_tower"], index["text_tower_refused"]) == (NAME, None)
    without = InfoResponse.model_validate_json(http.get("/info").content).index
    assert without is not None
    assert (without.text_tower, without.text_tower_refused) == (None, None)


def test_a_slow_tower_slows_no_others(by_clip: Settings, sketch: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()

    def slow(entry: EmbedderEntry, device: str) -> TextTower:
        gate()
        return open_text_tower(entry, device)

    monkeypatch.setattr("sketch_search.service.search.plan.open_text_tower", slow)
    with asked(by_clip) as http:
        ask = partial(httpx.post, http.base_url.join("/search"), timeout=PATIENCE)
        with ThreadPoolExecutor(3) as clients:
            waiting = [clients.submit(ask, params={"text": f"{TEXT} {number}"}) for number in range(3)]
            wait_for(gate.begun, "nobody has asked CLIP")
            for _ in range(3):
                assert http.post("/search", content=sketch).status_code == 200
            assert http.get("/words").status_code == 200
            assert not any(search.done() for search in waiting)
            gate.opened.set()
            assert [search.result().json()["words"] for search in waiting] == 3 * ["clip"]


def test_without_its_clip_model_an_index_is_searched_by_the_vocabulary(
    by_clip: Settings, sketch: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index, _ = moved(by_clip, tmp_path)
    settings = by_clip.model_copy(update={"index": index})
    manifest = next(index.glob("*/manifest.json"))
    said = json.loads(manifest.read_text())
    said["embedder"]["spec"] = "clip:/nowhere/clip"
    manifest.write_text(json.dumps(said))
    why = "/nowhere/clip is neither a file nor an open_clip model with weights"
    with asked(settings) as http:
        for _ in range(2):
            assert http.post("/search", content=sketch, params={"text": "hounds"}).json()["words"] == "vocabulary"
            assert error(http.post("/search", params={"text": "quaternion"}), why) == (422, "unknown_word")
        told = http.get("/info").json()["index"]
        assert told["text_tower"] is None
        assert told["text_tower_refused"].startswith(why)
        assert "text_tower" not in http.get("/words").json()
        with Remote(str(http.base_url)) as remote, pytest.raises(ClientError, match="read other words: /no"):
            remote.search(text="quaternion")
    assert by_command(settings, "quaternion") == BAD_INPUT
    assert why in capsys.readouterr().err


def moved(settings: Settings, folder: Path) -> tuple[Path, Path]:
    assert settings.index is not None
    shutil.copytree(settings.index.parent, folder / "copy")
    return folder / "copy" / "index", folder / "copy" / "photos"


# Single shapes in black and in colour, and two that the default takes for one thing, though nearly for two.
_UNSURE = np.minimum(*(np.asarray(on_paper(shape, x)) for shape, x in (("cross", 10), ("circle", 200))))
_SKETCHES = [
    encoded(Image.fromarray(_UNSURE)),
    *(encoded(drawing(shape, 128, seed)) for seed, shape in enumerate(["star", "circle"])),
    *(encoded(on_paper(shape, 20, (200, 40, 40))) for shape in ("star", "cross")),
]

_WORDS = ("cup", "house")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, default: Matcher) -> tuple[Picture, ...]:
    folder = tmp_path_factory.mktemp("gallery") / "photos"
    folder.mkdir()
    found = tuple(Picture(folder / f"{seed}.png", "", "") for seed in range(10))
    for seed, picture in enumerate(found):
        picture.path.write_bytes(encoded(draw_photo(seed)))
    build(folder.with_name("index"), BuildRequest([folder], embedder="ret"), default)
    return found


@pytest.fixture
def thinned(photos: tuple[Picture, ...], monkeypatch: pytest.MonkeyPatch) -> Settings:
    # Fewer photos are scored than there are, so that the others are estimated.
    monkeypatch.setattr(stages, "RERANK", 4)
    return Settings.model_validate({"index": photos[0].path.parents[1] / "index"})


def test_http_ranks_the_same(tmp_path: Path, photos: tuple[Picture, ...], thinned: Settings, default: Matcher) -> None:
    sketches = tuple(Picture(tmp_path / f"{number}.png", _WORDS[number % 2], "") for number in range(len(_SKETCHES)))
    for sketch, data in zip(sketches, _SKETCHES, strict=True):
        sketch.path.write_bytes(data)
    evaluated = search_matrices(default, Corpus(sketches, photos), words=True, boxes=True)
    with served(thinned) as server:
        for number, (sketch, data) in enumerate(zip(sketches, _SKETCHES, strict=True)):
            word = {"text": sketch.label}
            for way, content, params in (("search", data, {}), ("word", None, word), ("search+word", data, word)):
                answer = server.http.post("/search", content=content, params=params).json()
                scores = zip(photos, evaluated[way][number], strict=True)
                expected = {photo.path.name: float(score) for photo, score in scores}
                assert _ranked(answer) == pytest.approx(expected, abs=1e-3)


def test_a_drawing_that_may_be_of_two_things_is_answered_at_each_quality(thinned: Settings) -> None:
    with served(thinned) as server:
        for quality, word in product(("fast", "draft", "good", "best"), ({}, {"text": _WORDS[0]})):
            answer = server.http.post("/search", content=_SKETCHES[0], params={"quality": quality, **word})
            assert answer.status_code == 200, (quality, word, answer.text)
            assert answer.json()["results"]


def test_clicks_rank_over_http_as_evaluated(photos: tuple[Picture, ...], thinned: Settings, default: Matcher) -> None:
    matcher, (unsure, star, *_) = default, _SKETCHES
    assert matcher.divide(matcher.preprocessing.drawing(Image.open(io.BytesIO(unsure)).convert("RGB"))).others
    gallery = gallery_of(encode_pictures(matcher, photos, "photo", boxes=True), matcher)
    things = encode_things(matcher, matcher.preprocessing.drawing(drawing("star", 128, 0)), variants=None)
    search = partial(search_things, gallery, matcher, things, 20)
    second = search().photos[1:2]
    with served(thinned) as server:
        results = server.http.post("/search", content=star).json()["results"]
        (photo,) = (one["id"] for one in results if one["paths"] == [photos[second.ids[0]].path.name])
        for click, ranking in (("like", search(liked=second)), ("unlike", search(unliked=second))):
            answer = server.http.post("/search", content=star, params={click: photo}).json()
            scores = zip(ranking.photos.ids, ranking.photos.scores, strict=True)
            expected = {photos[number].path.name: float(score) for number, score in scores}
            assert _ranked(answer) == pytest.approx(expected, abs=1e-3)
            assert list(_ranked(answer)) == list(expected)


def _ranked(answer: Any) -> dict[str, float]:
    return {result["paths"][0]: result["raw_score"] for result in answer["results"]}
