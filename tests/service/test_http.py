"""The HTTP API over a real connection: answers and refusals."""

from __future__ import annotations

import concurrent.futures
import io
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image
from pydantic import SecretStr

from indexer import Index
from service.app import create_app
from service.settings import Settings
from service.upload import MAX_PARTS
from tests.pictures import ODD_FILES, OddFile, drawing, encoded
from tests.service.conftest import CLUSTERS, MAX_UPLOAD, PHOTOS, Served, draw_photo, draw_sketch, served


def without_timings(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    del body["timings_ms"]
    return body


def error(answer: httpx.Response) -> tuple[int, str]:
    """Status and code, once the error has been found to look as promised."""
    assert set(answer.json()) == {"error"}
    detail = answer.json()["error"]
    assert set(detail) == {"code", "message", "request_id"}
    assert detail["message"]
    assert detail["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, detail["code"]


def plain_http(server: Served, request: bytes) -> bytes:
    """Send bytes that no HTTP library would, and read until the server closes."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port or 80), timeout=30) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


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


def test_the_content_type_of_a_raw_body_does_not_matter(http: httpx.Client, sketch: bytes) -> None:
    plain = without_timings(http.post("/search", content=sketch))
    for kind in ("application/x-www-form-urlencoded", "image/jpeg", "text/html; charset=utf-8", "application/json"):
        assert without_timings(http.post("/search", content=sketch, headers={"content-type": kind})) == plain


def test_a_form_is_answered_like_a_raw_body(http: httpx.Client, sketch: bytes) -> None:
    form = http.post("/search", files={"file": ("größe.png", sketch, "image/png")}, data={"note": "of a cat"})
    assert without_timings(form) == without_timings(http.post("/search", content=sketch))


@pytest.mark.parametrize("odd", ODD_FILES, ids=lambda odd: odd.name)
def test_every_odd_file_is_answered_as_it_should_be(http: httpx.Client, odd: OddFile) -> None:
    answer = http.post("/search", content=odd.data, params={"method": "ret", "k": 1})
    assert answer.status_code == odd.as_sketch, answer.text
    if answer.status_code != 200:
        codes = {400: "undecodable_image", 413: "too_many_pixels", 415: "unsupported_image", 422: "blank_sketch"}
        assert error(answer) == (odd.as_sketch, codes[odd.as_sketch])


def test_two_spellings_of_a_picture_are_one_sketch(http: httpx.Client) -> None:
    as_png = without_timings(http.post("/search", content=encoded(draw_sketch())))
    as_bmp = without_timings(http.post("/search", content=encoded(draw_sketch(), "BMP")))
    assert as_png == as_bmp


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": "0"},
        {"k": "51"},
        {"k": "many"},
        {"k": ""},
        {"k": "1e400"},
        {"offset": "-1"},
        {"offset": "9" * 30},
        {"nprobe": "0"},
        {"nprobe": "-3"},
        {"nprobe": "some"},
        {"nprobe": "ALL"},
        {"method": "clip"},
        {"method": "fused"},
        {"method": "x" * 5000},
        {"thin": "0"},
        {"method": "ret", "thin": "5"},
        {"budget_ms": "0"},
        {"budget_ms": "nan"},
        {"budget_ms": "inf"},
        {"n_probe": "3"},
    ],
    ids=lambda wrong: "&".join(f"{name}={value[:12]}" for name, value in wrong.items()),
)
def test_a_parameter_out_of_range_is_refused(http: httpx.Client, sketch: bytes, wrong: dict[str, str]) -> None:
    answer = http.post("/search", content=sketch, params=wrong)
    assert error(answer) == (422, "bad_parameter")
    assert len(answer.text) < 1000


def test_an_unknown_method_is_answered_with_the_known_ones(http: httpx.Client, sketch: bytes) -> None:
    answer = http.post("/search", content=sketch, params={"method": "fused"})
    assert "auto, rn, ret" in answer.json()["error"]["message"]


def test_pages_continue_the_ranking(http: httpx.Client, sketch: bytes) -> None:
    def page(**params: int) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = http.post("/search", content=sketch, params={"nprobe": "all", **params}).json()[
            "results"
        ]
        return results

    whole = page(k=PHOTOS)
    assert len(whole) == PHOTOS
    assert page(k=10) + page(k=10, offset=10) + page(k=10, offset=20) == whole
    assert page(k=10, offset=1000) == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"--b\r\nno end", (400, "undecodable_upload")),
        (b"", (400, "undecodable_upload")),
        (b"--b--\r\n", (422, "bad_parameter")),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--\r\n', (422, "bad_parameter")),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--b--\r\n', (422, "bad_parameter")),
        (
            b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\nx\r\n--b--\r\n',
            (422, "bad_parameter"),
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n\r\n--b--\r\n',
            (400, "undecodable_image"),
        ),
    ],
    ids=["cut short", "empty", "no part", "no file", "a text field", "another field", "an empty file"],
)
def test_a_broken_form_is_refused(http: httpx.Client, body: bytes, expected: tuple[int, str]) -> None:
    answer = http.post("/search", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert error(answer) == expected


def test_a_form_without_a_boundary_is_refused(http: httpx.Client, sketch: bytes) -> None:
    answer = http.post("/search", content=sketch, headers={"content-type": "multipart/form-data"})
    assert error(answer) == (400, "undecodable_upload")


def test_a_form_with_too_long_a_boundary_is_refused(http: httpx.Client, sketch: bytes) -> None:
    kind = f"multipart/form-data; boundary={'b' * 257}"
    answer = http.post("/search", files={"file": sketch}, headers={"content-type": kind})
    assert error(answer) == (400, "undecodable_upload")


def test_a_form_has_a_limited_number_of_parts(http: httpx.Client, sketch: bytes) -> None:
    def answered(parts: int) -> httpx.Response:
        notes = {f"note {number}": "of a cat" for number in range(parts - 1)}
        return http.post("/search", files={"file": sketch}, data=notes)

    assert answered(MAX_PARTS).status_code == 200
    assert error(answered(MAX_PARTS + 1)) == (400, "undecodable_upload")
    assert error(http.post("/search", files=[("other", sketch)] * 20)) == (400, "undecodable_upload")


def test_too_many_bytes_are_refused_by_what_the_request_announces(server: Served) -> None:
    # Nothing follows the header: the answer must not wait for it.
    request = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    assert plain_http(server, request % (MAX_UPLOAD + 1)).startswith(b"HTTP/1.1 413 ")


def test_too_many_bytes_are_refused_as_they_arrive(http: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(10_000)

    answer = http.post("/search", content=endless())
    assert "content-length" not in answer.request.headers
    assert error(answer) == (413, "too_many_bytes")


@pytest.mark.parametrize("size", [MAX_UPLOAD + 1, MAX_UPLOAD + 50_000, 4 * MAX_UPLOAD])
def test_too_many_bytes_in_a_form_are_refused(http: httpx.Client, size: int) -> None:
    answer = http.post("/search", files={"file": bytes(size)})
    assert error(answer) == (413, "too_many_bytes")


def test_as_many_bytes_as_allowed_are_read(http: httpx.Client) -> None:
    assert error(http.post("/search", content=bytes(MAX_UPLOAD))) == (415, "unsupported_image")
    assert error(http.post("/search", files={"file": bytes(MAX_UPLOAD)})) == (415, "unsupported_image")


def test_too_many_pixels_are_refused(http: httpx.Client) -> None:
    answer = http.post("/search", content=encoded(drawing("star", size=1001)))
    assert error(answer) == (413, "too_many_pixels")


@pytest.mark.parametrize("path", ["/photos", "/thumbnails"])
def test_a_photo_comes_with_an_etag_and_is_not_sent_twice(http: httpx.Client, path: str) -> None:
    first = http.get(f"{path}/1")
    assert first.status_code == 200
    assert first.headers["x-content-type-options"] == "nosniff"
    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = http.get(f"{path}/1", headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert http.get(f"{path}/1", headers={"if-none-match": '"other"'}).content == first.content


def test_an_original_is_sent_as_it_is(http: httpx.Client, index: Index, gallery: Path) -> None:
    for photo in (1, 7):
        answer = http.get(f"/photos/{photo}")
        assert answer.content == (gallery / index.photo(photo).paths[0]).read_bytes()
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["etag"] == f'"{index.photo(photo).content_hash}"'


def test_a_thumbnail_is_a_small_jpeg(http: httpx.Client) -> None:
    answer = http.get("/thumbnails/3", params={"size": 32})
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.size) == ("JPEG", (32, 32))
    with Image.open(io.BytesIO(http.get("/thumbnails/3").content)) as image:
        assert image.size == (96, 96)
    assert answer.headers["etag"] != http.get("/thumbnails/3").headers["etag"]
    assert error(http.get("/thumbnails/3", params={"size": 100_000})) == (422, "bad_parameter")


def test_equal_files_are_one_photo_under_each_of_their_ids(http: httpx.Client, index: Index) -> None:
    shared = next(
        photo
        for cluster in range(CLUSTERS)
        for photo in index.cluster_ret(cluster)[0].tolist()
        if len(index.photo(photo).paths) == 3
    )
    results = http.post("/search", content=encoded(draw_sketch()), params={"k": PHOTOS, "nprobe": "all"}).json()[
        "results"
    ]
    found = [result for result in results if "again.png" in result["paths"]]
    assert [result["id"] for result in found] == [shared]
    assert sorted(found[0]["paths"]) == ["again.png", "größe/p00.png", "once more.png"]


def test_the_clusters_hold_every_photo_once(http: httpx.Client) -> None:
    seen = []
    for cluster in range(CLUSTERS):
        body = http.get(f"/clusters/{cluster}", params={"k": 50}).json()
        assert len(body["photos"]) == body["size"]
        ids = [photo["id"] for photo in body["photos"]]
        assert ids == sorted(ids)
        pages = [http.get(f"/clusters/{cluster}", params={"k": 2, "offset": o}).json()["photos"] for o in (0, 2)]
        assert pages[0] + pages[1] == body["photos"][:4]
        seen += ids
    assert len(seen) == len(set(seen)) == PHOTOS
    assert error(http.get("/clusters/0", params={"k": 51})) == (422, "bad_parameter")


def test_a_page_of_a_cluster_comes_with_an_etag_and_is_not_sent_twice(http: httpx.Client) -> None:
    first = http.get("/clusters/1", params={"k": 2})
    known = {"if-none-match": first.headers["etag"]}
    again = http.get("/clusters/1", params={"k": 2}, headers=known)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    for path in ("/clusters/1", "/clusters/1?k=3", "/clusters/1?k=2&offset=1", "/clusters/2?k=2"):
        assert http.get(path, headers=known).status_code == 200
    assert error(http.get(f"/clusters/{CLUSTERS}", headers={"if-none-match": "*"})) == (404, "not_found")


@pytest.mark.parametrize(
    "path",
    [
        "/photos/0",
        "/photos/1000",
        "/thumbnails/1000",
        f"/clusters/{CLUSTERS}",
        "/photos/-1",
        "/clusters/-1",
        "/photos/abc",
        "/photos/" + "9" * 20,
        "/photos/" + "9" * 5000,
        "/photos/",
        "/photos",
        "/photos/../../etc/passwd",
        "/photos/%2e%2e/%2e%2e/etc/passwd",
        "/photos/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/photos/1/../../etc/passwd",
        "/photos/..%5c..%5cetc",
        "/photos/1%00.png",
        "/photos//etc/passwd",
        "/thumbnails/p00.png",
        "/search/",
        "/docs",
        "/no/such/path",
    ],
)
def test_what_is_not_there_is_not_found(server: Served, path: str) -> None:
    # Sent as written: an HTTP library would tidy the path up first.
    answer = plain_http(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b'"code":"not_found"' in body
    assert b"x-request-id" in head.lower()


@pytest.mark.parametrize(("verb", "path"), [("GET", "/search"), ("POST", "/photos/1"), ("DELETE", "/info")])
def test_another_verb_is_refused(http: httpx.Client, verb: str, path: str) -> None:
    answer = http.request(verb, path)
    assert error(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"]


def test_a_photo_that_is_gone_or_changed_is_not_found(
    settings: Settings, gallery: Path, tmp_path: Path, index: Index, sketch: bytes
) -> None:
    # Another, almost empty copy of the gallery, which the root is remapped to.
    for photo, content in [(3, b"no longer a picture"), (4, encoded(draw_photo(100))), (5, None)]:
        path = index.photo(photo).paths[0]
        (tmp_path / "moved" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "moved" / path).write_bytes((gallery / path).read_bytes() if content is None else content)
    with (
        served(settings.model_copy(update={"gallery": (tmp_path / "moved",)})) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        for photo in (1, 3, 4):
            for path in (f"/photos/{photo}", f"/thumbnails/{photo}"):
                answer = http.get(path)
                assert error(answer) == (404, "photo_unavailable")
                assert "python -m indexer build" in answer.json()["error"]["message"]
        for path in ("/photos/5", "/thumbnails/5"):
            assert http.get(path).status_code == 200
        assert http.post("/search", content=sketch).status_code == 200


def test_every_answer_carries_a_request_id(http: httpx.Client) -> None:
    assert http.get("/healthz", headers={"x-request-id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for bad in ("a b", "x" * 65, "<script>", "a;b"):
        given = http.get("/healthz", headers={"x-request-id": bad}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", given)
    assert error(http.get("/nowhere", headers={"x-request-id": "mine"})) == (404, "not_found")


def test_info_tells_what_is_loaded(http: httpx.Client, index: Index, settings: Settings) -> None:
    body = http.get("/info").json()
    assert body["ready"] is True
    assert body["reason"] is None
    assert body["model"]["methods"] == ["rn", "ret"]
    assert body["model"]["checkpoint_sha256"] == index.manifest.checkpoint_sha256
    assert (body["index"]["photos"], body["index"]["clusters"]) == (PHOTOS, CLUSTERS)
    assert body["index"]["generation"] == index.generation
    assert body["build"]["phase"] == "done"
    assert body["limits"]["max_upload_bytes"] == settings.max_upload_bytes


def test_a_running_service_is_alive_and_ready(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready"}


def test_parallel_searches_answer_like_sequential_ones(server: Served) -> None:
    def search(seed: int) -> dict[str, Any]:
        content = encoded(draw_sketch(seed))
        return without_timings(httpx.post(f"{server.url}/search", content=content, params={"k": 8}, timeout=60))

    seeds = [seed % 6 for seed in range(16)]
    in_turn = {seed: search(seed) for seed in set(seeds)}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(search, seeds)) == [in_turn[seed] for seed in seeds]


def test_a_failing_request_leaves_the_others_alone(server: Served, sketch: bytes) -> None:
    def post(body: bytes) -> int:
        return httpx.post(f"{server.url}/search", content=body, timeout=60).status_code

    bodies = [sketch, b"", sketch, b"text", sketch, encoded(Image.new("RGB", (9, 9), "white"))] * 2
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(post, bodies)) == [200, 400, 200, 415, 200, 422] * 2


@pytest.mark.parametrize("header", [{"x-api-key": "schlüssel"}, {"authorization": "Bearer schlüssel"}])
def test_with_an_api_key_only_those_who_have_it_are_answered(
    settings: Settings, sketch: bytes, header: dict[str, str]
) -> None:
    sent = httpx.Headers(header, encoding="utf-8")
    with (
        served(settings.model_copy(update={"api_key": SecretStr("schlüssel")})) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 200
        for path in ("/info", "/photos/1", "/thumbnails/1", "/clusters/1", "/photos/1000"):
            answer = http.get(path)
            assert error(answer) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert error(http.get(path, headers={"x-api-key": "wrong"})) == (401, "unauthorized")
            assert error(http.get(path, headers={"authorization": "Bearer wrong"})) == (401, "unauthorized")
        assert error(http.post("/search", content=sketch, params={"k": "0"})) == (401, "unauthorized")
        assert http.get("/photos/1", headers=sent).status_code == 200
        assert http.post("/search", content=sketch, headers=sent).status_code == 200


def test_originals_are_kept_back_where_the_settings_say_so(settings: Settings, sketch: bytes) -> None:
    with (
        served(settings.model_copy(update={"serve_originals": False})) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        assert error(http.get("/photos/1")) == (404, "not_found")
        assert http.get("/thumbnails/1").status_code == 200
        results = http.post("/search", content=sketch).json()["results"]
        assert {result["photo_url"] for result in results} == {None}


def test_other_web_origins_are_let_in_only_when_named(settings: Settings, http: httpx.Client) -> None:
    origin = {"origin": "https://a.example"}
    assert "access-control-allow-origin" not in http.get("/healthz", headers=origin).headers
    with served(settings.model_copy(update={"cors_origins": ("https://a.example",)})) as server:
        answer = httpx.get(f"{server.url}/nowhere", headers=origin)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        other = httpx.get(f"{server.url}/healthz", headers={"origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("path", ["/", "/healthz", "/info", "/photos/1", "/no/such/path"])
def test_only_known_hosts_are_answered(http: httpx.Client, path: str) -> None:
    for host in ("attacker.example", "127.0.0.1.attacker.example", "localhost.attacker.example:8000", "a b", ""):
        assert error(http.get(path, headers={"host": host})) == (400, "bad_host")
    for host in ("localhost", "LocalHost:8000", "[::1]:8000", "127.0.0.1"):
        assert http.get(path, headers={"host": host}).status_code == http.get(path).status_code


def test_hosts_can_be_named(settings: Settings) -> None:
    with served(settings.model_copy(update={"allowed_hosts": ("photos.example", "*.local")})) as server:
        for host, status in [("photos.example", 200), ("a.local:80", 200), ("localhost", 400), ("b.example", 400)]:
            assert httpx.get(f"{server.url}/healthz", headers={"host": host}).status_code == status


def test_a_failure_inside_says_only_its_request_id(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    app: FastAPI = create_app(settings)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("a secret from the inside")

    with served(settings, app) as server:
        answer = httpx.get(f"{server.url}/broken")
        assert error(answer) == (500, "internal_error")
        assert "secret" not in answer.text
        assert httpx.get(f"{server.url}/healthz").status_code == 200
    assert answer.headers["x-request-id"] in caplog.text
    assert "a secret from the inside" in caplog.text
