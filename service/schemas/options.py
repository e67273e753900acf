"""Says with what each option of a query goes: one table, from which errors and the options' descriptions are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from sketch_search.service.schemas.query import SearchQuery

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
    """What an option goes with, if its value is none of ``free``, the values that change nothing.

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
