"""A build makes an index of a gallery, and says meanwhile how far it is."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sketch_search import model
from sketch_search.indexer import BuildRequest, build, open_index, read_summary, remove, verify
from sketch_search.indexer.building.progress import Progress, ProgressState, read_progress
from sketch_search.indexer.store.catalog import CATALOG_FILE, Catalog
from sketch_search.indexer.store.rows import PhotoTable
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
                image = collection.matcher.open(index.open_photo(photo), "photo")
                own = collection.matcher.encode(collection.matcher.prepare(image, "photo")[None], "photo")
                # Half a step of int8, and what rounding to float16 before it may add.
                bound = abs(own.features[0]).max(axis=-1, keepdims=True) / 127 / 2 + 2e-3
                assert (abs(tokens.features[place] - own.features[0]) <= bound).all()
                assert tokens.positions[place].tolist() == own.positions[0].tolist()
                np.testing.assert_allclose(ret[len(seen)], unit(own.ret[0]), atol=1e-3, rtol=1e-3)
                seen.append(photo)
        assert seen == index.ids.tolist()
    # Ids are given in the order of the paths.
    assert [entry[0] for _, entry in sorted(catalog(collection.index).items())] == list(range(1, 13))
    assert verify(collection.index) == []


def test_a_large_jpeg_is_indexed_as_its_photo_is_looked_at_later(tmp_path: Path, matcher: model.Matcher) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    photo("house", 640).save(photos / "large.jpg")
    build(tmp_path / "index", BuildRequest([photos], embedder="ret"), matcher)
    with open_index(tmp_path / "index", matcher) as index:
        row = index.vectors.of()[0]
        image = matcher.open(index.open_photo(1), "photo")
    assert image.size == (320, 320)
    own = matcher.encode(matcher.prepare(image, "photo")[None], "photo")
    np.testing.assert_allclose(row, unit(own.ret[0]), atol=1e-3, rtol=1e-3)


def test_an_index_inside_the_gallery_is_not_searched_for_photos(gallery: Path, matcher: model.Matcher) -> None:
    index = gallery / "index"
    build(index, BuildRequest([gallery]), matcher)
    save_photo(index / "photo.png", 50)
    assert not build(index, BuildRequest([gallery]), matcher).changed


def test_an_index_without_tokens_has_the_same_vectors(built: Collection, tmp_path: Path) -> None:
    none = replace(built, index=tmp_path / "none")
    report = none.build(tokens="none")
    assert (report.photos, report.clusters, verify(none.index)) == (12, 3, [])
    with built.open() as whole, none.open() as small:
        assert np.array_equal(whole.vectors.of(), small.vectors.of())
        assert (whole.ids.tolist(), small.manifest.tokens) == (small.ids.tolist(), 1)
        assert small.photo_tokens(np.arange(3)).features.shape == (3, 1, built.matcher.config.width)
    assert list((none.index / "segments").rglob("*.npy")) == []
    assert not (none.index / "g000001" / "centroid_tokens.npy").exists()
    assert read_summary(none.index).bytes_on_disk < read_summary(built.index).bytes_on_disk


def test_it_stays_without_tokens_until_it_is_told_otherwise(collection: Collection) -> None:
    collection.build(tokens="none")
    save_photos(collection.photos, 2, start=20)
    assert collection.update().encoded == 2
    assert read_summary(collection.index).manifest.tokens == 1
    remove([], collection.index, ids=[2])
    assert not collection.update().changed
    assert verify(collection.index) == []
    flip(collection.index / "g000003" / "vectors.npy")
    assert len(verify(collection.index)) == 1
    assert (collection.update().encoded, read_summary(collection.index).manifest.tokens) == (13, 1)
    assert collection.update(tokens="all").encoded == 13
    assert read_summary(collection.index).manifest.tokens == collection.matcher.config.token_count("photo")
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
        ret = unit(opened.photo_tokens(rows).ret)
        assert (vectors * ret).sum(axis=1).min() > 0.999
        for row, vector in enumerate(vectors):
            (nearest,) = opened.vectors.near(vector[None], 1, None, np.arange(opened.cluster_count)).tolist()
            assert vectors[nearest] @ vector >= vectors[row] @ vector - 1e-3
    assert verify(built.index) == []


def test_the_table_and_vectors_follow_photos_that_come_and_go_clusters_and_merged_segments(built: Collection) -> None:
    check(built, 12)
    segments = set((built.index / "segments").iterdir())
    save_photos(built.photos, 5, start=20)
    built.update()
    check(built, 17)
    remove([], built.index, ids=[2, 15])
    check(built, 15)
    # Clustering again rewrites no tokens.
    assert built.update(clusters=5).encoded == 0
    check(built, 15)
    assert segments < set((built.index / "segments").iterdir())
    # More than a tenth of the rows is dead, so the segments are merged.
    assert built.update().encoded == 0
    (merged,) = read_summary(built.index).manifest.segments
    assert (merged.rows, built.update().changed) == (15, False)
    check(built, 15)
    remove([], built.index, ids=[*range(3, 15), 16, 17])
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


def test_without_a_terminal_a_line_now_and_then_reports_progress(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    for bar, said in ((False, []), (True, [2, 4, 6, 7, 8])):
        progress = Progress(bar=bar, clock=clock)
        progress.start("encoding", 9)
        # Soon at first, and later more rarely.
        for seconds in (1, 3, 4, 4, 15, 1, 32, 32, 31):
            clock.now += seconds
            progress.advance()
        assert capsys.readouterr().err == "".join(f"encoding: {done} of 9 photos\n" for done in said)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_file_that_is_no_progress_gives_none_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    for content in (b"{}", b" " * 10**6 + b"{"):
        (tmp_path / "progress.json").write_bytes(content)
        assert read_progress(tmp_path) is None
    (tmp_path / "progress.json").unlink()
    os.mkfifo(tmp_path / "progress.json")
    assert read_progress(tmp_path) is None
