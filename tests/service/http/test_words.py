"""GET /words, and text= of POST /search: a vocabulary of so many words, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from model.terminal import BAD_INPUT
from service.client import Client, ServiceError
from service.commands import main
from service.http.middleware import MOST_BYTES
from service.schemas import SearchResponse, WordsResponse
from service.settings import Settings
from tests.benchmarks import query_parts
from tests.benchmarks.scale import number
from tests.service.served import asked
from tests.service.talk import error, without_timings
from tests.service.wordy import wordy

WORDS = (("sofa", "couch"), ("dog", "hound"), ("cat",), ("sea lion",), ("dogsled",), ("Ärmel",))


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory, gallery: Path, settings: Settings) -> Settings:
    """The settings of a server whose checkpoint has a vocabulary."""
    return wordy(settings, gallery, tmp_path_factory.mktemp("words"), WORDS)


@pytest.fixture(scope="module")
def http_words(worded: Settings) -> Iterator[httpx.Client]:
    with asked(worded) as connection:
        yield connection


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", ["cat", "dog", "dogsled", "sea lion", "sofa", "Ärmel"]),
        ("?limit=2", ["cat", "dog"]),
        ("?prefix=do", ["dog", "dogsled"]),
        ("?prefix=DO", ["dog", "dogsled"]),
        ("?prefix=s", ["sea lion", "sofa"]),
        ("?prefix=sea_l", ["sea lion"]),
        # "cat" begins so itself, "sofa" has a further name that does.
        ("?prefix=c", ["cat", "sofa"]),
        ("?prefix=h&limit=1", ["dog"]),
        ("?prefix=%C3%A4", ["Ärmel"]),
        ("?prefix=%00", []),
        ("?prefix=%E2%80%AEdog", []),
    ],
)
def test_words_are_completed(http_words: httpx.Client, query: str, words: list[str]) -> None:
    answer = http_words.get(f"/words{query}")
    assert answer.status_code == 200
    assert WordsResponse.model_validate_json(answer.content, strict=True)
    assert answer.json()["vocabulary"] == len(WORDS)
    assert answer.json()["words"] == words


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("limit=0", "limit must be at least 1, not 0."),
        ("limit=1001", "limit must be at most 1000, not 1001."),
        ("limit=many", "limit must be a whole number, not 'many'."),
        (f"prefix={'x' * 101}", "prefix must be at most 100 characters long, not 'xxx"),
        ("prefix=a&prefix=b", "The parameter prefix is given 2 times; give it once."),
        ("start=a", "There is no parameter 'start'; there are prefix, limit."),
    ],
)
def test_completions_that_cannot_be_asked_for_are_refused(http_words: httpx.Client, query: str, sentence: str) -> None:
    answer = http_words.get(f"/words?{query}")
    assert error(answer) == (422, "bad_parameter")
    assert answer.json()["error"]["message"].startswith(sentence)


def test_every_word_that_is_listed_finds_photos(http_words: httpx.Client, sketch: bytes) -> None:
    assert http_words.get("/info").json()["model"]["vocabulary"] == len(WORDS)
    for word in http_words.get("/words").json()["words"]:
        for body in (b"", sketch):
            found = http_words.post("/search", content=body, params={"text": word, "k": 3})
            assert SearchResponse.model_validate_json(found.content, strict=True)
            assert [result["rank"] for result in found.json()["results"]] == [1, 2, 3]


def test_a_sketch_is_guessed_and_nothing_else_is(http_words: httpx.Client, sketch: bytes) -> None:
    for params in ({}, {"text": "cat"}, {"view": "kinds"}):
        guesses = http_words.post("/search", content=sketch, params=params).json()["guesses"]
        assert 0 < len(guesses) <= 3
        probabilities = [guess["probability"] for guess in guesses]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) <= 1
        assert {guess["word"] for guess in guesses} <= {names[0] for names in WORDS}
    assert http_words.post("/search", params={"text": "cat"}).json()["guesses"] == []


def test_a_word_that_no_photo_fits_is_told_and_the_nearest_photos_are_found(
    http_words: httpx.Client, worded: Settings, sketch: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    for body in (b"", sketch):
        for word, fits in (("cat", True), ("Ärmel", False)):
            found = http_words.post("/search", content=body, params={"text": word, "k": 3}).json()
            assert (found["word_fits"], len(found["results"])) == (fits, 3)
    options = ["--index", str(worded.index), "--weights", str(worded.weights), "--k", "1"]
    for word, said in (("cat", ""), ("Ärmel", "no photo looks much like 'Ärmel'; these come nearest\n")):
        assert main(["search", "--text", word, *options]) == 0
        printed = capsys.readouterr()
        assert (len(printed.out.splitlines()), printed.err) == (2, said)


@pytest.mark.parametrize(
    ("text", "expected", "sentence"),
    [
        ("my dogs", (422, "unknown_word"), "The vocabulary of 6 words does not have 'my dogs'; the nearest are dog"),
        (
            "quaternion",
            (422, "unknown_word"),
            "The vocabulary of 6 words does not have 'quaternion'; try another name for it, or draw it",
        ),
        ("<script>alert(1)</script>", (422, "unknown_word"), "The vocabulary of 6 words does not have"),
        (" \u00a0_-", (422, "bad_parameter"), "text must have letters."),
        ("dog\x00", (422, "bad_parameter"), "text must not have control characters."),
        # It would turn the direction of writing.
        ("\N{RIGHT-TO-LEFT OVERRIDE}god", (422, "bad_parameter"), "text must not have control characters."),
        ("d" * 101, (422, "bad_parameter"), "text must have at most 100 characters, not 101."),
        ("d" * 10_000, (422, "bad_parameter"), f"The query has 10005 bytes; at most {MOST_BYTES} are taken."),
    ],
    ids=range(8),
)
def test_text_that_is_no_word_is_refused_with_and_without_a_sketch(
    http_words: httpx.Client, sketch: bytes, text: str, expected: tuple[int, str], sentence: str
) -> None:
    for body in (b"", sketch):
        answer = http_words.post("/search", content=body, params={"text": text})
        assert error(answer) == expected
        assert answer.json()["error"]["message"].startswith(sentence)
        assert len(answer.text) < 1000


def test_a_query_of_nothing_and_two_words_are_refused(http_words: httpx.Client) -> None:
    nothing = http_words.post("/search", params={"k": 3})
    assert error(nothing) == (422, "bad_parameter")
    assert nothing.json()["error"]["message"].endswith("or name a photo with like, or a word with text.")
    assert error(http_words.post("/search?text=dog&text=cat")) == (422, "bad_parameter")


def test_a_checkpoint_without_a_vocabulary_says_so(http: httpx.Client, client: Client, sketch: bytes) -> None:
    assert http.get("/words?prefix=d").json() == {"vocabulary": 0, "words": []}
    assert http.get("/info").json()["model"]["vocabulary"] == 0
    assert http.post("/search", content=sketch).json()["guesses"] == []
    for body in (b"", sketch):
        answer = http.post("/search", content=body, params={"text": "dog"})
        assert error(answer) == (422, "bad_parameter")
        assert answer.json()["error"]["message"] == "This checkpoint has no vocabulary: leave text out."
    assert client.words() == WordsResponse(vocabulary=0, words=())


def test_server_client_and_command_line_agree_on_words(
    http_words: httpx.Client,
    worded: Settings,
    sketch: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "sketch.png"
    file.write_bytes(sketch)
    options = ["--index", str(worded.index), "--weights", str(worded.weights)]
    with Client(str(http_words.base_url)) as client:
        for body, drawn in ((sketch, [str(file)]), (b"", [])):
            raw = without_timings(http_words.post("/search", content=body, params={"text": "couches", "k": 4}))
            answer = client.search(body or None, text="couches", k=4).model_dump(mode="json")
            assert {name: value for name, value in answer.items() if name != "timings_ms"} == raw
            assert main(["search", *drawn, "--text", "couches", "--k", "4", *options, "--json"]) == 0
            printed = json.loads(capsys.readouterr().out)
            assert {name: value for name, value in printed.items() if name != "timings_ms"} == raw
        assert client.words("do") == WordsResponse(vocabulary=6, words=("dog", "dogsled"))
        assert client.words(limit=1).vocabulary == 6
        with pytest.raises(ServiceError, match="422 unknown_word"):
            client.search(text="dogg")
        with pytest.raises(ValueError, match="text must have letters"):
            client.search(text="")
    assert main(["search", "--text", "dogg", *options]) == BAD_INPUT
    assert "the vocabulary of 6 words does not have 'dogg'; the nearest are dog" in capsys.readouterr().err


def test_searches_with_a_word_are_timed_where_there_is_a_vocabulary(http_words: httpx.Client, sketch: bytes) -> None:
    rows = query_parts.measure(str(http_words.base_url), [sketch], 1)
    assert [row["a search by"] for row in rows][-2:] == ["and a word", "and 5 liked photos and a word"]
    alone = number(rows[0], "median (ms)")
    assert [row["as a multiple"] for row in rows] == [number(row, "median (ms)") / alone for row in rows]
