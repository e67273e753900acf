"""`sketch-search search`: the search of POST /search, without a server."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from model.images import read_image_file
from model.terminal import printable
from service.engine import Engine, open_matcher
from service.schemas import LEFT, Kind, SearchQuery, SearchResponse, SearchResult
from service.settings import Settings

_ID = re.compile("[0-9]+")
_HEADING = f"{'rank':>4}  {'score':>8}  path"
# Said where a search finds no photo.
_NOTHING = "no photos: none passes the filters, or --offset is beyond the last one"


def search(
    settings: Settings,
    sketch: str | None,
    query: SearchQuery,
    *,
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    as_json: bool,
) -> int:
    """Search with an image file, or with standard input where ``sketch`` is "-", and print what was found.

    Args:
        sketch: None to search by liked photos or a word alone.
        like, unlike: photos that become part of ``query``: what has digits only is an id, all else a path, as results
            show it or on disk.

    Raises:
        BadInvocation: the index has no photo at a path. pydantic's ValidationError: too many photos, or the like.
        OSError: the file cannot be read. ImageError: it is no image file.
        Otherwise as ``Engine``, ``Engine.prepare`` and ``Engine.search``.
    """
    data = None if sketch is None else read_image_file(sys.stdin.buffer if sketch == "-" else Path(sketch))
    with closing(Engine(settings, open_matcher(settings))) as engine:
        photos = {"like": [photo_id(engine, one) for one in like], "unlike": [photo_id(engine, one) for one in unlike]}
        asked = SearchQuery.model_validate({**query.model_dump(by_alias=True, exclude_unset=True), **photos})
        answer = engine.search(None if data is None else engine.prepare(data, kind=query.kind), asked)
    if as_json:
        print(answer.model_dump_json())
    elif answer.results or answer.kinds:
        print(results_table(answer) if answer.kinds is None else kinds_table(answer.kinds))
    else:
        print(_NOTHING)
        return 0
    if answer.word_fits is False and not as_json:
        print(f"no photo looks much like '{printable(query.text or '')}'; these come nearest", file=sys.stderr)
    return 0


def search_query(options: argparse.Namespace) -> SearchQuery:
    """The query on the command line but for its photos, which only an index can tell by their paths.

    It is checked like that of an HTTP request. Raises pydantic's ValidationError.
    """
    names = [*(name for name in SearchQuery.names() if name not in ("like", "unlike")), *LEFT]
    asked = {name: getattr(options, name, None) for name in names}
    return SearchQuery.model_validate({name: text for name, text in asked.items() if text is not None})


def photo_id(engine: Engine, photo: str) -> str:
    """The id of a photo that is named by it, or by a path. Raises BadInvocation: the index has no photo there."""
    return photo if _ID.fullmatch(photo) else str(engine.photo_at(photo).id)


def results_table(answer: SearchResponse) -> str:
    """Rank, score and path, and how many near duplicates; further paths of the same photo on lines of their own."""
    return "\n".join([_HEADING, *(line for result in answer.results for line in _result_lines(result))])


def kinds_table(kinds: Iterable[Kind]) -> str:
    """The kinds, each with how many photos it has, and the best of these on lines as in ``results_table``."""
    lines = [f"{'kind':>4}  {'photos':>6}  {_HEADING}"]
    for kind in kinds:
        shown = [line for result in (kind.best, *kind.more) for line in _result_lines(result)]
        lines.append(f"{kind.rank:>4}  {kind.size:>6}  {shown[0]}")
        lines += [f"{'':>12}  {line}" for line in shown[1:]]
    return "\n".join(lines)


def _result_lines(result: SearchResult) -> list[str]:
    folded = f"  (+{len(result.copies)} like it)" if result.copies else ""
    first = f"{result.rank:>4}  {result.score:>8.4f}  {printable(result.paths[0])}{folded}"
    return [first, *(f"{'':>14}  {printable(path)}" for path in result.paths[1:])]
