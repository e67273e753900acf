"""Defines the answer to a search, and how answers describe photos and clusters."""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsInt

from pydantic import BaseModel, Field

from sketch_search.model.answers import Guess, Unliked
from sketch_search.model.limits import System
from sketch_search.service.schemas.query import Quality, View

if TYPE_CHECKING:
    from sketch_search.indexer import PhotoEntry
    from sketch_search.service.settings import Settings

#: Characters of a content's hash in the address of a thumbnail.
HASH_SHOWN = 16


def optional(description: str, default: object = None) -> Any:
    """A field that answers leave out while it has its default."""
    return Field(default=default, description=description, exclude_if=lambda value: value == default)


class ListedPhoto(BaseModel):
    """A photo of the index. Files with the same bytes are one photo with several paths."""

    id: int
    paths: tuple[str, ...] = Field(description="Relative to the root, with '/'; of several roots, after its name.")
    photo_url: str | None = Field(description="The original, relative to the server; null if originals are not served.")
    thumbnail_url: str = Field(description="A small JPEG of it, relative to the server.")
    link: str | None = optional("Its address in another program, if SKETCH_SEARCH_LINK is set, and only then.")
    files: tuple[str, ...] = optional("From GET /photos with the token: the files on the server's machine.", ())

    @classmethod
    def of(cls, entry: "PhotoEntry", settings: "Settings", **further: Any) -> Self:
        """Describes a photo. further: the other fields."""
        # With the content's hash, so that browsers can keep it: another index may give the id to another photo.
        small = f"/thumbnails/{entry.id}/{entry.content_hash[:HASH_SHOWN]}"
        original = f"/photos/{entry.id}" if settings.serve_originals else None
        link = settings.link_of(entry.paths[0])
        return cls(id=entry.id, paths=entry.paths, photo_url=original, thumbnail_url=small, link=link, **further)


class PhotosResponse(BaseModel):
    """Photos requested by id."""

    photos: tuple[ListedPhoto, ...] = Field(description="In the order asked for.")


class DetectedBox(BaseModel):
    """A thing that the detector found in a photo when it was indexed."""

    kind: str = Field(description="One of 80 kinds.", examples=["dog"])
    certainty: float = Field(description="0 to 1.")
    box: tuple[float, float, float, float] = Field(
        description="Left, top, right and bottom, as shares of the photo's width and height.",
        examples=[[0.1, 0.4, 0.35, 0.9]],
    )

    @staticmethod
    def of(row: "Iterable[SupportsInt]") -> "DetectedBox | None":
        """Describes a box as an index keeps it (``model.engine.detector``); None for an unused one."""
        from sketch_search.model.engine.detector import KINDS, NO_KIND

        kind, *numbers = map(int, row)
        if kind == NO_KIND:
            return None
        certainty, left, top, right, bottom = (round(number / 255, 3) for number in numbers)
        return DetectedBox(kind=KINDS[kind], certainty=certainty, box=(left, top, right, bottom))


class PhotoFacts(BaseModel):
    """Says when and with what a photo was taken, how large its file is, and what the index knows that it shows."""

    day: str | None = Field(
        description="On which it was taken, or only its month or year; null if nothing says so.",
        examples=["2015-06-15", "1965-07", "1965"],
    )
    time: str | None = Field(description="HH:MM or HH:MM:SS, by the camera's clock.", examples=["17:03:21"])
    camera: str | None = Field(examples=["Canon EOS 80D"])
    lens: str | None = Field(examples=["EF-S18-135mm f/3.5-5.6 IS USM"])
    width: int = Field(description="In pixels, upright.")
    height: int
    bytes: int = Field(description="The size of the file.")
    changed: datetime | None = Field(description="When the file was last changed, if its folder says so.")
    boxes: tuple[DetectedBox, ...] = Field(default=(), description="The things detected in it, most certain first.")


class ClusterResponse(BaseModel):
    """One page of the photos of a cluster."""

    id: int
    size: int = Field(description="Photos in it.")
    offset: int
    photos: tuple[ListedPhoto, ...] = Field(description="By id.")


class SearchResult(ListedPhoto):
    """A photo found."""

    rank: int = Field(description="From 1, over all pages.")
    score: float = Field(
        description="How probably it shows what was asked for, 0 to 1, never more than of the photo before; a "
        "liked photo has 1. For liked photos alone, a named method, and checkpoints without weights for that, relative "
        "to the best photo."
    )
    raw_score: float = Field(description="The score by the method, whose range and meaning depend on the method.")
    cluster: int = Field(description="The cluster it was found in.")
    cells: tuple[int, ...] | None = optional(
        "Only if `things` were searched for: the region of the photo that best matched each of them, row * "
        "region_grid + column, from the top left."
    )
    boxes: tuple[DetectedBox | None, ...] | None = optional(
        "Only with `cells`: for each thing the detected box that fits it best; null if none may be of its kind."
    )
    copies: tuple[int, ...] | None = optional("Only with fold=true: the ids of its near duplicates, best first.")


class ResultGroup(BaseModel):
    """Photos of the ranking that look alike."""

    rank: int = Field(
        description="From 1, over all pages. Groups follow the best photos of the ranking and of the one before "
        "diffusion, in turns.",
        examples=[2],
    )
    size: int = Field(description="Photos of this group among the 200 best, the best one included.", examples=[12])
    best: SearchResult = Field(description="Its first photo in that order, with its rank among all photos.")
    more: tuple[SearchResult, ...] = Field(description="The next photos of the group, at most 4.")
    others: tuple[int, ...] = Field(default=(), description="The ids of its other photos, best first.")


class SeenThing(BaseModel):
    """A thing of the drawing, as it was searched for."""

    box: tuple[float, float, float, float] = Field(
        description="Left, top, right and bottom of its ink, as shares of the paper's width and height.",
        examples=[[0.1, 0.4, 0.35, 0.9]],
    )
    guess: Guess | None = Field(description="What it looks like; null if no word is probable.")
    guesses: tuple[Guess, ...] = optional(
        "What it may be, the most probable first: at most 4, often wrong, from which a person chooses.", ()
    )
    word: str | None = optional("What a person named it, which counts instead of the guess.")
    colours: tuple[str, ...] = Field(
        description="The colours that it was drawn in, the most used first, as #rrggbb; empty if they do not count.",
        examples=[["#d02020"]],
    )
    strokes: tuple[int, ...] = optional("The numbers of its strokes, or of its points of `ink`.", ())
    second_half: tuple[int, ...] = optional("Those that are a thing of their own if it is split into two.", ())
    fits: bool | None = optional(
        "Of several things: false if no photo is likely to show it; true if one almost certainly does; absent if "
        "uncertain."
    )


class Cluster(BaseModel):
    """A cluster whose photos were scored."""

    id: int
    score: float = Field(description="Of the sketch and the centroid: by [Ret], or with nprobe by the method.")
    size: int = Field(description="Photos in it.")


class StageTimings(BaseModel):
    """Milliseconds of each stage."""

    prepare: float = Field(description="Decode, crop and resize the sketch.")
    encode: float = Field(description="Encode it, and encode text by CLIP.")
    clusters: float = Field(description="Choose clusters: compare the sketch with their centroids.")
    photos: float = Field(
        description="Compare the photos of these clusters by [Ret], and score the best; with view=groups also group "
        "them, and with fold=true fold them."
    )
    diffusion: float = Field(description="Let photos that look alike share their scores.")
    total: float = Field(description="All of these.")


class SearchResponse(BaseModel):
    """The answer to a search."""

    results: tuple[SearchResult, ...] = Field(description="Best first, ties by id; empty if groups are listed.")
    groups: tuple[ResultGroup, ...] | None = optional("With view=groups, or if auto chose it: the groups, in order.")
    view: View | None = optional("Only with view=auto: the view chosen.")
    guesses: tuple[Guess, ...] = Field(
        default=(),
        description="What the sketch looks like, in words of the vocabulary, the most probable first: at most 3. "
        "Empty if no word is probable, without a sketch, and if the checkpoint has no vocabulary.",
    )
    perhaps: tuple[str, ...] = optional("Without a guess: at most 3 words, each more often wrong than right.", ())
    things: tuple[SeenThing, ...] = optional(
        "The things of the drawing: of several pictures, of one that may be divided, or if the place or the colours of "
        "one thing count.",
        (),
    )
    ink: tuple[tuple[float, float], ...] = optional(
        "Of a picture without strokes: points on its ink, as shares of the paper's sides. Sent as `strokes` of one "
        "point each, they say what belongs together.",
        (),
    )
    left_out: tuple[tuple[float, float, float, float], ...] = optional(
        "Where ink is that does not count, because it is no drawing: left, top, right and bottom, as shares of the "
        "paper's sides. It counts with writing=yes.",
        (),
    )
    page: int | None = optional("Of a file with several pages: the one that was searched with.")
    placed: bool = optional("With `things`: whether photos had to show them where they were drawn.", False)
    region_grid: int | None = optional("Only with `cells`: regions along one side of a photo.")
    clusters: tuple[Cluster, ...] = Field(description="The clusters of the photos that were scored, best first.")
    next: str | None = Field(default=None, description="To send with the same query for more; null if there are none.")
    candidates: int = Field(description="Photos in the ranking, which the results are part of.")
    photos: int = Field(default=0, description="Photos that pass the filters; of all, the results are the first.")
    unliked: tuple[Unliked, ...] = optional("The photos of unlike and unlike_kind.", ())
    hidden: int = optional("How many photos these hide.", 0)
    pairs_scored: int = Field(description="Centroids and photos that the method scored.")
    method: str = Field(description="The method used, also for auto. date: filters alone, newest photos first.")
    system: System = Field(description="The system that searched.")
    quality: Quality = Field(description="How much was to be scored, unless another option set it.")
    rerank: int | None = Field(description="Photos that the method was to score; null: all of the opened clusters.")
    diffused: bool = Field(description="Whether photos that look alike shared their scores.")
    words: Literal["clip", "vocabulary"] | None = optional(
        "Only with text: clip if CLIP's text tower read it, which reads any text; vocabulary if it is a "
        "word of the checkpoint's vocabulary."
    )
    word_fits: bool | None = optional(
        "With text read by the vocabulary: false if no photo that can be found is likely to show what it "
        "names, so that the results are only the closest; true if one almost certainly does; absent if uncertain."
    )
    sketch_fits: bool | None = optional(
        "For a sketch: false if no photo is likely to show it, so that the results are only the closest; true if one "
        "almost certainly does; absent if uncertain. Of several things: if all have the same `fits`, that."
    )
    word_read: str | None = optional(
        "Only with text read by the vocabulary: the part of it that was understood, such as dog in 'my old "
        "dog'; in lower case, without hyphens."
    )
    word_means: str | None = optional(
        "Only with text read by the vocabulary that is searched for by other words: these words, such as "
        "any person, woman or not, for 'woman', horse for 'pferd', and dog and sofa for 'my dog on the sofa'."
    )
    word_instead: tuple[str, ...] = optional(
        "Only with text read by the vocabulary: if a word of it has several meanings, and nothing drawn tells which, "
        "texts with the others, such as kite bird for 'kite'.",
        (),
    )
    word_ignored: tuple[str, ...] = optional(
        "Only with text read by the vocabulary: the parts of it that do not count, such as night in 'two dogs at "
        "night'.",
        (),
    )
    timings_ms: StageTimings
    complete: bool = Field(default=True, description="False if shards did not answer, whose photos are not found.")
    missing_shards: tuple[str, ...] = optional("Only with complete=false: the shards that did not answer.", ())
    generation: str = Field(description="The index generation searched; those of shards, joined by '+'.")
    model: str = Field(description="The checkpoint's name.")
    embedder: str = Field(description="What the clusters were made with.")
