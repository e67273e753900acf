from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model.datasets.corpus import DATA_VARIABLE, FRESH_PHOTOS, FRESH_SKETCHES, is_fresh
from model.datasets.tasks import TRAINED, UNSEEN, read_large_task, write_folders
from model.errors import ModelError
from tests.archives import pack
from tests.pictures import drawing, encoded, photo

TRAINING, NEW = "airplane", "dog"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Optional data of one trained and one unseen class, with two ordinary photos."""
    data = tmp_path / "shared" / "data"
    sketch, shown = encoded(drawing("circle", 32, 1)), encoded(photo("circle", 32, 1))
    for label, archive in ((TRAINING, "first"), (NEW, "second")):
        files = {f"tuberlin/sketch/{label}/{i:03}.png": sketch for i in range(60)}
        files |= {f"caltech101/photo/{label}/{i:03}.png": shown for i in range(40)}
        pack(data / f"{archive}.tar.gz", files)
    (data / "split.json").write_text(json.dumps({"train": [TRAINING], "val": [], "unseen": [NEW]}))
    boxes = {
        "1.jpg": [["aeroplane", False, 0.0, 0.0, 0.5, 0.5], ["dog", False, 0.0, 0.0, 0.1, 0.1]],
        "2.jpg": [["dog", True, 0.0, 0.0, 1.0, 1.0], ["diningtable", False, 0.0, 0.0, 1.0, 1.0]],
    }
    pack(
        data / "more" / "everyday.tar.gz",
        {f"voc2007/{name}": shown for name in boxes} | {"voc2007/labels.json": json.dumps(boxes).encode()},
    )
    monkeypatch.setenv(DATA_VARIABLE, str(data.parent))
    monkeypatch.setattr("model.datasets.corpus.platformdirs.user_cache_path", lambda _: tmp_path / "cache")
    return data.parent


def test_the_gallery_of_everything_has_fresh_photos_all_unseen_ones_and_the_ordinary_ones(folder: Path) -> None:
    task = read_large_task("everything", "unseen", "train")
    names = {label: [p.path.stem for p in task.corpus.photos if p.label == label] for label in (TRAINING, NEW)}
    assert len(names[NEW]) == 40
    fresh = [f"{i:03}" for i in range(40) if is_fresh(TRAINING, f"{i:03}", FRESH_PHOTOS)]
    assert names[TRAINING] == [*fresh, "1"]
    assert sum(p.source == "voc2007" for p in task.corpus.photos) == 2
    assert task.groups == {TRAINED: {TRAINING}, UNSEEN: {NEW}}
    assert task.harmonic == (TRAINED, UNSEEN)


def test_queries_of_trained_classes_are_fresh_and_those_of_unseen_ones_are_the_protocols(folder: Path) -> None:
    task = read_large_task("everything", "unseen", "train")
    trained = [p.path.stem for p in task.corpus.sketches if p.label == TRAINING]
    assert trained == [f"{i:03}" for i in range(60) if is_fresh(TRAINING, f"{i:03}", FRESH_SKETCHES)]
    assert [p.path.stem for p in task.corpus.sketches if p.label == NEW] == [f"{i:03}" for i in range(10)]


def test_the_fresh_protocol_has_trained_classes_alone(folder: Path) -> None:
    task = read_large_task("fresh", trained_on="train")
    assert {p.label for p in (*task.corpus.sketches, *task.corpus.photos)} == {TRAINING}
    assert not task.groups


def test_ordinary_photos_are_right_where_a_box_that_is_not_difficult_is_in_them(folder: Path) -> None:
    task = read_large_task("everyday")
    first, second = task.corpus.photos
    assert (first.label, first.also) == (TRAINING, (NEW,))
    assert (second.label, second.also) == ("", ())
    assert set(task.groups) == {TRAINING, NEW}
    of_dogs = np.array([p.label == NEW for p in task.corpus.sketches])
    assert task.sizes["below 5%"][of_dogs, 0].all()
    assert task.sizes["above 20%"][~of_dogs, 0].all()
    assert sum(int(right[:, 1].sum()) for right in task.sizes.values()) == 0


def test_every_n_th_sketch_and_photo_keeps_groups_and_sizes(folder: Path) -> None:
    task = read_large_task("everyday")
    part = task.subsampled(2, 2)
    assert part.corpus.sketches == task.corpus.sketches[::2]
    assert part.sizes["below 5%"].shape == (len(part.corpus.sketches), 1)


def test_what_does_not_go_together_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="has no split"):
        read_large_task("fresh", "val")
    with pytest.raises(ModelError, match="leave out --trained-on"):
        read_large_task("everyday", trained_on="train")
    with pytest.raises(ModelError, match="has classes of"):
        read_large_task("everything", "unseen", "train+unseen")
    (folder / "data" / "more" / "everyday.tar.gz").unlink()
    with pytest.raises(ModelError, match="no ordinary photos"):
        read_large_task("everyday")


def test_the_gallery_of_everything_is_written_as_class_folders(folder: Path, tmp_path: Path) -> None:
    task = read_large_task("everything", "unseen", "train")
    write_folders(task, tmp_path / "out")
    written = sorted(str(path.relative_to(tmp_path / "out").parent) for path in (tmp_path / "out").rglob("*.*"))
    assert written.count(f"photo/{NEW}") == 41, "40 photos, and the ordinary one that shows a dog, too"
    assert written.count(f"photo/{TRAINING}") == sum(p.label == TRAINING for p in task.corpus.photos)
    assert written.count("photo/other") == 1
    assert written.count(f"{UNSEEN}/sketch/{NEW}") == 10
    with pytest.raises(ModelError, match="has files already"):
        write_folders(task, tmp_path / "out")
