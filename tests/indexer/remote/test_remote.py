import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from moto.s3.models import s3_backends

from sketch_search import model
from sketch_search.indexer import BadInvocation, BuildRequest, PhotoUnavailable, build
from sketch_search.indexer.building.folder_listing import FolderListing
from sketch_search.indexer.store import remote
from sketch_search.indexer.store.files import FileChanging, FileStamp
from sketch_search.indexer.store.location import Root
from sketch_search.indexer.store.remote import RemoteFolder, Unreachable
from sketch_search.indexer.upkeep import gallery_state
from tests.indexer.galleries import Collection, catalog, photo_file
from tests.indexer.remote.servers import SECRET, Bucket, Fault, Served, Server
from tests.programs import wait_for
from tests.requirements import leaves_sockets

pytestmark = leaves_sockets

FIRST = "Ännchen 001.png"


@pytest.fixture
def filled(server: Server, gallery: Path) -> Server:
    server.fill(gallery)
    return server


def test_a_folder_on_a_server_is_indexed_like_a_local(filled: Server, collection: Collection, tmp_path: Path) -> None:
    collection.update(folders=[filled.url])
    build(tmp_path / "local", BuildRequest([collection.photos]), collection.matcher)
    assert catalog(collection.index) == catalog(tmp_path / "local")
    content = (collection.photos / FIRST).read_bytes()
    with collection.open() as index:
        address = index.address_of(FIRST)
        assert address.startswith(f"{filled.url}/")
        photo = index.photo_at(address)
        assert index.open_photo(photo.id).whole() == content
        asked = filled.requests
        parts = [index.part_of_photo(photo.id, len(content), start, 100) for start in range(0, len(content), 100)]
        assert b"".join(parts) == content
        assert filled.requests == asked
        filled.remove(FIRST)
        with pytest.raises(PhotoUnavailable, match="nothing is at its address"):
            index.open_photo(photo.id)


def test_only_what_has_changed_on_a_server_is_read_again(filled: Server, collection: Collection) -> None:
    first = collection.update(folders=[filled.url])
    asked = filled.requests
    state = gallery_state(collection.index)
    assert not collection.update().changed
    assert gallery_state(collection.index) == state
    listings = filled.requests - asked
    assert listings % 3 == 0
    assert listings < first.photos
    filled.write(FIRST, photo_file(40))
    filled.write("in here/more.png", photo_file(40))
    filled.remove("Ännchen 002.png")
    assert gallery_state(collection.index) != state
    asked = filled.requests
    report = collection.update()
    assert (report.files, report.photos, report.settled.gone, report.encoded) == (12, 11, 1, 1)
    assert filled.requests - asked == listings // 3 + 2


def test_no_credential_is_kept(filled: Server, collection: Collection, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    collection.update(folders=[filled.url])
    filled.fails("gone", everywhere=True)
    assert SECRET not in str(collection.update())
    assert SECRET not in caplog.text
    for file in collection.index.rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes()


@pytest.mark.parametrize("fault", ["gone", "busy"])
def test_an_unlisted_server_is_reported_and_stays(fault: Fault, filled: Server, collection: Collection) -> None:
    filled.fails(fault, everywhere=True)
    with pytest.raises(BadInvocation, match="the folder cannot be read: "):
        collection.update(folders=[filled.url])
    filled.fails("")
    before = collection.update(folders=[filled.url])
    filled.fails(fault, everywhere=True)
    report = collection.update()
    assert (report.generation, report.photos, report.settled.gone) == (before.generation, 12, 0)
    assert [folder.path for folder in report.unlisted] == [filled.url]
    advice = "can no longer be read .* index build" if fault == "gone" else "cannot be read now: the server"
    with collection.open() as index, pytest.raises(PhotoUnavailable, match=advice):
        index.open_photo(1)
    filled.fails("")
    assert collection.update().unlisted == ()


@pytest.mark.parametrize("fault", ["gone", "busy", "half"])
def test_photos_that_a_server_does_not_give_stay(fault: Fault, filled: Server, collection: Collection) -> None:
    before = collection.update(folders=[filled.url])
    new = photo_file(40)
    filled.write(FIRST, new)
    filled.write("new.png", photo_file(2))
    filled.fails(fault)
    report = collection.update()
    assert (report.photos, report.settled.gone) == (before.photos, 0)
    assert [file.path for file in report.unlisted] == [FIRST]
    assert [file.path for file in report.bad] == ["new.png"]
    filled.fails("")
    filled.write(FIRST, new)
    filled.write("new.png", photo_file(2))
    report = collection.update()
    assert (report.files, report.photos, report.bad, report.unlisted) == (13, 12, (), ())


def test_a_request_that_fails_once_is_repeated(filled: Server, collection: Collection) -> None:
    filled.fails("busy", times=1)
    assert collection.update(folders=[filled.url]).bad == ()


def test_a_listing_of_thousands_of_names_asks_once_for_each_thousand(bucket: Bucket, tmp_path: Path) -> None:
    (backend,) = (backends["aws"] for backends in s3_backends.values() if bucket.name in backends["aws"].buckets)
    for number in range(2_500):
        backend.put_object(bucket.name, f"my photos/{number % 50}/{number:05}.jpg", b"")
    asked = bucket.requests
    listing = FolderListing([Root(name="many", path=bucket.url)], tmp_path / "index")
    paths = [file.path for file in listing]
    assert paths == sorted(paths)
    assert (len(paths), bucket.requests - asked) == (2_500, 3)


def test_keys_that_lead_out_of_a_bucket_are_reported(bucket: Bucket, collection: Collection) -> None:
    bucket.write("good.png", photo_file(1))
    bucket.write("../../x.png", b"outside")
    report = collection.update(folders=[bucket.url])
    assert [bad.path for bad in report.bad] == ["../../x.png"]
    assert report.photos == 1


def test_links_on_a_server_are_not_followed(nas: Served, collection: Collection) -> None:
    nas.fill(collection.photos)
    (nas.folder / "linked.png").symlink_to(nas.folder / FIRST)
    (nas.folder / "round").symlink_to(nas.folder)
    report = collection.update(folders=[nas.url])
    assert (report.files, report.skipped[0][:16]) == (12, "2 symbolic links")


def test_a_server_whose_key_is_not_known_is_not_spoken_to(nas: Served, home: Path, collection: Collection) -> None:
    (home / ".ssh" / "known_hosts").unlink()
    with pytest.raises(BadInvocation, match="the server's key is unknown; connect once by ssh"):
        collection.update(folders=[nas.url])


@pytest.mark.parametrize("file", [".netrc", ".ssh/id_ed25519", ".aws/credentials", "unknown keys"])
def test_a_server_that_does_not_let_in_is_reported_with_the_remedy(
    file: str, home: Path, request: pytest.FixtureRequest, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = request.getfixturevalue({".netrc": "davs", ".ssh/id_ed25519": "nas"}.get(file, "bucket")).url
    if file == "unknown keys":
        # From now on the server of buckets looks at the keys, and knows nobody.
        monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
    else:
        (home / file).unlink()
    with pytest.raises(BadInvocation, match="access is denied; check the credentials") as told:
        collection.update(folders=[url])
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    "address",
    [
        *(f"s3://{who}@bucket/photos" for who in (f"key:{SECRET}", f"key:a/{SECRET}", "key")),
        *(f"sftp://me{rest}/photos" for rest in (f":{SECRET}@nas", f":{SECRET}/x@nas", f"%3A{SECRET}@nas")),
        *(f"{kind}://me:{SECRET}@nas/photos" for kind in ("webdav", "ftp")),
        *(f"webdav://me:12/{SECRET}@nas/photos", f"webdavs://me@nas/photos?token={SECRET}"),
        *(f"webdavs://nas/photos#{SECRET}", "s3:///photos", "sftp://nas/photos/../.."),
    ],
)
def test_an_address_with_a_password_is_refused_and_not_repeated(address: str, collection: Collection) -> None:
    with pytest.raises(BadInvocation) as refused:
        collection.update(folders=[address])
    assert SECRET not in str(refused.value)
    assert not collection.index.exists()
    collection.build()
    with pytest.raises(BadInvocation):
        collection.update(added=[address])


def test_a_url_without_the_extra_says_how_to_install(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(remote._LIBRARIES, "s3", "no_such_library")
    with pytest.raises(BadInvocation, match=r"bucket needs no_such_library.*pip install 'sketch-search\[remote\]'"):
        collection.update(folders=["s3://bucket"])


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
