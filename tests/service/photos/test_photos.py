import hashlib
import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import ExifTags, Image

from sketch_search import Gallery, model
from sketch_search.indexer import BuildRequest, Index, build
from sketch_search.model import Matcher
from sketch_search.service.gallery import ThumbnailCache, thumbnail
from sketch_search.service.http.files import file_names
from sketch_search.service.settings import Settings
from tests.indexer.remote.servers import webdav
from tests.pictures import drawing, encoded, oriented
from tests.programs import PATIENCE, family, peak, wait_until
from tests.requirements import leaves_sockets
from tests.service.served import Served, asked, error, plain_http, running
from tests.service.served import address as address_of
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_photo, draw_sketch

JPEG = b"\xff\xd8\xff\xd9"


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


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        *(("0-", slice(0, None)), ("5-9", slice(5, 10)), ("2500-", slice(2500, None))),
        *(("900-99999999", slice(900, None)), ("-7", slice(-7, None)), ("-99999999", slice(0, None))),
    ],
)
def test_an_original_is_sent_whole_or_a_part_of_it_on_request(
    http: httpx.Client, index: Index, monkeypatch: pytest.MonkeyPatch, asked: str, part: slice
) -> None:
    monkeypatch.setattr("sketch_search.service.http.files.PART", 1000)
    whole = index.open_photo(1).whole()
    start, stop, _ = part.indices(len(whole))
    answer = http.get("/photos/1", headers={"range": f"bytes={asked}"})
    assert (answer.status_code, answer.content) == (206, whole[part])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
    told = http.get("/photos/1").headers
    assert (told["content-type"], told["content-length"]) == ("image/png", str(len(whole)))
    assert (told["accept-ranges"], told["etag"]) == ("bytes", f'"{index.photo(1).content_hash}"')
    same = {"range": f"bytes={asked}", "if-range": answer.headers["etag"]}
    assert http.get("/photos/1", headers=same).status_code == 206
    assert http.get("/photos/1", headers={**same, "if-range": '"of another"'}).content == whole


@pytest.mark.parametrize(
    "asked", ["bytes=5-4", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "lines=1-2", "bytes=--1", f"bytes={'9' * 5000}-"]
)
def test_a_bad_range_is_ignored_and_one_beyond_the_end_refused(http: httpx.Client, index: Index, asked: str) -> None:
    whole, answer = index.open_photo(1).whole(), http.get("/photos/1", headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, whole)
    for beyond in ("bytes=99999999-", "bytes=-0"):
        refused = http.get("/photos/1", headers={"range": beyond})
        assert error(refused) == (416, "bad_request")
        assert refused.headers["content-range"] == f"bytes */{len(whole)}"


def test_an_original_that_changes_while_it_is_sent_breaks_off_and_leaves_a_line(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read = Index.part_of_photo

    def changed(self: Index, photo: int, size: int, start: int, count: int) -> bytes:
        return read(self, photo, size + (start > 0), start, count)

    monkeypatch.setattr("sketch_search.service.http.files.PART", 1000)
    monkeypatch.setattr(Index, "part_of_photo", changed)
    with pytest.raises(httpx.RemoteProtocolError):
        http.get("/photos/1")
    assert http.get("/healthz").status_code == 200
    assert any("has changed while being read" in record.getMessage() for record in caplog.records)
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_thumbnail_is_a_small_jpeg(http: httpx.Client) -> None:
    answer = http.get("/thumbnails/3", params={"size": 32})
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.size) == ("JPEG", (32, 32))
    with Image.open(io.BytesIO(http.get("/thumbnails/3").content)) as image:
        assert image.size == (96, 96)
    assert answer.headers["etag"] != http.get("/thumbnails/3").headers["etag"]
    assert error(http.get("/thumbnails/3", params={"size": 100_000})) == (422, "bad_parameter")


def test_a_browser_keeps_a_thumbnail_for_as_long_as_its_id_is_of_that_photo(http: httpx.Client) -> None:
    address, another = (photo["thumbnail_url"] for photo in http.get("/photos?id=3&id=4").json()["photos"])
    first = http.get(address, params={"size": 32})
    assert first.content == http.get("/thumbnails/3", params={"size": 32}).content
    assert first.headers["cache-control"] == "private, max-age=31536000, immutable"
    known = http.get(address, params={"size": 32}, headers={"if-none-match": first.headers["etag"]})
    assert (known.status_code, "immutable" in known.headers["cache-control"]) == (304, True)
    for other in (another.replace("/4/", "/3/"), address[:-1], f"{address}0"):
        assert error(http.get(other)) == (404, "not_found")


def test_photos_are_reported_by_their_ids_in_the_order_requested(http: httpx.Client) -> None:
    found = {result["id"]: result for result in http.post("/search?like=1").json()["results"]}
    ids = sorted(found, reverse=True)
    photos = http.get("/photos", params={"id": ids}).json()["photos"]
    assert [photo["id"] for photo in photos] == ids
    for photo in photos:
        assert photo == {name: found[photo["id"]][name] for name in photo}
    assert error(http.get("/photos", params={"id": [1, 99_999]})) == (404, "not_found")
    for query in ("", "?id=-1", "?id=1.0", "?id=1&size=3", "?" + "&".join(["id=1"] * 65)):
        assert error(http.get(f"/photos{query}")) == (422, "bad_parameter")


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


@pytest.mark.parametrize(
    "path",
    [
        *(f"/photos/{id}" for id in ("0", "1000", "-1", "abc", "+1", "1_0", "1.0", "1e0", "", "9" * 20, "9" * 5000)),
        *(f"/photos/{id}" for id in ("%201", "1%20", "1%0a", "%D9%A1", "%EF%BC%91", "1%00.png", "..%5c..%5cetc")),
        *(f"/photos/{path}/etc/passwd" for path in ("", "../..", "%2e%2e/%2e%2e", "1/../..")),
        "/photos/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        *(f"/thumbnails/{id}" for id in ("1000", "+1", "p00.png")),
        *(f"/clusters/{id}" for id in (str(CLUSTERS), "-1", "+1")),
        *("/thumbnails", "/search/", "/docs", "/no/such/path"),
        *(f"/page/{name}" for name in ("", "index.html", "nothing.js", "../app.py", "..%2Fapp.py", "main.js%00.js")),
        *(f"/page/{name}" for name in ("..%2Fhttp%2Fopenapi.js", "%2Fetc%2Fpasswd", "long" * 100 + ".js")),
    ],
)
def test_missing_paths_are_not_found(server: Served, path: str) -> None:
    # Sent as written: an HTTP library would tidy the path up first.
    answer = plain_http(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b'"code":"not_found"' in body
    assert b"x-request-id" in head.lower()


def test_gone_photos_are_absent(settings: Settings, gallery: Path, tmp_path: Path, index: Index, sketch: bytes) -> None:
    copied, gone, broken, changed, there = (index.photo(photo).paths for photo in (1, 7, 3, 4, 5))
    same = {path: (gallery / path).read_bytes() for path in (copied[2], there[0])}
    other = encoded(draw_photo(100))
    for path, content in {**same, copied[0]: other, changed[0]: other, broken[0]: b"no longer a picture"}.items():
        (tmp_path / "moved" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "moved" / path).write_bytes(content)
    with asked(settings, gallery=(tmp_path / "moved",)) as http:
        for photo in (7, 3, 4):
            # A size that no other test asks for: thumbnails outlive the server.
            for name in (f"/photos/{photo}", f"/thumbnails/{photo}?size=33"):
                assert error(http.get(name), "sketch-search index build") == (404, "photo_unavailable")
            assert error(http.post(f"/explain?photo={photo}", content=sketch)) == (404, "photo_unavailable")
        for photo, path in zip((1, 5), same, strict=True):
            assert http.get(f"/photos/{photo}").content == same[path]
            assert http.get(f"/thumbnails/{photo}?size=33").status_code == 200
        assert http.post("/search", content=sketch).status_code == 200
        files = unzipped(http.get("/photos.zip", params={"id": [7, 5]}))
    assert list(files) == [Path(there[0]).name, "not in this file.txt"]
    assert gone[0] in files["not in this file.txt"].decode()


def test_originals_come_from_checked_files(settings: Settings, gallery: Path, tmp_path: Path, index: Index) -> None:
    first, _, last = index.photo(1).paths
    photo = (gallery / last).read_bytes()
    for path, content in {first: b"<script>".ljust(len(photo)), last: photo}.items():
        (tmp_path / "moved" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "moved" / path).write_bytes(content)
    with asked(settings, gallery=(tmp_path / "moved",)) as http:
        assert http.get("/photos/1").content == photo
        assert http.get("/photos/1", headers={"Range": "bytes=0-9"}).content == photo[:10]
        assert [*unzipped(http.get("/photos.zip", params={"id": 1})).values()] == [photo]
        (tmp_path / "moved" / last).write_bytes(b"</html>".ljust(len(photo)))
        assert error(http.get("/photos/1")) == (404, "photo_unavailable")


def test_a_camera_s_facts_are_read_unless_damaged(settings: Settings, weights: Path, tmp_path: Path) -> None:
    picture, exif = draw_photo(0).resize((96, 64)), Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Canon", "Canon\x00EOS 5D"
    exif[ExifTags.Base.Orientation] = 6
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.DateTimeOriginal], inner[ExifTags.Base.LensModel] = "2019:07:14 17:03:21", "EF 50mm f/1.8"
    good = encoded(picture, "JPEG", exif=exif)
    block = good.index(b"Exif\0\0")
    bad = encoded(draw_photo(1), "JPEG", exif=exif).replace(good[block + 6 : block + 40], os.urandom(34))
    assert bad != encoded(draw_photo(1), "JPEG", exif=exif)
    (tmp_path / "photos").mkdir()
    for name, file in (("good.jpg", good), ("IMG_20200102_101112.jpg", bad), ("1965-07.png", encoded(draw_photo(2)))):
        (tmp_path / "photos" / name).write_bytes(file)
    index = tmp_path / "index"
    build(index, BuildRequest([tmp_path / "photos"], clusters=1, embedder="ret"), model.load(weights))
    with asked(settings, index=index) as http:
        ids = {one["paths"][0]: one["id"] for one in http.get("/photos?id=1&id=2&id=3").json()["photos"]}
        told = {path: http.get(f"/photos/{number}/facts").raise_for_status().json() for path, number in ids.items()}
        assert told["good.jpg"].pop("changed").startswith("20")
        expected = {"day": "2019-07-14", "time": "17:03:21", "camera": "Canon EOS 5D", "lens": "EF 50mm f/1.8"}
        assert told["good.jpg"] == expected | {"width": 64, "height": 96, "bytes": len(good), "boxes": []}
        damaged = told["IMG_20200102_101112.jpg"]
        assert (damaged["day"], damaged["camera"], damaged["bytes"]) == ("2020-01-02", None, len(bad))
        assert (told["1965-07.png"]["day"], told["1965-07.png"]["width"]) == ("1965-07", draw_photo(2).width)
        (tmp_path / "photos" / "good.jpg").write_bytes(bad)
        assert error(http.get(f"/photos/{ids['good.jpg']}/facts")) == (404, "photo_unavailable")
        assert error(http.get("/photos/1000/facts")) == (404, "not_found")


def test_damaged_boxes_are_no_boxes(default_settings: Settings, tmp_path: Path) -> None:
    assert default_settings.index is not None
    index = shutil.copytree(default_settings.index, tmp_path / "index")
    (kept,) = index.glob("g*/boxes.npy")
    boxes = np.load(kept, mmap_mode="r+")
    boxes[:, 0] = (80, 255, 200, 30, 20, 10)
    boxes[:, 1:] = (254, 1, 2, 3, 4, 5)
    boxes.flush()
    with asked(default_settings, index=index) as http:
        assert http.get("/photos/1/facts").raise_for_status().json()["boxes"] == []
        assert http.post("/search?text=dog").raise_for_status().json()["results"]


def test_originals_are_kept_back_where_the_settings_say_so(settings: Settings, sketch: bytes) -> None:
    with asked(settings, serve_originals=False) as http:
        for path in ("/photos/1", "/photos/1/facts", "/photos.zip?id=1"):
            assert error(http.get(path)) == (404, "not_found")
        assert "files" not in http.get("/photos?id=1").json()["photos"][0]
        assert error(http.post("/photos/1/reveal")) == (403, "forbidden")
        assert http.get("/thumbnails/1").status_code == 200
        results = http.post("/search", content=sketch).json()["results"]
        assert {result["photo_url"] for result in results} == {None}
        explained = http.post("/explain?photo=1", content=sketch).json()
        assert {one["photo_url"] for one in explained["photos"] + explained["nearest"]} == {None}


def test_names_of_photos_add_nothing_to_the_address_of_another_program() -> None:
    settings = Settings(link="https://photos.example/{name}?path={path}&is={stem}")
    path = "a b/..%2f{stem}&x=1#?.tar.jpg"
    assert settings.link_of(path) == (
        "https://photos.example/..%252f%7Bstem%7D%26x%3D1%23%3F.tar.jpg"
        "?path=a%20b/..%252f%7Bstem%7D%26x%3D1%23%3F.tar.jpg&is=..%252f%7Bstem%7D%26x%3D1%23%3F.tar"
    )


@pytest.mark.skipif(not Path("/proc").exists(), reason="peaks of memory are read from /proc")
@pytest.mark.parametrize("mib", [128, pytest.param(500, marks=pytest.mark.soak)])
def test_no_padding_behind_a_photo_takes_memory_or_its_place(
    mib: int, settings: Settings, matcher: Matcher, tmp_path: Path
) -> None:
    (photos := tmp_path / "photos").mkdir()
    for number in range(5):
        (photos / f"{number}.jpg").write_bytes(encoded(draw_photo(number), "JPEG"))
    (photos / "padded.jpg").write_bytes((photos / "0.jpg").read_bytes())
    os.truncate(photos / "padded.jpg", mib << 20)
    with zipfile.ZipFile(tmp_path / "album.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        packed.writestr("packed.jpg", (photos / "1.jpg").read_bytes() + bytes(mib << 20))
    index = tmp_path / "index"
    assert not build(index, BuildRequest([photos, tmp_path / "album.zip"], embedder="ret"), matcher).bad
    with (
        running(settings.model_copy(update={"index": index}), tmp_path / "log") as process,
        httpx.Client(base_url=address_of(process), timeout=PATIENCE) as http,
    ):
        found = http.post("/search?k=10", content=encoded(draw_sketch())).raise_for_status().json()["results"]
        ids = {result["paths"][0].rpartition("/")[2]: result["id"] for result in found}
        sizes = {name: http.get(f"/photos/{photo}/facts").json()["bytes"] for name, photo in ids.items()}
        assert min(sizes["padded.jpg"], sizes["packed.jpg"]) >= mib << 20
        base = peak(process.pid)
        with ThreadPoolExecutor(4) as pool:
            asked_for = [f"/thumbnails/{ids[name]}?size={size}" for size in (40, 50) for name in sorted(ids)]
            answers = dict(zip(asked_for, pool.map(http.get, asked_for), strict=True))
        for name, like in (("padded.jpg", "0.jpg"), ("packed.jpg", "1.jpg")):
            small = answers[f"/thumbnails/{ids[name]}?size=40"].raise_for_status()
            assert small.content == answers[f"/thumbnails/{ids[like]}?size=40"].content
            assert http.post(f"/explain?photo={ids[name]}", content=encoded(draw_sketch())).status_code == 200
        server, *decoders = map(peak, family(process.pid))
        assert server - base < 100
        assert max(decoders) < 160


def test_a_thumbnail_keeps_the_shape_and_is_upright() -> None:
    wide = drawing("house", size=64).resize((128, 64))
    with Image.open(io.BytesIO(thumbnail(oriented(wide, 6), 32))) as small:
        assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (32, 16))
        assert not small.getexif()


def test_thumbnails_are_found_again_after_a_restart_unless_their_file_is_damaged(settings: Settings) -> None:
    def ask() -> bytes:
        with asked(settings) as http:
            return http.get("/thumbnails/5?size=31").content

    made = ask()
    assert settings.index is not None
    (kept,) = (settings.index / "thumbnails").glob("*-31.jpg")
    assert kept.read_bytes() == made
    kept.write_bytes(other := encoded(drawing("house", size=8), "JPEG"))
    assert ask() == other
    kept.write_bytes(other[:-2])
    assert ask() == kept.read_bytes() == made


def test_a_folder_of_thumbnails_that_cannot_be_written_or_is_a_link_keeps_nothing(tmp_path: Path) -> None:
    for file in ("file", "CURRENT"):
        (tmp_path / file).touch()
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    # An index that was deleted does not begin again as a folder of thumbnails.
    for folder in (tmp_path / "file", tmp_path / "link", tmp_path / "nowhere" / "small"):
        cache = ThumbnailCache(2**20, folder, 2**20)
        cache.keep("a-8", JPEG)
        assert (cache.find("a-8"), cache.read("a-8")) == (JPEG, None)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "CURRENT", "link"}


pytestmark = leaves_sockets


@pytest.fixture(params=["album", "server"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    photos = {f"cats/{number}.png": encoded(draw_photo(number)) for number in range(6)}
    if request.param == "album":
        with zipfile.ZipFile(tmp_path / "takeout.zip", "w") as album:
            for name, photo in photos.items():
                album.writestr(name, photo)
        yield str(tmp_path / "takeout.zip")
        return
    with webdav(tmp_path / "served", home=None) as server:
        for name, photo in photos.items():
            server.write(name, photo)
        yield server.url


def test_photos_elsewhere_are_shown_by_both(address: str, tmp_path: Path, settings: Settings, weights: Path) -> None:
    index, sketch = tmp_path / "index", encoded(draw_sketch(0))
    with Gallery.open(address, index=index, weights=weights, progress=False) as gallery:
        found = gallery.search(sketch, k=3)
        assert found[0].path.startswith(f"{address}/")
        assert found[0].image().size == draw_photo(0).size
        gallery.explain(sketch, found[0])
        ids = [photo.id for photo in found]
    with asked(settings, index=index, gallery=()) as client:
        answer = client.post("/search", content=sketch, params={"k": 3}).json()
        assert [result["id"] for result in answer["results"]] == ids
        first = answer["results"][0]
        original = client.get(first["photo_url"])
        assert original.status_code == 200
        assert original.headers["ETag"].strip('"') == hashlib.sha256(original.content).hexdigest()
        small = Image.open(io.BytesIO(client.get(first["thumbnail_url"], params={"size": 64}).content))
        assert max(small.size) == 64
        why = client.post("/explain", content=sketch, params={"photo": first["id"]})
        assert why.status_code == 200
        chosen = client.get("/photos.zip", params={"id": ids})
        with zipfile.ZipFile(io.BytesIO(chosen.content)) as files:
            assert original.content in map(files.read, files.namelist())


def unzipped(answer: httpx.Response) -> dict[str, bytes]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_chosen_photos_come_as_one_file_each_as_it_is_and_once(
    http: httpx.Client, index: Index, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sketch_search.service.http.files.PART", 1000)
    files = [gallery / index.photo(photo).paths[0] for photo in (1, 7, 9)]
    answer = http.get("/photos.zip", params={"id": [1, 7, 9, 7]})
    assert "content-length" not in answer.headers  # it is sent while it is made
    assert unzipped(answer) == {file.name: file.read_bytes() for file in files}


def test_names_do_not_clash_and_suit_every_system() -> None:
    paths = ["a/cat.jpg", "b/Cat.JPG", "c/cat.jpg", "d/what? a:name.png", "e/..", "f/.hidden", "g/cat (2).jpg"]
    paths += ["a/\x9b2J.jpg", "a/\u202egpj.exe"]
    names = ["cat.jpg", "Cat (2).JPG", "cat (3).jpg", "what_ a_name.png", "_", "hidden", "cat (2) (2).jpg"]
    names += ["_2J.jpg", "_gpj.exe"]
    paths += ["a/CON.jpg", "a/nul", "a/com1.tar.gz", "a/Lpt\xb9.png", "a/conan.jpg", "a/aux .jpg", "a/dots.. ."]
    names += ["_CON.jpg", "_nul", "_com1.tar.gz", "_Lpt\xb9.png", "conan.jpg", "_aux .jpg", "dots"]
    assert file_names(paths) == names


def test_only_the_token_shows_where_files_lie(http: httpx.Client, server: Served, index: Index, gallery: Path) -> None:
    here, elsewhere = (http.get("/photos?id=1", headers=one).json()["photos"][0] for one in (server.token, {}))
    assert here.pop("files") == [str(gallery / path) for path in index.photo(1).paths]
    assert here == elsewhere
    assert http.get("/info").json()["allows"] == {"build": False, "reveal": False, "needs_token": True}
    assert error(http.post("/photos/1/reveal"), "server.json") == (403, "forbidden")
    cross_site = server.token | {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    assert error(http.post("/photos/1/reveal", headers=cross_site)) == (400, "bad_request")
    assert error(http.post("/photos/1000/reveal", headers=server.token)) == (404, "not_found")


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
def test_a_file_manager_shows_the_folder_of_a_photo(
    http: httpx.Client, server: Served, index: Index, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allowed() -> bool:
        return bool(http.get("/info", headers=server.token).json()["allows"]["reveal"])

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not allowed()
    assert error(http.post("/photos/1/reveal", headers=server.token)) == (404, "not_found")
    program = tmp_path / "xdg-open"
    program.write_text(f'#!/bin/sh\ncd "{tmp_path}" && printf "%s\\n" "$#" "$@" > partly && /bin/mv partly shown\n')
    program.chmod(0o755)
    assert allowed()
    assert http.post("/photos/1/reveal", headers=server.token).status_code == 204
    wait_until((tmp_path / "shown").exists, "nothing was shown")
    assert (tmp_path / "shown").read_text().split("\n") == ["1", str((gallery / index.photo(1).paths[0]).parent), ""]
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not allowed()
