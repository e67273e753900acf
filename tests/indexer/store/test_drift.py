from __future__ import annotations

import pytest

from indexer import read_summary, remove
from indexer.store import Drift
from tests.indexer.galleries import Collection, save_photos


@pytest.mark.parametrize(
    ("drift", "excessive"),
    [
        (Drift(100, 0.5, 100, 0.5, automatic=True), False),
        (Drift(100, 0.5, 200, 0.5, automatic=True), False),
        (Drift(100, 0.5, 201, 0.5, automatic=True), True),
        (Drift(100, 0.5, 201, 0.5, automatic=False), False),
        (Drift(100, 0.5, 110, 0.54, automatic=True), False),
        (Drift(100, 0.5, 110, 0.56, automatic=False), True),
        (Drift(5, 0.0, 5, 0.0, automatic=False), False),
        (Drift(5, 0.0, 6, 0.1, automatic=False), True),
    ],
)
def test_drift_is_excessive_beyond_twice_the_photos_or_a_tenth_more_distance(drift: Drift, excessive: bool) -> None:
    assert drift.excessive is excessive
    assert ("run build --recluster" in drift.describe()) is excessive


@pytest.mark.parametrize(
    ("drift", "sentence"),
    [
        (
            Drift(100, 0.5, 100, 0.5, automatic=True),
            "the clusters were made for 100 photos; the same photos are shown now",
        ),
        (
            Drift(1, 0.5, 100, 0.501, automatic=False),
            "the clusters were made for 1 photo; now there are 100, and the clusters fit them as well",
        ),
        (
            Drift(100, 0.5, 100, 0.45, automatic=True),
            "the clusters were made for 100 photos; now there are others, on average 10 % nearer to the middle of "
            "their cluster",
        ),
        (
            Drift(100, 0.5, 150, 0.6, automatic=True),
            "the clusters were made for 100 photos; now there are 150, on average 20 % farther from the middle of "
            "their cluster; run build --recluster",
        ),
        (
            Drift(100, 0.5, 201, 0.5, automatic=True),
            "the clusters were made for 100 photos; now there are 201, and the clusters fit them as well; there should "
            "be more clusters for so many; run build --recluster",
        ),
    ],
)
def test_drift_is_told_in_a_plain_sentence(drift: Drift, sentence: str) -> None:
    assert drift.describe() == sentence


def test_a_gallery_that_grows_drifts_until_it_is_clustered_anew(collection: Collection) -> None:
    first = collection.build().drift
    assert first is not None
    assert (first.clustered, first.photos, first.automatic, first.excessive) == (12, 12, True, False)
    assert first.distance == first.distance_now > 0
    save_photos(collection.photos, 18, start=20)
    grown = collection.build().drift
    assert grown is not None
    assert (grown.clustered, grown.distance, grown.photos, grown.excessive) == (12, first.distance, 30, True)
    assert grown.distance_now != grown.distance
    assert read_summary(collection.index).drift == grown
    report = collection.build(recluster=True)
    assert (report.encoded, report.clusters) == (0, 5)
    assert report.drift is not None
    assert (report.drift.clustered, report.drift.excessive) == (30, False)


def test_removing_photos_is_measured_too(built: Collection) -> None:
    remove([], built.index, ids=[1, 2])
    drift = read_summary(built.index).drift
    assert drift is not None
    assert (drift.clustered, drift.photos) == (12, 10)
    assert drift.distance_now != drift.distance
