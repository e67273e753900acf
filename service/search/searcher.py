"""Searches in two stages: the sketch against clusters, then against the photos of the best clusters.

    encode     each thing of the sketch becomes a vector and tokens; liked photos and a word a vector  ``_encoded``
    stage 1    the sketch against the centroids of all clusters                                        ``_clusters``
    stage 2    photos of the best clusters, by vector; then pairs of tokens of the best photos, or     ``_photos``
               for several things regions of all candidates
    diffusion  photos that look alike share their scores                                               ``_diffused``
    regions    photos that show one thing where it was drawn, or in its colours, move forward          ``_fitted``
    support    photos that look like liked ones, and those that show the query's word, move forward    ``_mix_support``
    order      liked photos first, then by score; near duplicates fold into one                        ``_ordered``
    page       the requested photos, or groups of look-alikes                                          ``_page``

From stage 2 on, all steps work on ``Candidates``: a row for each photo, a column for each kind of score. The score of a
photo does not depend on the other photos scored: before diffusion, all kinds of search agree on every photo that they
share, and with ``nprobe="all"``, the exhaustive search, the order is that of scoring every photo.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sketch_search.indexer import PhotoFilter
from sketch_search.model import Matcher
from sketch_search.model.engine import Floats, Tokens, unit
from sketch_search.model.images import Drawing, hexadecimal
from sketch_search.model.matcher import LEAST_POSSIBLE
from sketch_search.model.ranking import (
    EXAMPLES,
    SHORTLIST,
    best_matches,
    estimated,
    fits,
    fitting,
    mix_support,
    mix_word_support,
    promise,
    rocchio,
    shares_of,
    word_support,
)
from sketch_search.model.things import PLACES, Thing
from sketch_search.model.words import UnknownWord
from sketch_search.service.clip_text import ReadText
from sketch_search.service.errors import BadSearch, NotReady
from sketch_search.service.gallery import Candidates, Gallery, Scores, ShardQuery, Word, best_first, interleaved
from sketch_search.service.schemas import (
    Cluster,
    ExplainParams,
    Group,
    Guessed,
    SearchQuery,
    SearchResponse,
    SearchResult,
    SeenThing,
    View,
)
from sketch_search.service.search.plan import GROUPED, RELATED_UNASKED, Plan, Sketch, Stopwatch, plan_search
from sketch_search.service.search.shown import FOLDED, fold, group_alike, grouped_ranks, is_far_ahead
from sketch_search.service.settings import Settings

# The best photos that are checked for the guessed things: it takes about a millisecond.
GUESSED_OF = 50
# Photos of a group that are shown beside its best one.
MORE = 4
NO_TEXT = ReadText()


@dataclass(frozen=True)
class _Encoded:
    """An encoded query.

    query: without clusters yet. homes: the clusters of the liked photos. sizes: (c,) how many photos of each cluster
    can be found. guesses: what the sketch may show. perhaps: less probable words, if there is no guess. seen: the
    things of the drawing, if they are searched for separately.
    """

    query: ShardQuery
    homes: NDArray[np.int64]
    sizes: NDArray[np.int64]
    guesses: tuple[Guessed, ...] = ()
    perhaps: tuple[str, ...] = ()
    seen: tuple[SeenThing, ...] = ()


class Searcher:
    """Searches a gallery with the checkpoint that made its tokens."""

    def __init__(self, gallery: Gallery, matcher: Matcher, settings: Settings | None = None) -> None:
        """settings: None for their defaults."""
        self.matcher, self.gallery = matcher, gallery
        self.settings = settings or Settings.model_construct()

    def search(
        self, sketch: Sketch | None, query: SearchQuery, text: ReadText = NO_TEXT, prepare_ms: float = 0.0
    ) -> SearchResponse:
        """Finds the photos that best match the sketch, the liked photos and the word.

        Args:
            sketch: the drawing of the query, if any; or a photo, which counts as liked, if that is its kind.
            text: the query's text, if CLIP has read it.
            prepare_ms: milliseconds that preparing the sketch took.

        Raises BadSearch, UnknownWord, UnknownPhoto, BlankSketch; NotReady if a score is not a number.
        """
        if sketch is None and query.filters_alone:
            return self._newest(query)
        drawing = None if sketch is None else self.drawing_of(sketch, query)
        gallery, things = self.gallery, 0 if drawing is None else len(drawing.things)
        asks: dict[str, Any] = {"things": things, "tokens_kept": gallery.tokens_kept, "regions": gallery.regions_kept}
        plan = plan_search(query, self.matcher, self.settings, **asks)
        watch = Stopwatch(prepare_ms, text.milliseconds)
        encoded = self._encoded(drawing, query, text, plan, watch)
        order, by_cluster, pairs = self._clusters(encoded, plan)
        watch.lap("clusters")
        wanted, found = plan.results, None
        while True:
            found = self._photos(encoded, plan, order, found)
            watch.lap("photos")
            ranking = self._mix_support(self._fitted(self._diffused(found, plan, encoded.query), plan), encoded.query)
            watch.lap("diffusion")
            ranking = self._ordered(ranking, encoded.query, fold_too=query.fold)
            missing = wanted - len(ranking.results)
            if missing <= 0 or not query.fold:
                break
            if not plan.results <= len(ranking) < encoded.sizes.sum():
                break
            # Near duplicates were folded. A longer ranking has others for them.
            at_least = max(FOLDED, len(ranking)) + missing
            plan = plan_search(query, self.matcher, self.settings, at_least=at_least, **asks)
        results, groups, view = self._page(ranking, plan, encoded.query)
        watch.lap("photos")
        photos = int(encoded.sizes.sum())
        sketch_fits, seen = self._fits([guess.word for guess in encoded.guesses], ranking, photos), encoded.seen
        if len(seen) > 1:
            seen = self._seen_in(ranking, seen, photos)
            every = {thing.fits for thing in seen}
            sketch_fits = every.pop() if len(every) == 1 else None
        word, word_fits, reading = encoded.query.word, None, None
        if isinstance(word, tuple) and ranking.by_word is not None:
            # Each word is compared with every photo.
            chances = photos * max(map(len, word))
            word_fits = fits(float(ranking.by_word.max(initial=-np.inf)), chances)
            reading = self.matcher.book.read(query.text or "")
        return SearchResponse(
            results=results,
            groups=groups,
            view=view if query.view == "auto" else None,
            guesses=encoded.guesses,
            perhaps=encoded.perhaps,
            things=seen,
            placed=encoded.query.places > 0,
            region_grid=math.isqrt(gallery.regions_kept) if encoded.query.things else None,
            clusters=self._opened(found, encoded.sizes, by_cluster),
            candidates=len(ranking),
            pairs_scored=pairs + int(found.scored.sum()),
            system=plan.system,
            quality=plan.quality,
            rerank=plan.rerank,
            diffused=plan.diffuse,
            words=None if word is None else "vocabulary" if text.vector is None else "clip",
            word_fits=word_fits,
            sketch_fits=sketch_fits,
            word_read=None if reading is None else reading.text,
            word_means=None if reading is None else reading.means,
            timings_ms=watch.timings(),
            complete=not self.gallery.missing,
            missing_shards=self.gallery.missing,
            method=plan.method,
            generation=self.gallery.generation,
            model=self.matcher.config.name,
            embedder=self.gallery.embedder.name,
        )

    def _newest(self, query: SearchQuery) -> SearchResponse:
        """Returns the photos that pass the filters of a query without other parts, newest first."""
        watch, gallery, settings = Stopwatch(), self.gallery, self.settings
        k = settings.default_k if query.k is None else query.k
        rows, _ = gallery.newest(_filter_of(query), query.offset + k)
        photos = gallery.entries(rows[query.offset :])
        candidates = int(gallery.passing(_filter_of(query)).sum())
        watch.lap("photos")
        copies: tuple[int, ...] | None = () if query.fold else None
        return SearchResponse(
            results=tuple(
                SearchResult.of(
                    photo,
                    settings.photo_links,
                    rank=rank,
                    score=1.0,
                    raw_score=0.0,
                    cluster=photo.cluster,
                    copies=copies,
                )
                for rank, photo in enumerate(photos, query.offset + 1)
            ),
            view="photos" if query.view == "auto" else None,
            clusters=(),
            candidates=candidates,
            pairs_scored=0,
            quality=query.quality or settings.quality,
            rerank=None,
            diffused=False,
            timings_ms=watch.timings(),
            complete=not gallery.missing,
            missing_shards=gallery.missing,
            method="date",
            system="default",
            generation=gallery.generation,
            model=self.matcher.config.name,
            embedder=gallery.embedder.name,
        )

    # Encode.

    def drawing_of(self, sketch: Sketch, query: SearchQuery) -> Drawing:
        """Prepares the picture of a query, if needed. A photo becomes the only thing of a drawing."""
        if isinstance(sketch, Drawing):
            return sketch
        preprocessing = self.matcher.preprocessing
        if isinstance(sketch, Image.Image):
            if query.kind == "sketch":
                return preprocessing.drawing(sketch, split=query.splits and self.gallery.regions_kept > 0)
            sketch = preprocessing.pixels(sketch, query.kind)
        return Drawing.of(sketch)

    def _encoded(
        self, drawing: Drawing | None, query: SearchQuery, text: ReadText, plan: Plan, watch: Stopwatch
    ) -> _Encoded:
        gallery, word = self.gallery, self._word(query, text)
        liked, unliked = (np.unique(gallery.rows_of_ids(ids)) for ids in (query.like, query.unlike))
        entries = gallery.entries(np.concatenate([liked, unliked])) if len(liked) + len(unliked) else ()
        if len(both := np.intersect1d(liked, unliked)):
            photo = entries[int(np.flatnonzero(liked == both[0])[0])].id
            raise BadSearch(f"like and unlike name the same photo, {photo}: leave one of them out.")
        examples = [gallery.vectors(liked)] if len(liked) else []
        drawn, things, sought, places = None, list[Thing](), tuple[Thing, ...](), 0.0
        if drawing is not None:
            watch.lap("prepare")
            things = self.things_of(drawing, query, plan.variants)
            tokens = Tokens.cat([thing.tokens for thing in things])
            watch.lap("encode")
            if query.kind == "photo":
                examples.append(tokens.ret)
            else:
                drawn = tokens
        if drawn is not None and not examples and plan.seeks_things:
            sought, places = self.sought(things, query, several=plan.method == "things")
        wanted = _filter_of(query)
        shard_query = ShardQuery(
            method=plan.method,
            plain=plan.plain,
            mean=gallery.clusters.mean,
            wanted=None if wanted == PhotoFilter() else wanted,
            sketch=drawn,
            things=sought,
            places=places,
            word=word,
            liked=np.concatenate(examples) if examples else None,
            unliked=gallery.vectors(unliked) if len(unliked) else None,
            liked_ids=tuple(entry.id for entry in entries[: len(liked)]),
            unliked_ids=tuple(entry.id for entry in entries[len(liked) :]),
        )
        encoded = _Encoded(
            shard_query,
            homes=np.array([entry.cluster for entry in entries[: len(liked)]], np.int64),
            sizes=gallery.clusters.sizes if shard_query.wanted is None else gallery.passing(shard_query.wanted),
        )
        if drawn is not None:
            of_things = [self.guesses(thing) for thing in things]
            perhaps: tuple[str, ...] = ()
            if len(things) == 1 and not of_things[0]:
                perhaps = tuple(one.word for one in self.matcher.guesses(drawn, LEAST_POSSIBLE))
            # Of several things, the best guess of each.
            best = {first.word: first for of_thing in of_things for first in of_thing[:1]}
            guesses = of_things[0] if len(things) == 1 else tuple(best.values())
            seen = map(self.seen, things) if sought or len(things) > 1 else ()
            encoded = replace(encoded, guesses=guesses, perhaps=perhaps, seen=tuple(seen))
        if drawn is not None and shard_query.liked is None:
            return encoded
        # Liked photos, or else the best photos by the word alone, outweigh the sketch.
        leading = self._examples(encoded, plan) if shard_query.liked is None else shard_query.liked
        ret = rocchio(None if drawn is None else unit(drawn.ret).mean(axis=0, keepdims=True), leading)
        tokens = replace(Tokens.of_ret(ret), summary=drawn.summary if drawn is not None and len(drawn) == 1 else None)
        return replace(encoded, query=replace(shard_query, sketch=tokens))

    def things_of(self, drawing: Drawing, query: SearchQuery | ExplainParams, variants: int | None = 1) -> list[Thing]:
        """Encodes each thing of a drawing, with its colours unless these do not count."""
        found = []
        for drawn in drawing.things:
            prepared = self.matcher.preprocessing.normalised(drawn.pixels)
            colours = np.array(drawn.colours if query.colours == "auto" else (), np.float32).reshape(-1, 4)
            tokens = self.matcher.encode(prepared[None], query.kind, variants)
            found.append(Thing(tokens, drawn.box, colours[:, :3], colours[:, 3]))
        return found

    def sought(
        self, things: Sequence[Thing], query: SearchQuery | ExplainParams, *, several: bool
    ) -> tuple[tuple[Thing, ...], float]:
        """Returns the things to find in regions of photos, none if regions do not count, and the weight of places.

        several: whether the query has several things; a single one is included if its place or its colours count.
        """
        apart = several or (len(things) == 1 and (query.places == "yes" or len(things[0].colours) > 0))
        if not apart or not self.gallery.regions_kept:
            return (), 0.0
        placed = query.places == "yes" or (query.places == "auto" and several)
        return tuple(replace(one, tokens=one.tokens.without_patches) for one in things), PLACES if placed else 0.0

    def guesses(self, thing: Thing) -> tuple[Guessed, ...]:
        return tuple(Guessed(**asdict(one)) for one in self.matcher.guesses(thing.tokens))

    def seen(self, thing: Thing) -> SeenThing:
        """Describes a thing for answers."""
        guess = next(iter(self.guesses(thing)), None)
        return SeenThing(box=thing.box, guess=guess, colours=tuple(map(hexadecimal, thing.colours)))

    def _word(self, query: SearchQuery, text: ReadText) -> Word | None:
        """Returns the query's word, by CLIP if possible, else of the vocabulary. Raises BadSearch and UnknownWord."""
        if query.text is None or text.vector is not None:
            return text.vector
        if not self.matcher.words:
            why = "" if text.refusal is None else f", and CLIP cannot read other words: {text.refusal.rstrip('.')}"
            raise BadSearch(f"This checkpoint has no vocabulary{why}: leave text out.")
        try:
            return self.matcher.book.read(query.text).things
        except UnknownWord as unknown:
            if text.refusal is None:
                raise
            reason = f"CLIP cannot read other words: {text.refusal}"
            raise UnknownWord(query.text.strip(), self.matcher.words, unknown.nearest, reason) from unknown

    def _examples(self, encoded: _Encoded, plan: Plan) -> Floats:
        """Returns the vectors of the photos that represent a word alone, the best ones by it, (e, d)."""
        order = self._order(encoded, self._compared(encoded), [])
        clusters = np.sort(order if plan.nprobe == "all" else order[: plan.nprobe])
        best = self.gallery.find(replace(encoded.query, clusters=clusters, method="ret", count=EXAMPLES))
        if best.by_word is None or not len(best):
            return np.zeros((1, best.vectors.shape[1]), np.float32)
        return best.vectors[best_first(best.ids, best.by_word, EXAMPLES)].astype(np.float32)

    # Stage 1: clusters.

    def _clusters(self, encoded: _Encoded, plan: Plan) -> tuple[NDArray[np.int64], Scores, int]:
        """Returns the clusters with photos that can be found, best first, all clusters' scores, and how many pairs.

        By the plan, the method scores the best clusters by vector, or all, or if there is a choice the best of these by
        matches of their mean tokens; the clusters that it scores come first. The score of a cluster that is not
        compared is NaN.
        """
        clusters, query = self.gallery.clusters, encoded.query
        # Every encoded query has tokens.
        assert query.sketch is not None
        every = plan.nprobe == "all" or plan.related is None
        compared = np.arange(len(clusters.sizes)) if every else self._compared(encoded)
        centroids = Tokens.of_ret(clusters.vectors_of(compared))
        by_vector = self.matcher.scores(query.sketch.without_patches, centroids, "ret")
        scores = np.full(len(clusters.sizes), np.nan, np.float32)
        scores[compared] = by_vector[0] if len(by_vector) == 1 else by_vector.mean(axis=0)
        order = self._order(encoded, compared, [*by_vector])
        if query.method in ("ret", "things"):
            return order, scores, len(compared) if plan.query.nprobe else 0
        first = order[: plan.related]
        if plan.query.nprobe is None and not plan.plain:
            # Without a choice, or if other parts of the query also choose clusters, the order by vectors stays.
            if plan.nprobe == "all" or len(order) <= plan.nprobe or query.parts > 1:
                return order, scores, 0
            matches = best_matches(query.sketch, clusters.tokens(first))
            hopes = promise(scores[first], np.arange(len(first)), matches)
            first = first[best_first(first, hopes, RELATED_UNASKED)]
        scores[first] = query.scores(self.matcher, clusters.tokens(first))
        order = np.concatenate([first[best_first(first, scores[first])], order[~np.isin(order, first)]])
        return order, scores, len(first)

    def _compared(self, encoded: _Encoded) -> NDArray[np.int64]:
        """Returns the clusters to compare with the query, ascending: of very many, those near a part of it."""
        clusters, query = self.gallery.clusters, encoded.query
        if query.wanted is not None or isinstance(query.word, np.ndarray):
            return np.arange(len(clusters.sizes))
        drawn = [] if query.sketch is None else [query.sketch.features[:, 0]]
        return np.union1d(clusters.near(np.concatenate([*drawn, self._directions(query)])), encoded.homes)

    def _directions(self, query: ShardQuery) -> NDArray[np.float32]:
        """Returns the direction of each thing of the words, and of each liked photo, among vectors, (q, d)."""
        parts = [np.empty((0, len(query.mean)), np.float32)]
        if isinstance(query.word, tuple):
            parts += [self.matcher.word_direction(thing)[None] for thing in query.word]
        if query.liked is not None:
            parts.append(query.liked - query.mean)
        return np.concatenate(parts)

    def _order(self, encoded: _Encoded, compared: NDArray[np.int64], columns: Sequence[Scores]) -> NDArray[np.int64]:
        """Interleaves the rankings of the compared clusters by the query's parts; drops empty ones.

        columns: the scores of the compared clusters by each thing of the sketch; none without one.
        """
        clusters, word = self.gallery.clusters, encoded.query.word
        columns = [*columns, *(clusters.vectors_of(compared) @ self._directions(encoded.query).T).T]
        if isinstance(word, np.ndarray) and clusters.embeddings is not None:
            columns.append(clusters.by_clip(word))
        order = interleaved([compared[best_first(compared, column)] for column in columns], encoded.homes)
        return order[encoded.sizes[order] > 0]

    # Stage 2: photos.

    def _photos(self, encoded: _Encoded, plan: Plan, order: NDArray[np.int64], found: Candidates | None) -> Candidates:
        """Returns the photos of the best clusters, the most promising of them scored.

        At least ``nprobe`` clusters are opened for each part of the query, and more if these do not fill the page,
        for example because a filter has emptied them.

        found: the result of an earlier plan for the same query, whose scores are kept.
        """
        enough = int(np.searchsorted(np.cumsum(encoded.sizes[order]), plan.results)) + 1
        least = len(order) if plan.nprobe == "all" else plan.nprobe * (1 if plan.query.nprobe else encoded.query.parts)
        opened = max(least, enough, len(encoded.homes))
        wanted = plan.results if plan.rerank is None else min(plan.results, plan.rerank)
        query = replace(encoded.query, count=plan.count, rerank=plan.rerank)
        while True:
            query = replace(query, clusters=np.sort(order[:opened]))
            found = self.gallery.find(query, found)
            if len(found) >= wanted or opened >= len(order):
                break
            opened *= 4
        if found.scored.sum() < len(found.to_score(query)):
            raise NotReady(
                "The network gives scores that are not numbers: the checkpoint or the index is damaged. Use another "
                "checkpoint, or run `sketch-search index verify`."
            )
        return found

    def _opened(self, found: Candidates, sizes: NDArray[np.int64], scores: Scores) -> tuple[Cluster, ...]:
        """Describes the clusters of the scored photos, best first; sizes: how many photos can be found in each."""
        there = np.unique(self.gallery.clusters.of(found.rows[found.scored]))
        order = there[best_first(there, scores[there])].tolist()
        return tuple(Cluster(id=number, score=float(scores[number]), size=int(sizes[number])) for number in order)

    # Further columns.

    def _diffused(self, found: Candidates, plan: Plan, query: ShardQuery) -> Candidates:
        """Estimates the missing scores, and diffuses all. Without diffusion, drops the unscored photos."""
        if not plan.diffuse:
            return found[found.scored]
        if not len(found):
            return found
        if plan.method == "things":
            return self._diffused_things(found, query)
        method, ret, before = plan.method, found.vectors, found.scores
        if not found.scored.all():
            threshold = self.matcher.diffusion_threshold
            expected = found.by_vector if found.promise is None else found.promise
            before = estimated(np.nan_to_num(before), found.scored, -expected, ret, threshold, method)
        return replace(found, scores=self.matcher.diffuse(before[None], ret, method)[0], before=before)

    def _diffused_things(self, found: Candidates, query: ShardQuery) -> Candidates:
        """Diffuses the scores of each thing over the regions that match it, in the SHORTLIST best photos."""
        order = best_first(found.ids, found.scores)
        first, rest, scores = order[:SHORTLIST], order[SHORTLIST:], found.scores.copy()
        matched = self.gallery.matched(query, found.rows[first])
        scores[first] = matched.diffused(self.matcher.thing_directions(query.things)).mean(axis=0)
        scores[rest] = np.minimum(scores[rest], scores[first].min())
        return replace(found, scores=scores, before=found.scores)

    def _fitted(self, ranking: Candidates, plan: Plan) -> Candidates:
        """Orders photos of about the same score by the place and the colours of one thing."""
        if ranking.fits is None or plan.method == "things" or not len(ranking):
            return ranking
        return replace(ranking, scores=fitting(ranking.scores, ranking.fits, plan.method))

    def _mix_support(self, ranking: Candidates, query: ShardQuery) -> Candidates:
        """Mixes in the likeness to liked photos, and the scores by the word (``model.ranking``)."""
        drawn_alone = query.liked is None and query.unliked is None and query.word is None
        if drawn_alone or not len(ranking):
            return ranking
        scores = ranking.scores
        if ranking.likeness is not None:
            scores = mix_support(scores, ranking.likeness)
        if ranking.by_word is not None:
            scores = mix_word_support(scores, word_support(ranking.by_word, float(ranking.by_word.max())), query.method)
        # The drawing is no longer the only part, so the scores before diffusion are no guide.
        return replace(ranking, scores=scores, before=None)

    def _ordered(self, ranking: Candidates, query: ShardQuery, *, fold_too: bool) -> Candidates:
        """Orders the ranking: liked photos by id, then others by score; folds duplicates."""
        liked = np.isin(ranking.ids, query.liked_ids)
        # A liked photo gets the best possible score, a distance of 0.
        scores = np.where(liked, np.float32(0), ranking.scores)
        ranking = replace(ranking, scores=scores)[np.lexsort((ranking.ids, -scores, ~liked))]
        if not fold_too:
            return ranking
        return replace(ranking, firsts=fold(self.gallery, ranking, int(liked.sum()), self.matcher.config.grid))

    def _seen_in(self, ranking: Candidates, things: Sequence[SeenThing], photos: int) -> tuple[SeenThing, ...]:
        """Says of each of several things whether any photo is likely to show its guess, by the photos most like it."""
        orders = [None] * len(things) if ranking.by_thing is None else ranking.by_thing.T
        found = []
        for thing, scores in zip(things, orders, strict=True):
            best = ranking if scores is None else ranking[best_first(ranking.ids, scores, GUESSED_OF)]
            words = [] if thing.guess is None else [thing.guess.word]
            found.append(thing.model_copy(update={"fits": self._fits(words, best, photos)}))
        return tuple(found)

    def _fits(self, guesses: Sequence[str], ranking: Candidates, photos: int) -> bool | None:
        """Returns whether any of so many photos, the best first, is likely to show a guess; None if uncertain."""
        if not guesses:
            return None
        words = [self.matcher.words.index(word) for word in guesses]
        best = ranking.vectors[:GUESSED_OF].astype(np.float32)
        if not len(best):
            return False
        logits = self.matcher.word_scores(Tokens.of_ret(best), words)
        return fits(float(logits.max()), photos * len(words))

    # The page.

    def _page(
        self, ranking: Candidates, plan: Plan, query: ShardQuery
    ) -> tuple[tuple[SearchResult, ...], tuple[Group, ...] | None, View]:
        """Returns the requested photos or groups, and which of the two."""
        page, asked = slice(plan.query.offset, plan.query.offset + plan.k), plan.query.view
        view: View = "photos"
        # Who draws several things looks for one photo.
        if asked == "groups" or (asked == "auto" and plan.method != "things"):
            # The view is chosen by the grouping that is shown.
            shown = ranking[ranking.results]
            grouped = grouped_ranks(shown.ids, shown.before, GROUPED)
            groups = group_alike(shown.vectors[grouped], self.gallery.clusters.mean)
            if asked != "auto" or not is_far_ahead(shown.scores[grouped], groups, plan.method):
                view = "groups"
        if view == "photos":
            return self._results(ranking, plan, query, range(len(ranking.results))[page]), None, view
        members = [np.sort(grouped[group]) for group in groups[page]]
        ranks = [ranks[: 1 + MORE].tolist() for ranks in members]
        # All at once, since each call may be a round of requests to other machines.
        results = iter(self._results(ranking, plan, query, [rank for of_group in ranks for rank in of_group]))
        found: list[Group] = []
        for rank, (group, of_group) in enumerate(zip(members, ranks, strict=True), plan.query.offset + 1):
            best, *more = islice(results, len(of_group))
            others = tuple(shown.ids[group[1 + MORE :]].tolist())
            found.append(Group(rank=rank, size=len(group), best=best, more=tuple(more), others=others))
        return (), tuple(found), view

    def _results(
        self, ranking: Candidates, plan: Plan, query: ShardQuery, ranks: Iterable[int]
    ) -> tuple[SearchResult, ...]:
        """Returns the results of these ranks, counted from 0."""
        shown = list(ranks)
        chosen = ranking.results[shown]
        # An empty ranking has no results.
        support = shares_of(ranking.scores, plan.method) if shown else ranking.scores
        entries = self.gallery.entries(ranking.rows[chosen])
        cells: list[tuple[int, ...] | None] = [None] * len(shown)
        if query.things and shown:
            cells = [*map(tuple, self.gallery.matched(query, ranking.rows[chosen]).cells.T.tolist())]
        return tuple(
            SearchResult.of(
                photo,
                self.settings.photo_links,
                rank=rank + 1,
                score=float(support[n]),
                raw_score=float(ranking.scores[n]),
                cluster=photo.cluster,
                cells=cell,
                copies=ranking.copies(n),
            )
            for rank, n, photo, cell in zip(shown, chosen.tolist(), entries, cells, strict=True)
        )


def _filter_of(query: SearchQuery) -> PhotoFilter:
    return PhotoFilter(tuple(sorted(set(query.folder))), query.after, query.before)
