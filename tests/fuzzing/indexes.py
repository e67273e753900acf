"""Indexes with random edits: of the manifest's values, of the catalog's, and of the bytes of every file."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import TypeVar

import torch

import model
from indexer import build, compact, read_summary, remove, repair, verify
from model.terminal import Refusal
from service.engine import Engine
from service.schemas import SearchQuery
from service.settings import Settings
from tests.fuzzing.campaign import Case
from tests.fuzzing.limited import Outcome
from tests.fuzzing.mutations import HOSTILE_VALUES, Json, json_bytes, mutated, mutated_json
from tests.fuzzing.samples import Samples
from tests.indexer.damages import sign

T = TypeVar("T")
_TABLES = {
    "photos": ("id", "root", "path", "hash", "size", "mtime", "taken", "status", "reason", "cluster", "segment", "row"),
    "drift": ("clustered", "distance", "photos", "distance_now", "automatic"),
}
_KINDS = ("manifest", "manifest", "manifest", "catalog", "catalog", "bytes", "bytes", "bytes", "forged", "forged")


class Indexes:
    """Such an index is refused in a sentence, or answers as before, or ``verify`` says what is wrong.

    Of a forged one, whose manifest has the sizes and hashes of what the files are now, nothing is asked but that it is
    refused in a sentence, or answers at all.
    """

    name = "indexes"

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        matcher = model.load(samples.weights, dtype=torch.float32)
        self._expected = json.dumps(_answers(samples.index, samples, matcher))
        self._files = sorted(file.relative_to(samples.index) for file in samples.index.rglob("*") if file.is_file())

    def make(self, chance: Random, folder: Path) -> Case:
        """A copy with edits of one kind."""
        kind, index = chance.choice(_KINDS), folder / "index"
        shutil.copytree(self._samples.index, index)
        (folder / "expected.json").write_text(self._expected, encoding="utf-8")
        (manifest,) = index.glob("*/manifest.json")
        edited = "photos.sqlite"
        if kind == "manifest":
            edited = "manifest.json"
            manifest.write_bytes(json_bytes(mutated_json(json.loads(manifest.read_bytes()), chance)))
        elif kind == "catalog" or (kind == "forged" and chance.random() < 0.4):
            _edit_table(manifest.with_name("photos.sqlite"), chance)
        else:
            edited = str(chance.choice(self._files))
            data = (index / edited).read_bytes()
            changed = mutated(data, chance)
            # Files of another size are refused at once, so most keep theirs.
            kept = (
                changed if chance.random() < 0.2 or kind == "forged" else changed[: len(data)].ljust(len(data), b"\0")
            )
            (index / edited).write_bytes(kept)
        forged = kind == "forged" and edited != str(manifest.relative_to(index))
        if forged:
            sign(index)
        about = f"an index, edited: {kind}, {edited}"
        return Case(about, use_index, (folder, self._samples, forged, chance.choice(sorted(_UPKEEP))))

    def judge(self, case: Case, outcome: Outcome) -> list[str]:
        """Refused, or what it answered."""
        assert outcome.code == 0, f"ends with {outcome.code}"
        return [outcome.out.splitlines()[-1]]


def _edit_table(catalog: Path, chance: Random) -> None:
    table = chance.choice(("photos", "photos", "photos", "drift"))
    column = chance.choice(_TABLES[table])
    value = chance.choice([v for v in HOSTILE_VALUES if not isinstance(v, list | dict)])
    if isinstance(value, str):
        # As bytes where it cannot be text, which SQLite keeps in any column, too.
        value = value.encode("utf-8", "surrogatepass") if "\ud800" in value or chance.random() < 0.1 else value
    elif isinstance(value, int) and abs(value) >= 2**63:
        value = float(value)
    with closing(sqlite3.connect(catalog)) as database, database:
        where = "" if chance.random() < 0.2 else f" WHERE rowid = {chance.randint(1, 9)}"
        database.execute("PRAGMA ignore_check_constraints = ON")
        # Of the other rules of the table, what they do not let in stays as it is.
        with suppress(sqlite3.Error):
            database.execute(f"UPDATE {table} SET {column} = ?{where}", (value,))


def use_index(folder: Path, samples: Samples, forged: bool, upkeep: str) -> int:
    """Ask everything of it, then look after it in one way; say what came of it."""
    index = folder / "index"
    matcher = model.load(samples.weights, dtype=torch.float32)
    told = _tried(lambda: read_summary(index).model_dump_json())
    problems = _tried(lambda: verify(index)) or []
    answers = _tried(lambda: _answers(index, samples, matcher))
    if answers is None:
        result = "refused"
    elif answers == json.loads((folder / "expected.json").read_bytes()):
        result = "equal answers"
    else:
        assert problems or forged or told is None, f"other answers, and verify says nothing: {answers}"
        result = "other answers, forged" if forged else "other answers, and verify says so"
    _tried(lambda: _UPKEEP[upkeep](index, samples, matcher))
    _tried(lambda: verify(index))
    print(result)
    return 0


def _answers(index: Path, samples: Samples, matcher: model.Matcher) -> Json:
    """As JSON: results of exhaustive searches and of a default one."""
    engine = Engine(Settings(index=index, weights=samples.weights), matcher)
    engine.try_out()
    sketch = engine.prepare(samples.sketch.read_bytes())
    found = [engine.search(sketch, SearchQuery(nprobe="all", method=method)).results for method in matcher.methods]
    found.append(engine.search(sketch, SearchQuery()).results)
    # Where the photos are nobody can verify.
    _tried(lambda: [engine.original(engine.photo(result.id)) for result in found[0]])
    _tried(lambda: [engine.thumbnail(engine.photo(result.id), 64) for result in found[0]])
    _tried(lambda: [engine.photo(number) for number in range(12)])
    return json.loads(json.dumps([[(r.id, r.score, r.cluster, r.paths) for r in each] for each in found]))


def _tried(work: Callable[[], T]) -> T | None:
    """What the work gives; None where it is refused in a sentence, which is printed."""
    try:
        return work()
    except (Refusal, OSError) as error:
        print(f"refused: {error}")
        return None


_UPKEEP: dict[str, Callable[[Path, Samples, model.Matcher], object]] = {
    "build": lambda index, samples, matcher: build([samples.photos], index, matcher, embedder="ret"),
    "build all of them": lambda index, samples, matcher: build([], index, matcher, embedder="ret"),
    "compact": lambda index, samples, matcher: compact(index),
    "remove": lambda index, samples, matcher: remove(["in here"], index),
    "repair": lambda index, samples, matcher: repair(index, matcher),
}
