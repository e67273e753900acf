"""How a query is searched for: what it asks, with the service's defaults and what the checkpoint can do filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model import Matcher
from model.ranking import SHORTLIST, ScoredBy
from service.errors import BadSearch
from service.schemas import AskedView, FirstStage, SearchQuery
from service.towers import ClipVectors

# Photos that the second stage scores where [Ret] chose and the query does not say how many. On validation queries,
# scoring all of 11,761 photos instead changed mAP@100 by less than chance in either case. Where nothing is diffused,
# nothing is estimated either, and 96 lost 0.015. Both are whole chunks of a matcher on a CPU.
RERANK = 96
RERANK_PLAIN = 192

# How many of the best photos are grouped into kinds. All pages of kinds are cut out of this one grouping, so that no
# kind changes its place or its size from page to page.
GROUPED = 200

NO_CLIP = ClipVectors()


@dataclass(frozen=True)
class Defaults:
    """What a search does where its query does not say; a service takes these from its settings.

    Attributes:
        k: results. first_stage: what chooses the photos to be scored. nprobe: clusters to open at least.
        originals: whether results have a ``photo_url``.
    """

    k: int = 20
    first_stage: FirstStage = "ret"
    nprobe: int = 4
    originals: bool = True


@dataclass(frozen=True)
class Plan:
    """Everything that the stages of a search need to know; nothing is left open.

    Attributes:
        method: the one that scores photos, and centroids where clusters choose; "ret" where photos are liked, or there
            is no sketch.
        first_stage: what chooses the photos that are scored.
        nprobe: clusters to open at least; "all" for every one. Only read where clusters choose.
        rerank: how many of the chosen photos, the best by [Ret], ``method`` scores; None for all of them.
        diffuse: whether photos that look alike lend each other their scores.
        view: whether the results are photos or kinds of photos, or "auto" to choose when they are ranked.
        fold: whether near duplicates become one result.
        at_least: how long the ranking must be, even if the page asked for needs less.
        k, offset: the results wanted are ``offset + 1`` to ``offset + k`` of the ranking, or of its kinds.
        budget_ms: milliseconds after which no further photos are scored; None for no limit.
    """

    method: ScoredBy
    first_stage: FirstStage
    nprobe: int | Literal["all"]
    rerank: int | None
    diffuse: bool
    view: AskedView
    fold: bool
    at_least: int
    k: int
    offset: int
    budget_ms: float | None

    @property
    def results(self) -> int:
        """How long the ranking must be."""
        return max(self.at_least, _photos_wanted(self.view, self.k, self.offset))

    @property
    def estimated(self) -> int:
        """How long the shortlist is: with diffusion, the score of those on it that are not scored is estimated."""
        return SHORTLIST if self.diffuse else 0


def plan_search(
    query: SearchQuery,
    matcher: Matcher,
    defaults: Defaults,
    *,
    drawn: bool = True,
    at_least: int = 0,
    clip: ClipVectors = NO_CLIP,
) -> Plan:
    """The plan for a query.

    Args:
        drawn: whether a sketch, or a photo, came with it.
        at_least: how long the ranking must be, even if the page asked for needs less.
        clip: the query by CLIP.

    Raises BadSearch: the checkpoint, or for "clip" the index, does not have the method; the checkpoint cannot diffuse,
    or has nothing to rerank by; or there is neither a sketch nor a liked photo nor a word.
    """
    if not drawn and not query.like and query.text is None:
        raise BadSearch("There is nothing to search by: send a sketch, or name a photo with like, or a word with text.")
    method = _method(query, matcher, clip, drawn=drawn)
    diffuse = _diffuse(query, matcher)
    # Who counts clusters wants them to choose.
    first_stage = query.first_stage or (defaults.first_stage if query.nprobe is None else "clusters")
    k = defaults.k if query.k is None else query.k
    rerank, results = query.rerank, max(at_least, _photos_wanted(query.view, k, query.offset))
    if rerank is None and first_stage == "ret" and method not in ("ret", "clip"):
        rerank = default_rerank(results, diffuse=diffuse)
    return Plan(
        method=method,
        first_stage=first_stage,
        nprobe=defaults.nprobe if query.nprobe is None else query.nprobe,
        rerank=rerank,
        diffuse=diffuse,
        view=query.view,
        fold=query.fold,
        at_least=at_least,
        k=k,
        offset=query.offset,
        budget_ms=query.budget_ms,
    )


def default_rerank(results: int, *, diffuse: bool) -> int:
    """How many photos to score where [Ret] chose: enough to rank so many."""
    if diffuse:
        # Of the shortlist, those that are not scored are estimated.
        return RERANK if results <= SHORTLIST else results
    return max(RERANK_PLAIN, results)


def _photos_wanted(view: AskedView, k: int, offset: int) -> int:
    if view == "photos":
        return offset + k
    return GROUPED if view == "kinds" else max(GROUPED, offset + k)


def _method(query: SearchQuery, matcher: Matcher, clip: ClipVectors, *, drawn: bool) -> ScoredBy:
    sent_photo = drawn and query.kind == "photo"
    by_ret = bool(query.like) or sent_photo or not drawn
    if by_ret and query.method not in ("auto", "ret"):
        what = "Liked photos" if query.like else "Photos" if sent_photo else "A word without a sketch"
        are = "is" if what.startswith("A ") else "are"
        raise BadSearch(f"{what} {are} compared by [Ret], not by method {query.method!r}: leave method out.")
    wanted = query.method
    if wanted == "auto":
        wanted = "ret" if by_ret else matcher.best_method
    if wanted == "clip" and clip.sketch is None:
        why = "this index was not clustered by CLIP; build it with --embedder clip, or use another method."
        raise BadSearch(f"Method clip compares what CLIP makes of the photos, and {clip.refusal or why}")
    known_methods: tuple[ScoredBy, ...] = (*matcher.methods, "clip")
    method = next((known for known in known_methods if known == wanted), None)
    if method is None:
        known = ", ".join(("auto", *matcher.methods))
        raise BadSearch(f"This checkpoint has no method {wanted!r}; it has {known}.")
    if method in ("ret", "clip") and query.rerank is not None:
        raise BadSearch(f"thin goes before the relation network, which method '{method}' does not use: leave it out.")
    return method


def _diffuse(query: SearchQuery, matcher: Matcher) -> bool:
    able = matcher.calibration.diffusion is not None
    if query.diffuse is None:
        return able and query.method == "auto"
    if query.diffuse and not able:
        raise BadSearch("This checkpoint has no threshold for diffusion: leave diffuse out.")
    return query.diffuse
