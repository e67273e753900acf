"""Defines what the service answers besides searches: explanations, and what it is, has and does."""

import base64
import io
from datetime import date, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from sketch_search.model.answers import InfluentialPair, ProgressState, UnreadFile
from sketch_search.model.limits import Places, System
from sketch_search.service.schemas import query
from sketch_search.service.schemas.search import DetectedBox, ListedPhoto, SeenThing, optional

if TYPE_CHECKING:
    from PIL import Image

MAX_PHOTOS = 12


class LocateParams(query.Params):
    photo: list[query.Id] = Field(
        min_length=1, max_length=MAX_PHOTOS, description="Ids of photos to compare; repeatable."
    )
    like: query.Id | None = Field(
        default=None,
        description="The id of a photo to compare with instead of a sketch, to explain why the photos are like it. The "
        "body is then empty.",
        examples=[17],
    )
    kind: query.PictureKind = Field(
        default="sketch", description="What the body is; photo: explain why photos are like it."
    )
    text: query.ThingText | None = Field(
        default=None, description="As in a search: words lead things. /locate takes it alone, too."
    )
    thing_text: tuple[query.ThingText, ...] = query.THING_TEXT
    things: query.Things = Field(default="auto", description="As in a search.")
    places: Places = Field(default="auto", description="As in a search.")
    colours: query.Colours = Field(default="auto", description="As in a search.")
    writing: query.Writing = query.WRITING
    page: query.AtLeast0 = query.PAGE
    turn: query.Turn = query.TURN

    @property
    def splits(self) -> bool:
        """Whether one picture is divided into things."""
        return self.things == "auto" and self.kind == "sketch"


class ExplainParams(LocateParams):
    nearest: int = Field(
        default=6,
        ge=0,
        le=20,
        description="How many of the photos that look most like the sketch, and like each of the photos, to list.",
    )


class ExplainedImage(BaseModel):
    """One picture as the network saw it, and where [Ret] looked."""

    image: str = Field(description="Data URL of exactly the square the network saw.")
    attention: list[list[float]] = Field(description="By head: [Ret]'s attention to each cell in the last block, or 0.")
    attention_layers: list[list[float]] = Field(description="By block: the same, averaged over the heads.")
    kept: list[list[int]] = Field(description="The cells left after each token selection, in order.")

    def picture(self) -> "Image.Image":
        """Opens the square as RGB."""
        from PIL import Image

        return Image.open(io.BytesIO(base64.b64decode(self.image.partition(",")[2]))).convert("RGB")


class CrossAttention(BaseModel):
    """The attention of one side's [Ret] to the other side's patches, by head."""

    sketch_to_photo: list[list[float]] = Field(description="heads x photo_cells")
    photo_to_sketch: list[list[float]] = Field(description="heads x sketch_cells")


class MatchedCells(BaseModel):
    """A sketch token and the best of the photo's tokens."""

    sketch_cell: int
    photo_cell: int
    cosine: float


class NearPhoto(ListedPhoto):
    """A photo of the index that looks like the sketch, or like a photo, by [Ret] alone: before diffusion."""

    cosine: float = Field(
        description="How near it is, -1 to 1. To a sketch: the cosine of both [Ret], lowered by the photo's prior if "
        "the network has one. To a photo: the cosine of both [Ret] without the mean of all photos."
    )
    rank: int = Field(description="Its rank among all photos by nearness to the given sketch or photo.")


class ShownThing(BaseModel):
    """Where a photo is most like a thing of the drawing."""

    cell: int = Field(description="The region: row * region_grid + column, from the top left.")
    cells: tuple[int, ...] = Field(
        description="The regions connected with it that match nearly as well, itself included, ascending: about what "
        "the photo shows of the thing."
    )
    detected: DetectedBox | None = optional("The detected box that fits the thing best, if one may be of its kind.")
    cosine: float = Field(
        description="How well the region matches the thing as it was drawn, -1 to 1. From 0.75 on, most regions in the "
        "first photos are on such a thing; below 0.5, few, but of people and of what was drawn in a hurry half or more."
    )
    colour: str = Field(
        description="The mean colour, as #rrggbb, of the region of `cells`, or in `detected`, that is nearest to the "
        "thing's colours; of `cell` if these do not count.",
        examples=["#7a4a2b"],
    )
    colour_distance: float | None = Field(description="From the thing's colours, CIE76; null if these do not count.")


class LocatedPhoto(ListedPhoto):
    """A photo of the index, and where it shows the things."""

    things: tuple[ShownThing, ...] = Field(description="Each of `things` of the drawing; empty without them.")
    unseen: tuple[str, ...] = optional("What `text` and words of things name, and the photo most likely lacks.", ())


class LocateResponse(BaseModel):
    """Where photos show the things of a drawing, or what a photo shows."""

    things: tuple[SeenThing, ...] = Field(
        description="The things of the drawing, at least one; a photo is one thing. Empty if the network or the index "
        "has no regions."
    )
    region_grid: int | None = Field(description="Regions along one side of a photo; null without them.")
    photos: list[LocatedPhoto] = Field(description="In the order asked for.")
    total_ms: float = Field(description="Milliseconds, without preparing the picture.")
    generation: str = Field(description="The index generation.")
    model: str = Field(description="The checkpoint's name.")


class ExplainedPhoto(ExplainedImage, ListedPhoto):
    """A photo of the index, compared with the sketch or with the photo in its place."""

    relation_score: float | None = Field(description="As in a search; null if it is untrained, or of photos.")
    ret_distance: float = Field(description="Distance of normalised [Ret] tokens, increased by prior and guesses.")
    sketch_cells: list[int] = Field(description="Cells of the sketch's tokens that are compared.")
    photo_cells: list[int] = Field(
        description="Cells of the photo's tokens that are compared; with the default network more than in a search."
    )
    correspondence: list[list[float]] = Field(
        description="sketch_cells x photo_cells: cosines of the tokens after cross-attention; of photos, as they left "
        "the encoder, without their mean."
    )
    things: tuple[ShownThing, ...] = optional("Each of `things` of the drawing.", ())
    cross_attention: CrossAttention | None = Field(description="Null if the network has none, and of photos.")
    matches: list[MatchedCells] = Field(
        description="Each sketch token's best photo token, strongest first. With the default network, a patch that the "
        "whole sketch resembles is preferred."
    )
    influence: list[InfluentialPair] = Field(description="The at most 10 pairs that matter most, strongest first.")
    ret_rank: int = Field(
        description="Its rank by [Ret] alone among all photos. If diffusion moved it up, photos in `nearest` are "
        "nearer."
    )
    nearest: list[NearPhoto] = Field(description="The photos that look most like it, nearest first, without itself.")


class ExplainTimings(BaseModel):
    """Milliseconds of each stage."""

    encode: float = Field(description="Read, prepare and encode the sketch and the photos.")
    pairs: float = Field(description="Compare the sketch with each photo.")
    nearest: float = Field(description="Find the nearest photos.")
    total: float = Field(description="All of these.")


class ExplainResponse(BaseModel):
    """Why photos match a sketch, or are like a photo."""

    grid: int = Field(description="Patches along one side.")
    sketch: ExplainedImage = Field(description="The sketch, or with like or kind=photo the photo in its place.")
    things: tuple[SeenThing, ...] = optional("As in a search, if they are looked for in regions.", ())
    region_grid: int | None = optional("With `things`, and only then: regions along one side of a photo.")
    photos: list[ExplainedPhoto] = Field(description="In the order asked for.")
    nearest: list[NearPhoto] = Field(description="The photos most like the given sketch or photo, nearest first.")
    timings_ms: ExplainTimings
    method: str = Field(description="The checkpoint's best method, which ranks searches; ret if photos are compared.")
    generation: str = Field(description="The index generation.")
    model: str = Field(description="The checkpoint's name.")


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
        description="By which arithmetic its photos were computed, and on which kinds of processors."
    )
    text_tower: str | None = Field(
        description="The CLIP model whose text tower reads any text; null if text must be a word of the vocabulary. "
        "It is loaded when it is first needed."
    )
    text_tower_refused: str | None = Field(description="Why CLIP reads no text although it clustered the index.")


class BuildInfo(ProgressState):
    """The latest report of the running build, or else of the last one."""

    running: bool = Field(description="Whether POST /build started it and it runs, or its result is not used yet.")
    failed: str | None = Field(description="Why the last build started by POST /build failed, as a sentence.")


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
    quality: query.Quality = Field(description="How much is scored.")
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
