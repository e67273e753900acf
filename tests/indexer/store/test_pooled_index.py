"""Indexes with pooled tokens: what they hold, who reads them, and how they are kept up to date and whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import model
from indexer import IndexRefused, build, open_index, read_summary, remove, repair, verify
from indexer.commands.tables import summary_lines
from indexer.store import manifest as manifests
from model.network import GroupCounts, Members, Tokens, pooled
from tests.indexer.damages import number, sign
from tests.indexer.galleries import index_bytes, save_photo, save_photos

GROUPS = GroupCounts(4, 3)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, matcher: model.Matcher) -> Path:
    """A folder with photos, and an index of them with pooled tokens."""
    folder = tmp_path_factory.mktemp("pooled")
    photos = save_photos(folder / "photos", 8)
    build([photos], folder / "index", matcher, clusters=2, groups=GROUPS)
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built / "index", tmp_path / "index")


def members(tokens: Tokens) -> Members:
    assert tokens.members is not None
    return tokens.members


def test_a_photo_is_kept_with_the_tokens_that_the_network_pools_and_the_patches_behind_them(
    built: Path, matcher: model.Matcher
) -> None:
    pooling = matcher.with_groups(GROUPS)
    with open_index(built / "index", matcher) as index:
        assert index.manifest.groups == GROUPS
        assert index.manifest.format_version == 5
        kept = index.photo_tokens(np.arange(index.photo_count))
        for place, photo in enumerate(index.ids.tolist()):
            picture = matcher.open(built / "photos" / index.photo(photo).paths[0], "photo")
            expected = pooling.encode(matcher.prepare(picture, "photo")[None], "photo")
            assert kept.features.shape[1:] == (4, 32)
            torch.testing.assert_close(kept.features[place], expected.features[0], atol=0.03, rtol=0)
            assert torch.equal(kept.positions[place], expected.positions[0])
            assert torch.equal(members(kept).cells[place], members(expected).cells[0])
            assert torch.equal(members(kept).groups[place], members(expected).groups[0])
    assert verify(built / "index") == []
    (line,) = (line for line in summary_lines(read_summary(built / "index")) if line.startswith("network"))
    assert "pooled: 4/3 of a sketch/photo, which has 9 patches" in line


def test_a_cluster_is_the_mean_of_its_photos_patches_pooled(built: Path, matcher: model.Matcher) -> None:
    with open_index(built / "index", matcher) as index:
        for cluster in range(index.cluster_count):
            photos = index.cluster(cluster).tokens.unpooled()
            cells = [photos.positions == cell for cell in range(16)]
            most = sorted(sorted(range(16), key=lambda cell: -int(cells[cell].sum()))[:9])
            means = torch.stack([photos.patches[cells[cell]].mean(dim=0) for cell in most])
            features = torch.cat([photos.ret.mean(dim=0, keepdim=True), means])[None]
            expected = pooled(Tokens(features, torch.tensor([most])), 3)
            found = index.centroids[[cluster]]
            torch.testing.assert_close(found.patches, expected.patches.half(), atol=2e-3, rtol=2e-3)
            assert torch.equal(members(found).cells, members(expected).cells)
            assert torch.equal(members(found).groups, members(expected).groups)


def test_an_index_keeps_its_groups_until_others_are_asked_for(
    built: Path, copy: Path, tmp_path: Path, matcher: model.Matcher
) -> None:
    photos = shutil.copytree(built / "photos", tmp_path / "photos")
    assert build([built / "photos"], copy, matcher).changed is False
    save_photo(photos / "new.png", 20)
    added = build([photos, built / "photos"], copy, matcher)
    assert (added.photos, added.encoded) == (9, 1)
    assert remove([], copy, ids=[1]).photos == 8
    with open_index(copy, matcher) as index:
        assert (index.manifest.groups, index.manifest.format_version) == (GROUPS, 5)
    # Other groups, and none: all photos are computed anew.
    assert build([], copy, matcher, groups=GroupCounts(4, 5)).encoded == 8
    with open_index(copy, matcher) as index:
        assert index.photo_tokens(np.arange(1)).features.shape == (1, 6, 32)
    assert build([], copy, matcher, groups=GroupCounts()).encoded == 8
    assert build([], copy, matcher).changed is False
    with open_index(copy, matcher) as index:
        assert (index.manifest.groups, index.manifest.format_version) == (GroupCounts(), 4)
        assert index.photo_tokens(np.arange(1)).members is None
        # Programs from before there was pooling refuse fields that they do not know.
        assert "pooling" not in (copy / index.generation / "manifest.json").read_text()


def test_the_same_photos_and_groups_make_the_same_index(built: Path, tmp_path: Path, matcher: model.Matcher) -> None:
    build([built / "photos"], tmp_path / "again", matcher, clusters=2, groups=GROUPS, batch=3)
    assert index_bytes(tmp_path / "again") == index_bytes(built / "index")


def test_a_network_whose_checkpoint_says_so_pools_without_being_asked(
    built: Path, tmp_path: Path, matcher: model.Matcher
) -> None:
    build([built / "photos"], tmp_path / "index", matcher.with_groups(GROUPS), clusters=2)
    assert index_bytes(tmp_path / "index") == index_bytes(built / "index")


def test_sketches_may_be_pooled_and_photos_not(built: Path, tmp_path: Path, matcher: model.Matcher) -> None:
    build([built / "photos"], tmp_path / "index", matcher, clusters=2, groups=GroupCounts(4, None))
    with open_index(tmp_path / "index", matcher) as index:
        assert index.manifest.groups == GroupCounts(4, None)
        assert index.photo_tokens(np.arange(1)).members is None
    assert verify(tmp_path / "index") == []


def test_an_earlier_program_refuses_an_index_with_pooled_tokens(
    copy: Path, matcher: model.Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "FORMAT_VERSION", 4)
    with pytest.raises(IndexRefused, match="has index format 5, and this program reads 4; update the program"):
        open_index(copy, matcher)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format_version": 4}, "pooled tokens if it is of format 5"),
        ({"pooling": None}, "pooled tokens if it is of format 5"),
        ({"tokens": 5}, "as many tokens as groups"),
        ({"pooling": {"sketch": 4, "photo": 0, "patches": 9}}, "pooling.photo"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    change: dict[str, object], sentence: str, copy: Path, matcher: model.Matcher
) -> None:
    path = copy / "g000001" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(IndexRefused, match=sentence):
        open_index(copy, matcher)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("segments/*/patch_cells.npy", 16, "beyond the 16 cells"),
        ("segments/*/patch_groups.npy", 3, "groups that it has no tokens for"),
        ("g000001/centroid_patch_cells.npy", 16, "beyond the 16 cells"),
        ("g000001/centroid_patch_groups.npy", 3, "groups that it has no tokens for"),
    ],
)
def test_damaged_groups_are_refused_found_and_repaired(
    name: str, value: int, sentence: str, built: Path, copy: Path, matcher: model.Matcher
) -> None:
    number(name, value)(copy)
    sign(copy)
    with pytest.raises(IndexRefused, match=sentence):
        open_index(copy, matcher)
    assert len(verify(copy)) == 1
    assert repair(copy, matcher).remaining == ()
    with open_index(copy, matcher) as index, open_index(built / "index", matcher) as sound:
        every = np.arange(8)
        assert index.manifest.groups == GROUPS
        assert torch.equal(index.photo_tokens(every).features, sound.photo_tokens(every).features)
