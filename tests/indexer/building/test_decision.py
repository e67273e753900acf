"""What a build decides before it reads a photo, and what is not decided while another build may change the index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import model
from indexer import EmbedderUnavailable, IndexBusy, add, build, open_index, remove, repair
from indexer.building.builds import Decision, StartingPoint, decide, wanted_embedder
from indexer.building.request import Request
from indexer.embedding.embedders import ChosenEmbedder, WantedEmbedder, choose_embedder
from indexer.store.folders import LocalFolder
from indexer.store.generation import Origin, live_generation
from indexer.store.location import IndexFolder
from tests.indexer.clip_models import saved_clip
from tests.indexer.damages import shorten
from tests.indexer.galleries import save_photos

RET = choose_embedder("ret", torch.device("cpu"))


@pytest.fixture
def built(gallery: Path, index_path: Path, matcher: model.Matcher) -> Path:
    """An index of twelve photos in three clusters."""
    build([gallery], index_path, matcher, embedder="ret")
    return index_path


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """A small CLIP model, as ``--embedder`` names it."""
    return f"clip:{saved_clip(tmp_path / 'clip')}"


def decided(index: Path, request: Request, matcher: model.Matcher, embedder: ChosenEmbedder = RET) -> Decision:
    folder = IndexFolder(index)
    start = StartingPoint(live_generation(folder) if folder.current() else None)
    return decide(request, start, Origin.of(matcher), embedder, folder.path)


def test_the_first_build_makes_as_many_clusters_as_were_asked_for(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    for clusters in (None, 5):
        decision = decided(index_path, Request((gallery,), clusters=clusters), matcher)
        assert (decision.recluster, decision.clusters, decision.live.generation) == (True, clusters, None)
        assert [root.folder for root in decision.roots] == [LocalFolder(gallery)]


@pytest.mark.parametrize(
    ("asked", "recluster", "clusters"),
    [
        (Request(clusters=3), False, 3),
        (Request(clusters=5), True, 5),
        (Request(recluster=True), True, None),
        (Request(clusters=3, recluster=True), True, 3),
    ],
    ids=["the same number", "another number", "anew", "anew with a number"],
)
def test_clusters_are_made_anew_where_asked_for_or_where_their_number_changes(
    asked: Request, recluster: bool, clusters: int | None, built: Path, matcher: model.Matcher
) -> None:
    decision = decided(built, asked, matcher)
    assert (decision.recluster, decision.clusters) == (recluster, clusters)


def test_clusters_made_anew_keep_the_number_that_was_asked_for_first(
    built: Path, gallery: Path, matcher: model.Matcher, other_matcher: model.Matcher
) -> None:
    build([gallery], built, matcher, clusters=5)
    assert decided(built, Request(recluster=True), matcher).clusters == 5
    assert decided(built, Request(), other_matcher).clusters == 5, "another network, whose clusters are others"


def test_another_network_or_another_embedder_reuses_no_row(
    built: Path, matcher: model.Matcher, other_matcher: model.Matcher, clip: str
) -> None:
    other = decided(built, Request(), other_matcher)
    embedded = decided(built, Request(), matcher, choose_embedder(clip, torch.device("cpu")))
    for decision in (other, embedded):
        assert (decision.recluster, decision.live.reusable, decision.live.contents) == (True, False, {})
        # The files keep their ids all the same.
        assert len(decision.live.files) == 12
        assert decision.key != decided(built, Request(), matcher).key


def test_the_embedder_is_the_one_asked_for_else_the_indexs_own_else_automatic(
    built: Path, matcher: model.Matcher
) -> None:
    manifest, origin = live_generation(IndexFolder(built)).manifest, Origin.of(matcher)
    assert wanted_embedder(Request(embedder="clip"), manifest, origin) == WantedEmbedder("clip", download=True)
    assert wanted_embedder(Request(), manifest, origin) == WantedEmbedder("ret", download=False)
    assert wanted_embedder(Request(), None, origin) == WantedEmbedder("auto", download=False)
    other = origin.model_copy(update={"photo_sha256": "0" * 64})
    assert wanted_embedder(Request(), manifest, other) == WantedEmbedder("auto", download=False)


def before_one_is_found(monkeypatch: pytest.MonkeyPatch, *happenings: Callable[[], object]) -> list[str]:
    """Let something happen each time an embedder is about to be found, and note which."""
    waiting = list(happenings)
    noted: list[str] = []
    find = WantedEmbedder.find

    def finding(wanted: WantedEmbedder, device: torch.device) -> ChosenEmbedder:
        noted.append(wanted.spec)
        if waiting:
            waiting.pop(0)()
        return find(wanted, device)

    monkeypatch.setattr(WantedEmbedder, "find", finding)
    return noted


def take_the_lock(index: Path) -> None:
    with IndexFolder(index).locked():
        pass


def test_while_an_embedder_is_found_others_may_write_the_index(
    built: Path, gallery: Path, matcher: model.Matcher, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photos(gallery, 2, start=20)
    noted = before_one_is_found(monkeypatch, lambda: remove([], built, ids=[1]))
    report = build([gallery], built, matcher, embedder=clip)
    # What was removed meanwhile stays out: the decision is made from what is read under the lock.
    assert (report.photos, noted) == (13, [clip])


def test_an_index_that_gets_another_embedder_meanwhile_keeps_that_one(
    built: Path, gallery: Path, matcher: model.Matcher, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photos(gallery, 2, start=20)
    noted = before_one_is_found(monkeypatch, lambda: build([gallery], built, matcher, embedder=clip))
    report = add([gallery], built, matcher)
    assert noted == ["ret", clip, clip]
    assert not report.changed
    with open_index(built, matcher) as index:
        assert (index.manifest.embedder.spec, index.photo_count) == (clip, 14)


def test_a_busy_index_is_refused_before_an_embedder_is_looked_for(
    built: Path, gallery: Path, matcher: model.Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = before_one_is_found(monkeypatch)
    with IndexFolder(built).locked(), pytest.raises(IndexBusy, match="another build"):
        build([gallery], built, matcher, embedder="clip")
    assert noted == []


def test_an_embedder_that_is_not_to_be_had_leaves_the_index_as_it_was(
    built: Path, gallery: Path, matcher: model.Matcher
) -> None:
    with pytest.raises(EmbedderUnavailable):
        build([gallery], built, matcher, embedder="clip:nothing")
    assert not build([gallery], built, matcher).changed


def test_a_repair_that_may_have_to_download_does_not_hold_the_index_meanwhile(
    gallery: Path, index_path: Path, matcher: model.Matcher, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build([gallery], index_path, matcher, embedder=clip)
    shorten(index_path / "g000001" / "photos.sqlite")
    noted = before_one_is_found(monkeypatch, lambda: take_the_lock(index_path))
    report = repair(index_path, matcher)
    assert (noted, report.remaining) == ([clip], ())
    with open_index(index_path, matcher) as index:
        assert index.manifest.embedder.spec == clip
