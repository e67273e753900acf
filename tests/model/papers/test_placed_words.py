from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from sketch_search.model.checkpoint import load_zse_network
from sketch_search.model.checkpoint.file import save_checkpoint
from sketch_search.model.commands import main
from sketch_search.model.papers.placed_words import PROTOTYPES, find_further_words
from tests.archives import pack
from tests.networks import tiny_network, vocabulary

# Classes of ImageNet and others, of which some photos show their own class.
KNOWN = ("goldfish", "tench", "hammer", *(f"thing {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"))
SHOWN = ("hammer", "thing_a", "thing_b", "thing_c", "thing_d")
FURTHER = ("alpaca", "kayak", "lantern", "melon")


def test_further_words_are_those_that_no_word_names_and_everyday_words_do_not_mean() -> None:
    things = [
        ("hammer", "mallet"),
        ("hammers of wood",),
        ("anvil", "anvil tool"),
        ("kitten",),
        ("egg", "eggs"),
        ("bottle cap",),
        ("eggs and ham",),
        ("eye", "\x07"),
        ("eyes",),
    ]
    further = {1: "hammers of wood", 2: "anvil", 4: "egg", 5: "bottle cap", 7: "eye"}
    assert find_further_words([("hammer",)], things) == {number: (name,) for number, name in further.items()}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Writes a checkpoint whose words lie where a linear map puts their text vectors; returns FURTHER's directions."""
    generator = torch.Generator().manual_seed(3)
    texts = F.normalize(torch.randn(len(KNOWN) + len(FURTHER), 16, generator=generator), dim=1)
    # Further words are like known ones.
    texts[len(KNOWN) :] = F.normalize(texts[3 : 3 + len(FURTHER)] + 0.4 * texts[len(KNOWN) :], dim=1)
    placed = 20 * texts @ torch.randn(16, 32, generator=generator)
    data = tmp_path / "data"
    (data / "more3").mkdir(parents=True)
    monkeypatch.setenv("SKETCH_SEARCH_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names = [name.replace(" ", "_") for name in (*KNOWN, *FURTHER)]
    (data / "class_words.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    np.save(data / "class_words_clip_text.npy", texts.numpy())
    save_file({"clip": torch.randn(1000, 16, generator=generator)}, data / "more3" / PROTOTYPES)
    pack(data / "some.tar.gz", {f"some/photo/{label}/1.jpg": b"" for label in SHOWN})
    network = tiny_network()
    known = vocabulary((1, -1), directions=placed[: len(KNOWN)], sketch_directions=np.zeros((2, 32)))
    save_checkpoint(network.vocabulary_replaced(known, tuple((name,) for name in KNOWN)), Path("in.safetensors"))
    return placed[len(KNOWN) :]


def test_words_without_photos_lie_by_text_vectors(world: torch.Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["place-words", "in.safetensors", "out.safetensors"]) == 0
    assert "2 words beside 29, of 4 things that have none" in capsys.readouterr().out
    before, after = (load_zse_network(Path(f"{name}.safetensors")) for name in ("in", "out"))
    assert after.config.placed == 2
    added = [names[0] for names in after.config.words[-2:]]
    assert after.config.words[:-2] == before.config.words
    assert before.vocabulary is not None
    assert after.vocabulary is not None
    directions = torch.from_numpy(after.vocabulary.directions)
    torch.testing.assert_close(directions[:-2], torch.from_numpy(before.vocabulary.directions), rtol=1e-3, atol=0.05)
    for name, direction in zip(added, directions[-2:], strict=True):
        cosines = F.cosine_similarity(direction[None], world)
        assert cosines.argmax() == FURTHER.index(name)
        assert cosines.max() > 0.6
    # A second time the placed words are replaced.
    assert main(["place-words", "out.safetensors", "again.safetensors"]) == 0
    assert load_zse_network(Path("again.safetensors")).config == after.config


def test_a_thing_keeps_its_word_if_words_are_placed_anew_or_else_is_nameless(world: torch.Tensor) -> None:
    network = load_zse_network(Path("in.safetensors"))
    assert network.vocabulary is not None
    words = (*network.config.words, ("marzipan",), *((name,) for name in FURTHER))
    drawn = (1, *range(len(KNOWN), len(words)))
    directions = F.pad(torch.from_numpy(network.vocabulary.directions), (0, 0, 0, 5))
    placed = vocabulary(drawn, 5, directions=directions, sketch_directions=np.zeros((len(drawn), 32)))
    save_checkpoint(network.vocabulary_replaced(placed, words), Path("named.safetensors"))
    assert main(["place-words", "named.safetensors", "out.safetensors"]) == 0
    after = load_zse_network(Path("out.safetensors")).config
    named = [after.words[number][0] if number >= 0 else None for number in after.drawn]
    assert named == [KNOWN[1], None, *(name if (name,) in after.words else None for name in FURTHER)]
    assert len(set(named) & set(FURTHER)) == after.placed == 2


def test_missing_inputs_of_placed_words_are_named(world: torch.Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(tiny_network(), Path("plain.safetensors"))
    assert main(["place-words", "plain.safetensors", "out.safetensors"]) == 2
    assert "has no vocabulary; give it one by sketch-search model words" in capsys.readouterr().err
    Path("data/some.tar.gz").unlink()
    assert main(["place-words", "in.safetensors", "out.safetensors"]) == 2
    assert "no word of the vocabulary has both photos and a text vector" in capsys.readouterr().err
    (Path("data/more3") / PROTOTYPES).unlink()
    assert main(["place-words", "in.safetensors", "out.safetensors"]) == 2
    assert f"there is no {Path.cwd() / 'data/more3' / PROTOTYPES}" in capsys.readouterr().err
