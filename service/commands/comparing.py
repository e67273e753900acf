"""`sketch-search compare`: two or more checkpoints on one's own photos, side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from indexer import default_index_path, read_summary
from model.terminal import Refusal, printable
from service.comparison import Comparison, compare_checkpoints, comparison_page
from service.schemas import SearchQuery
from service.settings import Settings


def compare(
    settings: Settings,
    checkpoints: Sequence[Path],
    photos: Sequence[Path],
    sketches: Path,
    output: Path,
    *,
    per_class: int,
    k: int,
    method: str | None,
    as_json: bool,
) -> int:
    """Write ``output``/compare.html and print the figures.

    Args:
        photos: folders to search; none for those of the index that the settings name.

    Raises as ``compare_checkpoints``, and pydantic's ValidationError for a query that is none.
    """
    query = SearchQuery.model_validate({"k": str(k)} | ({} if method is None else {"method": method}))
    folders = photos or [Path(r.path) for r in read_summary(settings.index or default_index_path()).manifest.roots]
    try:
        output.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise Refusal(f"--output {output} is a file; name a folder.") from error
    result = compare_checkpoints(
        settings, checkpoints, folders, sketches, output, per_class=per_class, query=query, bar=sys.stderr.isatty()
    )
    for path, reason in result.broken:
        print(printable(f"left out: {path}: {reason}"), file=sys.stderr)
    page = output / "compare.html"
    page.write_text(comparison_page(result), encoding="utf-8")
    print(json.dumps(as_dict(result)) if as_json else comparison_table(result))
    if not as_json:
        print(f"\nside by side: {printable(str(page))}")
    return 0


def comparison_table(result: Comparison) -> str:
    """The figures as a table for people."""
    width = max(len("checkpoint"), *(len(network.name) for network in result.networks))
    lines = [
        f"{len(result.sketches)} sketches, {result.labelled} of them with a label, against {result.photos} photos",
        "",
        f"{'checkpoint':<{width}}  {'method':<6}  {f'mAP@{result.k}':>8}  {f'P@{result.k}':>8}  {'ms':>6}",
    ]
    for one in result.networks:
        figures = [f"{'-' if value is None else format(value, '.3f'):>8}" for value in (one.map, one.precision)]
        lines.append(f"{printable(one.name):<{width}}  {one.method:<6}  {'  '.join(figures)}  {one.milliseconds:>6.0f}")
    return "\n".join(lines)


def as_dict(result: Comparison) -> dict[str, object]:
    """The figures, and the paths that each network found, for JSON."""
    return {
        "photos": result.photos,
        "k": result.k,
        "labelled": result.labelled,
        "sketches": [str(sketch.path) for sketch in result.sketches],
        "broken": {str(path): reason for path, reason in result.broken},
        "networks": [
            {
                "checkpoint": one.name,
                "network": one.network,
                "method": one.method,
                "map": one.map,
                "precision": one.precision,
                "milliseconds": one.milliseconds,
                "results": [[photo.path for photo in row] for row in one.results],
            }
            for one in result.networks
        ],
    }
