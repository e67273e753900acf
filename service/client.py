"""A small client of the HTTP API."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from model.errors import Refusal
from service.schemas import (
    ClusterResponse,
    ErrorResponse,
    ExplainParams,
    ExplainResponse,
    InfoResponse,
    PhotosResponse,
    SearchQuery,
    SearchResponse,
    WordsResponse,
)

if TYPE_CHECKING:
    from PIL import Image

M = TypeVar("M", bound=BaseModel)


class ServiceError(Refusal):
    """The server refused, or failed.

    Attributes:
        code: as the server said it, or "unexpected_answer" where the answer is not one of this API.
        message, request_id: as the server said them.
        status: the HTTP status.
    """

    def __init__(self, code: str, message: str, request_id: str, status: int) -> None:
        super().__init__(f"{message} ({status} {code}, request {request_id})")
        self.code = code
        self.message = message
        self.request_id = request_id
        self.status = status


class Client:
    """A connection to one server. It is a context manager, and threads may share it.

    All methods raise ServiceError for an answer that is not a success, and ConnectionError where none comes.
    """

    def __init__(
        self, base_url: str = "http://127.0.0.1:8000", api_key: str | None = None, timeout: float = 60.0
    ) -> None:
        """Sends nothing yet.

        Args:
            base_url: of the server; with a token where the server has printed it so.
            api_key: the server's key, where it has one.
            timeout: seconds without any progress after which a request is given up.
        """
        place = httpx.URL(base_url)
        headers = {} if api_key is None else {"X-API-Key": api_key}
        if "token" in place.params:
            headers["X-SBIR-Token"] = place.params["token"]
        # A proxy that the environment names could not reach this machine's own addresses.
        direct: dict[str, httpx.BaseTransport | None] = {"all://127.0.0.1": None, "all://localhost": None}
        self._http = httpx.Client(base_url=place.copy_with(query=None), headers=headers, timeout=timeout, mounts=direct)

    def search(
        self,
        sketch: str | os.PathLike[str] | bytes | Image.Image | None = None,
        query: SearchQuery | None = None,
        **options: Any,
    ) -> SearchResponse:
        """Returns the photos that match a sketch best, look like liked ones, and show what a word names.

        Args:
            sketch: a path, the bytes of an image file, or a picture; None for a search by liked photos or a word alone.
            query: what is asked; None for what ``options`` say.
            options: the fields of a SearchQuery, as in ``search("cat.png", k=5, like=[17])``.

        Raises:
            ValueError: an option that does not exist, or is out of its range.
            TypeError: both a query and options.
        """
        if query is None:
            query = SearchQuery(**options)
        elif options:
            raise TypeError("give a query or options, not both")
        params = query.model_dump(mode="json", exclude_defaults=True)
        body = b"" if sketch is None else as_bytes(sketch)
        return self._model(SearchResponse, self._answer("POST", "/search", params=params, content=body))

    def explain(
        self, sketch: str | os.PathLike[str] | bytes | Image.Image | None = None, **options: Any
    ) -> ExplainResponse:
        """Explains why photos match a sketch, or are like a photo.

        Args:
            sketch: as in ``search``, or with ``kind="photo"`` a photo; None with ``like``, the id of a photo.
            options: the fields of ExplainParams, as in ``explain("cat.png", photo=[17])``.

        Raises:
            ValueError: an option that does not exist, or is out of its range; or no ``photo``.
        """
        params = ExplainParams(**options).model_dump(mode="json", exclude_defaults=True)
        body = b"" if sketch is None else as_bytes(sketch)
        return self._model(ExplainResponse, self._answer("POST", "/explain", params=params, content=body))

    def photos(self, *ids: int) -> PhotosResponse:
        """Describes 1 to 64 photos as results do, such as the copies of one."""
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
        """Returns words that photos can be found by and that begin with ``prefix``, at most ``limit`` of them."""
        return self._model(WordsResponse, self._answer("GET", "/words", params={"prefix": prefix, "limit": limit}))

    def info(self) -> InfoResponse:
        """Describes what the server has loaded."""
        return self._model(InfoResponse, self._answer("GET", "/info"))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Sends a request, with the options of httpx, and returns its answer, which is a success."""
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise ConnectionError(f"no server answers at {self._http.base_url}: {error}") from error
        if response.is_success:
            return response
        try:
            detail = ErrorResponse.model_validate_json(response.content).error
        except ValidationError:
            raise _unexpected(response) from None
        raise ServiceError(detail.code, detail.message, detail.request_id, response.status_code)

    @staticmethod
    def _model(kind: type[M], response: httpx.Response) -> M:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise _unexpected(response) from error


def _unexpected(response: httpx.Response) -> ServiceError:
    request_id = response.headers.get("x-request-id", "-")
    return ServiceError(
        "unexpected_answer", f"{response.url} does not answer like this API.", request_id, response.status_code
    )


def as_bytes(sketch: str | os.PathLike[str] | bytes | Image.Image) -> bytes:
    """Returns a picture as the bytes of an image file. Raises OSError for a file that cannot be read."""
    if isinstance(sketch, bytes):
        return sketch
    if isinstance(sketch, str | os.PathLike):
        return Path(sketch).read_bytes()
    out = io.BytesIO()
    sketch.save(out, "PNG")  # without loss, so that the server sees the same pixels
    return out.getvalue()
