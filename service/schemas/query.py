"""Defines the parameters of requests: the query of a search, from HTTP, command line and client, and all others.

The first sentence of a description is the help of the command line's option.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal, TypeAlias, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from sketch_search.model.limits import FIRST_YEAR, MAX_NUMBERS, MAX_POINTS, MAX_VARIANTS, Places, System
from sketch_search.model.words import LONGEST, why_no_name

#: What a query mainly is: one drawn thing, several, a photo in the body, liked photos or a word alone, filters alone.
Subject: TypeAlias = Literal["drawing", "things", "photo", "words", "filters"]
# Which photos are scored by more than vectors: none, the best by vector, or every photo.
Quality = Literal["fast", "good", "best"]
# Whether photos are shown one by one, or in groups of look-alikes.
View = Literal["photos", "groups"]
# Which things a drawing has, and whether their colours count.
Things = Literal["auto", "one"]
Colours = Literal["auto", "no"]
# Whether writing and marks beside a drawing count.
Writing = Literal["auto", "yes"]
# Whether the picture of a query is a drawing or a photo.
PictureKind = Literal["sketch", "photo"]
# The most photos that a query may like and dislike, together.
MAX_PHOTOS = 32
# The most photos that may be named at once.
MAX_NAMED = 64


def _refuse_other_folders(value: object) -> object:
    """Returns a folder's path without a '/' at its end. Raises if it is not a path as results show them."""
    if not isinstance(value, str):
        return value
    path = value.removesuffix("/")
    if path != "." and {"", ".", ".."} & set(path.removesuffix("/.").split("/")):
        raise PydanticCustomError("folder", "It is not the path of a folder")
    return path


def _only_digits(value: Any) -> Any:
    # Each photo has one address: no +1, 1_0, 1.0, spaces, or digits of other scripts.
    if isinstance(value, str) and not re.fullmatch("[0-9]+", value):
        raise PydanticCustomError("digits", "An id has digits only")
    return value


def check_word(text: str) -> str:
    """Returns a word. Raises if it cannot name a thing."""
    if fault := why_no_name(text):
        raise PydanticCustomError("word", "{fault}", {"fault": fault})
    return text


# The number of a photo or a cluster, up to SQLite's largest integer.
Id = Annotated[int, Field(ge=0, le=2**63 - 1), BeforeValidator(_only_digits)]
# A day whose beginning every system can represent.
QueryDay = Annotated[date, Field(ge=date(FIRST_YEAR, 1, 1), le=date(2200, 12, 31))]
ShownFolder = Annotated[str, Field(max_length=4096), BeforeValidator(_refuse_other_folders)]
Text = Annotated[str, AfterValidator(check_word)]
# A word, or none if it is empty.
ThingText = Annotated[str, Field(max_length=LONGEST), AfterValidator(lambda text: text.strip() and check_word(text))]
THING_TEXT: Any = Field(
    default=(),
    max_length=8,
    description="A word for each thing, empty for none; may be repeated. A word of the vocabulary, in the order of the "
    "pictures or of `things`. It counts instead of the guess, and may say the thing's colour, as in red car.",
    examples=[["red car", ""]],
)
WRITING: Any = Field(
    default="auto",
    description="Count ink that is no drawing: yes or auto (auto). auto: lines of writing, small marks far from all "
    "else, and light blue or red construction lines do not count; the answer's `left_out` says where they are. yes: "
    "all ink does.",
    examples=["yes"],
)
PAGE: Any = Field(
    default=0,
    le=10_000,
    description="The page of a PDF or TIFF of several, from 1. Default: the one with most ink that is no writing; the "
    "answer's `page` says which.",
    examples=[2],
)
Turn = Annotated[int, Field(ge=0, le=270, multiple_of=90)]
TURN: Any = Field(default=0, description="Turn the picture clockwise by 90, 180 or 270 degrees.", examples=[90])
AtLeast0 = Annotated[int, Field(ge=0, le=2**31)]
AtLeast1 = Annotated[int, Field(ge=1, le=2**31)]


class Params(BaseModel):
    """Query parameters. An unknown name is refused: a misspelt one would silently change the answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def repeatable(cls) -> frozenset[str]:
        """Returns the names of the parameters that may be repeated."""
        fields = cls.model_fields.items()
        return frozenset(name for name, field in fields if get_origin(field.annotation) in (list, tuple))

    @model_validator(mode="before")
    @classmethod
    def _name_the_unknown(cls, params: Any) -> Any:
        known = cls.model_fields
        unknown = [name for name in params if name not in known] if isinstance(params, dict) else []
        if unknown:
            raise ValueError(f"Unknown parameter {unknown[0][:64]!r}; valid ones are {', '.join(known)}")
        return params


class BuildParams(Params):
    folder: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="The whole path of a folder of photos on the server's machine, which may begin with ~. It is "
        "added to the indexed folders. Default: only update those.",
    )
    exclude: list[Annotated[str, Field(max_length=200)]] = Field(
        default=[],
        max_length=100,
        description="Patterns, as in .gitignore and relative to each indexed folder, of files and folders to leave "
        "out, in this build and later ones.",
    )
    include: list[Annotated[str, Field(max_length=200)]] = Field(
        default=[], max_length=100, description="Patterns to drop from those that exclude gave."
    )


class RemoveParams(Params):
    folder: str = Field(
        min_length=1,
        max_length=4096,
        description="An indexed folder, by its whole path on the server's machine, or a folder in one, by the path "
        "that results show.",
    )


class GalleryParams(Params):
    folder: tuple[ShownFolder, ...] = Field(
        default=(),
        max_length=8,
        description="Count days only below this folder, a path as results show it; may be repeated.",
    )


class FoldersParams(Params):
    path: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="The whole path of a folder on the server's machine, which may begin with ~; default: the pictures "
        "folder of the user who runs the server, or if that is empty their home folder, or the one it was started in.",
    )


_Share = Annotated[float, Field(ge=-1, le=2)]


class StrokeBody(BaseModel):
    """A stroke of a drawing, in a form's field `strokes`."""

    model_config = ConfigDict(extra="forbid")

    points: tuple[tuple[_Share, _Share], ...] = Field(
        min_length=1,
        max_length=MAX_POINTS,
        description="x and y of each point, as shares of the paper's width and height.",
    )
    width: float = Field(default=0.01, ge=0, le=1, description="As a share of the paper's width.")
    filled: bool = Field(default=False, description="Whether it is an area that the points go round.")
    thing: int | None = Field(
        default=None,
        ge=0,
        lt=MAX_NUMBERS,
        description="Strokes with the same number are one thing, and those with different ones several. Without a "
        "number, the network decides.",
    )
    word: ThingText = Field(default="", description="What its thing is, as `thing_text` says it of pictures.")


class SearchQuery(Params):
    """All options of a search, of which HTTP, command line and client make theirs."""

    k: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Number of results, or of groups (20). Default: the server's, 20."
    )
    offset: AtLeast0 = Field(
        default=0,
        description="Results to skip, or groups. Beyond the candidates, more photos are scored, which may reorder "
        "earlier pages, except with nprobe=all or view=groups.",
    )
    next: Annotated[str, Field(pattern=r"^\d{1,9}(\.\d{1,9}){3}$")] | None = Field(
        default=None,
        description="The `next` of an answer, for the results after it. The query is the same. A result that an "
        "earlier page had, or had as one of its `copies`, may come again: leave it out. Not with offset.",
    )
    system: System | None = Field(
        default=None,
        description="default, or two-stage: by pairs of tokens alone. There cross-attention and relation network score "
        "the centroids of all clusters, then all photos of the best nprobe clusters (1), and of more until they hold "
        "the results; without diffusion, prior and guesses. It takes one drawing and no other parts of a query. "
        "Default: the server's setting, default.",
        examples=["two-stage"],
    )
    quality: Quality | Literal["draft"] | None = Field(
        default=None,
        description="fast, good, or best: how much is scored (good). fast: photos are compared by their vectors alone. "
        "good: the relation network scores the best of them. best: it scores every photo. draft: the default, with "
        "only one variant of the sketch, for a quick first answer during drawing. Default: the server's, good. "
        "nprobe and method override it.",
        examples=["fast"],
    )
    nprobe: AtLeast1 | Literal["all"] | None = Field(
        default=None,
        description="The least number of clusters to open, or all. all is the exhaustive search. If given, the "
        "clusters are chosen by the method, and all of their photos are scored. Default: the server's, 64, of which "
        "the method chooses some if there are more.",
    )
    method: str = Field(
        default="auto",
        max_length=32,
        description="rn, ret, fused or auto (auto). fused is not in every checkpoint, and auto is its best. rn and "
        "fused take one drawing of one thing.",
    )
    min_score: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="Leave out photos with a lower score (0). 0 to 1: only those that show what was asked for at least "
        "so probably.",
        examples=[0.5],
    )
    view: Literal["photos", "groups", "auto"] = Field(
        default="photos",
        description="photos, groups of look-alikes, or auto (photos). photos: `results` lists the photos. groups: the "
        "200 best photos are grouped by look, and `groups` lists the groups. auto: photos if one group is far ahead or "
        "several things are drawn, else groups; the answer's `view` says which.",
        examples=["groups"],
    )
    fold: bool = Field(
        default=False,
        description="Show near duplicates as one result. It is the best of such as other sizes of one picture or "
        "bursts; its `copies` are the others. Applies to the top 1,000.",
    )
    like: tuple[Id, ...] = Field(
        default=(),
        max_length=MAX_NAMED,
        description="A photo to find more like; may be repeated. Its id. Photos that look like it rank higher, and "
        "it comes first itself. Without a sketch, at least one is required, or text.",
        examples=[[17]],
    )
    unlike: tuple[Id, ...] = Field(
        default=(),
        max_length=MAX_NAMED,
        description="An unwanted photo; may be repeated. Its id. It is hidden, with its near duplicates behind it, "
        "and photos that look like it move back: a little for one, more for each further one that looks alike.",
        examples=[[23]],
    )
    unlike_kind: tuple[Id, ...] = Field(
        default=(),
        max_length=MAX_NAMED,
        description="An unwanted photo of an unwanted kind; may be repeated. It also hides all photos behind it that "
        "look more like it than like a liked one. At most 32 ids in like, unlike and unlike_kind together.",
        examples=[[24]],
    )
    text: Text | None = Field(
        default=None,
        description="A word for what photos show, to rank them higher. It goes with other parts of the query or "
        "alone. Any text if the index was clustered by CLIP, else a word of the checkpoint's vocabulary, in singular "
        "or plural: /words lists them, and the error for an unknown word names the nearest.",
        examples=["sofa"],
    )
    thing_text: tuple[ThingText, ...] = THING_TEXT
    kind: PictureKind = Field(
        default="sketch",
        description="What the body is. photo: photos that look like it rank higher, as if it were a liked one.",
        examples=["photo"],
    )
    things: Things = Field(
        default="auto",
        description="one, or auto: separate parts are things (auto). A drawing is divided into its "
        "things, and each is searched for separately. one: it is one thing; several pictures always are several.",
        examples=["one"],
    )
    places: Places = Field(
        default="auto",
        description="Match places: yes, no or auto (auto). yes: photos must show things where they were drawn. auto: "
        "the same, unless a method is named for a single one.",
        examples=["yes"],
    )
    colours: Colours = Field(
        default="auto",
        description="Match the drawing's colours: no or auto (auto). Black, and greys but the page's, have none.",
        examples=["no"],
    )
    writing: Writing = WRITING
    page: AtLeast0 = PAGE
    turn: Turn = TURN
    folder: tuple[ShownFolder, ...] = Field(
        default=(),
        max_length=MAX_NAMED,
        description="Only photos below this folder; may be repeated. Its path, as results show it; with /. at its end "
        "only those in no subfolder of it; . alone: in no folder. A photo with several files is found if one of them "
        "passes all filters.",
        examples=[["2023/summer"]],
    )
    after: QueryDay | None = Field(
        default=None,
        description="Only photos taken on 2023-01-31 or later. By EXIF, or without a date in "
        "the file, by its last change and the server's clock.",
        examples=["2023-01-01"],
    )
    before: QueryDay | None = Field(
        default=None, description="Only photos taken on this day or earlier.", examples=["2023-12-31"]
    )

    @property
    def splits(self) -> bool:
        """Whether one picture may be divided into things: if the other options go with several."""
        return self.things == "auto" and self.method == "auto" and self.system != "two-stage"

    @property
    def beyond_two_stage(self) -> list[str]:
        """The names of the given options that the two-stage report's system does not have."""
        options = {
            "quality": self.quality not in (None, "draft"),
            "method": self.method not in ("auto", "rn"),
            "like": self.like,
            "unlike": self.unlike,
            "unlike_kind": self.unlike_kind,
            "text": self.text is not None,
            "thing_text": self.thing_text,
            "kind": self.kind == "photo",
            "places": self.places == "yes",
        }
        return [name for name, value in options.items() if value]

    @property
    def tuned(self) -> TunedQuery:
        """The same query with all options of a search in this process."""
        return self if isinstance(self, TunedQuery) else TunedQuery.model_construct(self.model_fields_set, **vars(self))

    @property
    def filters_alone(self) -> bool:
        """Whether the query consists of filters alone, beside a sketch."""
        parts = self.like or self.unlike or self.unlike_kind or self.text
        return bool(self.folder or self.after or self.before) and not parts

    @model_validator(mode="after")
    def _consistent(self) -> SearchQuery:
        if self.system == "two-stage" and (beyond := self.beyond_two_stage):
            raise ValueError(f"system=two-stage scores photos by the sketch alone: leave out {', '.join(beyond)}")
        if self.next is not None and self.offset:
            raise ValueError("next goes on where an answer ended: leave out offset")
        if self.after is not None and self.before is not None and self.after > self.before:
            raise ValueError(f"after, {self.after}, must not be later than before, {self.before}")
        unwanted = {*self.unlike, *self.unlike_kind}
        count = len(self.like) + len(self.unlike) + len(self.unlike_kind)
        if count > MAX_PHOTOS:
            raise ValueError(f"like and unlike must be given at most {MAX_PHOTOS} times together, not {count} times")
        if both := sorted(unwanted & set(self.like)):
            raise ValueError(f"like and unlike name the same photo, {both[0]}: leave one of them out")
        return self


class TunedQuery(SearchQuery):
    """A search in this process, with what tables compare: HTTP, command line and client do not have these options.

    rerank: how many photos of the opened clusters the relation network scores; None for 64 if scores are diffused, else
    192, or as many as a long page needs; all with nprobe. diffuse: whether photos that look alike share their scores;
    None for yes with method auto, if the checkpoint supports it. variants: of the sketch to encode; None for the
    matcher's.
    """

    rerank: AtLeast1 | None = None
    diffuse: bool | None = None
    variants: Annotated[int, Field(ge=1, le=MAX_VARIANTS)] | None = None

    @property
    def splits(self) -> bool:
        return super().splits and not self.diffuse and self.rerank is None

    @property
    def beyond_two_stage(self) -> list[str]:
        options = {"rerank": self.rerank is not None, "diffuse": self.diffuse}
        return super().beyond_two_stage + [name for name, value in options.items() if value]


class PageParams(Params):
    k: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Number of photos; the server's, 20.")
    offset: AtLeast0 = Field(default=0, description="Photos to skip.")


class PhotosParams(Params):
    id: list[Id] = Field(min_length=1, max_length=MAX_NAMED, description="Ids of photos; may be repeated.")


class WordsParams(Params):
    prefix: str = Field(default="", max_length=100, description="The beginning of the words, or of one of their names.")
    limit: int = Field(default=20, ge=1, le=1000, description="The most words to return.")


class ThumbnailParams(Params):
    size: int = Field(default=256, ge=16, le=1024, description="Longest side in pixels; photos are not enlarged.")
