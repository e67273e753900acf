import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketch_search import indexer, model
from sketch_search.indexer.commands import main
from sketch_search.indexer.distributed import Machines, Resources, build_shards, place_clusters
from tests.indexer.distributed.workers import KILLS, SLICE, BuildShards
from tests.indexer.galleries import (
    Collection,
    check_same,
    edit_manifest,
    index_bytes,
    read_shards,
    save_parted,
    save_photo,
    save_photos,
)
from tests.indexer.killed_builds import StopAfter, Stopped, change
from tests.indexer.remote.servers import webdav
from tests.networks import tiny_checkpoint
from tests.programs import run_python
from tests.requirements import leaves_sockets, need_ray

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = leaves_sockets


def test_shards_hold_what_one_index_holds_and_their_build_shows_progress(shards: Path, plain: Path) -> None:
    check_same(shards, plain)
    entries = read_shards(shards).shards
    assert (len(entries), sum(entry.photos for entry in entries)) == (3, 24)
    assert all(indexer.verify(shards / entry.folder) == [] for entry in entries)
    progress = indexer.read_progress(shards)
    assert progress is not None
    assert (progress.phase, progress.done, progress.bad) == ("done", 24, 1)


def test_parts_are_in_the_shards_of_their_photos(tmp_path: Path, sharded: BuildShards, by_small: model.Matcher) -> None:
    photos, plain = save_parted(tmp_path / "photos"), Collection(tmp_path / "photos", tmp_path / "plain", by_small)
    sharded(photos, tmp_path / "shards", 2)
    plain.build(embedder="ret")
    check_same(tmp_path / "shards", plain.index)
    shards = [
        indexer.read_summary(tmp_path / "shards" / entry.folder) for entry in read_shards(tmp_path / "shards").shards
    ]
    parts = indexer.read_summary(plain.index).manifest.counts.parts
    assert sum(shard.manifest.counts.parts for shard in shards) == parts == 4 + 5
    sharded(photos, tmp_path / "shards", 3)
    check_same(tmp_path / "shards", plain.index)


def test_an_update_of_shards_equals_an_indexs(tmp_path: Path, sharded: BuildShards, by_small: model.Matcher) -> None:
    photos = save_photos(tmp_path / "photos", 14)
    sharded(photos, tmp_path / "shards", 3)
    indexer.build(tmp_path / "index", indexer.BuildRequest([photos], embedder="ret"), by_small)
    change(photos)
    report = sharded(photos, tmp_path / "shards", 2)
    indexer.build(tmp_path / "index", indexer.BuildRequest([photos], recluster=True), by_small)
    # The seven new ones, and one that changed. One that was renamed has another name and time only.
    assert (report.encoded, report.settled.gone, report.settled.moved, len(report.shards)) == (9, 1, 1, 2)
    check_same(tmp_path / "shards", tmp_path / "index")
    assert not (tmp_path / "shards" / "shard-0002").exists()
    assert [entry.generation for entry in report.shards] == ["g000002", "g000002"]


def test_unfinished_work_is_done_by_another(tmp_path: Path, sharded: BuildShards, by_small: model.Matcher) -> None:
    photos = save_photos(tmp_path / "photos", 9)
    save_photo(photos / f"{KILLS}.png", 21)
    report = sharded(photos, tmp_path / "shards", 2)
    assert (tmp_path / "a worker is dead").exists()
    assert (report.bad, report.photos) == ((), 10)
    indexer.build(tmp_path / "index", indexer.BuildRequest([photos], embedder="ret"), by_small)
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


def test_workers_read_photo_urls(tmp_path: Path, photos: Path, sharded: BuildShards, by_small: model.Matcher) -> None:
    with webdav(tmp_path / "served", home=None) as server:
        server.fill(photos)
        indexer.build(tmp_path / "plain", indexer.BuildRequest([server.url], embedder="ret"), by_small)
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


def refused(photos: Path, shards: Path, ray: str) -> str:
    with pytest.raises(indexer.BadInvocation) as refusal:
        build_shards(shards, indexer.BuildRequest((photos,)), Machines(ray))
    assert not list(shards.glob("shard*"))
    return str(refusal.value)


def test_without_ray_it_is_said_what_to_install(gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketch_search.indexer.distributed.find_spec", lambda name: None)
    assert "pip install 'sketch-search[ray]'" in refused(gallery, tmp_path / "shards", "local")


@pytest.mark.parametrize("address", ["somewhere", "ray://head:10001", "head:", ":6379", "head:0", "head:port", "free"])
def test_an_address_that_nobody_listens_at_is_named(address: str, gallery: Path, tmp_path: Path) -> None:
    need_ray()
    sentence = f"HOST:PORT of a cluster's head, not {address!r}"
    if address == "free":
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
        sentence = f"no Ray cluster can be reached at {address}: Connection refused; name HOST:PORT"
    assert sentence in refused(gallery, tmp_path / "shards", address)


def test_a_cluster_with_too_little_is_refused() -> None:
    with pytest.raises(indexer.BadInvocation, match="no machine of the Ray cluster has a CPU for a worker"):
        Resources.of([{"memory": 1e9}, {"CPU": 0.5}], "auto")
    with pytest.raises(indexer.BadInvocation, match="has a free GPU and a CPU beside it"):
        Resources.of([{"CPU": 8}, {"GPU": 1}], "cuda")
    with pytest.raises(indexer.BadInvocation, match="device 'tpu' cannot be used"):
        Resources.of([{"CPU": 8}], "tpu")


def test_only_a_folder_of_shards_or_an_empty_one_is_built_into(built_once: Collection, tmp_path: Path) -> None:
    photos, other = built_once.photos, tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("all of it")
    assert "holds an ordinary index; name another folder" in refused(photos, built_once.index, "local")
    assert "holds files that are not an index" in refused(photos, other, "local")
    assert "is a file" in refused(photos, other / "thesis.txt", "local")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--shards", "2"], "name its Ray cluster with --ray"),
        (["--ray", "local", "--watch"], "--watch is for one index on one machine"),
        (["--ray", "local", "--checksum"], "--checksum is for one index on one machine"),
        *((["--ray", "local", "--shards", number], "from 1 to 10,000") for number in ("0", "10001")),
    ],
)
def test_commands_that_cannot_be_done_are_a_sentence(
    options: list[str],
    sentence: str,
    gallery: Path,
    weights: Path,
    index_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    need_ray()
    arguments = ["build", str(gallery), "--index", str(index_path), "--weights", str(weights), *options]
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err
    assert not index_path.exists()


def test_commands_that_write_an_index_refuse_shards(shards: Path, photos: Path, matcher: model.Matcher) -> None:
    shard = shards / "shard-0000"
    before = read_shards(shards)
    for work in (
        lambda: indexer.build(shard, indexer.BuildRequest([photos]), matcher),
        lambda: indexer.remove(["Ännchen 001.png"], shard),
    ):
        with pytest.raises(indexer.BadInvocation, match=f"{shard} is a shard, with only part of the photos"):
            work()
    with pytest.raises(indexer.BadInvocation, match=f"{shards} holds an index in shards; update it with --ray"):
        indexer.build(shards, indexer.BuildRequest([photos]), matcher)
    with pytest.raises(indexer.IndexRefused, match="holds an index in shards; name one of its shards"):
        indexer.open_index(shards, matcher)
    assert read_shards(shards) == before


def test_more_shards_than_photos_or_clusters_are_refused(tmp_path: Path, sharded: BuildShards) -> None:
    photos = save_photos(tmp_path / "photos", 2)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    for number, clusters, most in ((4, None, "3 photos"), (3, None, "2 photos"), (2, 1, "1 clusters, which are not")):
        with pytest.raises(indexer.BadInvocation, match=f"{number} shards are too many for {most}"):
            sharded(photos, tmp_path / "shards", number, clusters=clusters)
        assert not list((tmp_path / "shards").glob("shard*"))


@pytest.mark.usefixtures("sharded")
def test_impossible_updates_change_no_shards(photos: Path, shards: Path, tmp_path: Path) -> None:
    weights = tiny_checkpoint(tmp_path / "other.safetensors", seed=3)
    own = indexer.BuildRequest((photos,))
    others = indexer.BuildRequest((save_photos(tmp_path / "photos", 3),), allow_root_removal=False)
    before = read_shards(shards)
    for request, machines, sentence in (
        (own, Machines("auto", device="cpu", weights=str(weights)), "holds shards of another checkpoint"),
        (others, Machines("auto", device="cpu"), f"has other folders: {photos}"),
        (own, Machines("auto", workers=999), r"has room for [0-9]+ workers, not for 999"),
    ):
        with pytest.raises(indexer.BadInvocation, match=sentence):
            build_shards(shards, request, machines)
    assert read_shards(shards) == before


def test_workers_must_see_the_storage(
    photos: Path, tmp_path: Path, sharded: BuildShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    # For each process this is another folder: the one that it runs in.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        indexer.BadInvocation, match="cannot see /proc/self/cwd/shards; photos and index must be on stor"
    ):
        sharded(photos, Path("/proc/self/cwd/shards"))
    assert not list((tmp_path / "shards").glob("shard*"))


TASK = """
import sys, ray
from sketch_search.indexer.distributed import check_address, connected
with connected(sys.argv[1]):
    ray.get(ray.remote(num_cpus=0)(check_address).remote("auto"))
"""


def test_workers_import_what_the_driver_has_imported(tmp_path: Path, ray_cluster: "Cluster") -> None:
    for package in ("indexer", "sketch_search"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('of another version')")
    place = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = run_python("-P", "-c", TASK, ray_cluster.address, folder=tmp_path, environment=place)
    assert done.returncode == 0, done.stderr


def test_shards_get_boxes(tmp_path: Path, ray_cluster: "Cluster", sharded: BuildShards, default: model.Matcher) -> None:
    photos = save_photos(tmp_path / "photos", 3)
    shutil.copy(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg", photos)
    matcher, index, machines = default, tmp_path / "shards", Machines(ray_cluster.address, "cpu", 1)
    indexer.build(tmp_path / "index", indexer.BuildRequest([photos], embedder="ret"), matcher)

    def boxes_in(folders: list[Path]) -> dict[str, bytes]:
        found = dict[str, bytes]()
        for folder in folders:
            with indexer.open_index(folder, matcher) as opened:
                boxes = opened.photo_boxes(np.arange(opened.photo_count))
                paths = [opened.photo(number).paths[0] for number in opened.ids.tolist()]
                found |= {path: own.tobytes() for path, own in zip(paths, boxes, strict=True)}
        return found

    request = indexer.BuildRequest((photos,), embedder="ret", shards=2)
    assert build_shards(index, request, machines).encoded == 4
    expected = boxes_in([tmp_path / "index"])
    assert boxes_in([index / "shard-0000", index / "shard-0001"]) == expected
    for number in range(2):
        edit_manifest(index / f"shard-{number:04}", detector="another")
    report = build_shards(index, indexer.BuildRequest(), machines)
    assert (report.encoded, report.boxed, report.changed) == (0, 4, True)
    assert boxes_in([index / "shard-0000", index / "shard-0001"]) == expected
    assert not build_shards(index, indexer.BuildRequest(), machines).changed
