"""Searches a gallery on a server, without loading a network."""

import os
import re
import ssl
from collections.abc import Mapping
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

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        timeout: float = 60.0,
        *,
        headers: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | str | os.PathLike[str] | bool = True,
        cert: str | os.PathLike[str] | tuple[str, ...] | None = None,
    ) -> None:
        """Sends nothing yet. Raises ValueError, or UserError for what cannot be used here.

        url: with the token, if any. timeout: seconds without progress. headers: sent with each request, such as a
        proxy's access token. verify: False, or a file or folder of certificates of authorities. cert: the client's own
        certificate, or it and its key.
        """
        try:
            address = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{_bare(url)!r} is not the address of a server, such as http://127.0.0.1:8000") from error
        sent = {**(headers or {}), "X-API-Key": api_key, "X-SBIR-Token": address.params.get("token")}
        for name, secret in sent.items():
            if secret is not None and not (secret.isprintable() and name.isascii()):
                raise ValueError(f"the value of {name} has a character that cannot be sent, such as a line break")
        coded = {name.encode(): secret.encode() for name, secret in sent.items() if secret is not None}
        base, variables = address.copy_with(query=None), {"SSL_CERT_FILE", "SSL_CERT_DIR"}
        named = {name: value for name, value in (("verify", verify), ("cert", cert)) if value not in (None, True)}
        try:
            # No proxy of the environment could reach this machine, and without TLS no certificates are read.
            context = _certified(verify, cert) if base.scheme == "https" else False
            variables, named = {"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}, {}
            self._http = httpx.Client(
                base_url=base, headers=coded, timeout=timeout, verify=context, trust_env=not is_loopback(base.host)
            )
        except (OSError, ImportError, ValueError, httpx.InvalidURL) as error:
            named = named or {name: value for name, value in os.environ.items() if name.upper() in variables}
            by = ", ".join(f"{name}={value!r}" for name, value in named.items())
            raise UserError(_bare(f"{base} cannot be asked by {by}: {error}; unset or correct it.")) from error

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
            address = _bare(str(self._http.base_url))
            raise ConnectionError(f"no server answers at {address}: {printable(str(error))}") from error
        if response.is_success:
            return response
        detail = _parse(ErrorResponse, response).error
        raise ClientError(detail.code, detail.message, detail.request_id, response.status_code)


def _bare(text: str) -> str:
    """Leaves out names, passwords and tokens of the addresses in a text."""
    return re.sub(r"([?&]token=)[^&\s'\"]*", r"\1...", re.sub(r"(?<=//)[^/?#\s]*@", "", text))


def _certified(
    verify: ssl.SSLContext | str | os.PathLike[str] | bool, cert: str | os.PathLike[str] | tuple[str, ...] | None
) -> ssl.SSLContext:
    """Makes what httpx makes of these. Raises OSError: a file cannot be read, or has no certificates."""
    if isinstance(verify, str | os.PathLike):
        folder = os.fspath(verify) if os.path.isdir(verify) else None
        context = ssl.create_default_context(cafile=None if folder else verify, capath=folder)
    else:
        context = verify if isinstance(verify, ssl.SSLContext) else httpx.create_ssl_context(verify=verify)
    if cert is not None:
        context.load_cert_chain(*((cert,) if isinstance(cert, str | os.PathLike) else cert))
    return context


def _parse(model: type[M], response: httpx.Response) -> M:
    try:
        return model.model_validate_json(response.content)
    except ValueError as error:
        request_id = response.headers.get("x-request-id", "-")
        message = f"{_bare(str(response.url))} did not answer as this API does."
        raise ClientError("unexpected_answer", message, request_id, response.status_code) from error
