from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from indexer import IndexUnwritable, Request, build, verify
from tests.benchmarks.results import soak
from tests.indexer.galleries import Collection, index_bytes, save_photo, save_photos
from tests.indexer.stopped_builds import StopAfter, Stopped
from tests.patience import SOAK_TIMEOUT
from tests.programs import LONG, run_python

# The sentence that the soak writes down.
SOAKED = "Builds and updates killed at 200 moments. Run again, each ends with the index that an undisturbed run makes"

POINTS = 3


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked and killed")


def disturbed(out: Path, weights: Path, count: int) -> Path:
    """Makes the indexes that killed builds and updates leave; see tests.indexer.killed_builds."""
    photos = save_photos(out / "photos", 8)
    shutil.copy(photos / "Ännchen 001.png", photos / "zz a copy.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
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
def test_a_build_killed_at_any_point_ends_in_the_same_index_byte_for_byte(
    name: str, undisturbed: str, killed: Path
) -> None:
    for point in range(POINTS):
        assert index_bytes(killed / f"{name}-{point}") == index_bytes(killed / undisturbed)
        assert verify(killed / f"{name}-{point}") == []


@needs_fork
@pytest.mark.soak
def test_builds_and_updates_killed_at_200_moments_end_in_the_same_index_byte_for_byte(
    tmp_path: Path, weights: Path
) -> None:
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
    build(tmp_path / "undisturbed", Request([collection.photos], batch=4), collection.matcher)
    assert index_bytes(collection.index) == index_bytes(tmp_path / "undisturbed")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("limit", [4096, 30_000], ids=["of the journal", "of the rows"])
def test_a_full_disk_is_a_sentence_and_the_build_goes_on_when_there_is_room(limit: int, collection: Collection) -> None:
    import resource

    collection.build()
    save_photos(collection.photos, 60, start=20)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(IndexUnwritable, match=r"cannot be written: .*; make room .* The old index stays in use"):
            collection.build(batch=8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with collection.open() as index:
        assert (index.generation, index.photo_count) == ("g000001", 12)
    assert collection.build(batch=8).photos == 72
    assert verify(collection.index) == []
