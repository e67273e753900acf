"""Finished checkpoints, measured on the file lists of public data sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.checkpoint.file import file_sha256, save_checkpoint
from model.commands import main
from tests.networks import tiny_network
from tests.pictures import SHAPES, drawing, photo

LISTS = {"zero": ("cname_cid_zero.txt", SHAPES[:2]), "train": ("cname_cid.txt", SHAPES[2:4])}


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """File lists of two unseen classes and two seen ones, as the release of ZSE-SBIR has them."""
    folder = tmp_path / "Sketchy" / "zeroshot1"
    folder.mkdir(parents=True)
    for part, (classes, labels) in LISTS.items():
        (folder / classes).write_text("".join(f"{label} {number}\n" for number, label in enumerate(labels)))
        for half, make, name in (("sketch", drawing, "sketch_{}.txt"), ("photo", photo, "all_photo_{}.txt")):
            lines = []
            for number, label in enumerate(labels):
                (tmp_path / "Sketchy" / half / label).mkdir(parents=True, exist_ok=True)
                for seed in range(5):
                    make(label, 64, seed).save(tmp_path / "Sketchy" / half / label / f"{seed}.png")
                    lines.append(f"{half}/{label}/{seed}.png {number}\n")
            (folder / name.format(part)).write_text("".join(lines))
    save_checkpoint(tiny_network(diffusion=0.5), tmp_path / "one.safetensors")
    save_checkpoint(tiny_network(seed=1), tmp_path / "two.safetensors")
    return folder


def test_checkpoints_get_a_row_for_each_data_set_with_checksums(
    lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (str(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    command = ["compare", "--checkpoint", one, "--checkpoint", two, "--data", str(lists), "--layout", "lists"]
    command += ["--out", str(tmp_path / "out")]
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    assert "one.safetensors on Sketchy/zeroshot1" in printed.err
    first, second = json.loads(printed.out)
    assert (first["checkpoint"], first["sha256"]) == ("one.safetensors", file_sha256(Path(one)))
    assert (first["zero_shot"]["queries"], first["zero_shot"]["photos"]) == (10, 10)
    # One of the five photos of each seen class.
    assert (first["generalised"]["queries"], first["generalised"]["photos"]) == (10, 12)
    assert first["zero_shot"]["diffused"] is not None
    assert second["zero_shot"]["diffused"] is None
    assert first["zero_shot"]["pictures_sha256"] == second["zero_shot"]["pictures_sha256"]
    assert first["zero_shot"]["pictures_sha256"] != first["generalised"]["pictures_sha256"]
    figure = first["generalised"]["plain"]["map_all"]
    assert 0 < figure["low"] <= figure["value"] <= figure["high"] <= 1

    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[2].startswith("| Sketchy/zeroshot1 | one.safetensors, rn | zero-shot | 10, 10 | ")
    assert f"`{first['sha256'][:16]}`" in printed.out

    # With one picture changed, everything that was measured with it is measured anew.
    photo("star", 64, 77).save(tmp_path / "Sketchy" / "photo" / SHAPES[0] / "0.png")
    assert main([*command, "--every", "2,1", "--json"]) == 0
    printed = capsys.readouterr()
    assert "two.safetensors on Sketchy/zeroshot1" in printed.err
    assert json.loads(printed.out)[0]["zero_shot"]["queries"] == 5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--checkpoint", "one.safetensors"], "--checkpoint needs --data DIR"),
        (["--checkpoint", "one.safetensors", "--methods", "vit-ret"], "--methods and --words belong to --backbone"),
        (["--backbone", "vit.safetensors", "--data", "."], "--data, --layout and --every belong to --checkpoint"),
        (["--checkpoint", "no.safetensors", "--data", "."], "there is no checkpoint at"),
        (["--checkpoint", "one.safetensors", "--data", ".", "--layout", "lists"], "holds none of the lists"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_a_sentence(
    options: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny_network(), Path("one.safetensors"))
    Path("cname_cid_zero.txt").write_text("cup 0\n")
    assert main(["compare", *options]) == 2
    assert sentence in capsys.readouterr().err
