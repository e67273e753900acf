"""Why photos of an index match a sketch, or are like a photo: what POST /explain answers, computed without HTTP."""

from __future__ import annotations

import base64
import io
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model import Explanation, Matcher
from model.decoding import RunJob, run_here
from model.engine import Floats, Modality, Observed
from model.explanation import compare_photos
from model.images import Pixels
from service.errors import BadSearch
from service.explain.nearest import Near, Surroundings
from service.gallery import Gallery
from service.photos import prepared
from service.schemas import (
    CrossAttention,
    ExplainedImage,
    ExplainedPair,
    ExplainedPhoto,
    ExplainParams,
    ExplainResponse,
    ExplainTimings,
    InfluentialPair,
    MatchedCells,
    NearPhoto,
    addresses,
)
from service.search import Searcher

_JPEG_QUALITY = 90


@dataclass(frozen=True)
class EncodedPicture:
    """A picture as the network saw it.

    pixels: (H, W, 3) uint8, prepared. observed: what the encoder made of it, with its attention.
    """

    pixels: Pixels
    observed: Observed
    modality: Modality


def encode_picture(matcher: Matcher, image: Image.Image, modality: Modality) -> EncodedPicture:
    """Prepare and encode one picture. Raises BlankSketch for a sketch without ink."""
    return encode_pixels(matcher, matcher.preprocessing.pixels(image, modality), modality)


def encode_pixels(matcher: Matcher, pixels: Pixels, modality: Modality) -> EncodedPicture:
    """Encode one picture that is prepared, (H, W, 3) uint8."""
    return EncodedPicture(pixels, matcher.observe(matcher.preprocessing.normalised(pixels), modality), modality)


def explain(
    searcher: Searcher,
    sketch: Pixels | None,
    params: ExplainParams,
    *,
    originals: bool,
    run: RunJob = run_here,
) -> ExplainResponse:
    """Explains why the photos asked for match a sketch, or are like a photo that was sent or that ``like`` names.

    The photos are read and encoded anew, in full precision, so scores may differ from a search's in the third digit.

    Args:
        searcher: has the index and the checkpoint, and finds the nearest photos.
        sketch: (H, W, 3) uint8, as it is prepared for the network; with ``kind=photo`` a photo, None with ``like``.
        originals: whether photos have a ``photo_url``.
        run: decodes the photos.

    Raises:
        BadSearch: there is neither a sketch nor a photo in its place, or both.
        UnknownPhoto: an id that no photo has.
        PhotoUnavailable: a photo is gone or has changed since it was indexed.
    """
    start = time.perf_counter()
    index, matcher = searcher.gallery, searcher.matcher
    entries = index.photos(params.photo)
    given = _given(index, matcher, sketch, params, run)
    by_photo = given.modality == "photo"
    photos = [encode_pixels(matcher, prepared(index, matcher, entry, run), "photo") for entry in entries]
    encoded = time.perf_counter()
    explanations = [compared(matcher, given, photo) for photo in photos]
    paired = time.perf_counter()
    around = Surroundings(searcher.gallery, given.observed.tokens, given.modality)
    liked = None if params.like is None else index.photo(params.like)
    to_given = around.of_given(params.nearest, own=liked)
    to_photos = around.of_photos([photo.observed.tokens for photo in photos], params.nearest, entries)
    found = time.perf_counter()
    shown = [
        ExplainedPhoto(
            id=entry.id,
            **addresses(entry.id, entry.content_hash, originals),
            ret_rank=around.rank(entry),
            nearest=near_photos(index, near, originals),
            **dict(explained_pair(photo, explanation)),
        )
        for entry, photo, explanation, near in zip(entries, photos, explanations, to_photos, strict=True)
    ]
    return ExplainResponse(
        grid=matcher.config.grid,
        sketch=explained_image(given),
        photos=shown,
        nearest=near_photos(index, to_given, originals),
        timings_ms=ExplainTimings(
            encode=_milliseconds(start, encoded),
            pairs=_milliseconds(encoded, paired),
            nearest=_milliseconds(paired, found),
            total=_milliseconds(start, found),
        ),
        method="ret" if by_photo else matcher.best_method,
        generation=index.generation,
        model=matcher.config.name,
    )


def near_photos(index: Gallery, near: Iterable[Near], originals: bool) -> list[NearPhoto]:
    """Finds photos of the index around a picture, as they are answered."""
    found = list(near)
    entries = index.photos([one.id for one in found])
    return [
        NearPhoto(
            id=one.id,
            paths=entry.paths,
            **addresses(one.id, entry.content_hash, originals),
            cosine=round(one.cosine, 3),
            rank=one.rank,
        )
        for one, entry in zip(found, entries, strict=True)
    ]


def _given(
    index: Gallery, matcher: Matcher, sketch: Pixels | None, params: ExplainParams, run: RunJob
) -> EncodedPicture:
    """Returns what the photos are compared with: the sketch or photo that was sent, or the liked photo."""
    if params.like is None:
        if sketch is None:
            raise BadSearch("There is nothing to compare the photos with: send a sketch, or name a photo with like.")
        return encode_pixels(matcher, sketch, params.kind)
    if sketch is not None:
        raise BadSearch("like names a photo to compare with, and a picture was sent, too: leave one of them out.")
    return encode_pixels(matcher, prepared(index, matcher, index.photo(params.like), run), "photo")


def compared(matcher: Matcher, given: EncodedPicture, photo: EncodedPicture) -> Explanation:
    """Explains one photo, of an index or not, beside a sketch or another photo."""
    if given.modality == "photo":
        return compare_photos(given.observed, photo.observed)
    return matcher.compare(given.observed, photo.observed)


def explained_image(seen: EncodedPicture) -> ExplainedImage:
    """A picture as it is answered."""
    attention = seen.observed.attention
    return ExplainedImage(
        image=data_url(Image.fromarray(seen.pixels), "JPEG" if seen.modality == "photo" else "PNG"),
        attention=_rounded(attention.heads, 4),
        attention_layers=_rounded(attention.layers, 4),
        kept=[np.flatnonzero(kept).tolist() for kept in attention.kept],
    )


def explained_pair(photo: EncodedPicture, explanation: Explanation) -> ExplainedPair:
    """Returns a photo beside the sketch, as it is answered."""
    crossed = None
    if explanation.ret_to_photo is not None and explanation.ret_to_sketch is not None:
        crossed = CrossAttention(
            sketch_to_photo=_rounded(explanation.ret_to_photo, 4),
            photo_to_sketch=_rounded(explanation.ret_to_sketch, 4),
        )
    return ExplainedPair(
        **dict(explained_image(photo)),
        relation_score=explanation.relation_score,
        ret_distance=explanation.ret_distance,
        sketch_cells=explanation.sketch_cells.tolist(),
        photo_cells=explanation.photo_cells.tolist(),
        correspondence=_rounded(explanation.correspondence, 3),
        cross_attention=crossed,
        matches=[
            MatchedCells(sketch_cell=there, photo_cell=here, cosine=round(cosine, 3))
            for there, here, cosine in explanation.matches()
        ],
        influence=[
            InfluentialPair(sketch_cell=one.sketch_cell, photo_cell=one.photo_cell, drop=one.drop)
            for one in explanation.influence
        ],
    )


def data_url(image: Image.Image, kind: str) -> str:
    """Returns a picture as a data URL; kind: "PNG" or "JPEG"."""
    out = io.BytesIO()
    image.save(out, kind, **({"quality": _JPEG_QUALITY} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def _rounded(values: Floats, decimals: int) -> list[list[float]]:
    """Rounds maps (n, ...), each as one list."""
    flat = values.reshape(len(values), math.prod(values.shape[1:])).astype(np.float64)
    rounded: list[list[float]] = np.round(flat, decimals).tolist()
    return rounded


def _milliseconds(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
