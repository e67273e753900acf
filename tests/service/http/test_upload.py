from collections.abc import Iterator

import httpx
import pytest

from service.settings import Settings
from tests.bombs import scan_bomb
from tests.pictures import ODD_FILES, OddFile
from tests.service.served import Served, asked
from tests.service.small_gallery import MAX_UPLOAD
from tests.service.talk import error, plain_http, without_timings


def test_the_content_type_of_a_raw_body_does_not_matter(http: httpx.Client, sketch: bytes) -> None:
    plain = without_timings(http.post("/search", content=sketch))
    for kind in ("application/x-www-form-urlencoded", "image/jpeg", "text/html; charset=utf-8", "application/json"):
        assert without_timings(http.post("/search", content=sketch, headers={"content-type": kind})) == plain


@pytest.mark.parametrize("odd", ODD_FILES, ids=lambda odd: odd.name)
def test_every_odd_file_is_answered_as_it_should_be(http: httpx.Client, odd: OddFile) -> None:
    answer = http.post("/search", content=odd.data, params={"method": "ret", "k": 1})
    assert answer.status_code == odd.as_sketch, answer.text
    if answer.status_code != 200:
        codes = {400: "undecodable_image", 413: "too_many_pixels", 415: "unsupported_image", 422: "blank_sketch"}
        assert error(answer) == (odd.as_sketch, codes[odd.as_sketch] if odd.data else "bad_parameter")


def part(disposition: str, content: str) -> bytes:
    return f"--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n--b--\r\n".encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"--b\r\nno end", (400, "undecodable_upload")),
        (part('name="file"; filename="a.png"', "x")[:-9], (400, "undecodable_upload")),
        (b"--b--\r\n", (422, "bad_parameter")),
        (part('name="a"', "x"), (422, "bad_parameter")),
        (part('name="file"', "text"), (422, "bad_parameter")),
        (part('name="photo"; filename="a.png"', "x"), (422, "bad_parameter")),
        (part('name="file"; filename="a.png"', ""), (422, "bad_parameter")),
    ],
    ids=range(7),
)
def test_a_broken_form_is_refused(http: httpx.Client, body: bytes, expected: tuple[int, str]) -> None:
    answer = http.post("/search", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert error(answer) == expected


@pytest.mark.parametrize("parameters", ["", ";" * 50_000], ids=["none", "endless"])
def test_a_form_without_a_boundary_that_can_be_used_is_refused(
    http: httpx.Client, sketch: bytes, parameters: str
) -> None:
    answer = http.post("/search", files={"file": sketch}, headers={"content-type": f"multipart/form-data{parameters}"})
    assert error(answer) == (400, "undecodable_upload")


@pytest.mark.parametrize("path", ["/search", "/explain?photo=1"])
def test_a_part_of_a_form_that_would_be_ignored_is_refused(http: httpx.Client, sketch: bytes, path: str) -> None:
    for answer, told in (
        (http.post(path, files={"file": sketch}, data={"nprobe": "all"}), "an unknown part 'nprobe'"),
        (http.post(path, files={"file": sketch, "mask": sketch}), "an unknown part 'mask'"),
        (http.post(path, files=[("file", sketch), ("file", sketch)]), "a second field 'file'"),
        (http.post(path, data={"file": "x"}, files={"mask": sketch}), "no upload in its field 'file'"),
    ):
        assert error(answer) == (422, "bad_parameter")
        assert told in answer.json()["error"]["message"]


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


def test_too_many_bytes_in_a_form_are_refused(http: httpx.Client) -> None:
    assert error(http.post("/search", files={"file": bytes(MAX_UPLOAD + 1)})) == (413, "too_many_bytes")


def test_as_many_bytes_as_allowed_are_read(http: httpx.Client) -> None:
    assert error(http.post("/search", content=bytes(MAX_UPLOAD))) == (415, "unsupported_image")
    assert error(http.post("/search", files={"file": bytes(MAX_UPLOAD)})) == (415, "unsupported_image")


def test_a_form_with_many_parts_is_refused_for_them(http: httpx.Client, sketch: bytes) -> None:
    for form in ([("file", sketch)] * 5, [(f"part{number}", b"x") for number in range(5)]):
        answer = http.post("/search", files=form)
        assert error(answer) == (422, "bad_parameter")
        assert "send one sketch" in answer.json()["error"]["message"]
    answer = http.post("/search", data={f"field{number}": "x" for number in range(5)}, files={"file": sketch})
    assert error(answer) == (422, "bad_parameter")


def test_a_bomb_is_refused_with_a_sentence(settings: Settings) -> None:
    limits = {"max_pixels": 8_000_000, "max_upload_bytes": 10 << 20}
    with asked(settings.model_copy(update=limits)) as http:
        answer = http.post("/search", content=scan_bomb(side=2_800))
    assert error(answer) == (422, "costly_image")
    assert "CPU seconds; save it anew, or smaller" in answer.json()["error"]["message"]
