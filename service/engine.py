"""Opens a checkpoint and the index made with it. Server, command line and library all search by ``SearchEngine``."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sketch_search.indexer import NETWORK_OF, PhotoEntry, network_of, open_index
from sketch_search.model import Matcher, load
from sketch_search.model.decoding import Job, RunJob, decode_inline
from sketch_search.model.errors import BlankSketch
from sketch_search.model.images import MAX_THINGS, Day, Drawing
from sketch_search.model.limits import Compute, System, compute_at_once
from sketch_search.model.search import methods_of
from sketch_search.service.errors import BadSearch, NotFound, ShardsLost
from sketch_search.service.gallery import LocalGallery, ThumbnailCache, as_unavailable, reveal, thumbnail
from sketch_search.service.schemas.query import PageParams, PhotosParams, SearchQuery, WordsParams
from sketch_search.service.schemas.search import (
    ClusterResponse,
    DetectedBox,
    ListedPhoto,
    PhotoFacts,
    PhotosResponse,
    SearchResponse,
)
from sketch_search.service.search import ReadText, Searcher, TextTowers, continue_page, next_place
from sketch_search.service.settings import Settings, index_path

if TYPE_CHECKING:  # A search does without: the methods that need them import them.
    from sketch_search.service.schemas import explain as answers
    from sketch_search.service.sharding import IndexedGallery


def name_network(settings: Settings, system: System | None = None) -> str | Path:
    """Names the checkpoint of the settings, else that of the system, or of the index."""
    return settings.weights or (network_of(index_path(settings)) if system is None else NETWORK_OF[system])


def open_matcher(settings: Settings, system: System | None = None) -> Matcher:
    """Opens the checkpoint of the settings, else that of the system, or of the index. Raises ModelError."""
    name = name_network(settings, system)
    return load(name, device=settings.device, dtype=settings.dtype, variants=settings.variants)


class SearchEngine:
    """A checkpoint and a gallery: one index, or shards. The methods block; any thread may call them."""

    def __init__(
        self,
        settings: Settings,
        matcher: Matcher,
        thumbnails: ThumbnailCache | None = None,
        run: RunJob = decode_inline,
        towers: TextTowers | None = None,
        gallery: IndexedGallery | None = None,
    ) -> None:
        """thumbnails, towers: shared between generations; None for separate ones of this engine.

        run: decodes pictures of HTTP requests. gallery: None for the index of the settings, whose errors it raises.
        """
        self._settings = settings
        self._matcher = matcher
        self._thumbnails = ThumbnailCache(0) if thumbnails is None else thumbnails
        self._run = run
        self._towers = TextTowers(matcher.device) if towers is None else towers
        self._own: LocalGallery | None = None
        if gallery is None:
            index = open_index(index_path(settings), matcher, gallery_roots=settings.gallery or None)
            gallery = self._own = LocalGallery(index, matcher)
        self.gallery: IndexedGallery = gallery

    @property
    def system(self) -> System:
        return self._settings.system or self.gallery.system

    def searcher(self, gallery: IndexedGallery) -> Searcher:
        return Searcher(gallery, self._matcher, self._settings)

    def close(self) -> None:
        if self._own is not None:
            self._own.index.close()

    def prepare(
        self,
        sketch: bytes | Sequence[bytes],
        options: SearchQuery | answers.LocateParams | None = None,
        *,
        strokes: bytes = b"",
        quick: bool = False,
    ) -> Drawing:
        """Decodes and prepares the image files of a drawing, or of a photo, which becomes the drawing's only thing.

        It is a separate step, since it may take seconds and needs no network.

        sketch: one picture, or one for each thing of a drawing. options: says what it is; None for a drawing. strokes:
        those of a single picture as JSON, if they are known; else those that the page saved in it count.

        Raises ImageError, BadSearch; with ``quick``, SlowImage if it takes longer than ordinary pictures.
        """
        start, options = time.perf_counter(), options or SearchQuery()
        kind = options.kind
        files = (sketch,) if isinstance(sketch, bytes) else tuple(sketch)
        if not 1 <= len(files) <= MAX_THINGS:
            raise BadSearch(f"A drawing has 1 to {MAX_THINGS} things, not {len(files)}.")
        if len(files) > 1 and kind == "photo":
            raise BadSearch("Several pictures are the things of a drawing; with kind=photo, send one.")
        if strokes and (len(files) > 1 or kind == "photo"):
            raise BadSearch("Strokes are those of one drawing: send one picture with them, without kind=photo.")
        job = Job.preparing(self._matcher.preprocessing, kind, self._settings.max_pixels)
        job = replace(job, drawing=kind == "sketch", sent=True, strokes=len(strokes))
        job = replace(job, everything=options.writing == "yes", page=options.page, turn=options.turn)
        parts = []
        for number, file in enumerate(files, 1):
            try:
                opened = self._run(file + strokes, job, quick=quick)
            except BlankSketch as error:
                if len(files) == 1:
                    raise
                raise BlankSketch(f"of the {len(files)} pictures of the drawing, number {number}: {error}") from error
            parts.append(Drawing.of(np.asarray(opened.image)) if opened.drawing is None else opened.drawing)
        if len(sizes := {part.size for part in parts}) > 1:
            shown = " and ".join(f"{width} x {height}" for width, height in sorted(sizes)) + " pixels as drawings"
            raise BadSearch(f"The pictures of one drawing must have the same size; these have {shown}.")
        drawing = parts[0] if len(parts) == 1 else Drawing.joined(parts)
        return replace(drawing, prepare_ms=(time.perf_counter() - start) * 1000)

    def read_text(self, query: SearchQuery) -> ReadText:
        """Reads the text of a query by CLIP: a separate step, since loading CLIP may take seconds."""
        if query.text is None or not self._has_clip:
            return ReadText()
        return self._towers.read(self.gallery.embedder, query.text)

    def search(self, sketch: Drawing | None, query: SearchQuery, text: ReadText | None = None) -> SearchResponse:
        """Answers a query with a sketch, a photo, or neither, without shards that are lost. text: None to read it here.

        Raises BadSearch, UnknownPhoto, UnknownWord; ShardsLost if the query names a photo of a missing shard.
        """
        self._check_page_size(query.k)
        text = self.read_text(query) if text is None else text
        query, place = continue_page(query, self._settings)
        gallery = self.gallery
        while True:
            try:
                answer = self.searcher(gallery).search(sketch, query, text)
                of_none = () if answer.candidates or gallery.missing else gallery.without_photos(query.folder)
                if of_none:
                    raise BadSearch(
                        f"No indexed photo is below the folder {of_none[0]!r}; write it as results show paths, which "
                        "begin with the name of their indexed folder if there are several."
                    )
                return answer.model_copy(update={"next": next_place(query, place, answer)})
            except ShardsLost as lost:
                gallery = gallery.without(lost)

    def explain(
        self, sketch: Drawing | None, params: answers.ExplainParams, compute: Compute = compute_at_once
    ) -> answers.ExplainResponse:
        """Explains photos; compute runs each step. Raises BadSearch, UnknownPhoto, PhotoUnavailable; ShardsLost."""
        from sketch_search.service.explain import explain

        gallery = self.gallery
        if gallery.missing:
            raise ShardsLost(gallery.missing)
        return explain(self.searcher(gallery), sketch, params, self._run, compute)

    def locate(
        self, sketch: Drawing | None, params: answers.LocateParams, compute: Compute = compute_at_once
    ) -> answers.LocateResponse:
        """Finds where photos show the things of a drawing. Raises BadSearch, UnknownPhoto, and ShardsLost."""
        from sketch_search.service.explain import locate

        return locate(self.searcher(self.gallery), sketch, params, compute)

    def facts(self, entry: PhotoEntry) -> PhotoFacts:
        """Reads what is known of a photo's taking, and of its file. Raises PhotoUnavailable."""
        with as_unavailable(entry):
            # All that is wanted is beside the pixels.
            job = Job(self._settings.max_photo_pixels, least_side=1, longest_side=1)
            recorded = self._run(self.gallery.open_photo(entry.id), job).recorded
        assert recorded is not None
        (boxes,) = self.gallery.boxes(self.gallery.rows_of_ids([entry.id]))
        return PhotoFacts(
            boxes=tuple(filter(None, map(DetectedBox.of, boxes))),
            day=None if entry.taken is None else str(Day.of(entry.taken)),
            bytes=entry.size,
            changed=None if entry.changed is None else datetime.fromtimestamp(entry.changed // 10**9, UTC),
            **asdict(recorded),
        )

    def photos(self, params: PhotosParams, *, files: bool = False) -> PhotosResponse:
        """Describes photos like results; with ``files``, adds their paths on this machine. Raises UnknownPhoto."""
        photos = []
        for entry in self.gallery.photos(params.id):
            addresses = [self.gallery.address_of(path) for path in entry.paths] if files else []
            # A name may contain bytes that are not valid text.
            shown = tuple(path.encode(errors="surrogateescape").decode(errors="replace") for path in addresses)
            photos.append(ListedPhoto.of(entry, self._settings, files=shown))
        return PhotosResponse(photos=tuple(photos))

    def reveal(self, entry: PhotoEntry) -> None:
        """Shows a photo's file in this machine's file manager. Raises PhotoUnavailable and NotFound."""
        self.gallery.original(entry.id)
        files = [Path(self.gallery.address_of(path)) for path in entry.paths]
        reveal(next((file for file in files if file.is_file()), files[0]))

    def cached_thumbnail(self, entry: PhotoEntry, size: int) -> bytes | None:
        return self._thumbnails.find(f"{entry.content_hash}-{size}")

    def thumbnail(self, entry: PhotoEntry, size: int) -> bytes:
        """Makes a JPEG of the photo, with sides of at most ``size`` pixels. Raises PhotoUnavailable."""
        key = f"{entry.content_hash}-{size}"
        if (small := self._thumbnails.find(key) or self._thumbnails.read(key)) is not None:
            return small
        with as_unavailable(entry):
            small = thumbnail(self.gallery.open_photo(entry.id), size, self._run, self._settings.max_photo_pixels)
        self._thumbnails.keep(key, small)
        return small

    def cluster(self, cluster_id: int, page: PageParams) -> ClusterResponse:
        """Returns a page of a cluster's photos, by id. Raises NotFound, BadSearch, and ShardsLost."""
        gallery = self.gallery
        count = len(gallery.clusters.sizes)
        if cluster_id >= count:
            raise NotFound(f"There is no cluster {cluster_id}; clusters are numbered 0 to {count - 1}.")
        self._check_page_size(page.k)
        k = self._settings.default_k if page.k is None else page.k
        rows = gallery.clusters.rows_of(cluster_id)
        if not len(rows) and gallery.missing:
            raise ShardsLost(gallery.missing)
        entries = gallery.entries(rows[page.offset : page.offset + k])
        photos = tuple(ListedPhoto.of(entry, self._settings) for entry in entries)
        return ClusterResponse(id=cluster_id, size=len(rows), offset=page.offset, photos=photos)

    def info(self) -> tuple[answers.ModelInfo, answers.IndexInfo]:
        from sketch_search.service.schemas import explain as answers

        matcher, index = self._matcher, self.gallery
        able = methods_of(matcher, index.tokens_kept)
        return (
            answers.ModelInfo(
                name=matcher.config.name,
                kind=matcher.engine.kind,
                checkpoint_sha256=matcher.checkpoint_sha256,
                methods=able,
                best_method=matcher.best_method if matcher.best_method in able else "ret",
                diffuses=matcher.calibration.diffusion is not None,
                vocabulary=len(matcher.words),
                device=matcher.device,
                dtype=matcher.dtype,
                variants=matcher.variants,
            ),
            answers.IndexInfo(
                generation=index.generation,
                # The name of many shards is long.
                made=hashlib.sha256(index.generation_id.encode()).hexdigest()[:16],
                photos=index.photo_count,
                clusters=len(index.clusters.sizes),
                tokens=index.tokens_kept,
                system=index.system,
                embedder=index.embedder.name,
                embedder_description=index.embedder.description,
                boxes=index.boxes_kept,
                computed=index.computed,
                text_tower=self._text_tower,
                text_tower_refused=self._towers.refusal(index.embedder),
            ),
        )

    def words(self, params: WordsParams) -> answers.WordsResponse:
        from sketch_search.service.schemas import explain as answers

        book = self._matcher.book
        words = book.complete(params.prefix, params.limit)
        return answers.WordsResponse(vocabulary=len(book.words), words=words, text_tower=self._text_tower)

    @property
    def _has_clip(self) -> bool:
        return self.gallery.embedder.kind == "clip"

    @property
    def _text_tower(self) -> str | None:
        embedder = self.gallery.embedder
        return embedder.name if self._has_clip and self._towers.refusal(embedder) is None else None

    def _check_page_size(self, k: int | None) -> None:
        if k is not None and k > self._settings.max_k:
            raise BadSearch(f"k must be at most {self._settings.max_k}, not {k}; use offset for the next page.")
