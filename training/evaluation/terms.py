"""Fits how much each term of a search counts (``model.search.terms``), on all protocols at once, as it is served."""

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from sketch_search.model.engine import TERMS, Calibration, Floats, Tokens, Weights, read_metadata, to_json
from sketch_search.model.limits import Places
from sketch_search.model.matcher import Matcher
from sketch_search.model.search import PhotoGallery, encode_things, gallery_of, search_things
from sketch_search.model.search.stages import diffuse
from sketch_search.model.search.terms import facts_of, product_of, terms_of
from sketch_search.model.torch.checkpoint import replacing
from sketch_search.training.corpus import Picture, find_drawn_photos, rows_by_label
from sketch_search.training.evaluation.figures import bootstrap, relevance
from sketch_search.training.evaluation.remembered import on_paper, pens_of
from sketch_search.training.evaluation.scoring import encode_pictures
from sketch_search.training.tasks import UNSEEN, Drawn, read_remembered, read_task

_COUNTED = ("diffused", "pair", "region", "box", "presence")
# What the weights of each term may depend on, for a drawing alone, and with likes or a word.
PARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "drawing": {
        "region": ("placed*sure",),
        "box": ("placed*backed", "placed*placed*backed", "placed*placed*sure*backed"),
        "presence": ("backed", "sure*backed", "sure*sure*backed"),
    },
    "liked": dict.fromkeys(_COUNTED, ("liked", "strange")) | dict.fromkeys(("kinship", "kind"), ("always", "strange")),
    "worded": dict.fromkeys(_COUNTED, ("worded", "placed*worded")) | {"word": ("always",)},
}
_NAMES = (fact for terms in PARTS.values() for facts in terms.values() for fact in facts)
FACTORS = tuple(dict.fromkeys(("always", *_NAMES, "liked*worded", "placed*named")))
#: The weights of terms by FACTORS, (t, f), and figures of searches, (s, 4).
Matrix: TypeAlias = NDArray[np.float64]
# Photos of each search that the fit sees: the best ones by each term, and by the weights that are served.
_BEST, _FIRST = 40, 60
# The length of the first step, in units of terms and facts, of the last, and how many there are; how many weights go
# together at most, and the least gain for which they do.
_STEPS, _TOGETHER, _LEAST = (3.0, 0.05, 1000), 3, 3e-5
# What a search may lack, so that weights are compared with the best of its parts alone.
_WITHOUT = ((), ("box", "presence"), ("box",), ("region",), ("region", "box", "presence"))
# How much a group's precision@10, its precision@20, its drawn photos as the first and those on a page of _PAGE gain or
# lose, and the loss that counts double: a large one is worse than several small ones.
_SHARES, _PAGE, _LOSS = np.array([[0.4, 0.0], [0.6, 0.0], [0.0, 0.2], [0.0, 0.3]]), 20, 0.0025


@dataclass(frozen=True)
class Asked:
    """A drawing of one thing. sketch: for "colours" what is drawn in the place of a photo, by this pen.

    right: (p,) the photos of its class. drawn: the photo that was drawn, or -1.
    """

    protocol: str
    sketch: Picture | Drawn
    right: NDArray[np.bool_]
    drawn: int
    pen: tuple[int, ...] = (0, 0, 0)

    @property
    def label(self) -> str:
        return self.sketch.label


@dataclass(frozen=True)
class Searched:
    """A search. group: what is measured together. terms: (m, t). facts: (f,), of FACTORS. right, drawn: (m,)."""

    group: str
    terms: Floats
    facts: Floats
    right: NDArray[np.bool_]
    drawn: NDArray[np.bool_]


def read_asked(most: int) -> Iterator[tuple[tuple[Picture, ...], list[Asked]]]:
    """Reads the photos of each protocol and ``most`` drawings at most, of validation and trained classes alone."""
    chance = np.random.default_rng(0)
    for protocol in ("everyday", "everything", "fine-grained"):
        task = read_task(protocol, None if protocol == "everyday" else "val")
        sketches, right, drawn = task.corpus.sketches, relevance(task.corpus), find_drawn_photos(task.corpus)
        names = [f"{protocol}, new" if s.label in task.groups.get(UNSEEN, ()) else protocol for s in sketches]
        for name in dict.fromkeys(names):
            rows = chance.permutation(np.flatnonzero(np.array(names) == name))[:most].tolist()
            yield task.corpus.photos, [Asked(name, sketches[row], right[row], int(drawn[row])) for row in rows]
    remembered = read_remembered("colours")
    for number in chance.permutation(len(remembered.queries))[:most].tolist():
        query = remembered.queries[number]
        (thing,) = query.things
        right = np.array([thing.label in kinds for kinds in remembered.kinds])
        pens = {"black pen": (0, 0, 0)} | pens_of(remembered.photos[query.photo], thing)
        asked = [
            Asked(f"colours, {pen}", thing, right, query.photo, pens[pen])
            for pen in ("black pen", "nearest pen")
            if pen in pens
        ]
        yield remembered.photos, asked


def collect(matchers: Mapping[str, Matcher], most: int, hidden: int) -> list[Searched]:
    """Searches by networks with one photo side in all ways, by every ``hidden``-th drawing also as if untaught."""
    searches, encoded = list[Searched](), dict[tuple[Picture, ...], Tokens]()
    for photos, queries in read_asked(most):
        if photos not in encoded:
            encoded = {photos: encode_pictures(next(iter(matchers.values())), photos, "photo", boxes=True)}
        for name, matcher in matchers.items():
            gallery = gallery_of(encoded[photos], matcher)
            for number, asked in enumerate(tqdm(queries, desc=queries[0].protocol, unit="query", disable=None)):
                named = replace(asked, protocol=f"{name}: {asked.protocol}")
                searches += search(gallery, matcher, named)
                if number % hidden == 0 and not isinstance(asked.sketch, Drawn):
                    blind = copy.copy(gallery)
                    blind._matcher = without_guess(matcher, asked.label)
                    searches += search(blind, blind._matcher, named, ", hidden")
    return searches


def without_guess(matcher: Matcher, label: str) -> Matcher:
    """Returns a matcher that never guesses what a class shows; the same one if it has no word for it."""
    vocabulary, word = matcher.engine.vocabulary, matcher.book.of_class(label)
    if vocabulary is None or word is None:
        return matcher
    hidden = np.isin(vocabulary.drawn, matcher.book.widen((word,)))
    biases = np.where(hidden, np.float32(-1e4), vocabulary.sketch_biases)
    without = copy.copy(matcher)
    without.engine = copy.copy(matcher.engine)
    without.engine.vocabulary = replace(vocabulary, sketch_biases=biases)
    return without


def search(gallery: PhotoGallery, matcher: Matcher, asked: Asked, hidden: str = "") -> Iterator[Searched]:
    """Searches by a drawing alone, with its word, anywhere if it has a place, and after + on a photo of its class."""
    sketch, word = asked.sketch, matcher.book.of_class(asked.label)
    picture = on_paper(sketch, asked.pen) if isinstance(sketch, Drawn) else matcher.open(sketch.path, "sketch")
    things = encode_things(matcher, matcher.preprocessing.drawing(picture), variants=None)
    ways: dict[str, dict[str, Any]] = {"drawing": {}, "+": {}}
    if word is not None:
        ways["word"] = {"text": matcher.words[word]}
    if isinstance(sketch, Drawn):
        ways["anywhere"] = {}
    for way, options in ways.items():
        if way == "+" and not options:
            continue
        places: Places = "no" if way == "anywhere" else "auto"
        ranking = search_things(gallery, matcher, things, _PAGE, places, **options)
        query = ranking.query
        if query.method == "things":
            # The word was taken for a further thing.
            continue
        if way == "drawing":
            ids = ranking.photos.ids
            of_class = np.flatnonzero(asked.right[ids] & (ids != asked.drawn))[:1]
            ways["+"] |= {"liked": ranking.photos[of_class]} if len(of_class) else {}
        photos = diffuse(matcher, ranking.candidates, query, ranking.plan)
        facts, terms = facts_of(photos, matcher, query), terms_of(photos, matcher, query)
        columns = np.stack([terms.get(term, np.zeros(len(photos))) for term in TERMS], axis=1).astype(np.float32)
        products = np.array([product_of(facts, names) for names in FACTORS], np.float32)
        others = ~np.isin(photos.ids, query.liked_ids)
        drawn = photos.ids == asked.drawn
        right = (asked.right[photos.ids] | drawn)[others]
        if right.any() and not right.all():
            # Few hidden ones have a word or a like.
            group = f"{asked.protocol}, {way}{hidden if way == 'drawing' else ''}"
            yield Searched(group, columns[others], products, right, drawn[others])


class _Batch:
    """The photos of searches that may be first, as (s, p, t) terms, and (s, p) what is right."""

    def __init__(self, searches: Sequence[Searched], start: Matrix) -> None:
        self.groups = rows_by_label(s.group for s in searches)
        chosen = [_first_photos(s, start) for s in searches]
        shape = len(searches), max(_PAGE + 1, *map(len, chosen))
        self._terms, self._there = np.zeros((*shape, len(TERMS)), np.float32), np.full(shape, -np.inf, np.float32)
        self._right, self._drawn = np.zeros((2, *shape), np.bool_)
        for row, (s, few) in enumerate(zip(searches, chosen, strict=True)):
            self._terms[row, : len(few)], self._there[row, : len(few)] = s.terms[few], 0
            self._right[row, : len(few)], self._drawn[row, : len(few)] = s.right[few], s.drawn[few]
        self._facts = np.stack([s.facts for s in searches])
        self._most = np.minimum(np.array([[s.right.sum()] for s in searches]), [10, _PAGE])
        self._is_drawn = np.array([s.drawn.any() for s in searches])
        sizes = (np.sqrt(np.square(of.reshape(-1, of.shape[-1])).mean(axis=0)) for of in (self._terms, self._facts))
        self.units = np.outer(*sizes) + 1e-6
        parts = [self.means(np.where(np.isin(TERMS, part)[:, None], 0, start)) for part in _WITHOUT]
        self.best: Matrix = np.max(parts, axis=0)

    def figures(self, weights: Matrix) -> Matrix:
        """Returns precision@10 and @20, and whether the drawn photo is first, and on a page; NaN without: (s, 4)."""
        of_term = (self._facts @ weights.T.astype(np.float32))[..., None]
        less = -(self._terms @ of_term)[..., 0] - self._there
        page = np.argpartition(less, (0, 10, _PAGE), axis=1)[:, :_PAGE]
        right, drawn = (np.take_along_axis(of, page, axis=1) for of in (self._right, self._drawn))
        precision = np.stack([right[:, :10].sum(axis=1), right.sum(axis=1)], axis=1) / self._most
        drawn_photo = np.where(self._is_drawn, [drawn[:, 0], drawn.any(axis=1)], np.nan).T
        return np.concatenate([precision, drawn_photo], axis=1)

    def means(self, weights: Matrix) -> Matrix:
        """Returns the mean figures of each group, (g, 4); searches without a drawn photo count as 0."""
        figures = np.nan_to_num(self.figures(weights))
        return np.stack([figures[rows].mean(axis=0) for rows in self.groups.values()])

    def worth(self, weights: Matrix) -> float:
        """Adds up what groups gain on their best parts, by the roots of their sizes; losses are squared, too."""
        gains = (self.means(weights) - self.best) @ _SHARES
        each = np.where(gains < 0, gains * (1 - gains / _LOSS), gains).sum(axis=1)
        return float(np.average(each, weights=[len(rows) ** 0.5 for rows in self.groups.values()]))


def _first_photos(s: Searched, start: Matrix) -> NDArray[np.int64]:
    best = np.argsort(-s.terms, axis=0, kind="stable")[:_BEST].ravel()
    first = np.argsort(-(s.terms @ (start @ s.facts)), kind="stable")[:_FIRST]
    return np.unique([*best, *first, *np.flatnonzero(s.drawn)])


def fit(searches: Sequence[Searched], start: Matrix, parts: Collection[str] = tuple(PARTS)) -> Matrix:
    """Fits the weights of some of PARTS, (t, f), so that no group of searches loses what a part of them has alone.

    Each part is fitted on its own searches, a few weights at a time: they go a random way if groups gain by it more
    than others lose (``_Batch.worth``), less and less far; then each goes back if that costs nothing.
    """
    weights, chance = start.copy(), np.random.default_rng(0)
    liked, worded = (np.array([s.facts[FACTORS.index(name)] > 0 for s in searches]) for name in ("liked", "worded"))
    for part, own in {"drawing": ~(liked | worded), "liked": liked, "worded": worded}.items():
        if part not in parts or not own.any():
            continue
        batch, factors = _Batch([s for s, mine in zip(searches, own, strict=True) if mine], start), PARTS[part].items()
        moves = [(TERMS.index(term), FACTORS.index(factor)) for term, of_term in factors for factor in of_term]
        worth = batch.worth(weights)
        for step in np.geomspace(*_STEPS):
            tried = weights.copy()
            for number in chance.choice(len(moves), chance.integers(1, _TOGETHER + 1), replace=False):
                term, factor = moves[number]
                tried[term, factor] += step * chance.standard_normal() / batch.units[term, factor]
            if (now := batch.worth(tried)) >= worth + _LEAST:
                weights, worth = tried, now
        for place in moves * 2:
            tried = weights.copy()
            tried[place] = start[place]
            if (now := batch.worth(tried)) >= worth - _LEAST:
                weights, worth = tried, now
    return weights


def describe(searches: Sequence[Searched], start: Matrix, weights: Matrix) -> str:
    """Writes what weights change for each group of searches, and what leaving each term out then costs it.

    Figures are precision@20 and the share of drawn photos on a page, with 95% intervals of the first.
    """
    batch = _Batch(searches, start)
    before, after = batch.figures(start), batch.figures(weights)

    def cell(change: Matrix) -> str:
        (of_page,), on_page = bootstrap(change[:, 1:2]), change[~np.isnan(change[:, 3]), 3]
        interval = f"{of_page.value:+.3f} ({of_page.low:+.3f} to {of_page.high:+.3f})"
        return f"{interval}; {on_page.mean():+.3f}" if len(on_page) else interval

    lines = ["| searches | | served | with these weights |", "|---|---|---|---|"]
    for name, rows in batch.groups.items():
        lines.append(f"| {name} | {len(rows)} | {before[rows, 1].mean():.3f} | {cell(after[rows] - before[rows])} |")
    lines += ["", f"| without | weights | {' | '.join(batch.groups)} |", "|---" * (2 + len(batch.groups)) + "|"]
    for term, of_term in weights_of(weights).items():
        less = batch.figures(np.where(np.isin(TERMS, term)[:, None], 0, weights)) - after
        written = ", ".join(f"{names} {weight:g}" for names, weight in of_term.items())
        lines.append(f"| {term} | {written} | {' | '.join(cell(less[rows]) for rows in batch.groups.values())} |")
    return "\n".join(lines)


def matrix_of(weights: Weights) -> Matrix:
    """Returns the weights of TERMS by FACTORS."""
    return np.array([[weights.get(term, {}).get(names, 0.0) for names in FACTORS] for term in TERMS])


def weights_of(matrix: Matrix) -> Weights:
    """Returns weights as a checkpoint keeps them, without zeros."""
    return {
        term: {names: round(float(weight), 4) for names, weight in zip(FACTORS, of_term, strict=True) if weight}
        for term, of_term in zip(TERMS, matrix, strict=True)
        if of_term.any()
    }


def save_calibration(source: Path, target: Path, calibration: Calibration) -> None:
    """Writes a checkpoint with another calibration, and nothing else changed."""
    metadata = read_metadata(source) | {"calibration": to_json(calibration)}
    with replacing(target) as partial:
        save_file(load_file(source), partial, metadata)
