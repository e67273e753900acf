from __future__ import annotations

from pathlib import Path

import pytest

from indexer.commands import main
from tests.indexer.commands.terminal import Terminal, info
from tests.indexer.disks import refuse_listing
from tests.indexer.galleries import save_photos


def test_a_folder_that_cannot_be_read_is_an_error_with_a_code_of_its_own(
    gallery: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    refuse_listing(monkeypatch, gallery / "in here")
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


def test_a_build_asks_before_folders_that_it_does_not_name_leave(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = save_photos(tmp_path / "more", 2, start=20)
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["build", str(more)], "sketch-search index") == 2
    err = capsys.readouterr().err
    assert f"this takes 12 of 12 files out of the index, because their folders are not named: {gallery}; name" in err
    assert "by `sketch-search index add`; or repeat it with --yes." in err
    for answer, code in (("\n", 2), ("y\n", 0)):
        assert "photos:      12 (" in info(capsys)
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert main(["build", str(more)]) == code
        assert capsys.readouterr().err.startswith(f"leaves:      {gallery} (12 files)\nthis takes 12 of 12 files")
    assert "photos:      2 (" in info(capsys)
    assert main(["build", str(gallery), "--yes", "--quiet"]) == 0


def test_the_photos_of_a_folder_that_was_renamed_are_not_encoded_again(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    renamed = gallery.rename(tmp_path / "renamed")
    assert main(["build", str(renamed), "--yes"]) == 0
    assert "encoded now: 0\n" in capsys.readouterr().out
