"""What a disk, a person and a second builder can do to an index while it is made. For kills, see test_resume."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import model
from indexer import IndexBusy, IndexUnwritable, add, build, compact, open_index, read_summary, remove, repair, verify
from indexer.store.location import IndexFolder
from model.network.config import Modality
from model.network.tokens import Tokens
from tests.indexer.damages import flip
from tests.indexer.disks import fill, read_only, small_disk
from tests.indexer.galleries import save_photo, save_photos, tokens_of
from tests.indexer.strange_networks import GlobalVector, calling
from tests.programs import started_python

MIB = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Four MiB."""
    with small_disk(tmp_path / "disk", 4 * MIB) as place:
        yield place


@pytest.mark.parametrize("room", [0, 8_192, 40_960, 100_000, 200_000])
def test_on_a_full_disk_the_old_index_stays_and_the_next_build_goes_on(
    room: int, disk: Path, gallery: Path, matcher: model.Matcher
) -> None:
    index = disk / "index"
    build([gallery], index, matcher)
    save_photos(gallery, 200, start=20)
    filler = fill(disk, room)
    with pytest.raises(IndexUnwritable, match="make room or give permission"):
        build([gallery], index, matcher, batch=8)
    assert verify(index) == []
    with open_index(index, matcher) as opened:
        assert (opened.generation, opened.photo_count) == ("g000001", 12)
    filler.unlink()
    report = build([gallery], index, matcher, batch=8)
    assert report.photos == 212
    # What was committed before the disk was full is not lost.
    assert report.encoded < 200 or room < 100_000
    assert verify(index) == []


UPKEEP: dict[str, Callable[[Path, model.Matcher], object]] = {
    "remove": lambda index, matcher: remove([], index, ids=[1]),
    "compact": lambda index, matcher: compact(index),
    "repair": repair,
}


@pytest.mark.parametrize("work", UPKEEP.values(), ids=UPKEEP.keys())
def test_upkeep_on_a_full_disk_leaves_the_old_index_and_can_be_done_later(
    work: Callable[[Path, model.Matcher], object], disk: Path, gallery: Path, matcher: model.Matcher
) -> None:
    index = disk / "index"
    build([gallery], index, matcher)
    save_photos(gallery, 5, start=20)
    build([gallery], index, matcher)
    if work is repair:
        flip(index / "g000002" / "centroid_ret.npy")
    filler = fill(disk)
    with pytest.raises(IndexUnwritable, match="what was live still is"):
        work(index, matcher)
    with open_index(index, matcher) as opened:
        assert (opened.generation, opened.photo_count) == ("g000002", 17)
    filler.unlink()
    work(index, matcher)
    assert read_summary(index).generation != "g000002"
    assert verify(index) == []


def test_a_read_only_index_is_searched_and_what_would_write_it_says_so(
    disk: Path, gallery: Path, matcher: model.Matcher
) -> None:
    index = disk / "index"
    build([gallery], index, matcher)
    with read_only(disk):
        with open_index(index, matcher) as opened:
            assert opened.photo_count == 12
            assert tokens_of(opened, 0).features.shape[0] == len(opened.cluster_ids(0))
            assert opened.photo(1).id == 1
        assert verify(index) == []
        assert read_summary(index).manifest.counts.photos == 12
        for work in (
            lambda: build([gallery], index, matcher),
            lambda: add([gallery], index, matcher),
            lambda: remove([], index, ids=[1]),
            lambda: compact(index),
            lambda: repair(index, matcher),
        ):
            with pytest.raises(IndexUnwritable, match=r"cannot be written: Read-only file system; .* permission"):
                work()
    assert not build([gallery], index, matcher).changed


def test_a_gallery_that_changes_while_it_is_read_is_right_after_the_next_build(
    gallery: Path, index_path: Path, matcher: model.Matcher, weights: Path, tmp_path: Path
) -> None:
    photos = sorted(gallery.glob("*.png"))
    meddler, begun = model.load(weights, dtype=torch.float32), list[bool]()

    def change() -> None:
        if begun:
            return
        begun.append(True)
        # As the walk goes by path, these were seen and most are not read yet.
        photos[-1].unlink()
        save_photo(photos[-2], 60)
        photos[-3].write_bytes(photos[-3].read_bytes()[:100])
        photos[-4].rename(gallery / "renamed.png")
        save_photo(gallery / "new.png", 61)

    meddler.preprocessing = calling(change, matcher)
    report = build([gallery], index_path, meddler, batch=2)
    assert {bad.path for bad in report.bad} <= {path.name for path in photos[-4:]}
    assert verify(index_path) == []
    report = build([gallery], index_path, matcher)
    assert [bad.path for bad in report.bad] == [photos[-3].name]
    build([gallery], tmp_path / "at rest", matcher)
    with open_index(index_path, matcher) as index, open_index(tmp_path / "at rest", matcher) as other:
        contents = {
            index.photo(i).content_hash for n in range(index.cluster_count) for i in index.cluster_ids(n).tolist()
        }
        expected = {
            other.photo(i).content_hash for n in range(other.cluster_count) for i in other.cluster_ids(n).tolist()
        }
        assert contents == expected


# What a builder does first, without the seconds that it takes to start one.
SECOND = """
import fcntl, sys
with open(sys.argv[1], "ab") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs locks of this kind")
def test_while_one_builds_all_others_are_told_and_nobody_has_to_tidy_up_after_a_kill(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    with started_python("-c", SECOND, str(index_path / ".lock")) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for work in (
            lambda: build([gallery], index_path, matcher),
            lambda: add([gallery], index_path, matcher),
            lambda: remove([], index_path, ids=[1]),
            lambda: compact(index_path),
            lambda: repair(index_path, matcher),
        ):
            with pytest.raises(IndexBusy, match="another build is writing"):
                work()
        with open_index(index_path, matcher) as index:
            assert index.photo_count == 12
        other.kill()
    assert remove([], index_path, ids=[1]).photos == 11
    assert IndexFolder(index_path).current() == "g000002"


class WithoutALibrary(GlobalVector):
    def encode(self, images: torch.Tensor, modality: Modality) -> Tokens:
        raise OSError("libgomp.so.1: cannot open shared object file")


def test_only_what_is_written_is_told_as_unwritable(gallery: Path, index_path: Path, matcher: model.Matcher) -> None:
    with pytest.raises(OSError, match="libgomp"):
        build([gallery], index_path, WithoutALibrary(matcher))  # type: ignore[arg-type]
    assert build([gallery], index_path, matcher).photos == 12
