"""Servers of photos for the tests, each on a free port of this machine: S3, SFTP and WebDAV, with faults on request."""

import asyncio
import errno
import gc
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4
from wsgiref.types import StartResponse, WSGIEnvironment

import asyncssh
import boto3
from cheroot import wsgi
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from wsgidav.wsgidav_app import WsgiDAVApp

from sketch_search.indexer.store import remote

# A secret that no index, report or message may ever contain.
SECRET = "s3cr3t-of-the-tests"
USER = "tester"
# The fault of a server at a request: none; it says that there is no such thing; asks for fewer; sends half of it; or
# nothing at all, by SFTP.
Fault = Literal["", "gone", "busy", "half", "silent"]
Application = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]


class Server:
    """A server that runs.

    Attributes:
        url: of the folder of photos. fault: what reading a file, or with ``everywhere`` any request, meets now, so
            many times. requests: how many were answered.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.fault: Fault = ""
        self.everywhere = False
        self.times = 10**9
        self.requests = 0

    def write(self, name: str, data: bytes) -> None:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError

    def fill(self, folder: Path) -> None:
        for photo in sorted(folder.rglob("*.png")):
            self.write(photo.relative_to(folder).as_posix(), photo.read_bytes())

    def fails(self, fault: Fault, *, everywhere: bool = False, times: int = 10**9) -> None:
        self.fault, self.everywhere, self.times = fault, everywhere, times

    def in_front_of(self, app: Application, reads: Callable[[WSGIEnvironment], bool]) -> Application:
        """Makes an application whose answers have the faults of this server. The test's own client meets none."""

        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            own = "Boto3" in environ.get("HTTP_USER_AGENT", "")
            fault = "" if own else self.meets(reading=reads(environ))
            if fault in ("gone", "busy"):
                status, code = {"gone": ("404 Not Found", "NoSuchBucket"), "busy": ("503 Slow Down", "SlowDown")}[fault]
                body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()
                start_response(status, [("Content-Length", str(len(body))), ("Content-Type", "application/xml")])
                return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
            parts = app(environ, start_response)
            return broken_off(b"".join(parts)) if fault == "half" else parts

        return answer

    def meets(self, *, reading: bool) -> Fault:
        self.requests += 1
        if not self.fault or not (reading or self.everywhere) or self.times <= 0:
            return ""
        self.times -= 1
        return self.fault


def broken_off(whole: bytes) -> Iterator[bytes]:
    """Gives half of an answer, and ends the connection, so that nobody waits for the rest."""
    yield whole[: len(whole) // 2]
    raise ConnectionResetError(errno.ECONNRESET, "as the test wants it")


def close_connections() -> None:
    """Close what this process has open to servers, so that it warns in no other test, and not at the end of all."""
    for files in remote._open.values():
        http = getattr(files, "http", None)
        if http is not None:  # of WebDAV; what the others leave open is closed as garbage
            http.close()
    remote._open.clear()
    gc.collect()


class Bucket(Server):
    client: Any

    def __init__(self) -> None:
        # All servers of this process have the same buckets.
        self.name = f"bucket-{uuid4().hex}"
        super().__init__(f"s3://{self.name}/my photos")

    def write(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"my photos/{name}", Body=data)

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=f"my photos/{name}")


class Served(Server):
    """A folder on this machine that a server gives out."""

    def __init__(self, folder: Path) -> None:
        super().__init__("")
        self.folder = folder / "my photos"
        self.folder.mkdir(parents=True)
        self.names: Iterator[str] | None = None

    def write(self, name: str, data: bytes) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(data)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()


@cache
def _session() -> boto3.Session:
    """One for all tests: it reads megabytes that describe the services of AWS."""
    return boto3.Session()


@contextmanager
def s3(home: Path) -> Iterator[Bucket]:
    """An S3 server with a bucket, whose credentials ``home`` has where the programs of AWS look for them."""
    bucket = Bucket()
    app = bucket.in_front_of(
        DomainDispatcherApplication(create_backend_app),
        lambda environ: environ["REQUEST_METHOD"] == "GET" and "/" in environ["PATH_INFO"].strip("/"),
    )
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        (home / ".aws").mkdir()
        (home / ".aws" / "credentials").write_text(
            f"[default]\naws_access_key_id=key\naws_secret_access_key={SECRET}\n"
        )
        (home / ".aws" / "config").write_text(f"[default]\nregion=us-east-1\nendpoint_url={url}\n")
        # What the home folder says is for the code under test.
        secrets = {"aws_access_key_id": "key", "aws_secret_access_key": SECRET}
        bucket.client = _session().client("s3", region_name="us-east-1", endpoint_url=url, **secrets)
        bucket.client.create_bucket(Bucket=bucket.name)
        yield bucket
        bucket.client.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def webdav(folder: Path, home: Path | None) -> Iterator[Served]:
    """A WebDAV server of a folder, whose password ``home`` has in its .netrc; None for one that lets everybody in."""
    served = Served(folder)
    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(folder)},
            "simple_dc": {"user_mapping": {"*": True if home is None else {USER: {"password": SECRET}}}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "verbose": 0,
            "logging": {"enable_loggers": []},
        }
    )
    app = served.in_front_of(app, lambda environ: environ["REQUEST_METHOD"] == "GET")
    server = wsgi.Server(("127.0.0.1", 0), app, numthreads=20)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        served.url = f"webdav://127.0.0.1:{server.bind_addr[1]}/my%20photos"
        if home is not None:
            (home / ".netrc").write_text(f"machine 127.0.0.1 login {USER} password {SECRET}\n")
            (home / ".netrc").chmod(0o600)
        yield served
    finally:
        server.stop()
        thread.join()
        # It leaves its own sockets to the garbage collector, too.
        del server
        close_connections()


class _Files(asyncssh.SFTPServer):
    def __init__(self, served: Served, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        super().__init__(channel, chroot=str(served.folder.parent).encode())
        self.served = served

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        fault = self.served.meets(reading=True)
        if fault == "gone":
            raise asyncssh.SFTPNoSuchFile(SECRET)
        if fault == "busy":
            raise asyncssh.SFTPConnectionLost(SECRET)
        found = super().open(path, pflags, attrs)
        if fault == "half":
            found = open(self.map_path(path), "r+b")  # noqa: SIM115
            found.truncate(Path(found.name.decode()).stat().st_size // 2)
        return found

    async def read(self, file_obj: object, offset: int, size: int) -> bytes:
        if self.served.fault == "silent":
            await asyncio.get_running_loop().create_future()
        data = super().read(file_obj, offset, size)
        assert isinstance(data, bytes)
        return data

    async def scandir(self, path: bytes) -> Any:
        if self.served.meets(reading=False):
            raise OSError(errno.EACCES, SECRET)
        if self.served.names is not None:
            for name in self.served.names:
                attrs = asyncssh.SFTPAttrs(size=5, permissions=stat.S_IFREG | 0o644)
                yield asyncssh.SFTPName(name.encode(), attrs=attrs)
            return
        async for entry in super().scandir(path):
            yield entry


@contextmanager
def sftp(folder: Path, home: Path) -> Iterator[Served]:
    """An SFTP server of a folder, whose key, and one that it takes, ``home`` has in its .ssh."""
    served = Served(folder)
    server_key, own_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))

    connections = list[asyncssh.SSHServerConnection]()

    class Accepted(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            connections.append(conn)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> asyncssh.SSHAcceptor:
        allowed = asyncssh.import_authorized_keys(own_key.export_public_key().decode())
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=Accepted,
            server_host_keys=[server_key],
            authorized_client_keys=allowed,
            sftp_factory=partial(_Files, served),
        )

    async def stop(acceptor: asyncssh.SSHAcceptor) -> None:
        acceptor.close()
        await acceptor.wait_closed()
        # A client may be gone without a word, and its socket would be left to the garbage collector.
        for connection in connections:
            connection.abort()
            await connection.wait_closed()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    acceptor = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        port = acceptor.get_port()
        (home / ".ssh").mkdir(mode=0o700)
        own_key.write_private_key(str(home / ".ssh" / "id_ed25519"))
        public = server_key.export_public_key().decode()
        (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
        served.url = f"sftp://{USER}@127.0.0.1:{port}/my%20photos"
        yield served
    finally:
        asyncio.run_coroutine_threadsafe(stop(acceptor), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
