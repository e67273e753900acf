from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer import IndexRefused, Request, build, read_summary, upkeep
from indexer.upkeep import gallery_state, watch
from tests.indexer.galleries import Collection, save_photo, save_photos
from tests.patience import PATIENCE
from tests.programs import started_python


def updates_of(states: str, failures: int) -> list[str]:
    """Stands for a gallery that changes: at each pause it is the next of the states; the first updates fail."""
    now, made = "", list[str]()

    def pauses() -> Iterator[None]:
        nonlocal now
        for state in states:
            now = state
            yield

    def update() -> bool:
        made.append(now)
        return len(made) > failures

    watch(lambda: now, update, pauses())
    return made


EVER_CHANGING = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("states", "failures", "updates"),
    [
        ("aaaaa", 0, "a"),
        ("aaabccc", 0, "ac"),
        ("aabb", 0, "ab"),
        # A gallery that never rests is indexed nevertheless, and an update that failed is tried again at every pause.
        (EVER_CHANGING, 0, len(EVER_CHANGING) // upkeep.PATIENCE),
        ("aaaaaa", 2, "aaa"),
    ],
)
def test_a_gallery_is_updated_when_a_change_has_rested(states: str, failures: int, updates: str | int) -> None:
    found = updates_of(states, failures)
    assert found == list(updates) if isinstance(updates, str) else len(found) == updates


def test_the_state_of_a_gallery_changes_with_any_of_its_photos(collection: Collection, tmp_path: Path) -> None:
    with pytest.raises(IndexRefused, match="there is no index"):
        gallery_state(collection.index)
    collection.build()
    seen = [gallery_state(collection.index)]
    (collection.photos / "letter.txt").write_text("dear")
    assert gallery_state(collection.index) == seen[0]
    save_photo(collection.photos / "new.png", 40)
    seen.append(gallery_state(collection.index))
    os.utime(collection.photos / "new.png", ns=(1, 1))
    seen.append(gallery_state(collection.index))
    (collection.photos / "new.png").rename(collection.photos / "newer.png")
    seen.append(gallery_state(collection.index))
    (collection.photos / "newer.png").unlink()
    assert gallery_state(collection.index) == seen[0]
    build(collection.index, Request(added=[save_photos(tmp_path / "more", 2, start=20)]), collection.matcher)
    seen.append(gallery_state(collection.index))
    assert len(set(seen)) == len(seen)


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("end", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.soak)])
def test_a_watching_build_indexes_what_comes_and_ends_cleanly_when_told(
    end: signal.Signals, gallery: Path, index_path: Path, weights: Path
) -> None:
    arguments = [str(gallery), "--index", str(index_path), "--weights", str(weights), "--watch", "--interval", "0.05"]
    with started_python("-m", "indexer", "build", *arguments, errors=subprocess.PIPE) as process:
        assert process.stdout is not None
        # The report of the first build ends with this line.
        assert any(line.startswith("index:") for line in process.stdout)
        assert read_summary(index_path).manifest.counts.photos == 12
        save_photo(gallery / "new.png", 40)
        assert "generation g000002: 13 photos, 1 encoded now" in process.stdout.readline()
        (gallery / "new.png").unlink()
        assert "generation g000003: 12 photos, 0 encoded now, 1 gone" in process.stdout.readline()
        process.send_signal(end)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "stopped watching.\n", "")
