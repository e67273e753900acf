"""One search in two stages: the sketch against cells, then against the photos of the best cells.

    encode     the sketch becomes a vector and tokens; liked photos and a word become vectors, too     ``_asked``
    stage 1    the sketch against the centroids of all cells; photos of the best cells, by vector      ``_opened``
    stage 2    cross-attention and relation network on the best of these photos                        ``_found``
    diffusion  photos that look alike lend each other their scores                                     ``_diffused``
    leads      photos that look like liked ones, and those that show the query's word, come forward    ``_led``
    order      liked photos first, then by score; near duplicates fold into one                        ``_ordered``
    page       the photos, or the kinds of photos, that were asked for                                 ``_page``

All stages work on one ``Table``: a row for each photo, a column for each kind of score. The score of a photo does not
depend on what is scored beside it. So, before diffusion, all ways to search agree on every photo that they share, and
with ``nprobe="all"``, the exhaustive search, the order is that of scoring every photo.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from indexer import Index, PhotoFilter
from model import Matcher, Tokens
from model.network import Modality
from model.ranking import EXAMPLES, ScoredBy, fits, led, led_by_word, named, pulled, support_of
from model.words import UnknownWord
from service.errors import BadSearch, NotReady
from service.schemas import Cluster, Guessed, Kind, SearchQuery, SearchResponse, SearchResult, addresses
from service.search.around import Surroundings
from service.search.encoding import Encode, Sketch, Stopwatch, encode_picture
from service.search.gallery import Find, Floats, Gallery, IndexGallery, Scores, Table, Word, best_first
from service.search.plan import GROUPED, NO_CLIP, Defaults, Plan, plan_search
from service.search.shown import FOLDED, NO_ROWS, Folded, fold, group_kinds, grouped_places, is_far_ahead
from service.towers import ClipVectors, TextVector

# Cells that are scored by the method where it chooses cells: the best of all by vector. The seed's system has 125.
RELATED = 128
# Photos of a kind that are shown beside its best one.
MORE = 4


@dataclass(frozen=True)
class _Asked:
    """A query that is encoded.

    Attributes:
        tokens: what photos are compared with, a batch of one: the sketch, or where photos are liked a [Ret] near
            theirs.
        clip: the sketch by CLIP, where that is the method.
        word: the query's word; None without one. wanted: the filter; None without one.
        liked, unliked: (l, d) and (u, d) vectors; None without. kept, dropped: ids of these photos.
        homes: the cells that the liked photos are in.
        sizes: (c,) how many photos of each cell may be found.
        guesses: what the sketch may show.
    """

    tokens: Tokens
    clip: Floats | None
    word: Word | None
    wanted: PhotoFilter | None
    liked: Floats | None
    unliked: Floats | None
    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    homes: NDArray[np.int64]
    sizes: NDArray[np.int64]
    guesses: tuple[Guessed, ...] = ()

    @property
    def parts(self) -> int:
        """How many parts of the query choose cells: the sketch, the word, and each liked photo."""
        return 1 + (self.word is not None) + (0 if self.liked is None else len(self.liked))

    @property
    def is_drawing(self) -> bool:
        """Whether the query is a drawing and nothing else."""
        return self.liked is None and self.unliked is None and self.word is None


@dataclass(frozen=True)
class _Ranking:
    """The photos of a search in order.

    Attributes:
        table: all photos that have a place. scores: (m,) those that decide it. before: those before diffusion; None
            where there was none, or where more than a drawing decides the order.
        folded: the order of those that are results.
        clusters: the cells of the photos that were scored, best first. pairs: centroids and photos that were scored.
        best_named: the best score by the word.
    """

    table: Table
    scores: Scores
    before: Scores | None
    folded: Folded
    clusters: tuple[Cluster, ...]
    pairs: int
    best_named: float


class GallerySearcher:
    """Searches a gallery with the checkpoint that made its tokens.

    Attributes:
        matcher: the checkpoint. gallery: the photos. index: what else is known of them.
    """

    def __init__(
        self, gallery: Gallery, matcher: Matcher, defaults: Defaults | None = None, encode: Encode | None = None
    ) -> None:
        """
        Args:
            defaults: what a search does where its query does not say; None for those of ``Defaults``.
            encode: what encodes the sketches and photos of queries; None for the matcher.
        """
        self.matcher, self.gallery, self.index = matcher, gallery, gallery.index
        self._encode = matcher.encode if encode is None else encode
        self._defaults = defaults or Defaults()

    def search(
        self, sketch: Sketch | None, query: SearchQuery, clip: ClipVectors = NO_CLIP, prepare_ms: float = 0.0
    ) -> SearchResponse:
        """The photos that match a sketch best, look most like the photos that the query likes, and show its word.

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
        asks: dict[str, Any] = {"drawn": sketch is not None, "clip": clip, "tokens_kept": self.index.tokens_kept}
        plan = plan_search(query, self.matcher, self._defaults, **asks)
        watch = Stopwatch(self.matcher.device, prepare_ms, clip.milliseconds)
        asked, wanted = self._asked(sketch, query, clip, plan, watch), plan.results
        ranking = self._ranking(asked, plan, watch)
        while (missing := wanted - len(ranking.folded.order)) > 0 and self._may_grow(ranking, asked, plan):
            # Near duplicates took places. A longer ranking has others for them.
            at_least = max(FOLDED, len(ranking.table)) + missing
            plan = plan_search(query, self.matcher, self._defaults, at_least=at_least, **asks)
            ranking = self._ranking(asked, plan, watch)
        results, kinds, view = self._page(ranking, plan)
        watch.lap("photos")
        word_fits = None
        if isinstance(asked.word, int):
            word_fits = fits(ranking.best_named, int(asked.sizes.sum()))
        return SearchResponse(
            results=results,
            kinds=kinds,
            view=view if plan.view == "auto" else None,
            guesses=asked.guesses,
            clusters=ranking.clusters,
            candidates=len(ranking.table),
            pairs_scored=ranking.pairs,
            quality=plan.quality,
            rerank=plan.rerank,
            diffused=plan.diffuse,
            budget_spent=not ranking.table.complete,
            words=None if asked.word is None else "vocabulary" if clip.text is None else "clip",
            word_fits=word_fits,
            timings_ms=watch.timings(),
            complete=not self.gallery.missing,
            missing_shards=self.gallery.missing,
            method=plan.method,
            generation=self.index.generation,
            model=self.matcher.config.name,
            embedder=self.index.embedder.name,
        )

    def around(self, given: Tokens, modality: Modality) -> Surroundings:
        """The photos around a sketch, or a photo in its place, that is encoded: a batch of one."""
        return Surroundings(self.gallery, given, modality)

    def _ranking(self, asked: _Asked, plan: Plan, watch: Stopwatch) -> _Ranking:
        """All stages between the encoding and the page."""
        order, by_cell, related = self._opened(asked, plan)
        watch.lap("clusters")
        table = self._found(asked, plan, order, watch)
        watch.lap("photos")
        pairs = related + int(np.isfinite(table.scores).sum())
        clusters = _clusters(table, asked.sizes, by_cell)
        scores, before = self._diffused(table, plan)
        if not plan.diffuse:
            scored = np.isfinite(table.scores)
            table, scores = table[scored], scores[scored]
        best_named = float(table.by_word.max(initial=-np.inf)) if asked.word is not None else -np.inf
        scores = self._led(table, scores, asked, plan)
        watch.lap("diffusion")
        folded = self._ordered(table, scores, asked, plan)
        scores = np.where(np.isin(table.ids, asked.kept), _highest(plan), scores) if asked.kept else scores
        return _Ranking(table, scores, before if asked.is_drawing else None, folded, clusters, pairs, best_named)

    # Encode.

    def _asked(
        self, sketch: Sketch | None, query: SearchQuery, clip: ClipVectors, plan: Plan, watch: Stopwatch
    ) -> _Asked:
        """The query as it is compared with photos."""
        word = self._word(query, clip)
        liked, unliked = (np.unique(self.gallery.rows_of_ids(ids)) for ids in (query.like, query.unlike))
        entries = self.gallery.entries(np.concatenate([liked, unliked])) if len(liked) + len(unliked) else ()
        if len(both := np.intersect1d(liked, unliked)):
            photo = entries[int(np.flatnonzero(liked == both[0])[0])].id
            raise BadSearch(f"like and unlike name the same photo, {photo}: leave one of them out.")
        kept, dropped = (tuple(one.id for one in some) for some in (entries[: len(liked)], entries[len(liked) :]))
        examples = [self.gallery.vectors(liked)] if len(liked) else []
        drawn: Tokens | None = None
        if sketch is not None:
            tokens = encode_picture(sketch, query.kind, self.matcher, watch, self._encode)
            if query.kind == "photo":
                examples.append(tokens.ret.float().cpu().numpy())
            else:
                drawn = tokens
        wanted: PhotoFilter | None = PhotoFilter(tuple(sorted(set(query.folder))), query.after, query.before)
        wanted = None if wanted == PhotoFilter() else wanted
        asked = _Asked(
            tokens=Tokens.of_ret(torch.zeros(1, self.matcher.config.width)) if drawn is None else drawn,
            clip=clip.sketch if plan.method == "clip" else None,
            word=word,
            wanted=wanted,
            liked=np.concatenate(examples) if examples else None,
            unliked=self.gallery.vectors(unliked) if len(unliked) else None,
            kept=kept,
            dropped=dropped,
            homes=np.array([entry.cluster for entry in entries[: len(liked)]], np.int64),
            sizes=self.gallery.cells.sizes if wanted is None else self.gallery.passing(wanted),
        )
        if asked.liked is not None or drawn is None:
            leading = self._examples(asked) if asked.liked is None else torch.tensor(asked.liked)
            ret = pulled(None if drawn is None else drawn.ret.cpu(), leading)
            asked = replace(asked, tokens=Tokens.of_ret(ret))
        guesses = () if drawn is None else self.matcher.guesses(drawn)
        return replace(asked, guesses=tuple(Guessed(word=one.word, probability=one.probability) for one in guesses))

    def _word(self, query: SearchQuery, clip: ClipVectors) -> Word | None:
        """The query's word, by CLIP where that can be had, else of the vocabulary; None where it has no word.

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

    def _examples(self, asked: _Asked) -> torch.Tensor:
        """(e, d): the vectors of the photos that stand for a word alone, the best ones by it."""
        cells = self._order(asked, None)[: self._defaults.nprobe]
        find = self._find(asked, np.sort(cells), "ret", EXAMPLES, None)
        best = self.gallery.find(replace(find, features=find.features[:, :0], clip=None))
        best = best[best_first(best.ids, best.by_word, EXAMPLES)]
        return torch.tensor(best.vectors).float() if len(best) else torch.zeros(1, best.vectors.shape[1])

    # Stage 1: cells.

    def _opened(self, asked: _Asked, plan: Plan) -> tuple[NDArray[np.int64], Scores, int]:
        """The cells that have photos which may be found, best first; each cell's score; and how many pairs it took.

        Where the plan says so, the RELATED best by vector are scored by the method, and come first.
        """
        cells, method = self.gallery.cells, plan.method
        if method == "clip" and cells.embeddings is not None and asked.clip is not None:
            by_vector = (cells.embeddings @ asked.clip).astype(np.float32)
        else:
            by_vector = self._against(asked.tokens, Tokens.of_ret(torch.from_numpy(cells.vectors)))
        order = self._order(asked, by_vector)
        if not plan.by_pairs or method == "ret" or method == "clip":
            return order, by_vector, len(cells.sizes) if plan.by_pairs else 0
        first = order[:RELATED]
        scores = by_vector.copy()
        scores[first] = self.matcher.scores(asked.tokens, cells.tokens(first), method)[0].numpy()
        order = np.concatenate([first[best_first(first, scores[first])], order[RELATED:]])
        return order, scores, len(first)

    def _against(self, tokens: Tokens, cells: Tokens) -> Scores:
        if not len(cells):
            return np.empty(0, np.float32)
        scores: Scores = self.matcher.scores(Tokens.of_ret(tokens.ret), cells, "ret")[0].numpy()
        return scores

    def _order(self, asked: _Asked, by_vector: Scores | None) -> NDArray[np.int64]:
        """The cells that have photos which may be found: by turns one by each part of the query, the best first."""
        cells = self.gallery.cells
        columns = [] if by_vector is None else [by_vector]
        if isinstance(asked.word, TextVector):
            columns += [] if cells.embeddings is None else [cells.embeddings @ asked.word.values]
        elif asked.word is not None:
            columns.append(cells.vectors @ self.matcher.word_direction(asked.word).cpu().numpy())
        if asked.liked is not None:
            columns += list((cells.vectors @ (asked.liked - cells.mean).T).T)
        numbers = np.arange(len(cells.sizes))
        turns = np.stack([best_first(numbers, column) for column in columns], axis=1).ravel()
        every = np.concatenate([asked.homes, turns])
        _, first = np.unique(every, return_index=True)
        order: NDArray[np.int64] = every[np.sort(first)]
        return order[asked.sizes[order] > 0]

    # Stage 2: photos.

    def _found(self, asked: _Asked, plan: Plan, order: NDArray[np.int64], watch: Stopwatch) -> Table:
        """The photos of the best cells, the most promising of them scored.

        At least ``nprobe`` cells are opened for each part of the query, and more where these do not fill the page: also
        where what may not be found has emptied them.
        """
        enough = int(np.searchsorted(np.cumsum(asked.sizes[order]), plan.results)) + 1
        least = len(order) if plan.nprobe == "all" else plan.nprobe * (1 if plan.by_pairs else asked.parts)
        opened = max(least, enough, len(asked.homes))
        while True:
            left = None if plan.budget_ms is None else max(plan.budget_ms - watch.passed(), 1e-6)
            find = self._find(asked, np.sort(order[:opened]), plan.method, plan.count, plan.rerank, left)
            table = self.gallery.find(find)
            wanted = plan.results if plan.rerank is None else min(plan.results, plan.rerank)
            if len(table) >= wanted or opened >= len(order) or not table.complete:
                break
            opened *= 4
        known = table.scores[np.isfinite(table.scores)]
        if len(known) < len(table.to_score(find)) and table.complete:
            raise NotReady(
                "The network gives scores that are no numbers: the checkpoint or the index is damaged. Take another "
                "checkpoint, or run `sketch-search index verify`."
            )
        return table

    def _find(
        self,
        asked: _Asked,
        cells: NDArray[np.int64],
        method: ScoredBy,
        count: int | None,
        rerank: int | None,
        budget_ms: float | None = None,
    ) -> Find:
        return Find(
            cells=cells,
            features=asked.tokens.features.float().cpu().numpy(),
            positions=asked.tokens.positions.cpu().numpy(),
            method=method,
            count=count,
            rerank=rerank,
            mean=self.gallery.cells.mean,
            wanted=asked.wanted,
            clip=asked.clip,
            word=asked.word,
            named=0 if asked.word is None else count or 0,
            liked=asked.liked,
            unliked=asked.unliked,
            kept=asked.kept,
            dropped=asked.dropped,
            budget_ms=budget_ms,
        )

    # Scores.

    def _diffused(self, table: Table, plan: Plan) -> tuple[Scores, Scores | None]:
        """The scores after diffusion, and those before it where there is any: unscored photos are estimated for it."""
        if not plan.diffuse or not len(table):
            return table.scores, None
        method, ret = plan.method, torch.from_numpy(table.vectors)
        # By id, since the order of a sum decides its last bit.
        order = torch.from_numpy(table.ids.argsort())
        before, known = torch.from_numpy(table.scores)[order], torch.from_numpy(np.isfinite(table.scores))[order]
        if not bool(known.all()):
            distances = -torch.from_numpy(table.by_vector)[order]
            before = self.matcher.estimate(torch.nan_to_num(before), known, distances, ret[order], method)
        after = self.matcher.diffuse(before[None], ret[order], method)[0]
        back = order.argsort()
        return after[back].numpy(), before[back].numpy()

    def _led(self, table: Table, scores: Scores, asked: _Asked, plan: Plan) -> Scores:
        """The scores led by likeness to liked photos, and by what the word names (``model.ranking``)."""
        if not len(table):
            return scores
        led_scores = torch.from_numpy(scores)
        if asked.liked is not None:
            led_scores = led(led_scores, torch.from_numpy(table.likeness))
        if asked.word is not None:
            by_word = torch.from_numpy(table.by_word)
            led_scores = led_by_word(led_scores, named(by_word, by_word.max()), plan.method)
        found: Scores = led_scores.numpy()
        return found

    def _ordered(self, table: Table, scores: Scores, asked: _Asked, plan: Plan) -> Folded:
        """The order of the results: liked photos by id, then the others by score; near duplicates folded."""
        order = best_first(table.ids, scores)
        liked = np.isin(table.ids, asked.kept)
        if liked.any():
            order = np.concatenate([np.flatnonzero(liked)[table.ids[liked].argsort()], order[~liked[order]]])
        if not plan.fold:
            return Folded(order)
        return fold(self.gallery, table, order, int(liked.sum()), self.matcher.config.grid)

    def _may_grow(self, ranking: _Ranking, asked: _Asked, plan: Plan) -> bool:
        """Whether a plan for a longer ranking would give one: the time is not limited, and there are more photos."""
        return plan.fold and plan.budget_ms is None and plan.results <= len(ranking.table) < asked.sizes.sum()

    # The page.

    def _page(self, ranking: _Ranking, plan: Plan) -> tuple[tuple[SearchResult, ...], tuple[Kind, ...] | None, Any]:
        """The photos, or the kinds, that were asked for; and which of both."""
        order, view = ranking.folded.order, plan.view
        page = slice(plan.offset, plan.offset + plan.k)
        if view == "photos":
            return self._results(ranking, plan, range(len(order))[page]), None, view
        # What is decided and what is shown go by one grouping.
        before = None if ranking.before is None else ranking.before[order]
        grouped = grouped_places(ranking.table.ids[order], before, GROUPED)
        groups = group_kinds(ranking.table.vectors[order[grouped]], self.gallery.cells.mean)
        if view == "auto":
            view = "photos" if is_far_ahead(ranking.scores[order[grouped]], groups, plan.method) else "kinds"
        if view == "photos":
            return self._results(ranking, plan, range(len(order))[page]), None, view
        shown = [grouped[group[: 1 + MORE]].tolist() for group in groups[page]]
        # All at once, since each time may be a round of questions to other machines.
        results = iter(self._results(ranking, plan, [place for of_kind in shown for place in of_kind]))
        kinds: list[Kind] = []
        for rank, (group, of_kind) in enumerate(zip(groups[page], shown, strict=True), plan.offset + 1):
            best, *more = islice(results, len(of_kind))
            kinds.append(Kind(rank=rank, size=len(group), best=best, more=tuple(more)))
        return (), tuple(kinds), view

    def _results(self, ranking: _Ranking, plan: Plan, places: Iterable[int]) -> tuple[SearchResult, ...]:
        """The photos at these places of the ranking, counted from 0."""
        table, folded, shown = ranking.table, ranking.folded, list(places)
        chosen = folded.order[shown]
        support = _support(ranking.scores, plan.method)
        results: list[SearchResult] = []
        for place, n, photo in zip(shown, chosen.tolist(), self.gallery.entries(table.rows[chosen]), strict=True):
            copies = None if folded.copies is None else tuple(table.ids[folded.copies.get(n, NO_ROWS)].tolist())
            results.append(
                SearchResult(
                    id=photo.id,
                    rank=place + 1,
                    score=float(support[n]),
                    raw_score=float(ranking.scores[n]),
                    cluster=photo.cluster,
                    paths=photo.paths,
                    **addresses(photo.id, self._defaults.originals),
                    copies=copies,
                )
            )
        return tuple(results)


class Searcher(GallerySearcher):
    """Searches one generation of an index on this machine.

    Attributes:
        index: the generation. gallery: its photos.
    """

    index: Index
    gallery: IndexGallery

    def __init__(self, index: Index, matcher: Matcher, defaults: Defaults | None = None) -> None:
        """Opens the gallery; ``defaults`` as in ``GallerySearcher``."""
        super().__init__(IndexGallery(index, matcher), matcher, defaults)


def _highest(plan: Plan) -> np.float32:
    """The score of a photo that is the query: photos are liked where distances are compared."""
    return np.float32(0 if plan.method == "ret" else 1)


def _support(scores: Scores, method: ScoredBy) -> Scores:
    """(m,) in 0..1: the support of each score (``model.ranking.support``), as a share of that of the best."""
    if not len(scores):
        return scores
    raw = torch.from_numpy(scores)
    support = support_of(raw, raw.max(), method)
    shares: Scores = (support / support.max().clamp(min=torch.finfo(torch.float32).tiny)).numpy()
    return shares


def _clusters(table: Table, sizes: NDArray[np.int64], scores: Scores) -> tuple[Cluster, ...]:
    """The cells of the photos that were scored, best first, ties by number, with how many photos may be found there."""
    there = np.unique(table.cells[np.isfinite(table.scores)])
    order = there[best_first(there, scores[there])].tolist()
    return tuple(Cluster(id=cell, score=float(scores[cell]), size=int(sizes[cell])) for cell in order)
