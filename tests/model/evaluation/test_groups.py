from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.datasets.corpus import Corpus, Picture
from model.datasets.tasks import GroupedTask
from model.evaluation import measure_groups, relevance


def picture(name: str, label: str, *also: str) -> Picture:
    return Picture(Path(name), label, "made", also)


SKETCHES = (picture("s1.png", "ant"), picture("s2.png", "bee"))
PHOTOS = (
    picture("p1.jpg", "ant"),
    picture("p2.jpg", "bee", "ant"),
    picture("p3.jpg", "bee"),
    picture("p4.jpg", "", "bee"),
    picture("p5.jpg", "cow"),
)
SCORES = np.array([[0.9, 0.1, 0.8, 0.7, 0.2], [0.9, 0.8, 0.1, 0.2, 0.3]])


def task(**more: object) -> GroupedTask:
    groups = {"trained": frozenset({"ant"}), "unseen": frozenset({"bee"})}
    return GroupedTask(Corpus(SKETCHES, PHOTOS), groups, ("trained", "unseen"), **more)  # type: ignore[arg-type]


def test_a_photo_is_right_for_every_class_that_it_shows() -> None:
    assert relevance(Corpus(SKETCHES, PHOTOS)).tolist() == [
        [True, True, False, False, False],
        [False, True, True, True, False],
    ]


def test_groups_are_measured_apart_and_their_harmonic_mean_is_told() -> None:
    result = measure_groups(task(), {"ret": SCORES})
    groups = result.figures["ret"]
    assert result.groups == {"all": 2, "trained": 1, "unseen": 1}
    assert groups["all"]["hit_10"] == 1.0
    assert groups["trained"]["map_all"] == pytest.approx((1 + 2 / 5) / 2)
    a, b = groups["trained"]["map_all"], groups["unseen"]["map_all"]
    assert groups["harmonic mean"]["map_all"] == pytest.approx(2 / (1 / a + 1 / b))
    assert "harmonic mean" in result.table()


def test_precision_of_the_first_page_can_reach_one_where_few_photos_are_right() -> None:
    result = measure_groups(task(), {"ret": relevance(Corpus(SKETCHES, PHOTOS)).astype(float)})
    assert result.figures["ret"]["all"]["precision_10"] == 1.0
    assert result.per_query.values["ret"]["precision_10"].tolist() == [1.0, 1.0]


def test_photos_whose_thing_has_another_size_are_left_out_of_the_figures_of_a_size() -> None:
    small = np.array([[True, False, False, False, False], [False, False, False, True, False]])
    result = measure_groups(task(sizes={"small": small}), {"ret": SCORES})
    # The ant is first; of the bees the small one comes behind two wrong photos.
    assert result.figures["ret"]["covering small"]["map_all"] == pytest.approx((1 + 1 / 3) / 2)
