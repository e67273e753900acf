"""Shards on a Ray cluster: the real server, asked over HTTP, while processes are killed."""

import os
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sketch_search.service.engine import open_matcher
from sketch_search.service.settings import Settings, index_path
from tests.benchmarks.results import soak
from tests.programs import PATIENCE, family, wait_until
from tests.service.served import asked
from tests.service.sharding.conftest import HALVES
from tests.service.sharding.served_on_ray import OnRay, served_on_ray
from tests.service.sharding.shards_here import cut
from tests.service.small_gallery import PHOTOS

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads from /proc which processes are copies")

COPIES = 2
# 127.0.0.1, the same as an IPv6 address, and ::1, as Linux writes them.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
PROC = Path("/proc")
ENDED = (
    "Searches while copies of shards and the encoder are killed on a Ray cluster. Each answer is right, or says which "
    "shards are missing, or that it is not ready; all come back"
)


@pytest.fixture(scope="module")
def on_ray(
    default_settings: Settings, ray_cluster: "Cluster", tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OnRay]:
    """Two shards by the default network: with another one, each of the copies would import PyTorch."""
    log = tmp_path_factory.mktemp("home") / "serve.log"
    folders = cut(
        index_path(default_settings), open_matcher(default_settings), tmp_path_factory.mktemp("shards"), HALVES
    )
    with served_on_ray(default_settings, folders, ray_cluster.address, log, copies=COPIES) as server:
        yield server


def listening(processes: list[int]) -> set[str]:
    """Returns the addresses on which these processes listen for TCP connections, as Linux writes them."""
    sockets = set()
    for process in processes:
        for file in (PROC / str(process) / "fd").glob("*"):
            with suppress(OSError):
                sockets.add(str(file.readlink()))
    lines = [line.split() for name in ("tcp", "tcp6") for line in (PROC / "net" / name).read_text().splitlines()[1:]]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a shard and the encoder need two CPUs")
def test_a_server_on_a_local_cluster_listens_on_loopback_alone(default_settings: Settings, tmp_path: Path) -> None:
    with served_on_ray(default_settings, [index_path(default_settings)], "local", tmp_path / "serve.log") as server:
        assert server.http.get("/readyz").status_code == 200
        # The encoder is started with the shards, and asked first by a search.
        wait_until(lambda: len(server.copies(0)) == len(server.copies("encoder")) == 1, "there is no copy of each")
        found = listening(family(server.process))
        assert found
        assert found <= LOOPBACK
    # The cluster's token is in the memory of its processes alone.
    assert not (tmp_path / ".ray").exists()


def test_searches_are_answered_as_by_one_index(on_ray: OnRay, default_settings: Settings, sketch: bytes) -> None:
    with asked(default_settings) as http:
        for query in ({}, {"method": "rn"}, {"like": 3}, {"view": "groups"}, {"fold": "true"}):
            together = on_ray.search(sketch, **query)
            one = http.post("/search", content=sketch, params={"k": PHOTOS, **query}).json()
            assert [hit["id"] for hit in together["results"]] == [hit["id"] for hit in one["results"]]
            assert [hit["score"] for hit in together["results"]] == pytest.approx(
                [hit["score"] for hit in one["results"]], abs=1e-3
            )
            assert together["complete"]
            assert set(together) == set(one)
        assert on_ray.http.get("/photos/5").content == http.get("/photos/5").content


def test_several_servers_search_the_same_copies_and_the_last_one_ends_them(
    on_ray: OnRay, default_settings: Settings, ray_cluster: "Cluster", tmp_path: Path, sketch: bytes
) -> None:
    others = set(on_ray.copies(0))

    def server(log: str) -> AbstractContextManager[OnRay]:
        shards = [index_path(default_settings)]
        return served_on_ray(default_settings, shards, ray_cluster.address, tmp_path / log)

    with ExitStack() as started:
        first = started.enter_context(server("first.log"))
        # Another gallery on the same cluster has its own.
        (own,) = set(first.copies(0)) - others
        with server("second.log") as second:
            assert set(second.copies(0)) == {own, *others}
            with ThreadPoolExecutor(2) as pool:
                searched = [pool.submit(one.search, sketch) for one in (first, second) * 4]
                found, *further = [one.result(PATIENCE) for one in searched]
            assert found["complete"]
            assert all(one["results"] == found["results"] for one in further)
            started.close()
            assert second.search(sketch)["results"] == found["results"]
            assert own in second.copies(0)
    wait_until(lambda: own not in on_ray.copies(0), "nobody has ended the copy")
    assert set(on_ray.copies(0)) == others


def test_where_one_of_two_copies_is_killed_no_answer_is_incomplete_or_wrong(on_ray: OnRay, sketch: bytes) -> None:
    whole = on_ray.search(sketch)
    with ThreadPoolExecutor(2) as pool:
        under_way = [pool.submit(on_ray.search, sketch) for _ in range(4)]
        assert on_ray.kill(1) == 1
        # Each asks one copy or the other, twice.
        answers = [on_ray.search(sketch) for _ in range(4)] + [search.result(PATIENCE) for search in under_way]
    assert all(answer["complete"] for answer in answers)
    assert all(answer["results"] == whole["results"] for answer in answers)


@pytest.mark.soak
def test_copies_that_end_at_random_leave_answers_right_or_reported_and_come_back(on_ray: OnRay, sketch: bytes) -> None:
    whole, without = on_ray.search(sketch)["results"], dict[tuple[str, ...], list[int]]()
    shards = {shard["name"] for shard in on_ray.http.get("/info").json()["shards"]}
    with soak(ENDED) as run:
        for _ in range(6):
            killed: int | str = random.choice((0, 1, "encoder"))
            on_ray.kill(killed, COPIES)
            back = 0
            while back < 2 * COPIES:
                answer = on_ray.http.post("/search", content=sketch, params={"k": PHOTOS})
                run.times += 1
                found = answer.json()
                if answer.status_code == 200 and found["complete"]:
                    assert found["results"] == whole
                    back += 1
                    continue
                back = 0
                if answer.status_code == 200:
                    assert set() < {*found["missing_shards"]} < shards
                    ids = [hit["id"] for hit in found["results"]]
                    # Of other photos, the rest have another order: they share scores, and are judged by the best.
                    assert ids == without.setdefault(tuple(found["missing_shards"]), ids)
                else:
                    assert (answer.status_code, found["error"]["code"]) == (503, "not_ready")
            wait_until(
                lambda: [len(on_ray.copies(shard)) for shard in (0, 1)] == [COPIES, COPIES],
                "the copies did not come back",
            )
