"""Writes an explanation as files: for each photo a picture of the matching parts, and all data as JSON."""

import json
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw

from sketch_search.model.files import MARK, write_files
from sketch_search.model.images import as_png
from sketch_search.service.schemas.explain import ExplainResponse

# Matches shown in a picture, strongest first, each in its colour.
_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4")
# Pixels between the sketch and the photo.
_GAP = 8


def write_explanation(answer: ExplainResponse, out: Path) -> tuple[Path, ...]:
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
        cells = ((there, here) for here, there in best.items())
        files[out / f"{number}.png"] = as_png(side_by_side(sketch, photo.picture(), cells, answer.grid))
    write_files(files)
    return tuple(files)


def side_by_side(sketch: Image.Image, photo: Image.Image, cells: Iterable[tuple[int, int]], grid: int) -> Image.Image:
    """Draws sketch and photo side by side, with the strongest pairs of cells of a ``grid`` framed."""
    side = sketch.width
    sheet = Image.new("RGB", (2 * side + _GAP, max(sketch.height, photo.height)), "white")
    sheet.paste(sketch, (0, 0))
    sheet.paste(photo, (side + _GAP, 0))
    draw, cell = ImageDraw.Draw(sheet), side / grid
    for pair, colour in zip(cells, _COLOURS, strict=False):
        for left, number in zip((0, side + _GAP), pair, strict=True):
            x, y = left + number % grid * cell, number // grid * cell
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline=colour, width=2)
    return sheet
