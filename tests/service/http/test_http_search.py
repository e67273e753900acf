import concurrent.futures
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.datastructures import QueryParams

import model
from indexer import Index
from model.engine import MAX_VARIANTS
from service.http.middleware import MAX_BYTES, MAX_PARAMETERS
from service.settings import Settings
from tests.pictures import encoded
from tests.service.served import asked
from tests.service.small_gallery import draw_sketch
from tests.service.talk import error, without_timings


def test_a_search_answers_with_photos_that_can_be_fetched(http: httpx.Client, sketch: bytes) -> None:
    body = http.post("/search", content=sketch, params={"k": 4}).json()
    assert [result["rank"] for result in body["results"]] == [1, 2, 3, 4]
    assert [result["score"] for result in body["results"]] == sorted(
        (r["score"] for r in body["results"]), reverse=True
    )
    assert set(body["timings_ms"]) == {"prepare", "encode", "clusters", "photos", "diffusion", "total"}
    assert body["clusters"]
    assert body["generation"]
    assert body["model"] == "tiny-random"
    assert body["embedder"]
    for result in body["results"]:
        assert http.get(result["photo_url"]).status_code == 200
        assert http.get(result["thumbnail_url"]).status_code == 200
        assert result["cluster"] in {cluster["id"] for cluster in body["clusters"]}


def test_a_sketch_is_seen_in_as_many_variants_as_the_server_or_the_query_says(
    settings: Settings, http: httpx.Client, sketch: bytes, weights: Path
) -> None:
    with asked(settings, variants=1) as once:
        best = set()
        for connection, params, variants in ((http, {}, MAX_VARIANTS), (once, {}, 1), (http, {"variants": 2}, 2)):
            if not params:
                assert connection.get("/info").json()["model"]["variants"] == variants
            matcher = model.load(weights, variants=variants)
            drawn = matcher.encode(matcher.prepare(draw_sketch(), "sketch")[None], "sketch")
            found = connection.post("/search", content=sketch, params={"method": "ret", **params}).json()["results"][0]
            photo = matcher.open(connection.get(found["photo_url"]).content, "photo")
            shown = matcher.encode(matcher.prepare(photo, "photo")[None], "photo")
            assert found["raw_score"] == pytest.approx(matcher.scores(drawn, shown, "ret").item(), abs=1e-3)
            best.add(round(found["raw_score"], 3))
    assert len(best) == 3


RERANK = "rerank counts photos for the relation network"
FOLDER = "folder must be the path of a folder as results show it"


@pytest.mark.parametrize(
    ("path", "query", "sentence"),
    [
        ("/search", "k=many", "k must be a whole number, not 'many'."),
        ("/search", "k=51", "k must be at most 50, not 51; use offset for the next page."),
        ("/search", "k=0&nprobe=0", "k must be at least 1, not 0; nprobe must be at least 1 or 'all', not 0."),
        ("/search", "method=fused", "This checkpoint has no method 'fused'; it has auto, rn, ret."),
        ("/search", "k=", "k must be a whole number; it is empty."),
        ("/search", "k=%EF%BC%93", "k must be a whole number, not '３'."),
        ("/search", f"k=1{'0' * 5000}", f"k must be a smaller number, not '1{'0' * 39}\N{HORIZONTAL ELLIPSIS}'."),
        ("/search", f"offset={2**40}", "offset must be at most 2147483648, not 1099511627776."),
        ("/search", "nprobe=some", "nprobe must be a whole number or 'all', not 'some'."),
        ("/search", "view=all", "view must be 'photos', 'groups', 'kinds' or 'auto', not 'all'."),
        ("/search", "diffuse=maybe", "diffuse must be true or false, not 'maybe'."),
        ("/search", f"method={'x' * 99}", f"method must be at most 32 characters long, not '{'x' * 40}\u2026'."),
        ("/search", "before=2023-02-30", "before must be a day such as 2023-12-31, not '2023-02-30'."),
        ("/search", "after=0001-01-01", "after must be at least 1900-01-01, not '0001-01-01'."),
        ("/search", "before=9999-12-31", "before must be at most 2200-12-31, not '9999-12-31'."),
        ("/search", "after=2023-02-01&before=2023-01-31", "after, 2023-02-01, must not be later than before, 2023-01"),
        *(("/search", query, FOLDER) for query in ("folder=", "folder=/etc", "folder=2023&folder=../x")),
        ("/search", f"folder={'x' * 4097}", "folder must be at most 4096 characters long, not 'xxx"),
        *(("/search", f"{query}&rerank=4", RERANK) for query in ("like=1", "kind=photo", "method=ret")),
        ("/search", "kind=photo&method=rn", "Photos are compared by [Ret], not by method 'rn'"),
        ("/search", "kind=drawing", "kind must be 'sketch' or 'photo', not 'drawing'."),
        ("/search", "diffuse=true", "This checkpoint has no threshold for diffusion"),
        ("/explain", "", "photo must be given."),
        ("/explain", "photo=-1", "photo must be a number of digits only, not -1."),
        ("/explain", "&".join(["photo=1"] * 13), "photo must be given at most 12 times."),
        ("/explain", "photo=1&nearest=99", "nearest must be at most 20, not 99."),
    ],
    ids=lambda value: value[:24],
)
def test_what_is_wrong_with_a_parameter_is_a_plain_sentence(
    http: httpx.Client, sketch: bytes, path: str, query: str, sentence: str
) -> None:
    answer = http.post(f"{path}?{query}", content=sketch)
    assert error(answer) == (422, "bad_parameter")
    assert answer.json()["error"]["message"].startswith(sentence)


@pytest.mark.parametrize(
    ("path", "known"),
    [
        (
            "/search",
            "k, offset, quality, nprobe, method, rerank, diffuse, variants, view, fold, "
            "like, unlike, text, kind, folder, after, before",
        ),
        ("/clusters/1", "k, offset"),
        ("/words", "prefix, limit"),
    ],
)
def test_an_unknown_parameter_is_answered_with_the_known_ones(
    http: httpx.Client, sketch: bytes, path: str, known: str
) -> None:
    method, body = ("POST", sketch) if path == "/search" else ("GET", None)
    for name in ("n_probe", "K", "file[]", "größe"):
        answer = http.request(method, path, content=body, params={name: "3"})
        assert error(answer) == (422, "bad_parameter")
        assert answer.json()["error"]["message"] == f"There is no parameter '{name}'; there are {known}."


def test_a_parameter_given_twice_is_refused(http: httpx.Client, sketch: bytes) -> None:
    for query in ("k=3&k=4", "k=3&offset=1&k=3", "k=&k=3"):
        answer = http.post(f"/search?{query}", content=sketch)
        assert error(answer) == (422, "bad_parameter")
        assert answer.json()["error"]["message"] == "The parameter k is given 2 times; give it once."
    assert error(http.get("/thumbnails/1?size=20&size=30")) == (422, "bad_parameter")


@pytest.mark.parametrize(
    ("query", "expected", "sentence"),
    [
        ("like=1000", (404, "not_found"), "No photo has the id 1000."),
        ("like=1&unlike=4&unlike=1", (422, "bad_parameter"), "like and unlike name the same photo, 1: leave one of"),
        (
            "&".join(["like=1"] * 20 + ["unlike=2"] * 13),
            (422, "bad_parameter"),
            "like and unlike must be given at most 32 times together, not 33 times.",
        ),
        ("like=%D9%A1", (422, "bad_parameter"), "like must be a number of digits only, not"),
        (f"like={2**63}", (422, "bad_parameter"), "like must be at most 9223372036854775807"),
        ("like=1&method=rn", (422, "bad_parameter"), "Liked photos are compared by [Ret], not by method 'rn'"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_photos_that_cannot_be_part_of_a_query_are_refused(
    http: httpx.Client, sketch: bytes, query: str, expected: tuple[int, str], sentence: str
) -> None:
    answer = http.post(f"/search?{query}", content=sketch)
    assert error(answer) == expected
    assert answer.json()["error"]["message"].startswith(sentence)
    if query.startswith("like"):
        assert http.post(f"/search?{query}").json()["error"]["message"] == answer.json()["error"]["message"]


def test_a_query_of_nothing_is_refused(http: httpx.Client) -> None:
    for query in ("", "?unlike=1", "?k=3"):
        answer = http.post(f"/search{query}")
        assert error(answer) == (422, "bad_parameter")
        assert "send a sketch, or name a photo with like" in answer.json()["error"]["message"]


def test_a_photo_as_query_finds_itself_also_if_it_is_blank_for_a_sketch(http: httpx.Client, index: Index) -> None:
    photo = index.ids.tolist()[3]
    data = index.open_photo(photo)
    found = http.post("/search", content=data, params={"kind": "photo", "k": 3})
    assert found.json()["results"][0]["id"] == photo
    assert found.json()["method"] == "ret"
    form = http.post("/search", files={"file": data}, params={"kind": "photo", "k": 3})
    assert without_timings(form) == without_timings(found)
    white = encoded(Image.new("RGB", (64, 64), "white"))
    assert error(http.post("/search", content=white)) == (422, "blank_sketch")
    assert http.post("/search", content=white, params={"kind": "photo"}).status_code == 200
    assert error(http.post("/search", params={"kind": "photo"})) == (422, "bad_parameter")


def test_parallel_searches_answer_like_sequential_ones(http: httpx.Client) -> None:
    def search(seed: int) -> dict[str, Any]:
        return without_timings(http.post("/search", content=encoded(draw_sketch(seed)), params={"k": 8}))

    seeds = [seed % 6 for seed in range(16)]
    in_turn = {seed: search(seed) for seed in set(seeds)}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(search, seeds)) == [in_turn[seed] for seed in seeds]


PATHS = ["/thumbnails/1", "/clusters/1", "/photos", "/photos/1", "/info", "/healthz", "/openapi.json"]


@pytest.mark.parametrize("path", [*PATHS, "/", "/page/main.js", "/no/such"])
def test_a_query_of_many_names_is_refused_before_it_is_read(
    http: httpx.Client, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the query was read")

    monkeypatch.setattr(QueryParams, "__init__", read)
    names = [f"{number:x}" for number in range(12_000)]
    for query in (
        "&".join(names[: MAX_PARAMETERS + 1]),
        "&" * MAX_PARAMETERS,
        "&".join(names),
        "size=" + "1" * MAX_BYTES,
    ):
        answer = http.get(f"{path}?{query}")
        assert error(answer) == (422, "bad_parameter")
        assert "at most" in answer.json()["error"]["message"]
    monkeypatch.undo()
    at_the_limit = http.post("/search?" + "&".join(names[:MAX_PARAMETERS]))
    assert at_the_limit.json()["error"]["message"].startswith("There is no parameter '0'")
    assert http.get("/healthz?" + "x" * MAX_BYTES).status_code == 200
