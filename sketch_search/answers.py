"""Defines the answers of a search, and the methods that ``Gallery`` and ``Remote`` share."""

import base64
import errno
import html
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ValidationError

from sketch_search.model.errors import UserError
from sketch_search.model.terminal import expand_home, printable
from sketch_search.service.errors import describe_problems
from sketch_search.service.schemas.explain import ExplainedPhoto, ExplainParams, ExplainResponse
from sketch_search.service.schemas.query import SearchQuery, ThumbnailParams
from sketch_search.service.schemas.search import SearchResponse, SearchResult

if TYPE_CHECKING:
    from typing import Self

# A file, its path, its bytes or its data URL, a picture, or its pixels: see `picture_image`.
Picture: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[Any]
# A picture, or one for each thing of a drawing: all of the same size, each thing where it stands.
Drawn: TypeAlias = Picture | list[Picture] | tuple[Picture, ...]
# The bytes of these.
Sketches: TypeAlias = bytes | tuple[bytes, ...]
# Side of the thumbnails that a notebook shows, in pixels.
_SHOWN = 160
# No path is longer, so a longer text is a picture as base64.
_LONGEST_PATH = 4096

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Photo:
    """A photo found, shown by notebooks.

    id: constant while it is indexed. path: here, its URL, or as the server shows it; paths: of all copies.
    score: as the page shows it. rank: from 1. copies: ids of near duplicates, with ``fold=True``.
    """

    id: int
    path: str
    paths: tuple[str, ...]
    score: float
    rank: int
    copies: tuple[int, ...]
    # No field, so that dataclasses.asdict and pandas see a plain record. `Searches` sets it.
    _source: ClassVar["Searches | None"] = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_source"}

    @property
    def _gallery(self) -> "Searches":
        if self._source is None:
            raise UserError("a photo that was copied or pickled has lost its gallery; search again.")
        return self._source

    def read(self) -> bytes:
        """Returns the file. Raises UserError if it is gone or has changed since it was indexed."""
        return self._gallery._original(self.id)

    def image(self) -> Image.Image:
        """Returns the picture as indexed, upright, RGB; of a RAW file, the preview. Raises UserError."""
        from sketch_search.model.images import open_image

        return open_image(self.read())

    def thumbnail(self, size: int = 256) -> bytes:
        """Returns a JPEG whose longest side has at most ``size`` pixels. Raises ValueError unless it is 16 to 1024."""
        return self._gallery._thumbnail(self.id, check(ThumbnailParams, size=size).size)

    def _repr_jpeg_(self) -> bytes:
        return self.thumbnail()


# A photo that was found, its id, or its path as results show it or on disk. A string of digits is an id.
OnePhoto: TypeAlias = Photo | int | str | os.PathLike[str]
Liked: TypeAlias = OnePhoto | Iterable[OnePhoto] | None


class Results(tuple[Photo, ...]):
    """The photos of an answer, best first, shown by notebooks. answer: with guesses, timings_ms and so on."""

    answer: SearchResponse

    def __repr__(self) -> str:
        return f"Results({', '.join(printable(photo.path) for photo in self)})"

    def _repr_html_(self) -> str:
        pictures = [base64.b64encode(photo.thumbnail(_SHOWN)).decode() for photo in self]
        return "".join(
            f'<figure style="display:inline-block;margin:4px"><img src="data:image/jpeg;base64,{picture}">'
            f"<figcaption>{photo.rank}. {html.escape(Path(photo.path).name)} {photo.score:.3g}</figcaption></figure>"
            for photo, picture in zip(self, pictures, strict=True)
        )


@dataclass(frozen=True)
class Group:
    """Photos that look alike: the best, at most four more, and their number among the 200 best."""

    best: Photo
    more: tuple[Photo, ...]
    size: int


@dataclass(frozen=True)
class Explanation:
    """Explains a match by pairs of cells, strongest first, of a grid over the squares that the network saw, by rows.

    sketch_cells, photo_cells: (n,) int64. cosines: (n,) float64 in [-1, 1]. answer: complete, for this photo.
    """

    grid: int
    sketch_cells: NDArray[np.int64]
    photo_cells: NDArray[np.int64]
    cosines: NDArray[np.float64]
    sketch_image: Image.Image
    photo_image: Image.Image
    answer: ExplainedPhoto

    def _repr_png_(self) -> bytes:
        from sketch_search.model.images import as_png
        from sketch_search.service.explain import side_by_side

        cells = zip(self.sketch_cells.tolist(), self.photo_cells.tolist(), strict=True)
        return as_png(side_by_side(self.sketch_image, self.answer, cells, self.grid))


class Searches(ABC):
    _query: type[SearchQuery] = SearchQuery

    def search(
        self,
        sketch: Drawn | None = None,
        *,
        k: int | None = None,
        text: str | None = None,
        like: Liked = None,
        unlike: Liked = None,
        unlike_kind: Liked = None,
        **options: Any,
    ) -> Results:
        """Returns the photos that best match a sketch, liked photos and a word.

        sketch: a drawing, a list of pictures of one size for its things, or with ``kind="photo"`` a photo.
        k: the most; None for 20. text: a word, or any text if CLIP clustered the index. like, unlike,
        unlike_kind: photos, ids or paths. options: further fields of ``service.schemas.SearchQuery``, such as ``fold``.
        Raises TypeError for no photo; ValueError for bad options; UserError for unreadable pictures and the like.
        """
        liked = {"like": like, "unlike": unlike, "unlike_kind": unlike_kind}
        answer = self._response(sketch, k=k, text=text, **liked, **options)
        results = Results(map(self._photo, answer.results))
        results.answer = answer
        return results

    def groups(self, sketch: Drawn | None = None, **options: Any) -> list[Group]:
        """Returns the best photos, grouped by look. The arguments are those of ``search``; ``k`` counts groups."""
        if "view" in options:
            raise ValueError("groups have no other view; leave view out, or pass it to search")
        answer = self._response(sketch, **options, view="groups")
        groups = answer.groups or ()
        return [Group(self._photo(group.best), tuple(map(self._photo, group.more)), group.size) for group in groups]

    def explain(self, sketch: Drawn | None, photo: OnePhoto, **options: Any) -> Explanation:
        """Explains why a photo matches a sketch; options are fields of ``service.schemas.ExplainParams``."""
        options.setdefault("nearest", 0)
        if options.get("like") is not None:
            options["like"] = self._id(options["like"])
        params = check(ExplainParams, photo=[self._id(photo)], **options)
        answer = self._explain(_drawn_bytes(sketch), params)
        explained = answer.photos[0]
        rows = [(match.sketch_cell, match.photo_cell) for match in explained.matches]
        cells = np.array(rows, np.int64).reshape(-1, 2)
        return Explanation(
            grid=answer.grid,
            sketch_cells=cells[:, 0],
            photo_cells=cells[:, 1],
            cosines=np.array([match.cosine for match in explained.matches], np.float64),
            sketch_image=answer.sketch.picture(),
            photo_image=explained.picture(),
            answer=explained,
        )

    def _response(self, sketch: Drawn | None, **options: Any) -> SearchResponse:
        fields = {name: value for name, value in options.items() if value is not None}
        fields |= {name: self._ids(fields[name]) for name in ("like", "unlike", "unlike_kind") if name in fields}
        if isinstance(fields.get("folder"), str):
            fields["folder"] = (fields["folder"],)
        query = check(self._query, **fields)
        return self._search(_drawn_bytes(sketch), query)

    def _ids(self, photos: Liked) -> list[int]:
        if photos is None:
            return []
        if isinstance(photos, str | bytes | os.PathLike) or not isinstance(photos, Iterable):
            return [self._id(photos)]
        return list(map(self._id, photos))

    def _id(self, photo: object) -> int:
        if isinstance(photo, Photo):
            return photo.id
        if isinstance(photo, Integral) and not isinstance(photo, bool):
            return int(photo)
        if isinstance(photo, str | os.PathLike):
            path = os.fspath(photo)
            if isinstance(path, str):
                return int(path) if path.isascii() and path.isdecimal() else self._id_at(path)
        raise TypeError(f"name a photo by its result, its id or its path, not by {photo!r}")

    def _photo(self, result: SearchResult) -> Photo:
        paths = tuple(map(self._path, result.paths))
        photo = Photo(result.id, paths[0], paths, result.score, result.rank, result.copies or ())
        vars(photo)["_source"] = self
        return photo

    @abstractmethod
    def close(self) -> None:
        """Closes files or connections."""

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _search(self, sketch: Sketches | None, query: SearchQuery) -> SearchResponse: ...
    @abstractmethod
    def _explain(self, sketch: Sketches | None, params: ExplainParams) -> ExplainResponse: ...
    @abstractmethod
    def _id_at(self, path: str) -> int: ...
    @abstractmethod
    def _path(self, shown: str) -> str: ...
    @abstractmethod
    def _original(self, photo_id: int) -> bytes: ...
    @abstractmethod
    def _thumbnail(self, photo_id: int, size: int) -> bytes: ...


def _drawn_bytes(drawn: Drawn | None) -> Sketches | None:
    if isinstance(drawn, list | tuple):
        return tuple(map(picture_bytes, drawn))
    return None if drawn is None else picture_bytes(drawn)


def picture_bytes(picture: Picture) -> bytes:
    """Returns a picture as the bytes of an image file.

    Raises OSError: the file cannot be read, or cannot exist, such as one of an unknown user. ImageError: it is of
    another type. TypeError, ValueError: the argument is not a picture.
    """
    from sketch_search.model.images import as_png, read_image_file

    if isinstance(picture, Image.Image) or hasattr(picture, "__array__"):
        return as_png(picture_image(picture))
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if not isinstance(picture, str | os.PathLike):
        data = picture.read() if hasattr(picture, "read") else None
        if isinstance(data, bytes):
            return data
        advice = "; open its file as open(path, 'rb')" if isinstance(data, str) else ""
        raise TypeError(
            "a picture must be a path, bytes, a file, a data URL, a PIL.Image or an array of pixels, "
            f"not {type(picture)}{advice}"
        )
    path = os.fspath(picture)
    if path[:5].lower() == "data:" or (len(path) > _LONGEST_PATH and path.isascii() and path.isprintable()):
        return path.encode()
    if "\0" in path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return read_image_file(expand_home(path))


def picture_image(picture: Picture) -> Image.Image:
    """Returns pixels as an image: (H, W), (H, W, 1), (H, W, 3), (H, W, 4), with the channels also first, or a row of a
    square's pixels, such as (784,). An image is returned as it is.

    Integers are from 0 to 255, floats from 0 to 1 or to 255, and True is white. Raises TypeError, ValueError.
    """
    if isinstance(picture, Image.Image):
        return picture
    pixels = np.asarray(picture)
    if pixels.dtype.kind not in "buif":
        raise TypeError(f"pixels must be numbers, from 0 to 255, not {pixels.dtype}")
    shape = pixels.shape
    side = math.isqrt(pixels.size)
    if sum(length > 1 for length in shape) == 1 and side * side == pixels.size:
        pixels = pixels.reshape(side, side)
    while pixels.ndim > 2 and 1 in (pixels.shape[0], pixels.shape[-1]):
        pixels = pixels[0] if pixels.shape[0] == 1 else pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[0] in (3, 4) and pixels.shape[-1] not in (3, 4):
        pixels = np.moveaxis(pixels, 0, -1)
    if not pixels.size or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)):
        raise ValueError(f"an array of pixels is (height, width) or (height, width, 3), not {shape}; pass one picture")
    if pixels.dtype == np.bool_:
        pixels = pixels * np.uint8(255)
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 255):
        raise ValueError(f"pixels must be from 0 to 255, or floats from 0 to 1, not from {low} to {high}; scale them")
    scale = 255 if pixels.dtype.kind == "f" and high <= 1 else 1
    return Image.fromarray(np.rint(pixels * scale).astype(np.uint8) if pixels.dtype != np.uint8 else pixels)


def check(model: type[M], **options: Any) -> M:
    """Makes a model of the options of a call. Raises ValueError with a sentence."""
    try:
        return model(**options)
    except ValidationError as error:
        raise ValueError(describe_problems(error.errors())) from None
