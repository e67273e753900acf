"""Disturbs builds by a full disk, a person and a second builder. For kills, see test_resume."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import model
from indexer import IndexBusy, IndexUnwritable, Request, build, read_summary, remove, verify
from indexer.store.location import IndexFolder
from model.engine import Floats, Modality, Tokens
from tests.indexer.damages import flip
from tests.indexer.disks import fill, read_only, small_disk
from tests.indexer.galleries import Collection, save_photo, save_photos, tokens_of
from tests.indexer.strange_networks import GlobalVector, calling
from tests.programs import started_python


@pytest.fixture
def on_disk(gallery: Path, matcher: model.Matcher, tmp_path: Path) -> Iterator[Collection]:
    """The index is on a disk of its own, of four MiB."""
    with small_disk(tmp_path / "disk", 4 * 2**20) as place:
        collection = Collection(gallery, place / "index", matcher)
        collection.build()
        yield collection


def writers(collection: Collection) -> dict[str, Callable[[], object]]:
    """Returns every operation that writes an index."""
    return {
        "build": collection.build,
        "add": lambda: build(collection.index, Request(added=[collection.photos]), collection.matcher),
        "remove": lambda: remove([], collection.index, ids=[1]),
        "repair": collection.update,
    }


@pytest.mark.parametrize("name", ["remove", "repair"])
def test_upkeep_on_a_full_disk_leaves_the_old_index_and_can_be_done_later(name: str, on_disk: Collection) -> None:
    save_photos(on_disk.photos, 5, start=20)
    on_disk.build()
    if name == "repair":
        flip(on_disk.index / "g000002" / "centroid_ret.npy")
    work, filler = writers(on_disk)[name], fill(on_disk.index.parent)
    with pytest.raises(IndexUnwritable, match="The old index stays in use"):
        work()
    with on_disk.open() as opened:
        assert (opened.generation, opened.photo_count) == ("g000002", 17)
    filler.unlink()
    work()
    assert read_summary(on_disk.index).generation != "g000002"
    assert verify(on_disk.index) == []


def test_a_read_only_index_is_searched_and_what_would_write_it_says_so(on_disk: Collection) -> None:
    with read_only(on_disk.index.parent):
        with on_disk.open() as opened:
            assert opened.photo_count == 12
            assert tokens_of(opened, 0).features.shape[0] == len(opened.cluster_ids(0))
            assert opened.photo(1).id == 1
        assert verify(on_disk.index) == []
        assert read_summary(on_disk.index).manifest.counts.photos == 12
        for work in writers(on_disk).values():
            with pytest.raises(IndexUnwritable, match=r"cannot be written: Read-only file system; .* permission"):
                work()
    assert not on_disk.build().changed


def test_a_gallery_that_changes_while_it_is_read_is_right_after_the_next_build(
    collection: Collection, weights: Path, tmp_path: Path
) -> None:
    photos = sorted(collection.photos.glob("*.png"))
    meddler, begun = model.load(weights, dtype="float32"), list[bool]()

    def change() -> None:
        if begun:
            return
        begun.append(True)
        # The walk goes by path, so these were seen, and most are not read yet.
        photos[-1].unlink()
        save_photo(photos[-2], 60)
        photos[-3].write_bytes(photos[-3].read_bytes()[:100])
        photos[-4].rename(collection.photos / "renamed.png")
        save_photo(collection.photos / "new.png", 61)

    meddler.preprocessing = calling(change, collection.matcher)
    report = collection.build(meddler, batch=2)
    assert {bad.path for bad in report.bad} <= {path.name for path in photos[-4:]}
    assert verify(collection.index) == []
    report = collection.build()
    assert [bad.path for bad in report.bad] == [photos[-3].name]
    at_rest = replace(collection, index=tmp_path / "at rest")
    at_rest.build()
    with collection.open() as index, at_rest.open() as other:
        contents, expected = (
            {opened.photo(number).content_hash for number in opened.ids.tolist()} for opened in (index, other)
        )
        assert contents == expected


# The first steps of a builder, without the seconds that its start takes.
SECOND = """
import fcntl, sys
with open(sys.argv[1], "ab") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs locks of this kind")
def test_while_one_builds_all_others_are_told_and_nobody_has_to_tidy_up_after_a_kill(built: Collection) -> None:
    with started_python("-c", SECOND, str(built.index / ".lock")) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for work in writers(built).values():
            with pytest.raises(IndexBusy, match="another build is writing"):
                work()
        with built.open() as index:
            assert index.photo_count == 12
        other.kill()
    assert remove([], built.index, ids=[1]).photos == 11
    assert IndexFolder(built.index).current() == "g000002"


class WithoutALibrary(GlobalVector):
    def encode(self, images: Floats, modality: Modality) -> Tokens:
        raise OSError("libgomp.so.1: cannot open shared object file")


def test_only_what_is_written_is_told_as_unwritable(collection: Collection) -> None:
    with pytest.raises(OSError, match="libgomp"):
        collection.build(WithoutALibrary(collection.matcher))
    assert collection.build().photos == 12
