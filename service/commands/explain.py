"""`sketch-search explain`: writes why photos match a sketch, or are like a photo, as files."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from model.errors import Refusal
from model.images import read_image_file
from model.terminal import printable
from service.commands.search import naming, photo_id
from service.engine import Engine, open_matcher
from service.errors import BadSearch
from service.explain import write_explanation
from service.schemas import ExplainParams, PictureKind, SearchQuery
from service.settings import Settings

# Photos of the index that are explained if none is named.
EXPLAINED = 3


def explain(
    settings: Settings, sketch: Path | None, photos: Sequence[str], output: Path, *, like: str | None, kind: PictureKind
) -> int:
    """Writes why ``photos``, ids or paths, or else the best of the index, match a sketch, or are like a photo."""
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not there.is_dir():
        raise Refusal(f"--output {output}: {there} is a file; name a folder for the files.")
    with naming(sketch):
        data = None if sketch is None else read_image_file(sketch)
    with closing(Engine(settings, open_matcher(settings))) as engine:
        with naming(sketch):
            given = None if data is None else engine.prepare(data, kind=kind)
        liked = [] if like is None else [photo_id(engine, like)]
        ids = [photo_id(engine, photo) for photo in photos]
        if not ids:
            # A liked photo is the first of the results.
            query = SearchQuery.model_validate({"kind": kind, "like": liked, "k": EXPLAINED + len(liked)})
            ids = [str(found.id) for found in engine.search(given, query).results[len(liked) :]]
        if not ids:
            raise BadSearch("The index has no other photo to explain.")
        asked = {"photo": ids, "kind": kind, "like": next(iter(liked), None)}
        answer = engine.explain(given, ExplainParams.model_validate(asked))
    print(*(printable(str(file)) for file in write_explanation(answer, output)), sep="\n")
    return 0
