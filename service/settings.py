"""Reads the settings of the service from the environment, and the file by which commands find a running server."""

import hashlib
import ipaddress
import json
import os
import re
import secrets
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core.core_schema import ValidationInfo

from sketch_search.indexer import default_index_path
from sketch_search.model.files import open_regular, read_regular
from sketch_search.model.limits import MAX_PIXELS, MAX_VARIANTS, NPROBE, System
from sketch_search.model.terminal import expand_home
from sketch_search.service.schemas.query import Quality

MIB = 1024 * 1024
_MAX_KEY = 4096
# More threads than cores only wait for each other, and with thousands of them a search never ends.
MAX_THREADS = 512
# Matches one path of a list with separators. A URL has ':' behind its scheme, and before a password and a port.
_ADDRESS = re.compile(rf"(?:\w+://(?:[^/@]*@)?[^/:]*(?::\d+(?=/))?)?[^{os.pathsep}]*")
_NAME = re.compile("[^,]+")
_ORIGIN = re.compile(r"https?://(?:\*\.)?(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
# What the pattern of an address in another program may have: a photo's first path, its file's name, and its stem.
_PLACES = re.compile(r"\{(path|name|stem)\}")
_HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]")
# What the names of a setting match, and what others are. Every page in a sandbox has the origin null.
_NAMED = {
    "cors_origins": (re.compile("(?!null$).*"), "the origin of any page that hides its own; name the origins, or '*'"),
    "frame_ancestors": (_ORIGIN, "not an origin; write one such as https://home.example:8123"),
    "allowed_hosts": (_HOST, "not a host; write names and addresses without a port, IPv6 in brackets"),
}


def _split(part: re.Pattern[str], value: Any) -> Any:
    """Splits a list written as text. A ValueError becomes pydantic's sentence."""
    if not isinstance(value, str):
        return value
    # An address of IPv6, or a folder, may begin with a bracket, too.
    if re.match(r"\s*\[\s*[\"\]]", value):
        entries = json.loads(value)
        if not all(isinstance(entry, str) for entry in entries):
            raise ValueError(f'{value[:64]!r} is not a list of strings; write one such as ["a", "b"]')
        return entries
    return [entry.strip() for entry in part.findall(value) if entry.strip()]


_OfPaths = BeforeValidator(partial(_split, _ADDRESS))
_Count = Annotated[int, Field(ge=1)]
_Names = Annotated[tuple[str, ...], BeforeValidator(partial(_split, _NAME))]


def _check_bare(text: str, where: str) -> None:
    """Raises ValueError for quotes around a value, which some readers of a file of variables leave there."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        raise ValueError(f"{where} has quotes around its value, which would be part of it; leave them out")


class Settings(BaseModel):
    """Settings of the service, each also by the variable ``SKETCH_SEARCH_<NAME>``; an empty one is unset."""

    model_config = ConfigDict(frozen=True)

    # docs/http.md says what each is for; comments say what a default of None, or an empty one, means.
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    index: Path | None = None  # the platform's data folder
    weights: Path | None = None  # the embedded checkpoint
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["int8", "float32", "bfloat16", "float16"] | None = None  # int8 by ONNX Runtime on a CPU
    threads: Annotated[int, Field(ge=1, le=MAX_THREADS)] | None = None  # all cores
    variants: Annotated[int, Field(ge=1, le=MAX_VARIANTS)] | None = None  # the checkpoint's own
    gallery: Annotated[tuple[Path | str, ...], _OfPaths] = ()  # where the roots are now, in their order
    allow_build: bool | None = None  # clients with the token
    serve_originals: bool = True
    link: str = ""  # the pattern of a photo's address in another program
    zip_encoding: str = ""  # of names that are neither UTF-8 nor cp437, such as cp932
    max_upload_bytes: _Count = 10 * MIB
    max_pixels: Annotated[int, Field(ge=1, le=10**9)] = 1 << 26  # of sketches, and of photos if it is more than theirs
    upload_seconds: Annotated[float, Field(gt=0, le=3600)] = 60
    queue: Annotated[int, Field(ge=0)] = 16
    queue_seconds: Annotated[float, Field(gt=0, le=3600)] = 0.6  # the longest expected wait; else 429
    shards: Annotated[tuple[Path, ...], _OfPaths] = ()
    ray: str | None = None
    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    shard_seconds: Annotated[float, Field(gt=0, le=600)] = 5
    system: System | None = None  # that of the index
    quality: Quality = "good"
    nprobe: _Count = NPROBE
    default_k: _Count = 20
    max_k: _Count = 1000
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    rate_limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None  # requests of a client a minute
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None  # the main port, with the key
    log_format: Literal["text", "json"] = "text"
    cors_origins: _Names = ()
    frame_ancestors: _Names = ()  # origins whose pages may show the page in a frame
    allowed_hosts: _Names = ()  # on a loopback address its names, else any

    def link_of(self, path: str) -> str | None:
        """Returns the address of the photo with this path in the other program, if there is one."""
        name = path.rpartition("/")[2]
        values = {"path": quote(path), "name": quote(name, safe=""), "stem": quote(PurePosixPath(name).stem, safe="")}
        return _PLACES.sub(lambda place: values[place[1]], self.link) or None

    @property
    def max_photo_pixels(self) -> int:
        return max(self.max_pixels, MAX_PIXELS)

    @property
    def known_hosts(self) -> tuple[str, ...]:
        if self.allowed_hosts:
            return self.allowed_hosts
        if not is_loopback(self.host):
            return ("*",)
        return ("localhost", "127.0.0.1", "[::1]", f"[{self.host}]" if ":" in self.host else self.host)

    @model_validator(mode="before")
    @classmethod
    def _read_environment(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Adds the environment's values, and reads the API key from its file. Raises ValueError: both or no key."""
        texts = {name.lower(): text for name, text in os.environ.items() if text}
        # A file of variables may end its lines with a carriage return.
        given = {name: texts[key].strip() for name in cls.model_fields if (key := f"sketch_search_{name}") in texts}
        for name, text in given.items():
            _check_bare(text, f"SKETCH_SEARCH_{name.upper()}")
        values = given | arguments
        if not (file := values.get("api_key_file")):
            return values
        if values.get("api_key"):
            raise ValueError("SKETCH_SEARCH_API_KEY and SKETCH_SEARCH_API_KEY_FILE are both set; set only one of them")
        try:
            key = read_regular(Path(file), _MAX_KEY).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"the API key cannot be read from {file}; SKETCH_SEARCH_API_KEY_FILE names its file"
            ) from error
        _check_bare(key, str(file))
        if not key:
            raise ValueError(
                f"there is no API key in {file}; write one into it, or leave SKETCH_SEARCH_API_KEY_FILE out"
            )
        return {**values, "api_key": key}

    @field_validator("dtype", "threads", mode="before")
    @classmethod
    def _read_auto(cls, value: Any) -> Any:
        return None if value == "auto" else value

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        """Refuses an empty host, which would mean every address, and hosts that break the socket library."""
        try:
            # Encoding raises UnicodeError, a ValueError, if a part of a name is empty or too long.
            if not (re.fullmatch(r"\w[\w.-]*", value) and value.encode("idna")):
                ipaddress.ip_address(value)
        except ValueError:
            hint = "write a name or an address without a port, such as 127.0.0.1, ::1, or 0.0.0.0 for all"
            raise ValueError(f"{value[:64]!r} is not a host; {hint}") from None
        return value

    @field_validator("zip_encoding")
    @classmethod
    def _check_encoding(cls, value: str) -> str:
        try:
            b"".decode(value or "ascii")
        except LookupError as error:
            raise ValueError("write the name of an encoding, such as cp932 or gb18030") from error
        return value

    @field_validator("link")
    @classmethod
    def _check_link(cls, value: str) -> str:
        """Refuses what is no address of the web, such as javascript:, and places that are not known."""
        hint = "write one such as https://photos.example/search?query={name}, with {path}, {name} or {stem}"
        if value and (not value.startswith(("http://", "https://")) or set("{}") & set(_PLACES.sub("", value))):
            raise ValueError(f"{value[:64]!r} is no pattern of an address; {hint}")
        return value

    @field_validator("cors_origins", "frame_ancestors", "allowed_hosts")
    @classmethod
    def _check_names(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        pattern, problem = _NAMED[str(info.field_name)]
        if wrong := next((name for name in value if not pattern.fullmatch(name)), None):
            raise ValueError(f"{wrong!r} is {problem}")
        return value


def index_path(settings: Settings) -> Path:
    return settings.index if settings.index is not None else default_index_path()


def is_loopback(host: str) -> bool:
    """Returns True if a host, without port and brackets, is a loopback address of this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


NAME = "server.json"
_MAX_BYTES = 1 << 16
# The settings that change no answer to a search.
_UNANSWERED = {"host", "port", "threads", "allow_build", "api_key", "api_key_file", "rate_limit", "metrics_port"}
_UNANSWERED |= {"log_format", "cors_origins", "frame_ancestors", "allowed_hosts", "max_upload_bytes", "upload_seconds"}
_UNANSWERED |= {"queue", "queue_seconds"}
# Seconds between two checks for a missing index.
_AGAIN_SECONDS = 0.5


class ServerAddress(BaseModel):
    """The content of the file. answers: the ``answers_by`` of its settings."""

    model_config = ConfigDict(frozen=True)

    url: str
    token: str
    answers: str = ""


def answers_by(settings: Settings) -> str:
    """Hashes all that answers to searches depend on but the index: this program, its settings, and their checkpoint."""
    known = settings.model_dump(mode="json", exclude={"index", "weights", *_UNANSWERED})
    # Without a name, the checkpoint is this installation's for the system of the index.
    files = [Path(__file__)] if settings.weights is None else [Path(__file__), expand_home(settings.weights).resolve()]
    for file in files:
        status = file.stat() if file.exists() else None
        known[str(file)] = status and [status.st_ino, status.st_mtime_ns, status.st_size]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def token_of(folder: Path) -> str:
    """Returns the token of all servers of an index, so that open tabs stay allowed after a restart.

    It is kept in the user's own folder: an index may be copied to somebody else. Where that cannot be, it is a new one.
    """
    fresh = secrets.token_urlsafe(24)
    if sys.platform == "win32":
        return fresh
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()
    path = platformdirs.user_state_path("sketch-search", appauthor=False) / "tokens" / name
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _open_private(path) as file:
            private = _is_ours(file) and not os.fstat(file.fileno()).st_mode & 0o077
            kept = file.read(_MAX_BYTES).decode("ascii", "replace") if private else ""
            if re.fullmatch(r"[\w-]{32}", kept, re.ASCII):
                return kept
            os.fchmod(file.fileno(), 0o600)
            file.seek(0)
            file.truncate()
            file.write(fresh.encode())
    return fresh


@contextmanager
def announced(folder: Path, address: ServerAddress) -> Iterator[None]:
    """Keeps the file in the index while the block runs, if there is one that is writable and not another server's."""
    over = threading.Event()
    with ExitStack() as held:

        def lacks_index() -> bool:
            try:
                held.enter_context(_written(address, folder))
            except OSError as error:
                return isinstance(error, FileNotFoundError)
            return False

        def wait_for_index() -> None:
            while not over.wait(_AGAIN_SECONDS) and lacks_index():
                pass

        if sys.platform != "win32" and lacks_index():
            waiting = threading.Thread(target=wait_for_index, daemon=True)
            waiting.start()
            held.callback(waiting.join)
            held.callback(over.set)
        yield


def find_server(folder: Path) -> ServerAddress | None:
    """Returns the address of this user's running server for an index, if there is one."""
    if sys.platform == "win32":
        return None
    try:
        with open_regular(folder / NAME, links=False) as file:
            # Shared, so that two programs do not mistake each other for a server.
            text = file.read(_MAX_BYTES) if _is_ours(file) and not _locks(file, shared=True) else b""
        return ServerAddress.model_validate_json(text)
    except (OSError, ValidationError):
        return None


@contextmanager
def redirecting(page: str) -> Iterator[str]:
    """Provides a file that redirects to a page: everyone here can see the arguments of the browser's process.

    Deletes those of servers that were killed, which hold no lock. Raises OSError.
    """
    beginning, ending = "sketch-search-", ".html"
    kept = Path(tempfile.gettempdir()).glob(f"{beginning}*{ending}")
    for left in kept if sys.platform != "win32" else ():
        # One that is empty is just being made.
        with suppress(OSError), open_regular(left, links=False) as file:
            if _is_ours(file) and _locks(file) and file.read(1):
                left.unlink()
    descriptor, name = tempfile.mkstemp(prefix=beginning, suffix=ending)
    try:
        with open(descriptor, "w+b") as made:
            if sys.platform != "win32":
                _locks(made)
            made.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={page}">'.encode())
            made.write(f'<a href="{page}">sketch-search</a>'.encode())
            made.flush()
            yield name
    finally:
        # The folder for temporary files may have been cleaned meanwhile.
        Path(name).unlink(missing_ok=True)


@contextmanager
def _written(address: ServerAddress, folder: Path) -> Iterator[None]:
    """Writes the file. Raises OSError without an index, or if the file cannot be written or is not ours."""
    (folder / "CURRENT").stat()
    path = folder / NAME
    with _open_private(path) as file:
        if not _is_ours(file) or not _locks(file):
            raise PermissionError(f"{path} belongs to another user or another server")
        os.fchmod(file.fileno(), 0o600)  # an existing file may be readable by others
        file.truncate()
        file.write(address.model_dump_json().encode())
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # something else may have been put there
                path.unlink()


def _open_private(path: Path) -> BinaryIO:
    """Opens a file to read and write it; a new one is readable by this user alone. Raises OSError, for a link too."""
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600), "r+b")


def _is_ours(file: BinaryIO) -> bool:
    """Returns True for a regular file with a single name that only this user can have written."""
    status = os.fstat(file.fileno())
    is_private = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
    return is_private and status.st_nlink == 1


def _locks(file: BinaryIO, *, shared: bool = False) -> bool:
    """Locks the file until it is closed. Returns False if another process holds the lock."""
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
