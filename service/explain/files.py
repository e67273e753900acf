"""An explanation as files: overlays on the sketch and on each photo, and one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from pydantic import BaseModel, Field

from model import Matcher
from model.explanation import SelfAttention, from_photos
from model.images import Pixels
from model.network import Modality
from service.explain.best_photos import NamedPhoto
from service.explain.overlays import (
    RED,
    REGION_COLOURS,
    Tile,
    attention_overlay,
    kept_overlay,
    region_overlay,
    sheet,
)
from service.explain.regions import inked_cells, matched_cells, pinned_regions
from service.explain.response import (
    TOGETHER,
    EncodedPicture,
    Pair,
    encode_picture,
    explain_pair,
    explained_image,
    pair_fields,
)
from service.schemas import ExplainedImage, ExplainedPair

DOCUMENT = "explanation.json"
# With more blocks side by side a screen would show them too small.
MOST_ACROSS = 6


class ExplainedFile(ExplainedPair):
    """A photo beside the sketch, or beside the photo in its place."""

    name: str = Field(description="The path of the photo.")


class ExplainedFiles(BaseModel):
    """What explanation.json holds: as POST /explain answers, of files."""

    grid: int
    sketch: ExplainedImage
    photos: list[ExplainedFile]
    model: str


def write_explanation(
    matcher: Matcher, sketch: Image.Image, photos: Sequence[NamedPhoto], out: Path, modality: Modality = "sketch"
) -> tuple[Path, ...]:
    """Explain why photos match a sketch, or are like a photo, into a folder that is made if need be.

    Writes ``explanation.json``; ``sketch.png`` or ``photo.png`` and, for each photo, ``1.png`` and so on: attention by
    head and by block, tokens kept; ``matches.png``: the sketch's regions in colours, where each photo matches them, and
    the pair of patches that the relation score rests on most; ``rebuilt.png``: the sketch of the photos' patches.

    Args:
        photos: at least one.
        modality: of ``sketch``: with "photo" it is a photo, and no score rests on pairs of patches.

    Returns the files written. Raises BlankSketch.
    """
    drawn = encode_picture(matcher, sketch, modality)
    seen = [encode_picture(matcher, photo.image, "photo") for photo in photos]
    pairs = [explain_pair(matcher, drawn, photo) for photo in seen]
    out.mkdir(parents=True, exist_ok=True)
    first = pairs[0].explanation
    sheets = {f"{modality}.png": _one_side(drawn, first.ret_to_sketch, first.sketch_cells)}
    for number, (photo, pair) in enumerate(zip(seen, pairs, strict=True), 1):
        sheets[f"{number}.png"] = _one_side(photo, pair.explanation.ret_to_photo, pair.explanation.photo_cells)
    names = [photo.name for photo in photos]
    regions = region_row(drawn, seen, pairs, names, len(REGION_COLOURS))
    sheets["matches.png"] = sheet([regions, *influence_rows(drawn, seen, pairs)])
    sheets["rebuilt.png"] = sheet([rebuilt_row(drawn, seen, pairs)])
    for name, image in sheets.items():
        image.save(out / name)
    document = ExplainedFiles(
        grid=matcher.config.grid,
        sketch=explained_image(drawn, "PNG" if modality == "sketch" else "JPEG"),
        photos=[
            ExplainedFile(name=name, **pair_fields(photo, pair))
            for name, photo, pair in zip(names, seen, pairs, strict=True)
        ],
        model=matcher.config.name,
    )
    (out / DOCUMENT).write_text(document.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return tuple(out / name for name in (*sheets, DOCUMENT))


def head_row(square: Pixels, attention: SelfAttention) -> list[Tile]:
    """A prepared square, and [Ret]'s attention in the last block by head (Fig. 5)."""
    tiles = [Tile(Image.fromarray(square), "what the network sees")]
    return tiles + [Tile(attention_overlay(square, head), f"head {n}") for n, head in enumerate(attention.heads, 1)]


def kept_row(square: Pixels, attention: SelfAttention) -> list[Tile]:
    """A prepared square, and the tokens kept at each selection (Fig. 4)."""
    tiles = [Tile(Image.fromarray(square), f"all {attention.heads[0].numel()} tokens")]
    for number, kept in enumerate(attention.kept, 1):
        tiles.append(Tile(kept_overlay(square, kept), f"selection {number}: {int(kept.sum())} tokens"))
    return tiles


def region_row(
    sketch: EncodedPicture, photos: Sequence[EncodedPicture], pairs: Sequence[Pair], names: Sequence[str], count: int
) -> list[Tile]:
    """A sketch's pinned regions in colours, and what matches them in each photo (Fig. 6); or those of a photo."""
    grid = pairs[0].explanation.grid
    # A photo is something everywhere, a sketch where its strokes are.
    cells = inked_cells(sketch.pixels, grid) if sketch.modality == "sketch" else range(grid * grid)
    pinned = pinned_regions([pair.explanation for pair in pairs], cells, count)
    regions = dict(zip(REGION_COLOURS, pinned, strict=False))
    tiles = [Tile(region_overlay(sketch.pixels, regions, grid), f"parts of the {sketch.modality}")]
    for photo, pair, name in zip(photos, pairs, names, strict=True):
        matched = {colour: matched_cells(pair.explanation, region) for colour, region in regions.items()}
        tiles.append(Tile(region_overlay(photo.pixels, matched, grid), name))
    return tiles


def influence_rows(sketch: EncodedPicture, photos: Sequence[EncodedPicture], pairs: Sequence[Pair]) -> list[list[Tile]]:
    """For each photo whose score hangs on pairs of tokens, the most influential one on both pictures (Fig. 8b)."""
    rows = []
    for photo, pair in zip(photos, pairs, strict=True):
        if pair.influence:
            first, grid = pair.influence[0], pair.explanation.grid
            said = f"score without it: {_percent(-first.drop)}"
            rows.append(
                [
                    Tile(region_overlay(sketch.pixels, {RED: [first.sketch_cell]}, grid), "most influential pair"),
                    Tile(region_overlay(photo.pixels, {RED: [first.photo_cell]}, grid), said),
                ]
            )
    return rows


def rebuilt_row(sketch: EncodedPicture, photos: Sequence[EncodedPicture], pairs: Sequence[Pair]) -> list[Tile]:
    """A sketch, and what it is when rebuilt of patches of each photo, and of the first three together (Fig. 7a)."""
    explanations, squares = [pair.explanation for pair in pairs], [photo.pixels for photo in photos]
    tiles = [Tile(Image.fromarray(sketch.pixels), sketch.modality)]
    for number, (explanation, square) in enumerate(zip(explanations, squares, strict=True), 1):
        tiles.append(Tile(from_photos([explanation], [square]), f"of photo {number}"))
    if len(photos) > 1:
        together = from_photos(explanations[:TOGETHER], squares[:TOGETHER])
        tiles.append(Tile(together, f"of the first {min(len(photos), TOGETHER)}"))
    return tiles


def _percent(share: float) -> str:
    """-12 %, -0.03 %: a whole number, or below one its first digit that is not zero."""
    value = 100 * share
    return f"{value:.0f} %" if abs(value) >= 1 else f"{float(f'{value:.1g}'):g} %"


def _one_side(seen: EncodedPicture, crossed: torch.Tensor | None, cells: torch.Tensor) -> Image.Image:
    attention = seen.observed.attention
    blocks = [Tile(attention_overlay(seen.pixels, m), f"block {n}") for n, m in enumerate(attention.layers, 1)]
    rows = [
        head_row(seen.pixels, attention),
        *(blocks[start : start + MOST_ACROSS] for start in range(0, len(blocks), MOST_ACROSS)),
        kept_row(seen.pixels, attention),
    ]
    if crossed is not None:
        area = attention.heads[0].numel()
        maps = torch.zeros(len(crossed), area).index_copy(1, cells, crossed).reshape(-1, *attention.heads[0].shape)
        rows.append([Tile(attention_overlay(seen.pixels, m), f"other side's head {n}") for n, m in enumerate(maps, 1)])
    return sheet(rows)
