from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import model
from indexer import Request, build, open_index
from indexer.commands import main
from indexer.samples import SKETCHED
from service.schemas import SearchQuery
from tests.searching import Searcher


def test_at_least_eleven_of_twelve_sample_sketches_find_a_photo_of_their_thing_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two pictures of each thing, in other styles: to draw all takes longer than all else here.
    monkeypatch.setattr("indexer.samples.EACH", 2)
    assert main(["samples", str(tmp_path)]) == 0
    matcher = model.load("default")
    build(tmp_path / "index", Request([tmp_path / "photos"], embedder="ret"), matcher)
    found: dict[str, str] = {}
    with open_index(tmp_path / "index", matcher) as index:
        searcher = Searcher(index, matcher)
        for name in sorted(SKETCHED)[:12]:
            with Image.open(tmp_path / "sketches" / f"{name}.png") as sketch:
                best = searcher.search(sketch.convert("RGB"), SearchQuery(k=1)).results[0]
            found[name] = Path(best.paths[0]).parent.name
    assert sum(name == thing for name, thing in found.items()) >= 11, found
