"""Answers queries: plans and encodes them, ranks photos by ``model.search``, and describes what was found."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sketch_search.indexer import PhotoFilter
from sketch_search.model import Matcher
from sketch_search.model.engine import Floats, Tokens, logsumexp
from sketch_search.model.images import Drawing, Stroke, hexadecimal
from sketch_search.model.matcher import LEAST_POSSIBLE
from sketch_search.model.ranking import SURELY, clearness, fits, shares_of
from sketch_search.model.search import (
    Candidates,
    Query,
    Ranking,
    Word,
    best_first,
    encode_things,
    name_things,
    place_things,
    rank,
    sketch_of,
    things_of_text,
)
from sketch_search.model.things import Thing
from sketch_search.model.words import Guess, UnknownWord
from sketch_search.service.clip_text import ReadText
from sketch_search.service.errors import BadSearch
from sketch_search.service.gallery import Gallery
from sketch_search.service.schemas.query import SearchQuery, TunedQuery, View
from sketch_search.service.schemas.search import (
    Cluster,
    DetectedBox,
    Group,
    SearchResponse,
    SearchResult,
    SeenThing,
    Unliked,
)
from sketch_search.service.search.plan import (
    GROUPED,
    SearchPlan,
    Sketch,
    Stopwatch,
    check_options,
    plan_search,
    quality_of,
)
from sketch_search.service.search.shown import group_alike, grouped_ranks, is_far_ahead
from sketch_search.service.settings import Settings

if TYPE_CHECKING:
    from sketch_search.service.schemas.explain import LocateParams

# The best photos that are checked for the guessed things: it takes about a millisecond.
GUESSED_OF = 50
# The probability of guesses from which it counts that no photo shows them.
PROBABLE = 0.5
# The cosine from which a region matches a thing well: of the regions in first photos, 0.84 of these showed it.
WELL = 0.75
# A box from here on shows a thing: the cubic root of its certainty times how probably it is of the thing's kind.
SEEN = 0.8
# Photos of a group that are shown beside its best one.
MORE = 4
NO_TEXT = ReadText()


@dataclass(frozen=True)
class _Encoded:
    """An encoded query.

    unliked: the ids of unwanted photos. guesses: what the sketch may show. perhaps: less probable words, if there is no
    guess. seen: the things of the drawing, if they are searched for separately.
    """

    query: Query
    unliked: tuple[int, ...] = ()
    guesses: tuple[Guess, ...] = ()
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

        sketch: the drawing of the query, if any; or a photo, which counts as liked, if that is its kind. text: the
        query's text, if CLIP has read it. prepare_ms: of the sketch, in milliseconds.

        Raises BadSearch, UnknownWord, UnknownPhoto, BlankSketch; NotReady if a score is not a number.
        """
        query = query.tuned
        if sketch is None and query.filters_alone:
            return self._newest(query)
        watch = Stopwatch(prepare_ms, text.milliseconds)
        drawing, ink = None, tuple[Stroke, ...]()
        if sketch is not None:
            whole = self.drawing_of(sketch, query)
            watch.lap("prepare")
            drawing = self.divide(whole, query)
            ink = () if whole.strokes else drawing.strokes
            watch.lap("encode")
        gallery, things = self.gallery, 0 if drawing is None else len(drawing.things)
        if drawing is not None and not query.thing_text and any(drawing.words):
            query = query.model_copy(update={"thing_text": drawing.words})
        if things == 1 and query.thing_text and query.text is None:
            # The word of the only thing says the kind.
            query = query.model_copy(update={"text": query.thing_text[0].strip() or None})
        plan = plan_search(
            query,
            self.matcher,
            self.settings,
            tokens_kept=gallery.tokens_kept,
            regions=gallery.regions_kept,
            things=things,
            of_index=gallery.system,
        )
        encoded = self._encode(drawing, query, text, plan, watch)
        plan = replace(plan, ranking=replace(plan.ranking, method=encoded.query.method))
        ranking = rank(gallery, self.matcher, encoded.query, plan.ranking, watch.lap)
        shown = ranking.photos
        unliked = sorted(zip(encoded.unliked, ranking.hidden, strict=True), key=lambda pair: pair[0])
        results, groups, view = self._page(shown, plan, encoded.query)
        watch.lap("photos")
        photos = int(ranking.sizes.sum())
        sketch_fits, seen = self._fits(encoded.guesses, shown, photos), encoded.seen
        if encoded.guesses and self._boxed(shown, 0):
            sketch_fits = True
        if len(seen) > 1:
            seen = self._seen_in(shown, seen, photos, encoded.query)
            every = {thing.fits for thing in seen}
            sketch_fits = every.pop() if len(every) == 1 else None
        word, word_fits, reading = encoded.query.word, None, None
        if isinstance(word, tuple) and shown.by_word is not None:
            of_text = best_first(shown.ids, shown.by_word, GUESSED_OF)
            word_fits = self._shows(word, shown[np.union1d(np.arange(min(len(shown), GUESSED_OF)), of_text)], photos)
            reading = self.matcher.book.read(query.text or "")
        return SearchResponse(
            results=results,
            groups=groups,
            view=view if query.view == "auto" else None,
            guesses=encoded.guesses,
            perhaps=encoded.perhaps,
            things=seen,
            ink=tuple(dot.points[0] for dot in ink),
            placed=encoded.query.places > 0,
            region_grid=math.isqrt(gallery.regions_kept) if encoded.query.things else None,
            clusters=self._opened(ranking),
            candidates=len(shown),
            photos=photos,
            unliked=tuple(Unliked(id=photo, **asdict(of)) for photo, of in unliked),
            hidden=ranking.left_out,
            pairs_scored=ranking.pairs,
            system=plan.system,
            quality=plan.quality,
            rerank=ranking.plan.rerank,
            diffused=plan.ranking.diffuse,
            words=None if word is None else "vocabulary" if text.vector is None else "clip",
            word_fits=word_fits,
            sketch_fits=sketch_fits,
            word_read=None if reading is None else reading.text,
            word_means=None if reading is None else reading.means,
            word_ignored=() if reading is None else reading.ignored,
            timings_ms=watch.timings(),
            complete=not self.gallery.missing,
            missing_shards=self.gallery.missing,
            method=plan.ranking.method,
            generation=self.gallery.generation,
            model=self.matcher.config.name,
            embedder=self.gallery.embedder.name,
        )

    def _newest(self, query: TunedQuery) -> SearchResponse:
        """Returns the photos that pass the filters of a query without other parts, newest first."""
        check_options(query, 0)
        watch, gallery, settings, links = Stopwatch(), self.gallery, self.settings, self.settings.photo_links
        k = settings.default_k if query.k is None else query.k
        rows, _ = gallery.newest(_filter_of(query), query.offset + k)
        photos = gallery.entries(rows[query.offset :])
        candidates = int(gallery.passing(_filter_of(query)).sum())
        watch.lap("photos")
        copies: tuple[int, ...] | None = () if query.fold else None
        results = tuple(
            SearchResult.of(photo, links, rank=rank, score=1.0, raw_score=0.0, cluster=photo.cluster, copies=copies)
            for rank, photo in enumerate(photos, query.offset + 1)
        )
        return SearchResponse(
            results=results,
            view="photos" if query.view == "auto" else None,
            clusters=(),
            candidates=candidates,
            photos=candidates,
            pairs_scored=0,
            quality=quality_of(query, settings),
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
                return preprocessing.drawing(sketch)
            sketch = preprocessing.pixels(sketch, query.kind)
        return Drawing.of(sketch)

    def divide(self, drawing: Drawing, query: "SearchQuery | LocateParams") -> Drawing:
        """Divides a drawing into its things, as ``Matcher.divide``, if the query and the gallery allow several."""
        return self.matcher.divide(drawing) if query.splits and self.gallery.regions_kept else drawing

    def _encode(
        self, drawing: Drawing | None, query: SearchQuery, text: ReadText, plan: SearchPlan, watch: Stopwatch
    ) -> _Encoded:
        gallery, word = self.gallery, self._word(query, text)
        liked, alone, kinds = (
            np.unique(gallery.rows_of_ids(ids)) for ids in (query.like, query.unlike, query.unlike_kind)
        )
        unliked = np.union1d(alone, kinds)
        entries = gallery.entries(np.concatenate([liked, unliked])) if len(liked) + len(unliked) else ()
        if len(both := np.intersect1d(liked, unliked)):
            photo = entries[int(np.flatnonzero(liked == both[0])[0])].id
            raise BadSearch(f"like and unlike name the same photo, {photo}: leave one of them out.")
        examples = [gallery.vectors(liked)] if len(liked) else []
        drawn, placed, places, method = None, tuple[Thing, ...](), 0.0, plan.ranking.method
        things, further = list[Thing](), list[Thing]()
        if drawing is not None:
            watch.lap("prepare")
            coloured = query.colours == "auto"
            things = encode_things(
                self.matcher, drawing, query.kind, plan.variants, colours=coloured, expects=gallery.expects
            )
            if query.kind == "sketch":
                things, further = name_things(self.matcher, things, query.text, query.thing_text, coloured=coloured)
                if not (gallery.regions_kept and plan.seeks_things and query.method == "auto"):
                    further = []
                elif further:
                    method = "things"
            watch.lap("encode")
            if query.kind == "photo":
                examples += [thing.tokens.ret for thing in things]
            else:
                drawn = sketch_of(self.matcher, things)
        if drawn is not None and plan.seeks_things:
            several = method == "things"
            # Who names a method for a single thing wants its scores and no others.
            named = query.places == "auto" and query.method != "auto" and not several
            wanted_at = "no" if named else query.places
            placed, places = place_things([*things, *further], gallery.regions_kept, wanted_at, several=several)
        elif drawing is None and query.text and query.colours == "auto" and plan.seeks_things and gallery.regions_kept:
            placed = things_of_text(self.matcher, query.text)
        wanted = _filter_of(query)
        encoded = _Encoded(
            Query(
                method=method,
                plain=plan.ranking.plain,
                mean=gallery.clusters.mean,
                wanted=None if wanted == PhotoFilter() else wanted,
                sketch=drawn,
                things=placed,
                places=places,
                word=word,
                liked=np.concatenate(examples) if examples else None,
                liked_ids=tuple(entry.id for entry in entries[: len(liked)]),
                unliked=gallery.vectors(unliked) if len(unliked) else None,
                unliked_rows=unliked,
                unliked_kinds=np.isin(unliked, kinds),
                homes=np.array([entry.cluster for entry in entries[: len(liked)]], np.int64),
            ),
            tuple(entry.id for entry in entries[len(liked) :]),
        )
        if drawn is None:
            return encoded
        of_things = [self.guesses(thing) for thing in things]
        perhaps: tuple[str, ...] = ()
        if len(things) == 1 and not of_things[0]:
            perhaps = tuple(one.word for one in self.matcher.guesses(things[0].tokens, LEAST_POSSIBLE))
        # Of several things, the best guess of each.
        best = {first.word: first for of_thing in of_things for first in of_thing[:1]}
        guesses = of_things[0] if len(things) == 1 else tuple(best.values())
        seen = map(self.seen, things) if placed or len(things) > 1 or things[0].strokes else ()
        return replace(encoded, guesses=guesses, perhaps=perhaps, seen=tuple(seen))

    def guesses(self, thing: Thing) -> tuple[Guess, ...]:
        return self.matcher.guesses(thing.tokens)

    def seen(self, thing: Thing) -> SeenThing:
        """Describes a thing for answers."""
        guess = next(iter(self.guesses(thing)), None)
        word = self.matcher.words[thing.words[0]] if thing.words else None
        colours = tuple(map(hexadecimal, thing.colours))
        own = thing.strokes, thing.second_half
        return SeenThing(box=thing.box, guess=guess, word=word, colours=colours, strokes=own[0], second_half=own[1])

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

    def _opened(self, ranking: Ranking) -> tuple[Cluster, ...]:
        """Describes the clusters of the scored photos, best first."""
        found, sizes, scores = ranking.found, ranking.sizes, ranking.clusters
        opened = np.unique(self.gallery.clusters.of(found.rows[found.scored]))
        numbers = opened[best_first(opened, scores[opened])].tolist()
        return tuple(Cluster(id=number, score=float(scores[number]), size=int(sizes[number])) for number in numbers)

    def _seen_in(
        self, ranking: Candidates, things: Sequence[SeenThing], photos: int, query: Query
    ) -> tuple[SeenThing, ...]:
        """Says of each of several things whether any photo most like it is likely to show its word or guess."""
        orders = [None] * len(things) if ranking.by_thing is None else ranking.by_thing.T
        described = []
        for number, (thing, scores) in enumerate(zip(things, orders, strict=True)):
            best = ranking if scores is None else ranking[best_first(ranking.ids, scores, GUESSED_OF)]
            if thing.word is not None:
                words = query.things[number].words if query.things else (self.matcher.words.index(thing.word),)
                described.append(thing.model_copy(update={"fits": self._shows([words], best[:GUESSED_OF], photos)}))
                continue
            fitting = self._fits([] if thing.guess is None else [thing.guess], best, photos)
            if thing.guess is not None and self._boxed(best, number):
                fitting = True
            elif fitting is False and best.matched is not None and len(best):
                cosines = best.matched.cosines(self.matcher.thing_directions(query.things))
                fitting = None if cosines[number].max() >= WELL else False
            described.append(thing.model_copy(update={"fits": fitting}))
        return tuple(described)

    def _boxed(self, ranking: Candidates, thing: int) -> bool:
        """Returns whether a box in the best of these photos surely shows a thing."""
        presence = None if ranking.matched is None else ranking.matched.presence
        return presence is not None and bool((presence[thing, :GUESSED_OF] >= SEEN).any())

    def clearness(self, things: Sequence[Sequence[int]], rows: NDArray[np.int64], photos: int = 1) -> Floats:
        """Computes how clearly photos show what words name, (t, p), see ``model.ranking.clearness``.

        things: the words of each. photos: of how many these are the best.
        """
        gallery, matcher = self.gallery, self.matcher
        ret = Tokens.of_ret(gallery.vectors(rows).astype(np.float32))
        scores = np.stack([logsumexp(matcher.word_scores(ret, words).T) for words in things])
        cosines, boxed = None, np.zeros(scores.shape, np.bool_)
        if gallery.regions_kept and matcher.engine.projection is not None:
            directions = (Tokens.of_ret(matcher.word_direction(words)[None]) for words in things)
            sought = tuple(Thing(one, words=tuple(words)) for one, words in zip(directions, things, strict=True))
            matched = gallery.matched(Query("things", gallery.clusters.mean, things=sought), rows)
            cosines, boxed = matched.cosines(matcher.thing_directions(sought)), matched.presence >= SEEN
        drawable = matcher.engine.vocabulary.drawn if matcher.engine.vocabulary is not None else ()
        drawn = np.array([np.isin(words, drawable).any() for words in things])
        clear = clearness(scores, cosines, drawn, photos)
        return np.where(boxed, np.maximum(clear, np.float32(SURELY)), clear)

    def _shows(self, things: Sequence[Sequence[int]], ranking: Candidates, photos: int) -> bool | None:
        """Returns whether any of these photos, of so many, shows each of these things; None if uncertain."""
        if not len(ranking):
            return False
        best = self.clearness(things, ranking.rows, photos).max(axis=1).min()
        return True if best >= SURELY else False if best < 0 else None

    def _fits(self, guesses: Sequence[Guess], ranking: Candidates, photos: int) -> bool | None:
        """Returns whether any of so many photos, the best first, is likely to show a guess; None if uncertain.

        Guesses that are more probably wrong than right do not tell that no photo is.
        """
        if not guesses:
            return None
        words = [self.matcher.words.index(guess.word) for guess in guesses]
        best = ranking.vectors[:GUESSED_OF].astype(np.float32)
        if not len(best):
            return False
        fitting = fits(float(self.matcher.word_scores(Tokens.of_ret(best), words).max()), photos * len(words))
        doubtful = sum(guess.probability for guess in guesses) < PROBABLE
        return None if fitting is False and doubtful else fitting

    # The page.

    def _page(
        self, ranking: Candidates, plan: SearchPlan, query: Query
    ) -> tuple[tuple[SearchResult, ...], tuple[Group, ...] | None, View]:
        """Returns the requested photos or groups, and which of the two."""
        page, asked = slice(plan.query.offset, plan.query.offset + plan.k), plan.query.view
        view: View = "photos"
        # Who draws several things looks for one photo.
        if asked == "groups" or (asked == "auto" and plan.ranking.method != "things"):
            # The view is chosen by the grouping that is shown.
            shown = ranking[ranking.results]
            grouped = grouped_ranks(shown.ids, shown.before, GROUPED)
            groups = group_alike(shown.vectors[grouped], self.gallery.clusters.mean)
            if asked != "auto" or not is_far_ahead(shown.scores[grouped], groups, plan.ranking.method):
                view = "groups"
        if view == "photos":
            return self._results(ranking, plan, query, range(len(ranking.results))[page]), None, view
        members = [np.sort(grouped[group]) for group in groups[page]]
        ranks = [ranks[: 1 + MORE].tolist() for ranks in members]
        # All at once, since each call may be a round of requests to other machines.
        results = iter(self._results(ranking, plan, query, [rank for of_group in ranks for rank in of_group]))
        groups_shown = list[Group]()
        for number, (group, of_group) in enumerate(zip(members, ranks, strict=True), plan.query.offset + 1):
            best, *more = islice(results, len(of_group))
            others = tuple(shown.ids[group[1 + MORE :]].tolist())
            groups_shown.append(Group(rank=number, size=len(group), best=best, more=tuple(more), others=others))
        return (), tuple(groups_shown), view

    def _results(
        self, ranking: Candidates, plan: SearchPlan, query: Query, ranks: Iterable[int]
    ) -> tuple[SearchResult, ...]:
        """Returns the results of these ranks, counted from 0."""
        shown = list(ranks)
        chosen = ranking.results[shown]
        # An empty ranking has no results.
        support = shares_of(ranking.scores, plan.ranking.method) if shown else ranking.scores
        entries = self.gallery.entries(ranking.rows[chosen])
        cells: list[tuple[int, ...] | None] = [None] * len(shown)
        boxes: list[tuple[DetectedBox | None, ...] | None] = [None] * len(shown)
        if ranking.matched is not None and shown:
            # Not those of things that only the text names.
            drawn = len(query.things) if query.sketch is None else len(query.sketch)
            cells = [*map(tuple, ranking.matched.cells[:drawn, chosen].T.tolist())]
            boxes = [tuple(map(DetectedBox.of, ranking.matched.boxes[:drawn, row])) for row in chosen]
        return tuple(
            SearchResult.of(
                photo,
                self.settings.photo_links,
                rank=rank + 1,
                score=float(support[n]),
                raw_score=float(ranking.scores[n]),
                cluster=photo.cluster,
                cells=cell,
                boxes=of_things,
                copies=ranking.copies(n),
            )
            for rank, n, photo, cell, of_things in zip(shown, chosen.tolist(), entries, cells, boxes, strict=True)
        )


def _filter_of(query: SearchQuery) -> PhotoFilter:
    return PhotoFilter(tuple(sorted(set(query.folder))), query.after, query.before)
