"""`sketch-search search`: the search of POST /search, by a server that runs here already, or in this process."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import ImageError
from model.terminal import printable, printable_json
from model.words import spelling
from service.address import find_server
from service.schemas import Group, SearchQuery, SearchResponse, SearchResult
from service.settings import Settings, index_path

if TYPE_CHECKING:
    from service.engine import Engine

_ID = re.compile("[0-9]+")
_HEADING = f"{'rank':>4}  {'score':>8}  path"
# Printed if a search finds no photo.
_NOTHING = "no photos: none passes the filters, or --offset is beyond the last; a --folder is named as results show it"


def search(
    settings: Settings,
    sketch: str | None,
    query: SearchQuery,
    *,
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    as_json: bool,
    server: bool = True,
) -> int:
    """Searches with an image file, or standard input if ``sketch`` is "-", and prints what was found.

    Args:
        sketch: None to search by liked photos or a word alone.
        like, unlike: photos that become part of ``query``: an id if it has digits only, else a path.
        server: whether to ask a running server of the same index, which answers sooner.
    """
    source: bytes | Path | None = None if sketch is None else Path(sketch)
    if sketch == "-":
        from model.images import read_image_file

        source = read_image_file(sys.stdin.buffer)
    elif isinstance(source, Path):
        source.stat()  # A missing file is refused before anything slow is imported.
    answer = _asked(settings, source, query, like, unlike) if server else None
    if answer is None:
        answer = _searched(settings, source, query, like, unlike)
    if as_json:
        print(printable_json(answer.model_dump_json()))
    elif answer.results or answer.groups:
        print(results_table(answer) if answer.groups is None else groups_table(answer.groups))
    else:
        print(_NOTHING)
        return 0
    if answer.word_read not in (None, spelling(query.text or "")) and not as_json:
        print(f"'{printable(query.text or '')}' is searched for as '{answer.word_read}'", file=sys.stderr)
    if answer.word_fits is False and not as_json:
        print(f"no photo looks much like '{printable(query.text or '')}'; these come nearest", file=sys.stderr)
    return 0


def _asked(
    settings: Settings, source: bytes | Path | None, query: SearchQuery, like: Sequence[str], unlike: Sequence[str]
) -> SearchResponse | None:
    """Returns the answer of the server of this index, or None.

    What it refuses is searched here, which says why in the words of this command line.
    """
    if isinstance(source, Path) and not (source.is_file() and source.stat().st_size <= settings.max_upload_bytes):
        return None
    found = find_server(settings)
    if found is None:
        return None
    from indexer import IndexerError
    from service.client import Client, ServiceError

    key = settings.api_key.get_secret_value() if found.protected and settings.api_key is not None else None
    try:
        asked = with_photos(query, _ids(settings, like), _ids(settings, unlike))
        with Client(found.url, key) as client:
            answer = client.search(source, asked)
        if answer.generation != (index_path(settings) / "CURRENT").read_text().strip():
            return None  # It has not opened yet what a build has just made.
    except (OSError, IndexerError, ServiceError, ValueError):
        return None
    print(f"answered by the server at {found.url}; --no-server searches without it", file=sys.stderr)
    return answer


def _ids(settings: Settings, photos: Sequence[str]) -> list[str]:
    if all(map(_ID.fullmatch, photos)):
        return [*photos]
    from indexer import id_at

    return [photo if _ID.fullmatch(photo) else str(id_at(index_path(settings), photo)) for photo in photos]


def _searched(
    settings: Settings, source: bytes | Path | None, query: SearchQuery, like: Sequence[str], unlike: Sequence[str]
) -> SearchResponse:
    # One search is soon over. Threads that wait for work at full speed would take more time than it does.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Imported late, since a server that answers saves it.
    from model.images import read_image_file
    from service.engine import Engine, open_matcher

    with naming(source):
        data = None if source is None else read_image_file(source)
    with closing(Engine(settings, open_matcher(settings))) as engine:
        asked = with_photos(query, [photo_id(engine, one) for one in like], [photo_id(engine, one) for one in unlike])
        with naming(source):
            sketch = None if data is None else engine.prepare(data, kind=query.kind)
        return engine.search(sketch, asked)


@contextmanager
def naming(picture: bytes | Path | None) -> Iterator[None]:
    """Puts a file's name before the reason why the picture cannot be used."""
    try:
        yield
    except ImageError as error:
        if isinstance(picture, Path):
            raise type(error)(f"{picture}: {error}") from error
        raise


def with_photos(query: SearchQuery, like: Sequence[str], unlike: Sequence[str]) -> SearchQuery:
    """Returns the query with photos that are wanted and not wanted, by id. Raises pydantic's ValidationError."""
    photos = {"like": list(like), "unlike": list(unlike)}
    return SearchQuery.model_validate({**query.model_dump(exclude_unset=True), **photos})


def photo_id(engine: Engine, photo: str) -> str:
    """Returns the id of a photo that is named by it, or by a path. Raises BadInvocation."""
    return photo if _ID.fullmatch(photo) else str(engine.gallery.photo_at(photo).id)


def results_table(answer: SearchResponse) -> str:
    """Writes rank, score, path and the number of near duplicates; further paths of a photo get lines of their own."""
    return "\n".join([_HEADING, *(line for result in answer.results for line in _result_lines(result))])


def groups_table(groups: Iterable[Group]) -> str:
    """Writes groups of look-alikes, each with its size and best photos."""
    lines = [f"{'group':>5}  {'photos':>6}  {_HEADING}"]
    for group in groups:
        shown = [line for result in (group.best, *group.more) for line in _result_lines(result)]
        lines.append(f"{group.rank:>5}  {group.size:>6}  {shown[0]}")
        lines += [f"{'':>13}  {line}" for line in shown[1:]]
    return "\n".join(lines)


def _result_lines(result: SearchResult) -> list[str]:
    folded = f"  (+{len(result.copies)} like it)" if result.copies else ""
    first = f"{result.rank:>4}  {result.score:>8.4f}  {printable(result.paths[0])}{folded}"
    return [first, *(f"{'':>14}  {printable(path)}" for path in result.paths[1:])]
