import io
import json
import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from PIL import Image
from pydantic import SecretStr
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from sketch_search import Remote
from sketch_search.model.errors import UserError
from sketch_search.remote import ClientError
from sketch_search.service.commands import main
from sketch_search.service.settings import ServerAddress, Settings, announced, answers_by
from tests.programs import run_python
from tests.service.served import address, running, served, started, without_timings
from tests.service.small_gallery import draw_sketch


@pytest.fixture
def options(settings: Settings) -> list[str]:
    return ["--index", str(settings.index), "--weights", str(settings.weights)]


def test_server_library_and_command_line_agree(
    http: httpx.Client,
    remote: Remote,
    sketch: bytes,
    drawn: Path,
    gallery: Path,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ways: list[dict[str, Any]] = [{}, {"k": 3, "offset": 2, "nprobe": 1}, {"nprobe": "all", "method": "ret"}]
    ways += [{"method": "rn"}, {"quality": "fast", "k": 3}, {"view": "groups", "k": 3, "offset": 1}]
    ways += [{"view": "auto", "k": 3}, {"fold": "yes", "k": 3}]
    for params in (*ways, {"folder": ["größe"], "after": "2000-01-01", "before": "2200-01-01"}):
        raw = without_timings(http.post("/search", content=sketch, params=params))
        assert without_timings(remote.search(sketch, **params).answer) == raw
        values = [
            (name, text) for name, value in params.items() for text in (value if isinstance(value, list) else [value])
        ]
        flags = [text for name, value in values for text in (f"--{name}", str(value))]
        assert main(["search", str(drawn), *options, *flags, "--json"]) == 0
        assert without_timings(json.loads(capsys.readouterr().out)) == raw
    raw = without_timings(http.post("/search", content=sketch))
    assert without_timings(http.post("/search", files={"file": sketch})) == raw
    for source in (drawn, str(drawn), draw_sketch()):
        assert without_timings(remote.search(source).answer) == raw
    by_photo = without_timings(remote.search(gallery / "p01.png", k=3, kind="photo").answer)
    assert by_photo["results"][0]["paths"] == ["p01.png"]
    assert main(["search", str(gallery / "p01.png"), "--photo", "--k", "3", *options, "--json"]) == 0
    assert without_timings(json.loads(capsys.readouterr().out)) == by_photo


def test_a_photo_of_a_server_is_its_file_and_a_thumbnail(remote: Remote, gallery: Path) -> None:
    (best,) = remote.search(draw_sketch(), k=1)
    assert best.read() == (gallery / best.path).read_bytes()
    with Image.open(io.BytesIO(best.thumbnail(20))) as image:
        assert (image.format, image.size) == ("JPEG", (20, 20))


def test_what_the_server_refuses_is_raised(remote: Remote) -> None:
    with pytest.raises(ClientError) as refused:
        remote.search(b"no picture at all")
    error = refused.value
    assert (error.status, error.code) == (415, "unsupported_image")
    assert error.message in str(error)
    assert error.request_id in str(error)


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[str]:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(body, status)(scope, receive, send)

    with started(FastAPI(routes=[Mount("/", answer)]), Settings()) as server:
        yield server.url


# Searches in the terminal, and says where: a search in this process needs numpy.
_SEARCH = """
import sys
from sketch_search.service.commands import main
assert main(["search", *sys.argv[1:], "--json"]) == 0
print("here" if "numpy" in sys.modules else "by the server", file=sys.stderr)
"""


def test_the_terminal_asks_the_server(default_settings: Settings, drawn: Path, gallery: Path, tmp_path: Path) -> None:
    def search(*options: str, **environment: str) -> tuple[str, Any]:
        variables = {**os.environ, "SKETCH_SEARCH_INDEX": str(default_settings.index), **environment}
        done = run_python("-c", _SEARCH, str(drawn), *options, environment=variables)
        assert done.returncode == 0, done.stderr
        return done.stderr.strip(), without_timings(json.loads(done.stdout))

    groups = ("--k", "2", "--like", "1", "--view", "groups", "--folder", "größe")
    place, here = search(*groups)
    assert place == "here"
    with running(default_settings, tmp_path / "log") as server:
        address(server)
        assert search(*groups) == ("by the server", here)
        assert search("--like", str(gallery / "p01.png"))[0] == "here", "the server looks up no paths"
        assert search(SKETCH_SEARCH_NPROBE="1")[0] == "here", "it has other settings"


def test_what_a_server_would_answer_otherwise_is_searched_for_here(
    settings: Settings, drawn: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def printed() -> dict[str, Any]:
        assert main(["search", str(drawn), *options, "--json"]) == 0
        output, errors = capsys.readouterr()
        assert errors == ""
        return dict(json.loads(output))

    assert settings.index is not None
    own, mark = printed(), {"model": "another"}
    asked = answers_by(Settings(index=settings.index, weights=settings.weights))
    for status, answer, answers, used in (
        (200, own | mark, asked, True),
        (200, own | mark, "of another checkpoint", False),
        (200, own | mark | {"generation": "g000009"}, asked, False),
        (200, "damaged", asked, False),
        (429, own | mark, asked, False),
    ):
        with (
            answering(json.dumps(answer).encode(), status) as url,
            announced(settings.index, ServerAddress(url=url, token="", answers=answers)),
        ):
            assert without_timings(printed()) == without_timings(own | mark if used else own)
    with announced(settings.index, ServerAddress(url="http://127.0.0.1:1", token="", answers=asked)):
        assert without_timings(printed()) == without_timings(own)


@pytest.mark.parametrize("body", [b"[" * 100_000, b"{}", b"<html>"])
def test_an_answer_of_another_program_is_refused(body: bytes) -> None:
    with answering(body) as url, Remote(url) as remote, pytest.raises(ClientError, match="as this API does") as refused:
        remote.search(like=1)
    assert refused.value.code == "unexpected_answer"


def test_the_api_key_in_any_script_is_sent_and_one_that_cannot_be_is_refused(settings: Settings) -> None:
    with served(settings, api_key=SecretStr("ключ")) as server:
        with Remote(server.url, api_key="ключ") as remote:
            assert remote.search(like=1)
        with Remote(server.url, api_key="another") as remote, pytest.raises(ClientError, match="401 unauthorized"):
            remote.search(like=1)
        for key in ("a\nb", "a\0", "\udc80"):
            with pytest.raises(ValueError, match="such as a line break") as refused:
                Remote(server.url, api_key=key)
            assert key not in str(refused.value)


_SOCKS = {"ALL_PROXY": "socks5h://127.0.0.1:9"}


@pytest.mark.parametrize(
    "environment",
    [
        {**_SOCKS, "NO_PROXY": "127.0.0.1,localhost"},
        {"http_proxy": "socks5://127.0.0.1:9"},
        {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,fe80::/10"},
        {"SSL_CERT_FILE": "/nonexistent/cacert.pem"},
    ],
    ids=lambda environment: " ".join(environment),
)
def test_a_server_of_this_machine_is_asked_whatever_proxies_and_certificates_are_set(
    environment: dict[str, str], http: httpx.Client, monkeypatch: pytest.MonkeyPatch, sketch: bytes
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with Remote(str(http.base_url)) as remote:
        assert len(remote.search(sketch, k=1)) == 1


@pytest.mark.parametrize(
    ("url", "environment", "named"),
    [
        ("http://photos.example", _SOCKS, "ALL_PROXY='socks5h"),
        ("https://photos.example", {"HTTPS_PROXY": "http://a:9", "no_proxy": "fe80::/10"}, "no_proxy='fe80::/10'"),
        ("https://127.0.0.1:9", {"SSL_CERT_FILE": "/nonexistent/cacert.pem"}, "SSL_CERT_FILE='/nonexistent"),
        ("https://photos.example", {"SSL_CERT_FILE": __file__}, "SSL_CERT_FILE"),
    ],
)
def test_a_variable_by_which_no_server_can_be_asked_is_named(
    url: str, environment: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=re.escape(named)):
        Remote(url)


_SECRETS = "http://someone:s%40same@{}?token=sesame"


@pytest.mark.parametrize("place", ["127.0.0.1:9", "127.0.0.1:none", "photos.example"])
def test_no_error_shows_the_password_of_an_address(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "other://someone:sesame@127.0.0.1:9")
    with pytest.raises((ConnectionError, UserError, ValueError), match=place) as refused:
        Remote(_SECRETS.format(place)).search(like=1)
    assert "same" not in str(refused.value)
    monkeypatch.delenv("HTTP_PROXY")
    with answering(b"{}") as url, Remote(_SECRETS.format(url.removeprefix("http://"))) as remote:
        with pytest.raises(ClientError, match="as this API does") as other:
            remote.search(like=1)
        assert "same" not in str(other.value)


def _certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Writes a certificate of this machine, which is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = (
        made.not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    files[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return files


class _Echo(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.dumps({"error": {"code": "echo", "message": self.headers["X-Pass"], "request_id": "-"}}).encode()
        self.send_response(418)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_a_server_behind_a_proxy_of_ones_own_is_asked_with_headers_and_certificates(tmp_path: Path) -> None:
    (ours, key), (mine, mine_key) = _certificate(tmp_path, "server"), _certificate(tmp_path, "client")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(ours, key)
    tls.load_verify_locations(mine)
    tls.verify_mode = ssl.CERT_REQUIRED
    both = tmp_path / "both.pem"
    both.write_bytes(mine.read_bytes() + mine_key.read_bytes())
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    own.load_verify_locations(ours)
    headers = {"X-Pass": "открой"}
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}"
        for verify, cert in ((ours, (str(mine), str(mine_key))), (str(ours), both), (own, str(both))):
            remote = Remote(url, headers=headers, verify=verify, cert=cert)
            with remote, pytest.raises(ClientError, match="418 echo"):
                remote.search(like=1)
        unknown: list[dict[str, Any]] = [{}, {"cert": both}]
        for options in unknown:
            with Remote(url, headers=headers, **options) as remote, pytest.raises(ConnectionError, match="CERTIFICATE"):
                remote.search(like=1)
        server.shutdown()
    wrongs: list[dict[str, Any]] = [
        {"verify": tmp_path / "none.pem"},
        {"cert": str(tmp_path / "none.pem")},
        {"verify": str(key)},
    ]
    for wrong in wrongs:
        with pytest.raises(UserError, match=rf"cannot be asked by {next(iter(wrong))}="):
            Remote(url, **wrong)
    for bad in ({"A": "b\nc"}, {"é": "b"}):
        with pytest.raises(ValueError, match="cannot be sent"):
            Remote(url, headers=bad)


def test_where_no_server_answers_its_address_is_reported() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # It does not listen.
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Remote(url) as remote, pytest.raises(ConnectionError, match=f"no server answers at {url}: "):
            remote.search(like=1)
