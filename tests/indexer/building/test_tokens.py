"""An index without tokens: a fraction as large, and all else as in one that has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import model
from indexer import build, compact, open_index, read_summary, remove, repair, verify
from tests.indexer.damages import flip
from tests.indexer.galleries import save_photos


def test_an_index_without_tokens_has_the_vectors_of_one_with_them_and_no_more(
    tmp_path: Path, matcher: model.Matcher
) -> None:
    photos = save_photos(tmp_path / "photos", 12)
    build([photos], tmp_path / "all", matcher)
    report = build([photos], tmp_path / "none", matcher, tokens="none")
    assert (report.photos, report.clusters, verify(tmp_path / "none")) == (12, 3, [])
    with open_index(tmp_path / "all", matcher) as whole, open_index(tmp_path / "none", matcher) as small:
        assert np.array_equal(whole.vectors.of(), small.vectors.of())
        assert (whole.ids.tolist(), small.tokens_kept) == (small.ids.tolist(), 1)
        assert small.photo_tokens(np.arange(3)).features.shape == (3, 1, matcher.config.width)
    assert list((tmp_path / "none" / "segments").rglob("*.npy")) == []
    assert not (tmp_path / "none" / "g000001" / "centroid_tokens.npy").exists()
    sizes = [read_summary(tmp_path / name).bytes_on_disk for name in ("none", "all")]
    assert sizes[0] < sizes[1]


def test_it_stays_without_tokens_until_it_is_told_otherwise(tmp_path: Path, matcher: model.Matcher) -> None:
    photos, index = save_photos(tmp_path / "photos", 6), tmp_path / "index"
    build([photos], index, matcher, tokens="none")
    save_photos(photos, 2, start=20)
    assert build([], index, matcher).encoded == 2
    assert read_summary(index).manifest.tokens == 1
    remove([], index, ids=[2])
    compact(index)
    assert verify(index) == []
    flip(index / "g000004" / "vectors.npy")
    report = repair(index, matcher)
    assert report.build is not None
    assert (report.build.encoded, report.remaining, read_summary(index).manifest.tokens) == (7, (), 1)
    assert build([], index, matcher, tokens="all").encoded == 7
    assert read_summary(index).manifest.tokens == matcher.token_count("photo")
    assert build([], index, matcher).changed is False
