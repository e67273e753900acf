from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from sketch_search.indexer import IndexRefused
from sketch_search.indexer import shard_folders as folders_of
from sketch_search.model import Matcher
from sketch_search.service.serving.on_ray import Shard
from sketch_search.service.sharding import Overview, Shards, ShardsRefused, ShardUnavailable
from tests.programs import wait_until
from tests.service.served import error, metrics
from tests.service.sharding.shards_here import Sharded, links_to
from tests.service.small_gallery import PHOTOS


def opened(folder: Path, matcher: Matcher, keeps: int = 1) -> Shard:
    index = Shard(folder, lambda: matcher, keeps=keeps)
    index.refresh()
    return index


def said(one: Overview, **changes: object) -> Overview:
    return replace(one, manifest=one.manifest.model_copy(update=changes))


MISFITS: dict[str, Callable[[Overview], Overview]] = {
    "different checkpoints": lambda one: said(one, photo_sha256="f" * 64),
    "different embedders": lambda one: said(
        one, embedder=one.manifest.embedder.model_copy(update={"sha256": "f" * 64})
    ),
    # That of a photo of the first shard.
    "both have a photo with the id": lambda one: replace(one, ids=one.ids - one.ids.min() + 1),
}


@pytest.mark.parametrize(("told", "misfit"), MISFITS.items(), ids=MISFITS.keys())
def test_shards_that_do_not_go_together_are_refused(
    told: str, misfit: Callable[[Overview], Overview], shard_folders: list[Path], matcher: Matcher
) -> None:
    links = links_to(shard_folders, matcher)
    links[1].lies = {"overview": misfit}
    with pytest.raises(ShardsRefused, match=told):
        Shards(links, seconds=1).refresh(strict=True)
    shards = Shards(links, seconds=1)
    shards.refresh()
    assert shards.missing == {1}
    assert told in (shards.infos[1].reason or "")


def test_a_shard_without_an_index_says_so(matcher: Matcher, tmp_path: Path) -> None:
    with pytest.raises(ShardsRefused, match="the shard shard-0 cannot be searched: there is no index at"):
        Shards(links_to([tmp_path / "nothing"], matcher), seconds=1).refresh(strict=True)


def test_a_folder_of_shards_stands_for_all_of_them_and_another_one_for_itself(tmp_path: Path) -> None:
    assert folders_of(tmp_path) == [tmp_path]
    (tmp_path / "shards.json").write_text("{}")
    with pytest.raises(IndexRefused, match="is damaged"):
        folders_of(tmp_path)


def around(explained: dict[str, Any]) -> tuple[int | None, list[int]]:
    return explained.get("ret_rank"), [near["id"] for near in explained["nearest"]]


def test_photos_clusters_explanations_come_from_shards(many: Sharded, http: httpx.Client, sketch: bytes) -> None:
    for path in ("/photos/5", "/thumbnails/5?size=32", "/photos?id=5&id=9&id=2"):
        one, together = http.get(path), many.http.get(path)
        assert (together.status_code, together.content) == (200, one.content)
        assert together.headers.get("etag") == one.headers.get("etag")
    shown: list[int] = []
    index, alone = many.info()["index"], http.get("/info").json()["index"]
    assert (index["boxes"], index["computed"]) == (alone["boxes"], alone["computed"])
    assert (alone["boxes"], len(alone["computed"])) == (False, 1)
    clusters = index["clusters"]
    for cluster in range(clusters):
        shown += [photo["id"] for photo in many.http.get(f"/clusters/{cluster}", params={"k": PHOTOS}).json()["photos"]]
    assert (len(shown), len(set(shown))) == (PHOTOS, PHOTOS)
    assert many.http.get(f"/clusters/{clusters}").status_code == 404
    assert many.http.get("/photos/999").status_code == 404
    for query, body in (("photo=1&photo=5&photo=9&nearest=7", sketch), ("photo=5&like=3", None)):
        one, together = (each.post(f"/explain?{query}", content=body).json() for each in (http, many.http))
        assert around(together) == around(one)
        assert [around(photo) for photo in together["photos"]] == [around(photo) for photo in one["photos"]]


def test_a_shard_that_does_not_answer_is_left_out_and_reported_and_comes_back(many: Sharded, sketch: bytes) -> None:
    search = partial(many.http.post, "/search", content=sketch, params={"k": PHOTOS})
    whole, incomplete = search().json(), metrics(many.http)["sbir_searches_incomplete_total"]
    lost = many.links[1].ids()
    many.links[1].broken = True
    part = search().json()
    assert (part["complete"], part["missing_shards"]) == (False, ["shard-1"])
    assert many.http.get(f"/photos/{min(many.links[0].ids())}").status_code == 200
    assert [hit["id"] for hit in part["results"]] == [hit["id"] for hit in whole["results"] if hit["id"] not in lost]
    many.answers(2)
    assert many.http.get("/readyz").json() == {"status": "ready", "missing_shards": ["shard-1"]}
    assert [metrics(many.http)[f'sbir_shard_up{{shard="shard-{number}"}}'] for number in range(3)] == [1, 0, 1]
    many.links[1].broken = False
    many.answers(3)
    assert search().json()["results"] == whole["results"]
    assert many.http.get("/readyz").json() == {"status": "ready"}
    assert metrics(many.http)['sbir_shard_up{shard="shard-1"}'] == 1
    assert metrics(many.http)["sbir_searches_incomplete_total"] == incomplete + 1


def test_without_any_shard_the_service_is_not_ready(many: Sharded, sketch: bytes) -> None:
    for link in many.links:
        link.broken = True
    assert error(many.http.post("/search", content=sketch)) == (503, "not_ready")
    many.answers(0)
    assert many.http.get("/readyz").status_code == 503
    assert many.info()["ready"] is False
    for link in many.links:
        link.broken = False
    wait_until(lambda: many.http.get("/readyz").status_code == 200, "no shard came back")


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
        *((question, fault) for question in ("entries", "count_passing") for fault in ("refused", "late")),
    ],
)
def test_a_search_is_answered_without_a_shard_that_fails_and_the_log_says_so(
    question: str, fault: str, many: Sharded, sketch: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    honest = many.links[0].ids() | many.links[2].ids()
    many.links[1].lies = {question: FAULTS[fault]}
    asked = {"folder": "größe"} if question == "count_passing" else {}
    found = many.http.post("/search", content=sketch, params={"k": PHOTOS, **asked}).json()
    assert (found["complete"], found["missing_shards"]) == (False, ["shard-1"])
    photos = {hit["id"] for hit in found["results"]}
    assert photos <= honest if asked else photos == honest
    assert "shard shard-1 is missing" in caplog.text


@pytest.mark.parametrize("fault", ["refused", "late"])
@pytest.mark.parametrize(
    ("question", "path"),
    [
        *((question, "/explain?photo=1") for question in ("rank_all", "alike")),
        *(("entries", "/explain?photo={}"), ("original", "/explain?photo={}"), ("part_of_photo", "/thumbnails/{}")),
        *(("rows_there", "/photos?id={}"), ("rows_there", "/photos/{}"), ("vectors", "/search?like={}")),
    ],
)
def test_failing_shards_count_as_missing(question: str, path: str, fault: str, many: Sharded, sketch: bytes) -> None:
    path = path.format(min(many.links[1].ids()))
    many.links[1].lies = {question: FAULTS[fault]}
    method, body = ("GET", None) if path.startswith(("/photos", "/thumbnails")) else ("POST", sketch)
    assert error(many.http.request(method, path, content=body), "shard-1") == (503, "not_ready")
