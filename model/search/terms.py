"""Scores photos for the drawing of one thing: terms of each photo, weighed by facts of the query.

    log-odds of a photo = sum over terms t and facts f of weight_tf term_t(photo) fact_f(query)

A query that lacks a part lacks its terms. The weights are the checkpoint's (``model.engine.Calibration``); `python -m
training rank` fits them on all protocols at once. In the same way ``odds_shown`` adds up how probably a photo shows
what is asked for, by weights of `python -m training shown`.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sketch_search.model import ranking
from sketch_search.model.engine import Floats, Tokens, Weights, logsumexp, sigmoid
from sketch_search.model.matcher import Matcher
from sketch_search.model.ranking import KIND, SPREAD
from sketch_search.model.search.candidates import Candidates, Query, best_first
from sketch_search.model.things import FIT, Thing

Columns: TypeAlias = dict[str, NDArray[np.floating]]
# Photos are of the kind of liked ones from this kinship on, or KIND of the diffused one, but KIN photos at least: the
# drawing orders these.
KINDRED, KIN = 0.6, 20
# A drawing's first photos say whether boxes are of what is drawn, and with less kinship, how strange liked photos are.
BACKING, BACKED, BESIDE_LIKED, LIKELY = 20, (0.4, 0.9), 0.3, 0.4
# The likeliest photo of a thing says whether any shows it: not below DENIED, surely from SURELY on. Of the first photos
# of searches whose first one shows it, `python -m training shown` denied one below 0.05, and none below 0.04.
DENIED, SURELY = 0.04, 0.8


def terms_of(photos: Candidates, matcher: Matcher, query: Query) -> Columns:
    """Computes the terms of photos whose scores are diffused, (m,) each.

    diffused: the log-odds of the score; pair: how far those before exceed those of the 40th photo. word: how far the
    score by the words lies below the best. kinship, kind: the same of the kinship with liked photos
    (``Matcher.kinship``), and of the diffused one. region, box, presence, below the best: how well regions show the
    thing where it was drawn and in its colours, as cosines; how well a box does; and how surely any box shows it.
    """
    terms: Columns = {"diffused": ranking.log_odds(photos.scores, query.method)}
    if photos.before is not None and query.method == "rn":
        terms["pair"] = ranking.above_first(photos.before)
    if photos.by_word is not None:
        terms["word"] = np.minimum(photos.by_word - photos.by_word.max(initial=-np.inf) + np.float32(SPREAD), 0)
    if photos.likeness is not None:
        likeness, least = photos.likeness, KIND
        if photos.before is not None:
            kinship = kinship_of(photos, matcher, query)
            terms["kinship"] = np.minimum(kinship - np.float32(KINDRED), 0)
            likeness = ranking.diffuse_kinship(kinship, photos.vectors, matcher.diffusion_threshold)
            least = float(np.sort(likeness)[-KIN:].min(initial=KIND))
        terms["kind"] = np.minimum(likeness - np.float32(least), 0)
    if photos.matched is not None and photos.region_scores is not None:
        fits, presence = (of.mean(axis=0) for of in (photos.matched.box_fits, photos.matched.presence))
        columns = {"region": photos.region_scores - np.float32(FIT) * fits, "box": fits, "presence": presence}
        terms |= {name: column - column.max(initial=-np.inf) for name, column in columns.items()}
    return terms


def facts_of(photos: Candidates, matcher: Matcher, query: Query) -> dict[str, float]:
    """Returns what is known of a query by one thing, 0 to 1, before its ``terms_of`` photos are added up.

    liked, worded: whether likes or words go with diffused scores. strange: how many of its first photos are not kin to
    liked ones. named, coloured: whether a word says what it is, and whether it has colours. placed: how much its place
    says (``Thing.placed``), all with colours. sure: how probable its best guess is, if nothing else says what regions
    show. backed: how far its first photos say that boxes are of what is drawn (``backing``), less beside liked ones,
    which say the kind themselves.
    """
    liked, things = photos.likeness is not None, query.things
    facts: dict[str, float] = {"always": 1.0}
    if photos.before is not None:
        facts |= {"liked": float(liked), "worded": float(photos.by_word is not None)}
        if liked:
            first = photos[np.argsort(-photos.scores, kind="stable")[:BACKING]]
            facts["strange"] = float((kinship_of(first, matcher, query) <= LIKELY).mean())
    if photos.matched is not None:
        named, coloured = any(thing.words for thing in things), any(len(thing.colours) for thing in things)
        facts |= {"named": float(named), "coloured": float(coloured)}
        facts["placed"] = 1.0 if coloured else max(thing.placed for thing in things)
        guessed = not (named or coloured or liked) and matcher.engine.vocabulary is not None
        facts["sure"] = float(matcher.sureness(things).mean()) if guessed else 1.0
        backed = backing(photos.scores, photos.matched.of_kind.mean(axis=0))
        facts["backed"] = 1.0 if named else BESIDE_LIKED * backed if liked else backed
    return facts


def kinship_of(photos: Candidates, matcher: Matcher, query: Query) -> Floats:
    """Returns the kinship of photos with the liked ones, (m,) at most 1."""
    assert query.liked is not None
    return matcher.kinship(query.liked, photos.vectors, query.mean)


def backing(scores: Floats, of_kind: Floats) -> float:
    """Computes how far the best photos by a drawing say that its boxes are of what is drawn, 0 to 1.

    The drawing of a cow guesses sheep and horses too; a detector that knows no cows would find these. But then photos
    without such boxes lead. The normalised discounted cumulative gain of how surely boxes are of the kind, (m,), in the
    first BACKING photos by the scores, (m,), counts nothing up to BACKED[0], and all from BACKED[1] on.
    """
    first = np.argsort(-scores, kind="stable")[:BACKING]
    discounts = 1 / np.log2(np.arange(len(first)) + np.float32(2))
    most = discounts @ np.sort(of_kind)[::-1][: len(first)]
    low, high = BACKED
    return float(np.clip((discounts @ of_kind[first] / most - low) / (high - low), 0, 1)) if most else 1.0


def weigh_terms(terms: Columns, facts: Mapping[str, float], weights: Weights) -> NDArray[np.float64]:
    """Adds up terms, (m,) each, by the weights that facts and their products give them: log-odds, (m,)."""
    total = np.zeros(len(next(iter(terms.values()))))
    for term, column in terms.items():
        for names, weight in weights.get(term, {}).items():
            total += column * weight * product_of(facts, names)
    return total


def product_of(facts: Mapping[str, float], names: str) -> float:
    """Multiplies facts, such as "placed*sure"; those that are not known are 0."""
    return math.prod(facts.get(name, 0.0) for name in names.split("*"))


def asked_of(query: Query, matcher: Matcher, *, drawn: bool) -> tuple[Thing, ...]:
    """Returns what a query asks for: its drawn things, and then those that only words name. drawn: whether any are."""
    words, things = query.word if isinstance(query.word, tuple) else (), query.things
    if drawn and not things and query.sketch is not None:
        things = tuple(Thing(query.sketch[row : row + 1].without_patches) for row in range(len(query.sketch)))
        if len(things) == len(words) == 1:
            things = (replace(things[0], words=words[0]),)
    named = {thing.words for thing in things}
    directions = {of: Tokens.of_ret(matcher.word_direction(of)[None]) for of in words if of not in named}
    return things + tuple(Thing(tokens, words=of) for of, tokens in directions.items())


def odds_shown(photos: Candidates, matcher: Matcher, query: Query, judged: int, *, drawn: bool) -> Floats | None:
    """Adds up the log-odds that photos show each of the t things ``asked_of`` a query, (m, t), by ``signs_of``.

    judged: how many, the best by the drawing and as many by the words; -inf for others.

    Returns None if no weights were fitted, or nothing is asked that they are for.
    """
    weights = matcher.calibration.shown
    if not weights or (drawn and len(photos) and photos.before is None):
        return None
    columns = [column for column in (photos.scores, photos.by_word) if column is not None]
    best = np.unique(np.concatenate([best_first(photos.ids, column, judged) for column in columns]))
    each = signs_of(photos[best], matcher, query, drawn=drawn)
    odds = np.full((len(photos), len(each)), -np.inf, np.float32)
    for row, (signs, facts) in enumerate(each):
        odds[best, row] = weigh_terms(signs, facts, weights)
    return odds if each else None


def is_shown(odds: Floats) -> bool | None:
    """Returns whether one of the photos with these log-odds, of any shape, shows a thing; None if that is uncertain."""
    best = sigmoid(odds.max(initial=-np.inf))
    return False if best < DENIED else True if best >= SURELY else None


def signs_of(
    photos: Candidates, matcher: Matcher, query: Query, *, drawn: bool
) -> list[tuple[Columns, dict[str, float]]]:
    """Returns for each thing ``asked_of`` a query the signs that photos show it, (m,) each, and what is known of it.

    photos: diffused, before evidence. drawn: whether anything is.

    diffused, pair: as of ``terms_of``. word, level: the score by its words, or by those guessed, and what is taken off
    from it. region, box: how well a region shows it, as a cosine, and how surely a box does. kinship: with liked
    photos. A fact is 0 or 1, but ``sure``, how probable its best guess is, and ``known``, how probably it is of the
    detector's kinds.
    """
    ret, vocabulary, each = photos.vectors.astype(np.float32), matcher.engine.vocabulary, []
    count = len(query.sketch) if drawn and query.sketch is not None else 0
    matched, levels = photos.matched, None
    cosines = matched.cosines(matcher.thing_directions(query.things)) if matched is not None and query.things else None
    kinship = None if query.liked is None else kinship_of(photos, matcher, query)
    for row, thing in enumerate(asked_of(query, matcher, drawn=drawn)):
        method, named = query.method if row < count else "", bool(thing.words)
        kinds = {"one": method == "rn", "fast": method == "ret", "several": method == "things", "named": named}
        kinds |= {"always": True, "single": method != "things", "liked": query.liked is not None}
        facts = {name: float(is_so) for name, is_so in kinds.items()}
        facts["sure"] = 1.0 if named else float(matcher.sureness([thing])[0])
        signs: Columns = {"always": np.ones(len(photos), np.float32)}
        if method == "rn" and photos.before is not None:
            signs |= {"diffused": ranking.logits(photos.scores), "pair": ranking.above_first(photos.before)}
        if method != "things" and vocabulary is not None and (guesses := _guesses_of(matcher, thing)):
            levels = vocabulary.levels(ret) if levels is None else levels
            probable = np.log(np.array([*guesses.values()], np.float32))
            scores = matcher.word_scores(Tokens.of_ret(ret), [*guesses], levels)
            signs |= {"word": logsumexp(scores.T + probable), "level": levels}
        if matched is not None and cosines is not None and row < len(query.things):
            signs |= {"region": cosines[row], "box": matched.of_kind[row]}
            facts["known"] = float(matcher.thing_kinds([thing]).sum())
        if kinship is not None:
            signs["kinship"] = kinship
        each.append((signs, facts))
    return each


def _guesses_of(matcher: Matcher, thing: Thing) -> dict[int, float]:
    """Returns the words of a thing, each 1, or the words guessed for it, with their shares of the probability."""
    guesses = [] if thing.words else matcher.guesses(thing.tokens)
    total = sum(guess.probability for guess in guesses)
    shares = {matcher.words.index(guess.word): guess.probability / total for guess in guesses}
    return dict.fromkeys(thing.words, 1.0) | shares
