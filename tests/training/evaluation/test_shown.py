"""Weights of how probably photos show what is asked for are fitted on searches, and measured on others."""

import json
from pathlib import Path

import numpy as np
import pytest

from sketch_search.indexer.samples import draw_photo, draw_sketch
from sketch_search.model import Matcher, load
from sketch_search.model.engine import default_checkpoint, sigmoid
from sketch_search.training.commands import main
from sketch_search.training.corpus import Picture
from sketch_search.training.evaluation import shown
from sketch_search.training.evaluation.shown import Judged, collect, describe, fit, measure
from sketch_search.training.tasks import Drawn

DIFFUSED = shown._COLUMNS.index(("diffused", "one"))
ALWAYS = shown._COLUMNS.index(("always", "always"))


def searched(seed: int, photos: int = 60) -> Judged:
    """Photos that show a thing as probably as sigmoid(2 x - 1); in every second gallery none does."""
    chance = np.random.default_rng(seed)
    columns = np.zeros((photos, len(shown._COLUMNS)), np.float32)
    columns[:, ALWAYS], columns[:, DIFFUSED] = 1, chance.normal(size=photos) - 4 * (seed % 2)
    right = chance.random(photos) < sigmoid(2 * columns[:, DIFFUSED] - 1)
    return Judged("a drawing", columns, right, np.arange(photos) < 20, bool(right.any()))


def test_the_fit_finds_how_probably_photos_show_a_thing_and_the_measure_agrees() -> None:
    weights = fit([searched(seed) for seed in range(300)])
    assert weights["diffused"]["one"] == pytest.approx(2, abs=0.15)
    assert weights["always"]["always"] == pytest.approx(-1, abs=0.15)
    assert weights["box"] == {"single": 0, "several": 0}
    figures = measure([searched(seed) for seed in range(1000, 1200)], weights)
    assert figures["error"] < 0.02
    assert figures["photos"] == 200 * 20
    assert figures["ways"]["a drawing"]["searches"] == 200
    assert figures["ways"]["a drawing"]["denied"] > 0.5
    assert figures["ways"]["a drawing"]["wrongly"] < 0.3
    wrong = measure([searched(seed) for seed in range(1000, 1200)], {"always": {"always": 2.0}})
    assert wrong["error"] > 0.3
    assert "expected calibration error of 4,000 photos: 0.0" in describe(figures)


def test_searches_of_all_ways_are_judged_with_and_without_what_is_drawn(
    default: Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ("umbrella", "fish", "star", "bicycle")
    for kind in kinds:
        draw_sketch(kind).save(tmp_path / f"{kind}.png")
        for number in range(4):
            draw_photo(kind, number).save(tmp_path / f"{kind} {number}.jpg")
    photos = tuple(Picture(tmp_path / f"{kind} {n}.jpg", kind, "photos") for kind in kinds for n in range(4))
    sketches = [Picture(tmp_path / f"{kind}.png", kind, "sketches") for kind in kinds]
    boxes = ((0.05, 0.1, 0.45, 0.6), (0.55, 0.4, 0.95, 0.9))
    scene = tuple(Drawn(sketch, box) for sketch, box in zip(sketches, boxes, strict=False))
    galleries = [
        ("one", photos, [frozenset({photo.label}) for photo in photos], [(sketches[0],)]),
        ("scenes", photos, [frozenset({photo.label}) for photo in photos], [scene]),
    ]
    monkeypatch.setattr(shown, "_read_galleries", lambda folder: iter(galleries))
    judged = collect(default, most=5, half=0)
    ways = [(s.way, s.there) for s in judged]
    one = ["a drawing", "a word", "both", "quality=fast"]
    assert ways[:9] == [*((way, True) for way in [*one, "+"]), *((way, False) for way in one)]
    assert ways[9:] == [("several things", there) for there in (True, True, False, True)]
    assert [len(s.shows) for s in judged[:9]] == [16] * 5 + [12] * 4
    assert all(s.shows.sum() == 4 * s.there for s in judged)
    # What was drawn is of the first photos, by the signs that are served.
    assert judged[0].columns[judged[0].shows, DIFFUSED].min() > np.median(judged[0].columns[:, DIFFUSED])


def test_the_command_fits_a_checkpoint_or_only_measures_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    halves = list[int]()

    def searches(matcher: Matcher, most: int, half: int) -> list[Judged]:
        halves.append(half)
        return [searched(1000 * half + number) for number in range(20 * most)]

    monkeypatch.setattr(shown, "collect", searches)
    source, target = default_checkpoint(None), tmp_path / "fitted.safetensors"
    assert main(["shown", str(source), str(target), "--most", "5"]) == 0
    assert "expected calibration error" in capsys.readouterr().out
    assert load(target).calibration.shown["diffused"]["one"] == pytest.approx(2, abs=0.3)
    assert main(["shown", str(target), "--most", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["error"] < 0.1
    assert halves == [0, 1, 1], "others are measured than those of the fit"
