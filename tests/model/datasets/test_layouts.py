"""Standard splits, and classes with two names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.datasets.corpus import Corpus, Picture
from model.datasets.tasks import STANDARD_SPLITS, class_key, classes_named, standard_split
from model.errors import ModelError
from model.papers.word_vectors import read_synonyms
from tests.requirements import needs_shared_data
from tests.shared_data import data


@pytest.mark.parametrize("name", STANDARD_SPLITS)
def test_a_standard_split_has_as_many_classes_as_its_name_says(name: str) -> None:
    seen, unseen = ({class_key(label) for label in part} for part in standard_split(name))
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
    sketches = tuple(Picture(Path(f"{label}.png"), label, "a") for label in standard_split(tested)[1])
    assert len(classes_named(Corpus(sketches, ()), standard_split(trained)[0], exclude=True).labels) == count


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
    for part, classes in zip(("seen", "unseen"), standard_split(name), strict=True):
        published = data("").parent / "splits" / f"{name}.{part}.txt"
        assert list(classes) == published.read_text().splitlines()


def write_list(folder: Path, names: list[str], vectors: list[float]) -> None:
    (folder / "data" / "class_words.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    np.save(folder / "data" / "class_words_clip_text.npy", np.array(vectors, np.float16)[:, None])


def test_names_with_equal_vectors_are_synonyms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("SKETCH_SEARCH_DATA", str(tmp_path))
    assert read_synonyms() == ()
    write_list(tmp_path, ["chaise_longue", "couch", "tree", "sofa", "daybed"], [1, 2, 3, 2, 1])
    assert read_synonyms() == (("chaise longue", "daybed"), ("couch", "sofa"))
    write_list(tmp_path, ["couch", "sofa"], [1, 2, 3])
    with pytest.raises(ModelError, match="must have a row for each of the 2 words"):
        read_synonyms()
