from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import model
from indexer import Request, UnknownPhoto, build, build_growing, open_index, verify
from indexer.building import run
from indexer.store.files import FileStamp
from tests.indexer.galleries import catalog, index_bytes, save_photo, save_photos, tokens_of


def test_a_second_build_of_an_unchanged_gallery_changes_nothing(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    (gallery / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    build([gallery], index_path, matcher)
    before = index_bytes(index_path)
    report = build([gallery], index_path, matcher)
    assert (report.changed, report.encoded, len(report.bad)) == (False, 0, 1)
    assert index_bytes(index_path) == before


def test_an_update_computes_only_new_photos_and_keeps_ids_rows_and_clusters(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    before = catalog(index_path)
    save_photos(gallery, 5, start=20)
    report = build([gallery], index_path, matcher)
    after = catalog(index_path)
    assert (report.encoded, report.photos, report.clusters) == (5, 17, 3)
    assert {path: after[path] for path in before} == before
    new = sorted(after[path] for path in after.keys() - before.keys())
    assert [entry[0] for entry in new] == [13, 14, 15, 16, 17]
    assert len({entry[3] for entry in after.values()}) == 2
    assert verify(index_path) == []
    with open_index(index_path, matcher) as index:
        for number in range(index.cluster_count):
            ids = index.cluster_ids(number).tolist()
            assert ids == sorted(ids)
            assert all(index.photo(photo).cluster == number for photo in ids)


def test_a_build_that_grows_lets_the_first_photos_be_searched_and_ends_as_any_other(
    gallery: Path, index_path: Path, matcher: model.Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (gallery / f"! {number}.jpg").write_bytes(b"\xff\xd8\xff")
    # The first files are bad, so that one more step is read before there is a generation.
    first = run(index_path, Request((gallery,), most=3), matcher)
    assert (first.photos, first.waiting, len(first.bad)) == (3, 9, 3)
    with open_index(index_path, matcher) as index:
        assert index.photo_count == 3
    monkeypatch.setattr("indexer.building.builds.FIRST_GENERATION", 3)
    report = build_growing([gallery], index_path, matcher)
    assert (report.generation, report.photos, report.waiting, report.encoded) == ("g000003", 12, 0, 6)
    whole = build([gallery], tmp_path / "at once", matcher)
    assert (report.clusters, report.bad) == (whole.clusters, whole.bad)
    after, plain = catalog(index_path), catalog(tmp_path / "at once")
    assert [entry[0] for entry in after.values()] == [entry[0] for entry in plain.values()]
    assert verify(index_path) == []


def test_a_changed_file_that_waits_for_the_next_build_stays_as_it_was(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    changed = [save_photo(gallery / "in here" / f"Ännchen 00{number}.png", 50 + number) for number in range(3)]
    report = run(index_path, Request(most=1), matcher)
    assert (report.photos, report.waiting, report.gone) == (12, len(changed) - 1, 0)


def test_an_updated_index_has_the_centroids_that_a_full_computation_gives(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    save_photos(gallery, 5, start=20)
    (gallery / "in here" / "Ännchen 000.png").unlink()
    build([gallery], index_path, matcher)
    with open_index(index_path, matcher) as index:
        for number in range(index.cluster_count):
            rows = index.vectors.rows_of(number)
            centroid = torch.from_numpy(index.vectors.centroids[number])
            torch.testing.assert_close(centroid, index.vectors.of(rows).mean(0), atol=1e-6, rtol=1e-6)
            mean = index.centroids.features[number, 0].float()
            torch.testing.assert_close(mean, index.photo_tokens(rows).ret.mean(0), atol=4e-3, rtol=4e-3)


def test_a_photo_that_is_gone_vanishes_and_comes_back_with_its_id_and_row(
    gallery: Path, index_path: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    build([gallery], index_path, matcher)
    path = gallery / "Ännchen 001.png"
    before = catalog(index_path)[path.name]
    shutil.move(path, tmp_path / "away.png")
    report = build([gallery], index_path, matcher)
    assert (report.gone, report.encoded, report.photos) == (1, 0, 11)
    with open_index(index_path, matcher) as index:
        with pytest.raises(UnknownPhoto):
            index.photo(before[0])
        assert all(before[0] not in index.cluster_ids(number) for number in range(index.cluster_count))
        assert index.cluster_sizes.sum() == 11
    shutil.move(tmp_path / "away.png", path)
    assert build([gallery], index_path, matcher).encoded == 0
    assert catalog(index_path)[path.name] == before
    assert verify(index_path) == []


def test_a_cluster_that_lost_all_its_photos_stays_in_its_place(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher, clusters=6)
    with open_index(index_path, matcher) as index:
        smallest = int(index.cluster_sizes.argmin())
        for photo in index.cluster_ids(smallest).tolist():
            (gallery / index.photo(photo).paths[0]).unlink()
        kept = index.centroids.features[smallest]
    build([gallery], index_path, matcher)
    with open_index(index_path, matcher) as index:
        assert index.cluster_sizes[smallest] == 0
        assert len(index.cluster_ids(smallest)) == len(tokens_of(index, smallest)) == 0
        assert torch.equal(index.centroids.features[smallest], kept)


def test_a_changed_file_keeps_its_id_and_gets_new_tokens(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    before = catalog(index_path)["Ännchen 002.png"]
    save_photo(gallery / "Ännchen 002.png", 77)
    os.utime(gallery / "Ännchen 002.png", ns=(1, 1))
    assert build([gallery], index_path, matcher).encoded == 1
    after = catalog(index_path)["Ännchen 002.png"]
    assert after[0] == before[0]
    assert after[3:] != before[3:]


def test_a_touched_or_renamed_file_is_read_again_but_not_computed(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    os.utime(gallery / "Ännchen 002.png", ns=(1, 1))
    (gallery / "Ännchen 004.png").rename(gallery / "another name.png")
    report = build([gallery], index_path, matcher)
    assert (report.encoded, report.changed, report.photos) == (0, True, 12)
    assert not build([gallery], index_path, matcher).changed


def change_secretly(path: Path) -> None:
    """Give the file another content of the same size, and set its time back."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_that_changed_with_its_size_and_time_kept_is_read_again(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    change_secretly(gallery / "Ännchen 001.png")
    report = build([gallery], index_path, matcher)
    assert (report.changed, report.encoded) == (True, 1)
    assert not build([gallery], index_path, matcher).changed


def test_a_build_by_checksum_finds_what_no_size_and_no_time_tells(
    gallery: Path, index_path: Path, matcher: model.Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on file systems that keep no time of the last change.
    monkeypatch.setattr(FileStamp, "of", lambda status: FileStamp(status.st_size, status.st_mtime_ns, 0))
    (gallery / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    build([gallery], index_path, matcher)
    change_secretly(gallery / "Ännchen 001.png")
    assert not build([gallery], index_path, matcher).changed
    report = build([gallery], index_path, matcher, checksum=True)
    assert (report.changed, report.encoded, len(report.bad)) == (True, 1, 1)
    assert not build([gallery], index_path, matcher, checksum=True).changed


def test_files_of_equal_content_are_shown_once_with_all_their_paths(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    shutil.copy(gallery / "Ännchen 001.png", gallery / "a copy.png")
    shutil.copy(gallery / "Ännchen 001.png", gallery / "in here" / "another.png")
    report = build([gallery], index_path, matcher)
    assert (report.photos, report.files, report.duplicates, report.encoded) == (12, 14, 2, 12)
    found = catalog(index_path)
    with open_index(index_path, matcher) as index:
        entries = {index.photo(found[path][0]) for path in ("Ännchen 001.png", "a copy.png", "in here/another.png")}
        (entry,) = entries
        assert entry.paths == ("a copy.png", "in here/another.png", "Ännchen 001.png")
        assert entry.id == found["a copy.png"][0]
        assert sum((index.cluster_ids(number) == entry.id).sum() for number in range(index.cluster_count)) == 1
    (gallery / "a copy.png").unlink()
    assert build([gallery], index_path, matcher).encoded == 0
    with open_index(index_path, matcher) as index:
        assert index.photo(found["Ännchen 001.png"][0]).id == found["in here/another.png"][0]


def test_several_roots_prefix_their_names_and_keep_ids_when_one_is_added(
    gallery: Path, index_path: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    build([gallery], index_path, matcher)
    before = catalog(index_path)
    second = save_photos(tmp_path / "more" / "photos", 4, start=20)
    report = build([gallery, second], index_path, matcher)
    assert (report.encoded, report.photos) == (4, 16)
    after = catalog(index_path)
    assert {path: after[path][0] for path in before} == {path: entry[0] for path, entry in before.items()}
    with open_index(index_path, matcher) as index:
        assert index.manifest.root_names == ("photos", "photos-2")
        tops = [path.split("/")[0] for photo in range(1, 17) for path in index.photo(photo).paths]
        assert tops == ["photos"] * 12 + ["photos-2"] * 4
        assert index.open_photo(16)
    assert not build([second, gallery], index_path, matcher).changed
    report = build([second], index_path, matcher)
    assert (report.encoded, report.photos) == (0, 4)
    with open_index(index_path, matcher) as index:
        assert [index.photo(photo).id for photo in range(13, 17)] == [13, 14, 15, 16]


def test_another_number_of_clusters_clusters_anew_without_computing(
    gallery: Path, index_path: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    build([gallery], index_path, matcher)
    report = build([gallery], index_path, matcher, clusters=5)
    assert (report.encoded, report.clusters, report.changed) == (0, 5, True)
    assert not build([gallery], index_path, matcher, clusters=5).changed
    assert not build([gallery], index_path, matcher).changed
    build([gallery], tmp_path / "at once", matcher, clusters=5)
    with open_index(index_path, matcher) as index, open_index(tmp_path / "at once", matcher) as other:
        assert torch.equal(index.centroids.features, other.centroids.features)
        for number in range(5):
            assert torch.equal(tokens_of(index, number).features, tokens_of(other, number).features)
    assert verify(index_path) == []


def test_another_checkpoint_computes_everything_and_keeps_the_ids(
    gallery: Path, index_path: Path, matcher: model.Matcher, other_matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    before = catalog(index_path)
    (gallery / "Ännchen 001.png").unlink()
    save_photo(gallery / "a new one.png", 70)
    assert build([gallery], index_path, other_matcher).encoded == 12
    after = catalog(index_path)
    assert {path: after[path][0] for path in before} == {path: entry[0] for path, entry in before.items()}
    assert after["Ännchen 001.png"][1] == "gone"
    assert after["a new one.png"][0] == 13
    assert verify(index_path) == []


def test_old_generations_go_except_the_last(gallery: Path, index_path: Path, matcher: model.Matcher) -> None:
    for clusters in (2, 3, 4):
        build([gallery], index_path, matcher, clusters=clusters)
    assert sorted(path.name for path in index_path.glob("g*")) == ["g000002", "g000003"]
    assert len(list((index_path / "segments").iterdir())) == 1


def test_a_reader_is_not_disturbed_by_later_builds(gallery: Path, index_path: Path, matcher: model.Matcher) -> None:
    build([gallery], index_path, matcher, clusters=2)
    with open_index(index_path, matcher) as index:
        before, features = index.cluster_ids(0), tokens_of(index, 0).features.clone()
        for clusters in (3, 4, 5):
            build([gallery], index_path, matcher, clusters=clusters)
        assert index.generation == "g000001"
        assert torch.equal(tokens_of(index, 0).features, features)
        assert np.array_equal(index.cluster_ids(0), before)
        assert index.photo(1).id == 1
