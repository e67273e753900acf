"""Answers the paths of the HTTP API."""

import re
from functools import partial
from typing import Annotated, Any, TypeVar

from anyio import move_on_after
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Path, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from sketch_search.indexer import PhotoEntry, PhotoFilter, count_files, read_summary
from sketch_search.model.images import MAX_STROKES, MAX_THINGS, SKETCH_FORMATS, Drawing
from sketch_search.service.engine import SearchEngine
from sketch_search.service.errors import ErrorResponse, Forbidden, NotFound, NotReady
from sketch_search.service.gallery import file_manager
from sketch_search.service.http.context import (
    WITHOUT_TOKEN,
    Context,
    Ctx,
    HasToken,
    InUse,
    Sent,
    check_build,
    may_build,
    may_reveal,
    refuse_doubles,
    require_key,
)
from sketch_search.service.http.files import not_modified, parts, zip_photos
from sketch_search.service.schemas import explain as answers
from sketch_search.service.schemas import query as queries
from sketch_search.service.schemas.search import HASH_SHOWN, ClusterResponse, PhotoFacts, PhotosResponse, SearchResponse
from sketch_search.service.serving import folders_in
from sketch_search.service.serving.worker import from_this_thread
from sketch_search.service.settings import index_path

# One range, as players and resumed downloads request. Others may be ignored (RFC 9110, 14.2).
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
# The most unreadable files, and folders and days with photos, that are listed.
MAX_UNREAD, MAX_BELOW, MAX_DAYS = 1000, 1000, 10_000
# Seconds in which a folder that is there is found.
DISK_SECONDS = 2.0

# For photos: browsers keep them, but revalidate them before reuse.
_REVALIDATED = {"Cache-Control": "private, no-cache"}

# The parts of the OpenAPI document that FastAPI cannot infer from the handlers.
_BINARY, _STROKE = {"type": "string", "format": "binary"}, queries.StrokeBody.model_json_schema()
PICTURE_BODY = {
    "requestBody": {
        "required": False,
        "description": f"The sketch: {SKETCH_FORMATS}, recognised by its bytes and "
        "not by its content type; as the raw body, or as the field `file` of a form. Several fields `file`, "
        "pictures of one size, are the things of one drawing, each where it stands. The field `strokes`, JSON, has "
        "the strokes of one picture: each belongs to one thing, and answers name the strokes of each thing; a PNG that "
        "the page saved has them itself. With "
        "`kind=photo` the body is a photo instead. With `like`, or with `text` in a search, it may be left out.",
        "content": {
            "*/*": {"schema": _BINARY},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "array", "items": _BINARY, "minItems": 1, "maxItems": MAX_THINGS},
                        "strokes": {"type": "array", "items": _STROKE, "maxItems": MAX_STROKES},
                    },
                    "additionalProperties": False,
                }
            },
        },
    }
}


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describes the errors with these statuses."""
    meaning = {
        400: "The Host header is not in SKETCH_SEARCH_ALLOWED_HOSTS, or the body is damaged, cut short or too slow.",
        401: "The API key is missing or wrong.",
        403: "Not permitted for this client.",
        404: "Nothing has this id.",
        409: "The existing index, or a build in progress, is in the way.",
        413: "Too many bytes or pixels.",
        415: "Not a supported image type.",
        422: "A sketch that is blank or too costly to decode, a parameter out of range, a word that the vocabulary "
        "does not have, or a form with anything but the sketch.",
        429: "The queue is full, or SKETCH_SEARCH_RATE_LIMIT is reached; try again after Retry-After seconds.",
        503: "The checkpoint or the index could not be opened.",
    }
    return {status: {"model": ErrorResponse, "description": meaning[status]} for status in statuses}


def image_answers(*media: str) -> dict[int | str, dict[str, Any]]:
    """Describes the answers of a path that returns an image of one of these media types."""
    return {
        200: {"content": {name: {"schema": _BINARY} for name in media}, "description": "The image, with its ETag."},
        304: {"description": "The image still matches If-None-Match."},
    }


health = APIRouter(tags=["health"], responses=error_answers(400))
api = APIRouter(
    tags=["search"],
    dependencies=[Depends(require_key), Depends(refuse_doubles)],
    responses=error_answers(400, 401, 429),
)
# Whether the key is needed depends on the port.
monitoring = APIRouter(tags=["health"], responses=error_answers(400, 401, 429))

T = TypeVar("T")
PathId = Annotated[queries.Id, Path()]
FromQuery = Annotated[T, Query()]


async def find_photo(ctx: Ctx, engine: InUse, photo_id: PathId) -> PhotoEntry:
    return await ctx.in_turn(ctx.lookups, lambda: engine.gallery.photo(photo_id))


async def serves_originals(ctx: Ctx) -> None:
    if not ctx.settings.serve_originals:
        raise NotFound("This server does not serve the original files; /thumbnails has small ones.")


ORIGINALS = [Depends(serves_originals)]
FoundPhoto = Annotated[PhotoEntry, Depends(find_photo)]


@api.post("/search", responses=error_answers(404, 413, 415, 422, 503), openapi_extra=PICTURE_BODY)
async def search(ctx: Ctx, engine: InUse, query: FromQuery[queries.SearchQuery]) -> SearchResponse:
    """Finds the photos that best match a sketch, liked photos and a word."""
    sent, client = await _receive(ctx), ctx.client
    async with ctx.connected() as scope:
        with ctx.worker.place(client, scope):
            sketch = await _prepare(ctx, engine, client, sent, query)
            text = None
            if query.text is not None:
                async with ctx.worker.clip.turn(client):
                    text = await run_sync(engine.read_text, query)
            answer = await ctx.worker.compute(client, engine.search, sketch, query, text)
    ctx.metrics.searched(answer.timings_ms, complete=answer.complete)
    nprobe = "default" if query.nprobe is None else str(query.nprobe)
    how = {"method": answer.method, "quality": answer.quality}
    ctx.request.state.search = {**how, "nprobe": nprobe, "generation": answer.generation}
    return answer


@api.post("/explain", responses=error_answers(404, 413, 415, 422, 503), openapi_extra=PICTURE_BODY)
async def explain(ctx: Ctx, engine: InUse, params: FromQuery[answers.ExplainParams]) -> answers.ExplainResponse:
    """Explains why these photos match a sketch or a photo."""
    sent, client = await _receive(ctx), ctx.client
    async with ctx.connected() as scope:
        with ctx.worker.place(client, scope):
            sketch = await _prepare(ctx, engine, client, sent, params)
        async with ctx.explanations.turn(client):
            # It reads photos, however long that takes, and computes by turns with searches.
            compute = partial(from_this_thread, ctx.worker.turns.compute, client)
            return await run_sync(engine.explain, sketch, params, compute)


@api.post("/locate", responses=error_answers(404, 413, 415, 422, 503), openapi_extra=PICTURE_BODY)
async def locate(ctx: Ctx, engine: InUse, params: FromQuery[answers.LocateParams]) -> answers.LocateResponse:
    """Finds where these photos show each thing of a sketch, and how well: faster than /explain."""
    sent, client = await _receive(ctx), ctx.client
    async with ctx.connected() as scope:
        with ctx.worker.place(client, scope):
            sketch = await _prepare(ctx, engine, client, sent, params)
            return await ctx.worker.compute(client, engine.locate, sketch, params)


async def _receive(ctx: Context) -> Sent:
    # If the queue is full, the sketch need not be sent at all.
    ctx.worker.check_room(ctx.client)
    return await ctx.uploads.read(ctx.request, ctx.client)


async def _prepare(
    ctx: Context, engine: SearchEngine, client: str, sent: Sent, options: queries.SearchQuery | answers.LocateParams
) -> Drawing | None:
    prepare = partial(engine.prepare, sent.pictures, options, strokes=sent.strokes)
    return await ctx.worker.prepare(client, prepare) if sent.pictures else None


@api.get("/photos", responses=error_answers(404, 422, 503))
async def photos(ctx: Ctx, trusted: HasToken, engine: InUse, params: FromQuery[queries.PhotosParams]) -> PhotosResponse:
    """Describes photos by id: their paths, and where their files are."""
    return await ctx.in_turn(ctx.lookups, lambda: engine.photos(params, files=may_reveal(trusted, ctx)))


@api.get(
    "/photos.zip",
    dependencies=ORIGINALS,
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {"schema": _BINARY}}, "description": "The files, under distinct names."},
        **error_answers(404, 422, 503),
    },
)
async def photos_zip(ctx: Ctx, engine: InUse, params: FromQuery[queries.PhotosParams]) -> Response:
    """Returns the original files of photos, by id, as one ZIP file."""
    entries = await ctx.in_turn(ctx.lookups, lambda: engine.gallery.photos([*dict.fromkeys(params.id)]))
    return StreamingResponse(
        zip_photos(ctx, engine, entries),
        headers={"Content-Disposition": 'attachment; filename="photos.zip"'},
        media_type="application/zip",
    )


@api.post("/photos/{photo_id}/reveal", status_code=204, responses=error_answers(403, 404, 422, 503))
async def reveal(ctx: Ctx, trusted: HasToken, engine: InUse, photo_id: PathId) -> None:
    """Shows a photo's file in the file manager of the server's machine. Needs the server's token."""
    if not may_reveal(trusted, ctx):
        raise Forbidden("Showing files is disabled on this server." if trusted else f"To show a file {WITHOUT_TOKEN}")
    await ctx.in_turn(ctx.originals, lambda: engine.reveal(engine.gallery.photo(photo_id)))


@api.get("/photos/{photo_id}/facts", dependencies=ORIGINALS, responses=error_answers(404, 422, 503))
async def facts(ctx: Ctx, engine: InUse, entry: FoundPhoto) -> PhotoFacts:
    """Says when and with what a photo was taken, and its size. Needs SKETCH_SEARCH_SERVE_ORIGINALS, as originals do."""
    return await ctx.in_turn(ctx.thumbnails, lambda: engine.facts(entry))


@api.get(
    "/photos/{photo_id}",
    dependencies=ORIGINALS,
    response_class=Response,
    responses={
        **image_answers("image/*"),
        206: {"description": "The bytes that the Range selects."},
        416: {"model": ErrorResponse, "description": "The file ends before the Range begins."},
        **error_answers(404, 422, 503),
    },
)
async def photo(ctx: Ctx, engine: InUse, entry: FoundPhoto) -> Response:
    """Returns the original file of a photo."""
    headers = {"ETag": f'"{entry.content_hash}"', **_REVALIDATED}
    if unchanged := not_modified(ctx.request, headers):
        return unchanged
    part = _part(ctx.request, entry.size, headers["ETag"])
    if part is not None and not part:
        raise HTTPException(416, "The file ends before this range.", {"Content-Range": f"bytes */{entry.size}"})
    size, media = await ctx.in_turn(ctx.originals, lambda: engine.gallery.original(entry.id))
    if part is None:
        # The HTTP server leaves out the body of an answer to HEAD.
        sent = {**headers, "Content-Length": str(size), "Accept-Ranges": "bytes"}
        return StreamingResponse(parts(ctx, engine, entry, size), headers=sent, media_type=media)
    sent = {**headers, "Content-Length": str(len(part)), "Content-Range": f"bytes {part[0]}-{part[-1]}/{size}"}
    return StreamingResponse(parts(ctx, engine, entry, size, part), 206, headers=sent, media_type=media)


def _part(request: Request, size: int, tag: str) -> range | None:
    """Returns the range of bytes that is asked for, empty if the file is too short; None for all of them."""
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None or not (match[1] or match[2]) or request.headers.get("if-range", tag) != tag:
        return None
    if not match[1]:
        return range(max(0, size - int(match[2])), size)
    start, end = int(match[1]), min(size, int(match[2] or size) + 1)
    return range(start, end) if start <= int(match[2] or start) else None


_THUMBNAIL: dict[str, Any] = {
    "response_class": Response,
    "responses": {**image_answers("image/jpeg"), **error_answers(404, 422, 503)},
}


@api.get("/thumbnails/{photo_id}/{content}", **_THUMBNAIL)
async def thumbnail_of_content(
    ctx: Ctx, engine: InUse, photo_id: PathId, content: str, params: FromQuery[queries.ThumbnailParams]
) -> Response:
    """Returns a small JPEG of a photo with this content, as results link to it. Browsers may keep it forever."""
    entry = await find_photo(ctx, engine, photo_id)
    if entry.content_hash[:HASH_SHOWN] != content:
        raise NotFound("This id now belongs to another photo; search again.")
    answer = await _thumbnail(ctx, engine, entry, params.size)
    answer.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return answer


@api.get("/thumbnails/{photo_id}", **_THUMBNAIL)
async def thumbnail(ctx: Ctx, engine: InUse, entry: FoundPhoto, params: FromQuery[queries.ThumbnailParams]) -> Response:
    """Returns a small JPEG of a photo."""
    return await _thumbnail(ctx, engine, entry, params.size)


async def _thumbnail(ctx: Context, engine: SearchEngine, entry: PhotoEntry, size: int) -> Response:
    headers = {"ETag": f'"{entry.content_hash}-{size}"', **_REVALIDATED}
    if unchanged := not_modified(ctx.request, headers):
        return unchanged
    small = engine.cached_thumbnail(entry, size)
    if small is None:
        small = await ctx.in_turn(ctx.thumbnails, lambda: engine.thumbnail(entry, size))
    return Response(small, media_type="image/jpeg", headers=headers)


@api.get("/clusters/{cluster_id}", responses=error_answers(404, 422, 503))
async def cluster(ctx: Ctx, engine: InUse, cluster_id: PathId, page: FromQuery[queries.PageParams]) -> ClusterResponse:
    """Lists the photos of a cluster, in pages."""
    return await ctx.in_turn(ctx.lookups, lambda: engine.cluster(cluster_id, page))


@api.post("/build", status_code=202, responses=error_answers(403, 409, 422, 503))
async def build(ctx: Ctx, trusted: HasToken, params: FromQuery[queries.BuildParams]) -> answers.BuildInfo:
    """Starts to index another folder of the server's machine. You can search the photos indexed so far meanwhile.

    Needs the server's token, unless SKETCH_SEARCH_ALLOW_BUILD says otherwise.
    """
    check_build(trusted, ctx)
    await ctx.in_turn(ctx.upkeep, lambda: ctx.builder.start(params.folder, params.exclude, params.include))
    return answers.BuildInfo(running=True, failed=None)


@api.get("/folders", responses=error_answers(403, 422))
async def folders(ctx: Ctx, trusted: HasToken, params: FromQuery[queries.FoldersParams]) -> answers.FoldersResponse:
    """Lists the folders in a folder of the server's machine, to choose one to index. Permitted as POST /build is."""
    check_build(trusted, ctx)
    return await ctx.in_turn(ctx.upkeep, lambda: folders_in(params.path))


@api.get("/gallery", responses=error_answers(404, 422, 503))
async def gallery(ctx: Ctx, trusted: HasToken, params: FromQuery[queries.GalleryParams]) -> answers.GalleryResponse:
    """Lists the indexed folders, and the files in them that could not be read."""
    if ctx.live.shards:
        raise NotFound("A gallery in shards has many indexes; /info lists them.")
    path, photo_filter = index_path(ctx.settings), PhotoFilter(params.folder)
    summary, counts = await ctx.in_turn(
        ctx.upkeep, lambda: (read_summary(path), count_files(path, MAX_DAYS, photo_filter))
    )
    roots, unread = summary.manifest.roots, summary.bad
    return answers.GalleryResponse(
        folders=tuple(root.path if may_reveal(trusted, ctx) else root.name for root in roots),
        excluded=summary.manifest.excluded if trusted or may_build(trusted, ctx) else (),
        below=tuple(counts.folders)[:MAX_BELOW],
        files_below=tuple(counts.folders.values())[:MAX_BELOW],
        days=counts.days,
        undated=counts.undated,
        updated=summary.manifest.created,
        unread=len(unread),
        files=unread[:MAX_UNREAD],
    )


@api.post("/remove", responses=error_answers(403, 409, 422, 503))
async def remove(ctx: Ctx, trusted: HasToken, params: FromQuery[queries.RemoveParams]) -> answers.RemovedResponse:
    """Removes a folder from the index, without changing its files. Permitted as POST /build is."""
    check_build(trusted, ctx)
    report = await ctx.in_turn(ctx.upkeep, lambda: ctx.builder.remove(params.folder))
    # The next answer is of the index without it.
    await ctx.in_turn(ctx.upkeep, ctx.live.refresh)
    return answers.RemovedResponse(files=report.files, photos=report.photos)


@api.get("/words", responses=error_answers(422, 503))
async def words(ctx: Ctx, engine: InUse, params: FromQuery[queries.WordsParams]) -> answers.WordsResponse:
    """Lists the words of the checkpoint's vocabulary, and says whether any other text can be searched for."""
    return await ctx.in_turn(ctx.lookups, lambda: engine.words(params))


def _latest_build(ctx: Context) -> answers.BuildInfo | None:
    """Describes the running or the last build, which runs until the server uses what it made."""
    build = ctx.builder.info()
    if build is not None and build.phase == "done" and ctx.live.source.behind:
        return build.model_copy(update={"phase": "writing", "running": True})
    return build


@api.get("/info", responses=error_answers(422))
async def info(ctx: Ctx, trusted: HasToken) -> answers.InfoResponse:
    """Describes the loaded network and index, and the limits of this server."""
    settings = ctx.settings
    shards = ctx.live.shards
    build = None if shards else await ctx.in_turn(ctx.lookups, lambda: _latest_build(ctx))
    model = index = reason = None
    needs_token = settings.allow_build is None and not trusted and not shards
    try:
        model, index = ctx.live.engine().info()
    except NotReady as why:
        reason = str(why)
    system = settings.system or (index.system if index else "default")
    # Building over an index, or without what the checkpoint needs, would be no help.
    empty = reason is not None and ctx.live.source.lacks_index
    return answers.InfoResponse(
        ready=reason is None,
        reason=reason,
        remedy=f"To index a folder here {WITHOUT_TOKEN}" if empty and needs_token else None,
        version=ctx.version,
        model=model,
        index=index,
        refused=ctx.live.source.refused,
        shards=shards,
        build=build,
        allows=answers.Allowed(
            reveal=may_reveal(trusted, ctx) and file_manager() is not None,
            build=may_build(trusted, ctx) and (reason is None or empty),
            needs_token=needs_token,
        ),
        searches=ctx.worker.held,
        limits=answers.Limits(**settings.model_dump(include=set(answers.Limits.model_fields))),
        defaults=answers.SearchDefaults(
            k=settings.default_k,
            system=system,
            quality=settings.quality if system == "default" else "best",
            nprobe=settings.nprobe if system == "default" else 1,
        ),
    )


@health.get("/healthz")
async def alive() -> answers.HealthResponse:
    """Reports that the server is alive."""
    return answers.HealthResponse(status="ok")


@health.get("/readyz", responses=error_answers(503))
async def ready(ctx: Ctx) -> answers.HealthResponse:
    """Reports whether the server can answer searches and, if it serves originals, has a folder of them."""
    try:
        ctx.live.engine()
    except NotReady:
        if ctx.settings.api_key is None:
            raise
        # The reason names folders of this machine, and anybody may read this answer.
        raise NotReady("The service is not ready; with the API key, /info says why.") from None
    # A disk that does not answer keeps nobody waiting.
    with move_on_after(DISK_SECONDS if ctx.settings.serve_originals else 0):
        if not await run_sync(ctx.live.has_folders, abandon_on_cancel=True, limiter=ctx.folder_checks):
            raise NotReady(
                "No folder of the photos is there: mount their disk, or set SKETCH_SEARCH_GALLERY to where they are."
            )
    missing = tuple(shard.name for shard in ctx.live.shards if not shard.answers)
    return answers.HealthResponse(status="ready", missing_shards=missing)


@monitoring.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "For Prometheus."}},
)
async def metrics(ctx: Ctx) -> Response:
    """Returns the counters and times of this server, for Prometheus."""
    return Response(generate_latest(ctx.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
