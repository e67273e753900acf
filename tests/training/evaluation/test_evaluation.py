import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from sketch_search import model
from sketch_search.model.engine import Modality, SeenClasses, Tokens
from sketch_search.model.terminal import BAD_INPUT
from sketch_search.model.torch.checkpoint import load_zse_network, save_checkpoint
from sketch_search.training.commands import main
from sketch_search.training.commands.measurements import clip_matcher
from sketch_search.training.corpus import DATA_VARIABLE, Corpus, Picture, read_class_folders
from sketch_search.training.evaluation import answers
from sketch_search.training.evaluation.figures import Interval, measure
from sketch_search.training.tasks import Task, read_task
from tests.networks import (
    READING,
    matcher_of,
    saved_clip,
    tiny_checkpoint,
    tiny_network,
    vocabulary,
    write_class_folders,
)
from tests.pictures import SHAPES, encoded, photo
from tests.requirements import needs_shared_data
from tests.shared_data import pack

FOUR = SHAPES[:4]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations of a folder compare its pictures with those of this variable, which takes longer than all else."""
    monkeypatch.delenv(DATA_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_class_folders(folder / "data", seeds=range(3), shapes=FOUR)
    tiny_checkpoint(folder / "tiny.safetensors")
    return folder


@pytest.fixture
def folder(tmp_path: Path, alone: None, made: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


def test_json_has_the_figures_and_their_intervals(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--weights", folder / "tiny.safetensors", "--data", folder / "data", "--every", "3,2")
    result = printed(capsys, *asked)
    assert set(result["methods"]["rn"]["all"]) == {"map_all", "map_200", "precision_100", "precision_200"}
    assert (result["queries"], result["photos"], result["classes"], result["protocol"]) == (4, 6, 4, "category")
    assert {"checkpoint", "checkpoint_sha256", "dtype", "variants"} < set(result)
    for method, groups in result["methods"].items():
        for figure, value in groups["all"].items():
            interval = result["intervals"]["methods"][method][figure]
            assert interval["value"] == pytest.approx(value)
            assert interval["low"] <= value <= interval["high"]


@pytest.mark.usefixtures("alone")
def test_clicks_are_measured_by_searches_of_drawn_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_class_folders(tmp_path, seeds=range(4), shapes=FOUR, drawn=1)
    command = ["--data", str(tmp_path), "--protocol", "clicks"]
    clicks = printed(capsys, *command, "--variants", "1")["methods"]
    others = ["-", "- 3 times", "- another kind", "the word", "a right guess"]
    assert list(clicks) == ["the drawing", "+", *others]
    for click, groups in clicks.items():
        figures = groups["all"]
        # All 16 photos are on the page, but for the disliked ones.
        assert figures["gallery_acc_20"] == 1 - figures["lost"]
        assert figures["precision_20"] <= 1, click
        assert figures["acc_1"] <= figures["acc_5"]
    assert all(clicks[click]["all"]["lost"] == 0 for click in ("the drawing", "+", "the word"))
    assert main(["evaluate", "--weights", str(tiny_checkpoint(tmp_path / "tiny.safetensors")), *command]) == BAD_INPUT
    assert "has no diffusion or no vocabulary" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--protocol", "fresh"), "goes without --data"),
        (("--protocol", "cross-data-set"), "name their split with --trained-on"),
        (("--split", "sketchy_104_21"), "none of the classes asked for"),
        (("--protocol", "fine-grained"), "(sketch NAME-1.png or NAME_1.png of photo NAME.jpg)"),
        (("--trained-on", "sketchy"), "--trained-on is for --protocol cross-data-set"),
        (("--by-class", "--protocol", "fine-grained"), "--by-class is for category protocols"),
        (("--every", "3"), "two numbers from 1 on with a comma between"),
        (("--network", "resnet"), "name clip:MODEL"),
        (("--network", "clip:"), "name clip:MODEL"),
        (("--network", "clip:ViT-B-32/nowhere"), "neither a file nor an open_clip model with weights"),
        (("--network", "clip:ViT-B-32@nowhere"), "name an existing file"),
        (("--network", "clip:."), "is not a saved open_clip model"),
    ],
)
def test_bad_combinations_and_missing_data_are_reported(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], reason: str
) -> None:
    command = ["evaluate", "--weights", str(folder / "tiny.safetensors"), "--data", str(folder / "data")]
    assert main([*command, *arguments]) == 2
    assert reason in capsys.readouterr().err


@needs_shared_data
def test_the_unseen_protocols_have_as_many_pictures_as_the_data_gives() -> None:
    zero, fine = read_task("zero-shot", "unseen").corpus, read_task("fine-grained", "unseen").corpus
    assert (len(zero.sketches), len(zero.photos)) == (640, 1008)
    assert (fine.photos, {p.source for p in fine.sketches}) == (zero.photos, {"sketchy"})


def test_a_checkpoint_gets_the_best_weight_of_the_fusion(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = tiny_network()
    bad = replace(network.calibration, methods=("rn", "ret", "fused"), fusion=-50.0, variants=1)
    bad_file, good_file, data = folder / "bad.safetensors", folder / "good.safetensors", folder / "data"
    save_checkpoint(network.with_calibration(bad).half(), bad_file)
    assert main(["calibrate", str(bad_file), str(good_file), "--data", str(data)]) == 0
    assert "mAP@all on validation classes: {'rn': " in capsys.readouterr().out
    assert load_zse_network(good_file).calibration.variants == 1
    before, after = (printed(capsys, "--weights", file, "--data", data) for file in (bad_file, good_file))
    assert after["methods"]["fused"]["all"]["map_all"] > before["methods"]["fused"]["all"]["map_all"]
    assert after["methods"]["ret"] == before["methods"]["ret"]


def test_clip_is_measured_by_its_own_image_vectors(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = saved_clip(folder / "clip", READING)
    result = printed(capsys, "--network", f"clip:{clip}", "--data", folder / "data")
    assert result["checkpoint"] == f"clip:{clip}"
    assert set(result["methods"]) == {"ret"}
    corpus = read_class_folders(folder / "data")
    matcher = clip_matcher(f"clip:{clip}", None)
    plain = open_clip.create_model(f"local-dir:{clip}").eval()

    def vectors(pictures: Sequence[Picture], modality: Modality) -> torch.Tensor:
        inputs = np.stack([matcher.prepare(matcher.open(picture.path, modality), modality) for picture in pictures])
        with torch.no_grad():
            return torch.nn.functional.normalize(plain.encode_image(torch.from_numpy(inputs)), dim=1)

    scores = (vectors(corpus.sketches, "sketch") @ vectors(corpus.photos, "photo").T).numpy()
    expected = measure(Task(corpus), {"ret": scores}).figures["ret"]["all"]
    assert result["methods"]["ret"]["all"] == pytest.approx(expected, abs=1e-6)
    validated = clip_matcher(f"clip:{clip}", corpus)
    assert validated.calibration.diffusion is not None


def test_a_zero_shot_protocol_is_refused_for_seen_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = SeenClasses(frozenset({FOUR[0].title(), "egg"}), frozenset({FOUR[1]}))
    save_checkpoint(tiny_network(), folder / "seen.safetensors", known.note())
    save_checkpoint(tiny_network(), folder / "new.safetensors", SeenClasses(frozenset({"egg"})).note())
    command = ["evaluate", "--data", str(folder / "data"), "--weights"]
    assert main([*command, str(folder / "seen.safetensors")]) == 0
    left = ", ".join(sorted(FOUR[2:]))
    told = f"seen.safetensors was trained on 1 of the 4 classes and chosen on 1: 2 zero-shot ({left})"
    assert told in capsys.readouterr().out
    result = printed(capsys, *command[1:], folder / "seen.safetensors")
    assert result["groups"] == {"all": 12, "zero-shot": 6}
    assert result["seen"]["seen.safetensors"]["zero_shot"] == sorted(FOUR[2:])
    zero_shot = ["--protocol", "zero-shot"]
    assert main([*command, str(folder / "seen.safetensors"), *zero_shot]) == 2
    assert "--protocol zero-shot is for classes that a network has not seen" in capsys.readouterr().err
    assert main([*command, str(folder / "seen.safetensors"), *zero_shot, "--allow-seen"]) == 0
    assert main([*command, str(folder / "new.safetensors"), *zero_shot]) == 0
    assert "new.safetensors has seen none of the 4 classes: all are zero-shot" in capsys.readouterr().out
    assert main([*command, str(folder / "tiny.safetensors"), *zero_shot]) == 0
    assert "tiny.safetensors does not say which classes it has seen" in capsys.readouterr().out


def test_copies_do_not_count(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for half in ("sketch", "photo"):
        for label, name in zip(FOUR, ("aeroplane", "pears", "my sword", "egg"), strict=True):
            (folder / "data" / half / label).rename(folder / "data" / half / name)
    seen = SeenClasses(frozenset({"airplane", "pear", "sword"}))
    save_checkpoint(tiny_network(), folder / "seen.safetensors", seen.note())
    own = {f"first/sketch/sword/{n}.png": f.read_bytes() for n, f in enumerate((folder / "data").rglob("my sword/*"))}
    own["first/photo/sword/new.png"] = encoded(photo("star", 64, 1))
    pack(folder / "shared" / "data" / "first.tar.gz", own)
    monkeypatch.setenv(DATA_VARIABLE, str(folder / "shared"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    command: list[str | Path] = ["--weights", folder / "seen.safetensors", "--data", folder / "data"]
    found = printed(capsys, *command)["seen"]["seen.safetensors"]
    assert (found["trained"], found["zero_shot"]) == (["aeroplane", "pears"], ["egg", "my sword"])
    assert found["near"] == [["my sword", "sword"]]
    assert (found["compared"], found["copies"]) == (7, 6)
    assert main(["evaluate", *map(str, command)]) == 0
    said = capsys.readouterr().out
    assert "by names, synonyms and plurals; 6 of these pictures are among its 7 training pictures at hand" in said
    assert "check names near to seen ones: my sword (sword)" in said


def test_checkpoints_are_compared_side_by_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tiny_checkpoint(folder / "other.safetensors", seed=1)
    both = ("--weights", folder / "tiny.safetensors", "--weights", other, "--data", folder / "data")
    result = printed(capsys, *both)
    assert [one["checkpoint"] for one in result["checkpoints"]] == ["tiny.safetensors", "other.safetensors"]
    assert result["compared_with"] == "tiny.safetensors"
    assert set(result["differences"]["methods"]) == {"other.safetensors: rn", "other.safetensors: ret"}
    less = result["differences"]["methods"]["other.safetensors: ret"]["map_all"]
    names = ("other.safetensors: ret", "tiny.safetensors: ret")
    figures = (result["methods"][name]["all"]["map_all"] for name in names)
    assert less["value"] == pytest.approx(next(figures) - next(figures))
    assert less["low"] <= less["value"] <= less["high"]
    assert main(["evaluate", *map(str, both), "--intervals", "queries"]) == 0
    table = capsys.readouterr().out
    assert "\nless tiny.safetensors by the same method\n" in table
    assert "\n95% intervals by " in table


def test_costs_are_those_of_the_recipe_or_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.safetensors")
    small = tmp_path / "small.toml"
    small.write_text('base = "zse/tiny"\n[network]\nimage_size = 64\n')
    anchors = tmp_path / "anchors.toml"
    sizes = "[network.sizes]\nembed_dim = 32\ndepth = 4\nnum_heads = 2\n"
    anchors.write_text(f'base = "sketch-an-anchor/baseline"\n[network]\nimage_size = 64\n{sizes}')
    assert main(["costs", str(checkpoint), str(small), str(anchors), "--json"]) == 0
    tiny, recipe, one_vector = json.loads(capsys.readouterr().out).values()
    assert tiny["M parameters"] == pytest.approx(sum(p.numel() for p in tiny_network().parameters()) / 1e6)
    assert recipe["M parameters"] > tiny["M parameters"]
    for found in (tiny, recipe, one_vector):
        assert 2 < found["G to learn from a photo"] / found["G a photo"] < 3.1
        assert found["ms a photo"] > 0
    assert min(tiny["ms a pair"], recipe["ms a pair"]) > 0
    assert one_vector["ms a pair"] == one_vector["M a pair"] == 0
    selected = ["--set", "network.keep_sketch=0.5", "--set", "network.keep_photo=0.5"]
    assert main(["costs", str(small), *selected, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[str(small)]["M a pair"] < 0.5 * recipe["M a pair"]
    assert main(["costs", "clip-at/category"]) == 2
    assert "depends on its backbone; name a checkpoint" in capsys.readouterr().err
    assert main(["costs", str(checkpoint)]) == 0
    assert "| network | M parameters |" in capsys.readouterr().out


FIRST, SECOND = SHAPES[:2]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    corpus = write_class_folders(tmp_path, seeds=range(2), shapes=SHAPES[:2])
    return Task(corpus, groups={FIRST: frozenset({FIRST}), SECOND: frozenset({SECOND})})


def test_guesses_are_right_where_they_name_the_class(task: Task) -> None:
    def matcher(*biases: float) -> model.Matcher:
        known = vocabulary(directions=torch.zeros(2, 32), biases=torch.tensor(biases), guess_none=-1e4)
        network = tiny_network().vocabulary_replaced(known, ((FIRST,), ("sea lion",)))
        return matcher_of(network)

    found = answers.measure_guesses(matcher(1.0, 0.5), task)
    count = len(task.corpus.sketches)
    assert found.groups == {"all": count, FIRST: count // 2, SECOND: count // 2}
    right, wrong = ({"named": share, "first": share, "among": share, "shown": 2.0} for share in (1.0, 0.0))
    assert found.figures["guesses"][FIRST] == right
    assert found.figures["guesses"][SECOND] == wrong
    assert answers.measure_guesses(matcher(0.5, 1.0), task).figures["guesses"][FIRST]["first"] == 0.0
    assert found.table().splitlines()[3].split()[-4:] == ["0.5000"] * 3 + ["2.0000"]


@pytest.mark.parametrize(("barn", "house", "guessed"), [(0.35, 0.3, "house"), (0.6, 0.05, "barn")])
def test_words_for_one_thing_are_guessed_together(barn: float, house: float, guessed: str) -> None:
    chances = torch.tensor([barn, house, 0.2]).log()
    none = math.log(0.8 - barn - house)
    known = vocabulary(directions=torch.zeros(3, 32), biases=chances, guess_scale=1.0, guess_none=none)
    matcher = matcher_of(tiny_network().vocabulary_replaced(known, (("barn",), ("house",), ("monkey",))))
    guesses = matcher.guesses(Tokens.of_ret(np.ones((1, 32), np.float32)), 0.1)
    assert [guess.word for guess in guesses] == [guessed, "monkey"]
    assert [guess.probability for guess in guesses] == pytest.approx([0.65, 0.2])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_class_folders(tmp_path_factory.mktemp("composites"), seeds=range(3))


def test_the_default_network_points_at_the_thing_drawn_and_a_random_one_does_not(corpus: Corpus) -> None:
    def right(matcher: model.Matcher, canvases: int) -> Interval:
        found = answers.measure_parts(matcher, corpus, corpus, canvases)
        assert list(found) == ["canvases"]
        assert (len(found["canvases"].queries), len(found["canvases"].corpus.labels)) == (canvases, 9)
        return found["canvases"].intervals("queries")["matches"]["right"]

    of_default, senseless = right(model.load(), 18), right(matcher_of(tiny_network()), 50)
    assert answers.CHANCE < of_default.low <= of_default.value <= of_default.high
    assert senseless.low < answers.CHANCE < senseless.high
    assert senseless.value < 0.4
