"""The committed index is of the first program that wrote format 1; see tests.indexer.tiny_index."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import model
from indexer import IndexRefused, build, compact, open_index, read_info, remove, repair, verify
from indexer.location import IndexFolder
from indexer.manifest import Manifest, read_manifest
from tests.indexer.galleries import catalog, save_photo
from tests.indexer.tiny_index import place_photos
from tests.networks import tiny_network

COMMITTED = Path(__file__).parent / "version_1"


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


def test_an_index_of_version_1_is_opened_and_searched(old: Path, its_matcher: model.Matcher) -> None:
    assert verify(old / "index") == []
    with open_index(old / "index", its_matcher) as index:
        assert (index.photo_count, index.cluster_sizes.tolist()) == (6, [2, 4])
        assert index.photo(2).paths == ("2.png", "a copy.png")
        assert index.open_photo(2) == (COMMITTED / "photos" / "2.png").read_bytes()
        for number in range(index.cluster_count):
            rows = index.cluster(number)
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


def test_what_is_written_now_has_no_field_that_version_1_does_not_know(old: Path, its_matcher: model.Matcher) -> None:
    """Programs of version 1 refuse manifests with more in them, though not catalogs with more tables."""
    index = old / "index"
    before = read_manifest(index / "g000001" / "manifest.json")
    save_photo(old / "photos" / "new.png", 40)
    build([], index, its_matcher)
    live = IndexFolder(index).current()
    assert live is not None
    after = read_manifest(index / live / "manifest.json")
    assert _fields(after) == _fields(before)


def _fields(manifest: Manifest) -> set[str]:
    return set(manifest.model_dump()) | {f"segments.{name}" for name in manifest.segments[0].model_dump()}


def test_a_newer_index_is_refused_by_everything_that_would_read_or_write_it(
    old: Path, its_matcher: model.Matcher
) -> None:
    index = old / "index"
    manifest = index / "g000001" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 2'))
    for work in (
        lambda: open_index(index, its_matcher),
        lambda: read_info(index),
        lambda: build([], index, its_matcher),
        lambda: remove(["1"], index),
        lambda: compact(index),
        lambda: repair(index, its_matcher),
    ):
        with pytest.raises(IndexRefused, match="has index format 2, and this program reads 1; update the program"):
            work()
    assert "has index format 2" in verify(index)[0]
    assert sorted(path.name for path in index.iterdir() if path.name != ".lock") == ["CURRENT", "g000001", "segments"]
