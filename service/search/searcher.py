"""Answers queries: encodes them, ranks photos by ``model.search``, and presents the ranking in pages and groups."""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sketch_search.indexer import PhotoFilter
from sketch_search.model import Matcher
from sketch_search.model.engine import Floats, Method, Tokens, sigmoid
from sketch_search.model.errors import ModelError
from sketch_search.model.images import Drawing, Stroke, hexadecimal
from sketch_search.model.matcher import LEAST_POSSIBLE, LEAST_PROBABLE
from sketch_search.model.ranking import SHORTLIST, falling, groups_of, shares_of, support_of
from sketch_search.model.search import (
    Candidates,
    Ids,
    Plan,
    Query,
    Ranking,
    Scores,
    Word,
    best_first,
    encode_things,
    interleave,
    query_of,
    rank,
)
from sketch_search.model.search.terms import DENIED, asked_of, is_shown, odds_shown
from sketch_search.model.things import Thing
from sketch_search.model.words import UnknownWord
from sketch_search.service.errors import BadSearch
from sketch_search.service.schemas.query import SearchQuery, TunedQuery, View
from sketch_search.service.schemas.search import (
    Cluster,
    DetectedBox,
    ResultGroup,
    SearchResponse,
    SearchResult,
    SeenThing,
)
from sketch_search.service.search.plan import GROUPED, ReadText, Stopwatch, check_options, plan_search
from sketch_search.service.settings import Settings

if TYPE_CHECKING:
    from sketch_search.service.schemas.explain import LocateParams
    from sketch_search.service.sharding import IndexedGallery


# Groups in the order of their first photos: each has the indices of its photos among the grouped ones, ascending.
Groups: TypeAlias = tuple[NDArray[np.int64], ...]

# The share of the support of all grouped photos that puts a group far ahead. From here on, the first group is in most
# cases the one that was drawn.
FAR_AHEAD = 0.3


def grouped_ranks(ids: Ids, undiffused: Scores | None, count: int) -> NDArray[np.int64]:
    """Chooses the photos to group: (m,) ranks from 0, of the ranking and that before diffusion, (p,) or None, by turns.

    Diffusion moves small groups back.
    """
    ranking = np.arange(min(len(ids), count))
    if undiffused is None:
        return ranking
    return interleave([best_first(ids, undiffused, count)[: len(ranking)], ranking])[:count]


def is_far_ahead(scores: Scores, groups: Groups, method: Method) -> bool:
    """Returns True if the best photo's group has FAR_AHEAD of the support of all grouped photos, scores (m,)."""
    if not len(scores):
        return False
    best = int(scores.argmax())
    support = support_of(scores, float(scores[best]), method)
    leading = next(group for group in groups if best in group)
    return bool(support[leading].sum() >= FAR_AHEAD * support.sum())


def group_alike(vectors: NDArray[np.floating], mean: Floats) -> Groups:
    """Groups photos (m, d) around a mean (d,): ascending indices, in the order of the groups' first photos."""
    numbers = groups_of(vectors, mean)
    # A stable sort keeps the photos of a group in their order.
    by_group = np.argsort(numbers, kind="stable")
    sizes = np.bincount(numbers)
    return tuple(np.split(by_group, np.cumsum(sizes)[:-1])) if len(numbers) else ()


class Place(NamedTuple):
    """Where the results of a search continue; ``SearchQuery.next`` is one, as text.

    A search chooses candidates, and ranks them. With more candidates the ranking is another one: photos would move to
    places that have been shown already, and never be seen. So one ranking is read to its end, then one of twice as many
    candidates from its beginning. Most of its first half has been shown: pages of that are as long as permitted.

    rerank: of the ranking; 0 for the query's. offset: how many of its results are on earlier pages. left: how many of
    its photos are on no earlier page; 0 if unknown. shown: the results up to this one have mostly been shown.
    """

    rerank: int
    offset: int
    left: int = 0
    shown: int = 0


def continue_page(options: SearchQuery, settings: Settings) -> tuple[TunedQuery, Place]:
    """Returns the query for the page that ``query.next`` names, or else for its own, and the place of that page."""
    tuned = options.tuned
    place = Place(tuned.rerank or 0, options.offset)
    if options.next is not None:
        place = Place(*map(int, options.next.split(".")))
    k = settings.max_k if place.offset < place.shown else options.k or settings.default_k
    page = {"k": min(k, place.left or k), "offset": place.offset, "rerank": place.rerank or None, "next": None}
    return tuned.model_copy(update=page), place


def _take_words(options: TunedQuery, drawing: Drawing | None) -> TunedQuery:
    """Returns the query with the words that a drawing has itself; that of its only thing says the kind."""
    if drawing is not None and not options.thing_text and any(drawing.words):
        options = options.model_copy(update={"thing_text": drawing.words})
    if drawing is not None and len(drawing.things) == 1 and options.thing_text and options.text is None:
        options = options.model_copy(update={"text": options.thing_text[0].strip() or None})
    return options


def next_place(options: SearchQuery, place: Place, answer: SearchResponse) -> str | None:
    """Returns the place after a page, as text; None if there are no further results."""
    shown = answer.results if answer.groups is None else answer.groups
    following = place._replace(offset=place.offset + len(shown))
    if answer.groups is not None:
        ended = options.k is None or len(shown) < options.k
    else:
        copies = sum(len(result.copies or ()) for result in answer.results)
        left = (place.left or answer.candidates - place.offset) - len(shown) - copies
        following = following._replace(rerank=answer.rerank or 0, left=left)
        ended = not shown or left <= 0
        # If fewer photos were ranked than wanted, there are no others.
        if ended and shown and answer.rerank is not None and answer.candidates >= answer.rerank:
            following, ended = Place(2 * answer.candidates, 0, shown=answer.candidates), False
    return None if ended else ".".join(map(str, following))


# Photos of a group that are shown beside its best one.
MORE = 4
# What a person may choose from for a thing: the best guess and the next three, however improbable.
MOST_OFFERED, LEAST_OFFERED = 4, 1e-6
NO_TEXT = ReadText()


def result_scores(ranked: Candidates, query: Query, method: Method) -> Floats:
    """Returns how probably each photo of a ranking shows all that is asked for, (m,), never rising; a liked one surely.

    Of a checkpoint without weights for that, or a query that they are not for, it is the share of the best support.
    """
    if ranked.shown is None:
        return shares_of(ranked.scores, method) if len(ranked) else ranked.scores
    probable = sigmoid(ranked.shown).prod(axis=1)
    return falling(np.where(np.isin(ranked.ids, query.liked_ids), 1.0, probable)).astype(np.float32)


class Searcher:
    """Searches a gallery with the checkpoint that made its tokens."""

    def __init__(self, gallery: "IndexedGallery", matcher: Matcher, settings: Settings | None = None) -> None:
        self.matcher, self.gallery = matcher, gallery
        self.settings = settings or Settings.model_construct()

    def search(self, sketch: Drawing | None, options: SearchQuery, text: ReadText = NO_TEXT) -> SearchResponse:
        """Finds the photos that best match the sketch, the liked photos and the word.

        sketch: the drawing of the query, if any; or a photo as its only thing, which counts as liked, if that is its
        kind. text: the query's text, if CLIP has read it.

        Raises BadSearch, UnknownWord, UnknownPhoto; GalleryUnusable if a score is not a number.
        """
        options, gallery, drawing, ink = options.tuned, self.gallery, None, tuple[Stroke, ...]()
        if sketch is None and options.filters_alone:
            return self._list_newest(options)
        watch = Stopwatch(0.0 if sketch is None else sketch.prepare_ms, text.milliseconds)
        if sketch is not None:
            drawing = self.divide(sketch, options)
            ink = () if sketch.strokes else drawing.strokes
            watch.lap("encode")
        options, things = _take_words(options, drawing), 0 if drawing is None else len(drawing.things)
        kept = {"tokens_kept": gallery.tokens_kept, "regions": gallery.regions_kept}
        options, plan = plan_search(
            options, self.matcher, self.settings, **kept, things=things, of_index=gallery.system
        )
        drawn, query, (chosen, instead) = self._encode(drawing, options, text, plan, watch)
        plan = replace(plan, method=query.method, judged=SHORTLIST if options.min_score else plan.judged)
        ranking = rank(gallery, self.matcher, query, plan, watch.lap)
        shown = ranking.photos
        if options.min_score:
            shown = shown[result_scores(shown, query, plan.method) >= options.min_score]
        results, groups, view = self._take_page(shown, options, plan, query)
        watch.lap("photos")
        return self._answer(
            options,
            watch,
            results=results,
            groups=groups,
            view=view if options.view == "auto" else None,
            **self._say_what_is_drawn(drawn, ranking),
            **self._say_what_is_named(options, ranking, chosen, drawn=bool(drawn)),
            ink=tuple(dot.points[0] for dot in ink),
            left_out=() if drawing is None else drawing.left_out,
            page=None if drawing is None else drawing.page or None,
            placed=query.places > 0,
            region_grid=math.isqrt(gallery.regions_kept) if query.things else None,
            clusters=self._list_opened(ranking),
            candidates=len(shown),
            photos=int(ranking.sizes.sum()),
            unliked=tuple(sorted(ranking.unliked, key=lambda photo: photo.id)),
            hidden=ranking.hidden_count,
            pairs_scored=ranking.pairs,
            rerank=ranking.plan.rerank,
            diffused=plan.diffuse,
            words=None if query.word is None else "vocabulary" if text.vector is None else "clip",
            word_instead=instead,
            method=plan.method,
        )

    def _say_what_is_drawn(self, drawn: Sequence[Thing], ranking: Ranking) -> dict[str, Any]:
        """Returns the fields of an answer on what was drawn, and whether a photo shows it."""
        query, odds = ranking.query, ranking.photos.shown
        guesses, perhaps = [self.matcher.guesses(thing.tokens) for thing in drawn], tuple[str, ...]()
        if len(drawn) == 1 and not guesses[0]:
            perhaps = tuple(guess.word for guess in self.matcher.guesses(drawn[0].tokens, LEAST_POSSIBLE))
        # Of several things, the best guess of each.
        best = {first.word: first for of_thing in guesses for first in of_thing[:1]}
        guessed = guesses[0] if len(drawn) == 1 else tuple(best.values())
        tells_things = query.things or len(drawn) > 1 or (drawn and drawn[0].strokes)
        seen = tuple(map(self.describe_thing, drawn)) if tells_things else ()
        fits = [None if odds is None else is_shown(odds[:, row]) for row in range(len(drawn))]
        if len(seen) > 1:
            seen = tuple(thing.model_copy(update={"fits": of}) for thing, of in zip(seen, fits, strict=True))
        whole = fits[0] if len({*fits}) == 1 else None
        return {"guesses": guessed, "perhaps": perhaps, "things": seen, "sketch_fits": whole}

    def _say_what_is_named(self, options: TunedQuery, ranking: Ranking, chosen: str, *, drawn: bool) -> dict[str, Any]:
        """Returns the fields of an answer on its words, of which the text is read as ``chosen``."""
        book, fits, reading, means = self.matcher.book, None, None, None
        query, shown = ranking.query, ranking.photos
        if isinstance(query.word, tuple) and shown.by_word is not None:
            if shown.shown is not None:
                asked = asked_of(query, self.matcher, drawn=drawn)
                each = {is_shown(shown.shown[:, row]) for row, thing in enumerate(asked) if thing.words in query.word}
                fits = False if False in each else None if None in each else True
            reading = book.read(options.text or "")
            means = book.read(chosen).means or (None if chosen == options.text else chosen)
        names = (name for name in options.thing_text if name.strip())
        ignored = [part for read in (*filter(None, [reading]), *map(book.read, names)) for part in read.ignored]
        read = None if reading is None else reading.text
        return {
            "word_fits": fits,
            "word_read": read,
            "word_means": means,
            "word_ignored": tuple(dict.fromkeys(ignored)),
        }

    def _list_newest(self, options: TunedQuery) -> SearchResponse:
        """Returns the photos that pass the filters of a query without other parts, newest first."""
        check_options(options, 0)
        watch, gallery, settings = Stopwatch(), self.gallery, self.settings
        rows, _, count = gallery.newest(_filter_of(options), options.offset + (options.k or settings.default_k))
        photos = gallery.entries(rows[options.offset :])
        watch.lap("photos")
        of_all = {"score": 1.0, "raw_score": 0.0, "copies": () if options.fold else None}
        results = tuple(
            SearchResult.of(photo, settings, rank=rank, cluster=photo.cluster, **of_all)
            for rank, photo in enumerate(photos, options.offset + 1)
        )
        view = "photos" if options.view == "auto" else None
        scored = {"clusters": (), "pairs_scored": 0, "rerank": None, "diffused": False, "method": "date"}
        return self._answer(options, watch, results=results, view=view, candidates=count, photos=count, **scored)

    def _answer(self, options: TunedQuery, watch: Stopwatch, **fields: Any) -> SearchResponse:
        return SearchResponse(
            **fields,
            system=options.system or "default",
            quality=self.settings.quality if options.quality is None or options.quality == "draft" else options.quality,
            timings_ms=watch.timings(),
            complete=not self.gallery.missing,
            missing_shards=self.gallery.missing,
            generation=self.gallery.generation,
            model=self.matcher.config.name,
            embedder=self.gallery.embedder.name,
        )

    def divide(self, drawing: Drawing, options: "SearchQuery | LocateParams") -> Drawing:
        """Divides a drawing into its things, as ``Matcher.divide``, if the query and the gallery allow several."""
        return self.matcher.divide(drawing) if options.splits and self.gallery.regions_kept else drawing

    def _encode(
        self, drawing: Drawing | None, options: TunedQuery, text: ReadText, plan: Plan, watch: Stopwatch
    ) -> tuple[list[Thing], Query, tuple[str, tuple[str, ...]]]:
        """Encodes a completed query: the named things of its drawing, the query of the gallery, and ``book.choose``."""
        gallery, word = self.gallery, self._read_word(options, text)
        liked, alone, kinds = (
            np.unique(gallery.rows_of_ids(ids)) for ids in (options.like, options.unlike, options.unlike_kind)
        )
        unliked = np.union1d(alone, kinds)
        entries = gallery.entries(np.concatenate([liked, unliked])) if len(liked) + len(unliked) else ()
        if len(both := np.intersect1d(liked, unliked)):
            photo = entries[int(np.flatnonzero(liked == both[0])[0])].id
            raise BadSearch(f"like and unlike name the same photo, {photo}: leave one of them out.")
        examples = [gallery.vectors(liked)] if len(liked) else []
        things, others, coloured = list[Thing](), list[tuple[float, list[Thing]]](), options.colours == "auto"
        if drawing is not None:
            watch.lap("prepare")
            encode = partial(
                encode_things, self.matcher, variants=options.variants, colours=coloured, expects=gallery.expects
            )
            things = encode(drawing, options.kind)
            if plan.diffuse and not options.thing_text:
                others = [(probability, encode(other)) for probability, other in drawing.readings]
            watch.lap("encode")
        instead = tuple[str, ...]()
        if text.vector is None:
            said, names, instead = self.choose_meanings(things, options.text, options.thing_text)
            options = options.model_copy(update={"text": said, "thing_text": names})
            word = self._read_word(options, text)
        if options.kind == "photo":
            examples += [thing.tokens.ret for thing in things]
        # If a method is named, its scores count alone. Beside writing, a drawing stands where there was room.
        beside = drawing is not None and len(drawing.things) == 1 and len(drawing.left_out) > 0
        unplaced = options.places == "auto" and (options.method != "auto" or beside)
        things, query = query_of(
            gallery,
            self.matcher,
            things if options.kind == "sketch" else [],
            plan.method,
            text=options.text if options.kind == "sketch" or drawing is None else None,
            thing_text=options.thing_text,
            places="no" if unplaced else options.places,
            coloured=coloured,
            by_regions=options.system == "default" and options.quality != "fast",
            further=options.method == "auto",
            others=others,
        )
        photo_filter, liked_entries = _filter_of(options), entries[: len(liked)]
        query = replace(
            query,
            plain=plan.plain,
            photo_filter=None if photo_filter == PhotoFilter() else photo_filter,
            word=word,
            liked=np.concatenate(examples) if examples else None,
            liked_ids=tuple(entry.id for entry in liked_entries),
            homes=np.array([entry.cluster for entry in liked_entries], np.int64),
            unliked=gallery.vectors(unliked) if len(unliked) else None,
            unliked_ids=tuple(entry.id for entry in entries[len(liked) :]),
            unliked_rows=unliked,
            unliked_kinds=np.isin(unliked, kinds),
        )
        return things, query, (options.text or "", instead)

    def choose_meanings(
        self, things: Sequence[Thing], text: str | None, names: Sequence[str]
    ) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
        """Puts what is meant in place of words with several meanings, in a text and in names of things.

        Returns both, and texts with other meanings, as ``WordBook.choose``. Unknown words stay as they are.
        """
        book, vocabulary, drawn = self.matcher.book, self.matcher.engine.vocabulary, None
        if (text or names) and things and vocabulary is not None:
            drawn = vocabulary.guess(Tokens.cat([thing.tokens for thing in things]))
        chosen, instead = list(names), tuple[str, ...]()
        for number, name in enumerate(names):
            with suppress(ModelError):
                chosen[number], _ = book.choose(name, None if drawn is None else drawn[[number]], together=False)
        with suppress(ModelError):
            text, instead = (text, ()) if text is None else book.choose(text, drawn)
        return text, tuple(chosen), instead

    def describe_thing(self, thing: Thing) -> SeenThing:
        guesses = self.matcher.guesses(thing.tokens, LEAST_OFFERED, MOST_OFFERED)
        return SeenThing(
            box=thing.box,
            guess=next((guess for guess in guesses if guess.probability >= LEAST_PROBABLE), None),
            guesses=guesses,
            word=self.matcher.book.called(thing.words, thing.name) if thing.words else None,
            colours=tuple(map(hexadecimal, thing.colours)),
            strokes=thing.strokes,
            second_half=thing.second_half,
        )

    def _read_word(self, options: SearchQuery, text: ReadText) -> Word | None:
        """Returns the query's word, by CLIP if possible, else of the vocabulary. Raises BadSearch and UnknownWord."""
        if options.text is None or text.vector is not None:
            return text.vector
        if not self.matcher.words:
            why = "" if text.refusal is None else f", and CLIP cannot read other words: {text.refusal.rstrip('.')}"
            raise BadSearch(f"This checkpoint has no vocabulary{why}: leave text out.")
        try:
            return self.matcher.book.read(options.text).things
        except UnknownWord as unknown:
            if text.refusal is None:
                raise
            reason = f"CLIP cannot read other words: {text.refusal}"
            raise UnknownWord(options.text.strip(), self.matcher.words, unknown.nearest, reason) from unknown

    def _list_opened(self, ranking: Ranking) -> tuple[Cluster, ...]:
        candidates, sizes, scores = ranking.candidates, ranking.sizes, ranking.clusters
        opened = np.unique(self.gallery.clusters.of(candidates.rows[candidates.scored]))
        numbers = opened[best_first(opened, scores[opened])].tolist()
        return tuple(Cluster(id=number, score=float(scores[number]), size=int(sizes[number])) for number in numbers)

    def lacks(self, things: Sequence[Sequence[int]], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns whether photos most likely do not show what words name, (t, p). things: the words of each."""
        gallery, matcher, ids = self.gallery, self.matcher, np.arange(len(rows))
        words, vectors = tuple(map(tuple, things)), gallery.vectors(rows).astype(np.float16)
        tokens = (Tokens.of_ret(matcher.word_direction(of)[None]) for of in words)
        named = tuple(Thing(ret, words=of) for ret, of in zip(tokens, words, strict=True))
        query = Query("ret", gallery.clusters.mean, things=named if gallery.regions_kept else (), word=words)
        matched, none = gallery.matched(query, rows) if query.things else None, np.zeros(len(rows), np.float32)
        photos = Candidates(rows=rows, ids=ids, by_vector=none, vectors=vectors, scores=none, matched=matched)
        odds = odds_shown(photos, matcher, query, len(rows), drawn=False)
        return np.zeros((len(words), len(rows)), np.bool_) if odds is None else sigmoid(odds.T) < DENIED

    def _take_page(
        self, ranked: Candidates, options: TunedQuery, plan: Plan, query: Query
    ) -> tuple[tuple[SearchResult, ...], tuple[ResultGroup, ...] | None, View]:
        """Returns the requested photos or groups, and which of the two."""
        page, view = slice(options.offset, options.offset + (options.k or 0)), "photos"
        # A drawing of several things is a search for one photo.
        if options.view == "groups" or (options.view == "auto" and plan.method != "things"):
            # The view is chosen by the grouping that is shown.
            shown = ranked[ranked.results]
            grouped = grouped_ranks(shown.ids, shown.before, GROUPED)
            groups = group_alike(shown.vectors[grouped], self.gallery.clusters.mean)
            if options.view == "groups" or not is_far_ahead(shown.scores[grouped], groups, plan.method):
                view = "groups"
        if view == "photos":
            return self._describe(ranked, plan, query, range(len(ranked.results))[page]), None, "photos"
        members = [np.sort(grouped[group]) for group in groups[page]]
        ranks = [ranks[: 1 + MORE].tolist() for ranks in members]
        # All at once, since each call may be a round of requests to other machines.
        results = iter(self._describe(ranked, plan, query, [rank for of_group in ranks for rank in of_group]))
        groups_shown = list[ResultGroup]()
        for number, (group, of_group) in enumerate(zip(members, ranks, strict=True), options.offset + 1):
            best, *more = islice(results, len(of_group))
            others = tuple(shown.ids[group[1 + MORE :]].tolist())
            groups_shown.append(ResultGroup(rank=number, size=len(group), best=best, more=tuple(more), others=others))
        return (), tuple(groups_shown), "groups"

    def _describe(self, ranked: Candidates, plan: Plan, query: Query, ranks: Iterable[int]) -> tuple[SearchResult, ...]:
        """Returns the results of these ranks, counted from 0."""
        shown = list(ranks)
        chosen = ranked.results[shown]
        scores = result_scores(ranked, query, plan.method)
        entries = self.gallery.entries(ranked.rows[chosen])
        cells: list[tuple[int, ...] | None] = [None] * len(shown)
        boxes: list[tuple[DetectedBox | None, ...] | None] = [None] * len(shown)
        if ranked.matched is not None and shown:
            # Not those of things that only the text names.
            drawn = len(query.things) if query.sketch is None else len(query.sketch)
            cells = [*map(tuple, ranked.matched.cells[:drawn, chosen].T.tolist())]
            boxes = [tuple(map(DetectedBox.of, ranked.matched.boxes[:drawn, row])) for row in chosen]
            # Where things are in a part is not where they are in the photo.
            for n in np.flatnonzero(self.gallery.clusters.are_parts(ranked.rows[chosen])).tolist():
                cells[n] = boxes[n] = None
        return tuple(
            SearchResult.of(
                photo,
                self.settings,
                rank=rank + 1,
                score=float(scores[n]),
                raw_score=float(ranked.scores[n]),
                cluster=photo.cluster,
                cells=cell,
                boxes=of_things,
                copies=ranked.copies(n),
            )
            for rank, n, photo, cell, of_things in zip(shown, chosen.tolist(), entries, cells, boxes, strict=True)
        )


def _filter_of(options: SearchQuery) -> PhotoFilter:
    return PhotoFilter(tuple(sorted(set(options.folder))), options.after, options.before)
