"""The pictures of a training, classes without photos or sketches among them, and the prior that they give."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from sketch_search.model.errors import ModelError
from sketch_search.training.corpus import (
    DATA_VARIABLE,
    FRESH_PHOTOS,
    Corpus,
    Picture,
    find_drawn_photos,
    is_fresh,
    split_fresh,
    too_near,
)
from sketch_search.training.papers.pictures import training_corpora, training_set
from sketch_search.training.papers.two_sided import TwoSidedRecipe, best_weight, with_prior
from sketch_search.training.papers.zse import Samples
from sketch_search.training.tasks import Task, hold_out
from tests.networks import small_recipe, tiny_network, write_class_folders
from tests.pictures import SHAPES, drawing, encoded, photo
from tests.shared_data import pack

BOTH, OTHER, HELD, UNSEEN = SHAPES[:4]
SKETCHED, SHOWN, NEAR, ZIGZAG = "anvil", "dolphin", "leaf", "zigzag"
FRAME = "574_golf_ball"
# Kinds that are drawn as lines alone, and why a training may have to leave them out.
LINES = {"abacus": "", "eagle": "near_val", "wolf": "near_unseen_or_ship", UNSEEN: "unseen"}
WIDE = TwoSidedRecipe(split=("train", "more", "imagenet1k"))
PLAIN = small_recipe(1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Optional data: two classes to train on, one of validation, one unseen; and further ones."""
    folder = tmp_path_factory.mktemp("shared")
    pictures = {
        f"first/{half}/{label}/{seed:03}.png": encoded(make(label, 64, seed))
        for label in (BOTH, OTHER, HELD, UNSEEN)
        for half, make in (("sketch", drawing), ("photo", photo))
        for seed in range(16)
    }
    pack(folder / "data" / "first.tar.gz", pictures)
    (folder / "data" / "split.json").write_text(json.dumps({"train": [BOTH, OTHER], "val": [HELD], "unseen": [UNSEEN]}))
    more = folder / "data" / "more"
    sketch, shown = encoded(drawing("star", 64, 1)), encoded(photo("star", 64, 1))
    pack(
        more / "sketches.tar.gz",
        {f"tuberlin/sketch/{label}/{n}.png": sketch for label in (SKETCHED, NEAR, ZIGZAG) for n in range(6)},
    )
    pack(more / "ship.tar.gz", {f"pacs/photo/{SHOWN}/{n}.png": shown for n in range(6)})
    pack(more / "imagenet1k.tar.gz", {f"imagenet1k/photo/{FRAME}/{n}.png": shown for n in range(6)})
    flags = {"near_unseen": [NEAR], "near_val": [], "abstract": [ZIGZAG]}
    split = {"more": [SKETCHED, NEAR, ZIGZAG], "ship": [SHOWN], "flags": flags}
    (more / "split.json").write_text(json.dumps(split))
    line, rows = encoded(drawing("star", 64, 2)), ["class,leave_out"]
    drawings = {f"{name}/sketch/{BOTH}/{name}.png": line for name in ("mulberry", "openmoji")}
    for label, leave_out in LINES.items():
        drawings |= {f"mulberry/sketch/{label}/{n}.png": line for n in range(4)}
        rows.append(f"{label},{leave_out}")
    pack(folder / "data" / "more3" / "drawings.tar.gz", drawings)
    (folder / "data" / "more3" / "classes.csv").write_text("\n".join([*rows, f"{BOTH},"]) + "\n")
    horses = {f"pacs/sketch/{SHOWN}/{n}.png": sketch for n in range(6)}
    pack(folder / "data" / "more3" / "pacs_sketches.tar.gz", horses)
    return folder


@pytest.fixture(autouse=True)
def _data(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(shared))


def test_classes_with_sketches_or_photos_alone_are_beside_those_with_both() -> None:
    pictures = training_corpora(None, WIDE)
    assert set(pictures.training.labels) == {BOTH, OTHER}
    assert {p.label for p in pictures.further.sketches} == {SKETCHED}, "not what is near an unseen class, or abstract"
    kept = [f"{n}" for n in range(6) if not is_fresh(FRAME, f"{n}", FRESH_PHOTOS)]
    assert [p.path.stem for p in pictures.further.photos] == kept, "no training sees the fresh ones"
    assert training_corpora(None, PLAIN).further == Corpus((), ())


def test_a_training_sees_no_fresh_pictures_and_leaves_validation_classes_out_unless_it_names_them() -> None:
    pictures = training_corpora(None, PLAIN)
    assert pictures.validation is not None
    assert (set(pictures.training.labels), pictures.validation.labels) == ({BOTH, OTHER}, (HELD,))
    both = training_corpora(None, dataclasses.replace(PLAIN, split=("train", "val")))
    assert both.validation is None
    assert set(both.training.labels) == {BOTH, OTHER, HELD}
    for found in (pictures, both):
        assert split_fresh(found.training)[1] == Corpus((), ())


def test_pictures_for_the_shipped_network_alone_come_with_its_part() -> None:
    split = ("train", "val", "unseen", "more", "ship", "pacs")
    pictures = training_corpora(None, dataclasses.replace(WIDE, split=split))
    assert {p.label for p in pictures.further.sketches} == {SKETCHED, NEAR}, "and never what is abstract"
    assert {p.label for p in pictures.training.sketches if p.source == "pacs"} == {SHOWN}
    assert UNSEEN in pictures.training.labels
    assert pictures.validation is None
    without = training_corpora(None, dataclasses.replace(WIDE, split=split[:-1]))
    assert {p.label for p in without.further.photos} == {SHOWN}
    assert SHOWN not in without.training.labels


@pytest.mark.parametrize(
    ("parts", "labels"),
    [
        ((), {"abacus"}),
        (("val",), {"abacus", "eagle"}),
        (("val", "unseen", "ship"), {"abacus", "eagle", "wolf", UNSEEN}),
    ],
)
def test_line_drawings_near_what_is_measured_are_left_out(parts: tuple[str, ...], labels: set[str]) -> None:
    pictures = training_corpora(None, dataclasses.replace(WIDE, split=("train", "drawings", *parts)))
    lines = [p for p in (*pictures.training.sketches, *pictures.further.sketches) if p.source == "drawings"]
    assert {p.label for p in lines} == {*labels, BOTH}
    data = training_set(pictures.training, pictures.further)
    alone = {label for label, only in zip(data.classes, data.lines_alone.tolist(), strict=True) if only}
    assert alone == labels - set(parts and {UNSEEN})


def test_data_that_does_not_say_which_classes_are_near_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="flags"):
        too_near(tmp_path, ("train",))


def test_a_training_on_folders_leaves_out_every_fifth_class_and_what_is_held_out(tmp_path: Path) -> None:
    write_class_folders(tmp_path, seeds=range(10), shapes=SHAPES)
    found = training_corpora(tmp_path, PLAIN)
    assert found.validation is not None
    assert found.validation.labels == tuple(sorted(SHAPES))[::5]
    everything = training_corpora(tmp_path, dataclasses.replace(PLAIN, split=("train", "val")))
    assert (everything.training.labels, everything.validation) == (tuple(sorted(SHAPES)), None)
    kept = training_corpora(tmp_path, dataclasses.replace(PLAIN, hold_out=True)).training
    assert kept == hold_out(found.training)[0]
    assert len(kept.photos) == 0.8 * len(found.training.photos)
    assert training_corpora(tmp_path, dataclasses.replace(PLAIN, data_set="tuberlin")).training == found.training


def test_a_training_on_one_class_of_pairs_leaves_out_a_fifth_of_the_photos_with_their_sketches(tmp_path: Path) -> None:
    corpus = write_class_folders(tmp_path, seeds=range(10), shapes=SHAPES[:1], drawn=2)
    found = training_corpora(tmp_path, dataclasses.replace(PLAIN, samples=Samples(level="instance")))
    assert found.validation is not None
    parts = found.training, found.validation
    assert [(len(part.photos), len(part.sketches)) for part in parts] == [(8, 16), (2, 4)]
    assert [(find_drawn_photos(part) >= 0).all() for part in parts] == [True, True]
    assert {*found.training.photos, *found.validation.photos} == set(corpus.photos)
    write_class_folders(tmp_path / "unnamed", seeds=range(10), shapes=SHAPES[:1])
    with pytest.raises(ModelError, match="no sketch is named after a photo"):
        training_corpora(tmp_path / "unnamed", dataclasses.replace(PLAIN, samples=Samples(level="instance")))


def test_a_standard_split_is_trained_on_its_seen_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split, labels = "sketchy_100_25", ("ant", "ape", "apple", "bat", "bee", "bench", "swan")
    pictures = {
        f"sketchy/{half}/{label}/{seed:03}.png": encoded(make("star", 32, seed))
        for label in labels
        for half, make in (("sketch", drawing), ("photo", photo))
        for seed in range(12)
    }
    pictures |= {f"tuberlin/sketch/{label}/1.png": pictures["sketchy/sketch/ant/000.png"] for label in labels}
    pack(tmp_path / "data" / "sketchy.tar.gz", pictures)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    found = training_corpora(None, dataclasses.replace(PLAIN, split=(split,)))
    assert found.validation is not None
    assert found.training.labels == ("ape", "apple", "bat", "bee")
    assert found.validation.labels == ("ant", "bench")
    assert {p.source for p in found.training.sketches} == {"sketchy"}
    assert len(found.validation.of(["ant"]).sketches) == 10, "as in the protocols"
    assert split_fresh(found.training)[1] == Corpus((), ())
    with pytest.raises(ModelError, match="trains on sketchy_100_25 alone"):
        training_corpora(None, dataclasses.replace(PLAIN, split=(split, "thin")))


def test_the_prior_of_a_network_stands_on_the_sketches_of_its_training() -> None:
    pictures = training_corpora(None, WIDE)
    network = with_prior(tiny_network(), pictures.training, pictures.further, 1.5, 8.0)
    assert network.prior is not None
    assert 0 < len(network.prior.prototypes) == network.config.prototypes
    assert (network.prior.ret_weight, network.prior.relation_weight) == (1.5, 8.0)
    again = with_prior(network, pictures.training, Corpus((), ()), 1.0, 2.0)
    assert again.prior is not None
    assert again.prior.ret_weight == 1.0, "a prior that it has already is replaced"


def test_the_prior_counts_as_much_as_helps_new_things_and_hardly_harms_trained_ones() -> None:
    def picture(label: str, number: int) -> Picture:
        return Picture(Path(f"{label}-{number}.png"), label, "")

    photos = tuple(picture(label, n) for label in ("old", "new") for n in range(10))
    queries = (picture("old", 0), picture("new", 0))
    groups = {"trained": frozenset({"old"}), "unseen": frozenset({"new"})}
    large = Task(Corpus(queries, photos), "everything", groups)
    # Photos of what was trained are ahead by 2 for the one sketch, and by 1 for the other.
    priors = np.array([1.0] * 10 + [0.0] * 10)
    scores = np.array([[2.0] * 10 + [0.0] * 10, [1.0] * 10 + [0.0] * 10])
    weight, before, after = best_weight(scores, priors, (0.0, 1.5, 3.0), large)
    assert (weight, before, after) == (1.5, 0.0, 1.0)
    assert best_weight(scores, priors, (0.0, 3.0), large)[0] == 0.0, "trained things would be lost"
