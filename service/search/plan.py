"""Plans a search: completes the query with the service's defaults, and reads texts by CLIP's text tower."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from sketch_search.indexer import EmbedderEntry, EmbedderUnavailable, open_text_tower
from sketch_search.model import Matcher
from sketch_search.model.engine import Method
from sketch_search.model.limits import System
from sketch_search.model.search import Plan, methods_of, plan_by_default
from sketch_search.service.errors import BadSearch
from sketch_search.service.schemas.query import Subject, TunedQuery
from sketch_search.service.schemas.search import StageTimings
from sketch_search.service.settings import Settings

if TYPE_CHECKING:
    from sketch_search.model.torch import TextTower

# Texts whose vectors are kept, some 2 KB each.
TEXTS_KEPT = 256
# A tower that could not be loaded is tried again after this time: its files may have been added.
RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class ReadText:
    """A text by CLIP, vector (e,) float32 or None, its milliseconds, and why there is none for an index by CLIP."""

    vector: NDArray[np.float32] | None = None
    refusal: str | None = None
    milliseconds: float = 0.0


@dataclass(frozen=True)
class _LoadedTower:
    """An attempt to load an index's tower: when it ended, by the monotonic clock, and the error if it failed."""

    entry: EmbedderEntry
    ended: float
    tower: "TextTower | None"
    refusal: str | None


class TextTowers:
    """Holds the text tower of the CLIP model that an index was clustered by. Threads may share it."""

    def __init__(self, device: str) -> None:
        self._device = device
        # One thread computes at a time: two would only slow each other down.
        self._lock = threading.Lock()
        self._last: _LoadedTower | None = None
        # By the SHA-256 of the model's weights, and the text.
        self._texts: LRUCache[tuple[str | None, str], NDArray[np.float32]] = LRUCache(TEXTS_KEPT)

    def refusal(self, entry: EmbedderEntry) -> str | None:
        last = self._last
        return last.refusal if last is not None and last.entry == entry else None

    def read(self, entry: EmbedderEntry, text: str) -> ReadText:
        """Reads a text by the CLIP model of an index, loading the model if needed."""
        began = time.perf_counter()
        key = entry.sha256, " ".join(text.split())
        with self._lock:
            if (known := self._texts.get(key)) is not None:
                return ReadText(known)
            attempt = self._attempt(entry)
            if attempt.tower is None:
                return ReadText(refusal=attempt.refusal)
            self._texts[key] = vector = attempt.tower.text(text)
        return ReadText(vector, milliseconds=(time.perf_counter() - began) * 1000)

    def _attempt(self, entry: EmbedderEntry) -> _LoadedTower:
        """Returns the tower of this index, loading it if needed, or the reason why it cannot be loaded."""
        last = self._last
        if last is not None and last.entry == entry and (last.tower or time.monotonic() - last.ended < RETRY_SECONDS):
            return last
        # The tower of another index is dropped first, or two would be in memory.
        self._last = None
        del last
        tower, refusal = None, None
        try:
            tower = open_text_tower(entry, self._device)
        except EmbedderUnavailable as error:
            refusal = str(error)
        self._last = _LoadedTower(entry, time.monotonic(), tower, refusal)
        return self._last


# The best photos that are grouped by look. All pages show parts of this one grouping, so that no group changes its rank
# or size from page to page.
GROUPED = 200


def plan_search(
    options: TunedQuery,
    matcher: Matcher,
    settings: Settings,
    *,
    tokens_kept: int,
    regions: int = 0,
    things: int = 1,
    of_index: System = "default",
) -> tuple[TunedQuery, Plan]:
    """Completes a query: how many results, which system and quality, how many variants; and plans its ranking.

    settings: the defaults. tokens_kept, regions: of each photo in the gallery, [Ret] included. of_index: its system.
    things: the number of things drawn; 1 for a photo in the query, 0 without a picture.

    Raises BadSearch if the checkpoint or the index cannot do it, or nothing is asked.
    """
    subject = check_options(options, things)
    check_names(options.thing_text, things)
    if options.places == "yes" and not regions:
        raise BadSearch("places=yes compares regions of photos, which this index does not keep: leave places out.")
    usual = settings.system or of_index
    system = options.system or ("default" if options.beyond_two_stage or subject != "drawing" else usual)
    quality, variants = "best" if system == "two-stage" else options.quality or settings.quality, options.variants
    if quality == "draft":
        quality, variants = settings.quality, 1
    options = options.model_copy(update={"k": options.k or settings.default_k, "system": system, "quality": quality})
    # Groups are made of the GROUPED best photos.
    page = 0 if options.view == "groups" else options.offset + (options.k or 0)
    results = max(page, 0 if options.view == "photos" else GROUPED)
    if system == "two-stage":
        check_method("rn", matcher, tokens_kept)
        # It encodes only the sketch itself.
        options = options.model_copy(update={"variants": options.variants or 1})
        return options, Plan.two_stage(results, options.nprobe, fold=options.fold)
    plan = plan_by_default(
        matcher,
        results,
        things,
        tokens_kept=tokens_kept,
        regions=regions,
        by_vector=subject == "photo" or quality == "fast",
        method=None if options.method == "auto" else check_method(options.method, matcher, tokens_kept),
    )
    if plan.method != "things":
        check_method(plan.method, matcher, tokens_kept)
    if plan.method == "ret" and options.rerank is not None:
        raise BadSearch("rerank limits the relation network, which method 'ret' does not use: leave rerank out.")
    if options.diffuse and matcher.calibration.diffusion is None:
        raise BadSearch("This checkpoint has no threshold for diffusion: leave diffuse out.")
    if options.diffuse and things > 1 and plan.method != "things":
        raise BadSearch("Scores of several things are not diffused without their regions: leave diffuse out.")
    plan = replace(
        plan,
        nprobe=options.nprobe or ("all" if quality == "best" else settings.nprobe),
        chosen=options.nprobe is not None,
        # A query that sets the number of clusters, or the best quality, scores all of their photos.
        score_all=options.nprobe is not None or quality == "best",
        limit=options.rerank,
        diffuse=plan.diffuse if options.diffuse is None else options.diffuse,
        fold=options.fold,
    )
    return options.model_copy(update={"variants": variants}), plan


@dataclass(frozen=True)
class _Rule:
    """An option, what it does, whether a query gives it, and the subjects that it goes with."""

    option: str
    does: str
    is_given: Callable[[TunedQuery], object]
    goes_with: tuple[Subject, ...]


_SUBJECTS: Mapping[Subject, str] = {
    "drawing": "a drawing",
    "things": "several things",
    "photo": "a photo",
    "words": "liked photos or a word",
    "filters": "filters",
}
_ONE: tuple[Subject, ...] = ("drawing",)
_DRAWN: tuple[Subject, ...] = ("drawing", "things")
_UNDIVIDED: tuple[Subject, ...] = ("drawing", "photo", "words", "filters")
_RULES = (
    _Rule("system", "system=two-stage searches by a single picture", lambda q: q.system == "two-stage", _ONE),
    _Rule("method", "method={} compares tokens of a single drawing", lambda q: q.method not in ("auto", "ret"), _ONE),
    _Rule("rerank", "rerank limits the relation network, which scores a single drawing", lambda q: q.rerank, _ONE),
    _Rule("things", "things=one leaves a single picture whole", lambda q: q.things == "one", _UNDIVIDED),
    _Rule("thing_text", "thing_text names drawn things", lambda q: q.thing_text, _DRAWN),
    _Rule("places", "places=yes compares the places of drawn things", lambda q: q.places == "yes", _DRAWN),
)
# The options that need a ranking, and whether a query gives them.
_OF_RANKING: Mapping[str, Callable[[TunedQuery], object]] = {
    "system": lambda q: q.system == "two-stage",
    "quality": lambda q: q.quality not in (None, "draft"),
    "nprobe": lambda q: q.nprobe is not None,
    "method": lambda q: q.method != "auto",
    "view": lambda q: q.view == "groups",
    "kind": lambda q: q.kind == "photo",
    "diffuse": lambda q: q.diffuse,
}


def check_options(options: TunedQuery, pictures: int) -> Subject:
    """Returns what a query mainly is with so many pictures or things.

    Raises BadSearch if it asks for nothing, or an option does not go with it.
    """
    if pictures:
        subject: Subject = "things" if pictures > 1 else "photo" if options.kind == "photo" else "drawing"
    elif options.like or options.text is not None:
        subject = "words"
    elif options.filters_alone:
        subject = "filters"
    else:
        raise BadSearch("The query is empty: send a sketch, or set like, text or a filter.")
    if subject == "filters" and (names := [name for name, is_given in _OF_RANKING.items() if is_given(options)]):
        raise BadSearch(f"Options of a ranking do not go with filters alone: leave {', '.join(names)} out.")
    for rule in _RULES:
        if subject not in rule.goes_with and rule.is_given(options):
            does = rule.does.format(options.method)
            raise BadSearch(f"{does}, not {_SUBJECTS[subject]}: leave {rule.option} out.")
    return subject


def check_names(names: Sequence[str], things: int) -> None:
    """Raises BadSearch if there are more words of things than things."""
    if len(names) > things:
        raise BadSearch(f"thing_text names {len(names)} things, but {things} are drawn: name fewer.")


def check_method(name: str, matcher: Matcher, tokens_kept: int) -> Method:
    """Returns the method of this name. Raises BadSearch if the checkpoint or the index cannot score photos by it."""
    able = methods_of(matcher, tokens_kept)
    if name in matcher.methods and name not in able:
        raise BadSearch(
            f"Method {name!r} compares tokens, which this index does not keep: leave method out, or build the index "
            "with --tokens all."
        )
    for method in able:
        if method == name:
            return method
    raise BadSearch(f"This checkpoint has no method {name!r}; it has {', '.join(('auto', *able))}.")


TimedStage: TypeAlias = Literal["prepare", "encode", "clusters", "photos", "diffusion"]


class Stopwatch:
    """Times the stages of one search, in milliseconds. All time goes to one stage or another."""

    def __init__(self, prepare_ms: float = 0.0, encode_ms: float = 0.0) -> None:
        self._seconds: dict[TimedStage, float] = dict.fromkeys(get_args(TimedStage), 0.0)
        self._seconds |= {"prepare": prepare_ms / 1000, "encode": encode_ms / 1000}
        self._last = time.perf_counter()

    def lap(self, stage: TimedStage) -> None:
        now = time.perf_counter()
        self._seconds[stage] += now - self._last
        self._last = now

    def timings(self) -> StageTimings:
        milliseconds = {stage: round(seconds * 1000, 3) for stage, seconds in self._seconds.items()}
        return StageTimings(**milliseconds, total=round(sum(milliseconds.values()), 3))
