import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from string import ascii_letters

import pytest

from sketch_search.indexer import BadInvocation, BuildRequest, build, read_summary, remove, upkeep, verify
from sketch_search.indexer.commands import main
from sketch_search.indexer.upkeep import plan_removal, watch
from tests.indexer.disks import bound_by_permissions
from tests.indexer.galleries import Collection, catalog, save_photo, save_photos
from tests.programs import PATIENCE, started_python


def test_a_removed_photo_stays_out_under_another_name_until_it_is_added_and_a_build_says_so(built: Collection) -> None:
    shown = read_summary(built.index).manifest.counts.photos
    shutil.copytree(built.photos / "in here", built.photos / "twice")
    (built.photos / "twice" / "Ännchen 003.png").unlink()
    built.build()
    assert remove(["in here"], built.index).files == 4
    (built.photos / "in here").rename(built.photos / "elsewhere")
    # Three are shown as they were, because their copies were not removed.
    report = built.build()
    assert report.photos == shown - 1
    (said,) = (words for words in report.skipped if "removed" in words)
    assert said.startswith("1 file of a photo that was removed under another name; `sketch-search index add PATH`")
    again = built.build()
    assert (again.changed, again.skipped) == (False, ())
    assert built.update(added=[built.photos / "elsewhere"]).photos == shown


def test_removals_are_taken_over_by_an_index_that_is_built_anew(built: Collection, tmp_path: Path) -> None:
    remove(["in here", "Ännchen 001.png"], built.index)
    (built.photos / "Ännchen 001.png").unlink()
    summary = tmp_path / "removed.json"
    summary.write_text(read_summary(built.index).model_dump_json())
    anew = tmp_path / "anew"
    assert build(anew, BuildRequest([built.photos]), built.matcher).photos == 11
    assert upkeep.removed_elsewhere(summary, anew) == ["in here"]
    assert main(["remove", "--from", str(summary), "--yes", "--index", str(anew)]) == 0
    assert read_summary(anew).manifest.counts.photos == 7
    assert main(["remove", "--from", str(summary), "--index", str(anew)]) == 0
    summary.write_text("{}")
    with pytest.raises(BadInvocation, match="index info --json"):
        upkeep.removed_elsewhere(summary, anew)


def test_a_removed_photo_stays_out_if_the_whole_gallery_is_renamed(built: Collection) -> None:
    save_photo(built.index / "thumbnails" / "x-256.jpg", 3)
    remove(["in here"], built.index)
    assert [*built.index.rglob("*.jpg")] == []
    assert len(list(built.photos.rglob("*.png"))) == 12
    report = built.update(folders=[built.photos.rename(built.photos.with_name("renamed"))])
    assert (report.photos, report.encoded) == (8, 0)
    assert "4 files of photos that were removed" in report.skipped[0]


def test_a_folder_without_photos_leaves_the_index_by_its_name_or_address(copied: Collection, tmp_path: Path) -> None:
    for name in ("by name", str(tmp_path / "by address")):
        empty = tmp_path / Path(name).name
        empty.mkdir()
        assert copied.update(added=[empty]).skipped == (f"{empty}, which has no photo",)
        assert len(read_summary(copied.index).manifest.roots) == 2
        assert remove([name], copied.index).files == 0
        assert [root.path for root in read_summary(copied.index).manifest.roots] == [str(copied.photos)]


@pytest.mark.parametrize(
    ("targets", "match"),
    [
        ([99], "no photo has the id 99"),
        ([*range(1, 13)], "no photo would be left"),
        (["nothing.png"], "no photo at nothing.png"),
        (["in"], "no photo at in"),
        (["/"], "no photo at /"),
        ([".."], "no photo at"),
        (["Ännchen 001.png", "nothing.png"], "no photo at nothing.png"),
        (["in here", "."], "no photo at ."),
        ([""], "a path is empty"),
        (["3"], "name the photo with that id by --id 3"),
    ],
    ids=lambda value: " and ".join(map(str, value))[:40] if isinstance(value, list) else "",
)
def test_missing_and_last_photos_are_not_removed(targets: list[str | int], match: str, copied: Collection) -> None:
    paths = [each for each in targets if isinstance(each, str)]
    ids = [each for each in targets if isinstance(each, int)]
    with pytest.raises(BadInvocation, match=match):
        remove(paths, copied.index, ids=ids)
    info = read_summary(copied.index)
    assert (info.generation, info.manifest.counts.photos) == ("g000001", 12)


def test_an_ambiguous_path_is_refused(collection: Collection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inner = save_photo(collection.photos / "in here" / "p3.png", 20)
    outer = save_photo(collection.photos / "p3.png", 21)
    collection.build()
    monkeypatch.chdir(collection.photos / "in here")
    with pytest.raises(BadInvocation) as told:
        remove(["p3.png"], collection.index)
    assert str(told.value) == f"p3.png may be {outer} or {inner}; name one of them by its whole path."
    # A file here that the index does not have may be meant, too.
    other = save_photo(tmp_path / "elsewhere" / "p3.png", 22)
    monkeypatch.chdir(other.parent)
    with pytest.raises(BadInvocation, match=r"p3\.png may be .* or .*elsewhere"):
        remove(["p3.png"], collection.index)
    monkeypatch.chdir(tmp_path)
    assert plan_removal(["p3.png"], collection.index).leaving == plan_removal([outer], collection.index).leaving
    assert plan_removal(["./in here/p3.png"], collection.index).leaving == (("in here/p3.png", 1),)
    monkeypatch.chdir(collection.photos / "in here")
    assert plan_removal(["./p3.png"], collection.index).leaving == (("in here/p3.png", 1),)


@pytest.mark.parametrize(
    ("hidden", "mode", "unread"),
    # A folder without the right to enter it is listed, and its files have no size.
    [("in here", 0, 1), ("in here", 0o644, 4), ("", 0, 1), ("Ännchen 002.png", 0, 1)],
    ids=["a folder", "the files of a folder", "a root", "a file"],
)
def test_unreadable_photos_stay(hidden: str, mode: int, unread: int, built: Collection, tmp_path: Path) -> None:
    save_photo(built.photos / "in here" / "broken.png", 30).write_bytes(b"")
    built.update(added=[save_photos(tmp_path / "more", 4, start=20)])
    before = catalog(built.index)
    del before["Ännchen 001.png"]
    (built.photos / "Ännchen 001.png").unlink()
    save_photo(tmp_path / "more" / "new.png", 40)
    (built.photos / hidden).chmod(mode)
    with bound_by_permissions():
        report = built.update()
        assert len(report.unlisted) == unread
        assert all(one.reason.endswith("cannot be read: Permission denied") for one in report.unlisted)
        gone = int(bool(hidden))
        assert (report.photos, report.settled.gone, report.encoded) == (17 - gone, gone, 1)
        assert verify(built.index) == []
        assert not built.update().changed
    assert catalog(built.index).items() >= before.items()
    (built.photos / hidden).chmod(0o700)
    report = built.update()
    assert (report.photos, report.encoded, report.unlisted) == (16, 0, ())


@pytest.mark.parametrize(
    ("states", "failures", "indexed", "updates"),
    [
        ("aaaaa", 0, None, "a"),
        ("aaabccc", 0, None, "ac"),
        ("aabb", 0, None, "ab"),
        # A gallery that never rests is indexed nevertheless, and an update that failed is tried again at every pause.
        (ascii_letters, 0, None, ascii_letters[upkeep.PATIENCE - 1 :: upkeep.PATIENCE]),
        ("aaaaaa", 2, None, "aaa"),
        ("aaabb", 0, "a", "b"),
    ],
)
def test_a_gallery_is_updated_once_it_rests(states: str, failures: int, indexed: str | None, updates: str) -> None:
    now, made = "", list[str]()

    def pauses() -> Iterator[None]:
        nonlocal now
        for state in states:
            now = state
            yield

    def update() -> bool:
        made.append(now)
        return len(made) > failures

    watch(lambda: now, update, pauses(), indexed)
    assert made == [*updates]


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_watching_build_indexes_what_comes_and_ends_cleanly_when_told(gallery: Path, index_path: Path) -> None:
    arguments = [str(gallery), "--index", str(index_path), "--watch", "--interval", "0.05"]
    with started_python("-m", "indexer", "build", *arguments, errors=subprocess.PIPE) as process:
        assert process.stdout is not None
        # The report of the first build ends with this line.
        assert any(line.startswith("index:") for line in process.stdout)
        assert "Ctrl-C ends this" in process.stdout.readline()
        assert read_summary(index_path).manifest.counts.photos == 12
        save_photo(gallery / "new.png", 40)
        assert "generation g000002: 13 photos, 1 encoded now" in process.stdout.readline()
        (gallery / "new.png").unlink()
        assert "generation g000003: 12 photos, 0 encoded now, 1 gone" in process.stdout.readline()
        for file in gallery.glob("*.png"):
            file.unlink()
        assert process.stderr is not None
        # On a busy machine the lines before it tell the progress of a slow build.
        assert any(line.startswith("error: 8 of 12 photos are missing") for line in process.stderr)
        assert read_summary(index_path).manifest.counts.photos == 12
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "stopped watching.\n", "")
