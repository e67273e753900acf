import os
from pathlib import Path

import numpy as np
import pytest

from sketch_search import model
from sketch_search.indexer import BuildRequest, IndexRefused, build, build_growing, open_index, verify
from sketch_search.indexer.store.files import FileStamp
from sketch_search.indexer.store.generation import current_generation
from sketch_search.indexer.store.location import IndexFolder
from tests.indexer.galleries import Collection, catalog, ids_of, save_photo, save_photos, tokens_of


def test_an_update_computes_only_new_photos_and_keeps_ids_rows_and_clusters(built: Collection) -> None:
    before = catalog(built.index)
    save_photos(built.photos, 5, start=20)
    report = built.build()
    after = catalog(built.index)
    assert (report.encoded, report.photos, report.clusters) == (5, 17, 3)
    assert {path: after[path] for path in before} == before
    new = sorted(after[path] for path in after.keys() - before.keys())
    assert [entry[0] for entry in new] == [13, 14, 15, 16, 17]
    assert len({entry[3] for entry in after.values()}) == 2
    assert verify(built.index) == []


def test_a_build_that_grows_lets_the_first_photos_be_searched_and_ends_as_any_other(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (collection.photos / f"! {number}.jpg").write_bytes(b"\xff\xd8\xff")
    # The first files are bad, so that one more step is read before there is a generation.
    first = build(collection.index, BuildRequest((collection.photos,), max_new_files=3), collection.matcher)
    assert (first.photos, first.waiting, len(first.bad)) == (3, 9, 3)
    with collection.open() as index:
        assert index.photo_count == 3
    monkeypatch.setattr("sketch_search.indexer.building.builder.FIRST_GENERATION", 3)
    report = build_growing(collection.index, BuildRequest([collection.photos]), collection.matcher)
    assert (report.generation, report.photos, report.waiting, report.encoded) == ("g000003", 12, 0, 6)
    whole = build(tmp_path / "at once", BuildRequest([collection.photos]), collection.matcher)
    assert (report.clusters, report.bad) == (whole.clusters, whole.bad)
    after, plain = catalog(collection.index), catalog(tmp_path / "at once")
    assert [entry[0] for entry in after.values()] == [entry[0] for entry in plain.values()]
    assert verify(collection.index) == []


def test_a_build_that_grows_keeps_the_clusters_if_few_photos_are_new(built: Collection) -> None:
    before = current_generation(IndexFolder(built.index)).read_means()
    save_photo(built.photos / "new.png", 50)
    report = build_growing(built.index, BuildRequest(), built.matcher)
    assert (report.encoded, report.photos) == (1, 13)
    np.testing.assert_array_equal(current_generation(IndexFolder(built.index)).read_means(), before)


def test_a_changed_file_that_waits_for_the_next_build_stays_as_it_was(built: Collection) -> None:
    changed = [save_photo(built.photos / "in here" / f"Ännchen 00{number}.png", 50 + number) for number in range(3)]
    report = built.update(max_new_files=1)
    assert (report.photos, report.waiting, report.gone) == (12, len(changed) - 1, 0)


def test_an_updated_index_has_the_centroids_that_a_full_computation_gives(built: Collection) -> None:
    save_photos(built.photos, 5, start=20)
    (built.photos / "in here" / "Ännchen 000.png").unlink()
    built.build()
    with built.open() as index:
        for number in range(index.cluster_count):
            rows = index.vectors.rows_of(number)
            tokens = index.photo_tokens(rows)
            centroid = index.vectors.centroids[number]
            np.testing.assert_allclose(centroid, index.vectors.of(rows).mean(0), atol=1e-6, rtol=1e-6)
            # The cells that most photos kept, of equally frequent ones the lower; each by the photos that kept it.
            frequent = np.argsort(-np.bincount(tokens.positions.ravel()), kind="stable")
            cells = sorted(frequent[: tokens.positions.shape[1]].tolist())
            patches = [tokens.features[:, 1:][tokens.positions == cell].mean(0) for cell in cells]
            assert index.centroids.positions[number].tolist() == cells
            expected = [tokens.ret.mean(0), *patches]
            np.testing.assert_allclose(index.centroids.features[number], expected, atol=4e-3, rtol=4e-3)


def test_a_file_changed_with_its_time_kept_is_read_again(built: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    (built.photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")

    def change(name: str) -> None:
        path = built.photos / name
        before = path.stat()
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    change("Ännchen 001.png")
    assert built.build().encoded == 1
    assert not built.build().changed
    # As on a disk that does not say when a file was changed.
    monkeypatch.setattr(FileStamp, "of", lambda status: FileStamp(status.st_size, status.st_mtime_ns, 0))
    built.build()
    change("Ännchen 002.png")
    assert not built.build().changed
    report = built.build(checksum=True)
    assert (report.changed, report.encoded, len(report.bad)) == (True, 1, 1)
    assert not built.build(checksum=True).changed


def test_another_number_of_clusters_clusters_anew_without_computing(built: Collection, tmp_path: Path) -> None:
    report = built.build(clusters=5)
    assert (report.encoded, report.clusters, report.changed) == (0, 5, True)
    assert not built.build(clusters=5).changed
    assert not built.build().changed
    assert built.build(recluster=True).clusters == 5, "the number that was asked for first"
    build(tmp_path / "at once", BuildRequest([built.photos], clusters=5), built.matcher)
    with built.open() as index, open_index(tmp_path / "at once", built.matcher) as other:
        assert np.array_equal(index.centroids.features, other.centroids.features)
        for number in range(5):
            assert np.array_equal(tokens_of(index, number).features, tokens_of(other, number).features)
    assert verify(built.index) == []


def test_another_checkpoint_computes_all_and_keeps_ids(built: Collection, other_matcher: model.Matcher) -> None:
    built.build(clusters=5)
    before = catalog(built.index)
    with pytest.raises(IndexRefused, match=r"other photo weights .* run `sketch-search index build` with this one"):
        build(built.index, BuildRequest(added=[built.photos]), other_matcher)
    (built.photos / "Ännchen 001.png").unlink()
    save_photo(built.photos / "a new one.png", 70)
    report = built.build(other_matcher)
    assert (report.encoded, report.clusters) == (12, 5)
    after = catalog(built.index)
    assert {path: after[path][0] for path in before} == {path: entry[0] for path, entry in before.items()}
    assert after["Ännchen 001.png"][1] == "gone"
    assert after["a new one.png"][0] == 13
    assert verify(built.index) == []


def test_a_reader_is_not_disturbed_by_later_builds_which_keep_the_last_two_generations(collection: Collection) -> None:
    collection.build(clusters=2)
    with collection.open() as index:
        before, features = ids_of(index, 0), tokens_of(index, 0).features.copy()
        for clusters in (3, 4, 5):
            collection.build(clusters=clusters)
        assert index.generation == "g000001"
        assert np.array_equal(tokens_of(index, 0).features, features)
        assert np.array_equal(ids_of(index, 0), before)
        assert index.photo(1).id == 1
    assert sorted(path.name for path in collection.index.glob("g*")) == ["g000003", "g000004"]
    assert len(list((collection.index / "segments").iterdir())) == 1


def test_files_that_can_no_longer_be_read_count_like_missing_ones(built: Collection) -> None:
    # As a failing disk leaves them, or a program that has put them on a server.
    spoiled = [*(built.photos / "in here").glob("*.png")]
    kept = {file: file.read_bytes() for file in spoiled}
    (gone, *_), stamps = built.photos.glob("*.png"), {file: file.stat() for file in spoiled}
    kept_elsewhere = gone.rename(built.photos.parent / "elsewhere.png")
    for file in spoiled:
        file.write_bytes(b"")
    for _ in range(2):
        report = built.update()
        assert (report.photos, report.gone, report.missing, report.bad) == (12, 0, 5, ())
        assert report.kept[0].startswith("5 of 12 photos are missing or cannot be read, more than a tenth")
    kept_elsewhere.rename(gone)
    for file, data in kept.items():
        file.write_bytes(data)
        os.utime(file, ns=(stamps[file].st_atime_ns, stamps[file].st_mtime_ns))
    report = built.update()
    assert (report.photos, report.encoded, report.kept) == (12, 0, [])
    for file in [*spoiled, *built.photos.glob("* 01*.png")]:
        file.write_bytes(b"")
    assert built.update().gone == 0
    report = built.update(allow_loss=True)
    assert (report.kept, len(report.bad) > len(spoiled)) == ([], True)
    assert report.photos + len(report.bad) == 12


def test_a_tenth_may_go_and_renamed_files_are_not_missing(built: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in [*built.photos.glob("*.png")][:4]:
        file.unlink()
    assert built.update().gone == 4
    save_photos(built.photos, 42, start=100)
    assert built.update().photos == 50
    few = sorted(built.photos.glob("* 1*.png"))[:5]
    for file in few:
        file.unlink()
    assert built.update().gone == 5
    # All are renamed, and read in several steps, during which the old names are not there any more.
    monkeypatch.setattr("sketch_search.indexer.building.builder.FIRST_GENERATION", 8)
    (built.photos / "in here").rename(built.photos / "other")
    for number, file in enumerate(built.photos.glob("*.png")):
        file.rename(built.photos / f"{number}.png")
    report = build_growing(built.index, BuildRequest(), built.matcher)
    assert (report.photos, report.files, report.encoded, report.kept) == (45, 45, 0, [])
    for number in range(10):
        save_photo(built.photos / f"{number}.png", 200 + number)
    report = built.update()
    assert (report.encoded, report.photos, report.kept) == (10, 45, [])


def test_a_folder_whose_photos_were_moved_is_no_missing_disk(built: Collection, tmp_path: Path) -> None:
    for file in [*(built.photos / "in here").iterdir()]:
        file.rename(built.photos / file.name)
    report = built.update()
    assert (report.photos, report.files, report.gone, report.kept) == (12, 12, 4, [])
    # A copy elsewhere says nothing of the others.
    save_photo(built.photos / "in here" / "a.png", 60)
    save_photo(built.photos / "in here" / "b.png", 61)
    save_photo(built.photos / "b.png", 61)
    assert built.update().files == 15
    mounted = (built.photos / "in here").rename(tmp_path / "elsewhere")
    (built.photos / "in here").mkdir()
    report = built.update()
    assert (report.photos, report.files) == (14, 14)
    assert report.unlisted[0].path == "in here"
    (built.photos / "in here").rmdir()
    mounted.rename(built.photos / "in here")
    report = built.update()
    assert (report.files, report.encoded, report.kept) == (15, 0, [])
