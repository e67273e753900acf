import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageColor

from sketch_search.model.matcher import Matcher
from sketch_search.training.commands import illustrations, main
from sketch_search.training.commands.illustrations import COLOURS, Seen, compare, look
from tests.documents import CHECKOUT, read
from tests.networks import matcher_of, tiny_checkpoint, tiny_network, write_class_folders
from tests.pictures import SHAPES

GRID, SIDE = 4, 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("illustrated")
    write_class_folders(folder, seeds=range(3), shapes=SHAPES[:4], drawn=1)
    tiny_checkpoint(folder / "tiny.safetensors")
    return folder


def pictures(data: Path, modality: str, label: str = SHAPES[0]) -> list[Path]:
    return sorted((data / modality / label).iterdir())


def seen(data: Path, matcher: Matcher) -> tuple[Seen, list[Seen]]:
    photos = [look(matcher, path, "photo") for path in pictures(data, "photo")]
    return look(matcher, pictures(data, "sketch")[0], "sketch"), photos


def cell(picture: np.ndarray, number: int) -> np.ndarray:
    top, left = number // GRID * SIDE, number % GRID * SIDE
    return picture[top : top + SIDE, left : left + SIDE]


def test_a_rebuilt_sketch_has_the_closest_patch_of_all_photos_at_each_token(data: Path) -> None:
    matcher = matcher_of(tiny_network())
    sketch, photos = seen(data, matcher)
    explanations = compare(matcher, sketch, photos)
    made = np.asarray(illustrations.draw_rebuilt(sketch, photos, explanations))
    correspondence = np.stack([explanation.correspondence for explanation in explanations])
    for row, here in enumerate(explanations[0].sketch_cells.tolist()):
        photo, column = np.unravel_index(correspondence[:, row].argmax(), correspondence[:, row].shape)
        there = int(explanations[photo].photo_cells[column])
        assert np.array_equal(cell(made, here), cell(photos[photo].pixels, there))
    left = set(range(GRID**2)) - set(explanations[0].sketch_cells.tolist())
    assert left
    assert all(cell(made, number).min() >= 170 for number in left)


def test_the_patches_that_cross_attention_selects_stand_behind_those_of_the_encoder(data: Path) -> None:
    widths = []
    for keep_cross in (1.0, 0.5):
        matcher = matcher_of(tiny_network(keep_cross=keep_cross))
        sketch, photos = seen(data, matcher)
        explanation = compare(matcher, sketch, photos)[0]
        drawn = np.asarray(illustrations.draw_selection(sketch, photos[0], explanation))
        widths.append(drawn.shape[1] // (GRID * SIDE))
    shown, kept = drawn[-GRID * SIDE :, -GRID * SIDE :], explanation.photo_cells.tolist()
    same = [number for number in range(GRID**2) if np.array_equal(cell(shown, number), cell(photos[0].pixels, number))]
    assert widths == [3, 4]
    assert same == kept


def test_regions_are_apart_and_have_their_colour_in_every_picture(data: Path) -> None:
    matcher = matcher_of(tiny_network())
    sketch, photos = seen(data, matcher)
    explanations = compare(matcher, sketch, photos)
    first, second = illustrations.strongest_regions(explanations[0])
    assert max(abs(first % GRID - second % GRID), abs(first // GRID - second // GRID)) > 1
    assert (
        illustrations.region_at(explanations[0], ((second % GRID + 0.6) / GRID, (second // GRID + 0.4) / GRID))
        == second
    )
    of_photo = explanations[0].correspondence[explanations[0].sketch_cells.tolist().index(second)]
    assert explanations[0].best_of(second, 2) == explanations[0].photo_cells[np.argsort(-of_photo)[:2]].tolist()
    drawn = np.asarray(illustrations.draw_matches(sketch, photos[:2], explanations[:2], [first, second]))
    for number in range(3):
        left = number * (GRID * SIDE + 8)
        found = {tuple(colour) for colour in drawn[:, left : left + GRID * SIDE].reshape(-1, 3).tolist()}
        # Of two matches in one place, the later frame hides the first.
        assert found & {ImageColor.getrgb(colour) for colour in COLOURS[:2]}


def test_every_command_draws_by_any_network(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sketch, photos = pictures(data, "sketch")[0], data / "photo" / SHAPES[0]
    weights = ("--weights", str(data / "tiny.safetensors"))
    search, out = (str(sketch), str(photos)), tmp_path / "out.png"
    widths = {}
    for command in (
        ("rebuild", *search),
        ("rebuild", *search, "--nearest", "2"),
        ("shared-matches", *search, "--training", str(data / "photo" / SHAPES[1])),
        ("first-photos", "--data", str(data)),
        ("first-photos", "--data", str(data), *weights),
        ("first-photos", "--data", str(data), "--protocol", "fine-grained"),
        ("scatter", "--data", str(data), *weights),
    ):
        assert main([*command, *weights, "-o", str(out)]) == 0, capsys.readouterr().err
        with Image.open(out) as picture:
            widths[command] = picture.width
    assert main(["illustrate", *search, *weights, "-o", str(tmp_path / "all")]) == 0
    names = {"attention", "correspondence", "influence", "rebuilt", "selection"}
    assert {path.stem for path in (tmp_path / "all").iterdir()} == names
    assert main(["illustrate", *search, *weights, "-o", str(tmp_path / "all"), "--region", "0.5,0.5"]) == 0
    assert main(["illustrate", *search, *weights, "-o", str(tmp_path / "all"), "--region", "0.5"]) == 2
    assert "a place is x,y with both from 0 to 1, such as 0.5,0.2, not '0.5'" in capsys.readouterr().err
    alone, beside = (widths["first-photos", "--data", str(data), *second] for second in ((), weights))
    assert beside == 2 * alone + 8, "two networks stand beside each other"
    assert list(widths.values())[-1] == 2 * 480 + 8
    assert main(["rebuild", str(sketch), str(tmp_path / "all.jpg"), "-o", str(out)]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["rebuild", str(sketch), str(tmp_path / "empty"), "-o", str(out)]) == 2
    assert "there are no photos in" in capsys.readouterr().err


PAGE = CHECKOUT / "docs" / "networks.md"


def test_notebooks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_class_folders(tmp_path / "mine", seeds=range(4), shapes=("circle", "star"))
    (tmp_path / "weights").symlink_to(CHECKOUT / "weights")
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    with matplotlib.rc_context({"backend": "agg"}):
        for code in re.findall(r"```python\n(.*?)```", read(PAGE), re.DOTALL):
            exec(compile(code, str(PAGE), "exec"), known)
    assert known["sketch"].shape == (3, 224, 224)
    assert -2.12 <= known["pixels"].min() < known["pixels"].max() <= 2.65
    assert known["drawn"].patches.shape == (1, 16, 192)
    assert known["drawn"].ret.shape == tuple(known["one"].ret.shape) == (1, 192)
    assert known["scores"].shape == (1, len(corpus.photos)) == (1, *known["logits"].shape)
    assert 0 < known["scores"].min() < known["scores"].max() < 1
    assert known["heads"].shape[1:] == (16, 16)
    with Image.open("attention.png") as figure:
        assert figure.size == (1400, 250)
    assert capsys.readouterr().out.split()[0] in corpus.labels
