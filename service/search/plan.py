"""Plans a search: completes the query with the service's defaults and the checkpoint's abilities."""

import time
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from PIL import Image

from sketch_search.model import Matcher
from sketch_search.model.engine import Method
from sketch_search.model.images import Drawing, Pixels
from sketch_search.model.ranking import SHORTLIST
from sketch_search.service.errors import BadSearch
from sketch_search.service.schemas import Quality, SearchQuery, StageTimings, System
from sketch_search.service.settings import Settings

# Photos that the second stage scores by default: with diffusion, which estimates the others, and without. On validation
# queries scoring all photos changed mAP@100 by less than chance. Both are multiples of the matcher's chunk on a CPU,
# 32.
RERANK = 64
RERANK_WITHOUT_DIFFUSION = 192
# Photos whose regions are compared with several things. [Ret] of a whole photo is a poor guide to the things in it: of
# 3,120 photos, the best 1,000, 2,000 and 3,000 by [Ret] held 0.87, 0.96 and 1.00 of the best 20 of 60 drawings of two
# things, and took the same time.
SOUGHT = 4000
# Clusters that the method scores if a query sets the number to open, the best by vector; and how many of these it
# scores by default.
RELATED, RELATED_UNASKED = 128, 32
# The best photos that are grouped by look. All pages show parts of this one grouping, so that no group changes its rank
# or size from page to page.
GROUPED = 200


def methods_of(matcher: Matcher, tokens_kept: int) -> tuple[Method, ...]:
    """Returns the methods that can score photos: without tokens, only vectors. tokens_kept: of each photo."""
    return matcher.methods if tokens_kept > 1 else tuple(one for one in matcher.methods if one == "ret")


@dataclass(frozen=True)
class Plan:
    """The parameters of all stages of a search.

    Attributes:
        method: the one that scores photos; "ret" if photos are liked, or there is no sketch.
        nprobe: the least number of clusters to open; "all" for every one.
        related: how many clusters, the best by vector, ``method`` may order by their centroids; None for all.
        count: how many photos are in the ranking, the best by vector; None for all of the opened clusters.
        rerank: how many of them ``method`` scores; None for all.
        results: how long the ranking must be. k: how many results are wanted, from ``query.offset`` on.
        variants: the number of variants of the sketch to encode; None for the matcher's.
    """

    query: SearchQuery
    system: System
    quality: Quality
    method: Method
    nprobe: int | Literal["all"]
    related: int | None
    count: int | None
    rerank: int | None
    diffuse: bool
    results: int
    k: int
    variants: int | None = None

    @property
    def seeks_things(self) -> bool:
        """Whether regions count: they are not read if only vectors are compared."""
        return not self.plain and self.quality != "fast"

    @property
    def plain(self) -> bool:
        """Whether this is the two-stage report's system, which has no prior, guesses, diffusion or other scores."""
        return self.system == "two-stage"


def plan_search(
    query: SearchQuery,
    matcher: Matcher,
    settings: Settings,
    *,
    tokens_kept: int,
    regions: int = 0,
    things: int = 1,
    at_least: int = 0,
) -> Plan:
    """Returns the plan for a query. Raises BadSearch if the checkpoint or the index cannot do it, or nothing is asked.

    Args:
        settings: the defaults of the query.
        tokens_kept, regions: how many the gallery keeps of each photo, [Ret] included.
        things: the number of things drawn; 1 for a photo in the query, 0 without a picture.
        at_least: the minimum length of the ranking, even if the requested page needs less.
    """
    drawn = things > 0
    if not drawn and not query.like and query.text is None:
        raise BadSearch("The query is empty: send a sketch, or set like, text or a filter.")
    quality = query.quality or settings.quality
    system = query.system or ("default" if query.beyond_two_stage() or things > 1 else settings.system)
    _check_things(query, things, regions)
    if system == "two-stage":
        return _two_stage_plan(query, matcher, settings, tokens_kept=tokens_kept, at_least=at_least)
    method = _method(query, matcher, quality, tokens_kept, drawn=drawn)
    if things > 1 and regions and query.method == "auto" and quality != "fast" and not query.like:
        method = "things"
    able = matcher.calibration.diffusion is not None
    if query.diffuse and not able:
        raise BadSearch("This checkpoint has no threshold for diffusion: leave diffuse out.")
    by_whole = things > 1 and method != "things"
    if query.diffuse and by_whole:
        raise BadSearch("Scores of several things are not diffused without their regions: leave diffuse out.")
    diffuse = able and query.method == "auto" and not by_whole if query.diffuse is None else query.diffuse
    k, results = _page(query, settings, at_least)
    nprobe = query.nprobe or ("all" if quality == "best" else settings.nprobe)
    # A query that sets the number of clusters, or the best quality, scores all of their photos.
    whole = query.nprobe is not None or quality == "best"
    rerank = query.rerank
    if rerank is None and not whole and method not in ("ret", "things"):
        # Diffusion estimates the others.
        rerank = max(results, RERANK_WITHOUT_DIFFUSION)
        if diffuse:
            rerank = RERANK if results <= SHORTLIST else results
    count = max(results, SOUGHT if method == "things" else SHORTLIST, rerank or 0)
    if rerank is not None and not diffuse:
        count = rerank
    return Plan(
        query=query,
        system="default",
        quality=quality,
        method=method,
        nprobe=nprobe,
        related=RELATED,
        count=None if whole and rerank is None else count,
        rerank=rerank,
        diffuse=diffuse,
        results=results,
        k=k,
        # Each thing takes the time of one encoding.
        variants=query.variants or (1 if things > 1 else None),
    )


def _check_things(query: SearchQuery, things: int, regions: int) -> None:
    """Raises BadSearch for options that do not fit this number of things, or an index without regions."""
    if query.places == "yes":
        if not things or query.kind == "photo":
            raise BadSearch("places=yes is for drawings: send one, or leave places out.")
        if not regions:
            raise BadSearch("places=yes compares regions of photos, which this index does not keep: leave places out.")
    if things < 2:
        return
    if query.system == "two-stage":
        raise BadSearch("system=two-stage searches by a single picture: send only one, or leave system out.")
    if query.method not in ("auto", "ret"):
        raise BadSearch(f"Several things are compared by regions, not by method {query.method!r}: leave method out.")
    if query.things == "one":
        raise BadSearch("things=one leaves a picture whole: send only one, or leave things out.")
    if query.rerank is not None:
        raise BadSearch("rerank limits the relation network, which compares only one thing: leave rerank out.")


def _two_stage_plan(
    query: SearchQuery, matcher: Matcher, settings: Settings, *, tokens_kept: int, at_least: int
) -> Plan:
    """Returns the plan of the two-stage report's system. Raises BadSearch if there is no relation network.

    Cross-attention and relation network score the centroids of all clusters, then all photos of the best cluster, and
    of further ones until there are enough photos.
    """
    method = _method(query.model_copy(update={"method": "rn"}), matcher, "best", tokens_kept, drawn=True)
    k, results = _page(query, settings, at_least)
    return Plan(
        query=query,
        system="two-stage",
        quality="best",
        method=method,
        nprobe=query.nprobe or 1,
        related=None,
        count=None,
        rerank=None,
        diffuse=False,
        results=results,
        k=k,
        # It encodes only the sketch itself.
        variants=query.variants or 1,
    )


def _page(query: SearchQuery, settings: Settings, at_least: int) -> tuple[int, int]:
    """Returns the number of results, and the length of the ranking."""
    k = settings.default_k if query.k is None else query.k
    # Groups are made of the GROUPED best photos.
    page = 0 if query.view == "groups" else query.offset + k
    return k, max(at_least, page, 0 if query.view == "photos" else GROUPED)


def _method(query: SearchQuery, matcher: Matcher, quality: Quality, tokens_kept: int, *, drawn: bool) -> Method:
    sent_photo = drawn and query.kind == "photo"
    by_ret = bool(query.like) or sent_photo or not drawn
    if by_ret and query.method not in ("auto", "ret"):
        what = "Liked photos" if query.like else "Photos" if sent_photo else "A word without a sketch"
        are = "is" if what.startswith("A ") else "are"
        raise BadSearch(f"{what} {are} compared by [Ret], not by method {query.method!r}: leave method out.")
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


Stage = Literal["prepare", "encode", "clusters", "photos", "diffusion"]


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
