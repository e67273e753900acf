from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from sketch_search.model import load
from sketch_search.model.commands import main as model
from sketch_search.model.engine import Floats, Projection, Tokens, Vocabulary, unit
from sketch_search.model.engine.parting import SIDE
from sketch_search.model.torch.checkpoint import load_network, load_zse_network, save_checkpoint
from sketch_search.model.words import WordBook
from sketch_search.training.commands import main
from sketch_search.training.evaluation.scoring import encode_pictures
from sketch_search.training.papers.parting import BATCH, Example, train_parting
from sketch_search.training.papers.placed_words import (
    FEWEST,
    PROTOTYPES,
    find_further_words,
    name_plainly,
    read_keywords,
)
from sketch_search.training.papers.vocabulary import (
    Entry,
    imagenet_names,
    with_regions,
    with_vocabulary,
    word_list,
    word_of,
)
from sketch_search.training.tasks import MOST_DRAWN
from tests.networks import (
    matcher_of,
    small_backbone,
    tiny_checkpoint,
    tiny_network,
    vocabulary,
    with_words,
    write_class_folders,
)
from tests.pictures import SHAPES, drawing, encoded
from tests.shared_data import pack


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


def test_a_drawn_head_is_a_person_and_no_headland_and_other_homonyms_are_no_words() -> None:
    book = WordBook([entry.names for entry in word_list(["person"], imagenet_names())])
    assert [word_of(label, book) for label in ("head", "face", "mole", "napkin", "sweet_potato")] == [0, 0, -1, -1, -1]
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


def test_a_vocabulary_finds_photos_and_learns_guesses_from_other_sketches(tmp_path: Path) -> None:
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


def test_words_are_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_class_folders(tmp_path / "mine", seeds=range(3), shapes=SHAPES[:3])
    save_file(small_backbone(), tmp_path / "vit.safetensors")
    network = tiny_network()
    save_checkpoint(network, tmp_path / "in.safetensors", {"origin": "somewhere"})
    (tmp_path / "all.toml").write_text('preset = "zse-ti16"\nsplit = ["train", "val"]\n')
    command = ["words", "in.safetensors", "--backbone", "vit.safetensors", "--data", "mine", "--recipe", "all.toml"]
    assert main([*command, "out.safetensors"]) == 0
    assert "a vocabulary of 3 words, from 9 photos" in capsys.readouterr().out
    assert model(["info", "out.safetensors"]) == 0
    told = capsys.readouterr().out
    assert "vocabulary:          3 words" in told
    assert "somewhere" in told
    found = load_network(tmp_path / "out.safetensors")
    for name, tensor in network.half().float().state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    assert len(load(tmp_path / "out.safetensors").guesses(Tokens.of_ret(np.ones((1, 32), np.float32)))) <= 3
    assert main([*command, "nowhere/out.safetensors"]) == 2
    assert "no folder nowhere" in capsys.readouterr().err


# Classes of ImageNet and others, of which some photos show their own class.
KNOWN = ("goldfish", "tench", "hammer", *(f"thing {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"))
SHOWN = ("hammer", "thing_a", "thing_b", "thing_c", "thing_d")
FURTHER = ("alpaca", "kayak", "lantern", "melon")


def test_further_words_are_those_that_no_word_names_and_everyday_words_do_not_mean() -> None:
    things = [("hammer", "mallet"), ("hammers of wood",), ("anvil", "anvil tool"), ("kitten",), ("egg", "eggs")]
    things += [("bottle cap",), ("eggs and ham",), ("eye", "\x07"), ("eyes",)]
    further = {1: "hammers of wood", 2: "anvil", 4: "egg", 5: "bottle cap", 7: "eye"}
    assert find_further_words([("hammer",)], things) == {number: (name,) for number, name in further.items()}


def test_the_name_that_people_use_comes_first_and_a_kite_is_no_bird() -> None:
    words = (("beacon", "lighthouse"), ("kite",), ("cat", "puss"))
    assert name_plainly(words, {"lighthouse", "kite", "cat"}) == (
        ("lighthouse", "beacon"),
        ("kite bird",),
        ("cat", "puss"),
    )


def test_what_people_draw_most_has_a_word_in_the_default() -> None:
    book = load().book
    unknown = [name for name in MOST_DRAWN if not book.meant(name)]
    assert len(MOST_DRAWN) > 300
    assert unknown == []
    assert book.words[book.meant("kite")[0]] == "kite"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Writes a checkpoint whose words lie where a linear map puts their text vectors; returns FURTHER's directions."""
    generator = torch.Generator().manual_seed(3)
    texts = F.normalize(torch.randn(len(KNOWN) + len(FURTHER), 16, generator=generator), dim=1)
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
    # Nobody has a text vector of an anchor, which is drawn as a hammer is.
    drawn = {"anchor": SHAPES[0], "hammer": SHAPES[0], "goldfish": SHAPES[1]}
    pack(
        data / "more3" / "drawings.tar.gz",
        {f"icons/sketch/{name}/1.png": encoded(drawing(shape)) for name, shape in drawn.items()},
    )
    (data / "more3" / "classes.csv").write_text("class,leave_out\n" + "".join(f"{name},\n" for name in drawn))
    network = tiny_network()
    known = vocabulary((1, -1), directions=placed[: len(KNOWN)], sketch_directions=np.zeros((2, 32)))
    save_checkpoint(network.vocabulary_replaced(known, tuple((name,) for name in KNOWN)), Path("in.safetensors"))
    return placed[len(KNOWN) :]


def test_words_without_photos_lie_by_text_vectors_or_by_sketches(
    world: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["place-words", "in.safetensors", "out.safetensors"]) == 0
    before, after = (load_zse_network(Path(f"{name}.safetensors")) for name in ("in", "out"))
    count = after.config.placed
    assert f"{count} words beside 29, of 4 things that have none" in capsys.readouterr().out
    *added, anchor = (names[0] for names in after.config.words[-count:])
    # Half of the further words are placed, and what many people draw.
    assert len(added) in (2, 3)
    assert "lantern" in added
    assert anchor == "anchor"
    assert after.config.words[:-count] == before.config.words
    assert before.vocabulary is not None
    assert after.vocabulary is not None
    directions = torch.from_numpy(after.vocabulary.directions)
    first = torch.from_numpy(before.vocabulary.directions)
    torch.testing.assert_close(directions[:-count], first, rtol=1e-3, atol=0.05)
    for name, direction in zip(added, directions[-count:], strict=False):
        cosines = F.cosine_similarity(direction[None], world)
        assert cosines.argmax() == FURTHER.index(name)
        assert cosines.max() > 0.6
    to_hammer, to_goldfish = (
        F.cosine_similarity(directions[-1], first[KNOWN.index(name)], dim=0) for name in ("hammer", "goldfish")
    )
    assert to_hammer > to_goldfish
    assert main(["place-words", "out.safetensors", "again.safetensors"]) == 0
    assert load_zse_network(Path("again.safetensors")).config == after.config


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


def test_keywords_find_their_photos_and_change_no_other_word(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scenes("field", "lake") == 0
    held = PHOTOS // 4
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith(("| field", "| lake"))] == [
        f"| field | {held} | {held / 10:.3f} | 1.000 |",
        f"| lake | {held} | {held / 10:.3f} | 1.000 |",
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


KEPT = 8


def guessing(width: int, summary: int) -> Vocabulary:
    """Two words and two things, the first of which every sketch is guessed to show."""
    nothing = np.zeros((2, width), np.float32)
    directions = np.zeros((2, summary), np.float32)
    biases = np.array([50, -50], np.float32)
    return vocabulary([0, 1], directions=nothing, sketch_directions=directions, sketch_biases=biases)


def test_regions_of_a_thing_lie_where_its_photos_are_most_like_it_and_not_in_their_background() -> None:
    chance, width = np.random.default_rng(0), 32

    def directions(*shape: int, mean: Floats | float = 0.0) -> Floats:
        return unit(chance.normal(size=(*shape, width)).astype(np.float32) + mean)

    # In each photo ten regions, anywhere, show the first thing. They are not quite like whole photos of it.
    photos, (place, here) = directions(5, 64), directions(2, mean=2.0)
    for photo in photos:
        photo[chance.permutation(64)[:10]] = directions(10, mean=10 * here)
    projection = Projection(np.eye(KEPT, width, dtype=np.float32))
    known = replace(guessing(width, 4), places=np.stack([place, place]))
    learned = with_regions(known, projection, photos, {0: [0, 1, 2, 3, 4]})
    assert learned.region_places[0] @ projection(here) > 0.98
    assert not learned.region_places[1].any()
    kept = Vocabulary.of(learned.arrays(), learned.drawn.tolist())
    assert np.array_equal(kept.region_places, learned.region_places)


def example(chance: np.random.Generator) -> Example:
    """Two squares of ink, or one; the encoder's tokens tell which of them a patch shows."""
    darkness, owner, patches = (
        np.zeros((SIDE, SIDE), np.uint8),
        np.full((SIDE, SIDE), -1),
        np.zeros((12, 12, 8), np.float32),
    )
    left, right = np.arange(20, 70), np.arange(72, 140)
    for number, columns in enumerate((left, right) if chance.random() < 0.7 else (left,)):
        darkness[40:120:9, columns] = 255
        owner[40:120:9, columns] = number
        patches[:, columns[0] // 14 : columns[-1] // 14 + 1, number] = 3
    patches += chance.normal(0, 0.1, patches.shape)
    return Example.of(patches.reshape(1, 144, 8), darkness, owner)


def test_a_trained_parting_divides_drawings_by_what_their_patches_show() -> None:
    chance = np.random.default_rng(0)
    parting = train_parting([example(chance) for _ in range(2 * BATCH)], epochs=8)
    one, patches = np.zeros((SIDE, SIDE), np.uint8), np.zeros((12, 12, 8), np.float32)
    one[40:120:9, 20:70] = one[40:120:9, 72:140] = 255
    patches[:, :5, 0] = patches[:, 5:, 1] = 3
    labels, *_ = parting.divide(patches.reshape(1, 144, 8), one)
    assert set(np.unique(labels[:, :65])) - {-1} != set(np.unique(labels[:, 80:])) - {-1}
