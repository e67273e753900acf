"""Finding an embedder may take long, so that others may change the index meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from indexer import IndexBusy, Request, build, remove
from indexer.embedding import ChosenEmbedder, WantedEmbedder
from indexer.store.location import IndexFolder
from tests.indexer.clip_models import saved_clip
from tests.indexer.damages import shorten
from tests.indexer.galleries import Collection, save_photos


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """A small CLIP model, as ``--embedder`` names it."""
    return f"clip:{saved_clip(tmp_path / 'clip')}"


def before_one_is_found(monkeypatch: pytest.MonkeyPatch, *happenings: Callable[[], object]) -> list[str]:
    """Let something happen each time an embedder is about to be found, and note which."""
    waiting = list(happenings)
    noted: list[str] = []
    find = WantedEmbedder.find

    def finding(wanted: WantedEmbedder, device: str) -> ChosenEmbedder:
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
    built: Collection, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photos(built.photos, 2, start=20)
    noted = before_one_is_found(monkeypatch, lambda: remove([], built.index, ids=[1]))
    report = built.build(embedder=clip)
    # What was removed meanwhile stays out: the decision is made from what is read under the lock.
    assert (report.photos, noted) == (13, [clip])


def test_an_index_that_gets_another_embedder_meanwhile_keeps_that_one(
    built: Collection, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photos(built.photos, 2, start=20)
    noted = before_one_is_found(monkeypatch, lambda: built.build(embedder=clip))
    report = build(built.index, Request(added=[built.photos]), built.matcher)
    assert noted == ["ret", clip, clip]
    assert not report.changed
    with built.open() as index:
        assert (index.manifest.embedder.spec, index.photo_count) == (clip, 14)


def test_a_busy_index_is_refused_before_an_embedder_is_looked_for(
    built: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = before_one_is_found(monkeypatch)
    with IndexFolder(built.index).locked(), pytest.raises(IndexBusy, match="another build"):
        built.build(embedder="clip")
    assert noted == []


def test_a_damaged_index_whose_embedder_may_have_to_be_downloaded_does_not_hold_the_index_meanwhile(
    collection: Collection, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.build(embedder=clip)
    shorten(collection.index / "g000001" / "photos.sqlite")
    noted = before_one_is_found(monkeypatch, lambda: take_the_lock(collection.index))
    assert collection.update().encoded == 12
    assert noted == [clip]
    with collection.open() as index:
        assert index.manifest.embedder.spec == clip
