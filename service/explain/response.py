"""Why photos of an index match a sketch, or are like a photo: what POST /explain answers, computed without HTTP."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from model import Explanation, Matcher
from model.decoding import RunJob, run_here
from model.explanation import (
    Observed,
    PairInfluence,
    compare,
    compare_photos,
    from_photos,
    influential_pairs,
    observe,
)
from model.images import Pixels
from model.network import Modality
from service.errors import BadSearch
from service.explain.nearest import Near, Surroundings, rebuild_from_gallery
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
    Rebuilt,
    addresses,
)
from service.search import Searcher

# Photos that a sketch is rebuilt from together, as in the paper's Fig. 7a.
TOGETHER = 3
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class EncodedPicture:
    """A picture as the network saw it.

    pixels: (H, W, 3) uint8, prepared. observed: what the encoder made of it, with its attention.
    """

    pixels: Pixels
    observed: Observed
    modality: Modality


@dataclass(frozen=True)
class Pair:
    """A sketch, or another photo, beside a photo, explained, with the most influential token pairs."""

    explanation: Explanation
    influence: tuple[PairInfluence, ...]


def encode_picture(matcher: Matcher, image: Image.Image, modality: Modality) -> EncodedPicture:
    """Prepare and encode one picture. Raises BlankSketch for a sketch without ink."""
    return encode_pixels(matcher, matcher.preprocessing.pixels(image, modality), modality)


def encode_pixels(matcher: Matcher, pixels: Pixels, modality: Modality) -> EncodedPicture:
    """Encode one picture that is prepared, (H, W, 3) uint8."""
    variants = matcher.variants_of(matcher.preprocessing.to_tensor(pixels), modality)
    return EncodedPicture(pixels, observe(matcher.network, variants, modality), modality)


def explain(
    searcher: Searcher,
    sketch: Pixels | None,
    params: ExplainParams,
    *,
    originals: bool,
    gone: Callable[[], bool] = lambda: False,
    run: RunJob = run_here,
) -> ExplainResponse:
    """Explains why the photos asked for match a sketch, or are like a photo that was sent or that ``like`` names.

    The photos are read and encoded anew, in full precision, so scores may differ from a search's in the third digit.

    Args:
        searcher: has the index and the checkpoint, and finds the nearest photos.
        sketch: (H, W, 3) uint8, as it is prepared for the network; with ``kind=photo`` a photo, None with ``like``.
        originals: whether photos have a ``photo_url``.
        gone: whether nobody waits for the answer any more; called while the whole gallery is searched.
        run: decodes the photos.

    Raises:
        BadSearch: there is neither a sketch nor a photo in its place, or both.
        UnknownPhoto: an id that no photo has.
        ClientGone: ``gone`` says so.
        PhotoUnavailable: a photo is gone or has changed since it was indexed.
    """
    start = time.perf_counter()
    index, matcher = searcher.gallery, searcher.matcher
    entries = index.photos(params.photo)
    given = _given(index, matcher, sketch, params, run)
    by_photo = given.modality == "photo"
    photos = [encode_pixels(matcher, prepared(index, matcher, entry, run), "photo") for entry in entries]
    encoded = time.perf_counter()
    explanations = [_compared(matcher, given, photo) for photo in photos]
    compared = time.perf_counter()
    influence = [_influence(matcher, given, photo) for photo in photos]
    weighed = time.perf_counter()
    around = Surroundings(searcher.gallery, given.observed.tokens, given.modality)
    liked = None if params.like is None else index.photo(params.like)
    to_given = around.of_given(params.nearest, own=liked)
    to_photos = [
        around.of_photo(photo.observed.tokens, params.nearest, own=entry)
        for entry, photo in zip(entries, photos, strict=True)
    ]
    found = time.perf_counter()
    rebuilt: list[Rebuilt] = []
    if params.rebuild == "photos":
        rebuilt = rebuilt_from([entry.id for entry in entries], explanations, [photo.pixels for photo in photos])
    elif params.rebuild == "gallery":
        image = rebuild_from_gallery(index, matcher, given.observed.tokens, params.neighbours, gone, run)
        rebuilt = [Rebuilt(source="gallery", photo=None, image=data_url(image, "PNG"))]
    finished = time.perf_counter()
    shown = [
        ExplainedPhoto(
            id=entry.id,
            **addresses(entry.id, originals),
            ret_rank=around.rank(entry),
            nearest=near_photos(index, near, originals),
            **dict(explained_pair(photo, Pair(explanation, pairs))),
        )
        for entry, photo, explanation, pairs, near in zip(
            entries, photos, explanations, influence, to_photos, strict=True
        )
    ]
    return ExplainResponse(
        grid=matcher.config.grid,
        sketch=explained_image(given),
        photos=shown,
        nearest=near_photos(index, to_given, originals),
        rebuilt=rebuilt,
        timings_ms=ExplainTimings(
            encode=_milliseconds(start, encoded),
            pairs=_milliseconds(encoded, compared),
            influence=_milliseconds(compared, weighed),
            nearest=_milliseconds(weighed, found),
            rebuild=_milliseconds(found, finished),
            total=_milliseconds(start, finished),
        ),
        method="ret" if by_photo else matcher.best_method,
        generation=index.generation,
        model=matcher.config.name,
    )


def near_photos(index: Gallery, near: Iterable[Near], originals: bool) -> list[NearPhoto]:
    """Finds photos of the index around a picture, as they are answered."""
    found = list(near)
    entries = index.photos(one.id for one in found)
    return [
        NearPhoto(
            id=one.id,
            paths=entry.paths,
            **addresses(one.id, originals),
            cosine=round(one.cosine, 3),
            rank=one.rank,
        )
        for one, entry in zip(found, entries, strict=True)
    ]


def explain_pair(matcher: Matcher, sketch: EncodedPicture, photo: EncodedPicture) -> Pair:
    """Explains one photo, of an index or not, beside a sketch."""
    return Pair(_compared(matcher, sketch, photo), _influence(matcher, sketch, photo))


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


def _compared(matcher: Matcher, given: EncodedPicture, photo: EncodedPicture) -> Explanation:
    if given.modality == "photo":
        return compare_photos(given.observed, photo.observed)
    return compare(matcher.network, given.observed, photo.observed)


def _influence(matcher: Matcher, given: EncodedPicture, photo: EncodedPicture) -> tuple[PairInfluence, ...]:
    """Finds the pairs of tokens that a score rests on most; none for two photos, whose likeness rests on [Ret]."""
    if given.modality == "photo":
        return ()
    return influential_pairs(matcher.network, given.observed.tokens, photo.observed.tokens)


def explained_image(seen: EncodedPicture) -> ExplainedImage:
    """A picture as it is answered."""
    attention = seen.observed.attention
    return ExplainedImage(
        image=data_url(Image.fromarray(seen.pixels), "JPEG" if seen.modality == "photo" else "PNG"),
        attention=_rounded(attention.heads.flatten(1), 4),
        attention_layers=_rounded(attention.layers.flatten(1), 4),
        kept=[kept.flatten().nonzero()[:, 0].tolist() for kept in attention.kept],
    )


def explained_pair(photo: EncodedPicture, pair: Pair) -> ExplainedPair:
    """Returns a photo beside the sketch, as it is answered."""
    explanation = pair.explanation
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
            for one in pair.influence
        ],
    )


def data_url(image: Image.Image, kind: str) -> str:
    """Returns a picture as a data URL; kind: "PNG" or "JPEG"."""
    out = io.BytesIO()
    image.save(out, kind, **({"quality": _JPEG_QUALITY} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def rebuilt_from(ids: Sequence[int], explanations: list[Explanation], squares: list[Pixels]) -> list[Rebuilt]:
    """Puts the sketch together from each photo by itself, and from the first three together if there are several."""
    found = [
        Rebuilt(source="photo", photo=photo, image=data_url(from_photos([explanation], [square]), "PNG"))
        for photo, explanation, square in zip(ids, explanations, squares, strict=True)
    ]
    if len(ids) > 1:
        together = from_photos(explanations[:TOGETHER], squares[:TOGETHER])
        found.append(Rebuilt(source="photos", photo=None, image=data_url(together, "PNG")))
    return found


def _rounded(values: torch.Tensor, decimals: int) -> list[list[float]]:
    rounded: list[list[float]] = np.round(values.double().numpy(), decimals).tolist()
    return rounded


def _milliseconds(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
