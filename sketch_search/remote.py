"""Searches a gallery on a server, without loading a network."""

from sketch_search.answers import Searches, Sketches
from sketch_search.model.errors import UserError
from sketch_search.service.client import MAX_BYTES, Client
from sketch_search.service.schemas import ExplainParams, ExplainResponse, SearchQuery, SearchResponse


class Remote(Searches):
    """The photos of a server. Its refusals are a ``UserError``; without an answer, a ConnectionError is raised."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        timeout: float = 60.0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Takes the arguments of ``service.client.Client``, and sends nothing yet."""
        self.client = Client(url, api_key, timeout, max_bytes)

    def close(self) -> None:
        self.client.close()

    def _search(self, sketch: Sketches | None, query: SearchQuery) -> SearchResponse:
        return self.client.search(sketch, query)

    def _explain(self, sketch: Sketches | None, params: ExplainParams) -> ExplainResponse:
        return self.client.explain(sketch, **params.model_dump(exclude_defaults=True))

    def _id_at(self, path: str) -> int:
        raise UserError(f"a server cannot look up photos by paths such as {path!r}; pass the photo or its id.")

    def _path(self, shown: str) -> str:
        return shown

    def _original(self, photo_id: int) -> bytes:
        return self.client.photo(photo_id)

    def _thumbnail(self, photo_id: int, size: int) -> bytes:
        return self.client.thumbnail(photo_id, size)
