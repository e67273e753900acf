"""Weights of terms are fitted on searches whose right photos are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sketch_search.indexer.samples import draw_photo
from sketch_search.model import Matcher
from sketch_search.model.engine import TERMS, UNFITTED, Calibration, default_checkpoint, from_json, read_metadata
from sketch_search.model.limits import Places
from sketch_search.model.ranking import logits
from sketch_search.model.search import encode_things, gallery_of, search_things
from sketch_search.training.commands import main
from sketch_search.training.corpus import Picture
from sketch_search.training.evaluation import terms
from sketch_search.training.evaluation.remembered import on_paper
from sketch_search.training.evaluation.scoring import encode_pictures
from sketch_search.training.evaluation.terms import (
    FACTORS,
    Asked,
    Searched,
    describe,
    fit,
    matrix_of,
    save_calibration,
    search,
    weights_of,
    without_guess,
)
from sketch_search.training.tasks import Drawn
from tests.pictures import drawing

DIFFUSED, BOX, PRESENCE = (TERMS.index(term) for term in ("diffused", "box", "presence"))
BACKED = FACTORS.index("backed")


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "_STEPS", (1.0, 0.1, 200))


@pytest.fixture(scope="module")
def searches() -> list[Searched]:
    """Of 60 photos a sixth is right. Pairs tell them apart, boxes only if the first photos back them."""
    generator, made = np.random.default_rng(0), list[Searched]()
    for number in range(16):
        right, backed = np.arange(60) < 10, float(number % 2)
        columns = np.zeros((60, len(TERMS)), np.float32)
        columns[:, DIFFUSED] = generator.standard_normal(60) + 1.5 * right
        columns[:, PRESENCE] = generator.random(60) < np.where(right, 0.9, 0.1 if backed else 0.9)
        facts = np.array([{"always": 1.0, "backed": backed}.get(factor, 0.0) for factor in FACTORS], np.float32)
        made.append(Searched(f"backed {backed}", columns, facts, right, np.arange(60) == 3))
    return made


def precision(searches: list[Searched], weights: terms.Matrix) -> float:
    found = [s.right[np.argsort(-(s.terms @ (weights @ s.facts)))[:10]].mean() for s in searches]
    return float(np.mean(found))


def test_what_tells_right_photos_gets_weight_and_what_may_not_move_stays(searches: list[Searched]) -> None:
    start = matrix_of({"diffused": {"always": 1.0}})
    weights = fit(searches, start, ("drawing",))
    assert weights[PRESENCE, BACKED] > 0.5
    assert precision(searches, weights) > precision(searches, start) + 0.05
    moved = {(TERMS[term], FACTORS[factor]) for term, factor in np.argwhere(weights != start)}
    assert moved <= {(term, factor) for term, factors in terms.PARTS["drawing"].items() for factor in factors}
    assert (fit(searches, start, ("liked",)) == start).all(), "nothing is liked"


def test_no_group_loses_for_the_sake_of_others(searches: list[Searched]) -> None:
    """Where boxes mislead, though they are backed, few searches hold the weight that many would raise."""
    turned = [
        replace(s, group="turned", terms=s.terms * np.where(np.arange(len(TERMS)) == PRESENCE, -3, 1)) for s in searches
    ]
    start, mixed = matrix_of({"diffused": {"always": 1.0}}), [*searches[1::2], *searches[1::2], *turned[1:6:2]]
    weights = fit(mixed, start, ("drawing",))
    for group in ("backed 1.0", "turned"):
        of_group = [s for s in mixed if s.group == group]
        assert precision(of_group, weights) >= precision(of_group, start)


def test_a_term_that_costs_what_the_others_find_alone_loses_its_weight(searches: list[Searched]) -> None:
    misled = [replace(s, terms=s.terms * np.where(np.arange(len(TERMS)) == PRESENCE, -1, 1)) for s in searches[1::2]]
    alone = {"diffused": {"always": 1.0}}
    start = matrix_of(alone | {"presence": {"backed": 3.0}})
    best = precision(misled, matrix_of(alone))
    assert precision(misled, start) < best - 0.1
    assert precision(misled, fit(misled, start)) >= best - 0.01


def test_what_does_nothing_goes_back(searches: list[Searched]) -> None:
    none = [replace(s, terms=s.terms * (np.arange(len(TERMS)) == DIFFUSED)) for s in searches]
    start = matrix_of(UNFITTED)
    assert (fit(none, start) == start).all()


@pytest.mark.parametrize("pen", [None, (200, 30, 30)])
def test_what_is_fitted_is_what_is_served(
    default: Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pen: tuple[int, ...] | None
) -> None:
    kinds = ("umbrella", "fish", "star", "bicycle")
    photos = [(kind, draw_photo(kind, seed)) for kind in kinds for seed in range(4)]
    for number, (_, photo) in enumerate(photos):
        photo.save(tmp_path / f"{number}.png")
    pictures = [Picture(tmp_path / f"{number}.png", kind, "photos") for number, (kind, _) in enumerate(photos)]
    gallery = gallery_of(encode_pictures(default, pictures, "photo", boxes=True), default)
    drawing("star", 200, 1).save(tmp_path / "sketch.png")
    sketch = Picture(tmp_path / "sketch.png", "star", "sketches")
    right = np.array([kind == "star" for kind, _ in photos])
    placed = Drawn(sketch, (0.5, 0.5, 0.9, 0.9))
    asked = Asked("stars", placed if pen else sketch, right, 9, pen or (0, 0, 0))
    weights = matrix_of(default.calibration.weights)
    found = {s.group.removeprefix("stars, "): s for s in search(gallery, default, asked)}
    assert set(found) == {"drawing", "+", "word"} | ({"anywhere"} if pen else set())
    picture = on_paper(placed, pen) if pen else default.open(sketch.path, "sketch")
    things = encode_things(default, default.preprocessing.drawing(picture), variants=None)
    ways: dict[str, Places] = {"drawing": "auto", "anywhere": "no"}
    for way, places in list(ways.items())[: 2 if pen else 1]:
        served = search_things(gallery, default, things, 20, places).scores(len(photos))
        scores = found[way].terms @ (weights @ found[way].facts)
        np.testing.assert_allclose(np.sort(logits(served, 1e-38)), np.sort(scores), atol=0.01)
    guessed, hidden = (matcher.guesses(things[0].tokens) for matcher in (default, without_guess(default, "star")))
    assert "star" in [guess.word for guess in guessed]
    assert "star" not in [guess.word for guess in hidden]
    monkeypatch.setattr(terms, "read_asked", lambda most: [(tuple(pictures), [asked])])
    groups = [s.group for s in terms.collect({"ours": default, "blind": default}, 1, 1)]
    untaught = set() if pen else {"stars, drawing, hidden"}
    assert {*groups} >= {f"{name}: {way}" for name in ("ours", "blind") for way in {"stars, drawing", *untaught}}


def test_further_networks_can_be_fitted_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "--help"]) == 0
    assert "--beside FILE" in capsys.readouterr().out


def test_the_tables_have_each_group_and_each_term(searches: list[Searched]) -> None:
    start = matrix_of({"diffused": {"always": 1.0}})
    weights = start.copy()
    weights[PRESENCE, BACKED] = 3.0
    lines = describe(searches, start, weights).splitlines()
    first = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert first == ["searches", "backed 0.0", "backed 1.0", "without", "diffused", "presence"]
    without = next(line for line in lines if line.startswith("| presence | backed 3 | "))
    unchanged, lost = without.split(" | ")[2:4]
    assert unchanged.startswith("+0.000")
    assert lost.startswith("-0.")


def test_only_the_weights_of_a_checkpoint_change(tmp_path: Path) -> None:
    source, target = default_checkpoint(None), tmp_path / "ranked.safetensors"
    weights = weights_of(matrix_of(UNFITTED | {"pair": {"always": 1.5}}))
    kept = from_json(Calibration, read_metadata(source)["calibration"], "calibration")
    save_calibration(source, target, replace(kept, weights=weights))
    before, after = load_file(source), load_file(target)
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    old, new = read_metadata(source), read_metadata(target)
    assert {name for name in old if old[name] != new[name]} == {"calibration"}
    changed = from_json(Calibration, new["calibration"], "calibration")
    assert changed == replace(kept, weights=UNFITTED | {"pair": {"always": 1.5}})
