"""Measures what a person's next click does to a search by a drawing: to photos of its kind, and to the drawn photo."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sketch_search.model.datasets import Picture, Task, find_drawn_photos
from sketch_search.model.engine import Floats, Numbers, Tokens, unit
from sketch_search.model.errors import ModelError
from sketch_search.model.evaluation.figures import Evaluation, PerQuery, relevance
from sketch_search.model.evaluation.scoring import encoded
from sketch_search.model.images import open_image
from sketch_search.model.matcher import Matcher
from sketch_search.model.ranking import (
    LOOK,
    SAME,
    evidence_for_diffusion,
    evidence_of_dislikes,
    evidence_of_fits,
    evidence_of_kin,
    evidence_of_words,
    kindred,
    likenesses,
    sameness,
    weigh,
)
from sketch_search.model.things import PLACES, Thing, sought

# The photos of a page.
_PAGE = 20
# How often a person dislikes photos of one ranking, one after the other.
_DISLIKED = 3


def measure_clicks(matcher: Matcher, task: Task) -> Evaluation:
    """Measures the drawing alone, and after one further action of a person, by the checkpoint's best method, diffused,
    and by the drawing's place on its paper.

    Of the sketches that were drawn from a photo, those whose photo is not first already count. The person likes the
    best photo of the right kind that is not the drawn one, dislikes the first one or three that are not it, or the
    first of another kind, types the word of the kind, or presses a guess if it is right. The liked photo comes first.

    Raises ModelError for a checkpoint without diffusion or without a vocabulary, and if no sketch counts.
    """
    if matcher.calibration.diffusion is None or not matcher.words:
        raise ModelError(
            f"this checkpoint ({matcher.config.name}) has no diffusion or no vocabulary, which clicks need"
        )
    sketches, gallery = encoded(matcher, task.corpus)
    targets, relevant = find_drawn_photos(task.corpus), relevance(task.corpus)
    method, mean = matcher.best_method, unit(gallery.ret).mean(axis=0)
    levels = matcher.word_levels(gallery)
    rows, counting = list[dict[str, dict[str, float]]](), list[int]()
    for row in tqdm(range(len(sketches)), desc="clicking", unit="sketch", disable=None):
        sketch, target, right = sketches[row : row + 1], int(targets[row]), relevant[row].copy()
        before = matcher.scores(sketch, gallery, method)[0]
        drawn = matcher.diffuse(before[None], gallery.ret, method)[0]
        placed = _place(matcher, sketch, task.corpus.sketches[row], gallery)
        order = np.argsort(-weigh(drawn, placed, method), kind="stable")
        if target < 0 or order[0] == target:
            continue
        right[target] = True
        clicks = _Clicks(matcher, gallery, mean, before, drawn, placed, order, target, right)
        number = matcher.book.of_class(task.corpus.sketches[row].label)
        guessed = [guess.word for guess in matcher.guesses(sketch)]
        by_word = None if number is None else matcher.word_scores(gallery, [number], levels)[0]
        is_guess = number is not None and matcher.words[number] in guessed
        rows.append(dict(clicks.all(by_word, is_guess=is_guess)))
        counting.append(row)
    if not rows:
        raise ModelError("no sketch was drawn from one of the photos without finding it first already")
    per_query: PerQuery = {
        click: {name: np.array([row[click][name] for row in rows]) for name in figures}
        for click, figures in rows[0].items()
    }
    return Evaluation.of(task.corpus, tuple(task.corpus.sketches[row] for row in counting), per_query, {})


def _place(matcher: Matcher, sketch: Tokens, picture: Picture, gallery: Tokens) -> Floats:
    """Returns the evidence, (p,), of the regions where the sketch stands on its paper; zeros without regions."""
    if gallery.regions is None or gallery.colours is None:
        return np.zeros(len(gallery), np.float32)
    (drawn,) = matcher.preprocessing.drawing(open_image(picture.path, sketch=True)).things
    things = [Thing(sketch.without_patches, drawn.box)]
    regions = gallery.regions.astype(np.float32)
    return evidence_of_fits(
        sought(things, matcher.thing_directions(things), regions, gallery.colours, PLACES).scores[0]
    )


@dataclass(frozen=True)
class _Clicks:
    """The clicks on one ranking of a gallery with this mean [Ret].

    drawn, before: (p,) scores by the drawing, and before diffusion. placed: (p,) the evidence of its place. order: (p,)
    photos, best first. right: (p,) whether they are of the drawn kind.
    """

    matcher: Matcher
    gallery: Tokens
    mean: Floats
    before: Floats
    drawn: Floats
    placed: Floats
    order: Numbers
    target: int
    right: NDArray[np.bool_]

    def all(self, by_word: Floats | None, *, is_guess: bool) -> Iterator[tuple[str, dict[str, float]]]:
        others = self.order[self.order != self.target]
        alone = weigh(self.drawn, self.placed, self.matcher.best_method)
        yield "the drawing", self._figures(alone)
        liked = others[self.right[others]][:1]
        kinship = self.matcher.kinship(self.gallery.ret[liked], self.gallery.ret, self.mean)
        spread = kindred(kinship, self.gallery.ret, self.matcher.diffusion_threshold)
        of_kin = evidence_of_kin(kinship, spread, self.drawn)
        yield "+", self._figures(self._weighed_kind(of_kin), liked)
        yield "-", self._disliked(others[:1])
        yield f"- {_DISLIKED} times", self._disliked(others[:_DISLIKED])
        yield "- another kind", self._disliked(others[~self.right[others]][:1])
        named = alone if by_word is None else self._weighed_kind(evidence_of_words(by_word))
        yield "the word", self._figures(named)
        yield "a right guess", self._figures(named if is_guess else alone)

    def _likeness(self, photos: Numbers) -> Floats:
        return likenesses(self.gallery.ret[photos], self.gallery.ret, self.mean)

    def _weighed(self, evidence: Floats) -> Floats:
        return weigh(self.drawn, evidence + self.placed, self.matcher.best_method)

    def _weighed_kind(self, evidence: Floats) -> Floats:
        """Adds the evidence of likes or words."""
        method = self.matcher.best_method
        return self._weighed(evidence + evidence_for_diffusion(self.drawn, self.before, method))

    def _disliked(self, photos: Numbers) -> dict[str, float]:
        scores = self._weighed(evidence_of_dislikes(self._likeness(photos)))
        cosines = unit(self.gallery.ret) @ unit(self.gallery.ret[photos]).T
        pairs = np.argwhere(cosines > LOOK)
        pairs[:, 1] = photos[pairs[:, 1]]
        copies = pairs[sameness(self.gallery, pairs, self.matcher.config.grid) > SAME, 0]
        scores[np.union1d(copies, photos)] = -np.inf
        return self._figures(scores)

    def _figures(self, scores: Floats, liked: Numbers | None = None) -> dict[str, float]:
        ahead = np.isin(np.arange(len(scores)), [] if liked is None else liked)
        order = np.lexsort((-scores, ~ahead))
        place = int(np.flatnonzero(order == self.target)[0])
        of_kind = order[self.right[order] & ~ahead[order]]
        among = int(np.flatnonzero(of_kind == self.target)[0])
        lost = bool(np.isneginf(scores[self.target]))
        page = order[:_PAGE]
        precision = (self.right[page] & ~np.isneginf(scores[page])).sum() / min(_PAGE, self.right.sum())
        found = {f"gallery_acc_{_PAGE}": place < _PAGE, "acc_1": among < 1, "acc_5": among < 5}
        return {name: float(value and not lost) for name, value in found.items()} | {
            "precision_20": float(precision),
            "lost": float(lost),
        }
