"""Looks up typed words in a vocabulary: by other spellings, names and languages, as wider words, and in phrases."""

import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sketch_search.model.errors import ModelError

if TYPE_CHECKING:
    from sketch_search.model.engine.tokens import Floats

Meaning = TypeVar("Meaning")

# What a name means, as numbers of words.
_Known = Callable[[str], tuple[int, ...] | None]
# A word of a vocabulary: its names. The first is shown.
Names = tuple[str, ...]
# The longest text to look up.
LONGEST = 100
# The number of words offered instead of an unknown word.
OFFERED = 5
# The least similarity, in 0..1, of an unknown word and the spelling of an offered word: one letter in three may differ.
_LIKE, _LIKE_FOREIGN = 0.66, 0.75
# Of a word of so many letters none may be another one, only missing, added or swapped.
_SHORT = 4
# The most things of a phrase that are searched for, and the most words listed for a wider word.
MOST_THINGS, _LISTED = 4, 3
#: A drawing tells what a word means if a thing is so probably one of its meanings.
DRAWN = 0.1
_APART = re.compile(r"[\s_/-]+")
_LEFT_OUT = re.compile(r"['’.]")
# The s of a plural, and the e that only some plurals have, such as "buses" and "tomatoes".
_PLURAL = re.compile(r"(?<=..)(?<!s)s$")
_SILENT = re.compile(r"(?<=[sxz])e$|(?<=..o)e$|(?<=[cs]h)e$")
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
# What some languages write together with a word: "al" in Arabic, case and number in Turkish, and particles in Korean.
_AFFIXES = re.compile(
    r"^[وبلكف]?ال(?=\w\w)|(?<=\w\w)(?:[dt][ea]|l[ea]r)$|(?<=[가-힣])(?:에서|의|에|과|와|을|를|이|가|은|는|로|들)$"
)
# Endings of number and case; what is left of a word of another language has at least three letters.
_FOREIGN_ENDING = re.compile(
    r"(?<=\w{3})(?:[aeiouyáàãéêíóõú]?s?|e[nr]|[аеёиоуыэюяьй]{1,2}|ами|ями|ов|ей|ах|ях|ها|های|ات|ان|ین)$"
)
# Characters of languages that write no spaces.
_UNSPACED = "[\u3040-\u30ff\u4e00-\u9fff]"
_ENGLISH = ("small", "beside")
_EVERY = (*_ENGLISH, "small_abroad", "beside_abroad")
# How many of a thing a text may ask for: as many as it may have things.
_NUMBERS = range(2, MOST_THINGS + 1)
_BREAKS = ",;&+、。，"
_TOKEN = re.compile(rf"{_UNSPACED}|[{_BREAKS}]|(?:(?!{_UNSPACED})[^\s{_BREAKS}])+")
# The most tokens of a name, of which Chinese has one for each character.
_LONGEST_NAME = 6


class UnknownWord(ModelError):
    """A vocabulary does not have a word. nearest: words with a similar spelling, the nearest first."""

    def __init__(self, text: str, words: Sequence[str], nearest: tuple[str, ...], reason: str = "") -> None:
        """Makes the message. reason: a sentence why there are only these words."""
        # Examples show the kind of the words, and their language.
        known = f"{text!r} is an unknown word; the vocabulary has {len(words):,} words, such as {', '.join(words[:3])}"
        instead = f"similar words: {', '.join(nearest)}" if nearest else "name a thing in the photo, or draw it"
        more = f". {reason}" if reason else ""
        super().__init__(f"{known}; {instead}{more}")
        self.nearest = nearest


@dataclass(frozen=True)
class Reading:
    """What a text means: the part understood; words that may name each thing, any of which counts; words searched
    instead, or None; the names of each thing's colours; how many there are of each; what each is called in the text;
    and what was not understood.
    """

    text: str
    things: tuple[tuple[int, ...], ...]
    means: str | None = None
    colours: tuple[tuple[str, ...], ...] = ()
    numbers: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def each(self, most: int = MOST_THINGS) -> list[tuple[tuple[int, ...], tuple[str, ...], str]]:
        """Lists each thing's words, colours and name, as often as the text says; once if that is more than ``most``."""
        once = list(zip(self.things, self.colours, self.names, strict=True))
        each = [thing for thing, number in zip(once, self.numbers, strict=True) for _ in range(number)]
        return each if len(each) <= most else once


@dataclass(frozen=True)
class _Span:
    """Tokens in a row: words or the colour that they name, section, colours and number of the things that they name."""

    text: str
    meant: tuple[int, ...]
    start: int = 0
    end: int = 0
    colour: str | None = None
    section: int = 0
    colours: tuple[str, ...] = ()
    number: int = 1

    def distance(self, other: "_Span") -> tuple[bool, int]:
        return self.section != other.section, max(self.start - other.end, other.start - self.end)


class WordBook:
    """The words of a vocabulary by all names. words: the shown name of each. everyday: what everyday words mean."""

    def __init__(self, vocabulary: Sequence[Names]) -> None:
        self.words = tuple(names[0] for names in vocabulary)
        # First names take precedence over further names.
        shown = [(names[0], number) for number, names in enumerate(vocabulary)]
        further = [(name, number) for number, names in enumerate(vocabulary) for name in names[1:]]
        self._numbers = _first_of((spelling(name), number) for name, number in (*shown, *further))
        self._stems = _first_of((stem(key), number) for key, number in self._numbers.items())
        # Further meanings of words, such as the breeds of dogs.
        self._widened: dict[int, tuple[int, ...]] = {}
        self.everyday: dict[str, tuple[int, ...]] = {}
        for name, meant in everyday_words().items():
            numbers = tuple(dict.fromkeys(self._numbers[word] for word in meant if word in self._numbers))
            if name not in self._numbers:
                if numbers:
                    self.everyday[name] = numbers
            elif self._numbers[name] in numbers:
                self._widened[self._numbers[name]] = numbers
        # The meanings of a word that the vocabulary has, each with its words: by itself, the word means the first.
        self._several = dict[str, dict[str, tuple[int, ...]]]()
        for name, of in _meanings("several").items():
            meanings = {one: known for one in of if (known := self._known(spelling(one)))}
            if len(meanings) > 1:
                self._several[name], self.everyday[name] = meanings, next(iter(meanings.values()))
        for word, wider in _meanings("wider").items():
            for name in map(spelling, wider):
                if self._known(name) is None and (known := self._known(word)):
                    self.everyday[name] = known
        self._several_stems = _first_of((stem(name), meanings) for name, meanings in self._several.items())
        self._everyday_stems = {stem(name): numbers for name, numbers in self.everyday.items()}
        # For words written apart or together: "motor bike" and "hotdog".
        named = [*((name, (number,)) for name, number in self._numbers.items()), *self.everyday.items()]
        self._joined = _first_of((stem(name.replace(" ", "")), numbers_of) for name, numbers_of in named)

    def find(self, text: str) -> int:
        """Finds the number of the word named, in any case, hyphens, number. Raises UnknownWord; ModelError."""
        if problem := why_no_name(text):
            raise ModelError(f"a word {problem}")
        key = spelling(text)
        if (number := self._number(key)) is not None:
            return number
        raise UnknownWord(text.strip(), self.words, self._nearest(key))

    def read(self, text: str) -> Reading:
        """Reads a word of any language, a wider word, or things in a phrase, the longest or last name of each.

        Other words of a thing may be its colours. Raises as ``find`` does.
        """
        if why_no_name(text) is None:
            key = spelling(text)
            english, mixed = ({word for name in names for word in _small_words()[name]} for names in (_ENGLISH, _EVERY))
            tokens = _TOKEN.findall(key)
            ways: list[tuple[_Known, Set[str]]] = [(self._meant, english), (self._abroad, mixed)]
            # Words such as "as", "do" and "i" are those of others, too.
            if not (mixed - english - {"as", "do", "i"}).isdisjoint(tokens):
                # "Sofa" is an English word, too.
                ways = [(lambda part: self._abroad(part) or self._meant(part), mixed)]
            if english.isdisjoint(tokens):
                ways.append((lambda part: self._meant(part) or self._abroad(part), mixed))
            read = [_parts_of(key, known, small) for known, small in ways]
            parts, ignored = min((way for way in read if way[0]), key=lambda way: len(way[1]), default=((), ()))
            if parts:
                return self._reading(key, parts, ignored)
        return Reading(spelling(text), ((self.find(text),),), colours=((),), numbers=(1,), names=(spelling(text),))

    def _reading(self, key: str, parts: Sequence[_Span], ignored: Sequence[str]) -> Reading:
        things: dict[tuple[int, ...], tuple[str, ...]] = {}
        numbers, names = dict[tuple[int, ...], int](), dict[tuple[int, ...], str]()
        for part in parts:
            meant = self.widen(part.meant)
            names.setdefault(meant, part.text)
            things[meant] = tuple(dict.fromkeys((*things.get(meant, ()), *part.colours)))
            numbers[meant] = max(numbers.get(meant, 1), part.number)
        text = " and ".join(" ".join((*part.colours, part.text)) for part in parts)
        of_each = tuple(things.values()), tuple(numbers.values()), tuple(names.values())
        return Reading(text, tuple(things), self._said(key, parts), *of_each, tuple(ignored))

    def choose(self, text: str, drawn: "Floats | None" = None, *, together: bool = True) -> tuple[str, tuple[str, ...]]:
        """Puts what is meant in place of words with several meanings, and of those that name several things together.

        drawn: how probably each of t drawn things shows each word of the vocabulary, (t, words). together: whether a
        text may become one of more things.

        Returns the text; and the texts with other meanings, if nothing drawn tells which is meant. Raises as ``find``
        does.
        """
        chosen, others = dict[str, str](), list[tuple[str, str]]()
        for name in self.read(text).names:
            if (things := _meanings("together").get(name, ())) and together:
                if drawn is None or drawn[:, self.meant(name)].sum(axis=1).max() >= DRAWN:
                    chosen[name] = things[0]
            elif meanings := self._several.get(name) or self._several_stems.get(stem(name)):
                shown = [self._shown(name, meanings, one, drawn) for one in meanings]
                best = max(range(len(shown)), key=shown.__getitem__)
                chosen[name] = list(meanings)[best]
                if shown[best] < DRAWN:
                    others += [(name, one) for one in meanings if one != chosen[name]]

        def put(names: Mapping[str, str]) -> str:
            listed = "|".join(map(re.escape, names))
            return re.sub(rf"(?<!\w)(?:{listed})(?!\w)", lambda found: names[found[0]], spelling(text))

        return (put(chosen) if chosen else text), tuple(put({**chosen, name: other}) for name, other in others)

    def _shown(self, name: str, meanings: Mapping[str, tuple[int, ...]], one: str, drawn: "Floats | None") -> float:
        """Returns how probably a drawn thing shows one meaning of a name; 0 for words that have both as names."""
        words = [word for word in meanings[one] if word != self._number(name) or spelling(one) not in self._numbers]
        return 0.0 if drawn is None else float(drawn[:, words].sum(axis=1).max(initial=0))

    def of_class(self, label: str) -> int | None:
        """Finds the number of the word that names a class, spelt as folders are; None if there is no such word."""
        with suppress(ModelError):  # the word is unknown, or the folder's name cannot be a word
            return self.find(label)
        return None

    def complete(self, prefix: str, limit: int) -> tuple[str, ...]:
        """Lists words with names that begin with ``prefix``: by shown name, by further names, then everyday words."""
        start = spelling(prefix)
        numbers = {number for key, number in self._numbers.items() if key.startswith(start)}
        ranked = sorted((not spelling(self.words[n]).startswith(start), spelling(self.words[n]), n) for n in numbers)
        everyday = sorted(name for name in self.everyday if start and name.startswith(start))
        shown = [*(self.words[number] for *_, number in ranked), *(n for n in everyday if n not in self._numbers)]
        return tuple(shown[:limit])

    def of_kinds(self, kinds: Sequence[str]) -> list[set[int]]:
        """Returns the words that mean each kind of a detector, such as breeds of dogs a dog."""
        further, meant = _read_toml("kinds.toml"), list[set[int]]()
        for kind in kinds:
            names = (kind, *further.get(kind, "").split(", "))
            numbers = chain.from_iterable(self.meant(name) for name in names)
            meant.append(set(chain.from_iterable(self.widen((number,)) for number in numbers)))
        return meant

    @cached_property
    def same(self) -> list[tuple[int, ...]]:
        """The words for one thing to a person, such as a cup and a teacup, the plainest first."""
        named = ((name, *others.split(", ")) for name, others in _read_toml("same.toml").items())
        keys = [[key for key in map(spelling, names) if key in self._numbers] for names in named]
        alike = [tuple(dict.fromkeys(self._numbers[key] for key in of)) for of in keys]
        return [numbers for numbers in alike if len(numbers) > 1]

    def alike(self, number: int) -> set[int]:
        """Returns a word and those for the same thing."""
        return {number}.union(*(words for words in self.same if number in words))

    def widen(self, meant: tuple[int, ...]) -> tuple[int, ...]:
        """Adds to a single word what else it means, such as the breeds of dogs."""
        return self._widened.get(meant[0], meant) if len(meant) == 1 else meant

    def called(self, meant: tuple[int, ...], name: str) -> str:
        """Returns what a thing of a text is called: by the word that it means, or its own name if it means several."""
        return self.words[meant[0]] if meant == self.widen(meant[:1]) else name

    def meant(self, name: str) -> tuple[int, ...]:
        """Returns the words that an English name means; none if it is unknown."""
        return self._meant(spelling(name)) or ()

    def _known(self, key: str) -> tuple[int, ...] | None:
        if key in self.everyday:
            return self.everyday[key]
        return None if (number := self._number(key)) is None else (number,)

    def _meant(self, key: str) -> tuple[int, ...] | None:
        return self._known(key) or self._everyday_stems.get(stem(key), self._joined.get(stem(key.replace(" ", ""))))

    def _abroad(self, key: str) -> tuple[int, ...] | None:
        """Returns what a name in another language means, also in another number or case."""
        if key in colour_names():
            # "Rossa" is no rose.
            return self._foreign.get(key)
        bare = _AFFIXES.sub("", key)
        for form in dict.fromkeys((key, _FOREIGN_ENDING.sub("", key), bare, _FOREIGN_ENDING.sub("", bare))):
            if meant := self._foreign.get(form) or self._foreign_stems.get(form):
                return meant
        return None

    @cached_property
    def _of_several(self) -> dict[str, str]:
        return {spelling(one): one for meanings in self._several.values() for one in meanings}

    @cached_property
    def _foreign_stems(self) -> dict[str, tuple[int, ...]]:
        return _first_of((_FOREIGN_ENDING.sub("", name), numbers) for name, numbers in self._foreign.items())

    def _said(self, key: str, parts: Sequence[_Span]) -> str | None:
        """Returns the words searched for instead of a text's things; None if the text names them."""
        named = (
            [*([f"{part.number} \u00d7"] if part.number > 1 else []), *part.colours, self._called(part)]
            for part in parts
        )
        said = list(dict.fromkeys(map(" ".join, named)))
        if len(parts) == 1 and stem(parts[0].text) in _wider():
            said = [f"any {said[0]}, {parts[0].text} or not"]
        typed = [stem(part) for part in re.split(r" and |\s*[,&+]\s*", key)]
        return None if typed == [stem(spelling(name)) for name in said] else " and ".join(said)

    def _called(self, part: _Span) -> str:
        """Returns what is searched for by a name: words, or one meaning of a word, as it is called."""
        return self._of_several.get(part.text) or self._list(part.meant)

    def _list(self, meant: Sequence[int]) -> str:
        shown = ", ".join(self.words[number] for number in meant[:_LISTED])
        return shown if len(meant) <= _LISTED else f"{shown} and {len(meant) - _LISTED} more"

    def _nearest(self, key: str) -> tuple[str, ...]:
        """Finds words for an unknown one: parts of it, those of like meaning, with it as a part, or spelt like it."""
        from rapidfuzz.distance import DamerauLevenshtein
        from rapidfuzz.process import extract

        parts = (self._number(part) for part in reversed(key.split()))
        near = [self.words[number] for number in parts if number is not None]
        of_parts = (_near().get(stem(part), ()) for part in (key, *reversed(key.split())))
        if meant := [name for name in next(filter(None, of_parts), ()) if self.meant(name)]:
            # It is no misspelt word.
            return tuple(dict.fromkeys([*near, *meant]))[:OFFERED]
        # An English name is offered as it is spelt: "pool" is near "tool", whose word is shown as "hammer".
        shown = {spelling(word): word for word in self.words}
        english = {name: shown.get(name, name) for name in (*self.everyday, *self._numbers)}
        foreign = {name: self.words[meant[0]] for name, meant in self._foreign.items()}
        wider = [name for name in english if f" {key} " in f" {name} "]
        near += [english[name] for name in sorted(wider, key=lambda name: (name not in shown, len(name)))]
        for names, least in ((english, _LIKE), (foreign, _LIKE_FOREIGN)):
            same = DamerauLevenshtein.normalized_similarity
            alike = extract(key, list(names), scorer=same, score_cutoff=least, limit=None)
            # Equally near ones of the same length come first, since letters may be swapped: "horse" before "hose".
            alike.sort(key=lambda match: (-match[1], abs(len(match[0]) - len(key))))
            # A short word that differs by a letter is another word, such as key and keg, not a misspelt one.
            alike = [match for match in alike if len(key) > _SHORT or _not_replaced(key, match[0])]
            near += [names[name] for name, *_ in alike]
            if near:
                break
        return tuple(dict.fromkeys(near))[:OFFERED]

    @cached_property
    def _foreign(self) -> dict[str, tuple[int, ...]]:
        """Words by names in other languages: those of ``scenes.toml``, and those of the emoji that show them."""
        from emoji import EMOJI_DATA, LANGUAGES, STATUS, config

        # Reading them takes a twentieth of a second.
        config.load_language()
        shown = [emoji for emoji in EMOJI_DATA.values() if emoji["status"] == STATUS["fully_qualified"]]
        english = {_name_of_emoji(name) for emoji in shown for name in (emoji["en"], *emoji.get("alias", ()))}
        scenes = _inflect(_read_toml("scenes.toml"))
        foreign = {name: meant for name, word in scenes.items() if (meant := self._meant(spelling(word)))}
        # The main names of an emoji take precedence over its keywords.
        for further in (False, True):
            for emoji in shown:
                called = emoji.get("alias", ()) if further else (emoji["en"],)
                numbers = tuple(self._numbers[key] for name in called if (key := _name_of_emoji(name)) in self._numbers)
                # An English word is not read as one of another language.
                names = (_name_of_emoji(emoji[code]) for code in LANGUAGES if numbers and code in emoji)
                foreign.update({name: numbers[:1] for name in names if name not in english and name not in foreign})
        return {name: numbers for name, numbers in foreign.items() if name not in self._numbers}

    def _number(self, key: str) -> int | None:
        return self._numbers.get(key, self._stems.get(stem(key)))


def _not_replaced(key: str, name: str) -> bool:
    return len(key) != len(name) or sorted(key) == sorted(name)


def _first_of(pairs: Iterable[tuple[str, Meaning]]) -> dict[str, Meaning]:
    """Makes a dictionary in which the first value of a key counts."""
    first: dict[str, Meaning] = {}
    for key, value in pairs:
        first.setdefault(key, value)
    return first


def _parts_of(key: str, known: _Known, small: Set[str]) -> tuple[Sequence[_Span], Sequence[str]]:
    """Finds the known names in a text with the colours beside each, and what is not understood."""
    if meant := known(key):
        return [_Span(key, meant)], []
    tokens = _TOKEN.findall(key)
    spans = _spans_of(tokens, known, small)
    sections, aside, ignored, counts = [""], set[int](), list[tuple[int, str]](), list[_Span]()
    covered = {at for span in spans for at in range(span.start, span.end)}
    for at, token in enumerate(tokens):
        if at in covered:
            continue
        joint = next((name for name in ("beside", "beside_abroad", "aside") if token in _small_words()[name]), None)
        if joint or token in _BREAKS:
            sections.append(token)
            aside.update([len(sections) - 1] if joint == "aside" else [])
        elif number := next((number for number in _NUMBERS if token in _small_words()[str(number)]), None):
            counts.append(_Span(token, (), at, at + 1, section=len(sections) - 1, number=number))
        elif token not in small:
            after = ignored and ignored[-1][0] == at - 1
            ignored = [*ignored[:-1], (at, _together([ignored[-1][1], token]))] if after else [*ignored, (at, token)]
        spans = [replace(span, section=len(sections) - 1) if span.start > at else span for span in spans]
    things = [span for span in spans if span.meant and not _only_colours(span, spans, sections)]
    colours, numbers = {thing: list[str]() for thing in things}, dict.fromkeys(things, 1)
    for span in spans:
        if span.colour and span not in colours and things:
            near = min(
                things, key=lambda thing: (*span.distance(thing), bool(colours[thing]), thing.start < span.start)
            )
            colours[near].append(span.colour)
    for span in counts if things else ():
        near = min(things, key=lambda thing: (thing.start < span.start, *span.distance(thing)))
        numbers[near] = span.number
    beside = [thing for thing in things if thing.section not in aside]
    taken = beside[:MOST_THINGS] or things[:1]
    ignored += [(thing.start, thing.text) for thing in things if thing not in taken]
    parts = [replace(thing, colours=tuple(dict.fromkeys(colours[thing])), number=numbers[thing]) for thing in taken]
    return parts, [text for _, text in sorted(ignored)]


def _spans_of(tokens: Sequence[str], known: _Known, small: Set[str]) -> list[_Span]:
    """Finds names of things and colours among tokens, longer ones before others, and of equally long ones the last."""
    spans = list[_Span]()
    for length in range(min(len(tokens), _LONGEST_NAME), 0, -1):
        for start in range(len(tokens) - length, -1, -1):
            end = start + length
            free = all(span.end <= start or end <= span.start for span in spans)
            if not free or not set(_BREAKS).isdisjoint(tokens[start:end]) or (length == 1 and tokens[start] in small):
                continue
            text = _together(tokens[start:end])
            meant, colour = known(text), colour_names().get(text)
            if meant or colour:
                spans.append(_Span(text, meant or (), start, end, colour))
    return sorted(spans, key=lambda span: span.start)


def _only_colours(span: _Span, spans: Sequence[_Span], sections: Sequence[str]) -> bool:
    """Returns whether a name is that of a colour here: orange in "orange cat" and in "a cat in orange"."""
    others = [other for other in spans if other.section == span.section and not other.colour]
    first = all(other.section >= span.section for other in spans)
    return span.colour is not None and (bool(others) or (sections[span.section] == "in" and not first))


def _together(tokens: Sequence[str]) -> str:
    return re.sub(f"(?<={_UNSPACED}) (?={_UNSPACED})", "", " ".join(tokens))


@cache
def colours() -> dict[str, tuple[int, int, int]]:
    """Reads the colours that words name, as sRGB."""
    # Not by Pillow, which takes longer to load than a server to answer.
    shades = {name: bytes.fromhex(colour["rgb"][1:]) for name, colour in _read_toml("colours.toml").items()}
    return {name: (red, green, blue) for name, (red, green, blue) in shades.items()}


@cache
def colour_names() -> dict[str, str]:
    """Reads the names of colours in all languages of the words, by their spellings, each with its English name."""
    return _inflect({colour: lists["names"] for colour, lists in _read_toml("colours.toml").items()})


def _inflect(lists: Mapping[str, str]) -> dict[str, str]:
    """Returns what each name in lists means, by its spellings with each ending, as in "rot(e/er)"."""
    spellings = list[tuple[str, str]]()
    for meant, names in lists.items():
        for name in map(str.strip, names.split(",")):
            before, _, rest = name.partition("(")
            endings, _, after = rest.partition(")")
            spellings += [(spelling(before + e + after), meant) for e in ("", *filter(None, endings.split("/")))]
    return _first_of(spellings)


def _read_toml(name: str) -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / name).read_text("utf-8"))


def _name_of_emoji(name: str) -> str:
    return spelling(name.strip(":"))


@cache
def _small_words() -> dict[str, frozenset[str]]:
    """Reads the words that name nothing, by what they do in a text."""
    return {name: frozenset(words.split()) for name, words in _read_toml("small_words.toml").items()}


@cache
def everyday_words() -> dict[str, tuple[str, ...]]:
    """Reads the meanings of everyday and wider words: by spelling, the spellings of the words that each means."""
    lists = _read_toml("everyday.toml").items()
    return {spelling(name): tuple(map(spelling, meant.split(","))) for name, meant in lists}


@cache
def _meanings(kind: str) -> dict[str, tuple[str, ...]]:
    """Reads the names of what words of a kind mean, by their spellings."""
    lists = _read_toml("meanings.toml")[kind].items()
    return {spelling(name): tuple(map(str.strip, meant.split(","))) for name, meant in lists}


@cache
def _near() -> dict[str, tuple[str, ...]]:
    """Reads the names that are offered for unknown words, by the stems of these."""
    lists = _read_toml("near.toml").items()
    return {stem(spelling(name)): tuple(near.split(", ")) for near, names in lists for name in names.split(", ")}


@cache
def _wider() -> set[str]:
    return {stem(spelling(name)) for names in _meanings("wider").values() for name in names}


def spelling(name: str) -> str:
    """Makes the form in which names are compared: one for "Jack-o'-Lantern", "jack_o_lantern" and "jack o lantern"."""
    plain = _LEFT_OUT.sub("", unicodedata.normalize("NFKC", name).casefold())
    return _APART.sub(" ", plain).strip()


def why_no_name(text: str) -> str | None:
    """Returns why a text cannot be a name, as the end of a sentence; None if it can."""
    # A single character may be spelt with eighteen.
    key = spelling(text[: LONGEST + 1])
    if (longest := len(text) if len(text) > LONGEST else len(key)) > LONGEST:
        return f"must have at most {LONGEST} characters, not {longest}"
    # Formatting characters, such as those that turn the direction of writing, would change what a reader sees.
    if not text.isprintable() and any(unicodedata.category(character).startswith("C") for character in text):
        return "must not contain control characters"
    return None if key else "must have letters"


def stem(key: str) -> str:
    """Cuts a spelling to a rough stem shared by singular and plural: "horse" and "horses" become "hor"."""
    before, space, word = key.rpartition(" ")
    word = _IRREGULAR.get(word, word)
    while (shorter := _SILENT.sub("", _PLURAL.sub("", word))) != word:
        word = shorter
    for ending, instead in _ENDINGS:
        if word.endswith(ending):
            return before + space + word.removesuffix(ending) + instead
    return before + space + word
