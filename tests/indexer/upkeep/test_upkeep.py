from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import model
from indexer import (
    BadInvocation,
    Index,
    IndexRefused,
    UnknownPhoto,
    add,
    build,
    compact,
    live_stamp,
    open_index,
    read_summary,
    remove,
    verify,
)
from indexer.upkeep import plan_removal
from tests.indexer.disks import refuse_listing
from tests.indexer.galleries import catalog, save_photo, save_photos, tokens_of
from tests.indexer.stopped_builds import StopAfter, Stopped


@pytest.fixture
def built(gallery: Path, index_path: Path, matcher: model.Matcher) -> Path:
    """The gallery's index, with three clusters."""
    build([gallery], index_path, matcher)
    return index_path


def shown(index: Path, matcher: model.Matcher) -> set[str]:
    """The paths of everything that a search can find."""
    with open_index(index, matcher) as opened:
        ids = [photo for number in range(opened.cluster_count) for photo in opened.cluster_ids(number).tolist()]
        assert len(ids) == len(set(ids)) == opened.photo_count
        return {path for photo in ids for path in opened.photo(photo).paths}


def answers(index: Index, matcher: model.Matcher) -> list[tuple[int, list[int], list[float]]]:
    """What searches are made of: centroids' and photos' scores, cluster by cluster."""
    query = tokens_of(index, 0)[:1]
    found = []
    for number in range(index.cluster_count):
        ids = index.cluster_ids(number)
        scores = matcher.scores(query, tokens_of(index, number), "rn")[0].tolist() if len(ids) else []
        found.append((number, ids.tolist(), scores))
    return [(-1, [], matcher.scores(query, index.centroids, "rn")[0].tolist()), *found]


def test_a_removed_photo_vanishes_at_once_and_its_file_stays(
    built: Path, gallery: Path, matcher: model.Matcher
) -> None:
    report = remove([], built, ids=[3])
    assert (report.changed, report.photos, report.files) == (True, 11, 1)
    with open_index(built, matcher) as index, pytest.raises(UnknownPhoto):
        index.photo(3)
    assert verify(built) == []
    assert len(list(gallery.rglob("*.png"))) == 12
    assert len(read_summary(built).removed) == 1


def test_what_was_removed_stays_out_of_updates_until_it_is_added_and_keeps_id_and_row(
    built: Path, gallery: Path, matcher: model.Matcher
) -> None:
    before = catalog(built)
    path = "Ännchen 001.png"
    remove([path], built)
    save_photo(gallery / "another.png", 50)
    # Neither a change of the file nor a build that names the folder brings it back.
    os.utime(gallery / path, ns=(1, 1))
    assert build([gallery], built, matcher).encoded == 1
    assert shown(built, matcher) == (before.keys() | {"another.png"}) - {path}
    report = add([gallery / path], built, matcher)
    assert (report.encoded, report.photos) == (0, 13)
    assert catalog(built)[path] == before[path]
    assert read_summary(built).removed == ()


def test_a_bad_file_that_is_removed_is_not_reported_again(built: Path, gallery: Path, matcher: model.Matcher) -> None:
    (gallery / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert len(build([gallery], built, matcher).bad) == 1
    remove(["broken.jpg"], built)
    assert read_summary(built).bad == ()
    assert build([gallery], built, matcher).bad == ()


@pytest.mark.parametrize(
    ("targets", "match"),
    [
        (["nothing.png"], "no photo at nothing.png"),
        (["in"], "no photo at in"),
        (["/"], "no photo at /"),
        ([".."], "no photo at"),
        (["Ännchen 001.png", "nothing.png"], "no photo at nothing.png"),
        (["in here", "."], "no photo at ."),
        ([""], "'' names nothing"),
        (["3"], "the photo of that id is named by --id 3"),
    ],
    ids=[
        "a path",
        "a part of a name",
        "the root of the disk",
        "a folder outside",
        "one of two",
        "here",
        "empty",
        "an id",
    ],
)
def test_what_is_not_there_cannot_be_removed_and_nothing_changes(targets: list[str], match: str, built: Path) -> None:
    with pytest.raises(BadInvocation, match=match):
        remove(targets, built)
    info = read_summary(built)
    assert (info.generation, info.manifest.counts.photos) == ("g000001", 12)


def test_an_unknown_id_and_the_last_photos_cannot_be_removed(built: Path) -> None:
    with pytest.raises(BadInvocation, match="no photo has the id 99"):
        remove([], built, ids=[99])
    with pytest.raises(BadInvocation, match="no photo would be left"):
        remove([], built, ids=range(1, 13))
    assert read_summary(built).generation == "g000001"


def test_a_number_that_is_a_folder_is_the_folder(gallery: Path, index_path: Path, matcher: model.Matcher) -> None:
    save_photo(gallery / "3" / "a.png", 20)
    build([gallery], index_path, matcher)
    plan = plan_removal(["3"], index_path)
    assert plan.leaving == (("3", 1),)
    assert (plan.files, plan.of) == (1, 13)
    remove(["3"], index_path)
    assert "3/a.png" not in shown(index_path, matcher)
    assert len(shown(index_path, matcher)) == 12


def test_a_path_that_may_be_one_photo_or_another_is_refused_with_both(
    gallery: Path, index_path: Path, matcher: model.Matcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inner, outer = save_photo(gallery / "in here" / "p3.png", 20), save_photo(gallery / "p3.png", 21)
    build([gallery], index_path, matcher)
    monkeypatch.chdir(gallery / "in here")
    with pytest.raises(BadInvocation) as told:
        remove(["p3.png"], index_path)
    assert str(told.value) == f"p3.png may be {outer} or {inner}; name one of them by its whole path."
    # A file here that the index does not have may be meant, too.
    other = save_photo(tmp_path / "elsewhere" / "p3.png", 22)
    monkeypatch.chdir(other.parent)
    with pytest.raises(BadInvocation, match=r"p3\.png may be .* or .*elsewhere"):
        remove(["p3.png"], index_path)
    monkeypatch.chdir(tmp_path)
    assert plan_removal(["p3.png"], index_path).leaving == plan_removal([outer], index_path).leaving
    monkeypatch.chdir(gallery / "in here")
    assert plan_removal(["./p3.png"], index_path).leaving == (("in here/p3.png", 1),)


@pytest.mark.parametrize("hidden", ["in here", ""], ids=["a folder", "a root"])
def test_photos_of_a_folder_that_cannot_be_read_stay(
    hidden: str, built: Path, gallery: Path, matcher: model.Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photo(gallery / "in here" / "broken.png", 30).write_bytes(b"")
    add([save_photos(tmp_path / "more", 4, start=20)], built, matcher)
    before = catalog(built)
    (gallery / "Ännchen 001.png").unlink()
    save_photo(tmp_path / "more" / "new.png", 40)
    with monkeypatch.context() as patched:
        refuse_listing(patched, gallery / hidden)
        report = build([], built, matcher)
        assert [folder.reason for folder in report.unlisted] == ["the folder cannot be read: Permission denied"]
        gone = int(bool(hidden))
        assert (report.photos, report.gone, report.encoded) == (17 - gone, gone, 1)
        assert verify(built) == []
        assert not build([], built, matcher).changed
    for path, entry in before.items():
        if path != "Ännchen 001.png":
            assert catalog(built)[path] == entry
    report = build([], built, matcher)
    assert (report.photos, report.unlisted) == (16, ())


def test_add_extends_the_gallery_and_new_photos_join_the_clusters_there_are(
    built: Path, gallery: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    before = catalog(built)
    more = save_photos(tmp_path / "more", 4, start=20)
    report = add([more], built, matcher)
    assert (report.encoded, report.photos, report.clusters) == (4, 16, 3)
    info = read_summary(built)
    assert info.manifest.root_names == ("photos", "more")
    after = catalog(built)
    assert {path: after[path] for path in before} == before
    assert not add([more], built, matcher).changed
    assert not build([], built, matcher).changed
    assert verify(built) == []


def test_a_root_that_is_removed_leaves_the_gallery(
    built: Path, gallery: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    add([save_photos(tmp_path / "more", 4, start=20)], built, matcher)
    remove(["more/Ännchen 020.png"], built)
    assert remove([str(gallery)], built).photos == 3
    info = read_summary(built)
    assert info.manifest.root_names == ("more",)
    assert info.removed == ("Ännchen 020.png",)
    assert build([], built, matcher).photos == 3
    assert verify(built) == []
    with pytest.raises(BadInvocation, match="no photo would be left"):
        remove([str(tmp_path / "more")], built)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("missing", "does not exist"),
        ("file", "is not a folder"),
        ("", "which the index has, overlap; to have the outer one in its place, name it, and every other folder"),
    ],
)
def test_what_cannot_be_added_is_refused(
    name: str, match: str, built: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInvocation, match=match):
        add([tmp_path / name], built, matcher)


def test_compact_merges_segments_and_drops_dead_rows_and_answers_stay(
    built: Path, gallery: Path, matcher: model.Matcher
) -> None:
    save_photos(gallery, 5, start=20)
    build([gallery], built, matcher)
    remove(["Ännchen 022.png"], built, ids=[3])
    before = open_index(built, matcher)
    live = live_stamp(built)
    expected = answers(before, matcher)
    report = compact(built)
    assert (report.changed, report.segments, report.rows, report.dropped) == (True, 1, 15, 2)
    assert verify(built) == []
    with open_index(built, matcher) as after:
        assert answers(after, matcher) == expected
        assert after.generation != before.generation
        assert np.array_equal(after.vectors.centroids, before.vectors.centroids)
    # The space is free, and a reader that was there goes on.
    assert len(list((built / "segments").iterdir())) == len(list(built.glob("g*"))) == 1
    assert live is not None
    assert live_stamp(built) not in (live, None)
    assert answers(before, matcher) == expected
    assert before.photo(1).id == 1
    before.close()
    assert not compact(built).changed
    assert not build([gallery], built, matcher).changed


def test_upkeep_leaves_what_a_stopped_build_has_computed(built: Path, gallery: Path, matcher: model.Matcher) -> None:
    save_photos(gallery, 6, start=20)
    with pytest.raises(Stopped):
        build([gallery], built, matcher, batch=2, progress=StopAfter(4))
    remove([], built, ids=[3])
    compact(built)
    assert build([gallery], built, matcher, batch=2).encoded == 2


@pytest.mark.parametrize("change", [lambda index: remove([], index, ids=[1]), compact], ids=["remove", "compact"])
def test_upkeep_needs_an_index(change: object, tmp_path: Path) -> None:
    assert callable(change)
    with pytest.raises(IndexRefused, match="there is no index"):
        change(tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_the_stamp_tells_when_another_generation_is_live(
    built: Path, gallery: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    index = open_index(built, matcher)
    live = live_stamp(built)
    assert live == live_stamp(built) is not None
    built.rename(tmp_path / "away")
    assert live_stamp(built) is None
    # Another index in its place has a generation of the same name.
    build([gallery], built, matcher, clusters=2)
    assert (index.generation, read_summary(built).generation) == ("g000001", "g000001")
    assert live_stamp(built) not in (live, None)
    assert np.sum(index.cluster_sizes) == 12
    index.close()


@pytest.mark.parametrize("name", ["loop", "loop/x"])
def test_a_link_to_itself_is_a_path_that_leads_nowhere(name: str, built: Path, matcher: model.Matcher) -> None:
    loop = built.parent / "loop"
    loop.symlink_to(loop)
    path = built.parent / name
    with pytest.raises(BadInvocation, match="no photo at"):
        remove([path], built)
    with pytest.raises(BadInvocation, match="does not exist"):
        build([path], built, matcher)
