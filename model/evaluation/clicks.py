"""Measures what a person's next click does to a search by a drawing: to photos of its kind, and to the drawn photo."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sketch_search.model.datasets import Task, find_drawn_photos
from sketch_search.model.errors import ModelError
from sketch_search.model.evaluation.figures import Evaluation, PerQuery, relevance
from sketch_search.model.evaluation.scoring import encode_pictures
from sketch_search.model.matcher import Matcher
from sketch_search.model.search import Ranking, encode_things, gallery_of, search_things

# The photos of a page.
_PAGE = 20
# How often a person dislikes photos of one ranking, one after the other.
_DISLIKED = 3


def measure_clicks(matcher: Matcher, task: Task) -> Evaluation:
    """Measures a search by a sketch as one thing, and after one further action of a person.

    Of the sketches that were drawn from a photo, those whose photo is not first already count. The person likes the
    best photo of the right kind that is not the drawn one, dislikes the first one or three that are not it, or the
    first of another kind, types the word of the kind, or presses a guess if it is right. The liked photo comes first.

    Raises ModelError for a checkpoint without diffusion or without a vocabulary, and if no sketch counts.
    """
    if matcher.calibration.diffusion is None or not matcher.words:
        raise ModelError(
            f"this checkpoint ({matcher.config.name}) has no diffusion or no vocabulary, which clicks need"
        )
    gallery = gallery_of(encode_pictures(matcher, task.corpus.photos, "photo"), matcher)
    targets, relevant = find_drawn_photos(task.corpus), relevance(task.corpus)
    rows, counting = list[dict[str, dict[str, float]]](), list[int]()
    for row, picture in enumerate(tqdm(task.corpus.sketches, desc="clicking", unit="sketch", disable=None)):
        drawing = matcher.preprocessing.drawing(matcher.open(picture.path, "sketch"))
        things = encode_things(matcher, drawing, variants=None)
        search = partial(search_things, gallery, matcher, things, _PAGE)
        drawn, target = search(), int(targets[row])
        if target < 0 or drawn.photos.ids[0] == target:
            continue
        right = relevant[row].copy()
        right[target] = True
        number = matcher.book.of_class(picture.label)
        word = None if number is None else matcher.words[number]
        clicks = _after_clicks(search, drawn, target, right, word)
        is_guess = word in [guess.word for guess in matcher.guesses(things[0].tokens)]
        clicks["a right guess"] = clicks["the word" if is_guess else "the drawing"]
        rows.append(clicks)
        counting.append(row)
    if not rows:
        raise ModelError("no sketch was drawn from one of the photos without finding it first already")
    per_query: PerQuery = {
        click: {name: np.array([row[click][name] for row in rows]) for name in figures}
        for click, figures in rows[0].items()
    }
    return Evaluation.of(task.corpus, tuple(task.corpus.sketches[row] for row in counting), per_query, {})


def _after_clicks(
    search: Callable[..., Ranking], drawn: Ranking, target: int, right: NDArray[np.bool_], word: str | None
) -> dict[str, dict[str, float]]:
    """Returns the figures of each click. drawn: the ranking by the drawing. right: (p,) photos of the drawn kind."""
    figures = partial(_figures, target=target, right=right)
    others = drawn.photos[drawn.photos.ids != target]
    of_kind, not_of_kind = others[right[others.ids]], others[~right[others.ids]]
    return {
        "the drawing": figures(drawn),
        "+": figures(search(liked=of_kind[:1]), liked=1) if len(of_kind) else figures(drawn),
        "-": figures(search(unliked=others[:1])),
        f"- {_DISLIKED} times": figures(search(unliked=others[:_DISLIKED])),
        "- another kind": figures(search(unliked=not_of_kind[:1])),
        "the word": figures(drawn if word is None else search(text=word)),
    }


def _figures(ranking: Ranking, target: int, right: NDArray[np.bool_], liked: int = 0) -> dict[str, float]:
    """Returns the figures of one ranking, whose first photos are liked."""
    ids = ranking.photos.ids
    page, of_kind = ids[:_PAGE], ids[liked:][right[ids[liked:]]]
    return {
        f"gallery_acc_{_PAGE}": float(target in page),
        "acc_1": float(target in of_kind[:1]),
        "acc_5": float(target in of_kind[:5]),
        "precision_20": float(right[page].sum() / min(_PAGE, right.sum())),
        "lost": float(any(target in hidden.copies for hidden in ranking.hidden)),
    }
