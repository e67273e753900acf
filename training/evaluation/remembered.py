"""Measures searches for a remembered photo, by a drawing of its scene or in its colours, and by the next click."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from sketch_search.model.engine import Floats, Numbers
from sketch_search.model.engine.parting import INK
from sketch_search.model.errors import ModelError
from sketch_search.model.images import Drawing, Stroke, find_ink, lab, open_image
from sketch_search.model.matcher import Matcher
from sketch_search.model.metrics import first_page, target_ranks
from sketch_search.model.search import Gallery, Ranking, encode_things, gallery_of, search_drawing, search_things
from sketch_search.training.corpus import Corpus, Picture, Strokes, draw_strokes, find_drawn_photos
from sketch_search.training.evaluation.figures import ALL, Evaluation, PerQuery, relevance
from sketch_search.training.evaluation.scoring import encode_pictures
from sketch_search.training.tasks import Drawn, Remembered, RememberedTask, Task

Colour: TypeAlias = tuple[int, ...]
#: The coloured pens of the page, as sRGB.
_PENS = "7a4a2b e3ab84 d9c7a0 c8322b e58fb0 e08214 e8c11c 2e8b57 8cc4e8 2666b8 7b4fa3"
PENS = tuple(tuple(bytes.fromhex(pen)) for pen in _PENS.split())
# Things of less chroma count as colourless.
_LEAST_CHROMA = 20.0
# Pixels of the paper's sides.
_PAPER = 512
# The photos of a page.
_PAGE = 20
# How often a person dislikes photos of one ranking, one after the other.
_DISLIKED = 3
# The box of a thing alone, the width of strokes, as a share of the paper's side, and how often one comes last.
_ALONE, _PEN, _LATE = (0.1, 0.1, 0.9, 0.9), 0.012, 0.25
_APART, _ONE_PICTURE = "things apart", "one picture"


def measure_remembered(matcher: Matcher, task: RememberedTask) -> Evaluation:
    """Measures the photo's rank by each way to draw it, the mean of draws. Raises ModelError without regions."""
    photos = encode_pictures(matcher, task.photos, "photo", boxes=True)
    if photos.regions is None:
        raise ModelError(
            f"this checkpoint ({matcher.config.name}) has no regions; add them with python -m training regions"
        )
    gallery = gallery_of(photos, matcher)
    queries, scores, divisions = list[Remembered](), dict[str, list[Floats]](), list[tuple[float, ...]]()
    for query in tqdm(task.queries, desc="searching", unit="photo", disable=None):
        if task.protocol == "scenes":
            by_way, division, seconds = _scene(gallery, matcher, task, query)
            divisions.append((*division, 1000 * seconds))
        else:
            by_way = _coloured(gallery, matcher, task, query)
        for way, of_way in by_way.items():
            scores.setdefault(way, []).append(of_way)
        if by_way:
            queries.append(query)
    if not queries:
        raise ModelError(f"nothing of the photos can be drawn for --protocol {task.protocol}")
    figures = _figures(replace(task, queries=tuple(queries)), {way: np.stack(rows) for way, rows in scores.items()})
    if divisions:
        rand, right, milliseconds = np.mean(divisions, axis=0).tolist()
        figures.figures[_ONE_PICTURE][ALL] |= {"rand": rand, "right_number": right}
        figures.figures[_APART][ALL]["cpu_ms"] = milliseconds
    return figures


def _scene(
    gallery: Gallery, matcher: Matcher, task: RememberedTask, query: Remembered
) -> "tuple[dict[str, Floats], Division, float]":
    """Scores all photos by each way to draw a scene, and after one further action of a person.

    Also returns how the picture was divided, and how many seconds of CPU the search for things apart took.
    """
    papers, count = [on_paper(thing) for thing in query.things], len(task.photos)
    encode = partial(encode_things, matcher, expects=gallery.expects)
    apart = encode(Drawing.joined([matcher.preprocessing.drawing(paper) for paper in papers]))
    together, divided, division = divide(matcher, papers)
    search = partial(search_things, gallery, matcher, results=_PAGE)
    start = time.process_time()
    by_drawing = search(apart)
    seconds = time.process_time() - start
    read = [matcher.book.of_class(thing.label) for thing in query.things]
    text = " and ".join(matcher.words[word] for word in dict.fromkeys(read) if word is not None)
    rankings = {
        _APART: by_drawing,
        "words alone": search((), text=text) if text else by_drawing,
        "things apart, places=no": search(apart, places="no"),
        _ONE_PICTURE: search_drawing(gallery, matcher, divided, _PAGE),
        "one picture, things=one": search_drawing(gallery, matcher, together, _PAGE),
    }
    named = query.photo % len(apart)
    word = matcher.book.of_class(query.things[named].label)
    others = [matcher.preprocessing.drawing(paper) for n, paper in enumerate(papers) if n != named]
    drawn = encode(Drawing.joined(others))
    rankings["all but one thing"] = search(drawn)
    rankings["all but one thing, and its word"] = search(drawn, text=None if word is None else matcher.words[word])
    scores = {way: ranking.scores(count) for way, ranking in rankings.items()}
    ranked, before = by_drawing.photos, scores[_APART]
    clicks = {f"things apart, {click}": before for click in ("+, all kinds", "+, some kinds", "a word")}
    # Who sees the photo first does nothing more.
    if ranked.ids[0] == query.photo:
        return scores | clicks, division, seconds
    kinds = {thing.label for thing in query.things}
    shared = np.array([len(kinds & task.kinds[photo]) for photo in ranked.ids])
    shared[ranked.ids == query.photo] = 0
    for way, right in zip(clicks, (shared == len(kinds), (shared > 0) & (shared < len(kinds))), strict=False):
        liked = ranked[np.flatnonzero(right)[:1]]
        if len(liked):
            clicks[way] = search(apart, liked=liked).scores(count)
            # The liked photo itself does not count.
            clicks[way][liked.ids] = -np.inf
    if word is not None:
        apart[named] = replace(apart[named], words=(word,))
        clicks["things apart, a word"] = search(apart).scores(count)
    return scores | clicks, division, seconds


class Division(NamedTuple):
    """How well a drawing was divided: the adjusted Rand index of its ink, and whether there are as many things."""

    rand: float
    right: bool


def divide(matcher: Matcher, papers: Sequence[Image.Image]) -> tuple[Drawing, Drawing, Division]:
    """Draws things, each on a paper of its own, as one picture; returns it, and divided."""
    pixels = np.stack([np.asarray(paper) for paper in papers])
    drawing = matcher.preprocessing.drawing(Image.fromarray(pixels.min(axis=0)))
    labels, _, other = matcher.things_on_square(drawing)
    owners = drawing.owners(255 - pixels[..., 0], len(labels))
    return drawing, drawing.divide(labels, other=other), _division(drawing, labels, owners, len(papers))


def _division(drawing: Drawing, labels: Numbers, owners: Numbers, things: int) -> Division:
    from sklearn.metrics import adjusted_rand_score

    ink = drawing.darkness(len(labels)) >= INK
    rand = float(adjusted_rand_score(owners[ink], labels[ink]))
    return Division(rand, int(labels.max(initial=0)) + 1 == things)


def measure_parting(matcher: Matcher, task: RememberedTask, drawings: Sequence[Strokes] = ()) -> Evaluation:
    """Divides the drawings of remembered scenes, and the sketches of their things alone, each once: see ``Division``.

    drawings: as many of these are also drawn stroke by stroke, in the places of the scenes' things and alone.
    """
    sketches = dict.fromkeys(thing.sketch for query in task.queries for thing in query.things)
    drawn = [*(query.things for query in task.queries), *((Drawn(sketch, _ALONE),) for sketch in sketches)]
    progress, chance = partial(tqdm, desc="dividing", unit="drawing", disable=None), np.random.default_rng(0)
    ways = {"ink": [divide(matcher, [on_paper(thing) for thing in things])[2] for things in progress(drawn)]}
    if drawings:
        boxes = ([thing.box for thing in things] for things in progress(drawn))
        strokes = (stroke_by_stroke(of_things, drawings, chance) for of_things in boxes)
        ways["stroke by stroke"] = [_divide_strokes(matcher, drawing) for drawing in strokes]
    figures = {way: np.array(divisions, np.float64).T for way, divisions in ways.items()}
    per_query: PerQuery = {way: {"rand": rand, "right_number": right} for way, (rand, right) in figures.items()}
    first, alone = tuple(things[0].sketch for things in drawn), np.array([len(things) == 1 for things in drawn])
    return Evaluation.of(Corpus(first), first, per_query, {"scenes": ~alone, "one thing": alone})


def stroke_by_stroke(
    boxes: Sequence[tuple[float, ...]], drawings: Sequence[Strokes], chance: np.random.Generator
) -> list[tuple[NDArray[np.float64], int]]:
    """Draws one of the drawings in each box, one after the other: strokes (n, 2) on the paper, and the box of each.

    In one of four, a stroke is drawn after all others.
    """
    strokes = list[tuple[NDArray[np.float64], int]]()
    for thing in chance.permutation(len(boxes)).tolist():
        drawing, box = drawings[int(chance.integers(len(drawings)))], np.array(boxes[thing]).reshape(2, 2)
        low, high = (of(np.concatenate(drawing), axis=0) for of in (np.min, np.max))
        scale = ((box[1] - box[0]) / np.maximum(high - low, 1)).min()
        strokes += [(box.mean(axis=0) + scale * (points - (low + high) / 2), thing) for points in drawing]
    if chance.random() < _LATE:
        strokes.append(strokes.pop(int(chance.integers(len(strokes)))))
    return strokes


def _divide_strokes(matcher: Matcher, strokes: Sequence[tuple[NDArray[np.float64], int]]) -> Division:
    paper = draw_strokes([points * _PAPER for points, _ in strokes], round(_PEN * _PAPER)).convert("RGB")
    drawn = tuple(Stroke(tuple(map(tuple, points.tolist())), _PEN) for points, _ in strokes)
    drawing = replace(matcher.preprocessing.drawing(paper), strokes=drawn)
    labels, *_ = matcher.things_on_square(drawing)
    owners = drawing.stroke_map(len(labels))
    assert owners is not None
    things = np.array([thing for _, thing in strokes] + [-1])
    return _division(drawing, labels, things[owners], len({*things.tolist()}) - 1)


def _coloured(gallery: Gallery, matcher: Matcher, task: RememberedTask, query: Remembered) -> dict[str, Floats]:
    """Scores all photos by each pen; an empty dict for a colourless thing."""
    (thing,) = query.things
    scores = dict[str, Floats]()
    for way, pen in pens_of(task.photos[query.photo], thing).items():
        drawn = encode_things(matcher, matcher.preprocessing.drawing(on_paper(thing, pen)), variants=None)
        search = partial(search_things, gallery, matcher, drawn, _PAGE)
        scores |= {way: search().scores(len(task.photos)), f"{way}, places=no": search("no").scores(len(task.photos))}
    return scores


def pens_of(photo: Picture, thing: Drawn) -> dict[str, Colour]:
    """Returns the pens to draw a thing of a photo with; none for a colourless thing."""
    exact = colour_of(photo, thing)
    seen = lab(np.array(exact) / 255)
    if np.linalg.norm(seen[1:]) < _LEAST_CHROMA:
        return {}
    nearest = PENS[int(np.linalg.norm(lab(np.array(PENS) / 255) - seen, axis=1).argmin())]
    return {"black pen": (0, 0, 0), "nearest pen": nearest, "exact colour": exact}


def colour_of(photo: Picture, thing: Drawn) -> Colour:
    """Finds the mean colour, as sRGB, of the middle of a thing's box: half of its width and height."""
    picture = open_image(photo.path)
    left, top, right, bottom = np.array(thing.box) * (*picture.size, *picture.size)
    across, down = (right - left) / 4, (bottom - top) / 4
    middle = picture.resize((1, 1), Image.Resampling.BOX, (left + across, top + down, right - across, bottom - down))
    return tuple(np.asarray(middle)[0, 0].tolist())


def on_paper(thing: Drawn, pen: Colour = (0, 0, 0)) -> Image.Image:
    """Draws the sketch of a thing by a pen (sRGB) on white paper: its ink as large as the box allows, in its middle."""
    darkness, (top, bottom, left, right) = find_ink(open_image(thing.sketch.path, sketch=True))
    ink = Image.fromarray(darkness[top:bottom, left:right])
    x, y, end, low = (_PAPER * share for share in thing.box)
    scale = min((end - x) / ink.width, (low - y) / ink.height)
    size = max(1, round(ink.width * scale)), max(1, round(ink.height * scale))
    paper = Image.new("RGB", (_PAPER, _PAPER), "white")
    place = round((x + end - size[0]) / 2), round((y + low - size[1]) / 2)
    paper.paste(pen, place, ink.resize(size, Image.Resampling.LANCZOS))
    return paper


def _figures(task: RememberedTask, scores: dict[str, Floats]) -> Evaluation:
    corpus, targets = task.corpus, np.array([query.photo for query in task.queries])
    per_query: PerQuery = {}
    ranks = {way: target_ranks(of_way, targets) for way, of_way in scores.items()}
    for way, of_way in scores.items():
        columns = {f"gallery_acc_{k}": (ranks[way] < k).astype(np.float64) for k in (1, _PAGE)}
        if task.protocol == "colours":
            relevant = relevance(corpus)
            among = target_ranks(of_way, targets, relevant)
            columns["kind_before"] = among / np.maximum(relevant.sum(axis=1) - 1, 1)
            columns["precision_10"] = first_page(of_way, relevant)["precision_10"]
        # The draws of one photo are not independent of each other, so intervals need their mean.
        per_query[way] = {name: values.reshape(task.draws, -1).mean(axis=0) for name, values in columns.items()}
    once = task.queries[: len(task.queries) // task.draws]
    figures = Evaluation.of(corpus, tuple(query.things[0].sketch for query in once), per_query, {})
    for way, of_query in ranks.items():
        figures.figures[way][ALL]["median_rank"] = float(np.median(of_query)) + 1
    return figures


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
    names = {click: list(figures) for click, figures in rows[0].items()}
    per_query: PerQuery = {c: {n: np.array([row[c][n] for row in rows]) for n in of} for c, of in names.items()}
    return Evaluation.of(task.corpus, tuple(task.corpus.sketches[row] for row in counting), per_query, {})


def _after_clicks(
    search: Callable[..., Ranking], drawn: Ranking, target: int, right: NDArray[np.bool_], word: str | None
) -> dict[str, dict[str, float]]:
    """Returns the figures of each click. drawn: the ranking by the drawing. right: (p,) photos of the drawn kind."""
    figures = partial(_figures_of, target=target, right=right)
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


def _figures_of(ranking: Ranking, target: int, right: NDArray[np.bool_], liked: int = 0) -> dict[str, float]:
    """Returns the figures of one ranking, whose first photos are liked."""
    ids = ranking.photos.ids
    page, of_kind = ids[:_PAGE], ids[liked:][right[ids[liked:]]]
    return {
        f"gallery_acc_{_PAGE}": float(target in page),
        "acc_1": float(target in of_kind[:1]),
        "acc_5": float(target in of_kind[:5]),
        "precision_20": float(right[page].sum() / min(_PAGE, right.sum())),
        "lost": float(any(target in photo.copies for photo in ranking.unliked)),
    }
