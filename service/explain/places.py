"""Finds where photos show the things of a drawing, or what a photo shows, by the regions that the index keeps."""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from sketch_search.indexer import PhotoEntry
from sketch_search.model.engine import Tokens, logsumexp
from sketch_search.model.images import Drawing, hexadecimal
from sketch_search.model.pauses import Compute, compute_at_once
from sketch_search.model.search import Query, encode_things, name_things, place_things
from sketch_search.model.things import Thing
from sketch_search.model.words import UnknownWord
from sketch_search.service.errors import BadSearch
from sketch_search.service.schemas.explain import LocatedPhoto, LocateParams, LocateResponse, ShownThing
from sketch_search.service.search import Searcher

# A photo shows nothing of what a word names if the cosine of its best region and its score by the word are below these.
# Of 20 kinds of things with boxes in 1,000 ordinary photos, it says so of 0.05 of the photos that show the kind (people
# most), and of 0.76 of the others.
UNLIKE, UNLIKELY = 0.5, -2.0


def check_compared(sketch: Drawing | None, params: LocateParams) -> None:
    """Raises BadSearch unless there is one picture to compare photos with."""
    if sketch is None and params.like is None:
        raise BadSearch("Nothing to compare the photos with: send a sketch, or name a photo with like.")
    if sketch is not None and params.like is not None:
        raise BadSearch("Both a picture and a photo to compare with, in like, were sent: leave one of them out.")


def locate(
    searcher: Searcher, sketch: Drawing | None, params: LocateParams, compute: Compute = compute_at_once
) -> LocateResponse:
    """Finds where photos show each thing of a sketch; or a photo, sent or given by ``like``, which is one thing.

    It reads no photo, and encodes a drawing of one thing once. Arguments and errors are those of ``explain``.
    """
    start, gallery, settings = time.perf_counter(), searcher.gallery, searcher.settings
    check_compared(sketch, params)
    entries = [*{entry.id: entry for entry in gallery.photos(params.photo)}.values()]
    things, places, words = list[Thing](), 0.0, params.thing_text
    if not gallery.regions_kept or searcher.matcher.engine.projection is None:
        pass
    elif sketch is None:
        things = [Thing(Tokens.of_ret(gallery.vectors(gallery.rows_of_ids([params.like or 0]))))]
    elif params.kind == "photo":
        things = compute(lambda: encode_things(searcher.matcher, sketch, "photo", colours=False))
    else:
        drawing = compute(lambda: searcher.divide(sketch, params))
        words = words or drawing.words
        things = _things_of(searcher, drawing, params, compute)
        _, places = place_things(things, gallery.regions_kept, params.places, several=len(things) > 1)
    shown = [()] * len(entries) if not things else compute(lambda: _shown(searcher, things, places, entries))
    texts = (*words, params.text or "")
    unseen = [()] * len(entries) if not things else compute(lambda: _unseen(searcher, texts, entries))
    links = settings.photo_links
    return LocateResponse(
        things=tuple(map(searcher.seen, things)),
        region_grid=math.isqrt(gallery.regions_kept) if things else None,
        photos=[
            LocatedPhoto.of(entry, links, things=of_photo, unseen=lacking)
            for entry, of_photo, lacking in zip(entries, shown, unseen, strict=True)
        ],
        total_ms=round(1000 * (time.perf_counter() - start), 3),
        generation=gallery.generation,
        model=searcher.matcher.config.name,
    )


def locate_drawing(
    searcher: Searcher, sketch: Drawing | None, params: LocateParams, entries: Sequence[PhotoEntry], compute: Compute
) -> tuple[Sequence[Thing], Sequence[tuple[ShownThing, ...]]]:
    """Returns the things of the drawing that a search looks for in regions, and for each photo where it shows them."""
    nowhere = (), [()] * len(entries)
    if sketch is None or not searcher.gallery.regions_kept:
        return nowhere
    drawing = compute(lambda: searcher.divide(sketch, params))
    first, *others = drawing.things
    named = params.text is not None or params.thing_text or any(drawing.words)
    if not others and not named and params.places == "no" and not (params.colours == "auto" and first.colours):
        return nowhere
    things = _things_of(searcher, drawing, params, compute)
    placed, places = place_things(things, searcher.gallery.regions_kept, params.places, several=len(things) > 1)
    if not placed:
        return nowhere
    return things, compute(lambda: _shown(searcher, placed, places, entries))


def _things_of(searcher: Searcher, drawing: Drawing, params: LocateParams, compute: Compute) -> list[Thing]:
    matcher, coloured = searcher.matcher, params.colours == "auto"
    things = compute(lambda: encode_things(matcher, drawing, colours=coloured, expects=searcher.gallery.expects))
    return name_things(matcher, things, params.text, params.thing_text or drawing.words, coloured=coloured)[0]


def _shown(
    searcher: Searcher, things: Sequence[Thing], places: float, entries: Sequence[PhotoEntry]
) -> list[tuple[ShownThing, ...]]:
    """Finds where each photo shows each thing, how well, and in which colour."""
    gallery = searcher.gallery
    bare = [replace(thing, tokens=thing.tokens.without_patches) for thing in things]
    asked = Query("things", gallery.clusters.mean, things=tuple(bare), places=places, extents=True)
    matched = gallery.matched(asked, gallery.rows_of_ids([entry.id for entry in entries]))
    cosines = matched.cosines(searcher.matcher.thing_directions(bare))

    def of_photo(photo: int) -> tuple[ShownThing, ...]:
        return tuple(
            ShownThing(
                cell=int(matched.cells[number, photo]),
                cells=tuple(matched.extents[number, photo].nonzero()[0].tolist()),
                cosine=round(float(cosines[number, photo]), 3),
                colour=hexadecimal(colour := matched.colours[number, photo]),
                colour_distance=round(float(thing.colour_distance(colour)), 1) if len(thing.colours) else None,
            )
            for number, thing in enumerate(bare)
        )

    return [of_photo(photo) for photo in range(len(entries))]


def _unseen(searcher: Searcher, texts: Sequence[str], entries: Sequence[PhotoEntry]) -> list[tuple[str, ...]]:
    """Returns, for each photo, which of the things that these texts name it does not show, as far as that is known."""
    gallery, matcher = searcher.gallery, searcher.matcher
    named = dict[str, Thing]()
    for text in filter(str.strip, texts):
        with suppress(UnknownWord):
            kinds = matcher.book.read(text).things
            for words in kinds:
                name = text.strip() if len(kinds) == 1 else matcher.words[words[0]]
                named[name] = Thing(Tokens.of_ret(matcher.word_direction(words)[None]), words=tuple(words))
    if not named or not entries:
        return [()] * len(entries)
    things, rows = tuple(named.values()), gallery.rows_of_ids([entry.id for entry in entries])
    regions = gallery.matched(Query("things", gallery.clusters.mean, things=things), rows)
    ret = Tokens.of_ret(gallery.vectors(rows).astype(np.float32))
    scores = np.stack([logsumexp(matcher.word_scores(ret, thing.words).T) for thing in things])
    lacking = (regions.cosines(matcher.thing_directions(things)) < UNLIKE) & (scores < UNLIKELY)
    return [tuple(name for name, lacks in zip(named, of_photo, strict=True) if lacks) for of_photo in lacking.T]
