import importlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sketch_search.model.metrics import FIGURES, category_metrics, target_ranks
from sketch_search.model.training.corpus import Corpus, Picture
from sketch_search.model.training.evaluation import figures
from sketch_search.model.training.evaluation.figures import LEVEL, bootstrap, measure, relevance
from sketch_search.model.training.tasks import SUBSET, Task
from tests.requirements import needs_shared_data
from tests.shared_data import golden


def picture(name: str, label: str, *also: str, source: str = "made") -> Picture:
    return Picture(Path(name), label, source, also)


def labelled(*labels: str, source: str = "made") -> tuple[Picture, ...]:
    return tuple(picture(f"{number}.png", label, source=source) for number, label in enumerate(labels))


SKETCHES = (picture("s1.png", "ant"), picture("s2.png", "bee"))
PHOTOS = (
    picture("p1.jpg", "ant"),
    picture("p2.jpg", "bee", "ant"),
    picture("p3.jpg", "bee"),
    picture("p4.jpg", "", "bee"),
    picture("p5.jpg", "cow"),
)
SCORES = np.array([[0.9, 0.1, 0.8, 0.7, 0.2], [0.9, 0.8, 0.1, 0.2, 0.3]])


def task(sizes: Mapping[str, NDArray[np.bool_]] | None = None) -> Task:
    groups = {"trained": frozenset({"ant"}), "unseen": frozenset({"bee"})}
    return Task(Corpus(SKETCHES, PHOTOS), "everything", groups, sizes or {})


def test_a_known_ranking_has_its_known_figures() -> None:
    sketches = labelled("ant", source="a") + labelled("bee", "fly", source="b")
    corpus = Corpus(sketches, labelled("ant", "bee", "ant", "bee"))
    scores = np.array([[4.0, 3.0, 3.0, 1.0], [4.0, 3.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    result = measure(Task(corpus, groups={SUBSET: frozenset({"bee"})}), {"rn": scores})
    # The ant finds hits at ranks 1 and 3, as equal scores keep the order of the gallery; the bee at 2 and 3, of which
    # the better precision counts for both; the fly has no photo.
    ant, bee = (1 + 2 / 3) / 2, 2 / 3
    rn = result.figures["rn"]
    assert rn["all"]["precision_100"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert result.groups == {"all": 2, "a": 1, "b": 1, "without namesake": 1}
    assert {group: row["map_all"] for group, row in rn.items()} == pytest.approx(
        {"all": (ant + bee) / 2, "a": ant, "b": bee, "without namesake": bee}
    )
    assert [p.label for p in result.queries] == ["ant", "bee"]
    plain = measure(Task(corpus, plain=True), {"rn": scores}).figures["rn"]["all"]
    assert plain["map_all"] == rn["all"]["map_all"]
    assert plain["plain_map_all"] == pytest.approx((ant + (1 / 2 + 2 / 3) / 2) / 2)
    assert plain["plain_precision_100"] == 2 / 100
    assert result.per_query["rn"]["map_all"] == pytest.approx([ant, bee])


def test_pictures_find_others_of_their_class_among_their_own_kind() -> None:
    corpus = Corpus(labelled("ant", "ant", "bee", "bee"), labelled("ant", "bee", "ant"))
    # Each picture is nearest to itself, which does not count. The sketches of ants lie together, those of bees apart.
    places = np.array([0.0, 0.1, 0.3, 5.0, 6.0, 7.0, 8.0])
    found = measure(Task(corpus, "within"), {"ret": -np.abs(places[:, None] - places[None])})
    ret = {group: row["map_all"] for group, row in found.figures["ret"].items()}
    assert ret["sketches by a sketch"] == pytest.approx((1 + 1 + 1 / 3 + 1) / 4)
    assert ret["photos by a photo"] == pytest.approx(1 / 2)
    assert found.groups == {"all": 10, "sketches by a sketch": 4, "photos by a photo": 2, "photos by a sketch": 4}


def test_groups_are_measured_apart_and_their_harmonic_mean_is_reported() -> None:
    result = measure(task(), {"ret": SCORES})
    groups = result.figures["ret"]
    assert result.groups == {"all": 2, "trained": 1, "unseen": 1}
    assert groups["all"]["hit_10"] == 1.0
    assert groups["trained"]["map_all"] == pytest.approx((1 + 2 / 5) / 2)
    a, b = groups["trained"]["map_all"], groups["unseen"]["map_all"]
    assert groups["harmonic mean"]["map_all"] == pytest.approx(2 / (1 / a + 1 / b))
    assert "harmonic mean" in result.table()


def test_precision_of_the_first_page_can_reach_one_where_few_photos_are_right() -> None:
    result = measure(task(), {"ret": relevance(Corpus(SKETCHES, PHOTOS)).astype(float)})
    assert result.figures["ret"]["all"]["precision_10"] == 1.0
    assert result.per_query["ret"]["precision_10"].tolist() == [1.0, 1.0]


def test_photos_whose_thing_has_another_size_are_left_out_of_the_figures_of_a_size() -> None:
    small = np.array([[True, False, False, False, False], [False, False, False, True, False]])
    result = measure(task(sizes={"small": small}), {"ret": SCORES})
    # The ant is first; of the bees the small one comes behind two wrong photos.
    assert result.figures["ret"]["covering small"]["map_all"] == pytest.approx((1 + 1 / 3) / 2)


@pytest.mark.parametrize("classes", [30, 7], ids=["queries", "classes with all their queries"])
def test_intervals_are_those_of_a_loop_over_resamples(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "RESAMPLES", 300)
    values, chance = np.random.default_rng(1).uniform(size=(30, 2)), np.random.default_rng(0)
    means = []
    for _ in range(300):
        times = chance.multinomial(classes, np.full(classes, 1 / classes))
        rows = [row for row in range(30) for _ in range(times[row % classes])]
        means.append([sum(values[row][column] for row in rows) / len(rows) for column in range(2)])
    groups = None if classes == 30 else [f"class{i % classes}" for i in range(30)]
    for column, found in enumerate(bootstrap(values, groups)):
        ordered = [mean[column] for mean in means]
        assert found.value == pytest.approx(values[:, column].mean())
        assert found.low == pytest.approx(np.quantile(ordered, (1 - LEVEL) / 2))
        assert found.high == pytest.approx(np.quantile(ordered, (1 + LEVEL) / 2))


def random_scores(seed: int, queries: int, gallery: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    draws = np.random.RandomState(seed)
    query_labels, gallery_labels = draws.randint(0, classes, queries), draws.randint(0, classes, gallery)
    same = query_labels[:, None] == gallery_labels[None]
    return -(draws.uniform(size=(queries, gallery)).astype(np.float32) - 0.25 * same), same


@pytest.mark.parametrize(
    ("scores", "relevant", "reason"),
    [
        ([[1.0], [float("nan")]], [[True], [False]], "NaN"),
        ([[1.0, 2.0]], [[False, False]], "no query"),
        ([[1.0, 2.0]], [[True]], "must both be"),
    ],
)
def test_scores_that_cannot_be_measured_are_refused(scores: object, relevant: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        category_metrics(scores, relevant)  # type: ignore[arg-type]


def test_the_rank_of_a_target_counts_what_stands_before_it() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2], [3.0, 2.0, 1.0, 0.0]])
    assert target_ranks(scores, np.array([3, 2, 0])).tolist() == [2, 2, 0]
    among = np.array([[True, False, False, True], [False, True, True, True], [True, False, True, True]])
    assert target_ranks(scores, np.array([3, 2, 3]), among).tolist() == [0, 1, 2]


@needs_shared_data
def test_the_figures_are_the_released_code_s() -> None:
    for case in json.loads(golden("metrics_reference.json").read_text())["cases"]:
        ours = category_metrics(*random_scores(*(case[name] for name in ("seed", "queries", "gallery", "classes"))))
        assert list(ours.values()) == pytest.approx([case[name] for name in FIGURES], abs=1e-6)


def test_programs_of_others_find_the_measures_by_their_short_name() -> None:
    assert importlib.import_module("model.metrics").category_metrics is category_metrics
