from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketch_search import model
from sketch_search.indexer import BuildRequest, build, read_progress, verify
from sketch_search.indexer.commands import main
from sketch_search.indexer.distributed.builds import place_clusters
from sketch_search.service.commands import main as serve
from tests.indexer.distributed.same import check_same, read_shards
from tests.indexer.distributed.workers import KILLS, SLICE, BuildShards
from tests.indexer.galleries import index_bytes, save_photo, save_photos
from tests.indexer.killed_builds import change
from tests.indexer.remote.servers import webdav
from tests.indexer.stopped_builds import StopAfter, Stopped

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster


def test_shards_hold_what_one_index_holds_and_their_build_shows_progress(shards: Path, plain: Path) -> None:
    check_same(shards, plain)
    entries = read_shards(shards).shards
    assert (len(entries), sum(entry.photos for entry in entries)) == (3, 24)
    assert all(verify(shards / entry.folder) == [] for entry in entries)
    progress = read_progress(shards)
    assert progress is not None
    assert (progress.phase, progress.done, progress.bad) == ("done", 24, 1)


def test_an_update_of_shards_equals_an_indexs(tmp_path: Path, sharded: BuildShards, by_small: model.Matcher) -> None:
    photos = save_photos(tmp_path / "photos", 14)
    sharded(photos, tmp_path / "shards", 3)
    build(tmp_path / "index", BuildRequest([photos], embedder="ret"), by_small)
    change(photos)
    # Fewer shards than before, so that photos come from another.
    report = sharded(photos, tmp_path / "shards", 2)
    build(tmp_path / "index", BuildRequest([photos], recluster=True), by_small)
    # The seven new ones, and one that changed. One that was renamed has another name and time only.
    assert (report.encoded, report.gone, len(report.shards)) == (9, 2, 2)
    check_same(tmp_path / "shards", tmp_path / "index")
    assert not (tmp_path / "shards" / "shard-0002").exists()
    assert [entry.generation for entry in report.shards] == ["g000002", "g000002"]


def test_unfinished_work_is_done_by_another(tmp_path: Path, sharded: BuildShards, by_small: model.Matcher) -> None:
    photos = save_photos(tmp_path / "photos", 9)
    save_photo(photos / f"{KILLS}.png", 21)
    report = sharded(photos, tmp_path / "shards", 2)
    assert (tmp_path / "a worker is dead").exists()
    assert (report.bad, report.photos) == ((), 10)
    build(tmp_path / "index", BuildRequest([photos], embedder="ret"), by_small)
    check_same(tmp_path / "shards", tmp_path / "index")


def test_a_build_whose_driver_has_ended_goes_on_from_the_slices_that_are_there_and_ends_in_the_same_bytes(
    tmp_path: Path, photos: Path, shards: Path, sharded: BuildShards
) -> None:
    ended = tmp_path / "shards"
    with pytest.raises(Stopped):
        sharded(photos, ended, 3, StopAfter(1))
    assert not list(ended.glob("shard*"))
    (slices,) = ended.glob(".slices-*")
    there = list(slices.glob("slice-*"))
    report = sharded(photos, ended, 3)
    assert report.encoded <= 25 - SLICE * len(there) + 1
    assert not slices.exists()
    for entry in read_shards(shards).shards:
        assert index_bytes(ended / entry.folder) == index_bytes(shards / entry.folder)


def test_the_command_prints_what_became_of_photos_and_shards_and_where_nothing_has_changed_writes_nothing(
    photos: Path, shards: Path, ray_cluster: "Cluster", small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in shards.rglob("*.*") if path.name != "progress.json"}

    before = written()
    arguments = ["build", str(photos), "--ray", ray_cluster.address, "--index", str(shards), "--weights", str(small)]
    assert main([*arguments, "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "photos:      24 (25 files, 1 of them duplicates)" in printed
    entry = read_shards(shards).shards[2]
    assert f"shard-0002:  {entry.photos} photos, {entry.clusters} cluster" in printed
    assert f"shards:      3 in {shards}, unchanged" in printed
    assert written() == before


@pytest.mark.usefixtures("sharded")
def test_more_copies_of_shards_than_a_cluster_has_room_for_are_not_served(
    shards: Path, ray_cluster: "Cluster", small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--ray", ray_cluster.address, "--weights", str(small), "--replicas", "40", "--shards", str(shards)]
    assert serve(["serve", *options]) == 2
    assert "but 160 copies of shards and the encoder need 160" in capsys.readouterr().err


# The libraries leave sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_workers_read_photos_by_url(
    tmp_path: Path, photos: Path, sharded: BuildShards, by_small: model.Matcher
) -> None:
    with webdav(tmp_path / "served", home=None) as server:
        server.fill(photos)
        build(tmp_path / "plain", BuildRequest([server.url], embedder="ret"), by_small)
        asked = server.requests
        report = sharded(server.url, tmp_path / "shards", 2)
        assert (report.photos, report.unlisted) == (24, ())
        assert server.requests - asked >= 24
        check_same(tmp_path / "shards", tmp_path / "plain")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_cluster_is_in_one_shard_and_every_shard_has_one(data: st.DataObject) -> None:
    sizes = np.array(data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=30)))
    shards = data.draw(st.integers(1, len(sizes)))
    # Few distinct points, so that some clusters lie in the same place.
    centroids = np.random.default_rng(len(sizes)).integers(0, 3, (len(sizes), 4)).astype(np.float32)
    placed = place_clusters(centroids, sizes, shards)
    assert set(placed.tolist()) == set(range(shards))
    assert len(placed) == len(sizes)


def test_shards_of_many_clusters_are_nearly_equal() -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers(50, 150, 400)
    placed = place_clusters(generator.normal(size=(400, 8)).astype(np.float32), sizes, 7)
    photos = np.bincount(placed, weights=sizes)
    assert photos.max() < 1.2 * photos.mean()
    assert photos.min() > 0.6 * photos.mean()


def test_neighbours_are_in_one_shard() -> None:
    groups = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0)
    noise = 0.01 * np.random.default_rng(0).normal(size=groups.shape).astype(np.float32)
    placed = place_clusters(groups + noise, np.full(40, 5), 4)
    assert [set(placed[start : start + 10].tolist()) for start in range(0, 40, 10)] == [
        {shard} for shard in placed[::10].tolist()
    ]
