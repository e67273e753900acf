"""Makes the query of a drawing, and searches by it as a search does by default."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np

from sketch_search.model.engine import Floats, Method, Modality, Tokens
from sketch_search.model.images import Drawing, lab
from sketch_search.model.limits import Places, pause
from sketch_search.model.matcher import Matcher
from sketch_search.model.search.candidates import Candidates, Gallery, Query
from sketch_search.model.search.stages import Plan, Ranking, rank
from sketch_search.model.things import PLACES, Thing
from sketch_search.model.words import UnknownWord, colours

#: A word less probable than this for each thing names a further one; but the only one if that is guessed below SURE.
LEAST_FIT, SURE = 0.003, 0.1
# Of several things, such a word names the one for which it is most probable of those whose best guess is less probable
# than SURE_BESIDE, and that are no line of FLAT sides, such as a horizon; else a further thing.
SURE_BESIDE, FLAT = 0.2, 0.12
#: The share of the paper up to which the place of a single thing does not count.
LEAST_PLACED = 0.01
#: How probably a text means something else than what is drawn, such as what is too small to be seen; and how probable
#: any one word is then. Readings less probable than LEAST_READ are not ranked. `training evaluate --split val` measures
#: all three, by `--protocol everyday --words` and `--protocol scenes`.
MISTAKEN, ELSEWHERE, LEAST_READ = 0.4, 0.01, 0.1


def methods_of(matcher: Matcher, tokens_kept: int) -> tuple[Method, ...]:
    """Returns the methods that can score photos: without tokens, only vectors. tokens_kept: of each photo."""
    return matcher.methods if tokens_kept > 1 else tuple(method for method in matcher.methods if method == "ret")


def plan_by_default(
    matcher: Matcher,
    results: int,
    things: int,
    *,
    tokens_kept: int,
    regions: int,
    by_vector: bool = False,
    method: Method | None = None,
) -> Plan:
    """Plans the search for a drawing of so many things, 0 without one, as it is if a query sets nothing else.

    tokens_kept, regions: of each photo in the gallery, [Ret] included. by_vector: whether [Ret] alone ranks photos.
    method: the one that a query names: its scores are not diffused.
    """
    usual: Method = "ret" if by_vector or tokens_kept == 1 or not things else matcher.best_method
    if things > 1 and regions and not by_vector:
        usual = "things"
    by_whole = things > 1 and usual != "things"
    diffuse = matcher.calibration.diffusion is not None and method is None and not by_whole
    return Plan(method or usual, results, diffuse=diffuse)


def encode_things(
    matcher: Matcher,
    drawing: Drawing,
    modality: Modality = "sketch",
    variants: int | None = 1,
    *,
    colours: bool = True,
    expects: Floats | None = None,
) -> list[Thing]:
    """Encodes each thing of a drawing, with its colours if these count.

    variants: of each; None for the matcher's number, but 1 of several things, each of which takes one encoding.
    expects: of the gallery that is searched (``Gallery.expects``). It only counts for several things: a single one of a
    kind that nobody taught would be taken for another one, and has no other things to find its photo by.
    """
    things, drawing_ret = list[Thing](), None
    if len(drawing.things) == 1:
        expects = None
    else:
        variants = variants or 1
        # It is still kept from when the picture was divided.
        drawing_ret = matcher.encode(matcher.preprocessing.normalise(drawing.whole)[None], modality, 1).ret[0]
    for drawn in drawing.things:
        pause()
        tokens = matcher.encode(matcher.preprocessing.normalise(drawn.pixels)[None], modality, variants)
        shares = np.array(drawn.colours if colours else (), np.float32).reshape(-1, 4)
        strokes = drawn.strokes, drawn.second_half
        things.append(
            Thing(tokens.expecting(expects), drawn.box, shares[:, :3], shares[:, 3], (), *strokes, drawing_ret)
        )
    return things


def name_things(
    matcher: Matcher, things: Sequence[Thing], text: str | None, thing_text: Sequence[str] = (), *, coloured: bool
) -> tuple[list[Thing], list[Thing]]:
    """Gives things their own words, and those of a text to the other things, each to the one that it fits best.

    thing_text: words of the first things; empty for a thing without. coloured: whether words say colours, too.

    Returns the named things, and further ones: those that the text names and that are not drawn, which may be anywhere
    in a photo. Words that nobody draws, such as "snow", name neither unless a colour is with them.

    Raises UnknownWord for a word of a thing; a text that only CLIP knows names nothing.
    """
    named, further = list(things), list[Thing]()

    def name(thing: Thing, words: Iterable[int], colours: Sequence[str], called: str) -> Thing:
        return _coloured(replace(thing, words=tuple(words), name=called), colours if coloured else ())

    for number, words_of_thing in enumerate(thing_text):
        if words_of_thing.strip():
            reading = matcher.book.read(words_of_thing)
            words = dict.fromkeys(chain.from_iterable(reading.things))
            named[number] = name(named[number], words, reading.colours[0], reading.names[0])
    vocabulary = matcher.engine.vocabulary
    if text is None or vocabulary is None or not named:
        return named, further
    with suppress(UnknownWord):
        each = matcher.book.read(text).each(len(named))
        shown = vocabulary.guess(Tokens.cat([thing.tokens.without_patches for thing in named]))
        fits = np.stack([shown[:, list(words)].sum(axis=1) for words, *_ in each], axis=1)
        sure, known = shown.max(axis=1), [number for number, thing in enumerate(named) if thing.words]
        for number in known:
            fits[number], sure[number] = [set(words) <= set(named[number].words) for words, *_ in each], 1
        drawable = np.array([np.isin(words, vocabulary.drawn).any() for words, *_ in each])
        drawable |= [coloured and len(colours) > 0 for _, colours, _ in each]
        beside = drawable & (fits.max(axis=0) < LEAST_FIT)
        if len(named) == 1 and sure[0] < SURE and beside.all():
            # The word may say what the drawing shows, which nobody could guess.
            beside[:] = False
        elif len(named) > 1:
            for column in np.flatnonzero(beside):
                unsure = [row for row in np.flatnonzero(sure < SURE_BESIDE) if named[row].flatness > FLAT]
                if unsure:
                    taker = max(unsure, key=lambda row: fits[row, column])
                    fits[taker, column], sure[taker], beside[column] = 1, 1, False
        anywhere = Thing(named[0].tokens, drawing_ret=named[0].drawing_ret)
        for column in np.flatnonzero(beside):
            further.append(name(anywhere, *each[column]))
        left = drawable & ~beside & ~(fits[known] == 1).any(axis=0)
        fits[:, ~left] = fits[known] = -1
        for _ in range(left.sum() if left.sum() <= len(named) - len(known) else 0):
            row, column = np.unravel_index(int(fits.argmax()), fits.shape)
            named[row] = name(named[row], *each[column])
            fits[row], fits[:, column] = -1, -1
    return named, further


def sketch_of(matcher: Matcher, things: Sequence[Thing]) -> Tokens:
    """Joins the tokens of a drawing's things. What the words of a single one name is no longer guessed, but known."""
    tokens, vocabulary = Tokens.cat([thing.tokens for thing in things]), matcher.engine.vocabulary
    if len(things) == 1 and things[0].words and vocabulary is not None and len(vocabulary.drawn):
        return tokens.expecting(np.isin(vocabulary.drawn, things[0].words))
    return tokens


def things_of_text(matcher: Matcher, text: str) -> tuple[Thing, ...]:
    """Returns the things of a text, with the colours that it gives them; none if only CLIP knows it."""
    with suppress(UnknownWord):
        each = matcher.book.read(text).each()
        things = [Thing(Tokens.of_ret(matcher.word_direction(words)[None]), words=words) for words, *_ in each]
        return tuple(_coloured(thing, colours) for thing, (_, colours, _) in zip(things, each, strict=True))
    return ()


def _coloured(thing: Thing, names: Sequence[str]) -> Thing:
    if not names:
        return thing
    shown = lab(np.array([colours()[name] for name in names]) / 255).astype(np.float32)
    return replace(thing, colours=shown, shares=np.full(len(shown), 1 / len(shown), np.float32))


def place_things(
    things: Sequence[Thing], regions: int, places: Places = "auto", *, several: bool
) -> tuple[tuple[Thing, ...], float]:
    """Returns the things to find in regions of photos, none if regions do not count, and the weight of places.

    several: whether the query has several things; a single one is included if its place or its colours count.
    """
    if places == "auto" and len(things) == 1 and things[0].side ** 2 <= LEAST_PLACED:
        # A small drawing on the page of a program: where it stands there says little about the photo.
        places = "no"
    apart = several or (len(things) == 1 and (places != "no" or len(things[0].colours) > 0))
    if not apart or not regions:
        return (), 0.0
    return tuple(
        replace(thing, tokens=thing.tokens.without_patches) for thing in things
    ), 0.0 if places == "no" else PLACES


def query_of(
    gallery: Gallery,
    matcher: Matcher,
    things: Sequence[Thing],
    method: Method,
    *,
    text: str | None = None,
    thing_text: Sequence[str] = (),
    places: Places = "auto",
    coloured: bool = True,
    by_regions: bool = True,
    further: bool = True,
    others: Sequence[tuple[float, Sequence[Thing]]] = (),
) -> tuple[list[Thing], Query]:
    """Makes the query of the encoded things of a drawing, or without one of a text; returns the named things, too.

    method: "things" for several things, if their regions are compared. text, thing_text, coloured: as for
    ``name_things``. by_regions: whether regions may be compared. further: whether things that only the text names are
    looked for, too. others: the things by the drawing's other divisions, and how probable each is.
    """
    regions = gallery.regions_kept if by_regions else 0

    def read(things: Sequence[Thing], method: Method, text: str | None) -> tuple[list[Thing], Query]:
        named, beside = list[Thing](), list[Thing]()
        if things:
            named, beside = name_things(matcher, things, text, thing_text, coloured=coloured)
            beside = beside if further and regions else []
            method = "things" if beside else method
        placed, weight = place_things([*named, *beside], regions, places, several=method == "things")
        if text and not things and coloured and regions:
            placed = things_of_text(matcher, text)
        sketch = sketch_of(matcher, named) if named else None
        return named, Query(method, gallery.clusters.mean, sketch, placed, weight, worded=bool(text))

    plan = partial(plan_by_default, tokens_kept=gallery.tokens_kept, regions=regions, by_vector=not by_regions)
    divisions = [(1 - sum(probability for probability, _ in others), things, method)]
    divisions += [(probability, of, plan(matcher, 1, len(of)).method) for probability, of in others]
    readings = list[tuple[list[Thing], Query]]()
    for probability, of, by in divisions:
        named, query = read(of, by, text)
        doubt = _doubt(matcher, named, query.method) if of and text else 0.0
        readings.append((named, replace(query, probability=probability * (1 - doubt))))
        if probability * doubt >= LEAST_READ:
            readings.append((named, replace(read(of, by, None)[1], probability=probability * doubt)))
    (named, query), *rest = readings
    return named, replace(query, readings=tuple(other for _, other in rest if other.probability >= LEAST_READ))


def _doubt(matcher: Matcher, named: Sequence[Thing], method: Method) -> float:
    """Returns how probably a text means something else than the things that it named, by Bayes' rule and a guess."""
    vocabulary, fit = matcher.engine.vocabulary, ELSEWHERE
    if len(named) == 1 and named[0].words and method != "things" and vocabulary is not None:
        shown = vocabulary.guess(named[0].tokens.without_patches)[0]
        # If nobody can guess what is drawn, little speaks against the word.
        fit = max(float(shown[list(named[0].words)].sum()), LEAST_FIT if shown.max() >= SURE else ELSEWHERE)
    return MISTAKEN * ELSEWHERE / ((1 - MISTAKEN) * fit + MISTAKEN * ELSEWHERE)


def search_drawing(
    gallery: Gallery, matcher: Matcher, drawing: Drawing, results: int, text: str | None = None
) -> Ranking:
    """Ranks photos for a drawing, and perhaps a text, as a search does by default."""
    encode = partial(encode_things, matcher, variants=None, expects=gallery.expects)
    others = [(probability, encode(other)) for probability, other in drawing.readings]
    return search_things(gallery, matcher, encode(drawing), results, text=text, others=others)


def search_things(
    gallery: Gallery,
    matcher: Matcher,
    things: Sequence[Thing],
    results: int,
    places: Places = "auto",
    *,
    text: str | None = None,
    liked: Candidates | None = None,
    unliked: Candidates | None = None,
    others: Sequence[tuple[float, Sequence[Thing]]] = (),
) -> Ranking:
    """Ranks photos as a search does by default, for the encoded things of a drawing, or without one for a text alone.

    text: words of the vocabulary. liked, unliked: photos of the gallery. others: as for ``query_of``.

    Raises UnknownWord.
    """
    plan = plan_by_default(matcher, results, len(things), tokens_kept=gallery.tokens_kept, regions=gallery.regions_kept)
    _, query = query_of(gallery, matcher, things, plan.method, text=text, places=places, others=others)
    if text is not None:
        query = replace(query, word=matcher.book.read(text).things)
    if liked is not None:
        vectors, homes = liked.vectors.astype(np.float32), gallery.clusters.of(liked.rows)
        query = replace(query, liked=vectors, liked_ids=tuple(liked.ids.tolist()), homes=homes)
    if unliked is not None:
        vectors, kinds = unliked.vectors.astype(np.float32), np.zeros(len(unliked), np.bool_)
        ids = tuple(unliked.ids.tolist())
        query = replace(query, unliked=vectors, unliked_ids=ids, unliked_rows=unliked.rows, unliked_kinds=kinds)
    return rank(gallery, matcher, query, replace(plan, method=query.method))
