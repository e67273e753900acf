"""Ranks the photos of a gallery in two stages: the query against clusters, then against photos of the best clusters.

    with_sketch      without a sketch, liked photos, or the photos that show a word best, take its place
    choose_clusters  stage 1: the query against the centroids of all clusters
    find_photos      stage 2: photos of the best clusters, by vector; then pairs of tokens of the best photos, or for
                     several things regions of all candidates
    diffuse          photos that look alike share their scores
    add_evidence     of places, colours and boxes, liked photos and words (``terms``)
    mix_readings     other readings of the drawing, each ranked as a query of its own, count as they are probable
    leave_out        unwanted photos leave, with near duplicates that rank behind them; what looks like them moves back
    sort_photos      liked photos first, then by score
    find_duplicates  near duplicates fold into one

From stage 2 on, all steps work on ``Candidates``: a row for each photo, a column for each kind of score. The score of a
photo does not depend on the other photos scored: before diffusion, all kinds of search agree on every photo that they
share, and with ``nprobe="all"``, the exhaustive search, the order is that of scoring every photo.

The service, its shards, and ``training.evaluation`` all rank by ``rank``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sketch_search.model import ranking
from sketch_search.model.answers import Unliked
from sketch_search.model.engine import Floats, Method, Tokens, unit
from sketch_search.model.errors import GalleryUnusable
from sketch_search.model.limits import NPROBE
from sketch_search.model.matcher import Matcher
from sketch_search.model.ranking import SHORTLIST
from sketch_search.model.search.candidates import Candidates, Gallery, Mask, Query, Scores, best_first, interleave
from sketch_search.model.search.terms import facts_of, kinship_of, odds_shown, terms_of, weigh_terms

# Photos that the second stage scores: with diffusion, which estimates others, and without; multiples of the chunk.
RERANK, RERANK_WITHOUT_DIFFUSION = 64, 192
# Photos whose regions are compared with several things, the best by [Ret]. The [Ret] of a whole photo says little of
# the things in it, so many are needed if boxes know none of these, and few if boxes surely know one.
COMPARED_UNKNOWN, COMPARED_KNOWN = 2000, 300
# Photos whose regions are diffused for a single thing.
FITS_DIFFUSED = 300
# Clusters that the method scores, the best by vector, if a query sets the number to open, and by default.
MOST_CLUSTERS_SCORED, CLUSTERS_SCORED = 128, 8
# The best photos of which it is said how probably they show what is asked for, which takes a quarter as long as of all.
JUDGED = 100
# The best photos that are folded, so that a result represents the same photos on every page.
FOLDED = 1000
# The best photos of another reading that become candidates of the first one, too; `training evaluate --protocol scenes`
# measures it.
KEPT = 40
# If words name none of the drawn things, how probably they say nothing of the photo either, which may show what they
# mean too small to be seen; `training evaluate --protocol scenes --split val` measures it.
ASIDE = 0.5
# What each thing adds to the log-likelihood that one photo shows all: what is drawn together is photographed together.
# The same command measures it, and `--protocol everything --split val --method search` for what is one thing.
TOGETHER = 0.5

#: What ``rank`` has just finished.
Stage: TypeAlias = Literal["clusters", "photos", "diffusion"]


@dataclass(frozen=True)
class Plan:
    """The parameters of all stages.

    method: the one that scores photos; "ret" if there is no sketch.
    results: how long the ranking must be.
    nprobe: the least number of clusters to open for each part of the query; "all" for every one.
    chosen: whether the method chooses the clusters: if the query sets their number.
    score_all: whether all photos of the opened clusters are scored, unless ``limit`` is set.
    limit: how many photos the method scores; None for the default.
    diffuse: whether photos that look alike share their scores. fold: whether near duplicates are one result.
    plain: whether this is the two-stage report's system, which has no prior, guesses, diffusion or other scores.
    known: how probably boxes know one of several things, 0 to 1. judged: of how many photos at least, the best ones, it
        is said how probably they show what is asked for.
    """

    method: Method
    results: int
    nprobe: int | Literal["all"] = NPROBE
    chosen: bool = False
    score_all: bool = False
    limit: int | None = None
    diffuse: bool = False
    fold: bool = False
    plain: bool = False
    known: float = 0.0
    judged: int = JUDGED

    @staticmethod
    def two_stage(results: int, nprobe: int | Literal["all"] | None, *, fold: bool = False) -> "Plan":
        """Plans a search of the two-stage report's system: cross-attention and relation network score the centroids of
        all clusters, then all photos of the best cluster, and of further ones until there are enough photos.
        """
        return Plan("rn", results, nprobe or 1, chosen=True, score_all=True, fold=fold, plain=True)

    @property
    def rerank(self) -> int | None:
        """How many photos the method scores; None for all."""
        if self.limit is not None or self.score_all or self.method in ("ret", "things"):
            return self.limit
        if self.diffuse:
            # Diffusion estimates the others.
            return RERANK if self.results <= SHORTLIST else self.results
        return max(self.results, RERANK_WITHOUT_DIFFUSION)

    @property
    def count(self) -> int | None:
        """How many photos are in the ranking, the best by vector; None for all of the opened clusters."""
        if self.rerank is None and self.score_all:
            return None
        if self.rerank is not None and not self.diffuse:
            return self.rerank
        compared = round(COMPARED_UNKNOWN + self.known * (COMPARED_KNOWN - COMPARED_UNKNOWN))
        return max(self.results, compared if self.method == "things" else SHORTLIST, self.rerank or 0)


@dataclass(frozen=True)
class Ranking:
    """The result of ``rank``.

    photos: best first. candidates: the same and others, before diffusion; those with scores were scored by the method.
    query, plan: as they were carried out; folding may need a longer ranking.
    sizes: (c,) how many photos of each cluster can be found. clusters: (c,) their scores; NaN for a cluster that was
        not compared. pairs: how many clusters and photos the method scored.
    unliked: the unwanted photos of the query. hidden_count: how many photos these hide together.
    """

    photos: Candidates
    candidates: Candidates
    query: Query
    plan: Plan
    sizes: NDArray[np.int64]
    clusters: Scores
    pairs: int
    unliked: tuple[Unliked, ...] = ()
    hidden_count: int = 0

    def scores(self, count: int) -> Floats:
        """Returns the scores of the photos with the ids 0 to count - 1, (count,); -inf for those not ranked."""
        scores = np.full(count, -np.inf, np.float32)
        scores[self.photos.ids] = self.photos.scores
        return scores


def rank(
    gallery: Gallery, matcher: Matcher, query: Query, plan: Plan, lap: Callable[[Stage], None] = lambda stage: None
) -> Ranking:
    """Ranks photos. query: without clusters yet. lap: called after each stage. Raises GalleryUnusable for NaN."""
    sizes = gallery.clusters.sizes if query.photo_filter is None else gallery.count_passing(query.photo_filter)
    drawn = query.sketch is not None
    query = with_sketch(gallery, matcher, query, plan, sizes)
    if plan.method == "things":
        query = replace(query, drawing_direction=matcher.drawing_direction(query.things))
        known = matcher.thing_kinds(query.things).sum(axis=1).max() if gallery.boxes_kept else 0
        plan = replace(plan, known=min(1.0, float(known)))
    clusters, by_cluster, pairs = choose_clusters(gallery, matcher, query, plan, sizes)
    lap("clusters")
    results_needed, candidates, others = plan.results, None, _rank_readings(gallery, matcher, query, plan)
    also = np.unique([photo for _, other in others for photo in other.ids[:KEPT].tolist()]).astype(np.int64)
    query = replace(query, readings=(), also=also)
    while True:
        candidates = find_photos(gallery, query, plan, clusters, sizes, candidates)
        lap("photos")
        ranked = diffuse(matcher, candidates, query, plan)
        shown = odds_shown(ranked, matcher, query, max(plan.judged, plan.results), drawn=drawn)
        ranked = replace(add_evidence(ranked, matcher, query, plan, drawn=drawn), shown=shown)
        ranked = mix_readings(ranked, query, others)
        lap("diffusion")
        photos, unliked = leave_out(gallery, ranked, query, plan, matcher.config.grid)
        photos = sort_photos(photos, query)
        if plan.fold:
            liked = int(np.isin(photos.ids, query.liked_ids).sum())
            photos = replace(photos, firsts=find_duplicates(gallery, photos, liked, matcher.config.grid))
        missing = results_needed - len(photos.results)
        if missing <= 0 or not (plan.fold or unliked) or not plan.results <= len(ranked) < sizes.sum():
            pairs += int(candidates.scored.sum())
            hidden_count = len(ranked) - len(photos)
            return Ranking(photos, candidates, query, plan, sizes, by_cluster, pairs, unliked, hidden_count)
        # Near duplicates were folded, or photos hidden. A longer ranking has others for them.
        plan = replace(plan, results=max(FOLDED, len(ranked)) + missing)


def _rank_readings(gallery: Gallery, matcher: Matcher, query: Query, plan: Plan) -> list[tuple[Query, Candidates]]:
    """Ranks photos by the query's other readings, if its scores are diffused."""
    others = list[tuple[Query, Candidates]]()
    for reading in query.readings if plan.diffuse else ():
        read = {name: getattr(reading, name) for name in ("method", "sketch", "things", "places")}
        word = query.word if reading.worded else None
        other = replace(query, **read, word=word, readings=(), drawing_direction=None, unliked=None)
        ranked = rank(gallery, matcher, other, replace(plan, method=reading.method, fold=False))
        others.append((reading, ranked.photos))
    return others


def mix_readings(photos: Candidates, query: Query, others: Sequence[tuple[Query, Candidates]]) -> Candidates:
    """Orders the photos of a query by all readings of the drawing (``model.ranking.mix``); scores stay.

    By Bayes' rule, a division counts the more, the more probably its likeliest photo shows all of its things, which are
    not independent (``TOGETHER``). Words that name none of the things are evidence of photos in all but ``ASIDE`` of
    such a reading.
    """
    if not others or not len(photos):
        return photos
    readings = [(query, photos), *others]
    # Words say nothing of a division: all of its readings count by the first.
    shown = {_drawn(reading): _likeliest(found) for reading, found in reversed(readings)}
    odds, probable = list[NDArray[np.floating]](), list[float]()
    for reading, found in readings:
        row = np.full(len(photos), -np.inf)
        _, here, there = np.intersect1d(photos.ids, found.ids, return_indices=True)
        row[here] = ranking.log_odds(found.scores, reading.method, ranking.LEAST)[there]
        before = reading.probability if found is not photos else 1 - sum(other.probability for other, _ in others)
        share = before * shown[_drawn(reading)]
        if found is photos or photos.by_word is None or reading.worded:
            odds, probable = [*odds, row], [*probable, share]
        else:
            odds += [row, row + ranking.evidence_of_words(photos.by_word)]
            probable += [share * ASIDE, share * (1 - ASIDE)]
    mixed = ranking.mix(np.stack(odds), np.array(probable) / sum(probable))
    scores = np.empty_like(photos.scores)
    scores[np.lexsort((photos.ids, -mixed))] = -np.sort(-photos.scores)
    return replace(photos, scores=scores, before=None)


def _drawn(query: Query) -> int:
    return 0 if query.sketch is None else len(query.sketch)


def _likeliest(photos: Candidates) -> float:
    """Returns how well the likeliest photo shows all that is asked for, as a likelihood; 1 if that is not known.

    A liked photo shows it by what was said of it, whatever the division.
    """
    if photos.shown is None or photos.likeness is not None:
        return 1.0
    return float(np.exp(-(np.logaddexp(0, -photos.shown) - TOGETHER).sum(axis=1).min(initial=np.inf)))


def with_sketch(gallery: Gallery, matcher: Matcher, query: Query, plan: Plan, sizes: NDArray[np.int64]) -> Query:
    """Gives a query without a sketch the mean [Ret] of liked photos, or else of the best photos by the word, as one."""
    if query.sketch is not None:
        return query
    examples = query.liked
    if examples is None:
        cluster_order = _order_clusters(gallery, matcher, query, _compared(gallery, matcher, query), [], sizes)
        clusters = np.sort(cluster_order if plan.nprobe == "all" else cluster_order[: plan.nprobe])
        best = gallery.find(replace(query, clusters=clusters, method="ret", count=ranking.EXAMPLES, things=()))
        examples = np.zeros((1, best.vectors.shape[1]), np.float32)
        if best.by_word is not None and len(best):
            examples = best.vectors[best_first(best.ids, best.by_word, ranking.EXAMPLES)].astype(np.float32)
    return replace(query, sketch=Tokens.of_ret(unit(unit(examples).mean(axis=0, keepdims=True))))


# Stage 1: clusters.


def choose_clusters(
    gallery: Gallery, matcher: Matcher, query: Query, plan: Plan, sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Scores, int]:
    """Returns the clusters with photos that can be found, best first, all clusters' scores, and how many pairs.

    By the plan, the method scores the best clusters by vector, or all, or if there is a choice the best of these by
    matches of their mean tokens; the clusters that it scores come first. The score of a cluster that is not
    compared is NaN.
    """
    clusters = gallery.clusters
    # ``with_sketch`` gave it one.
    assert query.sketch is not None
    compare_all = plan.nprobe == "all" or plan.plain
    compared = np.arange(len(clusters.sizes)) if compare_all else _compared(gallery, matcher, query)
    centroids = Tokens.of_ret(clusters.vectors_of(compared))
    by_vector = matcher.scores(query.sketch.without_patches, centroids, "ret")
    scores = np.full(len(clusters.sizes), np.nan, np.float32)
    scores[compared] = by_vector[0] if len(by_vector) == 1 else by_vector.mean(axis=0)
    cluster_order = _order_clusters(gallery, matcher, query, compared, [*by_vector], sizes)
    if query.method in ("ret", "things"):
        return cluster_order, scores, len(compared) if plan.chosen else 0
    first = cluster_order if plan.plain else cluster_order[:MOST_CLUSTERS_SCORED]
    if not plan.chosen:
        # Without a choice, or if other parts of the query also choose clusters, the order by vectors stays.
        if plan.nprobe == "all" or len(cluster_order) <= plan.nprobe or query.parts > 1:
            return cluster_order, scores, 0
        matches = ranking.best_matches(query.sketch, clusters.tokens(first))
        hopes = ranking.promise(scores[first], np.arange(len(first)), matches)
        first = first[best_first(first, hopes, CLUSTERS_SCORED)]
    scores[first] = query.scores(matcher, clusters.tokens(first))
    first, others = first[best_first(first, scores[first])], cluster_order[~np.isin(cluster_order, first)]
    return np.concatenate([first, others]), scores, len(first)


def _compared(gallery: Gallery, matcher: Matcher, query: Query) -> NDArray[np.int64]:
    """Returns the clusters to compare with the query, ascending: of very many, those near a part of it."""
    clusters = gallery.clusters
    if query.photo_filter is not None or isinstance(query.word, np.ndarray):
        return np.arange(len(clusters.sizes))
    drawn = [] if query.sketch is None else [query.sketch.features[:, 0]]
    return np.union1d(clusters.near(np.concatenate([*drawn, _directions(matcher, query)])), query.homes)


def _directions(matcher: Matcher, query: Query) -> Floats:
    """Returns the direction of each thing of the words, and of each liked photo, among vectors, (q, d)."""
    parts = [np.empty((0, len(query.mean)), np.float32)]
    if isinstance(query.word, tuple):
        parts += [matcher.word_direction(thing)[None] for thing in query.word]
    if query.liked is not None:
        parts.append(query.liked - query.mean)
    return np.concatenate(parts)


def _order_clusters(
    gallery: Gallery,
    matcher: Matcher,
    query: Query,
    compared: NDArray[np.int64],
    columns: Sequence[Scores],
    sizes: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Interleaves the rankings of the compared clusters by the query's parts, such as things; drops empty ones."""
    clusters = gallery.clusters
    columns = [*columns, *(clusters.vectors_of(compared) @ _directions(matcher, query).T).T]
    if isinstance(query.word, np.ndarray) and clusters.embeddings is not None:
        columns.append(clusters.by_clip(query.word))
    cluster_order = interleave([compared[best_first(compared, column)] for column in columns], query.homes)
    return cluster_order[sizes[cluster_order] > 0]


# Stage 2: photos.


def find_photos(
    gallery: Gallery,
    query: Query,
    plan: Plan,
    cluster_order: NDArray[np.int64],
    sizes: NDArray[np.int64],
    known: Candidates | None = None,
) -> Candidates:
    """Returns the photos of the best clusters, the most promising of them scored.

    At least ``nprobe`` clusters are opened for each part of the query, and more if these do not fill the page,
    for example because a filter has emptied them.

    known: the result of an earlier plan for the same query, whose scores are kept.
    """
    clusters_needed = int(np.searchsorted(np.cumsum(sizes[cluster_order]), plan.results)) + 1
    least = len(cluster_order) if plan.nprobe == "all" else plan.nprobe * (1 if plan.chosen else query.parts)
    opened = max(least, clusters_needed, len(query.homes))
    photos_needed = plan.results if plan.rerank is None else min(plan.results, plan.rerank)
    query = replace(query, count=plan.count, rerank=plan.rerank)
    while True:
        query = replace(query, clusters=np.sort(cluster_order[:opened]))
        known = gallery.find(query, known)
        if len(known) >= photos_needed or opened >= len(cluster_order):
            break
        opened *= 4
    if known.scored.sum() < len(known.to_score(query)):
        problem = "The network gives scores that are not numbers: the checkpoint or the index is damaged"
        raise GalleryUnusable(f"{problem}. Use another checkpoint, or run `sketch-search index verify`.")
    return known


# Further columns.


def diffuse(matcher: Matcher, photos: Candidates, query: Query, plan: Plan) -> Candidates:
    """Estimates the missing scores, and diffuses all. Without diffusion, drops the unscored photos.

    Scores by several things also get what whole photos show of them (``Matcher.shown_things``).
    """
    if not plan.diffuse:
        return photos[photos.scored]
    if not len(photos):
        return photos
    if plan.method == "things":
        shown = matcher.shown_things(query.things, photos.vectors)
        photos = replace(photos, scores=photos.scores + shown)
        scores = _diffuse_regions(matcher, photos, query, photos.scores, SHORTLIST)
        return replace(photos, scores=scores, before=photos.scores)
    if photos.region_scores is not None:
        photos = replace(
            photos, region_scores=_diffuse_regions(matcher, photos, query, photos.region_scores, FITS_DIFFUSED)
        )
    method, ret, before, threshold = plan.method, photos.vectors, photos.scores, matcher.diffusion_threshold
    weights = ranking.affinities(ret, threshold) if len(photos) <= SHORTLIST else None
    if not photos.scored.all():
        expected = photos.by_vector if photos.promise is None else photos.promise
        before = ranking.estimate(np.nan_to_num(before), photos.scored, -expected, ret, threshold, method, weights)
    after = ranking.diffuse(before[None], ret, threshold, method, weights)[0]
    return replace(photos, scores=after, before=before)


def _diffuse_regions(matcher: Matcher, photos: Candidates, query: Query, scores: Scores, count: int) -> Scores:
    """Diffuses each thing's part of the scores over the regions that match it, in the ``count`` best photos."""
    order, after = best_first(photos.ids, scores), scores.copy()
    first, rest = order[:count], order[count:]
    assert photos.matched is not None
    assert photos.region_scores is not None
    others = scores[first] - photos.region_scores[first]
    after[first] = photos.matched[first].diffused(matcher.thing_directions(query.things)).mean(axis=0) + others
    after[rest] = np.minimum(after[rest], after[first].min())
    return after


def add_evidence(photos: Candidates, matcher: Matcher, query: Query, plan: Plan, *, drawn: bool) -> Candidates:
    """Adds what is wanted beside the drawing to the scores by it (``model.ranking.weigh``); one thing by ``terms``."""
    if not len(photos):
        return photos
    parts, several, likeness = list[NDArray[np.floating]](), plan.method == "things", photos.likeness
    if drawn and not several:
        terms, facts = terms_of(photos, matcher, query), facts_of(photos, matcher, query)
        evidence = weigh_terms(terms, facts, matcher.calibration.weights) - terms["diffused"]
        # If the drawing is not the only part, the scores before diffusion are no guide.
        before = photos.before if likeness is None and photos.by_word is None else None
        return replace(photos, scores=ranking.weigh(photos.scores, evidence, plan.method), before=before)
    if likeness is not None:
        if plan.diffuse and drawn:
            kinship = kinship_of(photos, matcher, query)
            likeness = ranking.diffuse_kinship(kinship, photos.vectors, matcher.diffusion_threshold)
        parts.append(ranking.evidence_of_likes(likeness, drawn=drawn, several=several))
    # Words of several things lead these to their regions instead; others, such as "beach", are of the whole photo.
    named = {thing.words for thing in query.things if thing.words}
    led = several and (named >= set(query.word) if isinstance(query.word, tuple) else bool(named))
    if photos.by_word is not None and not led:
        parts.append(ranking.evidence_of_words(photos.by_word, drawn=drawn))
    if photos.region_scores is not None and not several:
        parts.append(ranking.evidence_of_fits(photos.region_scores))
    if not parts:
        return photos
    return replace(photos, scores=ranking.weigh(photos.scores, np.sum(parts, axis=0), plan.method), before=None)


def leave_out(
    gallery: Gallery, photos: Candidates, query: Query, plan: Plan, grid: int
) -> tuple[Candidates, tuple[Unliked, ...]]:
    """Hides the unwanted photos, and their near duplicates, or if wanted all that look like them, behind them.

    A photo before an unwanted one stays: a person saw it first, and let it be. What looks like one moves back.
    """
    if query.unliked is None:
        return photos, ()
    likeness = ranking.likenesses(query.unliked, photos.vectors, query.mean)
    is_unliked = photos.ids[:, None] == np.array(query.unliked_ids)
    behind = _behind(photos, likeness, is_unliked, plan.method) & ~np.isin(photos.ids, query.liked_ids)[:, None]
    # A photo stays if it looks more like a liked one: disliking a black cat but liking a white one still means cats.
    more_liked = np.float32(-1) if photos.likeness is None else photos.likeness[:, None]
    alike = (likeness > ranking.ALIKE) & (likeness >= more_liked) & behind
    copies = _copies(gallery, photos, query, grid) & behind
    gone = (is_unliked | copies | (alike & query.unliked_kinds)).any(axis=1)
    counts = (alike & ~gone[:, None]).sum(axis=0).tolist()
    columns = zip(query.unliked_ids, copies.T, counts, strict=True)
    unliked = tuple(Unliked(photo, tuple(photos.ids[of].tolist()), count) for photo, of, count in columns)
    scores = ranking.weigh(photos.scores, ranking.evidence_of_dislikes(likeness), plan.method)
    return replace(photos, scores=scores, before=None)[~gone], unliked


def _behind(photos: Candidates, likeness: Floats, is_unliked: Mask, method: Method) -> Mask:
    """Finds the photos that rank behind each unwanted one, (m, u), whether or not the other ones are unwanted."""
    behind: Mask = np.zeros_like(is_unliked)
    for n in np.flatnonzero(is_unliked.any(axis=0)):
        others = ranking.weigh(photos.scores, ranking.evidence_of_dislikes(np.delete(likeness, n, axis=1)), method)
        ranks = np.stack([np.argsort(best_first(photos.ids, scores)) for scores in (photos.scores, others)])
        behind[:, n] = (ranks > ranks[:, is_unliked[:, n]]).all(axis=0)
    return behind


def _copies(gallery: Gallery, photos: Candidates, query: Query, grid: int) -> Mask:
    """Finds the near duplicates of the unwanted photos: (m, u)."""
    assert query.unliked is not None
    copies: Mask = unit(photos.vectors) @ unit(query.unliked).T > ranking.LOOK
    ranked, unliked = np.nonzero(copies)
    rows = np.stack([photos.rows[ranked], query.unliked_rows[unliked]], axis=1)
    copies[copies] = _sameness(gallery, rows, grid) > ranking.SAME
    return copies


def _sameness(gallery: Gallery, rows: NDArray[np.int64], grid: int) -> Floats:
    """Says how much of pairs of photos, rows (m, 2), is the same: (m,). The tokens of each photo are read once."""
    if not len(rows):
        return np.zeros(0, np.float32)
    needed, numbers = np.unique(rows, return_inverse=True)
    return ranking.sameness(gallery.tokens(needed), numbers.reshape(-1, 2), grid)


def sort_photos(photos: Candidates, query: Query) -> Candidates:
    """Orders photos: liked ones by id, then the others by score."""
    liked = np.isin(photos.ids, query.liked_ids)
    scores = np.where(liked, photos.scores.max(initial=-np.inf), photos.scores)
    return replace(photos, scores=scores)[np.lexsort((photos.ids, -scores, ~liked))]


def find_duplicates(gallery: Gallery, photos: Candidates, liked: int, grid: int) -> NDArray[np.int64]:
    """Finds the near duplicates in a ranking: (m,) the rank of the photo that represents each (``Candidates.firsts``).

    liked: how many of its first photos are liked: each is a separate result, since somebody chose it.
    grid: cells in a row of the network's patch grid.
    """
    firsts = np.arange(len(photos))
    best = photos[firsts[:FOLDED]]
    alike, shots = ranking.pairs_to_compare(best.vectors), ranking.consecutive(gallery.paths(best.rows))
    pairs = np.concatenate([alike, shots])
    least = np.repeat((ranking.SAME, ranking.SAME_SHOT), (len(alike), len(shots)))
    pairs = pairs[_sameness(gallery, best.rows[pairs], grid) > least]
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    firsts[:FOLDED] = ranking.first_of_same(len(best), pairs.tolist(), liked=liked)
    return firsts
