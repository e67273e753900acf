import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from service.settings import Settings
from tests.documents import CHECKOUT, read
from tests.patience import PATIENCE, wait_until
from tests.service.served import Served, served
from tests.service.talk import error

NOTHING = {"build": False, "reveal": False, "needs_token": True}
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
_PLAIN = """server {{
    listen 127.0.0.1:{port};
    # As nginx does of itself since 1.29.7.
    location / {{ proxy_pass {url}; proxy_http_version 1.1; proxy_set_header Connection ""; {more} }}
}}"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@contextmanager
def nginx(url: str, folder: Path, more: str = "") -> Iterator[str]:
    """Has nginx as it comes hand requests on to a server."""
    port = free_port()
    with running_nginx(_PLAIN.format(port=port, url=url, more=more), port, folder):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def running_nginx(server: str, port: int, folder: Path) -> Iterator[None]:
    """Runs nginx with this server block, which listens at the port."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        pytest.skip("nginx is not installed")
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, server=server))
    with subprocess.Popen([program, "-e", "stderr", "-c", folder / "nginx.conf"]) as process:
        try:
            wait_until(lambda: answers(port) or process.poll() is not None, "nginx does not answer")
            assert process.poll() is None
            yield
        finally:
            process.terminate()


def answers(port: int) -> bool:
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
        return True
    return False


@contextmanager
def relay(url: str) -> Iterator[str]:
    """Hands all bytes on to a server as they are: a proxy that says nothing of itself or its clients."""
    place = urlsplit(url)

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError), ExitStack() as opened:
            while True:
                client = opened.enter_context(listener.accept()[0])
                server = opened.enter_context(socket.create_connection((place.hostname, place.port or 80)))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def check_is_stranger(url: str, gallery: Path, **headers: str) -> None:
    """Checks that a client without the token sees photos, and has nothing done."""
    with httpx.Client(base_url=url, headers=httpx.Headers(headers, "latin-1"), timeout=PATIENCE) as http:
        info = http.get("/info").json()
        assert (info["ready"], info["allows"], info["build"]["running"]) == (True, NOTHING, False)
        assert "files" not in http.get("/photos", params={"id": 1}).json()["photos"][0]
        for path in (f"/build?folder={gallery}", "/photos/1/reveal"):
            answer = http.post(path)
            assert error(answer) == (403, "forbidden")
            assert "the address that the server printed when it started" in answer.json()["error"]["message"]


@pytest.mark.parametrize("named", ["", "proxy_set_header Host $http_host;"], ids=["as it comes", "passes the host on"])
def test_a_client_of_nginx_has_nothing_done_without_the_token(
    settings: Settings, gallery: Path, tmp_path: Path, named: str
) -> None:
    with served(settings, allowed_hosts=("*",)) as server, nginx(server.url, tmp_path, named) as url:
        for host in ("photos.example.org", "localhost", "127.0.0.1:8000"):
            check_is_stranger(url, gallery, host=host)
        # The owner may come this way, too.
        with httpx.Client(base_url=url, follow_redirects=True, timeout=PATIENCE) as http:
            http.get("/", params={"token": server.app.state.token}).raise_for_status()
            assert http.get("/info").json()["allows"]["build"]


def test_the_server_block_of_the_docs_adds_tls(
    settings: Settings, gallery: Path, sketch: bytes, tmp_path: Path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    block = read(CHECKOUT / "docs" / "deployment.md").partition("```nginx\n")[2].partition("```")[0]
    certificate, key, port = tmp_path / "photos.pem", tmp_path / "photos.key", free_port()
    made = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=photos.example"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=certificate)
    trusting.check_hostname = False  # the name leads nowhere here
    with served(settings, allowed_hosts=("photos.example",)) as server:
        for of_docs, here in (
            ("listen 443 ", f"listen 127.0.0.1:{port} "),
            ("/etc/ssl/photos.example.pem", certificate),
            ("/etc/ssl/photos.example.key", key),
            ("http://127.0.0.1:8000", server.url),
        ):
            assert of_docs in block
            block = block.replace(of_docs, str(here))
        url, host = f"https://127.0.0.1:{port}", {"Host": "photos.example"}
        with (
            running_nginx(block, port, tmp_path),
            httpx.Client(base_url=url, headers=host, verify=trusting, timeout=PATIENCE) as http,
        ):
            assert "<title>sketch-search</title>" in http.get("/").text
            best = http.post("/search", content=sketch).json()["results"][0]
            assert http.get(best["photo_url"]).content == (gallery / best["paths"][0]).read_bytes()
            assert http.post("/search", content=bytes(11 << 20)).status_code == 413
            assert http.get("/info").json()["allows"] == NOTHING
            assert "Secure" in http.get("/", params={"token": server.app.state.token}).headers["set-cookie"]
            assert http.get("/info").json()["allows"]["build"]


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "photos.example.org"])
def test_a_client_of_a_proxy_that_says_nothing_has_nothing_done_without_the_token(
    settings: Settings, gallery: Path, host: str
) -> None:
    with served(settings, allowed_hosts=("*",)) as server, relay(server.url) as url:
        check_is_stranger(url, gallery, host=host)


def test_neither_this_machine_nor_a_wrong_token_is_enough(server: Served, gallery: Path) -> None:
    check_is_stranger(server.url, gallery)
    name = f"sketch-search-{urlsplit(server.url).port}"
    for wrong in ("wrong", server.app.state.token[:-1], "\xff"):
        check_is_stranger(server.url, gallery, **{"x-sbir-token": wrong})
        check_is_stranger(server.url, gallery, cookie=f"{name}={wrong}")


def test_the_token_in_the_pages_address_becomes_a_cookie_that_no_script_and_no_other_site_has(server: Served) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        answer = http.get(server.page)
        assert (answer.status_code, answer.headers["location"]) == (303, "./")
        name, *attributes = answer.headers["set-cookie"].split("; ")
        assert name == f"sketch-search-{urlsplit(server.url).port}={server.app.state.token}"
        assert {*attributes} == {"HttpOnly", "Path=/", "SameSite=strict"}
        assert answer.headers["cache-control"] == "no-store"
        assert http.get("/info").json()["allows"]["build"]
    refused = httpx.get(server.url, params={"token": "wröng"}, timeout=PATIENCE)
    assert (refused.status_code, "set-cookie" in refused.headers) == (303, False)


def test_each_server_has_a_token_of_its_own(server: Served, settings: Settings) -> None:
    with served(settings) as other:
        assert other.app.state.token != server.app.state.token


def test_who_has_no_token_and_no_index_is_told_where_the_token_is(settings: Settings, tmp_path: Path) -> None:
    with served(settings, index=tmp_path / "index") as server:
        stranger = httpx.get(f"{server.url}/info", timeout=PATIENCE).json()
        assert "the address that the server printed when it started" in stranger["remedy"]
        trusted = httpx.get(f"{server.url}/info", headers=server.token, timeout=PATIENCE).json()
        assert (trusted["reason"], trusted["remedy"]) == (stranger["reason"], None)
