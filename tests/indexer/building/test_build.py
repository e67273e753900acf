from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import model
from indexer import BadInvocation, Request, build, open_index, verify
from indexer.store.location import IndexFolder
from model.engine import unit
from tests.indexer.galleries import Collection, catalog, save_photo, tokens_of
from tests.networks import tiny_checkpoint
from tests.pictures import photo


def test_a_built_index_holds_every_photo_once_with_the_tokens_the_network_gives_it(collection: Collection) -> None:
    report = collection.build(embedder="ret")
    assert (report.photos, report.encoded, report.clusters, report.bad) == (12, 12, 3, ())
    with collection.open() as index:
        assert index.cluster_sizes.sum() == index.photo_count == 12
        ret = index.vectors.of()
        seen: list[int] = []
        for number in range(index.cluster_count):
            ids, tokens = index.cluster_ids(number), tokens_of(index, number)
            assert ids.tolist() == sorted(ids.tolist())
            for place, photo in enumerate(ids.tolist()):
                entry = index.photo(photo)
                assert entry.cluster == number
                image = collection.matcher.open(index.open_photo(photo), "photo")
                own = collection.matcher.encode(collection.matcher.prepare(image, "photo")[None], "photo")
                # Half a step of int8, and what rounding to float16 before it may add.
                bound = abs(own.features[0]).max(axis=-1, keepdims=True) / 127 / 2 + 2e-3
                assert (abs(tokens.features[place] - own.features[0]) <= bound).all()
                assert tokens.positions[place].tolist() == own.positions[0].tolist()
                np.testing.assert_allclose(ret[len(seen)], unit(own.ret[0]), atol=1e-3, rtol=1e-3)
                seen.append(photo)
        assert seen == index.ids.tolist()
    # Ids are given in the order of the paths.
    assert [entry[0] for _, entry in sorted(catalog(collection.index).items())] == list(range(1, 13))
    assert verify(collection.index) == []


def test_a_large_jpeg_is_indexed_as_its_photo_is_looked_at_later(tmp_path: Path, matcher: model.Matcher) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    photo("house", 640).save(photos / "large.jpg")
    build(tmp_path / "index", Request([photos], embedder="ret"), matcher)
    with open_index(tmp_path / "index", matcher) as index:
        row = index.vectors.of()[0]
        image = matcher.open(index.open_photo(1), "photo")
    assert image.size == (320, 320)
    own = matcher.encode(matcher.prepare(image, "photo")[None], "photo")
    np.testing.assert_allclose(row, unit(own.ret[0]), atol=1e-3, rtol=1e-3)


def test_an_index_inside_the_gallery_is_not_searched_for_photos(gallery: Path, matcher: model.Matcher) -> None:
    index = gallery / "index"
    build(index, Request([gallery]), matcher)
    save_photo(index / "photo.png", 50)
    assert not build(index, Request([gallery]), matcher).changed


def test_more_clusters_than_distinct_photos_is_refused(collection: Collection) -> None:
    shutil.copy(collection.photos / "Ännchen 001.png", collection.photos / "a copy.png")
    with pytest.raises(BadInvocation, match="13 clusters are more than the 12 photos"):
        collection.build(clusters=13)


def test_a_folder_that_holds_other_things_is_not_taken_for_an_index(
    gallery: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(BadInvocation, match="holds files that are not an index"):
        build(tmp_path / "home", Request([gallery]), matcher)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter.txt"]


def test_a_journal_of_other_settings_is_dropped(collection: Collection, tmp_path: Path) -> None:
    IndexFolder(collection.index).create()
    (collection.index / ".building-0123456789abcdef").mkdir()
    collection.build(model.load(tiny_checkpoint(tmp_path / "w.safetensors"), dtype="float32"))
    assert not list(collection.index.glob(".building-*"))
