"""Searches a gallery on a server, without loading a network."""

import json
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from sketch_search.answers import Searches, Sketches
from sketch_search.model.errors import UserError
from sketch_search.model.terminal import printable
from sketch_search.service.schemas.errors import ErrorResponse
from sketch_search.service.schemas.explain import ExplainParams, ExplainResponse
from sketch_search.service.schemas.query import Params, SearchQuery
from sketch_search.service.schemas.search import SearchResponse

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
        self.code, self.message, self.request_id = (printable(text[:_MAX_TEXT]) for text in (code, message, request_id))
        self.status = status
        super().__init__(f"{self.message} ({status} {self.code}, request {self.request_id})")


class Remote(Searches):
    """The photos of a server. Threads may share it.

    Methods raise ClientError, and ConnectionError without an answer.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        timeout: float = 60.0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Sends nothing yet. Raises ValueError for an invalid URL or key.

        url: with the token if the server printed it. timeout: seconds without progress. max_bytes: of an answer.
        """
        try:
            address = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{url!r} is not the address of a server, such as http://127.0.0.1:8000") from error
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

    def close(self) -> None:
        self._http.close()

    def _search(self, sketch: Sketches | None, query: SearchQuery) -> SearchResponse:
        return self._post(SearchResponse, "/search", query, sketch)

    def _explain(self, sketch: Sketches | None, params: ExplainParams) -> ExplainResponse:
        return self._post(ExplainResponse, "/explain", params, sketch)

    def _id_at(self, path: str) -> int:
        raise UserError(f"a server cannot look up photos by paths such as {path!r}; pass the photo or its id.")

    def _path(self, shown: str) -> str:
        return shown

    def _original(self, photo_id: int) -> bytes:
        return self._answer("GET", f"/photos/{photo_id}")[1]

    def _thumbnail(self, photo_id: int, size: int) -> bytes:
        return self._answer("GET", f"/thumbnails/{photo_id}", params={"size": size})[1]

    def _post(self, model: type[M], path: str, asked: Params, sketch: Sketches | None) -> M:
        body: dict[str, Any] = {"content": b"" if sketch is None else sketch}
        if isinstance(sketch, tuple):
            body = {"files": [("file", ("thing", one)) for one in sketch]}
        params = asked.model_dump(mode="json", exclude_defaults=True)
        return _parse(model, *self._answer("POST", path, params=params, **body))

    def _answer(self, method: str, path: str, **options: Any) -> tuple[httpx.Response, bytes]:
        """Returns the answer to a successful request, and its body."""
        content = bytearray()
        try:
            with self._http.stream(method, path, **options) as response:
                # Not decompressed, since a small answer could decompress to any size.
                for piece in response.iter_raw():
                    content += piece
                    if len(content) > self._max_bytes:
                        problem = (
                            f"answers with more than {self._max_bytes} bytes; if that is expected, raise max_bytes"
                        )
                        raise _unusable(response, "too_large", problem)
        except httpx.TransportError as error:
            raise ConnectionError(f"no server answers at {self._http.base_url}: {printable(str(error))}") from error
        if response.is_success:
            return response, bytes(content)
        detail = _parse(ErrorResponse, response, bytes(content)).error
        raise ClientError(detail.code, detail.message, detail.request_id, response.status_code)


def _parse(model: type[M], response: httpx.Response, content: bytes) -> M:
    if content.count(b",") > _MAX_VALUES:
        raise _unusable(response, "too_large", f"answers with more than {_MAX_VALUES} values")
    try:
        # By Python's parser, because pydantic's copies the whole document for each error.
        return model.model_validate(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise _unusable(response, "unexpected_answer", "did not answer as this API does") from error


def _unusable(response: httpx.Response, code: str, problem: str) -> ClientError:
    request_id = response.headers.get("x-request-id", "-")
    return ClientError(code, f"{response.url} {problem}.", request_id, response.status_code)
