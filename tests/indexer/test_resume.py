from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import model
from indexer import IndexUnwritable, build, open_index, verify
from indexer.catalog import read_catalog
from indexer.journal import FileRecord, Journal
from indexer.progress import Progress
from indexer.segment import RowArrays
from tests.indexer.galleries import index_bytes, save_photo, save_photos

POINTS = 12


class Stopped(Exception):
    """Ends a build from outside."""


class StopAfter(Progress):
    """Raises once ``photos`` were staged."""

    def __init__(self, photos: int) -> None:
        super().__init__()
        self._left = photos

    def advance(self, done: int = 1, bad: int = 0) -> None:
        super().advance(done, bad)
        self._left -= done
        if self._left <= 0:
            raise Stopped


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    out = tmp_path_factory.mktemp("killed")
    photos = save_photos(out / "photos", 14)
    shutil.copy(photos / "Ännchen 001.png", photos / "zz a copy.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    command = [sys.executable, "-m", "tests.indexer.killed_builds", str(photos), str(weights), str(out), str(POINTS)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked and killed")
@pytest.mark.parametrize("point", range(POINTS))
def test_a_build_killed_at_any_point_ends_in_the_same_index_byte_for_byte(point: int, killed: Path) -> None:
    assert index_bytes(killed / f"killed-{point}") == index_bytes(killed / "undisturbed")
    assert verify(killed / f"killed-{point}") == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked and killed")
@pytest.mark.parametrize("point", range(POINTS))
def test_an_update_killed_at_any_point_ends_in_the_same_index_byte_for_byte(point: int, killed: Path) -> None:
    assert index_bytes(killed / f"killed-update-{point}") == index_bytes(killed / "updated")
    assert verify(killed / f"killed-update-{point}") == []


def test_an_update_that_was_killed_had_photos_to_add_to_change_and_to_drop(killed: Path) -> None:
    before = {photo.path: photo for photo in read_catalog(killed / "undisturbed" / "g000001" / "photos.sqlite")}
    after = {photo.path: photo for photo in read_catalog(killed / "updated" / "g000002" / "photos.sqlite")}
    assert len(after.keys() - before.keys()) == 8
    assert sum(photo.status == "gone" for photo in after.values()) == 2
    assert sum(after[path].status == "indexed" and after[path].hash != before[path].hash for path in before) == 1


def test_what_was_staged_is_not_computed_again(gallery: Path, index_path: Path, matcher: model.Matcher) -> None:
    with pytest.raises(Stopped):
        build([gallery], index_path, matcher, batch=4, progress=StopAfter(8))
    report = build([gallery], index_path, matcher, batch=4)
    assert (report.encoded, report.photos) == (4, 12)


def test_a_file_that_changed_since_it_was_staged_is_computed_again(
    gallery: Path, index_path: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        build([gallery], index_path, matcher, batch=4, progress=StopAfter(8))
    first = min(gallery.rglob("*.png"), key=lambda path: path.relative_to(gallery).as_posix())
    save_photo(first, 55)
    os.utime(first, ns=(1, 1))
    assert build([gallery], index_path, matcher, batch=4).encoded == 5
    build([gallery], tmp_path / "undisturbed", matcher, batch=4)
    assert index_bytes(index_path) == index_bytes(tmp_path / "undisturbed")


def test_rows_staged_in_another_precision_are_not_used(
    gallery: Path, index_path: Path, matcher: model.Matcher, weights: Path
) -> None:
    with pytest.raises(Stopped):
        build([gallery], index_path, model.load(weights, dtype=torch.bfloat16), batch=4, progress=StopAfter(8))
    assert build([gallery], index_path, matcher).encoded == 12


def test_while_an_update_is_stopped_the_old_generation_is_read(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    save_photos(gallery, 6, start=20)
    with pytest.raises(Stopped):
        build([gallery], index_path, matcher, batch=2, progress=StopAfter(2))
    with open_index(index_path, matcher) as index:
        assert (index.generation, index.photo_count) == ("g000001", 12)
    assert build([gallery], index_path, matcher).photos == 18


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("limit", [4096, 30_000], ids=["of the journal", "of the rows"])
def test_a_full_disk_is_a_sentence_and_the_build_goes_on_when_there_is_room(
    limit: int, gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    import resource

    build([gallery], index_path, matcher)
    save_photos(gallery, 60, start=20)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(IndexUnwritable, match=r"cannot be written: .*; make room .* what was live still is"):
            build([gallery], index_path, matcher, batch=8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with open_index(index_path, matcher) as index:
        assert (index.generation, index.photo_count) == ("g000001", 12)
    assert build([gallery], index_path, matcher, batch=8).photos == 72
    assert verify(index_path) == []


def test_rows_written_but_not_committed_are_overwritten(tmp_path: Path) -> None:
    record = FileRecord(0, "a.png", "aa", 1, 1, None)
    journal = Journal(tmp_path / "journal")
    journal.append([record], ["aa"], _rows(1.0))
    journal.close()
    with (tmp_path / "journal" / "ret.raw").open("ab") as file:
        file.write(b"half a row")
    journal = Journal(tmp_path / "journal")
    journal.append([record], ["bb", "cc"], _rows(2.0, 3.0))
    arrays = journal.arrays()
    assert arrays is not None
    assert arrays.ret.tolist() == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    assert journal.rows() == {"aa": 0, "bb": 1, "cc": 2}
    journal.close()


def _rows(*values: float) -> RowArrays:
    ret = torch.tensor(values)[:, None].expand(-1, 2).numpy()
    return RowArrays(ret, ret)
