from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import faiss
import pytest
import torch

from indexer import read_progress, read_summary
from indexer.commands import main
from model.terminal import installed_version
from tests.indexer.disks import refuse_listing
from tests.indexer.galleries import catalog, save_photos
from tests.programs import run_python

NO_HOME = "there is no home folder to keep the index in; name a folder with --index or SBIR_INDEX, or set HOME."


class Terminal(io.StringIO):
    """Where somebody types an answer."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, weights: Path, index_path: Path) -> None:
    monkeypatch.setenv("SBIR_WEIGHTS", str(weights))
    monkeypatch.setenv("SBIR_INDEX", str(index_path))
    for name in ("SBIR_DEVICE", "SBIR_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def threads() -> Iterator[None]:
    """Whatever a test does to them, the next has as many threads as before."""
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])


def test_build_info_and_verify_work_from_a_shell(gallery: Path, index_path: Path, tmp_path: Path) -> None:
    (gallery / "broken.jpg").write_bytes(b"\xff\xd8\xff")

    def run(*arguments: str) -> str:
        done = run_python("-m", "indexer", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    out = run("build", str(gallery), "--device", "cpu", "--progress-file", str(tmp_path / "progress.json"))
    assert "not indexed: broken.jpg: " in out
    assert "photos:      12" in out
    assert "the checkpoint's own retrieval token" in out
    assert json.loads((tmp_path / "progress.json").read_text())["phase"] == "done"
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


def test_without_a_home_folder_the_index_must_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SBIR_INDEX")
    monkeypatch.setattr(os.path, "expanduser", str)  # as where HOME is not set and the user has no entry
    assert main(["info"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: {NO_HOME}\n")


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


def test_a_repeated_build_says_that_nothing_has_changed(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(gallery)]) == 0
    assert "now live" in capsys.readouterr().out
    assert main(["build", str(gallery)]) == 0
    assert "nothing has changed" in capsys.readouterr().out


def test_verify_exits_with_one_where_there_are_problems(
    gallery: Path, index_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["verify"]) == 0
    assert "is sound" in capsys.readouterr().out
    (index_path / "g000001" / "clusters.faiss").unlink()
    assert main(["verify"]) == 1
    assert "clusters.faiss is missing" in capsys.readouterr().out


def test_verify_says_which_files_are_no_longer_what_was_indexed(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = save_photos(tmp_path / "more", 2, start=20)
    assert main(["build", str(gallery), str(more), "--quiet"]) == 0
    assert main(["verify"]) == 0
    assert "14 files are what was indexed.\n" in capsys.readouterr().out
    changed = gallery / "Ännchen 001.png"
    before = changed.stat()
    changed.write_bytes(changed.read_bytes()[:-1] + b"!")
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    (gallery / "Ännchen 002.png").unlink()
    assert main(["verify", "--index-only"]) == 0
    assert capsys.readouterr().out.endswith("is sound.\n")
    assert main(["verify"], "sketch-search index") == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "photos/Ännchen 001.png has changed since it was indexed.",
        "photos/Ännchen 002.png cannot be read: No such file or directory.",
        "2 of 14 files are not what was indexed.",
        "To bring the index up to date, run `sketch-search index build --checksum`.",
    ]
    assert main(["build", "--checksum", "--quiet"]) == 0
    assert main(["verify"]) == 0
    more.rename(tmp_path / "elsewhere")
    assert main(["verify"]) == 3
    assert capsys.readouterr().err == f"error: {more} is not there: its 2 files were not compared.\n"


def test_sentences_name_the_command_that_the_user_has(capsys: pytest.CaptureFixture[str]) -> None:
    for prog in ("python -m indexer", "sketch-search index"):
        assert main(["build"], prog) == 2
        assert f"run `{prog} build FOLDER` first" in capsys.readouterr().err


def test_verify_repairs_what_it_finds_when_told(
    gallery: Path, index_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["verify", "--repair"]) == 0
    assert "is sound" in capsys.readouterr().out
    next(index_path.glob("segments/*/ret.npy")).unlink()
    assert main(["verify", "--repair"]) == 0
    out = capsys.readouterr().out
    assert "was damaged: " in out
    assert "ret.npy is missing" in out
    assert "encoded now: 12" in out
    assert "is sound" in out
    assert main(["verify"]) == 0


def test_photos_are_added_and_removed_and_segments_merged(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["add", str(save_photos(tmp_path / "more", 4, start=20))]) == 0
    assert "photos:      16" in capsys.readouterr().out
    assert main(["remove", "--id", "3", "more", "--yes"]) == 0
    assert "removed:     5 files; on disk as before" in capsys.readouterr().out
    assert main(["info"]) == 0
    assert "removed:     in here/" in capsys.readouterr().out
    assert main(["compact"]) == 0
    assert "1 row no longer shown" in capsys.readouterr().out
    # Without folders it is an update of those there are.
    assert main(["build"]) == 0
    out = capsys.readouterr().out
    assert "photos:      11" in out
    assert "nothing has changed" in out
    assert main(["add", str(gallery), "--quiet"]) == 0
    assert main(["remove", "--id", "3"]) == 0
    assert "removed:     1 file; " in capsys.readouterr().out
    assert main(["add", str(gallery), "--quiet"]) == 0
    assert main(["remove", "--id", "3", "--quiet"]) == 0
    assert main(["compact", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_a_removal_can_be_looked_at_and_a_large_one_is_asked_about(
    gallery: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["remove", "in here", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out == "leaves:      in here (4 files)\nnothing has changed; this would remove 4 of 12 files.\n"
    assert main(["remove", "in here"]) == 2
    assert "more than a tenth of the gallery; look at what that is with --dry-run" in capsys.readouterr().err
    for answer, code in (("\n", 2), ("", 2), ("no\n", 2), ("y\n", 0)):
        assert "photos:      12 (" in info(capsys)
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert main(["remove", "in here"]) == code
        err = capsys.readouterr().err
        assert err.startswith("leaves:      in here (4 files)\nthis removes 4 of 12 files, more than a tenth")
        assert ("nothing was removed." in err) == (code == 2)
    assert "photos:      8 (" in info(capsys)


def info(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["info"]) == 0
    return capsys.readouterr().out


def test_an_id_is_digits_and_something_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    for number in ("+3", "３", "1_0", "-1", "9" * 30):
        with pytest.raises(SystemExit):
            main(["remove", f"--id={number}"])
        assert "an id is a number such as 17" in capsys.readouterr().err
    assert main(["remove"]) == 2
    assert "name what to remove" in capsys.readouterr().err


def test_a_gallery_that_has_outgrown_its_clusters_is_told_what_to_do(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    save_photos(gallery, 14, start=20)
    for command in (["build"], ["info"]):
        assert main(command) == 0
        out = capsys.readouterr().out
        assert "drift:       the clusters were made for 12 photos; now there are " in out
        assert "run build --recluster" in out
    assert main(["build", "--recluster"]) == 0
    assert "--recluster" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["build", "missing"], "missing does not exist; name a folder of photos."),
        (["build", "photos/Ännchen 001.png"], "is not a folder"),
        (["build", "empty"], "there are no image files in"),
        (["build", "bad"], "can be used"),
        (["build", "photos", "photos/in here"], "overlap; name only the outer one."),
        (["build", "photos", "--clusters", "13"], "13 clusters are more than the 12 photos"),
        (["build", "photos", "--clusters", "0"], "at least 1"),
        (["build", "photos", "--batch", "0"], "at least 1"),
        (["build", "photos", "--embedder", "dino"], "there is no embedder 'dino'; use ret, clip"),
        (["build", "photos", "--embedder", "clip:nothing"], "is neither a file nor an open_clip model"),
        (["build", "photos", "--embedder", "clip:ViT-B-32@nothing.pt"], "no CLIP weights at"),
        (["build", "photos", "--embedder", "clip:No-Model@empty"], "no model 'No-Model'"),
        (["build", "photos", "--weights", "nothing.safetensors"], "there is no checkpoint at"),
        (["build", "photos", "--device", "abacus"], "cannot be used here"),
        (["build", "x" * 300], "check its name and that it may be read and written."),
        (["samples", "file/below"], "file"),
        (["build", "photos", "--index", "file"], "is a file"),
        (["build", "photos", "--index", "file/below"], "cannot be written"),
        (["build", "photos", "--progress-file", "nowhere/p.json"], "cannot be written"),
        (["build", "photos", "--watch", "--interval", "0"], "the interval must be"),
        (["build", "photos", "--watch", "--interval", "1e300"], "at most 604800 (a week)"),
        (["build", os.fsdecode(b"\xff")], "is not valid UTF-8; rename the folder"),
        (["build"], "run `python -m indexer build FOLDER` first."),
        (["add", "photos"], "run `python -m indexer build FOLDER` first."),
        (["remove", "3"], "there is no index at"),
        (["compact"], "there is no index at"),
        (["verify"], "there is no index at"),
        (["verify", "--repair"], "there is no index at"),
        (["info"], "there is no index at"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    sentence: str,
    gallery: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "empty.png").write_bytes(b"")
    (tmp_path / "file").write_text("")
    (tmp_path / os.fsdecode(b"\xff")).mkdir()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_photo_is_not_overwritten_by_the_progress_of_a_build(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = gallery / "Ännchen 001.png"
    before = photo.read_bytes()
    (tmp_path / "link").symlink_to(photo)
    for file in (photo, tmp_path / "link", gallery, Path(os.devnull)):
        assert main(["build", str(gallery), "--progress-file", str(file)]) == 2
        assert f"error: {file} is there, and is no progress file; name another" in capsys.readouterr().err
    assert photo.read_bytes() == before
    (tmp_path / "p.json").touch()
    for _ in range(2):
        assert main(["build", str(gallery), "--quiet", "--progress-file", str(tmp_path / "p.json")]) == 0
    assert json.loads((tmp_path / "p.json").read_text())["phase"] == "done"


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


def test_a_gallery_of_one_root_that_is_not_mounted_stays_as_it_is(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    gallery.rename(tmp_path / "elsewhere")
    assert main(["build", "--quiet"]) == 3
    gallery.mkdir()
    assert main(["build", "--recluster", "--clusters", "2", "--quiet"]) == 3
    assert capsys.readouterr().err.count(f"error: {gallery}: the folder ") == 2
    assert "photos:      12 (" in info(capsys)
    assert main(["verify", "--index-only"]) == 0


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


def test_a_folder_that_was_renamed_keeps_its_ids_and_what_was_removed_where_that_is_wanted(
    gallery: Path, tmp_path: Path, index_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["remove", "--id", "3", "--quiet"]) == 0
    before = {path: entry[:2] for path, entry in catalog(index_path).items()}
    renamed = gallery.rename(tmp_path / "renamed")
    assert main(["build", str(renamed)]) == 2
    told = f"{gallery} is gone, and {renamed} has 11 of its 11 files"
    assert f"error: {told}; repeat it with --moved if it was renamed" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert main(["build", str(renamed)]) == 0
    out, err = capsys.readouterr()
    assert told in err
    assert "encoded now: 0\n" in out
    assert {path: entry[:2] for path, entry in catalog(index_path).items()} == before
    again = renamed.rename(tmp_path / "again")
    assert main(["build", str(again), "--moved", "--quiet"]) == 0
    assert {path: entry[:2] for path, entry in catalog(index_path).items()} == before
    other = again.rename(tmp_path / "other")
    assert main(["build", str(other), "--yes", "--quiet"]) == 0
    assert min(number for number, _ in (entry[:2] for entry in catalog(index_path).values())) == 13


def test_a_build_says_what_it_passes_over(gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (gallery / "notes.txt").touch()
    (gallery / "linked").symlink_to(tmp_path)
    assert main(["build", str(gallery)]) == 0
    out = capsys.readouterr().out
    assert "skipped:     1 symbolic link, not followed; name the folders instead\n" in out
    assert "skipped:     1 file of other types: 1 .txt\n" in out


def test_threads_may_come_from_the_environment(gallery: Path, monkeypatch: pytest.MonkeyPatch, threads: None) -> None:
    monkeypatch.setenv("SBIR_THREADS", "2")
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == (2, 2)


def test_the_precision_of_scores_does_not_reach_the_index(
    gallery: Path, index_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBIR_DTYPE", "bfloat16")
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert read_summary(index_path).manifest.dtype == "float32"


@pytest.mark.parametrize("value", ["", "auto"])
def test_an_empty_variable_and_auto_are_as_good_as_none(
    value: str, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SBIR_DEVICE", "SBIR_THREADS"):
        monkeypatch.setenv(name, value)
    before = torch.get_num_threads()
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("name", "value"), [("THREADS", value) for value in ("0", "many", "2000", "9" * 30, "٢")])
def test_a_variable_that_makes_no_sense_is_named_with_what_it_may_be(
    name: str, value: str, gallery: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"SBIR_{name}", value)
    assert main(["build", str(gallery)]) == 2
    assert f"error: SBIR_{name} is '{value}'; set it to " in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("command", ["info", "verify"])
def test_an_index_that_may_not_be_read_is_a_sentence(
    command: str, gallery: Path, index_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    (index_path / "g000001" / "photos.sqlite").chmod(0)
    assert main([command]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "photos.sqlite" in err
    assert err.count("\n") == 1


def test_the_live_index_survives_a_build_that_fails(gallery: Path, index_path: Path, tmp_path: Path) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["build", str(tmp_path), "--quiet", "--clusters", "99"]) == 2
    assert main(["verify"]) == 0
    save_photos(gallery, 3, start=20)
    assert main(["build", str(gallery), "--quiet"]) == 0


def test_help_fits_a_screen_has_examples_and_names_the_program_that_was_called(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for prog in ("python -m indexer", "sketch-search index"):
        with pytest.raises(SystemExit) as ended:
            main(["--help"], prog)
        assert ended.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"usage: {prog} ")
        assert f"  {prog} info" in lines
        assert len(lines) <= 40


def test_the_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sketch-search {installed_version()}\n"
