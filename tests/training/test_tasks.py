import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sketch_search.model.errors import ModelError
from sketch_search.training import tasks
from sketch_search.training.corpus import (
    DATA_VARIABLE,
    FRESH_PHOTOS,
    FRESH_SKETCHES,
    Corpus,
    Picture,
    find_drawn_photos,
    is_fresh,
    read_class_folders,
    read_data,
    read_drawings,
    read_split,
    split_fresh,
    unpack,
    with_pairs,
)
from sketch_search.training.evaluation.figures import measure
from tests.pictures import drawing, encoded, photo
from tests.requirements import needs_shared_data
from tests.shared_data import data, pack


def pictures(half: str, source: str, label: str, *names: str) -> tuple[Picture, ...]:
    return tuple(Picture(Path("/data") / source / half / label / name, label, source) for name in names)


def photos(source: str, label: str, count: int) -> tuple[Picture, ...]:
    return pictures("photo", source, label, *(f"{source}{i:03}.jpg" for i in range(count)))


def names(found: tuple[Picture, ...]) -> list[str]:
    return [picture.path.name for picture in found]


def stems(found: tuple[Picture, ...], label: str) -> list[str]:
    return [picture.path.stem for picture in found if picture.label == label]


def test_data_sets_are_crossed_without_a_photo_or_sketch_of_the_training() -> None:
    sources = ("sketchy", "tuberlin", "quickdraw")
    corpus = Corpus(
        tuple(p for s in sources for p in pictures("sketch", s, "ant", f"{s}-1.png")),
        photos("sketchy", "ant", 1) + photos("caltech101", "ant", 1),
    )
    for source, own, other in (
        ("sketchy", "sketchy000.jpg", "caltech101000.jpg"),
        ("tuberlin", "caltech101000.jpg", "sketchy000.jpg"),
    ):
        training, test = tasks.split_by_data_set(corpus, source)
        assert {p.source for p in training.sketches} == {source}
        assert {p.source for p in test.sketches} == set(sources) - {source}
        assert (names(training.photos), names(test.photos)) == ([own], [other])
    with pytest.raises(ModelError, match="choose one of sketchy"):
        tasks.split_by_data_set(corpus, "caltech101")


def pairs() -> Corpus:
    return Corpus(
        pictures("sketch", "sketchy", "ant", "n01_5-1.png", "n01_5-2.png", "n01_7-10.png", "n01_9-1.png")
        + pictures("sketch", "sketchy", "bee", "n02_7-1.png", "n01_5-1.png")
        + pictures("sketch", "qmul", "shoe", "77_2.png", "77.png"),
        pictures("photo", "sketchy", "ant", "n01_5.jpg", "n01_7.jpg")
        + pictures("photo", "caltech101", "ant", "n01_9.jpg")
        + pictures("photo", "sketchy", "bee", "n02_7.jpg", "n02_8.jpg")
        + pictures("photo", "qmul", "shoe", "77.png"),
    )


def test_a_sketch_is_paired_with_the_photo_it_is_named_after() -> None:
    assert find_drawn_photos(pairs()).tolist() == [0, 0, 1, -1, 3, -1, 5, -1]
    assert " ".join(names(with_pairs(pairs()).sketches)) == "n01_5-1.png n01_5-2.png n01_7-10.png n02_7-1.png 77_2.png"
    assert names(tasks.fine_grained(pairs()).sketches) == ["n01_5-1.png", "n01_7-10.png", "n02_7-1.png", "77_2.png"]
    assert tasks.fine_grained(pairs()).photos == pairs().photos


def test_fine_grained_figures_count_hits_among_class_and_gallery() -> None:
    corpus = Corpus(
        pictures("sketch", "sketchy", "ant", *(f"a{i}-1.png" for i in range(8))),
        pictures("photo", "sketchy", "ant", *(f"a{i}.jpg" for i in range(8))) + photos("flickr15k", "ant", 8),
    )
    # Sketch i prefers the photos 0, 1, 2 ..., so its own comes i-th among its class, after the 8 of another source.
    scores = np.concatenate([np.tile(-np.arange(8.0), (8, 1)), np.full((8, 8), 1.0)], axis=1)
    result = measure(tasks.Task(corpus, "fine-grained"), {"rn": scores})
    of_class = {"acc_1": 1 / 8, "acc_5": 5 / 8, "acc_10": 1}
    of_all = {"gallery_acc_1": 0, "gallery_acc_10": 2 / 8, "gallery_acc_20": 1}
    assert result.figures["rn"]["all"] == of_class | of_all
    by_chance = {"gallery_acc_1": 1 / 16, "gallery_acc_10": 10 / 16, "gallery_acc_20": 1}
    assert result.figures["chance"]["all"] == of_class | by_chance
    assert result.per_query["rn"]["acc_1"].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    with pytest.raises(ModelError, match="was drawn from none"):
        measure(tasks.Task(pairs(), "fine-grained"), {"rn": np.zeros((8, 6))})


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
    cache = "sketch_search.training.corpus.platformdirs.user_cache_path"
    monkeypatch.setattr(cache, lambda _: tmp_path / "cache")
    return data.parent


def test_everything_has_the_pictures_of_fresh_all_unseen_photos_and_ordinary_ones(folder: Path) -> None:
    task = tasks.read_task("everything", "unseen", "train")
    fresh = {
        share: [f"{i:03}" for i in range(60) if is_fresh(TRAINING, f"{i:03}", share)]
        for share in (FRESH_PHOTOS, FRESH_SKETCHES)
    }
    assert stems(task.corpus.photos, TRAINING) == [*(name for name in fresh[FRESH_PHOTOS] if int(name) < 40), "1"]
    assert stems(task.corpus.sketches, TRAINING) == fresh[FRESH_SKETCHES]
    assert len(stems(task.corpus.photos, NEW)) == 40
    assert stems(task.corpus.sketches, NEW) == [f"{i:03}" for i in range(10)]
    assert sum(p.source == "voc2007" for p in task.corpus.photos) == 2
    assert task.groups == {tasks.TRAINED: {TRAINING}, tasks.UNSEEN: {NEW}}
    trained = tasks.read_task("fresh", trained_on="train")
    assert trained.corpus == task.corpus.kept(
        lambda sketch: sketch.label == TRAINING, lambda photo: (photo.label, photo.source) == (TRAINING, "caltech101")
    )
    assert not trained.groups


def test_protocols_of_unseen_classes_have_ten_sketches_of_each_and_the_photos_that_they_name(folder: Path) -> None:
    def sizes(*arguments: Any) -> tuple[int, int]:
        corpus = tasks.read_task(*arguments).corpus
        return len(corpus.sketches), len(corpus.photos)

    assert sizes("zero-shot", "unseen") == (10, 40)
    assert sizes("generalised", "unseen") == (10, 40 + 8)
    assert sizes("cross-data-set", "unseen", "sketchy") == (10, 40)
    with pytest.raises(ModelError, match="train has classes of train"):
        tasks.read_task("generalised", "train")
    with pytest.raises(ModelError, match="leave out --split or --trained-on"):
        tasks.read_task("fine-grained", "unseen", "train")


def test_ordinary_photos_are_right_where_a_box_that_is_not_difficult_is_in_them(folder: Path) -> None:
    task = tasks.read_task("everyday")
    first, second = task.corpus.photos
    assert (first.label, first.also) == (TRAINING, (NEW,))
    assert (second.label, second.also) == ("", ())
    assert set(task.groups) == {TRAINING, NEW}
    of_dogs = np.array([p.label == NEW for p in task.corpus.sketches])
    assert task.sizes["below 5%"][of_dogs, 0].all()
    assert task.sizes["above 20%"][~of_dogs, 0].all()
    assert sum(int(right[:, 1].sum()) for right in task.sizes.values()) == 0


def test_contradicting_arguments_are_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="has no split"):
        tasks.read_task("fresh", "val")
    with pytest.raises(ModelError, match="leave out --trained-on"):
        tasks.read_task("everyday", trained_on="train")
    with pytest.raises(ModelError, match="has classes of"):
        tasks.read_task("everything", "unseen", "train+unseen")
    (folder / "data" / "more" / "everyday.tar.gz").unlink()
    with pytest.raises(ModelError, match=r"there is no .*everyday"):
        tasks.read_task("everyday")


def test_the_gallery_of_everything_is_written_as_class_folders(folder: Path, tmp_path: Path) -> None:
    task = tasks.read_task("everything", "unseen", "train")
    tasks.write_folders(task, tmp_path / "out")
    written = sorted(str(path.relative_to(tmp_path / "out").parent) for path in (tmp_path / "out").rglob("*.*"))
    assert written.count(f"photo/{NEW}") == 41, "40 photos, and the ordinary one that shows a dog, too"
    assert written.count(f"photo/{TRAINING}") == sum(p.label == TRAINING for p in task.corpus.photos)
    assert written.count("photo/other") == 1
    assert written.count(f"{tasks.UNSEEN}/sketch/{NEW}") == 10
    with pytest.raises(ModelError, match="has files already"):
        tasks.write_folders(task, tmp_path / "out")


def test_a_standard_split_has_the_sketches_of_its_data_set_and_says_what_is_missing() -> None:
    corpus = Corpus(
        pictures("sketch", "sketchy", "swan", "1.png")
        + pictures("sketch", "tuberlin", "cup", "1.png")
        + pictures("sketch", "sketchy", "tennis_racket", "1.png"),
        photos("caltech101", "swan", 2) + photos("sketchy", "cup", 1) + photos("sketchy", "tennis_racket", 1),
    )
    found, said = tasks.choose_standard_split(corpus, "sketchy_100_25", "unseen")
    assert found == corpus.of(["swan"])
    assert said.startswith("1 of the 25 unseen classes of sketchy_100_25; this data lacks cup, harp, squirrel")
    seen, _ = tasks.choose_standard_split(corpus, "sketchy_100_25", "seen")
    assert seen.labels == ("tennis_racket",), "which the list calls a racket"
    with pytest.raises(ModelError, match="no sketches of quickdraw with photos of the seen classes"):
        tasks.choose_standard_split(corpus, "quickdraw_80_30", "seen")


def test_classes_are_found_in_any_spelling() -> None:
    corpus = Corpus(tuple(Picture(Path("1.png"), label, "") for label in ("ant", "hot_air_balloon", "t-shirt")), ())
    assert tasks.choose_classes(corpus, ["Hot-air balloon", "t_shirt"]).labels == ("hot_air_balloon", "t-shirt")
    assert tasks.choose_classes(corpus, ["ant"], exclude=True).labels == ("hot_air_balloon", "t-shirt")
    with pytest.raises(ModelError, match="none of the classes"):
        tasks.choose_classes(corpus, ["zebra"])
    with pytest.raises(ModelError, match="choose one of sketchy_104_21"):
        tasks.standard_split("sketchy_1_2")


@needs_shared_data
@pytest.mark.parametrize("name", tasks.STANDARD_SPLITS)
def test_the_standard_splits_are_the_published_lists(name: str) -> None:
    for part, classes in zip(("seen", "unseen"), tasks.standard_split(name), strict=True):
        published = data("").parent / "splits" / f"{name}.{part}.txt"
        assert list(classes) == published.read_text().splitlines()


def test_a_folder_laid_out_otherwise_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds neither sketch/<class>/ nor photo/<class>/"):
        read_class_folders(tmp_path)


def test_sketches_of_a_data_set_may_be_svg_and_files_of_many_drawings_are_refused(tmp_path: Path) -> None:
    for place in ("sketch/cat/1.svg", "sketch/cat/2.SVGZ", "photo/cat/1.jpg", "photo/cat/2.svg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    corpus = read_class_folders(tmp_path)
    assert [picture.path.name for picture in (*corpus.sketches, *corpus.photos)] == ["1.svg", "2.SVGZ", "1.jpg"]
    for place in ("sketch/cat.npy", "sketch/cat/full_raw_cat.ndjson"):
        (tmp_path / place).touch()
        with pytest.raises(ModelError, match=r"cat\.(npy|ndjson) holds many drawings; write each as a picture"):
            read_class_folders(tmp_path)
        (tmp_path / place).unlink()


def test_a_data_set_as_sketchy_lays_it_out_is_read_and_classes_with_one_half_are_named(tmp_path: Path) -> None:
    for place in ("sketch/tx_000000000000/cat/1.png", "sketch/tx_000000000010/cat/2.png", "photo/tx_0/cat/1.jpg"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    for label in ("cow", ".ipynb_checkpoints"):
        (tmp_path / "photo" / "tx_0" / label).mkdir()
        (tmp_path / "photo" / "tx_0" / label / "1.jpg").touch()
    task = tasks.read_task("category", data=tmp_path)
    assert (task.corpus.labels, names(task.corpus.sketches)) == (("cat", "cow"), ["1.png"])
    assert task.about == ("classes with photos alone (1): cow",)


def test_archives_are_unpacked_once_and_anew_when_they_change(folder: Path) -> None:
    packed = folder / "data" / "first.tar.gz"
    corpus = read_data(folder)
    assert corpus.labels == (TRAINING, NEW)
    assert {p.source for p in corpus.photos} == {"caltech101"}
    first = unpack(packed)
    stamp = first.stat().st_mtime_ns
    assert unpack(packed) == first
    assert first.stat().st_mtime_ns == stamp
    pack(packed, {"caltech101/photo/star/1.png": b"another"})
    assert unpack(packed) != first
    assert read_split(folder, "unseen") == (NEW,)
    with pytest.raises(ModelError, match="holds no list of classes named 'ship'"):
        read_split(folder, "ship")


def test_fresh_photos_depend_only_on_class_and_name_and_their_sketches_are_fresh_too() -> None:
    photos = [pictures("photo", source, "ant", *(f"n{i:04}.jpg" for i in range(300))) for source in ("sketchy", "qmul")]
    drawn = pictures("sketch", "sketchy", "ant", *(f"n{i:04}-{k}.png" for i in range(300) for k in (1, 2, 3)))
    kept, fresh = split_fresh(Corpus(drawn, photos[0]))
    assert fresh.sketches
    assert (find_drawn_photos(fresh) >= 0).all(), "every fresh sketch has its photo among the fresh ones"
    assert len(fresh.sketches) % 3 == 0
    assert {p.path.stem[:-2] for p in fresh.sketches}.isdisjoint({p.path.stem[:-2] for p in kept.sketches})
    assert names(split_fresh(Corpus((), photos[1]))[1].photos) == names(fresh.photos)
    some = photos[0][:50]
    assert split_fresh(Corpus((), some))[1].photos == tuple(p for p in fresh.photos if p in some)
    assert is_fresh("ant", "N0001", 0.5) == is_fresh("ant", "n0001", 0.5), "whatever the case of its letters"


CROSS = [[[0, 255], [0, 255]], [[255, 0], [0, 255]]]


def test_strokes_are_drawn_once_as_black_lines_on_white(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = gzip.compress(2 * (json.dumps(CROSS) + "\n").encode())
    blank = encoded(Image.new("L", (8, 8), 255))
    pack(tmp_path / "data" / "more2" / "strokes.tar.gz", {"strokes/alarm_clock.jsonl.gz": lines})
    pack(tmp_path / "data" / "more2" / "people.tar.gz", {"viscomm/sketch/bird/one.png": blank})
    sketches = read_drawings(tmp_path)
    assert [(s.label, s.source) for s in sketches] == [("bird", "viscomm")] + [("alarm_clock", "strokes")] * 2
    first, second = (np.asarray(Image.open(s.path)) for s in sketches[1:])
    assert first.shape == (512, 512)
    assert set(np.unique(first)) == {0, 255}
    # Both diagonals meet in the middle; the second drawing has thicker lines.
    assert first[255, 255] == 0
    assert first[10, 10] == 255
    assert (second == 0).sum() > (first == 0).sum() > 0
    written = [s.path.stat().st_mtime_ns for s in sketches]
    assert [s.path.stat().st_mtime_ns for s in read_drawings(tmp_path)] == written
