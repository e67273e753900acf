"""Lists of files, standard splits, and classes with two names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from model.datasets import read_synonyms
from model.datasets.corpus import Corpus, Picture, drawn_from
from model.datasets.layouts import STANDARD_SPLITS, class_key, classes_named, read_file_lists, standard_split
from model.datasets.tasks import read_task
from model.errors import ModelError
from tests.requirements import needs_shared_data
from tests.shared_data import data

SKETCHES, PHOTOS = "sketch_tx_000000000000_ready_filelist_zero.txt", "all_photo_filelist_zero.txt"


def write_lists(root: Path) -> Path:
    """Lists of two classes as the release of ZSE-SBIR has them; the pictures are empty files."""
    folder = root / "Sketchy" / "zeroshot1"
    folder.mkdir(parents=True)
    lists = {
        SKETCHES: ["256x256/sketch/tx/cup/n1-1.png 0", "256x256/sketch/tx/hot-air_balloon/n 2-1.png 1"],
        PHOTOS: ["EXTEND/cup/n1.jpg 0", "EXTEND/hot-air_balloon/n 2.jpg 1", "EXTEND/cup/ext_3.jpg 0"],
    }
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines) + "\n")
        for line in lines:
            path = folder.parent / line.rsplit(" ", 1)[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (folder / "cname_cid_zero.txt").write_text("cup 0\nhot-air balloon 1\n")
    return folder


def test_file_lists_give_paths_class_names_and_source(tmp_path: Path) -> None:
    corpus = read_file_lists(write_lists(tmp_path), "zero")
    assert [(p.label, p.path.name, p.source) for p in corpus.sketches] == [
        ("cup", "n1-1.png", "sketchy"),
        ("hot-air balloon", "n 2-1.png", "sketchy"),
    ]
    assert [p.path.name for p in corpus.photos] == ["n1.jpg", "n 2.jpg", "ext_3.jpg"]
    assert all(p.path.is_file() for p in corpus.photos)
    assert drawn_from(corpus).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (PHOTOS, "EXTEND/cup/n1.jpg 0\nEXTEND/cup/n1.jpg\n", f"{PHOTOS}:2: not a path, a space and a class number"),
        (PHOTOS, "EXTEND/cup/n1.jpg 0\n\nEXTEND/cup/gone.jpg 0\n", f"{PHOTOS}:3: there is no file"),
        (PHOTOS, "EXTEND/cup/n1.jpg 7\n", f"{PHOTOS}:1: class 7 has no name"),
        ("cname_cid_zero.txt", "cup 0\nballoon 0\n", "cname_cid_zero.txt:2: class 0 is named a second time"),
        ("cname_cid_zero.txt", "cup\n", "cname_cid_zero.txt:1: not a class name, a space and a class number"),
    ],
)
def test_a_bad_list_is_named_by_file_and_line(tmp_path: Path, name: str, content: str, reason: str) -> None:
    folder = write_lists(tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(ModelError, match=re.escape(reason)):
        read_file_lists(folder, "zero")


def test_missing_lists_are_named(tmp_path: Path) -> None:
    folder = write_lists(tmp_path)
    with pytest.raises(ModelError, match=r"cname_cid\.txt cannot be read"):
        read_file_lists(folder, "train")
    (folder / PHOTOS).unlink()
    with pytest.raises(ModelError, match=f"holds none of the lists {PHOTOS}"):
        read_file_lists(folder, "zero")


def test_the_protocols_of_file_lists(tmp_path: Path) -> None:
    folder = write_lists(tmp_path)
    assert len(read_task(data=folder, layout="lists").corpus.photos) == 3
    # In Sketchy 100/25 the hot-air balloon is a training class, the cup is not.
    assert read_task("cross-data-set", None, "sketchy_100_25", folder, "lists").corpus.labels == ("cup",)
    assert len(read_task("fine-grained", data=folder, layout="lists").corpus.sketches) == 2
    (folder / "cname_cid.txt").write_text("pig 0\n")
    (folder / SKETCHES.replace("zero", "train")).write_text("")
    trained = [f"EXTEND/pig/{number}.jpg" for number in range(10)]
    (folder / PHOTOS.replace("zero", "train")).write_text("".join(f"{path} 0\n" for path in trained))
    write_pictures(folder.parent / "EXTEND" / "pig", *(Path(path).name for path in trained))
    generalised = read_task("generalised", data=folder, layout="lists").corpus
    assert sorted(p.label for p in generalised.photos) == ["cup", "cup", "hot-air balloon", "pig", "pig"]
    assert len(generalised.sketches) == 2


def write_pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize("name", STANDARD_SPLITS)
def test_a_standard_split_has_as_many_classes_as_its_name_says(name: str) -> None:
    split = standard_split(name)
    seen, unseen = ({class_key(label) for label in part} for part in (split.seen, split.unseen))
    assert [str(len(seen)), str(len(unseen))] == name.split("_")[1:]
    assert not seen & unseen


@pytest.mark.parametrize(
    ("trained", "tested", "count"),
    [
        ("sketchy_100_25", "tuberlin_220_30", 21),
        ("sketchy_100_25", "quickdraw_80_30", 11),
        ("tuberlin_220_30", "sketchy_100_25", 8),
    ],
)
def test_across_data_sets_as_many_classes_are_left_as_published(trained: str, tested: str, count: int) -> None:
    sketches = tuple(Picture(Path(f"{label}.png"), label, "a") for label in standard_split(tested).unseen)
    assert len(classes_named(Corpus(sketches, ()), standard_split(trained).seen, exclude=True).labels) == count


def test_classes_are_found_in_any_spelling() -> None:
    corpus = Corpus(tuple(Picture(Path("1.png"), label, "") for label in ("ant", "hot_air_balloon", "t-shirt")), ())
    assert classes_named(corpus, ["Hot-air balloon", "t_shirt"]).labels == ("hot_air_balloon", "t-shirt")
    assert classes_named(corpus, ["ant"], exclude=True).labels == ("hot_air_balloon", "t-shirt")
    with pytest.raises(ModelError, match="none of the classes"):
        classes_named(corpus, ["zebra"])
    with pytest.raises(ModelError, match="choose one of sketchy_104_21"):
        standard_split("sketchy_1_2")


@needs_shared_data
@pytest.mark.parametrize("name", STANDARD_SPLITS)
def test_the_standard_splits_are_the_published_lists(name: str) -> None:
    for part, classes in (("seen", standard_split(name).seen), ("unseen", standard_split(name).unseen)):
        published = data("").parent / "splits" / f"{name}.{part}.txt"
        assert list(classes) == published.read_text().splitlines()


def write_list(folder: Path, names: list[str], vectors: list[float]) -> Path:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "class_words.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    np.save(folder / "data" / "class_words_clip_text.npy", np.array(vectors, np.float16)[:, None])
    return folder


def test_names_with_equal_vectors_are_synonyms(tmp_path: Path) -> None:
    assert read_synonyms(tmp_path) == ()
    folder = write_list(tmp_path, ["chaise_longue", "couch", "tree", "sofa", "daybed"], [1, 2, 3, 2, 1])
    assert read_synonyms(folder) == (("chaise longue", "daybed"), ("couch", "sofa"))


def test_a_list_with_other_vectors_is_refused(tmp_path: Path) -> None:
    folder = write_list(tmp_path, ["couch", "sofa"], [1, 2, 3])
    with pytest.raises(ModelError, match=r"has 2 names, and class_words_clip_text\.npy has other rows"):
        read_synonyms(folder)
    (folder / "data" / "class_words_clip_text.npy").write_bytes(b"no array")
    with pytest.raises(ModelError, match="cannot be read"):
        read_synonyms(folder)
