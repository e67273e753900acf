"""Finds typed words in a vocabulary: by other spellings and names, as everyday or wider words, and within a phrase."""

import re
import tomllib
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from model.errors import ModelError

# A word of a vocabulary: its names, of which the first is shown.
Names = tuple[str, ...]
# The longest text that is looked up.
LONGEST = 100
# The number of words that are offered instead of an unknown word.
OFFERED = 5
# The least likeness, in 0..1, of an unknown word and the spelling of an offered word.
_LIKE = 0.75
_APART = re.compile(r"[\s_/-]+")
_LEFT_OUT = re.compile(r"['’.]")
# The s of a plural, and the e that only some plurals have, such as "buses" and "tomatoes".
_PLURAL = re.compile(r"(?<=..)(?<!s)s$")
_SILENT = re.compile(r"(?<=[sxzo])e$|(?<=[cs]h)e$")
# Endings that still differ then: berry and berries, wolf and wolves, knife and knives, man and men, fungus and fungi.
_ENDINGS = (("ie", "y"), ("ve", "f"), ("fe", "f"), ("men", "man"), ("i", "u"))
_IRREGULAR = {
    "children": "child",
    "dice": "die",
    "feet": "foot",
    "geese": "goose",
    "mice": "mouse",
    "oxen": "ox",
    "people": "person",
    "teeth": "tooth",
}
# What stands before these is what a phrase is about: "my dog" of "my dog on the beach".
_JOINT = re.compile(
    r"(?<=\S) (?:about|above|and|are|at|behind|below|beside|beyond|by|during|for|from|in|inside|is|near|next|of|on|or"
    r"|outside|over|that|to|under|which|who|with|without)(?= |$)"
)


class UnknownWord(ModelError):
    """A vocabulary does not have a word. nearest: words with a similar spelling, the nearest first."""

    def __init__(self, text: str, words: Sequence[str], nearest: tuple[str, ...], reason: str = "") -> None:
        """Writes the message. reason: a sentence that says why there are only these words."""
        # Examples show of what kind the words are, and in which language.
        known = f"{text!r} is none of the {len(words):,} words that this network knows, such as {', '.join(words[:3])}"
        instead = f"similar words: {', '.join(nearest)}" if nearest else "name a thing in the photo, or draw it"
        more = f". {reason}" if reason else ""
        super().__init__(f"{known}; {instead}{more}")
        self.nearest = nearest


@dataclass(frozen=True)
class Reading:
    """Holds what a typed text means: the part that was understood, by ``spelling``, and words, any of which counts."""

    text: str
    words: tuple[int, ...]


class WordBook:
    """The words of a vocabulary, by all of their names, and everyday words for them.

    words: the shown name of each word, in the order of the vocabulary.
    """

    def __init__(self, vocabulary: Sequence[Names]) -> None:
        self.words = tuple(names[0] for names in vocabulary)
        # First names win over further names.
        shown = [(names[0], number) for number, names in enumerate(vocabulary)]
        further = [(name, number) for number, names in enumerate(vocabulary) for name in names[1:]]
        self._numbers: dict[str, int] = {}
        for name, number in (*shown, *further):
            self._numbers.setdefault(spelling(name), number)
        self._stems: dict[str, int] = {}
        for key, number in self._numbers.items():
            self._stems.setdefault(stem(key), number)
        # What words mean beside themselves, such as the breeds of dogs.
        self._widened: dict[int, tuple[int, ...]] = {}
        self._everyday: dict[str, tuple[int, ...]] = {}
        for name, meant in everyday_words().items():
            found = tuple(dict.fromkeys(self._numbers[word] for word in meant if word in self._numbers))
            if name not in self._numbers:
                if found:
                    self._everyday[name] = found
            elif self._numbers[name] in found:
                self._widened[self._numbers[name]] = found
        for name, found in self._everyday.items():
            if len(found) == 1:
                self._everyday[name] = self._widened.get(found[0], found)
        self._everyday_stems = {stem(name): found for name, found in self._everyday.items()}

    def find(self, text: str) -> int:
        """Finds the number of the word that ``text`` names: in any case, with any hyphens, in singular or plural.

        Raises UnknownWord, and ModelError for a text that is empty, longer than LONGEST or has control characters.
        """
        if problem := why_no_name(text):
            raise ModelError(f"a word {problem}")
        key = spelling(text)
        if (number := self._number(key)) is not None:
            return number
        # The words in the text come first: "my dog" is no word, but "dog" may be one.
        parts = map(self._number, reversed(key.split()))
        alike = get_close_matches(key, self._numbers, n=2 * OFFERED, cutoff=_LIKE)
        near = dict.fromkeys([*parts, *(self._numbers[name] for name in alike)])
        nearest = [self.words[number] for number in near if number is not None][:OFFERED]
        raise UnknownWord(text.strip(), self.words, tuple(nearest))

    def read(self, text: str) -> Reading:
        """Finds what ``text`` means: a word as ``find`` does, an everyday or a wider word, or one of these in a phrase.

        Of a phrase, the part before the first preposition decides if it has a known word, and in it the longest known
        name, or the last of equally long ones, as English puts the noun last. Raises as ``find`` does.
        """
        if why_no_name(text) is None:
            key = spelling(text)
            for part in (*_JOINT.split(key), key):
                if reading := self._read_part(part.split()):
                    return reading
        return Reading(spelling(text), (self.find(text),))

    def of_class(self, label: str) -> int | None:
        """Finds the number of the word that names a class, spelt as folders are; None if there is no such word."""
        with suppress(ModelError):  # the word is unknown, or no word can have the folder's name
            return self.find(label)
        return None

    def complete(self, prefix: str, limit: int) -> tuple[str, ...]:
        """Lists words with a name that begins with ``prefix``, in alphabetical order; all words for an empty prefix.

        Words whose shown name begins with it come before words with a further name that does, and everyday words last.
        """
        start = spelling(prefix)
        found = {number for key, number in self._numbers.items() if key.startswith(start)}
        ranked = sorted((not spelling(self.words[n]).startswith(start), spelling(self.words[n]), n) for n in found)
        everyday = sorted(name for name in self._everyday if start and name.startswith(start))
        shown = [*(self.words[number] for *_, number in ranked), *(n for n in everyday if n not in self._numbers)]
        return tuple(shown[:limit])

    def _read_part(self, words: Sequence[str]) -> Reading | None:
        for length in range(len(words), 0, -1):
            for start in range(len(words) - length, -1, -1):
                text = " ".join(words[start : start + length])
                if meant := self._meant(text):
                    return Reading(text, meant)
        return None

    def _meant(self, key: str) -> tuple[int, ...]:
        """Finds the words that a spelling means; none if it is unknown."""
        if key in self._everyday:
            return self._everyday[key]
        if (number := self._number(key)) is not None:
            return self._widened.get(number, (number,))
        return self._everyday_stems.get(stem(key), ())

    def _number(self, key: str) -> int | None:
        """Finds the number of the word with this spelling, or with one that differs only in singular or plural."""
        return self._numbers.get(key, self._stems.get(stem(key)))


@cache
def everyday_words() -> dict[str, tuple[str, ...]]:
    """Reads what everyday and wider words mean: by the spelling of each, those of the words that it means."""
    with (Path(__file__).parent / "everyday.toml").open("rb") as file:
        lists = tomllib.load(file)
    return {spelling(name): tuple(map(spelling, meant.split(","))) for name, meant in lists.items()}


def spelling(name: str) -> str:
    """Makes the form in which names are compared: one for "Jack-o'-Lantern", "jack_o_lantern" and "jack o lantern"."""
    plain = _LEFT_OUT.sub("", unicodedata.normalize("NFKC", name).casefold())
    return _APART.sub(" ", plain).strip()


def why_no_name(text: str) -> str | None:
    """Says why a text cannot be a name, as the end of a sentence; None if it can."""
    if len(text) > LONGEST:
        return f"must have at most {LONGEST} characters, not {len(text)}"
    # Formatting characters, such as those that turn the direction of writing, would change what a reader sees.
    if any(unicodedata.category(character).startswith("C") for character in text):
        return "must not have control characters"
    return None if spelling(text) else "must have letters"


def stem(key: str) -> str:
    """Cuts a spelling down to a stem that its singular and its plural share, and that need not be a word itself.

    Names and typed texts are cut by the same rules, so that the rules may be rough: "horse" and "horses" become "hor".
    """
    before, space, word = key.rpartition(" ")
    word = _IRREGULAR.get(word, word)
    while (shorter := _SILENT.sub("", _PLURAL.sub("", word))) != word:
        word = shorter
    for ending, instead in _ENDINGS:
        if word.endswith(ending):
            return before + space + word.removesuffix(ending) + instead
    return before + space + word
