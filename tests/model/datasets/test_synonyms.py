"""Names of one thing in the optional data's list of class names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.datasets import read_synonyms
from model.errors import ModelError


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
