from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketch_search.model.engine import default_checkpoint, read_files
from sketch_search.model.errors import ModelError
from sketch_search.model.words import (
    LONGEST,
    OFFERED,
    UnknownWord,
    WordBook,
    _meanings,
    _read_toml,
    everyday_words,
    spelling,
)

_WORDS = [("dog", "domestic dog"), ("sea lion",), ("mobile phone", "cellphone"), ("jack o lantern",)]
BOOK = WordBook([*_WORDS, ("sunglasses", "dark glasses"), ("wolf", "grey wolf"), ("bus",)])
FOUND = {
    "dog": ("dog", "  DOGS ", "domestic dogs", "ｄｏｇ"),
    "sea lion": ("sea-lions",),
    "mobile phone": ("cellphone",),
    "jack o lantern": ("Jack-o'-Lantern", "jack_o_lantern", " Jack  O LANTERN"),
    "sunglasses": ("dark glasses",),
    "wolf": ("wolves",),
    "bus": ("bus", "buses"),
}


# Two dogs on a beach in other languages, and a red car at night by the sea, with the word that does not count.
DOGS_ON_A_BEACH = "zwei Hunde am Strand|deux chiens sur la plage|due cani sulla spiaggia|dois cachorros na praia"
DOGS_ON_A_BEACH += "|две собаки на пляже|dua anjing di pantai|دو سگ در ساحل|dos perros en la playa"
DOGS_AFTER_A_BEACH = ("sahilde iki köpek", "海滩上的两只狗", "浜辺の二匹の犬", "해변의 개 두 마리")
CARS_BY_THE_SEA = {
    "rotes Auto nachts am Meer": "nachts",
    "voiture rouge la nuit au bord de la mer": "nuit",
    "coche rojo de noche junto al mar": "noche",
    "macchina rossa di notte al mare": "notte",
    "carro vermelho à noite perto do mar": "noite",
    "красная машина ночью у моря": "ночью",
    "mobil merah di malam hari di tepi laut": "malam hari",
    "ماشین قرمز در شب کنار دریا": "شب",
    "سيارة حمراء في الليل بجانب البحر": "الليل",
}


@pytest.mark.parametrize(("word", "text"), [(word, text) for word, texts in FOUND.items() for text in texts])
def test_a_word_is_found_in_any_case_number_and_by_further_names(word: str, text: str) -> None:
    assert BOOK.words[BOOK.find(text)] == word


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        *(("my dogs", "dog"), ("woolf", "wolf"), ("sea line", "sea lion"), ("mobil phone", "mobile phone")),
        # Letters that changed places; and a word of another language, in the plural.
        *(("dgo", "dog"), ("hunde", "dog")),
        # As it is spelt, and not as what it means is; and what it is a part of.
        *(("cellphne", "cellphone"), ("lantern", "jack o lantern")),
        *((text, "") for text in ("猫", "кошка", "qqqqq")),
        # A short word with another letter is another word.
        ("dig", ""),
        # By what it means, in any number, and beside other words.
        *(("goggles", "sunglasses"), ("fluffy goggle", "sunglasses")),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest_ones_if_any_is_near(text: str, nearest: str) -> None:
    instead = f"similar words: {nearest}" if nearest else "name a thing in the photo"
    with pytest.raises(
        UnknownWord, match=f"{text!r} is an unknown word; the vocabulary has 7 words, .*; {instead}"
    ) as caught:
        BOOK.find(text)
    assert caught.value.nearest[:1] == ((nearest,) if nearest else ())


@pytest.mark.parametrize(
    ("text", "read", "things", "means"),
    [
        ("Dogs", "dogs", [["dog"]], None),
        ("puppies", "puppies", [["dog"]], "any dog, puppies or not"),
        ("cellphones", "cellphones", [["mobile phone"]], "mobile phone"),
        # A wider word means every narrower one that the vocabulary has.
        ("animals", "animals", [["dog", "sea lion"]], "dog, sea lion"),
        ("my dog", "dog", [["dog"]], "dog"),
        ("a photo of sea lions", "sea lions", [["sea lion"]], "sea lion"),
        ("grey wolf pup", "grey wolf", [["wolf"]], "wolf"),
        # Two words are two things, and what stands beside a thing is one, too.
        ("dogs and wolves", "dogs and wolves", [["dog"], ["wolf"]], None),
        ("old bus, dog", "bus and dog", [["bus"], ["dog"]], "bus and dog"),
        ("on the bus with a dog in sunglasses", "bus and dog and sunglasses", [["bus"], ["dog"], ["sunglasses"]], ...),
        ("a bus for dogs", "bus", [["bus"]], "bus"),
        ("sealions", "sealions", [["sea lion"]], "sea lion"),
        ("cell phone", "cell phone", [["mobile phone"]], "mobile phone"),
        *((text, text.lower(), [["dog"]], "dog") for text in ("Hund", "chien", "perro", "イヌ", "狗", "собака", "كلب")),
        *((text, text, [["bus"]], "bus") for text in ("autobús", "автобус")),
        *(
            (f"{dog} {joint} {bus}", f"{dog} and {bus}", [["dog"], ["bus"]], "dog and bus")
            for dog, joint, bus in (("hund", "und", "autobús"), ("perro", "y", "autobús"), ("собака", "и", "автобус"))
        ),
    ],
)
def test_wider_foreign_and_several_words_are_read(text: str, read: str, things: list[list[str]], means: Any) -> None:
    reading = BOOK.read(text)
    assert reading.text == read
    assert [sorted(BOOK.words[number] for number in thing) for thing in reading.things] == things
    assert means is ... or reading.means == means


@pytest.mark.parametrize(
    ("text", "means", "ignored"),
    [
        ("cat sofa", "cat and couch", []),
        ("dog cat", "dog and cat", []),
        ("red toy car", "red car", []),
        ("teddy bear bed", "teddy bear and bed", []),
        ("red car blue sofa", "red car and blue couch", []),
        ("orange cat, orange", "orange cat and orange", []),
        ("a cat in orange", "orange cat", []),
        ("black and white dog", "black white dog", []),
        ("my old dog in pain", "dog", ["old", "pain"]),
        ("a dog without leash", "dog", ["leash"]),
        ("cat dog car bed sofa", "cat and dog and car and bed", ["sofa"]),
        ("red car at night by the sea", "red car and sea", ["night"]),
        ("two dogs on a beach", "2 × dog and beach", []),
        ("three red cars, five dogs and 2 cats", "3 × red car and dog and 2 × cat", ["five"]),
        ("كلب كبير على الشاطئ", "dog and beach", ["كبير"]),
        ("Katze Sofa", "cat and couch", []),
        ("der Hund schläft auf dem roten Sofa", "dog and red couch", ["schläft"]),
        *((text, "2 × dog and beach", []) for text in DOGS_ON_A_BEACH.split("|")),
        *((text, "beach and 2 × dog", []) for text in DOGS_AFTER_A_BEACH),
        *((text, "red car and sea", [night]) for text, night in CARS_BY_THE_SEA.items()),
    ],
)
def test_things_are_found_however_joined_and_the_rest_is_named(text: str, means: str, ignored: list[str]) -> None:
    words = "dog cat bed bear teddy_bear orange car leash sea beach"
    vocabulary = [*((word.replace("_", " "),) for word in words.split() if word != "leash"), ("couch", "sofa")]
    reading = WordBook(vocabulary).read(text)
    assert (reading.means or reading.text, list(reading.ignored)) == (means, ignored)


def test_a_word_of_the_vocabulary_means_itself_and_what_widens_it() -> None:
    book = WordBook([("animal",), ("dog", "hound"), ("puppy", "young dog"), ("beagle",), ("boxer",)])
    assert [book.read(text).things for text in ("animals", "puppy", "beagle")] == [((0,),), ((2,),), ((3,),)]
    assert {book.read(text).things for text in ("dog", "hounds", "doggy")} == {((1, 3, 4),)}
    assert book.find("dog") == 1


@pytest.mark.parametrize("text", ["quaternion", "it is on the way", "", "dog\x00"])
def test_a_text_without_a_known_word_is_refused_as_a_word_is(text: str) -> None:
    with pytest.raises(ModelError) as read:
        BOOK.read(text)
    with pytest.raises(ModelError) as found:
        BOOK.find(text)
    assert (type(read.value), str(read.value)) == (type(found.value), str(found.value))


def test_everyday_words_name_words_of_the_default_vocabulary_and_are_no_words_of_it() -> None:
    # Things stand for these in vocabularies without scenes.
    scenes = {"building", "forest", "plant"}
    config = read_files(default_checkpoint()).config
    named = {spelling(name) for names in config.words for name in names}
    for name, meant in everyday_words().items():
        assert set(meant) <= named
        assert name not in named or name in meant or name in scenes


def test_words_of_several_meanings_are_read_by_what_is_drawn_and_else_asked_for() -> None:
    names = ("kite", "kite bird", "mouse", "rodent", "person", "surfboard", "guitar")
    further = {"mouse": ("computer mouse",), "person": ("woman",)}
    book = WordBook([(name, *further.get(name, ())) for name in names])

    def choose(text: str, *drawn: str) -> tuple[str, tuple[str, ...]]:
        shown = np.array([[float(name == one) for name in names] for one in drawn])
        return book.choose(text, shown if drawn else None)

    assert choose("Two kites, guitar") == ("two toy kite, guitar", ("two kite bird, guitar",))
    assert choose("kite", "kite") == ("toy kite", ())
    assert choose("kite", "person", "kite bird") == ("kite bird", ())
    assert choose("kite", "person") == choose("kite") == ("toy kite", ("kite bird",))
    # Drawings of both are called so.
    assert choose("mice", "mouse") == ("computer mouse", ("field mouse",))
    assert choose("mouse", "rodent") == ("field mouse", ())
    assert choose("kite bird") == ("kite bird", ())
    # A name of two things is one of a drawing that shows neither.
    assert choose("surfer") == choose("surfer", "person") == ("person and surfboard", ())
    assert choose("surfer", "guitar") == ("surfer", ())
    assert book.choose("surfer", together=False) == ("surfer", ())
    means = [book.read(text).means for text in ("women", "surfer", "woman and toy kite")]
    assert means == ["any person, women or not", "any person, surfer or not", "person and toy kite"]


def test_the_default_vocabulary_has_all_meanings_and_each_is_one() -> None:
    book = WordBook(read_files(default_checkpoint()).config.words)
    for name, meanings in _meanings("several").items():
        chosen, others = book.choose(name)
        assert (chosen, *others) == meanings
        assert all(book.choose(one) == (one, ()) and book.read(one).means in (None, one) for one in meanings)
    for name, things in _meanings("together").items():
        assert book.choose(name) == (things[0], ())
        assert len(book.read(things[0]).things) == 2
    for word, wider in _meanings("wider").items():
        assert {book.read(name).things for name in wider} == {book.read(word).things}


def test_words_near_others_are_of_the_default_vocabulary_and_the_others_are_not() -> None:
    book = WordBook(read_files(default_checkpoint()).config.words)
    for near, names in _read_toml("near.toml").items():
        for name in names.split(", "):
            with pytest.raises(UnknownWord) as unknown:
                book.read(name)
            assert unknown.value.nearest[-1 - near.count(",") :] == tuple(near.split(", ")), name


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=LONGEST + 20))
def test_any_text_is_a_word_or_refused(text: str) -> None:
    refused: ModelError | None = None
    try:
        assert 0 <= BOOK.find(text) < len(BOOK.words)
    except ModelError as error:
        refused = error
    if isinstance(refused, UnknownWord):
        assert len(refused.nearest) <= OFFERED
    elif refused is not None:
        assert str(refused).startswith("a word must")


def test_a_name_that_two_words_have_means_the_one_that_shows_it() -> None:
    assert WordBook([("red panda", "panda"), ("panda",)]).find("panda") == 1
    assert WordBook([]).words == ()


PLURALS = """horse/horses house/houses glass/glasses shoe/shoes tomato/tomatoes axe/axes church/churches lens/lenses
berry/berries cookie/cookies knife/knives glove/gloves roof/roofs fireman/firemen octopus/octopuses fungus/fungi
mouse/mice ski/skis wine_glass/wine_glasses hoe/hoes hose/hoses"""


@pytest.mark.parametrize("words", PLURALS.split())
def test_a_word_is_found_by_its_plural_and_a_plural_by_its_singular(words: str) -> None:
    singular, plural = words.replace("_", " ").split("/")
    assert WordBook([("dog",), (singular,)]).find(plural) == 1
    assert WordBook([("dog",), (plural,)]).find(singular) == 1
