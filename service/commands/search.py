"""`sketch-search search`: the search of POST /search, without a server."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path

from model.terminal import printable
from service.engine import Engine, open_matcher
from service.schemas import SearchQuery, SearchResponse
from service.settings import Settings


def search(settings: Settings, sketch: str, query: SearchQuery, *, as_json: bool) -> int:
    """Search with an image file, or with standard input where ``sketch`` is "-", and print what was found.

    Raises:
        OSError: the file cannot be read. Otherwise as ``Engine``, ``Engine.prepare`` and ``Engine.search``.
    """
    data = sys.stdin.buffer.read() if sketch == "-" else Path(sketch).read_bytes()
    with closing(Engine(settings, open_matcher(settings))) as engine:
        answer = engine.search(engine.prepare(data), query)
    print(answer.model_dump_json() if as_json else results_table(answer))
    return 0


def search_query(options: argparse.Namespace) -> SearchQuery:
    """The query on the command line, checked like that of an HTTP request. Raises pydantic's ValidationError."""
    asked = {name: getattr(options, name) for name in SearchQuery.names()}
    return SearchQuery.model_validate({name: text for name, text in asked.items() if text is not None})


def results_table(answer: SearchResponse) -> str:
    """Rank, score and path; further paths of the same photo on lines of their own."""
    lines = [f"{'rank':>4}  {'score':>8}  path"]
    for result in answer.results:
        lines.append(f"{result.rank:>4}  {result.score:>8.4f}  {printable(result.paths[0])}")
        lines += [f"{'':>14}  {printable(path)}" for path in result.paths[1:]]
    return "\n".join(lines)
