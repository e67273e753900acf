import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from sketch_search import indexer, model
from sketch_search.indexer import read_summary, remove, verify
from sketch_search.indexer.building import builder
from sketch_search.indexer.samples import SKETCHED
from sketch_search.indexer.store.files import FileContent, FileStamp
from sketch_search.indexer.store.folders import LocalFolder
from sketch_search.indexer.store.location import IndexFolder
from tests.benchmarks.results import soak
from tests.indexer.disks import read_only, small_disk
from tests.indexer.galleries import (
    Collection,
    catalog,
    flip,
    held,
    ids_of,
    index_bytes,
    save_photo,
    save_photos,
    shorten,
    tokens_of,
)
from tests.indexer.killed_builds import StopAfter, Stopped, count_writes, in_child
from tests.pictures import panorama
from tests.programs import LONG, SOAK_TIMEOUT, run_python

# The sentence that the soak writes down.
SOAKED = "Builds and updates killed at 200 moments. Run again, each ends with the index that an undisturbed run makes"

POINTS = 2
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked and killed")


def disturbed(out: Path, weights: Path, count: int) -> Path:
    photos = save_photos(out / "photos", 8)
    shutil.copy(photos / "Ännchen 001.png", photos / "zz a copy.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    panorama(SKETCHED[:4]).save(photos / "a panorama.png")
    arguments = ("-m", "tests.indexer.killed_builds", str(photos), str(weights), str(out), str(count))
    seconds = LONG if count == POINTS else SOAK_TIMEOUT
    done = run_python(*arguments, environment={**os.environ, "OMP_NUM_THREADS": "1"}, seconds=seconds)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    return disturbed(tmp_path_factory.mktemp("killed"), weights, POINTS)


@needs_fork
@pytest.mark.parametrize(("name", "undisturbed"), [("killed", "undisturbed"), ("killed-update", "updated")])
def test_a_build_killed_at_any_point_ends_in_the_same_bytes(name: str, undisturbed: str, killed: Path) -> None:
    for point in range(POINTS):
        assert index_bytes(killed / f"{name}-{point}") == index_bytes(killed / undisturbed)
        assert indexer.verify(killed / f"{name}-{point}") == []


@needs_fork
def test_a_removal_killed_at_any_point_is_done_or_can_be_done_again(copied: Collection, tmp_path: Path) -> None:
    undisturbed, log = Path(shutil.copytree(copied.index, tmp_path / "undisturbed")), tmp_path / "writes"
    assert in_child(partial(indexer.remove, ["in here"], undisturbed), partial(count_writes, log=log)) == 0
    for point in range(0, int(log.read_text()), 3):
        killed = Path(shutil.copytree(copied.index, tmp_path / f"killed-{point}"))
        removal = partial(indexer.remove, ["in here"], killed)
        assert in_child(removal, partial(count_writes, point)) == signal.SIGKILL
        assert indexer.verify(killed) == []
        with suppress(indexer.BadInvocation):
            removal()
        shutil.rmtree(killed / ".building-removal", ignore_errors=True)
        assert index_bytes(killed) == index_bytes(undisturbed)


@needs_fork
@pytest.mark.soak
def test_builds_and_updates_killed_at_200_moments_end_in_the_same_bytes(tmp_path: Path, weights: Path) -> None:
    with soak(SOAKED) as run:
        disturbed(tmp_path, weights, 100)
        for killed, undisturbed in (("killed", "undisturbed"), ("killed-update", "updated")):
            expected = index_bytes(tmp_path / undisturbed)
            wrong = [number for number in range(100) if index_bytes(tmp_path / f"{killed}-{number}") != expected]
            run.times += 100
            run.failed += len(wrong)
            assert wrong == []


def test_a_file_that_changed_since_it_was_staged_is_computed_again(collection: Collection, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        collection.build(batch=4, progress=StopAfter(8))
    first = min(collection.photos.rglob("*.png"), key=lambda path: path.relative_to(collection.photos).as_posix())
    save_photo(first, 55)
    os.utime(first, ns=(1, 1))
    assert collection.build(batch=4).encoded == 5
    indexer.build(tmp_path / "undisturbed", indexer.BuildRequest([collection.photos], batch=4), collection.matcher)
    left, other = held(collection.index), held(tmp_path / "undisturbed")
    assert (left.files, left.photos, left.centroids) == (other.files, other.photos, other.centroids)
    # The segment has the row of what was there before, too.
    assert indexer.read_summary(collection.index).manifest.counts.rows == 13
    assert indexer.verify(collection.index) == []


def test_a_removal_leaves_what_a_stopped_update_has_computed(built: Collection) -> None:
    save_photos(built.photos, 8, start=20)
    with pytest.raises(Stopped):
        built.build(batch=4, progress=StopAfter(4))
    indexer.remove([], built.index, ids=[1])
    report = built.build(batch=4)
    assert (report.encoded, report.photos) == (4, 19)
    assert indexer.verify(built.index) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize(("name", "limit"), [("build", 4096), ("build", 30_000), ("remove", 4096), ("repair", 4096)])
def test_a_full_disk_is_reported_and_the_work_done_later(name: str, limit: int, collection: Collection) -> None:
    import resource

    collection.build()
    if name == "build":
        save_photos(collection.photos, 60, start=20)
    if name == "repair":
        flip(collection.index / "g000001" / "centroid_ret.npy")
        assert len(indexer.verify(collection.index)) == 1
    work = writers(collection)[name]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(
            indexer.IndexUnwritable, match=r"cannot be written: .*; free space .* The old index stays in use"
        ):
            work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with collection.open() as index:
        assert (index.generation, index.photo_count) == ("g000001", 12)
    work()
    with collection.open() as index:
        assert (index.generation, index.photo_count) == ("g000002", {"build": 72, "remove": 11, "repair": 12}[name])
    assert indexer.verify(collection.index) == []


def writers(collection: Collection) -> dict[str, Callable[[], object]]:
    return {
        "build": lambda: collection.build(batch=8),
        "add": lambda: collection.update(added=[collection.photos]),
        "remove": lambda: indexer.remove([], collection.index, ids=[1]),
        "repair": collection.update,
    }


def test_a_read_only_index_is_searched_and_what_would_write_it_says_so(built_once: Collection, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 * 2**20) as disk:
        on_disk = built_once.copied(disk)
        with read_only(disk):
            with on_disk.open() as opened:
                assert opened.photo_count == 12
                assert tokens_of(opened, 0).features.shape[0] == len(ids_of(opened, 0))
                assert opened.photo(1).id == 1
            assert indexer.verify(on_disk.index) == []
            assert indexer.read_summary(on_disk.index).manifest.counts.photos == 12
            for work in writers(on_disk).values():
                with pytest.raises(indexer.IndexUnwritable, match=r"be written: Read-only file system; .* permission"):
                    work()
        assert not on_disk.build().changed


def test_changes_meanwhile_are_found(collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, read, begun = sorted(collection.photos.glob("*.png")), LocalFolder.read, list[bool]()

    def changed(folder: LocalFolder, path: str, listed: FileStamp | None = None) -> FileContent:
        if not begun:
            begun.append(True)
            # All were listed before the first is read.
            photos[-1].unlink()
            save_photo(photos[-2], 60)
            photos[-3].write_bytes(photos[-3].read_bytes()[:100])
            photos[-4].rename(collection.photos / "renamed.png")
            save_photo(collection.photos / "new.png", 61)
        return read(folder, path, listed)

    monkeypatch.setattr(LocalFolder, "read", changed)
    report = collection.build(batch=2)
    assert {bad.path for bad in report.bad} <= {path.name for path in photos[-4:]}
    assert indexer.verify(collection.index) == []
    assert [bad.path for bad in collection.build().bad] == [photos[-3].name]
    at_rest = replace(collection, index=tmp_path / "at rest")
    at_rest.build()
    with collection.open() as index, at_rest.open() as other:
        contents, expected = (
            {opened.photo(number).content_hash for number in opened.ids.tolist()} for opened in (index, other)
        )
        assert contents == expected


def test_while_one_builds_others_are_refused_and_readers_read(built_once: Collection) -> None:
    with IndexFolder(built_once.index).writing():
        for work in writers(built_once).values():
            with pytest.raises(indexer.IndexBusy, match="another build is writing"):
                work()
        with built_once.open() as index:
            assert index.photo_count == 12


@pytest.fixture(scope="module")
def updated(tmp_path_factory: pytest.TempPathFactory, matcher: model.Matcher) -> Collection:
    """A collection with an index of two segments, in two generations; one photo is removed."""
    folder = tmp_path_factory.mktemp("updated")
    updated = Collection(save_photos(folder / "photos", 12), folder / "index", matcher)
    updated.build()
    save_photos(updated.photos, 5, start=20)
    updated.update()
    remove([], updated.index, ids=[3])
    return updated


@pytest.fixture
def segmented(updated: Collection, tmp_path: Path) -> Collection:
    return updated.copied(tmp_path)


def known(index: Path) -> dict[str, tuple[int, str]]:
    return {path: entry[:2] for path, entry in catalog(index).items()}


def tokens(collection: Collection) -> dict[int, bytes]:
    with collection.open() as opened:
        features = opened.photo_tokens(np.arange(opened.photo_count)).features
        return {photo: features[place].tobytes() for place, photo in enumerate(opened.ids.tolist())}


# Each damaged part, and how many photos are computed again: those of the first segment, or all.
PARTS = {
    **dict.fromkeys(("tokens.npy", "scales.npy", "positions.npy"), ("segments/s000001-*", 11)),
    **dict.fromkeys(("vectors.npy", "clusters.npy", "centroid_tokens.npy", "places.npy"), ("g000003", 16)),
}
DAMAGED = [*((name, flip) for name in PARTS), *product(("tokens.npy", "clusters.npy"), (shorten, Path.unlink))]


@pytest.mark.parametrize(("name", "damage"), DAMAGED)
def test_damaged_files_are_rebuilt_from_the_photos_and_everything_else_stays(
    name: str, damage: Callable[[Path], None], updated: Collection, segmented: Collection
) -> None:
    folder, encoded = PARTS[name]
    damage(next(segmented.index.glob(folder)) / name)
    (problem,) = verify(segmented.index)
    assert problem.endswith("build this index again (`sketch-search index build`) to rebuild the damaged parts.")
    report = segmented.update()
    assert (len(report.damaged), report.encoded, report.photos) == (1, encoded, 16)
    assert verify(segmented.index) == []
    assert not segmented.update().changed
    assert (known(segmented.index), tokens(segmented)) == (known(updated.index), tokens(updated))


def test_a_build_reads_no_file_until_a_verification_finds_damage(segmented: Collection) -> None:
    flip(next(segmented.index.glob("segments/s000001-*")) / "tokens.npy")
    assert segmented.update().damaged == ()
    assert len(verify(segmented.index)) == 1
    assert len(segmented.update().damaged) == 1
    assert verify(segmented.index) == []
    assert segmented.update().damaged == ()


def test_without_its_catalog_all_is_computed_and_no_id_given_twice(updated: Collection, segmented: Collection) -> None:
    shorten(segmented.index / "g000003" / "photos.sqlite")
    report = segmented.update()
    assert "photos get new ids" in report.damaged[-1]
    assert (report.encoded, report.photos) == (17, 17)
    assert verify(segmented.index) == []
    assert sorted(entry[0] for entry in known(segmented.index).values()) == list(range(18, 35))


def test_small_segments_are_merged_before_there_are_many(built: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * 5 * builder.MAX_SEGMENTS <= 128
    monkeypatch.setattr(builder, "MAX_SEGMENTS", 3)
    (largest,), counts = read_summary(built.index).manifest.segments, []
    for number in range(20, 24):
        save_photo(built.photos / f"{number}.png", number)
        built.update()
        segments = read_summary(built.index).manifest.segments
        assert segments[0] == largest
        counts.append([segment.rows for segment in segments[1:]])
    assert (counts, verify(built.index)) == ([[1], [1, 1], [3], [3, 1]], [])
    monkeypatch.setattr(builder, "MAX_SEGMENTS", 2)
    assert built.update().changed
    assert not built.update().changed
    assert [segment.rows for segment in read_summary(built.index).manifest.segments] == [12, 4]
    assert verify(built.index) == []
