"""Pages and panoramas in an index: found by each of their parts, and one photo in all else."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sketch_search import model
from sketch_search.indexer import read_summary, remove, verify
from sketch_search.indexer.commands import main
from sketch_search.indexer.samples import SKETCHED
from sketch_search.indexer.store.reader import Index
from sketch_search.model.images import find_parts, open_image
from tests.indexer.building.test_boxes import edit_manifest
from tests.indexer.galleries import ORDINARY, Collection, current_catalog, save_parted
from tests.indexer.killed_builds import StopAfter, Stopped
from tests.pictures import FOUR, page, panorama


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, matcher: model.Matcher) -> Collection:
    folder = tmp_path_factory.mktemp("parts")
    collection = Collection(save_parted(folder / "photos"), folder / "index", matcher)
    collection.build()
    return collection


@pytest.fixture
def parted(once: Collection, tmp_path: Path) -> Collection:
    """The photos and an index of them, to be changed."""
    photos = Path(shutil.copytree(once.photos, tmp_path / "photos"))
    changed = Collection(photos, tmp_path / "index", once.matcher)
    changed.build()
    return changed


def held(index: Index) -> dict[str, list[bytes]]:
    """Returns all that is kept of each photo and its parts, by path."""
    rows: dict[str, list[bytes]] = {}
    kept = index.vectors.of(np.arange(len(index.ids))), index.photo_boxes(np.arange(len(index.ids)))
    tokens = index.photo_tokens(np.arange(len(index.ids)), scaled=False)
    for row, photo in enumerate(index.ids.tolist()):
        every = *(array[row].tobytes() for array in kept), tokens.features[row].tobytes()
        rows.setdefault(index.photo(photo).paths[0], []).append(b"".join(every))
    return rows


def of(collection: Collection) -> dict[str, list[bytes]]:
    with collection.open() as index:
        return held(index)


def test_parts_have_rows_and_their_photo_stays_one(once: Collection) -> None:
    wide = len(find_parts(open_image(once.photos / "5 wide.png")))
    with once.open() as index:
        counts = {path: len(rows) - 1 for path, rows in held(index).items()}
        assert (counts.pop("4 page.png"), counts.pop("5 wide.png")) == (4, wide)
        assert {*counts.values()} == {0}
        assert index.photo_count == ORDINARY + 2 == len(index.wholes) == index.cluster_sizes.sum()
        assert index.ids[index.parts_of].tolist() == index.ids[index.parts].tolist()
        assert not np.isin(index.parts_of, index.parts).any()
    found = read_summary(once.index).manifest.counts
    assert (found.photos, found.files, found.duplicates, found.parts) == (ORDINARY + 2, ORDINARY + 2, 0, 4 + wide)
    assert found.rows == found.photos + found.parts
    assert not once.build().changed
    assert verify(once.index) == []


def test_a_part_has_the_row_of_its_picture_alone(once: Collection, tmp_path: Path) -> None:
    alone = Collection(tmp_path / "photos", tmp_path / "index", once.matcher)
    alone.photos.mkdir()
    picture = open_image(once.photos / "4 page.png")
    for number, frame in enumerate(find_parts(picture)):
        picture.crop(frame).save(alone.photos / f"{number}.png")
    alone.build()
    cut = of(alone)
    assert of(once)["4 page.png"][1:] == [cut[f"{number}.png"][0] for number in range(4)]


def test_ordinary_photos_are_kept_as_without_pages_beside_them(once: Collection, tmp_path: Path) -> None:
    ordinary = Collection(tmp_path / "photos", tmp_path / "index", once.matcher)
    shutil.copytree(once.photos, ordinary.photos, ignore=shutil.ignore_patterns("4 page*", "5 wide*"))
    ordinary.build()
    every = of(once)
    assert of(ordinary) == {path: rows for path, rows in every.items() if path not in ("4 page.png", "5 wide.png")}
    assert read_summary(ordinary.index).manifest.counts.parts == 0


def test_a_stopped_build_goes_on_and_ends_in_the_same_bytes(once: Collection, tmp_path: Path) -> None:
    stopped, whole = (Collection(once.photos, tmp_path / name, once.matcher) for name in ("index", "whole"))
    for _ in range(2):
        with pytest.raises(Stopped):
            stopped.build(batch=1, progress=StopAfter(5))
    assert stopped.build(batch=1).encoded < ORDINARY + 2
    whole.build(batch=1)
    assert of(stopped) == of(whole)
    assert verify(stopped.index) == []


@pytest.mark.parametrize("options", [{}, {"recluster": True}, {"system": "two-stage"}, {"tokens": "none"}])
def test_parts_come_go_and_move_with_their_photos(parted: Collection, options: dict[str, Any]) -> None:
    parted.build(**options)
    before = of(parted)
    panorama(SKETCHED[2:6]).save(parted.photos / "6 new.png")
    (parted.photos / "0 apple.png").rename(parted.photos / "9 apple.png")
    (parted.photos / "5 wide.png").unlink()
    (parted.photos / "4 page.png").rename(parted.photos / "4 renamed.png")
    assert parted.build(**options, allow_loss=True).encoded == 1
    anew = Collection(parted.photos, parted.index.with_name("anew"), parted.matcher)
    anew.build(**options)
    assert of(parted) == of(anew)
    assert of(parted)["4 renamed.png"] == before["4 page.png"]
    assert "5 wide.png" not in of(parted)


def test_a_page_that_leaves_and_comes_back_has_its_parts_again(parted: Collection) -> None:
    before = of(parted)
    (parted.photos / "4 page.png").rename(away := parted.photos.with_name("page.png"))
    parted.build(allow_loss=True)
    assert [file[8] for file in current_catalog(parted.index) if file[2] == "4 page.png"] == ["gone"]
    assert read_summary(parted.index).manifest.counts.parts == len(before["5 wide.png"]) - 1
    away.rename(parted.photos / "4 page.png")
    parted.build()
    assert of(parted) == before
    remove(["5 wide.png"], parted.index)
    remaining = {path: rows for path, rows in before.items() if path != "5 wide.png"}
    assert of(parted) == remaining
    parted.build()
    assert of(parted) == remaining
    parted.build(added=[parted.photos / "5 wide.png"])
    after, width = of(parted), parted.matcher.config.width
    assert {path: len(rows) for path, rows in after.items()} == {path: len(rows) for path, rows in before.items()}
    assert remaining.items() <= after.items()
    # Encoded beside other photos than before, its last bits differ.
    again, first = ([np.frombuffer(row, np.float32, width) for row in rows["5 wide.png"]] for rows in (after, before))
    np.testing.assert_allclose(again, first, atol=0.01)


def test_an_older_index_is_kept_and_the_build_says_that_its_photos_are_whole(
    collection: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    collection.build()
    edit_manifest(collection.index, format_version=14)
    before = of(collection)
    assert not collection.build().changed
    page(FOUR, 2)[0].save(collection.photos / "page.png")
    report = collection.build()
    assert (report.undivided, report.encoded) == (True, 1)
    found = of(collection)
    assert len(found.pop("page.png")) == 5
    assert found == before
    assert main(["info", "--index", str(collection.index)]) == 0
    assert "13 (13 files, 0 of them duplicates), and 4 parts of pages and panoramas" in capsys.readouterr().out
    assert not collection.build().undivided
