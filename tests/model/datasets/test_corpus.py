from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import model
from model.datasets.corpus import (
    DATA_VARIABLE,
    FRESH_PHOTOS,
    FRESH_SKETCHES,
    Corpus,
    Picture,
    data_folder,
    drawn_from,
    is_fresh,
    read_class_folders,
    read_data,
    read_drawings,
    read_split,
    split_fresh,
    unpacked,
)
from model.errors import ModelError
from model.evaluation import score_matrices
from tests.archives import pack
from tests.learning import write_class_folders
from tests.networks import tiny_checkpoint
from tests.pictures import encoded


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
    first = unpacked(packed)
    stamp = first.stat().st_mtime_ns
    assert unpacked(packed) == first
    assert first.stat().st_mtime_ns == stamp
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(tmp_path / "plain" / "shapes" / "photo", "shapes/photo")
    assert unpacked(packed) != first
    assert read_split(data_folder(), "val") == ("star",)
    with pytest.raises(ModelError, match="holds no list of classes named 'train'"):
        read_split(data_folder(), "train")


def test_an_evaluation_without_photos_says_what_it_found(tmp_path: Path) -> None:
    matcher = model.load(tiny_checkpoint(tmp_path / "tiny.safetensors"))
    with pytest.raises(ModelError, match="found 0 sketches and 0 photos"):
        score_matrices(matcher, Corpus((), ()))


def pictures(half: str, source: str, label: str, names: list[str]) -> tuple[Picture, ...]:
    return tuple(Picture(Path("/data") / source / half / label / name, label, source) for name in names)


def photos(source: str, label: str, count: int) -> tuple[Picture, ...]:
    return pictures("photo", source, label, [f"n{i:04}.jpg" for i in range(count)])


def drawn(label: str, count: int) -> tuple[Picture, ...]:
    return pictures("sketch", "sketchy", label, [f"n{i:04}-{k}.png" for i in range(count) for k in (1, 2, 3)])


def test_about_a_tenth_of_the_sketches_and_a_fifth_of_the_photos_of_a_class_are_fresh() -> None:
    corpus = Corpus(pictures("sketch", "tuberlin", "ant", [f"{i}.png" for i in range(2000)]), photos("x", "ant", 2000))
    kept, fresh = split_fresh(corpus)
    assert abs(len(fresh.sketches) / 2000 - FRESH_SKETCHES) < 0.03
    assert abs(len(fresh.photos) / 2000 - FRESH_PHOTOS) < 0.03
    assert set(kept.sketches) | set(fresh.sketches) == set(corpus.sketches)
    assert not set(kept.photos) & set(fresh.photos)


def test_the_photo_of_a_fresh_sketch_is_fresh_and_its_sketches_stay_together() -> None:
    corpus = Corpus(drawn("ant", 300), photos("sketchy", "ant", 300))
    kept, fresh = split_fresh(corpus)
    assert fresh.sketches
    assert (drawn_from(fresh) >= 0).all(), "every fresh sketch has its photo among the fresh ones"
    assert len(fresh.sketches) % 3 == 0
    assert {p.path.stem[:-2] for p in fresh.sketches}.isdisjoint({p.path.stem[:-2] for p in kept.sketches})


def test_what_is_fresh_depends_on_class_and_name_alone() -> None:
    one, other = photos("sketchy", "ant", 200), photos("flickr15k", "ant", 200)
    fresh = split_fresh(Corpus((), one + other))[1].photos
    names = [{p.path.name for p in fresh if p.source == source} for source in ("sketchy", "flickr15k")]
    assert names[0] == names[1]
    assert split_fresh(Corpus((), one[:50]))[1].photos == tuple(p for p in fresh if p in set(one[:50]))
    assert is_fresh("ant", "N0001", 0.5) == is_fresh("ant", "n0001", 0.5), "whatever the case of its letters"


CROSS = [[[0, 255], [0, 255]], [[255, 0], [0, 255]]]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = gzip.compress(2 * (json.dumps(CROSS) + "\n").encode())
    blank = encoded(Image.new("L", (8, 8), 255))
    pack(tmp_path / "data" / "more2" / "strokes.tar.gz", {"strokes/alarm_clock.jsonl.gz": lines})
    pack(tmp_path / "data" / "more2" / "people.tar.gz", {"viscomm/sketch/bird/one.png": blank})
    return tmp_path


def test_strokes_are_drawn_once_as_black_lines_on_white_and_stand_beside_the_other_drawings(data: Path) -> None:
    sketches = read_drawings(data).sketches
    assert [(s.label, s.source) for s in sketches] == [("bird", "viscomm")] + [("alarm_clock", "strokes")] * 2
    first, second = (np.asarray(Image.open(s.path)) for s in sketches[1:])
    assert first.shape == (512, 512)
    assert set(np.unique(first)) == {0, 255}
    # Both diagonals meet in the middle; the second drawing has thicker lines.
    assert first[255, 255] == 0
    assert first[10, 10] == 255
    assert (second == 0).sum() > (first == 0).sum() > 0
    written = [s.path.stat().st_mtime_ns for s in sketches]
    assert [s.path.stat().st_mtime_ns for s in read_drawings(data).sketches] == written


def test_without_those_archives_there_are_no_drawings(tmp_path: Path) -> None:
    assert read_drawings(tmp_path).sketches == ()
