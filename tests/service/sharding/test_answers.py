"""A shard that answers what cannot be counts as missing, whatever it says; nothing of it reaches a client."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sketch_search.indexer import IndexRefused, PhotoFilter
from sketch_search.model import Matcher
from sketch_search.model.search import Query
from sketch_search.service.errors import ShardsLost
from sketch_search.service.gallery import Gallery
from sketch_search.service.sharding import Shards, ShardUnavailable
from tests.service.sharding.conftest import HALVES
from tests.service.sharding.shards_here import LocalLink, Sharded, gallery_of, links_to
from tests.service.small_gallery import PHOTOS, draw_sketch
from tests.service.talk import error

Lie = Callable[[Any], Any]

# The ids of photos of the first shard.
OTHERS = np.arange(1, 1 + HALVES.count(0))


def changed(**fields: Callable[[Any], Any]) -> Lie:
    """Changes fields of an answer."""
    return lambda answer: replace(answer, **{name: change(getattr(answer, name)) for name, change in fields.items()})


def first(**fields: Any) -> Lie:
    """Changes fields of the first of several entries."""
    return lambda answer: (replace(answer[0], **fields), *answer[1:])


def part(number: int, lie: Lie) -> Lie:
    """Changes one part of a tuple."""
    return lambda answer: (*answer[:number], lie(answer[number]), *answer[number + 1 :])


def refuse(answer: Any) -> Any:
    raise IndexRefused("a file of the shard is damaged")


def time_out(answer: Any) -> Any:
    raise ShardUnavailable("it did not answer within 5.0 s")


def in_clusters(**fields: Callable[[Any], Any]) -> Lie:
    return changed(clusters=changed(**fields))


ANY: dict[str, Lie] = {
    "nothing": lambda answer: None,
    "a text": lambda answer: "photos",
    "a number": lambda answer: 7,
    "an array of objects": lambda answer: np.array([None, 1], object),
    "a huge array": lambda answer: np.zeros(10**7),
    "a class": lambda answer: Shards,
    "a refusal": refuse,
    "nothing in time": time_out,
}
NUMBERS: dict[str, Lie] = {
    "no numbers": lambda numbers: np.full_like(numbers, np.nan),
    "infinite": lambda numbers: np.full_like(numbers, -np.inf),
    "too large": lambda numbers: np.full_like(numbers, np.finfo(numbers.dtype).max),
    "too few": lambda numbers: numbers[:-1],
    "of another type": lambda numbers: numbers.astype(np.int64),
    "of another shape": lambda numbers: numbers[..., None],
}
IDS: dict[str, Lie] = {
    "ids of other shards": lambda ids: np.resize(OTHERS, len(ids)).astype(ids.dtype),
    "ids that it does not have": lambda ids: ids + 10**6,
    "negative ids": lambda ids: -ids,
    "an id twice": lambda ids: np.full_like(ids, ids[0]),
    "ids as texts": lambda ids: ids.astype(str),
    "ids beyond 64 bits": lambda ids: np.array([2**70] * len(ids), object),
}
ROWS: dict[str, Lie] = {
    "rows that it does not have": lambda rows: rows + PHOTOS,
    "negative rows": lambda rows: rows - PHOTOS,
    "fractions": lambda rows: rows + np.float32(0.5),
}
# What an overview may tell: nothing is known of the shard before.
POSSIBLE = ("ids of other shards", "ids that it does not have")
PAIR: dict[str, Lie] = {
    **{name: part(0, lie) for name, lie in IDS.items()},
    **{f"nearness {name}": part(1, lie) for name, lie in NUMBERS.items()},
}
LIES: dict[str, dict[str, Lie]] = {
    "packed_nearest": {
        **{name: changed(ids=lie) for name, lie in IDS.items()},
        **{name: changed(rows=lie) for name, lie in ROWS.items()},
        **{f"scores that are {name}": changed(by_vector=lie) for name, lie in NUMBERS.items()},
        "no column": lambda found: replace(found, by_vector=None),
    },
    "scored": {
        **{f"vectors that are {name}": part(0, lie) for name, lie in NUMBERS.items()},
        **{f"scores that are {name}": part(1, lie) for name, lie in NUMBERS.items()},
        "scores alone": lambda answer: answer[1],
    },
    "entries": {
        "none": lambda entries: (),
        "another photo's": first(id=1),
        "the same photo's": lambda entries: (entries[0],) * len(entries),
        "an id that is a text": first(id="one"),
        "a negative cluster": first(cluster=-1),
        "a cluster of another shard": first(cluster=10**6),
    },
    "passing": {
        "negative counts": lambda counts: counts - 10**6,
        "more than there are": lambda counts: counts + 10**6,
        "too few": lambda counts: counts[:-1],
        "fractions": lambda counts: counts / 2,
    },
    "newest": {
        **{name: part(0, lie) for name, lie in ROWS.items()},
        "fractions of days": part(1, lambda days: days / 2),
        "fewer days": part(1, lambda days: days[:-1]),
        "more than asked": lambda answer: tuple(np.tile(column, 30) for column in answer),
    },
    "rows_there": {
        **ROWS,
        "too many": lambda rows: np.tile(rows, 2),
    },
    "vectors": NUMBERS,
    "tokens": {
        **{f"features {name}": changed(features=lie) for name, lie in NUMBERS.items() if "type" not in name},
        "negative cells": changed(positions=lambda cells: cells.astype(np.int64) - 10**6),
        "cells outside the grid": changed(positions=lambda cells: cells.astype(np.int64) + 10**6),
        "fewer photos": lambda tokens: tokens[:1],
    },
    "nearness": PAIR,
    "alike": {
        **{name: part(0, lie) for name, lie in PAIR.items()},
        "fewer": lambda answer: answer[:1],
        "more than asked": lambda answer: [(np.tile(ids, 2), np.tile(near, 2)) for ids, near in answer],
    },
    "open_photo": {},
    "part_of_photo": {"too much": lambda data: data * 2},
    "state": {
        "no generation": changed(generation_id=lambda name: None),
        "a refusal that is no text": changed(refusal=lambda refusal: 5),
    },
    "overview": {
        **{name: changed(ids=lie) for name, lie in IDS.items() if name not in POSSIBLE},
        **{f"vectors that are {name}": in_clusters(vectors=lie) for name, lie in NUMBERS.items()},
        "another generation": changed(generation_id=lambda name: name + "x"),
        "negative sizes": in_clusters(sizes=lambda sizes: np.append(sizes[:-2], [-1, sizes[-2:].sum() + 1])),
        "other sizes": in_clusters(sizes=lambda sizes: sizes + 1),
        "fewer tokens": in_clusters(features=lambda features: features[:, :-1]),
        "cells outside the grid": in_clusters(positions=lambda cells: np.full_like(cells, 255)),
        "no checkpoint": changed(origin=lambda origin: None),
        "no embedder": changed(embedder=lambda embedder: None),
        "no clusters": changed(clusters=lambda clusters: None),
    },
}


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Returns how the service's warnings begin."""
    return [record.getMessage().partition(":")[0] for record in caplog.records if record.name == "sketch_search"]


@pytest.fixture(scope="module")
def links(shard_folders: list[Path], matcher: Matcher) -> list[LocalLink]:
    return links_to(shard_folders, matcher)


def asked(question: str, gallery: Gallery, matcher: Matcher, photo: int) -> None:
    """Asks all shards something of which this question is a part."""
    rows, clusters = np.arange(PHOTOS), np.arange(len(gallery.clusters.sizes))
    sketch = matcher.encode(matcher.prepare(draw_sketch(), "sketch")[None], "sketch")
    if question in ("packed_nearest", "scored"):
        gallery.find(Query("rn", gallery.clusters.mean, sketch, clusters=clusters))
    elif question == "passing":
        gallery.passing(PhotoFilter(("größe",)))
    elif question == "newest":
        gallery.newest(PhotoFilter(after=date(1990, 1, 1)), PHOTOS)
    elif question == "rows_there":
        gallery.rows_of_ids([1, photo])
    elif question in ("entries", "vectors", "tokens"):
        getattr(gallery, question)(rows)
    elif question == "nearness":
        gallery.nearness(sketch.without_patches, "sketch")
    elif question == "alike":
        gallery.alike(gallery.vectors(rows[:2]), 3)
    elif question == "open_photo":
        gallery.open_photo(photo)
    else:
        gallery.part_of_photo(photo, len(gallery.open_photo(photo)), 0, 10)


@pytest.mark.parametrize("question", [question for question in LIES if question not in ("state", "overview")])
def test_whatever_a_shard_says_that_cannot_be_it_is_lost(
    question: str, links: list[LocalLink], matcher: Matcher, caplog: pytest.LogCaptureFixture
) -> None:
    links[1].lies = {}
    gallery, photo = gallery_of(links), min(links[1].ids())
    asked(question, gallery, matcher, photo)
    believed = []
    for name, lie in {**ANY, **LIES[question]}.items():
        links[1].lies = {question: lie}
        caplog.clear()
        with suppress(ShardsLost):
            asked(question, gallery, matcher, photo)
            believed.append(name)
        assert logged(caplog) == ["shard shard-1 is missing"] or name in believed
    assert believed == []


@pytest.mark.parametrize("question", ["state", "overview"])
def test_a_shard_that_describes_what_cannot_be_is_not_searched(question: str, links: list[LocalLink]) -> None:
    for name, lie in {**ANY, **LIES[question]}.items():
        links[1].lies = {question: lie}
        shards = Shards(links, seconds=0)
        shards.refresh(strict=True)
        assert shards.missing == {1}, name
        assert "its answer" in (shards.infos()[1].reason or "") or name in ("a refusal", "nothing in time")


@pytest.mark.parametrize("name", ["nothing", "nothing in time"])
@pytest.mark.parametrize("question", ["packed_nearest", "scored", "entries", "passing"])
def test_a_search_is_answered_without_a_shard_that_lies_or_is_late_and_the_log_says_so(
    question: str, name: str, many: Sharded, sketch: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    honest = many.links[0].ids() | many.links[2].ids()
    many.links[1].lies = {question: ANY[name]}
    asked = {"folder": "größe"} if question == "passing" else {}
    found = many.http.post("/search", content=sketch, params={"k": PHOTOS, **asked}).json()
    assert (found["complete"], found["missing_shards"]) == (False, ["shard-1"])
    photos = {hit["id"] for hit in found["results"]}
    assert photos <= honest if asked else photos == honest
    assert "shard shard-1 is missing" in logged(caplog)


@pytest.mark.parametrize("name", ["nothing", "nothing in time"])
@pytest.mark.parametrize(
    ("question", "path"),
    [
        ("nearness", "/explain?photo=1"),
        ("alike", "/explain?photo=1"),
        ("entries", "/explain?photo={}"),
        ("open_photo", "/explain?photo={}"),
        ("open_photo", "/thumbnails/{}"),
        ("rows_there", "/photos?id={}"),
        ("rows_there", "/photos/{}"),
        ("vectors", "/search?like={}"),
    ],
)
def test_requests_for_a_shard_that_lies_or_is_late_are_refused_as_if_it_were_missing(
    question: str, path: str, name: str, many: Sharded, sketch: bytes
) -> None:
    path = path.format(min(many.links[1].ids()))
    many.links[1].lies = {question: ANY[name]}
    method, body = ("GET", None) if path.startswith(("/photos", "/thumbnails")) else ("POST", sketch)
    assert error(many.http.request(method, path, content=body), "shard-1") == (503, "not_ready")
