"""Fits and measures how probably photos show what a search asks for (``model.search.terms.odds_shown``)."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sketch_search.indexer.samples import write_samples
from sketch_search.model.engine import Floats, Tokens, Weights, sigmoid
from sketch_search.model.images import Drawing
from sketch_search.model.matcher import Matcher
from sketch_search.model.search import PhotoGallery, Plan, Ranking, encode_things, gallery_of, query_of, rank
from sketch_search.model.search import search_things as search
from sketch_search.model.search.stages import diffuse
from sketch_search.model.search.terms import is_shown, product_of, signs_of
from sketch_search.training.corpus import Corpus, Picture
from sketch_search.training.evaluation.remembered import on_paper
from sketch_search.training.evaluation.scoring import encode_pictures
from sketch_search.training.pages import record_table
from sketch_search.training.tasks import UNSEEN, Drawn, read_remembered, read_task

#: A drawing of one thing or of several.
Asked: TypeAlias = tuple[Picture | Drawn, ...]
_KNOWN = ("single*known", "several*known")
# The facts that the weight of each sign may depend on.
FACTORS: Mapping[str, tuple[str, ...]] = {
    "always": ("always", "one", "fast", "several", "single*sure", "named", "named*one", "liked", *_KNOWN),
    "diffused": ("one",),
    "pair": ("one",),
    "word": ("single*sure", "named"),
    "level": ("single",),
    "region": ("single", "single*sure", "several"),
    "box": ("single", "several"),
    "kinship": ("liked",),
}
_COLUMNS = tuple((sign, facts) for sign, of in FACTORS.items() for facts in of)
# How strongly weights are held near 0, in units of their columns, and how much a search of painted photos counts.
_HELD, _PAINTED = 1e-4, 3.0
# Where the things of a painted photo are drawn.
_HALVES = ((0.05, 0.25, 0.45, 0.75), (0.55, 0.25, 0.95, 0.75))
# The first photos of each search are judged, of a page and of three, and of the others every so many.
_PAGE, _JUDGED, _OTHERS = 20, 60, 40


@dataclass(frozen=True)
class Judged:
    """Holds what is known of m photos and a thing that a search asks for. way: how it was searched for.

    columns: (m, c) products of signs and facts. shows: (m,) whether each shows it. first: (m,) whether on the first
    page. there: whether any photo of the gallery shows it.
    """

    way: str
    columns: Floats
    shows: NDArray[np.bool_]
    first: NDArray[np.bool_]
    there: bool
    weight: float = 1.0


def collect(matcher: Matcher, most: int, half: int) -> list[Judged]:
    """Searches galleries of validation and trained classes in all ways, with and without photos of a drawn thing.

    most: drawings of each gallery. half: 0 or 1, of which half of its drawings.
    """
    judged, chance, encoded = list[Judged](), np.random.default_rng(0), dict[tuple[Picture, ...], Tokens]()
    with tempfile.TemporaryDirectory() as folder:
        for name, photos, kinds, drawings in _read_galleries(Path(folder)):
            if photos not in encoded:
                encoded[photos] = encode_pictures(matcher, photos, "photo", boxes=True)
            chosen = chance.permutation(len(drawings))[half::2][:most].tolist()
            for number, row in enumerate(tqdm(chosen, desc=name, unit="query", disable=None)):
                asked = drawings[row]
                shows = np.array([[one.label in of for of in kinds] for one in asked])
                # Every third gallery is a tenth of the photos.
                tenth = np.arange(len(photos)) % 10 == (number // 3) % 10
                members = tenth if number % 3 == 2 else np.ones(len(photos), np.bool_)
                for present in (members, members & ~shows[number % len(asked)]):
                    gallery = gallery_of(encoded[photos][np.flatnonzero(present)], matcher)
                    weight = _PAINTED if name == "samples" else 1.0
                    for way, ranking, drawn in _search(gallery, matcher, asked, shows[:, present]):
                        judged += _judge(matcher, ranking, shows[:, present], way, weight, drawn=drawn)
    return judged


def _read_galleries(folder: Path) -> Iterator[tuple[str, tuple[Picture, ...], list[frozenset[str]], list[Asked]]]:
    """Reads photos, what each shows, and drawings; the sample gallery, whose photos are painted, into ``folder``."""
    trained, new = (task := read_task("everything", "val")).corpus, task.groups[UNSEEN]
    galleries = {
        "everyday": read_task("everyday").corpus,
        "val": read_task("zero-shot", "val").corpus.subsample(1, 3),
        "trained": trained.kept(lambda sketch: sketch.label not in new, lambda photo: True).subsample(1, 8),
        "samples": _samples(folder),
    }
    for name, corpus in galleries.items():
        kinds = [frozenset({photo.label, *photo.also}) for photo in corpus.photos]
        there = frozenset().union(*kinds)
        asked: list[Asked] = [(sketch,) for sketch in corpus.sketches if sketch.label in there]
        yield name, corpus.photos, kinds, asked + (_pairs(corpus) if name == "samples" else [])
    scenes = read_remembered("scenes")
    yield "scenes", scenes.photos, [*scenes.kinds], [query.things for query in scenes.queries]


def _samples(folder: Path) -> Corpus:
    write_samples(folder)
    photos, sketches = (sorted((folder / half).rglob("*.*")) for half in ("photos", "sketches"))
    named = [(path, path.stem.rpartition(" ")[0].split(" and ")) for path in photos]
    return Corpus(
        tuple(Picture(path, path.stem, "samples") for path in sketches),
        tuple(Picture(path, names[0], "samples", tuple(names[1:])) for path, names in named),
    )


def _pairs(corpus: Corpus) -> list[Asked]:
    """Returns drawings of the two things of photos, side by side."""
    sketches = {sketch.label: sketch for sketch in corpus.sketches}
    pairs = dict.fromkeys((photo.label, *photo.also) for photo in corpus.photos if photo.also)
    drawn = [tuple(sketches[label] for label in pair if label in sketches) for pair in pairs]
    return [tuple(map(Drawn, pair, _HALVES)) for pair in drawn if len(pair) == len(_HALVES)]


def _search(
    gallery: PhotoGallery, matcher: Matcher, asked: Asked, shows: NDArray[np.bool_]
) -> Iterator[tuple[str, Ranking, bool]]:
    """Searches in all ways: the name of each, its ranking, and whether by a drawing."""
    papers = [on_paper(one) if isinstance(one, Drawn) else matcher.open(one.path, "sketch") for one in asked]
    drawings = [*map(matcher.preprocessing.drawing, papers)]
    drawing = Drawing.joined(drawings) if len(asked) > 1 else matcher.divide(drawings[0])
    encode = partial(encode_things, matcher, variants=None, expects=gallery.expects)
    things, others = encode(drawing), [(probability, encode(other)) for probability, other in drawing.readings]
    if len(things) != len(asked):
        return
    by_drawing = search(gallery, matcher, things, _JUDGED, others=others)
    if len(asked) > 1:
        yield "several things", by_drawing, True
        return
    yield "a drawing", by_drawing, True
    if (word := matcher.book.of_class(asked[0].label)) is not None:
        yield "a word", search(gallery, matcher, (), _JUDGED, text=matcher.words[word]), False
        yield "both", search(gallery, matcher, things, _JUDGED, text=matcher.words[word], others=others), True
    _, query = query_of(gallery, matcher, things, "ret", by_regions=False)
    yield "quality=fast", rank(gallery, matcher, query, Plan("ret", _JUDGED, diffuse=True)), True
    photos = by_drawing.photos
    if len(liked := photos[np.flatnonzero(shows[0, photos.ids])[:1]]):
        yield "+", search(gallery, matcher, things, _JUDGED, liked=liked, others=others), True


def _judge(
    matcher: Matcher, ranking: Ranking, shows: NDArray[np.bool_], way: str, weight: float, *, drawn: bool
) -> Iterator[Judged]:
    photos, ids = ranking.candidates, ranking.photos.ids
    photos = diffuse(matcher, photos, ranking.query, ranking.plan) if drawn else photos
    rows = np.r_[: min(_JUDGED, len(ids)), _JUDGED : len(ids) : _OTHERS]
    by_id = np.argsort(photos.ids)
    photos = photos[by_id[np.searchsorted(photos.ids[by_id], ids)]]
    # A word may have been taken for a further thing.
    for (signs, facts), right in zip(signs_of(photos, matcher, ranking.query, drawn=drawn), shows, strict=False):
        none = np.zeros(len(photos), np.float32)
        columns = np.stack([signs.get(sign, none) * product_of(facts, names) for sign, names in _COLUMNS], axis=1)
        yield Judged(way, columns[rows], right[ids[rows]], rows < _PAGE, bool(right.any()), weight)


def fit(searches: Sequence[Judged]) -> Weights:
    """Fits weights of FACTORS by logistic regression. All searches count alike, photos of first pages twice."""
    from sklearn.linear_model import LogisticRegression

    columns, shows = (np.concatenate([getattr(s, name) for s in searches]) for name in ("columns", "shows"))
    counting = [np.where(s.first, 1.0, 0.5) for s in searches]
    each = np.concatenate([s.weight * of / of.sum() for s, of in zip(searches, counting, strict=True)])
    sizes = np.where((size := columns.std(axis=0)) > 1e-3, size, 1)
    regression = LogisticRegression(C=1 / (2 * _HELD * each.sum()), fit_intercept=False, max_iter=1000)
    fitted = regression.fit(columns / sizes, shows, each).coef_[0] / sizes
    weights: Weights = {sign: {} for sign in FACTORS}
    for (sign, names), weight in zip(_COLUMNS, fitted.tolist(), strict=True):
        weights[sign][names] = round(weight, 4)
    return weights


def measure(searches: Sequence[Judged], weights: Weights) -> dict[str, Any]:
    """Measures the probabilities of photos on first pages, and what is denied, by each way to search.

    error: the expected calibration error: by how much the mean probability of photos in each tenth differs from the
    share of them that shows the thing. denied, wrongly: of searches for what no photo shows, and for what one does.
    """
    of = np.array([weights.get(sign, {}).get(names, 0.0) for sign, names in _COLUMNS])
    odds = [s.columns @ of for s in searches]
    said = sigmoid(np.concatenate([of_search[s.first] for s, of_search in zip(searches, odds, strict=True)]))
    shows, tenths = np.concatenate([s.shows[s.first] for s in searches]), dict[str, dict[str, float]]()
    tenth = np.minimum((said * 10).astype(int), 9)
    for number in np.unique(tenth).tolist():
        mine = tenth == number
        means = {"probability": float(said[mine].mean()), "share that shows it": float(shows[mine].mean())}
        tenths[f"{number / 10:.1f} to {number / 10 + 0.1:.1f}"] = {"photos": int(mine.sum())} | means
    differences = [row["photos"] * abs(row["probability"] - row["share that shows it"]) for row in tenths.values()]
    ways = dict[str, dict[str, float]]()
    for way in dict.fromkeys(s.way for s in searches if s.way != "+"):
        pairs = [(s.there, is_shown(o) is False) for s, o in zip(searches, odds, strict=True) if s.way == way]
        absent, there = ([denied for is_there, denied in pairs if is_there == whether] for whether in (False, True))
        ways[way] = {"searches": len(pairs), "denied": float(np.mean(absent)), "wrongly": float(np.mean(there))}
    return {"error": sum(differences) / len(said), "photos": len(said), "tenths": tenths, "ways": ways}


def describe(figures: Mapping[str, Any]) -> str:
    """Writes ``measure``'s figures as tables."""
    tables = record_table("probability", figures["tenths"]), record_table("searched by", figures["ways"])
    return "\n\n".join([*tables, f"expected calibration error of {figures['photos']:,} photos: {figures['error']:.3f}"])
