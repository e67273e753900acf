"""Plans a search: completes the query with the service's defaults and the checkpoint's abilities."""

import time
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from PIL import Image

from sketch_search.model import Matcher
from sketch_search.model.engine import Method
from sketch_search.model.images import Drawing, Pixels
from sketch_search.model.search import Plan, methods_of
from sketch_search.service.errors import BadSearch
from sketch_search.service.schemas.query import Quality, SearchQuery, Subject, System, TunedQuery
from sketch_search.service.schemas.search import StageTimings
from sketch_search.service.settings import Settings

# The best photos that are grouped by look. All pages show parts of this one grouping, so that no group changes its rank
# or size from page to page.
GROUPED = 200


@dataclass(frozen=True)
class SearchPlan:
    """How a query is answered.

    ranking: how photos are ranked. k: how many results are wanted, from ``query.offset`` on. variants: of the sketch to
    encode; None as for ``encode_things``.
    """

    query: TunedQuery
    system: System
    quality: Quality
    ranking: Plan
    k: int
    variants: int | None = None

    @property
    def seeks_things(self) -> bool:
        """Whether regions count: they are not read if only vectors are compared."""
        return self.system == "default" and self.quality != "fast"


def plan_search(
    query: TunedQuery,
    matcher: Matcher,
    settings: Settings,
    *,
    tokens_kept: int,
    regions: int = 0,
    things: int = 1,
    of_index: System = "default",
) -> SearchPlan:
    """Returns the plan for a query. Raises BadSearch if the checkpoint or the index cannot do it, or nothing is asked.

    settings: the defaults. tokens_kept, regions: of each photo in the gallery, [Ret] included. of_index: its system.
    things: the number of things drawn; 1 for a photo in the query, 0 without a picture.
    """
    subject = check_options(query, things)
    if len(query.thing_text) > things:
        raise BadSearch(f"thing_text names {len(query.thing_text)} things, but {things} are drawn: name fewer.")
    if query.places == "yes" and not regions:
        raise BadSearch("places=yes compares regions of photos, which this index does not keep: leave places out.")
    quality = quality_of(query, settings)
    usual = settings.system or of_index
    system = query.system or ("default" if query.beyond_two_stage or subject != "drawing" else usual)
    k = settings.default_k if query.k is None else query.k
    # Groups are made of the GROUPED best photos.
    page = 0 if query.view == "groups" else query.offset + k
    results = max(page, 0 if query.view == "photos" else GROUPED)
    if system == "two-stage":
        # Raises BadSearch if there is no relation network.
        _method(query.model_copy(update={"method": "rn"}), matcher, "best", tokens_kept, "drawing")
        ranking = replace(Plan.two_stage(results, query.nprobe), fold=query.fold)
        # It encodes only the sketch itself.
        return SearchPlan(query, "two-stage", "best", ranking, k, query.variants or 1)
    method = _method(query, matcher, quality, tokens_kept, subject)
    if things > 1 and regions and query.method == "auto" and quality != "fast":
        method = "things"
    able = matcher.calibration.diffusion is not None
    if query.diffuse and not able:
        raise BadSearch("This checkpoint has no threshold for diffusion: leave diffuse out.")
    by_whole = things > 1 and method != "things"
    if query.diffuse and by_whole:
        raise BadSearch("Scores of several things are not diffused without their regions: leave diffuse out.")
    ranking = Plan(
        method,
        results,
        nprobe=query.nprobe or ("all" if quality == "best" else settings.nprobe),
        chosen=query.nprobe is not None,
        # A query that sets the number of clusters, or the best quality, scores all of their photos.
        whole=query.nprobe is not None or quality == "best",
        limit=query.rerank,
        diffuse=able and query.method == "auto" and not by_whole if query.diffuse is None else query.diffuse,
        fold=query.fold,
    )
    variants = 1 if query.quality == "draft" else query.variants
    return SearchPlan(query, "default", quality, ranking, k, variants)


def quality_of(query: SearchQuery, settings: Settings) -> Quality:
    return settings.quality if query.quality is None or query.quality == "draft" else query.quality


def check_options(query: TunedQuery, pictures: int) -> Subject:
    """Returns what a query mainly is with so many pictures or things.

    Raises BadSearch if it asks for nothing, or an option does not go with it.
    """
    if pictures:
        subject: Subject = "things" if pictures > 1 else "photo" if query.kind == "photo" else "drawing"
    elif query.like or query.text is not None:
        subject = "words"
    elif query.filters_alone:
        subject = "filters"
    else:
        raise BadSearch("The query is empty: send a sketch, or set like, text or a filter.")
    of_ranking = {
        "system": query.system == "two-stage",
        "quality": query.quality not in (None, "draft"),
        "nprobe": query.nprobe is not None,
        "method": query.method != "auto",
        "view": query.view == "groups",
        "kind": query.kind == "photo",
        "diffuse": query.diffuse,
    }
    if subject == "filters" and (given := [name for name, value in of_ranking.items() if value]):
        raise BadSearch(f"Options of a ranking do not go with filters alone: leave {', '.join(given)} out.")
    others = {"things": "several things", "photo": "a photo", "words": "liked photos or a word", "filters": "filters"}
    if subject != "drawing":
        if query.system == "two-stage":
            raise BadSearch(f"system=two-stage searches by a single picture, not {others[subject]}: leave system out.")
        if query.method not in ("auto", "ret"):
            named = f"method={query.method}"
            raise BadSearch(f"{named} compares tokens of a single drawing, not {others[subject]}: leave method out.")
        if query.rerank is not None:
            raise BadSearch(
                f"rerank limits the relation network, which does not score {others[subject]}: leave it out."
            )
    if subject == "things" and query.things == "one":
        raise BadSearch("things=one leaves a single picture whole, not several things: leave things out.")
    if subject not in ("drawing", "things"):
        if query.thing_text:
            raise BadSearch(f"thing_text names drawn things, not {others[subject]}: leave thing_text out.")
        if query.places == "yes":
            raise BadSearch(f"places=yes compares the places of drawn things, not {others[subject]}: leave places out.")
    return subject


def _method(query: TunedQuery, matcher: Matcher, quality: Quality, tokens_kept: int, subject: Subject) -> Method:
    by_ret = subject in ("photo", "words")
    wanted = query.method
    if wanted == "auto":
        wanted = "ret" if by_ret or quality == "fast" or tokens_kept == 1 else matcher.best_method
    able = methods_of(matcher, tokens_kept)
    if wanted in matcher.methods and wanted not in able:
        raise BadSearch(
            f"Method {wanted!r} compares tokens, which this index does not keep: leave method out, or build the index "
            "with --tokens all."
        )
    method = next((known for known in able if known == wanted), None)
    if method is None:
        known = ", ".join(("auto", *able))
        raise BadSearch(f"This checkpoint has no method {wanted!r}; it has {known}.")
    if method == "ret" and query.rerank is not None:
        raise BadSearch("rerank limits the relation network, which method 'ret' does not use: leave rerank out.")
    return method


Stage: TypeAlias = Literal["prepare", "encode", "clusters", "photos", "diffusion"]


class Stopwatch:
    """Times the stages of one search, in milliseconds. All time goes to one stage or another."""

    def __init__(self, prepare_ms: float = 0.0, encode_ms: float = 0.0) -> None:
        self._seconds: dict[Stage, float] = dict.fromkeys(get_args(Stage), 0.0)
        self._seconds |= {"prepare": prepare_ms / 1000, "encode": encode_ms / 1000}
        self._last = time.perf_counter()

    def lap(self, stage: Stage) -> None:
        """Counts the time since the last lap as this stage's."""
        now = time.perf_counter()
        self._seconds[stage] += now - self._last
        self._last = now

    def timings(self) -> StageTimings:
        milliseconds = {stage: round(seconds * 1000, 3) for stage, seconds in self._seconds.items()}
        return StageTimings(**milliseconds, total=round(sum(milliseconds.values()), 3))


#: A sketch, or the photo of a query: an RGB picture, or prepared by ``Preprocessing.drawing`` or ``.pixels``.
Sketch: TypeAlias = Image.Image | Pixels | Drawing
