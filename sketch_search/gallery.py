"""Searches a gallery on this machine, and uses the network without an index."""

import hashlib
import io
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sketch_search import indexer
from sketch_search.answers import Picture, Searches, Sketches, check, picture_bytes, picture_image
from sketch_search.model import Matcher
from sketch_search.model.engine import Floats, Modality, Tokens, default_checkpoint, unit
from sketch_search.model.terminal import printable
from sketch_search.service.engine import SearchEngine, name_network, open_matcher
from sketch_search.service.gallery import LocalGallery
from sketch_search.service.schemas.explain import ExplainParams, ExplainResponse
from sketch_search.service.schemas.query import SearchQuery, TunedQuery
from sketch_search.service.schemas.search import SearchResponse
from sketch_search.service.settings import Settings

# Pictures that are prepared at a time before encoding: four chunks of photos, some 40 MB.
_BATCH = 64


class Gallery(Searches):
    """The photos of an index on this machine, searched in this process. Refusals are a ``UserError``."""

    _query = TunedQuery

    def __init__(self, settings: Settings, matcher: Matcher | None = None) -> None:
        self.matcher = open_matcher(settings) if matcher is None else matcher
        self._engine: SearchEngine | None = SearchEngine(settings, self.matcher)

    @classmethod
    def open(
        cls,
        *folders: str | os.PathLike[str],
        index: str | os.PathLike[str] | None = None,
        update: bool = True,
        progress: bool = True,
        weights: str | os.PathLike[str] | None = None,
        device: str = "auto",
    ) -> Self:
        """Indexes the photos below the folders, or updates their index, and opens it.

        index: None for the default index if it has exactly these folders, or none are given; else one beside it.
        update: whether to look for changes. progress: whether to report it. weights: None for SKETCH_SEARCH_WEIGHTS or
        the default. device: "cpu", "cuda" or "auto". Warns of photos that stay although not found. Raises UserError.
        """
        if impossible := [folder for folder in folders if "\0" in os.fspath(folder)]:
            raise indexer.BadInvocation(f"no folder can be named {impossible[0]!r}; name a folder of photos.")
        opened = [indexer.folder_of(folder) for folder in folders]
        path = Path(index).expanduser() if index is not None else _index_of(opened)
        settings = _settings(weights, device, index=path)
        request = indexer.BuildRequest(folders, allow_root_removal=False)
        new = not (path / "CURRENT").exists()
        if opened:
            request.check(path)
        elif new:
            raise indexer.BadInvocation(
                f"there is no index at {path} yet; name your photos, as in Gallery.open('~/Pictures')."
            )
        if progress and new:
            print(_first_time(opened), file=sys.stderr, flush=True)
        matcher = open_matcher(settings)
        if update or new:
            request = replace(request, max_pixels=settings.max_photo_pixels)
            for sentence in indexer.build(path, request, matcher, indexer.Progress(bar=progress)).kept:
                warnings.warn(sentence, stacklevel=2)
        return cls(settings, matcher)

    def __len__(self) -> int:
        return self.engine.gallery.photo_count

    @property
    def engine(self) -> SearchEngine:
        """The index and the network. Raises ValueError once the gallery is closed."""
        if self._engine is None:
            raise ValueError("this gallery is closed; open it again")
        return self._engine

    def vectors(self) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """Returns the ids of all photos, (n,) ascending, and their vectors of length 1, (n, d), which are those that
        ``encode`` makes of sketches and photos, in fewer bits."""
        index = cast(LocalGallery, self.engine.gallery).index
        rows = index.wholes[np.argsort(index.ids[index.wholes])]
        return index.ids[rows], index.vectors.kept(rows)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _search(self, sketch: Sketches | None, query: SearchQuery) -> SearchResponse:
        return self.engine.search(None if sketch is None else self.engine.prepare(sketch, query), query)

    def _explain(self, sketch: Sketches | None, params: ExplainParams) -> ExplainResponse:
        return self.engine.explain(None if sketch is None else self.engine.prepare(sketch, params), params)

    def _id_at(self, path: str) -> int:
        if "\0" in path:
            raise indexer.BadInvocation(f"the index has no photo at {path!r}; name one as results show it.")
        return self.engine.gallery.photo_at(path).id

    def _path(self, shown: str) -> str:
        return self.engine.gallery.address_of(shown)

    def _original(self, photo_id: int) -> bytes:
        return self.engine.gallery.open_photo(photo_id).whole()

    def _thumbnail(self, photo_id: int, size: int) -> bytes:
        return self.engine.thumbnail(self.engine.gallery.photo(photo_id), size)


def encode(
    pictures: Sequence[Picture], kind: Modality = "photo", *, weights: str | None = None, device: str = "auto"
) -> NDArray[np.float32]:
    """Returns vectors (n, d) float32 of length 1 for your own database: sketches lie near photos of the same things.

    kind: "sketch" or "photo". weights, device: as for ``Gallery.open``.
    """
    _check_list(pictures)
    matcher = _open(_settings(weights, device))
    if not len(pictures):
        return np.empty((0, matcher.config.width), np.float32)
    return unit(_tokens(matcher, pictures, kind).ret)


def rank(
    sketch: Picture, photos: Sequence[Picture], *, weights: str | None = None, device: str = "auto"
) -> list[tuple[int, float]]:
    """Ranks photos for a sketch: index and score by the checkpoint's best method, best first."""
    _check_list(photos)
    matcher = _open(_settings(weights, device))
    if not len(photos):
        return []
    scores = matcher.scores(_tokens(matcher, [sketch], "sketch"), _tokens(matcher, photos, "photo"))[0]
    order = np.argsort(-scores, kind="stable").tolist()
    return [(index, float(scores[index])) for index in order]


def _open(settings: Settings) -> Matcher:
    """Opens the checkpoint of the settings, once until its file changes."""
    path = default_checkpoint(name_network(settings))
    stat = path.stat()
    return _opened(settings, path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)
def _opened(settings: Settings, *_: object) -> Matcher:
    return open_matcher(settings)


def _settings(weights: str | os.PathLike[str] | None, device: str, **paths: Path) -> Settings:
    """Makes the settings of a server; the environment supplies the defaults."""
    if weights is not None:
        paths["weights"] = Path(weights)
    return check(Settings, device=device, **paths)


def _check_list(pictures: object) -> None:
    if isinstance(pictures, str | bytes | os.PathLike | Image.Image):
        raise TypeError("pass a list of pictures, even for a single one")


def _tokens(matcher: Matcher, pictures: Iterable[Picture], kind: Modality) -> Tokens:
    """Encodes pictures in batches: a single photo takes as long as a whole chunk of the matcher."""

    def prepared(picture: Picture) -> Floats:
        if isinstance(picture, Image.Image) or hasattr(picture, "__array__"):
            return matcher.prepare(picture_image(picture), kind)
        return matcher.prepare(matcher.open(io.BytesIO(picture_bytes(picture)), kind), kind)

    waiting, parts = map(prepared, pictures), []
    while batch := list(islice(waiting, _BATCH)):
        parts.append(matcher.encode(np.stack(batch), kind))
    return Tokens.cat(parts)


def _first_time(folders: Sequence[indexer.Folder]) -> str:
    """Returns a message that photos are being read, and whether the default index has them beside others."""
    names = ", ".join(printable(str(folder)) for folder in folders) or "the indexed folders"
    message = f"Reading the photos of {names} for the first time; a thousand take about a minute."
    with suppress(indexer.IndexRefused):
        if folders and set(folders) < set(indexer.indexed_folders(indexer.default_index_path())):
            message += " The default index already has them, beside others: Gallery.open() without folders searches it."
    return message


def _index_of(folders: Sequence[indexer.Folder]) -> Path:
    """Returns the default index if it has exactly these folders, else a separate one."""
    default = indexer.default_index_path()
    if not folders:
        return default
    try:
        known = set(indexer.indexed_folders(default))
    except indexer.IndexRefused:
        known = set()
    if known == set(folders):
        return default
    named = hashlib.sha256("\n".join(sorted(map(str, folders))).encode("utf-8", "surrogateescape")).hexdigest()
    return default.parent / "galleries" / f"{folders[0].name}-{named[:8]}"
