import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sketch_search import model
from sketch_search.model.engine import default_checkpoint
from sketch_search.model.images import find_ink
from sketch_search.model.metrics import FIGURES, category_metrics, target_ranks
from sketch_search.model.terminal import BAD_INPUT
from sketch_search.training.commands import main
from sketch_search.training.corpus import DATA_VARIABLE, Box, Corpus, Picture, Scene
from sketch_search.training.evaluation import figures
from sketch_search.training.evaluation.figures import LEVEL, bootstrap, measure, relevance
from sketch_search.training.evaluation.remembered import PENS, colour_of, on_paper
from sketch_search.training.tasks import SUBSET, Drawn, Task, choose_remembered, read_remembered
from tests.networks import tiny_checkpoint
from tests.pictures import drawing, encoded, photo
from tests.requirements import needs_shared_data
from tests.shared_data import golden, pack


def picture(name: str, label: str, *also: str, source: str = "made") -> Picture:
    return Picture(Path(name), label, source, also)


def labelled(*labels: str, source: str = "made") -> tuple[Picture, ...]:
    return tuple(picture(f"{number}.png", label, source=source) for number, label in enumerate(labels))


SKETCHES = (picture("s1.png", "ant"), picture("s2.png", "bee"))
_SHOWN = (("ant",), ("bee", "ant"), ("bee",), ("", "bee"), ("cow",))
PHOTOS = tuple(picture(f"p{number}.jpg", *labels) for number, labels in enumerate(_SHOWN, 1))
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


LEFT, RIGHT, SMALL = (0.0, 0.25, 0.4, 0.75), (0.6, 0.25, 1.0, 0.75), (0.0, 0.0, 0.1, 0.3)


@pytest.fixture
def sketches(tmp_path: Path) -> tuple[Picture, ...]:
    found = []
    for label, shape in (("cat", "circle"), ("dog", "star")):
        path = tmp_path / f"{label}.png"
        drawing(shape, 64).save(path)
        found.append(Picture(path, label, "tuberlin"))
    return tuple(found)


def scene(*boxes: tuple[str, Box]) -> Scene:
    return Scene(Picture(Path("photo.jpg"), "", "voc2007"), boxes, {})


def test_scenes_are_large_things_of_two_kinds_and_colours_of_each(sketches: tuple[Picture, ...]) -> None:
    scenes = [
        scene(("cat", LEFT), ("dog", RIGHT)),
        scene(("cat", LEFT), ("dog", RIGHT), ("dog", SMALL)),  # a thing of 3% is not remembered
        scene(("cat", LEFT), ("cat", RIGHT)),
        scene(("cat", LEFT), ("bus", RIGHT)),  # nobody has drawn a bus
        scene(("cat", LEFT), *[("dog", RIGHT)] * 4),
    ]
    of_scenes = [choose_remembered(scenes, sketches, "scenes", half) for half in (0, 1)]
    assert [[query.photo for query in half] for half in of_scenes] == [[0], [1]]
    assert of_scenes[1][0].things == (Drawn(sketches[0], LEFT), Drawn(sketches[1], RIGHT))
    of_colours = [choose_remembered(scenes, sketches, "colours", half) for half in (0, 1)]
    assert [[query.photo for query in half] for half in of_colours] == [[0, 0, 2, 2, 4, 4, 4, 4, 4], [1, 1, 3]]


def test_a_sketch_is_drawn_as_large_as_its_box_allows_by_a_pen(sketches: tuple[Picture, ...]) -> None:
    paper = on_paper(Drawn(sketches[0], RIGHT), (200, 50, 43))
    _, (top, bottom, left, right) = find_ink(paper)
    found = np.array([left, top, right, bottom]) / paper.width
    assert found == pytest.approx([0.6, 0.3, 1.0, 0.7], abs=0.02), "a circle keeps its shape, in the middle"
    assert tuple(np.asarray(paper).reshape(-1, 3).min(axis=0)) == (200, 50, 43)


def test_the_colour_of_a_thing_is_that_of_the_middle_of_its_box(tmp_path: Path, sketches: tuple[Picture, ...]) -> None:
    picture, file = Image.new("RGB", (200, 100)), tmp_path / "photo.png"
    picture.paste((10, 120, 250), (140, 40, 180, 60))
    picture.save(file)
    assert colour_of(Picture(file, "cat", ""), Drawn(sketches[0], (0.6, 0.3, 1.0, 0.7))) == (10, 120, 250)


def test_the_pens_are_the_coloured_ones_of_the_page() -> None:
    script = (Path(__file__).parents[3] / "service" / "page" / "drawing" / "things.js").read_text(encoding="utf-8")
    pens = re.findall(r'(\w[\w ]*)"?: "#(\w{6})"', script.partition("PENS = {")[2].partition("}")[0])
    assert [tuple(bytes.fromhex(pen)) for name, pen in pens if name not in {"Black", "Grey", "Light grey"}] == list(
        PENS
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Optional data with sketches of two things, and four ordinary photos of both."""
    data = tmp_path / "data"
    for label, shape in (("cat", "circle"), ("dog", "star")):
        files = {f"tuberlin/sketch/{label}/{n:03}.png": encoded(drawing(shape, 64, n)) for n in range(30)}
        pack(data / f"{label}.tar.gz", files)
    (data / "split.json").write_text(json.dumps({"train": ["cat", "dog"], "val": [], "unseen": []}))
    for name in ("ship", "sketches"):
        pack(data / "more" / f"{name}.tar.gz", {"tuberlin/sketch/cat/more.png": encoded(drawing("circle", 64))})
    boxes = {f"{n}.png": [["cat", False, *LEFT], ["dog", False, *RIGHT]] for n in range(4)}
    shown = {f"voc2007/{name}": encoded(photo("star", 64, n)) for n, name in enumerate(boxes)}
    pack(data / "more" / "everyday.tar.gz", shown | {"voc2007/labels.json": json.dumps(boxes).encode()})
    square = [[[0, 100, 100], [0, 0, 100]], [[100, 0, 0], [100, 100, 0]]]
    pack(data / "more2" / "strokes.tar.gz", {"strokes/cat.jsonl.gz": gzip.compress(json.dumps(square).encode())})
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    cache = "sketch_search.training.corpus.platformdirs.user_cache_path"
    monkeypatch.setattr(cache, lambda _: tmp_path / "cache")
    return tmp_path


def test_each_way_to_draw_and_to_search_has_its_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for protocol in ("scenes", "colours"):
        assert main(["evaluate", "--protocol", protocol, "--split", "unseen", "--json"]) == 0
        found[protocol] = json.loads(capsys.readouterr().out)
    scenes, colours = (found[protocol]["methods"] for protocol in ("scenes", "colours"))
    ways = ["things apart", "words alone", "things apart, places=no", "one picture", "one picture, things=one"]
    ways += ["all but one thing", "all but one thing, and its word"]
    clicks = [f"things apart, {click}" for click in ("+, all kinds", "+, some kinds", "a word")]
    assert list(scenes) == ways + clicks
    pens = ("black pen", "nearest pen", "exact colour")
    assert list(colours) == [f"{pen}{places}" for pen in pens for places in ("", ", places=no")]
    assert found["scenes"]["groups"] == {"all": 2}
    assert {"rand", "right_number"} < scenes["one picture"]["all"].keys()
    assert scenes["things apart"]["all"]["cpu_ms"] > 0
    assert main(["evaluate", "--protocol", "parting", "--split", "unseen", "--json"]) == 0
    parting = json.loads(capsys.readouterr().out)
    strokes = parting["methods"]["stroke by stroke"]
    assert (parting["groups"]["scenes"], strokes["one thing"]["right_number"]) == (8, 1)
    assert 0 <= strokes["scenes"]["rand"] <= 1
    for way in (*scenes.values(), *colours.values()):
        assert way["all"]["gallery_acc_20"] == 1
        assert 1 <= way["all"]["median_rank"] <= 4
    assert all({"kind_before", "precision_10"} < way["all"].keys() for way in colours.values())


def test_scenes_are_searched_for_among_further_photos_too(folder: Path) -> None:
    more = folder / "more"
    more.mkdir()
    for name in ("0.png", "4.png", "5.jpg", "notes.txt"):
        (more / name).write_bytes(encoded(photo("cross", 64)))
    task = read_remembered("scenes", "unseen", (more,))
    assert [picture.path.name for picture in task.photos] == ["0.png", "1.png", "2.png", "3.png", "4.png", "5.jpg"]
    assert task.kinds[4] == frozenset()
    assert task.about[-1] == "among 6 photos"


def test_the_command_teaches_a_checkpoint_to_divide_drawings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketch_search.training.papers.parting.EPOCHS", 1)
    target = folder / "parting.safetensors"
    assert main(["parting", str(default_checkpoint()), str(target), "--drawings", "16"]) == 0
    before, after = model.load(), model.load(target)
    assert after.photo_sha256 == before.photo_sha256, "an index serves both"
    assert before.engine.parting is not None
    assert after.engine.parting is not None
    assert not np.array_equal(before.engine.parting.weights["pairs"], after.engine.parting.weights["pairs"])


def test_impossible_evaluations_of_scenes_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = ["evaluate", "--protocol", "scenes"]
    weights = tiny_checkpoint(folder / "tiny.safetensors")
    for arguments, said in (
        (["--split", "train"], "has the halves val and unseen, not train"),
        (["--every", "2,2"], "allows only --split"),
        (["--weights", str(weights)], "has no regions"),
    ):
        assert main([*scenes, *arguments]) == BAD_INPUT
        assert said in capsys.readouterr().err
