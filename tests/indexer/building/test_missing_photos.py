"""Photos that are not there any more: disks that are not mounted, other folders at the same path, what was deleted."""

from pathlib import Path

import pytest

from sketch_search.indexer import Request, build, build_growing, verify
from tests.indexer.galleries import Collection, save_photo, save_photos


def test_a_root_that_holds_other_things_and_no_photo_keeps_its_photos(collection: Collection, tmp_path: Path) -> None:
    more = save_photos(tmp_path / "more", 3, start=20)
    build(collection.index, Request([collection.photos, more]), collection.matcher)
    mounted = more.rename(tmp_path / "elsewhere")
    (more / "folder").mkdir(parents=True)
    (more / "folder" / "NOT_MOUNTED.txt").write_text("the disk comes here")
    # What is left of the gallery is listed, even if photos may go.
    report = collection.update(allow_loss=True)
    assert (report.photos, report.gone, report.missing) == (15, 0, 0)
    why = "it had photos but is empty now, perhaps because its disk is not mounted"
    assert report.kept == [f"{more}: {why}; its indexed photos stay."]
    (more / "folder" / "NOT_MOUNTED.txt").unlink()
    (more / "folder").rmdir()
    more.rmdir()
    mounted.rename(more)
    report = collection.update()
    assert (report.changed, report.encoded, report.kept) == (False, 0, [])


def test_another_folder_at_the_same_path_loses_no_photos_until_they_may_go(built: Collection, tmp_path: Path) -> None:
    mounted = built.photos.rename(tmp_path / "elsewhere")
    save_photos(built.photos, 1, start=50)
    for _ in range(2):
        report = built.update()
        assert (report.photos, report.gone, report.missing) == (13, 0, 12)
    assert report.kept[0].startswith("12 of 13 photos are missing, more than a tenth of the gallery; they stay. ")
    # Their rows are still there.
    (built.photos / "in here" / "Ännchen 050.png").unlink(missing_ok=True)
    for file in mounted.rglob("*.png"):
        place = built.photos / file.relative_to(mounted)
        place.parent.mkdir(exist_ok=True)
        file.rename(place)
    report = built.update()
    assert (report.encoded, report.kept) == (0, [])
    for file in [*built.photos.rglob("*.png")][:-2]:
        file.unlink()
    (built.photos / "in here" / "no photo.txt").touch()
    assert built.update().missing == report.photos - 2
    report = built.update(allow_loss=True)
    assert (report.photos, report.kept) == (2, [])
    assert verify(built.index) == []


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
    monkeypatch.setattr("sketch_search.indexer.building.builds.FIRST_GENERATION", 8)
    (built.photos / "in here").rename(built.photos / "other")
    for number, file in enumerate(built.photos.glob("*.png")):
        file.rename(built.photos / f"{number}.png")
    report = build_growing(built.index, Request(), built.matcher)
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
