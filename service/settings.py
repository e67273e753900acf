"""Holds all settings of the service, in one typed object."""

import ipaddress
import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sketch_search.indexer import default_index_path
from sketch_search.model.files import read_regular
from sketch_search.model.images import MAX_PIXELS
from sketch_search.model.limits import MAX_VARIANTS, NPROBE
from sketch_search.service.schemas import PLACES, PhotoLinks

MIB = 1024 * 1024
# The most bytes of a file that holds an API key.
_MAX_KEY = 4096
# More threads than cores only wait for each other, and with thousands of them a search never ends.
MAX_THREADS = 512
# Matches one path of a list with separators. A URL has ':' behind its scheme, and before a password and a port.
_ADDRESS = re.compile(rf"(?:\w+://(?:[^/@]*@)?[^/:]*(?::\d+(?=/))?)?[^{os.pathsep}]*")
_NAME = re.compile("[^,]+")
_HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]")


def _split(part: re.Pattern[str], value: Any) -> Any:
    """Splits a list written as text. A ValueError becomes pydantic's sentence."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        found = json.loads(value)
        if not all(isinstance(one, str) for one in found):
            raise ValueError(f'{value[:64]!r} is not a list of strings; write one such as ["a", "b"]')
        return found
    return [found.strip() for found in part.findall(value) if found.strip()]


_OfPaths = BeforeValidator(partial(_split, _ADDRESS))
_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(partial(_split, _NAME))]


class Settings(BaseSettings):
    """Settings of the service. Each may be set by the environment variable ``SBIR_<NAME>``; an empty one is unset."""

    model_config = SettingsConfigDict(env_prefix="SBIR_", env_ignore_empty=True, extra="ignore", frozen=True)

    host: str = Field(
        default="127.0.0.1", description="Address to listen on; 0.0.0.0 opens the service to the network."
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    index: Path | None = Field(default=None, description="Folder of the index; default: the platform's data folder.")
    weights: Path | None = Field(default=None, description="Checkpoint (safetensors); default: the embedded one.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto takes the GPU if there is one.")
    dtype: Literal["int8", "float32", "bfloat16", "float16"] | None = Field(
        default=None,
        description="Precision of the networks; default, or auto: int8 by ONNX Runtime on a CPU, else the fastest of "
        "PyTorch's that stays close to float32.",
    )
    threads: int | None = Field(
        default=None, ge=1, le=MAX_THREADS, description="CPU threads of a search; default, or auto: all cores."
    )
    variants: int | None = Field(
        default=None,
        ge=1,
        le=MAX_VARIANTS,
        description="How many variants of a sketch are encoded: as it is; larger; mirrored, with a thicker pen, "
        "turned. Each takes the time of one encoding. Default: the checkpoint's setting, usually all of them.",
    )
    gallery: Annotated[tuple[Path | str, ...], NoDecode, _OfPaths] = Field(
        default=(),
        description="Where the photos' roots are now, in the order of the build, if they have moved: "
        "paths and URLs separated by the system's path separator (':' or ';'), or a JSON list.",
    )
    allow_build: bool | None = Field(
        default=None,
        description="Who may index a folder of this machine from the page, or continue a stopped build: yes for "
        "everyone who can reach the service, no for nobody; default: clients with the token that the server prints.",
    )
    serve_originals: bool = Field(default=True, description="Whether /photos/{id} serves the original files.")
    link: str = Field(
        default="",
        description="Pattern of a photo's address in another program, for the link of results: "
        "https://photos.example/search?query={name}, with {path}, {name} or {stem}, the name without its extension.",
    )
    zip_encoding: str = Field(
        default="", description="Encoding of names in ZIP files that are neither UTF-8 nor cp437, such as cp932."
    )
    max_upload_bytes: int = Field(
        default=10 * MIB, ge=1, description="Largest request body that is accepted, in bytes."
    )
    max_pixels: int = Field(
        default=1 << 26,
        ge=1,
        le=10**9,
        description="Largest sketch that is decoded, in pixels; also the largest photo, if more than 134 million. "
        "JPEGs may be larger: they are decoded at a fraction of their size.",
    )
    upload_seconds: float = Field(
        default=60, gt=0, le=3600, description="Seconds within which a sketch must have arrived completely."
    )
    queue: int = Field(default=16, ge=0, description="Searches that may wait behind the running one; more get 429.")
    queue_seconds: float = Field(
        default=0.6,
        gt=0,
        le=3600,
        description="The longest expected wait of a search, in seconds; one that would wait longer gets 429, except "
        "that a few may always wait.",
    )
    shards: Annotated[tuple[Path, ...], NoDecode, _OfPaths] = Field(
        default=(),
        description="Folders of the shards of a gallery, searched together with SBIR_RAY: paths separated by the "
        "system's path separator, or a JSON list.",
    )
    ray: str | None = Field(
        default=None,
        description="The Ray cluster that searches the shards: its address, auto for a running one, or local for this "
        "machine.",
    )
    replicas: int = Field(default=1, ge=1, le=1000, description="Copies of each shard and the encoder, with SBIR_RAY.")
    shard_seconds: float = Field(
        default=5,
        gt=0,
        le=600,
        description="Seconds within which a shard must answer each request of a search; else it is left out, and the "
        "answer says so.",
    )
    system: Literal["default", "two-stage"] = Field(
        default="default",
        description="The default system of a search; two-stage is the two-stage report's and nothing else. Queries it "
        "does not support, such as liked photos, words and quality, use the default system.",
    )
    quality: Literal["fast", "good", "best"] = Field(
        default="good",
        description="How much a search scores by default: fast compares vectors alone, best scores every photo.",
    )
    nprobe: int = Field(
        default=NPROBE, ge=1, description="The least number of clusters that a search opens by default."
    )
    default_k: int = Field(default=20, ge=1, description="Number of results of a search by default.")
    max_k: int = Field(default=1000, ge=1, description="Most results of one search, and photos of one cluster page.")
    api_key: SecretStr | None = Field(
        default=None, description="If set, everything but health checks requires it; default: none."
    )
    api_key_file: Path | None = Field(
        default=None,
        description="File that holds the API key, as Docker's secrets and systemd's credentials do; default: none.",
    )
    rate_limit: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Requests that one client address may make a minute, or in one burst, besides health checks; more "
        "get 429. Thumbnails and the page's files are counted separately, up to 100 times as many. An IPv6 client is "
        "its /64 network. Default: no limit.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port on which /metrics is served, at the same address, to everyone and without the API key; "
        "default: on the main port, with the API key.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Log lines for people, or one JSON object per line."
    )
    cors_origins: _Names = Field(
        default=(), description="Web origins that may call the API: separated by commas, or a JSON list; default: none."
    )
    allowed_hosts: _Names = Field(
        default=(),
        description="Host names by which clients may address the service, without a port: separated by commas, or a "
        "JSON list; '*.example.org' is every host below it, '*' any. Default: on a loopback address localhost, "
        "127.0.0.1, [::1] and the address itself, else any. A request without a host passes: no browser sends one.",
    )

    @property
    def photo_links(self) -> PhotoLinks:
        """The links of photos in answers."""
        return PhotoLinks(self.serve_originals, self.link)

    @property
    def max_photo_pixels(self) -> int:
        return max(self.max_pixels, MAX_PIXELS)

    @property
    def known_hosts(self) -> tuple[str, ...]:
        """The host names that a Host header may contain."""
        if self.allowed_hosts:
            return self.allowed_hosts
        if not is_loopback(self.host):
            return ("*",)
        return ("localhost", "127.0.0.1", "[::1]", f"[{self.host}]" if ":" in self.host else self.host)

    @model_validator(mode="before")
    @classmethod
    def _read_key(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Reads the API key from its file. Raises ValueError if key and file are both set, or the file holds no key."""
        if not (file := values.get("api_key_file")):
            return values
        if values.get("api_key"):
            raise ValueError("SBIR_API_KEY and SBIR_API_KEY_FILE are both set; set only one of them")
        try:
            key = read_regular(Path(file), _MAX_KEY).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the API key cannot be read from {file}; SBIR_API_KEY_FILE names its file") from error
        if not key:
            raise ValueError(f"there is no API key in {file}; write one into it, or leave SBIR_API_KEY_FILE out")
        return {**values, "api_key": key}

    @field_validator("dtype", "threads", mode="before")
    @classmethod
    def _leave_to_us(cls, value: Any) -> Any:
        return None if value == "auto" else value

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        """Refuses an empty host, which would mean every address, and hosts that break the socket library."""
        try:
            ipaddress.ip_address(value)
        except ValueError:
            if not _is_host_name(value):
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
        if value and (not value.startswith(("http://", "https://")) or set("{}") & set(PLACES.sub("", value))):
            raise ValueError(f"{value[:64]!r} is no pattern of an address; {hint}")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "null" in value:
            # Every page in a sandbox has it.
            raise ValueError("'null' is the origin of any page that hides its own; name the origins, or '*' for all")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is not a host; write names and addresses without a port, IPv6 in brackets")
        return value


def index_path(settings: Settings) -> Path:
    return settings.index if settings.index is not None else default_index_path()


def _is_host_name(text: str) -> bool:
    try:
        return bool(re.fullmatch(r"\w[\w.-]*", text) and text.encode("idna"))
    except UnicodeError:  # a part is empty or too long
        return False


def is_loopback(host: str) -> bool:
    """Returns True if a host, without port and brackets, is a loopback address of this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
