"""`sketch-search search` and `explain`: POST /search and /explain, run in this process."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode, urlsplit

from sketch_search.model.errors import ImageError, UserError
from sketch_search.model.files import read_regular
from sketch_search.model.terminal import printable, printable_json
from sketch_search.service.errors import BadSearch
from sketch_search.service.schemas.query import PictureKind, SearchQuery
from sketch_search.service.schemas.search import ResultGroup, SearchResponse, SearchResult
from sketch_search.service.settings import Settings, answers_by, find_server, index_path, is_loopback

if TYPE_CHECKING:
    from sketch_search.model.images import Drawing
    from sketch_search.service.engine import SearchEngine

# The most seconds without an answer of the server, and the most bytes of the name of a generation.
_PATIENCE, _MAX_NAME = 5, 1024
# Photos that are explained by default.
EXPLAINED = 3
_ID = re.compile("[0-9]+")
_Made = TypeVar("_Made")
_OF_CAMERAS = (".jpg", ".jpeg", ".heic")
_HEADING = f"{'rank':>4}  path"


def search(
    settings: Settings,
    sketches: Sequence[str],
    query: SearchQuery,
    photos: Mapping[str, Sequence[str]] | None = None,
    *,
    as_json: bool,
) -> int:
    """Searches with files, "-" for standard input; prints results. photos: ids if all digits, else paths."""
    photos = photos or {}
    if (answer := _answer_of_server(settings, sketches, query, photos)) is None:
        with _opened(settings, sketches, query) as (engine, prepared):
            ids = {name: [_photo_id(engine, photo) for photo in named] for name, named in photos.items()}
            query = SearchQuery.model_validate({**query.model_dump(exclude_unset=True), **ids})
            answer = engine.search(prepared, query)
    if as_json:
        print(printable_json(answer.model_dump_json()))
    elif not (answer.results or answer.groups):
        print("no photos: none passes the filters, or --offset is beyond the last")
    else:
        print(results_table(answer) if answer.groups is None else groups_table(answer.groups))
        if answer.word_means:
            typed = query.text or answer.word_read or ""
            print(f"'{printable(typed)}' is searched for as '{answer.word_means}'", file=sys.stderr)
        if answer.word_instead:
            print(f"or search for: {printable(', '.join(answer.word_instead))}", file=sys.stderr)
        if answer.word_ignored:
            print(f"not understood: {printable(', '.join(answer.word_ignored))}", file=sys.stderr)
        of_kind = _photo_remark(settings, sketches) if query.kind == "sketch" else ""
        divided = len(answer.things) if len(sketches) == 1 else 0
        parted = f"the drawing was divided into {divided} things; --things one takes it as one" if divided > 1 else ""
        for remark in filter(None, (missing_remark(answer, query.text), parted, of_kind)):
            print(printable(remark), file=sys.stderr)
    return 0


def _photo_remark(settings: Settings, sketches: Sequence[str]) -> str:
    """Says how to search with a photo, if one of an indexed folder was taken as a drawing; else empty."""
    # Others are hardly photos, and it takes a third of a second to import what reads the index.
    files = [sketch for sketch in sketches if sketch.lower().endswith(_OF_CAMERAS)]
    if not files:
        return ""
    from sketch_search.indexer import indexed_folders

    folders = [str(folder) for folder in indexed_folders(index_path(settings))]
    indexed = [file for file in files if any(map(Path(file).resolve().is_relative_to, folders))]
    remark = "of an indexed folder, was taken as a drawing; --photo finds what looks like it"
    return f"{indexed[0]}, {remark}" if indexed else ""


def _answer_of_server(
    settings: Settings, sketches: Sequence[str], query: SearchQuery, photos: Mapping[str, Sequence[str]]
) -> SearchResponse | None:
    """Asks this user's server of the index, which has opened all. Returns None unless it answers as a search here."""
    folder = index_path(settings)
    only_ids = all(_ID.fullmatch(photo) for named in photos.values() for photo in named)
    if len(sketches) > 1 or "-" in sketches or not only_ids or (server := find_server(folder)) is None:
        return None
    from http.client import HTTPConnection, HTTPException

    # Whatever is wrong, the search here says it, or does without the server.
    with suppress(OSError, ValueError, HTTPException):
        params = urlencode({**query.model_dump(mode="json", exclude_unset=True), **photos}, doseq=True)
        place = urlsplit(server.url)
        if is_loopback(host := place.hostname or "") and server.answers == answers_by(settings):
            body = read_regular(Path(sketches[0]), settings.max_upload_bytes) if sketches else b""
            with closing(HTTPConnection(host, place.port, timeout=_PATIENCE)) as connection:
                connection.request("POST", f"/search?{params}", body)
                answered = connection.getresponse()
                if answered.status == HTTPStatus.OK:
                    answer = SearchResponse.model_validate_json(answered.read())
                    newest = read_regular(folder / "CURRENT", _MAX_NAME).decode().strip()
                    return answer if answer.generation == newest else None
    return None


def missing_remark(answer: SearchResponse, text: str | None = None) -> str:
    """Says what no photo is likely to show, as the page does; empty if that is uncertain."""
    missing = [thing for thing in answer.things if thing.fits is False]
    named = [text] if answer.word_fits is False else [thing.word for thing in missing if thing.word]
    if named:
        words = " or ".join(dict.fromkeys(f"'{word}'" for word in named))
        return f"not sure that any photo shows {words}; these are the closest"
    drawn = "the drawing" if answer.sketch_fits is False else "part of the drawing" if missing else ""
    return drawn and f"not sure that any photo looks like {drawn}; these are the closest"


def explain(
    settings: Settings,
    sketches: Sequence[Path],
    photos: Sequence[str],
    output: Path,
    *,
    like: str | None,
    kind: PictureKind,
) -> int:
    """Explains in files why ``photos``, ids or paths, or by default the best matches, match a drawing or a photo."""
    from tqdm import tqdm

    from sketch_search.service.explain import write_explanation
    from sketch_search.service.schemas.explain import ExplainParams

    existing = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"--output {output}: {existing} is a file; name a folder for the files.")
    with _opened(settings, sketches, SearchQuery(kind=kind)) as (engine, prepared):
        liked = [] if like is None else [_photo_id(engine, like)]
        ids = [_photo_id(engine, photo) for photo in photos]
        if not ids:
            # A liked photo is the first of the results.
            query = SearchQuery.model_validate({"kind": kind, "like": liked, "k": EXPLAINED + len(liked)})
            ids = [str(result.id) for result in engine.search(prepared, query).results[len(liked) :]]
        if not ids:
            raise BadSearch("The index has no other photo to explain.")
        params = {"photo": ids, "kind": kind, "like": next(iter(liked), None)}
        print(f"comparing each square with those of {len(ids)} photos", file=sys.stderr)
        # Each photo is encoded and compared; the drawing, its things and what is near take seven steps.
        with tqdm(total=2 * len(ids) + 7, unit="step", mininterval=0, disable=None, leave=False) as bar:

            def compute(step: Callable[[], _Made]) -> _Made:
                made = step()
                bar.update()
                return made

            answer = engine.explain(prepared, ExplainParams.model_validate(params), compute)
    print(*(printable(str(file)) for file in write_explanation(answer, output)), sep="\n")
    print("squares with frames of one colour match best", file=sys.stderr)
    return 0


@contextmanager
def _opened(
    settings: Settings, pictures: Sequence[str | Path], query: SearchQuery
) -> "Iterator[tuple[SearchEngine, Drawing | None]]":
    """Opens the index, and prepares image files, or standard input where one is "-"."""
    sources = [None if picture == "-" else Path(picture) for picture in pictures]
    for source in sources:
        if source is not None:
            source.stat()  # A missing file is refused before anything slow is imported.
    # One search ends soon. Threads that wait actively for work would slow it down, and NumPy's products are small.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from sketch_search.model.images import read_image_file
    from sketch_search.service.engine import SearchEngine, open_matcher

    data = []
    for source in sources:
        with _naming(source):
            data.append(read_image_file(source or sys.stdin.buffer))
    with closing(SearchEngine(settings, open_matcher(settings))) as engine:
        # For a single picture, errors name its file.
        with _naming(sources[0] if len(sources) == 1 else None):
            prepared = engine.prepare(data, query) if data else None
        yield engine, prepared


@contextmanager
def _naming(picture: Path | None) -> Iterator[None]:
    """Puts a file's name before the error of its picture."""
    try:
        yield
    except ImageError as error:
        if picture is None:
            raise
        raise type(error)(f"{picture}: {error}") from error


def _photo_id(engine: "SearchEngine", photo: str) -> str:
    """Returns the id of a photo given by id or path. Raises BadInvocation."""
    return photo if _ID.fullmatch(photo) else str(engine.gallery.photo_at(photo).id)


def results_table(answer: SearchResponse) -> str:
    """Formats rank, path and the number of near duplicates; further paths of a photo are on separate lines."""
    return "\n".join([_HEADING, *(line for result in answer.results for line in _result_lines(result))])


def groups_table(groups: Iterable[ResultGroup]) -> str:
    """Formats groups of look-alikes, each with its size and best photos."""
    lines = [f"{'group':>5}  {'photos':>6}  {_HEADING}"]
    for group in groups:
        shown = [line for result in (group.best, *group.more) for line in _result_lines(result)]
        lines.append(f"{group.rank:>5}  {group.size:>6}  {shown[0]}")
        lines += [f"{'':>13}  {line}" for line in shown[1:]]
    return "\n".join(lines)


def _result_lines(result: SearchResult) -> list[str]:
    folded = f"  (+{len(result.copies)} like it)" if result.copies else ""
    first = f"{result.rank:>4}  {printable(result.paths[0])}{folded}"
    return [first, *(f"{'':>4}  {printable(path)}" for path in result.paths[1:])]
