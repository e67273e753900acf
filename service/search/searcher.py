"""One search in two stages: the sketch against cells, then against the photos of the best cells.

    encode     the sketch becomes a vector and tokens; liked photos and a word become vectors, too     ``_encoded``
    stage 1    the sketch against the centroids of all cells                                           ``_cells``
    stage 2    photos of the best cells, by vector; cross-attention and relation network on the best   ``_photos``
    diffusion  photos that look alike lend each other their scores                                     ``_diffused``
    leads      photos that look like liked ones, and those that show the query's word, come forward    ``_led``
    order      liked photos first, then by score; near duplicates fold into one                        ``_ordered``
    page       the photos, or the kinds of photos, that were asked for                                 ``_page``

From stage 2 on, all work on one ``Table``: a row for each photo, a column for each kind of score. The score of a photo
does not depend on what is scored beside it. So, before diffusion, all ways to search agree on every photo that they
share, and with ``nprobe="all"``, the exhaustive search, the order is that of scoring every photo.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer import PhotoFilter
from model import Matcher
from model.engine import Floats, Method, Tokens
from model.ranking import EXAMPLES, fits, led, led_by_word, named, pulled, shares_of
from model.words import UnknownWord
from service.errors import BadSearch, NotReady
from service.gallery import Find, Gallery, Scores, Table, Word, best_first, interleaved
from service.schemas import Cluster, Guessed, Kind, SearchQuery, SearchResponse, SearchResult, View, addresses
from service.search.plan import GROUPED, NO_CLIP, Defaults, Encode, Plan, Sketch, Stopwatch, encode_picture, plan_search
from service.search.shown import FOLDED, fold, group_kinds, grouped_places, is_far_ahead
from service.towers import ClipVectors, TextVector

# Cells that are scored by the method where it chooses cells: the best of all by vector. The seed's system has 125.
RELATED = 128
# Photos of a kind that are shown beside its best one.
MORE = 4


@dataclass(frozen=True)
class _Encoded:
    """An encoded query: the question for shards, and what the searcher alone needs.

    Attributes:
        find: the question, without cells yet.
        homes: the cells that the liked photos are in. sizes: (c,) how many photos of each cell may be found.
        guesses: what the sketch may show.
    """

    find: Find
    homes: NDArray[np.int64]
    sizes: NDArray[np.int64]
    guesses: tuple[Guessed, ...] = ()


class Searcher:
    """Searches a gallery with the checkpoint that made its tokens.

    Attributes:
        matcher: the checkpoint. gallery: the photos.
    """

    def __init__(
        self, gallery: Gallery, matcher: Matcher, defaults: Defaults | None = None, encode: Encode | None = None
    ) -> None:
        """
        Args:
            defaults: what a search does where its query does not say; None for those of ``Defaults``.
            encode: what encodes the sketches and photos of queries; None for the matcher.
        """
        self.matcher, self.gallery = matcher, gallery
        self._encode = matcher.encode if encode is None else encode
        self._defaults = defaults or Defaults()

    def search(
        self, sketch: Sketch | None, query: SearchQuery, clip: ClipVectors = NO_CLIP, prepare_ms: float = 0.0
    ) -> SearchResponse:
        """Finds the photos that match a sketch best, look most like the liked photos, and show the word.

        Args:
            sketch: the picture that came with the query, None if none did. It is a photo, which counts as liked, where
                the query's kind says so.
            clip: the query by CLIP, as far as it needs that.
            prepare_ms: milliseconds that the preparation of the sketch has taken already.

        Raises:
            BadSearch: the checkpoint, or the index, cannot do what the query asks for, or it asks for nothing.
            UnknownWord: the vocabulary does not have the query's word.
            UnknownPhoto: an id in the query is no photo's.
            BlankSketch: the sketch is a picture without ink.
            NotReady: a score is no number, which no answer could hold.
        """
        asks: dict[str, Any] = {"drawn": sketch is not None, "clip": clip, "tokens_kept": self.gallery.tokens_kept}
        plan = plan_search(query, self.matcher, self._defaults, **asks)
        watch = Stopwatch(prepare_ms, clip.milliseconds)
        encoded, wanted = self._encoded(sketch, query, clip, plan, watch), plan.results
        while True:
            order, by_cell, pairs = self._cells(encoded, plan)
            watch.lap("clusters")
            found = self._photos(encoded, plan, order, watch)
            watch.lap("photos")
            table = self._led(self._diffused(found, plan), encoded.find)
            watch.lap("diffusion")
            table = self._ordered(table, encoded.find, fold_too=plan.query.fold)
            missing = wanted - len(table.results)
            if missing <= 0 or not plan.query.fold or plan.query.budget_ms is not None:
                break
            if not plan.results <= len(table) < encoded.sizes.sum():
                break
            # Near duplicates took places. A longer ranking has others for them.
            plan = plan_search(query, self.matcher, self._defaults, at_least=max(FOLDED, len(table)) + missing, **asks)
        results, kinds, view = self._page(table, plan)
        watch.lap("photos")
        word_fits = None
        if isinstance(encoded.find.word, int):
            word_fits = fits(float(table.by_word.max(initial=-np.inf)), int(encoded.sizes.sum()))
        return SearchResponse(
            results=results,
            kinds=kinds,
            view=view if plan.query.view == "auto" else None,
            guesses=encoded.guesses,
            clusters=_clusters(found, encoded.sizes, by_cell),
            candidates=len(table),
            pairs_scored=pairs + int(found.scored.sum()),
            quality=plan.quality,
            rerank=plan.rerank,
            diffused=plan.diffuse,
            budget_spent=not table.complete,
            words=None if encoded.find.word is None else "vocabulary" if clip.text is None else "clip",
            word_fits=word_fits,
            timings_ms=watch.timings(),
            complete=not self.gallery.missing,
            missing_shards=self.gallery.missing,
            method=plan.method,
            generation=self.gallery.generation,
            model=self.matcher.config.name,
            embedder=self.gallery.embedder.name,
        )

    # Encode.

    def _encoded(
        self, sketch: Sketch | None, query: SearchQuery, clip: ClipVectors, plan: Plan, watch: Stopwatch
    ) -> _Encoded:
        """The query as it is compared with photos."""
        gallery, word = self.gallery, self._word(query, clip)
        liked, unliked = (np.unique(gallery.rows_of_ids(ids)) for ids in (query.like, query.unlike))
        entries = gallery.entries(np.concatenate([liked, unliked])) if len(liked) + len(unliked) else ()
        if len(both := np.intersect1d(liked, unliked)):
            photo = entries[int(np.flatnonzero(liked == both[0])[0])].id
            raise BadSearch(f"like and unlike name the same photo, {photo}: leave one of them out.")
        examples = [gallery.vectors(liked)] if len(liked) else []
        drawn: Tokens | None = None
        if sketch is not None:
            tokens = encode_picture(sketch, query, self.matcher, watch, self._encode)
            if query.kind == "photo":
                examples.append(tokens.ret)
            else:
                drawn = tokens
        wanted = PhotoFilter(tuple(sorted(set(query.folder))), query.after, query.before)
        find = Find(
            method=plan.method,
            mean=gallery.cells.mean,
            wanted=None if wanted == PhotoFilter() else wanted,
            clip=clip.sketch if plan.method == "clip" else None,
            word=word,
            liked=np.concatenate(examples) if examples else None,
            unliked=gallery.vectors(unliked) if len(unliked) else None,
            kept=tuple(entry.id for entry in entries[: len(liked)]),
            dropped=tuple(entry.id for entry in entries[len(liked) :]),
        )
        encoded = _Encoded(
            find.of_tokens(drawn) if drawn is not None else find,
            homes=np.array([entry.cluster for entry in entries[: len(liked)]], np.int64),
            sizes=gallery.cells.sizes if find.wanted is None else gallery.passing(find.wanted),
            guesses=() if drawn is None else tuple(Guessed(**asdict(one)) for one in self.matcher.guesses(drawn)),
        )
        if drawn is not None and find.liked is None:
            return encoded
        # Liked photos lead the sketch, or else the best photos by the word alone.
        leading = self._examples(encoded) if find.liked is None else find.liked
        ret = pulled(None if drawn is None else drawn.ret, leading)
        summary = None if drawn is None else drawn.summary
        return replace(encoded, find=find.of_tokens(replace(Tokens.of_ret(ret), summary=summary)))

    def _word(self, query: SearchQuery, clip: ClipVectors) -> Word | None:
        """Returns the query's word, by CLIP where that can be had, else of the vocabulary; None where it has no word.

        Raises BadSearch where the checkpoint has no vocabulary either, and UnknownWord where that does not have it.
        """
        if query.text is None or clip.text is not None:
            return clip.text
        if not self.matcher.words:
            why = "" if clip.refusal is None else f", and CLIP cannot read other words: {clip.refusal.rstrip('.')}"
            raise BadSearch(f"This checkpoint has no vocabulary{why}: leave text out.")
        try:
            return self.matcher.book.find(query.text)
        except UnknownWord as unknown:
            if clip.refusal is None:
                raise
            reason = f"CLIP cannot read other words: {clip.refusal}"
            raise UnknownWord(query.text.strip(), len(self.matcher.words), unknown.nearest, reason) from unknown

    def _examples(self, encoded: _Encoded) -> Floats:
        """(e, d): the vectors of the photos that stand for a word alone, the best ones by it."""
        cells = self._order(encoded, self._compared(encoded), [])[: self._defaults.nprobe]
        best = self.gallery.find(replace(encoded.find, cells=np.sort(cells), method="ret", clip=None, count=EXAMPLES))
        best = best[best_first(best.ids, best.by_word, EXAMPLES)]
        return best.vectors.astype(np.float32) if len(best) else np.zeros((1, best.vectors.shape[1]), np.float32)

    # Stage 1: cells.

    def _cells(self, encoded: _Encoded, plan: Plan) -> tuple[NDArray[np.int64], Scores, int]:
        """Returns the cells with photos that may be found, best first; all cells' scores; and how many pairs it took.

        Where the plan says so, the RELATED best by vector are scored by the method, and come first. A cell that is not
        compared has no number as its score.
        """
        cells, method, find = self.gallery.cells, plan.method, encoded.find
        # Encoding a query gives it tokens, whatever it asks for.
        assert find.sketch is not None
        sketch = find.sketch
        compared = np.arange(len(cells.sizes)) if plan.nprobe == "all" else self._compared(encoded)
        if find.clip is not None and cells.embeddings is not None:
            by_vector = cells.by_clip(find.clip)
        else:
            centroids = Tokens.of_ret(cells.vectors_of(compared))
            by_vector = self._scores(sketch.without_patches, centroids, "ret")
        scores = np.full(len(cells.sizes), np.nan, np.float32)
        scores[compared] = by_vector
        order = self._order(encoded, compared, [by_vector])
        if not plan.by_pairs or method == "ret" or method == "clip":
            return order, scores, len(compared) if plan.by_pairs else 0
        first = order[:RELATED]
        scores[first] = self._scores(sketch, cells.tokens(first), method)
        order = np.concatenate([first[best_first(first, scores[first])], order[RELATED:]])
        return order, scores, len(first)

    def _scores(self, sketch: Tokens, cells: Tokens, method: Method) -> Scores:
        """(c,): the sketch against centroids."""
        if not len(cells):
            return np.empty(0, np.float32)
        scores: Scores = self.matcher.scores(sketch, cells, method)[0]
        return scores

    def _compared(self, encoded: _Encoded) -> NDArray[np.int64]:
        """Returns the cells that the query is compared with, ascending: of very many, those near a part of it."""
        cells, find = self.gallery.cells, encoded.find
        if find.wanted is not None or find.clip is not None or isinstance(find.word, TextVector):
            return np.arange(len(cells.sizes))
        drawn = [] if find.sketch is None else [find.sketch.features[:, 0]]
        return np.union1d(cells.near(np.concatenate([*drawn, self._directions(find)])), encoded.homes)

    def _directions(self, find: Find) -> NDArray[np.float32]:
        """(q, d): what the word of the vocabulary, and each liked photo, are like among vectors."""
        parts = [np.empty((0, len(find.mean)), np.float32)]
        if isinstance(find.word, int):
            parts.append(self.matcher.word_direction(find.word)[None])
        if find.liked is not None:
            parts.append(find.liked - find.mean)
        return np.concatenate(parts)

    def _order(self, encoded: _Encoded, compared: NDArray[np.int64], columns: Sequence[Scores]) -> NDArray[np.int64]:
        """Interleaves the rankings of the compared cells by sketch, word and each liked photo, without empty cells.

        columns: the scores of the compared cells by the sketch; none without one.
        """
        cells, word = self.gallery.cells, encoded.find.word
        columns = [*columns, *(cells.vectors_of(compared) @ self._directions(encoded.find).T).T]
        if isinstance(word, TextVector) and cells.embeddings is not None:
            columns.append(cells.by_clip(word.values))
        order = interleaved([compared[best_first(compared, column)] for column in columns], encoded.homes)
        return order[encoded.sizes[order] > 0]

    # Stage 2: photos.

    def _photos(self, encoded: _Encoded, plan: Plan, order: NDArray[np.int64], watch: Stopwatch) -> Table:
        """Returns the photos of the best cells, the most promising of them scored.

        At least ``nprobe`` cells are opened for each part of the query, and more where these do not fill the page: also
        where what may not be found has emptied them.
        """
        enough = int(np.searchsorted(np.cumsum(encoded.sizes[order]), plan.results)) + 1
        least = len(order) if plan.nprobe == "all" else plan.nprobe * (1 if plan.by_pairs else encoded.find.parts)
        opened = max(least, enough, len(encoded.homes))
        wanted = plan.results if plan.rerank is None else min(plan.results, plan.rerank)
        while True:
            left = None if plan.query.budget_ms is None else max(plan.query.budget_ms - watch.passed(), 1e-6)
            cells = np.sort(order[:opened])
            find = replace(encoded.find, cells=cells, count=plan.count, rerank=plan.rerank, budget_ms=left)
            table = self.gallery.find(find)
            if len(table) >= wanted or opened >= len(order) or not table.complete:
                break
            opened *= 4
        if table.scored.sum() < len(table.to_score(find)) and table.complete:
            raise NotReady(
                "The network gives scores that are no numbers: the checkpoint or the index is damaged. Take another "
                "checkpoint, or run `sketch-search index verify`."
            )
        return table

    # Further columns.

    def _diffused(self, table: Table, plan: Plan) -> Table:
        """Estimates the missing scores, and diffuses all. Without diffusion it drops the unscored photos."""
        if not plan.diffuse:
            return table[table.scored]
        if not len(table):
            return table
        method, ret = plan.method, table.vectors
        before = table.scores
        if not table.scored.all():
            before = self.matcher.estimate(np.nan_to_num(before), table.scored, -table.by_vector, ret, method)
        return replace(table, scores=self.matcher.diffuse(before[None], ret, method)[0], before=before)

    def _led(self, table: Table, find: Find) -> Table:
        """Returns the table led by likeness to liked photos, and by what the word names (``model.ranking``)."""
        drawn_alone = find.liked is None and find.unliked is None and find.word is None
        if drawn_alone or not len(table):
            return table
        scores = table.scores
        if find.liked is not None:
            scores = led(scores, table.likeness)
        if find.word is not None:
            scores = led_by_word(scores, named(table.by_word, float(table.by_word.max())), find.method)
        # More than a drawing decides now, so that the scores before diffusion say little.
        return replace(table, scores=scores, before=None)

    def _ordered(self, table: Table, find: Find, *, fold_too: bool) -> Table:
        """Puts the table into the order of the ranking: liked photos by id, then others by score; folds duplicates."""
        liked = np.isin(table.ids, find.kept)
        # A liked photo gets the best score there is. With liked photos that is a distance of 0, or 1 by CLIP.
        scores = np.where(liked, np.float32(0 if find.method == "ret" else 1), table.scores)
        table = replace(table, scores=scores)[np.lexsort((table.ids, -scores, ~liked))]
        if not fold_too:
            return table
        return replace(table, firsts=fold(self.gallery, table, int(liked.sum()), self.matcher.config.grid))

    # The page.

    def _page(self, table: Table, plan: Plan) -> tuple[tuple[SearchResult, ...], tuple[Kind, ...] | None, View]:
        """Returns the photos, or the kinds, that were asked for; and which of both."""
        page, view = slice(plan.query.offset, plan.query.offset + plan.k), plan.query.view
        if view != "photos":
            # The view is chosen by the grouping that is shown.
            shown = table[table.results]
            grouped = grouped_places(shown.ids, shown.before, GROUPED)
            groups = group_kinds(shown.vectors[grouped], self.gallery.cells.mean)
            if view == "auto":
                view = "photos" if is_far_ahead(shown.scores[grouped], groups, plan.method) else "kinds"
        if view == "photos":
            return self._results(table, plan, range(len(table.results))[page]), None, view
        places = [grouped[group[: 1 + MORE]].tolist() for group in groups[page]]
        # All at once, since each time may be a round of questions to other machines.
        results = iter(self._results(table, plan, [place for of_kind in places for place in of_kind]))
        kinds: list[Kind] = []
        for rank, (group, of_kind) in enumerate(zip(groups[page], places, strict=True), plan.query.offset + 1):
            best, *more = islice(results, len(of_kind))
            kinds.append(Kind(rank=rank, size=len(group), best=best, more=tuple(more)))
        return (), tuple(kinds), view

    def _results(self, table: Table, plan: Plan, places: Iterable[int]) -> tuple[SearchResult, ...]:
        """Returns the results at these places of the ranking, counted from 0."""
        shown = list(places)
        chosen = table.results[shown]
        # Nothing is shown of an empty table.
        support = shares_of(table.scores, plan.method) if shown else table.scores
        entries = self.gallery.entries(table.rows[chosen])
        return tuple(
            SearchResult(
                id=photo.id,
                rank=place + 1,
                score=float(support[n]),
                raw_score=float(table.scores[n]),
                cluster=photo.cluster,
                paths=photo.paths,
                **addresses(photo.id, self._defaults.originals),
                copies=table.copies(n),
            )
            for place, n, photo in zip(shown, chosen.tolist(), entries, strict=True)
        )


def _clusters(table: Table, sizes: NDArray[np.int64], scores: Scores) -> tuple[Cluster, ...]:
    """Describes the cells of the photos that were scored, best first, with how many photos may be found there."""
    there = np.unique(table.cells[table.scored])
    order = there[best_first(there, scores[there])].tolist()
    return tuple(Cluster(id=cell, score=float(scores[cell]), size=int(sizes[cell])) for cell in order)
