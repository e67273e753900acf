"""Defines the answers of GET /info, of the health checks, and about folders and words."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from service.schemas.query import Quality, System


class ModelInfo(BaseModel):
    """The checkpoint in use."""

    name: str
    kind: str = Field(
        description="What kind of network it is: zse, or with one vector for each picture sketch-an-anchor or clip-at."
    )
    checkpoint_sha256: str
    methods: tuple[str, ...]
    best_method: str = Field(description="What method=auto means.")
    diffuses: bool = Field(description="Whether it knows how to diffuse scores.")
    vocabulary: int = Field(description="How many words its vocabulary has, which text can name; 0 where it has none.")
    device: str
    dtype: str
    variants: int = Field(
        description="How many variants of a sketch are encoded: as it is; larger; mirrored, with a thicker pen, turned."
    )


class IndexInfo(BaseModel):
    """The index in use."""

    generation: str
    made: str = Field(description="Names this generation, also among those of other indexes.")
    photos: int = Field(description="Photos shown; equal files count once.")
    clusters: int
    tokens: int = Field(description="Tokens kept of each photo, [Ret] among them.")
    embedder: str = Field(description="What the clusters were made with.")
    embedder_description: str
    text_tower: str | None = Field(
        description="The CLIP model whose text tower reads text, so that any text can be given; null where text names "
        "a word of the vocabulary. It is loaded when it is first needed."
    )
    text_tower_refused: str | None = Field(
        description="Why text names a word of the vocabulary, although the index was clustered by CLIP; null elsewhere."
    )


class BuildInfo(BaseModel):
    """The last report of the build that runs, or else of the last one."""

    phase: str = Field(
        default="reading", description="reading, encoding, clustering, writing; done or stopped once it is over."
    )
    done: int = Field(
        default=0, description="Photos of this phase that are done; in encoding also those that were done before."
    )
    total: int = Field(default=0, description="Photos of this phase; 0 where that is not known.")
    bad: int = Field(default=0, description="Files that could not be indexed, so far.")
    photos_per_second: float | None = None
    seconds_left: float | None = Field(default=None, description="Of this phase.")
    updated: float = Field(default=0, description="Seconds since the epoch.")
    running: bool = Field(description="Whether POST /build has started it, and it runs.")
    failed: str | None = Field(description="Why the last build that POST /build started has failed, as a sentence.")


class UnreadFile(BaseModel):
    """A file of the gallery that could not be indexed."""

    path: str = Field(description="As paths of photos are shown.")
    reason: str


class GalleryResponse(BaseModel):
    """The gallery of the index in use."""

    folders: tuple[str, ...] = Field(
        description="Those that are indexed: their paths with the token, else their names."
    )
    excluded: tuple[str, ...] = Field(description="Patterns of files and folders that are left out.")
    below: tuple[str, ...] = Field(
        description="Folders with photos, by the paths that results show, such as a search may be narrowed to; the "
        "first 1,000."
    )
    updated: datetime = Field(description="When a build last found that photos had changed.")
    unread: int = Field(description="How many files could not be indexed.")
    files: tuple[UnreadFile, ...] = Field(description="These files, the first 1,000 by path.")


class RemovedResponse(BaseModel):
    """What a removal has done."""

    files: int = Field(description="How many files left the index.")
    photos: int = Field(description="How many photos it has now.")


class FoldersResponse(BaseModel):
    """The folders in a folder of the server's machine."""

    path: str = Field(description="The whole path of the folder.")
    above: str | None = Field(description="The whole path of the folder that it is in; null for the topmost one.")
    folders: tuple[str, ...] = Field(description="The names of the first 1,000 folders in it, without hidden ones.")


class Allowed(BaseModel):
    """Says what this client may do on the server's machine."""

    build: bool = Field(
        description="Whether it may have a folder indexed. False also while there is an index that cannot be opened."
    )
    reveal: bool = Field(description="Whether it may have a photo's file shown in the file manager.")
    needs_token: bool = Field(description="Whether it lacks only the server's token to have a folder indexed.")


class Limits(BaseModel):
    """The limits of this server."""

    max_upload_bytes: int
    max_pixels: int
    default_k: int
    max_k: int
    queue: int = Field(description="Searches that may wait.")
    queue_seconds: float = Field(description="Seconds that a search may be expected to wait, but for a few.")


class SearchDefaults(BaseModel):
    """The settings of a search that names none."""

    k: int = Field(description="Results.")
    system: System = Field(description="The system that searches by a sketch alone.")
    quality: Quality = Field(description="How much is scored.")
    nprobe: int = Field(description="Clusters that are opened at least.")


class ShardInfo(BaseModel):
    """One shard of the gallery."""

    name: str
    answers: bool = Field(description="Whether it answers now; where it does not, its photos are not found.")
    reason: str | None = Field(description="Why it does not answer, or why its newest generation is not used.")
    generation: str | None = Field(description="The generation searched; null where it has never answered.")
    photos: int
    clusters: int = Field(description="Clusters count on from one shard to the next.")


class InfoResponse(BaseModel):
    """The loaded network and index. Both are null, and ``reason`` says why, while the service is not ready."""

    ready: bool
    reason: str | None
    remedy: str | None = Field(
        description="While the service is not ready: how this client gets the token that it lacks to have a folder "
        "indexed; null if it lacks none."
    )
    version: str
    model: ModelInfo | None
    index: IndexInfo | None
    refused: str | None = Field(
        description="Why the newest generation was rejected while an older one answers, or null."
    )
    shards: tuple[ShardInfo, ...] = Field(
        default=(),
        description="The shards of the gallery, in their order; left out where it is one index on this machine.",
        exclude_if=lambda shards: not shards,
    )
    build: BuildInfo | None = Field(description="Null where the index has never been built.")
    allows: Allowed
    searches: int = Field(description="Searches that run or wait now.")
    limits: Limits
    defaults: SearchDefaults


class HealthResponse(BaseModel):
    """Alive, or able to answer."""

    status: Literal["ok", "ready"]
    missing_shards: tuple[str, ...] = Field(
        default=(),
        description="Of /readyz: shards that do not answer, if there are any. The others are searched.",
        exclude_if=lambda shards: not shards,
    )


class WordsResponse(BaseModel):
    """The words to search by: any text where there is a text tower, else those of the checkpoint's vocabulary."""

    vocabulary: int = Field(description="How many words the vocabulary has; 0 where there is none.")
    words: tuple[str, ...] = Field(
        description="Those that begin as asked, in alphabetical order; then those that have a further name that does."
    )
    text_tower: str | None = Field(
        default=None,
        description="The CLIP model that reads any text, so that these words are examples; left out if there is none.",
        exclude_if=lambda tower: tower is None,
    )
