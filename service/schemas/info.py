"""Defines the answers of GET /info and the health checks, and those about folders and words."""

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, Field

from sketch_search.service.schemas.query import Quality, System
from sketch_search.service.schemas.search import optional


class ModelInfo(BaseModel):
    """The checkpoint in use."""

    name: str
    kind: str = Field(description="The kind of network: zse; of one vector a picture, sketch-an-anchor or clip-at.")
    checkpoint_sha256: str
    methods: tuple[str, ...]
    best_method: str = Field(description="What method=auto means.")
    diffuses: bool = Field(description="Whether it can diffuse scores.")
    vocabulary: int = Field(description="The number of words in its vocabulary, which text can name; 0 if it has none.")
    device: str
    dtype: str
    variants: int = Field(description="Variants of a sketch: as it is; larger; mirrored, with a thicker pen, turned.")


class IndexInfo(BaseModel):
    """The index in use."""

    generation: str
    made: str = Field(description="A name of this generation that is unique among all indexes.")
    photos: int = Field(description="Photos shown; equal files count once.")
    clusters: int
    tokens: int = Field(description="Tokens kept of each photo, [Ret] among them.")
    system: System = Field(description="The system that it was built for.")
    embedder: str = Field(description="What the clusters were made with.")
    embedder_description: str
    boxes: bool = Field(description="Whether it keeps boxes of the things that photos show.")
    computed: tuple[str, ...] = Field(
        description="By which arithmetic its photos were computed, and on which kinds of processors; empty if unknown: "
        "then the next build checks whether they are right."
    )
    text_tower: str | None = Field(
        description="The CLIP model whose text tower reads any text; null if text must be a word of the vocabulary. "
        "It is loaded when it is first needed."
    )
    text_tower_refused: str | None = Field(description="Why CLIP reads no text although it clustered the index.")


class BuildInfo(BaseModel):
    """The latest report of the running build, or else of the last one."""

    phase: str = Field(
        default="reading", description="reading, encoding, boxes, clustering, writing; then done or stopped."
    )
    done: int = Field(default=0, description="Photos done in this phase; in encoding, with those done before.")
    total: int = Field(default=0, description="Photos of this phase; 0 if unknown.")
    bad: int = Field(default=0, description="Files that could not be indexed so far.")
    photos_per_second: float | None = None
    seconds_left: float | None = Field(default=None, description="Of this phase.")
    updated: float = Field(default=0, description="Seconds since the epoch.")
    running: bool = Field(description="Whether POST /build started it and it runs, or its result is not used yet.")
    failed: str | None = Field(description="Why the last build started by POST /build failed, as a sentence.")


class UnreadFile(BaseModel):
    """A file of the gallery that could not be indexed."""

    path: str = Field(description="In the form of photos' paths.")
    reason: str


class GalleryResponse(BaseModel):
    """The gallery of the index in use."""

    folders: tuple[str, ...] = Field(description="The indexed folders: their paths with the token, else their names.")
    excluded: tuple[str, ...] = Field(
        description="Patterns of excluded files and folders; none without the token, unless everyone may build."
    )
    below: tuple[str, ...] = Field(
        description="Folders with photos, by the paths that results show, to narrow a search to; the first 1,000. With "
        "/. at its end: a folder without its subfolders, if both have photos; . alone: the only indexed folder."
    )
    files_below: tuple[int, ...] = Field(description="How many indexed files lie below each of them.")
    days: dict[date, int] = Field(
        description="How many indexed files, below `folder` if that is given, were taken on each day, as filters count "
        "days; the last 10,000."
    )
    undated: int = Field(description="How many of these do not say when they were taken: the day of their last change.")
    updated: datetime = Field(description="When a build last found changed photos.")
    unread: int = Field(description="How many files could not be indexed.")
    files: tuple[UnreadFile, ...] = Field(description="These files, the first 1,000 by path.")


class RemovedResponse(BaseModel):
    """The result of a removal."""

    files: int = Field(description="How many files were removed from the index.")
    photos: int = Field(description="How many photos the index has now.")


class FoldersResponse(BaseModel):
    """The folders in a folder of the server's machine."""

    path: str = Field(description="The whole path of the folder.")
    above: str | None = Field(description="The whole path of its parent folder; null for the topmost one.")
    folders: tuple[str, ...] = Field(description="The names of the first 1,000 folders in it, without hidden ones.")


class Allowed(BaseModel):
    """Says what this client may do on the server's machine."""

    build: bool = Field(description="Whether it may have a folder indexed; not over an index that cannot be opened.")
    reveal: bool = Field(description="Whether it may have a photo's file shown in the file manager.")
    needs_token: bool = Field(description="Whether it lacks only the server's token to have a folder indexed.")


class Limits(BaseModel):
    """The limits of this server."""

    max_upload_bytes: int
    max_pixels: int
    default_k: int
    max_k: int
    queue: int = Field(description="Searches that may wait.")
    queue_seconds: float = Field(description="The longest expected wait of a search; a few may wait longer.")


class SearchDefaults(BaseModel):
    """The defaults of a search."""

    k: int = Field(description="Results.")
    system: System = Field(description="The system that searches by a sketch alone.")
    quality: Quality = Field(description="How much is scored.")
    nprobe: int = Field(description="The least number of clusters to open.")


class ShardInfo(BaseModel):
    """One shard of the gallery."""

    name: str
    answers: bool = Field(description="Whether it answers now; if not, its photos are not found.")
    reason: str | None = Field(description="Why it does not answer, or why its newest generation is not used.")
    generation: str | None = Field(description="The generation searched; null if it has never answered.")
    photos: int
    clusters: int = Field(description="Cluster numbers continue from one shard to the next.")


class InfoResponse(BaseModel):
    """The loaded network and index. Both are null, and ``reason`` says why, while the service is not ready."""

    ready: bool
    reason: str | None
    remedy: str | None = Field(
        description="While the service is not ready: how this client gets the token that it needs to index a folder; "
        "null if it needs none."
    )
    version: str
    model: ModelInfo | None
    index: IndexInfo | None
    refused: str | None = Field(description="Why the newest generation is rejected while an older one is in use.")
    shards: tuple[ShardInfo, ...] = optional("The shards, in order; left out for one index on this machine.", ())
    build: BuildInfo | None = Field(description="Null if the index has never been built.")
    allows: Allowed
    searches: int = Field(description="Searches that are running or waiting.")
    limits: Limits
    defaults: SearchDefaults


class HealthResponse(BaseModel):
    """Alive, or able to answer."""

    status: Literal["ok", "ready"]
    missing_shards: tuple[str, ...] = optional("From /readyz: shards that do not answer, and are not searched.", ())


class WordsResponse(BaseModel):
    """The words to search by: any text if there is a text tower, else those of the checkpoint's vocabulary."""

    vocabulary: int = Field(description="The number of words in the vocabulary; 0 if there is none.")
    words: tuple[str, ...] = Field(
        description="The words that begin with the prefix, in alphabetical order; then those with another name that "
        "does."
    )
    text_tower: str | None = optional("The CLIP model that reads any text, if there is one; the words are examples.")
