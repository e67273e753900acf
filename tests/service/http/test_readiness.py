import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import SecretStr

from sketch_search.indexer.store.folders import LocalFolder
from sketch_search.service.http import routes
from sketch_search.service.settings import Settings
from tests.documents import CHECKOUT, read
from tests.programs import PATIENCE, wait_for, wait_until
from tests.service.busy_server import begun_upload, occupied, wait_until_held, wait_until_room_is
from tests.service.served import Served, asked, check_is_stranger, error, served
from tests.service.small_gallery import MAX_UPLOAD


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


_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {server}
}}
"""
_BLOCKS = re.findall(r"```nginx\n(.*?)```", read(CHECKOUT / "docs" / "deployment.md"), re.DOTALL)
_HOST = {"Host": "photos.example"}


@contextmanager
def behind_nginx(block: str, addresses: dict[str, str], folder: Path) -> Iterator[httpx.Client]:
    """Runs nginx with this server block, and these addresses in the place of the documented ones."""
    program, openssl = shutil.which("nginx") or shutil.which("/usr/sbin/nginx"), shutil.which("openssl")
    if program is None or openssl is None:
        pytest.skip("nginx or openssl is not installed")
    certificate, key = folder / "photos.pem", folder / "photos.key"
    made = [openssl, "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=photos.example"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=certificate)
    trusting.check_hostname = False  # the name leads nowhere here
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    here = {"443 ssl": f"127.0.0.1:{port} ssl", "/etc/ssl/photos.example.pem": str(certificate)}
    for of_docs, ours in (here | {"/etc/ssl/photos.example.key": str(key)} | addresses).items():
        assert of_docs in block
        block = block.replace(of_docs, ours)
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, server=block))
    with subprocess.Popen([program, "-e", "stderr", "-c", folder / "nginx.conf"]) as process:
        try:
            wait_until(lambda: _answers(port) or process.poll() is not None, "nginx does not answer")
            assert process.poll() is None
            url = f"https://127.0.0.1:{port}"
            with httpx.Client(base_url=url, headers=_HOST, verify=trusting, timeout=PATIENCE) as http:
                yield http
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
        return True
    return False


def test_the_server_block_of_the_docs_adds_tls_and_its_clients_have_nothing_done_without_the_token(
    settings: Settings, gallery: Path, sketch: bytes, tmp_path: Path
) -> None:
    with (
        served(settings, allowed_hosts=("photos.example",)) as server,
        behind_nginx(_BLOCKS[0], {"http://127.0.0.1:8000": server.url}, tmp_path) as http,
    ):
        assert "<title>sketch-search</title>" in http.get("/").text
        best = http.post("/search", content=sketch).json()["results"][0]
        assert http.get(best["photo_url"]).content == (gallery / best["paths"][0]).read_bytes()
        assert http.post("/search", content=bytes(11 << 20)).status_code == 413
        check_is_stranger(http, gallery)
        # The owner may come this way, too.
        assert "Secure" in http.get("/", params={"token": server.app.state.token}).headers["set-cookie"]
        assert http.get("/info").json()["allows"]["build"]


class Guard(BaseHTTPRequestHandler):
    """Stands in for a program that authenticates users: it knows one by a cookie, and sends others to its page."""

    asked: ClassVar[list[tuple[str, str | None, str | None, str | None]]] = []

    def do_GET(self) -> None:
        names = ("X-Original-Method", "X-Original-URL", "Content-Length")
        method, url, length = (self.headers.get(name) for name in names)
        self.asked.append((self.path, method, url, length))
        self.send_response(200 if self.headers.get("Cookie") == "user=me" else 401)
        self.send_header("Location", "https://login.example/")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def guard() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Guard) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_below_a_path_users_whom_another_program_knows_see_the_page_index_and_search(
    settings: Settings, gallery: Path, guard: str, sketch: bytes, tmp_path: Path
) -> None:
    block = re.sub(r"    location / \{.*?\n    \}\n", lambda _: _BLOCKS[1], _BLOCKS[0], flags=re.DOTALL)
    with served(settings, allowed_hosts=("photos.example",), index=tmp_path / "index") as server:
        addresses = {"127.0.0.1:8000": urlsplit(server.url).netloc, "127.0.0.1:9091": guard}
        with behind_nginx(block, addresses, tmp_path) as http:
            for verb, path in (("GET", ""), ("GET", "photos/1"), ("POST", "search"), ("POST", "build")):
                refused = http.request(verb, f"/sketches/{path}", content=sketch if verb == "POST" else None)
                assert (refused.status_code, refused.headers["location"]) == (302, "https://login.example/")
                url = f"https://photos.example/sketches/{path}"
                assert Guard.asked[-1] == ("/api/authz/auth-request", verb, url, None)
            assert [http.get(path).status_code for path in ("/info", "/search", "/authenticated")] == [404] * 3
            http.headers["Cookie"] = "user=me"
            assert urlsplit(http.get("/sketches").headers["location"]).path == "/sketches/"
            linked = re.findall(r'(?:href|src)="([^"#]+)"', http.get("/sketches/").text)
            assert {path: http.get(f"/sketches/{path}").status_code for path in linked} == dict.fromkeys(linked, 200)
            where = {"folder": str(gallery)}
            assert http.post("/sketches/build", headers=server.token, params=where).status_code == 202
            wait_until(lambda: http.get("/sketches/readyz").status_code == 200, "nothing is indexed")
            best = http.post("/sketches/search", content=sketch).json()["results"][0]
            assert http.get(f"/sketches{best['photo_url']}").content == (gallery / best["paths"][0]).read_bytes()
            assert http.get(f"/sketches{best['thumbnail_url']}").headers["content-type"] == "image/jpeg"
