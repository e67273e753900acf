import os
from collections.abc import Iterator
from pathlib import Path

import faiss
import pytest
import torch

from indexer.commands import main
from tests.indexer.disks import bound_by_permissions

NO_HOME = "there is no home folder to keep the index in; name a folder with --index or SBIR_INDEX, or set HOME."


@pytest.fixture
def threads() -> Iterator[None]:
    """Whatever a test does to them, the next has as many threads as before."""
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])


def test_without_a_home_folder_the_index_must_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SBIR_INDEX")
    monkeypatch.setattr(os.path, "expanduser", str)  # as where HOME is not set and the user has no entry
    assert main(["info"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: {NO_HOME}\n")


def test_an_id_is_digits_and_something_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    for number in ("+3", "３", "1_0", "-1", "9" * 30):
        assert main(["remove", f"--id={number}"]) == 2
        assert "an id is a number such as 17" in capsys.readouterr().err
    assert main(["remove"]) == 2
    assert "name what to remove" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["build", "missing"], "missing does not exist; name a folder of photos."),
        (["build", "photos/Ännchen 001.png"], "is not a folder"),
        (["build", "empty"], "there are no image files in"),
        (["build", "bad"], "can be used"),
        (["build", "photos", "photos/in here"], "overlap; name only the outer one."),
        (["build", "photos", "photos"], "the same folder; name it once"),
        (["build", "photos", "--index", "."], "inside the index"),
        (["build", "photos", "--clusters", "13"], "13 clusters are more than the 12 photos"),
        (["build", "photos", "--clusters", "0"], "at least 1"),
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
        (["build", "photos", "--watch", "--interval", "0"], "the interval must be"),
        (["build", "photos", "--watch", "--interval", "1e300"], "at most 604800 (a week)"),
        (["build", os.fsdecode(b"\xff")], "is not valid UTF-8; rename the folder"),
        (["build"], "run `sketch-search index build FOLDER` first"),
        (["add", "photos"], "`sketch-search photos`, which also serves it."),
        (["remove", "3"], "there is no index at"),
        (["verify"], "there is no index at"),
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


def test_threads_may_come_from_the_environment(gallery: Path, monkeypatch: pytest.MonkeyPatch, threads: None) -> None:
    monkeypatch.setenv("SBIR_THREADS", "2")
    assert main(["build", str(gallery), "--quiet"]) == 0
    assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == (2, 2)


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


@pytest.mark.parametrize("command", ["info", "verify"])
def test_an_index_that_may_not_be_read_is_a_sentence(
    command: str, gallery: Path, index_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(gallery), "--quiet"]) == 0
    (index_path / "g000001" / "photos.sqlite").chmod(0)
    with bound_by_permissions():
        assert main([command]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "photos.sqlite" in err
    assert err.count("\n") == 1


def test_help_fits_a_screen_has_examples_and_names_the_program_that_was_called(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for prog in ("python -m indexer", "sketch-search index"):
        assert main(["--help"], prog) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"Usage: {prog} ")
        assert "    sketch-search index info" in lines
        assert len(lines) <= 40
