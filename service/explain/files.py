"""An explanation as files: overlays on the sketch and on each photo, and one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from pydantic import BaseModel, Field

from indexer import PhotoEntry, PhotoUnavailable
from model.explanation import SelfAttention, from_photos
from model.images import Pixels
from model.network import Modality
from service.explain.best_photos import NamedPhoto
from service.explain.overlays import (
    BLUE,
    RED,
    REGION_COLOURS,
    Tile,
    attention_overlay,
    framed,
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
from service.photos import prepared
from service.schemas import ExplainedImage, ExplainedPair
from service.search import Near, SearchedIndex, Searcher

DOCUMENT = "explanation.json"
# With more blocks side by side a screen would show them too small.
MOST_ACROSS = 6
# Photos of the index that are shown beside each picture.
NEAREST = 6


class NearFile(BaseModel):
    """A photo of the index that looks like the sketch, or like a photo; as ``NearPhoto`` has it."""

    name: str
    cosine: float
    rank: int


class ExplainedFile(ExplainedPair):
    """A photo beside the sketch, or beside the photo in its place."""

    name: str = Field(description="The path of the photo.")
    ret_rank: int | None = Field(description="As in ``ExplainedPhoto``; null for a photo that is not in the index.")
    nearest: list[NearFile]


class ExplainedFiles(BaseModel):
    """What explanation.json holds: as POST /explain answers, of files."""

    grid: int
    sketch: ExplainedImage
    photos: list[ExplainedFile]
    nearest: list[NearFile]
    model: str


def write_explanation(
    searcher: Searcher,
    sketch: Image.Image,
    photos: Sequence[NamedPhoto],
    out: Path,
    modality: Modality = "sketch",
    own: PhotoEntry | None = None,
) -> tuple[Path, ...]:
    """Explain why photos match a sketch, or are like a photo, into a folder that is made if need be.

    Writes ``explanation.json``; ``sketch.png`` or ``photo.png`` and, for each photo, ``1.png`` and so on: attention by
    head and by block, tokens kept; ``nearest.png``: the photos of the index that look most like the sketch, and like
    each photo, framed where they are in both rows. Networks with patch tokens also get ``matches.png``: the sketch's
    regions in colours, where each photo matches them, and the pair of patches that the relation score rests on most;
    and ``rebuilt.png``: the sketch of the photos' patches.

    Args:
        searcher: has the checkpoint, and finds the nearest photos.
        photos: at least one.
        modality: of ``sketch``: with "photo" it is a photo, and no score rests on pairs of patches.
        own: the photo in the place of the sketch, if the index has it.

    Returns the files written. Raises BlankSketch.
    """
    matcher = searcher.matcher
    drawn = encode_picture(matcher, sketch, modality)
    seen = [encode_picture(matcher, photo.image, "photo") for photo in photos]
    pairs = [explain_pair(matcher, drawn, photo) for photo in seen]
    around = searcher.around(drawn.observed.tokens, modality)
    near_sketch = around.of_given(NEAREST, own)
    near_photos = [
        around.of_photo(photo.observed.tokens, NEAREST, named.entry) for photo, named in zip(seen, photos, strict=True)
    ]
    out.mkdir(parents=True, exist_ok=True)
    first = pairs[0].explanation
    sheets = {f"{modality}.png": _one_side(drawn, first.ret_to_sketch, first.sketch_cells)}
    for number, (photo, pair) in enumerate(zip(seen, pairs, strict=True), 1):
        sheets[f"{number}.png"] = _one_side(photo, pair.explanation.ret_to_photo, pair.explanation.photo_cells)
    names = [photo.name for photo in photos]
    near_any = [one for near in near_photos for one in near]
    rows = [nearest_row(searcher, drawn, "sketch" if modality == "sketch" else "photo", near_sketch, near_any)]
    for photo, name, near in zip(seen, names, near_photos, strict=True):
        rows.append(nearest_row(searcher, photo, name, near, near_sketch))
    sheets["nearest.png"] = sheet(rows)
    if compares_patches(pairs):
        regions = region_row(drawn, seen, pairs, names, len(REGION_COLOURS))
        sheets["matches.png"] = sheet([regions, *influence_rows(drawn, seen, pairs)])
        sheets["rebuilt.png"] = sheet([rebuilt_row(drawn, seen, pairs)])
    for name, image in sheets.items():
        image.save(out / name)
    document = ExplainedFiles(
        grid=matcher.config.grid,
        sketch=explained_image(drawn, "PNG" if modality == "sketch" else "JPEG"),
        photos=[
            ExplainedFile(
                name=photo.name,
                ret_rank=None if photo.entry is None else around.rank(photo.entry),
                nearest=_near_files(searcher.index, near),
                **pair_fields(encoded, pair),
            )
            for photo, encoded, pair, near in zip(photos, seen, pairs, near_photos, strict=True)
        ],
        nearest=_near_files(searcher.index, near_sketch),
        model=matcher.config.name,
    )
    (out / DOCUMENT).write_text(document.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return tuple(out / name for name in (*sheets, DOCUMENT))


def compares_patches(pairs: Sequence[Pair]) -> bool:
    """Whether the network matches patches of a sketch with patches of photos."""
    return any(pair.explanation.correspondence.numel() for pair in pairs)


def nearest_row(
    searcher: Searcher, shown: EncodedPicture, name: str, near: Sequence[Near], shared: Sequence[Near]
) -> list[Tile]:
    """A picture, and the photos of the index nearest to it; framed where they are among ``shared``, too.

    Photos that cannot be read any more are left out.
    """
    index, matcher = searcher.index, searcher.matcher
    known = {one.id for one in shared}
    tiles = [Tile(Image.fromarray(shown.pixels), name)]
    for one in near:
        entry = index.photo(one.id)
        try:
            image = Image.fromarray(prepared(index, matcher, entry))
        except PhotoUnavailable:
            continue
        # Long captions lose their beginning.
        caption = f"{entry.paths[0]} {one.cosine:.2f}"
        tiles.append(Tile(framed(image, BLUE) if one.id in known else image, caption))
    return tiles


def _near_files(index: SearchedIndex, near: Sequence[Near]) -> list[NearFile]:
    return [NearFile(name=index.photo(one.id).paths[0], cosine=round(one.cosine, 3), rank=one.rank) for one in near]


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
