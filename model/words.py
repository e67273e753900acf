"""Finds typed words in a vocabulary: in other spellings, in the plural, and by a word's further names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache

from model.errors import ModelError

# A word of a vocabulary: its names, of which the first is shown.
Names = tuple[str, ...]
# The longest text that is looked up.
LONGEST = 100
# The number of words that are offered instead of an unknown word.
OFFERED = 5
# The least likeness, in 0..1, of an unknown word and the spelling of an offered word.
_LIKE = 0.7
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


class UnknownWord(ModelError):
    """A vocabulary does not have a word.

    nearest: words of the vocabulary with a similar spelling, the nearest first; may be empty.
    """

    def __init__(self, text: str, size: int, nearest: tuple[str, ...], reason: str = "") -> None:
        """Writes the message. reason: a sentence that says why there are only the vocabulary's words."""
        verb = "is" if len(nearest) == 1 else "are"
        instead = f"; the nearest {verb} {', '.join(nearest)}" if nearest else "; try another name for it, or draw it"
        more = f". {reason}" if reason else ""
        super().__init__(f"the vocabulary of {size:,} words does not have {text!r}{instead}{more}")
        self.nearest = nearest


class WordBook:
    """The words of a vocabulary, by all of their names.

    words: the shown name of each word, in the order of the vocabulary.
    """

    def __init__(self, vocabulary: Sequence[Names]) -> None:
        self.words = tuple(names[0] for names in vocabulary)
        self._numbers: dict[str, int] = {}
        for name, number in _by_rank(vocabulary):
            self._numbers.setdefault(spelling(name), number)
        self._stems: dict[str, int] = {}
        for key, number in self._numbers.items():
            self._stems.setdefault(_stem(key), number)
        self._find = lru_cache(maxsize=256)(self._search)

    def find(self, text: str) -> int:
        """Finds the number of the word that ``text`` names: in any case, with any hyphens, in singular or plural.

        Raises UnknownWord, and ModelError for a text that is empty, longer than LONGEST or has control characters.
        """
        if problem := why_no_name(text):
            raise ModelError(f"a word {problem}")
        found = self._find(spelling(text))
        if isinstance(found, tuple):
            raise UnknownWord(text.strip(), len(self.words), tuple(self.words[number] for number in found))
        return found

    def of_class(self, label: str) -> int | None:
        """Finds the number of the word that names a class, spelt as folders are; None if there is no such word."""
        try:
            return self.find(label)
        except ModelError:
            # The word is unknown, or no word can have the folder's name.
            return None

    def complete(self, prefix: str, limit: int) -> tuple[str, ...]:
        """Lists words with a name that begins with ``prefix``, in alphabetical order; all words for an empty prefix.

        Words whose shown name begins with it come before words with a further name that does.
        """
        start = spelling(prefix)
        found = {number for key, number in self._numbers.items() if key.startswith(start)}
        ranked = sorted((not spelling(self.words[n]).startswith(start), spelling(self.words[n]), n) for n in found)
        return tuple(self.words[number] for *_, number in ranked[:limit])

    def _search(self, key: str) -> int | tuple[int, ...]:
        """Finds the number of a word, or the numbers of the nearest words."""
        if (number := self._number(key)) is not None:
            return number
        # The words in the text come first: "my dog" is no word, but "dog" may be one.
        parts = map(self._number, reversed(key.split()))
        alike = get_close_matches(key, self._numbers, n=2 * OFFERED, cutoff=_LIKE)
        near = [*parts, *(self._numbers[name] for name in alike)]
        return tuple(dict.fromkeys(number for number in near if number is not None))[:OFFERED]

    def _number(self, key: str) -> int | None:
        """Finds the number of the word with this spelling, or with one that differs only in singular or plural."""
        return self._numbers.get(key, self._stems.get(_stem(key)))


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


def _by_rank(vocabulary: Sequence[Names]) -> Iterator[tuple[str, int]]:
    """Yields all names with the number of their word: first shown names, which win over further names."""
    for number, names in enumerate(vocabulary):
        yield names[0], number
    for number, names in enumerate(vocabulary):
        for name in names[1:]:
            yield name, number


def _stem(key: str) -> str:
    """Cut a spelling down to a stem that its singular and its plural share, and that need not be a word itself.

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
