import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sketch_search import indexer, model
from sketch_search.indexer.building.staging import Progress, read_progress
from sketch_search.indexer.store.catalog import CATALOG_FILE, Catalog
from sketch_search.indexer.store.files import FileStamp
from sketch_search.indexer.store.rows import PhotoTable
from sketch_search.model.answers import ProgressState
from sketch_search.model.engine import unit
from tests.indexer.galleries import Collection, catalog, flip, ids_of, save_photo, save_photos, tokens_of
from tests.pictures import photo


def test_a_built_index_holds_every_photo_once_with_the_tokens_the_network_gives_it(collection: Collection) -> None:
    report = collection.build(embedder="ret")
    assert (report.photos, report.encoded, report.clusters, report.bad) == (12, 12, 3, ())
    with collection.open() as index:
        assert index.cluster_sizes.sum() == index.photo_count == 12
        ret = index.vectors.of()
        seen: list[int] = []
        for number in range(index.cluster_count):
            ids, tokens = ids_of(index, number), tokens_of(index, number)
            assert ids.tolist() == sorted(ids.tolist())
            for place, photo in enumerate(ids.tolist()):
                entry = index.photo(photo)
                assert entry.cluster == number
                image = collection.matcher.open(index.open_photo(photo).whole(), "photo")
                own = collection.matcher.encode(collection.matcher.prepare(image, "photo")[None], "photo")
                # Half a step of int8, and what rounding to float16 before it may add.
                bound = abs(own.features[0]).max(axis=-1, keepdims=True) / 127 / 2 + 2e-3
                assert (abs(tokens.features[place] - own.features[0]) <= bound).all()
                assert tokens.positions[place].tolist() == own.positions[0].tolist()
                np.testing.assert_allclose(ret[len(seen)], unit(own.ret[0]), atol=1e-3, rtol=1e-3)
                seen.append(photo)
        assert seen == index.ids.tolist()
    assert [entry[0] for _, entry in sorted(catalog(collection.index).items())] == list(range(1, 13))
    assert indexer.verify(collection.index) == []


def test_a_large_jpeg_is_indexed_as_its_photo_is_looked_at_later(tmp_path: Path, matcher: model.Matcher) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    photo("house", 640).save(photos / "large.jpg")
    indexer.build(tmp_path / "index", indexer.BuildRequest([photos], embedder="ret"), matcher)
    with indexer.open_index(tmp_path / "index", matcher) as index:
        row = index.vectors.of()[0]
        image = matcher.open(index.open_photo(1).whole(), "photo")
    assert image.size == (320, 320)
    own = matcher.encode(matcher.prepare(image, "photo")[None], "photo")
    np.testing.assert_allclose(row, unit(own.ret[0]), atol=1e-3, rtol=1e-3)


def test_an_index_inside_the_gallery_is_not_searched_for_photos(gallery: Path, matcher: model.Matcher) -> None:
    index = gallery / "index"
    indexer.build(index, indexer.BuildRequest([gallery]), matcher)
    save_photo(index / "photo.png", 50)
    assert not indexer.build(index, indexer.BuildRequest([gallery]), matcher).changed


def test_an_index_without_tokens_has_the_same_vectors(built: Collection, tmp_path: Path) -> None:
    none = replace(built, index=tmp_path / "none")
    report = none.build(tokens="none")
    assert (report.photos, report.clusters, indexer.verify(none.index)) == (12, 3, [])
    with built.open() as whole, none.open() as small:
        assert np.array_equal(whole.vectors.of(), small.vectors.of())
        assert (whole.ids.tolist(), small.manifest.tokens) == (small.ids.tolist(), 1)
        assert small.photo_tokens(np.arange(3)).features.shape == (3, 1, built.matcher.config.width)
    assert list((none.index / "segments").rglob("*.npy")) == []
    assert not (none.index / "g000001" / "centroid_tokens.npy").exists()
    assert indexer.read_summary(none.index).bytes_on_disk < indexer.read_summary(built.index).bytes_on_disk


def test_it_stays_without_tokens_until_it_is_told_otherwise(collection: Collection) -> None:
    collection.build(tokens="none")
    save_photos(collection.photos, 2, start=20)
    assert collection.update().encoded == 2
    assert indexer.read_summary(collection.index).manifest.tokens == 1
    indexer.remove([], collection.index, ids=[2])
    assert not collection.update().changed
    assert indexer.verify(collection.index) == []
    flip(collection.index / "g000003" / "vectors.npy")
    assert len(indexer.verify(collection.index)) == 1
    assert (collection.update().encoded, indexer.read_summary(collection.index).manifest.tokens) == (13, 1)
    assert collection.update(tokens="all").encoded == 13
    assert indexer.read_summary(collection.index).manifest.tokens == collection.matcher.config.token_count("photo")
    assert not collection.update().changed


def check(built: Collection, photos: int) -> None:
    """The table of photos agrees with the catalog, and every photo is the nearest to itself."""
    with built.open() as opened:
        manifest, folder = opened.manifest, built.index / opened.generation
        table = PhotoTable.open(folder, manifest.counts.rows)
        names = [segment.id for segment in manifest.segments]
        with Catalog(folder / CATALOG_FILE) as catalog:
            shown = [entry for entry in catalog.entries() if entry[8] == "indexed"]
        # Of files with one content the first, by id, is the photo's.
        photo_of = {entry[11:]: entry for entry in reversed(shown)}
        known = [(entry[10], entry[0], names.index(entry[11]), entry[12]) for entry in photo_of.values()]
        rows = np.stack([table.clusters, table.ids, table.segments, table.segment_rows], axis=1)
        assert [*map(tuple, rows[:photos].tolist())] == sorted(known)
        assert (opened.photo_count, len(opened.ids)) == (photos, photos)
        rows = np.arange(photos)
        vectors = opened.vectors.of(rows)
        assert (vectors * unit(opened.photo_tokens(rows).ret)).sum(axis=1).min() > 0.999
        for row, vector in enumerate(vectors):
            (nearest,) = opened.vectors.near(vector[None], 1, None, np.arange(opened.cluster_count)).tolist()
            assert vectors[nearest] @ vector >= vectors[row] @ vector - 1e-3
    assert indexer.verify(built.index) == []


def test_the_table_and_vectors_follow_photos_that_come_and_go_clusters_and_merged_segments(built: Collection) -> None:
    check(built, 12)
    segments = set((built.index / "segments").iterdir())
    save_photos(built.photos, 5, start=20)
    built.update()
    check(built, 17)
    indexer.remove([], built.index, ids=[2, 15])
    check(built, 15)
    assert built.update(clusters=5).encoded == 0
    check(built, 15)
    assert segments < set((built.index / "segments").iterdir())
    # More than a tenth of the rows is dead, so the segments are merged.
    assert built.update().encoded == 0
    (merged,) = indexer.read_summary(built.index).manifest.segments
    assert (merged.rows, built.update().changed) == (15, False)
    check(built, 15)
    indexer.remove([], built.index, ids=[*range(3, 15), 16, 17])
    check(built, 1)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def state(path: Path) -> ProgressState:
    return ProgressState.model_validate_json(path.read_bytes())


def test_the_file_has_rate_and_time_left_at_most_once_a_second(tmp_path: Path) -> None:
    clock = Clock()
    progress = Progress(clock=clock)
    with progress.of_build(tmp_path / "p.json"):
        progress.start("reading")
        # Files that need not be read count as done, but not for the rate.
        progress.skip(60)
        progress.start("encoding", 40)
        told = state(tmp_path / "p.json")
        assert (told.done, told.total, told.seconds_left) == (60, 100, None)
        clock.now = 0.5
        progress.advance(5)
        assert state(tmp_path / "p.json").done == 60
        clock.now = 2.0
        progress.advance(5, bad=2)
        told = state(tmp_path / "p.json")
        assert (told.phase, told.done, told.total, told.bad) == ("encoding", 70, 100, 2)
        assert (told.photos_per_second, told.seconds_left) == (5.0, 6.0)
        # Nor do those whose content has been encoded before.
        clock.now = 3.0
        progress.advance(20, known=20)
        told = state(tmp_path / "p.json")
        assert told.done == 90
        assert told.photos_per_second == pytest.approx(10 / 3)
        progress.start("clustering")
        assert (state(tmp_path / "p.json").done, state(tmp_path / "p.json").total) == (0, 0)
    assert state(tmp_path / "p.json").phase == "done"
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_file_that_is_no_progress_gives_none_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    for content in (b"[]", b" " * 10**6 + b"{"):
        (tmp_path / "progress.json").write_bytes(content)
        assert read_progress(tmp_path) is None
    (tmp_path / "progress.json").unlink()
    os.mkfifo(tmp_path / "progress.json")
    assert read_progress(tmp_path) is None


def test_a_growing_build_ends_as_one(collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (collection.photos / f"! {number}.jpg").write_bytes(b"\xff\xd8\xff")
    # The first files are bad, so that one more step is read before there is a generation.
    first = indexer.build(
        collection.index, indexer.BuildRequest((collection.photos,), max_new_files=3), collection.matcher
    )
    assert (first.photos, first.settled.waiting, len(first.bad)) == (3, 9, 3)
    with collection.open() as index:
        assert index.photo_count == 3
    monkeypatch.setattr("sketch_search.indexer.building.builder.FIRST_GENERATION", 3)
    report = indexer.build_growing(collection.index, indexer.BuildRequest([collection.photos]), collection.matcher)
    assert (report.generation, report.photos, report.settled.waiting, report.encoded) == ("g000003", 12, 0, 6)
    whole = indexer.build(tmp_path / "at once", indexer.BuildRequest([collection.photos]), collection.matcher)
    assert (report.clusters, report.bad) == (whole.clusters, whole.bad)
    after, plain = catalog(collection.index), catalog(tmp_path / "at once")
    assert [entry[0] for entry in after.values()] == [entry[0] for entry in plain.values()]
    assert indexer.verify(collection.index) == []


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
    indexer.build(tmp_path / "at once", indexer.BuildRequest([built.photos], clusters=5), built.matcher)
    with built.open() as index, indexer.open_index(tmp_path / "at once", built.matcher) as other:
        assert np.array_equal(index.centroids.features, other.centroids.features)
        for number in range(5):
            assert np.array_equal(tokens_of(index, number).features, tokens_of(other, number).features)
    assert indexer.verify(built.index) == []


def test_another_checkpoint_computes_all_and_keeps_ids(built: Collection, other_matcher: model.Matcher) -> None:
    built.build(clusters=5)
    before = catalog(built.index)
    with pytest.raises(
        indexer.IndexRefused, match=r"other photo weights .* run `sketch-search index build` with this one"
    ):
        indexer.build(built.index, indexer.BuildRequest(added=[built.photos]), other_matcher)
    (built.photos / "Ännchen 001.png").unlink()
    save_photo(built.photos / "a new one.png", 70)
    report = built.build(other_matcher)
    assert (report.encoded, report.clusters) == (12, 5)
    after = catalog(built.index)
    assert {path: after[path][0] for path in before} == {path: entry[0] for path, entry in before.items()}
    assert after["Ännchen 001.png"][1] == "gone"
    assert after["a new one.png"][0] == 13
    assert indexer.verify(built.index) == []


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
        assert (report.photos, report.settled.gone, report.settled.missing, report.bad) == (12, 0, 5, ())
        assert report.kept[0].startswith("5 of 12 photos are missing or cannot be read, more than a tenth")
    kept_elsewhere.rename(gone)
    for file, data in kept.items():
        file.write_bytes(data)
        os.utime(file, ns=(stamps[file].st_atime_ns, stamps[file].st_mtime_ns))
    report = built.update()
    assert (report.photos, report.encoded, report.kept) == (12, 0, [])
    for file in [*spoiled, *built.photos.glob("* 01*.png")]:
        file.write_bytes(b"")
    assert built.update().settled.gone == 0
    report = built.update(allow_loss=True)
    assert (report.kept, len(report.bad) > len(spoiled)) == ([], True)
    assert report.photos + len(report.bad) == 12


def test_a_tenth_may_go_and_renamed_files_are_not_missing(built: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in [*built.photos.glob("*.png")][:4]:
        file.unlink()
    assert built.update().settled.gone == 4
    save_photos(built.photos, 42, start=100)
    assert built.update().photos == 50
    few = sorted(built.photos.glob("* 1*.png"))[:5]
    for file in few:
        file.unlink()
    assert built.update().settled.gone == 5
    # All are renamed, and read in several steps, during which the old names are not there any more.
    monkeypatch.setattr("sketch_search.indexer.building.builder.FIRST_GENERATION", 8)
    (built.photos / "in here").rename(built.photos / "other")
    for number, file in enumerate(built.photos.glob("*.png")):
        file.rename(built.photos / f"{number}.png")
    report = indexer.build_growing(built.index, indexer.BuildRequest(), built.matcher)
    assert (report.photos, report.files, report.encoded, report.kept) == (45, 45, 0, [])
    for number in range(10):
        save_photo(built.photos / f"{number}.png", 200 + number)
    report = built.update()
    assert (report.encoded, report.photos, report.kept) == (10, 45, [])


@pytest.mark.parametrize("goes", ["yes", "remove"])
def test_a_folder_that_vanishes_whole_stays_until_a_person_lets_it_go(goes: str, built: Collection) -> None:
    for number in range(2):
        save_photo(built.photos / "trip" / "day one" / f"{number}.png", 60 + number)
        save_photo(built.photos / "trip" / "day two" / f"{number}.png", 70 + number)
        save_photo(built.photos / f"{number}.png", 80 + number)
    assert built.update().photos == 18
    shutil.rmtree(built.photos / "trip")
    (built.photos / "0.png").unlink()
    (built.photos / "in here").rename(built.photos / "over there")
    for _ in range(2):
        report = built.update()
        assert report.photos == 17
        assert [(folder.path, folder.reason.partition(",")[0]) for folder in report.unlisted] == [
            ("trip", "the folder is not there")
        ]
    assert report.settled.gone == 0
    if goes == "yes":
        report = built.update(allow_loss=True)
        assert (report.photos, report.settled.gone) == (13, 4)
    else:
        assert indexer.remove([built.photos / "trip"], built.index).files == 4
    report = built.update()
    assert (report.photos, report.unlisted) == (13, ())


def test_a_folder_that_is_left_out_now_is_there(built: Collection) -> None:
    save_photo(built.photos / "trip" / "raw" / "1.png", 60)
    assert built.update().photos == 13
    (built.photos / "trip" / ".nomedia").touch()
    report = built.update()
    assert (report.photos, report.settled.gone, report.unlisted) == (12, 1, ())


def test_a_folder_whose_photos_were_moved_is_no_missing_disk(built: Collection, tmp_path: Path) -> None:
    for file in [*(built.photos / "in here").iterdir()]:
        file.rename(built.photos / file.name)
    report = built.update()
    assert (report.photos, report.files, report.settled.gone, report.settled.moved, report.kept) == (12, 12, 0, 4, [])
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
    report = built.update()
    assert (report.photos, report.files, report.settled.gone) == (14, 14, 0)
    assert "is not there" in report.unlisted[0].reason
    mounted.rename(built.photos / "in here")
    report = built.update()
    assert (report.files, report.encoded, report.kept) == (15, 0, [])
    (built.photos / "in here" / "a.png").rename(tmp_path / "a.png")
    assert built.update().settled.gone == 1
    (tmp_path / "a.png").rename(built.photos / "again.png")
    assert (settled := built.update().settled).gone == settled.moved == 0
