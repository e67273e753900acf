from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import model
from indexer import BadInvocation, IndexBusy, UnknownPhoto, build, open_index, read_info, verify
from indexer.catalog import read_catalog
from indexer.location import IndexFolder
from model.images import IMAGE_SUFFIXES, open_image
from model.tokens import Tokens
from tests.indexer.galleries import index_bytes, save_photo, save_photos
from tests.networks import tiny_checkpoint
from tests.pictures import ODD_FILES, OddFile


def catalog(index: Path) -> dict[str, tuple[int, str, int | None, str | None, int | None]]:
    """id, status, cluster, segment and row by path."""
    live = IndexFolder(index).current()
    assert live is not None
    photos = read_catalog(index / live / "photos.sqlite")
    return {photo.path: (photo.id, photo.status, photo.cluster, photo.segment, photo.row) for photo in photos}


def test_a_built_index_holds_every_photo_once_with_the_tokens_the_network_gives_it(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    report = build([gallery], index_path, matcher, embedder="ret")
    assert (report.photos, report.encoded, report.clusters, report.bad) == (12, 12, 3, ())
    with open_index(index_path, matcher) as index:
        assert index.cluster_sizes.sum() == index.photo_count == 12
        seen = []
        for number in range(index.cluster_count):
            rows = index.cluster(number)
            ids, ret = index.cluster_ret(number)
            assert ids.tolist() == sorted(rows.ids.tolist()) == rows.ids.tolist()
            for place, photo in enumerate(ids.tolist()):
                entry = index.photo(photo)
                assert entry.cluster == number
                image = open_image(index.open_photo(photo))
                own = matcher.encode(matcher.prepare(image, "photo")[None], "photo")
                torch.testing.assert_close(rows.tokens.features[place].float(), own.features[0], atol=2e-3, rtol=2e-3)
                assert rows.tokens.positions[place].tolist() == own.positions[0].tolist()
                torch.testing.assert_close(ret[place], own.ret[0], atol=1e-6, rtol=1e-6)
                seen.append(photo)
        assert sorted(seen) == list(range(1, 13))
    assert verify(index_path) == []


def test_a_photo_finds_itself(gallery: Path, index_path: Path, matcher: model.Matcher) -> None:
    build([gallery], index_path, matcher)
    with open_index(index_path, matcher) as index:
        for photo in (1, 7, 12):
            image = open_image(index.open_photo(photo))
            query = matcher.encode(matcher.prepare(image, "photo")[None], "photo")
            best = max(
                (score, -identity)
                for number in range(index.cluster_count)
                for identity, score in zip(
                    index.cluster_ret(number)[0].tolist(),
                    matcher.scores(query, _ret_only(index.cluster_ret(number)[1]), "ret")[0].tolist(),
                    strict=True,
                )
            )
            assert best[1] == -photo


def _ret_only(ret: torch.Tensor) -> Tokens:
    return Tokens(ret[:, None], torch.empty(len(ret), 0, dtype=torch.int64))


def test_ids_are_given_in_sorted_path_order(gallery: Path, index_path: Path, matcher: model.Matcher) -> None:
    build([gallery], index_path, matcher)
    found = catalog(index_path)
    assert [found[path][0] for path in sorted(found)] == list(range(1, 13))


def test_clustering_is_the_same_on_every_build(gallery: Path, tmp_path: Path, matcher: model.Matcher) -> None:
    for name in ("one", "two"):
        build([gallery], tmp_path / name, matcher, batch=5)
    assert index_bytes(tmp_path / "one") == index_bytes(tmp_path / "two")


def test_the_size_of_the_batch_does_not_change_the_index(gallery: Path, tmp_path: Path, matcher: model.Matcher) -> None:
    build([gallery], tmp_path / "small", matcher, batch=1)
    build([gallery], tmp_path / "large", matcher, batch=64)
    assert index_bytes(tmp_path / "small") == index_bytes(tmp_path / "large")


ODD = [odd for odd in ODD_FILES if Path(odd.name).suffix.lower() in IMAGE_SUFFIXES]


@pytest.fixture(scope="module")
def odd_index(tmp_path_factory: pytest.TempPathFactory, matcher: model.Matcher) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    save_photo(folder / "photos" / "good.png", 0)
    for odd in ODD_FILES:
        (folder / "photos" / odd.name).write_bytes(odd.data)
    build([folder / "photos"], folder / "index", matcher, clusters=2)
    return folder / "index"


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_an_odd_file_is_indexed_or_reported_and_never_stops_the_build(odd: OddFile, odd_index: Path) -> None:
    reasons = {bad.path: bad.reason for bad in read_info(odd_index).bad}
    status = catalog(odd_index)[odd.name][1]
    assert status == ("indexed" if odd.opens else "bad")
    assert (odd.name in reasons) is not odd.opens
    if not odd.opens:
        assert reasons[odd.name].strip()
        assert "\n" not in reasons[odd.name]


def test_files_of_other_kinds_are_not_looked_at(odd_index: Path) -> None:
    assert not {odd.name for odd in ODD_FILES if odd not in ODD} & set(catalog(odd_index))


def test_a_second_build_of_an_unchanged_gallery_changes_nothing(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    (gallery / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    build([gallery], index_path, matcher)
    before = index_bytes(index_path)
    report = build([gallery], index_path, matcher)
    assert (report.changed, report.encoded, len(report.bad)) == (False, 0, 1)
    assert index_bytes(index_path) == before


def test_an_update_computes_only_new_photos_and_keeps_ids_rows_and_clusters(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    before = catalog(index_path)
    save_photos(gallery, 5, start=20)
    report = build([gallery], index_path, matcher)
    after = catalog(index_path)
    assert (report.encoded, report.photos, report.clusters) == (5, 17, 3)
    assert {path: after[path] for path in before} == before
    new = sorted(after[path] for path in after.keys() - before.keys())
    assert [entry[0] for entry in new] == [13, 14, 15, 16, 17]
    assert len({entry[3] for entry in after.values()}) == 2
    assert verify(index_path) == []
    with open_index(index_path, matcher) as index:
        for number in range(index.cluster_count):
            ids = index.cluster(number).ids.tolist()
            assert ids == sorted(ids)
            assert all(index.photo(photo).cluster == number for photo in ids)


def test_an_updated_index_has_the_centroids_that_a_full_computation_gives(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    save_photos(gallery, 5, start=20)
    (gallery / "in here" / "Ännchen 000.png").unlink()
    build([gallery], index_path, matcher)
    with open_index(index_path, matcher) as index:
        for number in range(index.cluster_count):
            _, ret = index.cluster_ret(number)
            unit = torch.nn.functional.normalize(ret, dim=-1)
            torch.testing.assert_close(index.centroid_ret[number], unit.mean(0), atol=1e-6, rtol=1e-6)
            rows = index.cluster(number).tokens
            torch.testing.assert_close(
                index.centroids.features[number, 0].float(), rows.features[:, 0].float().mean(0), atol=4e-3, rtol=4e-3
            )


def test_a_photo_that_is_gone_vanishes_and_comes_back_with_its_id_and_row(
    gallery: Path, index_path: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    build([gallery], index_path, matcher)
    path = gallery / "Ännchen 001.png"
    before = catalog(index_path)[path.name]
    shutil.move(path, tmp_path / "away.png")
    report = build([gallery], index_path, matcher)
    assert (report.gone, report.encoded, report.photos) == (1, 0, 11)
    with open_index(index_path, matcher) as index:
        with pytest.raises(UnknownPhoto):
            index.photo(before[0])
        assert all(before[0] not in index.cluster(number).ids for number in range(index.cluster_count))
        assert index.cluster_sizes.sum() == 11
    shutil.move(tmp_path / "away.png", path)
    assert build([gallery], index_path, matcher).encoded == 0
    assert catalog(index_path)[path.name] == before
    assert verify(index_path) == []


def test_a_cluster_that_lost_all_its_photos_stays_in_its_place(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher, clusters=6)
    with open_index(index_path, matcher) as index:
        smallest = int(index.cluster_sizes.argmin())
        for photo in index.cluster(smallest).ids.tolist():
            (gallery / index.photo(photo).paths[0]).unlink()
        kept = index.centroids.features[smallest]
    build([gallery], index_path, matcher)
    with open_index(index_path, matcher) as index:
        assert index.cluster_sizes[smallest] == 0
        assert len(index.cluster(smallest).ids) == len(index.cluster(smallest).tokens) == 0
        assert torch.equal(index.centroids.features[smallest], kept)


def test_ids_are_never_given_twice(gallery: Path, index_path: Path, matcher: model.Matcher) -> None:
    build([gallery], index_path, matcher)
    last = max(catalog(index_path), key=lambda path: catalog(index_path)[path][0])
    (gallery / last).unlink()
    build([gallery], index_path, matcher)
    save_photo(gallery / "zzz.png", 40)
    build([gallery], index_path, matcher)
    assert catalog(index_path)["zzz.png"][0] == 13


def test_a_changed_file_keeps_its_id_and_gets_new_tokens(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    before = catalog(index_path)["Ännchen 002.png"]
    save_photo(gallery / "Ännchen 002.png", 77)
    os.utime(gallery / "Ännchen 002.png", ns=(1, 1))
    assert build([gallery], index_path, matcher).encoded == 1
    after = catalog(index_path)["Ännchen 002.png"]
    assert after[0] == before[0]
    assert after[3:] != before[3:]


def test_a_touched_or_renamed_file_is_read_again_but_not_computed(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    os.utime(gallery / "Ännchen 002.png", ns=(1, 1))
    (gallery / "Ännchen 004.png").rename(gallery / "another name.png")
    report = build([gallery], index_path, matcher)
    assert (report.encoded, report.changed, report.photos) == (0, True, 12)
    assert not build([gallery], index_path, matcher).changed


def test_files_of_equal_content_are_shown_once_with_all_their_paths(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    shutil.copy(gallery / "Ännchen 001.png", gallery / "a copy.png")
    shutil.copy(gallery / "Ännchen 001.png", gallery / "in here" / "another.png")
    report = build([gallery], index_path, matcher)
    assert (report.photos, report.files, report.duplicates, report.encoded) == (12, 14, 2, 12)
    found = catalog(index_path)
    with open_index(index_path, matcher) as index:
        entries = {index.photo(found[path][0]) for path in ("Ännchen 001.png", "a copy.png", "in here/another.png")}
        (entry,) = entries
        assert entry.paths == ("a copy.png", "in here/another.png", "Ännchen 001.png")
        assert entry.id == found["a copy.png"][0]
        assert sum((index.cluster(number).ids == entry.id).sum() for number in range(index.cluster_count)) == 1
    (gallery / "a copy.png").unlink()
    assert build([gallery], index_path, matcher).encoded == 0
    with open_index(index_path, matcher) as index:
        assert index.photo(found["Ännchen 001.png"][0]).id == found["in here/another.png"][0]


def test_links_and_hidden_files_are_passed_over(
    gallery: Path, index_path: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    elsewhere = save_photos(tmp_path / "elsewhere", 2, start=30)
    (gallery / "linked").symlink_to(elsewhere)
    (gallery / "linked.png").symlink_to(elsewhere / "Ännchen 031.png")
    save_photo(gallery / ".hidden.png", 40)
    save_photo(gallery / ".hidden" / "photo.png", 41)
    os.mkfifo(gallery / "pipe.png")
    report = build([gallery], index_path, matcher)
    assert (report.files, report.bad) == (12, ())


def test_an_index_inside_the_gallery_is_not_searched_for_photos(gallery: Path, matcher: model.Matcher) -> None:
    index = gallery / "index"
    build([gallery], index, matcher)
    save_photo(index / "photo.png", 50)
    assert not build([gallery], index, matcher).changed


def test_a_name_that_is_not_unicode_is_reported(gallery: Path, index_path: Path, matcher: model.Matcher) -> None:
    path = Path(os.fsdecode(os.fsencode(gallery) + b"/caf\xe9.png"))
    try:
        save_photo(gallery / "plain.png", 60).rename(path)
    except OSError:
        pytest.skip("this file system takes no such names")
    report = build([gallery], index_path, matcher)
    assert [(bad.path, "UTF-8" in bad.reason) for bad in report.bad] == [("caf\\udce9.png", True)]
    assert not build([gallery], index_path, matcher).changed


def test_a_file_too_large_for_a_photo_is_reported_without_being_read(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    with (gallery / "film.png").open("wb") as file:
        file.truncate(600 * 2**20)
    report = build([gallery], index_path, matcher)
    assert [(bad.path, bad.reason) for bad in report.bad] == [("film.png", "it cannot be read: larger than 512 MiB")]
    assert not build([gallery], index_path, matcher).changed


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_reported_and_tried_again(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    (gallery / "Ännchen 001.png").chmod(0)
    assert len(build([gallery], index_path, matcher).bad) == 1
    (gallery / "Ännchen 001.png").chmod(0o600)
    assert build([gallery], index_path, matcher).bad == ()


def test_a_heic_file_is_tried_again_once_its_decoder_is_installed(
    gallery: Path, index_path: Path, matcher: model.Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pillow_heif")
    (heic,) = (odd for odd in ODD_FILES if odd.name == "plain.heic")
    (gallery / heic.name).write_bytes(heic.data)
    (gallery / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        report = build([gallery], index_path, matcher)
        assert [bad.path for bad in report.bad] == ["broken.jpg", heic.name]
        assert "sketch-search[heic]" in report.bad[1].reason
        assert not build([gallery], index_path, matcher).changed
    # The broken file is known by its size and time; only the other is read again.
    sizes = {photo.path: photo.size for photo in read_catalog(index_path / "g000001" / "photos.sqlite")}
    assert (sizes["broken.jpg"], sizes[heic.name]) == (3, -1)
    report = build([gallery], index_path, matcher)
    assert (report.encoded, report.photos, [bad.path for bad in report.bad]) == (1, 13, ["broken.jpg"])
    assert not build([gallery], index_path, matcher).changed


def test_a_photo_that_memory_did_not_suffice_for_is_tried_again(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    report = build([gallery], index_path, _ShortOfMemory(matcher))  # type: ignore[arg-type]
    assert {bad.reason for bad in report.bad} == {"there was not enough memory to decode it"}
    assert report.photos + len(report.bad) == 12
    assert build([gallery], index_path, matcher).photos == 12


def test_several_roots_prefix_their_names_and_keep_ids_when_one_is_added(
    gallery: Path, index_path: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    build([gallery], index_path, matcher)
    before = catalog(index_path)
    second = save_photos(tmp_path / "more" / "photos", 4, start=20)
    report = build([gallery, second], index_path, matcher)
    assert (report.encoded, report.photos) == (4, 16)
    after = catalog(index_path)
    assert {path: after[path][0] for path in before} == {path: entry[0] for path, entry in before.items()}
    with open_index(index_path, matcher) as index:
        assert index.manifest.root_names == ("photos", "photos-2")
        tops = [path.split("/")[0] for photo in range(1, 17) for path in index.photo(photo).paths]
        assert tops == ["photos"] * 12 + ["photos-2"] * 4
        assert index.open_photo(16)
    assert not build([second, gallery], index_path, matcher).changed
    report = build([second], index_path, matcher)
    assert (report.encoded, report.photos) == (0, 4)
    with open_index(index_path, matcher) as index:
        assert [index.photo(photo).id for photo in range(13, 17)] == [13, 14, 15, 16]


def test_another_number_of_clusters_clusters_anew_without_computing(
    gallery: Path, index_path: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    build([gallery], index_path, matcher)
    report = build([gallery], index_path, matcher, clusters=5)
    assert (report.encoded, report.clusters, report.changed) == (0, 5, True)
    assert not build([gallery], index_path, matcher, clusters=5).changed
    assert not build([gallery], index_path, matcher).changed
    build([gallery], tmp_path / "at once", matcher, clusters=5)
    with open_index(index_path, matcher) as index, open_index(tmp_path / "at once", matcher) as other:
        assert torch.equal(index.centroids.features, other.centroids.features)
        for number in range(5):
            assert torch.equal(index.cluster(number).tokens.features, other.cluster(number).tokens.features)
    assert verify(index_path) == []


def test_another_checkpoint_computes_everything_and_keeps_the_ids(
    gallery: Path, index_path: Path, matcher: model.Matcher, other_matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    before = catalog(index_path)
    (gallery / "Ännchen 001.png").unlink()
    save_photo(gallery / "a new one.png", 70)
    assert build([gallery], index_path, other_matcher).encoded == 12
    after = catalog(index_path)
    assert {path: after[path][0] for path in before} == {path: entry[0] for path, entry in before.items()}
    assert after["Ännchen 001.png"][1] == "gone"
    assert after["a new one.png"][0] == 13
    assert verify(index_path) == []


def test_a_network_with_a_global_vector_only_keeps_no_patch_tokens(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    single = _GlobalVector(matcher)
    build([gallery], index_path, single, clusters=2)  # type: ignore[arg-type]
    assert not list(index_path.rglob("*tokens.npy")) + list(index_path.rglob("*positions.npy"))
    assert verify(index_path) == []
    with open_index(index_path, single) as index:  # type: ignore[arg-type]
        assert index.centroids.features.shape == (2, 1, 32)
        rows = index.cluster(0)
        assert rows.tokens.features.shape == (len(rows.ids), 1, 32)
        assert matcher.scores(rows.tokens, index.centroids, "ret").shape == (len(rows.ids), 2)


class _GlobalVector:
    """The tiny network without its patch tokens."""

    def __init__(self, matcher: model.Matcher) -> None:
        self._matcher = matcher
        self.checkpoint_sha256, self.preprocessing_fingerprint = "0" * 64, matcher.preprocessing_fingerprint
        self.config, self.device, self.dtype = matcher.config, matcher.device, matcher.dtype
        self.prepare = matcher.prepare

    def token_count(self, modality: str) -> int:
        return 1

    def encode(self, images: torch.Tensor, modality: model.config.Modality) -> Tokens:
        return _ret_only(self._matcher.encode(images, modality).ret)


class _ShortOfMemory(_GlobalVector):
    """The tiny network, with memory for three photos."""

    def __init__(self, matcher: model.Matcher) -> None:
        super().__init__(matcher)
        self.checkpoint_sha256 = matcher.checkpoint_sha256
        self.token_count, self.encode = matcher.token_count, matcher.encode  # type: ignore[method-assign,assignment]
        self.prepare = self._prepare_three
        self._room = iter(range(3))

    def _prepare_three(self, image: Image.Image, modality: model.config.Modality) -> torch.Tensor:
        if next(self._room, None) is None:
            raise MemoryError
        return self._matcher.prepare(image, modality)


def test_values_that_are_not_finite_are_reported_and_not_stored(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    broken = _Overflowing(matcher)
    report = build([gallery], index_path, broken, batch=4)  # type: ignore[arg-type]
    assert report.photos == 9
    assert {bad.reason for bad in report.bad} == {"the network gives no finite values for it"}
    assert verify(index_path) == []


class _Overflowing(_GlobalVector):
    """Gives the last photo of every batch values that float16 cannot hold."""

    def token_count(self, modality: str) -> int:
        return self._matcher.token_count("photo")

    def encode(self, images: torch.Tensor, modality: model.config.Modality) -> Tokens:
        tokens = self._matcher.encode(images, modality)
        features = tokens.features.clone()
        features[-1, 1:] = 1e6
        return Tokens(features, tokens.positions)


def test_a_second_builder_is_told(gallery: Path, index_path: Path, matcher: model.Matcher) -> None:
    folder = IndexFolder(index_path)
    folder.create()
    with folder.locked(), pytest.raises(IndexBusy, match="another build"):
        build([gallery], index_path, matcher)
    assert build([gallery], index_path, matcher).photos == 12


def test_old_generations_go_except_the_last(gallery: Path, index_path: Path, matcher: model.Matcher) -> None:
    for clusters in (2, 3, 4):
        build([gallery], index_path, matcher, clusters=clusters)
    assert sorted(path.name for path in index_path.glob("g*")) == ["g000002", "g000003"]
    assert len(list((index_path / "segments").iterdir())) == 2


def test_a_reader_is_not_disturbed_by_later_builds(gallery: Path, index_path: Path, matcher: model.Matcher) -> None:
    build([gallery], index_path, matcher, clusters=2)
    with open_index(index_path, matcher) as index:
        before = index.cluster(0)
        features = before.tokens.features.clone()
        for clusters in (3, 4, 5):
            build([gallery], index_path, matcher, clusters=clusters)
        assert index.generation == "g000001"
        assert torch.equal(index.cluster(0).tokens.features, features)
        assert np.array_equal(index.cluster(0).ids, before.ids)
        assert index.photo(1).id == 1


@pytest.mark.parametrize(
    ("clusters", "match"), [(0, "at least 1"), (13, "more than the 12 photos")], ids=["none", "too many"]
)
def test_an_impossible_number_of_clusters_is_refused(
    clusters: int, match: str, gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    with pytest.raises(BadInvocation, match=match):
        build([gallery], index_path, matcher, clusters=clusters)


def test_more_clusters_than_distinct_photos_is_refused(gallery: Path, index_path: Path, matcher: model.Matcher) -> None:
    shutil.copy(gallery / "Ännchen 001.png", gallery / "a copy.png")
    with pytest.raises(BadInvocation, match="13 clusters are more than the 12 photos"):
        build([gallery], index_path, matcher, clusters=13)


def test_a_folder_that_holds_other_things_is_not_taken_for_an_index(
    gallery: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(BadInvocation, match="holds files that are no index"):
        build([gallery], tmp_path / "home", matcher)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter.txt"]


def test_a_journal_of_other_settings_is_dropped(
    gallery: Path, index_path: Path, matcher: model.Matcher, weights: Path, tmp_path: Path
) -> None:
    IndexFolder(index_path).create()
    (index_path / ".building-0123456789abcdef").mkdir()
    build([gallery], index_path, model.load(tiny_checkpoint(tmp_path / "w.safetensors"), dtype=torch.float32))
    assert not list(index_path.glob(".building-*"))
