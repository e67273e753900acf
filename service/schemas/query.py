"""Defines the parameters of requests: the query of a search, from HTTP, command line and client, and all others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from sketch_search.model.images import MAX_NUMBERS, MAX_POINTS
from sketch_search.model.limits import MAX_VARIANTS
from sketch_search.model.words import LONGEST, why_no_name

#: What a query mainly is: one drawn thing, several, a photo in the body, liked photos or a word alone, filters alone.
Subject: TypeAlias = Literal["drawing", "things", "photo", "words", "filters"]
_SUBJECTS: Final[Mapping[Subject, str]] = {
    "drawing": "one picture of a drawing",
    "things": "several things",
    "photo": "a photo",
    "words": "liked photos or a word alone",
    "filters": "filters alone",
}
_RANKED: Final = frozenset[Subject]({"drawing", "things", "photo", "words"})


@dataclass(frozen=True)
class Rule:
    """Says what an option goes with, unless its value is one of ``free``, which change nothing.

    without: options that it excludes, with their values that it allows. because: what it does, after its name.
    """

    option: str
    because: str
    subjects: frozenset[Subject] = _RANKED
    free: tuple[object, ...] = (None,)
    without: Mapping[str, tuple[object, ...]] | None = None

    def applies(self, query: SearchQuery) -> bool:
        return getattr(query, self.option) not in self.free

    def beyond(self, query: SearchQuery) -> list[str]:
        """Returns the names of the given options that it excludes."""
        return [name for name, fine in (self.without or {}).items() if getattr(query, name) not in (None, (), *fine)]

    @property
    def goes(self) -> str:
        """Describes with what it goes; nothing if that is all that is ranked."""
        which = [words for subject, words in _SUBJECTS.items() if subject in self.subjects]
        parts = [f"only with {' or '.join(which)}"] if "filters" not in self.subjects else []
        parts += [f"not with {', '.join(self.without)}"] if self.without else []
        unless = " or ".join(str(value) for value in self.free if value is not None)
        said = f"{'Unless ' * bool(unless)}{unless}{': ' * bool(unless)}{'; '.join(parts)}."
        return "" if self.subjects == _RANKED and not self.without else said[0].upper() + said[1:]


_TWO_STAGE = Rule(
    "system",
    "searches by a single picture",
    frozenset({"drawing"}),
    (None, "default"),
    {
        "quality": (),
        "method": ("auto", "rn"),
        "rerank": (),
        "diffuse": (False,),
        "like": (),
        "unlike": (),
        "unlike_kind": (),
        "text": (),
        "thing_text": (),
        "kind": ("sketch",),
        "things": ("auto", "one"),
        "places": ("auto", "no"),
        "colours": ("auto", "no"),
    },
)
RULES: Final = (
    _TWO_STAGE,
    Rule("next", "goes on where an answer ended", frozenset(get_args(Subject)), without={"offset": (0,)}),
    Rule("quality", "says which photos are scored"),
    Rule("nprobe", "opens clusters of photos that are ranked"),
    Rule("method", "scores photos", free=("auto",)),
    Rule("method", "compares tokens of a single drawing", frozenset({"drawing"}), ("auto", "ret")),
    Rule("rerank", "limits the relation network, which compares a single drawing", frozenset({"drawing"})),
    Rule("relate_clusters", "compares tokens of a single drawing", frozenset({"drawing"}), (False,)),
    Rule("diffuse", "shares scores among photos that look alike", free=(None, False)),
    Rule("view", "groups photos that are ranked", free=("photos", "auto")),
    Rule("things", "leaves a single picture whole", _RANKED - {"things"}, ("auto",)),
    Rule("thing_text", "names drawn things", frozenset({"drawing", "things"}), ((),)),
    Rule("kind", "describes a picture", free=("sketch",)),
    Rule("places", "compares the places of drawn things", frozenset({"drawing", "things"}), ("auto", "no")),
)


def subject_of(query: SearchQuery, pictures: int) -> Subject | None:
    """Returns what a query is with so many pictures or things; None if it asks for nothing."""
    if pictures:
        return "things" if pictures > 1 else "photo" if query.kind == "photo" else "drawing"
    if query.like or query.text is not None:
        return "words"
    return "filters" if query.filters_alone else None


def problems_of(query: SearchQuery, subject: Subject | None = None) -> Iterator[str]:
    """Yields a sentence for each option that does not go with the others, or with the subject of the query if known."""
    for rule in (rule for rule in RULES if rule.applies(query)):
        value = getattr(query, rule.option)
        shown = f"{rule.option}={value}" if isinstance(value, str) and rule.option != "next" else rule.option
        if beyond := rule.beyond(query):
            because = "scores photos by the sketch alone" if rule is _TWO_STAGE else rule.because
            yield f"{shown} {because}: leave out {', '.join(beyond)}"
        elif subject is not None and subject not in rule.subjects:
            yield f"{shown} {rule.because}, not {_SUBJECTS[subject]}: leave {rule.option} out"


def beyond_two_stage(query: SearchQuery) -> list[str]:
    """Returns the names of the given options that the two-stage report's system does not have."""
    return _TWO_STAGE.beyond(query)


def describe(option: str, text: str) -> str:
    """Adds to an option's description what it goes with."""
    return " ".join([text, *(rule.goes for rule in RULES if rule.option == option and rule.goes)])


def splits(query: Any) -> bool:
    """Returns whether one picture may be split into things: if the other options go with several."""
    whole = query.things == "one" or query.method != "auto" or bool(query.diffuse)
    return not whole and next(problems_of(query, "things"), None) is None


# Which photos are scored by more than vectors: none, the best by vector, or every photo.
Quality = Literal["fast", "good", "best"]
# The system that searches: this project's own, or the two-stage report's and nothing else.
System = Literal["default", "two-stage"]
# Whether photos are shown one by one, or in groups of look-alikes.
View = Literal["photos", "groups"]
# Which things a drawing has, and whether their places and colours count.
Things = Literal["auto", "one"]
Places = Literal["auto", "yes", "no"]
Colours = Literal["auto", "no"]
# Whether the picture of a query is a drawing or a photo.
PictureKind = Literal["sketch", "photo"]
# The most photos that a query may like and dislike, together.
MAX_PHOTOS = 32
# The most photos that may be named at once.
MAX_NAMED = 64
# The type of validation errors whose message is a whole sentence that names the parameters.
SENTENCE: Final = "sentence"


def _refuse_other_folders(value: object) -> object:
    """Returns a folder's path without a '/' at its end. Raises if it is not a path as results show them."""
    if not isinstance(value, str):
        return value
    path = value.removesuffix("/")
    if path != "." and {"", ".", ".."} & set(path.removesuffix("/.").split("/")):
        problem = "folder must be the path of a folder as results show it, such as 2023/summer, not {given}"
        raise PydanticCustomError(SENTENCE, problem, {"given": repr(value[:64])})
    return path


def _only_digits(given: Any) -> Any:
    # Each photo has one address: no +1, 1_0, 1.0, spaces, or digits of other scripts.
    if isinstance(given, str) and not re.fullmatch("[0-9]+", given):
        raise PydanticCustomError("digits", "An id has digits only")
    return given


# The number of a photo or a cluster, up to SQLite's largest integer.
Id = Annotated[int, Field(ge=0, le=2**63 - 1), BeforeValidator(_only_digits)]
# A day whose beginning every system can represent.
Day = Annotated[date, Field(ge=date(1900, 1, 1), le=date(2200, 12, 31))]
Folder = Annotated[str, Field(max_length=4096), BeforeValidator(_refuse_other_folders)]
ThingText = Annotated[str, Field(max_length=LONGEST)]
THING_TEXT: Any = Field(
    default=(),
    max_length=8,
    description="A word of the vocabulary for each thing, in the order of the pictures or of `things`; empty for a "
    "thing without one. It counts instead of the guess, and may say the thing's colour, as in red car.",
    examples=[["red car", ""]],
)
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
    def _name_the_unknown(cls, given: Any) -> Any:
        known = cls.model_fields
        unknown = [name for name in given if name not in known] if isinstance(given, dict) else []
        if unknown:
            said = {"name": repr(unknown[0][:64]), "known": ", ".join(known)}
            raise PydanticCustomError(SENTENCE, "Unknown parameter {name}; valid ones are {known}", said)
        return given


class BuildParams(Params):
    """Parameters of a build."""

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
    """Parameters of a removal."""

    folder: str = Field(
        min_length=1,
        max_length=4096,
        description="An indexed folder, by its whole path on the server's machine, or a folder in one, by the path "
        "that results show.",
    )


class GalleryParams(Params):
    """The query parameters of a description of the gallery."""

    folder: tuple[Folder, ...] = Field(
        default=(),
        max_length=8,
        description="Count days only below this folder, a path as results show it; may be repeated.",
    )


class FoldersParams(Params):
    """The query parameters of a list of folders."""

    path: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="The whole path of a folder on the server's machine, which may begin with ~; default: the pictures "
        "folder of the user who runs the server, or their home folder if that is empty.",
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
    """All options of a search, of which HTTP, command line and client derive theirs."""

    k: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Number of results, or of groups with view=groups; default: the server's, 20."
    )
    offset: AtLeast0 = Field(
        default=0,
        description="Results to skip, or groups with view=groups. Beyond the candidates, more photos are scored, which "
        "may reorder earlier pages, except with nprobe=all or view=groups.",
    )
    next: Annotated[str, Field(pattern=r"^\d{1,9}(\.\d{1,9}){3}$")] | None = Field(
        default=None,
        description=describe(
            "next",
            "The `next` of an answer to the same query, for the results after those. A result that an earlier page "
            "had, or had as one of its `copies`, may come again: leave it out.",
        ),
    )
    system: System | None = Field(
        default=None,
        description=describe(
            "system",
            "two-stage: cross-attention and relation network score the centroids of all clusters, then all "
            "photos of the best nprobe clusters (1), and of more until they hold the results; without diffusion, prior "
            "and guesses. Default: the server's setting, default.",
        ),
        examples=["two-stage"],
    )
    quality: Quality | None = Field(
        default=None,
        description="How much is scored. fast: photos are compared by their vectors alone. good: the relation network "
        "scores the best of them. best: it scores every photo. Default: the server's, good. The options below "
        "override it.",
        examples=["fast"],
    )
    nprobe: AtLeast1 | Literal["all"] | None = Field(
        default=None,
        description='The least number of clusters to open; "all" is the exhaustive search. If given, the clusters are '
        "chosen by the method, and all of their photos are scored unless rerank limits them. Default: the server's, "
        "64, of which the method chooses some if there are more.",
    )
    method: str = Field(
        default="auto",
        max_length=32,
        description=describe("method", "rn, ret or fused, if the checkpoint has it; auto: its best."),
    )
    rerank: AtLeast1 | None = Field(
        default=None,
        description=describe(
            "rerank",
            "How many photos of the opened clusters the relation network scores: of the best 400 by [Ret], "
            "those whose tokens also match best, or the best by [Ret] if no others are ranked. Default: 64 if scores "
            "are diffused, else 192, or as many as a long page needs; all with nprobe.",
        ),
    )
    diffuse: bool | None = Field(
        default=None,
        description="Whether photos that look alike share their scores; default: yes with method auto, if the "
        "checkpoint supports it.",
    )
    variants: Annotated[int, Field(ge=1, le=MAX_VARIANTS)] | None = Field(
        default=None,
        description="How many variants of the sketch to encode; each takes the time of one encoding. 1 gives a quick "
        "first answer during drawing. Default: the server's.",
        examples=[1],
    )
    view: Literal["photos", "groups", "auto"] = Field(
        default="photos",
        description="photos: `results` lists the photos. groups: the 200 best photos are grouped by look, and "
        "`groups` lists the groups of look-alikes. auto: photos if one group is far ahead or several things are "
        "drawn, else groups; the answer's `view` says which.",
        examples=["groups"],
    )
    relate_clusters: bool = Field(
        default=False,
        description=describe(
            "relate_clusters",
            "Also score the centroids of the answer's `clusters` by cross-attention and the relation network. It "
            "changes no result.",
        ),
    )
    fold: bool = Field(
        default=False,
        description="Show near duplicates, such as other sizes of one picture or bursts, as one result, the best of "
        "them; its `copies` are the others. Applies to the top 1,000.",
    )
    like: tuple[Id, ...] = Field(
        default=(),
        max_length=MAX_NAMED,
        description="The id of a photo to find more like; may be repeated. Photos that look like it rank higher, and "
        "it comes first itself. Without a sketch, at least one is required, or text.",
        examples=[[17]],
    )
    unlike: tuple[Id, ...] = Field(
        default=(),
        max_length=MAX_NAMED,
        description="The id of an unwanted photo; may be repeated. It is hidden, with its near duplicates behind it, "
        "and photos that look like it move back: a little for one, more for each further one that looks alike.",
        examples=[[23]],
    )
    unlike_kind: tuple[Id, ...] = Field(
        default=(),
        max_length=MAX_NAMED,
        description="The same, but also hides all photos behind it that look more like it than like a liked one. At "
        "most 32 ids in like, unlike and unlike_kind together.",
        examples=[[24]],
    )
    text: str | None = Field(
        default=None,
        description="A word for what photos show, to rank them higher; with other parts of the query or alone. Any "
        "text if the index was clustered by CLIP, else a word of the checkpoint's vocabulary, in singular or plural: "
        "/words lists them, and the error for an unknown word names the nearest.",
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
        description="auto: a drawing is divided into its things, and each is searched for separately. "
        "one: it is one thing. Several pictures are always several things.",
        examples=["one"],
    )
    places: Places = Field(
        default="auto",
        description=describe(
            "places",
            "Whether photos must show things where they were drawn. auto: unless a method is named for a single one.",
        ),
        examples=["yes"],
    )
    colours: Colours = Field(
        default="auto",
        description="auto: photos must show things in the colours they were drawn in, except for black and grey "
        "strokes. no: colours do not count.",
        examples=["no"],
    )
    folder: tuple[Folder, ...] = Field(
        default=(),
        max_length=MAX_NAMED,
        description="Find only photos below this folder, a path as results show it, or with /. at its end only those "
        "in no subfolder of it; . alone: in no folder. May be repeated, to search below any of them. A photo with "
        "several files is found if one of them passes all filters.",
        examples=[["2023/summer"]],
    )
    after: Day | None = Field(
        default=None,
        description="Find only photos taken on this day or later, YYYY-MM-DD: by EXIF, or without a date in the "
        "file, by its last change and the server's clock.",
        examples=["2023-01-01"],
    )
    before: Day | None = Field(default=None, description="The same for this day or earlier.", examples=["2023-12-31"])

    @property
    def splits(self) -> bool:
        """Whether one picture may be divided into things."""
        return splits(self)

    @property
    def filters_alone(self) -> bool:
        """Whether the query consists of filters alone, beside a sketch."""
        parts = self.like or self.unlike or self.unlike_kind or self.text
        return bool(self.folder or self.after or self.before) and not parts

    @model_validator(mode="after")
    def _consistent(self) -> SearchQuery:
        if problem := next(problems_of(self), None):
            raise PydanticCustomError(SENTENCE, "{problem}", {"problem": problem})
        if self.after is not None and self.before is not None and self.after > self.before:
            said = {"after": str(self.after), "before": str(self.before)}
            problem = "after, {after}, must not be later than before, {before}"
            raise PydanticCustomError(SENTENCE, problem, said)
        if self.text is not None and (fault := why_no_name(self.text)):
            raise PydanticCustomError(SENTENCE, "text {problem}", {"problem": fault})
        unwanted = {*self.unlike, *self.unlike_kind}
        given = len(self.like) + len(self.unlike) + len(self.unlike_kind)
        if given > MAX_PHOTOS:
            problem = "like and unlike must be given at most {most} times together, not {given} times"
            raise PydanticCustomError(SENTENCE, problem, {"most": MAX_PHOTOS, "given": given})
        if both := sorted(unwanted & set(self.like)):
            problem = "like and unlike name the same photo, {photo}: leave one of them out"
            raise PydanticCustomError(SENTENCE, problem, {"photo": both[0]})
        return self


class PageParams(Params):
    """The query parameters of a list in pages."""

    k: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Number of photos; the server's, 20.")
    offset: AtLeast0 = Field(default=0, description="Photos to skip.")


class PhotosParams(Params):
    """The query parameters of photos by id."""

    id: list[Id] = Field(min_length=1, max_length=MAX_NAMED, description="Ids of photos; may be repeated.")


class WordsParams(Params):
    """The query parameters of the vocabulary."""

    prefix: str = Field(default="", max_length=100, description="The beginning of the words, or of one of their names.")
    limit: int = Field(default=20, ge=1, le=1000, description="The most words to return.")


class ThumbnailParams(Params):
    """The query parameters of a thumbnail."""

    size: int = Field(default=256, ge=16, le=1024, description="Longest side in pixels; photos are not enlarged.")
