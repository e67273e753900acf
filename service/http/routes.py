"""Answers the paths of the HTTP API, and those of the page's own files."""

import hashlib
import pathlib
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, TypeVar, cast

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

import service
from indexer import PhotoEntry, current_stamp, photo_folders, read_summary
from model.images import MAX_THINGS
from service.engine import Engine, PreparedSketch
from service.errors import BadSearch, ClientGone, Forbidden, NotFound, NotReady, Unauthorized
from service.http.answers import is_known
from service.http.archive import parts, zipped
from service.http.middleware import SearchNote, cookie_name
from service.http.upload import Uploads
from service.photos import file_manager
from service.schemas import (
    HASH_SHOWN,
    Allowed,
    BuildInfo,
    BuildParams,
    ClusterResponse,
    ErrorResponse,
    ExplainParams,
    ExplainResponse,
    FoldersParams,
    FoldersResponse,
    GalleryResponse,
    HealthResponse,
    Id,
    InfoResponse,
    Limits,
    PageParams,
    PhotosParams,
    PhotosResponse,
    RemovedResponse,
    RemoveParams,
    SearchDefaults,
    SearchQuery,
    SearchResponse,
    ThumbnailParams,
    UnreadFile,
    WordsParams,
    WordsResponse,
)
from service.serving import Builder, Live, Metrics, Worker, folders_in
from service.settings import Settings, index_path

T = TypeVar("T")

TOKEN_HEADER = "X-SBIR-Token"
# The end of a sentence.
WITHOUT_TOKEN = (
    "you need the server's token: open the address that the server printed when it started, which includes it, or send "
    f"it as the header {TOKEN_HEADER}. It is also in server.json, in the folder of the index."
)
# Quick look-ups in the index that may run at the same time, beside searches.
LOOKUPS = 4
# Photos that may be read at the same time, for thumbnails and for downloads each. Decoding a large one takes a few
# hundred MiB.
READERS = 2
# One range, as players and resumed downloads request. Others may be ignored (RFC 9110, 14.2).
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
# The most unreadable files that are listed.
MAX_UNREAD = 1000
# The most folders with photos that are listed.
MAX_BELOW = 1000

# Media types of what the page loads. Not the system's: with others browsers refuse the modules.
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
_HEADERS = {
    # blob: is for images that a script has fetched or was given; nothing may be loaded from another host.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
# For photos: browsers keep them, but revalidate them before reuse.
_REVALIDATED = {"Cache-Control": "private, no-cache"}
_FOLDER = pathlib.Path(service.__file__).parent / "page"
_INDEX = "index.html"
# All files served, by path below the folder: the content, and its headers.
_FILES = {
    file.relative_to(_FOLDER).as_posix(): (
        content := file.read_bytes(),
        {**_HEADERS, "Content-Type": _MEDIA_TYPES[file.suffix], "ETag": f'"{hashlib.sha256(content).hexdigest()}"'},
    )
    for file in _FOLDER.rglob("*")
    if file.suffix in _MEDIA_TYPES
}

# The parts of the OpenAPI document that FastAPI cannot infer from the handlers.
_BINARY = {"type": "string", "format": "binary"}
PICTURE_BODY = {
    "requestBody": {
        "required": False,
        "description": "The sketch: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC, recognised by its bytes and not its "
        "content type; as the raw body, or as the field `file` of a form. Several fields `file`, pictures of one size, "
        "are the things of one drawing, each where it stands. With `kind=photo` the body is a photo instead. "
        "With `like`, or with `text` in a search, it may be left out.",
        "content": {
            "*/*": {"schema": _BINARY},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "array", "items": _BINARY, "minItems": 1, "maxItems": MAX_THINGS}},
                    "additionalProperties": False,
                }
            },
        },
    }
}


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describes the errors with these statuses."""
    meaning = {
        400: "The Host header is not in SBIR_ALLOWED_HOSTS, or the body is damaged, cut short or too slow.",
        401: "The API key is missing or wrong.",
        403: "Not permitted for this client.",
        404: "Nothing has this id.",
        409: "The existing index, or a build in progress, is in the way.",
        413: "Too many bytes or pixels.",
        415: "Not a supported image type.",
        422: "A sketch that is blank or too costly to decode, a parameter out of range, a word that the vocabulary "
        "does not have, or a form with anything but the sketch.",
        429: "The queue is full, or SBIR_RATE_LIMIT is reached; try again after Retry-After seconds.",
        503: "The checkpoint or the index could not be opened.",
    }
    return {status: {"model": ErrorResponse, "description": meaning[status]} for status in statuses}


def image_answers(*media: str) -> dict[int | str, dict[str, Any]]:
    """Describes the answers of a path that returns an image of one of these media types."""
    return {
        200: {"content": {one: {"schema": _BINARY} for one in media}, "description": "The image, with its ETag."},
        304: {"description": "The image still matches If-None-Match."},
    }


@dataclass(frozen=True)
class Context:
    """Holds the objects that all handlers of one application share."""

    settings: Settings
    version: str
    live: Live
    worker: Worker
    uploads: Uploads
    metrics: Metrics
    builder: Builder
    token: str
    lookups: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(LOOKUPS))
    thumbnails: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(READERS))
    originals: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(READERS))


async def context(request: Request) -> Context:
    """Returns the application's context, made when it started."""
    return cast(Context, request.app.state.context)


Ctx = Annotated[Context, Depends(context)]
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="Required if the server has SBIR_API_KEY set.")
_bearer = HTTPBearer(auto_error=False, description="The same key as a bearer token.")


async def require_key(
    ctx: Ctx,
    header: Annotated[str | None, Depends(_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Raises Unauthorized unless the request carries the API key, if there is one."""
    if ctx.settings.api_key is None:
        return
    given = header or (bearer.credentials if bearer else "")
    # HTTP headers are bytes that the server has read as Latin-1.
    if not secrets.compare_digest(given.encode("latin-1"), ctx.settings.api_key.get_secret_value().encode()):
        raise Unauthorized("This server requires its API key, as the header X-API-Key or as a bearer token.")


async def refuse_doubles(request: Request) -> None:
    """Raises BadSearch if a query parameter that is not a list is given twice."""
    given = Counter(name for name, _ in request.query_params.multi_items())
    # One model has all parameters of a route.
    for params in request.scope["route"].dependant.query_params:
        for name, times in given.items():
            if times > 1 and name not in params.field_info.annotation.repeatable():
                raise BadSearch(f"The parameter {name[:64]} is given {times} times; give it only once.")


_token = Header(
    alias=TOKEN_HEADER, description="The token that the server printed when it started; the page keeps it in a cookie."
)


async def has_token(request: Request, ctx: Ctx, token: Annotated[str | None, _token] = None) -> bool:
    """Returns True if the client has the token, which only the person who started the server can have read."""
    given = token or request.cookies.get(cookie_name(request.scope), "")
    return secrets.compare_digest(given.encode("latin-1", "replace"), ctx.token.encode())


HasToken = Annotated[bool, Depends(has_token)]


async def engine_in_use(ctx: Ctx) -> Engine:
    """Returns the engine in use. Its files stay open until the answer is sent, however slow the client is."""
    return ctx.live.engine()


InUse = Annotated[Engine, Depends(engine_in_use)]


def _may_reveal(trusted: bool, ctx: Context) -> bool:
    return trusted and ctx.settings.serve_originals and not ctx.live.shards


def _may_build(trusted: bool, ctx: Context) -> bool:
    allowed = ctx.settings.allow_build
    return not ctx.live.shards and (trusted if allowed is None else allowed)


def _check_build(trusted: bool, ctx: Context) -> None:
    """Raises Forbidden if this client may not have an index built."""
    if not _may_build(trusted, ctx):
        if trusted or ctx.settings.allow_build is False:
            message = "Indexing is disabled on this server; on its machine, run `sketch-search index build FOLDER`."
            raise Forbidden(message)
        raise Forbidden(f"To index a folder {WITHOUT_TOKEN}")


health = APIRouter(tags=["health"], responses=error_answers(400))
api = APIRouter(
    tags=["search"],
    dependencies=[Depends(require_key), Depends(refuse_doubles)],
    responses=error_answers(400, 401, 429),
)
# Whether the key is needed depends on the port.
monitoring = APIRouter(tags=["health"], responses=error_answers(400, 401, 429))

PathId = Annotated[Id, Path()]


@api.post("/search", responses=error_answers(404, 413, 415, 422, 503), openapi_extra=PICTURE_BODY)
async def search(request: Request, ctx: Ctx, engine: InUse, query: Annotated[SearchQuery, Query()]) -> SearchResponse:
    """Finds the photos that best match a sketch, liked photos and a word."""
    async with _prepared(request, ctx, engine, query) as sketch:
        text = None if query.text is None else await ctx.worker.ask_clip(engine.read_text, query)
        answer = await ctx.worker.compute(engine.search, sketch, query, text)
    ctx.metrics.searched(answer.timings_ms, complete=answer.complete)
    asked = "default" if query.nprobe is None else str(query.nprobe)
    request.state.search = SearchNote(answer.method, answer.quality, asked, answer.generation)
    return answer


@api.post("/explain", responses=error_answers(404, 413, 415, 422, 503), openapi_extra=PICTURE_BODY)
async def explain(
    request: Request, ctx: Ctx, engine: InUse, params: Annotated[ExplainParams, Query()]
) -> ExplainResponse:
    """Explains why these photos match a sketch or a photo."""
    async with _prepared(request, ctx, engine, params) as sketch:
        return await ctx.worker.compute(engine.explain, sketch, params)


@asynccontextmanager
async def _prepared(
    request: Request, ctx: Context, engine: Engine, asked: SearchQuery | ExplainParams
) -> AsyncIterator[PreparedSketch | None]:
    """Reads and prepares the picture of a request. Its place in the queue is held while the block runs."""
    # If the queue is full, the sketch need not be sent at all.
    ctx.worker.check_room()
    pictures = await ctx.uploads.read(request)

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    async with ctx.worker.place(hung_up()):
        prepare = partial(engine.prepare, pictures, kind=asked.kind, split=asked.splits)
        yield await ctx.worker.prepare(prepare) if pictures else None


@api.get("/photos", responses=error_answers(404, 422, 503))
async def photos(
    ctx: Ctx, trusted: HasToken, engine: InUse, params: Annotated[PhotosParams, Query()]
) -> PhotosResponse:
    """Describes photos by id: their paths, and where their files are."""
    return await _look_up(ctx, lambda: engine.photos(params, files=_may_reveal(trusted, ctx)))


@api.get(
    "/photos.zip",
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {"schema": _BINARY}}, "description": "The files, under distinct names."},
        **error_answers(404, 422, 503),
    },
)
async def photos_zip(ctx: Ctx, engine: InUse, params: Annotated[PhotosParams, Query()]) -> Response:
    """Returns the original files of photos, by id, as one ZIP file."""
    _check_originals(ctx)
    entries = await _look_up(ctx, lambda: engine.gallery.photos([*dict.fromkeys(params.id)]))
    return StreamingResponse(
        zipped(engine, entries, ctx.originals),
        headers={"Content-Disposition": 'attachment; filename="photos.zip"'},
        media_type="application/zip",
    )


@api.post("/photos/{photo_id}/reveal", status_code=204, responses=error_answers(403, 404, 422, 503))
async def reveal(ctx: Ctx, trusted: HasToken, engine: InUse, photo_id: PathId) -> None:
    """Shows a photo's file in the file manager of the server's machine. Needs the server's token."""
    if not _may_reveal(trusted, ctx):
        raise Forbidden("Showing files is disabled on this server." if trusted else f"To show a file {WITHOUT_TOKEN}")
    await _look_up(ctx, lambda: engine.reveal(engine.gallery.photo(photo_id)))


@api.get(
    "/photos/{photo_id}",
    response_class=Response,
    responses={
        **image_answers("image/*"),
        206: {"description": "The bytes that the Range selects."},
        416: {"model": ErrorResponse, "description": "The file ends before the Range begins."},
        **error_answers(404, 422, 503),
    },
)
async def photo(request: Request, ctx: Ctx, engine: InUse, photo_id: PathId) -> Response:
    """Returns the original file of a photo."""
    _check_originals(ctx)
    entry = await _look_up(ctx, lambda: engine.gallery.photo(photo_id))
    headers = {"ETag": f'"{entry.content_hash}"', **_REVALIDATED}
    if is_known(headers["ETag"], request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    size, media = await _read(request, ctx.originals, lambda: engine.original(entry))
    part = None if request.headers.get("if-range", headers["ETag"]) != headers["ETag"] else _part(request, size)
    if part is None:
        # The HTTP server leaves out the body of an answer to HEAD.
        sent = {**headers, "Content-Length": str(size), "Accept-Ranges": "bytes"}
        return StreamingResponse(parts(engine, entry, size), headers=sent, media_type=media)
    if not part:
        raise HTTPException(416, "The file ends before this range.", {"Content-Range": f"bytes */{size}"})
    sent = {**headers, "Content-Length": str(len(part)), "Content-Range": f"bytes {part[0]}-{part[-1]}/{size}"}
    return StreamingResponse(parts(engine, entry, size, part), 206, headers=sent, media_type=media)


def _part(request: Request, size: int) -> range | None:
    """Returns the range of bytes that is asked for, empty if the file is too short; None for all of them."""
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return range(max(0, size - int(found[2])), size)
    start, end = int(found[1]), min(size, int(found[2] or size) + 1)
    return range(start, end) if start <= int(found[2] or start) else None


def _check_originals(ctx: Context) -> None:
    if not ctx.settings.serve_originals:
        raise NotFound("This server does not serve the original files; /thumbnails has small ones.")


_THUMBNAIL: dict[str, Any] = {
    "response_class": Response,
    "responses": {**image_answers("image/jpeg"), **error_answers(404, 422, 503)},
}


@api.get("/thumbnails/{photo_id}/{content}", **_THUMBNAIL)
async def thumbnail_of_content(
    request: Request,
    ctx: Ctx,
    engine: InUse,
    photo_id: PathId,
    content: str,
    params: Annotated[ThumbnailParams, Query()],
) -> Response:
    """Returns a small JPEG of a photo with this content, as results link to it. Browsers may keep it forever."""
    entry = await _look_up(ctx, lambda: engine.gallery.photo(photo_id))
    if entry.content_hash[:HASH_SHOWN] != content:
        raise NotFound("This id now belongs to another photo; search again.")
    answer = await _thumbnail(request, ctx, engine, entry, params.size)
    answer.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return answer


@api.get("/thumbnails/{photo_id}", **_THUMBNAIL)
async def thumbnail(
    request: Request, ctx: Ctx, engine: InUse, photo_id: PathId, params: Annotated[ThumbnailParams, Query()]
) -> Response:
    """Returns a small JPEG of a photo."""
    entry = await _look_up(ctx, lambda: engine.gallery.photo(photo_id))
    return await _thumbnail(request, ctx, engine, entry, params.size)


async def _thumbnail(request: Request, ctx: Context, engine: Engine, entry: PhotoEntry, size: int) -> Response:
    headers = {"ETag": f'"{entry.content_hash}-{size}"', **_REVALIDATED}
    if is_known(headers["ETag"], request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    small = engine.kept_thumbnail(entry, size)
    if small is None:
        small = await _read(request, ctx.thumbnails, lambda: engine.thumbnail(entry, size))
    return Response(small, media_type="image/jpeg", headers=headers)


@api.get("/clusters/{cluster_id}", responses=error_answers(404, 422, 503))
async def cluster(ctx: Ctx, engine: InUse, cluster_id: PathId, page: Annotated[PageParams, Query()]) -> ClusterResponse:
    """Lists the photos of a cluster, in pages."""
    return await _look_up(ctx, lambda: engine.cluster(cluster_id, page))


@api.post("/build", status_code=202, responses=error_answers(403, 409, 422, 503))
async def build(ctx: Ctx, trusted: HasToken, params: Annotated[BuildParams, Query()]) -> BuildInfo:
    """Starts to index another folder of the server's machine. You can search the photos indexed so far meanwhile.

    Needs the server's token, unless SBIR_ALLOW_BUILD says otherwise.
    """
    _check_build(trusted, ctx)
    await _look_up(ctx, lambda: ctx.builder.start(params.folder, params.exclude, params.include))
    return BuildInfo(running=True, failed=None)


@api.get("/folders", responses=error_answers(403, 422))
async def folders(ctx: Ctx, trusted: HasToken, params: Annotated[FoldersParams, Query()]) -> FoldersResponse:
    """Lists the folders in a folder of the server's machine, to choose one to index. Permitted as POST /build is."""
    _check_build(trusted, ctx)
    return await _look_up(ctx, lambda: folders_in(params.path))


@api.get("/gallery", responses=error_answers(404, 422, 503))
async def gallery(ctx: Ctx, trusted: HasToken) -> GalleryResponse:
    """Lists the indexed folders, and the files in them that could not be read."""
    if ctx.live.shards:
        raise NotFound("A gallery in shards has many indexes; /info lists them.")
    path = index_path(ctx.settings)
    found, below = await _look_up(ctx, lambda: (read_summary(path), photo_folders(path)))
    roots, unread = found.manifest.roots, found.bad
    return GalleryResponse(
        folders=tuple(root.path if _may_reveal(trusted, ctx) else root.name for root in roots),
        excluded=found.manifest.excluded,
        below=tuple(below[:MAX_BELOW]),
        updated=found.manifest.created,
        unread=len(unread),
        files=tuple(UnreadFile(path=file.path, reason=file.reason) for file in unread[:MAX_UNREAD]),
    )


@api.post("/remove", responses=error_answers(403, 409, 422, 503))
async def remove(ctx: Ctx, trusted: HasToken, params: Annotated[RemoveParams, Query()]) -> RemovedResponse:
    """Removes a folder from the index, without changing its files. Permitted as POST /build is."""
    _check_build(trusted, ctx)
    report = await _look_up(ctx, lambda: ctx.builder.remove(params.folder))
    # The next answer is of the index without it.
    await _look_up(ctx, ctx.live.refresh)
    return RemovedResponse(files=report.files, photos=report.photos)


@api.get("/words", responses=error_answers(422, 503))
async def words(ctx: Ctx, engine: InUse, params: Annotated[WordsParams, Query()]) -> WordsResponse:
    """Lists the words of the checkpoint's vocabulary, and says whether any other text can be searched for."""
    return await _look_up(ctx, lambda: engine.words(params))


def _latest_build(ctx: Context) -> BuildInfo | None:
    """Describes the running or the last build, which runs until the server uses what it made."""
    build = ctx.builder.info()
    if build is not None and build.phase == "done" and ctx.live.behind:
        return build.model_copy(update={"phase": "writing", "running": True})
    return build


@api.get("/info", responses=error_answers(422))
async def info(ctx: Ctx, trusted: HasToken) -> InfoResponse:
    """Describes the loaded network and index, and the limits of this server."""
    settings = ctx.settings
    shards = ctx.live.shards
    build = None if shards else await _look_up(ctx, lambda: _latest_build(ctx))
    model = index = reason = None
    needs_token = settings.allow_build is None and not trusted and not shards
    try:
        model, index = ctx.live.engine().info()
    except NotReady as why:
        reason = str(why)
    return InfoResponse(
        ready=reason is None,
        reason=reason,
        remedy=f"To index a folder here {WITHOUT_TOKEN}" if reason is not None and needs_token else None,
        version=ctx.version,
        model=model,
        index=index,
        refused=ctx.live.source.refused,
        shards=shards,
        build=build,
        # Building over an index that cannot be opened would be no help.
        allows=Allowed(
            reveal=_may_reveal(trusted, ctx) and file_manager() is not None,
            build=_may_build(trusted, ctx) and (reason is None or current_stamp(index_path(settings)) is None),
            needs_token=needs_token,
        ),
        searches=ctx.worker.held,
        limits=Limits(**settings.model_dump(include=set(Limits.model_fields))),
        defaults=SearchDefaults(
            k=settings.default_k, system=settings.system, quality=settings.quality, nprobe=settings.nprobe
        ),
    )


@health.get("/healthz")
async def alive() -> HealthResponse:
    """Reports that the server is alive."""
    return HealthResponse(status="ok")


@health.get("/readyz", responses=error_answers(503))
async def ready(ctx: Ctx) -> HealthResponse:
    """Reports whether the server can answer searches."""
    try:
        ctx.live.engine()
    except NotReady:
        if ctx.settings.api_key is None:
            raise
        # The reason names folders of this machine, and anybody may read this answer.
        raise NotReady("The service is not ready; with the API key, /info says why.") from None
    missing = tuple(shard.name for shard in ctx.live.shards if not shard.answers)
    return HealthResponse(status="ready", missing_shards=missing)


@monitoring.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "For Prometheus."}},
)
async def metrics(ctx: Ctx) -> Response:
    """Returns the counters and times of this server, for Prometheus."""
    return Response(generate_latest(ctx.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _look_up(ctx: Context, job: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(job, limiter=ctx.lookups)


async def _read(request: Request, turns: CapacityLimiter, job: Callable[[], T]) -> T:
    """Returns the result of a slow job, run in its turn. Raises ClientGone if the client has disconnected by then."""
    async with turns:
        if await request.is_disconnected():
            raise ClientGone("The client disconnected.")
        return await anyio.to_thread.run_sync(job)


# These routes need no API key, because the page prompts for it. They are not part of the HTTP API, so its document does
# not list them.
page = APIRouter(include_in_schema=False)


@page.get("/")
async def index(request: Request, ctx: Ctx, token: str | None = None) -> Response:
    """Returns the page. A token in its address becomes a cookie, so that the address can be copied without it."""
    if token is None:
        return _file(_INDEX, request)
    answer = Response(status_code=303, headers={**_HEADERS, "Cache-Control": "no-store", "Location": "./"})
    if secrets.compare_digest(token.encode(), ctx.token.encode()):
        secure = request.url.scheme == "https"
        answer.set_cookie(cookie_name(request.scope), token, secure=secure, httponly=True, samesite="strict")
    return answer


# One route for all files, because the access log names requests by their route.
@page.get("/page/{path:path}")
async def part(request: Request, path: str) -> Response:
    """Returns a file that the page loads. Raises NotFound for others: index.html would not work at this address."""
    if path not in _FILES or path == _INDEX:
        raise NotFound("The page has no file of this name.")
    return _file(path, request)


def _file(path: str, request: Request) -> Response:
    content, headers = _FILES[path]
    if is_known(headers["ETag"], request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)
