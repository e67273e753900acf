"""Calls the HTTP API."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias, TypeVar

import httpx
from pydantic import BaseModel

from sketch_search.model.errors import UserError
from sketch_search.model.terminal import printable
from sketch_search.service.schemas import (
    ClusterResponse,
    ErrorResponse,
    ExplainParams,
    ExplainResponse,
    InfoResponse,
    Params,
    PhotosResponse,
    SearchQuery,
    SearchResponse,
    WordsResponse,
)

if TYPE_CHECKING:
    from PIL import Image

    Sketch: TypeAlias = str | os.PathLike[str] | bytes | Image.Image
    # A sketch, or one for each thing of a drawing.
    Drawn: TypeAlias = Sketch | list[Sketch] | tuple[Sketch, ...]

M = TypeVar("M", bound=BaseModel)


#: The most bytes of an answer by default.
MAX_BYTES = 64 << 20
# The most values of an answer. An explanation of twelve photos has some hundred thousand; each wrong one costs 400
# bytes.
_MAX_VALUES = 1_000_000
# The most characters of a server's message that an error repeats. This server's messages are shorter.
_MAX_TEXT = 1000


class ClientError(UserError):
    """The server refused a request, or failed. ``status`` is the HTTP status.

    ``code``, ``message`` and ``request_id`` come from the server, in printable characters and cut to 1,000; the code
    is "unexpected_answer" if the answer is not from this API, and "too_large" if it is too large.
    """

    def __init__(self, code: str, message: str, request_id: str, status: int) -> None:
        code, message, request_id = (printable(text[:_MAX_TEXT]) for text in (code, message, request_id))
        super().__init__(f"{message} ({status} {code}, request {request_id})")
        self.code = code
        self.message = message
        self.request_id = request_id
        self.status = status


class Client:
    """A connection to a server, shared by threads. Methods raise ClientError, and ConnectionError without an answer."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        timeout: float = 60.0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Sends nothing yet. Raises ValueError for an invalid URL or key.

        base_url: with the token if the server printed it. timeout: seconds without progress. max_bytes: of an answer.
        """
        try:
            address = httpx.URL(base_url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{base_url!r} is not the address of a server, such as http://127.0.0.1:8000") from error
        headers = {b"Accept-Encoding": b"identity"}
        for name, secret in ((b"X-API-Key", api_key), (b"X-SBIR-Token", address.params.get("token"))):
            if secret is None:
                continue
            if not secret.isprintable():
                raise ValueError("the key or the token has a character that cannot be sent, such as a line break")
            headers[name] = secret.encode()
        # A proxy from the environment could not reach this machine's own addresses.
        direct: dict[str, httpx.BaseTransport | None] = {"all://127.0.0.1": None, "all://localhost": None}
        self._max_bytes = max_bytes
        base = address.copy_with(query=None)
        self._http = httpx.Client(base_url=base, headers=headers, timeout=timeout, mounts=direct)

    def search(self, sketch: Drawn | None = None, query: SearchQuery | None = None, **options: Any) -> SearchResponse:
        """Returns the photos that best match a sketch, liked photos and a word. Raises ValueError for bad options.

        sketch: a path, bytes or a picture; several of one size for the things of one drawing; or None.
        query: None to make it from the ``options``, as in ``search("cat.png", k=5)``.
        """
        if query is None:
            query = SearchQuery(**options)
        elif options:
            raise TypeError("give a query or options, not both")
        return self._asked(SearchResponse, "/search", query, sketch)

    def explain(self, sketch: Drawn | None = None, **options: Any) -> ExplainResponse:
        """Explains why photos match, with the fields of ExplainParams, as in ``explain("cat.png", photo=[17])``."""
        return self._asked(ExplainResponse, "/explain", ExplainParams(**options), sketch)

    def photos(self, *ids: int) -> PhotosResponse:
        """Describes 1 to 64 photos like results, for example the copies of one."""
        return self._model(PhotosResponse, self._answer("GET", "/photos", params={"id": list(ids)}))

    def photo(self, photo_id: int) -> bytes:
        """Returns the original file of a photo."""
        return self._answer("GET", f"/photos/{photo_id}").content

    def thumbnail(self, photo_id: int, size: int = 256) -> bytes:
        """Returns a JPEG of a photo, its longest side at most ``size`` pixels."""
        return self._answer("GET", f"/thumbnails/{photo_id}", params={"size": size}).content

    def cluster(self, cluster_id: int, *, k: int | None = None, offset: int = 0) -> ClusterResponse:
        """Returns some of a cluster's photos, by id."""
        params = {"offset": offset} if k is None else {"k": k, "offset": offset}
        return self._model(ClusterResponse, self._answer("GET", f"/clusters/{cluster_id}", params=params))

    def words(self, prefix: str = "", limit: int = 20) -> WordsResponse:
        """Returns at most ``limit`` words to search by that begin with ``prefix``."""
        return self._model(WordsResponse, self._answer("GET", "/words", params={"prefix": prefix, "limit": limit}))

    def info(self) -> InfoResponse:
        """Describes the server's network, index and limits."""
        return self._model(InfoResponse, self._answer("GET", "/info"))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(self, model: type[M], path: str, asked: Params, sketch: Drawn | None) -> M:
        params = asked.model_dump(mode="json", exclude_defaults=True)
        if isinstance(sketch, list | tuple):
            files = [("file", ("thing", as_bytes(one))) for one in sketch]
            return self._model(model, self._answer("POST", path, params=params, files=files))
        body = b"" if sketch is None else as_bytes(sketch)
        return self._model(model, self._answer("POST", path, params=params, content=body))

    def _answer(self, method: str, path: str, **options: Any) -> _Answer:
        """Returns the answer to a successful request."""
        content = bytearray()
        try:
            with self._http.stream(method, path, **options) as response:
                # Not decompressed, since a small answer could decompress to any size.
                for piece in response.iter_raw():
                    content += piece
                    if len(content) > self._max_bytes:
                        raise _make_error(
                            response,
                            "too_large",
                            f"answers with more than {self._max_bytes} bytes; if that is expected, raise max_bytes",
                        )
        except httpx.TransportError as error:
            raise ConnectionError(f"no server answers at {self._http.base_url}: {printable(str(error))}") from error
        if response.is_success:
            return _Answer(response, bytes(content))
        detail = self._model(ErrorResponse, _Answer(response, bytes(content))).error
        raise ClientError(detail.code, detail.message, detail.request_id, response.status_code)

    @staticmethod
    def _model(model: type[M], answer: _Answer) -> M:
        response, content = answer
        if content.count(b",") > _MAX_VALUES:
            raise _make_error(response, "too_large", f"answers with more than {_MAX_VALUES} values")
        try:
            # By Python's parser, because pydantic's copies the whole document for each error.
            return model.model_validate(json.loads(content))
        except (ValueError, RecursionError) as error:
            raise _make_error(response, "unexpected_answer", "did not answer as this API does") from error


class _Answer(NamedTuple):
    response: httpx.Response
    content: bytes


def _make_error(response: httpx.Response, code: str, problem: str) -> ClientError:
    request_id = response.headers.get("x-request-id", "-")
    return ClientError(code, f"{response.url} {problem}.", request_id, response.status_code)


def as_bytes(sketch: Sketch) -> bytes:
    """Returns a picture as the bytes of an image file. Raises OSError, and ImageError for a file of another type."""
    if isinstance(sketch, bytes):
        return sketch
    if isinstance(sketch, str | os.PathLike):
        from sketch_search.model.images import read_image_file  # late, because a client may not need to read a file

        return read_image_file(sketch)
    out = io.BytesIO()
    sketch.save(out, "PNG")  # lossless, so that the server gets the same pixels
    return out.getvalue()
