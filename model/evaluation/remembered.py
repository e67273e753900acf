"""Measures searches for a remembered photo, by a drawing of its scene or in its colours."""

from dataclasses import replace
from typing import TypeAlias

import numpy as np
from PIL import Image
from tqdm import tqdm

from sketch_search.model.datasets import Drawn, Picture, Remembered, RememberedTask
from sketch_search.model.engine import Floats
from sketch_search.model.errors import ModelError
from sketch_search.model.evaluation.figures import ALL, Evaluation, PerQuery, relevance
from sketch_search.model.evaluation.scoring import encode_pictures
from sketch_search.model.images import Drawing, find_ink, lab, open_image
from sketch_search.model.matcher import Matcher
from sketch_search.model.metrics import first_page, target_ranks
from sketch_search.model.search import Places, gallery_of, search_drawing

Colour: TypeAlias = tuple[int, ...]
#: The coloured pens of the page, as sRGB.
PENS = (
    (0x7A, 0x4A, 0x2B),
    (0xC8, 0x32, 0x2B),
    (0xE0, 0x82, 0x14),
    (0xE8, 0xC1, 0x1C),
    (0x2E, 0x8B, 0x57),
    (0x26, 0x66, 0xB8),
    (0x7B, 0x4F, 0xA3),
)
# Things of less chroma count as colourless.
_LEAST_CHROMA = 20.0
# Pixels of the paper's sides.
_PAPER = 512
# The photos of a page.
_PAGE = 20
# Drawings of one query by the way to draw and to search, each with whether places count.
_Drawings: TypeAlias = dict[str, tuple[Drawing, Places]]


def measure_remembered(matcher: Matcher, task: RememberedTask) -> Evaluation:
    """Measures the rank of the remembered photo, by each way to draw it: the mean of its draws.

    Raises ModelError for a checkpoint without regions, or if nothing can be drawn.
    """
    photos = encode_pictures(matcher, task.photos, "photo")
    if photos.regions is None:
        raise ModelError(
            f"this checkpoint ({matcher.config.name}) has no regions; add them with sketch-search model regions"
        )
    gallery = gallery_of(photos, matcher)
    asked, scores = list[Remembered](), dict[str, list[Floats]]()
    for query in tqdm(task.queries, desc="searching", unit="photo", disable=None):
        drawings = _scene(matcher, query) if task.protocol == "scenes" else _coloured(matcher, task, query)
        for way, (drawing, places) in drawings.items():
            ranking = search_drawing(gallery, matcher, drawing, _PAGE, places)
            scores.setdefault(way, []).append(ranking.scores(len(photos)))
        if drawings:
            asked.append(query)
    if not asked:
        raise ModelError(f"nothing of the photos can be drawn for --protocol {task.protocol}")
    return _figures(replace(task, queries=tuple(asked)), {way: np.stack(rows) for way, rows in scores.items()})


def _scene(matcher: Matcher, query: Remembered) -> _Drawings:
    drawing, papers = matcher.preprocessing.drawing, [on_paper(thing) for thing in query.things]
    together = Image.fromarray(np.minimum.reduce([np.asarray(paper) for paper in papers]))
    apart = Drawing.joined([drawing(paper, split=False) for paper in papers])
    return {
        "things apart": (apart, "auto"),
        "things apart, places=no": (apart, "no"),
        "one picture": (drawing(together, split=True), "auto"),
        "one picture, things=one": (drawing(together, split=False), "auto"),
    }


def _coloured(matcher: Matcher, task: RememberedTask, query: Remembered) -> _Drawings:
    """Returns an empty list for a colourless thing."""
    (thing,) = query.things
    exact = colour_of(task.photos[query.photo], thing)
    seen = lab(np.array(exact) / 255)
    if np.linalg.norm(seen[1:]) < _LEAST_CHROMA:
        return {}
    nearest = PENS[int(np.linalg.norm(lab(np.array(PENS) / 255) - seen, axis=1).argmin())]
    return {
        way: (matcher.preprocessing.drawing(on_paper(thing, pen), split=False), "auto")
        for way, pen in (("black pen", (0, 0, 0)), ("nearest pen", nearest), ("exact colour", exact))
    }


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
        found = {f"gallery_acc_{k}": (ranks[way] < k).astype(np.float64) for k in (1, _PAGE)}
        if task.protocol == "colours":
            relevant = relevance(corpus)
            among = target_ranks(of_way, targets, relevant)
            found["kind_before"] = among / np.maximum(relevant.sum(axis=1) - 1, 1)
            found["precision_10"] = first_page(of_way, relevant)["precision_10"]
        # The draws of one photo are not independent of each other, so intervals need their mean.
        per_query[way] = {name: values.reshape(task.draws, -1).mean(axis=0) for name, values in found.items()}
    once = task.queries[: len(task.queries) // task.draws]
    figures = Evaluation.of(corpus, tuple(query.things[0].sketch for query in once), per_query, {})
    for way, of_query in ranks.items():
        figures.figures[way][ALL]["median_rank"] = float(np.median(of_query)) + 1
    return figures
