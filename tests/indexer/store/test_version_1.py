"""The committed index is of the first program that wrote format 1; see tests.indexer.tiny_index."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

import model
from indexer import IndexRefused, build, compact, open_index, read_info, remove, repair, verify
from indexer.store.catalog import read_catalog
from indexer.store.manifest import SegmentEntry, read_manifest
from indexer.store.segment import quantised
from model.images.files import open_image
from tests.indexer.galleries import catalog, save_photo
from tests.indexer.tiny_index import place_photos
from tests.networks import tiny_network

COMMITTED = Path(__file__).parent.parent / "version_1"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Its photos and index, to work with."""
    folder = Path(shutil.copytree(COMMITTED, tmp_path / "old"))
    place_photos(folder / "index", str(folder / "photos"))
    return folder


@pytest.fixture
def its_matcher() -> model.Matcher:
    """The network that made it, or what the random numbers and the image library of another version make of that."""
    manifest = read_manifest(COMMITTED / "index" / "g000001" / "manifest.json")
    matcher = model.Matcher(tiny_network(), manifest.checkpoint_sha256)
    matcher.preprocessing_fingerprint = manifest.preprocessing_fingerprint
    return matcher


def halves(old: Path, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
    """The tokens of these photos, as version 1 wrote them."""
    (path,) = (old / "index" / "segments").glob("s000001-*/tokens.npy")
    rows = {photo.id: photo.row for photo in read_catalog(old / "index" / "g000001" / "photos.sqlite")}
    found: npt.NDArray[np.float16] = np.load(path)[[rows[photo] for photo in ids.tolist()]]
    return found


def bytes_of(segments: Sequence[SegmentEntry]) -> int:
    return sum(file.size for segment in segments for file in segment.files)


def test_an_index_of_version_1_is_opened_and_searched(old: Path, its_matcher: model.Matcher) -> None:
    assert verify(old / "index") == []
    with open_index(old / "index", its_matcher) as index:
        assert (index.photo_count, index.cluster_sizes.tolist()) == (6, [2, 4])
        assert index.photo(2).paths == ("2.png", "a copy.png")
        assert index.open_photo(2) == (COMMITTED / "photos" / "2.png").read_bytes()
        for number in range(index.cluster_count):
            rows = index.cluster(number)
            assert torch.equal(rows.tokens.features, torch.from_numpy(halves(old, rows.ids)).float())
            assert its_matcher.scores(rows.tokens, index.centroids, "ret").argmax(1).tolist() == [number] * len(
                rows.ids
            )
            scores = its_matcher.scores(rows.tokens, rows.tokens, "ret")
            assert scores.argmax(1).tolist() == list(range(len(rows.ids)))
            assert its_matcher.scores(rows.tokens, rows.tokens, "rn").shape == scores.shape


def test_info_tells_what_version_1_did_not_measure(old: Path) -> None:
    info = read_info(old / "index")
    assert (info.manifest.format_version, info.manifest.counts.files) == (1, 7)
    assert (info.drift, info.removed, info.bad) == (None, (), ())


def test_an_index_of_version_1_is_brought_up_to_date_without_computing_what_it_has(
    old: Path, its_matcher: model.Matcher
) -> None:
    before = catalog(old / "index")
    assert build([], old / "index", its_matcher).encoded == 0
    assert {path: entry[:3] for path, entry in catalog(old / "index").items()} == {
        path: entry[:3] for path, entry in before.items()
    }
    save_photo(old / "photos" / "new.png", 40)
    report = build([], old / "index", its_matcher)
    assert (report.encoded, report.photos) == (1, 7)
    assert remove(["1"], old / "index").photos == 6
    assert compact(old / "index").rows == 6
    assert verify(old / "index") == []
    assert build([], old / "index", its_matcher, recluster=True).drift is not None


def test_rows_computed_in_reduced_precision_are_computed_again(old: Path, its_matcher: model.Matcher) -> None:
    manifest = old / "index" / "g000001" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"dtype": "float32"', '"dtype": "bfloat16"'))
    before = catalog(old / "index")
    with open_index(old / "index", its_matcher) as index:
        assert index.photo_count == 6
    with pytest.raises(IndexRefused, match="build it once more"):
        compact(old / "index")
    assert build([], old / "index", its_matcher).encoded == 6
    assert {path: entry[0] for path, entry in catalog(old / "index").items()} == {
        path: entry[0] for path, entry in before.items()
    }
    assert read_info(old / "index").manifest.exact


def test_an_update_of_version_1_keeps_its_rows_and_adds_its_own_in_format_2(
    old: Path, its_matcher: model.Matcher
) -> None:
    index = old / "index"
    save_photo(old / "photos" / "new.png", 40)
    build([], index, its_matcher)
    manifest = read_info(index).manifest
    assert manifest.format_version == 2
    assert [segment.outdated for segment in manifest.segments] == [True, False]
    assert verify(index) == []
    new = its_matcher.encode(its_matcher.prepare(open_image(old / "photos" / "new.png"), "photo")[None], "photo")
    steps, scales = quantised(new.features.half().numpy())
    with open_index(index, its_matcher) as opened:
        number = opened.photo(8).cluster
        rows = opened.cluster(number)
        assert rows.ids[-1] == 8
        assert len(rows.ids) > 1
        assert torch.equal(rows.tokens.features[:-1], torch.from_numpy(halves(old, rows.ids[:-1])).float())
        assert torch.equal(rows.tokens.features[-1:], torch.from_numpy(steps * scales[..., None]))
        scores = its_matcher.scores(rows.tokens, rows.tokens, "ret")
        assert scores.argmax(1).tolist() == list(range(len(rows.ids)))


@pytest.mark.parametrize("mixed", [False, True], ids=["as it was", "updated"])
@pytest.mark.parametrize("anew", ["compact", "recluster"])
def test_what_writes_all_rows_of_version_1_writes_them_in_format_2(
    anew: str, mixed: bool, old: Path, its_matcher: model.Matcher
) -> None:
    index = old / "index"
    with open_index(index, its_matcher) as opened:
        ids = np.sort(opened.ids)
    steps, scales = quantised(halves(old, ids))
    if mixed:
        save_photo(old / "photos" / "new.png", 40)
        build([], index, its_matcher)
    before = read_info(index).manifest.segments
    if anew == "compact":
        assert compact(index).changed
        assert not compact(index).changed
    else:
        assert build([], index, its_matcher, recluster=True).encoded == 0
    (segment,) = read_info(index).manifest.segments
    assert not segment.outdated
    assert bytes_of([segment]) < bytes_of(before)
    assert verify(index) == []
    with open_index(index, its_matcher) as opened:
        found = opened.photo_tokens(opened.ids.argsort()[: len(ids)]).features
        assert torch.equal(found, torch.from_numpy(steps * scales[..., None]))


def test_a_newer_index_is_refused_by_everything_that_would_read_or_write_it(
    old: Path, its_matcher: model.Matcher
) -> None:
    index = old / "index"
    manifest = index / "g000001" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 3'))
    for work in (
        lambda: open_index(index, its_matcher),
        lambda: read_info(index),
        lambda: build([], index, its_matcher),
        lambda: remove(["1"], index),
        lambda: compact(index),
        lambda: repair(index, its_matcher),
    ):
        with pytest.raises(IndexRefused, match="has index format 3, and this program reads up to 2; update"):
            work()
    assert "has index format 3" in verify(index)[0]
    assert sorted(path.name for path in index.iterdir() if path.name != ".lock") == ["CURRENT", "g000001", "segments"]
