"""Searches a gallery on a server, without loading a network."""

import os
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from sketch_search.answers import Searches, Sketches
from sketch_search.model.errors import UserError
from sketch_search.model.terminal import printable
from sketch_search.service.errors import ErrorResponse
from sketch_search.service.schemas.explain import ExplainParams, ExplainResponse
from sketch_search.service.schemas.query import Params, SearchQuery
from sketch_search.service.schemas.search import SearchResponse
from sketch_search.service.settings import is_loopback

M = TypeVar("M", bound=BaseModel)


class ClientError(UserError):
    """The server refused a request, or failed: the HTTP status, and what the server says, in printable characters.

    The code is "unexpected_answer" if the answer is not from this API.
    """

    def __init__(self, code: str, message: str, request_id: str, status: int) -> None:
        self.code, self.message, self.request_id = map(printable, (code, message, request_id))
        self.status = status
        super().__init__(f"{self.message} ({status} {self.code}, request {self.request_id})")


class Remote(Searches):
    """The photos of a server. Threads may share it. Raises ClientError, and ConnectionError without an answer."""

    def __init__(self, url: str = "http://127.0.0.1:8000", api_key: str | None = None, timeout: float = 60.0) -> None:
        """Sends nothing yet. url: with the token, if any. timeout: seconds without progress. Raises ValueError."""
        try:
            address = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{url!r} is not the address of a server, such as http://127.0.0.1:8000") from error
        headers = dict[bytes, bytes]()
        for name, secret in ((b"X-API-Key", api_key), (b"X-SBIR-Token", address.params.get("token"))):
            if secret is None:
                continue
            if not secret.isprintable():
                raise ValueError("the key or the token has a character that cannot be sent, such as a line break")
            headers[name] = secret.encode()
        base, variables = address.copy_with(query=None), {"SSL_CERT_FILE", "SSL_CERT_DIR"}
        try:
            # No proxy of the environment could reach this machine, and without TLS no certificates are read.
            verify = httpx.create_ssl_context() if base.scheme == "https" else False
            variables = {"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
            self._http = httpx.Client(
                base_url=base, headers=headers, timeout=timeout, verify=verify, trust_env=not is_loopback(base.host)
            )
        except (OSError, ImportError, ValueError, httpx.InvalidURL) as error:
            named = [f"{name}={value!r}" for name, value in os.environ.items() if name.upper() in variables]
            raise UserError(f"{url} cannot be asked by {', '.join(named)}: {error}; unset or correct it.") from error

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
        return self._answer("GET", f"/photos/{photo_id}").content

    def _thumbnail(self, photo_id: int, size: int) -> bytes:
        return self._answer("GET", f"/thumbnails/{photo_id}", params={"size": size}).content

    def _post(self, model: type[M], path: str, options: Params, sketch: Sketches | None) -> M:
        body: dict[str, Any] = {"content": b"" if sketch is None else sketch}
        if isinstance(sketch, tuple):
            body = {"files": [("file", ("thing", picture)) for picture in sketch]}
        params = options.model_dump(mode="json", exclude_defaults=True)
        return _parse(model, self._answer("POST", path, params=params, **body))

    def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.RequestError as error:
            raise ConnectionError(f"no server answers at {self._http.base_url}: {printable(str(error))}") from error
        if response.is_success:
            return response
        detail = _parse(ErrorResponse, response).error
        raise ClientError(detail.code, detail.message, detail.request_id, response.status_code)


def _parse(model: type[M], response: httpx.Response) -> M:
    try:
        return model.model_validate_json(response.content)
    except ValueError as error:
        request_id = response.headers.get("x-request-id", "-")
        message = f"{response.url} did not answer as this API does."
        raise ClientError("unexpected_answer", message, request_id, response.status_code) from error
