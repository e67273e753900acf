"""A shard that fails, is late or answers with damaged numbers counts as missing; nothing of it reaches a client."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest

from sketch_search.indexer import IndexRefused
from sketch_search.service.sharding import Shards, ShardUnavailable
from tests.service.sharding.shards_here import Sharded
from tests.service.small_gallery import PHOTOS
from tests.service.talk import error


def damaged(answer: Any) -> Any:
    """Puts a number that is not finite into every array of an answer."""
    if isinstance(answer, np.ndarray):
        return np.full_like(answer, np.nan) if answer.dtype.kind == "f" else answer
    if isinstance(answer, list | tuple):
        return type(answer)(map(damaged, answer))
    if is_dataclass(answer) and not isinstance(answer, type):
        return replace(answer, **{field.name: damaged(getattr(answer, field.name)) for field in fields(answer)})
    return answer


def refuse(answer: Any) -> Any:
    raise IndexRefused("a file of the shard is damaged")


def time_out(answer: Any) -> Any:
    raise ShardUnavailable("it did not answer within 5.0 s")


FAULTS: dict[str, Callable[[Any], Any]] = {"damaged": damaged, "refused": refuse, "late": time_out}


@pytest.mark.parametrize(
    ("question", "fault"),
    [
        *(("packed_nearest", fault) for fault in FAULTS),
        *(("scored", fault) for fault in FAULTS),
        *((question, fault) for question in ("entries", "passing") for fault in ("refused", "late")),
    ],
)
def test_a_search_is_answered_without_a_shard_that_fails_and_the_log_says_so(
    question: str, fault: str, many: Sharded, sketch: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    honest = many.links[0].ids() | many.links[2].ids()
    many.links[1].lies = {question: FAULTS[fault]}
    asked = {"folder": "größe"} if question == "passing" else {}
    found = many.http.post("/search", content=sketch, params={"k": PHOTOS, **asked}).json()
    assert (found["complete"], found["missing_shards"]) == (False, ["shard-1"])
    photos = {hit["id"] for hit in found["results"]}
    assert photos <= honest if asked else photos == honest
    assert "shard shard-1 is missing" in caplog.text


@pytest.mark.parametrize(
    ("question", "fault"), [("state", "refused"), ("state", "late"), *(("overview", fault) for fault in FAULTS)]
)
def test_a_shard_whose_description_fails_is_not_searched(question: str, fault: str, many: Sharded) -> None:
    many.links[1].lies = {question: FAULTS[fault]}
    shards = Shards(many.links, seconds=0)
    shards.refresh()
    assert shards.missing == {1}


@pytest.mark.parametrize("fault", ["refused", "late"])
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
def test_requests_for_a_shard_that_fails_are_refused_as_if_it_were_missing(
    question: str, path: str, fault: str, many: Sharded, sketch: bytes
) -> None:
    path = path.format(min(many.links[1].ids()))
    many.links[1].lies = {question: FAULTS[fault]}
    method, body = ("GET", None) if path.startswith(("/photos", "/thumbnails")) else ("POST", sketch)
    assert error(many.http.request(method, path, content=body), "shard-1") == (503, "not_ready")
