import base64
import concurrent.futures
import json
import os
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw, ImageFont

from sketch_search import model
from sketch_search.model import decoding, images
from sketch_search.model.errors import MalformedSketch
from sketch_search.model.images import MAX_THINGS, files, read_strokes
from sketch_search.model.limits import MAX_VARIANTS
from sketch_search.service.http.middleware import MAX_BYTES, MAX_PARAMETERS
from sketch_search.service.settings import Settings
from tests.benchmarks.results import soak
from tests.pictures import ODD_FILES, OddFile, costly_drawings, drawing, encoded
from tests.programs import PATIENCE
from tests.service.served import SEARCH, Served, address, asked, connect, error, running, without_timings
from tests.service.small_gallery import MAX_UPLOAD, PHOTOS, draw_sketch


def test_server_or_query_set_the_variants(settings: Settings, http: httpx.Client, sketch: bytes, weights: Path) -> None:
    with asked(settings, variants=1) as once:
        best = set()
        for connection, params, variants in ((http, {}, MAX_VARIANTS), (once, {}, 1), (http, {"quality": "draft"}, 1)):
            if not params:
                assert connection.get("/info").json()["model"]["variants"] == variants
            matcher = model.load(weights, variants=variants)
            drawn = matcher.encode(matcher.prepare(draw_sketch(), "sketch")[None], "sketch")
            found = connection.post("/search", content=sketch, params={"method": "ret", **params}).json()["results"][0]
            photo = matcher.open(connection.get(found["photo_url"]).content, "photo")
            shown = matcher.encode(matcher.prepare(photo, "photo")[None], "photo")
            assert found["raw_score"] == pytest.approx(matcher.scores(drawn, shown, "ret").item(), abs=1e-3)
            best.add(round(found["raw_score"], 3))
    assert len(best) == 2


@pytest.mark.parametrize(
    "params",
    [{"k": 10}, {"k": 10, "fold": "true"}, {"k": 10, "after": "1990-01-01"}, {"k": 10, "nprobe": "all", "offset": 3}],
)
def test_next_brings_every_photo_and_ends(http: httpx.Client, sketch: bytes, params: dict[str, Any]) -> None:
    body = None if "after" in params else sketch
    answers = [http.post("/search", content=body, params=params).json()]
    while (following := answers[-1]["next"]) is not None:
        following_page = {name: value for name, value in params.items() if name != "offset"} | {"next": following}
        answers.append(http.post("/search", content=body, params=following_page).json())
    seen = [photo for answer in answers for one in answer["results"] for photo in (one["id"], *one.get("copies", []))]
    assert len(set(seen)) == PHOTOS - params.get("offset", 0)
    assert len(set(seen)) == len(seen)
    assert len(answers) <= 8


def test_next_brings_every_group_once(http: httpx.Client, sketch: bytes) -> None:
    params: dict[str, Any] = {"view": "groups", "k": 4}
    whole = http.post("/search", content=sketch, params={**params, "k": 50}).json()["groups"]
    seen, answer = list[Any](), {"next": "0.0.0.0"}
    while answer["next"] is not None:
        answer = http.post("/search", content=sketch, params={**params, "next": answer["next"]}).json()
        seen += answer["groups"]
    assert seen == whole


MANY = "&".join(["like=1"] * 20 + ["unlike=2"] * 13)
EMPTY = ("/search", "/search?unlike=1", "/search?k=3", "/search?kind=photo")
NOTHING = "send a sketch, or "
TWICE = "The parameter k is given 2 times; give it only once."
FOLDER = "folder must be the path of a folder as results show it"


@pytest.mark.parametrize(
    ("path", "query", "sentence"),
    [
        ("/search", "k=many", "k must be a whole number, not 'many'."),
        ("/search", "k=51", "k must be at most 50, not 51; use offset for the next page."),
        ("/search", "k=0&nprobe=0", "k must be at least 1, not 0; nprobe must be at least 1 or 'all', not 0."),
        ("/search", "method=fused", "This checkpoint has no method 'fused'; it has auto, rn, ret."),
        ("/search", "k=", "k must be a whole number; it is empty."),
        *(("/search", query, TWICE) for query in ("k=3&k=4", "k=3&offset=1&k=3", "k=&k=3")),
        ("/search", "k=%EF%BC%93", "k must be a whole number, not '３'."),
        ("/search", f"k=1{'0' * 5000}", f"k must be a smaller number, not '1{'0' * 39}\N{HORIZONTAL ELLIPSIS}'."),
        ("/search", f"offset={2**40}", "offset must be at most 2147483648, not 1099511627776."),
        ("/search", "nprobe=some", "nprobe must be a whole number or 'all', not 'some'."),
        ("/search", "quality=super", "quality must be 'fast', 'good', 'best' or 'draft', not 'super'."),
        ("/search", "view=all", "view must be 'photos', 'groups' or 'auto', not 'all'."),
        ("/search", "fold=maybe", "fold must be yes or no, not 'maybe'."),
        ("/search", f"method={'x' * 99}", f"method must be at most 32 characters long, not '{'x' * 40}\u2026'."),
        ("/search", "before=2023-02-30", "before must be a day such as 2023-12-31, not '2023-02-30'."),
        ("/search", "after=0001-01-01", "after must be at least 1826-01-01, not '0001-01-01'."),
        ("/search", "before=9999-12-31", "before must be at most 2200-12-31, not '9999-12-31'."),
        ("/search", "after=2023-02-01&before=2023-01-31", "after, 2023-02-01, must not be later than before, 2023-01"),
        *(("/search", query, FOLDER) for query in ("folder=", "folder=/etc", "folder=2023&folder=../x")),
        ("/search", "folder=nowhere", "No indexed photo is below the folder 'nowhere'; write it as results show paths"),
        ("/search", f"folder={'x' * 4097}", "folder must be at most 4096 characters long, not 'xxx"),
        ("/search", "kind=photo&method=rn", "method=rn compares tokens of a single drawing"),
        ("/search", "kind=drawing", "kind must be 'sketch' or 'photo', not 'drawing'."),
        ("/search", "offset=3&next=0.0.0.0", "next goes on where an answer ended: leave out offset."),
        ("/search", "like=1&unlike=4&unlike=1", "like and unlike name the same photo, 1: leave one of"),
        ("/search", MANY, "like and unlike must be given at most 32 times together, not 33 times."),
        ("/search", "like=%D9%A1", "like must be a number of digits only, not"),
        ("/search", f"like={2**63}", "like must be at most 9223372036854775807"),
        ("/explain", "", "photo must be given."),
        ("/explain", "photo=-1", "photo must be a number of digits only, not -1."),
        ("/explain", "&".join(["photo=1"] * 13), "photo must be given at most 12 times."),
        ("/explain", "photo=1&nearest=99", "nearest must be at most 20, not 99."),
    ],
    ids=lambda value: value[:24],
)
def test_errors_are_plain_sentences(http: httpx.Client, sketch: bytes, path: str, query: str, sentence: str) -> None:
    assert error(http.post(f"{path}?{query}", content=sketch), sentence) == (422, "bad_parameter")


@pytest.mark.parametrize(
    ("path", "known"),
    [
        (
            "/search",
            "k, offset, next, system, quality, nprobe, method, min_score, view, fold, "
            "like, unlike, unlike_kind, text, thing_text, kind, things, places, colours, writing, page, turn, "
            "folder, after, before",
        ),
        ("/clusters/1", "k, offset"),
        ("/words", "prefix, limit"),
    ],
)
def test_an_unknown_parameter_names_the_known_ones(http: httpx.Client, sketch: bytes, path: str, known: str) -> None:
    method, body = ("POST", sketch) if path == "/search" else ("GET", None)
    for name in ("n_probe", "K", "file[]", "größe"):
        answer = http.request(method, path, content=body, params={name: "3"})
        assert error(answer, f"Unknown parameter '{name}'; valid ones are {known}.") == (422, "bad_parameter")


def test_a_query_that_cannot_be_compared_is_refused_with_its_reason(http: httpx.Client, sketch: bytes) -> None:
    blank = encoded(Image.new("RGB", (64, 64), "white"))
    for path, body, refused, words in (
        *((path, b"", (422, "bad_parameter"), NOTHING) for path in EMPTY),
        *(("/search?like=1000", body, (404, "not_found"), "1000") for body in (b"", sketch)),
        *((path, blank, (422, "blank_sketch"), "blank") for path in ("/search", "/explain?photo=1", "/locate?photo=1")),
        ("/explain?photo=999999", sketch, (404, "not_found"), "999999"),
        ("/explain?photo=1", b"", (422, "bad_parameter"), "like"),
        ("/explain?photo=1&like=2", sketch, (422, "bad_parameter"), "like"),
        ("/locate?photo=1&like=2", sketch, (422, "bad_parameter"), "like"),
        ("/explain?photo=1&like=2&like=3", b"", (422, "bad_parameter"), "like"),
        ("/explain?photo=1&like=99999", b"", (404, "not_found"), "99999"),
    ):
        assert error(http.post(path, content=body), words) == refused


def test_a_photo_as_query_may_be_blank_for_a_sketch(http: httpx.Client) -> None:
    white = encoded(Image.new("RGB", (64, 64), "white"))
    assert http.post("/search", content=white, params={"kind": "photo"}).status_code == 200


def test_parallel_searches_answer_like_sequential_ones(http: httpx.Client) -> None:
    def search(seed: int) -> dict[str, Any]:
        return without_timings(http.post("/search", content=encoded(draw_sketch(seed)), params={"k": 8}))

    seeds = [seed % 6 for seed in range(16)]
    in_turn = {seed: search(seed) for seed in set(seeds)}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(search, seeds)) == [in_turn[seed] for seed in seeds]


PATHS = ["/thumbnails/1", "/clusters/1", "/photos", "/photos/1", "/info", "/healthz", "/openapi.json"]


@pytest.mark.parametrize("path", [*PATHS, "/", "/page/main.js", "/no/such"])
def test_a_query_of_many_names_is_not_read(http: httpx.Client, path: str) -> None:
    names = [f"{number:x}" for number in range(12_000)]
    many, too_many = ("&".join(names[:count]) for count in (MAX_PARAMETERS, MAX_PARAMETERS + 1))
    for query in (too_many, "&" * MAX_PARAMETERS, "&".join(names), "size=" + "1" * MAX_BYTES):
        assert error(http.get(f"{path}?{query}"), "the limit is") == (422, "bad_parameter")
    at_the_limit = http.post(f"/search?{many}")
    assert at_the_limit.json()["error"]["message"].startswith("Unknown parameter '0'")
    assert http.get("/healthz?" + "x" * MAX_BYTES).status_code == 200


def test_the_content_type_of_a_raw_body_does_not_matter(http: httpx.Client, sketch: bytes) -> None:
    plain = without_timings(http.post("/search", content=sketch))
    for kind in ("application/x-www-form-urlencoded", "image/jpeg", "text/html; charset=utf-8", "application/json"):
        assert without_timings(http.post("/search", content=sketch, headers={"content-type": kind})) == plain


def test_a_sketch_may_come_as_text(http: httpx.Client, sketch: bytes) -> None:
    expected = without_timings(http.post("/search", content=sketch).json())
    plain = base64.b64encode(sketch)
    url = b"data:image/png;base64," + plain
    lines = b"\n".join(plain[at : at + 76] for at in range(0, len(plain), 76))
    for body in (plain, url, base64.urlsafe_b64encode(sketch), lines, json.dumps({"image": url.decode()}).encode()):
        assert without_timings(http.post("/search", content=body).json()) == expected
    assert without_timings(http.post("/search", files={"file": url}).json()) == expected
    for wrong in ({"image": plain.decode(), "k": 3}, {}, [1], {"image": [1]}):
        answer = http.post("/search", json=wrong)
        assert answer.status_code == 422
        assert "put parameters into the query" in answer.json()["error"]["message"]
    for body in (b"{not JSON", b"data:image/png;base64,????", b"data:nothing", b"A" * 999):
        assert http.post("/search", content=body).status_code == 415


@pytest.mark.parametrize("odd", ODD_FILES, ids=lambda odd: odd.name)
def test_every_odd_file_is_answered_as_it_should_be(http: httpx.Client, odd: OddFile) -> None:
    answer = http.post("/search", content=odd.data, params={"method": "ret", "k": 1})
    assert answer.status_code == odd.as_sketch, answer.text
    if answer.status_code != 200:
        codes = {400: "undecodable_image", 413: "too_many_pixels", 415: "unsupported_image", 422: "blank_sketch"}
        assert error(answer) == (odd.as_sketch, codes[odd.as_sketch] if odd.data else "bad_parameter")


BOUNDARY, UNDECODABLE = "; boundary=b", (400, "undecodable_upload")


def part(disposition: str, content: str) -> bytes:
    return f"--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n--b--\r\n".encode()


@pytest.mark.parametrize(
    ("parameters", "body", "expected"),
    [
        *(
            (f"; charset=idna{wrong}", part('name="file"; filename="a.png"', "x"), UNDECODABLE)
            for wrong in ("", ";" * 50_000, "; boundary=", f"; boundary={'b' * 300}", '; boundary="b')
        ),
        (BOUNDARY, part('filename="a.png"', "x"), UNDECODABLE),
        (BOUNDARY, b"--b\r\nno end", UNDECODABLE),
        (BOUNDARY, part('name="file"; filename="a.png"', "x")[:-9], UNDECODABLE),
        (BOUNDARY, b"--b--\r\n", (422, "bad_parameter")),
        (BOUNDARY, part('name="file"; filename="a.png"', ""), (422, "bad_parameter")),
    ],
    ids=range(10),
)
def test_a_broken_form_is_refused(http: httpx.Client, parameters: str, body: bytes, expected: tuple[int, str]) -> None:
    answer = http.post("/search", content=body, headers={"content-type": f"multipart/form-data{parameters}"})
    assert error(answer) == expected


@pytest.mark.parametrize("name", ["filename*=UTF-8''%E7%8C%AB.png", 'filename=""', "", 'filename="a"; filename*=b'])
def test_a_file_of_a_form_may_have_any_name_or_none(http: httpx.Client, sketch: bytes, name: str) -> None:
    head, _, tail = part(f'name="file"; {name}', "\0").partition(b"\0")
    kind = {"content-type": f"multipart/form-data{BOUNDARY}"}
    answer = http.post("/search", content=head + sketch + tail, headers=kind)
    assert without_timings(answer) == without_timings(http.post("/search", content=sketch))


def test_a_part_that_is_no_sketch_is_refused_before_its_data_come(server: Served) -> None:
    head = part('name="mask"; filename="a.png"', "\0").partition(b"\0")[0]
    kind = b"Content-Type: multipart/form-data; boundary=b\r\n"
    with connect(server) as connection:
        connection.sendall(SEARCH + kind + b"Content-Length: 5000\r\n\r\n" + head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 422 ")


@pytest.mark.parametrize("path", ["/search", "/explain?photo=1"])
def test_a_part_of_a_form_that_would_be_ignored_is_refused(http: httpx.Client, sketch: bytes, path: str) -> None:
    for answer, told in (
        (http.post(path, files={"file": sketch}, data={"nprobe": "all"}), "an unknown part 'nprobe'"),
        (http.post(path, files={"file": sketch, "mask": sketch}), "an unknown part 'mask'"),
        (http.post(path, files=[("file", sketch)] * 9), "more than 8 fields"),
        (http.post(path, data={"file": "x"}, files={"mask": sketch}), "an unknown part 'mask'"),
    ):
        assert error(answer, told) == (422, "bad_parameter")


def test_strokes_of_a_form_must_fit_one_drawing_and_be_as_documented(http: httpx.Client, sketch: bytes) -> None:
    def asked(strokes: str, count: int = 1, **params: str) -> httpx.Response:
        files = [("file", sketch)] * count
        return http.post("/search", data={"strokes": strokes}, files=files, params=params)

    strokes = json.dumps([{"points": [[0.1, 0.2], [0.3, 0.4]], "width": 0.02}, {"points": [[0.5, 0.5]], "thing": 3}])
    assert asked(strokes).status_code == 200
    assert error(asked(strokes, 2), "Strokes are those of one drawing") == (422, "bad_parameter")
    assert error(asked(strokes, kind="photo"), "without kind=photo") == (422, "bad_parameter")
    for damaged, said in (
        ("[", "strokes cannot be read"),
        ('[{"points": []}]', "strokes[0]['points'] cannot be read"),
        ('[{"points": [[9, 9]]}]', "strokes[0]['points'][0][0] cannot be read"),
    ):
        assert error(asked(damaged), said) == (422, "bad_parameter")
    for many in ([{"points": [[0, 0]] * 60_000}] * 2, [{"points": [0] * 300_002}]):
        with pytest.raises(MalformedSketch, match="more than 100,000 points"):
            read_strokes(json.dumps(many).encode())


def test_as_many_bytes_as_allowed_are_read_and_more_are_refused_as_they_arrive(http: httpx.Client) -> None:
    for allowed in ({"content": bytes(MAX_UPLOAD)}, {"files": {"file": bytes(MAX_UPLOAD)}}):
        assert error(http.post("/search", **allowed)) == (415, "unsupported_image")
    endless = (bytes(10_000) for _ in range(100))
    for too_many in ({"content": endless}, {"files": {"file": bytes(MAX_UPLOAD + 1)}}):
        assert error(http.post("/search", **too_many)) == (413, "too_many_bytes")


def test_writing_beside_a_drawing_counts_on_demand_and_a_page_can_be_named(http: httpx.Client) -> None:
    sheet = Image.new("RGB", (700, 900), "white")
    sheet.paste(draw_sketch().resize((320, 320)), (40, 40))
    for line in range(5):
        ImageDraw.Draw(sheet).text((60, 500 + 40 * line), "and then we went on", "black", ImageFont.load_default(26))
    without, all_ink = (
        http.post("/search", content=encoded(sheet), params=params).json() for params in ({}, {"writing": "yes"})
    )
    ((left, top, right, bottom),) = without["left_out"]
    assert left < 0.1 < right < 0.6
    assert 0.5 < top < 0.6 < 0.7 < bottom < 0.8
    assert "left_out" not in all_ink
    assert "page" not in without
    pages = encoded(Image.new("RGB", (300, 300), "white"), "TIFF", save_all=True, append_images=[draw_sketch()])
    assert http.post("/search", content=pages).json()["page"] == 2
    assert error(http.post("/search", content=pages, params={"page": 1}))[0] == 422
    assert error(http.post("/search", content=pages, params={"page": 3}), "has 2 pages") == (415, "unsupported_image")
    answer = http.post("/explain", content=pages, params={"page": 2, "photo": 1, "writing": "yes"})
    assert answer.status_code == 200


def test_a_picture_that_lies_on_its_side_is_turned_on_demand(http: httpx.Client) -> None:
    def found(sketch: Image.Image, path: str = "/search", **params: str | int) -> list[tuple[int, float]]:
        answer = http.post(path, content=encoded(sketch), params={"k": 5, **params}).raise_for_status().json()
        return [(result["id"], result["raw_score"]) for result in answer["results"]]

    sketch = draw_sketch().resize((300, 200))
    upright, lying = found(sketch), sketch.rotate(90, expand=True)
    assert found(lying, turn=90) == upright
    assert found(lying) != upright
    assert found(sketch.rotate(180), turn=180, kind="photo") == found(sketch, kind="photo")
    assert error(http.post("/search?turn=45", content=encoded(sketch)), "turn") == (422, "bad_parameter")


# The first 1,024 bytes, as SECURITY.md says.
BEGINNING = 1024
# Strokes that were forged are passed over.
REFUSED = {200, 400, 415, 422}
# What a request may add to the memory of the server's own process.
MOST_MEMORY = 100 << 20
# And of its CPU time.
MOST_SECONDS = 3


def filled(begin: bytes, unit: bytes, end: bytes = b"") -> Callable[[int], bytes]:
    return lambda size: begin + unit * ((size - len(begin) - len(end)) // len(unit)) + end


def forged(size: int) -> bytes:
    """A PNG with strokes in a text chunk, as the page saves them, whose sums are right."""
    png, last = encoded(drawing("star", 64))[:-12], encoded(drawing("star", 64))[-12:]
    text = b"iTXtsketch-search\0\0\0\0\0%d\n" % zlib.crc32(png) + filled(b'[{"points":[', b"[],", b"[]]}]\n")(
        size - 600
    )
    return png + struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text)) + last


#: The raw bodies that take most of what reads them, by name, each of so many bytes.
BODIES: dict[str, Callable[[int], bytes]] = {
    "a document type of comments": filled(b"<!DOCTYPE a[", b"<!--x>"),
    "comments": filled(b"", b"<!---->"),
    "percent signs": filled(b"data:,", b"%"),
    "no percent-encoding": filled(b"data:,", b"%zz"),
    "base64 with spaces": filled(b"A" * 64, b"A "),
    "a data URL with spaces": filled(b"data:;base64,", b"A%20"),
    "JSON of keys": lambda size: json.dumps({f"{key:08}": 0 for key in range(size // 15)}).encode(),
    "JSON of lists": filled(b"[", b"[],", b"[]]"),
    "JSON of a text": filled(b'{"image":"', b"\\u00e4", b'"}'),
    "an SVG of elements": filled(b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1">', b"<g/>", b"</svg>"),
    "an SVG of attributes": filled(b'<svg viewBox="0 0 1 1" width="', b"1", b'x"/>'),
    "forged strokes": forged,
    "a GIF of nothing": filled(b"GIF89a\xff\xff\xff\xff\xf7\0\0", b"\0"),
}
#: The fields ``strokes``, too.
STROKES: dict[str, Callable[[int], bytes]] = {
    "no points": filled(b"[", b"[],", b"[]]"),
    "empty points": filled(b'[{"points":[', b"[],", b"[]]}]"),
    "keys": lambda size: json.dumps([{f"{key:08}": 0 for key in range(size // 15)}]).encode(),
    "digits": filled(b'[{"points":[[0.', b"1", b",0]]}]"),
    "too many points": filled(b'[{"points":[', b"[0,0],", b"[0,0]]}]"),
}


def requests(size: int, sketch: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, made in BODIES.items():
        yield name, {"content": made(size)}
    for name, made in STROKES.items():
        yield f"strokes: {name}", {"files": {"file": sketch}, "data": {"strokes": made(size - len(sketch) - 300)}}


def test_the_server_reads_the_head_of_a_body(server: Served, sketch: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[int]()

    def noted(function: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def noting(data: bytes) -> Any:
            seen.append(len(data))
            return function(data)

        return noting

    monkeypatch.setattr(files, "_known", noted(files._known))
    for module in (images, decoding):
        for name in ("picture_of_body", "read_strokes", "saved_strokes", "read_image_file"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, noted(getattr(module, name)))
    for name, request in requests(MAX_UPLOAD, sketch):
        answer = server.http.post("/search", **request)
        assert answer.status_code in REFUSED, (name, answer.text)
        assert max(seen, default=0) <= BEGINNING, name


@pytest.mark.parametrize(
    "bodies", [pytest.param(1, id="each"), pytest.param(6, marks=pytest.mark.soak, id="a hundred")]
)
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from /proc")
def test_no_body_takes_much_of_the_server(settings: Settings, sketch: bytes, tmp_path: Path, bodies: int) -> None:
    size = settings.max_upload_bytes if bodies == 1 else 10 << 20
    with (
        soak("Hostile bodies of the size limit, each by itself. The server's own process stays within 100 MiB") as run,
        running(settings, tmp_path / "log", SKETCH_SEARCH_MAX_UPLOAD_BYTES=str(size)) as process,
        httpx.Client(base_url=address(process), timeout=PATIENCE) as http,
    ):
        assert http.post("/search", content=sketch).status_code == 200
        for _ in range(bodies):
            for name, request in requests(size, sketch):
                with little_of(process, name) as took:
                    assert http.post("/search", **request).status_code in REFUSED, name
                run.times, run.grown_mib = run.times + 1, max(run.grown_mib or 0, took["VmHWM"] / 2**20)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from /proc")
def test_no_drawing_takes_much_of_the_server(default_settings: Settings, sketch: bytes, tmp_path: Path) -> None:
    with (
        running(default_settings, tmp_path / "log") as process,
        httpx.Client(base_url=address(process), timeout=PATIENCE) as http,
    ):
        assert http.post("/search", content=sketch).status_code == 200
        for name, (picture, strokes) in costly_drawings().items():
            with little_of(process, name):
                answer = http.post("/search", files={"file": picture}, data={"strokes": strokes} if strokes else None)
            assert answer.status_code == 200, answer.text
            assert len(answer.json().get("things", ())) <= MAX_THINGS


@contextmanager
def little_of(process: subprocess.Popen[str], name: str) -> Iterator[dict[str, int]]:
    """Checks that the block adds little to the memory of a process, and takes little of its time."""
    folder = Path(f"/proc/{process.pid}")

    def memory(key: str) -> int:
        (line,) = (one for one in (folder / "status").read_text().splitlines() if one.startswith(key))
        return int(line.split()[1]) << 10

    def seconds() -> float:
        user, system = (folder / "stat").read_bytes().rpartition(b")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    took, before, begun = dict[str, int](), memory("VmRSS"), seconds()
    # The peak starts anew.
    (folder / "clear_refs").write_text("5")
    yield took
    took["VmHWM"] = grown = memory("VmHWM") - before
    assert grown <= MOST_MEMORY, (name, grown >> 20)
    assert seconds() - begun <= MOST_SECONDS, name
