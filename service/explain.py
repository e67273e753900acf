"""Explains why photos match a sketch, as the answer of POST /explain and as files, and finds where they show things."""

import base64
import io
import json
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from sketch_search.indexer import PhotoEntry
from sketch_search.model import Matcher, PairExplanation, search
from sketch_search.model.decoding import Job, RunJob, decode_inline
from sketch_search.model.engine import Floats, Method, Modality, Observed, Tokens
from sketch_search.model.explanation import compare_photos
from sketch_search.model.files import MARK, write_files
from sketch_search.model.images import Drawing, Pixels, as_png, hexadecimal
from sketch_search.model.limits import Compute, compute_at_once
from sketch_search.model.search import Ids, PhotoRows, Query, Scores, best_first, encode_things, gallery_of, query_of
from sketch_search.model.things import Thing
from sketch_search.model.words import UnknownWord
from sketch_search.service.errors import BadSearch
from sketch_search.service.gallery import as_unavailable
from sketch_search.service.schemas import explain as answers
from sketch_search.service.schemas.search import DetectedBox
from sketch_search.service.search import Searcher, check_names
from sketch_search.service.settings import Settings
from sketch_search.service.sharding import IndexedGallery

# Matches shown in a picture, strongest first, each in its colour.
_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4")
_GAP = 8
_JPEG_QUALITY = 90


def check_compared(sketch: Drawing | None, params: answers.LocateParams, *, text_will_do: bool = False) -> None:
    """Raises BadSearch unless there is one picture to compare photos with, or words if these will do."""
    if sketch is None and params.like is None and not (text_will_do and params.text):
        raise BadSearch(f"The query is empty: send a sketch, or set like{' or text' if text_will_do else ''}.")
    if sketch is not None and params.like is not None:
        raise BadSearch("Both a picture and a photo to compare with, in like, were sent: leave one of them out.")


def locate(
    searcher: Searcher, sketch: Drawing | None, params: answers.LocateParams, compute: Compute = compute_at_once
) -> answers.LocateResponse:
    """Finds where photos show each thing of a sketch, or that ``text`` alone names; or a photo, sent or in ``like``.

    It reads no photo, and encodes a drawing of one thing once. Arguments and errors are those of ``explain``.
    """
    start, gallery, settings = time.perf_counter(), searcher.gallery, searcher.settings
    check_compared(sketch, params, text_will_do=True)
    entries = _entries_of(gallery, params)
    rows = gallery.rows_of_ids([entry.id for entry in entries])
    things, places, words = list[Thing](), 0.0, params.thing_text
    if not gallery.regions_kept or searcher.matcher.engine.projection is None:
        pass
    elif sketch is None and params.like is not None:
        things = [Thing(Tokens.of_ret(gallery.vectors(gallery.rows_of_ids([params.like]))))]
    elif sketch is None:
        direction, named = searcher.matcher.word_direction, _words_by_name(searcher, [params.text or ""])
        things = [Thing(Tokens.of_ret(direction(words)[None]), words=words, name=name) for name, words in named.items()]
    elif params.kind == "photo":
        things = compute(lambda: encode_things(searcher.matcher, sketch, "photo", colours=False))
    else:
        things, query, words = _query_of(searcher, sketch, params, compute)
        places = query.places
    shown: Sequence[tuple[answers.ShownThing, ...]] = [()] * len(entries)
    unseen: Sequence[tuple[str, ...]] = [()] * len(entries)
    if things:
        shown = compute(lambda: _find_things(searcher.matcher, gallery, rows, things, places))
        unseen = compute(lambda: _find_lacking(searcher, (*words, params.text or ""), rows))
    return answers.LocateResponse(
        things=tuple(map(searcher.describe_thing, things)),
        region_grid=math.isqrt(gallery.regions_kept) if things else None,
        photos=[
            answers.LocatedPhoto.of(entry, settings, things=of_photo, unseen=lacking)
            for entry, of_photo, lacking in zip(entries, shown, unseen, strict=True)
        ],
        total_ms=_milliseconds(start, time.perf_counter()),
        generation=gallery.generation,
        model=searcher.matcher.config.name,
    )


def _entries_of(gallery: IndexedGallery, params: answers.LocateParams) -> list[PhotoEntry]:
    """Returns the photos to compare: ids of equal files name one photo."""
    return [*{entry.id: entry for entry in gallery.photos(params.photo)}.values()]


def _query_of(
    searcher: Searcher, sketch: Drawing, params: answers.LocateParams, compute: Compute
) -> tuple[list[Thing], Query, tuple[str, ...]]:
    """Returns the named things of a drawing, its query, and the words for them."""
    matcher, gallery, coloured = searcher.matcher, searcher.gallery, params.colours == "auto"
    drawing = compute(lambda: searcher.divide(sketch, params))
    words = params.thing_text or drawing.words
    check_names(words, len(drawing.things))
    things = compute(lambda: encode_things(matcher, drawing, colours=coloured, expects=gallery.expects))
    naming: dict[str, Any] = {"places": params.places, "coloured": coloured, "further": False}
    method: Method = "things" if len(things) > 1 else "ret"
    text, naming["thing_text"], _ = searcher.choose_meanings(things, params.text, words)
    named, query = query_of(gallery, matcher, things, method, text=text, **naming)
    return named, query, words


def _find_things(
    matcher: Matcher, gallery: search.Gallery, rows: PhotoRows, things: Sequence[Thing], places: float
) -> list[tuple[answers.ShownThing, ...]]:
    """Finds where each photo shows each thing, how well, and in which colour."""
    bare = [replace(thing, tokens=thing.tokens.without_patches) for thing in things]
    region_query = Query("things", gallery.clusters.mean, things=tuple(bare), places=places, extents=True)
    matched = gallery.matched(region_query, rows)
    cosines = matched.cosines(matcher.thing_directions(bare))
    return [
        tuple(
            answers.ShownThing(
                cell=int(matched.cells[number, photo]),
                cells=tuple(matched.extents[number, photo].nonzero()[0].tolist()),
                detected=DetectedBox.of(matched.boxes[number, photo]),
                cosine=round(float(cosines[number, photo]), 3),
                colour=hexadecimal(colour := matched.colours[number, photo]),
                colour_distance=round(float(thing.colour_distance(colour)), 1) if len(thing.colours) else None,
            )
            for number, thing in enumerate(bare)
        )
        for photo in range(len(rows))
    ]


def _words_by_name(searcher: Searcher, texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Returns the words for each thing that these texts name, by what it is called."""
    named = dict[str, tuple[int, ...]]()
    for text in filter(str.strip, texts):
        with suppress(UnknownWord):
            book = searcher.matcher.book
            reading = book.read(book.choose(text)[0])
            for words, name in zip(reading.things, reading.names, strict=True):
                named[text.strip() if len(reading.things) == 1 else book.called(words, name)] = words
    return named


def _find_lacking(searcher: Searcher, texts: Sequence[str], rows: PhotoRows) -> list[tuple[str, ...]]:
    """Returns, for each photo, which of the things that these texts name it does not show, as far as that is known."""
    if not (named := _words_by_name(searcher, texts)):
        return [()] * len(rows)
    photos, pictures = searcher.gallery.with_parts(rows)
    lacks = searcher.lacks([*named.values()], pictures)
    lacking = np.stack([lacks[:, photos == photo].all(axis=1) for photo in range(len(rows))], axis=1)
    return [tuple(name for name, lacks in zip(named, of_photo, strict=True) if lacks) for of_photo in lacking.T]


class Surroundings:
    """The photos of a gallery around a sketch, or a photo in its place, and around other photos.

    A sketch is compared as in a search by [Ret]: by the cosine of both [Ret], lowered by the photo's prior and where
    guesses and photo disagree. Photos are compared like liked ones, by ``model.ranking.likeness_to``.
    """

    def __init__(self, gallery: IndexedGallery, subject: Tokens, modality: Modality, settings: Settings) -> None:
        self._gallery, self._settings = gallery, settings
        self._ids, scores = gallery.rank_all(subject.without_patches, modality)
        # Scores of a sketch are minus the distances of vectors of length 1, which guesses increase.
        cosines = (1 - scores**2 / 2).clip(-1).astype(np.float32)
        self._cosines: Scores = cosines if modality == "sketch" else scores
        self._order = best_first(self._ids, scores)
        self._ranks = np.empty(len(self._order), np.int64)
        self._ranks[self._order] = np.arange(1, len(self._order) + 1)
        self._by_id = np.argsort(self._ids)

    def rank(self, photo: PhotoEntry) -> int:
        return int(self._ranks[self._ids == photo.id][0])

    def of_subject(self, count: int, excluded: PhotoEntry | None = None) -> list[answers.NearPhoto]:
        """Returns the ``count`` photos nearest to the subject, without ``excluded``, its own photo."""
        first = self._order[: count + 1]
        return self._near(self._ids[first], self._cosines[first], count, excluded)

    def of_photos(
        self, photos: Sequence[Tokens], count: int, excluded: Sequence[PhotoEntry | None]
    ) -> list[list[answers.NearPhoto]]:
        """Returns the photos nearest to each of several photos, batches of one; arguments as for ``of_subject``."""
        nearest = self._gallery.alike(np.concatenate([photo.ret for photo in photos]), count + 1)
        return [self._near(ids, cosines, count, photo) for (ids, cosines), photo in zip(nearest, excluded, strict=True)]

    def _near(self, ids: Ids, cosines: Scores, count: int, excluded: PhotoEntry | None) -> list[answers.NearPhoto]:
        others = np.flatnonzero(ids != excluded.id)[:count] if excluded is not None else np.arange(len(ids))[:count]
        chosen = ids[others]
        ranks = self._ranks[self._by_id[np.searchsorted(self._ids, chosen, sorter=self._by_id)]]
        rows = zip(self._gallery.photos(chosen.tolist()), cosines[others].tolist(), ranks.tolist(), strict=True)
        return [
            answers.NearPhoto.of(entry, self._settings, cosine=round(near, 3), rank=rank) for entry, near, rank in rows
        ]


def explain(
    searcher: Searcher,
    sketch: Drawing | None,
    params: answers.ExplainParams,
    run: RunJob = decode_inline,
    compute: Compute = compute_at_once,
) -> answers.ExplainResponse:
    """Explains why photos match a sketch or a photo, which was sent or is given by ``like``.

    The photos are encoded again, in full precision, so scores may differ from a search's in the third digit. Of a photo
    with parts, that of its pictures is explained which is nearest to a sketch.

    sketch: prepared; with ``kind=photo`` a photo. run: decodes the photos. compute: runs each step that computes:
    reading and decoding photos need no turn. Raises BadSearch without one picture to compare with; UnknownPhoto;
    PhotoUnavailable.
    """
    start, gallery, matcher, settings = time.perf_counter(), searcher.gallery, searcher.matcher, searcher.settings
    encode_photo = partial(_encode_photo, searcher, run, compute)
    check_compared(sketch, params)
    entries = _entries_of(gallery, params)
    liked = None if params.like is None else gallery.photo(params.like)
    if sketch is not None:
        subject, image = _encode(matcher, compute, sketch.whole, params.kind)
    else:
        assert liked is not None
        subject, image, _ = encode_photo(liked)
    modality: Modality = "photo" if sketch is None else params.kind
    photos = [encode_photo(entry, subject.tokens if modality == "sketch" else None) for entry in entries]
    encoded = time.perf_counter()
    compare = compare_photos if modality == "photo" else matcher.compare
    explanations = [compute(partial(compare, subject, photo)) for photo, *_ in photos]
    paired = time.perf_counter()
    around = compute(lambda: Surroundings(gallery, subject.tokens, modality, settings))
    to_given = around.of_subject(params.nearest, excluded=liked)
    to_photos = compute(lambda: around.of_photos([photo.tokens for photo, *_ in photos], params.nearest, entries))
    pictures = [part for *_, part in photos]
    things, in_photos = _things_in_photos(searcher, sketch, params, entries, pictures, compute)
    located = time.perf_counter()
    columns = zip(entries, photos, explanations, to_photos, in_photos, strict=True)
    shown = [
        _describe_photo(seen, pair, around.rank(entry), entry=entry, settings=settings, nearest=near, things=placed)
        for entry, (_, seen, _), pair, near, placed in columns
    ]
    return answers.ExplainResponse(
        grid=matcher.config.grid,
        sketch=image,
        things=tuple(map(searcher.describe_thing, things)),
        region_grid=math.isqrt(gallery.regions_kept) if things else None,
        photos=shown,
        nearest=to_given,
        timings_ms=answers.ExplainTimings(
            encode=_milliseconds(start, encoded),
            pairs=_milliseconds(encoded, paired),
            nearest=_milliseconds(paired, located),
            total=_milliseconds(start, located),
        ),
        method="ret" if modality == "photo" else matcher.best_method,
        generation=gallery.generation,
        model=matcher.config.name,
    )


def _encode(
    matcher: Matcher, compute: Compute, pixels: Pixels, modality: Modality
) -> tuple[Observed, answers.ExplainedImage]:
    prepared = matcher.preprocessing.normalise(pixels)
    observed = compute(lambda: matcher.observe(prepared, modality))
    return observed, _describe_image(pixels, observed, "JPEG" if modality == "photo" else "PNG")


def _encode_photo(
    searcher: Searcher, run: RunJob, compute: Compute, entry: PhotoEntry, subject: Tokens | None = None
) -> tuple[Observed, answers.ExplainedImage, Tokens | None]:
    """Returns also the tokens of the part of the photo that is explained in its place."""
    matcher, most_pixels = searcher.matcher, searcher.settings.max_photo_pixels
    job = Job.preparing(matcher.preprocessing, "photo", most_pixels, parts=subject is not None)
    with as_unavailable(entry):
        opened = run(searcher.gallery.open_photo(entry.id), job)
    pictures, best, part = [*map(np.asarray, (opened.image, *opened.parts))], 0, None
    if subject is not None and opened.parts:
        prepared = np.stack([*map(matcher.preprocessing.normalise, pictures)])
        tokens, ret = compute(lambda: matcher.encode(prepared, "photo")), subject.without_patches
        best = int(compute(lambda: matcher.scores(ret, tokens.without_patches, "ret"))[0].argmax())
        if best:
            part = tokens[[best]]
    return *_encode(matcher, compute, pictures[best], "photo"), part


def _things_in_photos(
    searcher: Searcher,
    sketch: Drawing | None,
    params: answers.ExplainParams,
    entries: Sequence[PhotoEntry],
    parts: Sequence[Tokens | None],
    compute: Compute,
) -> tuple[list[Thing], list[tuple[answers.ShownThing, ...]]]:
    """Returns the things of a sketch, and where each photo, or the part that stands for it, shows them."""
    matcher, gallery = searcher.matcher, searcher.gallery
    if sketch is None or params.kind == "photo" or not gallery.regions_kept:
        return [], [()] * len(entries)
    named, query, _ = _query_of(searcher, sketch, params, compute)
    if not query.things:
        return [], [()] * len(entries)
    rows = gallery.rows_of_ids([entry.id for entry in entries])
    shown = compute(lambda: _find_things(matcher, gallery, rows, query.things, query.places))
    for number, part in enumerate(parts):
        if part is not None:
            alone = gallery_of(part, matcher, 1), np.zeros(1, np.int64)
            (shown[number],) = compute(partial(_find_things, matcher, *alone, query.things, query.places))
    return named, shown


def _describe_image(pixels: Pixels, observed: Observed, file_format: str) -> answers.ExplainedImage:
    attention, out = observed.attention, io.BytesIO()
    Image.fromarray(pixels).save(out, file_format, quality=_JPEG_QUALITY)
    return answers.ExplainedImage(
        image=f"data:image/{file_format.lower()};base64,{base64.b64encode(out.getvalue()).decode()}",
        attention=_round(attention.heads, 4),
        attention_layers=_round(attention.layers, 4),
        kept=[np.flatnonzero(kept).tolist() for kept in attention.kept],
    )


def _describe_photo(
    image: answers.ExplainedImage, explanation: PairExplanation, rank: int, **of_index: Any
) -> answers.ExplainedPhoto:
    crossed = None
    if (aligned := explanation.aligned) is not None:
        # [Ret] is the first token.
        maps = aligned.sketch_to_photo[:, 0, 1:], aligned.photo_to_sketch[:, 0, 1:]
        crossed = answers.CrossAttention(sketch_to_photo=_round(maps[0], 4), photo_to_sketch=_round(maps[1], 4))
    return answers.ExplainedPhoto.of(
        **of_index,
        **dict(image),
        ret_rank=rank,
        relation_score=explanation.relation_score,
        ret_distance=explanation.ret_distance,
        sketch_cells=explanation.sketch_cells.tolist(),
        photo_cells=explanation.photo_cells.tolist(),
        correspondence=_round(explanation.correspondence, 3),
        cross_attention=crossed,
        matches=[
            answers.MatchedCells(sketch_cell=sketch_cell, photo_cell=photo_cell, cosine=round(cosine, 3))
            for sketch_cell, photo_cell, cosine in explanation.matches()
        ],
        influence=[*explanation.influence],
    )


def _round(values: Floats, decimals: int) -> list[list[float]]:
    """Rounds maps (n, ...), each as one list."""
    flat = values.reshape(len(values), math.prod(values.shape[1:])).astype(np.float64)
    rounded: list[list[float]] = np.round(flat, decimals).tolist()
    return rounded


def _milliseconds(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)


def write_explanation(answer: answers.ExplainResponse, out: Path) -> tuple[Path, ...]:
    """Writes ``explanation.json``, ``1.png`` and so on; returns them. Raises UserError for other files there."""
    out.mkdir(parents=True, exist_ok=True)
    document = {"written_by": MARK, **answer.model_dump(mode="json")}
    files = {out / "explanation.json": json.dumps(document, indent=1).encode() + b"\n"}
    sketch = answer.sketch.picture()
    for number, photo in enumerate(answer.photos, 1):
        # If several parts of the sketch match one part of the photo, only the strongest: a frame would hide the others.
        best: dict[int, int] = {}
        for match in photo.matches:
            best.setdefault(match.photo_cell, match.sketch_cell)
        cells = ((sketch_cell, photo_cell) for photo_cell, sketch_cell in best.items())
        files[out / f"{number}.png"] = as_png(side_by_side(sketch, photo, cells, answer.grid))
    write_files(files)
    return tuple(files)


def side_by_side(
    sketch: Image.Image, photo: answers.ExplainedPhoto, cells: Iterable[tuple[int, int]], grid: int
) -> Image.Image:
    """Draws sketch and photo side by side: the strongest pairs of cells of a ``grid`` framed, and things with names."""
    shown, side = photo.picture(), sketch.width
    sheet = Image.new("RGB", (2 * side + _GAP, max(sketch.height, shown.height)), "white")
    sheet.paste(sketch, (0, 0))
    sheet.paste(shown, (side + _GAP, 0))
    draw, cell = ImageDraw.Draw(sheet), side / grid
    for box in filter(None, (thing.detected for thing in photo.things)):
        left, top, right, bottom = (round(share * (side - 1)) for share in box.box)
        name, place = f"{box.kind} {box.certainty:.0%}", (side + _GAP + left + 3, top + 3)
        draw.rectangle((side + _GAP + left, top, side + _GAP + right, bottom), outline="white", width=2)
        draw.rectangle(draw.textbbox(place, name), fill="black")
        draw.text(place, name, "white")
    for pair, colour in zip(cells, _COLOURS, strict=False):
        for left, number in zip((0, side + _GAP), pair, strict=True):
            x, y = left + number % grid * cell, number // grid * cell
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline=colour, width=2)
    return sheet
