from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sketch_search.model.checkpoint.file import load_network, save_checkpoint
from sketch_search.model.commands import main
from sketch_search.model.engine import Tokens
from sketch_search.model.errors import ModelError
from sketch_search.model.evaluation import encode_pictures
from sketch_search.model.matcher import load
from sketch_search.model.papers.two_sided import class_places
from sketch_search.model.papers.vocabulary import (
    FURTHER_LESS,
    MOST_NONE,
    NONE_SHARE,
    Entry,
    fit_guesses,
    fit_words,
    imagenet_names,
    with_further_things,
    with_vocabulary,
    word_list,
    word_of,
)
from sketch_search.model.papers.word_vectors import WordVectors
from sketch_search.model.words import WordBook
from tests.learning import small_backbone, write_class_folders
from tests.networks import matcher_of, randn, tiny_network, with_words
from tests.pictures import SHAPES


def test_classes_and_imagenets_names_that_mean_the_same_are_one_word_and_what_is_no_word_is_left_out() -> None:
    phone = ("cellular telephone", "mobile phone")
    classes = [("goldfish", "Carassius auratus"), phone, ("crane",), ("crane", "hoist")]
    assert word_list(["mobile_phone", "fish", "t-shirt", "t_shirt", "..", "\x07"], classes) == (
        Entry(("mobile phone", "cellular telephone"), ("mobile_phone",), (1,)),
        Entry(("fish",), ("fish",)),
        Entry(("t-shirt",), ("t-shirt", "t_shirt")),
        Entry(("goldfish", "Carassius auratus"), (), (0,)),
        Entry(("crane", "hoist"), (), (2, 3)),
    )


def test_a_name_of_two_imagenet_classes_is_the_word_that_shows_it_or_none() -> None:
    classes = [("mouth organ", "harp"), ("harp",), ("red panda", "panda"), ("giant panda", "panda")]
    assert [entry.classes for entry in word_list(["harp", "panda"], classes)[:2]] == [(1,), ()]
    names = [entry.names for entry in word_list([], classes)]
    assert names == [("mouth organ",), ("harp",), ("red panda",), ("giant panda",)]
    words = word_list(["goldfish"], imagenet_names())
    assert sorted(index for entry in words for index in entry.classes) == list(range(1000))
    assert words[0].names[0] == "goldfish"


def test_a_drawn_head_is_a_person_and_no_headland_and_other_homonyms_are_no_words() -> None:
    book = WordBook([entry.names for entry in word_list(["person"], imagenet_names())])
    assert {label: word_of(label, book) for label in ("head", "face", "mole", "napkin", "sweet_potato")} == {
        "head": 0,
        "face": 0,
        "mole": -1,
        "napkin": -1,
        "sweet_potato": -1,
    }
    assert book.words[word_of("promontory", book)] == "promontory"


def test_synonyms_of_a_word_are_further_names_of_it() -> None:
    things = [
        ("sofa", "couch", "lounge"),
        ("bat", "bat animal"),
        ("purse", "handbag", "pocketbook"),
        ("rubber", "galosh"),
        ("lounge", "waiting room"),
        ("glasses", "spectacles", "eye_glasses", "\x07"),
    ]
    words = word_list(["couch", "bat", "eye_glasses"], [("purse",), ("pocketbook",), ("eraser", "rubber")], things)
    assert [entry.names for entry in words] == [
        # "Lounge" is the name of another thing, too.
        ("couch", "sofa"),
        ("bat",),
        ("eye glasses", "glasses", "spectacles"),
        # A handbag may be either of these two.
        ("purse",),
        ("pocketbook",),
        # A galosh is a rubber in another sense.
        ("eraser", "rubber"),
    ]
    assert word_list(["cat"], (), [("cat", *(f"cat{n}" for n in range(30)))])[0].names[15:] == ("cat14",)


def test_words_point_to_the_photos_that_show_them() -> None:
    # Dogs and hens have a class, the others are known to the ViT alone.
    kinds = torch.arange(80) % 4
    ret = torch.nn.functional.one_hot(kinds, 8) + 0.2 * randn(80, 8, seed=2)
    beliefs = torch.full((80, 2), 0.5)
    beliefs[kinds == 2] = torch.tensor([0.99, 0.01])
    beliefs[kinds == 3] = torch.tensor([0.01, 0.99])
    classes = [("dog", "hen", None, None)[kind] for kind in kinds.tolist()]
    entries = tuple(Entry((label,), (label,)) for label in ("dog", "hen"))
    entries += (Entry(("cat",), (), (0,)), Entry(("cow",), (), (1,)))
    directions, biases = fit_words(ret, classes, beliefs, entries)
    logits = torch.nn.functional.normalize(ret, dim=1) @ directions.T + biases
    labelled = kinds < 2
    assert torch.equal(logits[labelled, :2].argmax(dim=1), kinds[labelled])
    assert torch.equal(logits[~labelled, 2:].argmax(dim=1) + 2, kinds[~labelled])


def test_things_lie_at_the_mean_of_their_photos_or_where_their_word_says_or_nowhere() -> None:
    photos = ("dog", "dog", "hen", "7_cow")
    ret = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])
    vectors = WordVectors(
        "w", ("dog", "hen", "cow", "calf"), torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0.1, 1]])
    )
    places = class_places(("calf", "dog", "yeti"), photos, ret, vectors)
    torch.testing.assert_close(places[1], torch.tensor([1.0, 1.0, 0.0]) / 2**0.5)
    assert (places[0] @ ret.T / ret.norm(dim=1)).argmax() == 3
    assert not places[2].any()
    assert not class_places(("calf",), photos, ret, None).any()


def test_guesses_are_as_sure_as_they_are_often_right() -> None:
    # There are a hundred sketches, all alike: 60 are of the first word, 20 of the second, and 20 of none.
    logits = torch.tensor([2.0, 1.0]).expand(100, 2)
    drawn = torch.tensor([0] * 60 + [1] * 20 + [-1] * 20)
    scale, none = fit_guesses(logits, drawn)
    found = torch.cat([scale * logits[0], torch.tensor([none])]).softmax(dim=0)
    torch.testing.assert_close(found, torch.tensor([0.6, 0.2, 0.2]), atol=0.01, rtol=0)
    known = fit_guesses(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1]))
    assert 0 < known[0] <= 100
    assert -MOST_NONE <= known[1] <= MOST_NONE


def test_none_is_the_best_guess_for_a_small_share_of_the_sketches_if_all_show_something() -> None:
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(0, 5, (201,), generator=generator)
    logits = torch.randn(201, 5, generator=generator) + 3 * torch.nn.functional.one_hot(drawn, 5)
    scale, none = fit_guesses(logits.clone(), drawn)
    unknown = torch.cat([scale * logits, torch.full((201, 1), none)], dim=1).softmax(dim=1)[:, -1]
    assert (unknown > 0.5 + 1e-4).sum() == round(NONE_SHARE * 200)


def test_a_vocabulary_finds_photos_and_learns_guesses_from_other_sketches(
    tmp_path: Path,
) -> None:
    corpus = write_class_folders(tmp_path, seeds=range(6), shapes=SHAPES[:3])
    before, labels = with_words(tiny_network(), (("dog",),)), sorted(SHAPES[:3])
    beliefs = torch.zeros(len(corpus.photos), 0)
    drawn, others = corpus.sketches[::2], corpus.sketches[1::2]
    network = with_vocabulary(before, corpus.photos, beliefs, others, drawn)
    matcher = matcher_of(network, variants=1)
    assert list(matcher.words) == [matcher.words[number] for number in network.config.drawn] == labels
    best = matcher.word_scores(encode_pictures(matcher, corpus.photos, "photo"), range(3)).argmax(axis=1)
    assert [corpus.photos[row].label for row in best] == labels
    assert network.vocabulary is not None
    sketches = network.vocabulary.things(encode_pictures(matcher, drawn, "sketch")).argmax(axis=1)
    assert [labels[number] for number in sketches] == [sketch.label for sketch in drawn]
    # Guesses need sketches to calibrate them on, and things to choose among.
    alone = [sketch for sketch in drawn if sketch.label == SHAPES[0]]
    for calibrating, learned in (((), ()), (others, alone)):
        assert with_vocabulary(before, corpus.photos, beliefs, calibrating, learned).config.drawn == ()


def test_further_things_of_line_drawings_are_guessed_and_lead_no_search_and_move_no_other_guess(tmp_path: Path) -> None:
    corpus = write_class_folders(tmp_path, seeds=range(6), shapes=SHAPES[:3])
    lines = [replace(sketch, source="drawings") for sketch in corpus.sketches if sketch.label == SHAPES[0]]
    others = [sketch for sketch in corpus.sketches if sketch.label != SHAPES[0]]
    before = with_vocabulary(tiny_network(), corpus.photos, torch.zeros(len(corpus.photos), 0), (), others)
    nameless = [replace(sketch, label="unheard of") for sketch in lines]
    network = with_further_things(before, [*others, *lines, *nameless])
    first, vocabulary = before.vocabulary, network.vocabulary
    assert first is not None
    assert vocabulary is not None
    words = [network.config.words[number][0] for number in network.config.drawn]
    assert words == [*sorted(SHAPES[1:3]), SHAPES[0]]
    np.testing.assert_allclose(vocabulary.sketch_directions[:2], first.sketch_directions, rtol=1e-6)
    np.testing.assert_array_equal(vocabulary.places, np.pad(first.places, ((0, 1), (0, 0))))
    matcher = matcher_of(network, variants=1)
    shows = vocabulary.things(encode_pictures(matcher, corpus.sketches, "sketch"))
    shows[:, 2] += FURTHER_LESS
    assert [words[number] for number in shows.argmax(axis=1)] == [sketch.label for sketch in corpus.sketches]
    with pytest.raises(ModelError, match="other things"):
        with_further_things(before, lines)
    # A thing that had no word when its guess was learned may have one by now.
    unnamed = replace(first, drawn=np.array([-1, *before.config.drawn[1:]]))
    nameless_first = before.vocabulary_replaced(unnamed, before.config.words)
    assert with_further_things(nameless_first, [*others, *lines]).config.drawn == network.config.drawn


def test_the_command_gives_a_checkpoint_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_class_folders(tmp_path / "mine", seeds=range(3), shapes=SHAPES[:3])
    save_file(small_backbone(), tmp_path / "vit.safetensors")
    network = tiny_network()
    save_checkpoint(network, tmp_path / "in.safetensors", {"origin": "somewhere"})
    (tmp_path / "all.toml").write_text('preset = "zse-ti16"\nsplit = ["train", "val"]\n')
    command = ["words", "in.safetensors", "--backbone", "vit.safetensors", "--data", "mine", "--recipe", "all.toml"]
    assert main([*command, "out.safetensors"]) == 0
    assert "a vocabulary of 3 words, from 9 photos" in capsys.readouterr().out
    assert main(["info", "out.safetensors"]) == 0
    told = capsys.readouterr().out
    assert "vocabulary:          3 words" in told
    assert "somewhere" in told
    found = load_network(tmp_path / "out.safetensors")
    for name, tensor in network.half().float().state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    assert len(load(tmp_path / "out.safetensors").guesses(Tokens.of_ret(np.ones((1, 32), np.float32)))) <= 3
    assert main([*command, "nowhere/out.safetensors"]) == 2
    assert "no folder nowhere" in capsys.readouterr().err


def test_names_with_equal_vectors_are_synonyms() -> None:
    names = ("chaise_longue", "couch", "tree", "sofa", "daybed")
    vectors = WordVectors("w", names, torch.tensor([[1.0], [2.0], [3.0], [2.0], [1.0]]))
    assert vectors.synonyms() == [("chaise longue", "daybed"), ("couch", "sofa")]
