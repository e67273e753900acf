from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sketch_search.model.commands import main
from sketch_search.model.evaluation import encode_pictures
from sketch_search.model.matcher import load
from sketch_search.model.papers.scene_words import FEWEST, read_keywords
from tests.networks import tiny_checkpoint

# Photos with each keyword, a quarter of them held back: white ones, and blue ones.
PHOTOS = FEWEST + 8
COLOURS = {"fields": (240, 240, 240), "lakes": (20, 40, 160)}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes photos in two colours, with their keywords, and a checkpoint with one word."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    lines = []
    for keyword, colour in COLOURS.items():
        Path("photos", keyword).mkdir(parents=True)
        for number in range(PHOTOS):
            pixels = np.clip(generator.normal(colour, 12, (64, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(Path("photos", keyword, f"{keyword}{number}.png"))
            lines.append(f"{keyword}{number},sky, {keyword}\n")
    Path("train.csv").write_text("".join(lines[::2]) + "".join(lines[1::4]), encoding="utf-8")
    Path("test.csv").write_text("".join(lines[3::4]), encoding="utf-8")
    tiny_checkpoint(Path("in.safetensors"), words=(("dog",), ("cat",)))
    return Path("photos")


def scenes(*words: str, keywords: str = "train.csv") -> int:
    files = ["--photos", "photos", "--keywords", keywords, "--test", "test.csv"]
    return main(["scenes", "in.safetensors", "out.safetensors", *files, "--words", ",".join(words)])


def test_words_of_keywords_find_their_photos_and_change_no_other_word(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scenes("field", "lake") == 0
    held = PHOTOS // 4
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith(("| field", "| lake"))] == [
        f"| field | {held} | {held / 10:.1f} | 1.00 |",
        f"| lake | {held} | {held / 10:.1f} | 1.00 |",
    ]
    before, after = load("in.safetensors"), load("out.safetensors")
    assert after.words == (*before.words, "field", "lake")
    ret = encode_pictures(after, read_keywords(photos, Path("test.csv")), "photo")
    np.testing.assert_allclose(after.word_scores(ret, [0, 1]), before.word_scores(ret, [0, 1]), atol=1e-3)
    of_field, of_lake = after.word_scores(ret, [2, 3])
    # Each score is the logit of its word.
    assert (of_field[:held] > 0).all()
    assert (of_field[held:] < 0).all()
    assert ((of_lake > 0) == (of_field < 0)).all()


@pytest.mark.parametrize(
    ("words", "missing", "sentence"),
    [
        (("dog", "field"), False, "the vocabulary has these words already: dog"),
        (("field", "snow"), False, "fewer than 20 photos have these keywords: snow"),
        (("field",), True, "photos lacks 1 photos of other.csv, such as nowhere"),
    ],
)
def test_keywords_that_cannot_become_words_are_named(
    photos: Path, words: tuple[str, ...], missing: bool, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other.csv").write_text("nowhere,field\n", encoding="utf-8")
    assert scenes(*words, keywords="other.csv" if missing else "train.csv") == 2
    assert sentence in capsys.readouterr().err
    assert not Path("out.safetensors").exists()
