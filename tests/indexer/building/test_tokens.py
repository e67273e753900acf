from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from indexer import read_summary, remove, verify
from tests.indexer.damages import flip
from tests.indexer.galleries import Collection, save_photos


def test_an_index_without_tokens_has_the_vectors_of_one_with_them_and_no_more(
    built: Collection, tmp_path: Path
) -> None:
    none = replace(built, index=tmp_path / "none")
    report = none.build(tokens="none")
    assert (report.photos, report.clusters, verify(none.index)) == (12, 3, [])
    with built.open() as whole, none.open() as small:
        assert np.array_equal(whole.vectors.of(), small.vectors.of())
        assert (whole.ids.tolist(), small.manifest.tokens) == (small.ids.tolist(), 1)
        assert small.photo_tokens(np.arange(3)).features.shape == (3, 1, built.matcher.config.width)
    assert list((none.index / "segments").rglob("*.npy")) == []
    assert not (none.index / "g000001" / "centroid_tokens.npy").exists()
    assert read_summary(none.index).bytes_on_disk < read_summary(built.index).bytes_on_disk


def test_it_stays_without_tokens_until_it_is_told_otherwise(collection: Collection) -> None:
    collection.build(tokens="none")
    save_photos(collection.photos, 2, start=20)
    assert collection.update().encoded == 2
    assert read_summary(collection.index).manifest.tokens == 1
    remove([], collection.index, ids=[2])
    assert not collection.update().changed
    assert verify(collection.index) == []
    flip(collection.index / "g000003" / "vectors.npy")
    assert (collection.update().encoded, read_summary(collection.index).manifest.tokens) == (13, 1)
    assert collection.update(tokens="all").encoded == 13
    assert read_summary(collection.index).manifest.tokens == collection.matcher.token_count("photo")
    assert not collection.update().changed
