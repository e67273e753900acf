from dataclasses import replace
from pathlib import Path

import numpy as np

from sketch_search import model
from sketch_search.indexer import Request, build, open_index, read_summary, remove, verify
from sketch_search.model.engine import unit
from tests.indexer.damages import flip
from tests.indexer.galleries import Collection, catalog, ids_of, save_photo, save_photos, tokens_of
from tests.pictures import photo


def test_a_built_index_holds_every_photo_once_with_the_tokens_the_network_gives_it(collection: Collection) -> None:
    report = collection.build(embedder="ret")
    assert (report.photos, report.encoded, report.clusters, report.bad) == (12, 12, 3, ())
    with collection.open() as index:
        assert index.cluster_sizes.sum() == index.photo_count == 12
        ret = index.vectors.of()
        seen: list[int] = []
        for number in range(index.cluster_count):
            ids, tokens = ids_of(index, number), tokens_of(index, number)
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


def test_an_index_without_tokens_has_the_same_vectors(built: Collection, tmp_path: Path) -> None:
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
    assert read_summary(collection.index).manifest.tokens == collection.matcher.config.token_count("photo")
    assert not collection.update().changed
