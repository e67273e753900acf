from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.datasets.corpus import Corpus, Picture, drawn_from, with_pairs
from model.datasets.tasks import (
    answerable,
    cross_data_set,
    fine_grained,
    generalised,
    hold_out,
    one_data_set,
    subsampled,
)
from model.errors import ModelError
from model.evaluation import measure_instances


def pictures(half: str, source: str, label: str, *names: str) -> tuple[Picture, ...]:
    return tuple(Picture(Path("/data") / source / half / label / name, label, source) for name in names)


def photos(source: str, label: str, count: int) -> tuple[Picture, ...]:
    return pictures("photo", source, label, *(f"{source}{i:03}.jpg" for i in range(count)))


def names(found: tuple[Picture, ...]) -> list[str]:
    return [picture.path.name for picture in found]


def test_a_fifth_of_each_class_is_held_out_of_training() -> None:
    corpus = Corpus((), photos("sketchy", "ant", 25) + photos("sketchy", "bee", 10) + photos("flickr15k", "bee", 20))
    kept, held = hold_out(corpus)
    assert {label: sum(p.label == label for p in held) for label in ("ant", "bee")} == {"ant": 5, "bee": 6}
    assert not set(kept.photos) & set(held)
    assert set(kept.photos) | set(held) == set(corpus.photos)


def test_what_is_held_out_depends_on_names_alone() -> None:
    corpus = Corpus((), photos("sketchy", "ant", 25) + photos("sketchy", "bee", 25))
    elsewhere = tuple(Picture(Path("/other") / p.path.name, p.label, p.source) for p in corpus.photos[::-1])
    held = hold_out(corpus)[1]
    assert set(names(hold_out(Corpus((), elsewhere))[1])) == set(names(held))
    assert hold_out(corpus.of(["bee"]))[1] == tuple(p for p in held if p.label == "bee")
    assert names(held[:5]) != names(held[5:]), "each class has its own choice"


def test_thumbnails_are_not_held_out_but_a_held_photo_leaves_with_its_thumbnail() -> None:
    large, small = photos("sketchy", "ant", 10), photos("tinyimagenet", "ant", 40)
    held = hold_out(Corpus((), large + small))[1]
    assert len(held) == 2
    twin = pictures("photo", "tinyimagenet", "ant", held[0].path.name)
    kept, again = hold_out(Corpus((), large + small + twin))
    assert again == held
    assert not set(twin) & set(kept.photos)
    assert set(small) <= set(kept.photos)


def test_the_generalised_gallery_has_unseen_photos_and_the_held_out_ones() -> None:
    corpus = Corpus(
        pictures("sketch", "sketchy", "ant", "a-1.png") + pictures("sketch", "sketchy", "bee", "b-1.png"),
        photos("sketchy", "ant", 10) + photos("sketchy", "bee", 10),
    )
    whole = generalised(corpus, ["ant"], ["bee"])
    assert names(whole.sketches) == ["b-1.png"]
    assert [p.label for p in whole.photos] == ["bee"] * 10 + ["ant"] * 2
    training = hold_out(corpus.of(["ant"]))[0]
    assert not set(training.photos) & set(whole.photos)


def test_data_sets_are_crossed_without_a_photo_or_sketch_of_the_training() -> None:
    sources = ("sketchy", "tuberlin", "quickdraw")
    corpus = Corpus(
        tuple(p for s in sources for p in pictures("sketch", s, "ant", f"{s}-1.png")),
        photos("sketchy", "ant", 1) + photos("caltech101", "ant", 1),
    )
    assert {p.source for p in cross_data_set(corpus, "sketchy").sketches} == {"tuberlin", "quickdraw"}
    assert names(cross_data_set(corpus, "sketchy").photos) == ["caltech101000.jpg"]
    assert {p.source for p in cross_data_set(corpus, "tuberlin").sketches} == {"sketchy", "quickdraw"}
    assert names(cross_data_set(corpus, "tuberlin").photos) == ["sketchy000.jpg"]
    for source in sources:
        training, test = one_data_set(corpus, source), cross_data_set(corpus, source)
        assert set(training.sketches) | set(test.sketches) == set(corpus.sketches)
        assert set(training.photos) | set(test.photos) == set(corpus.photos)
        assert not set(training.photos) & set(test.photos)
    with pytest.raises(ModelError, match="choose one of sketchy"):
        cross_data_set(corpus, "caltech101")


def test_sketches_without_a_photo_of_their_class_can_be_left_out() -> None:
    corpus = Corpus(
        pictures("sketch", "a", "ant", "1.png") + pictures("sketch", "a", "bee", "2.png"), photos("b", "bee", 1)
    )
    assert names(answerable(corpus).sketches) == ["2.png"]
    assert answerable(corpus).photos == corpus.photos


def test_every_nth_picture_is_taken() -> None:
    corpus = Corpus(pictures("sketch", "a", "ant", *(f"{i}.png" for i in range(9))), photos("a", "ant", 5))
    thin = subsampled(corpus, 4, 2)
    assert names(thin.sketches) == ["0.png", "4.png", "8.png"]
    assert names(thin.photos) == ["a000.jpg", "a002.jpg", "a004.jpg"]


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
    assert drawn_from(pairs()).tolist() == [0, 0, 1, -1, 3, -1, 5, -1]
    assert names(with_pairs(pairs()).sketches) == [
        "n01_5-1.png",
        "n01_5-2.png",
        "n01_7-10.png",
        "n02_7-1.png",
        "77_2.png",
    ]
    assert names(fine_grained(pairs()).sketches) == ["n01_5-1.png", "n01_7-10.png", "n02_7-1.png", "77_2.png"]
    assert fine_grained(pairs()).photos == pairs().photos


def test_without_pairs_the_fine_grained_protocol_says_how_they_are_named() -> None:
    with pytest.raises(ModelError, match=r"NAME-1\.png"):
        with_pairs(Corpus(pictures("sketch", "a", "ant", "1.png"), photos("a", "ant", 3)))


def test_fine_grained_figures_count_hits_among_class_and_gallery() -> None:
    corpus = Corpus(
        pictures("sketch", "sketchy", "ant", *(f"a{i}-1.png" for i in range(8))),
        pictures("photo", "sketchy", "ant", *(f"a{i}.jpg" for i in range(8))) + photos("flickr15k", "ant", 8),
    )
    # Sketch i prefers the photos 0, 1, 2 ..., so its own comes i-th among its class, after the 8 of another source.
    scores = np.concatenate([np.tile(-np.arange(8.0), (8, 1)), np.full((8, 8), 1.0)], axis=1)
    result = measure_instances(corpus, {"rn": scores})
    assert result.figures["rn"]["all"] == {
        "acc_1": 1 / 8,
        "acc_5": 5 / 8,
        "acc_10": 1,
        "gallery_acc_1": 0,
        "gallery_acc_10": 2 / 8,
    }
    assert result.figures["chance"]["all"] == {
        "acc_1": 1 / 8,
        "acc_5": 5 / 8,
        "acc_10": 1,
        "gallery_acc_1": 1 / 16,
        "gallery_acc_10": 10 / 16,
    }
    assert result.per_query.values["rn"]["acc_1"].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    with pytest.raises(ModelError, match="was drawn from none"):
        measure_instances(pairs(), {"rn": np.zeros((8, 6))})
