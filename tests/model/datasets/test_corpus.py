from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

import model
from model.datasets.corpus import (
    DATA_VARIABLE,
    Corpus,
    Picture,
    data_folder,
    read_class_folders,
    read_data,
    read_split,
    unpacked,
)
from model.errors import ModelError
from model.evaluation import score_matrices
from tests.learning import write_class_folders
from tests.networks import tiny_checkpoint


def test_class_folders_are_read_in_order_and_other_files_left_out(tmp_path: Path) -> None:
    corpus = write_class_folders(tmp_path, seeds=range(2), shapes=("star", "circle"))
    (tmp_path / "photo" / "star" / "notes.txt").write_text("no picture")
    again = read_class_folders(tmp_path)
    assert again == corpus
    assert [(p.label, p.path.name) for p in again.photos] == [
        ("circle", "000.png"),
        ("circle", "001.png"),
        ("star", "000.png"),
        ("star", "001.png"),
    ]


def test_a_folder_laid_out_otherwise_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds neither sketch/<class>/ nor photo/<class>/"):
        read_class_folders(tmp_path)


def test_the_protocol_takes_ten_sketches_a_class_and_source_and_leaves_out_thumbnails() -> None:
    sketches = tuple(
        Picture(Path(f"{number:02}.png"), label, source)
        for source in ("quickdraw", "sketchy")
        for label in ("ant", "bat")
        for number in range(15)
    )
    photos = tuple(Picture(Path("a.jpg"), "ant", source) for source in ("flickr15k", "miniimagenet", "tinyimagenet"))
    protocol = Corpus(sketches, photos).protocol()
    assert len(protocol.sketches) == 40
    assert all(int(p.path.stem) < 10 for p in protocol.sketches)
    assert [p.source for p in protocol.photos] == ["flickr15k"]


def test_archives_are_unpacked_once_and_anew_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "shared"))
    write_class_folders(tmp_path / "plain" / "shapes", seeds=range(2), shapes=("star", "house"))
    (tmp_path / "shared" / "data").mkdir(parents=True)
    packed = tmp_path / "shared" / "data" / "shapes.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(tmp_path / "plain" / "shapes", "shapes")
    (tmp_path / "shared" / "data" / "split.json").write_text(json.dumps({"val": ["star"]}))
    corpus = read_data(data_folder())
    assert corpus.labels == ("house", "star")
    assert {p.source for p in corpus.photos} == {"shapes"}
    first = unpacked(packed, tmp_path / "other")
    stamp = first.stat().st_mtime_ns
    assert unpacked(packed, tmp_path / "other") == first
    assert first.stat().st_mtime_ns == stamp
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(tmp_path / "plain" / "shapes" / "photo", "shapes/photo")
    assert unpacked(packed, tmp_path / "other") != first
    assert read_split(data_folder(), "val") == ("star",)
    with pytest.raises(ModelError, match="holds no list of classes named 'train'"):
        read_split(data_folder(), "train")


def test_without_data_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(ModelError, match=f"set {DATA_VARIABLE}"):
        data_folder()


def test_an_evaluation_without_photos_says_what_it_found(tmp_path: Path) -> None:
    matcher = model.load(tiny_checkpoint(tmp_path / "tiny.safetensors"))
    with pytest.raises(ModelError, match="found 0 sketches and 0 photos"):
        score_matrices(matcher, Corpus((), ()))
