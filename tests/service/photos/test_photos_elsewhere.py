"""Photos of an album and of a server, as the library and the service show them."""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from service.settings import Settings
from sketch_search import Gallery
from tests.indexer.remote.servers import webdav
from tests.pictures import encoded
from tests.service.served import asked
from tests.service.small_gallery import draw_photo, draw_sketch

# The libraries of servers leave sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NAMES = [f"{thing}/{number}.png" for thing in ("cat", "house") for number in range(3)]


@pytest.fixture(params=["album", "server"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Six photos elsewhere."""
    photos = {name: encoded(draw_photo(number)) for number, name in enumerate(NAMES)}
    (tmp_path / "served").mkdir()
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


def test_library_and_service_show_photos_that_are_elsewhere(
    address: str, tmp_path: Path, settings: Settings, weights: Path
) -> None:
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


def test_photos_that_have_moved_elsewhere_are_shown_from_there(
    address: str, tmp_path: Path, settings: Settings, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(NAMES):
        (tmp_path / "before" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "before" / name).write_bytes(encoded(draw_photo(number)))
    Gallery.open(tmp_path / "before", index=tmp_path / "index", weights=weights, progress=False).close()
    shutil.rmtree(tmp_path / "before")
    monkeypatch.setenv("SBIR_GALLERY", address)
    with asked(settings, index=tmp_path / "index", gallery=Settings().gallery) as client:
        first = client.post("/search", content=encoded(draw_sketch(0)), params={"k": 1}).json()["results"][0]
        assert client.get(first["photo_url"]).content == encoded(draw_photo(NAMES.index(first["paths"][0])))
