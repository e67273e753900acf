import json
import os
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from PIL import Image

from sketch_search.indexer.commands import main
from sketch_search.indexer.samples import EACH, SCENES, SIZE, THINGS
from tests.indexer.galleries import save_photos
from tests.programs import run_python


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, weights: Path, index_path: Path) -> None:
    monkeypatch.setenv("SKETCH_SEARCH_WEIGHTS", str(weights))
    monkeypatch.setenv("SKETCH_SEARCH_INDEX", str(index_path))
    for name in ("SKETCH_SEARCH_DEVICE", "SKETCH_SEARCH_THREADS"):
        monkeypatch.delenv(name, raising=False)


def info(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["info"]) == 0
    return capsys.readouterr().out


def test_photos_of_an_unmounted_root_stay(gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = save_photos(tmp_path / "more", 2, start=20)
    assert main(["build", str(gallery), str(more), "--quiet"]) == 0
    save_photos(gallery, 1, start=30)
    mounted = more.rename(tmp_path / "elsewhere")
    told = "error: {}: the folder {} (`index remove` drops it); its indexed photos stay.\n"
    for arguments in ([], [str(gallery), str(more)]):
        assert main(["build", *arguments, "--quiet"]) == 3
        assert capsys.readouterr() == ("", told.format(more, "cannot be read: No such file or directory"))
    more.mkdir()
    assert main(["build", "--quiet"]) == 3
    assert capsys.readouterr().err == told.format(more, "is empty, perhaps because its disk is not mounted")
    assert "photos:      15 (" in info(capsys)
    more.rmdir()
    mounted.rename(more)
    assert main(["build"]) == 0
    assert "unchanged" in capsys.readouterr().out


def test_folders_that_are_not_named_leave_only_if_that_is_said_and_one_that_was_renamed_is_not_encoded_again(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = save_photos(tmp_path / "more", 2, start=20)
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["build", str(more)], "sketch-search index") == 2
    err = capsys.readouterr().err
    assert f" has other folders: {gallery}. List these as well, or list none" in err
    assert "; or drop them by `sketch-search index build FOLDER --yes`: photos that have only moved stay;" in err
    assert "photos:      12 (" in info(capsys)
    renamed = gallery.rename(tmp_path / "renamed")
    assert main(["build", str(renamed), "--yes"]) == 0
    assert "encoded now: 0\n" in capsys.readouterr().out
    assert main(["build", str(more), "--yes", "--quiet"]) == 0
    assert "photos:      2 (" in info(capsys)


def test_no_name_of_a_file_forges_a_line_of_the_report(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (gallery / "notes.txt").touch()
    assert main(["build", str(gallery)]) == 0
    assert "skipped:     1 file of other types: 1 .txt\n" in capsys.readouterr().out
    (gallery / "a\x1b[2J\u202e\nphotos:      99.jpg").write_bytes(b"")
    for arguments in (["build"], ["info"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert "not indexed: a\\x1b[2J\\u202e\\nphotos:      99.jpg: " in out
        assert "\x1b" not in out
        assert "\nphotos:      99.jpg" not in out
    (gallery / "empty.jpg").write_bytes(b"")
    assert main(["build"]) == 0
    out = capsys.readouterr().out
    assert [row for row in out.splitlines() if row.startswith("not indexed")] == [
        "not indexed: empty.jpg: the file is empty"
    ]
    assert "bad:         2, 1 of them before; `sketch-search index info` lists all\n" in out


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


def test_a_build_asks_before_it_drops_a_tenth_of_photos(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    for file in gallery.glob("*.png"):
        file.unlink()
    assert main(["build", "--quiet"]) == 3
    err = capsys.readouterr().err
    assert err.startswith("error: 8 of 12 photos are missing, more than a tenth of the gallery; they stay. ")
    assert err.endswith("run `sketch-search index build --yes`.\n")
    assert main(["build", "--yes"]) == 0
    assert "photos:      4\n" in capsys.readouterr().out


def test_excluded_photos_stay_out_until_they_are_included(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["add", str(gallery), "--exclude", "in here", "--exclude", "*1.png", "--quiet"]) == 0
    assert "photos:      6 (" in info(capsys)
    assert main(["build", "--include", "*1.png"]) == 0
    assert "skipped:     1 by --exclude\n" in capsys.readouterr().out
    assert "excluded:    in here\n" in info(capsys)
    assert main(["add", str(gallery), "--include", "in here", "--quiet"]) == 0
    assert "photos:      12 (" in info(capsys)


def test_verify_exits_with_1_for_problems(gallery: Path, index_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_removed_photos_stay_out_until_added(gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["add", str(save_photos(tmp_path / "more", 4, start=20))]) == 0
    out = capsys.readouterr().out
    assert "photos:      16" in out
    assert "paths:       now begin with the name of their folder: photos, more\n" in out
    assert main(["add", str(tmp_path)]) == 2
    assert "which is already indexed, overlap; to replace it by the outer one, list" in capsys.readouterr().err
    assert main(["remove", "--id", "3", "more", "--yes"]) == 0
    assert "removed:     5 files; unchanged on disk" in capsys.readouterr().out
    assert "removed:     in here/Ännchen 006.png\n" in info(capsys)
    os.utime(gallery / "in here" / "Ännchen 006.png", ns=(1, 1))
    for folders in ([], [str(gallery)]):
        assert main(["build", *folders]) == 0
        out = capsys.readouterr().out
        assert "photos:      11" in out
        assert "paths:" not in out
    (removed,) = [line.split(maxsplit=1)[1] for line in info(capsys).splitlines() if line.startswith("removed:")]
    for path in (removed, str(gallery / removed)):
        assert main(["add", path]) == 0
        assert "encoded now: 0" in capsys.readouterr().out
        told = info(capsys)
        assert "photos:      12 (" in told
        assert "removed:" not in told
        assert main(["remove", "--id", "3", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_a_large_removal_is_shown_and_has_to_be_confirmed(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert main(["remove", "in here", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out == "leaves:      in here (4 files)\nnothing was changed; this would remove 4 of 12 files.\n"
    assert main(["remove", "in here"]) == 2
    assert "more than a tenth of the gallery; list them with --dry-run" in capsys.readouterr().err
    assert "photos:      12 (" in info(capsys)
    assert main(["remove", "in here", "--yes"]) == 0
    assert "photos:      8 (" in info(capsys)


@pytest.fixture
def threads() -> Iterator[int]:
    """How many there are. Whatever a test does to them, the next has as many."""
    before = torch.get_num_threads()
    faiss.omp_set_num_threads(before)
    yield before
    torch.set_num_threads(before)
    faiss.omp_set_num_threads(before)


def test_without_a_home_the_index_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("SKETCH_SEARCH_INDEX")
    monkeypatch.setattr(os.path, "expanduser", str)  # as where HOME is not set and the user has no entry
    assert main(["info"]) == 2
    out, err = capsys.readouterr()
    told = "there is no home folder for the index; name a folder with --index or SKETCH_SEARCH_INDEX, or set HOME.\n"
    assert (out, err) == ("", f"error: {told}")


def test_an_id_is_digits_and_something_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    for number in ("+3", "３", "1_0", "-1", "9" * 30):
        assert main(["remove", f"--id={number}"]) == 2
        assert "an id is a number such as 17" in capsys.readouterr().err
    assert main(["remove"]) == 2
    assert "name the files or folders to remove" in capsys.readouterr().err


def test_where_python_reads_names_as_ascii_the_variable_is_named_and_not_the_folder(tmp_path: Path) -> None:
    name = "\u00dcbung, \u732b, caf\u00e9"
    (tmp_path / name).mkdir()
    plain = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    build = ("-m", "indexer", "build", str(tmp_path / name), "--index", str(tmp_path / "index"))
    ended = run_python(*build, environment=plain)
    assert ended.returncode == 2
    assert "unset PYTHONUTF8, or set LC_ALL=C.UTF-8" in ended.stderr
    assert "rename" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["build", "missing"], "missing does not exist; name a folder of photos."),
        (["build", "photos/Ännchen 001.png"], "is not a folder"),
        (["build", "empty"], "there are no image files in"),
        (["build", "bad"], "can be used"),
        (["build", "photos", "photos/in here"], "overlap; name only the outer one."),
        (["build", "photos", "photos"], "the same folder; name it only once"),
        (["build", "photos", "--index", "."], "inside the index"),
        (["build", *["photos"] * 1001], "an index has at most 1000 folders"),
        (["build", "photos", "--index", "home"], "holds files that are not an index"),
        (["build", "photos", "--clusters", "13"], "13 clusters are too many for 12 photos"),
        (["build", "photos", "--clusters", "0"], "at least 1"),
        (["build", "photos", "--embedder", "dino"], "unknown embedder 'dino'; use ret, clip"),
        (["build", "photos", "--embedder", "clip:ViT-B-32@nothing.pt"], "no CLIP weights at"),
        (["build", "photos", "--embedder", "clip:No-Model@empty"], "no model 'No-Model'"),
        (["build", "photos", "--weights", "nothing.safetensors"], "there is no checkpoint at"),
        (["build", "photos", "--device", "abacus"], "cannot be used here"),
        (["build", "x" * 300], "check its name and that it may be read and written."),
        (["samples", "file/below"], "file"),
        (["build", "photos", "--index", "file"], "is a file"),
        (["build", "photos", "--watch", "--interval", "0"], "the interval must be"),
        (["build", "photos", "--watch", "--interval", "1e300"], "at most 604800 (a week)"),
        (["build", os.fsdecode(b"\xff")], "is not valid UTF-8; rename the folder"),
        (["build"], "run `sketch-search index build FOLDER` first"),
        (["add", "nowhere"], "nowhere does not exist"),
        (["info"], "there is no index at"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_impossible_commands_end_with_one_sentence_and_exit_code_2(
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
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / os.fsdecode(b"\xff")).mkdir()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(("value", "used"), [("2", 2), ("", None), ("auto", None)])
def test_the_environment_sets_threads(
    value: str, used: int | None, gallery: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setenv("SKETCH_SEARCH_THREADS", value)
    monkeypatch.setenv("SKETCH_SEARCH_DEVICE", "")
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == (used or threads, used or threads)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "new"
    assert main(["samples", str(folder)]) == 0
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_at_least_60_pictures_of_at_least_15_things_are_drawn_and_all_differ(written: Path) -> None:
    assert len(THINGS) >= 15
    drawn = [path for name in THINGS for path in sorted((written / "photos" / name).iterdir())]
    assert len(drawn) == len(THINGS) * EACH >= 60
    drawn += sorted((written / "photos" / "scenes").iterdir())
    assert len(drawn) == (len(THINGS) + len(SCENES)) * EACH
    assert len({path.read_bytes() for path in drawn}) == len(drawn)
    for path in drawn:
        with Image.open(path) as picture:
            assert (picture.mode, picture.size) == ("RGB", (SIZE, SIZE))
            assert np.asarray(picture).std() > 10


def test_existing_files_are_not_overwritten(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(written)
    assert main(["samples", str(written)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert files(written) == before
