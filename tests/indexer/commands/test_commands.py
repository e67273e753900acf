import json
from pathlib import Path

import pytest

from indexer import read_progress
from indexer.commands import main
from tests.indexer.disks import bound_by_permissions
from tests.indexer.galleries import save_photos
from tests.programs import run_python


def info(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the output of the command info about the index that the environment names."""
    assert main(["info"]) == 0
    return capsys.readouterr().out


def test_a_folder_that_cannot_be_read_is_an_error_with_a_code_of_its_own(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    (gallery / "in here").chmod(0)
    with bound_by_permissions():
        assert main(["build", "--quiet"]) == 3
        told = "error: in here: the folder cannot be read: Permission denied; what was known of it stays.\n"
        assert capsys.readouterr() == ("", told)
        assert main(["build"]) == 3
        assert "photos:      12" in capsys.readouterr().out


def test_what_is_known_of_a_root_that_is_not_mounted_stays(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = save_photos(tmp_path / "more", 2, start=20)
    assert main(["build", str(gallery), str(more), "--quiet"]) == 0
    save_photos(gallery, 1, start=30)
    mounted = more.rename(tmp_path / "elsewhere")
    told = "error: {}: the folder {}; what was known of it stays.\n"
    for arguments in ([], [str(gallery), str(more)]):
        assert main(["build", *arguments, "--quiet"]) == 3
        assert capsys.readouterr() == ("", told.format(more, "cannot be read: No such file or directory"))
    more.mkdir()
    assert main(["build", "--quiet"]) == 3
    assert capsys.readouterr().err == told.format(more, "is empty, as when its disk is not mounted")
    assert "photos:      15 (" in info(capsys)
    more.rmdir()
    mounted.rename(more)
    assert main(["build"]) == 0
    assert "nothing has changed" in capsys.readouterr().out


def test_folders_that_are_not_named_leave_only_if_that_is_said(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = save_photos(tmp_path / "more", 2, start=20)
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["build", str(more)], "sketch-search index") == 2
    err = capsys.readouterr().err
    assert f" has other folders: {gallery}. Name these, too, or none" in err
    assert "photos:      12 (" in info(capsys)
    assert main(["build", str(more), "--yes", "--quiet"]) == 0
    assert "photos:      2 (" in info(capsys)


def test_the_photos_of_a_folder_that_was_renamed_are_not_encoded_again(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    renamed = gallery.rename(tmp_path / "renamed")
    assert main(["build", str(renamed), "--yes"]) == 0
    assert "encoded now: 0\n" in capsys.readouterr().out


def test_build_info_and_verify_work_from_a_shell(gallery: Path, index_path: Path) -> None:
    (gallery / "broken.jpg").write_bytes(b"\xff\xd8\xff")

    def run(*arguments: str) -> str:
        done = run_python("-m", "indexer", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    out = run("build", str(gallery), "--device", "cpu")
    assert "not indexed: broken.jpg: " in out
    assert "photos:      12" in out
    assert "the checkpoint's own retrieval token" in out
    told = read_progress(index_path)
    assert told is not None
    assert (told.phase, told.bad) == ("done", 1)


def test_a_files_name_cannot_forge_a_line_of_a_report(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (gallery / "a\x1b[2J\nphotos:      99.jpg").write_bytes(b"")
    for arguments in (["build", str(gallery)], ["info"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert "not indexed: a\\x1b[2J\\nphotos:      99.jpg: " in out
        assert "\x1b" not in out
        assert "\nphotos:      99.jpg" not in out


def test_info_is_there_for_people_and_for_machines(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["info"]) == 0
    told = capsys.readouterr().out
    assert "photos:      12 (12 files, 0 of them duplicates)" in told
    assert main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["manifest"]["counts"]["photos"] == 12
    assert f" in 1 segment, {info['bytes_on_disk'] / 1024 / 12:.1f} KiB a photo\n" in told


def test_a_build_says_what_it_passes_over(gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (gallery / "notes.txt").touch()
    (gallery / "linked").symlink_to(tmp_path)
    assert main(["build", str(gallery)]) == 0
    out = capsys.readouterr().out
    assert "skipped:     1 symbolic link, not followed; name the folders instead\n" in out
    assert "skipped:     1 file of other types: 1 .txt\n" in out


def test_a_build_says_how_the_photos_of_an_emptied_folder_are_removed(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    for file in (gallery / "in here").iterdir():
        file.unlink()
    capsys.readouterr()
    assert main(["build", "--quiet"]) == 3
    why = (
        "the folder is empty, as when its disk is not mounted (`index remove` forgets it); what was known of it stays."
    )
    assert capsys.readouterr().err == f"error: in here: {why}\n"
    assert "photos:      12 (" in info(capsys)
    assert main(["remove", "in here", "--yes", "--quiet"]) == 0
    assert main(["build", "--quiet"]) == 0


def test_verify_exits_with_one_where_there_are_problems_and_the_next_build_has_none(
    gallery: Path, index_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["verify"]) == 0
    assert "is sound" in capsys.readouterr().out
    next(index_path.glob("segments/*/tokens.npy")).unlink()
    assert main(["verify"]) == 1
    assert "tokens.npy is missing" in capsys.readouterr().out
    assert main(["build"]) == 0
    out = capsys.readouterr().out
    assert "was damaged: " in out
    assert "encoded now: 12" in out
    assert main(["verify"]) == 0


def test_photos_are_added_and_removed(gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["add", str(save_photos(tmp_path / "more", 4, start=20))]) == 0
    out = capsys.readouterr().out
    assert "photos:      16" in out
    assert "paths:       begin with the name of their folder from now on: photos, more\n" in out
    assert main(["remove", "--id", "3", "more", "--yes"]) == 0
    assert "removed:     5 files; on disk as before" in capsys.readouterr().out
    assert main(["info"]) == 0
    assert "removed:     in here/" in capsys.readouterr().out
    # Without folders it is an update of those there are.
    assert main(["build"]) == 0
    out = capsys.readouterr().out
    assert "photos:      11" in out
    assert "paths:" not in out
    # What was removed is shown again by its path in the report, or on disk.
    (removed,) = [line.split(maxsplit=1)[1] for line in info(capsys).splitlines() if line.startswith("removed:")]
    for path in (removed, str(gallery / removed)):
        assert main(["add", path, "--quiet"]) == 0
        assert "photos:      12 (" in info(capsys)
        assert main(["remove", "--id", "3", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_a_removal_can_be_looked_at_and_a_large_one_has_to_be_confirmed(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["remove", "in here", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out == "leaves:      in here (4 files)\nnothing has changed; this would remove 4 of 12 files.\n"
    assert main(["remove", "in here"]) == 2
    assert "more than a tenth of the gallery; look at what that is with --dry-run" in capsys.readouterr().err
    assert "photos:      12 (" in info(capsys)
    assert main(["remove", "in here", "--yes"]) == 0
    assert "photos:      8 (" in info(capsys)
