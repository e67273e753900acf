import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from sketch_search.indexer.store.folders import LocalFolder
from sketch_search.service.http import routes
from sketch_search.service.settings import Settings
from tests.patience import wait_for, wait_until
from tests.service.busy_server import begun_upload, occupied, wait_until_held, wait_until_room_is, waiting_search
from tests.service.served import Served, asked, served
from tests.service.small_gallery import MAX_UPLOAD
from tests.service.talk import error


@pytest.fixture
def small(settings: Settings) -> Iterator[Served]:
    with served(settings, queue=1) as server:
        yield server


def test_the_service_waits_for_an_index(settings: Settings, index_path: Path, tmp_path: Path, sketch: bytes) -> None:
    missing = tmp_path / "later"
    with served(settings, index=missing) as server:
        http = server.http
        assert http.get("/healthz").status_code == 200
        for answer in (http.get("/readyz"), http.post("/search", content=sketch), http.get("/photos/1")):
            assert error(answer) == (503, "not_ready")
            assert "index" in answer.json()["error"]["message"].lower()
        info = http.get("/info").json()
        assert (info["ready"], info["index"]) == (False, None)
        assert "sbir_ready 0.0" in http.get("/metrics").text
        assert "index" in info["reason"].lower()
        assert "you need the server's token" in info["remedy"]
        assert http.get("/info", headers=server.token).json()["remedy"] is None

        shutil.copytree(index_path, tmp_path / "copy")
        (tmp_path / "copy").rename(missing)
        wait_until(lambda: http.get("/readyz").status_code == 200, "the service is not ready")
        assert http.post("/search", content=sketch).status_code == 200
        assert http.get("/info").json()["ready"] is True


def test_a_server_whose_photos_are_all_gone_is_not_ready_and_searches(
    settings: Settings, gallery: Path, tmp_path: Path, sketch: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = tmp_path / "photos"
    with asked(settings, gallery=(mounted,)) as http, asked(settings, gallery=(mounted,), serve_originals=False) as few:
        refused = http.get("/readyz")
        assert error(refused) == (503, "not_ready")
        assert "SBIR_GALLERY" in refused.text
        assert http.post("/search", content=sketch).status_code == few.get("/readyz").status_code == 200
        mounted.symlink_to(gallery)
        assert http.get("/readyz").status_code == 200
        over = threading.Event()
        monkeypatch.setattr(routes, "DISK_SECONDS", 0.01)
        monkeypatch.setattr(LocalFolder, "is_there", lambda folder: wait_for(over, "the test has not ended"))
        assert [http.get("/readyz").status_code for _ in range(3)] == [200] * 3
        over.set()


def test_defaults_of_a_search_are_reported(settings: Settings, sketch: bytes) -> None:
    with asked(settings, quality="fast", nprobe=3, default_k=7) as http:
        wait_until(lambda: http.get("/readyz").status_code == 200, "the service is not ready")
        info = http.get("/info").json()
        assert info["defaults"] == {"k": 7, "system": "default", "quality": "fast", "nprobe": 3}
        answer = http.post("/search", content=sketch).json()
        assert (len(answer["results"]), answer["quality"], answer["method"]) == (7, "fast", "ret")


def test_without_a_checkpoint_clients_with_the_key_read_where_to_get_one(settings: Settings, tmp_path: Path) -> None:
    for key, headers in ((None, {}), (SecretStr("key"), {"x-api-key": "key"})):
        missing = {"weights": tmp_path / "none.safetensors", "index": tmp_path / "none"}
        with asked(settings, **missing, api_key=key) as http:
            answer = http.get("/readyz")
            assert error(answer) == (503, "not_ready")
            assert ("none.safetensors" in answer.text) is (key is None)
            info = http.get("/info", headers=headers).json()
            assert "there is no checkpoint at" in info["reason"]
            # To index a folder would be no help.
            assert (info["remedy"], info["allows"]["build"]) == (None, False)
            assert http.get("/healthz").status_code == 200


def test_a_full_queue_is_answered_at_once_with_when_to_come_back(small: Served, sketch: bytes) -> None:
    with ThreadPoolExecutor(1) as pool, occupied(small):
        waiting = pool.submit(small.http.post, "/search", content=sketch)
        wait_until_room_is(small, False)
        refused = small.http.post("/search", content=sketch)
        assert error(refused) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert small.http.get("/healthz").status_code == 200
        assert small.http.get("/thumbnails/1").status_code == 200
        assert not waiting.done()
    assert waiting.result().status_code == 200
    assert small.http.post("/search", content=sketch).status_code == 200


def test_a_client_that_hangs_up_leaves_the_queue(small: Served, sketch: bytes) -> None:
    with occupied(small):
        with waiting_search(small, sketch):
            pass
        wait_until_room_is(small, True)
    assert small.http.post("/search", content=sketch).status_code == 200


def test_clients_that_send_slowly_block_nobody(small: Served, sketch: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as slow:
        for _ in range(20):
            slow.enter_context(begun_upload(small))
        wait_until_held(small, 20 * 4)
        assert small.http.post("/search", content=sketch).status_code == 200
    wait_until_held(small, 0)
    assert "Traceback" not in caplog.text


def test_a_sketch_of_which_nothing_comes_gives_way_if_it_is_full(settings: Settings, sketch: bytes) -> None:
    part = bytes(MAX_UPLOAD - 1000)
    with served(settings, queue=0) as server, begun_upload(server, part) as stalled:
        wait_until_held(server, len(part))
        assert server.http.post("/search", content=sketch).status_code == 200
        wait_until_held(server, len(part))
        assert error(server.http.post("/search", content=part)) == (415, "unsupported_image")
        wait_until_held(server, 0)
        assert stalled.recv(65536).startswith(b"HTTP/1.1 429 ")


def test_a_full_queue_refuses_a_sketch_before_it_has_arrived(settings: Settings) -> None:
    with served(settings, queue=0) as server, occupied(server), begun_upload(server) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 429 ")
