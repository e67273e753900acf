from __future__ import annotations

import pytest

from indexer import read_summary, remove
from indexer.store.clusters import Drift
from tests.indexer.galleries import Collection, save_photos

SAME, RECLUSTER = "the same photos are shown now", "; run build --recluster"


@pytest.mark.parametrize(
    ("drift", "told"),
    [
        (Drift(100, 0.5, 100, 0.5, automatic=True), SAME),
        (
            Drift(100, 0.5, 201, 0.5, automatic=True),
            "now there are 201, and the clusters fit them as well; there should be more clusters for so many"
            + RECLUSTER,
        ),
        (Drift(100, 0.5, 201, 0.5, automatic=False), "now there are 201, and the clusters fit them as well"),
        (
            Drift(100, 0.5, 100, 0.45, automatic=True),
            "now there are others, on average 10 % nearer to the middle of their cluster",
        ),
        (
            Drift(100, 0.5, 110, 0.56, automatic=False),
            "now there are 110, on average 12 % farther from the middle of their cluster" + RECLUSTER,
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_drift_is_told_in_a_plain_sentence_with_a_remedy_beyond_twice_the_photos_or_a_tenth_more_distance(
    drift: Drift, told: str
) -> None:
    assert drift.describe() == f"the clusters were made for 100 photos; {told}"
    assert drift.excessive is told.endswith(RECLUSTER)


def test_drift_from_clusters_of_one_photo_each_is_excessive_as_soon_as_there_is_any() -> None:
    assert not Drift(5, 0.0, 5, 0.0, automatic=False).excessive
    assert Drift(5, 0.0, 6, 0.1, automatic=False).excessive


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
    remove([], collection.index, ids=[1, 2])
    drift = read_summary(collection.index).drift
    assert drift is not None
    assert (drift.clustered, drift.photos, drift.distance_now != grown.distance_now) == (12, 28, True)
    report = collection.build(recluster=True)
    assert (report.encoded, report.clusters) == (0, 5)
    assert report.drift is not None
    assert (report.drift.clustered, report.drift.excessive) == (28, False)
