from __future__ import annotations

from pathlib import Path

from model.datasets.corpus import FRESH_PHOTOS, FRESH_SKETCHES, Corpus, Picture, drawn_from, is_fresh, split_fresh


def pictures(half: str, source: str, label: str, names: list[str]) -> tuple[Picture, ...]:
    return tuple(Picture(Path("/data") / source / half / label / name, label, source) for name in names)


def photos(source: str, label: str, count: int) -> tuple[Picture, ...]:
    return pictures("photo", source, label, [f"n{i:04}.jpg" for i in range(count)])


def drawn(label: str, count: int) -> tuple[Picture, ...]:
    return pictures("sketch", "sketchy", label, [f"n{i:04}-{k}.png" for i in range(count) for k in (1, 2, 3)])


def test_about_a_tenth_of_the_sketches_and_a_fifth_of_the_photos_of_a_class_are_fresh() -> None:
    corpus = Corpus(pictures("sketch", "tuberlin", "ant", [f"{i}.png" for i in range(2000)]), photos("x", "ant", 2000))
    kept, fresh = split_fresh(corpus)
    assert abs(len(fresh.sketches) / 2000 - FRESH_SKETCHES) < 0.03
    assert abs(len(fresh.photos) / 2000 - FRESH_PHOTOS) < 0.03
    assert set(kept.sketches) | set(fresh.sketches) == set(corpus.sketches)
    assert not set(kept.photos) & set(fresh.photos)


def test_the_photo_of_a_fresh_sketch_is_fresh_and_its_sketches_stay_together() -> None:
    corpus = Corpus(drawn("ant", 300), photos("sketchy", "ant", 300))
    kept, fresh = split_fresh(corpus)
    assert fresh.sketches
    assert (drawn_from(fresh) >= 0).all(), "every fresh sketch has its photo among the fresh ones"
    assert len(fresh.sketches) % 3 == 0
    assert {p.path.stem[:-2] for p in fresh.sketches}.isdisjoint({p.path.stem[:-2] for p in kept.sketches})


def test_what_is_fresh_depends_on_class_and_name_alone() -> None:
    one, other = photos("sketchy", "ant", 200), photos("flickr15k", "ant", 200)
    fresh = split_fresh(Corpus((), one + other))[1].photos
    names = [{p.path.name for p in fresh if p.source == source} for source in ("sketchy", "flickr15k")]
    assert names[0] == names[1]
    assert split_fresh(Corpus((), one[:50]))[1].photos == tuple(p for p in fresh if p in set(one[:50]))
    assert is_fresh("ant", "N0001", 0.5) == is_fresh("ant", "n0001", 0.5), "whatever the case of its letters"


def test_numbered_names_that_belong_to_no_photo_are_told_apart() -> None:
    sketches = pictures("sketch", "quickdraw", "cat", [f"cat_{i}.png" for i in range(400)])
    fresh = split_fresh(Corpus(sketches, photos("sketchy", "cat", 5)))[1].sketches
    assert 10 < len(fresh) < 80
