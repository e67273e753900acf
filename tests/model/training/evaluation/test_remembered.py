import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sketch_search import model
from sketch_search.model.engine import default_checkpoint
from sketch_search.model.images import Drawing, find_ink
from sketch_search.model.search import encode_things, gallery_of, search_things
from sketch_search.model.terminal import BAD_INPUT
from sketch_search.model.training.commands import main
from sketch_search.model.training.corpus import DATA_VARIABLE, Box, Picture, Scene
from sketch_search.model.training.evaluation.remembered import PENS, colour_of, on_paper
from sketch_search.model.training.tasks import Drawn, choose_remembered, read_remembered
from tests.networks import tiny_checkpoint
from tests.pictures import drawing, encoded, photo
from tests.shared_data import pack

LEFT, RIGHT, SMALL = (0.0, 0.25, 0.4, 0.75), (0.6, 0.25, 1.0, 0.75), (0.0, 0.0, 0.1, 0.3)


@pytest.fixture(scope="module")
def matcher() -> model.Matcher:
    return model.load()


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
    script = (Path(__file__).parents[4] / "service" / "page" / "drawing" / "things.js").read_text(encoding="utf-8")
    pens = re.findall(r'^  "?([\w ]+)"?: "#(\w{6})",$', script, re.MULTILINE)
    assert [tuple(bytes.fromhex(pen)) for name, pen in pens if name not in {"Black", "Grey", "Light grey"}] == list(
        PENS
    )


def test_a_liked_photo_of_one_thing_leaves_photos_of_both_things_before_its_own_kind(
    matcher: model.Matcher, sketches: tuple[Picture, ...]
) -> None:
    papers = [on_paper(Drawn(sketch, box)) for sketch, box in zip(sketches, (LEFT, RIGHT), strict=True)]
    drawn = Drawing.joined([matcher.preprocessing.drawing(paper) for paper in papers])
    things = encode_things(matcher, drawn)
    directions = matcher.thing_directions(things)
    shown = matcher.encode(
        np.stack([matcher.prepare(photo(shape), "photo") for shape in ("circle", "star", "star", "cross")]), "photo"
    )
    regions = np.zeros((4, 64, directions.shape[1]), np.float32)
    regions[:3, 8 * 3 + 1] = directions[0]
    regions[0, 8 * 3 + 6] = directions[1]
    gallery = gallery_of(replace(shown, regions=regions, colours=np.zeros((4, 64, 3), np.float32)), matcher)
    ranked = search_things(gallery, matcher, things, 20).photos
    assert ranked.ids[0] == 0
    liked = search_things(gallery, matcher, things, 20, liked=ranked[ranked.ids == 1]).photos
    assert liked.ids.tolist()[:3] == [1, 0, 2]


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
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    cache = "sketch_search.model.training.corpus.platformdirs.user_cache_path"
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
    assert json.loads(capsys.readouterr().out)["scenes"] == 8
    for way in (*scenes.values(), *colours.values()):
        assert way["all"]["gallery_acc_20"] == 1
        assert 1 <= way["all"]["median_rank"] <= 4
    assert all({"kind_before", "precision_10"} < way["all"].keys() for way in colours.values())


def test_scenes_are_searched_for_among_further_photos_too(folder: Path) -> None:
    more = folder / "more"
    more.mkdir()
    # One has the name of an ordinary photo, and may be it.
    for name in ("0.png", "4.png", "5.jpg", "notes.txt"):
        (more / name).write_bytes(encoded(photo("cross", 64)))
    task = read_remembered("scenes", "unseen", (more,))
    assert [picture.path.name for picture in task.photos] == ["0.png", "1.png", "2.png", "3.png", "4.png", "5.jpg"]
    assert task.kinds[4] == frozenset()
    assert task.about[-1] == "among 6 photos"


def test_the_command_teaches_a_checkpoint_to_divide_drawings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketch_search.model.training.papers.parting.EPOCHS", 1)
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
