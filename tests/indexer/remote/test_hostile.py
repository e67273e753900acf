"""Servers that lie: about sizes, about where things are, and without end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sketch_search import model
from sketch_search.indexer import BuildRequest, build
from sketch_search.indexer.building.folder_listing import FolderListing
from sketch_search.indexer.store import remote
from sketch_search.indexer.store.files import FileChanging, FileStamp
from sketch_search.indexer.store.remote import RemoteFolder, Unreachable
from sketch_search.indexer.store.roots import Root
from tests.indexer.galleries import photo_file
from tests.indexer.remote.servers import Served
from tests.patience import wait_for

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
Answer = Callable[[BaseHTTPRequestHandler], None]


def entry(href: str, size: str | None = "5") -> str:
    """An entry of a listing; without a size, it is a folder."""
    kind = "<d:resourcetype><d:collection/></d:resourcetype>" if size is None else "<d:resourcetype/>"
    length = "" if size is None else f"<d:getcontentlength>{size}</d:getcontentlength>"
    return (
        f"<d:response><d:href>{href}</d:href><d:propstat><d:prop>{kind}{length}</d:prop>"
        "<d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>"
    )


def listing(*entries: str) -> bytes:
    return f'<d:multistatus xmlns:d="DAV:">{"".join(entries)}</d:multistatus>'.encode()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def lying(answer: Answer, asked: list[str] | None = None) -> Iterator[str]:
    """A server that answers every request in this way. Yields its host and port."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            if asked is not None:
                asked.append(self.path)

        def handle_any(self) -> None:
            try:
                answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        do_GET = do_PROPFIND = handle_any  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Sends bytes until the client has had enough; the test would not end otherwise."""
    handler.send_response(207 if handler.command == "PROPFIND" else 200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 2**16)


def found(url: str, index: Path) -> tuple[list[tuple[str, int | None]], list[str]]:
    """Lists a folder: its photos with their sizes, and why some of it was not listed."""
    files = FolderListing([Root(name="photos", path=url)], index)
    paths = [(file.path, None if file.stamp is None else file.stamp.size) for file in files]
    return paths, [folder.reason for folder in files.unlisted]


def test_a_redirect_to_another_address_is_not_followed(home: Path, tmp_path: Path) -> None:
    asked = list[str]()
    with lying(lambda handler: send(handler, 200, b"secret"), asked) as elsewhere:

        def away(handler: BaseHTTPRequestHandler) -> None:
            send(handler, 302, Location=f"http://{elsewhere}/internal")

        with lying(away) as host:
            url, reason = f"webdav://{host}/photos", "redirects to another address; use that one"
            assert reason in found(url, tmp_path)[1][0]
            with pytest.raises(OSError, match=reason):
                RemoteFolder.at(url).read("a.png", FileStamp(6, None, None))
    assert asked == []


def test_a_redirect_on_the_same_server_is_followed_and_a_circle_ends(home: Path, tmp_path: Path) -> None:
    def moved(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/circle"):
            send(handler, 302, Location=f"{handler.path}x")
        elif not handler.path.endswith("/"):
            send(handler, 301, Location=f"{handler.path}/")
        else:
            send(handler, 207, listing(entry("/photos/", None), entry("/photos/a.png")))

    with lying(moved) as host:
        assert found(f"webdav://{host}/photos", tmp_path) == ([("a.png", 5)], [])
        assert "redirects endlessly" in found(f"webdav://{host}/circle", tmp_path)[1][0]


def test_an_impossible_size_or_address_leaves_out_its_entry_alone(home: Path, tmp_path: Path) -> None:
    sizes = {"a.png": "-5", "b.png": "7", "c.png": "many", "d.png": "9" * 5000, "e.png": "", "../f.png": "7"}
    entries = [entry("http://[::1", "7"), *(entry(f"/photos/{name}", size) for name, size in sizes.items())]

    with lying(lambda handler: send(handler, 207, listing(entry("/photos/", None), *entries))) as host:
        assert found(f"webdav://{host}/photos", tmp_path) == ([("b.png", 7)], [])


def test_a_tree_that_leads_back_to_itself_ends(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketch_search.indexer.building.folder_listing.MAX_FOLDERS", 20)

    def nested(handler: BaseHTTPRequestHandler) -> None:
        folder = handler.path.rstrip("/")
        inner = [entry(f"{folder}/{name}", None) for name in "ab"]
        send(handler, 207, listing(entry(folder, None), *inner, entry(f"{folder}/x.png")))

    with lying(nested) as host:
        paths, reasons = found(f"webdav://{host}/photos", tmp_path)
    assert len(paths) == 20
    assert "the server has more than 20" in reasons[0]


def test_an_answer_without_end_is_given_up(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_LONGEST", 0.1)
    with lying(endless) as host:
        assert "the server does not answer" in found(f"webdav://{host}/photos", tmp_path)[1][0]


def test_of_a_photo_no_more_is_read_than_was_listed(home: Path, index_path: Path, matcher: model.Matcher) -> None:
    good = photo_file(1)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "PROPFIND":
            files = [entry("/photos/good.png", str(len(good))), entry("/photos/bad.png", "100")]
            send(handler, 207, listing(entry("/photos/", None), *files))
        elif "good" in handler.path:
            send(handler, 200, good)
        else:
            endless(handler)

    with lying(answer) as host:
        report = build(index_path, BuildRequest([f"webdav://{host}/photos"]), matcher)
    assert (report.photos, [bad.path for bad in report.bad]) == (1, ["bad.png"])


def test_a_file_of_sftp_that_never_comes_is_given_up(nas: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_LONGEST", 0.1)
    nas.write("a.png", bytes(10))
    nas.fails("silent")
    with pytest.raises(Unreachable):
        RemoteFolder.at(nas.url).read("a.png", FileStamp(10, None, None))


@pytest.mark.parametrize("size", [3, 50])
def test_a_file_that_is_longer_or_shorter_than_was_listed_is_reported(size: int, nas: Served) -> None:
    nas.write("a.png", bytes(10))
    with pytest.raises(FileChanging):
        RemoteFolder.at(nas.url).read("a.png", FileStamp(size, None, None))


def test_parts_of_a_large_file_are_read_without_the_rest(davs: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 40
    davs.write("a.png", data)
    folder = RemoteFolder.at(davs.url)
    # Larger than what is kept.
    monkeypatch.setattr(remote, "_kept", {})
    parts = [folder.read_part("a.png", 1000, start=start, size=len(data)) for start in range(0, len(data), 1000)]
    assert b"".join(parts) == data
    with pytest.raises(FileChanging):
        folder.read_part("a.png", 1000, start=len(data), size=len(data) + 500)


def test_names_of_sftp_lead_nowhere(nas: Served, tmp_path: Path) -> None:
    nas.names = iter(["../../a.png", "/etc/b.png", "..", ".", "", "c/d.png", "e.png"])
    assert [path for path, _ in found(nas.url, tmp_path)[0]] == ["e.png"]


def test_a_server_that_does_not_answer_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, over = threading.Event(), threading.Event()
    connect = remote._connect

    def connecting(scheme: str, netloc: str) -> object:
        if netloc == "dead.example":
            begun.set()
            wait_for(over, "the test has not ended")
            raise ConnectionError
        return connect(scheme, netloc)

    monkeypatch.setattr(remote, "_connect", connecting)
    dead = threading.Thread(target=RemoteFolder("webdav://dead.example/a").is_there)
    dead.start()
    wait_for(begun, "it does not connect")
    with lying(lambda handler: send(handler, 207, listing(entry("/a/", None)))) as host:
        assert RemoteFolder(f"webdav://{host}/a").is_there()
    assert dead.is_alive()
    over.set()
    dead.join()
